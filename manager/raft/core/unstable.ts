/**
 * The tail of the log that is not yet known to be durable, and a snapshot received but not yet stored.
 * What was handed out in a Ready is `in progress`: it is not handed out again, nor dropped before it is
 * reported stable.
 */
import { broken } from './errors.ts';
import type { Entry, MemberId, Snapshot } from './types.ts';

export class Unstable {
  readonly #id: MemberId;
  #snapshot: Snapshot | undefined;
  #snapshotInProgress = false;
  #entries: Entry[] = [];
  /** Index of the first entry in `#entries`, or of the one that will be. */
  #offset: number;
  /** Entries before this index are in progress. */
  #inProgress: number;

  constructor(id: MemberId, offset: number) {
    this.#id = id;
    this.#offset = offset;
    this.#inProgress = offset;
  }

  get offset(): number {
    return this.#offset;
  }

  get snapshot(): Snapshot | undefined {
    return this.#snapshot;
  }

  get isEmpty(): boolean {
    return this.#entries.length === 0;
  }

  get hasNextEntries(): boolean {
    return this.#offset + this.#entries.length > this.#inProgress;
  }

  /** The last index, if this part of the log knows it. */
  get lastIndex(): number | undefined {
    if (this.#entries.length > 0) return this.#offset + this.#entries.length - 1;
    return this.#snapshot?.metadata.index;
  }

  /** The term of the entry at `index`, if it is here. */
  term(index: number): number | undefined {
    if (index >= this.#offset) return this.#entries[index - this.#offset]?.term;
    const metadata = this.#snapshot?.metadata;
    return metadata !== undefined && metadata.index === index ? metadata.term : undefined;
  }

  at(index: number): Entry | undefined {
    return this.#entries[index - this.#offset];
  }

  /** Entries to be made durable that were not handed out yet. */
  nextEntries(): readonly Entry[] {
    return this.hasNextEntries ? this.#entries.slice(this.#inProgress - this.#offset) : [];
  }

  nextSnapshot(): Snapshot | undefined {
    return this.#snapshotInProgress ? undefined : this.#snapshot;
  }

  /** All that is here now has been handed out. */
  acceptInProgress(): void {
    this.#inProgress = this.#offset + this.#entries.length;
    if (this.#snapshot !== undefined) this.#snapshotInProgress = true;
  }

  /** The log up to the entry (term, index) is durable; does nothing if that entry was replaced since. */
  stableTo(term: number, index: number): void {
    if (index < this.#offset || this.#entries[index - this.#offset]?.term !== term) return;
    const stable = index + 1 - this.#offset;
    this.#entries = stable === this.#entries.length ? [] : this.#entries.slice(stable);
    this.#offset = index + 1;
    if (this.#inProgress < this.#offset) this.#inProgress = this.#offset;
  }

  stableSnapshot(index: number): void {
    if (this.#snapshot?.metadata.index !== index) return;
    this.#snapshot = undefined;
    this.#snapshotInProgress = false;
  }

  /** Starts over behind a snapshot. */
  restore(snapshot: Snapshot): void {
    this.#offset = snapshot.metadata.index + 1;
    this.#inProgress = this.#offset;
    this.#entries = [];
    this.#snapshot = snapshot;
    this.#snapshotInProgress = false;
  }

  /** Appends `entries[from..]`, in place of whatever stood at their indexes and behind. */
  truncateAndAppend(entries: readonly Entry[], from: number): void {
    const first = entries[from]!.index;
    const end = this.#offset + this.#entries.length;
    if (first > end) broken(this.#id, `entry ${first} does not follow the log's end at ${end - 1}`);
    if (first <= this.#offset) {
      this.#entries = entries.slice(from);
      this.#offset = first;
      this.#inProgress = first;
      return;
    }
    if (first < end) {
      this.#entries.length = first - this.#offset;
      if (this.#inProgress > first) this.#inProgress = first;
    }
    for (let i = from; i < entries.length; i++) this.#entries.push(entries[i]!);
  }

  /** A copy of the entries in [low, high), which must be here. */
  slice(low: number, high: number): readonly Entry[] {
    return this.#entries.slice(low - this.#offset, high - this.#offset);
  }
}
