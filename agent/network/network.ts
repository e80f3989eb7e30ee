/**
 * Attaches tasks to networks. In: tasks that are prepared, that run already, that are gone. Out: the engine's
 * networks, made before the first task and removed some time after the last, and each task's attachment. It
 * never chooses an address (the managers do) and never touches a network that does not carry a cluster
 * network's id.
 */
import { networkIdLabel } from '../../proto/docker.ts';
import { isShoalError, messageOf, ShoalError } from '../../proto/errors.ts';
import type { Clock, Log, Timer } from '../../proto/ports.ts';
import type { ManagerKind } from '../dispatcher-client.ts';
import type { Attachment } from '../engine/container-spec.ts';
import type { Engine, EngineNetworkRequest } from '../engine/engine.ts';
import type { WireNetwork, WireTask } from '../wire.ts';
import type { DesiredNetwork, ReadyNetwork } from './desired.ts';
import {
  attachedNetwork,
  bridgesOf,
  endsOf,
  engineNetwork,
  isClusterNetwork,
  isOverlay,
  networkIdsOf,
  outdatedNetworks,
  overlayEnd,
  overlayEngineNetwork,
  refuseDockersOverlay,
  remnantDetail,
  remnantIn,
  unusedNetworks,
  wantedAttachment,
} from './plan.ts';

/** The next task of the same service is often seconds away; making a network takes a tenth of one. */
const lingerMs = 5_000;
const rememberMs = 60_000;
const maxNameAttempts = 3;

/** The data plane, as far as a task's attachment needs it. */
export interface OverlayNetworks {
  network(id: string): Promise<ReadyNetwork>;
  /** Makes what the engine says that it lacks of the host's firewall. Whether it may be asked again. */
  mendEngine(words: string): Promise<boolean>;
  /** Resolves once the programs of process `pid` have taken the connections that came to them, or took too long to. */
  backlogTaken(pid: number): Promise<void>;
}

interface Known {
  readonly name: string;
  readonly atMs: number;
}

export class Networks {
  readonly #engine: Engine;
  readonly #clock: Clock;
  readonly #log: Log;
  /** Task id → ids of the cluster networks it uses. */
  readonly #uses = new Map<string, readonly string[]>();
  /** Task id → where it asks for names from, as `network id/address`, and the servers that its service names. */
  readonly #nameservers = new Map<
    string,
    { readonly ends: readonly string[]; readonly servers: readonly string[] }
  >();
  #onNameservers: (servers: ReadonlyMap<string, readonly string[]>) => void = () => {};
  readonly #known = new Map<string, Known>();
  readonly #making = new Map<string, Promise<string>>();
  #prune: Timer | undefined;
  #isStopped = false;
  #managers: ManagerKind = 'shoal';
  #dataPlane: OverlayNetworks | undefined;
  /** Ids of the networks that the data plane holds. */
  #overlays: ReadonlySet<string> = new Set();

  constructor(engine: Engine, clock: Clock, log: Log) {
    this.#engine = engine;
    this.#clock = clock;
    this.#log = log;
  }

  /** Networks between hosts are `dataPlane`'s from now on. */
  useDataPlane(dataPlane: OverlayNetworks): void {
    this.#dataPlane = dataPlane;
  }

  /** Whose networks the tasks that come from now on are attached to. */
  managersAre(kind: ManagerKind): void {
    this.#managers = kind;
  }

