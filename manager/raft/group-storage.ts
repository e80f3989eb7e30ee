/**
 * The stable log in memory, with snapshots that know everyone: a member takes no snapshot in which it is
 * not named, so one from before it joined would never bring it in.
 *
 * In: what MemoryStorage takes, and when the members changed. Out: the last snapshot, or a new one when the members
 * changed after it: made on the spot, or later when that takes long.
 */
import { UnavailableError } from './core/log.ts';
import { MemoryStorage } from './core/memory-storage.ts';
import type { ConfState, Snapshot } from './core/types.ts';

/** The data of a snapshot as of `index`, with the members at that index. */
export interface StateNow {
  readonly index: number;
  readonly confState: ConfState;
  readonly data: Uint8Array;
}

export class GroupStorage extends MemoryStorage {
  #membersIndex = 0;
  #makeNew: () => Snapshot | undefined = () => undefined;

  /** From now on `makeNew` is asked for new snapshots; undefined when there is none at this moment. */
  setSource(makeNew: () => Snapshot | undefined): void {
    this.#makeNew = makeNew;
  }

  /** The entry at `index` changed the members. */
  membersChanged(index: number): void {
    this.#membersIndex = index;
  }

  /** How large the last snapshot is. */
  get snapshotBytes(): number {
    return super.snapshot().data.length;
  }

  /** Throws UnavailableError when none can be had right now. */
  override snapshot(): Snapshot {
    const last = super.snapshot();
    if (this.#membersIndex <= last.metadata.index) return last;
    const now = this.#makeNew();
    if (now === undefined) throw new UnavailableError('a snapshot with the present members');
    return now;
  }

  /** Keeps `now` as the last snapshot, unless that is as new. */
  snapshotOf(now: StateNow): Snapshot {
    const last = super.snapshot();
    if (now.index <= last.metadata.index) return last;
    return this.createSnapshot(now.index, now.confState, now.data);
  }
}
