/**
 * The dispatcher: the leader's side of its agents' sessions.
 *
 * In: registrations, heartbeats and task reports of agents; commits of the store. Out: proposals that say
 * which nodes are ready or down and what their tasks do; to each agent, its node, its managers and its
 * assignments. It decides nothing about where tasks run, and it knows no transport: service.ts binds it to
 * gRPC and a simulator calls it directly. It runs on the leader alone, from start to stop.
 */
import { type ClusterNode, engineUnavailableLabel } from '../../proto/docker.ts';
import { isShoalError, messageOf, ShoalError } from '../../proto/errors.ts';
import type { AssignmentsMessage__Output as WireAssignments } from '../../proto/generated/docker/swarmkit/v1/AssignmentsMessage.ts';
import type { HeartbeatResponse__Output as WireHeartbeat } from '../../proto/generated/docker/swarmkit/v1/HeartbeatResponse.ts';
import type { SessionMessage__Output as WireSession } from '../../proto/generated/docker/swarmkit/v1/SessionMessage.ts';
import type { SessionRequest__Output as WireSessionRequest } from '../../proto/generated/docker/swarmkit/v1/SessionRequest.ts';
import type { EndpointsUpdate } from '../../proto/generated/shoal/v1/EndpointsUpdate.ts';
import { type Id, type NodeId, newId, type TaskId } from '../../proto/ids.ts';
import type { Clock, Log, Random } from '../../proto/ports.ts';
import type { Sink, StreamHandle } from '../../proto/rpc-stream.ts';
import type { Propose } from '../store/change.ts';
import { hasDataPlane } from '../store/data-plane.ts';
import type { View } from '../store/store.ts';
import type { Commit, StoreEvent } from '../store/watch.ts';
import { AssignmentSet } from './assignments.ts';
import { wireDuration } from './container-spec.ts';
import { EndpointsBoard, type WatchHandle } from './endpoints.ts';
import { Pump } from './pump.ts';
import { downAfterMs, heartbeatPeriodMs, type Missed, SessionTable } from './sessions.ts';
import { splitAssignments } from './split.ts';
import { changeOfReport, type Report, StatusBatch } from './status.ts';
import { dockerDescription, isShoalAgent, wireManagers, wireNetworkKeys, wireNode } from './wire.ts';

/** The period on a small cluster whose spec names none. */
const defaultHeartbeatMs = 1_000;
const nanosPerMillisecond = 1_000_000;
/** How soon a node's loss is proposed again when the proposal failed. */
const retryDownMs = 1_000;

/** The agent that calls, as its certificate and its connection say. */
export interface Agent {
  readonly nodeId: NodeId;
  /** The role of its certificate. */
  readonly role: 'manager' | 'worker';
  /** The address that it calls from, without a port. */
  readonly address: string;
}

export interface DispatcherOptions {
  readonly store: View & { onCommit(listener: (commit: Commit) => void): () => void };
  readonly propose: Propose;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Hears how long it took from a change of networks to a node's word that its kernel holds it. */
  readonly observeConvergence?: ((tookMs: number) => void) | undefined;
}

/** A session that stands. */
export interface SessionHandle extends StreamHandle {
  readonly sessionId: string;
}

interface Connection {
  readonly nodeId: NodeId;
  readonly sessionId: string;
  readonly sink: Sink<WireSession>;
  readonly pump: Pump;
  /** The agent ended its session stream itself; it is down when it does not come back in time. */
  hasLeft: boolean;
  /** Something in the session message changed and no message says so yet. */
  isStale: boolean;
  assignments: AssignmentStream | undefined;
}

interface AssignmentStream {
  readonly sink: Sink<WireAssignments>;
  readonly pump: Pump;
  /** Tasks that changed since the last message; 'all' makes the next one COMPLETE. */
  dirty: Set<TaskId> | 'all';
}

export class Dispatcher {
  private readonly store: DispatcherOptions['store'];
  private readonly clock: Clock;
  private readonly random: Random;
  private readonly log: Log;
  private readonly batch: StatusBatch;
  private readonly table: SessionTable;
  private readonly connections = new Map<NodeId, Connection>();
  /** What the data planes of nodes are told, hold and can't do. */
  readonly endpoints: EndpointsBoard;
  /** How many descriptions of a node are on their way into the store. */
  private readonly describing = new Map<NodeId, number>();
  private unsubscribe: (() => void) | undefined;

