/**
 * The client's side of the HTTP API: one request at a time to the daemon named by -H or SHOAL_HOST.
 * Errors of the API arrive as ShoalErrors with the daemon's own sentence.
 */
import { readFileSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { text as readText } from 'node:stream/consumers';
import { type ErrorCode, ShoalError } from '../proto/errors.ts';
import { UsageError } from './usage.ts';

export const defaultHost = 'unix:///run/shoal/shoal.sock';
const apiPrefix = '/v1.47';

/** Where a daemon listens: its socket, or its TCP address with the folder of the client's certificates (none: no TLS). */
export type Host =
  | { readonly kind: 'unix'; readonly path: string }
  | {
      readonly kind: 'tcp';
      readonly hostname: string;
      readonly port: number;
      readonly certPath: string | undefined;
    };

/** Reads `unix:///path` or `tcp://host:port`. Throws UsageError for anything else. */
export function parseHost(text: string, certPath: string): Host {
  if (/^unix:\/\/.+/.test(text)) return { kind: 'unix', path: text.slice('unix://'.length) };
  const tcp = /^tcp:\/\/(\[[^\]]+\]|[^:/]+):(\d+)$/.exec(text);
  if (tcp) return { kind: 'tcp', hostname: tcp[1]!.replace(/^\[|\]$/g, ''), port: Number(tcp[2]), certPath };
  throw new UsageError(`"${text}" is not a host: write unix:///PATH or tcp://HOST:PORT`);
}

export interface Answer<T> {
  readonly body: T;
  readonly headers: IncomingMessage['headers'];
}

export class ApiClient {
  private readonly host: Host;

  private readonly prefix: string;

  /** `prefix` names the API's version in every path; ours unless another daemon is asked. */
  constructor(host: Host, prefix = apiPrefix) {
    this.host = host;
    this.prefix = prefix;
  }

  async get<T>(path: string, query: Record<string, string | undefined> = {}): Promise<T> {
    return (await this.call<T>('GET', path, query)).body;
  }

  async post<T>(
    path: string,
    body?: unknown,
    query: Record<string, string | undefined> = {},
    headers: Record<string, string> = {},
  ): Promise<T> {
    return (await this.call<T>('POST', path, query, body, headers)).body;
  }

  /** Sends bytes as they are. */
  async postBytes<T>(
    path: string,
    bytes: Uint8Array,
    query: Record<string, string>,
    headers: Record<string, string>,
  ): Promise<T> {
    const response = await this.open('POST', path, query, bytes, headers);
    return JSON.parse(await readText(response)) as T;
  }

  async put<T>(path: string, body: unknown, query: Record<string, string | undefined> = {}): Promise<T> {
    return (await this.call<T>('PUT', path, query, body)).body;
  }

  async delete<T>(path: string, query: Record<string, string | undefined> = {}): Promise<T> {
    return (await this.call<T>('DELETE', path, query)).body;
  }

