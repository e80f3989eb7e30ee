/**
 * A log entry being worked out: what its changes make of the objects, one after the other, without touching
 * the store. An entry that is refused is thrown away, and nothing has to be undone.
 */
import { engineUnavailableLabel } from '../../proto/docker.ts';
import type { TaskId } from '../../proto/ids.ts';
import { type Change, mayBecomeDesired, monotonicTaskFields } from './change.ts';
import { claimsOf, describeClaim, type Holder, hasSameClaims } from './claims.ts';
import { portKey } from './endpoint.ts';
import { addedReferences, type ReferredKind, referencesOf, referredKinds } from './references.ts';
import type { ApplyResult, View } from './store.ts';
import { type AnyObject, type Kind, nameOf, type ObjectOf, tables } from './tables.ts';
import { withMoment } from './task-history.ts';
import type { StoreEvent } from './watch.ts';

type Refusal = Extract<ApplyResult, { ok: false }>;

/** An object before an entry and after it; undefined where it is not. */
export interface Effect {
  readonly kind: Kind;
  readonly before: AnyObject | undefined;
  readonly after: AnyObject | undefined;
}

export class Draft {
  /** What the changes so far do, in order. */
  readonly events: StoreEvent[] = [];
  private readonly view: View;
  private readonly now: number;
  /** `now` and `index` as objects carry them. */
  private readonly time: string;
  private readonly version: ObjectOf[Kind]['Version'];
  /** Objects that the entry has touched, as it leaves them; null where it removed them. */
  private readonly objects: { [K in Kind]?: Map<string, AnyObject | null> } = {};
  /** Whether an object was touched more than once. */
  private repeats = false;
  /** Whether an object has claims that it did not have before. */
  private claims = false;
  /** Who has which unique name, where the entry changed that; undefined where nobody has it any longer. */
  private readonly holders = new Map<string, string | undefined>();
  /** Services of this entry, by `kind target` of what they newly refer to. */
  private readonly newUsers = new Map<string, ObjectOf['service']['ID'][]>();

  /** An entry of Raft index `index`, made at `now` (ms since the epoch), on top of what `view` shows. */
  constructor(view: View, index: number, now: number) {
    this.view = view;
    this.now = now;
    this.version = { Index: index };
    this.time = new Date(now).toISOString();
  }

  /** Works out one more change. Returns why it is refused, and with it the entry. */
  add(change: Change): Refusal | undefined {
    const { kind } = change;
    const id = change.op === 'create' || change.op === 'update' ? change.object.ID : change.id;
    const previous = this.current(kind, id);
    if (change.op === 'remove') {
      if (!previous) return undefined;
      const usage = this.usage(kind, previous);
      if (usage) return usage;
      this.note({ kind, op: 'remove', object: previous, previous } as StoreEvent);
      return undefined;
    }
    const next = this.next(change, previous);
    if (next === undefined) return undefined;
    if ('ok' in next) return next;
    const conflict = this.nameConflict(kind, next) ?? this.missingReference(kind, next, previous);
    if (conflict) return conflict;
    const event = previous
      ? { kind, op: 'update', object: next, previous }
      : { kind, op: 'create', object: next };
    this.note(event as StoreEvent);
    return undefined;
  }

  /**
   * Why the entry is refused, once all its changes are worked out: two objects would have what only one may.
   * `holderOf` says who has a claim before the entry.
   */
  clash(holderOf: (claim: string) => Holder | undefined): Refusal | undefined {
    if (!this.claims) return undefined;
    const taken = new Map<string, Holder>();
    for (const { kind, object } of this.events) {
      if (this.objects[kind]?.get(object.ID) !== object) continue;
      for (const claim of claimsOf(kind, object)) {
        const before = holderOf(claim);
        const isKept = before !== undefined && !this.objects[before.kind]?.has(before.id);
        const other = taken.get(claim) ?? (isKept ? before : undefined);
        if (other) return this.refuseClaim(claim, other, object);
        taken.set(claim, { kind, id: object.ID });
      }
    }
    return undefined;
  }

  /**
   * What the entry makes of each object that it touches. What an object has in between is nobody's: one that is made and
   * removed again takes nothing from who has it.
   */
  effects(): readonly Effect[] {
    const all = this.events.map(
      ({ kind, op, object, previous }): Effect => ({
        kind,
        before: previous,
        after: op === 'remove' ? undefined : object,
      }),
    );
    if (!this.repeats) return all;
    const byObject = new Map<string, Effect>();
    for (const effect of all) {
      const key = `${effect.kind} ${(effect.after ?? effect.before)!.ID}`;
      const first = byObject.get(key);
      byObject.set(key, first ? { ...effect, before: first.before } : effect);
    }
    return [...byObject.values()].filter(({ before, after }) => before !== undefined || after !== undefined);
  }

