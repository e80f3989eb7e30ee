/**
 * A manager: one member of the group that holds the cluster's state.
 *
 * In: its disk, its transport to other managers, clock and chance; requests from the API and from agents.
 * Out: the store, replicated; the leader's rooms while it leads. It puts the rooms together and decides
 * nothing itself; it knows no sockets (server.ts binds it to the cluster's port), so that the simulator
 * runs it as it is.
 */
import { isShoalError, messageOf, ShoalError } from '../proto/errors.ts';
import type { NodeId } from '../proto/ids.ts';
import { type Clock, delay, type Log, type Random, type Timer } from '../proto/ports.ts';
import type { NodeIdentity } from '../proto/rpc.ts';
import { allocate } from './allocator/allocate.ts';
import type { ManagedCluster } from './api/contract.ts';
import type { BackupFacts } from './backup/backup.ts';
import type { RestoredState } from './backup/restore.ts';
import { type Authority, CertificateService, x509Authority } from './ca/service.ts';
import type { Dispatcher } from './dispatcher/dispatcher.ts';
import { refuseReplaced } from './keeper.ts';
import { Leader, type LeaderOptions } from './leader.ts';
import type { CompactionPolicy } from './raft/compaction.ts';
import type {
  Disk,
  Member,
  ProposalResult,
  RaftNode,
  RaftStart,
  RaftStatus,
  RaftTransport,
} from './raft/contract.ts';
import { createRaftNode } from './raft/node.ts';
import { changeOver, type DataKeys, sealKeyFile, withNewDataKey } from './raft/seal.ts';
import { type Change, encodeEntry } from './store/change.ts';
import { sameValue } from './store/normalize.ts';
import { type ApplyResult, Store } from './store/store.ts';

export interface ManagerOptions {
  readonly nodeId: NodeId;
  readonly start: RaftStart;
  /** The first entry of a new cluster; only with start.kind 'bootstrap'. */
  readonly firstChanges?: readonly Change[];
  /** The state that the first entry comes after; only with start.kind 'bootstrap' and its `after`. */
  readonly restored?: RestoredState;
  readonly disk: Disk;
  readonly dataKeys: DataKeys;
  /** The unlock key that the file of data keys is sealed under now; absent while it lies open. */
  readonly sealedUnder?: string | undefined;
  /** Seals the node's own key on disk like the data keys, which `alongside` seals. Only those when absent. */
  readonly sealIdentity?:
    | ((unlockKey: string | undefined, alongside: () => Promise<void>) => Promise<void>)
    | undefined;
  readonly transport: RaftTransport;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly observeCommit?: (latencyMs: number) => void;
  readonly observeSchedulingDelay?: (delayMs: number) => void;
  readonly observeConvergence?: (tookMs: number) => void;
  /** The member can't go on (a damaged log, a disk error): the process should end. */
  readonly onFailure: (error: unknown) => void;
  /** The store to fill, an empty one; made when absent. */
  readonly store?: Store;
  /** What decides while this manager leads; that of leader.ts when absent. */
  readonly decide?: LeaderOptions['decide'];
  /** Raft's settings where they are not the defaults; see RaftNodeOptions. */
  /** How certificates are made and read; by the cluster's key when absent. */
  readonly authority?: Authority;
  readonly tuning?: {
    readonly tickMs?: number;
    readonly electionTicks?: number;
    readonly snapshotEntries?: number;
    readonly keepEntries?: number;
    readonly proposalTimeoutMs?: number;
  };
}

/** The index that a bootstrap's snapshot has; the first entry is in it. */
const bootstrapIndex = 1;
const raftIdBytes = 6;
const applyPollMs = 5;
const sealRetryMs = 5_000;
const selfIssueTimeoutMs = 10_000;
/** How often addresses that others took meanwhile are given out anew for one proposal. */
const maxAllocations = 10;

export class Manager {
  readonly store: Store;
  readonly raft: RaftNode;
  readonly certificates: CertificateService;
  readonly nodeId: NodeId;
  private readonly options: ManagerOptions;
  private leader: Leader | undefined;
  private stopped = false;
  private readonly stopWatching: () => void;
  /** The key that the file of data keys is sealed with; undefined while autolock is off. */
  private unlockKey: string | undefined;
  private sealing: Promise<void> | undefined;
  private sealAgain: Timer | undefined;
  private hasCaughtUp = false;
  /** Ends with the last entry that gives something out. */
  private givingOut: Promise<void> = Promise.resolve();
  private catchingUp = false;

