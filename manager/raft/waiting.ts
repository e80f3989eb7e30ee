/**
 * Those who wait: for an index to be applied, and for an answer that many can share.
 *
 * In: callers, and the progress they wait for. Out: their promises settled. No timers of its own.
 */
import type { ShoalError } from '../../proto/errors.ts';
import type { Snapshot } from './core/types.ts';

interface Waiter {
  readonly index: number;
  readonly deadlineMs: number;
  readonly resolve: () => void;
  readonly reject: (error: ShoalError) => void;
}

/** Callers that wait until an index is applied. */
export class AppliedWaiters {
  #waiters: Waiter[] = [];
  #applied: number;
  readonly #refuse: () => void;

  /** What a snapshot holds is applied. `refuse` throws where nothing more will be, and nobody would call `expire`. */
  constructor(storage: { snapshot(): Snapshot }, refuse: () => void) {
    this.#applied = storage.snapshot().metadata.index;
    this.#refuse = refuse;
  }

  /** Resolves once `index` is applied; `expire` rejects it after `deadlineMs` (monotonic). */
  async wait(index: number, deadlineMs: number): Promise<void> {
    if (index <= this.#applied) return;
    this.#refuse();
    return new Promise((resolve, reject) => {
      this.#waiters.push({ index, deadlineMs, resolve, reject });
    });
  }

  reached(applied: number): void {
    this.#applied = applied;
    this.#release(
      (waiter) => waiter.index <= applied,
      (waiter) => waiter.resolve(),
    );
  }

  expire(nowMs: number, error: () => ShoalError): void {
    this.#release(
      (waiter) => waiter.deadlineMs <= nowMs,
      (waiter) => waiter.reject(error()),
    );
  }

  failAll(error: () => ShoalError): void {
    this.#release(
      () => true,
      (waiter) => waiter.reject(error()),
    );
  }

  #release(isDue: (waiter: Waiter) => boolean, settle: (waiter: Waiter) => void): void {
    if (this.#waiters.length === 0) return;
    const due = this.#waiters.filter(isDue);
    if (due.length === 0) return;
    this.#waiters = this.#waiters.filter((waiter) => !isDue(waiter));
    for (const waiter of due) settle(waiter);
  }
}

/**
 * An answer that is asked for once for many callers: all who come while one request is under way share the
 * next, for the answer to theirs must have been asked for after they came.
 */
export class SharedRequest<T> {
  readonly #ask: () => Promise<T>;
  #next: Promise<T> | undefined;
  #current: Promise<unknown> = Promise.resolve();

  constructor(ask: () => Promise<T>) {
    this.#ask = ask;
  }

  get(): Promise<T> {
    this.#next ??= this.#afterCurrent();
    return this.#next;
  }

  async #afterCurrent(): Promise<T> {
    await this.#current;
    this.#next = undefined;
    const answer = this.#ask();
    this.#current = answer.catch(() => {});
    return answer;
  }
}
