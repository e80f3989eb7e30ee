/**
 * The replicated objects of the cluster, in memory.
 *
 * In: committed log entries, in order (apply), or a snapshot of all of them (restore). Out: reads by id,
 * by index and whole tables; watches of what was committed. It is deterministic: equal entries make equal
 * stores on every manager. It never takes the time, never does I/O, and never changes but by apply and
 * restore.
 */
import { assertNever, messageOf, ShoalError } from '../../proto/errors.ts';
import { decodeEntry, type Entry } from './change.ts';
import { Claims, type ClaimsView } from './claims.ts';
import { type ClusterEvent, clusterEvents, RecentEvents } from './cluster-event.ts';
import { Draft } from './draft.ts';
import { Objects, Selection, ShardedMap } from './objects.ts';
import { encodeSnapshot, encodeSnapshotInPieces, type SnapshotPart, snapshotParts } from './snapshot.ts';
import { type AnyObject, type IdOf, type Kind, kinds, type ObjectOf, tables } from './tables.ts';
import { type Commit, WatchQueue } from './watch.ts';

/** A read-only look at the store: what deciding code is given. */
export interface View {
  /** Raft index of the last applied entry. */
  readonly index: number;
  get<K extends Kind>(kind: K, id: IdOf<K> | undefined): ObjectOf[K] | undefined;
  /** All objects of a kind, in order of creation. */
  list<K extends Kind>(kind: K): ObjectOf[K][];
  count(kind: Kind): number;
  /** Objects whose index `index` (see tables.ts) holds `key`, older ones first; see Selection. */
  find<K extends Kind>(kind: K, index: string, key: string): ObjectOf[K][];
  /** The cluster object; undefined before the first entry. */
  cluster(): ObjectOf['cluster'] | undefined;
  /** What only one object may have at a time: addresses, ports, vxlan ids. */
  readonly claims: ClaimsView;
}

/** What applying an entry answered: the same on every manager. */
export type ApplyResult =
  | { readonly ok: true }
  | {
      readonly ok: false;
      readonly code:
        | 'out-of-sequence'
        | 'taken'
        | 'already-exists'
        | 'not-found'
        | 'in-use'
        | 'invalid-argument';
      readonly message: string;
    };

interface TableData<T> {
  readonly objects: Objects<T>;
  /** Index → key → ids, so that an object that stays under its keys costs its indexes nothing. */
  readonly indexes: Readonly<Record<string, Index>>;
}

/** Most keys have one object: its id stands there by itself. */
type Index = ShardedMap<string | Selection>;
type Tables = Readonly<Record<Kind, TableData<AnyObject>>>;

export class Store implements View {
  private data = emptyTables();
  private lastIndex = 0;
  private recent = new RecentEvents();
  private claimed = new Claims();
  private readonly listeners = new Set<(commit: Commit) => void>();

  get index(): number {
    return this.lastIndex;
  }

  get<K extends Kind>(kind: K, id: IdOf<K> | undefined): ObjectOf[K] | undefined {
    return id === undefined ? undefined : this.table(kind).objects.get(id);
  }

  list<K extends Kind>(kind: K): ObjectOf[K][] {
    return this.table(kind).objects.list();
  }

  count(kind: Kind): number {
    return this.table(kind).objects.size;
  }

  find<K extends Kind>(kind: K, index: string, key: string): ObjectOf[K][] {
    const { indexes, objects } = this.table(kind);
    const entries = indexes[index];
    if (!entries) throw new ShoalError('internal', `the store has no index "${index}" on ${kind}`);
    const found = entries.get(key);
    if (found === undefined) return [];
    return found instanceof Selection ? found.of(objects) : [objects.get(found)!];
  }

  cluster(): ObjectOf['cluster'] | undefined {
    return this.table('cluster').objects.values().next().value as ObjectOf['cluster'] | undefined;
  }

  get claims(): ClaimsView {
    return this.claimed;
  }

  /**
   * Applies the bytes of one committed entry (encodeEntry). An entry that is refused changes nothing; so is
   * one that is no entry at all, for it is in the log, and throwing would stop every manager at it for good.
   */
  apply(index: number, data: Uint8Array): ApplyResult {
    let entry: Entry;
    try {
      entry = decodeEntry(data);
    } catch (error) {
      this.lastIndex = index;
      return malformed(error);
    }
    return this.applyEntry(index, entry);
  }

  /** As apply, from a decoded entry. */
  applyEntry(index: number, entry: Entry): ApplyResult {
    this.lastIndex = index;
    let draft: Draft;
    let places: Places[];
    try {
      draft = new Draft(this, index, entry.now);
      for (const change of entry.changes) {
        const refusal = draft.add(change);
        if (refusal) return refusal;
      }
      const clash = this.clashOf(draft);
      if (clash) return clash;
      // Before anything is changed: what is not of its kind's shape shows here at the latest.
      places = draft.events.map(({ kind, object }) => placesOf(kind, object));
    } catch (error) {
      return malformed(error);
    }
    for (let at = 0; at < draft.events.length; at += 1) {
      const { kind, op, object, previous } = draft.events[at]!;
      if (op === 'remove') drop(this.data[kind], kind, object, places[at]!);
      else put(this.data[kind], kind, object, places[at]!, previous);
      this.claimed.note(kind, previous, op === 'remove' ? undefined : object, entry.now);
    }
    if (draft.events.length > 0) {
      const told = clusterEvents(index, entry.now, draft.events);
      this.recent.add(told);
      this.tell({ kind: 'changed', index, now: entry.now, events: draft.events, told });
    }
    return { ok: true };
  }

