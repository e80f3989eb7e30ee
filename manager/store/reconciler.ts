/**
 * What every deciding part of the leader is to the loop that feeds it: data and pure functions. Stands in
 * the store because the deciding parts do not know each other.
 */
import type { NewId } from '../../proto/ids.ts';
import type { Change } from './change.ts';
import type { View } from './store.ts';
import type { StoreEvent } from './watch.ts';

export type { NewId };

/** What a reconciler wants done, and when (ms since the epoch) it wants to look again though nothing changed. */
export interface Reconciliation {
  readonly changes: readonly Change[];
  readonly wakeAt?: number;
  /**
   * What is to be asked next when there is more to do than goes into one proposal: once the changes are stored, at the
   * time given (ms since the epoch). It is dropped when they are refused, and the key is reconciled anew.
   */
  readonly rest?: (now: number) => Reconciliation;
}

/**
 * A part that steers what is stored towards what is wanted, a piece at a time. A piece is named by a key of
 * the reconciler's own; one that always looks at everything has one constant key.
 */
export interface Reconciler {
  readonly name: string;
  /** The keys of the pieces that an event may concern. `view` already shows what the event did. */
  keysFor(event: StoreEvent, view: View): readonly string[];
  /** The keys of all pieces: on start, and when a snapshot was loaded. */
  allKeys(view: View): readonly string[];
  /** Leaves out of the keys that are due together those whose piece is part of another's. Default: none. */
  distinct?(keys: ReadonlySet<string>): Iterable<string>;
  /**
   * Pure: the same view, key and time want the same. Against its own result it wants nothing more. `steadySince`: since
   * when (ms since the epoch) one clock has counted, without a step; without it, always.
   */
  reconcile(view: View, key: string, now: number, newId: NewId, steadySince?: number): Reconciliation;
}

/** Nothing to do, and no reason to look again. */
export const nothing: Reconciliation = { changes: [] };

/** The earlier of two times, either of which may be absent. */
export function earlier(left: number | undefined, right: number | undefined): number | undefined {
  if (left === undefined || right === undefined) return left ?? right;
  return Math.min(left, right);
}

/** A reconciliation of changes, with a time to look again when there is one. */
export function reconciliation(changes: readonly Change[], wakeAt: number | undefined): Reconciliation {
  return wakeAt === undefined ? { changes } : { changes, wakeAt };
}
