/**
 * A whole cluster in one process: machines with managers and agents, the network between them, on virtual time and
 * from one seed. It starts and tends what runs, as the daemon does; what goes wrong, and what users ask for, comes
 * from faults.ts and workload.ts.
 */
import { type Manager, newRaftId } from '../../manager/manager.ts';
import type { Member, RaftStart } from '../../manager/raft/contract.ts';
import { type Change, newMeta } from '../../manager/store/change.ts';
import type { ClusterNode, Config } from '../../proto/docker.ts';
import { isShoalError, messageOf, ShoalError } from '../../proto/errors.ts';
import type { ConfigId } from '../../proto/ids.ts';
import { emptyDescription } from '../manager/dispatcher/cluster.ts';
import { placeOldFormat } from '../manager/formats/formats.ts';
import { makeCluster } from '../manager/orchestrator/objects.ts';
import { refuseClient } from './certificates.ts';
import { VirtualClock } from './clock.ts';
import { Invariants } from './invariants.ts';
import { Kinds } from './kinds/kinds.ts';
import { Machine, type RunningManager, type Tuning } from './machine.ts';
import { Network } from './network.ts';
import { firstCertificate, Newcomers } from './newcomers.ts';
import { seededRandom } from './random.ts';
import { type Scope, type ScopeOptions, scopeOf } from './scope.ts';
import type { Plant } from './surroundings.ts';
import { Trace } from './trace.ts';
import { passTime } from './turns.ts';
import type { Places } from './wires.ts';

export const registerId = 'register00000000000000000' as ConfigId;
const tendEveryMs = 250;
const callTimeoutMs = 15_000;

export interface ClusterOptions extends ScopeOptions {
  readonly plant?: Plant | undefined;
  readonly show?: ((line: string) => void) | undefined;
}

export class SimulatedCluster {
  readonly seed: number;
  readonly scope: Scope;
  readonly clock = new VirtualClock();
  readonly random: ReturnType<typeof seededRandom>;
  readonly network: Network;
  readonly machines: readonly Machine[];
  readonly trace: Trace;
  readonly invariants: Invariants;
  readonly places: Places;
  /** In runs about jobs, schedules and scaling. */
  readonly kinds: Kinds | undefined;
  #byAddress = new Map<string, string>();
  readonly #newcomers = new Newcomers(this);

  constructor(options: ClusterOptions) {
    const { seed, plant } = options;
    this.seed = seed;
    const whole = options.whole || plant?.whole;
    const guarded = options.guarded || plant?.guarded;
    this.scope = scopeOf({ ...options, whole, guarded, varied: options.varied || plant?.varied });
    this.random = seededRandom(seed);
    const { clock } = this;
    this.trace = new Trace(() => clock.monotonicMs(), options.show);
    this.invariants = new Invariants(this.trace);
    if (this.scope.isVaried) this.kinds = new Kinds(this);
    this.invariants.kinds = this.kinds;
    this.network = new Network(clock, seededRandom(seed + 0x10000000));
    const { scope } = this;
    const { snapshotEntries, flushMs } = scope;
    const tuning: Tuning = { snapshotEntries, keepEntries: Math.floor(snapshotEntries / 4) };
    const around = { seed, clock, invariants: this.invariants, tuning, flushMs, plant };
    const count = scope.managers + scope.workers;
    this.machines = Array.from({ length: count }, (_, at) => new Machine(at + 1, around));
    for (const machine of this.machines) this.#byAddress.set(machine.address, machine.name);
    this.places = {
      network: this.network,
      isExact: scope.isExact,
      isMeasured: scope.isVaried,
      machineAt: (address) => this.#byAddress.get(address) ?? '',
      managerOn: (name) => this.machine(name).manager,
      shownBy: (name) => this.machine(name).shown,
      onStranger: (name, nodeId) =>
        this.invariants.violate('removed-stays-out', `${name} took in node ${nodeId}, which is no more`),
      machineOf: (raftId) =>
        this.managers().find(({ manager }) => manager.raft.status().raftId === raftId)?.machine,
      onDelivered: (from, to, messages) => {
        const { trace } = this;
        trace.mix(from);
        trace.mix(to);
        trace.mixNumber(clock.monotonicMs());
        for (const { type, term, index } of messages) {
          trace.mix(type);
          trace.mixNumber(term * 65_536 + (index ?? 0));
        }
      },
    };
    this.trace.note(
      `seed ${seed}: ${this.scope.managers} managers, ${scope.workers} workers, a snapshot each ${snapshotEntries} entries`,
    );
  }

