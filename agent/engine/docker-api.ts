/**
 * One request to the Docker Engine API, through dockerode's modem: typed path, query and body in, JSON or a
 * stream out, and every fault as a ShoalError with the engine's own words. It knows no container.
 */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type ErrorCode, messageOf, ShoalError } from '../../proto/errors.ts';

export interface ApiRequest {
  readonly method: 'GET' | 'POST' | 'DELETE';
  readonly path: string;
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
  readonly body?: unknown;
  /** X-Registry-Auth. */
  readonly registryAuth?: string | undefined;
  readonly signal?: AbortSignal;
}

/** dockerode's way of sending a request. */
export interface Modem {
  dial(options: Dial, callback: (error: unknown, answer: unknown) => void): void;
}

interface Dial {
  path: string;
  method: string;
  statusCodes: Record<number, true>;
  isStream: boolean;
  /** The connection is asked for, to be a bare stream both ways. */
  hijack?: true;
  options: { _query: Record<string, string>; _body: unknown };
  abortSignal?: AbortSignal;
  headers: Record<string, string>;
}

const accepted: Record<number, true> = { 200: true, 201: true, 204: true, 304: true };

/** What an answer is taken as. */
type Shape = 'json' | 'stream' | 'connection';

export class DockerApi {
  readonly address: string;
  readonly #modem: Modem;

  /** `address` is where `modem` leads, for messages. */
  constructor(modem: Modem, address: string) {
    this.#modem = modem;
    this.address = address;
  }

  /** The JSON of the answer (undefined when it is empty). */
  async json<T>(request: ApiRequest): Promise<T> {
    return (await this.#dial(request, 'json')) as T;
  }

  /** The answer as a stream; the request's signal ends it. */
  async stream(request: ApiRequest): Promise<IncomingMessage> {
    return (await this.#dial(request, 'stream')) as IncomingMessage;
  }

  /** The connection itself, which is no HTTP any more after the answer. */
  async takeOver(request: ApiRequest): Promise<Duplex> {
    return (await this.#dial(request, 'connection')) as Duplex;
  }

  #dial(request: ApiRequest, shape: Shape): Promise<unknown> {
    const query: Record<string, string> = {};
    for (const [key, value] of Object.entries(request.query ?? {})) {
      if (value !== undefined) query[key] = String(value);
    }
    return new Promise((resolve, reject) => {
      if (request.signal?.aborted) {
        reject(request.signal.reason);
        return;
      }
      this.#modem.dial(
        {
          path: `${request.path}?`,
          method: request.method,
          statusCodes: accepted,
          isStream: shape !== 'json',
          ...(shape === 'connection' && { hijack: true }),
          options: { _query: query, _body: request.body ?? {} },
          headers: request.registryAuth ? { 'X-Registry-Auth': request.registryAuth } : {},
          ...(request.signal && { abortSignal: request.signal }),
        },
        (error, answer) => {
          if (request.signal?.aborted && error) reject(request.signal.reason);
          else if (error) reject(errorOf(error, this.address));
          else resolve(answer);
        },
      );
    });
  }
}

const codeOfStatus: Readonly<Record<number, ErrorCode>> = {
  404: 'not-found',
  409: 'already-exists',
  501: 'not-supported',
  503: 'unavailable',
};

/** The engine's refusal, or its silence, as a ShoalError. */
export function errorOf(error: unknown, address: string): ShoalError {
  const { statusCode, json } = error as { statusCode?: number; json?: { message?: string } | null };
  if (statusCode === undefined) {
    const message = `Cannot connect to the container engine at ${address}: ${messageOf(error)}. Is it running?`;
    return new ShoalError('unavailable', message, { cause: error });
  }
  const words =
    json?.message ?? messageOf(error).replace(/^\(HTTP code \d+\) (?:unexpected|server error) - /, '');
  return new ShoalError(codeOfStatus[statusCode] ?? 'invalid-argument', words.trim(), {
    cause: error,
    details: { status: String(statusCode) },
  });
}
