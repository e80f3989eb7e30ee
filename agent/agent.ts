/**
 * The agent: what a node does. In: its identity, its engine, where managers are. Out: containers, networks and files
 * for the tasks that the managers assign, and reports of how they are. Stopping the agent touches no container;
 * only leaving does. It knows no manager's code: a manager on the same machine is one more address.
 */
import { join } from 'node:path';
import type { GenericResource, TLSInfo } from '../proto/docker.ts';
import { messageOf, ShoalError } from '../proto/errors.ts';
import type { Clock, Log, Random, Timer } from '../proto/ports.ts';
import type { NodeIdentity } from '../proto/rpc.ts';
import { packageVersion } from '../proto/version.ts';
import { type ConnectDispatcher, grpcDispatcher } from './dispatcher-client.ts';
import type { NodeForTasks } from './engine/container-spec.ts';
import type { Engine, EngineDescription, EngineEvent } from './engine/engine.ts';
import { ExecRunner } from './exec.ts';
import { grpcExecDial } from './exec-client.ts';
import { FileJournal, type Journal } from './journal.ts';
import { LogForwarder } from './logs.ts';
import { Attachments, type ContainerNetwork, holdsContainers } from './network/attachments.ts';
import { DataPlane, type DataPlaneOptions } from './network/data-plane.ts';
import { DnsServer } from './network/dns.ts';
import type { Kernel } from './network/kernel.ts';
import { NameProcess } from './network/name-process.ts';
import { ProxyPlane } from './network/proxy-plane.ts';
import { EndpointsWatch } from './network/watch.ts';
import { Remotes } from './remotes.ts';
import { Reporter } from './reporter.ts';
import { httpScrape } from './scrape.ts';
import { MemoryFolder, type TaskFiles } from './secrets.ts';
import { Session, type SessionState } from './session.ts';
import { UsageMeter } from './usage.ts';
import { describeNode, type WireDescription, type WireSessionMessage, wireTlsInfo } from './wire.ts';
import { Worker } from './worker.ts';

const describeAgainMs = 30_000;
const describeTimeoutMs = 3_000;
/** An engine that restarts is away for about a second: not worth telling the managers. */
const tellUnavailableMs = 3_000;
const leaveTimeoutMs = 60_000;
/** An end is not held up for longer by an engine that does not answer. */
const stopLookMs = 2_000;

/** Who this node is, by its certificate; identity.ts is one. */
export interface IdentityProvider {
  /** Undefined while the node has no certificate: the agent is not to be started then. */
  current():
    | { readonly identity: NodeIdentity; readonly certificate: { readonly nodeId: string } }
    | undefined;
  /** What `docker node inspect` shows of the certificate's issuer. */
  tlsInfo(): TLSInfo | undefined;
  /** Calls `listener` when the certificate or the roots are others; the answer takes it off again. */
  onChange(listener: () => void): () => void;
  /** A manager did not take the certificate. */
  notTaken?(): void;
}

export interface AgentOptions {
  readonly identity: IdentityProvider;
  readonly engine: Engine;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly hostname: string;
  /** Address of the traffic of networks; absent where it is the node's own. */
  readonly dataPathAddress?: string | undefined;
  /** host:port of managers to begin with; those of the journal come on top. */
  readonly managers: readonly string[];
  /** Folders of the daemon: the journal goes to <dataDir>/agent, files of tasks to <runDir>/files (in memory). */
  readonly dataDir: string;
  readonly runDir: string;
  /** Generic resources of the node; of a kind that the engine tells of too, these count. */
  readonly genericResources?: readonly GenericResource[];
  /** Networks between hosts; absent: none. */
  readonly dataPlane?: {
    readonly kernel: Kernel;
    /** This node's address that vxlan packets come from; empty: the host's own choice. */
    readonly local: string;
    readonly encryption?: DataPlaneOptions['encryption'];
    /** Why it can't encrypt; absent where it can. */
    readonly encryptionMissing?: string | undefined;
    /** The program that answers names while this process is away; absent: this process answers them. */
    readonly namesProgram?: readonly string[];
    /** What works otherwise than on other hosts for want of br_netfilter, in words; undefined where it is there. */
    readonly limits?: string | undefined;
  };
  /** Hears how long each update of networks took from its arrival until its rules stood. */
  readonly onProgrammed?: (tookMs: number) => void;
  /** Why this node has none; absent where it has, or nobody asked for it. */
  readonly dataPlaneMissing?: string | undefined;
  /** In their place published ports are answered by a proxy: what that does otherwise, in words. */
  readonly proxy?: { readonly limits: string };
  /** In place of gRPC, the journal on disk and the files in memory. */
  readonly connect?: ConnectDispatcher;
  readonly journal?: Journal;
  readonly files?: TaskFiles;
}

