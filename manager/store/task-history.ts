/**
 * The moments of a task: each state, wait, rejection, move and order to stop, with its reason, noted by the store as
 * entries are applied. They stand with the task, so that every manager has the same and a new leader keeps them.
 */
import type { Task, TaskMoment } from '../../proto/docker.ts';
import { isTerminal } from '../../proto/task-state.ts';

/** How many moments a task keeps: how it began, and the last ones. */
const keptMoments = 24;
const keptFirst = 4;

/**
 * What a task keeps of itself, with what has just happened to it: when it first ran, ended and was no longer wanted, and
 * the moment that made it what it is, if it differs in a way that one can tell. The very same when nothing is to be noted.
 */
export function withMoment(
  previous: Task | undefined,
  task: Task,
  now: number,
  because: string | undefined,
): Task['Private'] {
  const { Status, DesiredState, Private } = task;
  const begins = Status.State === 'running' && Private.RunningSince === undefined;
  const ends = isTerminal(Status.State) && Private.EndedAt === undefined;
  const isRetired = DesiredState === 'shutdown' || DesiredState === 'remove';
  const retires = isRetired && Private.RetiredAt === undefined;
  const tells = !previous || isTelling(previous, task);
  if (!begins && !ends && !retires && !tells) return Private;
  const next = { ...Private };
  if (begins) next.RunningSince = now;
  if (ends) next.EndedAt = now;
  if (retires) next.RetiredAt = now;
  if (tells) {
    // Not spread: that leaves room for sixteen more in each task's list.
    next.History = bounded((previous?.Private.History ?? []).concat(momentOf(previous, task, now, because)));
  }
  return next;
}

function momentOf(
  previous: Task | undefined,
  task: Task,
  now: number,
  because: string | undefined,
): TaskMoment {
  const moment: TaskMoment = { At: now, State: task.Status.State, Desired: task.DesiredState };
  const text = because ?? textOf(task);
  if (text !== '') moment.Text = text;
  if (task.NodeID !== undefined && task.NodeID !== previous?.NodeID) moment.NodeID = task.NodeID;
  return moment;
}

function isTelling(previous: Task, task: Task): boolean {
  if (task.DesiredState !== previous.DesiredState) return true;
  // An agent takes a task a moment before it prepares it.
  if (task.Status.State === 'accepted') return false;
  return task.Status.State !== previous.Status.State || textOf(task) !== textOf(previous);
}

function textOf(task: Task): string {
  return task.Status.Err || task.Status.Message;
}

function bounded(moments: TaskMoment[]): TaskMoment[] {
  if (moments.length <= keptMoments) return moments;
  return [...moments.slice(0, keptFirst), ...moments.slice(keptFirst + 1)];
}