  constructor(options: DispatcherOptions) {
    this.store = options.store;
    this.clock = options.clock;
    this.random = options.random;
    this.log = options.log;
    this.batch = new StatusBatch(options.propose);
    this.endpoints = new EndpointsBoard({
      store: options.store,
      clock: options.clock,
      log: options.log,
      onWithdrawn: (task) => this.wakeTask(task.NodeID, task.ID),
      commit: (change) => this.batch.add(change),
      observeConvergence: options.observeConvergence,
    });
    this.table = new SessionTable(options.clock, (missed) => this.onMissed(missed));
  }

  /** Begins to lead: nodes that were ready have a while to find this manager, longer after a restore. */
  start(): void {
    if (this.unsubscribe !== undefined) return;
    const restoredMs = (this.store.cluster()?.Private.AwaitNodesUntilMs ?? 0) - this.clock.now();
    const graceMs = Math.max(downAfterMs(this.periodMs()), restoredMs);
    this.unsubscribe = this.store.onCommit((commit) => this.onCommit(commit));
    this.endpoints.start(graceMs);
    for (const node of this.store.list('node')) {
      if (node.Status.State === 'ready' || node.Status.State === 'disconnected') {
        this.table.expect(node.ID, graceMs);
      }
    }
  }

  /** Stops leading: every stream is ended and names the new leader when it is known. */
  stop(leaderAddress?: string): void {
    this.unsubscribe?.();
    this.unsubscribe = undefined;
    this.table.clear();
    this.endpoints.stop(notLeader(leaderAddress));
    for (const connection of [...this.connections.values()]) this.end(connection, notLeader(leaderAddress));
  }

  /** How many nodes have a session. */
  get sessionCount(): number {
    return this.connections.size;
  }

  /**
   * Registers an agent: stores its description, makes its node ready and sends it a session message, and more
   * of them as its node, the managers or the keys change. Rejects with `not-found` for a node that is no
   * longer in the cluster, `failed-precondition` for a stock engine with a manager's certificate.
   */
  async session(agent: Agent, request: WireSessionRequest, sink: Sink<WireSession>): Promise<SessionHandle> {
    this.requireStarted();
    const node = this.requireNode(agent.nodeId);
    if (agent.role === 'manager' && !isShoalAgent(request.description)) throw stockManager(agent.nodeId);
    const previous = this.connections.get(agent.nodeId);
    if (previous) this.end(previous, new ShoalError('conflict', 'the node opened a newer session'));

    const connection = this.connect(agent.nodeId, sink);
    this.table.register(agent.nodeId, connection.sessionId, this.periodMs());
    try {
      await this.makeReady(node, agent, request);
    } catch (error) {
      if (this.isCurrent(connection)) {
        // Not stored: the node is in the state it was in, and has as long as after a change of leader.
        this.connections.delete(agent.nodeId);
        this.table.forget(agent.nodeId);
        if (node.Status.State === 'ready') this.table.expect(agent.nodeId, downAfterMs(this.periodMs()));
      }
      throw error;
    }
    if (!this.isCurrent(connection)) {
      throw new ShoalError('unavailable', 'the session ended while it was being registered: try again');
    }
    this.log.info({ node: agent.nodeId, address: agent.address }, 'node registered');
    connection.pump.wake();
    return {
      sessionId: connection.sessionId,
      close: () => {
        connection.hasLeft = true;
        connection.pump.stop();
      },
    };
  }

  /** Notes that the node lives; answers after how long it should say so again. Throws for a wrong session. */
  heartbeat(nodeId: NodeId, sessionId: string): WireHeartbeat {
    this.requireSession(nodeId, sessionId);
    const periodMs = this.periodMs();
    this.table.beat(nodeId, periodMs);
    return { period: wireDuration(periodMs * nanosPerMillisecond) };
  }

  /** Stores reports of the node's tasks; resolves when they are committed. Throws for a wrong session. */
  async updateTaskStatus(nodeId: NodeId, sessionId: string, reports: readonly Report[]): Promise<void> {
    this.requireSession(nodeId, sessionId);
    const now = this.clock.now();
    const changes = reports.flatMap((report) => changeOfReport(this.store, nodeId, report, now) ?? []);
    await Promise.all(changes.map((change) => this.batch.add(change)));
  }

