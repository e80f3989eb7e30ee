/**
 * Tries out where waiting tasks go: counts what it gives away in the table of nodes, and takes it all back at the end,
 * for the table follows the store. One attempt makes the changes of one proposal.
 */
import type { ServiceSpec, Task } from '../../proto/docker.ts';
import { messageOf } from '../../proto/errors.ts';
import type { Change } from '../store/change.ts';
import { networkKey } from '../store/data-plane.ts';
import type { View } from '../store/store.ts';
import { EvenLoad } from './even-load.ts';
import { type Check, checksOf, isAvailable, pickGeneric, standingKey } from './filters.ts';
import type { Group, Joined } from './groups.ts';
import { type Claim, claimOf, type NodeEntry, type NodeTable } from './node-table.ts';
import { whyNone, whyNot } from './reasons.ts';
import { failuresToAvoid, Spread } from './spread.ts';
import { groupBy } from './words.ts';

const assignedMessage = 'scheduler assigned task to node';
const confirmedMessage = 'scheduler confirmed task can run on preassigned node';

/** A task with the place that was found for it. */
interface Placement {
  readonly task: Task;
  readonly claim: Claim;
}

export class Attempt {
  private readonly view: View;
  private readonly nodes: NodeTable;
  private readonly now: number;
  private readonly entries: readonly NodeEntry[];
  private readonly placed: Placement[] = [];
  private readonly eligible = new Map<string, Set<NodeEntry>>();
  private readonly even = new Map<Set<NodeEntry>, EvenLoad>();

  /** `entries` are the nodes to choose from: by default, all. `now` in ms since the epoch. */
  constructor(view: View, nodes: NodeTable, now: number, entries = [...nodes.nodes.values()]) {
    this.view = view;
    this.nodes = nodes;
    this.now = now;
    this.entries = entries;
  }

  /** How many nodes there are to choose from. */
  get width(): number {
    return this.entries.length;
  }

  /** Decides for tasks of the group whose node is set. Answers those that their node does not take. */
  confirm(group: Group, preset: readonly Task[]): readonly Task[] {
    const checks = this.checks(group, preset[0]!);
    if (typeof checks === 'string') return preset;
    return preset.filter((task) => {
      const entry = this.nodes.nodes.get(task.NodeID!);
      const isTaken = entry !== undefined && checks.every((check) => check.passes(entry));
      if (isTaken) this.place(task, group, entry);
      return !isTaken;
    });
  }

  /**
   * Finds nodes for tasks of the group whose node is not set, in their order, among those of the data plane `plane` when
   * one is given. Answers how many got one; for the others there is none.
   */
  assign(group: Group, free: readonly Task[], plane?: string): number {
    const first = free[0]!;
    const checks = this.checks(group, first);
    if (typeof checks === 'string') return 0;
    const standing = this.eligibleFor(group.spec, checks);
    const moving = checks.filter((check) => !check.isStanding);
    const evenly = plane === undefined ? this.assignEvenly(group, free, standing, moving) : 0;
    if (evenly === free.length) return evenly;
    const spread = new Spread({
      entries: this.entriesOf(plane),
      preferences: group.spec.TaskTemplate.Placement?.Preferences ?? [],
      isEligible: (entry) => standing.has(entry),
      fits: (entry) => moving.every((check) => check.passes(entry)),
      replicasOn: (entry) => entry.activeByService.get(first.ServiceID) ?? 0,
      failuresOn: (entry) => this.nodes.recentFailures(entry, group.revisionId, this.now),
    });
    for (let at = evenly; at < free.length; at += 1) {
      if (!spread.next((entry) => this.place(free[at]!, group, entry))) return at;
    }
    return free.length;
  }

  /** Why a task of the group waits, as things stand; undefined when it need not any more. */
  reason(group: Group, task: Task, plane?: string): string | undefined {
    const checks = this.checks(group, task);
    if (typeof checks === 'string') return checks;
    if (task.NodeID === undefined) {
      const among = plane === undefined ? undefined : this.entriesOf(plane);
      return whyNone(this.entries, checks) ?? (among && whyNone(among, checks));
    }
    const entry = this.nodes.nodes.get(task.NodeID);
    return entry ? whyNot(entry, checks) : `its node ${task.NodeID} is not in the cluster any more`;
  }

