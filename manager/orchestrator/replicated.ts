/**
 * Replicated services: as many slots as the spec has replicas. A key is a service (its scale and its
 * update are looked at, and every slot) or `service/slot` (that slot alone).
 */
import type { Service, Task } from '../../proto/docker.ts';
import { asId, type ServiceId } from '../../proto/ids.ts';
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
import { type Context, createTask, makeContext, removeTask } from './context.ts';
import { mendSlot, mustWait, type SlotPlan } from './mend.ts';
import { waitersFor } from './order.ts';
import { relocate } from './relocate.ts';
import { rollOut } from './rollout.ts';
import { isActive, isRollingOut, type Slot, slotsByNumber, sparingOrder } from './slots.ts';

export const replicated: Reconciler = {
  name: 'replicated',
  keysFor: (event, view) => [...ownKeys(event, view), ...waitersFor(event, view, 'Replicated')],
  allKeys: (view) => view.find('service', 'mode', 'Replicated').map((service) => service.ID),
  distinct: (keys) => [...keys].filter((key) => !key.includes('/') || !keys.has(serviceOf(key))),
  reconcile(view, key, now, newId, steadySince) {
    const service = view.get('service', serviceOf(key));
    if (!service || !isReplicated(service)) return nothing;
    const context = makeContext(view, service, now, newId, steadySince);
    return key.includes('/') ? reconcileSlot(context, key) : reconcileService(context);
  },
};

function ownKeys(event: StoreEvent, view: View): readonly string[] {
  if (event.kind === 'service') return isReplicated(event.object) ? [event.object.ID] : [];
  if (event.kind === 'task') return keysForTask(event.op, event.object, view);
  return event.kind === 'node' ? keysForNode(event, view) : [];
}

function isReplicated(service: Service): boolean {
  return modeName(service.Spec.Mode) === 'Replicated';
}

function serviceOf(key: string): ServiceId {
  return asId<ServiceId>(key.split('/', 1)[0]!);
}

function keysForTask(op: StoreEvent['op'], task: Task, view: View): string[] {
  const service = view.get('service', task.ServiceID);
  if (!service || !isReplicated(service)) return [];
  const concernsService =
    isRollingOut(service) || (op === 'remove' && isActive(task)) || isMoving(task, view);
  return [concernsService ? service.ID : slotKey(task)];
}

function keysForNode(event: Extract<StoreEvent, { kind: 'node' }>, view: View): string[] {
  if (!concernsTasks(event)) return [];
  const keys = view.find('task', 'node', event.object.ID).map((task) => {
    const service = view.get('service', task.ServiceID);
    if (!service || !isReplicated(service)) return undefined;
    const isDrain = event.object.Spec.Availability === 'drain';
    const concernsService =
      isDrain || isRollingOut(service) || task.RevisionID !== service.Private.RevisionID;
    return concernsService ? service.ID : slotKey(task);
  });
  return [...new Set(keys.filter((key) => key !== undefined))];
}

/** Whether a node's change may decide where tasks can be: its state, availability, or what constraints see. */
export function concernsTasks(event: Extract<StoreEvent, { kind: 'node' }>): boolean {
  const { previous, object, op } = event;
  if (op !== 'update' || !previous) return true;
  const facts = (node: typeof object) =>
    JSON.stringify([
      node.Status.State,
      node.Status.Addr,
      node.Spec.Availability,
      node.Spec.Labels,
      node.Private.Role,
      node.Description.Hostname,
      node.Description.Platform,
      node.Description.Engine.Labels,
    ]);
  return facts(previous) !== facts(object);
}

function reconcileSlot(context: Context, key: string): Reconciliation {
  const tasks = context.view.find('task', 'slot', key);
  const slot = [...slotsByNumber(tasks).values()][0];
  if (!slot) return nothing;
  const plan = mendSlot(context, slot);
  return reconciliation(plan.changes, plan.wakeAt);
}

function reconcileService(context: Context): Reconciliation {
  const { view, service } = context;
  const slots = slotsByNumber(view.find('task', 'service', service.ID));
  const plans = [...slots.values()].map((slot) => mendSlot(context, slot));
  const occupied = plans.filter((plan) => plan.state !== 'dead');
  const wanted = service.Spec.Mode.Replicated?.Replicas ?? 1;
  const spared = spare(occupied, wanted);
  const added = newNumbers(occupied, wanted - spared.length);
  const changes: Change[] = spared.flatMap((plan) => plan.changes);
  const staying = new Set(spared);
  for (const plan of plans) {
    if (!staying.has(plan) && !added.has(plan.slot.place.Slot!)) changes.push(...forget(plan.slot));
  }
  for (const number of added) changes.push(fill(context, slots.get(number), number));
  const update = rollOut(context, spared);
  const relocation = relocate(context, spared);
  changes.push(...relocation.changes);
  const wakeAt = [...spared, relocation].map((plan) => plan.wakeAt).reduce(earlier, update.wakeAt);
  return reconciliation([...changes, ...update.changes], wakeAt);
}

/** Whether a task's change may let another task of the service leave its node: its slot's move may be over. */
function isMoving(task: Task, view: View): boolean {
  if (task.Private.Cause === 'move' || isLeaving(task, view)) return true;
  // One that took the place of a successor that failed: it serves, or finds no node.
  return view.find('task', 'slot', slotKey(task)).some((other) => isLeaving(other, view));
}

function isLeaving(task: Task, view: View): boolean {
  if (task.Private.Move !== undefined) return true;
  return view.get('node', task.NodeID)?.Spec.Availability === 'drain';
}

/** The slots that stay when there are to be `wanted`, in the order of their numbers. */
function spare(occupied: readonly SlotPlan[], wanted: number): readonly SlotPlan[] {
  if (occupied.length <= wanted) return occupied;
  const spared = new Set(sparingOrder(occupied.map((plan) => plan.slot)).slice(0, wanted));
  return occupied.filter((plan) => spared.has(plan.slot));
}

/** The `count` lowest numbers that no slot occupies. */
function newNumbers(occupied: readonly SlotPlan[], count: number): Set<number> {
  const taken = new Set(occupied.map((plan) => plan.slot.place.Slot));
  const numbers = new Set<number>();
  for (let number = 1; numbers.size < count; number += 1) if (!taken.has(number)) numbers.add(number);
  return numbers;
}

function forget(slot: Slot): Change[] {
  return slot.tasks
    .filter((task) => task.DesiredState !== 'remove')
    .map((task) => removeTask(task, 'scaled down'));
}

/** A first task for a slot, after any that is still stopping there. */
function fill(context: Context, slot: Slot | undefined, number: number): Change {
  const waits = slot !== undefined && mustWait(context, slot, []);
  return createTask(context, { Slot: number }, { waits });
}
