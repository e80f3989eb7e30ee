/**
 * Jobs that run by a schedule (label `shoal.cron`). When they run next is stored with the service, and every run, so
 * that a new leader goes on where the old one stopped. Times that nobody saw (no leader, no quorum) are made up for by
 * one run, however many there were. A run is an iteration of the job; jobs.ts carries it out.
 *
 * What an earlier run that is not over means for the next, as the label `shoal.cron.overlap` says: `forbid`, the next is
 * skipped and its history says so; `replace`, what is left of the earlier one is stopped; `allow`, its tasks go on to
 * their end beside those of the next, but it begins no more.
 */
import type { CronRun, CronState, Service } from '../../proto/docker.ts';
import { asId, type ServiceId } from '../../proto/ids.ts';
import { isTerminal } from '../../proto/task-state.ts';
import { nothing, type Reconciler, type Reconciliation } from '../store/reconciler.ts';
import { nextRunAt } from '../store/schedule.ts';
import { type CronOptions, cronOptions } from '../store/service-options.ts';
import type { View } from '../store/store.ts';
import { type Context, makeContext } from './context.ts';
import { outcomeOfIteration } from './jobs.ts';
import { isActive } from './slots.ts';

export const cron: Reconciler = {
  name: 'cron',
  keysFor(event, view) {
    if (event.kind === 'service') return hasSchedule(event.object) ? [event.object.ID] : [];
    if (event.kind !== 'task') return [];
    const service = view.get('service', event.object.ServiceID);
    const isNews = event.op === 'remove' || isTerminal(event.object.Status.State) || !isActive(event.object);
    return isNews && service && hasSchedule(service) ? [service.ID] : [];
  },
  allKeys: (view) =>
    (['ReplicatedJob', 'GlobalJob'] as const)
      .flatMap((mode) => view.find('service', 'mode', mode))
      .filter(hasSchedule)
      .map(({ ID }) => ID),
  reconcile(view, key, now, newId) {
    const service = view.get('service', asId<ServiceId>(key));
    const options = service?.JobStatus && cronOptions(service.Spec.Labels);
    if (!service || !options) return nothing;
    return decide(makeContext(view, service, now, newId), options);
  },
};

function hasSchedule(service: Service): boolean {
  return service.JobStatus !== undefined && cronOptions(service.Spec.Labels) !== undefined;
}

function decide(context: Context, options: CronOptions): Reconciliation {
  const { service, now } = context;
  const schedule = `${options.schedule} ${options.timezone}`;
  const stored = service.Private.Cron;
  const nextAt = () => nextRunAt(options.schedule, options.timezone, now);
  if (stored?.Schedule !== schedule) {
    const next = nextAt();
    return store(service, { Schedule: schedule, Runs: stored?.Runs ?? [], ...(next && { NextAt: next }) });
  }
  const runs = stored.Runs.map((run) => closed(context, run));
  const dueAt = stored.NextAt;
  if (dueAt === undefined || dueAt > now) {
    const isNews = runs.some((run, index) => run !== stored.Runs[index]);
    const kept = isNews ? store(service, { ...stored, Runs: trimmed(runs, options.history) }) : nothing;
    return dueAt === undefined ? kept : { ...kept, wakeAt: dueAt };
  }
  const next = nextAt();
  const { NextAt: _due, ...rest } = stored;
  const state: CronState = { ...rest, ...(next && { NextAt: next }) };
  const isBusy = runs.some((run) => run.Outcome === 'running');
  const iteration = (service.JobStatus?.JobIteration.Index ?? 0) + 1;
  const run: CronRun =
    isBusy && options.overlap === 'forbid'
      ? { ScheduledAt: dueAt, Outcome: 'skipped', EndedAt: now }
      : { ScheduledAt: dueAt, StartedAt: now, Iteration: iteration, Outcome: 'running' };
  const ended = isBusy && options.overlap === 'replace' ? runs.map((one) => replaced(one, now)) : runs;
  const Runs = trimmed([...ended, run], options.history);
  if (run.Outcome === 'skipped') return store(service, { ...state, Runs });
  const JobStatus = { JobIteration: { Index: iteration }, LastExecution: new Date(now).toISOString() };
  return store({ ...service, JobStatus }, { ...state, Runs });
}

/** By `update`: were the service changed meanwhile, this would not be about it. The commit brings the loop back here. */
function store(service: Service, Cron: CronState): Reconciliation {
  const object: Service = { ...service, Private: { ...service.Private, Cron } };
  return { changes: [{ op: 'update', kind: 'service', object }] };
}

function replaced(run: CronRun, now: number): CronRun {
  return run.Outcome === 'running' ? { ...run, Outcome: 'replaced', EndedAt: now } : run;
}

/** A run with its outcome, once it is over; the very same while nothing is new. */
function closed(context: Context, run: CronRun): CronRun {
  if (run.Outcome !== 'running') return run;
  const { service, now, view } = context;
  const isPresent = run.Iteration === service.JobStatus?.JobIteration.Index;
  const Outcome = isPresent ? outcomeOfIteration(context) : outcomeOfEarlier(view, service, run);
  return Outcome === 'running' ? run : { ...run, Outcome, EndedAt: now };
}

/** Of a run that another one overlaps: what its tasks come to, for it begins no more. */
function outcomeOfEarlier(view: View, service: Service, run: CronRun): CronRun['Outcome'] {
  const tasks = view
    .find('task', 'service', service.ID)
    .filter((task) => task.JobIteration?.Index === run.Iteration);
  if (tasks.some((task) => isActive(task) && !isTerminal(task.Status.State))) return 'running';
  return tasks.some(({ Status }) => Status.State === 'complete') ? 'complete' : 'failed';
}

/** The newest `limit` runs that are over, and all that are not. */
function trimmed(runs: readonly CronRun[], limit: number): CronRun[] {
  let over = runs.filter((run) => run.Outcome !== 'running').length;
  return runs.filter((run) => run.Outcome === 'running' || over-- <= limit);
}
