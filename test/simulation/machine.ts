/**
 * One machine of a simulated cluster: its engine and its disk, which outlive what runs on it, and the agent and the
 * manager that run, each a process of its own that can be killed and started again.
 */
import { Agent } from '../../agent/agent.ts';
import type { ContainerRequest } from '../../agent/engine/engine.ts';
import { SimulatedEngine, type SimulatedEngineOptions } from '../../agent/engine/simulated.ts';
import { AgentIdentity, type HeldIdentity } from '../../agent/identity.ts';
import { MemoryJournal } from '../../agent/journal.ts';
import { RememberedFiles } from '../../agent/secrets.ts';
import { Manager, type ManagerOptions } from '../../manager/manager.ts';
import type { Disk, RaftStart } from '../../manager/raft/contract.ts';
import { segmentNumber } from '../../manager/raft/segment.ts';
import type { Change } from '../../manager/store/change.ts';
import { isShoalError, ShoalError } from '../../proto/errors.ts';
import type { NodeId } from '../../proto/ids.ts';
import { type Clock, delay, silentLog } from '../../proto/ports.ts';
import type { NodeIdentity } from '../../proto/rpc.ts';
import { testKeys } from '../manager/raft/log-fixture.ts';
import { identityCalls, MemoryFiles, simulatedAuthority } from './certificates.ts';
import { SimulatedDisk } from './disk.ts';
import type { Endpoint } from './network.ts';
import { diskOf, engineOf, SimulatedProcess } from './process.ts';
import { seededRandom } from './random.ts';
import type { Surroundings } from './surroundings.ts';
import { WatchedStore } from './watched-store.ts';
import { dispatcherOver, hostOf, type Places, raftTransport } from './wires.ts';

export interface RunningManager extends Endpoint {
  readonly manager: Manager;
}

interface RunningAgent extends Endpoint {
  readonly agent: Agent;
}

/** What is drawn for the managers of a run. */
export type Tuning = NonNullable<ManagerOptions['tuning']>;

/** An engine that tells when a container is made, and when it is started. */
class WatchedEngine extends SimulatedEngine {
  readonly #onCreate: (request: ContainerRequest, id: string) => void;
  readonly #onStart: (id: string) => void;
  readonly #clock: Clock;

  constructor(
    options: SimulatedEngineOptions,
    onCreate: (request: ContainerRequest, id: string) => void,
    onStart: (id: string) => void,
  ) {
    super(options);
    this.#clock = options.clock;
    this.#onCreate = onCreate;
    this.#onStart = onStart;
  }

  /** How much longer it takes to pull, make and start what is asked for from now on. */
  sluggishMs = 0;

  override async pull(image: string, registryAuth: string | undefined, signal: AbortSignal): Promise<void> {
    await this.#beSluggish();
    return super.pull(image, registryAuth, signal);
  }

  async #beSluggish(): Promise<void> {
    if (this.sluggishMs > 0) await delay(this.#clock, this.sluggishMs);
  }

  override async start(containerId: string): Promise<void> {
    await this.#beSluggish();
    await super.start(containerId);
    this.#onStart(containerId);
  }

  override async create(request: ContainerRequest): Promise<{ readonly id: string }> {
    await this.#beSluggish();
    const created = await super.create(request);
    this.#onCreate(request, created.id);
    return created;
  }
}

export class Machine {
  readonly name: string;
  /** Another one after it left and joined anew. */
  nodeId: NodeId;
  readonly address: string;
  readonly engine: WatchedEngine;
  readonly disk: SimulatedDisk;
  /** How far the wall clock is off. */
  skewMs = 0;
  manager: RunningManager | undefined;
  agent: RunningAgent | undefined;
  /** A manager was here and its log is on the disk. */
  hasLog = false;
  /** A manager has run on this log. */
  #hasRun = false;
  /** Why the manager that ran here cannot go on. */
  failure: unknown;
  /** Set while it is to stay down. */
  isOff = false;
  /** A bit of what its manager wrote was flipped since that last ran, in words. */
  damage: string | undefined;
  /** The damage is such that the manager must not start on it. */
  isDamageCertain = false;
  /** Why the managers would not have its node back. */
  shutOut: string | undefined;
  /** What is shown to others: the node's certificate and key. */
  shown: NodeIdentity | undefined;
  #managerProcess: SimulatedProcess | undefined;
  readonly #around: Surroundings;
  readonly #journal = new MemoryJournal();
  readonly #files = new RememberedFiles();
  readonly #certificates = new MemoryFiles();
  #keys = 0;
  #starts = 0;