  machine(name: string): Machine {
    const found = this.machines.find((machine) => machine.name === name);
    if (found === undefined) throw new Error(`there is no machine ${name}`);
    return found;
  }

  machineOfNode(nodeId: string | undefined): Machine | undefined {
    return this.machines.find((machine) => machine.nodeId === nodeId);
  }

  managers(): RunningManager[] {
    return this.machines.flatMap(({ manager }) => (manager === undefined ? [] : [manager]));
  }

  /** The manager that leads, as it thinks; the one with the highest term when several think so. */
  leader(): RunningManager | undefined {
    let best: RunningManager | undefined;
    const termOf = (one: RunningManager): number => one.manager.raft.status().term;
    for (const one of this.managers()) {
      if (one.manager.isLeader() && (best === undefined || termOf(one) > termOf(best))) best = one;
    }
    return best;
  }

  /** Begins: the first manager alone, the others joining it, an agent everywhere. */
  async begin(): Promise<void> {
    const first = this.machines[0]!;
    const self: Member = { raftId: 1, nodeId: first.nodeId, address: first.address };
    const { oldFormat } = this.scope;
    if (oldFormat === undefined) {
      this.#background(first.startManager(this.places, { kind: 'bootstrap', self }, this.#firstChanges()));
    } else await this.#beginFrom(first, oldFormat);
    for (const machine of this.machines) this.startAgent(machine);
    this.#tendSoon();
    let nextLookMs = 0;
    const isFormed = (): boolean => {
      if (this.clock.monotonicMs() < nextLookMs) return false;
      nextLookMs = this.clock.monotonicMs() + 20;
      return this.#isFormed();
    };
    await this.passUntil(isFormed, 30_000);
  }

