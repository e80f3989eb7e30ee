/**
 * GET /events: what changed and what changes, in the cluster, in the form of Docker's swarm events, and on this node's
 * engine. What happened in the cluster is had from the store, which keeps the last of it (see RecentEvents).
 */
import { type Request, type Response, Router } from 'express';
import { isShoalError, ShoalError } from '../../proto/errors.ts';
import type { ClusterEvent } from '../store/cluster-event.ts';
import type { Store } from '../store/store.ts';
import type { ApiHost } from './contract.ts';
import { type EngineEventQuery, engineEvents, engineTime, wantsEngineEvents } from './engine-events.ts';
import { checkFilters, type Filters, hasLabels, isAsked, readFilters, valuesOf } from './filters.ts';
import { written } from './list.ts';
import type { LocalEngine } from './local-engine.ts';
import { readTime } from './logs.ts';
import { askedVersion, managedCluster, query } from './request.ts';

/** What a client asked to hear. Times in ms since the epoch. */
export interface EventQuery {
  readonly filters: Filters;
  /** From then on, as far as is remembered; absent with untilMs absent, too: only what is to come. */
  readonly sinceMs?: number;
  /** In the past: nothing that is to come. */
  readonly untilMs?: number;
}

/** An event as clients get it. */
export interface EventMessage {
  readonly Type: string;
  readonly Action: string;
  readonly Actor: { readonly ID: string; readonly Attributes: Readonly<Record<string, string>> };
  readonly scope: 'swarm' | 'local';
  /** Seconds and nanoseconds since the epoch. */
  readonly time: number;
  readonly timeNano: number;
}

/** Filters that name an object of one type: an event of any other type has no such name and does not pass. */
const nameFilters = [
  ...['service', 'node', 'network', 'secret', 'config'],
  ...['container', 'image', 'volume', 'plugin', 'daemon'],
];

export function eventRoutes(host: ApiHost, engine: LocalEngine): Router {
  const routes = Router();
  routes.get('/events', async (request, response) => {
    const asked = readEventQuery(request);
    const now = host.clock.now();
    const abort = new AbortController();
    response.on('close', () => abort.abort());
    const { untilMs } = asked;
    const timer =
      untilMs === undefined || untilMs <= now
        ? undefined
        : host.clock.after(untilMs - now, () => abort.abort());
    try {
      await tellEvents({ host, engine, request, response, asked, now, signal: abort.signal });
    } finally {
      timer?.cancel();
      abort.abort();
    }
  });
  return routes;
}

interface Telling {
  readonly host: ApiHost;
  readonly engine: LocalEngine;
  readonly request: Request;
  readonly response: Response;
  readonly asked: EventQuery;
  readonly now: number;
  readonly signal: AbortSignal;
}

/**
 * Tells what happened, the cluster's events and the engine's in one order, then of each what comes. On a node that is no
 * manager they are the engine's alone. Without an engine they are the cluster's alone; an engine that ends ends the whole,
 * for a client must not think that nothing happens there.
 */
async function tellEvents(telling: Telling): Promise<void> {
  const { host, engine, request, response, asked, now, signal } = telling;
  const isManager = host.membership().kind === 'manager';
  const filters = query(request, 'filters');
  const local = (times: Omit<EngineEventQuery, 'filters'>) =>
    engineEvents(engine, askedVersion(request), { filters, ...times }, signal);
  if (!isManager) {
    const [since, until] = [query(request, 'since'), query(request, 'until')];
    const lines = await local({ ...(since ? { since } : {}), ...(until ? { until } : {}) });
    begin(response);
    await tellLines(response, lines);
    response.end();
    return;
  }
  const { store } = await managedCluster(host);
  const { sinceMs, untilMs } = asked;
  const isPast = untilMs !== undefined && untilMs <= now;
  // In one turn, so that nothing falls between what was and what comes.
  const past = pastClusterEvents(store, asked);
  const coming = clusterEventStream(store, { filters: asked.filters }, now, signal);
  const first = isPast ? undefined : coming.next();
  let told: AsyncIterable<string> | undefined;
  let before: AsyncIterable<string> | undefined;
  if (wantsEngineEvents(asked.filters)) {
    const isAsked = sinceMs !== undefined || untilMs !== undefined;
    try {
      const since = engineTime(sinceMs ?? 0);
      if (isAsked) before = await local({ since, until: engineTime(isPast ? untilMs + 1 : now, true) });
      if (!isPast) told = await local(isAsked ? { since: engineTime(now) } : {});
    } catch (error) {
      if (!isShoalError(error, 'unavailable') && !isShoalError(error, 'not-supported')) throw error;
    }
  }
  begin(response);
  for (const line of await inOrder(past, before)) await written(response, line);
  if (first) {
    const cluster = tellCluster(response, first, coming);
    await (told ? Promise.race([cluster, tellLines(response, told)]) : cluster);
  }
  response.end();
}

