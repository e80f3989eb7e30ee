/**
 * New versions of configs and secrets. A version is an object of its own, so that a service's spec, its revisions and
 * its rollback name exactly what they were given. The newest has the name; the one before it is kept as NAME@n, for
 * the rollback, and older ones as long as a service, or a revision that one can go back to, names them. (Names that users
 * give have no @.)
 *
 * In: the object that has the name, and what the new version is to hold. Out: the changes of one log entry, for the
 * objects and for every service that uses them, by its label (proto/rotation.ts).
 */
import {
  type Config,
  engineIdLabel,
  type Secret,
  type Service,
  type ServiceSpec,
  type Task,
} from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { ConfigId, NewId, RevisionId, SecretId } from '../../proto/ids.ts';
import type { Rotation } from '../../proto/rotation.ts';
import { isTerminal } from '../../proto/task-state.ts';
import { type Change, newMeta } from './change.ts';
import { type Author, updateServiceChanges } from './service-change.ts';
import { serviceOption } from './service-options.ts';
import type { View } from './store.ts';

export type DataKind = 'config' | 'secret';
type DataObject = Config | Secret;
type DataId = ConfigId | SecretId;

/** A service that used the version before, and what becomes of it; a job takes the new one when it runs next. */
export interface RotatedService {
  readonly service: Service;
  readonly rotation: Rotation['kind'] | 'next-run';
}

export interface DataRotation {
  /** The id of the version that has the name now. */
  readonly id: string;
  readonly services: readonly RotatedService[];
  readonly changes: readonly Change[];
}

/** The name that users gave: without the number of a version that another one followed. */
export function withoutNumber(name: string): string {
  return name.replace(/@\d+$/, '');
}

/** Versions that others followed, newest first. */
export function earlierVersions(view: View, kind: DataKind, name: string): DataObject[] {
  const objects: readonly DataObject[] = view.list(kind);
  return objects
    .filter((object) => object.Spec.Name !== name && withoutNumber(object.Spec.Name) === name)
    .sort((left, right) => numberOf(right) - numberOf(left));
}

/**
 * Makes a version that holds `Data` (base64) the one of the name. Nothing changes when it is what the present one holds.
 * Throws 'failed-precondition' for a version that another one followed. `now` in ms since the epoch.
 */
export function newVersion(
  view: View,
  kind: DataKind,
  current: DataObject,
  Data: string,
  now: number,
  newId: NewId,
): DataRotation {
  mustBeNewest(kind, current);
  if (current.Spec.Data === Data) return { id: current.ID, services: [], changes: [] };
  const { id, changes } = replaceObject(view, kind, current, { ...current.Spec, Data }, newId);
  const services = rollOver(view, kind, current.ID, id, now, newId);
  return {
    id,
    services: services.map(({ service, rotation }) => ({ service, rotation })),
    changes: [...changes, ...services.flatMap((one) => one.changes)],
  };
}

/** The changes that put an object of `Spec` in the place of `current`, which is set aside; no service is touched. */
export function replaceObject(
  view: View,
  kind: DataKind,
  current: DataObject,
  Spec: DataObject['Spec'],
  newId: NewId,
): { readonly id: DataId; readonly changes: readonly Change[] } {
  const made = { ...newMeta(newId<DataId>()), Spec };
  const earlier = earlierVersions(view, kind, current.Spec.Name);
  return {
    id: made.ID,
    changes: [
      setAside(kind, current, earlier),
      { op: 'create', kind, object: made } as Change,
      ...earlier.filter((object) => !isUsed(view, kind, object.ID)).map((object) => removal(kind, object)),
    ],
  };
}

/**
 * Makes the version before the present one the one of the name again; asked twice it is as if it had not been asked.
 * Throws 'failed-precondition' when none is kept.
 */
export function previousVersion(
  view: View,
  kind: DataKind,
  current: DataObject,
  now: number,
  newId: NewId,
): DataRotation {
  mustBeNewest(kind, current);
  const { Name } = current.Spec;
  const earlier = earlierVersions(view, kind, Name);
  const [previous] = earlier;
  if (previous === undefined) {
    throw new ShoalError('failed-precondition', `${kind} ${Name} has no earlier version to go back to`);
  }
  const services = rollOver(view, kind, current.ID, previous.ID, now, newId);
  const restored = { ...previous, Spec: { ...previous.Spec, Name } };
  return {
    id: previous.ID,
    services: services.map(({ service, rotation }) => ({ service, rotation })),
    changes: [
      setAside(kind, current, earlier),
      { op: 'update', kind, object: restored } as Change,
      ...services.flatMap(({ changes }) => changes),
    ],
  };
}

/** Takes the earlier versions away with their object, but those that a service is still given. */
export function earlierRemovals(view: View, kind: DataKind, name: string): Change[] {
  return earlierVersions(view, kind, name)
    .filter((object) => view.find('service', kind, object.ID).length === 0)
    .map((object) => removal(kind, object));
}

function mustBeNewest(kind: DataKind, { Spec: { Name } }: DataObject): void {
  if (withoutNumber(Name) === Name) return;
  throw new ShoalError(
    'failed-precondition',
    `${Name} is an earlier version of the ${kind} ${withoutNumber(Name)}: give that name`,
  );
}

function numberOf({ Spec }: DataObject): number {
  return Number(/@(\d+)$/.exec(Spec.Name)?.[1] ?? 0);
}

