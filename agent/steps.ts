/**
 * What a task is at, told once that lasts: several steps may be under way side by side. In: steps, from their begin to
 * their end. Out: words for those that have lasted, whenever these change. It says nothing of a step that is quick.
 */
import type { Clock } from '../proto/ports.ts';

/** A step that takes longer than this is told; the pull of an image that is there takes less. */
const toldAfterMs = 500;

export class Steps {
  readonly #clock: Clock;
  readonly #tell: (words: string) => void;
  readonly #lasting = new Set<string>();

  /** `tell` is called with the steps that last, the newest last. */
  constructor(clock: Clock, tell: (words: string) => void) {
    this.#clock = clock;
    this.#tell = tell;
  }

  /** Does `work`, and tells `words` while it lasts. Hands on its outcome. */
  async during<T>(words: string, work: Promise<T>): Promise<T> {
    const timer = this.#clock.after(toldAfterMs, () => {
      this.#lasting.add(words);
      this.#tellAll();
    });
    try {
      return await work;
    } finally {
      timer.cancel();
      // The last words stand until there are others: what comes next is quick, or tells itself.
      if (this.#lasting.delete(words) && this.#lasting.size > 0) this.#tellAll();
    }
  }

  #tellAll(): void {
    this.#tell([...this.#lasting].join('; '));
  }
}
