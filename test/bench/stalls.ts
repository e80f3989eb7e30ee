/** How long a process's loop stands still. */
import { closeSync, openSync, readSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';

export interface Watched {
  readonly ms: number;
  /** The longest that timers had to wait meanwhile; other processes that run instead count. */
  readonly stallMs: number;
  /** The most processor time of the loop's thread between two looks, a turn as a rule: what the stall is where nothing else runs. */
  readonly turnProcessorMs: number;
  /** Of the process, all in all. */
  readonly processorMs: number;
}

/**
 * Watches this process's loop from its making to end(). It looks each millisecond and leaves nothing to be collected: a buffer for
 * each look is memory that V8 counts, and has a large heap marked again and again.
 */
export class Watch {
  readonly #delays = monitorEventLoopDelay({ resolution: 1 });
  readonly #beginMs = performance.now();
  readonly #begin = process.cpuUsage();
  readonly #statistics = openSync('/proc/thread-self/schedstat', 'r');
  readonly #text = Buffer.alloc(64);
  #turnBeginMs = this.#threadMs();
  #turnProcessorMs = 0;
  #isOver = false;

  constructor() {
    this.#turn();
    this.#delays.enable();
  }

  async end(): Promise<Watched> {
    const ms = performance.now() - this.#beginMs;
    const processorMs = millisecondsOf(process.cpuUsage(this.#begin));
    // The last stall counts as well.
    await new Promise((resolve) => setTimeout(resolve, 10));
    this.#delays.disable();
    this.#isOver = true;
    closeSync(this.#statistics);
    return { ms, stallMs: this.#delays.max / 1e6, turnProcessorMs: this.#turnProcessorMs, processorMs };
  }

  #turn(): void {
    if (this.#isOver) return;
    const nowMs = this.#threadMs();
    this.#turnProcessorMs = Math.max(this.#turnProcessorMs, nowMs - this.#turnBeginMs);
    this.#turnBeginMs = nowMs;
    setTimeout(() => this.#turn(), 1);
  }

  /** Processor time of this thread, which is the loop's. The first number of the file is in nanoseconds. */
  #threadMs(): number {
    const bytes = readSync(this.#statistics, this.#text, 0, this.#text.length, 0);
    return Number.parseInt(this.#text.toString('latin1', 0, bytes), 10) / 1e6;
  }
}

function millisecondsOf({ user, system }: NodeJS.CpuUsage): number {
  return (user + system) / 1000;
}