  private refuseClaim(claim: string, holder: Holder, claimer: AnyObject): Refusal {
    const name = nameOf(holder.kind, this.current(holder.kind, holder.id as never) as never) ?? holder.id;
    if (claim === 'ingress') {
      return refuse('already-exists', `ingress network (${holder.id}) is already present`);
    }
    if (claim.startsWith('port ') && isAskedFor(claim, claimer as ObjectOf['service'])) {
      const port = claim.slice(claim.indexOf('/') + 1);
      return refuse(
        'invalid-argument',
        `port '${port}' is already in use by service '${name}' (${holder.id}) as an ingress port`,
      );
    }
    return refuse(
      'taken',
      `${describeClaim(claim)} was given to ${holder.kind} ${name} meanwhile: try again`,
    );
  }

  private current(kind: Kind, id: AnyObject['ID']): AnyObject | undefined {
    const touched = this.objects[kind]?.get(id);
    return touched === undefined ? this.view.get(kind, id as never) : (touched ?? undefined);
  }

  private serves(id: TaskId): boolean {
    const task = this.current('task', id) as ObjectOf['task'] | undefined;
    if (task?.Status.State !== 'running' || !mayBecomeDesired(task.DesiredState, 'running')) return false;
    const node = task.NodeID && (this.current('node', task.NodeID) as ObjectOf['node'] | undefined);
    return node ? node.Status.State !== 'down' : false;
  }

  private note(event: StoreEvent): void {
    const { kind, op, object, previous } = event;
    this.events.push(event);
    this.objects[kind] ??= new Map();
    if (!this.repeats) this.repeats = this.objects[kind].has(object.ID);
    this.objects[kind].set(object.ID, op === 'remove' ? null : object);
    if (op !== 'remove' && !this.claims) this.claims = !hasSameClaims(kind, previous, object);
    if (!tables[kind].uniqueName) return;
    if (previous) this.holders.set(`${kind} ${nameOf(kind, previous as never)}`, undefined);
    if (op !== 'remove') this.holders.set(`${kind} ${nameOf(kind, object as never)}`, object.ID);
  }

  /** The object after a change; undefined when there is nothing to do. */
  private next(
    change: Exclude<Change, { op: 'remove' }>,
    previous: AnyObject | undefined,
  ): AnyObject | Refusal | undefined {
    const { time, version } = this;
    if (change.op === 'create') {
      if (previous) return refuse('already-exists', `${change.kind} ${change.object.ID} already exists`);
      const created = { ...change.object, Version: version, CreatedAt: time, UpdatedAt: time } as AnyObject;
      return withMoments(change.kind, undefined, created, this.now);
    }
    if (change.op === 'merge') {
      if (!previous || (change.whileServes !== undefined && !this.serves(change.whileServes))) {
        return undefined;
      }
      const fields =
        change.kind === 'task'
          ? monotonicTaskFields(previous as ObjectOf['task'], change.fields)
          : change.fields;
      if (isEmpty(fields)) return undefined;
      const merged = merge(previous, fields);
      merged.Version = version;
      merged.UpdatedAt = time;
      return withMoments(change.kind, previous, merged, this.now, change.because);
    }
    if (!previous) return refuse('not-found', `${change.kind} ${change.object.ID} not found`);
    if (previous.Version.Index !== change.object.Version.Index) {
      return refuse('out-of-sequence', 'update out of sequence');
    }
    const { CreatedAt } = previous;
    const replaced = { ...change.object, Version: version, CreatedAt, UpdatedAt: time } as AnyObject;
    return withMoments(change.kind, previous, replaced, this.now);
  }

  /** What a service newly refers to must be there; what it referred to already was, and can't have gone. */
  private missingReference(
    kind: Kind,
    object: AnyObject,
    previous: AnyObject | undefined,
  ): Refusal | undefined {
    if (kind !== 'service') return undefined;
    const service = object as ObjectOf['service'];
    const before = previous as ObjectOf['service'] | undefined;
    for (const { kind: referred, target, name } of addedReferences(service.Spec, before?.Spec)) {
      if (!this.isThere(referred, target)) return refuse('not-found', `${referred} ${name} not found`);
      const key = `${referred} ${target}`;
      this.newUsers.set(key, [...(this.newUsers.get(key) ?? []), service.ID]);
    }
    return undefined;
  }

  private isThere(kind: ReferredKind, target: string): boolean {
    if (this.current(kind, target as AnyObject['ID'])) return true;
    return kind === 'network' && this.holderOf(kind, target) !== undefined;
  }

