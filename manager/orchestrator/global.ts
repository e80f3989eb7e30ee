/**
 * Global services: one task on each node that can have it. A node can when it is not down, not drained, and
 * satisfies the constraints; a paused one keeps its task and gets no other. A key is a service (all nodes,
 * and its update) or `service@node` (that node alone).
 */
import type { ClusterNode, Service, Task } from '../../proto/docker.ts';
import { asId, type NodeId, type ServiceId } from '../../proto/ids.ts';
import type { Change } from '../store/change.ts';
import {
  earlier,
  nothing,
  type Reconciler,
  type Reconciliation,
  reconciliation,
} from '../store/reconciler.ts';
import type { View } from '../store/store.ts';
import { modeName, slotKey } from '../store/tables.ts';
import type { StoreEvent } from '../store/watch.ts';
import {
  type Context,
  constraintProblem,
  createTask,
  makeContext,
  nodeProblem,
  stopTask,
} from './context.ts';
import { mendSlot, mustWait, type SlotPlan } from './mend.ts';
import { waitersFor } from './order.ts';
import { sparedUntil } from './partition.ts';
import { concernsTasks } from './replicated.ts';
import { rollOut } from './rollout.ts';
import { isActive, isRollingOut, lastWord, type Slot } from './slots.ts';

export const global: Reconciler = {
  name: 'global',
  keysFor: (event, view) => [...ownKeys(event, view), ...waitersFor(event, view, 'Global')],
  allKeys: (view) => view.find('service', 'mode', 'Global').map((service) => service.ID),
  distinct: (keys) => [...keys].filter((key) => !key.includes('@') || !keys.has(partsOf(key)[0])),
  reconcile(view, key, now, newId, steadySince) {
    const [serviceId, nodeId] = partsOf(key);
    const service = view.get('service', serviceId);
    if (!service || !isGlobal(service)) return nothing;
    const context = makeContext(view, service, now, newId, steadySince);
    if (nodeId === undefined) return reconcileService(context);
    const slot = { key, place: { NodeID: nodeId }, tasks: view.find('task', 'slot', key) };
    const { changes, wakeAt } = reconcileNode(context, slot);
    return reconciliation(changes, wakeAt);
  },
};

function ownKeys(event: StoreEvent, view: View): readonly string[] {
  if (event.kind === 'service') return isGlobal(event.object) ? [event.object.ID] : [];
  if (event.kind === 'task') return keysForTask(event.object, view);
  return event.kind === 'node' ? keysForNode(event, view) : [];
}

function isGlobal(service: Service): boolean {
  return modeName(service.Spec.Mode) === 'Global';
}

function partsOf(key: string): [ServiceId, NodeId | undefined] {
  const [service, node] = key.split('@', 2);
  return [asId<ServiceId>(service!), node === undefined ? undefined : asId<NodeId>(node)];
}

function keysForTask(task: Task, view: View): string[] {
  const service = view.get('service', task.ServiceID);
  if (!service || !isGlobal(service)) return [];
  return [isRollingOut(service) ? service.ID : slotKey(task)];
}

function keysForNode(event: Extract<StoreEvent, { kind: 'node' }>, view: View): string[] {
  if (!concernsTasks(event)) return [];
  return view.find('service', 'mode', 'Global').map((service) => {
    const key = slotKey({ ServiceID: service.ID, NodeID: event.object.ID });
    const tasks = view.find('task', 'slot', key);
    const isOutdated = (task: Task) => task.RevisionID !== service.Private.RevisionID;
    const relevant = tasks.filter((task) => isActive(task) || task === lastWord(tasks));
    const concernsService = isRollingOut(service) || relevant.some(isOutdated);
    return concernsService ? service.ID : key;
  });
}

interface NodePlan {
  readonly changes: readonly Change[];
  readonly wakeAt: number | undefined;
  /** What the update may go by; undefined where it has to leave the node alone. */
  readonly plan: SlotPlan | undefined;
}

function reconcileNode(context: Context, slot: Slot): NodePlan {
  const nodeId = slot.place.NodeID!;
  const node = context.view.get('node', nodeId);
  const sparing = node && slot.tasks.map((task) => isActive(task) && sparedUntil(context, task, node));
  const until = sparing?.find((one) => typeof one === 'number');
  if (until !== undefined)
    return { changes: [], wakeAt: Number.isFinite(until) ? until : undefined, plan: undefined };
  const problem = nodeProblem(node, nodeId) ?? (node && constraintProblem(node, context.service.Spec));
  if (!node || problem !== undefined) {
    return {
      changes: leave(context, slot, problem ?? 'its node was lost'),
      wakeAt: undefined,
      plan: undefined,
    };
  }
  const takesTasks = node.Spec.Availability === 'active';
  const plan = mendSlot(context, slot, takesTasks);
  if (!takesTasks || plan.state !== 'dead') return { changes: plan.changes, wakeAt: plan.wakeAt, plan };
  const creation = createTask(context, slot.place, { waits: mustWait(context, slot, []) });
  return { changes: [...plan.changes, creation], wakeAt: plan.wakeAt, plan: undefined };
}

/** Takes a service off a node that can't have it. */
function leave(context: Context, slot: Slot, because: string): Change[] {
  return slot.tasks.filter(isActive).map((task) => stopTask(context, task, because));
}

function reconcileService(context: Context): Reconciliation {
  const { view, service } = context;
  const byNode = new Map<NodeId, Task[]>(view.list('node').map((node: ClusterNode) => [node.ID, []]));
  for (const task of view.find('task', 'service', service.ID)) {
    if (task.NodeID === undefined) continue;
    const tasks = byNode.get(task.NodeID);
    if (tasks) tasks.push(task);
    else byNode.set(task.NodeID, [task]);
  }
  const plans = [...byNode].map(([NodeID, tasks]) =>
    reconcileNode(context, { key: slotKey({ ServiceID: service.ID, NodeID }), place: { NodeID }, tasks }),
  );
  const update = rollOut(
    context,
    plans.map(({ plan }) => plan).filter((plan) => plan !== undefined),
  );
  const changes = plans.flatMap((plan) => plan.changes);
  const wakeAt = plans.map((plan) => plan.wakeAt).reduce(earlier, update.wakeAt);
  return reconciliation([...changes, ...update.changes], wakeAt);
}
