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

/** What one task takes from its node while it lives there. */
export interface Claim {
  readonly nodeId: NodeId;
  readonly serviceId: ServiceId;
  readonly nanoCpus: number;
  readonly memoryBytes: number;
  readonly generic: readonly GenericResource[];
  /** Host ports as `protocol/port`. */
  readonly ports: readonly string[];
  readonly networks: readonly NetworkId[];
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
  readonly tasks: Set<TaskId>;
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
    if (event.kind === 'node') {
      const node = view.get('node', event.object.ID);
      if (!node) this.dropNode(event.object.ID);
      else if (this.nodes.has(node.ID)) this.putNode(node);
      else {
        this.putNode(node);
        for (const task of view.find('task', 'node', node.ID)) this.putTask(task, view);
      }
    } else if (event.kind === 'task') {
      const task = view.get('task', event.object.ID);
      if (task) this.putTask(task, view);
      else this.release(event.object.ID);
      if (event.object.Status.State !== event.previous?.Status.State) this.noteFailure(event.object);
    }
  }

  /** Counts `claim` against its node as `taskId`'s, in place of the claim it had. */
  place(taskId: TaskId, claim: Claim): void {
    this.release(taskId);
    const entry = this.nodes.get(claim.nodeId);
    if (!entry) return;
    this.claims.set(taskId, claim);
    entry.tasks.add(taskId);
    this.count(entry, claim, 1);
  }

  /** Forgets what `taskId` takes. */
  release(taskId: TaskId): void {
    const claim = this.claims.get(taskId);
    if (!claim) return;
    this.claims.delete(taskId);
    const entry = this.nodes.get(claim.nodeId)!;
    entry.tasks.delete(taskId);
    this.count(entry, claim, -1);
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
    for (const nodeId of this.networks.get(networkId)?.keys() ?? []) {
      const entry = this.nodes.get(nodeId);
      if (entry && entry.node.Status.State !== 'down' && entry.node.Spec.Availability !== 'drain')
        return entry;
    }
    return undefined;
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
      const claims = [...entry.tasks].map((id) => [id, this.claims.get(id)!] as const);
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
    for (const taskId of [...entry.tasks]) this.release(taskId);
    this.nodes.delete(id);
  }

  private putTask(task: Task, view: View): void {
    const claim = claimOfTask(task, view);
    if (claim) this.place(task.ID, claim);
    else this.release(task.ID);
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

  private count(entry: NodeEntry, claim: Claim, sign: 1 | -1): void {
    entry.nanoCpus += sign * claim.nanoCpus;
    entry.memoryBytes += sign * claim.memoryBytes;
    if (claim.active) {
      entry.activeTasks += sign;
      add(entry.activeByService, claim.serviceId, sign);
      for (const network of claim.networks) add(inner(this.networks, network), entry.id, sign);
    }
    for (const resource of claim.generic) {
      const { NamedResourceSpec: named, DiscreteResourceSpec: discrete } = resource;
      if (named) add(entry.named, `${named.Kind}=${named.Value}`, sign);
      if (discrete) add(entry.discrete, discrete.Kind, sign * discrete.Value);
    }
    for (const port of claim.ports) add(inner(this.ports, entry.engine), port, sign);
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

/** What a task of `spec` takes from `nodeId`, with `generic` the resources picked for it. */
export function claimOf(
  task: Task,
  spec: ServiceSpec | undefined,
  nodeId: NodeId,
  generic: readonly GenericResource[],
): Claim {
  const reserved = spec?.TaskTemplate.Resources?.Reservations;
  return {
    nodeId,
    serviceId: task.ServiceID,
    nanoCpus: reserved?.NanoCPUs ?? 0,
    memoryBytes: reserved?.MemoryBytes ?? 0,
    generic,
    ports: spec ? hostPortsOf(spec) : [],
    networks: (task.NetworksAttachments ?? []).map((attachment) => attachment.NetworkID),
    active: isWanted(task),
  };
}

/** The claim of a stored task; undefined when it is not on a node, or no longer. */
function claimOfTask(task: Task, view: View): Claim | undefined {
  if (task.NodeID === undefined || isTerminal(task.Status.State)) return undefined;
  if (compareTaskStates(task.Status.State, 'assigned') < 0) return undefined;
  const spec = view.get('revision', task.RevisionID)?.Spec;
  return claimOf(task, spec, task.NodeID, task.AssignedGenericResources ?? []);
}

function emptyEntry(node: ClusterNode, engine: string): NodeEntry {
  return {
    id: node.ID,
    node,
    engine,
    plane: dataPlaneOf(node),
    nanoCpus: 0,
    memoryBytes: 0,
    tasks: new Set(),
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
