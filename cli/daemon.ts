/**
 * The daemon: an agent, and a manager where the node is one, put together and served through one API.
 *
 * In: its settings; requests to init, join, leave and unlock; the role that the managers want of it. Out:
 * the ApiHost that the HTTP API asks. It holds which of the two run and keeps their folders; it decides
 * nothing about the cluster.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Agent } from '../agent/agent.ts';
import type { Engine } from '../agent/engine/engine.ts';
import { AgentIdentity, type HeldIdentity } from '../agent/identity.ts';
import type {
  ApiHost,
  EngineFacts,
  Membership,
  RestoreRequest,
  SwarmInitRequest,
  SwarmJoinRequest,
} from '../manager/api/contract.ts';
import { gossipPort } from '../manager/gossip-relay.ts';
import type { Metrics } from '../manager/metrics.ts';
import { ManagerServer, type ManagerStart } from '../manager/server.ts';
import type { GenericResource } from '../proto/docker.ts';
import { isShoalError, messageOf, ShoalError } from '../proto/errors.ts';
import type { SessionMessage__Output as SessionMessage } from '../proto/generated/docker/swarmkit/v1/SessionMessage.ts';
import type { ClusterId, NodeId } from '../proto/ids.ts';
import { type Clock, delay, type Log, type Random } from '../proto/ports.ts';
import { packageVersion } from '../proto/version.ts';
import { hostOf, withPort } from './addresses.ts';
import { type Beginning, newCluster, restoredCluster } from './beginnings.ts';
import {
  attachContainer,
  knownManagers,
  managerOf,
  managingMember,
  membershipOf,
  metricsOf,
  requireOutside,
  type State,
  stateAfter,
} from './daemon-state.ts';
import { waitForFirstNode, waitForSession } from './first-session.ts';
import { endFormerLife, forgetLife } from './former-life.ts';
import { agentNetwork, type HostNetwork } from './host-network.ts';
import { findManagers, isLostWorker } from './lost-worker.ts';
import {
  chooseSettings,
  type NodeSettings,
  namesAddress,
  readSettings,
  settingsFile,
  writeSettings,
} from './node-settings.ts';

export interface DaemonOptions {
  readonly dataDir: string;
  /** Folder on a tmpfs for secrets of this daemon's tasks. */
  readonly runDir: string;
  readonly listenAddress: string;
  /** Undefined: found out when the node joins or makes a cluster. */
  readonly advertiseAddress: string | undefined;
  /** HOST:PORT, or empty for nowhere; undefined: the advertised host's. See gossip-relay.ts. */
  readonly gossipAddress?: string | undefined;
  readonly hostname: string;
  readonly genericResources?: readonly GenericResource[];
  readonly engine: Engine;
  /** The host's network, for networks between hosts; undefined: none. */
  readonly hostNetwork?: HostNetwork;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Something can't go on; the process should end with this message. */
  readonly onFatal: (error: unknown) => void;
}

const roleRetryFirstMs = 500;
const roleRetryMaxMs = 5_000;
/** As long as an end waits for a change of role that is under way. */
const roleEndTimeoutMs = 5_000;

export class Daemon implements ApiHost {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly version = packageVersion();
  readonly metrics: Metrics;
  private readonly options: DaemonOptions;
  private readonly identity: AgentIdentity;
  private settings: NodeSettings | undefined;
  private state: State = { kind: 'none' };
  private changingRole: Promise<void> | undefined;
  /** It stops or leaves: what becomes of its role is of no matter any more. */
  private isEnding = false;

  constructor(options: DaemonOptions) {
    this.options = options;
    this.clock = options.clock;
    this.random = options.random;
    this.log = options.log;
    const { clock, random, log } = options;
    this.identity = new AgentIdentity({
      directory: join(options.dataDir, 'certificates'),
      clock,
      random,
      log,
      version: this.version,
      managers: () => knownManagers(this.state),
      issueToSelf: async () => managerOf(this.state)?.issueToSelf(),
      onShutOut: (error) => void this.shutOut(error),
    });
    this.identity.onChange((held) => this.onIdentity(held));
    this.metrics = metricsOf(() => this.state);
  }

