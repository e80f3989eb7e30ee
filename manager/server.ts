/**
 * A manager on the cluster's port: its services for agents and for the other managers, bound to gRPC and
 * TLS, its log on disk. In: the node's identity, addresses, folder, and how to begin. Out: a running
 * manager as the API sees it. It checks roles and translates; it decides nothing.
 */
import { isShoalError, messageOf, ShoalError } from '../proto/errors.ts';
import { type ClusterId, type NodeId, newId } from '../proto/ids.ts';
import { type Clock, delay, type Log, type Random } from '../proto/ports.ts';
import {
  createChannel,
  createRpcServer,
  type NodeIdentity,
  type RpcServer,
  requireRole,
} from '../proto/rpc.ts';
import { unaryHandler } from '../proto/rpc-status.ts';
import { packageVersion } from '../proto/version.ts';
import type { ManagedCluster } from './api/contract.ts';
import { sealBackup } from './backup/backup.ts';
import type { RestoredState, RestorePlan } from './backup/restore.ts';
import { certificateHandlers } from './ca/rpc.ts';
import { callerRules, mayReturn } from './callers.ts';
import { dataPlanesOf } from './data-planes.ts';
import { registerDataPlanes, registerDispatcher, registerEndpoints } from './dispatcher/service.ts';
import { ExecBoard } from './exec/board.ts';
import { type ExecLeadership, registerExec, summonThroughLeader } from './exec/service.ts';
import { GossipRelay } from './gossip-relay.ts';
import { notLeader } from './logs/broker.ts';
import { type OpenLogs, readLogs } from './logs/reader.ts';
import { registerLogs, subscribeThrough } from './logs/service.ts';
import { Manager, type ManagerOptions, newRaftId } from './manager.ts';
import type { Metrics } from './metrics.ts';
import { preview } from './preview.ts';
import type { Member, RaftStart } from './raft/contract.ts';
import { openDisk } from './raft/disk.ts';
import { createPeers, type Peers } from './raft/peers.ts';
import { createKeyFile, keyFileState, openKeyFile } from './raft/seal.ts';
import { registerRaftServices } from './raft/services.ts';
import { changesOfMoves, movesOf } from './scheduler/rebalance.ts';
import type { Change } from './store/change.ts';
import { registerUsage } from './usage/service.ts';

/** How this manager begins. `join` asks the managers at `remotes`; `resume` goes on from its disk. */
export type ManagerStart =
  | {
      readonly kind: 'bootstrap';
      readonly changes: readonly Change[];
      readonly unlockKey: string | undefined;
    }
  /** A group of its own with a backup's state. */
  | { readonly kind: 'restore'; readonly plan: RestorePlan; readonly unlockKey: string | undefined }
  | { readonly kind: 'join'; readonly remotes: readonly string[] }
  | { readonly kind: 'resume'; readonly unlockKey: string | undefined }
  | { readonly kind: 'force-new-cluster'; readonly unlockKey: string | undefined };

export interface ManagerServerOptions {
  readonly identity: NodeIdentity;
  readonly nodeId: NodeId;
  readonly clusterId: ClusterId;
  readonly listenAddress: string;
  readonly advertiseAddress: string;
  /** Where stock engines find each other (HOST:PORT), see gossip-relay.ts; nowhere when empty or absent. */
  readonly gossipAddress?: string | undefined;
  /** Folder of the Raft log. */
  readonly folder: string;
  readonly start: ManagerStart;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly sealIdentity?: ManagerOptions['sealIdentity'];
  readonly onFailure: (error: unknown) => void;
}

const joinTimeoutMs = 20_000;
const joinRetryMs = 300;
const callTimeoutMs = 10_000;

export class ManagerServer {
  readonly manager: Manager;
  private readonly options: ManagerServerOptions;
  private readonly server: RpcServer;
  private readonly peers: Peers;
  /** What is shown to others now. */
  private readonly shown: { identity: NodeIdentity };
  private readonly gossip: GossipRelay | undefined;
  private readonly commands: ExecBoard;

  private constructor(
    options: ManagerServerOptions,
    server: RpcServer,
    peers: Peers,
    manager: Manager,
    shown: { identity: NodeIdentity },
  ) {
    this.options = options;
    this.shown = shown;
    this.server = server;
    this.peers = peers;
    this.manager = manager;
    this.gossip = relayOf(options, manager);
    const { clock, random, advertiseAddress: address } = options;
    const identity = (): NodeIdentity => shown.identity;
    this.commands = new ExecBoard({
      clock,
      random,
      summon: (nodeId, execId) =>
        summonThroughLeader(execLeadership(manager), identity, clock, { execId, nodeId, address }),
    });
  }

