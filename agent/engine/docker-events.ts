/**
 * The Docker Engine's events, for ever. In: the engine's API. Out: what happens to containers, and whether the
 * engine answers at all: a process that hangs keeps its connections open, so it is asked now and then.
 */
import { isShoalError, ShoalError } from '../../proto/errors.ts';
import { type Clock, delay, type Random, type Timer } from '../../proto/ports.ts';
import type { DockerApi } from './docker-api.ts';
import { jsonLines } from './docker-stream.ts';
import type { EngineEvent } from './engine.ts';

const firstReconnectMs = 100;
const lastReconnectMs = 2_000;
const askEveryMs = 5_000;
/** Longer than an engine is silent that has much to do on a machine with few processors. */
const answerWithinMs = 10_000;
const watchedActions = ['start', 'die', 'oom', 'destroy', 'health_status'] as const;
type WatchedAction = (typeof watchedActions)[number];

export interface EventSource {
  readonly api: DockerApi;
  readonly clock: Clock;
  readonly random: Random;
}

/** Tells `listener` of every event until `signal`, connecting again whenever the connection ends. */
export async function followEvents(
  source: EventSource,
  listener: (event: EngineEvent) => void,
  signal: AbortSignal,
): Promise<void> {
  const { clock, random } = source;
  let waitMs = firstReconnectMs;
  let isLost = false;
  while (!signal.aborted) {
    const reason = await oneConnection(source, signal, listener, () => {
      waitMs = firstReconnectMs;
      isLost = false;
    });
    if (signal.aborted) return;
    if (!isLost) listener({ kind: 'engine-lost', reason });
    isLost = true;
    await delay(clock, waitMs * (0.5 + random.float() / 2));
    waitMs = Math.min(waitMs * 2, lastReconnectMs);
  }
}

/** Resolves with why it ended; `onOpen` comes before the first event. */
async function oneConnection(
  source: EventSource,
  signal: AbortSignal,
  listener: (event: EngineEvent) => void,
  onOpen: () => void,
): Promise<string> {
  const connection = new AbortController();
  const end = (): void => connection.abort(signal.reason);
  signal.addEventListener('abort', end, { once: true });
  const stopAsking = askWhetherItLives(source, connection);
  try {
    const filters = JSON.stringify({ type: ['container'], event: watchedActions });
    const events = await source.api.stream({
      method: 'GET',
      path: '/events',
      query: { filters },
      signal: connection.signal,
    });
    onOpen();
    listener({ kind: 'engine-back' });
    for await (const event of jsonLines(events)) {
      const read = readEvent(event);
      if (read !== undefined && !connection.signal.aborted) listener(read);
    }
    return 'the event stream ended';
  } catch (error) {
    const { reason } = connection.signal;
    if (isShoalError(reason)) return reason.message;
    return isShoalError(error) ? error.message : 'the engine closed the connection';
  } finally {
    stopAsking();
    signal.removeEventListener('abort', end);
  }
}

/** Ends `connection` when the engine leaves a ping without an answer. The answer calls the asking off. */
function askWhetherItLives({ api, clock }: EventSource, connection: AbortController): () => void {
  const { signal } = connection;
  const silence = `the container engine at ${api.address} has not answered for ${answerWithinMs / 1000} s`;
  let timer: Timer | undefined;
  let ping = new AbortController();
  let isOver = false;
  const ask = (): void => {
    ping = new AbortController();
    timer = clock.after(answerWithinMs, () => {
      ping.abort(new ShoalError('unavailable', silence));
      connection.abort(new ShoalError('unavailable', silence));
    });
    // A refusal is an answer, too; that it can't be reached at all, the event stream finds out itself.
    const answered = (): void => {
      timer?.cancel();
      if (!isOver && !signal.aborted) timer = clock.after(askEveryMs, ask);
    };
    api.json({ method: 'GET', path: '/_ping', signal: ping.signal }).then(answered, answered);
  };
  ask();
  return () => {
    isOver = true;
    timer?.cancel();
    ping.abort(new ShoalError('unavailable', 'no longer asked for'));
  };
}

function readEvent(event: unknown): EngineEvent | undefined {
  const { Action, Actor, id } = event as { Action?: string; Actor?: { ID?: string }; id?: string };
  const action = Action?.split(':')[0];
  const containerId = Actor?.ID ?? id;
  if (containerId === undefined || !watchedActions.includes(action as WatchedAction)) return undefined;
  return { kind: 'container', containerId, action: action as WatchedAction };
}
