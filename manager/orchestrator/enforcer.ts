/**
 * Takes tasks off nodes that can't carry them any more: a node whose resources became fewer keeps its oldest tasks
 * as far as these reach, and one whose engine has not answered for half a minute is given up like a lost one, though
 * its agent is there, by the services that do not ask to wait longer (`shoal.partition`). It marks the tasks (Private.Eviction) with the reason; their services' reconcilers do the rest,
 * as for a drained node. What constraints say of a node is looked at by these (context.ts).
 *
 * A key is a node.
 */
import {
  type ClusterNode,
  engineUnavailableLabel,
  type GenericResource,
  type Service,
  type Task,
} from '../../proto/docker.ts';
import { formatDurationMs } from '../../proto/duration.ts';
import { asId, type NodeId } from '../../proto/ids.ts';
import { isTerminal } from '../../proto/task-state.ts';
import type { Change } from '../store/change.ts';
import {
  earlier,
  nothing,
  type Reconciler,
  type Reconciliation,
  reconciliation,
} from '../store/reconciler.ts';
import { serviceOption } from '../store/service-options.ts';
import type { View } from '../store/store.ts';
import type { StoreEvent } from '../store/watch.ts';
import { nodeName } from './context.ts';
import { createdAtMs, isActive, isHandedOut } from './slots.ts';

/** An engine that is restarted or upgraded is back before this; a node whose agent is gone is lost within seconds. */
export const engineLostAfterMs = 30_000;

export const enforcer: Reconciler = {
  name: 'enforcer',
  keysFor(event, view) {
    if (event.kind === 'node') return hasLost(event) ? [event.object.ID] : [];
    return event.kind === 'service' && hasOtherPolicy(event) ? nodesWithoutEngine(view, event.object) : [];
  },
  allKeys: (view) => view.list('node').map((node) => node.ID),
  reconcile(view, key, now) {
    const node = view.get('node', asId<NodeId>(key));
    if (!node || node.Status.State === 'down') return nothing;
    const { EngineDownSince } = node.Private;
    if (EngineDownSince === undefined) return { changes: evictSurplus(view, node) };
    return evictUnreachable(view, node, EngineDownSince, now);
  },
};

/** Whether a service asks for something else than before when a node is lost. */
function hasOtherPolicy({ op, object, previous }: Extract<StoreEvent, { kind: 'service' }>): boolean {
  return op === 'update' && previous !== undefined && waitMsOf(object) !== waitMsOf(previous);
}

function nodesWithoutEngine(view: View, service: Service): NodeId[] {
  const ids = new Set(view.find('task', 'service', service.ID).map((task) => task.NodeID));
  return [...ids].filter(
    (id) => id && view.get('node', id)?.Private.EngineDownSince !== undefined,
  ) as NodeId[];
}

/** How long an engine may be silent before this service's tasks are run elsewhere, in ms; infinite: for ever. */
function waitMsOf(service: Service | undefined): number {
  const { afterMs } = serviceOption(service?.Spec.Labels ?? {}, 'partition');
  return Math.max(engineLostAfterMs, afterMs);
}

/** Whether a node may have less than before: of its resources, or its engine. */
function hasLost({ op, object, previous }: Extract<StoreEvent, { kind: 'node' }>): boolean {
  if (op === 'remove') return false;
  if (op === 'create' || !previous) return true;
  const facts = (node: ClusterNode) =>
    JSON.stringify([node.Status.State, node.Description.Resources, node.Private.EngineDownSince]);
  return facts(object) !== facts(previous);
}

function evictUnreachable(view: View, node: ClusterNode, sinceMs: number, now: number): Reconciliation {
  const label = node.Description.Engine.Labels[engineUnavailableLabel];
  const changes: Change[] = [];
  let wakeAt: number | undefined;
  for (const task of tasksOn(view, node)) {
    const waitMs = waitMsOf(view.get('service', task.ServiceID));
    const dueAt = sinceMs + waitMs;
    if (dueAt <= now) {
      const Reason = `the engine of node ${nodeName(node)} has not answered for ${formatDurationMs(waitMs)}: ${label}`;
      changes.push(evict(task, { Reason, isUnreachable: true }));
    } else if (Number.isFinite(dueAt)) wakeAt = earlier(wakeAt, dueAt);
  }
  // One that comes to the node within the time is looked at then.
  return reconciliation(changes, now < sinceMs + engineLostAfterMs ? sinceMs + engineLostAfterMs : wakeAt);
}

