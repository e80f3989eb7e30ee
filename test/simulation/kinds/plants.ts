/** Bugs put into jobs, schedules and scaling on purpose: what kinds/ must find. */

import { type Decisions, decisions } from '../../../manager/leader.ts';
import { autoscaleOptions } from '../../../manager/store/autoscale-options.ts';
import type { Change } from '../../../manager/store/change.ts';
import { earlier, type Reconciler, type Reconciliation } from '../../../manager/store/reconciler.ts';
import { withScale } from '../../../manager/store/scale.ts';
import type { View } from '../../../manager/store/store.ts';
import type { Service, ServiceRevision, ServiceSpec } from '../../../proto/docker.ts';
import type { TaskId } from '../../../proto/ids.ts';
import type { Plant } from '../surroundings.ts';

/** How long a slot has been complete before it is begun again. */
const againAfterMs = 4_000;

/** The deciding parts with those called `names` replaced. */
function planted(
  names: readonly string[],
  plant: (real: Reconciler) => Reconciler,
): NonNullable<Plant['decide']> {
  return (usage): Decisions => {
    const real = decisions(usage);
    const reconcilers = real.reconcilers.map((one) => (names.includes(one.name) ? plant(one) : one));
    return { ...real, reconcilers };
  };
}

/** A view that shows services and revisions as `shown` has them. */
function seenAs(
  view: View,
  shown: { service?: (one: Service) => Service; revision?: (one: ServiceRevision) => ServiceRevision },
): View {
  return new Proxy(view, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name);
      if (typeof value !== 'function') return value;
      if (name !== 'get') return value.bind(target);
      return (kind: 'service' | 'revision', id: never) => {
        const found = target.get(kind, id);
        const change = shown[kind] as ((one: unknown) => unknown) | undefined;
        return found && change ? change(found) : found;
      };
    },
  });
}

function seeing(shown: Parameters<typeof seenAs>[1]): (real: Reconciler) => Reconciler {
  return (real) => ({
    ...real,
    reconcile: (view, key, now, newId, steadySince) =>
      real.reconcile(seenAs(view, shown), key, now, newId, steadySince),
  });
}

/** Services that a reconciler changes are changed once more. */
function changing(change: (service: Service, before: Service | undefined) => Service) {
  return (real: Reconciler): Reconciler => ({
    ...real,
    reconcile(view, key, now, newId, steadySince): Reconciliation {
      const wanted = real.reconcile(view, key, now, newId, steadySince);
      const changes = wanted.changes.map((one): Change => {
        if (one.op !== 'update' || one.kind !== 'service') return one;
        return { ...one, object: change(one.object, view.get('service', one.object.ID)) };
      });
      return { ...wanted, changes };
    },
  });
}

function beginAgain(real: Reconciler): Reconciler {
  const begun = new Set<TaskId>();
  return {
    ...real,
    reconcile(view, key, now, newId, steadySince) {
      const wanted = real.reconcile(view, key, now, newId, steadySince);
      const service = view.get('service', key as never);
      if (!service) return wanted;
      const done = view
        .find('task', 'service', service.ID)
        .filter((task) => task.JobIteration?.Index === service.JobStatus?.JobIteration.Index)
        .find((task) => task.Status.State === 'complete' && !begun.has(task.ID));
      if (!done) return wanted;
      const againAt = Date.parse(done.Status.Timestamp) + againAfterMs;
      if (now < againAt) return { ...wanted, wakeAt: earlier(wanted.wakeAt, againAt)! };
      begun.add(done.ID);
      const { NodeID: _, Private, ...rest } = done;
      const Status = { State: 'pending' as const, Timestamp: new Date(now).toISOString(), Message: '' };
      const object = {
        ...rest,
        ID: newId<TaskId>(),
        Status,
        Private: { ...Private, Cause: 'node' as const },
      };
      return { ...wanted, changes: [...wanted.changes, { op: 'create', kind: 'task', object }] };
    },
  };
}

