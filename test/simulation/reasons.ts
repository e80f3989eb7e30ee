/**
 * Whether every task, and every update, says why it is where it is: no state lasts longer than 2 s without a reason that a person can act
 * on. What counts is the product's own rule (manager/store/why.ts), which `task why` shows and lists go by: words that
 * only name whose turn it is are no reason for a state that lasts.
 */
import { explainUpdate } from '../../manager/store/update-progress.ts';
import { explain, type Reason } from '../../manager/store/why.ts';
import type { Task } from '../../proto/docker.ts';
import type { SimulatedCluster } from './cluster.ts';
import { short } from './invariants.ts';
import type { RunningManager } from './machine.ts';

const lookEveryMs = 250;
/** A state that lasts longer has a reason. */
export const wordlessMs = 2_000;

/** Where a task or a service's update has been without a reason, and since when. */
interface Wordless {
  readonly where: string;
  readonly sinceMs: number;
}

export class Reasons {
  readonly #cluster: SimulatedCluster;
  #wordless = new Map<string, Wordless>();
  /** Who led at the last look, and up to where its log was committed. */
  #led = '';
  #commitIndex = 0;
  /** At how many looks a task had a reason, or was taking a step: to see that something was looked at. */
  readonly counts = { reasons: 0, steps: 0 };

  constructor(cluster: SimulatedCluster) {
    this.#cluster = cluster;
  }

  /** Looks from now on, until the run is over. */
  start(): void {
    this.#cluster.clock.after(lookEveryMs, () => {
      this.#look();
      this.start();
    });
  }

  #look(): void {
    const leader = this.#cluster.leader();
    const isAble = leader !== undefined && this.#isAble(leader);
    const before = isAble ? this.#wordless : new Map<string, Wordless>();
    this.#wordless = new Map();
    if (!leader || !isAble) return;
    const { store } = leader.manager;
    const now = leader.process.now();
    for (const task of store.list('task')) {
      const reason = explain(store, task, now);
      if (reason.kind === 'step' && reason.by === 'node' && !this.#isHeard(task, leader)) continue;
      const where = `${task.Status.State}, to be ${task.DesiredState}`;
      this.#note(`task ${short(task.ID)}`, where, reason, before);
    }
    for (const service of store.list('service')) {
      const where = service.UpdateStatus?.State ?? 'as asked';
      this.#note(`service ${service.Spec.Name}`, where, explainUpdate(store, service, now), before);
    }
  }

  #note(who: string, where: string, reason: Reason, before: ReadonlyMap<string, Wordless>): void {
    if (reason.kind === 'none') return;
    this.counts[reason.kind === 'cause' ? 'reasons' : 'steps'] += 1;
    if (reason.kind === 'cause') return;
    const nowMs = this.#cluster.clock.monotonicMs();
    const known = before.get(who);
    const sinceMs = known?.where === where ? known.sinceMs : nowMs;
    this.#wordless.set(who, { where, sinceMs });
    if (nowMs - sinceMs <= wordlessMs) return;
    const lasted = `${who} has been ${where} for ${Math.round(nowMs - sinceMs)} ms`;
    this.#cluster.invariants.violate('reason-told', `${lasted}, and all that is said is: ${reason.text}`);
  }

  /**
   * Whether it led at the last look, too, and could have stored a reason since; without that nobody can tell one. On a
   * disk whose flushes take a second, what nodes say is stored some flushes later.
   */
  #isAble({ machine, process, manager }: RunningManager): boolean {
    const { term, commitIndex, lastIndex } = manager.raft.status();
    const leads = `${machine} in term ${term}`;
    const isStalled = lastIndex > commitIndex && commitIndex === this.#commitIndex;
    const isSame = leads === this.#led;
    this.#led = leads;
    this.#commitIndex = commitIndex;
    const { isSlow } = this.#cluster.machine(machine).disk;
    return isSame && !isStalled && !isSlow && process.isRunning;
  }

  /** Whether the task's node can tell the leader what it is at. Where it can't, that it is its turn is all that is known. */
  #isHeard({ NodeID }: Task, leader: RunningManager): boolean {
    const { network } = this.#cluster;
    const machine = this.#cluster.machineOfNode(NodeID);
    const running = machine?.agent;
    if (!machine || !running?.process.isRunning) return false;
    const { session } = running.agent;
    const { address } = this.#cluster.machine(leader.machine);
    const isUnsettled =
      network.isUnsettled(machine.name, leader.machine) || network.isUnsettled(leader.machine, machine.name);
    return session.kind === 'established' && session.address === address && !isUnsettled;
  }
}
