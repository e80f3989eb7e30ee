/**
 * The container engine's part of /events. In: a client's query. Out: the engine's events as lines, as it wrote them;
 * what happened apart from what is to come, so that the former can be put in order with the cluster's.
 */
import type { IncomingMessage } from 'node:http';
import { type Filters, valuesOf } from './filters.ts';
import { type LocalEngine, refusalOf } from './local-engine.ts';

/** Types of which the engine has no events. */
const clusterTypes: readonly string[] = ['config', 'node', 'secret', 'service'];

/** Whether the engine may have events that pass. */
export function wantsEngineEvents(filters: Filters): boolean {
  const scopes = valuesOf(filters, 'scope');
  const types = valuesOf(filters, 'type');
  return (
    (scopes.length === 0 || scopes.includes('local')) &&
    (types.length === 0 || types.some((type) => !clusterTypes.includes(type)))
  );
}

export interface EngineEventQuery {
  /** As the client sent them: JSON. Empty: none. */
  readonly filters: string;
  /** Seconds since the epoch, with a fraction. */
  readonly since?: string;
  readonly until?: string;
}

/** Ms since the epoch as the engine reads times, one nanosecond earlier when `isBefore`. */
export function engineTime(ms: number, isBefore = false): string {
  const nanoseconds = BigInt(Math.floor(ms)) * 1_000_000n - (isBefore ? 1n : 0n);
  const fraction = String(nanoseconds % 1_000_000_000n).padStart(9, '0');
  return `${nanoseconds / 1_000_000_000n}.${fraction}`;
}

/** The engine's events, whole lines each with its newline. Rejects with the engine's refusal. */
export async function engineEvents(
  engine: LocalEngine,
  asked: number | undefined,
  { filters, since, until }: EngineEventQuery,
  signal: AbortSignal,
): Promise<AsyncIterable<string>> {
  const query = new URLSearchParams({
    ...(since === undefined ? {} : { since }),
    ...(until === undefined ? {} : { until }),
    ...(filters === '' ? {} : { filters }),
  });
  const path = await engine.spoken(asked, `/events?${query.toString()}`);
  const answer = await engine.stream({ method: 'GET', path, signal });
  if (answer.statusCode === 200) return wholeLines(answer, signal);
  throw refusalOf(await engine.read(answer));
}

async function* wholeLines(answer: IncomingMessage, signal: AbortSignal): AsyncGenerator<string> {
  let rest = '';
  answer.setEncoding('utf8');
  try {
    for await (const chunk of answer) {
      const text = rest + String(chunk);
      const end = text.lastIndexOf('\n') + 1;
      rest = text.slice(end);
      if (end > 0) yield text.slice(0, end);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
