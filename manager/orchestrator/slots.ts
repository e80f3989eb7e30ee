/**
 * What a slot holds. A slot is one place of a service: a number for a replicated service, a node for a
 * global one. It holds at most one active task, two during a start-first swap, and the history of those
 * before it.
 */
import type { Service, Task } from '../../proto/docker.ts';
import { compareTaskStates, isTerminal } from '../../proto/task-state.ts';
import { slotKey } from '../store/tables.ts';

export interface Slot {
  /** As slotKey of store/tables.ts. */
  readonly key: string;
  readonly place: Pick<Task, 'Slot' | 'NodeID'>;
  /** In order of creation. */
  readonly tasks: readonly Task[];
}

/** Whether the managers want this task to run, now or soon; of a job's, also that it stays as completed. */
export function isActive(task: Task): boolean {
  return task.DesiredState !== 'shutdown' && task.DesiredState !== 'remove';
}

/** Where a service's tasks are to get: a job's are to complete. */
export function goalState(service: Service): 'running' | 'complete' {
  return service.JobStatus ? 'complete' : 'running';
}

/** Whether a task belongs to the present run of its service, which only jobs have more than one of. */
export function isOfIteration(service: Service, task: Task): boolean {
  return !service.JobStatus || task.JobIteration?.Index === service.JobStatus.JobIteration.Index;
}

/** Whether this task does its service's work. */
export function isServing(task: Task): boolean {
  return isActive(task) && task.Status.State === 'running';
}

/** Whether a node's agent has been, or may have been, told of this task. */
export function isHandedOut(task: Task): boolean {
  return compareTaskStates(task.Status.State, 'assigned') >= 0;
}

/** Whether a task came to its end by itself: nobody told it to stop, and its node was not lost. */
export function endedByItself(task: Task): boolean {
  const { State } = task.Status;
  return State === 'complete' || State === 'failed' || State === 'rejected';
}

/**
 * The task that says how things stand with a slot in which none is active: the one that was active last.
 * Tasks to be forgotten do not count.
 */
export function lastWord(tasks: readonly Task[]): Task | undefined {
  let last: Task | undefined;
  for (const task of tasks) {
    if (task.DesiredState === 'remove') continue;
    if (last === undefined || retiredAtMs(task) >= retiredAtMs(last)) last = task;
  }
  return last;
}

function retiredAtMs(task: Task): number {
  return task.Private.RetiredAt ?? Number.POSITIVE_INFINITY;
}

/** When a task was created, in ms since the epoch. */
export function createdAtMs(task: Task): number {
  return Date.parse(task.CreatedAt);
}

/** Whether a rolling update or rollback of the service is under way. */
export function isRollingOut(service: Service): boolean {
  const state = service.UpdateStatus?.State;
  return state === 'updating' || state === 'rollback_started';
}

/** Whether an update or rollback of the service was stopped by failures. */
export function isPaused(service: Service): boolean {
  const state = service.UpdateStatus?.State;
  return state === 'paused' || state === 'rollback_paused';
}

/** The slots of a replicated service's tasks, by number, in rising order. */
export function slotsByNumber(tasks: readonly Task[]): Map<number, Slot> {
  const groups = new Map<number, Task[]>();
  for (const task of tasks) {
    if (task.Slot === undefined) continue;
    const group = groups.get(task.Slot);
    if (group) group.push(task);
    else groups.set(task.Slot, [task]);
  }
  const numbers = [...groups.keys()].sort((left, right) => left - right);
  return new Map(
    numbers.map((number) => {
      const group = groups.get(number)!;
      return [number, { key: slotKey(group[0]!), place: { Slot: number }, tasks: group }];
    }),
  );
}

/** The task of a slot that says most about it: one that serves, else the newest active one. */
export function leadingTask(slot: Slot): Task | undefined {
  const active = slot.tasks.filter(isActive);
  return active.find(isServing) ?? active.at(-1);
}

/**
 * Slots in the order in which scaling down spares them: SwarmKit's rule. Slots without a task on a node go
 * first; then those by which their node holds more of the service than others do, so that the spread is
 * kept; then those that do not serve; then the newest, which have the highest numbers.
 */
export function sparingOrder(slots: readonly Slot[]): Slot[] {
  const rows = slots.map((slot) => ({ slot, task: leadingTask(slot) }));
  rows.sort((left, right) => {
    const byServing = Number(serves(right.task)) - Number(serves(left.task));
    return byServing || (left.slot.place.Slot ?? 0) - (right.slot.place.Slot ?? 0);
  });
  const seen = new Map<string, number>();
  const ranked = rows.map(({ slot, task }) => {
    if (!task?.NodeID || isTerminal(task.Status.State)) return { slot, rank: Number.POSITIVE_INFINITY };
    const rank = (seen.get(task.NodeID) ?? 0) + 1;
    seen.set(task.NodeID, rank);
    return { slot, rank };
  });
  ranked.sort((left, right) => (left.rank === right.rank ? 0 : left.rank - right.rank));
  return ranked.map(({ slot }) => slot);
}

function serves(task: Task | undefined): boolean {
  return task !== undefined && isServing(task);
}
