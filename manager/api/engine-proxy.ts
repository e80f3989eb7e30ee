/**
 * Requests that are the container engine's, passed on to it. In: a request as it came. Out: the engine's answer, as
 * it comes: method, path, headers and bytes are the client's and the engine's own, nothing is gathered, and
 * a slow reader slows down who writes. It knows no container. A client that goes away ends the
 * engine's request, too. Headers that are about one connection only (RFC 9110, 7.6.1) are not passed on.
 */
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import { pipeline } from 'node:stream';
import { isShoalError, messageOf } from '../../proto/errors.ts';
import type { Log } from '../../proto/ports.ts';
import type { LocalEngine } from './local-engine.ts';

const ofOneConnection: ReadonlySet<string> = new Set([
  'connection',
  'expect',
  'keep-alive',
  'proxy-connection',
  'upgrade',
]);

/**
 * Answers `request` with what the engine says; a 503 with the reason when it can't be reached. `body`: the request's, where
 * it was read already.
 */
export async function passOn(
  engine: LocalEngine,
  request: IncomingMessage,
  response: ServerResponse,
  log: Log,
  body?: Buffer,
): Promise<void> {
  let connection: Awaited<ReturnType<LocalEngine['connect']>>;
  try {
    connection = await engine.connect();
  } catch (error) {
    refuse(request, response, error);
    return;
  }
  if (response.destroyed) {
    connection.destroy();
    return;
  }
  const passed = http.request({
    method: request.method,
    path: request.url,
    headers: requestHeaders(request),
    createConnection: () => connection,
  });
  response.once('close', () => passed.destroy());
  passed.once('response', (answer) => answerWith(answer, request, response));
  passed.on('error', (error) => {
    // The engine may answer, and hang up, before it has been sent all of a body.
    if (response.headersSent) return;
    if (!response.destroyed) log.warn({ path: request.url, error: messageOf(error) }, 'the engine hung up');
    refuse(request, response, engine.away(error));
  });
  // The engine may have something to say before the body comes.
  passed.flushHeaders();
  if (body === undefined) request.pipe(passed);
  else passed.end(body);
}

function answerWith(answer: IncomingMessage, request: IncomingMessage, response: ServerResponse): void {
  const { headers } = answer;
  const hasEnd = headers['content-length'] !== undefined || headers['transfer-encoding'] !== undefined;
  // Such an answer ends when the connection does, and so does ours.
  if (!hasEnd) response.useChunkedEncodingByDefault = false;
  if (!hasEnd || !request.complete) response.shouldKeepAlive = false;
  // HTTP/1.0 knows no chunks: there, too, the connection's end is the answer's.
  const dropped = request.httpVersion === '1.0' ? ['transfer-encoding'] : [];
  const passed = passedHeaders(answer.rawHeaders, dropped);
  response.writeHead(answer.statusCode ?? 502, answer.statusMessage, passed);
  // What is followed may have nothing to say for hours.
  response.flushHeaders();
  pipeline(answer, response, () => {});
}

function requestHeaders(request: IncomingMessage): string[] {
  const headers = passedHeaders(request.rawHeaders);
  // HTTP/1.0 knows no hosts, and what is passed on is HTTP/1.1.
  if (request.headers.host === undefined) headers.push('Host', 'docker');
  const isSized =
    request.headers['content-length'] !== undefined || request.headers['transfer-encoding'] !== undefined;
  const mayHaveBody = !['GET', 'HEAD', 'DELETE', 'OPTIONS'].includes(request.method ?? '');
  // Engines tell a body of no length from none, and Node would announce the former.
  return isSized || !mayHaveBody ? headers : [...headers, 'Content-Length', '0'];
}

/** Names and values in turn, in their order, without those that end here. */
function passedHeaders(raw: readonly string[], dropped: readonly string[] = []): string[] {
  return raw.filter((_text, index) => {
    const name = raw[index - (index % 2)]!.toLowerCase();
    return !ofOneConnection.has(name) && !dropped.includes(name);
  });
}

function refuse(request: IncomingMessage, response: ServerResponse, error: unknown): void {
  if (response.headersSent || response.destroyed) return;
  const text = `${JSON.stringify({ message: messageOf(error) })}\n`;
  // A body that is still under way has nowhere to go.
  if (!request.complete) response.shouldKeepAlive = false;
  response.writeHead(isShoalError(error) ? error.httpStatus : 503, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
  });
  response.end(text);
}
