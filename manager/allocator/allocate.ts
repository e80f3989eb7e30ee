/**
 * The allocator: gives networks their subnets and vxlan ids, services their ports and virtual addresses, tasks
 * and the nodes that they are assigned to their addresses.
 *
 * In: the store and a batch of changes about to be proposed (allocate), or the store alone for what is
 * still owed (networkReconciler). Out: the batch, completed, so that a task is created together with its
 * address; or changes of its own. What cannot be given is said in words on the task that waits for it.
 * It keeps nothing: who holds what is in the store's claims, which refuse an entry that gives away twice what
 * another entry, on its way meanwhile, gave away already.
 */
import type { ClusterNode, NetworkAttachment, Service, Task } from '../../proto/docker.ts';
import type { NetworkId, NodeId } from '../../proto/ids.ts';
import { isTerminal } from '../../proto/task-state.ts';
import { clusterAttachments, hasAddresses, ingressNetwork } from '../store/attachment.ts';
import type { Change, ChangeOf } from '../store/change.ts';
import { restMs } from '../store/claims.ts';
import { dataPlaneOf, hasRoutingMesh } from '../store/data-plane.ts';
import { needsIngress } from '../store/endpoint.ts';
import { sameValue } from '../store/normalize.ts';
import {
  earlier,
  nothing,
  type Reconciler,
  type Reconciliation,
  reconciliation,
} from '../store/reconciler.ts';
import type { View } from '../store/store.ts';
import type { Kind } from '../store/tables.ts';
import type { StoreEvent } from '../store/watch.ts';
import { Batch } from './batch.ts';
import { isAllocated } from './ipam.ts';
import { isServed } from './served.ts';

/**
 * The changes with what the created networks, services and tasks are owed filled in, and the nodes' own addresses
 * behind them. Order stays. An assignment whose node can't have an address goes on waiting with the reason, or
 * is left out when that is known. `now` in ms since the epoch.
 */
export function allocate(view: View, changes: readonly Change[], now: number): Change[] {
  const batch = new Batch(view, changes, now);
  const withNetworks = hasKind(changes, 'network') ? changes.map((one) => withSubnets(batch, one)) : changes;
  // Services first, so that their tasks see whether they are served.
  const withServices = hasKind(changes, 'service')
    ? withNetworks.map((one) => withEndpoint(batch, one))
    : withNetworks;
  const finished: Change[] = [];
  for (const change of withServices) {
    const next = change.kind === 'task' ? withAddresses(batch, change) : change;
    if (next) finished.push(next);
  }
  for (const change of batch.nodeChanges()) finished.push(change);
  return finished;
}

function hasKind(changes: readonly Change[], kind: Kind): boolean {
  return changes.some((change) => change.kind === kind);
}

function withSubnets(batch: Batch, change: Change): Change {
  const isNew = change.op === 'create' && change.kind === 'network';
  return isNew ? { ...change, object: batch.allocated(change.object) } : change;
}

function withEndpoint(batch: Batch, change: Change): Change {
  const isNew = (change.op === 'create' || change.op === 'update') && change.kind === 'service';
  return isNew ? { ...change, object: batch.served(change.object) } : change;
}

/** What becomes of a task's change; undefined when nothing does. */
function withAddresses(batch: Batch, change: ChangeOf<'task'>): Change | undefined {
  if (change.op === 'create') {
    return { ...change, object: { ...change.object, ...batch.attach(change.object) } };
  }
  if (change.op !== 'merge' || change.fields.Status?.State !== 'assigned') return change;
  return batch.assigned(change);
}

// ---------------------------------------------------------------- as a reconciler

/** All subnets: what is handed out together must not be handed out twice. */
const subnetsKey = 'subnets';
/** All that is owed to services, tasks and nodes. */
const everythingKey = 'everything';
/** What waiting tasks are owed, and their services. */
const waitingKey = 'waiting';
/** What one node needs no longer. */
const nodePrefix = 'node/';

/** The allocator as the loop drives it: what was not given at creation, once it can be; what nobody needs any longer. */
export function networkReconciler(): Reconciler {
  return {
    name: 'allocator',
    keysFor,
    allKeys: () => [subnetsKey, everythingKey],
    distinct(keys) {
      return keys.has(everythingKey) ? [...keys].filter((key) => !isPartOfEverything(key)) : keys;
    },
    reconcile(view, key, now) {
      if (key === subnetsKey) return { changes: oweSubnets(view, now) };
      if (key === waitingKey) return { changes: oweWaiting(view, new Batch(view, [], now), now) };
      if (key === everythingKey) return oweEverything(view, now);
      return nodeChange(view, key.slice(nodePrefix.length) as NodeId, undefined, now);
    },
  };
}

