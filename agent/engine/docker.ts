/**
 * The engine that is a Docker Engine (API 1.41 or newer; also Podman's Docker-compatible socket). Requests name no version:
 * engines drop old ones, and every field used here has kept its meaning since 1.41. The only user
 * of the engine's socket. In: the engine's contract. Out: requests over the socket. It remembers no container.
 */
import Docker from 'dockerode';
import type { GenericResource } from '../../proto/docker.ts';
import { isShoalError, messageOf, ShoalError } from '../../proto/errors.ts';
import { type Clock, delay, type Log, type Random, silentLog } from '../../proto/ports.ts';
import { EngineConnection } from './connection.ts';
import { DockerApi, errorOf, type Modem } from './docker-api.ts';
import { followEvents } from './docker-events.ts';
import { DockerExecs } from './docker-execs.ts';
import { DockerMeter } from './docker-meter.ts';
import { jsonLines, logLines } from './docker-stream.ts';
import type {
  ContainerRequest,
  ContainerState,
  Engine,
  EngineDescription,
  EngineEvent,
  EngineLogLine,
  EngineNetworkRequest,
  LogOptions,
} from './engine.ts';
import { type HealthConfig, healthCheckOf } from './health-check.ts';
import { Images, withTag } from './images.ts';

const healthOutputLength = 300;
const networkLookAgainMs = [25, 50, 100, 200, 400, 800];

interface InspectAnswer {
  Id: string;
  Name: string;
  Config: HealthConfig & { Labels?: Record<string, string> | null; Tty?: boolean };
  HostConfig?: { LogConfig?: { Config?: Record<string, string> | null } };
  State: {
    Status: string;
    Pid: number;
    ExitCode: number;
    OOMKilled?: boolean;
    Error?: string;
    Health?: { Status?: string; Log?: { ExitCode: number; Output: string }[] | null } | null;
  };
  NetworkSettings?: {
    Ports?: Record<string, { HostIp: string; HostPort: string }[] | null> | null;
  };
}

interface NetworkAnswer {
  Id: string;
  Name: string;
  Created?: string;
  Labels?: Record<string, string> | null;
}

export interface DockerEngineOptions {
  /** e.g. /var/run/docker.sock, unix:///…, tcp://host:2375 */
  readonly address: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log?: Log;
}

interface ListedContainer {
  readonly NetworkSettings?: {
    readonly Networks?: Readonly<
      Record<
        string,
        | {
            readonly IPAddress?: string;
            readonly GlobalIPv6Address?: string;
            readonly IPAMConfig?: { readonly IPv4Address?: string; readonly IPv6Address?: string } | null;
          }
        | undefined
      >
    >;
  };
}

export class DockerEngine implements Engine {
  readonly execs: DockerExecs;
  readonly meter: DockerMeter;
  readonly #api: DockerApi;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #log: Log;
  readonly #images: Images;

  constructor(options: DockerEngineOptions) {
    this.#api = new DockerApi(modemFor(options.address), options.address);
    this.execs = new DockerExecs(this.#api);
    this.meter = new DockerMeter(this.#api);
    this.#clock = options.clock;
    this.#random = options.random;
    this.#log = options.log ?? silentLog;
    this.#images = new Images(
      {
        has: (image) => this.#hasImage(image),
        fetch: (image, auth, signal, onProgress) => this.#fetchImage(image, auth, signal, onProgress),
      },
      options.clock,
    );
  }

  async describe(): Promise<EngineDescription> {
    const info = await this.#api.json<{
      ID: string;
      Name: string;
      Architecture: string;
      OSType: string;
      NCPU: number;
      MemTotal: number;
      ServerVersion: string;
      Labels?: string[] | null;
      Plugins?: Record<string, string[] | null>;
      GenericResources?: GenericResource[] | null;
    }>({ method: 'GET', path: `/info` });
    const plugins = Object.entries(info.Plugins ?? {})
      .flatMap(([type, names]) => (names ?? []).map((name) => ({ type, name })))
      .sort((a, b) => (a.type === b.type ? (a.name < b.name ? -1 : 1) : a.type < b.type ? -1 : 1));
    return {
      engineId: info.ID,
      hostname: info.Name,
      platform: { Architecture: info.Architecture, OS: info.OSType },
      nanoCpus: info.NCPU * 1e9,
      memoryBytes: info.MemTotal,
      engineVersion: info.ServerVersion,
      labels: Object.fromEntries((info.Labels ?? []).map(keyAndValue)),
      plugins,
      genericResources: info.GenericResources ?? [],
    };
  }

