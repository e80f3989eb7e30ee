/** Which file of tests a free worker takes next. */

/** The files of a stage, the longest first, so that no long one is left for the end; those that need quiet come last, one by one. */
export class FileQueue {
  readonly #shared: string[];
  readonly #alone: string[];
  readonly #running = new Set<string>();

  /**
   * `secondsOf`: about how long a file takes; the order of `paths` decides among equals. `isAlone`: whether nothing else
   * may run beside it.
   */
  constructor(
    paths: readonly string[],
    secondsOf: (path: string) => number,
    isAlone: (path: string) => boolean = () => false,
  ) {
    const sorted = [...paths].sort((a, b) => secondsOf(b) - secondsOf(a));
    this.#shared = sorted.filter((path) => !isAlone(path));
    this.#alone = sorted.filter(isAlone);
  }

  /** The next file, which is then under way; undefined when there is none that may begin now. */
  take(): string | undefined {
    const isQuiet = this.#shared.length === 0 && this.#running.size === 0;
    const path = isQuiet ? this.#alone.shift() : this.#shared.shift();
    if (path !== undefined) this.#running.add(path);
    return path;
  }

  /** The file has come to its end, whatever that was. */
  end(path: string): void {
    this.#running.delete(path);
  }

  /** Whether nothing waits and nothing is under way. */
  get isDone(): boolean {
    return this.#shared.length + this.#alone.length + this.#running.size === 0;
  }
}
