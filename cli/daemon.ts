/**
 * The daemon: an agent, and a manager where the node is one, put together and served through one API.
 *
 * In: its settings; requests to init, join, leave and unlock; the role that the managers want of it. Out:
 * the ApiHost that the HTTP API asks. It holds which of the two run and keeps their folders; it decides
 * nothing about the cluster.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Agent } from '../agent/agent.ts';
import type { Engine } from '../agent/engine/engine.ts';
import { AgentIdentity, type HeldIdentity } from '../agent/identity.ts';
import type {
  ApiHost,
  EngineFacts,
  Membership,
  SwarmInitRequest,
  SwarmJoinRequest,
} from '../manager/api/contract.ts';
import { bootstrapCluster } from '../manager/ca/bootstrap.ts';
import { createMetrics, type Metrics } from '../manager/metrics.ts';
import { ManagerServer, type ManagerStart } from '../manager/server.ts';
import { assertNever, isShoalError, messageOf, ShoalError } from '../proto/errors.ts';
import type { SessionMessage__Output as SessionMessage } from '../proto/generated/docker/swarmkit/v1/SessionMessage.ts';
import type { ClusterId, NodeId } from '../proto/ids.ts';
import { type Clock, delay, type Log, type Random } from '../proto/ports.ts';
import { packageVersion } from '../proto/version.ts';
import { guessAdvertiseAddress, withPort } from './addresses.ts';
import { endFormerLife } from './former-life.ts';

export interface DaemonOptions {
  readonly dataDir: string;
  /** Folder on a tmpfs for secrets of this daemon's tasks. */
  readonly runDir: string;
  readonly listenAddress: string;
  /** Undefined: found out when the node joins or makes a cluster. */
  readonly advertiseAddress: string | undefined;
  readonly hostname: string;
  readonly engine: Engine;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Something can't go on; the process should end with this message. */
  readonly onFatal: (error: unknown) => void;
}

/** What of a node's settings has to be the same after a restart. */
interface Settings {
  readonly listenAddress: string;
  readonly advertiseAddress: string;
}

type State =
  | { readonly kind: 'none' }
  | { readonly kind: 'pending' }
  | { readonly kind: 'locked'; readonly held: HeldIdentity }
  | { readonly kind: 'member'; readonly agent: Agent; manager: ManagerServer | undefined }
  | { readonly kind: 'error'; readonly held: HeldIdentity | undefined; readonly message: string };

const joinWaitMs = 20_000;
const pollMs = 50;

