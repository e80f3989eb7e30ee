/**
 * A process that can be paused and killed from outside, as SIGSTOP and SIGKILL do it: what it was handed (clock,
 * disk, engine) falls silent with it. Code of a killed process stays in memory but never runs on.
 */
import type { Engine, EngineEvent } from '../../agent/engine/engine.ts';
import type { AppendFile, Disk } from '../../manager/raft/contract.ts';
import type { Clock, Timer } from '../../proto/ports.ts';

export class SimulatedProcess implements Clock {
  readonly #clock: Clock;
  readonly #skewMs: () => number;
  #state: 'running' | 'paused' | 'dead' = 'running';
  #held: (() => void)[] = [];
  readonly #onDeath: (() => void)[] = [];

  /** `skewMs` is how far the wall clock of its machine is off. */
  constructor(clock: Clock, skewMs: () => number) {
    this.#clock = clock;
    this.#skewMs = skewMs;
  }

  get isAlive(): boolean {
    return this.#state !== 'dead';
  }

  /** Neither paused nor dead, nor still catching up. */
  get isRunning(): boolean {
    return this.#state === 'running' && this.#held.length === 0;
  }

  now(): number {
    return this.#clock.now() + this.#skewMs();
  }

  monotonicMs(): number {
    return this.#clock.monotonicMs();
  }

  after(delayMs: number, action: () => void): Timer {
    let isCancelled = false;
    const timer = this.#clock.after(delayMs, () =>
      this.run(() => {
        if (!isCancelled) action();
      }),
    );
    return {
      cancel: () => {
        isCancelled = true;
        timer.cancel();
      },
    };
  }

  /** Does `action` in this process: now, when it goes on, or never. */
  run(action: () => void): void {
    if (this.#state === 'running' && this.#held.length === 0) action();
    else if (this.#state !== 'dead') this.#held.push(action);
  }

  /** `promise` as this process sees it. */
  hold<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      promise.then(
        (value) => this.run(() => resolve(value)),
        (error: unknown) => this.run(() => reject(error)),
      );
    });
  }

  /** Called once, when the process is killed. */
  onDeath(action: () => void): void {
    this.#onDeath.push(action);
  }

  pause(): void {
    if (this.#state === 'running') this.#state = 'paused';
  }

  resume(): void {
    if (this.#state !== 'paused') return;
    this.#state = 'running';
    this.#catchUp();
  }

  /** What was held comes in its order, one turn each, and before all that is new. */
  #catchUp(): void {
    this.#clock.after(0, () => {
      if (this.#state !== 'running') return;
      this.#held.shift()?.();
      if (this.#held.length > 0) this.#catchUp();
    });
  }

  kill(): void {
    if (this.#state === 'dead') return;
    this.#state = 'dead';
    this.#held = [];
    for (const action of this.#onDeath) action();
  }
}

/** `disk` as `process` uses it: a killed one neither changes it nor hears of it any more. */
export function diskOf(process: SimulatedProcess, disk: Disk): Disk {
  const call = <T>(work: () => Promise<T>): Promise<T> =>
    process.isAlive ? process.hold(work()) : new Promise<T>(() => {});
  const file = (inner: AppendFile): AppendFile => ({
    append: (data) => {
      if (!process.isAlive) return new Promise<void>(() => {});
      const flush = inner.append(data);
      return flush && process.hold(flush);
    },
    close: () => call(() => inner.close()),
  });
  return {
    list: () => call(() => disk.list()),
    read: (name) => call(() => disk.read(name)),
    create: (name) => call(async () => file(await disk.create(name))),
    reopen: (name, keepBytes) => call(async () => file(await disk.reopen(name, keepBytes))),
    replace: (name, data) => call(() => disk.replace(name, data)),
    remove: (name) => call(() => disk.remove(name)),
  };
}

/** `engine` as `process` uses it, over a socket that ends with the process. */
export function engineOf(process: SimulatedProcess, engine: Engine): Engine {
  const call = <T>(work: () => Promise<T>): Promise<T> =>
    process.isAlive ? process.hold(work()) : new Promise<T>(() => {});
  return {
    execs: engine.execs,
    meter: engine.meter,
    describe: () => call(() => engine.describe()),
    pull: (image, registryAuth, signal) => call(() => engine.pull(image, registryAuth, signal)),
    create: (request) => call(() => engine.create(request)),
    start: (containerId) => call(() => engine.start(containerId)),
    stop: (containerId, graceMs) => call(() => engine.stop(containerId, graceMs)),
    signal: (containerId, signal) => call(() => engine.signal(containerId, signal)),
    remove: (containerId) => call(() => engine.remove(containerId)),
    inspect: (containerId) => call(() => engine.inspect(containerId)),
    list: (labels) => call(() => engine.list(labels)),
    logs: (containerId, options, signal) => engine.logs(containerId, options, signal),
    ensureNetwork: (request) => call(() => engine.ensureNetwork(request)),
    removeNetwork: (name) => call(() => engine.removeNetwork(name)),
    listNetworks: (labels) => call(() => engine.listNetworks(labels)),
    connect: () => call(() => engine.connect()),
    facts: () => call(() => engine.facts()),
    watch: (listener, signal) => {
      const ended = new AbortController();
      process.onDeath(() => ended.abort());
      signal.addEventListener('abort', () => ended.abort(), { once: true });
      engine.watch((event: EngineEvent) => process.run(() => listener(event)), ended.signal);
    },
  };
}