  /** Opens the port and starts the member. Throws what either refuses; then nothing stays open. */
  static async start(options: ManagerServerOptions): Promise<ManagerServer> {
    const { identity, clusterId, clock, random, log, metrics } = options;
    const disk = await openDisk(options.folder, clock);
    const keyState = await keyFileState(disk);
    const unlockKey = options.start.kind === 'join' ? undefined : options.start.unlockKey;
    const dataKeys =
      keyState === 'absent'
        ? await createKeyFile(disk, random, unlockKey)
        : await openKeyFile(disk, unlockKey);
    const server = createRpcServer({ credentials: identity });
    const shown = { identity };
    const peers = createPeers({ clusterId, identity: () => shown.identity, clock, log });
    try {
      await server.listen(options.listenAddress);
      const { start, firstChanges, restored } = await raftStart(options);
      const manager = await Manager.start({
        nodeId: options.nodeId,
        start,
        ...(firstChanges ? { firstChanges } : {}),
        ...(restored ? { restored } : {}),
        disk,
        dataKeys,
        sealedUnder: keyState === 'open' ? undefined : unlockKey,
        sealIdentity: options.sealIdentity,
        transport: peers,
        clock,
        random,
        log,
        observeCommit: (latencyMs) => metrics.observeCommit(latencyMs),
        observeSchedulingDelay: (delayMs) => metrics.observeSchedulingDelay(delayMs),
        observeConvergence: (tookMs) => metrics.observeConvergence(tookMs),
        onFailure: options.onFailure,
      });
      const made = new ManagerServer(options, server, peers, manager, shown);
      peers.attach(manager.raft);
      made.register();
      return made;
    } catch (error) {
      peers.close();
      await server.close();
      throw error;
    }
  }

  /** From now on this certificate is shown and these roots are trusted, on the port and towards peers. */
  setIdentity(identity: NodeIdentity): void {
    this.shown.identity = identity;
    this.server.setIdentity(identity);
    this.peers.reconnect();
  }

  async stop(options: { readonly orderly: boolean }): Promise<void> {
    await this.gossip?.stop();
    this.commands.stop();
    await this.manager.stop(options);
    this.peers.close();
    await this.server.close();
  }

  /** This manager's cluster for the API. */
  cluster(): ManagedCluster {
    const { manager } = this;
    return {
      store: manager.store,
      nodeId: manager.nodeId,
      propose: (changes) => manager.propose(changes),
      preview: (changes) => {
        const { clock, random } = this.options;
        return preview(manager.store, changes, clock.now(), () => newId(random));
      },
      readBarrier: () => manager.readBarrier(),
      rebalance: (service) => {
        const moves = movesOf(manager.store, service, this.options.clock.now());
        return { moves, changes: changesOfMoves(moves) };
      },
      isLeader: () => manager.isLeader(),
      managerAddresses: () => manager.managerAddresses(),
      removeManager: (nodeId, force) => this.removeManager(nodeId, force),
      backup: (key) => this.backup(key),
      commands: this.commands,
      dataPlanes: dataPlanesOf(manager, (address, call) =>
        callLeader(this.shown.identity, address, this.options.clock, call),
      ),
      logs: (request, signal) => readLogs(this.subscribe, request, signal, this.options.clock),
    };
  }

  /** See ManagedCluster.backup. */
  private async backup(key: string | undefined): Promise<AsyncIterable<Uint8Array>> {
    const { clock, random, clusterId } = this.options;
    const { facts, state } = await this.manager.stateForBackup();
    const unlockKey = this.manager.store.cluster()?.Private.UnlockKey;
    const sealKey = key ?? unlockKey;
    if (sealKey === undefined) {
      throw new ShoalError(
        'invalid-argument',
        'a backup holds the cluster’s secrets and is sealed under a key: give one, for this cluster has no unlock key (autolock is off)',
      );
    }
    const head = {
      format: 1 as const,
      clusterId,
      createdAt: new Date(clock.now()).toISOString(),
      version: packageVersion(),
      sealedUnder: key === undefined ? ('unlock-key' as const) : ('backup-key' as const),
    };
    return sealBackup({ head, facts, state }, sealKey, random);
  }

