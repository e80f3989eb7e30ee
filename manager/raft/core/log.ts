/**
 * The member's log: what the storage holds, followed by what is not durable yet, with the marks of how
 * far it is committed and applied. No call costs more than the entries it returns.
 */
import { broken, CompactedError, UnavailableError } from './errors.ts';
import type { Entry, MemberId, Snapshot, Storage } from './types.ts';
import { Unstable } from './unstable.ts';

export { CompactedError, UnavailableError } from './errors.ts';

function varintBytes(value: number): number {
  let bytes = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) bytes++;
  return bytes;
}

/** The size of an entry for every limit in bytes: that of its protobuf encoding, as in etcd. */
export function entrySizeBytes(entry: Entry): number {
  const data = entry.data.length;
  const payload = data === 0 ? 0 : 1 + varintBytes(data) + data;
  const type = entry.type === 'normal' ? 0 : 2;
  return 2 + varintBytes(entry.term) + varintBytes(entry.index) + type + payload;
}

export function entriesSizeBytes(entries: readonly Entry[]): number {
  let size = 0;
  for (const entry of entries) size += entrySizeBytes(entry);
  return size;
}

/** The size of what was proposed, without the log's own overhead. */
export function payloadSizeBytes(entries: readonly Entry[]): number {
  let size = 0;
  for (const entry of entries) size += entry.data.length;
  return size;
}

/** How many of `entries`, of those from `from` to before `end`, fit into `maxBytes`: at least one, if there is one. */
export function countWithin(
  entries: readonly Entry[],
  maxBytes: number,
  from = 0,
  end = entries.length,
): number {
  if (maxBytes === Number.POSITIVE_INFINITY || end <= from) return Math.max(0, end - from);
  let size = entrySizeBytes(entries[from]!);
  for (let at = from + 1; at < end; at++) {
    size += entrySizeBytes(entries[at]!);
    if (size > maxBytes) return at - from;
  }
  return end - from;
}

function limited(entries: readonly Entry[], maxBytes: number): readonly Entry[] {
  const count = countWithin(entries, maxBytes);
  return count === entries.length ? entries : entries.slice(0, count);
}

export class RaftLog {
  readonly unstable: Unstable;
  committed: number;
  /** Handed out to be applied; applied <= applying <= committed. */
  applying: number;
  applied: number;
  readonly #id: MemberId;
  readonly #storage: Storage;
  readonly #maxApplyingBytes: number;
  #applyingBytes = 0;
  #applyingPaused = false;

  constructor(id: MemberId, storage: Storage, maxApplyingBytes: number) {
    this.#id = id;
    this.#storage = storage;
    this.#maxApplyingBytes = maxApplyingBytes;
    this.unstable = new Unstable(id, storage.lastIndex() + 1);
    const compacted = storage.firstIndex() - 1;
    this.committed = compacted;
    this.applying = compacted;
    this.applied = compacted;
  }

  get firstIndex(): number {
    const snapshot = this.unstable.snapshot;
    return snapshot === undefined ? this.#storage.firstIndex() : snapshot.metadata.index + 1;
  }

  get lastIndex(): number {
    return this.unstable.lastIndex ?? this.#storage.lastIndex();
  }

