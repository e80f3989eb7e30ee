/**
 * The watch over isolation: notes when this node's managers were last heard, and says of which tasks that has been too
 * long ago (proto/isolation.ts). It stops nothing itself.
 */
import {
  isolationLimitMs,
  restartedIsolationMs,
  restartedMarginMs,
  silentPeriods,
} from '../proto/isolation.ts';
import type { Clock, Timer } from '../proto/ports.ts';

/** When the request that the managers answered was sent, and how long they told this node to be silent after it. */
export interface Answer {
  readonly atMs: number;
  readonly periodMs: number;
}

/**
 * The last that was heard of the managers; `atMs` and all times here are of the monotonic clock, which goes on from one
 * life of the daemon to the next.
 */
export type LastHeard =
  | ({ readonly kind: 'answer' } & Answer)
  /** Nothing yet since the daemon started; `before`: in its last life, as far as that is known. */
  | { readonly kind: 'start'; readonly atMs: number; readonly before?: Answer | undefined };

/** When a task whose agent bears isolation for `limitMs` is to be stopped. */
export function isolatedAtMs(limitMs: number, heard: LastHeard): number {
  if (heard.kind === 'answer') return heard.atMs + Math.max(limitMs, silentPeriods * heard.periodMs);
  const { before, atMs } = heard;
  if (before === undefined) return atMs + Math.min(limitMs, restartedIsolationMs);
  const dueMs = isolatedAtMs(limitMs, { kind: 'answer', ...before });
  return Math.max(dueMs, Math.min(atMs + restartedIsolationMs, dueMs + restartedMarginMs));
}

export class IsolationWatch {
  readonly #clock: Clock;
  readonly #onIsolated: (taskId: string) => void;
  /** Tasks that mind, with how long they bear it. */
  readonly #limits = new Map<string, number>();
  #heard: LastHeard;
  #timer: Timer | undefined;
  #isStopped = false;

  constructor(clock: Clock, onIsolated: (taskId: string) => void) {
    this.#clock = clock;
    this.#onIsolated = onIsolated;
    this.#heard = { kind: 'start', atMs: clock.monotonicMs() };
  }

  /** What the last life of the daemon heard; a time that is yet to come is of another boot of the machine. */
  resume(before: Answer | undefined): void {
    const atMs = this.#clock.monotonicMs();
    this.#heard = { kind: 'start', atMs, before: before && before.atMs <= atMs ? before : undefined };
  }

  /** Whether some task minds. */
  get isMinded(): boolean {
    return this.#limits.size > 0;
  }

  /** A task came; `labels` are its service's. */
  add(taskId: string, labels: Readonly<Record<string, string>>): void {
    const limitMs = isolationLimitMs(labels);
    if (limitMs === undefined) return;
    this.#limits.set(taskId, limitMs);
    this.#arm();
  }

  forget(taskId: string): void {
    this.#limits.delete(taskId);
  }

  /** The managers answered a request that was sent at `atMs`; the next one is due `periodMs` later. */
  heard(atMs: number, periodMs: number): void {
    this.#heard = { kind: 'answer', atMs, periodMs };
  }

  stop(): void {
    this.#isStopped = true;
    this.#timer?.cancel();
  }

  /** A timer that rings early looks, and is set again: an answer sets none. */
  #arm(): void {
    if (this.#timer !== undefined || this.#isStopped || this.#limits.size === 0) return;
    const dueAtMs = Math.min(
      ...[...this.#limits.values()].map((limitMs) => isolatedAtMs(limitMs, this.#heard)),
    );
    const waitMs = Math.max(0, dueAtMs - this.#clock.monotonicMs());
    this.#timer = this.#clock.after(waitMs, () => {
      this.#timer = undefined;
      this.#look();
    });
  }

  #look(): void {
    const now = this.#clock.monotonicMs();
    for (const [taskId, limitMs] of [...this.#limits]) {
      if (isolatedAtMs(limitMs, this.#heard) > now) continue;
      this.#limits.delete(taskId);
      this.#onIsolated(taskId);
    }
    this.#arm();
  }
}