  /** Streams the node its assignments, in place of an older stream. Throws for a wrong session. */
  assignments(nodeId: NodeId, sessionId: string, sink: Sink<WireAssignments>): StreamHandle {
    const connection = this.requireSession(nodeId, sessionId);
    if (connection.assignments) {
      endStream(connection.assignments, new ShoalError('conflict', 'the node asked again'));
    }
    const set = new AssignmentSet(nodeId, (id) => this.isWithheld(id));
    const stream: AssignmentStream = {
      sink,
      dirty: 'all',
      pump: new Pump(
        () => {
          const dirty = stream.dirty;
          stream.dirty = new Set();
          const message = dirty === 'all' ? set.complete(this.store) : set.incremental(this.store, dirty);
          return message && sendInParts(sink, message);
        },
        (error) => this.onStreamError(nodeId, sink, error),
      ),
    };
    connection.assignments = stream;
    stream.pump.wake();
    return {
      close: () => {
        stream.pump.stop();
        if (connection.assignments === stream) connection.assignments = undefined;
      },
    };
  }

  /** Tells the node's data plane what it is to hold, and takes its reports. Throws while this manager does not lead. */
  watchEndpoints(nodeId: NodeId, sink: Sink<EndpointsUpdate>): WatchHandle {
    this.requireStarted();
    this.requireNode(nodeId);
    return this.endpoints.watch(nodeId, sink);
  }

  /** Whether the task's agent is not told to stop it yet, for some node may still send connections to it. */
  isWithheld(taskId: TaskId): boolean {
    return this.endpoints.isWithheld(taskId);
  }

  private connect(nodeId: NodeId, sink: Sink<WireSession>): Connection {
    const connection: Connection = {
      nodeId,
      sessionId: newId<Id<'session'>>(this.random),
      sink,
      hasLeft: false,
      isStale: false,
      assignments: undefined,
      pump: new Pump(
        () => {
          connection.isStale = false;
          return sink.send(this.sessionMessage(connection));
        },
        (error) => this.onStreamError(nodeId, sink, error),
      ),
    };
    this.connections.set(nodeId, connection);
    return connection;
  }

  private async makeReady(node: ClusterNode, agent: Agent, request: WireSessionRequest): Promise<void> {
    const description = dockerDescription(request.description);
    const unavailable = description.Engine.Labels[engineUnavailableLabel];
    const status: ClusterNode['Status'] = {
      State: 'ready',
      ...(unavailable !== undefined && { Message: `the container engine does not answer: ${unavailable}` }),
      Addr: addressOf(node, agent),
    };
    // What it can't do was told by a data plane that it has no more.
    const isFreed = (node.Problems ?? []).length > 0 && !hasDataPlane({ ...node, Description: description });
    const isKnown =
      !isFreed && JSON.stringify([node.Description, node.Status]) === JSON.stringify([description, status]);
    // What an earlier session said may be on its way into the store still: the later word counts.
    const underWay = this.describing.get(node.ID) ?? 0;
    if (isKnown && underWay === 0) return;
    this.describing.set(node.ID, underWay + 1);
    const fields = { Description: description, Status: status, ...(isFreed ? { Problems: [] } : {}) };
    try {
      await this.batch.add({ op: 'merge', kind: 'node', id: node.ID, fields });
    } finally {
      const left = (this.describing.get(node.ID) ?? 1) - 1;
      if (left > 0) this.describing.set(node.ID, left);
      else this.describing.delete(node.ID);
    }
  }

  private sessionMessage(connection: Connection): WireSession {
    const node = this.requireNode(connection.nodeId);
    const cluster = this.store.cluster();
    return {
      session_id: connection.sessionId,
      node: {
        ...wireNode(node, (id) => this.store.get('network', id)),
        ...(cluster ? { VXLANUDPPort: cluster.DataPathPort } : {}),
      },
      managers: wireManagers(this.store.find('node', 'role', 'manager')),
      network_bootstrap_keys: cluster === undefined ? [] : wireNetworkKeys(cluster),
      RootCA: Buffer.from(cluster?.TLSInfo.TrustRoot ?? ''),
    };
  }

