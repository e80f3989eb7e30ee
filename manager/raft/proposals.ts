/**
 * Proposals under way: made on this member, not applied yet.
 *
 * In: proposals, committed entries, the loss of leadership. Out: each proposer's answer, or an error that
 * says whether the change may still come true. A proposal is known by an id at the head of its entry. It
 * never proposes again by itself.
 */
import { isShoalError, ShoalError } from '../../proto/errors.ts';
import type { Clock, Random } from '../../proto/ports.ts';
import type { ProposalResult } from './contract.ts';
import type { Entry } from './core/types.ts';

/** This process's own number, so that ids of an earlier life are not taken for this one's; then a counter. */
const incarnationBytes = 8;
const idBytes = incarnationBytes + 4;

/** What the state machine gets of a normal entry's data. */
export function payloadOf(data: Uint8Array): Uint8Array {
  return data.subarray(idBytes);
}

interface Pending {
  readonly startedMs: number;
  deadlineMs: number;
  /** Where it stands in the log; 0 until it was handed to the disk. */
  index: number;
  readonly resolve: (result: ProposalResult) => void;
  readonly reject: (error: ShoalError) => void;
}

export interface PendingOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly timeoutMs: number;
  readonly onCommit: ((latencyMs: number) => void) | undefined;
}

/** Proposals by id, in the order they were made. */
export class PendingProposals {
  readonly #options: PendingOptions;
  readonly #incarnation: Buffer;
  readonly #pending = new Map<number, Pending>();
  #counter = 0;

  constructor(options: PendingOptions) {
    this.#options = options;
    this.#incarnation = Buffer.from(options.random.bytes(incarnationBytes));
  }

  get size(): number {
    return this.#pending.size;
  }

  /**
   * Hands `data` with its id to `propose`, and resolves when that entry is applied. What `propose` throws
   * is thrown: then nothing was appended.
   */
  start(data: Uint8Array, propose: (data: Uint8Array) => void): Promise<ProposalResult> {
    this.#counter = (this.#counter + 1) >>> 0;
    const id = this.#counter;
    const bytes = Buffer.allocUnsafe(idBytes + data.length);
    bytes.set(this.#incarnation, 0);
    bytes.writeUInt32LE(id, incarnationBytes);
    bytes.set(data, idBytes);
    propose(bytes);
    const startedMs = this.#options.clock.monotonicMs();
    return new Promise((resolve, reject) => {
      const deadlineMs = startedMs + this.#options.timeoutMs;
      this.#pending.set(id, { startedMs, deadlineMs, index: 0, resolve, reject });
    });
  }

  /** The entries got their place in this member's log. */
  appended(entries: readonly Entry[]): void {
    if (this.#pending.size === 0) return;
    for (const entry of entries) {
      const pending = this.#pending.get(this.#idOf(entry));
      if (pending === undefined) continue;
      pending.index = entry.index;
    }
  }

  /** A normal entry was applied. */
  applied(entry: Entry, result: unknown): void {
    if (this.#pending.size === 0) return;
    const id = this.#idOf(entry);
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    this.#pending.delete(id);
    this.#options.onCommit?.(this.#options.clock.monotonicMs() - pending.startedMs);
    pending.resolve({ index: entry.index, result });
  }

  /** The state up to `index` came as a snapshot: what stood there may be in it, or not. */
  skipped(index: number): void {
    for (const [id, pending] of this.#pending) {
      if (pending.index === 0 || pending.index > index) continue;
      this.#pending.delete(id);
      pending.reject(unknownOutcome('the leader changed before the change was confirmed'));
    }
  }

  /**
   * Every entry up to `index` was applied. What stood at such an index and was not applied has lost its
   * place to another leader's entry: it can never come true.
   */
  settled(index: number): void {
    for (const [id, pending] of this.#pending) {
      if (pending.index === 0) continue;
      // They stand in the log in the order in which they were made.
      if (pending.index > index) return;
      this.#pending.delete(id);
      pending.reject(
        new ShoalError('unavailable', 'the leader changed before the change was committed; it was not made', {
          details: { outcome: 'not-appended' },
        }),
      );
    }
  }

  /** Nothing waits longer than `graceMs` from now on: another leader decides about what is under way. */
  hurry(graceMs: number): void {
    const deadlineMs = this.#options.clock.monotonicMs() + graceMs;
    for (const pending of this.#pending.values()) {
      pending.deadlineMs = Math.min(pending.deadlineMs, deadlineMs);
    }
  }

  /** Gives up on what has waited too long. */
  expire(why: () => string): void {
    if (this.#pending.size === 0) return;
    const nowMs = this.#options.clock.monotonicMs();
    for (const [id, pending] of this.#pending) {
      if (pending.deadlineMs > nowMs) continue;
      this.#pending.delete(id);
      pending.reject(unknownOutcome(why()));
    }
  }

  failAll(error: () => ShoalError): void {
    const all = [...this.#pending.values()];
    this.#pending.clear();
    for (const pending of all) pending.reject(error());
  }

  /** The id of an entry that this process proposed; 0, which is none's, otherwise. */
  #idOf(entry: Entry): number {
    const { data } = entry;
    if (entry.type !== 'normal' || data.length < idBytes) return 0;
    for (let at = 0; at < incarnationBytes; at += 1) {
      if (data[at] !== this.#incarnation[at]) return 0;
    }
    const view = Buffer.from(data.buffer, data.byteOffset, data.length);
    return view.readUInt32LE(incarnationBytes);
  }
}

/** The error for a change that may or may not come true. */
export function unknownOutcome(why: string): ShoalError {
  return new ShoalError(
    'unavailable',
    `${why}; whether the change was made is unknown: look before repeating it`,
    { details: { outcome: 'unknown' } },
  );
}

/** Whether `error` says that a proposal was surely not appended, so that it may be made again. */
export function surelyNotAppended(error: unknown): boolean {
  if (isShoalError(error, 'not-leader')) return true;
  return isShoalError(error) && error.details.outcome === 'not-appended';
}