  constructor(number: number, around: Surroundings) {
    this.name = `m${number}`;
    this.nodeId = `node${String(number).padStart(21, '0')}` as NodeId;
    this.address = `${hostOf(this.name)}:2377`;
    this.#around = around;
    const random = seededRandom(around.seed * 64 + number);
    const { clock } = around;
    this.disk = new SimulatedDisk({
      clock,
      flushMs: around.flushMs,
      isQuick: () => random.float() < 0.3,
      tear: () => (random.float() < 0.3 ? 1 : random.float()),
    });
    this.engine = new WatchedEngine(
      {
        clock,
        random,
        engineId: 'engine-of-all',
        hostname: this.name,
        startMs: [5, 80],
        pullMs: [1, 60],
        stopMs: [1, 120],
      },
      (request, id) => around.invariants.containerMade(this, request, id),
      (id) => around.invariants.containerStarted(this, id),
    );
  }

  get isManagerRunning(): boolean {
    return this.#managerProcess?.isAlive === true;
  }

  /** Starts the manager. Resolves when it runs; when it is killed before, never. */
  async startManager(places: Places, start: RaftStart, firstChanges?: readonly Change[]): Promise<void> {
    const { clock, invariants, plant, tuning, seed } = this.#around;
    const process = new SimulatedProcess(clock, () => this.skewMs);
    this.#managerProcess = process;
    this.#starts += 1;
    this.hasLog = true;
    this.failure = undefined;
    const self: Endpoint = { machine: this.name, process };
    const transport = raftTransport(places, self, () => this.manager);
    const random = seededRandom((seed * 64 + Number(this.name.slice(1))) * 1024 + this.#starts);
    const disk = diskOf(process, this.#rawDisk());
    const starting = process.hold(
      Manager.start({
        nodeId: this.nodeId,
        start,
        ...(firstChanges ? { firstChanges } : {}),
        disk,
        dataKeys: testKeys,
        transport: plant?.transport?.(transport, this) ?? transport,
        clock: process,
        random,
        log: silentLog,
        store: new WatchedStore(this.name, invariants, plant?.isStoreBlind === true),
        ...(plant?.decide ? { decide: plant.decide } : {}),
        tuning,
        authority: plant?.authority?.(simulatedAuthority) ?? simulatedAuthority,
        onFailure: (error) => {
          if (!process.isAlive) return;
          this.failure = error;
          invariants.managerFailed(this, error);
        },
      }),
    );
    const manager = await starting.catch((error: unknown) => {
      // It was killed while it joined, before anything of its log was durable: it joins anew, as the daemon does.
      const isToJoin = isShoalError(error, 'failed-precondition') && error.details.reason === 'no-log';
      if (!isToJoin || this.#hasRun) throw error;
      this.killManager();
      this.hasLog = false;
    });
    if (manager === undefined) return;
    this.#hasRun = true;
    this.manager = { machine: this.name, process, manager };
    const watch = (): void => invariants.raftMoved(this.name, manager.raft.status());
    manager.raft.onChange(watch);
    watch();
  }

  #disk: Disk | undefined;

  #rawDisk(): Disk {
    this.#disk ??= this.#around.plant?.disk?.(this.disk, this.#around) ?? this.disk;
    return this.#disk;
  }

  /** kill -9 of the manager: what was not flushed is lost, or torn. */
  killManager(): void {
    this.#managerProcess?.kill();
    this.#managerProcess = undefined;
    this.manager = undefined;
    this.disk.crash();
  }

  /**
   * Flips a bit of a file that the manager wrote, by two draws in [0, 1); it must not run. The last record of a log is
   * spared: damage there cannot be told from a write that was cut short.
   */
  async flipBit(whichFile: number, where: number): Promise<void> {
    const names = (await this.disk.list()).filter((name) => this.#sparedUntil(name) > 0);
    const name = names[Math.floor(whichFile * names.length)];
    if (name === undefined) return;
    const at = Math.floor(where * this.#sparedUntil(name));
    this.disk.flipBit(name, at, at % 8);
    this.damage = `bit ${at % 8} of byte ${at} of ${name} flipped`;
    this.isDamageCertain ||= isLog(name);
  }

  #sparedUntil(name: string): number {
    return isLog(name) ? this.disk.lastStartOf(name) : this.disk.contents(name).length;
  }

  /** The manager is a member no more: what it kept goes. */
  async wipe(): Promise<void> {
    this.killManager();
    for (const name of await this.disk.list()) await this.disk.remove(name);
    this.hasLog = false;
    this.#hasRun = false;
    this.damage = undefined;
    this.isDamageCertain = false;
  }

  async startAgent(places: Places, managers: readonly string[]): Promise<void> {
    const { clock, seed } = this.#around;
    const process = new SimulatedProcess(clock, () => this.skewMs);
    const self: Endpoint = { machine: this.name, process };
    this.#starts += 1;
    this.shutOut = undefined;
    const random = seededRandom((seed * 64 + Number(this.name.slice(1))) * 1024 + 512 + this.#starts);
    const addresses = (): string[] => {
      const manager = this.manager?.manager;
      const leader = manager?.leaderMember()?.address;
      const members = manager?.managerAddresses().map(({ Addr }) => Addr) ?? [];
      const heard = this.agent?.agent.managerAddresses ?? managers;
      return [...new Set([...(leader ? [leader] : []), ...heard, ...members])];
    };
    const identity = new AgentIdentity({
      directory: '/nowhere',
      clock: process,
      random,
      log: silentLog,
      version: 'simulated',
      managers: addresses,
      issueToSelf: () => this.#issueToSelf(process),
      files: this.#certificates,
      calls: identityCalls(places, { ...self, clock: process }, () => this.newKey()),
      onShutOut: (error) => {
        this.shutOut = error.message;
        // As the daemon does: it waits for someone to make it leave and join.
        this.killManager();
      },
    });
    const show = (held: HeldIdentity | undefined): void => {
      if (process.isAlive) this.shown = held?.identity;
    };
    show(await process.hold(identity.load()));
    identity.onChange(show);
    const agent = new Agent({
      identity: {
        current: () => identity.current(),
        tlsInfo: () => undefined,
        onChange: (listener) => identity.onChange(listener),
        notTaken: () => identity.notTaken(),
      },
      engine: engineOf(process, this.#around.plant?.engine?.(this.engine) ?? this.engine),
      clock: process,
      random,
      log: silentLog,
      hostname: this.name,
      managers,
      dataDir: '/nowhere',
      runDir: '/nowhere',
      connect: dispatcherOver(places, self, this.nodeId),
      journal: this.#journal,
      files: this.#files,
    });
    this.agent = { machine: this.name, process, agent };
    identity.startRenewing();
    await process.hold(agent.start());
  }

  /**
   * The daemon's agent asks the manager in its own process; here that may die alone. An agent that lives on without it
   * must not take what the others say for final, for as a daemon it would have asked them with its manager only.
   */
  #issueToSelf(process: SimulatedProcess): Promise<NodeIdentity | undefined> {
    const running = this.manager;
    if (running === undefined) {
      return this.hasLog
        ? Promise.reject(new ShoalError('unavailable', 'the manager is dead'))
        : Promise.resolve(undefined);
    }
    return process.hold(
      new Promise((resolve, reject) => {
        running.process.onDeath(() => reject(new ShoalError('unavailable', 'the manager died')));
        running.manager.issueToSelf().then(resolve, reject);
      }),
    );
  }

  /** A key that no other has. */
  newKey(): string {
    this.#keys += 1;
    return `key ${this.#keys} of ${this.name}`;
  }

  /** From now on the machine is the node that its certificate names; whatever ran as another does not any more. */
  become(identity: NodeIdentity): void {
    this.agent?.process.kill();
    this.agent = undefined;
    this.shutOut = undefined;
    this.shown = identity;
    this.nodeId = simulatedAuthority.read(identity.certificatePem).nodeId;
    void this.#certificates.write(identity);
  }

  /** Why its agent is no node of the cluster any more, as it was told; undefined while it is one. */
  toldOut(): string | undefined {
    if (this.agent === undefined || this.shutOut !== undefined) return this.agent && this.shutOut;
    const { session } = this.agent.agent;
    const isTold = session.kind === 'connecting' && /removed from the cluster/.test(session.reason);
    return isTold ? session.reason : undefined;
  }

  /** kill -9 of the agent; containers run on. `forgets`: some of its journal had not reached the disk. */
  killAgent(forgets: (taskId: string) => boolean): void {
    this.agent?.process.kill();
    this.agent = undefined;
    for (const taskId of [...this.#journal.tasks.keys()]) if (forgets(taskId)) this.#journal.drop(taskId);
  }

  pause(): void {
    this.#managerProcess?.pause();
    this.agent?.process.pause();
  }

  resume(): void {
    this.#managerProcess?.resume();
    this.agent?.process.resume();
  }
}

function isLog(name: string): boolean {
  return segmentNumber(name) !== undefined;
}