  /** The first manager restarts on what an earlier version wrote; what a run needs besides is put in. */
  async #beginFrom(first: Machine, oldFormat: string): Promise<void> {
    this.trace.note(`${first.name} begins from what ${oldFormat} wrote`);
    placeOldFormat(first.disk, oldFormat);
    this.#background(first.startManager(this.places, { kind: 'restart' }));
    await this.passUntil(() => first.manager?.manager.isLeader() === true, 10_000);
    const isIn = this.ask(first, async (manager) => {
      await manager.readBarrier();
      const { store } = manager;
      const wanted = this.#firstChanges().flatMap((change): Change[] => {
        if (change.op !== 'create' || change.kind === 'cluster') return [];
        const known = store.get(change.kind, change.object.ID as never);
        if (known === undefined) return [change];
        const object = { ...change.object, Version: known.Version };
        return [{ op: 'update', kind: change.kind, object } as Change];
      });
      const strangers = store.list('node').filter(({ ID }) => this.machineOfNode(ID) === undefined);
      await manager.propose([
        ...wanted,
        ...strangers.map(({ ID }): Change => ({ op: 'remove', kind: 'node', id: ID })),
      ]);
    });
    let isDone = false;
    this.#background(
      isIn.then(() => {
        isDone = true;
      }),
    );
    await this.passUntil(() => isDone, 10_000);
  }

  #isFormed(): boolean {
    const leader = this.leader();
    if (leader === undefined) return false;
    const { members } = leader.manager.raft.status();
    const voters = members.filter((member) => !member.isLearner).length;
    const nodes = leader.manager.store.list('node');
    return voters === this.scope.managers && nodes.every((node) => node.Status.State === 'ready');
  }

  startAgent(machine: Machine): void {
    if (machine.agent !== undefined || machine.isOff) return;
    this.#background(
      machine.startAgent(
        this.places,
        this.machines.slice(0, 3).map(({ address }) => address),
      ),
    );
  }

  startManager(machine: Machine): void {
    if (machine.isManagerRunning || machine.isOff || !machine.hasLog) return;
    this.trace.note(`${machine.name}: the manager starts`);
    const { nodeId, address } = machine;
    const self = { raftId: newRaftId(this.random), nodeId, address };
    // Until it leads, the operator repeats it.
    const start: RaftStart =
      this.#forced?.machine === machine ? { kind: 'force-new-cluster', self } : { kind: 'restart' };
    const started = machine.startManager(this.places, start);
    this.#background(machine.damage === undefined ? started : this.#onDamage(machine, started));
  }

  /** Called when a history begins anew after `index`; until the promise that it gets resolves, clients are to wait. */
  onNewHistory: (index: number, begun: Promise<void>) => void = () => {};

  #histories = 0;

  /** Nothing that was acknowledged was lost with machines. */
  get hasOneHistory(): boolean {
    return this.#histories === 0;
  }

  #forced: { readonly machine: Machine; readonly done: () => void } | undefined;

  /** The manager on `machine`, which had applied everything up to `index`, goes on alone by force. */
  force(machine: Machine, index: number): void {
    this.#histories += 1;
    this.invariants.forgetAfter(index);
    const begun = new Promise<void>((resolve) => {
      this.#forced = { machine, done: resolve };
    });
    this.onNewHistory(index, begun);
    this.startManager(machine);
  }

  /** A log that is damaged is refused; then the operator clears the disk away, and the manager joins anew. */
  async #onDamage(machine: Machine, started: Promise<void>): Promise<void> {
    try {
      await started;
    } catch (error) {
      if (!isShoalError(error, 'corrupted')) throw error;
      this.trace.note(`${machine.name}: ${machine.damage}: refused: ${error.message.slice(0, 80)}`);
      await machine.wipe();
      return;
    }
    if (machine.isDamageCertain)
      this.invariants.violate(
        'damage-refused',
        `the manager on ${machine.name} started though ${machine.damage}`,
      );
    machine.damage = undefined;
  }

  /** Lets time pass until the condition holds, the time is up, or an invariant is violated. Whether it holds. */
  async passUntil(condition: () => boolean, boundMs: number): Promise<boolean> {
    const endMs = this.clock.monotonicMs() + boundMs;
    let holds = false;
    const isOver = (): boolean => {
      if (this.invariants.violation !== undefined || this.clock.monotonicMs() >= endMs) return true;
      holds = condition();
      return holds;
    };
    try {
      await passTime(this.clock, isOver);
    } catch (error) {
      const stack = error instanceof Error ? error.stack : String(error);
      this.invariants.violate('nothing-thrown', `a timer threw: ${stack}`);
    }
    return holds;
  }

  pass(durationMs: number): Promise<boolean> {
    const endMs = this.clock.monotonicMs() + durationMs;
    this.clock.after(durationMs, () => {});
    return this.passUntil(() => this.clock.monotonicMs() >= endMs, durationMs + 1);
  }

  /**
   * Asks the manager on `machine` for something, as a client on that machine does. Rejects 'unavailable' when it
   * does not run or dies over it, 'timeout' when no answer comes.
   */
  ask<T>(machine: Machine, work: (manager: Manager) => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const running = machine.manager;
      if (running === undefined) {
        reject(
          new ShoalError('unavailable', 'no manager runs here', { details: { outcome: 'not-appended' } }),
        );
        return;
      }
      const timer = this.clock.after(callTimeoutMs, () => reject(new ShoalError('timeout', 'no answer')));
      const { process, manager } = running;
      process.onDeath(() => reject(new ShoalError('unavailable', 'the manager died')));
      process.run(() => {
        process
          .hold(work(manager))
          .finally(() => timer.cancel())
          .then(resolve, reject);
      });
    });
  }

  // ------------------------------------------------------------ what the daemon does about membership

  #tendSoon(): void {
    this.clock.after(tendEveryMs, () => {
      this.#tend();
      this.#tendSoon();
    });
  }

  /** A node that is to be a manager joins the group; one that was taken out of it stops and forgets. */
  #tend(): void {
    const leader = this.leader();
    if (this.#forced && leader?.machine === this.#forced.machine.name) {
      this.#forced.done();
      this.#forced = undefined;
    }
    for (const machine of this.machines) {
      this.#newcomers.tend(machine);
      const role = machine.manager?.manager.raft.status().role;
      if (machine.manager) this.#connect(machine.manager);
      if (leader) this.#tellLost(machine, leader.manager);
      if (role === 'removed') {
        this.trace.note(`${machine.name}: the manager was removed and stops`);
        this.#background(machine.wipe());
        continue;
      }
      const node = leader?.manager.store.get('node', machine.nodeId);
      // The agent is told the role that it is to have, and the daemon gets a certificate of that role.
      const isTold = machine.agent?.agent.session.kind === 'established';
      if (node?.Private.Role === 'worker' && isTold && machine.manager !== undefined) {
        this.trace.note(`${machine.name}: a worker now; its manager stops`);
        this.#background(machine.wipe());
        continue;
      }
      const isToJoin = node?.Spec.Role === 'manager' && node.Private.Role === 'manager';
      if (isToJoin && !machine.hasLog && !machine.isOff && !this.#joining.has(machine)) this.#join(machine);
    }
  }

  /**
   * An agent that was away while every manager that it knows went: the operator's `swarm join` tells it of another, and in
   * a daemon that is a manager that one tells it of the leader.
   */
  #tellLost({ agent }: Machine, { raft }: Manager): void {
    if (agent?.agent.session.kind !== 'connecting') return;
    const { leader, members } = raft.status();
    const present = new Set(members.map((member) => member.address));
    if (leader === undefined) return;
    if (agent.agent.managers.some((known) => present.has(known.address))) return;
    agent.process.run(() => agent.agent.leaderHint(leader.address));
  }

  /**
   * As over gRPC: whoever leads nobody and follows nobody keeps connecting to the members it knows, and is told there
   * should it have been removed.
   */
  #connect({ machine, process, manager }: RunningManager): void {
    const { leader, members } = manager.raft.status();
    if (leader !== undefined || !process.isAlive) return;
    const { nodeId } = this.machine(machine);
    for (const { address } of members) {
      const to = this.#byAddress.get(address);
      if (to === undefined || to === machine) continue;
      this.network.carry(
        machine,
        to,
        () => {
          const notices = this.machine(to).manager?.manager.raft.removalNotices(nodeId) ?? [];
          const tell = (): void =>
            process.run(() => {
              for (const notice of notices) manager.raft.receive(notice);
            });
          if (notices.length > 0) this.network.carry(to, machine, tell, () => {});
        },
        () => {},
      );
    }
  }

  readonly #joining = new Set<Machine>();

  #join(machine: Machine): void {
    const leader = this.leader();
    if (leader === undefined) return;
    this.#joining.add(machine);
    const history = this.#histories;
    const joined = this.ask(this.machine(leader.machine), async (manager) => {
      // TLS lets nobody in whose certificate has expired: it renews that first, or comes too late.
      if (machine.shown) refuseClient(machine.shown, leader.process);
      return manager.admit(machine.nodeId, machine.address);
    }).then(async ({ raftId, members }) => {
      if (machine.isOff || machine.hasLog || history !== this.#histories) return;
      const self = { raftId, nodeId: machine.nodeId, address: machine.address };
      this.trace.note(`${machine.name}: a manager joins as member ${raftId}`);
      this.#background(machine.startManager(this.places, { kind: 'join', self, members }));
    });
    joined
      .catch((error: unknown) => this.trace.note(`${machine.name}: not admitted: ${messageOf(error)}`))
      .finally(() => this.#joining.delete(machine));
  }

  #background(work: Promise<unknown>): void {
    work.catch((error: unknown) => {
      this.invariants.violate('manager-goes-on', `a start failed: ${messageOf(error)}`);
    });
  }

  #firstChanges(): Change[] {
    const { integer } = this.random;
    const base = makeCluster();
    const cluster = {
      ...base,
      Spec: {
        ...base.Spec,
        Dispatcher: { HeartbeatPeriod: 1e9 },
        Orchestration: { TaskHistoryRetentionLimit: 1 + integer(4) },
        ...this.scope.certificates,
      },
      JoinTokens: { Worker: 'worker-token', Manager: 'manager-token' },
    };
    const nodes = this.machines.map((machine, at): Change => {
      const role = at < this.scope.managers ? 'manager' : 'worker';
      const { requestPem, identity } = firstCertificate(cluster, machine, role, this.clock.now());
      machine.become(identity);
      const object: ClusterNode = {
        ...newMeta(machine.nodeId),
        Spec: { Labels: {}, Role: role, Availability: 'active' },
        Description: emptyDescription,
        Status: { State: 'unknown', Addr: '' },
        Private: {
          Role: role,
          Certificate: { State: 'issued', Csr: requestPem, Pem: identity.certificatePem },
        },
      };
      return { op: 'create', kind: 'node', object };
    });
    const register: Config = {
      ...newMeta(registerId),
      Spec: { Name: 'register', Labels: { value: 'initial' }, Data: '' },
    };
    return [
      { op: 'create', kind: 'cluster', object: cluster },
      ...nodes,
      { op: 'create', kind: 'config', object: register },
    ];
  }
}