  /**
   * Finds nodes that have none of the service yet, as Spread would, for the first of the group's tasks: so that a
   * service of few tasks costs by its tasks and not by the cluster's nodes. Answers how many tasks got one.
   */
  private assignEvenly(
    group: Group,
    free: readonly Task[],
    standing: Set<NodeEntry>,
    moving: readonly Check[],
  ): number {
    const most = standing.size >> 2;
    const isSpread = (group.spec.TaskTemplate.Placement?.Preferences ?? []).length > 0;
    if (free.length > most || isSpread) return 0;
    let even = this.even.get(standing);
    if (!even) {
      even = new EvenLoad(this.entries, (entry) => standing.has(entry));
      this.even.set(standing, even);
    }
    const { ServiceID } = free[0]!;
    return even.hand(
      free.length,
      (entry) =>
        !entry.activeByService.has(ServiceID) &&
        moving.every((check) => check.passes(entry)) &&
        this.nodes.recentFailures(entry, group.revisionId, this.now) < failuresToAvoid,
      (entry, at) => this.place(free[at]!, group, entry),
      most,
    );
  }

  /**
   * The key of the data plane that takes most of the groups' tasks, of several the one with the most nodes and
   * then the least to do, when the groups' networks bind them to one and they live on none yet.
   */
  planeFor(joined: Joined): string | undefined {
    const isFree = joined.networks.length > 0 && joined.networks.every((id) => !this.nodes.nodeOfNetwork(id));
    if (!isFree) return undefined;
    const isIngress = joined.networks.every((id) => this.view.get('network', id)?.Spec.Ingress === true);
    const keyOf = ({ plane }: NodeEntry) => networkKey(plane, isIngress);
    const planes = groupBy(this.entries, keyOf);
    if (planes.size < 2) return undefined;
    const wanted = joined.groups.flatMap(freeTasks);
    const size = (entries: readonly NodeEntry[]) => entries.filter(isAvailable).length;
    const inOrder = [...planes.values()].sort((a, b) => size(b) - size(a) || loadOf(a) - loadOf(b));
    let best: { readonly key: string | undefined; readonly count: number } = { key: undefined, count: 0 };
    for (const entries of inOrder) {
      const count = this.countOn(entries, joined.groups);
      const key = keyOf(entries[0]!);
      if (count === wanted.length) return key;
      if (count > best.count) best = { key, count };
    }
    return best.key;
  }

  /** How many of the groups' tasks have room on `entries`. */
  private countOn(entries: NodeEntry[], groups: readonly Group[]): number {
    const trial = new Attempt(this.view, this.nodes, this.now, entries);
    for (const group of groups) {
      const free = freeTasks(group);
      if (free.length > 0) trial.assign(group, free);
    }
    trial.takeBack();
    return trial.placed.length;
  }

  /** What is to be done about those that have a place. */
  changes(): Change[] {
    const Timestamp = new Date(this.now).toISOString();
    const assigned: Task['Status'] = { Timestamp, State: 'assigned', Message: assignedMessage };
    const confirmed: Task['Status'] = { Timestamp, State: 'assigned', Message: confirmedMessage };
    return this.placed.map(({ task, claim }) => {
      const fields: Partial<Task> =
        task.NodeID === undefined ? { NodeID: claim.entry.id, Status: assigned } : { Status: confirmed };
      if (claim.generic) fields.AssignedGenericResources = [...claim.generic];
      return { op: 'merge', kind: 'task', id: task.ID, fields };
    });
  }

  takeBack(): void {
    for (const { claim } of this.placed) this.nodes.giveBack(claim);
  }

  private entriesOf(plane: string | undefined): readonly NodeEntry[] {
    if (plane === undefined) return this.entries;
    return this.entries.filter((entry) =>
      [false, true].some((one) => networkKey(entry.plane, one) === plane),
    );
  }

  /** The nodes that pass the checks that placing tasks does not change: the same for many services. */
  private eligibleFor(spec: ServiceSpec, checks: readonly Check[]): Set<NodeEntry> {
    const key = standingKey(spec);
    const known = this.eligible.get(key);
    if (known) return known;
    const standing = checks.filter((check) => check.isStanding);
    const found = new Set(this.entries.filter((entry) => standing.every((check) => check.passes(entry))));
    this.eligible.set(key, found);
    return found;
  }

  /** The filters for a group; what is wrong with its spec, in words, when it cannot be understood. */
  private checks(group: Group, task: Task): Check[] | string {
    try {
      return checksOf({ view: this.view, table: this.nodes, task, spec: group.spec });
    } catch (error) {
      return messageOf(error);
    }
  }

  private place(task: Task, group: Group, entry: NodeEntry): void {
    const generic = group.asksGeneric ? pickGeneric(entry, group.spec) : undefined;
    const claim = claimOf(task, group.demand, entry, generic);
    this.nodes.take(claim);
    this.placed.push({ task, claim });
  }
}

function freeTasks(group: Group): Task[] {
  return group.tasks.filter((task) => task.NodeID === undefined);
}

/** Tasks to a node, of the nodes of one data plane. */
function loadOf(entries: readonly NodeEntry[]): number {
  return entries.reduce((sum, entry) => sum + entry.activeTasks, 0) / entries.length;
}
