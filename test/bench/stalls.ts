/** How long a process's loop stands still. */
import { readFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';

export interface Watched {
  readonly ms: number;
  /** The longest that timers had to wait meanwhile; other processes that run instead count. */
  readonly stallMs: number;
  /** The most processor time of the loop's thread in one turn: what the stall is where nothing else runs. */
  readonly turnProcessorMs: number;
  /** Of the process, all in all. */
  readonly processorMs: number;
}

/** Watches this process's loop from its making to end(). */
export class Watch {
  readonly #delays = monitorEventLoopDelay({ resolution: 1 });
  readonly #beginMs = performance.now();
  readonly #begin = process.cpuUsage();
  #turnBeginMs = threadMs();
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
    const nowMs = threadMs();
    this.#turnProcessorMs = Math.max(this.#turnProcessorMs, nowMs - this.#turnBeginMs);
    this.#turnBeginMs = nowMs;
    if (!this.#isOver) setImmediate(() => this.#turn());
  }
}

/** Processor time of this thread, which is the loop's. The first number of the file is in nanoseconds. */
function threadMs(): number {
  return Number(readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ')[0]) / 1e6;
}

function millisecondsOf({ user, system }: NodeJS.CpuUsage): number {
  return (user + system) / 1000;
}
