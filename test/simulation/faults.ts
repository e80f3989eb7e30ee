/**
 * What goes wrong in a simulated cluster: machines and processes die, pause and come back, ways are cut, disks fill,
 * clocks go wrong, engines and containers fail, managers come and go. Everything drawn from the seed; everything
 * can be put right at once.
 */
import { removal, replacement } from '../../manager/api/nodes.ts';
import type { ClusterNode } from '../../proto/docker.ts';
import { messageOf } from '../../proto/errors.ts';
import { asId, type NodeId } from '../../proto/ids.ts';
import type { SimulatedCluster } from './cluster.ts';
import type { Machine } from './machine.ts';
import { calm, type Weather } from './network.ts';
import { seededRandom } from './random.ts';

type Fault = (machine: Machine) => void;

const weathers: readonly Weather[] = [
  calm,
  calm,
  { delayMs: [1, 20], lossRate: 0.02, duplicateRate: 0.02, reorderRate: 0.05 },
  { delayMs: [5, 120], lossRate: 0.1, duplicateRate: 0.1, reorderRate: 0.2 },
];

/** Faults that mean nothing where no services run. */
const ofServices: ReadonlySet<string> = new Set(['crash-engine', 'fail-container', 'slow-engine']);

export class Faults {
  readonly #cluster: SimulatedCluster;
  readonly #random: ReturnType<typeof seededRandom>;
  #isOver = false;
  /** How often each kind was done. */
  readonly done: Record<string, number> = {};
  readonly #kinds: readonly (readonly [kind: string, drawn: readonly [weight: number, fault: Fault]])[];

