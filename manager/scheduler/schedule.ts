/**
 * The scheduler: says on which node each waiting task goes, or why on none.
 *
 * In: the store, the waiting tasks, the table of nodes, the time. Out: one change for each task that is
 * placed, or whose reason for waiting is another than before. It moves no task that has a node, keeps no
 * promise for later and remembers nothing but the table, which follows the store.
 */
import type { ServiceSpec, Task } from '../../proto/docker.ts';
import { messageOf } from '../../proto/errors.ts';
import type { NetworkId, RevisionId } from '../../proto/ids.ts';
import { isTerminal } from '../../proto/task-state.ts';
import { type Attachment, clusterAttachments, hasAddresses } from '../store/attachment.ts';
import type { Change } from '../store/change.ts';
import { nothing, type Reconciler } from '../store/reconciler.ts';
import type { View } from '../store/store.ts';
import type { StoreEvent } from '../store/watch.ts';
import { EvenLoad } from './even-load.ts';
import {
  asksGeneric,
  type Check,
  checksOf,
  isAvailable,
  pickGeneric,
  type Request,
  standingKey,
} from './filters.ts';
import { type Claim, claimOf, type Demand, isWanted, type NodeEntry, NodeTable } from './node-table.ts';
import { failuresToAvoid, Spread } from './spread.ts';
import { groupBy } from './words.ts';

const assignedMessage = 'scheduler assigned task to node';
const confirmedMessage = 'scheduler confirmed task can run on preassigned node';

/** Tasks of one revision: alike in all that the scheduler asks. */
interface Group {
  readonly revisionId: RevisionId;
  readonly spec: ServiceSpec;
  readonly demand: Demand;
  readonly asksGeneric: boolean;
  readonly attachments: readonly Attachment[];
  readonly tasks: Task[];
}

/** A task with the place that was found for it. */
interface Placement {
  readonly task: Task;
  readonly claim: Claim;
}

/**
 * The changes for `pending`, tasks in state 'pending' in the order in which they are to be served. Tasks
 * that have their node from the start (global services) are checked against it and go first. `nodes` is
 * left as it was given. `now` in ms since the epoch.
 */
export function schedule(view: View, pending: readonly Task[], nodes: NodeTable, now: number): Change[] {
  const attempt = new Attempt(view, nodes, now);
  try {
    const groups = groupByRevision(view, pending, nodes);
    for (const group of groups) attempt.confirm(group);
    for (const joined of joinedByNetworks(byNeed(view, nodes, groups))) attempt.assignTogether(joined);
    return attempt.changes();
  } finally {
    attempt.takeBack();
  }
}

/** One run over the waiting tasks: counts what it gives away in the table, and takes it all back at the end. */
class Attempt {
  private readonly view: View;
  private readonly nodes: NodeTable;
  private readonly now: number;
  private readonly placed: Placement[] = [];
  private readonly unplaced: { readonly tasks: readonly Task[]; readonly reason: () => string }[] = [];
  private readonly entries: readonly NodeEntry[];
  private readonly eligible = new Map<string, Set<NodeEntry>>();
  private readonly even = new Map<Set<NodeEntry>, EvenLoad>();

  /** `entries` are the nodes to choose from: by default, all. */
  constructor(view: View, nodes: NodeTable, now: number, entries = [...nodes.nodes.values()]) {
    this.view = view;
    this.nodes = nodes;
    this.now = now;
    this.entries = entries;
  }

  /** Decides for the tasks of the group whose node is set. */
  confirm(group: Group): void {
    const preset = group.tasks.filter((task) => task.NodeID !== undefined);
    if (preset.length === 0) return;
    const checks = this.checks(group, preset[0]!);
    if (!checks) return;
    for (const task of preset) {
      const entry = this.nodes.nodes.get(task.NodeID!);
      const failed = entry && checks.find((check) => !check.passes(entry));
      if (!entry) this.wait([task], () => `its node ${task.NodeID} is not in the cluster any more`);
      else if (failed) this.wait([task], () => whyNot(entry, checks));
      else this.place(task, group, entry);
    }
  }