function setAside(kind: DataKind, current: DataObject, earlier: readonly DataObject[]): Change {
  const Name = `${current.Spec.Name}@${1 + Math.max(0, ...earlier.map(numberOf))}`;
  return { op: 'update', kind, object: { ...current, Spec: { ...current.Spec, Name } } } as Change;
}

function removal(kind: DataKind, object: DataObject): Change {
  return { op: 'remove', kind, id: object.ID as never };
}

/** Whether a service has a version, or would have it again by going back to any revision that is kept. */
function isUsed(view: View, kind: DataKind, id: string): boolean {
  if (view.find('service', kind, id).length > 0) return true;
  if (view.list('revision').some(({ Spec }) => refersTo(Spec, kind, id))) return true;
  return view.list('service').some(({ PreviousSpec }) => PreviousSpec && refersTo(PreviousSpec, kind, id));
}

function refersTo({ TaskTemplate }: ServiceSpec, kind: DataKind, id: string): boolean {
  const { Secrets = [], Configs = [] } = TaskTemplate.ContainerSpec;
  return kind === 'secret'
    ? Secrets.some(({ SecretID }) => SecretID === id)
    : Configs.some(({ ConfigID }) => ConfigID === id);
}

// ---------------------------------------------------------------- services

function rollOver(view: View, kind: DataKind, from: string, to: DataId, now: number, newId: NewId) {
  return view.find('service', kind, from).map((service) => {
    const spec = withVersions(service.Spec, new Map([[from, to]]));
    const { changes, rotation } = rotateService(view, service, spec, now, newId);
    return { service, rotation, changes };
  });
}

/** The spec with versions in the place of others, by id; where they appear in the container stays the same. */
export function withVersions(spec: ServiceSpec, versions: ReadonlyMap<string, DataId>): ServiceSpec {
  const { ContainerSpec } = spec.TaskTemplate;
  const isConcerned =
    ContainerSpec.Secrets?.some(({ SecretID }) => versions.has(SecretID)) ||
    ContainerSpec.Configs?.some(({ ConfigID }) => versions.has(ConfigID));
  if (!isConcerned) return spec;
  const Secrets = ContainerSpec.Secrets?.map((ref) => ({
    ...ref,
    SecretID: (versions.get(ref.SecretID) ?? ref.SecretID) as SecretId,
  }));
  const Configs = ContainerSpec.Configs?.map((ref) => ({
    ...ref,
    ConfigID: (versions.get(ref.ConfigID) ?? ref.ConfigID) as ConfigId,
  }));
  const changed = { ...ContainerSpec, ...(Secrets && { Secrets }), ...(Configs && { Configs }) };
  return { ...spec, TaskTemplate: { ...spec.TaskTemplate, ContainerSpec: changed } };
}

/** Takes a service over to `spec`, which differs in versions alone, as its label says. `revision`: the one it has then. */
export function rotateService(
  view: View,
  service: Service,
  spec: ServiceSpec,
  now: number,
  newId: NewId,
  author?: Author,
): { rotation: RotatedService['rotation']; changes: readonly Change[]; revision: RevisionId } {
  const { kind } = serviceOption(service.Spec.Labels, 'rotate');
  if (kind === 'none') return { rotation: kind, changes: [], revision: service.Private.RevisionID };
  const update = updateServiceChanges(view, service, { spec }, now, newId, author);
  const revision = update.service.Private.RevisionID;
  if (service.JobStatus) {
    const job = { ...update.service, JobStatus: service.JobStatus };
    return { rotation: 'next-run', changes: replaceService(update.changes, job), revision };
  }
  if (kind === 'restart') return { rotation: kind, changes: update.changes, revision };
  return { rotation: kind, changes: signalled(view, service, update), revision };
}

/**
 * A running task goes over to the new revision as it is: its agent sees that its files are others, writes them and
 * sends the signal. A stock engine can't, and so its tasks stay with the revision before, from which the rolling
 * update takes them. An update under way goes on, and its rollback leads where it did.
 */
function signalled(
  view: View,
  service: Service,
  update: { readonly service: Service; readonly changes: readonly Change[] },
): Change[] {
  const { PreviousSpec, UpdateStatus } = service;
  const { PreviousRevisionID } = service.Private;
  const RevisionID = update.service.Private.RevisionID;
  const isUnsettled =
    UpdateStatus !== undefined && !['completed', 'rollback_completed'].includes(UpdateStatus.State);
  const kept: Service = {
    ...update.service,
    ...(UpdateStatus && { UpdateStatus }),
    ...(isUnsettled && PreviousSpec && { PreviousSpec }),
    Private: {
      ...update.service.Private,
      ...(isUnsettled && PreviousRevisionID !== undefined && { PreviousRevisionID }),
    },
  };
  const moved = view
    .find('task', 'service', service.ID)
    .filter((task) => task.RevisionID === service.Private.RevisionID && takesFiles(view, task))
    .map((task): Change => ({ op: 'merge', kind: 'task', id: task.ID, fields: { RevisionID } }));
  return [...replaceService(update.changes, kept), ...moved];
}

/** Whether files can be changed under a task: it has no node yet, or our agent on it. */
function takesFiles(view: View, task: Task): boolean {
  if (task.DesiredState === 'shutdown' || task.DesiredState === 'remove') return false;
  if (isTerminal(task.Status.State)) return false;
  if (task.NodeID === undefined) return true;
  return view.get('node', task.NodeID)?.Description.Engine.Labels[engineIdLabel] !== undefined;
}

function replaceService(changes: readonly Change[], service: Service): Change[] {
  return changes.map((change) =>
    change.op === 'update' && change.kind === 'service' ? { ...change, object: service } : change,
  );
}
