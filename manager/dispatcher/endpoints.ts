/**
 * The leader's side of shoal.v1.Endpoints/Watch: tells each node's data plane what it is to hold, and knows what it
 * does hold. In: watches of nodes, their reports, commits of the store. Out: updates, whole at first and then by what
 * changed; and the word that an endpoint which is to stop gets no more connections from anywhere, before which its
 * agent is not told to stop it. That wait is bounded: a node that does not answer holds up nobody for long.
 */
import { type ClusterNode, dataPathLabel, type Task } from '../../proto/docker.ts';
import { isShoalError, messageOf, ShoalError } from '../../proto/errors.ts';
import type { EndpointsAnswer } from '../../proto/generated/shoal/v1/EndpointsAnswer.ts';
import type { EndpointsQuestion } from '../../proto/generated/shoal/v1/EndpointsQuestion.ts';
import type { EndpointsReport } from '../../proto/generated/shoal/v1/EndpointsReport.ts';
import type { EndpointsUpdate } from '../../proto/generated/shoal/v1/EndpointsUpdate.ts';
import type { OverlayNetwork } from '../../proto/generated/shoal/v1/OverlayNetwork.ts';
import type { OverlayService } from '../../proto/generated/shoal/v1/OverlayService.ts';
import type { ProgrammedNode } from '../../proto/generated/shoal/v1/ProgrammedNode.ts';
import type { ProgrammedResponse } from '../../proto/generated/shoal/v1/ProgrammedResponse.ts';
import type { NetworkId, NodeId, ServiceId, TaskId } from '../../proto/ids.ts';
import type { Clock, Log, Timer } from '../../proto/ports.ts';
import type { Sink, StreamHandle } from '../../proto/rpc-stream.ts';
import { dataPlaneOf, hasDataPlane, isProxy, whyUnheard } from '../store/data-plane.ts';
import type { View } from '../store/store.ts';
import type { Commit, StoreEvent } from '../store/watch.ts';
import { ContainerAttachments } from './attachments.ts';
import {
  asToldTo,
  concernedBy,
  isDraining,
  isEndpoint,
  networkIdsOf,
  networkStateOf,
  nodesWithWayTo,
  serviceIdsOn,
  serviceStateOf,
} from './endpoint-state.ts';
import { NodeProblems } from './problems.ts';
import { Pump } from './pump.ts';
import { Questions } from './questions.ts';
import type { StatusChange } from './status.ts';
import { Withdrawals, withdrawalTimeoutMs } from './withdrawals.ts';

/** Changes that come close together are told as one. */
const gatherMs = 10;
/** Of a node that confirms nothing for long no more are measured. */
const maxUnconfirmed = 1_000;

export interface EndpointsOptions {
  readonly store: View;
  readonly clock: Clock;
  readonly log: Log;
  /** The task's endpoint is withdrawn everywhere: its agent may be told to stop it. */
  readonly onWithdrawn: (task: Task) => void;
  /** Hears how long it took from a change to a node's word that its kernel holds it. */
  readonly observeConvergence?: ((tookMs: number) => void) | undefined;
  /** Resolves when the change is committed. */
  readonly commit: (change: StatusChange) => Promise<void>;
}

export interface WatchHandle extends StreamHandle {
  report(report: EndpointsReport): void;
}

interface Watcher {
  readonly nodeId: NodeId;
  readonly sink: Sink<EndpointsUpdate>;
  readonly pump: Pump;
  /** What was sent, by id. */
  readonly networks: Map<NetworkId, Sent>;
  readonly services: Map<ServiceId, Sent>;
  dirtyNetworks: Set<NetworkId> | 'all';
  dirtyServices: Set<ServiceId>;
  /** Text of the word of attachments that was sent. */
  attachments: string;
  isFirst: boolean;
  /** Index of the newest update that was sent. */
  sent: number;
  /** Index of the newest update that its kernel holds. */
  confirmed: number;
  /** When the first of the changes was that are to be told next. */
  changedAtMs: number | undefined;
  /** Updates that it was told and has not confirmed, and when their changes were. */
  unconfirmed: { readonly revision: number; readonly atMs: number }[];
}

/** An item as it was sent, and with which update. */
interface Sent {
  readonly text: string;
  readonly revision: number;
}