  /** Finds nodes for the others of groups that must share a data plane, or for one group that need not. */
  assignTogether(joined: Joined): void {
    const home = this.planeFor(joined);
    for (const group of joined.groups) this.assign(group, home);
  }

  /** Finds nodes for the others, among `entries` when they are given. */
  private assign(group: Group, entries: readonly NodeEntry[] = this.entries): void {
    const free = group.tasks.filter((task) => task.NodeID === undefined);
    if (free.length === 0) return;
    const first = free[0]!;
    const checks = this.checks(group, first);
    if (!checks) return;
    const standing = this.eligibleFor(group.spec, checks);
    const moving = checks.filter((check) => !check.isStanding);
    const evenly = entries === this.entries ? this.assignEvenly(group, free, standing, moving) : 0;
    if (evenly === free.length) return;
    const spread = new Spread({
      entries,
      preferences: group.spec.TaskTemplate.Placement?.Preferences ?? [],
      isEligible: (entry) => standing.has(entry),
      fits: (entry) => moving.every((check) => check.passes(entry)),
      replicasOn: (entry) => entry.activeByService.get(first.ServiceID) ?? 0,
      failuresOn: (entry) => this.nodes.recentFailures(entry, group.revisionId, this.now),
    });
    const rest = free.slice(evenly);
    const firstUnplaced = rest.findIndex((task) => !spread.next((entry) => this.place(task, group, entry)));
    if (firstUnplaced >= 0) this.wait(rest.slice(firstUnplaced), () => whyNone(this.entries, checks));
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
   * The nodes of the data plane that takes most of the groups' tasks, of several the one with the most nodes and
   * then the least to do, when the groups' networks bind them to one and they live on none yet.
   */
  private planeFor(joined: Joined): readonly NodeEntry[] | undefined {
    const isFree = joined.networks.length > 0 && joined.networks.every((id) => !this.nodes.nodeOfNetwork(id));
    if (!isFree) return undefined;
    const planes = groupBy(this.entries, (entry) => entry.plane.key);
    if (planes.size < 2) return undefined;
    const wanted = joined.groups.flatMap((group) => group.tasks.filter((task) => task.NodeID === undefined));
    const size = (entries: readonly NodeEntry[]) => entries.filter(isAvailable).length;
    const inOrder = [...planes.values()].sort((a, b) => size(b) - size(a) || loadOf(a) - loadOf(b));
    let best: { readonly entries: readonly NodeEntry[]; readonly count: number } | undefined;
    for (const entries of inOrder) {
      const count = this.countOn(entries, joined.groups);
      if (count === wanted.length) return entries;
      if (count > (best?.count ?? 0)) best = { entries, count };
    }
    return best?.entries;
  }

  /** How many of the groups' tasks have room on `entries`. */
  private countOn(entries: NodeEntry[], groups: readonly Group[]): number {
    const trial = new Attempt(this.view, this.nodes, this.now, entries);
    for (const group of groups) trial.assign(group);
    trial.takeBack();
    return trial.placed.length;
  }

  /** What is to be done; the reasons of those that wait are given as things stand after everything else was placed. */
  changes(): Change[] {
    const timestamp = new Date(this.now).toISOString();
    const [assigned, confirmed] = [assignedMessage, confirmedMessage].map((Message): Task['Status'] => ({
      Timestamp: timestamp,
      State: 'assigned',
      Message,
    }));
    const changes: Change[] = [];
    for (const { task, claim } of this.placed) {
      const fields: Partial<Task> =
        task.NodeID === undefined ? { NodeID: claim.entry.id, Status: assigned! } : { Status: confirmed! };
      if (claim.generic) fields.AssignedGenericResources = [...claim.generic];
      changes.push({ op: 'merge', kind: 'task', id: task.ID, fields });
    }
    for (const { tasks, reason } of this.unplaced) {
      const Err = reason();
      for (const task of tasks) {
        if (task.Status.Err === Err) continue;
        const Status = { ...task.Status, Timestamp: timestamp, Err };
        changes.push({ op: 'merge', kind: 'task', id: task.ID, fields: { Status } });
      }
    }
    return changes;
  }

  takeBack(): void {
    for (const { claim } of this.placed) this.nodes.giveBack(claim);
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

  /** The filters for a group; undefined, and a reason for each task, when its spec cannot be understood. */
  private checks(group: Group, task: Task): Check[] | undefined {
    const request: Request = { view: this.view, table: this.nodes, task, spec: group.spec };
    try {
      return checksOf(request);
    } catch (error) {
      this.wait(group.tasks, () => messageOf(error));
      return undefined;
    }
  }

  private place(task: Task, group: Group, entry: NodeEntry): void {
    const generic = group.asksGeneric ? pickGeneric(entry, group.spec) : undefined;
    const claim = claimOf(task, group.demand, entry, generic);
    this.nodes.take(claim);
    this.placed.push({ task, claim });
  }

  private wait(tasks: readonly Task[], reason: () => string): void {
    this.unplaced.push({ tasks, reason });
  }
}

/** The tasks that can be decided on, by revision: wanted, waiting, and with the addresses they need. */
function groupByRevision(view: View, pending: readonly Task[], nodes: NodeTable): Group[] {
  const kinds = new Map<RevisionId, Group | undefined>();
  const groups = new Map<string, Group>();
  for (const task of pending) {
    const { RevisionID } = task;
    if (task.Status.State !== 'pending' || !isWanted(task)) continue;
    if (!kinds.has(RevisionID)) kinds.set(RevisionID, emptyGroup(view, RevisionID, nodes));
    const kind = kinds.get(RevisionID);
    if (!kind || !hasAddresses(task, kind.attachments)) continue;
    // One that is bound to a node is alike only to those that are bound to the same.
    const key = task.Private.Home ? `${RevisionID} ${task.Private.Home} ${task.Slot}` : RevisionID;
    const group = groups.get(key);
    if (group) group.tasks.push(task);
    else groups.set(key, { ...kind, tasks: [task] });
  }
  return [...groups.values()];
}

function emptyGroup(view: View, revisionId: RevisionId, nodes: NodeTable): Group | undefined {
  const spec = view.get('revision', revisionId)?.Spec;
  if (!spec) return undefined;
  return {
    revisionId,
    spec,
    demand: nodes.demandOf(revisionId, spec),
    asksGeneric: asksGeneric(spec),
    attachments: clusterAttachments(view, spec),
    tasks: [],
  };
}

/**
 * Groups that share a network share a data plane, so those with the least choice of nodes go first.
 */
function byNeed(view: View, nodes: NodeTable, groups: readonly Group[]): readonly Group[] {
  const isBound = (group: Group) => group.attachments.length > 0;
  if (groups.filter(isBound).length < 2) return groups;
  const choices = new Map(groups.map((group) => [group, isBound(group) ? choiceOf(view, nodes, group) : 0]));
  return [...groups].sort((a, b) => choices.get(a)! - choices.get(b)!);
}

/** Groups whose networks, each a link, make them share a data plane. One without networks stands alone. */
interface Joined {
  readonly groups: Group[];
  readonly networks: NetworkId[];
}

function joinedByNetworks(groups: readonly Group[]): Iterable<Joined> {
  const all = new Set<Joined>();
  const holders = new Map<NetworkId, Joined>();
  for (const group of groups) {
    const networks = group.attachments.map(({ network }) => network.ID);
    if (networks.length === 0) {
      all.add({ groups: [group], networks });
      continue;
    }
    const linked = new Set(networks.map((id) => holders.get(id)).filter((one) => one !== undefined));
    const parts = [...linked, { groups: [group], networks }];
    const joined: Joined = {
      groups: parts.flatMap((part) => part.groups),
      networks: [...new Set(parts.flatMap((part) => part.networks))],
    };
    for (const part of linked) all.delete(part);
    all.add(joined);
    for (const id of joined.networks) holders.set(id, joined);
  }
  return all;
}

/** Tasks to a node, of the nodes of one data plane. */
function loadOf(entries: readonly NodeEntry[]): number {
  return entries.reduce((sum, entry) => sum + entry.activeTasks, 0) / entries.length;
}

function choiceOf(view: View, table: NodeTable, group: Group): number {
  const placement = group.spec.TaskTemplate.Placement;
  const isPicky = placement?.Constraints?.length || placement?.Platforms?.length;
  if (!isPicky && !group.spec.TaskTemplate.Resources?.Reservations) return table.nodes.size;
  try {
    const checks = checksOf({ view, table, task: group.tasks[0]!, spec: group.spec });
    const entries = [...table.nodes.values()];
    return entries.filter((entry) => checks.every((check) => check.passes(entry))).length;
  } catch {
    return 0;
  }
}

/** Why no node takes the task: every node counted under the first filter that it fails. */
function whyNone(entries: readonly NodeEntry[], checks: readonly Check[]): string {
  if (entries.length === 0) return 'no suitable node (the cluster has no nodes)';
  const failures = new Map<Check, NodeEntry[]>(checks.map((check) => [check, []]));
  for (const entry of entries) {
    const failed = checks.find((check) => !check.passes(entry));
    if (failed) failures.get(failed)!.push(entry);
  }
  return `no suitable node (${explain([...failures], entries.length)})`;
}

function whyNot(entry: NodeEntry, checks: readonly Check[]): string {
  const failed = checks.filter((check) => !check.passes(entry)).slice(0, 1);
  return `${nameOf(entry)} cannot take it (${explain(
    failed.map((check) => [check, [entry]]),
    1,
  )})`;
}

function explain(failures: readonly (readonly [Check, readonly NodeEntry[]])[], total: number): string {
  return failures
    .filter(([, entries]) => entries.length > 0)
    .flatMap(([check, entries]) => check.explain(entries, total))
    .join('; ');
}

function nameOf(entry: NodeEntry): string {
  return `node ${entry.node.Description.Hostname || entry.id}`;
}

// ---------------------------------------------------------------- as a reconciler

const pendingKey = 'pending';
const pendingKeys: readonly string[] = [pendingKey];
const noKeys: readonly string[] = [];

/**
 * The scheduler as the loop drives it. Its one key stands for all waiting tasks, which are decided on
 * together; its table of nodes follows the events that it is shown.
 */
export function schedulerReconciler(): Reconciler {
  let table: NodeTable | undefined;
  return {
    name: 'scheduler',
    keysFor(event, view) {
      table?.note(event, view);
      return isMoving(event) ? pendingKeys : noKeys;
    },
    allKeys(view) {
      table = NodeTable.build(view);
      return [pendingKey];
    },
    reconcile(view, _key, now) {
      const pending = view.find('task', 'state', 'pending');
      if (pending.length === 0) return nothing;
      table ??= NodeTable.build(view);
      return { changes: schedule(view, pending, table, now) };
    },
  };
}

/** Whether an event may let a waiting task go, or change the reason why it waits. */
function isMoving(event: StoreEvent): boolean {
  switch (event.kind) {
    case 'node':
      return true;
    case 'network':
      return event.op !== 'remove' && event.object.IPAMOptions !== event.previous?.IPAMOptions;
    case 'task': {
      const { object, previous } = event;
      if (event.op === 'remove') return object.NodeID !== undefined;
      if (object.Status.State !== 'pending') return hasLeft(object) && !(previous && hasLeft(previous));
      return (
        previous?.Status.State !== 'pending' ||
        previous.NetworksAttachments !== object.NetworksAttachments ||
        previous.DesiredState !== object.DesiredState
      );
    }
    default:
      return false;
  }
}

/** Whether a task stopped taking room from its node, or stopped counting as a replica there. */
function hasLeft(task: Task): boolean {
  return isTerminal(task.Status.State) || !isWanted(task);
}
