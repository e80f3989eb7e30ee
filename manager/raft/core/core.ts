/**
 * The consensus core: Raft as a pure state machine, to the contract of etcd's raft.
 *
 * In: messages of other members, ticks, proposals, and word that the last batch of work is done. Out:
 * that batch (Ready): what to make durable, send and apply, in this order. It never waits, sends, reads a
 * clock or writes; it reads the stable log through Storage, and every call costs no more than the entries
 * it concerns. Proposals that cannot be taken throw ProposalDropped; messages that must not be stepped in
 * throw StepError; what cannot be unless memory, disk or a peer is broken throws ShoalError 'corrupted',
 * after which the member must stop.
 */
import { assertNever, ShoalError } from '../../../proto/errors.ts';
import { encodeConfChange } from './conf-change-codec.ts';
import { handleVoteRequest, isTransfer, startElection, stepCandidate, tickElection } from './election.ts';
import { StepError } from './errors.ts';
import { stepFollower } from './follower.ts';
import { leaveJointWhenApplied, reduceUncommitted, stepLeader, tickLeader } from './leader.ts';
import { entriesSizeBytes, payloadSizeBytes } from './log.ts';
import { reconfigure } from './reconfigure.ts';
import { CoreState } from './state.ts';
import type {
  ConfChangeV2,
  ConfState,
  CoreConfig,
  CoreStatus,
  Entry,
  HardState,
  MemberId,
  Message,
  MessageType,
  ProgressStatus,
  RawNode,
  Ready,
  Snapshot,
  SoftState,
} from './types.ts';

export { decodeConfChange, encodeConfChange, leaveJointChange } from './conf-change-codec.ts';
export { ConfChangeError, ProposalDropped, StepError } from './errors.ts';

/** Made by a member for itself; off the wire they would be forged. */
const localTypes: ReadonlySet<MessageType> = new Set([
  'MsgHup',
  'MsgBeat',
  'MsgUnreachable',
  'MsgSnapStatus',
  'MsgCheckQuorum',
]);

const responseTypes: ReadonlySet<MessageType> = new Set([
  'MsgAppResp',
  'MsgVoteResp',
  'MsgHeartbeatResp',
  'MsgReadIndexResp',
  'MsgPreVoteResp',
]);

/** A batch that was handed out, and what becomes true once it is dealt with. */
interface Outstanding {
  /** Messages to itself, e.g. its own vote, that counted on what was to be made durable. */
  readonly own: readonly Message[];
  /** The term when the batch was handed out. */
  readonly term: number;
  /** The log's end at that time, if entries were on their way to the disk. */
  readonly stable: { readonly term: number; readonly index: number } | undefined;
  readonly snapshot: Snapshot | undefined;
  readonly committed: readonly Entry[];
  readonly committedBytes: number;
}

/** A RawNode with a hook for tests. */
export class Core implements RawNode {
  readonly #state: CoreState;
  #softState: SoftState;
  #hardState: HardState;
  #outstanding: Outstanding | undefined;

  constructor(config: CoreConfig) {
    if (config.asyncStorageWrites === true) {
      throw new ShoalError('not-supported', 'raft: asyncStorageWrites is not built; use ready and advance');
    }
    this.#state = new CoreState(config);
    this.#softState = { lead: this.#state.lead, role: this.#state.role };
    this.#hardState = this.#currentHardState();
  }