  private constructor(options: ManagerOptions, store: Store, raft: RaftNode) {
    this.options = options;
    this.store = store;
    this.raft = raft;
    this.nodeId = options.nodeId;
    const { clock, random, log } = options;
    this.certificates = new CertificateService({
      store,
      propose: (changes) => this.propose(changes),
      readBarrier: () => raft.readBarrier(),
      clock,
      random,
      log,
      authority: options.authority,
    });
    this.unlockKey = options.sealedUnder;
    const stopStore = store.onCommit(() => this.sealKeys());
    const stopRaft = raft.onChange((status) => this.onRaft(status));
    this.stopWatching = () => {
      stopStore();
      stopRaft();
    };
    this.onRaft(raft.status());
  }

  /** Starts a member; see createRaftNode for what is refused. */
  static async start(options: ManagerOptions): Promise<Manager> {
    const store = options.store ?? new Store();
    if (options.restored) store.restore(options.restored.stateIndex, options.restored.state);
    if (options.firstChanges) {
      const now = options.clock.now();
      const index = options.restored?.index ?? bootstrapIndex;
      const first = store.applyEntry(index, { now, changes: allocate(store, options.firstChanges, now) });
      if (!first.ok) throw new ShoalError(first.code, first.message);
    }
    const { start, disk, dataKeys, transport, clock, random, log, tuning } = options;
    const raft = await createRaftNode({
      start,
      disk,
      dataKeys,
      transport,
      clock,
      random,
      log,
      stateMachine: store,
      compactionPolicy: () => compactionPolicy(store, tuning),
      replacedBy: (nodeId) => store.get('node', nodeId as NodeId)?.Private.Replaces,
      ...(options.observeCommit ? { onCommit: options.observeCommit } : {}),
      onFailure: options.onFailure,
      ...tuning,
    });
    return new Manager(options, store, raft);
  }

  /** The leader's dispatcher; undefined while another manager leads. */
  dispatcher(): Dispatcher | undefined {
    return this.leader?.dispatcher;
  }

  /** The leader's rooms; undefined while another manager leads. */
  leading(): Leader | undefined {
    return this.leader;
  }

  /** Who leads, as far as this manager knows. */
  leaderMember(): Member | undefined {
    return this.raft.status().leader;
  }

  isLeader(): boolean {
    return this.raft.status().role === 'leader';
  }

  /**
   * See Propose: through whichever manager leads. What the changes make has its addresses and ports in the same
   * entry. Of entries in which this manager gives something out, one is on its way at a time; when one of another
   * manager took the same meanwhile, it is given out anew.
   */
  async propose(changes: readonly Change[]): Promise<number> {
    if (!this.givesOut(changes)) return this.proposeOnce(changes);
    const turn = this.givingOut.then(() => this.proposeWithAddresses(changes));
    this.givingOut = turn.then(
      () => {},
      () => {},
    );
    return turn;
  }

  private givesOut(changes: readonly Change[]): boolean {
    const allocated = allocate(this.store, changes, this.options.clock.now());
    return !sameValue(changes, allocated);
  }

