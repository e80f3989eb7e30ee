/**
 * One manager's part in the group: the RaftNode that the rest of the manager holds.
 *
 * In: proposals, reads, membership changes from this manager; messages and forwarded requests from others.
 * Out: their outcome, and the state machine kept at the group's log (through ready-loop.ts). It finds the
 * leader for its callers; it never repeats a proposal that may have been appended, and knows no store.
 */
import { isShoalError, messageOf, ShoalError } from '../../proto/errors.ts';
import type { Timer } from '../../proto/ports.ts';
import { Contacts } from './contacts.ts';
import type { Member, ProposalResult, RaftNode, RaftRole, RaftStatus, Standing } from './contract.ts';
import type { ConfChangeV2, MemberId, Message, RawNode } from './core/types.ts';
import { type Directory, decodeContext, standingOf } from './directory.ts';
import { additionOf, type ChangeDoor, MembershipChanges, removalOf } from './membership-changes.ts';
import type { RaftSettings } from './node.ts';
import { promotionOf } from './promotion.ts';
import { PendingProposals, surelyNotAppended, unknownOutcome } from './proposals.ts';
import { overdueError, refuseQuorumLoss } from './reach.ts';
import { ReadPoints } from './read-points.ts';
import { type LoopEvents, ReadyLoop } from './ready-loop.ts';
import type { Recovered } from './recovery.ts';
import {
  hasFailed,
  leftOpen,
  notLeader,
  notSeenYet,
  refusedByDisk,
  shuttingDown,
  tooLarge,
  wasRemoved,
} from './refusals.ts';
import { isRemovalNotice, removalNotice, removalNotices } from './removal-notice.ts';
import type { Sealer } from './seal.ts';
import { StatusBoard } from './status-board.ts';
import { Succession } from './succession.ts';
import { AppliedWaiters, SharedRequest } from './waiting.ts';

const maxProposalBytes = 16 * 2 ** 20;

/** See createRaftNode. */
export class RaftMember implements RaftNode {
  readonly #settings: RaftSettings;
  readonly #self: Member;
  readonly #recovered: Recovered;
  readonly #loop: ReadyLoop;
  readonly #pending: PendingProposals;
  readonly #waiters: AppliedWaiters;
  readonly #changes: MembershipChanges;
  readonly #readPoints: ReadPoints;
  readonly #barrier: SharedRequest<void>;
  readonly #forwardedPoint: SharedRequest<number>;
  readonly #contacts: Contacts;
  readonly #succession: Succession;
  readonly #board = new StatusBoard();
  /** Called, all of them, when the leader, the role or anything else may have changed. */
  #turns: (() => void)[] = [];
  #ledTerm = 0;
  /** Proposals of other members that were not answered yet. */
  #forwarded = 0;
  #isRemoved = false;
  #isStopped = false;
  #failure: unknown;
  #ticker: Timer | undefined;