  get lastTerm(): number {
    const index = this.lastIndex;
    return this.term(index) ?? broken(this.#id, `the term of the last entry, ${index}, is not known`);
  }

  /** The term of the entry at `index`; undefined when it is compacted or not there. */
  term(index: number): number | undefined {
    const term = this.unstable.term(index);
    if (term !== undefined) return term;
    if (index + 1 < this.firstIndex || index > this.lastIndex) return undefined;
    return this.#storage.term(index);
  }

  matches(term: number, index: number): boolean {
    return this.term(index) === term;
  }

  /** Whether a log that ends with (term, index) holds at least as much as this one (Raft paper, 5.4.1). */
  isUpToDate(term: number, index: number): boolean {
    const ours = this.lastTerm;
    return term > ours || (term === ours && index >= this.lastIndex);
  }

  /**
   * Follower: takes `entries`, which follow the entry (previousTerm, previousIndex), and what of them is
   * `committed`. The index of the last of them, or undefined if the logs differ before them.
   */
  tryAppend(
    previousTerm: number,
    previousIndex: number,
    entries: readonly Entry[],
    committed: number,
  ): number | undefined {
    if (!this.matches(previousTerm, previousIndex)) return undefined;
    const last = previousIndex + entries.length;
    const from = this.#firstDifference(entries);
    if (from < entries.length) this.append(entries, from);
    this.commitTo(Math.min(committed, last));
    return last;
  }

  /** Appends `entries[from..]`, cutting off what differs. */
  append(entries: readonly Entry[], from = 0): void {
    const first = entries[from]?.index;
    if (first === undefined) return;
    if (first <= this.committed) {
      broken(this.#id, `entry ${first} conflicts with the log, which is committed up to ${this.committed}`);
    }
    this.unstable.truncateAndAppend(entries, from);
  }

  /** Position of the first entry that the log lacks or has with another term. */
  #firstDifference(entries: readonly Entry[]): number {
    let at = 0;
    while (at < entries.length && this.matches(entries[at]!.term, entries[at]!.index)) at++;
    return at;
  }

  /**
   * Where this log may still agree with one of which only the entry (term, index) is known: the highest
   * index at or before `index` whose term is not above `term`, with its term (0 when not known).
   */
  findConflictByTerm(index: number, term: number): { readonly index: number; readonly term: number } {
    // Terms never fall along a log, so that the place is found by halving.
    let low = this.firstIndex - 1;
    if (index < low || index > this.lastIndex) return { index, term: 0 };
    if (this.term(low)! > term) return { index: Math.max(low - 1, 0), term: 0 };
    for (let high = index; low < high; ) {
      const middle = Math.ceil((low + high) / 2);
      if (this.term(middle)! <= term) low = middle;
      else high = middle - 1;
    }
    return { index: low, term: this.term(low)! };
  }

  /** Never moves back. */
  commitTo(index: number): void {
    if (index <= this.committed) return;
    const last = this.lastIndex;
    if (index > last) {
      broken(this.#id, `entry ${index} is committed but the log ends at ${last}: was the log lost or cut?`);
    }
    this.committed = index;
  }

  /** Leader: commits up to `index` if that is new and an entry of its own `term` (Raft paper, 5.4.2). */
  tryCommit(term: number, index: number): boolean {
    if (term === 0 || index <= this.committed || !this.matches(term, index)) return false;
    this.commitTo(index);
    return true;
  }

  /** Whether nextCommitted() has any; entries that are not durable yet count with `allowUnstable`. */
  hasNextCommitted(allowUnstable: boolean): boolean {
    if (this.#applyingPaused || this.unstable.snapshot !== undefined) return false;
    return this.applying < this.#appliable(allowUnstable);
  }

  /** Committed entries to apply next: at least one, up to the limit on what is being applied. */
  nextCommitted(allowUnstable: boolean): readonly Entry[] {
    if (!this.hasNextCommitted(allowUnstable)) return [];
    const room = this.#maxApplyingBytes - this.#applyingBytes;
    return this.slice(this.applying + 1, this.#appliable(allowUnstable) + 1, room);
  }

  #appliable(allowUnstable: boolean): number {
    return allowUnstable ? this.committed : Math.min(this.committed, this.unstable.offset - 1);
  }

  acceptApplying(index: number, sizeBytes: number, allowUnstable: boolean): void {
    this.applying = index;
    this.#applyingBytes += sizeBytes;
    // Entries left behind mean that the next one would not fit.
    this.#applyingPaused =
      this.#applyingBytes >= this.#maxApplyingBytes || index < this.#appliable(allowUnstable);
  }

  appliedTo(index: number, sizeBytes: number): void {
    if (index > this.committed || index < this.applied) {
      broken(this.#id, `applied ${index} lies outside of ${this.applied}..${this.committed}`);
    }
    this.applied = index;
    if (this.applying < index) this.applying = index;
    this.#applyingBytes = Math.max(0, this.#applyingBytes - sizeBytes);
    this.#applyingPaused = this.#applyingBytes >= this.#maxApplyingBytes;
  }

  /** Entries from `low` on, at least one if there is one; throws CompactedError. */
  entriesFrom(low: number, maxBytes: number): readonly Entry[] {
    const end = this.lastIndex + 1;
    return low >= end ? [] : this.slice(low, end, maxBytes);
  }

  /** Entries in [low, high), at least one unless that is empty; throws CompactedError. */
  slice(low: number, high: number, maxBytes: number): readonly Entry[] {
    if (low >= high) return [];
    if (low < this.firstIndex) throw new CompactedError(low);
    const offset = this.unstable.offset;
    if (low >= offset) {
      const only = high === low + 1 ? this.unstable.at(low) : undefined;
      return only === undefined ? limited(this.unstable.slice(low, high), maxBytes) : [only];
    }
    const cut = Math.min(high, offset);
    const stable = this.#storage.entries(low, cut, maxBytes);
    if (high <= offset || stable.length < cut - low) return stable;
    const room = maxBytes - entriesSizeBytes(stable);
    if (room <= 0) return stable;
    const rest = limited(this.unstable.slice(offset, high), room);
    if (rest.length === 1 && entrySizeBytes(rest[0]!) > room) return stable;
    return [...stable, ...rest];
  }

  /** Whether an entry in [low, high) is a membership change. Costs what lies between. */
  hasConfChange(low: number, high: number): boolean {
    for (let at = low; at < high; ) {
      const page = this.slice(at, high, this.#maxApplyingBytes);
      if (page.length === 0) throw new UnavailableError(`entry ${at}`);
      if (page.some((entry) => entry.type !== 'normal')) return true;
      at += page.length;
    }
    return false;
  }

  /** The latest snapshot; undefined when none can be had just now. */
  snapshot(): Snapshot | undefined {
    if (this.unstable.snapshot !== undefined) return this.unstable.snapshot;
    try {
      return this.#storage.snapshot();
    } catch (error) {
      if (error instanceof UnavailableError) return undefined;
      throw error;
    }
  }

  restore(snapshot: Snapshot): void {
    this.committed = snapshot.metadata.index;
    this.unstable.restore(snapshot);
  }
}
