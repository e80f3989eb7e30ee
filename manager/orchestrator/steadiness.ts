/**
 * Since when a leader's wall clock has gone evenly. Times that are stored were told by the clock of whoever led then,
 * and a clock may step: what must surely have passed is counted from no earlier than this.
 */

/** A clock that NTP pulls straight, and the time between two looks at it, make less of a difference. */
const steppedMs = 500;

export class Steadiness {
  #offsetMs: number;
  #sinceMs: number;

  /** Begins to count: both clocks as they are now. */
  constructor(now: number, monotonicMs: number) {
    this.#offsetMs = now - monotonicMs;
    this.#sinceMs = now;
  }

  /** Since when, in ms since the epoch, as of the last look. */
  get since(): number {
    return this.#sinceMs;
  }

  /** Looks at both clocks again, and answers since when. */
  look(now: number, monotonicMs: number): number {
    const offsetMs = now - monotonicMs;
    if (Math.abs(offsetMs - this.#offsetMs) > steppedMs) this.#sinceMs = now;
    this.#offsetMs = offsetMs;
    return this.#sinceMs;
  }
}
