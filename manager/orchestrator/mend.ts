/**
 * Mending one slot, without a look at the others: what ended is restarted as the policy says, what lost
 * its node is replaced at once, what waited long enough is started, a swap that came through is ended, and
 * what is there twice is there once.
 */
import type { Task } from '../../proto/docker.ts';
import { isTerminal } from '../../proto/task-state.ts';
import type { Change, ChangeOf } from '../store/change.ts';
import { earlier } from '../store/reconciler.ts';
import { type Context, createTask, stopForServing, stopTask } from './context.ts';
import { departureOf, lossOf } from './loss.ts';
import { explainSparing, graceMsOf, sparedUntil, stopsBy } from './partition.ts';
import { mayRestart, restartDelayMs } from './restart.ts';
import {
  createdAtMs,
  endedByItself,
  goalState,
  isActive,
  isPaused,
  isServing,
  lastWord,
  type Slot,
} from './slots.ts';

export interface SlotPlan {
  readonly slot: Slot;
  /** Whether tasks may be created in the slot. */
  readonly mayReplace: boolean;
  readonly changes: readonly Change[];
  readonly wakeAt: number | undefined;
  /**
   * - live: a task of it runs or is to run
   * - finished: its last task ended and is not to be restarted
   * - dead: it has nothing, and nothing says that it should not
   */
  readonly state: 'live' | 'finished' | 'dead';
}

type TaskMerge = Extract<ChangeOf<'task'>, { op: 'merge' }>;

/** An active task that can't go on as it is. */
interface Casualty {
  readonly task: Task;
  /** Why it can't stay on its node; undefined when it ended by itself. */
  readonly loss: string | undefined;
}

const minimumStopWaitMs = 60_000;
const stopWaitMarginMs = 10_000;

/** What to do about a slot. `mayReplace`: whether tasks may be created in it. */
export function mendSlot(context: Context, slot: Slot, mayReplace = true): SlotPlan {
  if (isAtRest(context, slot)) return { slot, mayReplace, changes: [], wakeAt: undefined, state: 'live' };
  const active = slot.tasks.filter(isActive);
  const casualties: Casualty[] = [];
  const sound: Task[] = [];
  for (const task of active) {
    const loss = lossOf(context, task);
    if (loss !== undefined || isTerminal(task.Status.State)) casualties.push({ task, loss });
    else sound.push(task);
  }
  const sparing = spare(context, sound);
  const kept = chooseKept(context, sound);
  const dropped = sound.filter((task) => !kept.includes(task));
  const source = mayReplace ? toSucceed(context, casualties, kept) : undefined;
  const pausedUntil = source && isStillDelayed(context, source) ? source.task.Private.StartAt : undefined;
  const stopped = [...dropped, ...casualties.map(({ task }) => task)].filter(
    (task) => pausedUntil === undefined || task !== source?.task,
  );
  const reasons = new Map(
    casualties.map(({ task, loss }) => [task, loss ?? `it ended (${task.Status.State})`]),
  );
  const serving = kept.find(isServing);
  const changes = stopped.map((task) =>
    serving && isServing(task)
      ? stopForServing(context, task, serving)
      : stopTask(context, task, reasons.get(task) ?? 'another task of its slot is there'),
  );
  const successor = source && pausedUntil === undefined ? succeed(context, slot, source, stopped) : undefined;
  if (successor) changes.push(successor);
  const promotions = promote(context, slot, kept, stopped);
  changes.push(
    ...promotions.changes,
    ...sparing.changes.filter(({ id }) => kept.some((task) => task.ID === id)),
  );
  const isLive = kept.length > 0 || successor !== undefined || pausedUntil !== undefined;
  return {
    slot,
    mayReplace,
    changes,
    wakeAt: earlier(earlier(pausedUntil, promotions.wakeAt), sparing.wakeAt),
    state: isLive ? 'live' : restState(context, slot),
  };
}

/** The common case, told quickly because a large service is full of it: one sound task, told to run. */
function isAtRest(context: Context, slot: Slot): boolean {
  const [task, ...others] = slot.tasks;
  if (!task || others.length > 0 || task.DesiredState !== goalState(context.service)) return false;
  if (isTerminal(task.Status.State) || lossOf(context, task) !== undefined) return false;
  return context.view.get('node', task.NodeID)?.Status.State !== 'down';
}

/** Tasks of nodes that are down, which the service asks to leave alone for now: says so, and until when. */
function spare(
  context: Context,
  sound: readonly Task[],
): { changes: TaskMerge[]; wakeAt: number | undefined } {
  const changes: TaskMerge[] = [];
  let wakeAt: number | undefined;
  for (const task of sound) {
    const node = context.view.get('node', task.NodeID);
    const until = node && sparedUntil(context, task, node);
    if (until === undefined) continue;
    changes.push(...explainSparing(context, task, node!, until));
    if (Number.isFinite(until)) wakeAt = earlier(wakeAt, until);
  }
  return { changes, wakeAt };
}