  /** Goes on where the daemon stopped, if this node is part of a cluster. */
  async start(): Promise<void> {
    mkdirSync(this.options.dataDir, { recursive: true, mode: 0o700 });
    this.settings = readSettings(this.options.dataDir);
    let held: HeldIdentity | undefined;
    try {
      held = await this.identity.load();
      if (!held || !this.settings) return;
      await this.resume(held, undefined);
    } catch (error) {
      if (isShoalError(error, 'corrupted') || !isShoalError(error)) throw error;
      this.state = stateAfter(error, held);
      this.log[this.state.kind === 'locked' ? 'warn' : 'error']({}, messageOf(error));
    }
  }

  /** Ends agent and manager; containers go on. */
  async stop(): Promise<void> {
    this.isEnding = true;
    this.identity.stop();
    if (this.state.kind !== 'member') return;
    const { agent, manager } = this.state;
    await agent.stop();
    await manager?.stop({ orderly: true });
    // A manager that is about to begin writes to the folder that the next life will open.
    await Promise.race([this.changingRole, delay(this.clock, roleEndTimeoutMs)]);
  }

  membership(): Membership {
    return membershipOf(this.state, () => this.mustHold().certificate.nodeId as NodeId);
  }

  advertiseAddress = (): string => (this.settings?.advertiseAddress ?? '').replace(/:\d+$/, '');

  async engine(): Promise<EngineFacts | undefined> {
    return this.options.engine.facts().catch(() => undefined);
  }

  connectEngine = () => this.options.engine.connect();
  attachContainer: ApiHost['attachContainer'] = (...asked) => attachContainer(this.state, ...asked);

  /** Makes a cluster with this node as its first manager, or recovers one with ForceNewCluster. */
  async init(request: SwarmInitRequest): Promise<string> {
    if (request.ForceNewCluster && this.state.kind !== 'none') return this.forceNewCluster(request);
    return this.begin(request, ({ advertiseAddress }) => newCluster(request, advertiseAddress, this));
  }

  /** Makes this node the one manager of the cluster that a backup holds. */
  restore(request: RestoreRequest): Promise<string> {
    return this.begin(request, () => restoredCluster(request, this));
  }

  /** Becomes the first manager of what `make` says; answers its node's id. After a failure it is outside again. */
  private async begin(
    addresses: SwarmInitRequest | RestoreRequest,
    make: (settings: NodeSettings) => Promise<Beginning>,
  ) {
    requireOutside(this.state, this.raftFolder());
    const settings = this.settingsFor(addresses);
    this.state = { kind: 'pending' };
    try {
      const { identity, start } = await make(settings);
      this.keepSettings(settings);
      const held = await this.identity.adopt(identity, start.unlockKey);
      const manager = await this.startManager(held, start);
      const agent = await this.becomeMember(manager, [settings.advertiseAddress]);
      await manager.manager.readBarrier();
      await waitForFirstNode(agent, this.clock);
      return held.certificate.nodeId;
    } catch (error) {
      await this.forget();
      throw error;
    }
  }

  /** Joins the cluster that the token belongs to, as what the token says. */
  async join(request: SwarmJoinRequest): Promise<void> {
    const remotes = request.RemoteAddrs.map((address) => withPort(address, 'RemoteAddrs'));
    if (isLostWorker(this.state)) {
      const trusted = () => this.identity.tlsInfo();
      const told = { addresses: remotes, token: request.JoinToken, trusted };
      return findManagers(this.state.agent, told, this.clock);
    }
    requireOutside(this.state, this.raftFolder());
    const settings = this.settingsFor(request);
    this.state = { kind: 'pending' };
    let agent: Agent | undefined;
    try {
      this.keepSettings(settings);
      const held = await this.identity.obtain({
        token: request.JoinToken,
        addresses: remotes,
        availability: request.Availability,
      });
      const isManager = held.certificate.role === 'manager';
      const manager = isManager ? await this.startManager(held, { kind: 'join', remotes }) : undefined;
      agent = await this.becomeMember(manager, remotes);
      await waitForSession(agent, this.clock);
    } catch (error) {
      if (agent && isShoalError(error, 'timeout')) throw error;
      await this.forget();
      throw error;
    }
  }