  tick(): void {
    if (this.#state.role === 'leader') tickLeader(this.#state);
    else tickElection(this.#state);
  }

  campaign(): void {
    startElection(this.#state, this.#state.config.preVote ? 'pre-election' : 'election');
  }

  propose(data: Uint8Array): void {
    this.#propose({ term: 0, index: 0, type: 'normal', data });
  }

  proposeConfChange(change: ConfChangeV2): void {
    this.#propose({ term: 0, index: 0, type: 'conf-change-v2', data: encodeConfChange(change) });
  }

  #propose(entry: Entry): void {
    const { id } = this.#state;
    stepRole(this.#state, { type: 'MsgProp', to: id, from: id, term: 0, entries: [entry] });
  }

  applyConfChange(change: ConfChangeV2): ConfState {
    return reconfigure(this.#state, change);
  }

  step(message: Message): void {
    if (localTypes.has(message.type)) {
      throw new StepError('local-message', `raft: ${message.type} of member ${message.from} is local to it`);
    }
    if (responseTypes.has(message.type) && !this.#state.membership.progress.has(message.from)) {
      throw new StepError(
        'unknown-member',
        `raft: ${message.type} of ${message.from}, who is not in the group`,
      );
    }
    step(this.#state, message);
  }

  hasReady(): boolean {
    const state = this.#state;
    const { unstable } = state.log;
    return (
      state.messages.length > 0 ||
      state.messagesAfterAppend.length > 0 ||
      unstable.hasNextEntries ||
      state.log.hasNextCommitted(true) ||
      state.readStates.length > 0 ||
      unstable.nextSnapshot() !== undefined ||
      this.#softState.lead !== state.lead ||
      this.#softState.role !== state.role ||
      this.#hardState.commit !== state.log.committed ||
      this.#hardState.term !== state.term ||
      this.#hardState.vote !== state.vote
    );
  }

  ready(): Ready {
    if (this.#outstanding !== undefined) {
      throw new ShoalError('internal', 'raft: ready() was called again before advance()');
    }
    const state = this.#state;
    const { log } = state;
    const entries = log.unstable.nextEntries();
    const committedEntries = log.nextCommitted(true);
    const snapshot = log.unstable.nextSnapshot();
    const before = this.#hardState;
    const hardState = this.#takeHardState();
    const ready: Ready = {
      softState: this.#takeSoftState(),
      hardState,
      readStates: state.readStates,
      entries,
      snapshot,
      committedEntries,
      messages: this.#takeMessages(snapshot, committedEntries),
      mustSync: entries.length > 0 || before.term !== state.term || before.vote !== state.vote,
    };
    state.readStates = [];
    log.unstable.acceptInProgress();
    const last = committedEntries.at(-1);
    if (last !== undefined) log.acceptApplying(last.index, this.#outstanding!.committedBytes, true);
    return ready;
  }

  /** Empties the box; what is for this member itself is kept until advance(). */
  #takeMessages(snapshot: Snapshot | undefined, committed: readonly Entry[]): readonly Message[] {
    const state = this.#state;
    const messages = state.messages;
    const own: Message[] = [];
    for (const message of state.messagesAfterAppend) {
      if (message.to === state.id) own.push(message);
      else messages.push(message);
    }
    state.messages = [];
    state.messagesAfterAppend = [];
    this.#outstanding = {
      own,
      term: state.term,
      stable: state.log.unstable.isEmpty
        ? undefined
        : { term: state.log.lastTerm, index: state.log.lastIndex },
      snapshot,
      committed,
      committedBytes: entriesSizeBytes(committed),
    };
    return messages;
  }

  #takeSoftState(): SoftState | undefined {
    const { lead, role } = this.#state;
    if (this.#softState.lead === lead && this.#softState.role === role) return undefined;
    this.#softState = { lead, role };
    return this.#softState;
  }

  #currentHardState(): HardState {
    const { term, vote, log } = this.#state;
    return { term, vote, commit: log.committed };
  }

  #takeHardState(): HardState | undefined {
    const { term, vote, commit } = this.#hardState;
    const state = this.#state;
    if (term === state.term && vote === state.vote && commit === state.log.committed) return undefined;
    this.#hardState = this.#currentHardState();
    return this.#hardState;
  }

  advance(): void {
    const done = this.#outstanding;
    if (done === undefined) return;
    this.#outstanding = undefined;
    const state = this.#state;
    for (const message of done.own) step(state, message);
    // In a later term, entries may have been replaced by others that look the same; they are handed out
    // again and reported then.
    if (done.stable !== undefined && done.term === state.term) {
      state.log.unstable.stableTo(done.stable.term, done.stable.index);
    }
    if (done.snapshot !== undefined) {
      const { index } = done.snapshot.metadata;
      state.log.unstable.stableSnapshot(index);
      appliedTo(state, index, 0);
    }
    const last = done.committed.at(-1);
    if (last !== undefined) {
      appliedTo(state, last.index, done.committedBytes);
      reduceUncommitted(state, payloadSizeBytes(done.committed));
    }
  }

  status(): CoreStatus {
    const state = this.#state;
    const progress = new Map<MemberId, ProgressStatus>();
    if (state.role === 'leader') {
      for (const [member, known] of state.membership.progress) progress.set(member, known.status());
    }
    return {
      id: state.id,
      term: state.term,
      vote: state.vote,
      commit: state.log.committed,
      applied: state.log.applied,
      lead: state.lead,
      role: state.role,
      leadTransferee: state.leadTransferee,
      configuration: state.membership.configuration,
      progress,
    };
  }

  reportUnreachable(member: MemberId): void {
    stepRole(this.#state, { type: 'MsgUnreachable', to: this.#state.id, from: member, term: 0 });
  }

  reportSnapshot(member: MemberId, ok: boolean): void {
    const { id } = this.#state;
    stepRole(this.#state, { type: 'MsgSnapStatus', to: id, from: member, term: 0, reject: !ok });
  }

  transferLeader(to: MemberId): void {
    stepRole(this.#state, { type: 'MsgTransferLeader', to: this.#state.id, from: to, term: 0 });
  }

  forgetLeader(): void {
    stepRole(this.#state, { type: 'MsgForgetLeader', to: this.#state.id, from: 0, term: 0 });
  }

  readIndex(context: Uint8Array): void {
    stepRole(this.#state, { type: 'MsgReadIndex', to: this.#state.id, from: 0, term: 0, context });
  }

  /** For tests: the ticks until the next election, until the role or the term changes. */
  setRandomizedElectionTicks(ticks: number): void {
    this.#state.randomizedElectionTicks = ticks;
  }
}

/** A member as its storage left it. Throws ShoalError 'invalid-argument' for a bad configuration. */
export function createRawNode(config: CoreConfig): Core {
  return new Core(config);
}

function appliedTo(state: CoreState, index: number, sizeBytes: number): void {
  state.log.appliedTo(Math.max(index, state.log.applied), sizeBytes);
  leaveJointWhenApplied(state);
}

function step(state: CoreState, message: Message): void {
  if (message.term > state.term) {
    if (!meetLaterTerm(state, message)) return;
  } else if (message.term !== 0 && message.term < state.term) {
    answerEarlierTerm(state, message);
    return;
  }
  if (message.type === 'MsgVote' || message.type === 'MsgPreVote') handleVoteRequest(state, message);
  else stepRole(state, message);
}

function stepRole(state: CoreState, message: Message): void {
  switch (state.role) {
    case 'leader':
      stepLeader(state, message);
      return;
    case 'follower':
      stepFollower(state, message);
      return;
    case 'candidate':
    case 'pre-candidate':
      stepCandidate(state, message);
      return;
    default:
      assertNever(state.role);
  }
}

/** Adopts the later term, if the message proves that there is one; whether to go on with the message. */
function meetLaterTerm(state: CoreState, message: Message): boolean {
  const { type } = message;
  if (type === 'MsgVote' || type === 'MsgPreVote') {
    // With a lease, a leader heard of within an election timeout is not voted out (dissertation, 4.2.3).
    const inLease =
      state.config.checkQuorum && state.lead !== 0 && state.electionElapsed < state.config.electionTicks;
    if (inLease && !isTransfer(message)) return false;
  }
  // Pre-votes are about a term that may never come; a refusal of one carries a term that has.
  if (type === 'MsgPreVote' || (type === 'MsgPreVoteResp' && message.reject !== true)) return true;
  const isLeaders = type === 'MsgApp' || type === 'MsgHeartbeat' || type === 'MsgSnap';
  state.becomeFollower(message.term, isLeaders ? message.from : 0);
  return true;
}

/** Tells a leader or a pre-candidate of an earlier term about this one, where silence would block it. */
function answerEarlierTerm(state: CoreState, message: Message): void {
  const { type, from: to } = message;
  const { checkQuorum, preVote } = state.config;
  if ((checkQuorum || preVote) && (type === 'MsgHeartbeat' || type === 'MsgApp')) {
    // A member that stood in vain is ahead of the leader's term, and would be deaf to it for good.
    state.messagesAfterAppend.push({ type: 'MsgAppResp', to, from: state.id, term: state.term });
  } else if (type === 'MsgPreVote') {
    state.messagesAfterAppend.push({
      type: 'MsgPreVoteResp',
      to,
      from: state.id,
      term: state.term,
      reject: true,
    });
  }
}
