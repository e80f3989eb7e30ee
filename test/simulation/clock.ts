/**
 * Virtual time. Nothing happens in it until someone steps it; timers due at the same instant fire in the
 * order in which they were set, so one seed gives one run.
 */
import type { Clock, Timer } from '../../proto/ports.ts';

interface Alarm {
  readonly dueMs: number;
  readonly order: number;
  readonly action: () => void;
}

/** Lets every promise that can go on without time passing go on, chains of them included. */
export function settle(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

/** A Clock that stands still until `step`, `run` or `runUntil` moves it. */
export class VirtualClock implements Clock {
  readonly #epochMs: number;
  #elapsedMs = 0;
  #order = 0;
  /** A binary heap by (dueMs, order). Cancelled alarms stay until they surface. */
  readonly #heap: Alarm[] = [];
  readonly #cancelled = new Set<Alarm>();

  constructor(epochMs = Date.UTC(2026, 0, 1)) {
    this.#epochMs = epochMs;
  }

  now(): number {
    return Math.floor(this.#epochMs + this.#elapsedMs);
  }

  monotonicMs(): number {
    return this.#elapsedMs;
  }

  after(delayMs: number, action: () => void): Timer {
    this.#order += 1;
    const alarm: Alarm = { dueMs: this.#elapsedMs + Math.max(0, delayMs), order: this.#order, action };
    this.#push(alarm);
    let isPending = true;
    return {
      cancel: () => {
        if (isPending) this.#cancelled.add(alarm);
        isPending = false;
      },
    };
  }

  /** Moves to the next timer and fires it; false when there is none (time then stands). */
  fireNext(): boolean {
    for (let alarm = this.#pop(); alarm !== undefined; alarm = this.#pop()) {
      if (this.#cancelled.delete(alarm)) continue;
      this.#elapsedMs = Math.max(this.#elapsedMs, alarm.dueMs);
      alarm.action();
      return true;
    }
    return false;
  }

  /** When the next timer is due, in milliseconds of monotonicMs; undefined when there is none. */
  nextDueMs(): number | undefined {
    for (let alarm = this.#heap[0]; alarm !== undefined; alarm = this.#heap[0]) {
      if (!this.#cancelled.has(alarm)) return alarm.dueMs;
      this.#cancelled.delete(alarm);
      this.#pop();
    }
    return undefined;
  }

  /** Fires the next timer, with promises settled before and after; false when there is none. */
  async step(): Promise<boolean> {
    await settle();
    const fired = this.fireNext();
    await settle();
    return fired;
  }

  /** Lets `durationMs` pass: every timer that becomes due fires, with promises settled in between. */
  async run(durationMs: number): Promise<void> {
    const endMs = this.#elapsedMs + durationMs;
    await settle();
    for (let dueMs = this.nextDueMs(); dueMs !== undefined && dueMs <= endMs; dueMs = this.nextDueMs()) {
      this.fireNext();
      await settle();
    }
    this.#elapsedMs = endMs;
  }

  /**
   * Lets time pass until `condition` holds. Throws when `boundMs` have passed, or nothing is left to
   * happen, without it; `what` says what was waited for.
   */
  async runUntil(condition: () => boolean, boundMs: number, what = 'the condition'): Promise<void> {
    const endMs = this.#elapsedMs + boundMs;
    await settle();
    while (!condition()) {
      const dueMs = this.nextDueMs();
      if (dueMs === undefined || dueMs > endMs) {
        throw new Error(`${what} did not come about within ${boundMs} ms of virtual time`);
      }
      this.fireNext();
      await settle();
    }
  }

  /** Lets time pass until `promise` settles, and hands its outcome on. Bounded as runUntil. */
  async runFor<T>(promise: Promise<T>, boundMs: number, what = 'the promise'): Promise<T> {
    let isSettled = false;
    const mark = () => {
      isSettled = true;
    };
    promise.then(mark, mark);
    await this.runUntil(() => isSettled, boundMs, what);
    return promise;
  }

  #push(alarm: Alarm): void {
    const heap = this.#heap;
    let at = heap.push(alarm) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (isBefore(heap[parent]!, alarm)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = alarm;
  }

  #pop(): Alarm | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (top === undefined || last === undefined || heap.length === 0) return top;
    let at = 0;
    for (let child = 1; child < heap.length; child = 2 * at + 1) {
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1;
      if (isBefore(last, heap[child]!)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
    return top;
  }
}

function isBefore(left: Alarm, right: Alarm): boolean {
  return left.dueMs < right.dueMs || (left.dueMs === right.dueMs && left.order < right.order);
}
