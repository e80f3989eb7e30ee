/**
 * What the nodes have left: capacity, ports and tasks, counted from the stored tasks and kept up to date
 * event by event, so that an event costs as much as it concerns.
 */
import type { ClusterNode, GenericResource, ServiceSpec, Task } from '../../proto/docker.ts';
import type { NetworkId, NodeId, RevisionId, ServiceId, TaskId } from '../../proto/ids.ts';
import { compareTaskStates, isTerminal } from '../../proto/task-state.ts';
import { type DataPlane, dataPlaneOf, engineOf } from '../store/data-plane.ts';
import type { View } from '../store/store.ts';
import type { StoreEvent } from '../store/watch.ts';

/** How long a failure counts against a node, as in SwarmKit. */
export const failureWindowMs = 5 * 60_000;

/** What a task of a revision takes from whatever node it is on: one for all that are alike. */
export interface Demand {
  readonly nanoCpus: number;
  readonly memoryBytes: number;
  /** Host ports as `protocol/port`. */
  readonly ports: readonly string[];
}

/** What one task takes from its node while it lives there. */
export interface Claim {
  readonly entry: NodeEntry;
  readonly serviceId: ServiceId;
  readonly demand: Demand;
  /** Of the kinds that are counted or named; absent: none. */
  readonly generic: readonly GenericResource[] | undefined;
  readonly attachments: Task['NetworksAttachments'];
  /** Whether the task is wanted: one that is being stopped takes room but is no replica any more. */
  readonly active: boolean;
}

/** One node with what its tasks take. */
export interface NodeEntry {
  readonly id: NodeId;
  node: ClusterNode;
  /** The engine that runs the node's containers: nodes that share one share its host ports. */
  engine: string;
  /** Whose containers the node's can reach over networks of the cluster. */
  plane: DataPlane;
  nanoCpus: number;
  memoryBytes: number;
  /** How many tasks take something. */
  claims: number;
  /** How many of them are wanted. */
  activeTasks: number;
  readonly activeByService: Map<ServiceId, number>;
  /** Claimed named resources as `kind=value`. */
  readonly named: Map<string, number>;
  /** Claimed amounts of discrete resources by kind. */
  readonly discrete: Map<string, number>;
  /** When tasks of a revision failed here; ms since the epoch, in no order. */
  readonly failures: Map<RevisionId, number[]>;
}

export class NodeTable {
  readonly nodes = new Map<NodeId, NodeEntry>();
  private readonly claims = new Map<TaskId, Claim>();
  /** engine → `protocol/port` → tasks that hold it. */
  private readonly ports = new Map<string, Map<string, number>>();
  /** network → node → tasks on it that are wanted there. */
  private readonly networks = new Map<NetworkId, Map<NodeId, number>>();
  /** Of the revisions that tasks have been made from, while they are kept. */
  private readonly demands = new Map<RevisionId, Demand>();

  /** The table of everything in `view`. */
  static build(view: View): NodeTable {
    const table = new NodeTable();
    for (const node of view.list('node')) table.putNode(node);
    for (const task of view.list('task')) {
      table.putTask(task, view);
      table.noteFailure(task);
    }
    return table;
  }

  /**
   * Follows one event. It reads what `view` holds now of the object that the event names, so that events
   * may come late or twice.
   */
  note(event: StoreEvent, view: View): void {
    if (event.kind === 'task') {
      const task = view.get('task', event.object.ID);
      if (task) this.putTask(task, view);
      else this.release(event.object.ID);
      if (event.object.Status.State !== event.previous?.Status.State) this.noteFailure(event.object);
    } else if (event.kind === 'node') {
      const node = view.get('node', event.object.ID);
      if (!node) this.dropNode(event.object.ID);
      else if (this.nodes.has(node.ID)) this.putNode(node);
      else {
        this.putNode(node);
        for (const task of view.find('task', 'node', node.ID)) this.putTask(task, view);
      }
    } else if (event.kind === 'revision') this.demands.delete(event.object.ID);
  }

  /** Counts `claim` against its node as `taskId`'s, in place of the claim it had. */
  place(taskId: TaskId, claim: Claim): void {
    this.release(taskId);
    this.claims.set(taskId, claim);
    this.count(claim, 1);
  }