  constructor(settings: RaftSettings, recovered: Recovered, core: RawNode, sealer: Sealer) {
    this.#settings = settings;
    this.#self = recovered.self;
    this.#recovered = recovered;
    const { clock, random, proposalTimeoutMs, onCommit, electionTicks } = settings;
    this.#pending = new PendingProposals({ clock, random, timeoutMs: proposalTimeoutMs, onCommit });
    this.#waiters = new AppliedWaiters(recovered.storage, () => this.#refuseWhenUnable());
    this.#changes = new MembershipChanges(this.#changeDoor(), proposalTimeoutMs);
    this.#readPoints = new ReadPoints((context) => {
      this.#refuseUnlessLeading();
      core.readIndex(context);
      this.#loop.wake();
    }, electionTicks);
    this.#barrier = new SharedRequest(() => this.#readOnce());
    this.#forwardedPoint = new SharedRequest(() => this.#askLeader());
    this.#loop = new ReadyLoop({
      ...settings,
      core,
      recovered,
      sealer,
      send: (to, messages) => this.#send(to, messages),
      isAwaited: () => this.#forwarded > 0,
      events: this.#loopEvents(),
    });
    this.#contacts = new Contacts(settings, this.#self.raftId, this.#loop);
    this.#succession = new Succession(this.#loop, this.#self.raftId, clock, settings.tickMs);
  }

  begin(): void {
    this.#settings.transport.setMembers(this.#contacts.others());
    const { voters, votersOutgoing } = this.#loop.confState;
    // Alone, there is nobody to wait for.
    const isAlone = voters.length === 1 && voters[0] === this.#self.raftId && votersOutgoing.length === 0;
    if (isAlone) this.#loop.core.campaign();
    this.#loop.wake();
    this.#ticker = this.#settings.clock.after(this.#settings.tickMs, () => this.#tick());
  }

  async propose(data: Uint8Array): Promise<ProposalResult> {
    if (data.length > maxProposalBytes) throw tooLarge(data.length, maxProposalBytes);
    const deadlineMs = this.#deadlineMs();
    for (;;) {
      this.#refuseWhenUnable();
      const leader = this.#leader();
      try {
        if (this.#isLeading) return await this.#propose(data);
        if (leader !== undefined) return await this.#forward(leader, data, deadlineMs);
      } catch (error) {
        if (!surelyNotAppended(error)) throw error;
        // There is a leader, so its own words say more than "no leader".
        if (this.#settings.clock.monotonicMs() >= deadlineMs && leader !== undefined) throw error;
      }
      await this.#turn(deadlineMs);
    }
  }

  async #forward(leader: Member, data: Uint8Array, deadlineMs: number): Promise<ProposalResult> {
    const result = await this.#settings.transport.forwardProposal(leader, data);
    try {
      await this.#waiters.wait(result.index, deadlineMs);
    } catch (cause) {
      throw notSeenYet(result.index, cause);
    }
    return result;
  }

  async proposeAsLeader(data: Uint8Array): Promise<ProposalResult> {
    this.#forwarded += 1;
    try {
      return await this.#propose(data);
    } finally {
      this.#forwarded -= 1;
    }
  }

  #propose(data: Uint8Array): Promise<ProposalResult> {
    try {
      this.#refuseUnlessLeading();
      if (data.length > maxProposalBytes) throw tooLarge(data.length, maxProposalBytes);
      return this.#pending.start(data, (bytes) => {
        try {
          this.#loop.core.propose(bytes);
        } catch (error) {
          // The core takes it whole or not at all.
          throw new ShoalError('unavailable', messageOf(error), { details: { outcome: 'not-appended' } });
        }
        this.#loop.wake();
      });
    } catch (error) {
      return Promise.reject(error);
    }
  }

  readBarrier(): Promise<void> {
    return this.#barrier.get();
  }

  async #readOnce(): Promise<void> {
    const deadlineMs = this.#deadlineMs();
    for (;;) {
      this.#refuseWhenUnable();
      try {
        const index = await (this.#isLeading ? this.#readPoints.get() : this.#forwardedPoint.get());
        return await this.#waiters.wait(index, deadlineMs);
      } catch (error) {
        // Reading changes nothing: it may be tried again until the time is up.
        if (!isShoalError(error) || !error.retriable) throw error;
      }
      await this.#turn(deadlineMs);
    }
  }

  /** The leader's read point. Given up as soon as that one leads no more: whoever hangs or is cut off does not answer. */
  async #askLeader(): Promise<number> {
    const leader = this.#leader();
    if (leader === undefined) throw this.#notLeader();
    const answer = this.#settings.transport.forwardReadIndex(leader);
    const settled = answer.then(
      () => true,
      () => true,
    );
    while (this.#leader()?.raftId === leader.raftId) {
      this.#refuseWhenUnable();
      const turn = new Promise<false>((resolve) => this.#turns.push(() => resolve(false)));
      if (await Promise.race([settled, turn])) return answer;
    }
    throw this.#notLeader();
  }

  readIndexAsLeader(): Promise<number> {
    return this.#readPoints.get();
  }

  async addMember(member: Member): Promise<void> {
    this.#refuseUnlessLeading();
    await this.#changes.request((request) => additionOf(this.#loop.directory, member, request));
  }

  async removeMember(nodeId: string, options: { readonly force?: boolean } = {}): Promise<void> {
    this.#refuseUnlessLeading();
    await this.#changes.request((request) => {
      const { change, raftId } = removalOf(this.#loop.directory, nodeId, request);
      if (options.force !== true) refuseQuorumLoss(this.#contacts.reachView(), raftId);
      return change;
    });
  }

  async transferLeadership(): Promise<void> {
    if (!this.#isLeading) return;
    const to = this.#successor();
    if (to === undefined) {
      throw new ShoalError(
        'failed-precondition',
        'no other manager is reachable that could lead the cluster',
      );
    }
    this.#loop.core.transferLeader(to);
    this.#loop.wake();
    const { electionTicks, tickMs, clock } = this.#settings;
    const deadlineMs = clock.monotonicMs() + 2 * electionTicks * tickMs;
    while (this.#isLeading && !this.#isStopped) {
      if (clock.monotonicMs() >= deadlineMs) {
        throw new ShoalError(
          'timeout',
          'no other manager took over the leadership in time; this one still leads',
        );
      }
      await this.#turn(deadlineMs);
    }
  }

  status(): RaftStatus {
    const { confState, directory, term, commit, applied } = this.#loop;
    const learners = new Set([...confState.learners, ...confState.learnersNext]);
    return {
      raftId: this.#self.raftId,
      role: this.#role(),
      term,
      commitIndex: Math.max(commit, applied),
      appliedIndex: applied,
      lastIndex: this.#recovered.storage.lastIndex(),
      leader: this.#leader(),
      members: [...directory.members.values()]
        .sort((left, right) => left.raftId - right.raftId)
        .map((member) => ({
          ...member,
          isLearner: learners.has(member.raftId),
          isActive: this.#contacts.isReachable(member),
        })),
    };
  }

  standing(nodeId: string, raftId?: MemberId): Standing {
    return standingOf(this.#loop.directory, nodeId, raftId);
  }

  removalNotices(nodeId: string): readonly Message[] {
    return removalNotices(this.#loop.directory, nodeId, this.#self.raftId, this.#loop.term);
  }

  receive(message: Message): void {
    if (this.#isStopped || this.#isRemoved || message.to !== this.#self.raftId) return;
    const { directory } = this.#loop;
    const removed = directory.removed.get(message.from);
    if (removed !== undefined) {
      const notice = removalNotice(this.#self.raftId, message.from, this.#loop.term);
      this.#settings.transport.send(removed, [notice]);
      return;
    }
    if (isRemovalNotice(message)) {
      // One who follows a living leader believes that one: the sender may have split off by force.
      if (this.#loop.lead === 0 || this.#loop.lead === message.from) this.#markRemoved();
      return;
    }
    this.#contacts.heard(message.from);
    // Without room on the disk it can promise nothing: to the others it is as if it were slow.
    if (this.#loop.blocked !== undefined) return;
    this.#loop.step(message);
  }

  reportUnreachable(raftId: MemberId): void {
    this.#loop.report((core) => core.reportUnreachable(raftId));
  }

  reportGone(raftId: MemberId): void {
    this.#succession.memberGone(raftId);
  }

  reportSnapshot(raftId: MemberId, ok: boolean): void {
    // Also while the disk is full: the core waits for this before it sends the member anything again.
    this.#loop.report((core) => core.reportSnapshot(raftId, ok));
  }

  onChange(listener: (status: RaftStatus) => void): () => void {
    return this.#board.add(listener);
  }

  async stop(): Promise<void> {
    if (!this.#isStopped) {
      this.#isStopped = true;
      this.#ticker?.cancel();
      this.#failAll(() => leftOpen(shuttingDown()));
      this.#takeTurns();
    }
    await this.#loop.stop();
  }

  #tick(): void {
    if (this.#isStopped || this.#isRemoved) return;
    const { clock, tickMs } = this.#settings;
    this.#ticker = clock.after(tickMs, () => this.#tick());
    if (this.#loop.blocked === undefined) this.#loop.tick();
    const overdue = () => this.#overdue();
    this.#pending.expire(() => overdue().message);
    this.#waiters.expire(clock.monotonicMs(), overdue);
    if (this.#isLeading) {
      this.#changes.tick();
      this.#readPoints.tick(overdue);
    }
    this.#takeTurns();
  }

  /** Resolves when anything changed or a tick has passed; throws when the time is up. */
  async #turn(deadlineMs: number): Promise<void> {
    if (this.#settings.clock.monotonicMs() >= deadlineMs) throw this.#overdue();
    this.#refuseWhenUnable();
    await new Promise<void>((resolve) => {
      this.#turns.push(resolve);
    });
  }

  #takeTurns(): void {
    const turns = this.#turns;
    this.#turns = [];
    for (const turn of turns) turn();
  }

  #loopEvents(): LoopEvents {
    return {
      appended: (entries) => {
        this.#pending.appended(entries);
        this.#changes.appended(entries);
      },
      applied: (entry, result) => this.#pending.applied(entry, result),
      changed: (change, before, error) => this.#changed(change, before, error),
      progressed: (bySnapshot) => {
        const { applied } = this.#loop;
        if (bySnapshot) {
          this.#pending.skipped(applied);
          this.#membersMoved();
        } else {
          this.#pending.settled(applied);
        }
        this.#waiters.reached(applied);
      },
      readStates: (states) => this.#readPoints.answered(states),
      moved: () => this.#moved(),
      blocked: (error) => this.#blocked(error),
      failed: (error) => {
        this.#failure = error;
        this.#ticker?.cancel();
        this.#failAll(() => leftOpen(this.#unable()));
        this.#moved();
        this.#settings.onFailure?.(error);
      },
    };
  }

  #changed(change: ConfChangeV2, before: Directory, error: unknown): void {
    this.#changes.applied(decodeContext(change.context), error);
    if (error !== undefined) return;
    for (const [raftId, removed] of this.#loop.directory.removed) {
      if (!before.members.has(raftId) || raftId === this.#self.raftId) continue;
      // The group stops sending to it with this entry, so it may never see that entry committed.
      if (this.#isLeading) {
        const notice = removalNotice(this.#self.raftId, raftId, this.#loop.term);
        this.#settings.transport.send(removed, [notice]);
      }
    }
    this.#membersMoved();
  }

  #membersMoved(): void {
    this.#settings.transport.setMembers(this.#contacts.others());
    if (this.#loop.directory.removed.has(this.#self.raftId)) this.#markRemoved();
    else this.#moved();
  }

  #moved(): void {
    const { role, term } = this.#loop;
    if (this.#ledTerm !== 0 && (role !== 'leader' || term !== this.#ledTerm)) {
      this.#ledTerm = 0;
      // Another leader settles within an election what became of what is under way.
      this.#pending.hurry(2 * this.#settings.electionTicks * this.#settings.tickMs);
      this.#changes.failAll(() => unknownOutcome('the leader changed before the managers were changed'));
      this.#readPoints.failAll(() => this.#notLeader());
    }
    if (role === 'leader') this.#ledTerm = term;
    this.#takeTurns();
    this.#board.show(() => this.status());
  }

  #blocked(error: ShoalError | undefined): void {
    if (error !== undefined) {
      this.#failAll(() => leftOpen(error));
      const to = this.#loop.role === 'leader' ? this.#successor() : undefined;
      if (to !== undefined) {
        const { term } = this.#loop;
        this.#send(to, [{ type: 'MsgTimeoutNow', to, from: this.#self.raftId, term }]);
      }
    }
    this.#takeTurns();
    this.#board.show(() => this.status());
  }

  #markRemoved(): void {
    if (this.#isRemoved) return;
    this.#isRemoved = true;
    this.#ticker?.cancel();
    this.#settings.log.warn({}, 'this manager was removed from the cluster by the other managers');
    this.#failAll(() => leftOpen(this.#unable()));
    this.#settings.transport.setMembers([]);
    this.#takeTurns();
    this.#board.show(() => this.status());
    this.#loop.stop().catch((error: unknown) => {
      this.#settings.log.warn({ problem: messageOf(error) }, 'cannot close the Raft log');
    });
  }

  #failAll(error: () => ShoalError): void {
    this.#pending.failAll(error);
    this.#waiters.failAll(error);
    this.#changes.failAll(error);
    this.#readPoints.failAll(error);
  }

  /** What it throws leaves no doubt: nothing was appended. */
  #refuseWhenUnable(): void {
    const { blocked } = this.#loop;
    if (this.#isStopped || this.#isRemoved || this.#failure !== undefined) throw this.#unable();
    if (blocked !== undefined) throw refusedByDisk(blocked);
  }

  #refuseUnlessLeading(): void {
    this.#refuseWhenUnable();
    if (!this.#isLeading) throw this.#notLeader();
  }

  #unable(): ShoalError {
    if (this.#isRemoved) return wasRemoved();
    return this.#failure === undefined ? shuttingDown() : hasFailed(this.#failure);
  }

  #notLeader(): ShoalError {
    return notLeader(this.#leader());
  }

  #overdue(): ShoalError {
    return overdueError(this.#contacts.reachView(), this.#leader(), this.#settings.proposalTimeoutMs);
  }

  #deadlineMs(): number {
    return this.#settings.clock.monotonicMs() + this.#settings.proposalTimeoutMs;
  }

  get #isLeading(): boolean {
    const { role, blocked, isStopped } = this.#loop;
    return role === 'leader' && blocked === undefined && !isStopped && !this.#isStopped && !this.#isRemoved;
  }

  #leader(): Member | undefined {
    const { lead, directory } = this.#loop;
    if (lead === this.#self.raftId && !this.#isLeading) return undefined;
    return this.#isRemoved ? undefined : directory.members.get(lead);
  }

  #role(): RaftRole {
    const { role, confState } = this.#loop;
    if (this.#isRemoved) return 'removed';
    const { voters, votersOutgoing } = confState;
    if (![...voters, ...votersOutgoing].includes(this.#self.raftId)) return 'learner';
    if (role === 'pre-candidate') return 'candidate';
    return role === 'leader' && !this.#isLeading ? 'follower' : role;
  }

  #successor(): MemberId | undefined {
    return this.#succession.fittest((member) => this.#contacts.isReachable(member));
  }

  #changeDoor(): ChangeDoor {
    return {
      isLeader: () => this.#isLeading,
      nowMs: () => this.#settings.clock.monotonicMs(),
      newRequest: () => Buffer.from(this.#settings.random.bytes(8)).toString('hex'),
      propose: (change) => {
        this.#loop.core.proposeConfChange(change);
        this.#loop.wake();
      },
      learnersCaughtUp: () => this.#contacts.learnersCaughtUp(),
      promotion: (learner) => {
        const view = this.#contacts.reachView();
        const nodeId = view.directory.members.get(learner)?.nodeId;
        return promotionOf(view, learner, nodeId && this.#settings.replacedBy?.(nodeId));
      },
      handOver: () => this.transferLeadership(),
      overdue: () => this.#overdue(),
    };
  }

  #send(to: MemberId, messages: readonly Message[]): void {
    // A joiner answers before it has learnt who is who: the transport then answers the way it was asked.
    const member = this.#loop.directory.members.get(to) ?? { raftId: to, nodeId: '', address: '' };
    this.#settings.transport.send(member, messages);
  }
}
