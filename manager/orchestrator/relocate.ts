/**
 * Tasks that are to leave their nodes in good order (loss.ts), of one replicated service: as many slots at a time as
 * its updates may have in hand. Start-first, the old task is stopped when the new one serves (mend.ts does that);
 * stop-first, the new one waits until the old one has stopped. When the new one fits nowhere, a drained node is emptied
 * all the same, a while later.
 */
import type { Task } from '../../proto/docker.ts';
import type { Change } from '../store/change.ts';
import { earlier, nothing, type Reconciliation, reconciliation } from '../store/reconciler.ts';
import { serviceOption } from '../store/service-options.ts';
import { type Context, createTask, stopTask } from './context.ts';
import { departureOf, moveOrder } from './loss.ts';
import { mustWait, type SlotPlan } from './mend.ts';
import { createdAtMs, endedByItself, isActive, isPaused, isRollingOut, isServing } from './slots.ts';

/**
 * How long a task on a drained node serves on while no node can take its successor. A drained node is to become empty,
 * as Docker's does; what `shoal.drain=start-first` asks for by name is held to for as long as it takes.
 */
export const drainPatienceMs = 10_000;

/** The next moves, given what is known of the service's slots. */
export function relocate(context: Context, plans: readonly SlotPlan[]): Reconciliation {
  const leaving = plans.filter((plan) => plan.slot.tasks.some((task) => departureOf(context, task)));
  if (leaving.length === 0) return nothing;
  const { Parallelism = 1 } = context.service.Spec.UpdateConfig ?? {};
  const most = Parallelism > 0 ? Parallelism : Number.POSITIVE_INFINITY;
  const waits = plans.map((plan) => waitOf(context, plan)).filter((wait) => wait !== undefined);
  const isHopeless = waits.some((wait) => wait.isForMove && wait.endsAt <= context.now);
  const vain = waits.filter((wait) => isHopeless || wait.endsAt <= context.now);
  const busy = plans.filter(
    (plan) => isBusy(context, plan) && !vain.some((wait) => wait.plan === plan && !wait.held),
  ).length;
  const moves = leaving
    .map((plan) => ({ plan, task: candidateOf(context, plan) }))
    .filter(({ task }) => task !== undefined)
    .slice(0, Math.max(0, most - busy))
    .flatMap(({ plan, task }) => move(context, plan, task!));
  const ends = waits.filter((wait) => !vain.includes(wait)).map((wait) => wait.endsAt);
  return reconciliation(
    [...vain.flatMap((wait) => endWait(context, wait)), ...moves],
    ends.reduce<number | undefined>(earlier, undefined),
  );
}

/** A slot of which the scheduler says that its next task fits nowhere. */
interface Wait {
  readonly plan: SlotPlan;
  /** The task that serves until the next one does; undefined when nothing serves. */
  readonly held: Task | undefined;
  readonly next: Task;
  /** Whether the next one was to take over from a task that leaves its node. */
  readonly isForMove: boolean;
  /** ms since the epoch. */
  readonly endsAt: number;
}

function waitOf(context: Context, plan: SlotPlan): Wait | undefined {
  const active = plan.slot.tasks.filter(isActive);
  const next = active.find((task) => task.Status.State === 'pending' && task.Status.Err);
  const held = active.find((task) => departureOf(context, task) !== undefined);
  if (next === undefined || plan.changes.length > 0) return undefined;
  const isForMove = next.Private.Cause === 'move' || held !== undefined;
  return { plan, held, next, isForMove, endsAt: createdAtMs(next) + drainPatienceMs };
}

/** A drained node gives the task up all the same; one that was only to be better off elsewhere stays. */
function endWait(context: Context, { held, next, plan }: Wait): Change[] {
  const node = held && context.view.get('node', held.NodeID);
  if (!held || !node || plan.changes.length > 0) return [];
  if (node.Spec.Availability !== 'drain') {
    const { Move: _, ...Private } = held.Private;
    return [{ op: 'update', kind: 'task', object: { ...held, Private } }];
  }
  if (serviceOption(context.service.Spec.Labels, 'drain') === 'start-first') return [];
  const why = `${departureOf(context, held)}, and no other can take it: ${next.Status.Err}`;
  return [stopTask(context, held, why)];
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
  const isUpdates = context.isDirty(task) || moveOrder(context, task) === 'stop-first';
  if (isUpdates && (isRollingOut(service) || (context.isDirty(task) && !isPaused(service)))) return undefined;
  const later = tasks.slice(tasks.indexOf(task) + 1);
  const wasTried = later.some((other) => other.Private.Cause === 'move' && endedByItself(other));
  return wasTried ? undefined : task;
}

function move(context: Context, { slot }: SlotPlan, task: Task): Change[] {
  const stopped = moveOrder(context, task) === 'start-first' ? [] : [task];
  const why = departureOf(context, task) ?? 'it is to be elsewhere';
  const creation = createTask(context, slot.place, {
    replaces: task.ID,
    cause: 'move',
    waits: mustWait(context, slot, stopped),
    reason: `takes over from task ${task.ID}: ${why}`,
  });
  return [...stopped.map((one) => stopTask(context, one, why)), creation];
}
