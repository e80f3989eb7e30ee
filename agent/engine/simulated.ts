/**
 * An engine without containers, driven by the Clock and Random it is handed: for tests, for runs with many
 * nodes and for `shoald --simulate`. It keeps the engine's contract (test/agent/engine/compliance.ts).
 *
 * What a container does is said by its image or its labels:
 *   image `missing:…`              cannot be pulled and is not there
 *   image `refused:…`              create is refused
 *   image `broken:…`               start is refused
 *   image `fail:exit-<n>`          runs, then exits with <n>
 *   image `job:exit-<n>`           the same; reads better for what is meant to end
 *   label `shoal.simulated.exit-after-ms`, `.exit-code`   ends by itself
 *   label `shoal.simulated.health` healthy (as is every container with a health check), unhealthy or starting
 *   label `shoal.simulated.health-after-ms`               when the health becomes that
 *   label `shoal.simulated.stop-ms`                       how long it takes to stop; beyond the grace it is killed
 * Tests steer it further with exit, setHealth, runOutOfMemory, vanish, crash and recover. It never touches a disk.
 */
import { ShoalError } from '../../proto/errors.ts';
import { type Clock, delay, type Random } from '../../proto/ports.ts';
import { createdContainer } from './created-container.ts';
import type {
  ContainerRequest,
  ContainerState,
  Engine,
  EngineDescription,
  EngineEvent,
  EngineLogLine,
  EngineNetworkRequest,
  Health,
  LogOptions,
} from './engine.ts';
import { SimulatedExecs } from './simulated-execs.ts';
import { SimulatedMeter } from './simulated-meter.ts';
import { builtInNetworks, hasHealthCheck, healthCheckIn, networksOf } from './simulated-requests.ts';

const labelPrefix = 'shoal.simulated.';
const firstEphemeralPort = 32768;

export interface SimulatedEngineOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly engineId?: string;
  readonly hostname?: string;
  readonly nanoCpus?: number;
  readonly memoryBytes?: number;
  readonly labels?: Readonly<Record<string, string>>;
  readonly genericResources?: EngineDescription['genericResources'];
  /** Whether it checks health at an interval of its own while a container starts, as Docker Engine does since 25.0. */
  readonly knowsStartInterval?: boolean;
  /** How long pulls, starts and stops take, [least, most) in milliseconds. */
  readonly pullMs?: readonly [number, number];
  readonly startMs?: readonly [number, number];
  readonly stopMs?: readonly [number, number];
  /** What a former engine remembered: its containers are as they were, as a real engine's outlive our daemon. */
  readonly from?: string | undefined;
  /** Called with what is to be remembered whenever that changes. */
  readonly remember?: (memory: string) => void;
}

interface Running {
  state: ContainerState;
  readonly request: ContainerRequest;
  readonly lines: EngineLogLine[];
  readonly networks: readonly string[];
  /** Rises with every start, so that what was planned for an earlier run does not hit a later one. */
  run: number;
}

interface Memory {
  readonly networks: readonly (EngineNetworkRequest & { id: string })[];
  readonly containers: readonly Pick<Running, 'state' | 'request' | 'networks'>[];
}

/** Counts of what was asked of the engine, for tests that hold the agent to doing nothing needless. */
export interface EngineCalls {
  pull: number;
  create: number;
  start: number;
  stop: number;
  remove: number;
  inspect: number;
  list: number;
}

export class SimulatedEngine implements Engine {
  readonly execs = new SimulatedExecs(async (id) => (await this.inspect(id)).phase === 'running');
  readonly meter = new SimulatedMeter();
  readonly calls: EngineCalls = { pull: 0, create: 0, start: 0, stop: 0, remove: 0, inspect: 0, list: 0 };
  /** What containers were sent, oldest first. */
  readonly signals: { readonly containerId: string; readonly signal: string }[] = [];
  readonly #options: SimulatedEngineOptions;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #containers = new Map<string, Running>();
  readonly #networks = new Map<string, EngineNetworkRequest & { id: string }>();
  readonly #watchers = new Set<(event: EngineEvent) => void>();
  readonly #lineListeners = new Set<() => void>();
  #lostBecause: string | undefined;
  #nextPid = 1000;
  #nextPort = firstEphemeralPort;

