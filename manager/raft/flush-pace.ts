/**
 * Whether the disk is quick enough to be waited for on the spot. A hop into the thread pool and back costs more than a
 * quick flush, and on busy processors several times as much; but a slow disk must not hold up everything else that the
 * thread does.
 *
 * In: how long each flush took. Out: how to do the next one. Pure.
 */

/** A flush that takes longer is a slow one. Single ones say little: the processor may have been taken away. */
const quickMs = 1;
/** When slow ones have come so much more often than quick ones, the disk is left to the pool. */
const slowLead = 32;
/** A flush that took this long says that the disk is in trouble, by itself. */
const troubleMs = 250;
/** So many flushes go through the pool before the disk is tried on the spot; twice as many each time that was wrong. */
const firstTrial = 16;
const longestTrial = 8_192;
/** After so many quick flushes the disk has its credit back. */
const trustedAfter = 1_000;

/** The pace of one disk. */
export class FlushPace {
  /** Slow flushes beyond the quick ones, of late. */
  #lead = 0;
  #trial = firstTrial;
  /** Flushes that are left to the pool before the next trial. */
  #pooledLeft = firstTrial;
  #quickFlushes = 0;

  /** Whether the next flush is to be waited for on the spot. */
  get isQuick(): boolean {
    return this.#pooledLeft === 0;
  }

  /** A flush on the spot took `durationMs`. */
  flushedHere(durationMs: number): void {
    if (durationMs <= quickMs) {
      this.#lead = Math.max(0, this.#lead - 1);
      this.#quickFlushes += 1;
      if (this.#quickFlushes >= trustedAfter) this.#trial = firstTrial;
      return;
    }
    this.#lead += 1;
    if (this.#lead < slowLead && durationMs < troubleMs) return;
    this.#lead = 0;
    this.#quickFlushes = 0;
    this.#pooledLeft = this.#trial;
    this.#trial = Math.min(2 * this.#trial, longestTrial);
  }

  /** A flush in the pool took `durationMs`, the hops included: it may only have been waited for by a busy thread. */
  flushedInPool(durationMs: number): void {
    if (durationMs >= troubleMs) this.#pooledLeft = Math.max(this.#pooledLeft, this.#trial);
    else if (this.#pooledLeft > 0) this.#pooledLeft -= 1;
  }
}