  private register(): void {
    const { manager, server } = this;
    const leader = (): Member | undefined => manager.leaderMember();
    const { clusterId } = this.options;
    const requireCaller = callerRules({
      clusterId,
      store: manager.store,
      raft: manager.raft,
      isLeading: () => manager.leading() !== undefined,
    });
    const handlers = certificateHandlers(manager.certificates, requireCaller);
    server.addService('CA', handlers.CA);
    server.addService('NodeCA', handlers.NodeCA);
    server.addService('Returning', handlers.Returning);
    registerDispatcher(server, { dispatcher: () => manager.dispatcher(), leader }, requireCaller);
    registerEndpoints(server, { dispatcher: () => manager.dispatcher(), leader }, requireCaller);
    registerDataPlanes(server, { dispatcher: () => manager.dispatcher(), leader }, requireCaller);
    registerLogs(server, { broker: () => manager.leading()?.logs, leader }, requireCaller);
    registerUsage(server, () => manager.leading()?.usage, requireCaller);
    registerExec(server, execLeadership(manager), this.commands, requireCaller);
    registerRaftServices(server, manager.raft, this.peers, {
      clusterId,
      clock: this.options.clock,
      mayReturn: (call, nodeId) => mayReturn(manager.store, call, nodeId),
    });
    server.addService('Health', { Check: unaryHandler(() => ({ status: 'SERVING' as const })) });
    server.addService('Membership', {
      Join: unaryHandler(async (request, call) => {
        requireRole(call, 'manager');
        // Not one of the group yet: of a node that is to be one, its certificate and the store know.
        const caller = requireCaller(call, 'manager', 'worker');
        this.requireLeader();
        const admitted = await manager.admit(caller.nodeId, request.address ?? '');
        return {
          raft_id: String(admitted.raftId),
          members: admitted.members.map((member) => ({
            raft_id: String(member.raftId),
            node_id: member.nodeId,
            address: member.address,
          })),
        };
      }),
      Leave: unaryHandler(async (request, call) => {
        requireCaller(call, 'manager');
        this.requireLeader();
        await manager.raft.removeMember(request.node_id ?? '', { force: request.force ?? false });
        return {};
      }),
    });
  }

  private requireLeader(): void {
    const leader = this.manager.leaderMember();
    if (this.manager.isLeader()) return;
    throw new ShoalError(
      'not-leader',
      `this manager does not lead the cluster${leader ? `; ${leader.address} does` : ''}`,
      {
        details: leader ? { leader: leader.address } : {},
      },
    );
  }

  private subscribe: OpenLogs = (request, sink) => {
    const broker = this.manager.leading()?.logs;
    if (broker) return broker.subscribe(request, sink);
    const leader = this.manager.leaderMember();
    if (!leader)
      throw new ShoalError(
        'no-quorum',
        'no manager leads the cluster right now, and logs come through the leader; try again',
      );
    const channel = createChannel(leader.address, {
      identity: this.shown.identity,
      roots: this.shown.identity.rootsPem,
      serverName: 'swarm-manager',
    });
    const handle = subscribeThrough(channel, request, sink);
    // A leader that lost its power says nothing any more: the next one is not waited for beyond its election.
    const stopWatching = this.manager.raft.onChange(() => {
      const now = this.manager.leaderMember();
      if (now && now.address !== leader.address) sink.end(notLeader(now.address));
    });
    return {
      close: () => {
        stopWatching();
        handle.close();
        channel.close();
      },
    };
  };

  /** Takes a member out of the group, through whichever manager leads; a leader that goes hands over first. */
  private async removeManager(nodeId: NodeId, force: boolean): Promise<void> {
    const { manager } = this;
    if (manager.isLeader() && nodeId === manager.nodeId) await manager.raft.transferLeadership();
    if (manager.isLeader()) return manager.raft.removeMember(nodeId, { force });
    const { clock } = this.options;
    const end = clock.monotonicMs() + callTimeoutMs;
    for (;;) {
      const leader = manager.leaderMember();
      const isLate = clock.monotonicMs() > end;
      if (leader && leader.nodeId !== manager.nodeId) {
        try {
          await callLeader(this.shown.identity, leader.address, clock, (channel, deadline) =>
            channel.call('Membership', 'Leave', { node_id: nodeId, force }, { deadline }),
          );
          return;
        } catch (error) {
          // Taken out by a call whose answer was lost, or by the leader of its own accord.
          if (isShoalError(error, 'not-found')) return;
          if (isLate || !isShoalError(error) || !error.retriable) throw error;
        }
      } else if (isLate) {
        throw new ShoalError('no-quorum', 'no manager leads the cluster right now; try again');
      }
      await delay(clock, joinRetryMs);
    }
  }
}