/** Tasks that are to be on the node and were handed to it, the oldest first. */
function tasksOn(view: View, node: ClusterNode): Task[] {
  return view
    .find('task', 'node', node.ID)
    .filter((task) => isActive(task) && isHandedOut(task) && !isTerminal(task.Status.State))
    .filter((task) => !task.Private.Eviction)
    .sort((left, right) => createdAtMs(left) - createdAtMs(right));
}

/** By `update`, not `merge`: the store keeps moments in the same place, which a merge might undo. */
function evict(task: Task, Eviction: NonNullable<Task['Private']['Eviction']>): Change {
  return { op: 'update', kind: 'task', object: { ...task, Private: { ...task.Private, Eviction } } };
}

/** What is left of a node's resources while its tasks are counted. */
interface Rest {
  nanoCpus: number;
  memoryBytes: number;
  readonly discrete: Map<string, number>;
  readonly named: Set<string>;
}

function evictSurplus(view: View, node: ClusterNode): Change[] {
  const { NanoCPUs, MemoryBytes, GenericResources = [] } = node.Description.Resources;
  // Nothing is known of a node whose engine has never answered.
  if (NanoCPUs === 0 && MemoryBytes === 0) return [];
  const rest: Rest = {
    nanoCpus: NanoCPUs,
    memoryBytes: MemoryBytes,
    discrete: new Map(),
    named: new Set(),
  };
  for (const { NamedResourceSpec: named, DiscreteResourceSpec: discrete } of GenericResources) {
    if (named) rest.named.add(`${named.Kind}=${named.Value}`);
    if (discrete) rest.discrete.set(discrete.Kind, (rest.discrete.get(discrete.Kind) ?? 0) + discrete.Value);
  }
  return tasksOn(view, node).flatMap((task) => {
    const lacking = take(rest, view, task);
    return lacking === undefined
      ? []
      : [evict(task, { Reason: `node ${nodeName(node)} has no room for it any more: too few ${lacking}` })];
  });
}

/** Takes what a task has from the rest; when there is too little of something, takes nothing and says of what. */
function take(rest: Rest, view: View, task: Task): string | undefined {
  const reserved = view.get('revision', task.RevisionID)?.Spec.TaskTemplate.Resources?.Reservations;
  const { NanoCPUs = 0, MemoryBytes = 0 } = reserved ?? {};
  if (NanoCPUs > rest.nanoCpus) return 'CPUs';
  if (MemoryBytes > rest.memoryBytes) return 'bytes of memory';
  const generic = task.AssignedGenericResources ?? [];
  const lacking = generic.find((one) => !isThere(rest, one));
  if (lacking)
    return `resources of kind ${lacking.NamedResourceSpec?.Kind ?? lacking.DiscreteResourceSpec?.Kind}`;
  rest.nanoCpus -= NanoCPUs;
  rest.memoryBytes -= MemoryBytes;
  for (const { NamedResourceSpec: named, DiscreteResourceSpec: discrete } of generic) {
    if (named) rest.named.delete(`${named.Kind}=${named.Value}`);
    if (discrete) rest.discrete.set(discrete.Kind, rest.discrete.get(discrete.Kind)! - discrete.Value);
  }
  return undefined;
}

function isThere(
  rest: Rest,
  { NamedResourceSpec: named, DiscreteResourceSpec: discrete }: GenericResource,
): boolean {
  if (named) return rest.named.has(`${named.Kind}=${named.Value}`);
  return discrete === undefined || (rest.discrete.get(discrete.Kind) ?? 0) >= discrete.Value;
}