  constructor(options: SimulatedEngineOptions) {
    this.#options = options;
    this.#clock = options.clock;
    this.#random = options.random;
    if (options.from !== undefined) this.#recall(options.from);
  }

  #recall(text: string): void {
    const memory = JSON.parse(text) as Memory;
    for (const network of memory.networks) this.#networks.set(network.name, network);
    for (const { state, request, networks } of memory.containers) {
      const container: Running = { state, request, networks, lines: [], run: 0 };
      this.#containers.set(state.id, container);
      if (state.phase === 'running') this.#plan(container);
    }
  }

  #remember(): void {
    if (!this.#options.remember) return;
    const memory: Memory = {
      networks: [...this.#networks.values()],
      containers: [...this.#containers.values()].map(({ state, request, networks }) => ({
        state,
        request,
        networks,
      })),
    };
    this.#options.remember(JSON.stringify(memory));
  }

  async describe(): Promise<EngineDescription> {
    this.#mustAnswer();
    return {
      engineId: this.#options.engineId ?? 'simulated',
      hostname: this.#options.hostname ?? 'simulated',
      platform: { Architecture: 'x86_64', OS: 'linux' },
      nanoCpus: this.#options.nanoCpus ?? 8e9,
      memoryBytes: this.#options.memoryBytes ?? 16 * 2 ** 30,
      engineVersion: 'simulated',
      labels: this.#options.labels ?? {},
      plugins: ['json-file', 'bridge', 'overlay', 'local'].map((name, index) => ({
        type: ['Log', 'Network', 'Network', 'Volume'][index]!,
        name,
      })),
      genericResources: this.#options.genericResources ?? [],
    };
  }

  async pull(image: string, _registryAuth: string | undefined, signal: AbortSignal): Promise<void> {
    this.#mustAnswer();
    this.calls.pull += 1;
    await this.#take(this.#options.pullMs);
    signal.throwIfAborted();
    this.#mustAnswer();
    if (image.startsWith('missing:')) throw new ShoalError('not-found', `No such image: ${image}`);
  }

  async create(request: ContainerRequest): Promise<{ readonly id: string }> {
    this.#mustAnswer();
    this.calls.create += 1;
    await delay(this.#clock, 0);
    this.#mustAnswer();
    if (request.image.startsWith('missing:')) {
      throw new ShoalError('not-found', `No such image: ${request.image}`);
    }
    if (request.image.startsWith('refused:')) {
      throw new ShoalError('invalid-argument', `the simulated engine refuses ${request.image}`);
    }
    for (const other of this.#containers.values()) {
      if (other.state.name === request.name) {
        throw new ShoalError(
          'already-exists',
          `Conflict. The container name "/${request.name}" is already in use by container "${other.state.id}".`,
        );
      }
    }
    const networks = networksOf(request);
    for (const name of networks) {
      if (!this.#networks.has(name) && !builtInNetworks.has(name)) {
        throw new ShoalError('not-found', `network ${name} not found`);
      }
    }
    const id = hexadecimal(this.#random.bytes(32));
    const state = createdContainer(id, request);
    this.#containers.set(id, { state, request, lines: [], networks, run: 0 });
    this.#remember();
    return { id };
  }

  async start(containerId: string): Promise<void> {
    this.#mustAnswer();
    this.calls.start += 1;
    const container = this.#container(containerId);
    if (container.state.phase === 'running') return;
    await this.#take(this.#options.startMs);
    this.#mustAnswer();
    this.#container(containerId);
    if (container.request.image.startsWith('broken:')) {
      const error = `the simulated engine cannot start ${container.request.image}`;
      container.state = { ...container.state, error, exitCode: 127 };
      throw new ShoalError('invalid-argument', error);
    }
    this.#nextPid += 1;
    container.run += 1;
    container.state = {
      ...container.state,
      phase: 'running',
      pid: this.#nextPid,
      exitCode: 0,
      error: '',
      oomKilled: false,
      health: hasHealthCheck(container.request) ? 'starting' : 'none',
      ...healthCheckIn(container.request, this.#options.knowsStartInterval !== false),
      ports: this.#publish(container.request),
    };
    this.#emit({ kind: 'container', containerId: container.state.id, action: 'start' });
    this.#plan(container);
  }

  async stop(containerId: string, graceMs: number): Promise<void> {
    this.#mustAnswer();
    this.calls.stop += 1;
    const container = this.#container(containerId);
    if (container.state.phase !== 'running') return;
    const { run } = container;
    const wantedMs =
      numberOf(container.state.labels[`${labelPrefix}stop-ms`]) ?? this.#pick(this.#options.stopMs);
    await delay(this.#clock, Math.min(wantedMs, graceMs));
    this.#mustAnswer();
    if (container.run === run) this.#end(container, wantedMs > graceMs ? 137 : 0);
  }

  async signal(containerId: string, signal: string): Promise<void> {
    this.#mustAnswer();
    const { state } = this.#container(containerId);
    if (state.phase !== 'running') {
      throw new ShoalError('already-exists', `Container ${containerId} is not running`);
    }
    this.signals.push({ containerId: state.id, signal });
  }

  async remove(containerId: string): Promise<void> {
    this.#mustAnswer();
    this.calls.remove += 1;
    const container = this.#container(containerId);
    if (container.state.phase === 'running') this.#end(container, 137);
    this.#containers.delete(container.state.id);
    this.#emit({ kind: 'container', containerId: container.state.id, action: 'destroy' });
    this.#wakeReaders();
  }

  async inspect(containerId: string): Promise<ContainerState> {
    this.#mustAnswer();
    this.calls.inspect += 1;
    return this.#container(containerId).state;
  }

  async list(labels: Readonly<Record<string, string>>): Promise<readonly ContainerState[]> {
    this.#mustAnswer();
    this.calls.list += 1;
    return [...this.#containers.values()]
      .map((container) => container.state)
      .filter((state) => carries(state.labels, labels));
  }

  async *logs(containerId: string, options: LogOptions, signal: AbortSignal): AsyncIterable<EngineLogLine> {
    this.#mustAnswer();
    const container = this.#container(containerId);
    const wanted = (line: EngineLogLine): boolean =>
      options[line.stream] &&
      (options.since === undefined || Date.parse(line.timestamp) >= Number(options.since) * 1000);
    const past = container.lines.filter(wanted);
    let next = container.lines.length;
    yield* options.tail === undefined ? past : past.slice(Math.max(0, past.length - options.tail));
    while (options.follow && !signal.aborted) {
      while (next < container.lines.length) {
        const line = container.lines[next]!;
        next += 1;
        if (wanted(line)) yield line;
      }
      if (container.state.phase !== 'running' || !this.#containers.has(container.state.id)) return;
      await this.#nextLine(signal);
    }
  }

  async ensureNetwork(request: EngineNetworkRequest): Promise<string> {
    this.#mustAnswer();
    const existing = this.#networks.get(request.name);
    if (existing !== undefined) {
      if (carries(existing.labels, request.labels)) return existing.id;
      throw new ShoalError('already-exists', `network with name ${request.name} already exists`);
    }
    const id = hexadecimal(this.#random.bytes(32));
    this.#networks.set(request.name, { ...request, id });
    this.#remember();
    return id;
  }

  async removeNetwork(name: string): Promise<boolean> {
    this.#mustAnswer();
    for (const container of this.#containers.values()) {
      if (container.networks.includes(name)) return false;
    }
    this.#networks.delete(name);
    this.#remember();
    return true;
  }

  async listNetworks(labels: Readonly<Record<string, string>>) {
    this.#mustAnswer();
    return [...this.#networks.values()]
      .filter((network) => carries(network.labels, labels))
      .map((network) => ({ name: network.name, labels: network.labels }));
  }

  watch(listener: (event: EngineEvent) => void, signal: AbortSignal): void {
    if (signal.aborted) return;
    this.#watchers.add(listener);
    signal.addEventListener('abort', () => this.#watchers.delete(listener), { once: true });
    this.#clock.after(0, () => {
      if (this.#lostBecause === undefined && this.#watchers.has(listener)) listener({ kind: 'engine-back' });
    });
  }

  connect(): Promise<never> {
    const reason = 'the containers of this node are simulated: there is no container engine to ask';
    return Promise.reject(new ShoalError('not-supported', reason));
  }

  async facts() {
    this.#mustAnswer();
    const { engineId: ID, hostname: Name, nanoCpus, memoryBytes: MemTotal } = await this.describe();
    return {
      info: { ID, Name, NCPU: nanoCpus / 1e9, MemTotal, Driver: 'simulated' },
      version: { Version: 'simulated', ApiVersion: '1.41', Os: 'linux', Arch: 'amd64' },
    };
  }

  /** The container's main process ends with `exitCode`. */
  exit(containerId: string, exitCode: number): void {
    this.#end(this.#container(containerId), exitCode);
  }

  /** The kernel kills the container for want of memory. */
  runOutOfMemory(containerId: string): void {
    const container = this.#container(containerId);
    container.state = { ...container.state, oomKilled: true };
    this.#emit({ kind: 'container', containerId: container.state.id, action: 'oom' });
    this.#end(container, 137);
  }

  /** The container's health check now says `health`. */
  setHealth(containerId: string, health: Health, output = ''): void {
    const container = this.#container(containerId);
    container.state = { ...container.state, health, healthOutput: output };
    this.#emit({ kind: 'container', containerId: container.state.id, action: 'health_status' });
  }

  /** The container is gone, as after someone's `docker rm -f`. */
  vanish(containerId: string): void {
    const container = this.#container(containerId);
    this.#containers.delete(container.state.id);
    this.#emit({ kind: 'container', containerId: container.state.id, action: 'destroy' });
    this.#wakeReaders();
  }

  /** The container writes a line. */
  write(containerId: string, text: string, stream: 'stdout' | 'stderr' = 'stdout'): void {
    this.#container(containerId).lines.push({
      stream,
      timestamp: new Date(this.#clock.now()).toISOString(),
      data: new TextEncoder().encode(`${text}\n`),
    });
    this.#wakeReaders();
  }

  /** From now on nothing answers. */
  crash(reason = 'the simulated engine was stopped'): void {
    this.#lostBecause = reason;
    for (const watcher of [...this.#watchers]) watcher({ kind: 'engine-lost', reason });
  }

  /** Answers again; without `containersSurvive` every container was killed meanwhile, and no event says so. */
  recover(options: { containersSurvive: boolean }): void {
    if (!options.containersSurvive) {
      for (const container of this.#containers.values()) {
        if (container.state.phase !== 'running') continue;
        container.run += 1;
        container.state = { ...container.state, phase: 'exited', pid: 0, exitCode: 137 };
      }
    }
    this.#lostBecause = undefined;
    this.#emit({ kind: 'engine-back' });
    this.#wakeReaders();
  }

  /** The requests of all containers there are, by container id: what the engine was asked to run. */
  requests(): ReadonlyMap<string, ContainerRequest> {
    return new Map([...this.#containers].map(([id, { request }]) => [id, request]));
  }

  /** Every container as it is, told even while the engine does not answer. */
  states(): readonly ContainerState[] {
    return [...this.#containers.values()].map(({ state }) => state);
  }

  /** What image and labels say will happen to a container that has just been started. */
  #plan(container: Running): void {
    const { run } = container;
    const { labels } = container.state;
    const later = (delayMs: number, action: () => void): void => {
      this.#clock.after(delayMs, () => {
        if (container.run === run && container.state.phase === 'running') action();
      });
    };
    const byImage = /^(?:fail|job):exit-(\d+)/.exec(container.request.image);
    const exitAfterMs = numberOf(labels[`${labelPrefix}exit-after-ms`]) ?? (byImage ? 1 : undefined);
    if (exitAfterMs !== undefined) {
      const exitCode = numberOf(labels[`${labelPrefix}exit-code`]) ?? Number(byImage?.[1] ?? 0);
      later(exitAfterMs, () => this.#end(container, exitCode));
    }
    const health =
      labels[`${labelPrefix}health`] ?? (hasHealthCheck(container.request) ? 'healthy' : undefined);
    if (health === 'healthy' || health === 'unhealthy') {
      const output = health === 'unhealthy' ? 'the simulated health check failed' : '';
      later(numberOf(labels[`${labelPrefix}health-after-ms`]) ?? 10, () =>
        this.setHealth(container.state.id, health, output),
      );
    }
  }

  #end(container: Running, exitCode: number): void {
    if (container.state.phase !== 'running') return;
    container.run += 1;
    container.state = { ...container.state, phase: 'exited', pid: 0, exitCode, ports: [] };
    this.#emit({ kind: 'container', containerId: container.state.id, action: 'die' });
    this.#wakeReaders();
  }

  #publish(request: ContainerRequest): ContainerState['ports'] {
    const host = request.config.HostConfig as
      | { PortBindings?: Record<string, { HostPort?: string }[]> }
      | undefined;
    return Object.entries(host?.PortBindings ?? {}).flatMap(([key, bindings]) => {
      const [targetPort, protocol] = key.split('/');
      return bindings.map(({ HostPort }) => ({
        protocol: protocol ?? 'tcp',
        targetPort: Number(targetPort),
        publishedPort: numberOf(HostPort) || this.#nextPort++,
      }));
    });
  }

  #container(containerId: string): Running {
    const byId = this.#containers.get(containerId);
    if (byId !== undefined) return byId;
    for (const container of this.#containers.values()) {
      if (container.state.name === containerId) return container;
    }
    throw new ShoalError('not-found', `No such container: ${containerId}`);
  }

  #mustAnswer(): void {
    if (this.#lostBecause !== undefined) {
      throw new ShoalError('unavailable', `Cannot connect to the engine: ${this.#lostBecause}`);
    }
  }

  #emit(event: EngineEvent): void {
    this.#remember();
    if (this.#lostBecause !== undefined) return;
    for (const watcher of [...this.#watchers]) watcher(event);
  }

  #wakeReaders(): void {
    for (const listener of [...this.#lineListeners]) listener();
  }

  #nextLine(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#lineListeners.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      this.#lineListeners.add(done);
      signal.addEventListener('abort', done, { once: true });
    });
  }

  #pick(range: readonly [number, number] | undefined): number {
    return range === undefined ? 0 : range[0] + this.#random.float() * (range[1] - range[0]);
  }

  #take(range: readonly [number, number] | undefined): Promise<void> {
    return delay(this.#clock, this.#pick(range));
  }
}

function carries(all: Readonly<Record<string, string>>, some: Readonly<Record<string, string>>): boolean {
  return Object.entries(some).every(([key, value]) => all[key] === value);
}

function numberOf(text: string | undefined): number | undefined {
  const number = text === undefined || text === '' ? Number.NaN : Number(text);
  return Number.isFinite(number) ? number : undefined;
}

function hexadecimal(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
