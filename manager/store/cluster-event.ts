/**
 * What clients hear of a change: Docker's swarm events, made from what an entry did, and the last of them kept.
 * They are made when an entry is applied and are part of the snapshot, so that every manager tells the same.
 */
import type { ClusterNode, Labels, Service } from '../../proto/docker.ts';
import { type Kind, nameOf } from './tables.ts';
import type { StoreEvent } from './watch.ts';

/** Kinds of objects that clients hear of. */
const toldKinds = ['node', 'service', 'network', 'secret', 'config'] as const satisfies readonly Kind[];
type ToldEvent = Extract<StoreEvent, { kind: (typeof toldKinds)[number] }>;

export interface ClusterEvent {
  /** Raft index of the entry; events of one entry share it. */
  readonly index: number;
  /** When the entry was proposed; ms since the epoch. */
  readonly timeMs: number;
  readonly type: (typeof toldKinds)[number];
  readonly action: 'create' | 'update' | 'remove';
  readonly id: string;
  /** The object's name, and `field.old` and `field.new` of what people watch for. */
  readonly attributes: Readonly<Record<string, string>>;
  /** The object's labels, for filters; they are not told. */
  readonly labels: Labels;
}

/** As many events are kept; the ones before are forgotten. Docker's engine keeps 256. */
export const keptEvents = 1_024;

/** The last events, oldest first. */
export class RecentEvents {
  private events: ClusterEvent[] = [];

  add(events: readonly ClusterEvent[]): void {
    if (events.length === 0) return;
    this.events.push(...events);
    // Cut in strides, for a cut costs as much as what is kept.
    if (this.events.length >= 2 * keptEvents) this.events = this.events.slice(-keptEvents);
  }

  /** In the order in which they happened. */
  list(): readonly ClusterEvent[] {
    return this.events.length > keptEvents ? this.events.slice(-keptEvents) : this.events;
  }
}

/** What clients hear of an entry, in order. `now`: the entry's time, ms since the epoch. */
export function clusterEvents(index: number, now: number, events: readonly StoreEvent[]): ClusterEvent[] {
  const all: ClusterEvent[] = [];
  for (const event of events) {
    const told = isTold(event) ? toldOf(event) : undefined;
    if (told) all.push({ index, timeMs: now, ...told });
  }
  return all;
}

function isTold(event: StoreEvent): event is ToldEvent {
  return (toldKinds as readonly Kind[]).includes(event.kind);
}

function toldOf(event: ToldEvent): Omit<ClusterEvent, 'index' | 'timeMs'> | undefined {
  const changes = changesOf(event);
  if (isBookkeeping(event, changes)) return undefined;
  return {
    type: event.kind,
    action: event.op,
    id: event.object.ID,
    attributes: { name: nameOf(event.kind, event.object as never) ?? '', ...changes },
    labels: event.object.Spec.Labels ?? {},
  };
}

/** A node's certificate, last sign of life, a service's scaling and the like: nothing that a client can see has changed. */
function isBookkeeping(event: ToldEvent, changes: Record<string, string>): boolean {
  if (event.kind === 'service') return isScaling(event) && Object.keys(changes).length === 0;
  if (event.kind !== 'node' || event.op !== 'update' || !event.previous) return false;
  const { object, previous } = event;
  return (
    Object.keys(changes).length === 0 &&
    (object.Spec === previous.Spec || isSame(object.Spec, previous.Spec)) &&
    (object.Description === previous.Description || isSame(object.Description, previous.Description))
  );
}

/** Whether what a service is advised to have is all that changed. */
function isScaling({ object, previous }: Extract<ToldEvent, { kind: 'service' }>): boolean {
  return (
    previous !== undefined &&
    !isSame(object.Private.Autoscale, previous.Private.Autoscale) &&
    isSame(object.Spec, previous.Spec) &&
    isSame(object.UpdateStatus, previous.UpdateStatus)
  );
}

function isSame(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

/** Old and new values of what people watch for; the names are Docker's. */
function changesOf(event: ToldEvent): Record<string, string> {
  if (event.op !== 'update' || !event.previous) return {};
  if (event.kind === 'service') return serviceChanges(event.previous, event.object);
  return event.kind === 'node' ? nodeChanges(event.previous, event.object) : {};
}

function serviceChanges(before: Service, after: Service): Record<string, string> {
  const imageOf = (service: Service) => service.Spec.TaskTemplate.ContainerSpec?.Image;
  return {
    ...change('image', imageOf(before), imageOf(after)),
    ...change('replicas', before.Spec.Mode.Replicated?.Replicas, after.Spec.Mode.Replicated?.Replicas),
    ...(after.UpdateStatus
      ? change('updatestate', before.UpdateStatus?.State, after.UpdateStatus.State)
      : {}),
  };
}

function nodeChanges(before: ClusterNode, after: ClusterNode): Record<string, string> {
  const isManager = before.ManagerStatus !== undefined && after.ManagerStatus !== undefined;
  return {
    ...change('availability', before.Spec.Availability, after.Spec.Availability),
    ...change('role', before.Spec.Role, after.Spec.Role),
    ...change('state', before.Status.State, after.Status.State),
    ...(isManager
      ? {
          ...change('leader', before.ManagerStatus?.Leader === true, after.ManagerStatus?.Leader === true),
          ...change('reachability', before.ManagerStatus?.Reachability, after.ManagerStatus?.Reachability),
        }
      : {}),
  };
}

function change(name: string, before: unknown, after: unknown): Record<string, string> {
  if (before === after) return {};
  const told = (which: string, value: unknown) =>
    value === undefined ? {} : { [`${name}.${which}`]: String(value) };
  return { ...told('new', after), ...told('old', before) };
}
