/** Takes apart the two streams of the Docker Engine API: lines of JSON, and logs (multiplexed or plain). */
import type { EngineLogLine } from './engine.ts';

const headerBytes = 8;
const newline = 0x0a;
const longestLineBytes = 1024 * 1024;

/** Each line of a stream of JSON lines, parsed. A last line without an end counts; blank ones do not. */
export async function* jsonLines(source: AsyncIterable<Uint8Array>): AsyncGenerator<unknown> {
  let rest = '';
  const decoder = new TextDecoder();
  for await (const chunk of source) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) if (line.trim() !== '') yield JSON.parse(line);
  }
  if (rest.trim() !== '') yield JSON.parse(rest);
}

/** Pieces of a multiplexed stream: 8 bytes of header (stream, three zeros, length), then the payload. */
export async function* frames(
  source: AsyncIterable<Uint8Array>,
): AsyncGenerator<{ stream: EngineLogLine['stream']; data: Buffer }> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of source) {
    rest = rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([rest, chunk]);
    while (rest.length >= headerBytes) {
      const end = headerBytes + rest.readUInt32BE(4);
      if (rest.length < end) break;
      yield { stream: rest[0] === 2 ? 'stderr' : 'stdout', data: rest.subarray(headerBytes, end) };
      rest = rest.subarray(end);
    }
  }
}

async function* plain(
  source: AsyncIterable<Uint8Array>,
): AsyncGenerator<{ stream: EngineLogLine['stream']; data: Buffer }> {
  for await (const chunk of source) yield { stream: 'stdout', data: Buffer.from(chunk) };
}

/**
 * The lines of a log stream that was asked for with timestamps; a terminal's output is not multiplexed.
 * `hasDetails`: it was asked for with details, too. Data keeps its newline, as Docker's log messages do.
 */
export async function* logLines(
  source: AsyncIterable<Uint8Array>,
  { isTerminal, hasDetails }: { readonly isTerminal: boolean; readonly hasDetails: boolean },
): AsyncGenerator<EngineLogLine> {
  const rest: Record<EngineLogLine['stream'], Buffer> = { stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) };
  for await (const { stream, data } of isTerminal ? plain(source) : frames(source)) {
    let bytes = rest[stream].length === 0 ? data : Buffer.concat([rest[stream], data]);
    for (let at = bytes.indexOf(newline); at !== -1; at = bytes.indexOf(newline)) {
      yield lineOf(stream, bytes.subarray(0, at + 1), hasDetails);
      bytes = bytes.subarray(at + 1);
    }
    if (bytes.length > longestLineBytes) {
      yield lineOf(stream, bytes, hasDetails);
      bytes = Buffer.alloc(0);
    }
    rest[stream] = bytes;
  }
  for (const stream of ['stdout', 'stderr'] as const) {
    if (rest[stream].length > 0) yield lineOf(stream, rest[stream], hasDetails);
  }
}

function lineOf(stream: EngineLogLine['stream'], bytes: Buffer, hasDetails: boolean): EngineLogLine {
  const space = bytes.indexOf(0x20);
  const timestamp = space > 0 ? bytes.subarray(0, space).toString('latin1') : '';
  if (!/^\d{4}-\d\d-\d\dT/.test(timestamp)) return { stream, timestamp: '', data: Uint8Array.from(bytes) };
  const data = bytes.subarray(space + 1);
  if (!hasDetails) return { stream, timestamp, data: Uint8Array.from(data) };
  const end = data.indexOf(0x20);
  const attributes = attributesOf(data.subarray(0, Math.max(0, end)).toString('latin1'));
  return { stream, timestamp, attributes, data: Uint8Array.from(data.subarray(end + 1)) };
}

/** `key=value,key=value`, each escaped as in a URL's query. */
function attributesOf(text: string): Record<string, string> {
  const pairs = text.split(',').filter((pair) => pair !== '');
  return Object.fromEntries(
    pairs.map((pair) => {
      const [key = '', value = ''] = pair
        .split('=', 2)
        .map((part) => new URLSearchParams(`x=${part}`).get('x') ?? '');
      return [key, value];
    }),
  );
}
