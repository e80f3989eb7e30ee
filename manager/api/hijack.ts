/**
 * Connections that cease to speak HTTP: attach, exec, BuildKit's session. In: a client's connection and what was
 * read of it. Out: the same bytes to the engine and back; a client that ends what it sends is still told the rest (a
 * program that reads its input to the end must see that end, and be heard after it). It looks at one thing only, the
 * head of the engine's answer: an engine that answers with HTTP after all has refused, and the connection then ends
 * with that answer, for nobody knows any more where the client's next request begins.
 */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { isShoalError, messageOf } from '../../proto/errors.ts';
import type { Clock } from '../../proto/ports.ts';
import type { LocalEngine } from './local-engine.ts';

const headEnd = Buffer.from('\r\n\r\n');
const maximumHeadBytes = 256 * 1024;
const lingerMs = 5_000;

/** Joins `client`, of which `sent` has been read already, to the engine. */
export async function takeOver(client: Duplex, sent: Buffer, engine: LocalEngine): Promise<void> {
  client.pause();
  client.on('error', () => client.destroy());
  let other: Duplex;
  try {
    other = await engine.connect();
  } catch (error) {
    refuse(client, error);
    return;
  }
  if (client.destroyed) {
    other.destroy();
    return;
  }
  keepTogether(client, other, engine.clock);
  other.write(sent);
  client.pipe(other);
  const answered = (head: Buffer, rest: Buffer): void => {
    const isStream = isBareStream(head);
    client.write(Buffer.concat([isStream ? head : lastAnswer(head), rest]));
    if (!isStream) {
      client.unpipe(other);
      client.resume();
      // An engine that hears of no further request closes the connection after its answer.
      other.end();
    }
    other.pipe(client);
  };
  readHead(other, answered);
}

/**
 * A client may end what it sends and still listen. An engine that has said all has no use for more: the client is told
 * the end, and has a moment to hear it and hang up, for a connection that is closed on what is still being written to it
 * looks broken to its writer. Whoever breaks off ends both at once.
 */
function keepTogether(client: Duplex, engine: Duplex, clock: Clock): void {
  const end = (): void => {
    client.destroy();
    engine.destroy();
  };
  client.once('close', () => engine.destroy());
  engine.on('error', () => end());
  engine.once('close', () => {
    if (!engine.readableEnded) end();
  });
  engine.once('end', () => {
    client.unpipe(engine);
    client.resume();
    engine.end();
    const linger = (): void => {
      if (client.readableEnded) {
        end();
        return;
      }
      const timer = clock.after(lingerMs, end);
      client.once('end', end);
      client.once('close', () => timer.cancel());
    };
    if (client.writableFinished) linger();
    else client.once('finish', linger);
  });
}

/** Calls back with the head of an answer, and what came with it. Interim answers are part of the head. */
function readHead(from: Duplex, then: (head: Buffer, rest: Buffer) => void): void {
  let read = Buffer.alloc(0);
  let begin = 0;
  const onData = (chunk: Buffer): void => {
    read = Buffer.concat([read, chunk]);
    for (;;) {
      const at = read.indexOf(headEnd, begin);
      if (at < 0 && read.length > maximumHeadBytes) from.destroy();
      if (at < 0) return;
      const end = at + headEnd.length;
      if (/^HTTP\/1\.[01] 100 /.test(read.toString('latin1', begin, begin + 16))) {
        begin = end;
        continue;
      }
      from.off('data', onData);
      from.pause();
      then(read.subarray(0, end), read.subarray(end));
      return;
    }
  };
  from.on('data', onData);
}

/** Whether what follows a head is no HTTP: the engine switched, or answered 200 to what goes on both ways. */
function isBareStream(head: Buffer): boolean {
  const text = head.toString('latin1');
  const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(text.slice(text.lastIndexOf('HTTP/1.')))?.[1]);
  return status === 101 || (status === 200 && !/\r\n(content-length|transfer-encoding):/i.test(text));
}

function lastAnswer(head: Buffer): Buffer {
  const text = head.toString('latin1').replace(/\r\nconnection:[^\r]*/gi, '');
  return Buffer.from(`${text.slice(0, -2)}Connection: close\r\n\r\n`, 'latin1');
}

function refuse(client: Duplex, error: unknown): void {
  const text = `${JSON.stringify({ message: messageOf(error) })}\n`;
  const status = isShoalError(error) ? error.httpStatus : 503;
  const words = { 501: 'Not Implemented', 503: 'Service Unavailable' }[status] ?? 'Error';
  client.end(
    `HTTP/1.1 ${status} ${words}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`,
  );
  client.resume();
}

/** A request's head as it was sent; `without` are names of headers to leave out, in small letters. */
export function headOf(request: IncomingMessage, without: readonly string[] = []): Buffer {
  const { rawHeaders } = request;
  const lines = [`${request.method} ${request.url} HTTP/${request.httpVersion}`];
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index]!;
    if (!without.includes(name.toLowerCase())) lines.push(`${name}: ${rawHeaders[index + 1]}`);
  }
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');
}
