/**
 * Changes: what the Raft log carries. An entry is a list of changes made at one time, applied in order
 * and whole or not at all, the same on every manager.
 */
import { Packr } from 'msgpackr';
import type { TaskId } from '../../proto/ids.ts';
import { compareTaskStates, type DesiredState } from '../../proto/task-state.ts';
import type { IdOf, Kind, ObjectOf } from './tables.ts';

/**
 * - `create`: the id and, where the table says so, the name must be free. Version and times are filled in.
 * - `update`: replaces an object; refused when its Version.Index is not the stored one.
 * - `merge`: replaces top-level fields of an object without looking at its version, for writers that each
 *   own a field (the dispatcher a task's Status, an orchestrator its DesiredState). Does nothing when the
 *   object is gone. A task's Status and DesiredState never go backwards by a merge. With `whileServes` it does
 *   nothing either when that task has stopped serving, or its node was lost, since this was decided: so that
 *   the last task that serves is never stopped for one that has just failed.
 * - `remove`: does nothing when the object is gone.
 */
export type ChangeOf<K extends Kind> =
  | { readonly op: 'create'; readonly kind: K; readonly object: ObjectOf[K] }
  | { readonly op: 'update'; readonly kind: K; readonly object: ObjectOf[K] }
  | {
      readonly op: 'merge';
      readonly kind: K;
      readonly id: IdOf<K>;
      readonly fields: Partial<ObjectOf[K]>;
      readonly whileServes?: TaskId;
      /** Why, in words, for the task's history. */
      readonly because?: string;
    }
  | { readonly op: 'remove'; readonly kind: K; readonly id: IdOf<K> };

export type Change = { [K in Kind]: ChangeOf<K> }[Kind];

/** One log entry. `now` is the proposer's clock, in ms since the epoch; it becomes CreatedAt and UpdatedAt. */
export interface Entry {
  readonly now: number;
  readonly changes: readonly Change[];
}

/**
 * Commits changes through Raft and resolves with the entry's index once this manager has applied it.
 * Rejects with the ShoalError that refused it (out-of-sequence, already-exists, no-quorum, …).
 */
export type Propose = (changes: readonly Change[]) => Promise<number>;

/** Reads both forms. */
const packr = new Packr({ useRecords: false, moreTypes: false });
/** Objects of equal fields name them once an entry, and what many changes share stands there once: quicker when they are many. */
const recordPackr = new Packr({ useRecords: true, moreTypes: false, structuredClone: true });
const manyChanges = 256;

/** The bytes of a log entry (msgpack; a long one with msgpackr's records). */
export function encodeEntry(entry: Entry): Uint8Array {
  return entry.changes?.length >= manyChanges ? recordPackr.pack(entry) : packr.pack(entry);
}

/**
 * The entry of `data`, made by encodeEntry. The one key that is not read back as it was written is `__proto__`, which
 * msgpackr names `__proto_`: the API and compose files refuse it, of agents nothing depends on it.
 */
export function decodeEntry(data: Uint8Array): Entry {
  return packr.unpack(data) as Entry;
}

/** A new object's meta data; the store fills version and times in when the creation is applied. */
export function newMeta<I>(id: I): {
  ID: I;
  Version: { Index: number };
  CreatedAt: string;
  UpdatedAt: string;
} {
  return { ID: id, Version: { Index: 0 }, CreatedAt: '', UpdatedAt: '' };
}

const desiredStateRank: Record<DesiredState, number> = {
  ready: 0,
  running: 1,
  complete: 1,
  shutdown: 2,
  remove: 3,
};

/** Whether a task's desired state may go from one to the other: it only ever gets nearer to its end. */
export function mayBecomeDesired(from: DesiredState, to: DesiredState): boolean {
  return desiredStateRank[to] >= desiredStateRank[from];
}

/** The fields of a merge on a task without those that would go backwards. */
export function monotonicTaskFields(
  task: ObjectOf['task'],
  fields: Partial<ObjectOf['task']>,
): Partial<ObjectOf['task']> {
  const { Status, DesiredState } = fields;
  const isLate = Status !== undefined && compareTaskStates(Status.State, task.Status.State) < 0;
  const isUndone = DesiredState !== undefined && !mayBecomeDesired(task.DesiredState, DesiredState);
  if (!isLate && !isUndone) return fields;
  const kept = { ...fields };
  if (isLate) delete kept.Status;
  if (isUndone) delete kept.DesiredState;
  return kept;
}
