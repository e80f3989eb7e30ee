/**
 * The container engine of this node as the API sees it: where requests that are the engine's go, and short questions
 * of our own for answers that both have a part in. In: the host's connections. Out: JSON, streams, the version that both
 * speak. It remembers only what the engine said last of its own version.
 */
import http, { type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { isShoalError, messageOf, ShoalError } from '../../proto/errors.ts';
import type { Clock } from '../../proto/ports.ts';
import type { ApiHost } from './contract.ts';
import { maximumMinor } from './request.ts';

/** Clients ask for the version before anything else: an engine that hangs must not make them hang. */
const pingWithinMs = 2_000;

const readWithinMs = 10_000;
const changeWithinMs = 60_000;

export interface EngineQuestion {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** With its query, without a version. */
  readonly path: string;
  /** JSON, as text. */
  readonly body?: string;
  readonly signal?: AbortSignal;
}

export interface EngineAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Undefined when it is empty or none. */
  readonly json: unknown;
}

export class LocalEngine {
  readonly #host: ApiHost;
  #minor = maximumMinor;
  #isKnown = false;

  constructor(host: ApiHost) {
    this.#host = host;
  }

  get clock(): Clock {
    return this.#host.clock;
  }

  /** A connection of one's own; rejects with a ShoalError that says why there is none. */
  async connect(): Promise<Duplex> {
    return this.#host.connectEngine();
  }

  /** Minor version of API 1.x that this API and the engine both speak, as far as is known. */
  get minor(): number {
    return this.#minor;
  }

  /**
   * `path` with the version that is spoken with the engine on behalf of a client: the one it asked for, or the engine's
   * newest when that is older, for our share of an answer is not bound to it.
   */
  async spoken(asked: number | undefined, path: string): Promise<string> {
    if (asked === undefined) return path;
    if (!this.#isKnown) await this.ping();
    return `/v1.${Math.min(asked, this.#minor)}${path}`;
  }

  /** What the engine says of itself to a ping; undefined when it does not answer in time. */
  async ping(): Promise<IncomingHttpHeaders | undefined> {
    const late = new AbortController();
    const timer = this.#host.clock.after(pingWithinMs, () => late.abort());
    try {
      const { headers } = await this.ask({ method: 'GET', path: '/_ping', signal: late.signal });
      const minor = /^1\.(\d+)$/.exec(String(headers['api-version'] ?? ''))?.[1];
      this.#isKnown = true;
      if (minor !== undefined) this.#minor = Math.min(maximumMinor, Number(minor));
      return headers;
    } catch {
      return undefined;
    } finally {
      timer.cancel();
    }
  }

  /**
   * One short question. Rejects with ShoalError when there is no engine to ask, or none that answers: what the cluster
   * has to say must not wait for an engine that hangs. A refusal is an answer.
   */
  async ask(question: EngineQuestion): Promise<EngineAnswer> {
    const late = new AbortController();
    const boundMs = question.method === 'GET' ? readWithinMs : changeWithinMs;
    const timer = this.#host.clock.after(boundMs, () => late.abort());
    const signal = question.signal ? AbortSignal.any([question.signal, late.signal]) : late.signal;
    try {
      return await this.read(await this.stream({ ...question, signal }));
    } catch (error) {
      if (!late.signal.aborted) throw error;
      throw this.away(new Error(`nothing came within ${boundMs / 1000} s`));
    } finally {
      timer.cancel();
    }
  }

  /** All of an answer that has begun. */
  async read(answer: IncomingMessage): Promise<EngineAnswer> {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of answer) chunks.push(chunk as Buffer);
    } catch (error) {
      throw this.away(error);
    }
    const text = Buffer.concat(chunks).toString('utf8');
    const isJson = (answer.headers['content-type'] ?? '').startsWith('application/json');
    return {
      status: answer.statusCode ?? 0,
      headers: answer.headers,
      json: isJson && text !== '' ? JSON.parse(text) : undefined,
    };
  }

  /** As ask; resolves when the answer begins. */
  async stream(question: EngineQuestion): Promise<IncomingMessage> {
    const connection = await this.connect();
    const { body: text } = question;
    return new Promise((resolve, reject) => {
      const request = http.request({
        method: question.method,
        path: question.path,
        headers: {
          Host: 'engine',
          ...(text === undefined
            ? {}
            : { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) }),
        },
        createConnection: () => connection,
        ...(question.signal ? { signal: question.signal } : {}),
      });
      request.once('response', resolve);
      request.once('error', (error) => reject(this.away(error)));
      request.end(text);
    });
  }

  /** An engine that does not answer, in words for whoever wanted something of it. */
  away(error: unknown): ShoalError {
    if (isShoalError(error)) return error;
    const message = `the container engine of this node does not answer: ${messageOf(error)}. Is it running?`;
    return new ShoalError('unavailable', message, { cause: error });
  }
}

/** The engine's refusal as a fault of ours: its status, its words. */
export function refusalOf({ status, json }: EngineAnswer): ShoalError {
  const message = String((json as { message?: unknown } | undefined)?.message ?? `the engine said ${status}`);
  const codes = {
    403: 'permission-denied',
    404: 'not-found',
    409: 'conflict',
    501: 'not-supported',
  } as const;
  const code = codes[status as keyof typeof codes] ?? (status < 500 ? 'invalid-argument' : 'internal');
  return new ShoalError(code, message);
}
