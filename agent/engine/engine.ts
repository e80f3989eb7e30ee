/**
 * The engine: what runs containers. Two implementations, Docker Engine (docker.ts, the only user of the
 * engine's socket) and a simulated one (simulated.ts); both pass test/agent/engine/compliance.ts.
 *
 * It carries out what it is told and reports what is; it decides nothing and knows no cluster.
 * Errors: ShoalError 'unavailable' while the engine does not answer, 'not-found' for a container or image
 * that is not there, 'invalid-argument' for what the engine refuses (its own words kept).
 */
import type { Duplex } from 'node:stream';
import type { GenericResource, Platform } from '../../proto/docker.ts';
import type { ExecCommand } from '../../proto/exec-command.ts';

/** What a container is to be, in the engine's own terms; made by container-spec.ts. */
export interface ContainerRequest {
  /** Unique on the engine, e.g. web.1.<task id>. */
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly image: string;
  /** The body of Docker's POST /containers/create without name: Config, HostConfig, NetworkingConfig. */
  readonly config: Readonly<Record<string, unknown>>;
}

export type ContainerPhase = 'created' | 'running' | 'exited' | 'dead';
export type Health = 'none' | 'starting' | 'healthy' | 'unhealthy';

export interface ContainerHealthCheck {
  readonly command: readonly string[];
  readonly timeoutMs: number;
  /** Whether the engine itself checks at an interval of its own while the container starts. */
  readonly hasStartInterval: boolean;
}

export interface ContainerState {
  readonly id: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly phase: ContainerPhase;
  readonly pid: number;
  readonly exitCode: number;
  readonly oomKilled: boolean;
  /** The engine's own error, e.g. why it could not start. Empty when none. */
  readonly error: string;
  readonly health: Health;
  /** Output of the last failed health check, shortened; empty when none. */
  readonly healthOutput: string;
  /** How its health is checked; absent before it was started, and where it is not checked. */
  readonly healthCheck?: ContainerHealthCheck;
  /** Published host ports as they are. */
  readonly ports: readonly {
    readonly protocol: string;
    readonly targetPort: number;
    readonly publishedPort: number;
  }[];
}

/**
 * A change worth looking at a container again for. `engine-lost`: the event stream broke; `engine-back`: it stands
 * (said the first time too), and what happened before it did was not told.
 */
export type EngineEvent =
  | {
      readonly kind: 'container';
      readonly containerId: string;
      readonly action: 'start' | 'die' | 'oom' | 'destroy' | 'health_status';
    }
  | { readonly kind: 'engine-lost'; readonly reason: string }
  | { readonly kind: 'engine-back' };

export interface EngineDescription {
  /** Names the engine; nodes that share one have the same. */
  readonly engineId: string;
  readonly hostname: string;
  readonly platform: Platform;
  readonly nanoCpus: number;
  readonly memoryBytes: number;
  readonly engineVersion: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly plugins: readonly { readonly type: string; readonly name: string }[];
  /** What the engine's own configuration (node-generic-resources) says that there is. */
  readonly genericResources: readonly GenericResource[];
}

export interface EngineLogLine {
  readonly stream: 'stdout' | 'stderr';
  /** RFC 3339 with nanoseconds. */
  readonly timestamp: string;
  /** What the log driver adds to the line, such as labels that its options name. */
  readonly attributes?: Readonly<Record<string, string>>;
  readonly data: Uint8Array;
}

export interface LogOptions {
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly follow: boolean;
  /** Seconds since the epoch with nine digits behind the point: a line's time to the nanosecond. */
  readonly since?: string;
  readonly tail?: number;
}

/** A bridge network of the engine, one for each cluster network. */
export interface EngineNetworkRequest {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly subnets: readonly {
    readonly subnet: string;
    readonly gateway?: string;
    readonly ipRange?: string;
  }[];
  readonly internal: boolean;
  readonly options: Readonly<Record<string, string>>;
}

/** Commands in running containers. */
export interface EngineExecs {
  /** Makes a command, which does not run yet; answers its id. 'already-exists' when the container does not run. */
  make(containerId: string, request: ExecCommand): Promise<string>;
  /**
   * Starts it. What follows goes both ways: its input, and its output in Docker's frames unless it has a terminal; ending
   * our side ends its input. It ends with the command or when the keys that detach are typed.
   */
  start(execId: string, tty: boolean): Promise<Duplex>;
  /** Starts it and leaves it to itself. */
  startDetached(execId: string): Promise<void>;
  resize(execId: string, height: number, width: number): Promise<void>;
  inspect(execId: string): Promise<{ readonly isRunning: boolean; readonly exitCode: number }>;
}

/** What containers use. 'not-found' for one that is not there. */
export interface EngineMeter {
  /** cpuNanos: processor time since the container was started; memoryBytes: without what is only kept of files. */
  measure(containerId: string): Promise<{ readonly cpuNanos: number; readonly memoryBytes: number }>;
  /** Where this host reaches what it serves; undefined where it has no address. */
  address(containerId: string): Promise<string | undefined>;
}

export interface Engine {
  readonly execs: EngineExecs;
  readonly meter: EngineMeter;
  describe(): Promise<EngineDescription>;
  /**
   * Makes sure that the image is there, pulling it with `registryAuth` (Docker's X-Registry-Auth value,
   * base64url) when it is not; an image that can't be pulled but is there already is used.
   */
  pull(image: string, registryAuth: string | undefined, signal: AbortSignal): Promise<void>;
  create(request: ContainerRequest): Promise<{ readonly id: string }>;
  start(containerId: string): Promise<void>;
  /** Sends the stop signal, waits `graceMs`, then kills. Resolves when it has exited. */
  stop(containerId: string, graceMs: number): Promise<void>;
  /** Sends a running container's first process a signal (SIGHUP); 'already-exists' when it does not run. */
  signal(containerId: string, signal: string): Promise<void>;
  /** Removes a container with its anonymous volumes, running or not. */
  remove(containerId: string): Promise<void>;
  inspect(containerId: string): Promise<ContainerState>;
  /** Containers that carry all of `labels`, running or not. */
  list(labels: Readonly<Record<string, string>>): Promise<readonly ContainerState[]>;
  logs(containerId: string, options: LogOptions, signal: AbortSignal): AsyncIterable<EngineLogLine>;
  /**
   * Idempotent by name and labels, also for several daemons at once. Resolves with the engine's id of the network;
   * 'already-exists' when the name belongs to a network without these labels.
   */
  ensureNetwork(request: EngineNetworkRequest): Promise<string>;
  /** Does nothing when it is gone; resolves false while containers, running or not, still use it. */
  removeNetwork(name: string): Promise<boolean>;
  /** Addresses, without prefix, that containers have or will have when they run again; absent where there are none. */
  addressesInUse?(): Promise<ReadonlySet<string>>;
  listNetworks(
    labels: Readonly<Record<string, string>>,
  ): Promise<readonly { readonly name: string; readonly labels: Readonly<Record<string, string>> }[]>;
  /** Events from now on, reconnecting by itself, until `signal`. */
  watch(listener: (event: EngineEvent) => void, signal: AbortSignal): void;
  /**
   * A connection of its own to the engine's HTTP API, for requests that are passed on as they came; each side of it
   * ends on its own. 'not-supported' where the engine has no such API.
   */
  connect(): Promise<Duplex>;
  /** The engine's own answers to GET /info and GET /version. */
  facts(): Promise<{ readonly info: Record<string, unknown>; readonly version: Record<string, unknown> }>;
}