function isPartOfEverything(key: string): boolean {
  return key === waitingKey || key.startsWith(nodePrefix);
}

function keysFor(event: StoreEvent, view: View): string[] {
  switch (event.kind) {
    case 'network': {
      const { object, previous, op } = event;
      if (op !== 'remove' && !isAllocated(object)) return [subnetsKey];
      if (op === 'remove') return [subnetsKey, everythingKey];
      return object.IPAMOptions === previous?.IPAMOptions ? [] : [everythingKey];
    }
    case 'service': {
      if (event.op === 'remove') return event.object.Endpoint.VirtualIPs ? [waitingKey] : [];
      if (beginsIngress(event.object, event.previous, view)) return [everythingKey];
      const wasServed = event.previous === undefined || isServed(view, event.previous);
      return isServed(view, event.object) ? (wasServed ? [] : [waitingKey]) : [everythingKey];
    }
    case 'task': {
      const { object, op } = event;
      const hasEnded = op === 'remove' || isTerminal(object.Status.State);
      const isOnNode = object.NodeID !== undefined && hasEnded && object.NetworksAttachments?.length;
      return [
        ...(concernsAddresses(object, op === 'remove', view) ? [waitingKey] : []),
        ...(isOnNode ? [nodePrefix + object.NodeID] : []),
      ];
    }
    case 'node': {
      const { object, previous, op } = event;
      if (op === 'remove') return [];
      const isOther = object.ContainerAttachments !== previous?.ContainerAttachments;
      const own = isOther ? [nodePrefix + object.ID] : [];
      if (!hasRoutingMesh(dataPlaneOf(object))) return own;
      const isNew = !previous || !hasRoutingMesh(dataPlaneOf(previous));
      const beginsMesh = isNew && view.find('service', 'ingress', 'true').length > 0;
      return beginsMesh ? [...own, everythingKey] : own;
    }
    case 'cluster':
      return [subnetsKey];
    default:
      return [];
  }
}

/** Whether a service is the first that publishes a port in ingress mode: every node with a mesh takes part from then on. */
function beginsIngress(service: Service, previous: Service | undefined, view: View): boolean {
  if (!needsIngress(service.Spec) || (previous && needsIngress(previous.Spec))) return false;
  return view.find('service', 'ingress', 'true').length === 1;
}

/** Whether a task's event may let a waiting one have its address: it waits itself, or gave its own back. */
function concernsAddresses(task: Task, isRemoved: boolean, view: View): boolean {
  if (isRemoved || isTerminal(task.Status.State)) return (task.NetworksAttachments?.length ?? 0) > 0;
  return task.Status.State === 'pending' && lacksAddress(view, task);
}

function lacksAddress(view: View, task: Task): boolean {
  const spec = view.get('revision', task.RevisionID)?.Spec;
  return spec !== undefined && !hasAddresses(task, clusterAttachments(view, spec));
}

function oweSubnets(view: View, now: number): Change[] {
  const batch = new Batch(view, [], now);
  return view.list('network').flatMap((network): Change[] => {
    if (isAllocated(network)) return [];
    const { IPAMOptions, DriverState } = batch.allocated(network);
    if (!DriverState || sameValue([IPAMOptions, DriverState], [network.IPAMOptions, network.DriverState])) {
      return [];
    }
    return [{ op: 'merge', kind: 'network', id: network.ID, fields: { IPAMOptions, DriverState } }];
  });
}

function oweEverything(view: View, now: number): Reconciliation {
  const batch = new Batch(view, [], now);
  const services = view.list('service').filter((service) => !isServed(view, service));
  const served = services.flatMap((service) => endpointChange(batch, service));
  const waiting = oweWaiting(view, batch, now);
  const nodes = view.list('node').map((node) => nodeChange(view, node.ID, batch, now));
  const wakeAt = nodes.reduce<number | undefined>((first, one) => earlier(first, one.wakeAt), undefined);
  return reconciliation([...served, ...waiting, ...nodes.flatMap((one) => one.changes)], wakeAt);
}