  private periodMs(): number {
    const nanoseconds = this.store.cluster()?.Spec.Dispatcher.HeartbeatPeriod;
    const baseMs = nanoseconds ? nanoseconds / nanosPerMillisecond : defaultHeartbeatMs;
    return heartbeatPeriodMs(this.store.count('node'), baseMs);
  }

  // -------------------------------------------------------------- nodes that are lost

  private onMissed(missed: Missed): void {
    const connection = this.connections.get(missed.nodeId);
    const reason = missedReason(missed, connection?.hasLeft === true);
    this.log.warn({ node: missed.nodeId, reason }, 'node is down');
    if (connection) this.end(connection, new ShoalError('timeout', reason));
    this.makeDown(missed.nodeId, reason);
  }

  private makeDown(nodeId: NodeId, reason: string): void {
    if (this.unsubscribe === undefined || this.table.isRegistered(nodeId)) return;
    const node = this.store.get('node', nodeId);
    if (node === undefined || node.Status.State === 'down') return;
    const fields = { Status: { State: 'down', Message: reason, Addr: node.Status.Addr } as const };
    this.batch.add({ op: 'merge', kind: 'node', id: nodeId, fields }).catch((error: unknown) => {
      this.log.warn({ node: nodeId, error: messageOf(error) }, 'cannot store that the node is down');
      this.clock.after(retryDownMs, () => this.makeDown(nodeId, reason));
    });
  }

  /** A node's loss was on its way into the store when its agent came back: the later word counts. */
  private makeReadyAgain(connection: Connection, node: ClusterNode): void {
    const fields = { Status: { State: 'ready', Addr: node.Status.Addr } as const };
    this.batch.add({ op: 'merge', kind: 'node', id: node.ID, fields }).catch((error: unknown) => {
      this.end(connection, isShoalError(error) ? error : new ShoalError('unavailable', messageOf(error)));
    });
  }

  // -------------------------------------------------------------- what the store says

  private onCommit(commit: Commit): void {
    // First, for an assignment may have to wait for it.
    this.endpoints.onCommit(commit);
    if (commit.kind === 'restored') {
      for (const connection of this.connections.values()) {
        this.wakeSession(connection);
        if (connection.assignments) this.wakeAssignments(connection.assignments, 'all');
      }
      return;
    }
    let isForAll = false;
    for (const event of commit.events) {
      if (event.kind === 'task') this.onTask(event);
      else if (event.kind === 'node') isForAll = this.onNode(event) || isForAll;
      else if (event.kind === 'cluster') {
        isForAll ||=
          event.previous?.TLSInfo !== event.object.TLSInfo ||
          event.previous?.Private.NetworkKeys !== event.object.Private.NetworkKeys;
      }
    }
    if (isForAll) for (const connection of this.connections.values()) this.wakeSession(connection);
  }

  private onTask(event: Extract<StoreEvent, { kind: 'task' }>): void {
    for (const nodeId of new Set([event.object.NodeID, event.previous?.NodeID])) {
      this.wakeTask(nodeId, event.object.ID);
    }
  }

  private wakeTask(nodeId: NodeId | undefined, taskId: TaskId): void {
    const stream = nodeId === undefined ? undefined : this.connections.get(nodeId)?.assignments;
    if (stream) this.wakeAssignments(stream, taskId);
  }

  /** Answers whether the list of managers changed, which every agent is told of. */
  private onNode(event: Extract<StoreEvent, { kind: 'node' }>): boolean {
    const { object: node, previous } = event;
    const connection = this.connections.get(node.ID);
    if (event.op === 'remove') {
      this.table.forget(node.ID);
      if (connection) this.end(connection, nodeNotFound(node.ID));
      return node.ManagerStatus !== undefined;
    }
    const wentDown = node.Status.State === 'down' && previous?.Status.State !== 'down';
    if (wentDown && connection && this.table.isRegistered(node.ID)) this.makeReadyAgain(connection, node);
    const isTold =
      previous?.Spec === node.Spec &&
      previous.Private === node.Private &&
      previous.Attachments === node.Attachments;
    if (connection && !isTold) {
      this.wakeSession(connection);
    }
    return previous?.ManagerStatus?.Addr !== node.ManagerStatus?.Addr;
  }

  /** The message is made after this turn, so that entries that are applied together share it. */
  private wakeSession(connection: Connection): void {
    if (connection.isStale) return;
    connection.isStale = true;
    void Promise.resolve().then(() => {
      if (connection.isStale && this.isCurrent(connection)) connection.pump.wake();
    });
  }

