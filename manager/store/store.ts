/**
 * The replicated objects of the cluster, in memory.
 *
 * In: committed log entries, in order (apply), or a snapshot of all of them (restore). Out: reads by id,
 * by index and whole tables; watches of what was committed. It is deterministic: equal entries make equal
 * stores on every manager. It never takes the time, never does I/O, and never changes but by apply and
 * restore.
 */
import { ShoalError } from '../../proto/errors.ts';
import { isTerminal } from '../../proto/task-state.ts';
import { type Change, decodeEntry, type Entry, monotonicTaskFields } from './change.ts';
import { decodeSnapshot, encodeSnapshot } from './snapshot.ts';
import { type AnyObject, type IdOf, type Kind, kinds, nameOf, type ObjectOf, tables } from './tables.ts';
import { type Commit, type StoreEvent, WatchQueue } from './watch.ts';

/** A read-only look at the store: what deciding code is given. */
export interface View {
  /** Raft index of the last applied entry. */
  readonly index: number;
  get<K extends Kind>(kind: K, id: IdOf<K> | undefined): ObjectOf[K] | undefined;
  /** All objects of a kind, in order of creation. */
  list<K extends Kind>(kind: K): ObjectOf[K][];
  count(kind: Kind): number;
  /** Objects whose index `index` (see tables.ts) holds `key`, in the order in which they came under it. */
  find<K extends Kind>(kind: K, index: string, key: string): ObjectOf[K][];
  /** The cluster object; undefined before the first entry. */
  cluster(): ObjectOf['cluster'] | undefined;
}

/** What applying an entry answered: the same on every manager. */
export type ApplyResult =
  | { readonly ok: true }
  | {
      readonly ok: false;
      readonly code: 'out-of-sequence' | 'already-exists' | 'not-found';
      readonly message: string;
    };

interface TableData<T> {
  objects: Map<string, T>;
  indexes: Record<string, Map<string, Map<string, T>>>;
}

type Undo = () => void;

export class Store implements View {
  private data = emptyTables();
  private lastIndex = 0;
  private readonly listeners = new Set<(commit: Commit) => void>();

  get index(): number {
    return this.lastIndex;
  }

  get<K extends Kind>(kind: K, id: IdOf<K> | undefined): ObjectOf[K] | undefined {
    return id === undefined ? undefined : this.table(kind).objects.get(id);
  }

  list<K extends Kind>(kind: K): ObjectOf[K][] {
    return [...this.table(kind).objects.values()];
  }

  count(kind: Kind): number {
    return this.table(kind).objects.size;
  }

  find<K extends Kind>(kind: K, index: string, key: string): ObjectOf[K][] {
    const entries = this.table(kind).indexes[index];
    if (!entries) throw new ShoalError('internal', `the store has no index "${index}" on ${kind}`);
    const found = entries.get(key);
    return found ? [...found.values()] : [];
  }

  cluster(): ObjectOf['cluster'] | undefined {
    return this.table('cluster').objects.values().next().value;
  }

  /** Applies the bytes of one committed entry (encodeEntry). An entry that is refused changes nothing. */
  apply(index: number, data: Uint8Array): ApplyResult {
    return this.applyEntry(index, decodeEntry(data));
  }

  /** As apply, from a decoded entry. */
  applyEntry(index: number, entry: Entry): ApplyResult {
    const events: StoreEvent[] = [];
    const undo: Undo[] = [];
    this.lastIndex = index;
    for (const change of entry.changes) {
      const refusal = this.applyChange(index, entry.now, change, events, undo);
      if (refusal) {
        for (const step of undo.reverse()) step();
        return refusal;
      }
    }
    if (events.length > 0) this.tell({ kind: 'changed', index, now: entry.now, events });
    return { ok: true };
  }

  /** The whole store as bytes. */
  snapshot(): Uint8Array {
    return encodeSnapshot(this.lastIndex, (kind) => this.list(kind));
  }

  /** Replaces everything by a snapshot whose last entry is `index`. */
  restore(index: number, data: Uint8Array): void {
    this.data = emptyTables();
    for (const { kind, object } of decodeSnapshot(data)) this.put(kind, object, undefined);
    this.lastIndex = index;
    this.tell({ kind: 'restored', index });
  }