  /** Why an object can't be removed: the first service, as this entry leaves it, that refers to it. */
  private usage(kind: Kind, object: AnyObject): Refusal | undefined {
    if (!isReferred(kind)) return undefined;
    const name = nameOf(kind, object as never) ?? object.ID;
    const targets: readonly string[] = kind === 'network' ? [object.ID, name] : [object.ID];
    for (const target of targets) {
      const known = this.view.find('service', kind, target).map((service) => service.ID);
      for (const id of [...known, ...(this.newUsers.get(`${kind} ${target}`) ?? [])]) {
        const user = this.current('service', id) as ObjectOf['service'] | undefined;
        const refers =
          user && referencesOf(user.Spec).some((one) => one.kind === kind && one.target === target);
        if (refers) return refuse('in-use', `${kind} ${name} is in use by service ${user.Spec.Name}`);
      }
    }
    return undefined;
  }

  private nameConflict(kind: Kind, object: AnyObject): Refusal | undefined {
    if (!tables[kind].uniqueName) return undefined;
    const name = nameOf(kind, object as never);
    if (name === undefined) return undefined;
    const holder = this.holderOf(kind, name);
    return holder === undefined || holder === object.ID
      ? undefined
      : refuse('already-exists', `name conflicts with an existing object: ${kind} ${name} already exists`);
  }

  /** Id of the object that has a unique name now. */
  private holderOf(kind: Kind, name: string): string | undefined {
    const key = `${kind} ${name}`;
    return this.holders.has(key) ? this.holders.get(key) : this.view.find(kind, 'name', name)[0]?.ID;
  }
}

/** Whether a service's spec names the port of a claim; else it was given out, and another can be. */
function isAskedFor(claim: string, service: ObjectOf['service']): boolean {
  return (service.Spec.EndpointSpec?.Ports ?? []).some((port) => claim === `port ${portKey(port)}`);
}

function isReferred(kind: Kind): kind is ReferredKind {
  return referredKinds.some((referred) => referred === kind);
}

function refuse(code: Refusal['code'], message: string): Refusal {
  return { ok: false, code, message };
}

/**
 * A copy of the object with its fields replaced; one that is undefined is taken away, for a snapshot has no such field
 * and whoever goes on from one must have the same. Field by field where there are new ones: giving a spread copy a field
 * that the object did not have takes V8 longer than all the rest.
 */
function merge(object: AnyObject, fields: Partial<AnyObject>): AnyObject {
  const known = object as unknown as Readonly<Record<string, unknown>>;
  const replaced = fields as Readonly<Record<string, unknown>>;
  let isAlike = true;
  for (const field in replaced) {
    if (known[field] === undefined || replaced[field] === undefined) isAlike = false;
  }
  const copy: Record<string, unknown> = isAlike ? { ...known } : {};
  if (!isAlike) {
    for (const field in known) {
      const isKept = known[field] !== undefined && !(field in replaced && replaced[field] === undefined);
      if (isKept) copy[field] = known[field];
    }
  }
  for (const field in replaced) if (replaced[field] !== undefined) copy[field] = replaced[field];
  return copy as unknown as AnyObject;
}

function isEmpty(fields: object): boolean {
  for (const _ in fields) return false;
  return true;
}

/**
 * Notes what happened to a task, and since when a node or its engine is down: from the entry's time, so that every
 * manager notes the same. `object` is the entry's own, and nobody has seen it yet.
 */
function withMoments(
  kind: Kind,
  previous: AnyObject | undefined,
  object: AnyObject,
  now: number,
  because?: string,
): AnyObject {
  if (kind === 'task') {
    const task = object as ObjectOf['task'];
    task.Private = withMoment(previous as ObjectOf['task'] | undefined, task, now, because);
  }
  return kind === 'node' ? withNodeMoments(object as ObjectOf['node'], now) : object;
}

function withNodeMoments(node: ObjectOf['node'], now: number): ObjectOf['node'] {
  const { DownSince, EngineDownSince, ...rest } = node.Private;
  const isDown = node.Status.State === 'down';
  const isEngineDown = node.Description.Engine.Labels[engineUnavailableLabel] !== undefined;
  const isSame = isDown === (DownSince !== undefined) && isEngineDown === (EngineDownSince !== undefined);
  if (isSame) return node;
  const moments = {
    ...(isDown ? { DownSince: DownSince ?? now } : {}),
    ...(isEngineDown ? { EngineDownSince: EngineDownSince ?? now } : {}),
  };
  return { ...node, Private: { ...rest, ...moments } };
}
