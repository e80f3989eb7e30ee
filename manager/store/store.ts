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
import { HashedIndex, ListedIndex, type ObjectIndex, Objects } from './objects.ts';
import { encodeSnapshot, type SnapshotPart, snapshotParts } from './snapshot.ts';
import {
  type AnyObject,
  type IdOf,
  type Kind,
  kinds,
  type ObjectOf,
  type TableIndex,
  tables,
} from './tables.ts';
import { type Commit, type StoreEvent, WatchQueue } from './watch.ts';

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
  readonly indexes: Readonly<Record<string, ObjectIndex<T>>>;
}

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
    const entries = this.table(kind).indexes[index];
    if (!entries) throw new ShoalError('internal', `the store has no index "${index}" on ${kind}`);
    return entries.find(key);
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
    let moves: readonly (readonly Move[])[];
    try {
      draft = new Draft(this, index, entry.now);
      for (const change of entry.changes) {
        const refusal = draft.add(change);
        if (refusal) return refusal;
      }
      const clash = this.clashOf(draft);
      if (clash) return clash;
      // Before anything is changed: what is not of its kind's shape shows here at the latest.
      moves = draft.events.map(movesOf);
    } catch (error) {
      return malformed(error);
    }
    for (let at = 0; at < draft.events.length; at += 1) {
      const { kind, op, object } = draft.events[at]!;
      if (op === 'remove') drop(this.data[kind], object.ID, moves[at]!);
      else put(this.data[kind], object, moves[at]!);
    }
    for (const { kind, before, after } of draft.effects()) this.claimed.note(kind, before, after, entry.now);
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
    return Buffer.concat([...this.snapshotPieces()]);
  }

  /** The same in pieces, as of now, whatever is applied meanwhile. */
  snapshotPieces(): Iterable<Uint8Array> {
    return encodeSnapshot(
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
      try {
        takeIn(restored, part);
      } catch (cause) {
        throw new ShoalError('corrupted', `the snapshot does not fit together: ${messageOf(cause)}`, {
          cause,
        });
      }
      yield;
    }
    this.data = restored.data;
    this.claimed = restored.claimed;
    this.recent = restored.recent;
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
}

/** One part of a snapshot into tables that nobody reads yet. */
function takeIn(into: { data: Tables; claimed: Claims; recent: RecentEvents }, part: SnapshotPart): void {
  switch (part.part) {
    case 'objects':
      for (const object of part.objects) {
        putNew(into.data[part.kind], object, readersOf[part.kind]);
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

/** What an event changes of one index: the keys that the object was found under, and is from now on. */
interface Move {
  readonly index: string;
  readonly before: readonly string[];
  readonly after: readonly string[];
}

interface IndexReader extends TableIndex<AnyObject> {
  readonly name: string;
}

/** The indexes of each kind, as a list. */
const readersOf = Object.fromEntries(
  kinds.map((kind) => [
    kind,
    Object.entries(tables[kind].indexes).map(([name, index]) => ({ name, ...index })),
  ]),
) as unknown as Record<Kind, readonly IndexReader[]>;

const nowhere: readonly string[] = [];

/** What an event changes of the indexes; nothing of those whose fields stay what they were. */
function movesOf({ kind, op, object, previous }: StoreEvent): Move[] {
  const moves: Move[] = [];
  for (const reader of readersOf[kind]) {
    if (previous && op !== 'remove' && isUnread(reader, object, previous)) continue;
    const before = previous ? reader.keysOf(previous) : nowhere;
    const after = op === 'remove' ? nowhere : reader.keysOf(object);
    if (!isSameList(before, after)) moves.push({ index: reader.name, before, after });
  }
  return moves;
}

function isUnread({ reads }: IndexReader, object: AnyObject, previous: AnyObject): boolean {
  for (const field of reads) if (object[field] !== previous[field]) return false;
  return true;
}

function isSameList(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((item, at) => item === other[at]);
}

function put(table: TableData<AnyObject>, object: AnyObject, moves: readonly Move[]): void {
  const place = table.objects.set(object.ID, object);
  for (const { index, before, after } of moves) {
    const entries = table.indexes[index]!;
    for (const key of before) if (!after.includes(key)) entries.delete(key, place);
    for (const key of after) entries.add(key, place);
  }
}

/** As put, of one that is not there yet: a million of them are put in one after the other. */
function putNew(table: TableData<AnyObject>, object: AnyObject, readers: readonly IndexReader[]): void {
  const place = table.objects.add(object.ID, object);
  for (const { name, keysOf } of readers) {
    const entries = table.indexes[name]!;
    for (const key of keysOf(object)) entries.add(key, place);
  }
}

function drop(table: TableData<AnyObject>, id: string, moves: readonly Move[]): void {
  const place = table.objects.place(id);
  if (place === undefined) return;
  table.objects.delete(id);
  for (const { index, before } of moves) {
    for (const key of before) table.indexes[index]!.delete(key, place);
  }
}

function malformed(error: unknown): ApplyResult {
  return { ok: false, code: 'invalid-argument', message: `the entry is malformed: ${messageOf(error)}` };
}

function emptyTables(): Tables {
  const tablesOf = kinds.map((kind) => {
    const objects = new Objects<AnyObject>();
    const indexes = Object.fromEntries(
      readersOf[kind].map(({ name, keysOf, isHashed }) => [
        name,
        isHashed ? new HashedIndex(objects, keysOf) : new ListedIndex(objects),
      ]),
    );
    return [kind, { objects, indexes }] as const;
  });
  return Object.fromEntries(tablesOf) as unknown as Tables;
}