  /** Calls `listener` in the same turn as each commit. Returns how to stop it. */
  onCommit(listener: (commit: Commit) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Commits from now on as a bounded queue, for readers that may be slow. */
  watch(limit = 10_000): WatchQueue {
    const queue = new WatchQueue(limit, () => stop());
    const stop = this.onCommit((commit) => queue.push(commit));
    return queue;
  }

  private tell(commit: Commit): void {
    for (const listener of [...this.listeners]) listener(commit);
  }

  private table<K extends Kind>(kind: K): TableData<ObjectOf[K]> {
    return this.data[kind] as unknown as TableData<ObjectOf[K]>;
  }

  private applyChange(
    index: number,
    now: number,
    change: Change,
    events: StoreEvent[],
    undo: Undo[],
  ): ApplyResult | undefined {
    const kind = change.kind;
    const id = change.op === 'create' || change.op === 'update' ? change.object.ID : change.id;
    const previous = this.table(kind).objects.get(id);
    if (change.op === 'remove') {
      if (!previous) return undefined;
      this.drop(kind, previous);
      undo.push(() => this.put(kind, previous, undefined));
      events.push({ kind, op: 'remove', object: previous, previous } as StoreEvent);
      return undefined;
    }
    const next = this.nextObject(index, now, change, previous);
    if (next === undefined) return undefined;
    if ('ok' in next) return next;
    const conflict = this.nameConflict(kind, next);
    if (conflict) return conflict;
    this.put(kind, next, previous);
    undo.push(() => (previous ? this.put(kind, previous, next) : this.drop(kind, next)));
    const op = previous ? 'update' : 'create';
    events.push({ kind, op, object: next, ...(previous ? { previous } : {}) } as StoreEvent);
    return undefined;
  }

  private nextObject(
    index: number,
    now: number,
    change: Exclude<Change, { op: 'remove' }>,
    previous: AnyObject | undefined,
  ): AnyObject | ApplyResult | undefined {
    const time = new Date(now).toISOString();
    const Version = { Index: index };
    if (change.op === 'create') {
      if (previous) return refuse('already-exists', `${change.kind} ${change.object.ID} already exists`);
      const created = { ...change.object, Version, CreatedAt: time, UpdatedAt: time } as AnyObject;
      return withMoments(change.kind, created, now);
    }
    if (change.op === 'merge') {
      if (!previous) return undefined;
      const fields =
        change.kind === 'task'
          ? monotonicTaskFields(previous as ObjectOf['task'], change.fields)
          : change.fields;
      if (Object.keys(fields).length === 0) return undefined;
      return withMoments(change.kind, { ...previous, ...fields, Version, UpdatedAt: time } as AnyObject, now);
    }
    if (!previous) return refuse('not-found', `${change.kind} ${change.object.ID} not found`);
    if (previous.Version.Index !== change.object.Version.Index) {
      return refuse('out-of-sequence', 'update out of sequence');
    }
    const replaced = {
      ...change.object,
      Version,
      CreatedAt: previous.CreatedAt,
      UpdatedAt: time,
    } as AnyObject;
    return withMoments(change.kind, replaced, now);
  }

  private nameConflict(kind: Kind, object: AnyObject): ApplyResult | undefined {
    if (!tables[kind].uniqueName) return undefined;
    const name = nameOf(kind, object as never);
    if (name === undefined) return undefined;
    const holder = this.find(kind, 'name', name).find((other) => other.ID !== object.ID);
    return holder
      ? refuse('already-exists', `name conflicts with an existing object: ${kind} ${name} already exists`)
      : undefined;
  }

  private put(kind: Kind, object: AnyObject, previous: AnyObject | undefined): void {
    const table = this.table(kind) as unknown as TableData<AnyObject>;
    table.objects.set(object.ID, object);
    for (const [name, keysOf] of indexesOf(kind)) {
      const index = table.indexes[name]!;
      const keys = keysOf(object);
      if (previous)
        for (const key of keysOf(previous)) if (!keys.includes(key)) removeKey(index, key, object.ID);
      for (const key of keys) {
        const bucket = index.get(key);
        if (bucket) bucket.set(object.ID, object);
        else index.set(key, new Map([[object.ID as string, object]]));
      }
    }
  }

  private drop(kind: Kind, object: AnyObject): void {
    const table = this.table(kind) as unknown as TableData<AnyObject>;
    table.objects.delete(object.ID);
    for (const [name, keysOf] of indexesOf(kind)) {
      for (const key of keysOf(object)) removeKey(table.indexes[name]!, key, object.ID);
    }
  }
}

function refuse(code: 'out-of-sequence' | 'already-exists' | 'not-found', message: string): ApplyResult {
  return { ok: false, code, message };
}

/**
 * Notes when a task first ran, ended and was no longer wanted, and since when a node is down: from the entry's time, so
 * that every manager notes the same.
 */
function withMoments(kind: Kind, object: AnyObject, now: number): AnyObject {
  if (kind === 'task') return withTaskMoments(object as ObjectOf['task'], now);
  if (kind === 'node') return withDownSince(object as ObjectOf['node'], now);
  return object;
}

function withTaskMoments(task: ObjectOf['task'], now: number): ObjectOf['task'] {
  const { RunningSince, EndedAt, RetiredAt } = task.Private;
  const moments: Partial<ObjectOf['task']['Private']> = {};
  if (task.Status.State === 'running' && RunningSince === undefined) moments.RunningSince = now;
  if (isTerminal(task.Status.State) && EndedAt === undefined) moments.EndedAt = now;
  const isRetired = task.DesiredState === 'shutdown' || task.DesiredState === 'remove';
  if (isRetired && RetiredAt === undefined) moments.RetiredAt = now;
  if (Object.keys(moments).length === 0) return task;
  return { ...task, Private: { ...task.Private, ...moments } };
}

function withDownSince(node: ObjectOf['node'], now: number): ObjectOf['node'] {
  const isDown = node.Status.State === 'down';
  if (isDown === (node.Private.DownSince !== undefined)) return node;
  const { DownSince: _, ...rest } = node.Private;
  return { ...node, Private: isDown ? { ...rest, DownSince: now } : rest };
}

function indexesOf(kind: Kind): [string, (object: AnyObject) => readonly string[]][] {
  return Object.entries(tables[kind].indexes) as [string, (object: AnyObject) => readonly string[]][];
}

function removeKey(index: Map<string, Map<string, AnyObject>>, key: string, id: string): void {
  const bucket = index.get(key);
  if (!bucket) return;
  bucket.delete(id);
  if (bucket.size === 0) index.delete(key);
}

function emptyTables(): Record<Kind, TableData<AnyObject>> {
  const tablesOf = kinds.map((kind) => {
    const indexes = Object.fromEntries(indexesOf(kind).map(([name]) => [name, new Map()]));
    return [kind, { objects: new Map(), indexes }] as const;
  });
  return Object.fromEntries(tablesOf) as Record<Kind, TableData<AnyObject>>;
}
