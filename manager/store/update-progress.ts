/**
 * How far an update of a service is, from what is stored: its own tasks, its times, and what it waits for. The rollout
 * decides by the same times.
 */
import type { Service, Task, UpdateConfig } from '../../proto/docker.ts';
import { isTerminal } from '../../proto/task-state.ts';
import { dirtyTest } from './revision.ts';
import type { View } from './store.ts';
import { cause, type Reason, reasonOf } from './why.ts';

const defaultMonitorMs = 5_000;

/** The settings of the update or rollback that is under way, and its times in ms. */
export function updateTimes(service: Service): {
  readonly config: UpdateConfig;
  readonly delayMs: number;
  readonly monitorMs: number;
} {
  const isRollback = service.UpdateStatus?.State === 'rollback_started';
  const config = (isRollback ? service.Spec.RollbackConfig : service.Spec.UpdateConfig) ?? { Parallelism: 1 };
  return {
    config,
    delayMs: (config.Delay ?? 0) / 1e6,
    monitorMs: config.Monitor ? config.Monitor / 1e6 : defaultMonitorMs,
  };
}

/** Whether a task was made by the update of the service that is stored, still under way or not. */
export function isAttempt(service: Service, task: Task): boolean {
  if (task.Private.Cause !== 'update' || task.RevisionID !== service.Private.RevisionID) return false;
  return Date.parse(task.CreatedAt) >= Date.parse(service.UpdateStatus?.StartedAt ?? '');
}

/** When it was clear what became of a task, good or bad (ms since the epoch); undefined while it is not. */
export function settledAtMs(task: Task): number | undefined {
  return task.Private.RunningSince ?? task.Private.EndedAt;
}

/** What an update or rollback that is under way waits for, beyond its stored message. `now` in ms since the epoch. */
export function explainUpdate(view: View, service: Service, now: number): Reason {
  const state = service.UpdateStatus?.State;
  if (state !== 'updating' && state !== 'rollback_started') return { kind: 'none' };
  const isDirty = dirtyTest(view, service);
  const tasks = view.find('task', 'service', service.ID);
  const active = tasks.filter(
    ({ DesiredState, Status }) =>
      DesiredState !== 'shutdown' && DesiredState !== 'remove' && !isTerminal(Status.State),
  );
  const current = active.filter((task) => !isDirty(task));
  const outdated = active.filter(isDirty);
  const far = `${current.length} of ${active.length} tasks are of the revision that is rolled out`;
  const waiting = [...current, ...outdated].find((task) => task.Status.State !== 'running');
  if (waiting) return cause(`${far}; task ${waiting.ID}: ${reasonOf(view, waiting, now)}`);
  const { delayMs, monitorMs } = updateTimes(service);
  const settled = tasks.filter((task) => isAttempt(service, task)).flatMap((task) => settledAtMs(task) ?? []);
  const lastMs = settled.reduce((last, at) => Math.max(last, at), 0);
  if (outdated.length > 0 && lastMs + delayMs > now)
    return cause(`${far}; the next after the update's delay, at ${time(lastMs + delayMs)}`);
  if (outdated.length === 0 && lastMs + monitorMs > now)
    return cause(`${far}; watched for failures until ${time(lastMs + monitorMs)}`);
  return { kind: 'step', by: 'managers', text: `${far}; waiting for the managers to go on` };
}

function time(atMs: number): string {
  return new Date(atMs).toISOString();
}