export class Agent {
  readonly #options: AgentOptions;
  readonly #log: Log;
  readonly #journal: Journal;
  readonly #files: TaskFiles;
  readonly #remotes: Remotes;
  readonly #worker: Worker;
  readonly #session: Session;
  readonly #execs: ExecRunner;
  readonly #dataPlane: DataPlane | ProxyPlane | undefined;
  #attachments: Attachments | undefined;
  readonly #listeners = new Set<(message: WireSessionMessage) => void>();
  #engine: EngineDescription | undefined;
  #unavailableBecause: string | undefined;
  #told = '';
  #timers = new Set<Timer>();
  #tellUnavailable: Timer | undefined;
  #offIdentity: () => void = () => {};
  #isRunning = false;
  #nodeId = '';
  #lastMessage: WireSessionMessage | undefined;

  constructor(options: AgentOptions) {
    const { clock, random, log, engine } = options;
    this.#options = options;
    this.#log = log;
    this.#journal = options.journal ?? new FileJournal(join(options.dataDir, 'agent'), log);
    this.#files = options.files ?? new MemoryFolder(join(options.runDir, 'files'));
    this.#remotes = new Remotes(random, options.managers);
    const nodeId = (): string => this.#nodeId;
    const reporter = new Reporter(clock, log, nodeId);
    const worker = new Worker({
      engine,
      clock,
      log,
      journal: this.#journal,
      files: this.#files,
      reporter,
      node: () => this.#node(),
      onEngineEvent: (event) => this.#onEngineEvent(event),
    });
    this.#worker = worker;
    const dataPlane = this.#makeDataPlane() ?? this.#makeProxy();
    this.#dataPlane = dataPlane;
    const logs = new LogForwarder({
      engine,
      clock,
      log,
      nodeId,
      tasks: () => worker.tasks(),
      onTasks: (listener) => worker.onTasks(listener),
    });
    const tasks = () => worker.tasks();
    this.#execs = new ExecRunner({
      execs: engine.execs,
      dial: grpcExecDial(() => this.#held().identity),
      clock,
      log,
      tasks,
    });
    this.#session = new Session({
      connect: options.connect ?? grpcDispatcher(clock),
      identity: () => this.#held().identity,
      description: () => this.#describe(),
      clock,
      random,
      log,
      remotes: this.#remotes,
      worker,
      reporter,
      logs,
      listeners: [
        this.#execs,
        new UsageMeter({ meter: engine.meter, scrape: httpScrape(clock), clock, log, tasks }),
        ...(dataPlane === undefined ? [] : [new EndpointsWatch(dataPlane, clock, log)]),
      ],
      onMessage: (message) => this.#onMessage(message),
      onManagers: (managers) => this.#journal.putManagers(managers),
      onNotTaken: () => options.identity.notTaken?.(),
    });
  }

  /**
   * Takes up what was running and opens a session; resolves when that is under way. Throws `failed-precondition`
   * when the node has no certificate.
   */
  async start(): Promise<void> {
    this.#nodeId = this.#held().certificate.nodeId;
    this.#isRunning = true;
    const { tasks, managers, heard } = await this.#journal.load();
    this.#remotes.replace([
      ...managers,
      ...this.#remotes.list().filter(({ address }) => !managers.some((known) => known.address === address)),
    ]);
    // Names are answered and rules stand, whatever the engine is busy with.
    await this.#dataPlane?.start();
    this.#attachments?.start();
    await this.#lookAtEngine();
    if (!this.#isRunning) return;
    this.#worker.start(tasks, heard);
    this.#offIdentity = this.#options.identity.onChange(() => this.#session.reopen());
    this.#session.start();
    this.#lookAgain();
  }

  /** Ends the session. Containers go on running. */
  async stop(): Promise<void> {
    this.#isRunning = false;
    this.#offIdentity();
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
    this.#tellUnavailable?.cancel();
    this.#session.stop();
    this.#execs.stop();
    this.#worker.stop();
    this.#attachments?.stop();
    await this.#dataPlane?.stop();
    await this.#journal.flush();
  }

  /**
   * Leaves the cluster: ends the node's tasks, removes their containers, networks and files and forgets them.
   * Resolves after a minute even when the engine does not answer, with what the host is left with all the same, in words.
   */
  async leave(): Promise<string[]> {
    this.#session.stop();
    const left = await this.#within(
      leaveTimeoutMs,
      this.#worker.leave().then(() => true),
    );
    const leftovers: string[] = [];
    if (left !== true) leftovers.push('containers of this node are left: the engine does not answer');
    leftovers.push(...((await this.#dataPlane?.leave()) ?? []));
    await this.stop();
    await this.#journal.clear();
    await this.#files
      .clear()
      .catch((error: unknown) => leftovers.push(`files of tasks are left: ${messageOf(error)}`));
    if (leftovers.length > 0) this.#log.error({ leftovers }, 'something of this node is left on its host');
    return leftovers;
  }

  /** How the session with the managers stands. */
  get session(): SessionState {
    return this.#session.state;
  }

  /** Networks between hosts, to be looked at; undefined where there are none. */
  get dataPlane(): Pick<DataPlane, 'figures' | 'kernelFigures'> | undefined {
    return this.#dataPlane;
  }

  /** Addresses of the managers, as last heard of. */
  get managers(): readonly { readonly nodeId: string; readonly address: string }[] {
    return this.#remotes.list();
  }

  /** Whom to ask when nothing else is known of the managers: also those that were hinted at, or were managers once. */
  get managerAddresses(): readonly string[] {
    return this.#remotes.addresses();
  }

  /** What the engine said of itself last; undefined when it never answered. */
  get engineDescription(): EngineDescription | undefined {
    return this.#engine;
  }

  /**
   * Calls `listener` with every session message: the node as the managers see it (its wanted role, its
   * availability, whether its certificate is to be renewed), the managers, the root certificate. The last one, if
   * there was one, comes at once. The answer takes the listener off again.
   */
  onSessionMessage(listener: (message: WireSessionMessage) => void): () => void {
    this.#listeners.add(listener);
    if (this.#lastMessage !== undefined) listener(this.#lastMessage);
    return () => this.#listeners.delete(listener);
  }

  /** The manager in this process knows who leads (host:port). */
  leaderHint(address: string): void {
    this.#session.leaderHint(address);
  }

  /**
   * A network of the cluster (id or name) for a container of this node's engine that is no task; others find it by
   * `names`. Errors: see Attachments.attach; 'failed-precondition' where this node has no networks between hosts.
   */
  attachContainer(network: string, names: readonly string[]): Promise<ContainerNetwork> {
    if (this.#attachments !== undefined) return this.#attachments.attach(network, names);
    const reason = this.#options.dataPlaneMissing ?? 'its engine is a simulated one';
    return Promise.reject(
      new ShoalError(
        'failed-precondition',
        `a container of this node can't join network ${network}: it has no networks between hosts (${reason})`,
      ),
    );
  }

  #makeDataPlane(): DataPlane | undefined {
    const { dataPlane, clock, random, log, dataDir, runDir, engine, onProgrammed } = this.#options;
    if (dataPlane === undefined) return undefined;
    const { networks } = this.#worker;
    const folder = join(dataDir, 'agent');
    const addressesInUse = async () => (await engine.addressesInUse?.()) ?? new Set<string>();
    const attachments = new Attachments({
      clock,
      random,
      log,
      ready: (id) => made.network(id),
      onChange: () => made.onAttachments(),
      addressesInUse,
    });
    const nodeId = (): string => this.#nodeId;
    const { namesProgram: program } = dataPlane;
    const names =
      program === undefined
        ? new DnsServer({ clock, log })
        : new NameProcess({
            ...{ program, clock, log, folder: runDir, version: packageVersion() },
            onLost: () => made.onNamesLost(),
          });
    networks.onNameservers((servers) => names.useServers(servers));
    const made: DataPlane = new DataPlane({
      ...dataPlane,
      lacksBridgeFilter: dataPlane.limits !== undefined,
      ...{ networks, clock, log, folder, nodeId, attachments, onProgrammed, names },
      hasContainers: async (desired) =>
        (await this.#within(stopLookMs, holdsContainers(desired, addressesInUse))) ?? true,
    });
    networks.useDataPlane(made);
    this.#attachments = attachments;
    return made;
  }

  #makeProxy(): ProxyPlane | undefined {
    const { proxy, clock, log, dataDir, onProgrammed } = this.#options;
    if (proxy === undefined) return undefined;
    const nodeId = (): string => this.#nodeId;
    return new ProxyPlane({ clock, log, folder: join(dataDir, 'agent'), nodeId, onProgrammed });
  }

  #held() {
    const held = this.#options.identity.current();
    if (held !== undefined) return held;
    throw new ShoalError('failed-precondition', 'this node has no certificate: it is not part of a cluster');
  }

  #node(): NodeForTasks {
    return {
      id: this.#nodeId,
      hostname: this.#options.hostname,
      architecture: this.#engine?.platform.Architecture ?? '',
      os: this.#engine?.platform.OS ?? '',
      hasProxy: this.#options.proxy !== undefined,
    };
  }

  #describe(): WireDescription {
    const { hostname, identity, genericResources, dataPathAddress } = this.#options;
    const description = describeNode({
      hostname,
      dataPathAddress,
      dataPlane: this.#options.proxy ? 'proxy' : this.#dataPlane && 'vxlan',
      dataPlaneMissing: this.#options.dataPlaneMissing,
      encryption: this.#options.dataPlane?.encryption?.kind,
      encryptionMissing: this.#options.dataPlane?.encryptionMissing,
      dataPlaneLimits: this.#options.dataPlane?.limits ?? this.#options.proxy?.limits,
      engine: this.#engine,
      unavailableBecause: this.#unavailableBecause,
      genericResources: genericResources ?? [],
    });
    const tlsInfo = identity.tlsInfo();
    const whole: WireDescription = {
      ...description,
      ...(tlsInfo && { tls_info: wireTlsInfo(tlsInfo) }),
    };
    this.#told = JSON.stringify(whole);
    return whole;
  }

  #onMessage(message: WireSessionMessage): void {
    this.#lastMessage = message;
    for (const listener of [...this.#listeners]) listener(message);
  }

  #onEngineEvent(event: EngineEvent): void {
    if (event.kind === 'engine-back' || (event.kind === 'container' && event.action === 'start')) {
      this.#dataPlane?.onEngine();
    }
    if (event.kind === 'engine-back') {
      this.#tellUnavailable?.cancel();
      this.#tellUnavailable = undefined;
      void this.#lookAtEngine().then(() => this.#tellChanges());
    } else if (event.kind === 'engine-lost') {
      this.#tellUnavailable ??= this.#options.clock.after(tellUnavailableMs, () => {
        this.#tellUnavailable = undefined;
        this.#unavailableBecause = event.reason;
        this.#tellChanges();
      });
    }
  }

  /** Opens the session anew when the node is not what was told last. */
  #tellChanges(): void {
    const before = this.#told;
    this.#describe();
    if (this.#isRunning && this.#told !== before) this.#session.reopen();
  }

  async #lookAtEngine(): Promise<void> {
    try {
      const description = await this.#within(describeTimeoutMs, this.#options.engine.describe());
      if (description === undefined) throw new Error('the engine does not answer');
      this.#engine = description;
      this.#unavailableBecause = undefined;
    } catch (error) {
      this.#unavailableBecause ??= this.#engine === undefined ? messageOf(error) : undefined;
      this.#log.warn({ reason: messageOf(error) }, 'the container engine cannot be described');
    }
  }

  #lookAgain(): void {
    const timer = this.#options.clock.after(describeAgainMs, () => {
      this.#timers.delete(timer);
      void this.#lookAtEngine().then(() => {
        if (!this.#isRunning) return;
        this.#tellChanges();
        this.#lookAgain();
      });
    });
    this.#timers.add(timer);
  }

  /** The outcome of `work`, or undefined when it takes longer. */
  #within<T>(boundMs: number, work: Promise<T>): Promise<T | undefined> {
    return new Promise((resolve, reject) => {
      const timer = this.#options.clock.after(boundMs, () => resolve(undefined));
      work.then(resolve, reject).finally(() => timer.cancel());
    });
  }
}