  constructor(cluster: SimulatedCluster) {
    this.#cluster = cluster;
    this.#random = seededRandom(cluster.seed + 0x30000000);
    const kinds: Readonly<Record<string, readonly [weight: number, fault: Fault]>> = {
      'crash-manager': [8, (machine) => this.#crashManager(machine)],
      'crash-leader': [3, () => this.#crashLeader()],
      'crash-all': [1, () => this.#crashAllManagers()],
      'crash-agent': [4, (machine) => this.#crashAgent(machine)],
      'power-cut': [4, (machine) => this.#powerCut(machine)],
      'cut-one-way': [5, (machine) => this.#cutOneWay(machine)],
      partition: [4, () => this.#partition()],
      'isolate-leader': [3, () => this.#isolateLeader()],
      pause: [4, (machine) => this.#pause(machine)],
      'crash-engine': [4, (machine) => this.#crashEngine(machine)],
      'fail-container': [6, (machine) => this.#failContainer(machine)],
      'full-disk': [3, (machine) => this.#fillDisk(machine)],
      'slow-disk': [3, (machine) => this.#slowDisk(machine)],
      'flipped-bit': [3, (machine) => this.#flipBit(machine)],
      skew: [cluster.scope.isGuarded ? 16 : 2, (machine) => this.#skew(machine)],
      weather: [3, () => this.#change()],
      transfer: [3, () => this.#transfer()],
      role: [4, (machine) => this.#changeRole(machine)],
      force: [1, (machine) => this.#force(machine)],
      'remove-node': [2, (machine) => this.#removeNode(machine)],
      replace: [3, (machine) => this.#replaceManager(machine)],
      'slow-engine': [4, (machine) => this.#slowEngine(machine)],
    };
    const { has, hasServices, oldFormat } = cluster.scope;
    this.#kinds = Object.entries(kinds).filter(
      ([kind]) =>
        has(kind) &&
        (hasServices || !ofServices.has(kind)) &&
        // The older snapshot and the log know of events that a snapshot of 0.1.0 did not keep.
        (oldFormat === undefined || kind !== 'flipped-bit') &&
        (kind !== 'replace' || has('role')),
    );
  }

  start(): void {
    this.#soon();
  }

  #soon(): void {
    this.#cluster.clock.after(-Math.log(1 - this.#random.float()) * this.#cluster.scope.meanGapMs, () => {
      if (this.#isOver) return;
      const total = this.#kinds.reduce((sum, [, [weight]]) => sum + weight, 0);
      let draw = this.#random.float() * total;
      const chosen = this.#kinds.find(([, [weight]]) => {
        draw -= weight;
        return draw < 0;
      });
      if (chosen) {
        const [kind, [, fault]] = chosen;
        this.done[kind] = (this.done[kind] ?? 0) + 1;
        fault(this.#machine());
      }
      this.#soon();
    });
  }

  /** Puts everything right, and lets nothing more go wrong. */
  healAll(): void {
    this.#isOver = true;
    const { network, machines, trace } = this.#cluster;
    trace.note('everything is put right');
    network.healAll();
    network.weather = calm;
    for (const machine of machines) {
      machine.skewMs = 0;
      machine.disk.limit(Number.POSITIVE_INFINITY);
      machine.disk.slow(0);
      machine.resume();
      machine.engine.sluggishMs = 0;
      this.#recoverEngine(machine, true);
      this.#bringUp(machine);
    }
  }

  // ------------------------------------------------------------ processes

  #crashManager(machine: Machine): void {
    if (!machine.isManagerRunning) return;
    this.#note(machine, 'the manager is killed');
    machine.killManager();
    this.#later(300, 8_000, () => this.#cluster.startManager(machine));
  }

  #crashLeader(): void {
    const leader = this.#leader();
    if (leader) this.#crashManager(leader);
  }

  #crashAllManagers(): void {
    for (const machine of this.#cluster.machines) this.#crashManager(machine);
  }

  #crashAgent(machine: Machine): void {
    if (machine.agent === undefined) return;
    this.#note(machine, 'the agent is killed');
    const forgets = this.#random.float() < 0.2 && !this.#cluster.scope.isGuarded;
    machine.killAgent(() => forgets && this.#random.float() < 0.5);
    this.#later(200, 6_000, () => this.#cluster.startAgent(machine));
  }

  #powerCut(machine: Machine): void {
    if (machine.isOff) return;
    this.#note(machine, 'the power is cut');
    machine.isOff = true;
    machine.killManager();
    machine.killAgent(() => this.#random.float() < 0.2);
    this.#crashEngine(machine, false);
    this.#later(500, 10_000, () => this.#bringUp(machine));
  }

  #bringUp(machine: Machine): void {
    if (machine.isOff) this.#note(machine, 'the power is back');
    const wasOff = machine.isOff;
    machine.isOff = false;
    if (wasOff) this.#recoverEngine(machine, false);
    this.#cluster.startManager(machine);
    this.#cluster.startAgent(machine);
  }

  #pause(machine: Machine): void {
    this.#note(machine, 'is paused');
    machine.pause();
    this.#later(200, 7_000, () => {
      this.#note(machine, 'goes on');
      machine.resume();
    });
  }

  // ------------------------------------------------------------ network

  #cutOneWay(machine: Machine): void {
    const other = this.#machine();
    if (other === machine) return;
    const { network } = this.#cluster;
    this.#note(machine, `reaches ${other.name} no more`);
    network.cut(machine.name, other.name);
    this.#later(300, this.#atLast(9_000), () => network.heal(machine.name, other.name));
  }

  #partition(): void {
    const { machines } = this.#cluster;
    const side = new Set(machines.filter(() => this.#random.float() < 0.4));
    this.#separate([...side]);
  }

  #isolateLeader(): void {
    const leader = this.#leader();
    if (leader) this.#separate([leader]);
  }

  #separate(side: readonly Machine[]): void {
    const { machines, network, trace } = this.#cluster;
    const others = machines.filter((machine) => !side.includes(machine));
    if (side.length === 0 || others.length === 0) return;
    const isOneWay = this.#random.float() < 0.2;
    trace.note(`${side.map(({ name }) => name).join(', ')} cut off${isOneWay ? ', one way' : ''}`);
    const ways = side.flatMap((one) =>
      others.flatMap((other) => [[one, other], ...(isOneWay ? [] : [[other, one]])] as [Machine, Machine][]),
    );
    for (const [from, to] of ways) network.cut(from.name, to.name);
    this.#later(500, this.#atLast(10_000), () => {
      for (const [from, to] of ways) network.heal(from.name, to.name);
    });
  }

  #change(): void {
    this.#cluster.network.weather = weathers[this.#random.integer(weathers.length)]!;
  }

  // ------------------------------------------------------------ engines, disks, clocks

  #crashEngine(machine: Machine, survives = this.#random.float() < 0.7): void {
    if (this.#deadEngines.has(machine)) return;
    this.#note(machine, 'the engine stops');
    this.#deadEngines.add(machine);
    machine.engine.crash();
    if (!machine.isOff) this.#later(200, 8_000, () => this.#recoverEngine(machine, survives));
  }

  readonly #deadEngines = new Set<Machine>();

  #recoverEngine(machine: Machine, containersSurvive: boolean): void {
    if (machine.isOff || !this.#deadEngines.delete(machine)) return;
    this.#note(machine, `the engine is back${containersSurvive ? '' : ', its containers dead'}`);
    machine.engine.recover({ containersSurvive });
  }

  #slowEngine(machine: Machine): void {
    const slowMs = [800, 3_000, 7_000][this.#random.integer(3)]!;
    this.#note(machine, `the engine takes ${slowMs} ms longer`);
    machine.engine.sluggishMs = slowMs;
    this.#later(1_000, 9_000, () => {
      this.#note(machine, 'the engine is as quick as before');
      machine.engine.sluggishMs = 0;
    });
  }

  #failContainer(machine: Machine): void {
    const ids = [...machine.engine.requests().keys()];
    const id = ids[this.#random.integer(ids.length)];
    if (id === undefined || this.#deadEngines.has(machine)) return;
    const draw = this.#random.float();
    this.#note(
      machine,
      `container ${id.slice(0, 6)} ${draw < 0.7 ? 'fails' : draw < 0.85 ? 'vanishes' : 'runs out of memory'}`,
    );
    if (draw < 0.7) machine.engine.exit(id, 1);
    else if (draw < 0.85) machine.engine.vanish(id);
    else machine.engine.runOutOfMemory(id);
  }

  #fillDisk(machine: Machine): void {
    if (machine.manager === undefined) return;
    this.#note(machine, 'the disk is full');
    machine.disk.limit(machine.disk.usedBytes + this.#random.integer(2_000));
    this.#later(300, 6_000, () => {
      this.#note(machine, 'the disk has room');
      machine.disk.limit(Number.POSITIVE_INFINITY);
    });
  }

  #slowDisk(machine: Machine): void {
    const slowMs = [20, 150, 900][this.#random.integer(3)]!;
    this.#note(machine, `the disk takes ${slowMs} ms longer`);
    machine.disk.slow(slowMs);
    this.#later(300, 6_000, () => {
      this.#note(machine, 'the disk is as quick as before');
      machine.disk.slow(0);
    });
  }

  /** While a manager is down; of one at a time, and not where the others could not do without it. */
  #flipBit(machine: Machine): void {
    const leader = this.#cluster.leader()?.manager;
    const voters = (leader?.raft.status().members ?? []).filter((member) => !member.isLearner);
    // One on its way out does not count: two that are left are one that is damaged and one without a quorum.
    const staying = voters.filter(
      ({ nodeId }) =>
        leader?.store.get('node', asId<NodeId>(nodeId))?.Spec.Role === 'manager' &&
        !this.#demoted.has(nodeId),
    );
    if (!machine.isManagerRunning || staying.length < 3 || this.#isMending()) return;
    this.#note(machine, 'the manager is killed, and a bit of its disk flips');
    this.#damaged.add(machine);
    machine.killManager();
    void machine.flipBit(this.#random.float(), this.#random.float());
    this.#later(300, 4_000, () => this.#cluster.startManager(machine));
  }

  /** Nodes that were asked to be workers; the entry may be on its way still. */
  readonly #demoted = new Set<string>();

  /** Machines whose manager may have to join anew, or had to. */
  readonly #damaged = new Set<Machine>();

  /** A manager is lost for good and has not yet come back: another must not go for good as well. */
  #isMending(): boolean {
    for (const machine of this.#damaged) {
      if (machine.damage === undefined && isVoter(machine)) this.#damaged.delete(machine);
    }
    return this.#damaged.size > 0;
  }

  #skew(machine: Machine): void {
    const mostMs = [500, 3_000, 30_000][this.#random.integer(3)]!;
    machine.skewMs = Math.round((this.#random.float() * 2 - 1) * mostMs);
    this.#note(machine, `the clock is off by ${machine.skewMs} ms`);
  }

  // ------------------------------------------------------------ membership

  #transfer(): void {
    const leader = this.#leader();
    if (leader === undefined) return;
    this.#note(leader, 'is to hand over');
    this.#ask(leader, 'hand over', (manager) => manager.raft.transferLeadership());
  }

  /** As `docker node promote` and `demote` ask, where the API would allow it. */
  #changeRole(machine: Machine): void {
    const leader = this.#leader();
    if (leader === undefined) return;
    this.#ask(leader, `change the role of ${machine.name}`, async (manager) => {
      await manager.readBarrier();
      const node = manager.store.get('node', machine.nodeId);
      if (node === undefined) return;
      const managers = manager.store.find('node', 'role', 'manager');
      const isDemotion = node.Spec.Role === 'manager';
      if (isDemotion ? this.#isMending() || !mayBeDemoted(managers, node) : managers.length >= 5) return;
      const Role = isDemotion ? 'worker' : 'manager';
      this.#note(machine, `is to be a ${Role}`);
      if (isDemotion) this.#demoted.add(machine.nodeId);
      else this.#demoted.delete(machine.nodeId);
      await manager.propose([
        { op: 'update', kind: 'node', object: { ...node, Spec: { ...node.Spec, Role } } },
      ]);
    });
  }

