/** Where every message goes in: the rules about terms (Raft paper, 5.1), then the role's own. */
import { assertNever } from '../../../proto/errors.ts';
import { handleVoteRequest, isTransfer, stepCandidate } from './election.ts';
import { stepFollower } from './follower.ts';
import { leaveJointWhenApplied, reduceUncommitted, stepLeader } from './leader.ts';
import { entriesSizeBytes, payloadSizeBytes } from './log.ts';
import type { CoreState } from './state.ts';
import type { Entry, Message, Snapshot } from './types.ts';

/** What was on its way to the disk when the member was in `term`. */
export interface Written {
  readonly term: number;
  /** The log's end at that time, if any of it was not durable. */
  readonly stable: { readonly term: number; readonly index: number } | undefined;
  readonly snapshot: Snapshot | undefined;
}

/** What was handed to the disk is durable. */
export function written(state: CoreState, { term, stable, snapshot }: Written): void {
  // In a later term, entries may have been replaced, and replaced again by ones that look the same, with
  // writes under way that do not: they are reported again with what was written in that term.
  if (stable !== undefined && term === state.term) state.log.unstable.stableTo(stable.term, stable.index);
  if (snapshot === undefined) return;
  state.log.unstable.stableSnapshot(snapshot.metadata.index);
  appliedTo(state, snapshot.metadata.index, 0);
}

/** Committed entries that were handed out are applied. */
export function applied(state: CoreState, entries: readonly Entry[]): void {
  const last = entries.at(-1);
  if (last === undefined) return;
  appliedTo(state, last.index, entriesSizeBytes(entries));
  reduceUncommitted(state, payloadSizeBytes(entries));
  const snapshot = state.waitingSnapshot;
  if (snapshot === undefined || state.log.applied < state.log.applying) return;
  state.waitingSnapshot = undefined;
  step(state, snapshot);
}

function appliedTo(state: CoreState, index: number, sizeBytes: number): void {
  state.log.appliedTo(Math.max(index, state.log.applied), sizeBytes);
  leaveJointWhenApplied(state);
}

/** Any message, of another member or from here. Throws ProposalDropped. */
export function step(state: CoreState, message: Message): void {
  if (message.term > state.term) {
    if (!meetLaterTerm(state, message)) return;
  } else if (message.term !== 0 && message.term < state.term) {
    answerEarlierTerm(state, message);
    return;
  }
  switch (message.type) {
    case 'MsgVote':
    case 'MsgPreVote':
      handleVoteRequest(state, message);
      return;
    case 'MsgStorageAppendResp':
      written(state, writtenOf(message));
      return;
    case 'MsgStorageApplyResp':
      applied(state, message.entries ?? []);
      return;
    default:
      stepRole(state, message);
  }
}

/** A message that has nothing to do with terms. */
export function stepRole(state: CoreState, message: Message): void {
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
  } else if (type === 'MsgStorageAppendResp') {
    written(state, writtenOf(message));
  }
}

function writtenOf({ term, index, logTerm, snapshot }: Message): Written {
  const stable = index === undefined ? undefined : { term: logTerm ?? 0, index };
  return { term, stable, snapshot };
}
