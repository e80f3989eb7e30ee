/**
 * What must hold of jobs with a schedule: the time that comes next is the schedule's own; each time that is due while a manager leads
 * is a run, or is told to have been skipped; two runs are only at work at once where that is asked for.
 */
import { isActive } from '../../../manager/orchestrator/slots.ts';
import { cronOptions } from '../../../manager/store/service-options.ts';
import type { Store, View } from '../../../manager/store/store.ts';
import type { CronRun, Service, Task } from '../../../proto/docker.ts';
import { isTerminal } from '../../../proto/task-state.ts';
import { short } from '../invariants.ts';
import { periodMsOf } from './specs.ts';
import type { Happening, Watching } from './watch.ts';

/** How late a run may be while the same manager leads and can. */
const lateMs = 3_000;

export class ScheduleInvariants {
  readonly #watching: Watching;

  constructor(watching: Watching) {
    this.#watching = watching;
  }

  happened({ store, event, entryNow }: Happening): void {
    if (event.kind === 'task' && event.op === 'create') this.#apart(store, event.object);
    if (event.kind === 'service' && event.op === 'update' && event.previous)
      this.#moved(event.object, event.previous, entryNow);
  }

  #lost(service: Service, what: string): void {
    this.#watching.violate('schedule-kept', `${service.Spec.Name}: ${what}`);
  }

  #moved(service: Service, previous: Service, entryNow: number): void {
    const options = cronOptions(service.Spec.Labels);
    const periodMs = periodMsOf(options?.schedule);
    const [before, after] = [previous.Private.Cron, service.Private.Cron];
    if (before && !after) this.#lost(service, 'its runs are forgotten');
    if (!options || !after || periodMs === undefined) return;
    if (!after.Schedule.startsWith(`${options.schedule} `)) return;
    const next = (moment: number): number => (Math.floor(moment / periodMs) + 1) * periodMs;
    if (before?.Schedule !== after.Schedule) {
      // The time is worked out just before the entry is made.
      const isNext = after.NextAt === next(entryNow) || after.NextAt === next(entryNow - 1_000);
      if (!isNext) this.#lost(service, `at ${entryNow} it is to run at ${after.NextAt}`);
      return;
    }
    if (before.NextAt === after.NextAt) return;
    const run = after.Runs.find(({ ScheduledAt }) => ScheduledAt === before.NextAt);
    const moment = run?.StartedAt ?? run?.EndedAt;
    if (run === undefined || moment === undefined || before.NextAt === undefined) {
      this.#lost(service, `was to run at ${before.NextAt}, and the next time is ${after.NextAt}`);
      return;
    }
    if (moment < before.NextAt) this.#lost(service, `ran at ${moment}, and was to run at ${before.NextAt}`);
    if (after.NextAt !== next(moment))
      this.#lost(service, `ran at ${moment}, and is to run next at ${after.NextAt}`);
    this.#overlap(service, run, after.Runs);
  }

  #overlap(service: Service, run: CronRun, runs: readonly CronRun[]): void {
    const overlap = cronOptions(service.Spec.Labels)?.overlap;
    const others = runs.filter((other) => other !== run && other.Outcome === 'running');
    const { violate } = this.#watching;
    const name = service.Spec.Name;
    if (run.Outcome === 'running' && overlap !== 'allow' && others.length > 0)
      violate('runs-apart', `${name} (${overlap}) begins a run while another is not over`);
    if (run.Outcome === 'running' && run.Iteration !== service.JobStatus?.JobIteration.Index)
      violate('schedule-kept', `${name} has a run that is not its iteration`);
    if (run.Outcome === 'skipped' && (overlap !== 'forbid' || others.length === 0))
      violate('schedule-kept', `${name} (${overlap}) skips a run for none`);
  }

  /** What is begun stands beside no task of an earlier run. */
  #apart(store: Store, task: Task): void {
    const service = store.get('service', task.ServiceID);
    const options = service && cronOptions(service.Spec.Labels);
    if (!options || options.overlap === 'allow') return;
    const other = store
      .find('task', 'service', task.ServiceID)
      .find(
        (one) =>
          one.JobIteration?.Index !== task.JobIteration?.Index &&
          isActive(one) &&
          !isTerminal(one.Status.State),
      );
    if (other)
      this.#watching.violate(
        'runs-apart',
        `task ${short(task.ID)} of run ${task.JobIteration?.Index} begins while ${short(other.ID)} of run ${other.JobIteration?.Index} goes on`,
      );
  }

  /** At any moment: `steadyMs`, for so long the same manager has led and could write, by an even clock that is at `leaderNow`. */
  look(store: View, leaderNow: number, steadyMs: number): void {
    for (const service of store.list('service')) {
      const periodMs = periodMsOf(cronOptions(service.Spec.Labels)?.schedule);
      const dueAt = service.Private.Cron?.NextAt;
      if (periodMs === undefined || steadyMs < periodMs + lateMs) continue;
      const isNew = leaderNow - Date.parse(service.CreatedAt) < periodMs + lateMs;
      if (dueAt === undefined && !isNew) this.#lost(service, 'no time comes any more');
      else if (dueAt === undefined) continue;
      else if (leaderNow - dueAt > lateMs)
        this.#lost(service, `is due for ${leaderNow - dueAt} ms, and does not run`);
    }
  }
}