  /**
   * Makes what `task` needs and says how its container is to be attached. Throws 'not-supported' for an overlay
   * network of Docker Engines.
   */
  async attach(task: WireTask): Promise<Attachment> {
    if (this.#managers === 'docker') refuseDockersOverlay(task);
    const wanted = wantedAttachment(task);
    if (wanted.kind === 'mode') return wanted;
    this.adopt(task);
    const networks = await Promise.all(
      wanted.attachments.map(async (attachment) => {
        const network = attachment.network!;
        if (this.#dataPlane !== undefined && isOverlay(network)) {
          return overlayEnd(attachment, await this.#dataPlane.network(network.id ?? ''));
        }
        const name = isClusterNetwork(network)
          ? await this.#ensure(network)
          : (network.spec?.annotations?.name ?? network.id ?? '');
        return attachedNetwork(task, attachment, name);
      }),
    );
    return { kind: 'networks', networks };
  }

  /** Notes that `task`, which has its container already, uses its networks. */
  adopt(task: WireTask): void {
    this.#uses.set(task.id ?? '', networkIdsOf(task));
    const servers = task.spec?.container?.dns_config?.nameservers ?? [];
    if (servers.length === 0) return;
    this.#nameservers.set(task.id ?? '', { ends: endsOf(task), servers });
    this.#tellNameservers();
  }

  /** Hears, once something of it changes, which DNS servers services name (`--dns`), by `network id/address` of their tasks. */
  onNameservers(listener: (servers: ReadonlyMap<string, readonly string[]>) => void): void {
    this.#onNameservers = listener;
  }

  #tellNameservers(): void {
    const all = [...this.#nameservers.values()];
    this.#onNameservers(new Map(all.flatMap(({ ends, servers }) => ends.map((end) => [end, servers]))));
  }

  /** Notes that the task's container is gone. */
  release(taskId: string): void {
    const used = this.#uses.get(taskId);
    this.#uses.delete(taskId);
    if (this.#nameservers.delete(taskId)) this.#tellNameservers();
    if (used !== undefined && used.length > 0) this.pruneSoon();
  }

  /** A network turned out to be missing: what is known of the engine's networks is looked up anew. */
  forget(): void {
    this.#known.clear();
  }

  /** The engine could not start a container, in these words. Whether what it lacked is there now: it may be asked again. */
  async mend(words: string): Promise<boolean> {
    return (await this.#dataPlane?.mendEngine(words)) ?? false;
  }

  /**
   * The task of process `pid` is to stop and gets no new connections: resolves once it has taken those that came before,
   * or took too long to. At once where this node has no networks between hosts, or the task is on none.
   */
  async backlogTaken(taskId: string, pid: number): Promise<void> {
    if (pid > 0 && (this.#uses.get(taskId)?.length ?? 0) > 0) await this.#dataPlane?.backlogTaken(pid);
  }

  /** Removes, after a while, what no task here uses; the engine keeps what others' containers use. */
  pruneSoon(): void {
    if (this.#isStopped) return;
    this.#prune ??= this.#clock.after(lingerMs, () => {
      this.#prune = undefined;
      void this.prune();
    });
  }

  /** Removes now what no task here uses. Failures are logged: the next release tries again. */
  async prune(): Promise<void> {
    try {
      const ours = (await this.#engine.listNetworks({})).filter(
        ({ labels }) => labels[networkIdLabel] !== undefined,
      );
      for (const name of unusedNetworks(ours, this.#usedIds())) {
        const id = ours.find((network) => network.name === name)?.labels[networkIdLabel] ?? '';
        if (this.#making.has(id) || this.#usedIds().has(id)) continue;
        this.#known.delete(id);
        if (await this.#engine.removeNetwork(name)) this.#log.info({ network: name }, 'network removed');
      }
    } catch (error) {
      this.#log.warn({ reason: messageOf(error) }, 'unused networks could not be removed');
    }
  }

  /**
   * Makes sure of the engine's network for an overlay; resolves with its name. Throws 'conflict' while containers hold
   * on to one that was made when this node had other addresses, and when the engine remembers the bridge of a network that
   * it has not got; the details' `remnant` is that bridge then.
   */
  async ensureOverlay(network: DesiredNetwork): Promise<string> {
    const existing = await this.#engine.listNetworks({});
    const request = overlayEngineNetwork(network, existing);
    for (const name of outdatedNetworks(network, request, existing)) {
      if (await this.#engine.removeNetwork(name)) continue;
      throw new ShoalError(
        'conflict',
        `the engine's network ${name} is of an earlier life and containers still use it: remove them`,
      );
    }
    await this.#engine.ensureNetwork(request).catch((error: unknown) => {
      const remnant = remnantIn(messageOf(error), existing);
      if (remnant === undefined) throw error;
      throw new ShoalError('conflict', messageOf(error), { details: { [remnantDetail]: remnant } });
    });
    return request.name;
  }

  /**
   * The overlays that are to stay; the engine's networks of others go when no container uses them. Resolves with the
   * bridges of those that it has then.
   */
  async pruneOverlays(ids: ReadonlySet<string>): Promise<ReadonlySet<string>> {
    const gone = [...this.#overlays].some((id) => !ids.has(id));
    this.#overlays = ids;
    if (gone) await this.prune();
    return bridgesOf(await this.#engine.listNetworks({}));
  }

  /** No more pruning; the networks stay. */
  stop(): void {
    this.#isStopped = true;
    this.#prune?.cancel();
  }

  #usedIds(): Set<string> {
    return new Set([...this.#uses.values(), ...this.#overlays].flat());
  }

  #ensure(network: WireNetwork): Promise<string> {
    const id = network.id ?? '';
    const known = this.#known.get(id);
    if (known !== undefined && this.#clock.monotonicMs() - known.atMs < rememberMs) {
      return Promise.resolve(known.name);
    }
    let making = this.#making.get(id);
    if (making === undefined) {
      making = this.#make(network).finally(() => this.#making.delete(id));
      this.#making.set(id, making);
    }
    return making;
  }

  async #make(network: WireNetwork): Promise<string> {
    for (let attempt = 1; ; attempt += 1) {
      const request: EngineNetworkRequest = engineNetwork(network, await this.#engine.listNetworks({}));
      try {
        await this.#engine.ensureNetwork(request);
        this.#known.set(network.id ?? '', { name: request.name, atMs: this.#clock.monotonicMs() });
        return request.name;
      } catch (error) {
        // The name was taken between looking and making: look again, then the id tells them apart.
        if (attempt >= maxNameAttempts || !isShoalError(error, 'already-exists')) throw error;
      }
    }
  }
}
