/**
 * From a service's spec to the changes that make it so: the one rule by which the API, a stack's deploy
 * and a rollback create and update services. Each accepted spec becomes a revision, which tasks name.
 *
 * In: an accepted, validated spec with networks, secrets and configs resolved to ids. Out: changes for one
 * log entry. It does not touch tasks: the orchestrators see the new revision and act.
 */
import type {
  CronRun,
  Service,
  ServiceChangeRecord,
  ServiceMode,
  ServiceRevision,
  ServiceSpec,
} from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { NewId, RevisionId, ServiceId } from '../../proto/ids.ts';
import { type Change, newMeta } from './change.ts';
import { differencesOf } from './difference.ts';
import { endpointOf } from './endpoint.ts';
import { keptAutoscale, withKeptScale, withPresentScale } from './kept-scale.ts';
import { acceptedSpec, sameServiceSpec, sameValue } from './normalize.ts';
import { withPresentCredentials } from './present-credentials.ts';
import { cronOptions } from './service-options.ts';
import type { View } from './store.ts';
import { modeName } from './tables.ts';

/** Who asks for a change, and, where the specs do not show it, what they call it. */
export interface Author {
  readonly by: string;
  readonly what?: string;
}

const nobody: Author = { by: '' };
const keptRecords = 20;

export interface ServiceChanges {
  /** The service as it will be stored but for version and times. */
  readonly service: Service;
  readonly changes: Change[];
}

/** The changes that create a service of `spec` with its first revision. `now` in ms since the epoch. */
export function createServiceChanges(
  spec: ServiceSpec,
  now: number,
  newId: NewId,
  author: Author = nobody,
): ServiceChanges {
  const accepted = acceptedSpec(spec);
  const serviceId = newId<ServiceId>();
  const revision = revisionOf(newId<RevisionId>(), serviceId, 1, accepted);
  const service: Service = {
    ...newMeta(serviceId),
    Spec: accepted,
    Endpoint: endpointOf({ Spec: accepted, Endpoint: { Spec: {} } }),
    ...(isJob(accepted.Mode)
      ? { JobStatus: { JobIteration: { Index: 0 }, LastExecution: timestamp(now) } }
      : {}),
    Private: {
      RevisionID: revision.ID,
      History: [recordOf(revision, now, author, 'created')],
    },
  };
  return {
    service,
    changes: [
      { op: 'create', kind: 'revision', object: revision },
      { op: 'create', kind: 'service', object: service },
    ],
  };
}

/**
 * What an update asks for: a new spec; the spec before this one (`docker service rollback`); or any
 * revision that is still kept.
 */
export type ServiceUpdate =
  | { readonly spec: ServiceSpec }
  | { readonly rollback: 'previous' }
  | { readonly rollbackTo: RevisionId };

/**
 * The changes that update `service`. Its Version.Index is the one that the caller saw: the store refuses
 * the entry with 'out-of-sequence' when another came before. Throws ShoalError 'not-supported' when the
 * update renames the service or changes its mode, 'failed-precondition' when there is nothing to roll
 * back to, 'not-found' when the revision is not this service's.
 */
export function updateServiceChanges(
  view: View,
  service: Service,
  update: ServiceUpdate,
  now: number,
  newId: NewId,
  author: Author = nobody,
): ServiceChanges {
  const { UpdateStatus: _status, PreviousSpec: _previous, ...kept } = service;
  const target = targetOf(view, service, update, newId);
  const isRollback = !('spec' in update);
  const asked = target.revision.Spec;
  const Spec = isRollback
    ? withPresentCredentials(service, withPresentScale(service, asked))
    : withKeptScale(service, asked);
  const Autoscale = keptAutoscale(service, Spec);
  const job = nextRun(service, target.revision.Spec, now);
  checkSameService(service, target.revision.Spec);
  if (!isRollback && isCredentialsOnly(service.Spec, target.revision.Spec)) {
    return withCredentialsOf(
      service,
      target,
      recordOf(target.revision, now, author, 'new registry credentials'),
    );
  }
  const next: Service = {
    ...kept,
    Spec,
    Endpoint: endpointOf({ Spec, Endpoint: service.Endpoint }),
    PreviousSpec: service.Spec,
    ...(isRollback
      ? {
          UpdateStatus: {
            State: 'rollback_started',
            StartedAt: timestamp(now),
            Message: 'manually requested rollback',
          },
        }
      : {}),
    ...(job && { JobStatus: job.JobStatus }),
    Private: {
      ...withoutAutoscale(service.Private),
      ...(Autoscale && { Autoscale }),
      ...job?.cron,
      RevisionID: target.revision.ID,
      PreviousRevisionID: service.Private.RevisionID,
      History: withRecord(
        service,
        recordOf(target.revision, now, author, describe(service, Spec, isRollback)),
      ),
    },
  };
  return { service: next, changes: [...target.changes, { op: 'update', kind: 'service', object: next }] };
}

function withoutAutoscale({ Autoscale: _, ...rest }: Service['Private']): Service['Private'] {
  return rest;
}

/**
 * New credentials for the registry and nothing else: the tasks stay, a job does not run again, an update goes on, and
 * a rollback leads to the spec that it would have led to.
 */
