/**
 * All that a member remembers, the box its messages go into, and how it falls back to a follower. The
 * roles (leader.ts, election.ts, follower.ts) decide; this file only keeps.
 */
import { ShoalError } from '../../../proto/errors.ts';
import { broken } from './errors.ts';
import { RaftLog } from './log.ts';
import { type Membership, nobody, restoreMembership } from './membership.ts';
import type { InflightLimits } from './progress.ts';
import { ReadIndexQueue } from './read-index.ts';
import type { CoreConfig, HardState, MemberId, Message, ReadState, RoleName } from './types.ts';

function checkConfig(config: CoreConfig): void {
  const insist = (holds: boolean, what: string): void => {
    if (!holds) throw new ShoalError('invalid-argument', `raft configuration: ${what}`);
  };
  insist(Number.isSafeInteger(config.id) && config.id > 0, 'id must be a positive integer');
  insist(config.heartbeatTicks > 0, 'heartbeatTicks must be positive');
  insist(config.electionTicks > config.heartbeatTicks, 'electionTicks must be more than heartbeatTicks');
  insist(config.maxInflightMessages > 0, 'maxInflightMessages must be positive');
  insist(
    config.maxInflightBytes === 0 || config.maxInflightBytes >= config.maxSizePerMessageBytes,
    'maxInflightBytes must not be less than maxSizePerMessageBytes',
  );
  insist(
    config.readOnly === 'safe' || config.checkQuorum,
    'lease-based reads need checkQuorum, without which there is no lease',
  );
}

export class CoreState {
  readonly config: CoreConfig;
  readonly id: MemberId;
  readonly limits: InflightLimits;
  readonly maxUncommittedBytes: number;
  readonly log: RaftLog;

  term = 0;
  vote: MemberId = 0;
  lead: MemberId = 0;
  role: RoleName = 'follower';
  membership: Membership = nobody;
  votes = new Map<MemberId, boolean>();

  /** Ticks since the leader was heard of, or on the leader since the quorum was checked. */
  electionElapsed = 0;
  heartbeatElapsed = 0;
  randomizedElectionTicks = 0;

  /** Leader: who is to lead next, 0 if nobody. Proposals are refused meanwhile. */
  leadTransferee: MemberId = 0;
  /** Leader: index of the last membership change that may not be applied yet; none is taken before. */
  pendingConfIndex = 0;
  /** Leader: payload bytes of what was appended and not applied yet; an underestimate. */
  uncommittedBytes = 0;
  reads: ReadIndexQueue;
  /** Leader: reads asked for before it committed anything in its term. */
  earlyReads: Message[] = [];

  /** Follower: a MsgSnap that came while entries were being applied. */
  waitingSnapshot: Message | undefined;

  /** May leave at once. */
  messages: Message[] = [];
  /** Wait until everything before them is durable; some are for this member itself. */
  messagesAfterAppend: Message[] = [];
  readStates: ReadState[] = [];

  constructor(config: CoreConfig) {
    checkConfig(config);
    this.config = config;
    this.id = config.id;
    this.limits = {
      messages: config.maxInflightMessages,
      bytes: config.maxInflightBytes || Number.POSITIVE_INFINITY,
    };
    this.maxUncommittedBytes = config.maxUncommittedEntriesSizeBytes || Number.POSITIVE_INFINITY;
    const maxApplyingBytes = config.maxCommittedSizePerReadyBytes || config.maxSizePerMessageBytes;
    this.log = new RaftLog(config.id, config.storage, maxApplyingBytes);
    this.reads = new ReadIndexQueue();
    const { hardState, confState } = config.storage.initialState();
    this.membership = restoreMembership(confState, this.log.lastIndex, this.limits);
    this.#load(hardState, config.applied);
    if (config.applied > 0) this.log.appliedTo(config.applied, 0);
    this.becomeFollower(this.term, 0);
  }

  /** What a snapshot holds, or the state machine has applied, was committed, whatever the hard state says. */
  #load({ term, vote, commit }: HardState, applied: number): void {
    const committed = Math.max(commit, applied, this.log.committed);
    const last = this.log.lastIndex;
    if (committed > last)
      broken(this.id, `entry ${committed} was committed but the stored log ends at ${last}`);
    this.log.committed = committed;
    this.term = term;
    this.vote = vote;
  }

  get isSingleVoter(): boolean {
    const { voters, votersOutgoing } = this.membership.configuration;
    return voters.length === 1 && votersOutgoing.length === 0;
  }

  /** Whether this member may stand for election: a voter that is not busy swallowing a snapshot. */
  get promotable(): boolean {
    const own = this.membership.progress.get(this.id);
    return own !== undefined && !own.isLearner && this.log.unstable.snapshot === undefined;
  }

  get pastElectionTimeout(): boolean {
    return this.electionElapsed >= this.randomizedElectionTicks;
  }

  becomeFollower(term: number, lead: MemberId): void {
    this.reset(term);
    this.lead = lead;
    this.role = 'follower';
  }

  /** Forgets what belonged to the role and term before. */
  reset(term: number): void {
    if (this.term !== term) {
      this.term = term;
      this.vote = 0;
    }
    this.lead = 0;
    this.electionElapsed = 0;
    this.heartbeatElapsed = 0;
    const ticks = this.config.electionTicks;
    this.randomizedElectionTicks = ticks + Math.floor(this.config.random() * ticks);
    this.leadTransferee = 0;
    this.votes.clear();
    const last = this.log.lastIndex;
    for (const [member, progress] of this.membership.progress) {
      progress.restart(member === this.id ? last : 0, last + 1);
    }
    this.pendingConfIndex = 0;
    this.uncommittedBytes = 0;
    this.reads = new ReadIndexQueue();
    this.earlyReads = [];
  }
}
