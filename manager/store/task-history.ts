/**
 * The moments of a task: each state, wait, rejection, move and order to stop, with its reason, noted by the store as
 * entries are applied. They stand with the task, so that every manager has the same and a new leader keeps them.
 */
import type { Task, TaskMoment } from '../../proto/docker.ts';

/** How many moments a task keeps: how it began, and the last ones. */
const keptMoments = 24;
const keptFirst = 4;

/** The task with the moment that made it what it is, if it differs in a way that one can tell. */
export function withMoment(
  previous: Task | undefined,
  task: Task,
  now: number,
  because: string | undefined,
): Task {
  const text = because ?? textOf(task);
  if (previous && !isTelling(previous, task)) return task;
  const moment: TaskMoment = {
    At: now,
    State: task.Status.State,
    Desired: task.DesiredState,
    ...(text === '' ? {} : { Text: text }),
    ...(task.NodeID !== undefined && task.NodeID !== previous?.NodeID ? { NodeID: task.NodeID } : {}),
  };
  const History = bounded([...(previous?.Private.History ?? []), moment]);
  return { ...task, Private: { ...task.Private, History } };
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