function begin(response: Response): void {
  response.type('application/json');
  response.flushHeaders();
}

/** Events that happened, as lines, in the order of their times. */
async function inOrder(
  cluster: readonly EventMessage[],
  engine: AsyncIterable<string> | undefined,
): Promise<string[]> {
  const all = cluster.map((message) => ({ timeNano: message.timeNano, line: lineOf(message) }));
  for await (const lines of engine ?? []) {
    for (const line of lines.split('\n')) {
      if (line === '') continue;
      const { timeNano = 0 } = JSON.parse(line) as { timeNano?: number };
      all.push({ timeNano, line: `${line}\n` });
    }
  }
  return all.sort((a, b) => a.timeNano - b.timeNano).map(({ line }) => line);
}

async function tellCluster(
  response: Response,
  first: Promise<IteratorResult<EventMessage, void>>,
  coming: AsyncGenerator<EventMessage, void, undefined>,
): Promise<void> {
  for (let next = await first; !next.done; next = await coming.next()) {
    await written(response, lineOf(next.value));
  }
}

async function tellLines(response: Response, lines: AsyncIterable<string>): Promise<void> {
  for await (const text of lines) await written(response, text);
}

function lineOf(message: EventMessage): string {
  return `${JSON.stringify(message)}\n`;
}

/** The query of GET /events. Throws ShoalError 'invalid-argument', in Docker's words where it has some. */
export function readEventQuery(request: Request): EventQuery {
  const filters = readFilters(request);
  checkFilters(filters, ['type', 'event', 'scope', 'label', ...nameFilters]);
  const [since, until] = [query(request, 'since'), query(request, 'until')];
  const [sinceMs, untilMs] = [readTime('since', since), readTime('until', until)];
  if (sinceMs !== undefined && untilMs !== undefined && untilMs < sinceMs) {
    throw new ShoalError(
      'invalid-argument',
      `\`since\` time (${since}) cannot be after \`until\` time (${until})`,
    );
  }
  return {
    filters,
    ...(sinceMs === undefined ? {} : { sinceMs }),
    ...(untilMs === undefined ? {} : { untilMs }),
  };
}

/**
 * The cluster's events of `asked`, in order: first those that happened, as far as they are remembered, then those to
 * come until `signal`. Ends by itself when `asked` is of the past alone. A manager that falls behind and is brought
 * up to date by a snapshot tells what it missed, as far as the snapshot remembers it.
 */
export async function* clusterEventStream(
  store: Store,
  asked: EventQuery,
  now: number,
  signal: AbortSignal,
): AsyncGenerator<EventMessage, void, undefined> {
  // In one turn, so that nothing falls between what was and what comes.
  const queue = store.watch();
  const past = pastClusterEvents(store, asked);
  let last = store.index;
  const close = (): void => queue.close();
  signal.addEventListener('abort', close);
  try {
    yield* past;
    if (signal.aborted || (asked.untilMs !== undefined && asked.untilMs <= now)) return;
    for await (const commit of queue) {
      const events =
        commit.kind === 'changed'
          ? commit.told
          : store.recentEvents().filter(({ index }) => index > last && index <= commit.index);
      last = commit.index;
      for (const event of events) if (isWanted(asked.filters, event)) yield messageOf(event);
    }
  } finally {
    signal.removeEventListener('abort', close);
    queue.close();
  }
}

/** Those of `asked` that happened and are remembered, in order; none when it names neither since nor until. */
export function pastClusterEvents(store: Store, asked: EventQuery): EventMessage[] {
  const { filters, sinceMs, untilMs } = asked;
  if (sinceMs === undefined && untilMs === undefined) return [];
  return store
    .recentEvents()
    .filter(({ timeMs }) => timeMs >= (sinceMs ?? 0) && timeMs <= (untilMs ?? Number.POSITIVE_INFINITY))
    .filter((event) => isWanted(filters, event))
    .map(messageOf);
}

function messageOf({ type, action, id, attributes, timeMs }: ClusterEvent): EventMessage {
  return {
    Type: type,
    Action: action,
    Actor: { ID: id, Attributes: attributes },
    scope: 'swarm',
    time: Math.floor(timeMs / 1000),
    timeNano: timeMs * 1e6,
  };
}

function isWanted(filters: Filters, event: ClusterEvent): boolean {
  const isCalled = (filter: string): boolean => {
    const wanted = valuesOf(filters, filter);
    if (wanted.length === 0) return true;
    if (filter !== event.type) return false;
    return wanted.some((one) => event.attributes.name?.startsWith(one) || event.id.startsWith(one));
  };
  return (
    nameFilters.every(isCalled) &&
    isAsked(filters, 'type', event.type) &&
    isAsked(filters, 'event', event.action) &&
    isAsked(filters, 'scope', 'swarm') &&
    hasLabels(filters, 'label', event.labels)
  );
}
