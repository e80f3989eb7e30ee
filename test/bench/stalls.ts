/** How long a process's loop stands still. */
import { monitorEventLoopDelay } from 'node:perf_hooks';

export interface Watched {
  readonly ms: number;
  /** The longest that timers had to wait meanwhile; other processes that run instead count. */
  readonly stallMs: number;
  /** The most processor time of one turn of the loop, that of the collector's threads included. */
  readonly turnProcessorMs: number;
  /** Of the process, all in all. */
  readonly processorMs: number;
}

/** Watches this process's loop from its making to end(). */
export class Watch {
  readonly #delays = monitorEventLoopDelay({ resolution: 1 });
  readonly #beginMs = performance.now();
  readonly #begin = process.cpuUsage();
  #turnBegin = process.cpuUsage();
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
    return { ms, stallMs: this.#delays.max / 1e6, turnProcessorMs: this.#turnProcessorMs, processorMs };
  }

  #turn(): void {
    this.#turnProcessorMs = Math.max(
      this.#turnProcessorMs,
      millisecondsOf(process.cpuUsage(this.#turnBegin)),
    );
    this.#turnBegin = process.cpuUsage();
    if (!this.#isOver) setImmediate(() => this.#turn());
  }
}

function millisecondsOf({ user, system }: NodeJS.CpuUsage): number {
  return (user + system) / 1000;
}