  private async call<T>(
    method: string,
    path: string,
    query: Record<string, string | undefined>,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Answer<T>> {
    const response = await this.open(method, path, query, body, headers);
    const text = await readText(response);
    return { body: (text === '' ? undefined : JSON.parse(text)) as T, headers: response.headers };
  }

  /** Sends a request and answers its response once the head is there and says success. */
  async open(
    method: string,
    path: string,
    query: Record<string, string | undefined> = {},
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<IncomingMessage> {
    const given = Object.entries(query).filter((pair): pair is [string, string] => pair[1] !== undefined);
    const search = given.length > 0 ? `?${new URLSearchParams(given)}` : '';
    const payload = payloadOf(body);
    const response = await this.send(method, `${this.prefix}${path}${search}`, payload, headers);
    const status = response.statusCode ?? 0;
    if (status >= 200 && status < 300) return response;
    const refusal = await readText(response);
    throw new ShoalError(codeOfStatus(status), inOwnWords(messageOfBody(refusal, status)));
  }

  /** Posts JSON and takes the connection over, which is a bare stream both ways from then on. */
  upgrade(path: string, body: unknown): Promise<Duplex> {
    const payload = payloadOf(body);
    const headers = { 'Content-Type': payload!.type, 'Content-Length': payload!.bytes.length };
    const options: RequestOptions = {
      method: 'POST',
      path: `${this.prefix}${path}`,
      headers: { ...headers, Connection: 'Upgrade', Upgrade: 'tcp' },
    };
    return new Promise((resolve, reject) => {
      const request = this.request(options, (response) => {
        void readText(response).then((text) => {
          const status = response.statusCode ?? 0;
          reject(new ShoalError(codeOfStatus(status), inOwnWords(messageOfBody(text, status))));
        }, reject);
      });
      request.on('upgrade', (_response, socket, head) => {
        socket.unshift(head);
        resolve(socket);
      });
      request.on('error', (error) => reject(this.unreachable(error)));
      request.end(payload!.bytes);
    });
  }

  private send(
    method: string,
    path: string,
    payload: Payload | undefined,
    extra: Record<string, string>,
  ): Promise<IncomingMessage> {
    const options: RequestOptions = {
      method,
      path,
      headers: {
        ...(payload ? { 'Content-Type': payload.type, 'Content-Length': payload.bytes.length } : {}),
        ...extra,
      },
    };
    return new Promise((resolve, reject) => {
      const request = this.request(options, resolve);
      request.on('error', (error) => reject(this.unreachable(error)));
      request.end(payload?.bytes);
    });
  }

  private request(options: RequestOptions, onResponse: (response: IncomingMessage) => void) {
    if (this.host.kind === 'unix') return httpRequest({ ...options, socketPath: this.host.path }, onResponse);
    const { hostname, port, certPath } = this.host;
    if (certPath === undefined) return httpRequest({ ...options, hostname, port }, onResponse);
    const pem = (name: string) => readCertificate(certPath, name);
    const tls = { ca: pem('ca.pem'), cert: pem('cert.pem'), key: pem('key.pem') };
    return httpsRequest({ ...options, hostname, port, ...tls }, onResponse);
  }

  private unreachable(error: Error & { code?: string }): ShoalError {
    const where = this.host.kind === 'unix' ? this.host.path : `${this.host.hostname}:${this.host.port}`;
    const reason =
      error.code === 'ENOENT' || error.code === 'ECONNREFUSED'
        ? 'nothing listens there. Is shoald running? Start it with "shoald", or name another daemon with -H or SHOAL_HOST'
        : error.code === 'EACCES'
          ? 'permission denied. Run as root, or as a member of the group that owns the socket'
          : error.message;
    return new ShoalError('unavailable', `cannot connect to the Shoal daemon at ${where}: ${reason}`, {
      cause: error,
    });
  }
}

interface Payload {
  readonly type: string;
  readonly bytes: Uint8Array;
}

/** Bytes go as they are, everything else as JSON. */
function payloadOf(body: unknown): Payload | undefined {
  if (body === undefined) return undefined;
  if (body instanceof Uint8Array) return { type: 'application/octet-stream', bytes: body };
  return { type: 'application/json', bytes: Buffer.from(JSON.stringify(body)) };
}

function readCertificate(folder: string, name: string): Buffer {
  try {
    return readFileSync(join(folder, name));
  } catch (error) {
    throw new ShoalError(
      'invalid-argument',
      `a tcp:// host needs client certificates: ${join(folder, name)} can't be read; set SHOAL_CERT_PATH to a folder with ca.pem, cert.pem and key.pem`,
      { cause: error },
    );
  }
}

function codeOfStatus(status: number): ErrorCode {
  if (status === 404) return 'not-found';
  if (status === 409) return 'conflict';
  if (status === 503) return 'unavailable';
  return status >= 500 ? 'internal' : 'invalid-argument';
}

/** The daemon talks to docker's users; whoever reads this typed `shoal`. */
function inOwnWords(message: string): string {
  return message.replace(/(?<=["'`])docker (?=(?:swarm|node|service|stack|info|secret|config)\b)/g, 'shoal ');
}

function messageOfBody(text: string, status: number): string {
  try {
    const { message } = JSON.parse(text) as { message?: string };
    if (message) return message;
  } catch {
    // not JSON: the text itself is the best there is
  }
  return text.trim() || `the daemon answered status ${status}`;
}
