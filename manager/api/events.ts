/** GET /events: what changes in the cluster, as it happens, in the form of Docker's swarm events. */
import { type Response, Router } from 'express';
import type { ClusterNode, Service } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { Kind } from '../store/tables.ts';
import type { StoreEvent } from '../store/watch.ts';
import type { ApiHost } from './contract.ts';
import { checkFilters, type Filters, hasLabels, isAsked, readFilters, valuesOf } from './filters.ts';
import { readTime } from './logs.ts';
import { calledBy } from './lookup.ts';
import { managedCluster, query } from './request.ts';

/** Kinds of objects that clients hear of. */
const kindsTold: readonly Kind[] = ['service', 'node', 'network', 'secret', 'config'];

/** Clients that ask for events since the moment at which they asked mean: from now on. */
const sinceToleranceMs = 10_000;

export function eventRoutes(host: ApiHost): Router {
  const routes = Router();
  routes.get('/events', async (request, response) => {
    const filters = readFilters(request);
    const names = ['type', 'event', 'scope', 'service', 'node', 'network', 'secret', 'config', 'label'];
    checkFilters(filters, [...names, 'container', 'image', 'volume', 'plugin', 'daemon']);
    const sinceMs = readTime('since', query(request, 'since'));
    const untilMs = readTime('until', query(request, 'until'));
    if (sinceMs !== undefined && sinceMs < host.clock.now() - sinceToleranceMs) {
      throw new ShoalError(
        'not-supported',
        'past events are not kept; leave --since out to see those to come',
      );
    }
    const { store } = await managedCluster(host);
    const queue = store.watch();
    response.on('close', () => queue.close());
    const timer =
      untilMs === undefined ? undefined : host.clock.after(untilMs - host.clock.now(), () => queue.close());
    response.type('application/json');
    response.flushHeaders();
    try {
      for await (const commit of queue) {
        if (commit.kind === 'changed') tell(response, filters, commit.events, commit.now);
      }
    } finally {
      timer?.cancel();
      response.end();
    }
  });
  return routes;
}

function tell(response: Response, filters: Filters, events: readonly StoreEvent[], nowMs: number): void {
  for (const event of events) {
    const message = messageOf(event);
    if (message && isWanted(filters, event, message)) {
      response.write(
        `${JSON.stringify({ ...message, scope: 'swarm', time: Math.floor(nowMs / 1000), timeNano: nowMs * 1e6 })}\n`,
      );
    }
  }
}

interface Message {
  readonly Type: string;
  readonly Action: string;
  readonly Actor: { readonly ID: string; readonly Attributes: Record<string, string> };
}

function messageOf(event: StoreEvent): Message | undefined {
  if (!kindsTold.includes(event.kind)) return undefined;
  const changes = changesOf(event);
  // An update that changed nothing a client may see, such as a node's internal bookkeeping.
  if (event.op === 'update' && event.kind === 'node' && Object.keys(changes).length === 0) return undefined;
  const name = calledBy(event.kind, event.object);
  return {
    Type: event.kind,
    Action: event.op,
    Actor: { ID: event.object.ID, Attributes: { name, ...changes } },
  };
}

/** Old and new values of what people watch for. */
function changesOf(event: StoreEvent): Record<string, string> {
  if (event.op !== 'update' || !event.previous) return {};
  if (event.kind === 'service') return serviceChanges(event.previous, event.object);
  return event.kind === 'node' ? nodeChanges(event.previous, event.object) : {};
}

function serviceChanges(before: Service, after: Service): Record<string, string> {
  return {
    ...change(
      'image',
      before.Spec.TaskTemplate.ContainerSpec.Image,
      after.Spec.TaskTemplate.ContainerSpec.Image,
    ),
    ...change('replicas', before.Spec.Mode.Replicated?.Replicas, after.Spec.Mode.Replicated?.Replicas),
    ...change('updatestate', before.UpdateStatus?.State, after.UpdateStatus?.State),
  };
}

function nodeChanges(before: ClusterNode, after: ClusterNode): Record<string, string> {
  return {
    ...change('availability', before.Spec.Availability, after.Spec.Availability),
    ...change('role', before.Spec.Role, after.Spec.Role),
    ...change('state', before.Status.State, after.Status.State),
    ...change('leader', before.ManagerStatus?.Leader, after.ManagerStatus?.Leader),
    ...change('reachability', before.ManagerStatus?.Reachability, after.ManagerStatus?.Reachability),
  };
}

function change(name: string, before: unknown, after: unknown): Record<string, string> {
  if (before === after) return {};
  const told = (which: string, value: unknown) =>
    value === undefined ? {} : { [`${name}.${which}`]: String(value) };
  return { ...told('new', after), ...told('old', before) };
}

function isWanted(filters: Filters, event: StoreEvent, message: Message): boolean {
  const { ID, Attributes } = message.Actor;
  const wanted = valuesOf(filters, event.kind);
  const isNamed = wanted.length === 0 || wanted.some((one) => one === Attributes.name || ID.startsWith(one));
  const labels = 'Spec' in event.object && 'Labels' in event.object.Spec ? event.object.Spec.Labels : {};
  return (
    isNamed &&
    isAsked(filters, 'type', message.Type) &&
    isAsked(filters, 'event', message.Action) &&
    isAsked(filters, 'scope', 'swarm') &&
    hasLabels(filters, 'label', labels)
  );
}