  /** Forgets what `taskId` takes. */
  release(taskId: TaskId): void {
    const claim = this.claims.get(taskId);
    if (!claim) return;
    this.claims.delete(taskId);
    this.count(claim, -1);
  }

  /** What `taskId` takes, if it is on a node. */
  claim(taskId: TaskId): Claim | undefined {
    return this.claims.get(taskId);
  }

  /** Counts a claim that is not a task's yet, for as long as it takes to decide: giveBack must follow. */
  take(claim: Claim): void {
    this.count(claim, 1);
  }

  giveBack(claim: Claim): void {
    this.count(claim, -1);
  }

  /** What tasks of a revision take; `spec` is the revision's, if it is still there. */
  demandOf(id: RevisionId, spec: ServiceSpec | undefined): Demand {
    const known = this.demands.get(id);
    if (known) return known;
    const demand = demandOfSpec(spec);
    if (spec) this.demands.set(id, demand);
    return demand;
  }

  /** Whether a task holds the host port (`protocol/port`) on the node's engine. */
  isPortTaken(entry: NodeEntry, port: string): boolean {
    return (this.ports.get(entry.engine)?.get(port) ?? 0) > 0;
  }

  /**
   * A node on which a task of the network lives and will stay, if there is one. Tasks that are being stopped
   * do not count, nor those on nodes that are down or drained: they are about to live elsewhere.
   */
  nodeOfNetwork(networkId: NetworkId): NodeEntry | undefined {
    let proxy: NodeEntry | undefined;
    for (const nodeId of this.networks.get(networkId)?.keys() ?? []) {
      const entry = this.nodes.get(nodeId);
      if (!entry || entry.node.Status.State === 'down' || entry.node.Spec.Availability === 'drain') continue;
      // A proxy takes part in the ingress network of whatever other nodes it is.
      if (entry.plane.kind !== 'proxy') return entry;
      proxy ??= entry;
    }
    return proxy;
  }

  /** How often tasks of the revision failed on the node in the five minutes before `now`. */
  recentFailures(entry: NodeEntry, revisionId: RevisionId, now: number): number {
    const times = entry.failures.size === 0 ? undefined : entry.failures.get(revisionId);
    return times ? times.filter((time) => time > now - failureWindowMs).length : 0;
  }

  private putNode(node: ClusterNode): void {
    const engine = engineOf(node);
    const entry = this.nodes.get(node.ID);
    if (!entry) {
      this.nodes.set(node.ID, emptyEntry(node, engine));
    } else if (entry.engine === engine) {
      entry.node = node;
      entry.plane = dataPlaneOf(node);
    } else {
      const claims = this.claimsOn(entry);
      for (const [id] of claims) this.release(id);
      entry.node = node;
      entry.engine = engine;
      entry.plane = dataPlaneOf(node);
      for (const [id, claim] of claims) this.place(id, claim);
    }
  }

  private dropNode(id: NodeId): void {
    const entry = this.nodes.get(id);
    if (!entry) return;
    for (const [taskId] of this.claimsOn(entry)) this.release(taskId);
    this.nodes.delete(id);
  }

  /** All claims on a node: rarely asked, for it looks at all there are, but those of a node without any. */
  private claimsOn(entry: NodeEntry): [TaskId, Claim][] {
    return entry.claims === 0 ? [] : [...this.claims].filter(([, claim]) => claim.entry === entry);
  }

  private putTask(task: Task, view: View): void {
    const claim = this.claims.get(task.ID);
    const entry = isOnNode(task) ? this.nodes.get(task.NodeID!) : undefined;
    if (!entry) {
      if (claim) this.release(task.ID);
      return;
    }
    const demand =
      this.demands.get(task.RevisionID) ??
      this.demandOf(task.RevisionID, view.get('revision', task.RevisionID)?.Spec);
    const generic = task.AssignedGenericResources;
    const next = claimOf(task, demand, entry, generic);
    if (!claim || !isSameClaim(claim, next)) this.place(task.ID, next);
  }

