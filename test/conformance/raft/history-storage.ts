/** A member's disk and state machine in the scenarios: all it was told, strung together. */
import { MemoryStorage } from '../../../manager/raft/core/memory-storage.ts';
import type { ConfState, Entry, Snapshot } from '../../../manager/raft/core/types.ts';

/** Gives out the newest snapshot of the state machine, whatever the log holds. */
export class HistoryStorage extends MemoryStorage {
  readonly history: Snapshot[];

  constructor(first: Snapshot) {
    super();
    this.history = [first];
  }

  override snapshot(): Snapshot {
    return this.history.at(-1)!;
  }

  record(entry: Entry, update: Uint8Array, confState: ConfState | undefined): void {
    const last = this.history.at(-1)!;
    const data = new Uint8Array(last.data.length + update.length);
    data.set(last.data);
    data.set(update, last.data.length);
    this.history.push({
      metadata: {
        index: entry.index,
        term: entry.term,
        confState: confState ?? last.metadata.confState,
      },
      data,
    });
  }
}