  /** As `shoal node promote A --demote B` asks: `machine` takes the place of some manager. */
  #replaceManager(machine: Machine): void {
    const leader = this.#leader();
    const replaced = this.#machine();
    if (leader === undefined) return;
    this.#ask(leader, `let ${machine.name} replace ${replaced.name}`, async (manager) => {
      await manager.readBarrier();
      const [node, other] = [machine, replaced].map(({ nodeId }) => manager.store.get('node', nodeId));
      if (node?.Spec.Role !== 'worker' || other?.Spec.Role !== 'manager' || this.#isMending()) return;
      const changes = replacement(manager.store, node, other);
      this.#note(machine, `is to take the place of ${replaced.name}`);
      this.#demoted.add(replaced.nodeId);
      this.#demoted.delete(machine.nodeId);
      await manager.propose(changes);
    });
  }

  /** As `docker node rm --force` asks, where the API would allow it: the node is told when it is back. */
  #removeNode(machine: Machine): void {
    const leader = this.#leader();
    if (leader === undefined || machine.hasLog) return;
    this.#ask(leader, `remove the node of ${machine.name}`, async (manager) => {
      await manager.readBarrier();
      const node = manager.store.get('node', machine.nodeId);
      if (node === undefined || node.Spec.Role === 'manager' || node.ManagerStatus) return;
      this.#note(machine, 'its node is removed');
      await manager.propose(removal(manager.store, node, true, this.#cluster.clock.now()));
    });
  }

  /**
   * Every manager's machine but one's loses its disk; the operator goes on from that one by force. What others had
   * acknowledged and it had not heard of is lost with them: from there on another history begins.
   */
  #force(machine: Machine): void {
    const running = machine.manager;
    const others = this.#cluster.machines.filter((other) => other !== machine && other.hasLog);
    if (running === undefined || machine.damage !== undefined || others.length === 0 || this.#isMending())
      return;
    if (!isVoter(machine)) return;
    try {
      running.manager.refuseWithoutState();
    } catch {
      return;
    }
    this.#note(machine, 'is the only manager left, and goes on by force');
    const { appliedIndex } = running.manager.raft.status();
    for (const other of others) void other.wipe();
    machine.killManager();
    // It begins with a snapshot, for which the operator makes room.
    machine.disk.limit(Number.POSITIVE_INFINITY);
    this.#cluster.force(machine, appliedIndex);
  }

  #ask(machine: Machine, what: string, work: Parameters<SimulatedCluster['ask']>[1]): void {
    this.#cluster
      .ask(machine, work)
      .catch((error: unknown) => this.#note(machine, `did not ${what}: ${messageOf(error)}`));
  }

  // ------------------------------------------------------------

  /** A cut of the network lasts long enough for tasks to be given up where that is what a run is about. */
  #atLast(mostMs: number): number {
    return this.#cluster.scope.isGuarded ? 8 * mostMs : mostMs;
  }

  #machine(): Machine {
    const { machines } = this.#cluster;
    return machines[this.#random.integer(machines.length)]!;
  }

  #leader(): Machine | undefined {
    const leader = this.#cluster.leader();
    return leader && this.#cluster.machine(leader.machine);
  }

  #later(leastMs: number, mostMs: number, action: () => void): void {
    this.#cluster.clock.after(leastMs + this.#random.float() ** 2 * (mostMs - leastMs), () => {
      if (!this.#isOver) action();
    });
  }

  #note(machine: Machine, what: string): void {
    this.#cluster.trace.note(`${machine.name}: ${what}`);
  }
}

/** Two managers at least stay, and a majority of those that stay is reachable. */
function mayBeDemoted(managers: readonly ClusterNode[], node: ClusterNode): boolean {
  const others = managers.filter((other) => other.ID !== node.ID);
  const reachable = others.filter((other) => other.ManagerStatus?.Reachability === 'reachable').length;
  return others.length >= 2 && reachable > others.length / 2;
}

function isVoter(machine: Machine): boolean {
  const status = machine.manager?.manager.raft.status();
  return status?.members.some((member) => member.raftId === status.raftId && !member.isLearner) === true;
}
