/**
 * A Storage that holds everything in memory: what a member's disk layer keeps in front of its files, and
 * all there is in tests. `firstIndex` moves only by compact() and applySnapshot(); a snapshot made from
 * the state machine leaves the entries where they are.
 */
import { ShoalError } from '../../../proto/errors.ts';
import { CompactedError, UnavailableError } from './errors.ts';
import { countWithin } from './log.ts';
import { nobody } from './membership.ts';
import type { ConfState, Entry, HardState, Snapshot, Storage } from './types.ts';

const noSnapshot: Snapshot = {
  metadata: { index: 0, term: 0, confState: nobody.configuration },
  data: new Uint8Array(0),
};

export class MemoryStorage implements Storage {
  #hardState: HardState = { term: 0, vote: 0, commit: 0 };
  #snapshot: Snapshot = noSnapshot;
  /** The entry before the first one: only its index and term are known. */
  #baseIndex = 0;
  #baseTerm = 0;
  #entries: Entry[] = [];

  initialState(): { hardState: HardState; confState: ConfState } {
    return { hardState: this.#hardState, confState: this.#snapshot.metadata.confState };
  }

  setHardState(hardState: HardState): void {
    this.#hardState = hardState;
  }

  firstIndex(): number {
    return this.#baseIndex + 1;
  }

  lastIndex(): number {
    return this.#baseIndex + this.#entries.length;
  }

  /** Throws CompactedError before the base, UnavailableError behind the end. */
  term(index: number): number {
    if (index < this.#baseIndex) throw new CompactedError(index);
    if (index === this.#baseIndex) return this.#baseTerm;
    return this.#at(index).term;
  }

  /** Throws CompactedError when `low` is gone, UnavailableError when the log ends before `high`. */
  entries(low: number, high: number, maxBytes: number): readonly Entry[] {
    if (low <= this.#baseIndex) throw new CompactedError(low);
    if (high > this.lastIndex() + 1) throw new UnavailableError(`entry ${high - 1}`);
    const from = low - this.#baseIndex - 1;
    // One that was away asks for the rest of a long log again and again, and is given a little of it each time.
    const count = countWithin(this.#entries, maxBytes, from, high - this.#baseIndex - 1);
    return this.#entries.slice(from, from + count);
  }

  /** The last snapshot applied or created; one with index 0 when there is none. */
  snapshot(): Snapshot {
    return this.#snapshot;
  }

  /** Adds `entries`, which follow the log or overlap with it; what they replace and all behind it goes. */
  append(entries: readonly Entry[]): void {
    const first = entries[0]?.index;
    if (first === undefined) return;
    if (first > this.lastIndex() + 1) throw new UnavailableError(`entry ${first - 1}, to append to,`);
    const known = this.#baseIndex + 1 - first;
    if (known >= entries.length) return;
    const from = Math.max(known, 0);
    this.#entries.length = first + from - this.#baseIndex - 1;
    for (let i = from; i < entries.length; i++) this.#entries.push(entries[i]!);
  }

  /** Drops the entries up to and including `index`; CompactedError if that was done before. */
  compact(index: number): void {
    if (index <= this.#baseIndex) throw new CompactedError(index);
    const { term } = this.#at(index);
    this.#entries.splice(0, index - this.#baseIndex);
    this.#baseIndex = index;
    this.#baseTerm = term;
  }

  /** Starts over from a snapshot; throws ShoalError 'out-of-sequence' for one that is not newer. */
  applySnapshot(snapshot: Snapshot): void {
    const { index, term } = snapshot.metadata;
    this.#checkNewer(index);
    this.#snapshot = snapshot;
    this.#baseIndex = index;
    this.#baseTerm = term;
    this.#entries = [];
  }

  /** Keeps a snapshot of the state machine as of `index`, which must be in the log. Compacts nothing. */
  createSnapshot(index: number, confState: ConfState, data: Uint8Array): Snapshot {
    this.#checkNewer(index);
    this.#snapshot = { metadata: { index, term: this.term(index), confState }, data };
    return this.#snapshot;
  }

  #checkNewer(index: number): void {
    const own = this.#snapshot.metadata.index;
    if (own !== 0 && index <= own) {
      throw new ShoalError('out-of-sequence', `snapshot ${index} is not newer than ${own}`);
    }
  }

  #at(index: number): Entry {
    const entry = this.#entries[index - this.#baseIndex - 1];
    if (entry === undefined) throw new UnavailableError(`entry ${index}`);
    return entry;
  }
}
