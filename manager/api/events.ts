/**
 * GET /events: what changed in the cluster and what changes, in the form of Docker's swarm events. What happened is
 * had from the store, which keeps the last of it (see RecentEvents).
 */
import { type Request, Router } from 'express';
import { ShoalError } from '../../proto/errors.ts';
import type { ClusterEvent } from '../store/cluster-event.ts';
import type { Store } from '../store/store.ts';
import type { ApiHost } from './contract.ts';
import { checkFilters, type Filters, hasLabels, isAsked, readFilters, valuesOf } from './filters.ts';
import { readTime } from './logs.ts';
import { managedCluster, query } from './request.ts';

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

export function eventRoutes(host: ApiHost): Router {
  const routes = Router();
  routes.get('/events', async (request, response) => {
    const asked = readEventQuery(request);
    const { store } = await managedCluster(host);
    const abort = new AbortController();
    response.on('close', () => abort.abort());
    const now = host.clock.now();
    const timer =
      asked.untilMs === undefined || asked.untilMs <= now
        ? undefined
        : host.clock.after(asked.untilMs - now, () => abort.abort());
    response.type('application/json');
    response.flushHeaders();
    try {
      for await (const message of clusterEventStream(store, asked, now, abort.signal)) {
        response.write(`${JSON.stringify(message)}\n`);
      }
    } finally {
      timer?.cancel();
      response.end();
    }
  });
  return routes;
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