  /** Notes a failure that says something of the node: not that of a task that had no choice of node. */
  private noteFailure(task: Task): void {
    if (task.Status.State !== 'failed' && task.Status.State !== 'rejected') return;
    const entry = task.NodeID === undefined ? undefined : this.nodes.get(task.NodeID);
    if (!entry || task.Slot === undefined) return;
    const time = Date.parse(task.Status.Timestamp);
    if (Number.isNaN(time)) return;
    for (const [revision, times] of entry.failures) {
      const recent = times.filter((one) => one > time - failureWindowMs);
      if (recent.length === 0) entry.failures.delete(revision);
      else entry.failures.set(revision, recent);
    }
    entry.failures.set(task.RevisionID, [...(entry.failures.get(task.RevisionID) ?? []), time]);
  }

  private count(claim: Claim, sign: 1 | -1): void {
    const { entry, demand, generic, attachments } = claim;
    entry.claims += sign;
    entry.nanoCpus += sign * demand.nanoCpus;
    entry.memoryBytes += sign * demand.memoryBytes;
    if (claim.active) {
      entry.activeTasks += sign;
      add(entry.activeByService, claim.serviceId, sign);
      if (attachments) {
        for (const { NetworkID } of attachments) add(inner(this.networks, NetworkID), entry.id, sign);
      }
    }
    if (generic) {
      for (const { NamedResourceSpec: named, DiscreteResourceSpec: discrete } of generic) {
        if (named) add(entry.named, `${named.Kind}=${named.Value}`, sign);
        if (discrete) add(entry.discrete, discrete.Kind, sign * discrete.Value);
      }
    }
    for (const port of demand.ports) add(inner(this.ports, entry.engine), port, sign);
  }
}

/** Host ports that a service's tasks hold, as `protocol/port`; ports that the engine chooses are not among them. */
export function hostPortsOf(spec: ServiceSpec): string[] {
  return (spec.EndpointSpec?.Ports ?? [])
    .filter((port) => port.PublishMode === 'host' && port.PublishedPort)
    .map((port) => `${port.Protocol ?? 'tcp'}/${port.PublishedPort}`);
}

/** Whether a task is wanted alive, as opposed to being stopped or forgotten. */
export function isWanted(task: Task): boolean {
  return task.DesiredState !== 'shutdown' && task.DesiredState !== 'remove';
}

/** What a task takes from a node, with `generic` the resources picked for it. */
export function claimOf(
  task: Task,
  demand: Demand,
  entry: NodeEntry,
  generic: readonly GenericResource[] | undefined,
): Claim {
  return {
    entry,
    serviceId: task.ServiceID,
    demand,
    generic,
    attachments: task.NetworksAttachments,
    active: isWanted(task),
  };
}

/** Whether a claim may stand for the other: what it refers to never changes, so that the very same is enough. */
function isSameClaim(one: Claim, other: Claim): boolean {
  return (
    one.entry === other.entry &&
    one.demand === other.demand &&
    one.active === other.active &&
    one.generic === other.generic &&
    one.attachments === other.attachments &&
    one.serviceId === other.serviceId
  );
}

function demandOfSpec(spec: ServiceSpec | undefined): Demand {
  const reserved = spec?.TaskTemplate.Resources?.Reservations;
  return {
    nanoCpus: reserved?.NanoCPUs ?? 0,
    memoryBytes: reserved?.MemoryBytes ?? 0,
    ports: spec ? hostPortsOf(spec) : [],
  };
}

/** Whether a stored task takes something from its node. */
function isOnNode(task: Task): boolean {
  if (task.NodeID === undefined || isTerminal(task.Status.State)) return false;
  return compareTaskStates(task.Status.State, 'assigned') >= 0;
}

function emptyEntry(node: ClusterNode, engine: string): NodeEntry {
  return {
    id: node.ID,
    node,
    engine,
    plane: dataPlaneOf(node),
    nanoCpus: 0,
    memoryBytes: 0,
    claims: 0,
    activeTasks: 0,
    activeByService: new Map(),
    named: new Map(),
    discrete: new Map(),
    failures: new Map(),
  };
}

/** Adds to a counter, which is gone when it is zero. */
function add<K>(counters: Map<K, number>, key: K, amount: number): void {
  const next = (counters.get(key) ?? 0) + amount;
  if (next === 0) counters.delete(key);
  else counters.set(key, next);
}

function inner<K, L>(maps: Map<K, Map<L, number>>, key: K): Map<L, number> {
  let found = maps.get(key);
  if (!found) {
    found = new Map();
    maps.set(key, found);
  }
  return found;
}
