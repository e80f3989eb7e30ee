/** Elections: standing for one, with or without a vote before the vote, and voting in others'. */
import { broken, ProposalDropped } from './errors.ts';
import { becomeLeader } from './leader.ts';
import { jointVote } from './quorum.ts';
import { handleAppend, handleHeartbeat, handleSnapshot } from './receive.ts';
import { broadcastAppend } from './replication.ts';
import type { CoreState } from './state.ts';
import type { MemberId, Message } from './types.ts';

export type CampaignKind = 'pre-election' | 'election' | 'transfer';

/** Marks a vote request of a member whom the leader told to take over: the lease does not hold it up. */
const transferMark = Uint8Array.from('CampaignTransfer', (letter) => letter.charCodeAt(0));

export function isTransfer(message: Message): boolean {
  const { context } = message;
  return context?.length === transferMark.length && transferMark.every((byte, i) => context[i] === byte);
}

export function tickElection(core: CoreState): void {
  core.electionElapsed++;
  if (!core.promotable || !core.pastElectionTimeout) return;
  core.electionElapsed = 0;
  startElection(core, core.config.preVote ? 'pre-election' : 'election');
}

/** Stands for election, unless it leads already, may not vote, or its own membership may be out of date. */
export function startElection(core: CoreState, kind: CampaignKind): void {
  if (core.role === 'leader' || !core.promotable) return;
  const { log } = core;
  if (log.applied < log.committed && log.hasConfChange(log.applied + 1, log.committed + 1)) return;
  campaign(core, kind);
}

function campaign(core: CoreState, kind: CampaignKind): void {
  const isPreVote = kind === 'pre-election';
  if (isPreVote) becomePreCandidate(core);
  else becomeCandidate(core);
  const term = isPreVote ? core.term + 1 : core.term;
  const index = core.log.lastIndex;
  const logTerm = core.log.lastTerm;
  for (const to of votersOf(core)) {
    if (to === core.id) {
      // Its own vote counts once it is durable.
      const type = isPreVote ? 'MsgPreVoteResp' : 'MsgVoteResp';
      core.messagesAfterAppend.push({ type, to, from: to, term });
      continue;
    }
    const type = isPreVote ? 'MsgPreVote' : 'MsgVote';
    const request: Message = { type, to, from: core.id, term, index, logTerm };
    core.messages.push(kind === 'transfer' ? { ...request, context: transferMark } : request);
  }
}

function votersOf(core: CoreState): readonly MemberId[] {
  const { voters, votersOutgoing } = core.membership.configuration;
  if (votersOutgoing.length === 0) return voters;
  return [...new Set([...voters, ...votersOutgoing])].sort((a, b) => a - b);
}

function becomeCandidate(core: CoreState): void {
  if (core.role === 'leader') broken(core.id, 'a leader cannot stand for election');
  core.reset(core.term + 1);
  core.vote = core.id;
  core.role = 'candidate';
}

/** Neither term nor vote change: whoever loses this was never there. */
function becomePreCandidate(core: CoreState): void {
  if (core.role === 'leader') broken(core.id, 'a leader cannot stand for election');
  core.votes.clear();
  core.lead = 0;
  core.role = 'pre-candidate';
}

/** Grants or refuses a vote asked for in this term, or a pre-vote for a later one. */
export function handleVoteRequest(core: CoreState, message: Message): void {
  const isPreVote = message.type === 'MsgPreVote';
  const free =
    core.vote === message.from ||
    (core.vote === 0 && core.lead === 0) ||
    (isPreVote && message.term > core.term);
  const granted = free && core.log.isUpToDate(message.logTerm ?? 0, message.index ?? 0);
  const answer: Message = {
    type: isPreVote ? 'MsgPreVoteResp' : 'MsgVoteResp',
    to: message.from,
    from: core.id,
    // A pre-candidate that is granted counts the vote for the term it asked for.
    term: granted ? message.term : core.term,
  };
  core.messagesAfterAppend.push(granted ? answer : { ...answer, reject: true });
  if (granted && !isPreVote) {
    core.electionElapsed = 0;
    core.vote = message.from;
  }
}

export function stepCandidate(core: CoreState, message: Message): void {
  switch (message.type) {
    case 'MsgProp':
      throw new ProposalDropped('no-leader', 'the managers have no leader at the moment; try again');
    case 'MsgApp':
      core.becomeFollower(message.term, message.from);
      handleAppend(core, message);
      return;
    case 'MsgHeartbeat':
      core.becomeFollower(message.term, message.from);
      handleHeartbeat(core, message);
      return;
    case 'MsgSnap':
      core.becomeFollower(message.term, message.from);
      handleSnapshot(core, message);
      return;
    case 'MsgPreVoteResp':
      if (core.role === 'pre-candidate') countVote(core, message);
      return;
    case 'MsgVoteResp':
      if (core.role === 'candidate') countVote(core, message);
      return;
  }
}

function countVote(core: CoreState, message: Message): void {
  if (!core.votes.has(message.from)) core.votes.set(message.from, message.reject !== true);
  const { voters, votersOutgoing } = core.membership.configuration;
  const result = jointVote(voters, votersOutgoing, core.votes);
  if (result === 'lost') {
    core.becomeFollower(core.term, 0);
  } else if (result === 'won' && core.role === 'pre-candidate') {
    campaign(core, 'election');
  } else if (result === 'won') {
    becomeLeader(core);
    broadcastAppend(core);
  }
}