function withCredentialsOf(
  service: Service,
  { revision, changes }: Target,
  record: ServiceChangeRecord,
): ServiceChanges {
  const refreshed: Service = {
    ...service,
    Spec: revision.Spec,
    Private: { ...service.Private, RevisionID: revision.ID, History: withRecord(service, record) },
  };
  return {
    service: refreshed,
    changes: [...changes, { op: 'update', kind: 'service', object: refreshed }],
  };
}

function isCredentialsOnly(before: ServiceSpec, after: ServiceSpec): boolean {
  const [old, fresh] = [before, after].map((spec) => spec.TaskTemplate.ContainerSpec.PullOptions);
  if (fresh === undefined || sameValue(old, fresh)) return false;
  return sameServiceSpec(withPullOptions(before, fresh), after);
}

function withPullOptions(
  spec: ServiceSpec,
  PullOptions: NonNullable<ServiceSpec['TaskTemplate']['ContainerSpec']['PullOptions']>,
): ServiceSpec {
  const { TaskTemplate } = spec;
  return {
    ...spec,
    TaskTemplate: { ...TaskTemplate, ContainerSpec: { ...TaskTemplate.ContainerSpec, PullOptions } },
  };
}

function recordOf(revision: ServiceRevision, now: number, author: Author, what: string): ServiceChangeRecord {
  const What = [author.what, what].filter((part) => part).join(': ');
  return { Number: revision.Number, RevisionID: revision.ID, At: timestamp(now), By: author.by, What };
}

function describe(service: Service, spec: ServiceSpec, isRollback: boolean): string {
  const differences = differencesOf(service.Spec, spec).join('; ');
  if (differences !== '') return differences;
  return isRollback ? 'rollback, nothing differs' : 'nothing differs';
}

/** The history of a service with one change more. */
export function withRecord(service: Service, record: ServiceChangeRecord): ServiceChangeRecord[] {
  return [...(service.Private.History ?? []), record].slice(-keptRecords);
}

interface Target {
  readonly revision: ServiceRevision;
  readonly changes: Change[];
}

/** The revision that the update goes to, made when there is none of it. */
function targetOf(view: View, service: Service, update: ServiceUpdate, newId: NewId): Target {
  if ('rollbackTo' in update) {
    const revision = view.get('revision', update.rollbackTo);
    if (revision?.ServiceID !== service.ID) {
      throw new ShoalError(
        'not-found',
        `service ${service.Spec.Name} has no revision ${update.rollbackTo}: it was never one of its, or is no longer kept`,
      );
    }
    return { revision, changes: [] };
  }
  if ('rollback' in update) {
    const kept = view.get('revision', service.Private.PreviousRevisionID);
    if (kept) return { revision: kept, changes: [] };
    if (!service.PreviousSpec) {
      throw new ShoalError('failed-precondition', `service ${service.ID} does not have a previous spec`);
    }
    return newRevision(view, service, service.PreviousSpec, newId);
  }
  return newRevision(view, service, acceptedSpec(update.spec), newId);
}

function newRevision(view: View, service: Service, spec: ServiceSpec, newId: NewId): Target {
  const numbers = view.find('revision', 'service', service.ID).map((revision) => revision.Number);
  const number = numbers.reduce((highest, one) => Math.max(highest, one), 0) + 1;
  const revision = revisionOf(newId<RevisionId>(), service.ID, number, spec);
  return { revision, changes: [{ op: 'create', kind: 'revision', object: revision }] };
}

function revisionOf(
  id: RevisionId,
  serviceId: ServiceId,
  number: number,
  spec: ServiceSpec,
): ServiceRevision {
  return { ...newMeta(id), ServiceID: serviceId, Number: number, Spec: spec };
}

function checkSameService(service: Service, spec: ServiceSpec): void {
  if (spec.Name !== service.Spec.Name) {
    throw new ShoalError('not-supported', 'renaming services is not supported');
  }
  if (modeName(spec.Mode) !== modeName(service.Spec.Mode)) {
    throw new ShoalError('not-supported', 'service mode change is not allowed');
  }
}

function isJob(mode: ServiceMode): boolean {
  return modeName(mode) === 'ReplicatedJob' || modeName(mode) === 'GlobalJob';
}

/**
 * An update of a job runs it again; one that has a schedule only when it is forced, and that run is remembered with
 * those of the schedule.
 */
function nextRun(
  service: Service,
  spec: ServiceSpec,
  now: number,
): { JobStatus: NonNullable<Service['JobStatus']>; cron: Pick<Service['Private'], 'Cron'> } | undefined {
  if (!service.JobStatus) return undefined;
  const JobStatus = nextJobStatus(service.JobStatus, now);
  const { Cron } = service.Private;
  if (cronOptions(spec.Labels) === undefined) return { JobStatus, cron: {} };
  const isForced = (spec.TaskTemplate.ForceUpdate ?? 0) !== (service.Spec.TaskTemplate.ForceUpdate ?? 0);
  if (!isForced) return undefined;
  const Iteration = JobStatus.JobIteration.Index;
  const run: CronRun = { ScheduledAt: now, StartedAt: now, Iteration, Outcome: 'running' };
  return { JobStatus, cron: { Cron: { Schedule: '', ...Cron, Runs: [...(Cron?.Runs ?? []), run] } } };
}

function nextJobStatus(
  status: NonNullable<Service['JobStatus']>,
  now: number,
): NonNullable<Service['JobStatus']> {
  return { JobIteration: { Index: status.JobIteration.Index + 1 }, LastExecution: timestamp(now) };
}

function timestamp(now: number): string {
  return new Date(now).toISOString();
}
