/**
 * What the leader knows of one member, and how freely it sends to it: `probe` sends one message and
 * waits, `replicate` sends ahead of the answers within a window, `snapshot` sends nothing until the
 * member has swallowed one. Nothing is sent here; the callers report what was.
 */
import type { ProgressStateName, ProgressStatus } from './types.ts';

/** How much may be on its way to one member. */
export interface InflightLimits {
  readonly messages: number;
  readonly bytes: number;
}

/** A ring of the messages on their way: the last index of each, and its size. Grows up to its limit. */
export class Inflights {
  readonly #limits: InflightLimits;
  #indexes: number[] = [];
  #sizes: number[] = [];
  #start = 0;
  #count = 0;
  #bytes = 0;

  constructor(limits: InflightLimits) {
    this.#limits = limits;
  }

  get count(): number {
    return this.#count;
  }

  get full(): boolean {
    return this.#count >= this.#limits.messages || this.#bytes >= this.#limits.bytes;
  }

  /** `index` must not be below the last one added, and the window not be full. */
  add(index: number, sizeBytes: number): void {
    if (this.#count === this.#indexes.length) this.#grow();
    const at = (this.#start + this.#count) % this.#indexes.length;
    this.#indexes[at] = index;
    this.#sizes[at] = sizeBytes;
    this.#count++;
    this.#bytes += sizeBytes;
  }

  /** Takes out every message that ends at or before `index`. */
  freeUpTo(index: number): void {
    while (this.#count > 0 && this.#indexes[this.#start]! <= index) {
      this.#bytes -= this.#sizes[this.#start]!;
      this.#start = (this.#start + 1) % this.#indexes.length;
      this.#count--;
    }
  }

  clear(): void {
    this.#start = 0;
    this.#count = 0;
    this.#bytes = 0;
  }

  #grow(): void {
    const capacity = Math.min(Math.max(4, this.#indexes.length * 2), this.#limits.messages);
    const old = this.#indexes.length;
    const indexes: number[] = [];
    const sizes: number[] = [];
    for (let i = 0; i < capacity; i++) {
      const from = (this.#start + i) % Math.max(old, 1);
      indexes.push(i < old ? this.#indexes[from]! : 0);
      sizes.push(i < old ? this.#sizes[from]! : 0);
    }
    this.#indexes = indexes;
    this.#sizes = sizes;
    this.#start = 0;
  }
}

/** Invariant: 0 <= match < next. In `snapshot`, next is one past the snapshot's index. */
export class Progress {
  /** The member holds the leader's log up to here. */
  match = 0;
  /** The next entry to send; those between are on their way. */
  next: number;
  state: ProgressStateName = 'probe';
  /** Index of the snapshot on its way, 0 if none. */
  pendingSnapshot = 0;
  /** Heard of since the last check of the quorum. */
  recentActive: boolean;
  /** Nothing is sent until the member answers, be it to a heartbeat. */
  flowPaused = false;
  isLearner: boolean;
  readonly inflights: Inflights;
  /** The highest commit index that was sent; what is below `next` needs no telling twice. */
  #sentCommit = 0;

  constructor(next: number, isLearner: boolean, inflights: Inflights, recentActive: boolean) {
    this.next = next;
    this.isLearner = isLearner;
    this.inflights = inflights;
    this.recentActive = recentActive;
  }

  /** A copy for a membership draft; the window is shared, as only one of the two goes on. */
  copy(): Progress {
    const copy = new Progress(this.next, this.isLearner, this.inflights, this.recentActive);
    copy.match = this.match;
    copy.state = this.state;
    copy.pendingSnapshot = this.pendingSnapshot;
    copy.flowPaused = this.flowPaused;
    copy.#sentCommit = this.#sentCommit;
    return copy;
  }

  /** Forgets all that was learned in an earlier term. */
  restart(match: number, next: number): void {
    this.#enter('probe');
    this.match = match;
    this.next = next;
    this.recentActive = false;
    this.#sentCommit = 0;
  }

  becomeProbe(): void {
    // A snapshot that went out is worth assuming: go on from behind it.
    const sent = this.state === 'snapshot' ? this.pendingSnapshot : 0;
    this.#enter('probe');
    this.next = Math.max(this.match, sent) + 1;
    this.#regressCommit();
  }

  becomeReplicate(): void {
    this.#enter('replicate');
    this.next = this.match + 1;
  }

  becomeSnapshot(index: number): void {
    this.#enter('snapshot');
    this.pendingSnapshot = index;
    this.next = index + 1;
    this.#sentCommit = index;
  }

  /** A MsgApp with `count` entries of `sizeBytes` in all went out, from `next` on. */
  sentEntries(count: number, sizeBytes: number): void {
    if (this.state === 'replicate') {
      if (count > 0) {
        this.next += count;
        this.inflights.add(this.next - 1, sizeBytes);
      }
      this.flowPaused = this.inflights.full;
    } else if (count > 0) {
      this.flowPaused = true;
    }
  }

  sentCommit(index: number): void {
    this.#sentCommit = index;
  }

  /** Whether telling `index` could move the member's own commit index. */
  canBumpCommit(index: number): boolean {
    return index > this.#sentCommit && this.#sentCommit < this.next - 1;
  }

  /** The member acknowledged `index`; false if that is old news. */
  acknowledge(index: number): boolean {
    if (index <= this.match) return false;
    this.match = index;
    if (this.next <= index) this.next = index + 1;
    this.flowPaused = false;
    return true;
  }

  /** The member refused the MsgApp after `rejected`, proposing `hint`; false if that is old news. */
  backOff(rejected: number, hint: number): boolean {
    if (this.state === 'replicate') {
      if (rejected <= this.match) return false;
      this.next = this.match + 1;
      this.#regressCommit();
      return true;
    }
    // A probe is one message at a time: any other refusal is a straggler.
    if (this.next - 1 !== rejected) return false;
    this.next = Math.max(Math.min(rejected, hint + 1), this.match + 1);
    this.#regressCommit();
    this.flowPaused = false;
    return true;
  }

  get paused(): boolean {
    return this.state === 'snapshot' || this.flowPaused;
  }

  status(): ProgressStatus {
    return {
      match: this.match,
      next: this.next,
      state: this.state,
      pendingSnapshot: this.pendingSnapshot,
      recentActive: this.recentActive,
      paused: this.paused,
      inflight: this.inflights.count,
      inflightFull: this.inflights.full,
      isLearner: this.isLearner,
    };
  }

  #enter(state: ProgressStateName): void {
    this.state = state;
    this.flowPaused = false;
    this.pendingSnapshot = 0;
    this.inflights.clear();
  }

  #regressCommit(): void {
    if (this.#sentCommit >= this.next) this.#sentCommit = this.next - 1;
  }
}
