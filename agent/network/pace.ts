/**
 * How far a node's kernel is behind what it was told. In: updates as they arrive, and those that the kernel holds. Out:
 * how long each took, and how long the oldest one waits that it does not hold yet.
 */
import type { Clock } from '../../proto/ports.ts';

/** Of updates that wait: what comes on top of so many is taken for as old as the newest of them. */
const maxWaiting = 1_000;

export class Pace {
  readonly #clock: Clock;
  readonly #onHeld: (tookMs: number) => void;
  #waiting: { readonly revision: number; readonly atMs: number }[] = [];

  /** `onHeld` hears how long each update took from its arrival. */
  constructor(clock: Clock, onHeld: (tookMs: number) => void) {
    this.#clock = clock;
    this.#onHeld = onHeld;
  }

  /** An update arrived; a complete one takes the place of those before it. */
  told(revision: string, isComplete: boolean): void {
    if (isComplete) this.#waiting = [];
    if (this.#waiting.length < maxWaiting) {
      this.#waiting.push({ revision: Number(revision), atMs: this.#clock.monotonicMs() });
    }
  }

  /** The kernel holds everything up to `revision`. */
  held(revision: string): void {
    const now = this.#clock.monotonicMs();
    while (this.#waiting.length > 0 && this.#waiting[0]!.revision <= Number(revision)) {
      this.#onHeld(now - this.#waiting.shift()!.atMs);
    }
  }

  /** How long the oldest update has waited; 0: none does. */
  lagMs(): number {
    const [oldest] = this.#waiting;
    return oldest === undefined ? 0 : this.#clock.monotonicMs() - oldest.atMs;
  }
}