  /** Takes this node out of its cluster: its tasks end, its folders are emptied. Resolves with what is left on the host, in words. */
  async leave(force: boolean): Promise<string[]> {
    this.isEnding = true;
    return this.leaveCluster(force).finally(() => {
      this.isEnding = false;
    });
  }

  private async leaveCluster(force: boolean): Promise<string[]> {
    const { state } = this;
    let leftovers: string[] = [];
    if (state.kind === 'member') {
      const nodeId = this.mustHold().certificate.nodeId as NodeId;
      const isAlone = state.manager?.manager.raft.status().members.length === 1;
      if (state.manager && !isAlone) await this.leaveGroup(state.manager, nodeId, force);
      leftovers = await state.agent.leave();
      await state.manager?.stop({ orderly: false });
    }
    await this.forget();
    return leftovers;
  }

  /** Opens a locked manager's disk and goes on. */
  async unlock(unlockKey: string): Promise<void> {
    if (this.state.kind !== 'locked') throw new ShoalError('failed-precondition', 'swarm is not locked');
    const locked = this.state;
    try {
      const held = await this.identity.load(unlockKey);
      if (held) await this.resume(held, unlockKey);
    } catch (error) {
      this.state = locked;
      if (isShoalError(error, 'locked'))
        throw new ShoalError('invalid-argument', 'swarm could not be unlocked: invalid key provided');
      throw error;
    }
  }

  private async leaveGroup(server: ManagerServer, nodeId: NodeId, force: boolean): Promise<void> {
    try {
      await server.cluster().removeManager(nodeId, false);
    } catch (error) {
      if (!force) throw error;
      this.log.warn(
        { error: messageOf(error) },
        'left without the other managers’ consent; remove this node there',
      );
    }
  }

  private async resume(held: HeldIdentity, unlockKey: string | undefined): Promise<void> {
    const { role } = held.certificate;
    const manager = role === 'manager' ? await this.resumeManager(held, unlockKey) : undefined;
    await this.becomeMember(manager, []);
    this.pursueRole();
  }

  /** The manager as its disk left it; undefined when it has no log, for it was to become one and did not get there. */
  private async resumeManager(
    held: HeldIdentity,
    unlockKey: string | undefined,
  ): Promise<ManagerServer | undefined> {
    let server: ManagerServer;
    try {
      server = await this.startManager(held, { kind: 'resume', unlockKey });
    } catch (error) {
      if (isShoalError(error, 'failed-precondition') && error.details.reason === 'no-log') return undefined;
      throw error;
    }
    // A power cut may have come between the two: sealed is the whole disk or nothing of it.
    await this.identity.sealUnder(unlockKey).catch((error) => this.log.error({}, messageOf(error)));
    return server;
  }

  /** The managers won't have this node back: it says so, and waits for someone to make it leave and join. */
  private async shutOut(error: ShoalError): Promise<void> {
    const { state } = this;
    if (state.kind !== 'member' || this.isEnding) return;
    this.state = { kind: 'error', held: this.identity.current(), message: error.message };
    this.log.error({}, error.message);
    await state.agent.stop();
    await state.manager?.stop({ orderly: false });
  }