/** Addresses for the tasks that wait for them, and the endpoints of their services. */
function oweWaiting(view: View, batch: Batch, now: number): Change[] {
  const waiting = view.find('task', 'state', 'pending').filter((task) => lacksAddress(view, task));
  const services = [...new Set(waiting.map((task) => task.ServiceID))].flatMap((id) => {
    const service = batch.get('service', id);
    return service && !isServed(view, service) ? endpointChange(batch, service) : [];
  });
  const tasks = waiting.flatMap((task): Change[] => {
    const { NetworksAttachments, Status } = batch.attach(task);
    if (!NetworksAttachments || !Status) return [];
    const isNew = NetworksAttachments.some(
      (one) => one.Addresses.length > 0 && !sameValue(one, attachmentOf(task, one.NetworkID)),
    );
    if (!isNew && Status.Err === task.Status.Err) return [];
    const fields = { NetworksAttachments, Status: { ...Status, Timestamp: new Date(now).toISOString() } };
    return [{ op: 'merge', kind: 'task', id: task.ID, fields }];
  });
  return [...services, ...tasks];
}

function attachmentOf(task: Task, network: NetworkId): NetworkAttachment | undefined {
  return task.NetworksAttachments?.find((one) => one.NetworkID === network);
}

function endpointChange(batch: Batch, service: Service): Change[] {
  const { Endpoint } = batch.served(service);
  if (sameValue(Endpoint, service.Endpoint)) return [];
  return [{ op: 'merge', kind: 'service', id: service.ID, fields: { Endpoint } }];
}

/**
 * A node's own addresses are kept on the networks of the tasks that it has, and for a while on those of tasks that
 * have ended, for their successors often come to the same node. With a batch it gets those that it lacks.
 */
function nodeChange(view: View, id: NodeId, batch: Batch | undefined, now: number): Reconciliation {
  const node = view.get('node', id);
  if (!node) return nothing;
  const { Attachments: had = [], ContainerAttachments: wanted = [], ContainerAddresses: given = [] } = node;
  const isOwed = wanted.some(({ ID }) => !given.some((one) => one.ID === ID));
  const giver = batch ?? (isOwed ? new Batch(view, [], now) : undefined);
  const ContainerAddresses =
    giver?.containerAddresses(id, wanted, given) ??
    given.filter(({ ID }) => wanted.some((one) => one.ID === ID));
  const areOthers = isOwed || ContainerAddresses.length !== given.length;
  const needed = neededUntil(view, { ...node, ContainerAddresses });
  const kept = had.filter(
    ({ NetworkID }) => view.get('network', NetworkID) && (needed.get(NetworkID) ?? 0) > now,
  );
  const living = [...needed].filter(([, until]) => until === Number.POSITIVE_INFINITY).map(([one]) => one);
  const withAll = batch?.attachNode(id, living) ?? giver?.attachmentsOf(id) ?? had;
  const added = withAll.slice(had.length);
  const ends = kept.map(({ NetworkID }) => needed.get(NetworkID)!).filter(Number.isFinite);
  const wakeAt = ends.length > 0 ? Math.min(...ends) : undefined;
  if (kept.length === had.length && added.length === 0 && !areOthers) return reconciliation([], wakeAt);
  const fields = { Attachments: [...kept, ...added], ...(areOthers ? { ContainerAddresses } : {}) };
  return reconciliation([{ op: 'merge', kind: 'node', id, fields }], wakeAt);
}

/** Until when (ms since the epoch) a node needs its address on the networks of its tasks, and on the ingress network. */
function neededUntil(view: View, node: ClusterNode): Map<NetworkId, number> {
  const needed = new Map<NetworkId, number>();
  const ingress = ingressNetwork(view);
  const isInMesh = ingress && hasRoutingMesh(dataPlaneOf(node));
  if (isInMesh && (isOn(node, ingress.ID) || view.find('service', 'ingress', 'true').length > 0)) {
    needed.set(ingress.ID, Number.POSITIVE_INFINITY);
  }
  for (const { NetworkID, Addresses } of node.ContainerAddresses ?? []) {
    if (Addresses.length > 0) needed.set(NetworkID, Number.POSITIVE_INFINITY);
  }
  for (const task of view.find('task', 'node', node.ID)) {
    const hasEnded = isTerminal(task.Status.State);
    const until = hasEnded ? (task.Private.EndedAt ?? 0) + restMs : Number.POSITIVE_INFINITY;
    for (const { NetworkID } of task.NetworksAttachments ?? []) {
      needed.set(NetworkID, Math.max(until, needed.get(NetworkID) ?? 0));
    }
  }
  return needed;
}

function isOn(node: ClusterNode, network: NetworkId): boolean {
  return node.Attachments?.some((one) => one.NetworkID === network) === true;
}
