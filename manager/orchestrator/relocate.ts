/**
 * Tasks that are to leave their nodes in good order (loss.ts), of one replicated service: as many slots at a time as
 * its updates may have in hand. Start-first, the old task is stopped when the new one serves (mend.ts does that);
 * stop-first, the new one waits until the old one has stopped.
 */
import type { Task } from '../../proto/docker.ts';
import type { Change } from '../store/change.ts';
import { type Context, createTask, stopTask } from './context.ts';
import { departureOf, drainOrder } from './loss.ts';
import { mustWait, type SlotPlan } from './mend.ts';
import { endedByItself, isActive, isPaused, isRollingOut, isServing } from './slots.ts';

/** The next moves, given what is known of the service's slots. */
export function relocate(context: Context, plans: readonly SlotPlan[]): Change[] {
  const leaving = plans.filter((plan) => plan.slot.tasks.some((task) => departureOf(context, task)));
  if (leaving.length === 0) return [];
  const { Parallelism = 1 } = context.service.Spec.UpdateConfig ?? {};
  const most = Parallelism > 0 ? Parallelism : Number.POSITIVE_INFINITY;
  const busy = plans.filter((plan) => isBusy(context, plan)).length;
  return leaving
    .map((plan) => ({ plan, task: candidateOf(context, plan) }))
    .filter(({ task }) => task !== undefined)
    .slice(0, Math.max(0, most - busy))
    .flatMap(({ plan, task }) => move(context, plan, task!));
}

/** Whether a move of the slot is under way: until its new task serves. */
function isBusy({ view }: Context, { slot }: SlotPlan): boolean {
  const active = slot.tasks.filter(isActive);
  if (active.every(isServing) && active.length === 1) return false;
  const isLeft = (task: Task) =>
    task.Private.Move !== undefined || view.get('node', task.NodeID)?.Spec.Availability === 'drain';
  return active.some((task) => task.Private.Cause === 'move') || slot.tasks.some(isLeft);
}

/** The slot's task, when it is to be moved now. */
function candidateOf(context: Context, plan: SlotPlan): Task | undefined {
  const { service } = context;
  const { tasks } = plan.slot;
  const active = tasks.filter(isActive);
  const [task] = active;
  if (task === undefined || active.length > 1 || plan.changes.length > 0) return undefined;
  // What an update is to replace goes elsewhere by that; with stop-first, two at it would take down too many.
  const isUpdates = context.isDirty(task) || drainOrder(context) === 'stop-first';
  if (isUpdates && (isRollingOut(service) || (context.isDirty(task) && !isPaused(service)))) return undefined;
  const later = tasks.slice(tasks.indexOf(task) + 1);
  const wasTried = later.some((other) => other.Private.Cause === 'move' && endedByItself(other));
  return wasTried ? undefined : task;
}

function move(context: Context, { slot }: SlotPlan, task: Task): Change[] {
  const stopped = drainOrder(context) === 'start-first' ? [] : [task];
  const why = departureOf(context, task) ?? 'it is to be elsewhere';
  const creation = createTask(context, slot.place, {
    replaces: task.ID,
    cause: 'move',
    waits: mustWait(context, slot, stopped),
    reason: `takes over from task ${task.ID}: ${why}`,
  });
  return [...stopped.map((one) => stopTask(context, one, why)), creation];
}