  pull(image: string, registryAuth: string | undefined, signal: AbortSignal): Promise<void> {
    return this.#images.ensure(image, registryAuth, signal);
  }

  /**
   * Engines before API 1.44 take one network at creation, so the others are connected one by one; when one of
   * them is refused the half-made container is removed again.
   */
  async create(request: ContainerRequest): Promise<{ readonly id: string }> {
    const networking = request.config.NetworkingConfig as
      | { EndpointsConfig?: Record<string, unknown> }
      | undefined;
    const [first, ...others] = Object.entries(networking?.EndpointsConfig ?? {});
    const { Id: id } = await this.#api.json<{ Id: string }>({
      method: 'POST',
      path: `/containers/create`,
      query: { name: request.name },
      body: {
        ...request.config,
        Image: request.image,
        Labels: request.labels,
        NetworkingConfig: { EndpointsConfig: first === undefined ? {} : Object.fromEntries([first]) },
      },
    });
    try {
      for (const [network, endpoint] of others) {
        const path = `/networks/${encodeURIComponent(network)}/connect`;
        await this.#api.json({ method: 'POST', path, body: { Container: id, EndpointConfig: endpoint } });
      }
    } catch (error) {
      await this.remove(id).catch((removal: unknown) =>
        this.#log.warn({ container: id, reason: messageOf(removal) }, 'cannot remove a half-made container'),
      );
      throw error;
    }
    return { id };
  }

  async start(containerId: string): Promise<void> {
    await this.#api.json({ method: 'POST', path: containerPath(containerId, '/start') });
  }

  async stop(containerId: string, graceMs: number): Promise<void> {
    const query = { t: Math.ceil(graceMs / 1000) };
    await this.#api.json({ method: 'POST', path: containerPath(containerId, '/stop'), query });
  }

  async signal(containerId: string, signal: string): Promise<void> {
    await this.#api.json({ method: 'POST', path: containerPath(containerId, '/kill'), query: { signal } });
  }

  async remove(containerId: string): Promise<void> {
    const query = { v: true, force: true };
    try {
      await this.#api.json({ method: 'DELETE', path: containerPath(containerId), query });
    } catch (error) {
      // Someone else is removing it, which takes the engine a moment: gone is what was asked for.
      if (!isShoalError(error, 'already-exists') || !/already in progress/.test(messageOf(error)))
        throw error;
    }
  }

  async inspect(containerId: string): Promise<ContainerState> {
    return stateOf(await this.#inspect(containerId));
  }

  async list(labels: Readonly<Record<string, string>>): Promise<readonly ContainerState[]> {
    const filters = JSON.stringify({ label: labelFilters(labels) });
    const found = await this.#api.json<{ Id: string }[]>({
      method: 'GET',
      path: `/containers/json`,
      query: { all: true, filters },
    });
    const states = await Promise.all(
      found.map(({ Id }) =>
        this.inspect(Id).catch((error: unknown) => {
          if (isShoalError(error, 'not-found')) return undefined;
          throw error;
        }),
      ),
    );
    return states.filter((state) => state !== undefined);
  }

  async *logs(containerId: string, options: LogOptions, signal: AbortSignal): AsyncIterable<EngineLogLine> {
    const { Config, HostConfig } = await this.#inspect(containerId);
    const hasDetails = addsDetails(HostConfig?.LogConfig?.Config);
    const source = await this.#api.stream({
      method: 'GET',
      path: containerPath(containerId, '/logs'),
      query: {
        stdout: options.stdout,
        stderr: options.stderr,
        follow: options.follow,
        timestamps: true,
        details: hasDetails,
        since: options.since,
        tail: options.tail ?? 'all',
      },
      signal,
    });
    try {
      yield* logLines(source, { isTerminal: Config.Tty === true, hasDetails });
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      source.destroy();
    }
  }

  /**
   * Two daemons may make the same network on one engine at once: the engine refuses the second for its name or
   * its subnet (then the first one is used), or makes both (then all keep the one with the smallest id).
   */
  async ensureNetwork(request: EngineNetworkRequest): Promise<string> {
    const existing = await this.#networkLike(request);
    if (existing !== undefined) return existing.Id;
    try {
      await this.#createNetwork(request);
    } catch (error) {
      const other = isTaken(error) ? await this.#awaitNetwork(request) : undefined;
      if (other === undefined) throw error;
      return other.Id;
    }
    const made = await this.#networkLike(request);
    if (made === undefined) throw new ShoalError('not-found', `network ${request.name} not found`);
    return made.Id;
  }

  async removeNetwork(name: string): Promise<boolean> {
    // An engine lets a network go that only stopped containers refer to, which then cannot be started.
    const users = await this.#api.json<unknown[]>({
      method: 'GET',
      path: `/containers/json`,
      query: { all: true, filters: JSON.stringify({ network: [name] }) },
    });
    if (users.length > 0) return false;
    try {
      await this.#api.json({ method: 'DELETE', path: `/networks/${encodeURIComponent(name)}` });
    } catch (error) {
      if (isShoalError(error, 'not-found')) return true;
      if (isShoalError(error) && /active endpoints|in use/.test(error.message)) return false;
      throw error;
    }
    return true;
  }

  async addressesInUse(): Promise<ReadonlySet<string>> {
    const containers = await this.#api.json<ListedContainer[]>({
      method: 'GET',
      path: '/containers/json',
      query: { all: true },
    });
    const ends = containers.flatMap(({ NetworkSettings }) => Object.values(NetworkSettings?.Networks ?? {}));
    const addresses = ends.flatMap((end) => [
      end?.IPAddress,
      end?.GlobalIPv6Address,
      end?.IPAMConfig?.IPv4Address,
      end?.IPAMConfig?.IPv6Address,
    ]);
    return new Set(addresses.filter((address): address is string => !!address));
  }

  async listNetworks(labels: Readonly<Record<string, string>>) {
    const found = await this.#networks({ label: labelFilters(labels) });
    return found.map(({ Name, Labels }) => ({ name: Name, labels: Labels ?? {} }));
  }

  watch(listener: (event: EngineEvent) => void, signal: AbortSignal): void {
    void followEvents({ api: this.#api, clock: this.#clock, random: this.#random }, listener, signal);
  }

  connect(): Promise<EngineConnection> {
    const { address } = this.#api;
    const socket = new EngineConnection({ allowHalfOpen: true });
    return new Promise((resolve, reject) => {
      socket.once('error', (error) => reject(errorOf(error, address)));
      socket.connect(placeOf(address), () => resolve(socket));
    });
  }

  async facts() {
    const [info, version] = await Promise.all([
      this.#api.json<Record<string, unknown>>({ method: 'GET', path: `/info` }),
      this.#api.json<Record<string, unknown>>({ method: 'GET', path: '/version' }),
    ]);
    return { info, version };
  }

  async #hasImage(image: string): Promise<boolean> {
    try {
      await this.#api.json({ method: 'GET', path: `/images/${encodeURIComponent(image)}/json` });
      return true;
    } catch (error) {
      if (isShoalError(error, 'unavailable')) throw error;
      return false;
    }
  }

  async #fetchImage(
    image: string,
    registryAuth: string | undefined,
    signal: AbortSignal,
    onProgress: () => void,
  ): Promise<void> {
    const source = await this.#api.stream({
      method: 'POST',
      path: `/images/create`,
      query: { fromImage: withTag(image) },
      registryAuth,
      signal,
    });
    for await (const step of jsonLines(source)) {
      onProgress();
      const { error } = step as { error?: string };
      if (error !== undefined) throw new ShoalError('not-found', error);
    }
  }

  #inspect(containerId: string): Promise<InspectAnswer> {
    return this.#api.json<InspectAnswer>({ method: 'GET', path: containerPath(containerId, '/json') });
  }

  #networks(filters: Readonly<Record<string, readonly string[]>>): Promise<NetworkAnswer[]> {
    return this.#api.json<NetworkAnswer[]>({
      method: 'GET',
      path: `/networks`,
      query: { filters: JSON.stringify(filters) },
    });
  }

  /** The network of that name and those labels; of several the one with the smallest id, the rest removed. */
  async #networkLike(request: EngineNetworkRequest): Promise<NetworkAnswer | undefined> {
    const labels = labelFilters(request.labels);
    const found = (await this.#networks({ label: labels })).filter(({ Name }) => Name === request.name);
    found.sort((a, b) => (a.Id < b.Id ? -1 : 1));
    for (const duplicate of found.slice(1)) await this.removeNetwork(duplicate.Id);
    return found[0];
  }

  /** The network that someone else is making just now: the engine lists it only when it stands. */
  async #awaitNetwork(request: EngineNetworkRequest): Promise<NetworkAnswer | undefined> {
    for (const waitMs of networkLookAgainMs) {
      const found = await this.#networkLike(request);
      if (found !== undefined) return found;
      await delay(this.#clock, waitMs);
    }
    return this.#networkLike(request);
  }

  async #createNetwork(request: EngineNetworkRequest): Promise<void> {
    const configs = request.subnets.map(({ subnet, gateway, ipRange }) => ({
      Subnet: subnet,
      ...(gateway === undefined ? {} : { Gateway: gateway }),
      ...(ipRange === undefined ? {} : { IPRange: ipRange }),
    }));
    await this.#api.json({
      method: 'POST',
      path: `/networks/create`,
      body: {
        Name: request.name,
        CheckDuplicate: true,
        Driver: 'bridge',
        Internal: request.internal,
        EnableIPv6: request.subnets.some(({ subnet }) => subnet.includes(':')),
        Options: request.options,
        Labels: request.labels,
        ...(configs.length === 0 ? {} : { IPAM: { Driver: 'default', Config: configs } }),
      },
    });
  }
}