  /** Why an entry is refused that would give two objects what only one may have. */
  protected clashOf(draft: Draft): ApplyResult | undefined {
    return draft.clash((claim) => this.claimed.holder(claim));
  }

  /** What clients could hear of lately, in the order in which it happened; see keptEvents. */
  recentEvents(): readonly ClusterEvent[] {
    return this.recent.list();
  }

  /** The whole store as bytes. */
  snapshot(): Uint8Array {
    return encodeSnapshot(
      this.lastIndex,
      (kind) => this.list(kind),
      this.recentEvents(),
      this.claimed.memory(),
    );
  }

  /** The same in pieces, as of now, whatever is applied meanwhile. */
  snapshotPieces(): Iterable<Uint8Array> {
    return encodeSnapshotInPieces(
      this.lastIndex,
      (kind) => this.data[kind].objects.asOfNow(),
      this.recentEvents(),
      this.claimed.memory(),
    );
  }

  /** Replaces everything by a snapshot whose last entry is `index`. */
  restore(index: number, data: Uint8Array): void {
    for (const _ of this.restoreSteps(index, data));
  }

  /**
   * The same in steps of about a millisecond. Until the last one, the store shows what it held before: so it stays
   * when a step throws ShoalError 'corrupted', or when no more are taken.
   */
  *restoreSteps(index: number, data: Uint8Array): Generator<void, void> {
    const restored = { data: emptyTables(), claimed: new Claims(), recent: new RecentEvents() };
    for (const part of snapshotParts(data)) {
      takeIn(restored, part);
      yield;
    }
    this.data = restored.data;
    this.claimed = restored.claimed;
    this.recent = restored.recent;
    this.lastIndex = index;
    this.tell({ kind: 'restored', index });
  }

  /** A store of its own with the same objects, which are never changed: what is applied to it is not seen here. */
  copy(): Store {
    const copy = new Store();
    for (const kind of kinds) {
      for (const object of this.list(kind) as AnyObject[]) {
        put(copy.data[kind], kind, object, placesOf(kind, object), undefined);
        copy.claimed.note(kind, undefined, object, 0);
      }
    }
    copy.claimed.remember(structuredClone(this.claimed.memory()));
    copy.lastIndex = this.lastIndex;
    return copy;
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
}

/** One part of a snapshot into tables that nobody reads yet. */
function takeIn(into: { data: Tables; claimed: Claims; recent: RecentEvents }, part: SnapshotPart): void {
  switch (part.part) {
    case 'objects':
      for (const object of part.objects) {
        put(into.data[part.kind], part.kind, object, placesOf(part.kind, object), undefined);
        into.claimed.note(part.kind, undefined, object, 0);
      }
      break;
    case 'rest':
      into.recent.add(part.events);
      into.claimed.remember(part.claims);
      break;
    default:
      assertNever(part);
  }
}

function put(
  table: TableData<AnyObject>,
  kind: Kind,
  object: AnyObject,
  places: Places,
  previous: AnyObject | undefined,
): void {
  const run = table.objects.set(object.ID, object);
  const readers = readersOf[kind];
  for (let at = 0; at < readers.length; at += 1) {
    const { name, keysOf } = readers[at]!;
    const keys = places[at]!;
    const before = previous ? keysOf(previous) : [];
    if (before.length === keys.length && keys.every((key, position) => key === before[position])) continue;
    const index = table.indexes[name]!;
    for (const key of before) if (!keys.includes(key)) removeKey(index, key, run, object.ID);
    for (const key of keys) addKey(table, index, key, run, object.ID);
  }
}

function drop(table: TableData<AnyObject>, kind: Kind, object: AnyObject, places: Places): void {
  const run = table.objects.runOf(object.ID);
  if (run === undefined) return;
  table.objects.delete(object.ID);
  for (const [at, { name }] of readersOf[kind].entries()) {
    for (const key of places[at]!) removeKey(table.indexes[name]!, key, run, object.ID);
  }
}

/** The keys that an object is found under, for each index of its kind in the order of `readersOf`. */
type Places = readonly (readonly string[])[];

interface IndexReader {
  readonly name: string;
  readonly keysOf: (object: AnyObject) => readonly string[];
}

/** The indexes of each kind, as a list. */
const readersOf = Object.fromEntries(
  kinds.map((kind) => [
    kind,
    Object.entries(tables[kind].indexes).map(([name, keysOf]) => ({ name, keysOf })),
  ]),
) as unknown as Record<Kind, readonly IndexReader[]>;

function placesOf(kind: Kind, object: AnyObject): Places {
  return readersOf[kind].map(({ keysOf }) => keysOf(object));
}

function malformed(error: unknown): ApplyResult {
  return { ok: false, code: 'invalid-argument', message: `the entry is malformed: ${messageOf(error)}` };
}

function addKey(table: TableData<AnyObject>, index: Index, key: string, run: number, id: string): void {
  const found = index.get(key);
  if (found instanceof Selection) {
    found.add(run, id);
  } else if (found === undefined || found === id) {
    index.set(key, id);
  } else {
    const both = new Selection();
    both.add(table.objects.runOf(found)!, found);
    both.add(run, id);
    index.set(key, both);
  }
}

function removeKey(index: Index, key: string, run: number, id: string): void {
  const found = index.get(key);
  if (found instanceof Selection) {
    found.delete(run, id);
    if (found.isEmpty) index.delete(key);
  } else if (found === id) {
    index.delete(key);
  }
}

function emptyTables(): Tables {
  const tablesOf = kinds.map((kind) => {
    const indexes = Object.fromEntries(readersOf[kind].map(({ name }) => [name, new ShardedMap()]));
    return [kind, { objects: new Objects(), indexes }] as const;
  });
  return Object.fromEntries(tablesOf) as unknown as Tables;
}