  private async proposeWithAddresses(changes: readonly Change[]): Promise<number> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.proposeOnce(allocate(this.store, changes, this.options.clock.now()));
      } catch (error) {
        if (!isShoalError(error, 'taken') || attempt >= maxAllocations) throw error;
      }
    }
  }

  private async proposeOnce(changes: readonly Change[]): Promise<number> {
    const data = encodeEntry({ now: this.options.clock.now(), changes });
    return committed(await this.raft.propose(data));
  }

  readBarrier(): Promise<void> {
    return this.raft.readBarrier();
  }

  /** Everything that was acknowledged before the call, as one state, with what a restore goes on from. */
  async stateForBackup(): Promise<{ facts: BackupFacts; state: Iterable<Uint8Array> }> {
    await this.raft.readBarrier();
    const { appliedIndex, term, members } = this.raft.status();
    const facts = {
      index: Math.max(appliedIndex, this.store.index),
      term,
      nodeId: this.nodeId,
      members: members.map(({ raftId, nodeId, address }) => ({ raftId, nodeId, address })),
    };
    return { facts, state: this.store.snapshotPieces() };
  }

  managerAddresses(): ReturnType<ManagedCluster['managerAddresses']> {
    return this.raft
      .status()
      .members.map((member) => ({ NodeID: member.nodeId as NodeId, Addr: member.address }));
  }

  /**
   * A certificate that this manager makes itself, with the cluster's key: its own has expired while it was
   * off, and the others, perhaps in the same state, would not even speak to it.
   */
  async issueToSelf(): Promise<NodeIdentity> {
    const { clock, random } = this.options;
    const { commitIndex } = this.raft.status();
    const endMs = clock.monotonicMs() + selfIssueTimeoutMs;
    while (this.raft.status().appliedIndex < commitIndex) {
      if (this.stopped || clock.monotonicMs() > endMs) {
        throw new ShoalError('unavailable', 'this manager has not yet applied what its log holds');
      }
      await delay(clock, applyPollMs);
    }
    const cluster = this.store.cluster();
    if (!cluster) {
      throw new ShoalError(
        'unauthenticated',
        'this node’s certificate has expired before it had received the cluster: run `shoal swarm leave --force` and join again with a current token',
      );
    }
    const issued = await (this.options.authority ?? x509Authority).issueLocally(
      cluster,
      { nodeId: this.nodeId, role: 'manager' },
      { now: clock.now(), random },
    );
    return issued.identity;
  }

  /**
   * Before a recovery by force: throws 'failed-precondition' when this manager does not hold the cluster's state,
   * because it was let in a moment ago and got nothing yet. A cluster made of it alone would be an empty one.
   */
  refuseWithoutState(): void {
    if (this.store.cluster() !== undefined && this.store.get('node', this.nodeId) !== undefined) return;
    throw new ShoalError(
      'failed-precondition',
      "this manager was still receiving the cluster's state when the others were lost: going on with it alone would give an empty cluster. Run --force-new-cluster on another manager, or restore a backup with `shoal backup restore`",
    );
  }

  /** After a recovery by force: the managers that were lost are workers, should they ever come back. */
  async forgetOtherManagers(): Promise<void> {
    const others = this.store.find('node', 'role', 'manager').filter((node) => node.ID !== this.nodeId);
    const changes = others.map((node): Change => {
      return { op: 'merge', kind: 'node', id: node.ID, fields: { Spec: { ...node.Spec, Role: 'worker' } } };
    });
    if (changes.length > 0) await this.propose(changes);
  }

  /**
   * Takes a node that holds a manager's certificate into the group; only on the leader. It begins as a
   * learner and votes when it has caught up. A node that was a member before and comes with an empty disk
   * gets a new number, for the old one may have voted.
   */
  async admit(nodeId: string, address: string): Promise<{ raftId: number; members: readonly Member[] }> {
    const node = this.store.get('node', nodeId as NodeId);
    if (!node)
      throw new ShoalError('permission-denied', `node ${nodeId} was removed from this cluster; join it anew`);
    if (node.Spec.Role !== 'manager') {
      throw new ShoalError(
        'permission-denied',
        `node ${nodeId} is a worker now, whatever its certificate says: promote it first`,
      );
    }
    const before = this.raft.status().members.find((member) => member.nodeId === nodeId);
    if (before) await this.raft.removeMember(nodeId, { force: true });
    else refuseReplaced(this.store, this.raft.status(), nodeId);
    const raftId = newRaftId(this.options.random);
    await this.raft.addMember({ raftId, nodeId, address });
    return { raftId, members: this.raft.status().members };
  }

  /** Stops; when `orderly`, leadership is handed over first. */
  async stop(options: { readonly orderly: boolean }): Promise<void> {
    if (this.stopped) return;
    if (options.orderly && this.isLeader() && this.raft.status().members.length > 1) {
      await this.raft.transferLeadership().catch(() => undefined);
    }
    this.stopped = true;
    this.stopWatching();
    this.endLeading();
    this.sealAgain?.cancel();
    await this.sealing;
    await this.raft.stop();
  }

  /** When autolock was turned on or off or its key replaced, the file of data keys is sealed anew. */
  private sealKeys(): void {
    const cluster = this.store.cluster();
    const wanted = cluster?.Private.UnlockKey;
    // A manager that has yet to receive the cluster knows of no key, which does not mean that there is none.
    if (!cluster || wanted === this.unlockKey || this.sealing || this.stopped) return;
    if (!this.hasCaughtUp) {
      void this.catchUp();
      return;
    }
    const { clock, log } = this.options;
    this.sealing = this.sealUnder(wanted).then(
      () => {
        this.sealing = undefined;
        this.sealKeys();
      },
      (error) => {
        log.error(
          { error: messageOf(error) },
          'this manager’s keys could not be sealed anew; trying again in 5 s',
        );
        if (this.stopped) return;
        this.sealAgain = clock.after(sealRetryMs, () => {
          this.sealing = undefined;
          this.sealKeys();
        });
      },
    );
  }

  /** After a restart the store is for a while as it once was: nothing is unsealed for what it says then. */
  private async catchUp(): Promise<void> {
    if (this.catchingUp) return;
    this.catchingUp = true;
    try {
      await this.raft.readBarrier();
      this.hasCaughtUp = true;
    } catch {
      return; // nobody leads; the next change of that tries again
    } finally {
      this.catchingUp = false;
    }
    if (!this.stopped) this.sealKeys();
  }

  /** A data key that lay in the clear until now seals nothing more: the log goes on under a new one. */
  private async sealUnder(unlockKey: string | undefined): Promise<void> {
    const { disk, random, dataKeys, sealIdentity } = this.options;
    const wasOpen = this.unlockKey === undefined;
    const next = unlockKey !== undefined && wasOpen ? withNewDataKey(dataKeys, random) : dataKeys;
    const sealDataKeys = () => sealKeyFile(disk, random, next, unlockKey);
    await (sealIdentity ? sealIdentity(unlockKey, sealDataKeys) : sealDataKeys());
    this.unlockKey = unlockKey;
    if (next !== dataKeys) changeOver(dataKeys, next);
  }

  private onRaft(status: RaftStatus): void {
    if (this.stopped) return;
    this.sealKeys();
    if (status.role === 'leader' && !this.leader) void this.beginLeading(status.term);
    if (status.role !== 'leader') this.endLeading();
  }

  /** The leader's rooms begin only once everything that was acknowledged before is applied here. */
  private async beginLeading(term: number): Promise<void> {
    const { clock, random, log } = this.options;
    try {
      await this.raft.readBarrier();
    } catch {
      return; // it lost the lead meanwhile; the next change of it begins anew
    }
    const status = this.raft.status();
    if (this.stopped || this.leader || status.role !== 'leader' || status.term !== term) return;
    const { store, raft } = this;
    this.leader = new Leader({
      store,
      raft,
      propose: (changes) => this.proposeAsLeader(changes),
      selfNodeId: this.nodeId,
      clock,
      random,
      log,
      observeSchedulingDelay: this.options.observeSchedulingDelay ?? (() => {}),
      observeConvergence: this.options.observeConvergence,
      ...(this.options.decide ? { decide: this.options.decide } : {}),
    });
    this.leader.start();
    log.info({ term }, 'this manager leads the cluster');
  }

  private endLeading(): void {
    const { leader } = this;
    if (!leader) return;
    this.leader = undefined;
    leader.stop(this.stopped ? undefined : this.leaderMember()?.address);
    this.options.log.info({}, 'this manager no longer leads the cluster');
  }

  private async proposeAsLeader(changes: readonly Change[]): Promise<number> {
    const data = encodeEntry({ now: this.options.clock.now(), changes });
    return committed(await this.raft.proposeAsLeader(data));
  }
}

/** The index of an applied proposal; throws what the store refused it with. */
function committed({ index, result }: ProposalResult): number {
  const applied = result as ApplyResult;
  if (!applied.ok) throw new ShoalError(applied.code, applied.message);
  return index;
}

/** How often a snapshot is made and what is kept, as the cluster's settings say (`docker swarm update`). */
function compactionPolicy(store: Store, tuning: ManagerOptions['tuning']): CompactionPolicy {
  const said = store.cluster()?.Spec.Raft;
  return {
    snapshotEntries: tuning?.snapshotEntries ?? (said?.SnapshotInterval || undefined),
    keepEntries: tuning?.keepEntries ?? said?.LogEntriesForSlowFollowers,
    keepSnapshots: said?.KeepOldSnapshots,
  };
}

/** A member number that was never used: 48 random bits, not 0. */
export function newRaftId(random: Random): number {
  let id = 0;
  while (id === 0) id = [...random.bytes(raftIdBytes)].reduce((sum, byte) => sum * 256 + byte, 0);
  return id;
}