/** The sound tasks that stay: one that is as it is to be, or another, or both while they are swapped. */
function chooseKept(context: Context, sound: readonly Task[]): Task[] {
  const outgoing = new Set(sound.filter((task) => isOutgoing(context, task)));
  const lasting = best(sound.filter((task) => !outgoing.has(task)));
  const other = best([...outgoing]);
  if (lasting && other && isServing(other) && !isServing(lasting)) return [lasting, other];
  const one = lasting ?? other;
  return one ? [one] : [];
}

/** Whether a task is to make room for another one of its slot: it is of an older revision, or leaves its node. */
function isOutgoing(context: Context, task: Task): boolean {
  return context.isDirty(task) || departureOf(context, task) !== undefined;
}

function best(tasks: readonly Task[]): Task | undefined {
  return tasks.find(isServing) ?? tasks[0];
}

/** The casualty that needs a successor, if one does. */
function toSucceed(
  context: Context,
  casualties: readonly Casualty[],
  kept: readonly Task[],
): Casualty | undefined {
  if (kept.some((task) => !isOutgoing(context, task))) return undefined;
  const source = casualties.findLast(({ task }) => !context.isDirty(task)) ?? casualties.at(-1);
  if (!source || kept.length === 0) return source;
  if (context.isDirty(source.task)) return undefined;
  // An older revision still serves here: the newer one is tried again, but not in an update that is paused.
  return isPaused(context.service) && kept.some((task) => context.isDirty(task)) ? undefined : source;
}

/** Whether a task failed before its restart delay was over: another one now would make a tight circle. */
function isStillDelayed(context: Context, { task, loss }: Casualty): boolean {
  return loss === undefined && (task.Private.StartAt ?? 0) > context.now;
}

function succeed(
  context: Context,
  slot: Slot,
  { task, loss }: Casualty,
  stopped: readonly Task[],
): Change | undefined {
  if (!mayRestart(context, slot.tasks, task)) return undefined;
  const hasEnded = isTerminal(task.Status.State);
  // An update's task that was lost before it ran is still the update's to wait for.
  const isUnsettled = task.Private.Cause === 'update' && task.Private.RunningSince === undefined;
  const isUpdate = !hasEnded && isUnsettled && !context.isDirty(task);
  const startAt = loss === undefined ? context.now + restartDelayMs(context, task) : task.Private.StartAt;
  return createTask(context, slot.place, {
    replaces: task.ID,
    cause: endedByItself(task) ? 'failure' : isUpdate ? 'update' : 'node',
    startAt,
    waits: mustWait(context, slot, stopped),
    reason: loss ?? `task ${task.ID} ended (${task.Status.State})`,
  });
}

/** Whether an earlier task of a slot is yet to stop; `stopped` are those told so only now. */
export function mustWait(context: Context, slot: Slot, stopped: readonly Task[]): boolean {
  return waitsOf(context, slot, stopped).length > 0;
}

/** What is known of when the earlier tasks of a slot that may still run will have stopped. */
function waitsOf(
  context: Context,
  slot: Slot,
  stopped: readonly Task[],
): NonNullable<ReturnType<typeof stopsBy>>[] {
  return [...slot.tasks, ...stopped.map((task) => ({ ...task, DesiredState: 'shutdown' as const }))]
    .map((task) => stopsBy(context, task))
    .filter((wait) => wait !== undefined);
}

/** Lets tasks run whose delay is over and whose predecessors have stopped, or had time enough to. */
function promote(
  context: Context,
  slot: Slot,
  kept: readonly Task[],
  stopped: readonly Task[],
): { changes: Change[]; wakeAt: number | undefined } {
  const changes: Change[] = [];
  let wakeAt: number | undefined;
  for (const task of kept) {
    if (task.DesiredState !== 'ready') continue;
    const startAt = task.Private.StartAt ?? 0;
    const patienceEnds = Math.max(startAt, createdAtMs(task)) + stopWaitMs(context);
    const waits = waitsOf(context, slot, stopped).map((wait) => (wait.isGuarded ? wait.at : patienceEnds));
    const dueAt = Math.max(startAt, ...waits);
    if (dueAt === Number.POSITIVE_INFINITY) continue;
    if (dueAt > context.now) wakeAt = earlier(wakeAt, dueAt);
    else if (!context.mustHold())
      changes.push({
        op: 'merge',
        kind: 'task',
        id: task.ID,
        fields: { DesiredState: goalState(context.service) },
      });
  }
  return { changes, wakeAt };
}

/** How long a successor waits for a task that does not stop: a minute, or what stopping may take. */
function stopWaitMs(context: Context): number {
  return Math.max(minimumStopWaitMs, graceMsOf(context.service.Spec) + stopWaitMarginMs);
}

function restState(context: Context, slot: Slot): 'finished' | 'dead' {
  const last = lastWord(slot.tasks);
  return last && !mayRestart(context, slot.tasks, last) ? 'finished' : 'dead';
}