  /** Goes on alone, from its disk, at the addresses that `request` names or else at those it had. */
  private async forceNewCluster(request: SwarmInitRequest): Promise<string> {
    const settings = namesAddress(request) ? this.settingsFor(request) : this.mustSettings();
    const { agent, manager } = await this.survivor();
    manager.manager.refuseWithoutState();
    const unlockKey = manager.manager.store.cluster()?.Private.UnlockKey;
    const held = this.mustHold();
    this.state = { kind: 'pending' };
    await agent.stop();
    await manager.stop({ orderly: false });
    let alone: ManagerServer;
    try {
      this.keepSettings(settings);
      alone = await this.startManager(held, { kind: 'force-new-cluster', unlockKey });
    } catch (error) {
      this.state = stateAfter(error, held);
      throw error;
    }
    await this.becomeMember(alone, [settings.advertiseAddress]);
    await alone.manager.readBarrier();
    await alone.manager.forgetOtherManagers();
    return held.certificate.nodeId;
  }

  /** This node's manager and agent; one that could not go on is tried once more. Its disk stays as it is. */
  private async survivor(): Promise<{ agent: Agent; manager: ManagerServer }> {
    const { state } = this;
    if (state.kind === 'error' && state.held) {
      try {
        await this.resume(state.held, undefined);
      } catch (error) {
        this.state = stateAfter(error, state.held);
        throw error;
      }
    }
    return managingMember(this.state);
  }

  private startManager(held: HeldIdentity, start: ManagerStart): Promise<ManagerServer> {
    const { listenAddress, advertiseAddress } = this.mustSettings();
    const { clock, random, log, metrics } = this;
    return ManagerServer.start({
      identity: held.identity,
      nodeId: held.certificate.nodeId as NodeId,
      clusterId: held.certificate.clusterId as ClusterId,
      listenAddress,
      advertiseAddress,
      gossipAddress: this.options.gossipAddress ?? `${hostOf(advertiseAddress)}:${gossipPort}`,
      folder: this.raftFolder(),
      start,
      clock,
      random,
      log,
      metrics,
      sealIdentity: (unlockKey, alongside) => this.identity.sealUnder(unlockKey, alongside),
      onFailure: this.options.onFatal,
    });
  }

  /** Starts the agent, and lets it know of the leader that this node's own manager sees. */
  private async becomeMember(manager: ManagerServer | undefined, remotes: readonly string[]): Promise<Agent> {
    const { clock, random, log } = this;
    const { dataPathAddress } = this.mustSettings();
    const agent = new Agent({
      identity: this.identity,
      engine: this.options.engine,
      clock,
      random,
      log,
      dataDir: this.options.dataDir,
      runDir: this.options.runDir,
      hostname: this.options.hostname,
      genericResources: this.options.genericResources ?? [],
      dataPathAddress,
      managers: remotes,
      onProgrammed: (tookMs) => this.metrics.observeProgramming(tookMs),
      ...agentNetwork(this.options.hostNetwork, dataPathAddress),
    });
    agent.onSessionMessage((message) => this.onSessionMessage(message));
    this.state = { kind: 'member', agent, manager };
    this.identity.startRenewing();
    void endFormerLife(this.options.engine, this.options.runDir, this.mustHold().certificate.nodeId, log);
    await agent.start();
    if (manager) this.follow(manager, agent);
    return agent;
  }

  /** What the managers say of this node: its role, the roots to trust, that its certificate is to be renewed. */
  private onSessionMessage(message: SessionMessage): void {
    const { node, RootCA } = message;
    if (node?.role) this.identity.expectRole(node.role === 'MANAGER' ? 'manager' : 'worker');
    if (node?.certificate?.status?.state === 'ROTATE') this.identity.renewSoon();
    if (RootCA && RootCA.length > 0) {
      this.identity.setRoots(RootCA.toString('utf8')).catch((error) => {
        this.log.error({ error: messageOf(error) }, 'the new roots could not be kept');
      });
    }
  }

  private follow(server: ManagerServer, agent: Agent): void {
    const hint = (): void => {
      const leader = server.manager.leaderMember();
      if (leader) agent.leaderHint(leader.address);
      if (server.manager.raft.status().role === 'removed') this.pursueRole();
    };
    server.manager.raft.onChange(hint);
    hint();
  }