  private wakeAssignments(stream: AssignmentStream, change: TaskId | 'all'): void {
    const wasClean = stream.dirty !== 'all' && stream.dirty.size === 0;
    if (change === 'all') stream.dirty = 'all';
    else if (stream.dirty !== 'all') stream.dirty.add(change);
    if (wasClean) void Promise.resolve().then(() => stream.pump.wake());
  }

  // -------------------------------------------------------------- sessions

  private isCurrent(connection: Connection): boolean {
    return this.unsubscribe !== undefined && this.connections.get(connection.nodeId) === connection;
  }

  private end(connection: Connection, error: ShoalError): void {
    if (this.connections.get(connection.nodeId) === connection) this.connections.delete(connection.nodeId);
    connection.pump.stop();
    if (connection.assignments) endStream(connection.assignments, error);
    if (!connection.hasLeft) connection.sink.end(error);
  }

  private onStreamError(nodeId: NodeId, sink: Sink<never>, error: unknown): void {
    if (!isShoalError(error, 'not-found')) {
      this.log.error({ node: nodeId, error: messageOf(error) }, 'cannot write to the agent');
    }
    sink.end(isShoalError(error) ? error : new ShoalError('internal', messageOf(error), { cause: error }));
  }

  private requireStarted(): void {
    if (this.unsubscribe === undefined) throw notLeader(undefined);
  }

  private requireNode(nodeId: NodeId): ClusterNode {
    const node = this.store.get('node', nodeId);
    if (node === undefined) throw nodeNotFound(nodeId);
    return node;
  }

  private requireSession(nodeId: NodeId, sessionId: string): Connection {
    this.requireStarted();
    const connection = this.connections.get(nodeId);
    if (connection === undefined) {
      throw new ShoalError('not-found', `node ${nodeId} is not registered: open a session first`);
    }
    if (!this.table.isCurrent(nodeId, sessionId)) {
      throw new ShoalError('invalid-argument', 'this is not the current session of the node: open a new one');
    }
    return connection;
  }
}

async function sendInParts(sink: Sink<WireAssignments>, message: WireAssignments): Promise<void> {
  for (const part of splitAssignments(message)) await sink.send(part);
}

function endStream(stream: AssignmentStream, error: ShoalError): void {
  stream.pump.stop();
  stream.sink.end(error);
}

/** The error of a call that only the leader can answer; `shoal-leader` tells our agents where to go. */
export function notLeader(leaderAddress: string | undefined): ShoalError {
  return leaderAddress === undefined
    ? new ShoalError(
        'not-leader',
        'this manager is not the leader, and it knows of none: try another or wait',
      )
    : new ShoalError('not-leader', `this manager is not the leader: ask ${leaderAddress}`, {
        details: { leader: leaderAddress },
      });
}

function nodeNotFound(nodeId: NodeId): ShoalError {
  return new ShoalError('not-found', `node ${nodeId} not found: it was removed from the cluster`);
}

function stockManager(nodeId: NodeId): ShoalError {
  return new ShoalError(
    'failed-precondition',
    `node ${nodeId} joined with a manager token, but a Docker Engine can't be a manager of a Shoal cluster: ` +
      'leave with "docker swarm leave --force" and join with the worker token, or run shoald there',
  );
}

function missedReason(missed: Missed, hasLeft: boolean): string {
  const seconds = Number((missed.afterMs / 1000).toFixed(1));
  if (missed.sessionId === undefined) {
    return `heartbeat failure: the node did not come back within ${seconds} s after the leader changed or the cluster was restored`;
  }
  if (hasLeft)
    return `heartbeat failure: the agent's connection ended, and nothing was heard from the node for ${seconds} s`;
  return `heartbeat failure: nothing heard from the node for ${seconds} s`;
}

/** A manager's own agent calls over loopback: the address of its cluster port says more. */
function addressOf(node: ClusterNode, agent: Agent): string {
  const address = agent.address.replace(/^::ffff:/, '');
  const isLoopback = address === '::1' || address.startsWith('127.');
  const ownPort = node.ManagerStatus?.Addr;
  return isLoopback && ownPort ? ownPort.slice(0, ownPort.lastIndexOf(':')) : address;
}