/** The items of an update. */
interface Items {
  readonly networks: OverlayNetwork[];
  readonly removed_networks: string[];
  readonly services: OverlayService[];
  readonly removed_services: string[];
}

export class EndpointsBoard {
  private readonly options: EndpointsOptions;
  private readonly watchers = new Map<NodeId, Watcher>();
  private readonly withdrawals: Withdrawals;
  private readonly problems: NodeProblems;
  private readonly questions: Questions;
  private readonly attachments: ContainerAttachments;
  private readonly publicKeys = new Map<string, string>();
  /** States of services, made once for all nodes, until something of them changes. */
  private readonly made = new Map<
    ServiceId,
    { readonly state: OverlayService | undefined; readonly text: string }
  >();
  private flush: Timer | undefined;
  private flushedAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: EndpointsOptions) {
    this.options = options;
    this.withdrawals = new Withdrawals(options);
    this.problems = new NodeProblems(options);
    this.questions = new Questions(options.clock);
    const onRefused = (nodeId: NodeId) => this.watchers.get(nodeId)?.pump.wake();
    this.attachments = new ContainerAttachments({ ...options, onRefused });
  }

  /**
   * Begins to lead. What the leader before did of withdrawals is not known: nodes have `graceMs` to find this manager,
   * and then confirm once more.
   */
  start(graceMs: number): void {
    for (const task of this.options.store.list('task')) {
      if (isDraining(task) && isEndpoint(this.options.store, task)) {
        this.withdraw(task, graceMs + withdrawalTimeoutMs);
      }
    }
  }

  /** Opens a node's watch, in place of an older one. */
  watch(nodeId: NodeId, sink: Sink<EndpointsUpdate>): WatchHandle {
    this.close(nodeId, new ShoalError('conflict', 'the node opened a newer watch'));
    const watcher: Watcher = {
      nodeId,
      sink,
      networks: new Map(),
      services: new Map(),
      dirtyNetworks: 'all',
      dirtyServices: new Set(),
      attachments: '',
      isFirst: true,
      sent: 0,
      confirmed: 0,
      changedAtMs: undefined,
      unconfirmed: [],
      pump: new Pump(
        () => this.step(watcher),
        (error) => {
          this.options.log.error(
            { node: nodeId, error: messageOf(error) },
            'cannot tell the node of endpoints',
          );
          sink.end(
            isShoalError(error) ? error : new ShoalError('internal', messageOf(error), { cause: error }),
          );
        },
      ),
    };
    this.watchers.set(nodeId, watcher);
    watcher.pump.wake();
    return {
      report: (report) => this.onReport(watcher, report),
      close: () => {
        if (this.watchers.get(nodeId) === watcher) this.close(nodeId);
      },
    };
  }

  /** Ends every watch. */
  stop(error: ShoalError): void {
    this.flush?.cancel();
    this.withdrawals.stop();
    this.problems.stop();
    this.attachments.stop();
    for (const nodeId of [...this.watchers.keys()]) this.close(nodeId, error);
  }

  /** Which nodes hold what of a network. */
  programmed(networkId: NetworkId): ProgrammedResponse {
    const { store } = this.options;
    const services = [...serviceIdsOn(store, [networkId])].flatMap((id) => {
      const { state } = this.serviceState(id);
      return state !== undefined && concerns(state, new Set([networkId])) ? [{ id, state }] : [];
    });
    const nodes = store.find('node', 'network', networkId).map((node): ProgrammedNode => {
      const watcher = this.watchers.get(node.ID);
      if (watcher === undefined || watcher.isFirst) return { node_id: node.ID, watches: false };
      const network = JSON.stringify(this.networkState(node, networkId));
      return {
        node_id: node.ID,
        watches: true,
        told: String(watcher.sent),
        confirmed: String(watcher.confirmed),
        network: revisionOf(watcher.networks.get(networkId), network),
        services: Object.fromEntries(
          services.flatMap(({ id }) => {
            const revision = revisionOf(watcher.services.get(id), this.serviceState(id, node).text);
            return revision === '' ? [] : [[id, revision]];
          }),
        ),
      };
    });
    return { services: services.map(({ state }) => state), nodes };
  }

  /** Asks a node's data plane. Rejects with 'unavailable' where none listens; see Questions. */
  async ask(nodeId: NodeId, about: EndpointsQuestion): Promise<EndpointsAnswer> {
    const watcher = this.watchers.get(nodeId);
    const node = this.options.store.get('node', nodeId);
    if (node === undefined) throw new ShoalError('not-found', `node ${nodeId} not found`);
    const name = node.Description.Hostname || node.ID;
    if (watcher === undefined) {
      throw new ShoalError('unavailable', `node ${name} can't be asked: ${whyUnheard(node)}`);
    }
    try {
      return await this.questions.ask(nodeId, about, (question) => void watcher.sink.send({ question }));
    } catch (error) {
      throw isShoalError(error) ? new ShoalError(error.code, `node ${name}: ${error.message}`) : error;
    }
  }

  /** Whether some node may still send connections to the task, which is to stop. */
  isWithheld(taskId: TaskId): boolean {
    return this.withdrawals.isWithheld(taskId);
  }

  /** To be called with each commit before anything else of it is told to the agents. */
  onCommit(commit: Commit): void {
    if (commit.kind === 'restored') {
      this.made.clear();
      for (const watcher of this.watchers.values()) {
        watcher.dirtyNetworks = 'all';
        watcher.pump.wake();
      }
      return;
    }
    const services = new Set<ServiceId>();
    const networks = new Set<NetworkId>();
    for (const event of commit.events) this.note(event, services, networks);
    if (services.size + networks.size === 0) return;
    for (const id of services) this.made.delete(id);
    for (const watcher of this.watchers.values()) {
      for (const id of services) watcher.dirtyServices.add(id);
      if (watcher.dirtyNetworks !== 'all') for (const id of networks) watcher.dirtyNetworks.add(id);
    }
    const now = this.options.clock.monotonicMs();
    for (const watcher of this.watchers.values()) watcher.changedAtMs ??= now;
    // After a quiet time the first change goes out at once, with what comes in the same turn.
    this.flush ??= this.options.clock.after(now - this.flushedAtMs < gatherMs ? gatherMs : 0, () => {
      this.flush = undefined;
      this.flushedAtMs = this.options.clock.monotonicMs();
      for (const watcher of this.watchers.values()) watcher.pump.wake();
    });
  }

  private note(event: StoreEvent, services: Set<ServiceId>, networks: Set<NetworkId>): void {
    const { store } = this.options;
    switch (event.kind) {
      case 'task': {
        if (isUnchangedEndpoint(event)) return;
        services.add(event.object.ServiceID);
        const isLeaving =
          event.op === 'update' &&
          isDraining(event.object) &&
          !!event.previous &&
          !isDraining(event.previous);
        if (isLeaving && isEndpoint(store, event.object)) this.withdraw(event.object);
        return;
      }
      case 'service':
        services.add(event.object.ID);
        return;
      case 'network':
        networks.add(event.object.ID);
        return;
      case 'node':
        if (
          event.op === 'update' &&
          event.previous !== undefined &&
          isUnchangedPeer(event.previous, event.object)
        )
          return;
        for (const node of [event.object, ...(event.previous ? [event.previous] : [])]) {
          for (const id of networkIdsOf(node)) networks.add(id);
          for (const { NetworkID } of node.ContainerAddresses ?? []) networks.add(NetworkID);
        }
        // A proxy is on no network: from now on it is told of what is published.
        if (isProxy(event.object) && !(event.previous && isProxy(event.previous))) {
          for (const id of concernedBy(store, event.object)) networks.add(id);
        }
        if (event.op === 'remove' || !isWaitedFor(event.object)) this.withdrawals.gone(event.object.ID);
        // Whether its tasks are endpoints may be another matter now.
        for (const task of store.find('task', 'node', event.object.ID)) services.add(task.ServiceID);
        return;
      default:
        return;
    }
  }

  /** Waits for each node that has a way to the task, whether it listens at present or not. */
  private withdraw(task: Task, boundMs?: number): void {
    const nodes = nodesWithWayTo(this.options.store, task).filter(isWaitedFor);
    this.withdrawals.begin(task, new Set(nodes.map(({ ID }) => ID)), boundMs);
  }

  private onReport(watcher: Watcher, report: EndpointsReport): void {
    const key = report.wireguard_public_key ?? '';
    if (key !== (this.publicKeys.get(watcher.nodeId) ?? '')) this.onPublicKey(watcher.nodeId, key);
    watcher.confirmed = Number(report.revision || 0);
    this.observeConfirmed(watcher);
    this.withdrawals.confirmed(watcher.nodeId, watcher.confirmed);
    if (report.answer) this.questions.answered(watcher.nodeId, report.answer);
    if (report.attachments_known) this.attachments.ask(watcher.nodeId, report.attachments ?? []);
    if (report.problems_known) this.problems.tell(watcher.nodeId, report.problems ?? []);
  }

  /** What a node is told when it begins to listen is no change: it is not measured. */
  private observeConfirmed({ confirmed, unconfirmed }: Watcher): void {
    const now = this.options.clock.monotonicMs();
    while (unconfirmed[0] !== undefined && unconfirmed[0].revision <= confirmed) {
      const { atMs } = unconfirmed.shift()!;
      this.options.observeConvergence?.(now - atMs);
    }
  }

  private onPublicKey(nodeId: NodeId, key: string): void {
    this.publicKeys.set(nodeId, key);
    const node = this.options.store.get('node', nodeId);
    const networks = node === undefined ? [] : networkIdsOf(node);
    for (const watcher of this.watchers.values()) {
      if (watcher.dirtyNetworks !== 'all') for (const id of networks) watcher.dirtyNetworks.add(id);
      watcher.pump.wake();
    }
  }

  private close(nodeId: NodeId, error?: ShoalError): void {
    const watcher = this.watchers.get(nodeId);
    if (watcher === undefined) return;
    this.watchers.delete(nodeId);
    watcher.pump.stop();
    if (error !== undefined) watcher.sink.end(error);
    this.questions.gone(nodeId);
    this.withdrawals.silent(nodeId);
  }

  private step(watcher: Watcher): Promise<void> | undefined {
    const { store } = this.options;
    const update = this.updateFor(watcher);
    const index = store.index;
    const told = new Set([
      ...(update?.services ?? []).map(({ id }) => id),
      ...(update?.removed_services ?? []),
    ]);
    this.withdrawals.told(watcher.nodeId, index, (id) => told.has(id));
    const atMs = watcher.changedAtMs;
    watcher.changedAtMs = undefined;
    if (update === undefined) return undefined;
    watcher.sent = index;
    const isMeasured = !update.complete && watcher.unconfirmed.length < maxUnconfirmed;
    if (atMs !== undefined && isMeasured) watcher.unconfirmed.push({ revision: index, atMs });
    return watcher.sink.send({
      ...update,
      revision: String(index),
      data_path_port: store.cluster()?.DataPathPort ?? 0,
    });
  }

  /** What the node is to be told now; undefined: nothing. */
  private updateFor(
    watcher: Watcher,
  ): (Items & Pick<EndpointsUpdate, 'complete' | 'attachments' | 'has_attachments'>) | undefined {
    const { store } = this.options;
    const node = store.get('node', watcher.nodeId);
    if (node === undefined) return undefined;
    const own = concernedBy(store, node);
    const networksBefore = new Set(watcher.networks.keys());
    const isWhole = watcher.dirtyNetworks === 'all';
    const dirty = watcher.dirtyNetworks === 'all' ? own : watcher.dirtyNetworks;
    watcher.dirtyNetworks = new Set();
    const update: Items = { networks: [], removed_networks: [], services: [], removed_services: [] };
    for (const id of new Set([...dirty, ...networksBefore])) {
      if (!dirty.has(id) && own.has(id)) continue;
      const state = own.has(id) ? this.networkState(node, id) : undefined;
      differ(watcher.networks, id, state, update.networks, update.removed_networks, store.index);
    }
    const services = watcher.dirtyServices;
    watcher.dirtyServices = new Set();
    // A network that came or went brings its services or takes them along.
    const hasMoved =
      isWhole ||
      [...own].some((id) => (isProxy(node) ? dirty.has(id) : !networksBefore.has(id))) ||
      update.removed_networks.length > 0;
    if (hasMoved)
      for (const id of [...serviceIdsOn(store, own), ...watcher.services.keys()]) services.add(id);
    for (const id of services) {
      const { state, text } = this.serviceState(id, node);
      const isConcerned = state !== undefined && concerns(state, own);
      differ(
        watcher.services,
        id,
        isConcerned ? state : undefined,
        update.services,
        update.removed_services,
        store.index,
        text,
      );
    }
    const isFirst = watcher.isFirst;
    watcher.isFirst = false;
    const attachments = this.attachments.answers(node);
    const text = JSON.stringify(attachments);
    const isWord = isFirst || text !== watcher.attachments;
    watcher.attachments = text;
    const isEmpty = Object.values(update).every((list: readonly unknown[]) => list.length === 0);
    if (isEmpty && !isWord) return undefined;
    return { ...update, complete: isFirst, ...(isWord ? { attachments, has_attachments: true } : {}) };
  }

  private networkState(node: ClusterNode, id: NetworkId): OverlayNetwork | undefined {
    if (isProxy(node)) return undefined;
    return networkStateOf(this.options.store, node, id, (nodeId) => this.publicKeys.get(nodeId) ?? '');
  }

  /** Of all that there is of a service, or as `node` is told it. */
  private serviceState(id: ServiceId, node?: ClusterNode) {
    let known = this.made.get(id);
    if (known === undefined) {
      const state = serviceStateOf(this.options.store, id);
      known = { state, text: JSON.stringify(state) };
      if (state !== undefined) this.made.set(id, known);
    }
    const state = known.state && node ? asToldTo(node, known.state) : known.state;
    if (state !== known.state) return { state, text: JSON.stringify(state) };
    return known;
  }
}