  /** A new certificate: shown at once; and when its role is another one, the node becomes that. */
  private onIdentity(held: HeldIdentity): void {
    const { state } = this;
    if (state.kind !== 'member') return;
    state.manager?.setIdentity(held.identity);
    this.pursueRole();
  }

  /** Becomes what its certificate says, however often that takes. */
  private pursueRole(): void {
    this.changingRole ??= this.takeRole().finally(() => {
      this.changingRole = undefined;
    });
  }

  private async takeRole(): Promise<void> {
    for (let waitMs = roleRetryFirstMs; ; waitMs = Math.min(2 * waitMs, roleRetryMaxMs)) {
      try {
        if (!(await this.stepToRole())) return;
      } catch (error) {
        this.log.warn({ error: messageOf(error) }, 'this node could not take its new role yet; trying again');
        await delay(this.clock, waitMs);
      }
    }
  }

  /** Answers whether it is to be looked at again: a certificate may have come while the step was made. */
  private async stepToRole(): Promise<boolean> {
    const { state } = this;
    if (state.kind !== 'member' || this.isEnding) return false;
    const { role } = this.mustHold().certificate;
    const { manager } = state;
    // A manager that was removed and holds a manager's certificate comes back as a new member, if it may.
    if (manager && (role === 'worker' || manager.manager.raft.status().role === 'removed')) {
      state.manager = undefined;
      await manager.stop({ orderly: true });
      this.log.info({}, 'this node is no longer a manager');
      return true;
    }
    if (role === 'worker') this.dropLog();
    if (role === 'worker' || manager) return false;
    await this.joinManagers(state);
    return true;
  }

  private async joinManagers(state: Extract<State, { kind: 'member' }>): Promise<void> {
    const remotes = state.agent.managers.map((manager) => manager.address);
    this.dropLog();
    const server = await this.startManager(this.mustHold(), { kind: 'join', remotes });
    if (this.state !== state || this.isEnding) {
      await server.stop({ orderly: false });
      return;
    }
    state.manager = server;
    server.setIdentity(this.mustHold().identity);
    this.follow(server, state.agent);
    this.log.info({}, 'this node is now a manager');
  }

  /** The cluster's state, its keys among them, has no business on a node that is no manager (any more). */
  private dropLog(): void {
    rmSync(this.raftFolder(), { recursive: true, force: true });
  }

  private async forget(): Promise<void> {
    if (this.state.kind === 'member') {
      await this.state.agent.stop();
      await this.state.manager?.stop({ orderly: false });
    }
    this.state = { kind: 'none' };
    // First: a log without an identity is one that someone lost, and nothing is done over it.
    this.dropLog();
    await this.identity.clear();
    this.settings = undefined;
    for (const name of ['agent', settingsFile])
      rmSync(join(this.options.dataDir, name), { recursive: true, force: true });
    forgetLife(this.options.runDir);
  }

  private settingsFor(
    request: Pick<SwarmInitRequest, 'ListenAddr' | 'AdvertiseAddr' | 'DataPathAddr'>,
  ): NodeSettings {
    const { ListenAddr: listen, AdvertiseAddr: advertise, DataPathAddr: dataPath } = request;
    return chooseSettings({ listen, advertise, dataPath }, this.options);
  }

  private keepSettings(settings: NodeSettings): void {
    writeSettings(this.options.dataDir, settings);
    this.settings = settings;
  }

  private raftFolder(): string {
    return join(this.options.dataDir, 'raft');
  }

  private mustHold(): HeldIdentity {
    const held = this.identity.current();
    if (held) return held;
    throw new ShoalError('internal', 'this node has no identity');
  }

  private mustSettings(): NodeSettings {
    if (this.settings) return this.settings;
    throw new ShoalError('internal', 'this node has no addresses yet');
  }
}