function withMore(service: Service): Service {
  const { ReplicatedJob } = service.Spec.Mode;
  if (!ReplicatedJob) return service;
  const { MaxConcurrent = 1, TotalCompletions = MaxConcurrent } = ReplicatedJob;
  const Mode = { ReplicatedJob: { MaxConcurrent: MaxConcurrent + 1, TotalCompletions } };
  return { ...service, Spec: { ...service.Spec, Mode } };
}

function withoutPolicy(revision: ServiceRevision): ServiceRevision {
  const { TaskTemplate } = revision.Spec;
  const RestartPolicy = { Condition: 'any' as const, Delay: 2e8 };
  const Spec: ServiceSpec = { ...revision.Spec, TaskTemplate: { ...TaskTemplate, RestartPolicy } };
  return { ...revision, Spec };
}

/** The next time is worked out, and that it was due is forgotten. */
function withoutRun(service: Service, before: Service | undefined): Service {
  const { Cron } = service.Private;
  if (!Cron || !before || before.Private.Cron?.NextAt === Cron.NextAt) return service;
  const { Runs = [], ...rest } = before.Private.Cron ?? {};
  return {
    ...before,
    Private: { ...before.Private, Cron: { ...Cron, ...rest, NextAt: Cron.NextAt!, Runs } },
  };
}

/** What was to be skipped is run. */
function withSkipped(service: Service): Service {
  const { Cron } = service.Private;
  const last = Cron?.Runs.at(-1);
  if (!Cron || !service.JobStatus || last?.Outcome !== 'skipped' || last.EndedAt === undefined)
    return service;
  const Iteration = service.JobStatus.JobIteration.Index + 1;
  const { EndedAt: StartedAt, ScheduledAt } = last;
  const run = { ScheduledAt, StartedAt, Iteration, Outcome: 'running' as const };
  return {
    ...service,
    JobStatus: { JobIteration: { Index: Iteration } },
    Private: { ...service.Private, Cron: { ...Cron, Runs: [...Cron.Runs.slice(0, -1), run] } },
  };
}

function withTooMany(service: Service): Service {
  const options = autoscaleOptions(service.Spec.Labels);
  const { Kind } = service.Private.Autoscale ?? {};
  if (!options || Kind !== 'changed') return service;
  return { ...service, Spec: { ...service.Spec, Mode: withScale(service.Spec.Mode, options.max + 1) } };
}

function withoutCooldown(service: Service): Service {
  const Labels = { ...service.Spec.Labels, 'shoal.autoscale.cooldown': '0s' };
  return { ...service, Spec: { ...service.Spec, Labels } };
}

function withLabelsOf(service: Service, before: Service | undefined): Service {
  return { ...service, Spec: { ...service.Spec, Labels: before?.Spec.Labels ?? {} } };
}

const ofJobs = ['replicated jobs', 'global jobs'] as const;

export const plantsOfKinds: Readonly<Record<string, Plant>> = {
  'job-again': {
    what: 'a slot of a job is begun again though it is complete',
    decide: planted(ofJobs, beginAgain),
    varied: true,
  },
  'eager-jobs': {
    what: 'a job has one task more at a time than it may',
    decide: planted(ofJobs, seeing({ service: withMore })),
    varied: true,
  },
  'endless-retries': {
    what: 'a failed task of a job is tried again whatever its restart policy says',
    decide: planted(ofJobs, seeing({ revision: withoutPolicy })),
    varied: true,
  },
  'lost-run': {
    what: 'a run that was due is forgotten',
    decide: planted(['cron'], changing(withoutRun)),
    varied: true,
  },
  'overlapping-runs': {
    what: 'a run begins beside another one that forbids it',
    decide: planted(['cron'], changing(withSkipped)),
    varied: true,
  },
  'too-many-tasks': {
    what: 'a service is scaled beyond its most',
    decide: planted(['autoscale'], changing(withTooMany)),
    varied: true,
  },
  'hasty-scaling': {
    what: 'a service is scaled without a thought to when that was done last',
    decide: planted(['autoscale'], (real) =>
      changing(withLabelsOf)(seeing({ service: withoutCooldown })(real)),
    ),
    varied: true,
  },
};