function relayOf(options: ManagerServerOptions, manager: Manager): GossipRelay | undefined {
  const { gossipAddress, clock, log } = options;
  if (!gossipAddress) return undefined;
  const at = gossipAddress.lastIndexOf(':');
  const host = gossipAddress.slice(0, at).replace(/^\[|\]$/g, '');
  return new GossipRelay({
    store: manager.store,
    host,
    port: Number(gossipAddress.slice(at + 1)),
    clock,
    log,
  });
}

function execLeadership(manager: Manager): ExecLeadership {
  return { summons: () => manager.leading()?.summons, leader: () => manager.leaderMember() };
}

type Channel = ReturnType<typeof createChannel>;

async function callLeader<T>(
  identity: NodeIdentity,
  address: string,
  clock: Clock,
  call: (channel: Channel, deadline: number) => Promise<T>,
): Promise<T> {
  const channel = createChannel(address, { identity, roots: identity.rootsPem, serverName: 'swarm-manager' });
  try {
    return await call(channel, clock.now() + callTimeoutMs);
  } finally {
    channel.close();
  }
}

async function raftStart(
  options: ManagerServerOptions,
): Promise<{ start: RaftStart; firstChanges?: readonly Change[]; restored?: RestoredState }> {
  const { start, nodeId, advertiseAddress: address } = options;
  switch (start.kind) {
    case 'bootstrap':
      return {
        start: { kind: 'bootstrap', self: { raftId: 1, nodeId, address } },
        firstChanges: start.changes,
      };
    case 'restore': {
      const { restored, changes } = start.plan;
      const { index, term, formerMembers } = restored;
      const self = { raftId: newRaftId(options.random), nodeId, address };
      const after = { index, term, members: formerMembers };
      return { start: { kind: 'bootstrap', self, after }, firstChanges: changes, restored };
    }
    case 'resume':
      return { start: { kind: 'restart' } };
    case 'force-new-cluster':
      return { start: { kind: 'force-new-cluster', self: { raftId: 1, nodeId, address } } };
    case 'join': {
      const { raftId, members } = await requestJoin(options, start.remotes);
      return { start: { kind: 'join', self: { raftId, nodeId, address }, members } };
    }
  }
}

/** Asks the leader, wherever it is, to take this node into the group. Tries until it is found or time is up. */
async function requestJoin(
  options: ManagerServerOptions,
  remotes: readonly string[],
): Promise<{ raftId: number; members: Member[] }> {
  const { clock, identity, nodeId, advertiseAddress } = options;
  const end = clock.monotonicMs() + joinTimeoutMs;
  let addresses = [...remotes];
  let last: unknown;
  while (clock.monotonicMs() < end) {
    for (const address of addresses) {
      try {
        const answer = await callLeader(identity, address, clock, (channel, deadline) =>
          channel.call('Membership', 'Join', { node_id: nodeId, address: advertiseAddress }, { deadline }),
        );
        const members = (answer.members ?? []).map((member) => ({
          raftId: Number(member.raft_id),
          nodeId: member.node_id ?? '',
          address: member.address ?? '',
        }));
        return { raftId: Number(answer.raft_id), members };
      } catch (error) {
        last = error;
        if (isShoalError(error, 'not-supported')) throw managersAreDockers(address, nodeId);
        if (isShoalError(error) && !error.retriable) throw error;
        const leader = isShoalError(error) ? error.details.leader : undefined;
        if (leader) addresses = [leader, ...addresses.filter((known) => known !== leader)];
      }
    }
    await delay(clock, joinRetryMs);
  }
  throw new ShoalError(
    'unavailable',
    `no manager took this node into the managers' group within ${joinTimeoutMs / 1000} s; the last answer: ${messageOf(last)}`,
  );
}

/** What a manager that knows no service of ours is. */
function managersAreDockers(address: string, nodeId: NodeId): ShoalError {
  return new ShoalError(
    'not-supported',
    `the manager at ${address} is a Docker Engine, and shoald can't manage a Docker Swarm with it, only work in it: join with the worker token (docker swarm join-token worker), and remove there what this attempt left (docker node rm ${nodeId}); a node that was promoted there is to be demoted (docker node demote ${nodeId})`,
  );
}