/** Puts what is new or other into `changed`, what is gone into `removed`, and keeps note of it in `sent`. */
function differ<Id extends string, Item extends object>(
  sent: Map<Id, Sent>,
  id: Id,
  state: Item | undefined,
  changed: Item[],
  removed: string[],
  revision: number,
  text = JSON.stringify(state),
): void {
  if (state === undefined) {
    if (sent.delete(id)) removed.push(id);
    return;
  }
  if (sent.get(id)?.text === text) return;
  sent.set(id, { text, revision });
  changed.push(state);
}

/** With which update an item was sent as it is now; empty: with none yet. */
function revisionOf(sent: Sent | undefined, text: string): string {
  return sent?.text === text ? String(sent.revision) : '';
}

/** Whether the node may have a way to tasks of other nodes, and can still say that it has none any more. */
function isWaitedFor(node: ClusterNode): boolean {
  return node.Status.State !== 'down' && hasDataPlane(node);
}

function concerns(service: OverlayService, networks: ReadonlySet<string>): boolean {
  return (
    (service.networks ?? []).some(({ network_id }) => networks.has(network_id ?? '')) ||
    (service.endpoints ?? []).some(({ addresses }) =>
      Object.keys(addresses ?? {}).some((id) => networks.has(id)),
    )
  );
}

function isUnchangedEndpoint({ op, object, previous }: Extract<StoreEvent, { kind: 'task' }>): boolean {
  return (
    op === 'update' &&
    previous !== undefined &&
    (previous.Status.State === 'running') === (object.Status.State === 'running') &&
    isDraining(previous) === isDraining(object) &&
    previous.Status.PortStatus === object.Status.PortStatus &&
    previous.NodeID === object.NodeID &&
    previous.NetworksAttachments === object.NetworksAttachments
  );
}

function isUnchangedPeer(before: ClusterNode, after: ClusterNode): boolean {
  return (
    before.Attachments === after.Attachments &&
    before.Problems === after.Problems &&
    before.ContainerAttachments === after.ContainerAttachments &&
    before.ContainerAddresses === after.ContainerAddresses &&
    before.Status.Addr === after.Status.Addr &&
    (before.Status.State === 'down') === (after.Status.State === 'down') &&
    before.Description.Hostname === after.Description.Hostname &&
    before.Description.Engine.Labels[dataPathLabel] === after.Description.Engine.Labels[dataPathLabel] &&
    dataPlaneOf(before).kind === dataPlaneOf(after).kind
  );
}