export class Daemon implements ApiHost {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly version = packageVersion();
  readonly metrics: Metrics;
  private readonly options: DaemonOptions;
  private readonly identity: AgentIdentity;
  private settings: Settings | undefined;
  private state: State = { kind: 'none' };
  private changingRole: Promise<void> = Promise.resolve();

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
      managers: () => this.knownManagers(),
    });
    this.identity.onChange((held) => this.onIdentity(held));
    this.metrics = createMetrics({
      store: () => this.managerServer()?.manager.store,
      raft: () => this.managerServer()?.manager.raft.status(),
    });
  }

  /** Goes on where the daemon stopped, if this node is part of a cluster. */
  async start(): Promise<void> {
    mkdirSync(this.options.dataDir, { recursive: true, mode: 0o700 });
    this.settings = this.readSettings();
    let held: HeldIdentity | undefined;
    try {
      held = await this.identity.load();
      if (!held || !this.settings) return;
      await this.resume(held, undefined);
    } catch (error) {
      if (isShoalError(error, 'locked') && held) {
        this.state = { kind: 'locked', held };
        this.log.warn({}, messageOf(error));
        return;
      }
      if (isShoalError(error, 'corrupted') || !isShoalError(error)) throw error;
      this.state = { kind: 'error', held, message: messageOf(error) };
      this.log.error({}, messageOf(error));
    }
  }

  /** Ends agent and manager; containers go on. */
  async stop(): Promise<void> {
    this.identity.stop();
    if (this.state.kind !== 'member') return;
    const { agent, manager } = this.state;
    await agent.stop();
    await manager?.stop({ orderly: true });
  }

  membership(): Membership {
    const { state } = this;
    switch (state.kind) {
      case 'none':
      case 'pending':
        return state;
      case 'locked':
        return { kind: 'locked', nodeId: state.held.certificate.nodeId as NodeId };
      case 'error':
        return {
          kind: 'error',
          message: state.message,
          ...(state.held ? { nodeId: state.held.certificate.nodeId as NodeId } : {}),
        };
      case 'member':
        if (state.manager) return { kind: 'manager', cluster: state.manager.cluster() };
        return {
          kind: 'worker',
          nodeId: this.mustHold().certificate.nodeId as NodeId,
          managers: state.agent.managers.map((manager) => ({
            NodeID: manager.nodeId,
            Addr: manager.address,
          })),
        };
      default:
        return assertNever(state);
    }
  }

  advertiseAddress = (): string => (this.settings?.advertiseAddress ?? '').replace(/:\d+$/, '');

  async engine(): Promise<EngineFacts | undefined> {
    return this.options.engine.facts().catch(() => undefined);
  }

  /** Makes a cluster with this node as its first manager, or recovers one with ForceNewCluster. */
  async init(request: SwarmInitRequest): Promise<string> {
    if (request.ForceNewCluster && this.state.kind === 'member') return this.forceNewCluster();
    this.requireOutside();
    const settings = this.chooseSettings(request.ListenAddr, request.AdvertiseAddr);
    this.state = { kind: 'pending' };
    try {
      const made = await bootstrapCluster({
        random: this.random,
        clock: this.clock,
        spec: {
          ...request.Spec,
          ...(request.AutoLockManagers ? { EncryptionConfig: { AutoLockManagers: true } } : {}),
        },
        availability: request.Availability,
        defaultAddrPool: request.DefaultAddrPool,
        subnetSize: request.SubnetSize,
        dataPathPort: request.DataPathPort,
      });
      this.writeSettings(settings);
      const held = await this.identity.adopt(made.identity);
      const unlockKey = made.cluster.Private.UnlockKey;
      const manager = await this.startManager(held, { kind: 'bootstrap', changes: made.changes, unlockKey });
      await this.becomeMember(manager, [settings.advertiseAddress]);
      await manager.manager.readBarrier();
      return made.node.ID;
    } catch (error) {
      await this.forget();
      throw error;
    }
  }

  /** Joins the cluster that the token belongs to, as what the token says. */
  async join(request: SwarmJoinRequest): Promise<void> {
    this.requireOutside();
    const settings = this.chooseSettings(request.ListenAddr, request.AdvertiseAddr);
    const remotes = request.RemoteAddrs.map((address) => withPort(address, 'RemoteAddrs'));
    this.state = { kind: 'pending' };
    try {
      this.writeSettings(settings);
      const held = await this.identity.obtain({
        token: request.JoinToken,
        addresses: remotes,
        availability: request.Availability,
      });
      const isManager = held.certificate.role === 'manager';
      const manager = isManager ? await this.startManager(held, { kind: 'join', remotes }) : undefined;
      const agent = await this.becomeMember(manager, remotes);
      await this.waitForSession(agent);
    } catch (error) {
      if (isShoalError(error, 'timeout') && this.isMember()) throw error;
      await this.forget();
      throw error;
    }
  }

  /** Takes this node out of its cluster: its tasks end, its folders are emptied. */
  async leave(force: boolean): Promise<void> {
    const { state } = this;
    if (state.kind === 'member') {
      const nodeId = this.mustHold().certificate.nodeId as NodeId;
      const isAlone = state.manager?.manager.raft.status().members.length === 1;
      if (state.manager && !isAlone) await this.leaveGroup(state.manager, nodeId, force);
      await state.agent.leave();
      await state.manager?.stop({ orderly: false });
    }
    await this.forget();
  }

  /** Opens a locked manager's disk and goes on. */
  async unlock(unlockKey: string): Promise<void> {
    if (this.state.kind !== 'locked') throw new ShoalError('failed-precondition', 'swarm is not locked');
    const { held } = this.state;
    try {
      await this.resume(held, unlockKey);
    } catch (error) {
      this.state = { kind: 'locked', held };
      if (isShoalError(error, 'locked'))
        throw new ShoalError('invalid-argument', 'swarm could not be unlocked: invalid key provided');
      throw error;
    }
  }

  // ---------------------------------------------------------------- inside

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
    let manager: ManagerServer | undefined;
    if (held.certificate.role === 'manager') {
      const hasLog = existsSync(this.raftFolder());
      const start: ManagerStart = hasLog
        ? { kind: 'resume', unlockKey }
        : { kind: 'join', remotes: this.knownManagers() };
      manager = await this.startManager(held, start);
    }
    await this.becomeMember(manager, []);
  }

  private async forceNewCluster(): Promise<string> {
    if (this.state.kind !== 'member' || !this.state.manager) {
      throw new ShoalError(
        'not-a-manager',
        '--force-new-cluster recovers a cluster from one of its managers, and this node is none',
      );
    }
    const { agent, manager } = this.state;
    const unlockKey = manager.manager.store.cluster()?.Private.UnlockKey;
    await agent.stop();
    await manager.stop({ orderly: false });
    const held = this.mustHold();
    const alone = await this.startManager(held, { kind: 'force-new-cluster', unlockKey });
    await this.becomeMember(alone, [this.mustSettings().advertiseAddress]);
    await alone.manager.readBarrier();
    await alone.manager.forgetOtherManagers();
    return held.certificate.nodeId;
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
      folder: this.raftFolder(),
      start,
      clock,
      random,
      log,
      metrics,
      onFailure: this.options.onFatal,
    });
  }

  /** Starts the agent, and lets it know of the leader that this node's own manager sees. */
  private async becomeMember(manager: ManagerServer | undefined, remotes: readonly string[]): Promise<Agent> {
    const { clock, random, log } = this;
    const agent = new Agent({
      identity: this.identity,
      engine: this.options.engine,
      clock,
      random,
      log,
      dataDir: this.options.dataDir,
      runDir: this.options.runDir,
      hostname: this.options.hostname,
      managers: remotes,
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
    };
    server.manager.raft.onChange(hint);
    hint();
  }

  private async waitForSession(agent: Agent): Promise<void> {
    const end = this.clock.monotonicMs() + joinWaitMs;
    while (agent.session.kind !== 'established') {
      if (this.clock.monotonicMs() > end) {
        throw new ShoalError(
          'timeout',
          'Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the "docker info" command to see the current swarm status of your node.',
        );
      }
      await delay(this.clock, pollMs);
    }
  }

  /** A new certificate: shown at once; and when its role is another one, the node becomes that. */
  private onIdentity(held: HeldIdentity): void {
    const { state } = this;
    if (state.kind !== 'member') return;
    state.manager?.setIdentity(held.identity);
    this.changingRole = this.changingRole
      .then(() => this.takeRole(held))
      .catch((error) =>
        this.log.error(
          { error: messageOf(error) },
          'this node could not take its new role; it tries again when its certificate is renewed',
        ),
      );
  }

  private async takeRole(held: HeldIdentity): Promise<void> {
    const { state } = this;
    if (state.kind !== 'member') return;
    const { role } = held.certificate;
    if (role === 'manager' && !state.manager) {
      const remotes = state.agent.managers.map((manager) => manager.address);
      state.manager = await this.startManager(held, { kind: 'join', remotes });
      this.follow(state.manager, state.agent);
      this.log.info({}, 'this node is now a manager');
    }
    if (role === 'worker' && state.manager) {
      const { manager } = state;
      state.manager = undefined;
      await manager.stop({ orderly: true });
      rmSync(this.raftFolder(), { recursive: true, force: true });
      this.log.info({}, 'this node is no longer a manager');
    }
  }

  private async forget(): Promise<void> {
    if (this.state.kind === 'member') {
      await this.state.agent.stop();
      await this.state.manager?.stop({ orderly: false });
    }
    this.state = { kind: 'none' };
    await this.identity.clear();
    this.settings = undefined;
    for (const name of ['raft', 'agent', 'node.json']) {
      rmSync(join(this.options.dataDir, name), { recursive: true, force: true });
    }
  }

  private isMember(): boolean {
    return this.state.kind === 'member';
  }

  private requireOutside(): void {
    if (this.state.kind === 'none' || this.state.kind === 'error') return;
    throw new ShoalError(
      'already-in-swarm',
      'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.',
    );
  }

  private chooseSettings(listen: string | undefined, advertise: string | undefined): Settings {
    // Docker's CLI always sends its own default, which is not this daemon's --listen-addr.
    const isDefault = !listen || listen === '0.0.0.0:2377';
    const listenAddress = isDefault ? this.options.listenAddress : withPort(listen, 'ListenAddr');
    const chosen = advertise || this.options.advertiseAddress;
    const advertiseAddress = chosen
      ? withPort(chosen, 'AdvertiseAddr')
      : guessAdvertiseAddress(listenAddress);
    return { listenAddress, advertiseAddress };
  }

  private settingsPath(): string {
    return join(this.options.dataDir, 'node.json');
  }

  private readSettings(): Settings | undefined {
    if (!existsSync(this.settingsPath())) return undefined;
    return JSON.parse(readFileSync(this.settingsPath(), 'utf8')) as Settings;
  }

  private writeSettings(settings: Settings): void {
    writeFileSync(this.settingsPath(), JSON.stringify(settings), { mode: 0o600 });
    this.settings = settings;
  }

  private raftFolder(): string {
    return join(this.options.dataDir, 'raft');
  }

  private managerServer(): ManagerServer | undefined {
    return this.state.kind === 'member' ? this.state.manager : undefined;
  }

  private knownManagers(): readonly string[] {
    const server = this.managerServer();
    const leader = server?.manager.leaderMember()?.address;
    const agent = this.state.kind === 'member' ? this.state.agent : undefined;
    const others = agent?.managers.map((manager) => manager.address) ?? [];
    return [...new Set([...(leader ? [leader] : []), ...others])];
  }

  private mustHold(): HeldIdentity {
    const held = this.identity.current();
    if (!held) throw new ShoalError('internal', 'this node has no identity');
    return held;
  }

  private mustSettings(): Settings {
    if (!this.settings) throw new ShoalError('internal', 'this node has no addresses yet');
    return this.settings;
  }
}