/** Whether a network was refused for a name or a subnet that another one has. */
function isTaken(error: unknown): boolean {
  return isShoalError(error) && error.code !== 'unavailable' && /overlap|already exists/.test(error.message);
}

/** `unix:///path`, a plain path, or `tcp://host:port`. */
function placeOf(address: string): { path: string } | { host: string; port: number } {
  const url = /^(tcp|http):\/\//.test(address) ? new URL(address.replace(/^tcp:/, 'http:')) : undefined;
  if (url === undefined) return { path: address.replace(/^unix:\/\//, '') };
  return { host: url.hostname, port: Number(url.port || 2375) };
}

function modemFor(address: string): Modem {
  const place = placeOf(address);
  const docker = new Docker('path' in place ? { socketPath: place.path } : { ...place, protocol: 'http' });
  return docker.modem as Modem;
}

function containerPath(containerId: string, rest = ''): string {
  return `/containers/${encodeURIComponent(containerId)}${rest}`;
}

function labelFilters(labels: Readonly<Record<string, string>>): string[] {
  return Object.entries(labels).map(([key, value]) => (value === '' ? key : `${key}=${value}`));
}

function keyAndValue(label: string): [string, string] {
  const at = label.indexOf('=');
  return at === -1 ? [label, ''] : [label.slice(0, at), label.slice(at + 1)];
}

const phaseOfStatus: Readonly<Record<string, ContainerState['phase']>> = {
  created: 'created',
  configured: 'created',
  initialized: 'created',
  running: 'running',
  paused: 'running',
  restarting: 'running',
  stopping: 'running',
  removing: 'dead',
  dead: 'dead',
};

function stateOf(answer: InspectAnswer): ContainerState {
  const { State } = answer;
  const health = State.Health?.Status;
  const lastCheck = State.Health?.Log?.at(-1);
  const healthCheck = healthCheckOf(answer.Config);
  return {
    id: answer.Id,
    name: answer.Name.replace(/^\//, ''),
    labels: answer.Config.Labels ?? {},
    phase: phaseOfStatus[State.Status] ?? 'exited',
    pid: State.Pid,
    exitCode: State.ExitCode,
    oomKilled: State.OOMKilled === true,
    error: State.Error ?? '',
    health: health === 'starting' || health === 'healthy' || health === 'unhealthy' ? health : 'none',
    healthOutput:
      lastCheck === undefined || lastCheck.ExitCode === 0
        ? ''
        : lastCheck.Output.trim().slice(-healthOutputLength),
    ...(healthCheck && { healthCheck }),
    ports: portsOf(answer.NetworkSettings?.Ports ?? {}),
  };
}

/** Published ports; one that is bound on both IPv4 and IPv6 is named once. */
function portsOf(
  ports: Readonly<Record<string, readonly { HostPort: string }[] | null>>,
): ContainerState['ports'] {
  return Object.entries(ports).flatMap(([key, bindings]) => {
    const [targetPort, protocol] = key.split('/');
    return [...new Set((bindings ?? []).map(({ HostPort }) => Number(HostPort)))].map((publishedPort) => ({
      protocol: protocol ?? 'tcp',
      targetPort: Number(targetPort),
      publishedPort,
    }));
  });
}

/** Whether the log driver was told to add something to each line. */
function addsDetails(options: Record<string, string> | null | undefined): boolean {
  return Object.keys(options ?? {}).some((name) => /^(labels|env|tag)/.test(name));
}
