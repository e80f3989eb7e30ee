/**
 * The restart policy: whether a task that ended gets a successor, and when. Decided from the history that
 * the slot's stored tasks are, by SwarmKit's rules.
 */
import type { RestartPolicy, Task } from '../../proto/docker.ts';
import { type Context, specOf } from './context.ts';
import { createdAtMs, endedByItself } from './slots.ts';

const nanosecondsPerMs = 1e6;
const defaultDelayMs = 5_000;

/**
 * Whether the slot of `task`, which ended, is to have another one. `slotTasks` are all tasks of the slot.
 * A limit on attempts counts the restarts of the same revision (of a job: in the same run), those of the window before the
 * task's end when there is one; being moved from a lost node is no attempt.
 */
export function mayRestart(context: Context, slotTasks: readonly Task[], task: Task): boolean {
  const policy = policyOf(context, task);
  const condition = policy.Condition || 'any';
  if (condition === 'none') return false;
  // A job that did its work is not run again.
  const onlyFailures = condition === 'on-failure' || context.service.JobStatus !== undefined;
  if (onlyFailures && task.Status.State === 'complete') return false;
  const maxAttempts = policy.MaxAttempts ?? 0;
  if (maxAttempts === 0 || !endedByItself(task)) return true;
  const restarts = slotTasks.filter((other) => isRestartOf(other, task));
  const windowMs = (policy.Window ?? 0) / nanosecondsPerMs;
  if (windowMs === 0) return restarts.length < maxAttempts;
  const endedAtMs = task.Private.EndedAt ?? Date.parse(task.Status.Timestamp);
  const recent = restarts.filter(
    (other) => createdAtMs(other) > endedAtMs - windowMs && createdAtMs(other) <= endedAtMs,
  );
  return recent.length < maxAttempts;
}

/** Each run of a job has all its attempts. */
function isRestartOf(other: Task, task: Task): boolean {
  return (
    other.Private.Cause === 'failure' &&
    other.RevisionID === task.RevisionID &&
    other.JobIteration?.Index === task.JobIteration?.Index
  );
}

/** How long after a task's end its successor may start, in ms. */
export function restartDelayMs(context: Context, task: Task): number {
  const { Delay } = policyOf(context, task);
  return Delay === undefined ? defaultDelayMs : Delay / nanosecondsPerMs;
}

function policyOf(context: Context, task: Task): RestartPolicy {
  return specOf(context, task).TaskTemplate.RestartPolicy ?? {};
}
