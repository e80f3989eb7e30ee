/** Watches: what was committed, told to those who asked. */
import { ShoalError } from '../../proto/errors.ts';
import type { ClusterEvent } from './cluster-event.ts';
import type { Kind, ObjectOf } from './tables.ts';

/** One object's change. `object` is the one after it (for remove: the last one). */
export type StoreEvent = {
  [K in Kind]: {
    readonly kind: K;
    readonly op: 'create' | 'update' | 'remove';
    readonly object: ObjectOf[K];
    /** The object before; absent for create. */
    readonly previous?: ObjectOf[K];
  };
}[Kind];

/** What one log entry did. `kind: 'restored'`: everything may have changed (a snapshot was loaded). */
export type Commit =
  | {
      readonly kind: 'changed';
      readonly index: number;
      readonly now: number;
      readonly events: readonly StoreEvent[];
      /** What clients hear of it. */
      readonly told: readonly ClusterEvent[];
    }
  | { readonly kind: 'restored'; readonly index: number };

/**
 * A bounded queue of commits that is read with `for await`. A reader that falls more than `limit` behind
 * gets a ShoalError 'unavailable' and must start again from a list.
 */
export class WatchQueue implements AsyncIterable<Commit> {
  private readonly limit: number;
  private readonly onClose: () => void;
  private waiting: Commit[] = [];
  private wake: (() => void) | undefined;
  private state: 'open' | 'overrun' | 'closed' = 'open';

  constructor(limit: number, onClose: () => void) {
    this.limit = limit;
    this.onClose = onClose;
  }

  push(commit: Commit): void {
    if (this.state !== 'open') return;
    if (this.waiting.length >= this.limit) {
      this.waiting = [];
      this.state = 'overrun';
      this.onClose();
    } else this.waiting.push(commit);
    this.wake?.();
  }

  close(): void {
    if (this.state === 'open') this.onClose();
    this.state = 'closed';
    this.wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncIterator<Commit> {
    try {
      for (;;) {
        const commit = this.waiting.shift();
        if (commit) yield commit;
        else if (this.state === 'overrun') throw new ShoalError('unavailable', overrunMessage(this.limit));
        else if (this.state === 'closed') return;
        else {
          await new Promise<void>((resolve) => {
            this.wake = resolve;
          });
        }
      }
    } finally {
      this.close();
    }
  }
}

function overrunMessage(limit: number): string {
  return `this watch fell more than ${limit} changes behind and was ended; list again and watch from there`;
}
