/** What happened in a run: the last lines in full, all of them as one number, by which two runs are compared. */

const keptLines = 60;

export class Trace {
  readonly #nowMs: () => number;
  readonly #show: ((line: string) => void) | undefined;
  readonly #lines: string[] = [];
  #high = 0x9e3779b9;
  #low = 0x243f6a88;

  /** `show` is told every line at once. */
  constructor(nowMs: () => number, show?: (line: string) => void) {
    this.#nowMs = nowMs;
    this.#show = show;
  }

  /** Something worth reading. */
  note(text: string): void {
    const line = `${(this.#nowMs() / 1000).toFixed(3).padStart(8)} s  ${text}`;
    this.mix(line);
    this.#lines.push(line);
    if (this.#lines.length > keptLines) this.#lines.shift();
    this.#show?.(line);
  }

  /** Something that only counts for whether two runs are the same. */
  mix(text: string): void {
    for (let at = 0; at < text.length; at += 1) {
      const code = text.charCodeAt(at);
      this.#high = Math.imul(this.#high ^ code, 0x85ebca77);
      this.#low = Math.imul(this.#low ^ code, 0xc2b2ae3d) + (this.#high >>> 15);
    }
  }

  /** As mix, of a number. */
  mixNumber(value: number): void {
    const scaled = value * 1024;
    this.#high = Math.imul(this.#high ^ scaled, 0x85ebca77);
    this.#low = Math.imul(this.#low ^ (scaled / 2 ** 32), 0xc2b2ae3d) + (this.#high >>> 15);
  }

  get lastLines(): readonly string[] {
    return this.#lines;
  }

  /** The same for two runs in which the same happened at the same times. */
  get hash(): string {
    return `${(this.#high >>> 0).toString(16).padStart(8, '0')}${(this.#low >>> 0).toString(16).padStart(8, '0')}`;
  }
}
