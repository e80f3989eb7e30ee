/** What the invariants of jobs, schedules and scaling share: what a run tells them, and how they tell it of a violation. */
import type { Store } from '../../../manager/store/store.ts';
import type { StoreEvent } from '../../../manager/store/watch.ts';
import type { InvariantName } from '../invariants.ts';

export interface Watching {
  violate(invariant: InvariantName, what: string): void;
  /** Virtual time. */
  readonly nowMs: () => number;
  /** How often the leadership has gone to somebody. */
  readonly leaders: () => number;
  /** Whether any clock has been wrong so far. */
  readonly isSkewed: () => boolean;
}

/** An event of an entry that was applied for the first time; `store` has the whole of it. */
export interface Happening {
  readonly store: Store;
  readonly event: StoreEvent;
  /** The proposer's clock when it proposed the entry. */
  readonly entryNow: number;
}
