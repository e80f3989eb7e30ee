/** The leader: takes proposals, follows the answers of the members, commits, and hands over. */
import { decodeConfChange, encodeConfChange, leaveJointChange } from './conf-change-codec.ts';
import { broken, ProposalDropped } from './errors.ts';
import { confirmReads, handleReadIndex, releaseEarlyReads } from './leader-reads.ts';
import { payloadSizeBytes } from './log.ts';
import { isJoint } from './membership.ts';
import type { Progress } from './progress.ts';
import { jointVote } from './quorum.ts';
import { advanceCommit, broadcastAppend, broadcastHeartbeat, sendAppend } from './replication.ts';
import type { CoreState } from './state.ts';
import type { Entry, EntryType, MemberId, Message } from './types.ts';

const noBytes = new Uint8Array(0);

/** What is to be appended: an entry that has no place in the log yet. */
interface Proposal {
  readonly type: EntryType;
  readonly data: Uint8Array;
}

export function becomeLeader(core: CoreState): void {
  if (core.role === 'follower') broken(core.id, 'a follower cannot become leader without an election');
  core.reset(core.term);
  core.lead = core.id;
  core.role = 'leader';
  const own = core.membership.progress.get(core.id);
  if (own === undefined) broken(core.id, 'a member outside of the group cannot lead it');
  own.becomeReplicate();
  own.recentActive = true;
  // Any entry not applied yet may be a membership change: take none until all of them are.
  core.pendingConfIndex = core.log.lastIndex;
  append(core, [{ type: 'normal', data: noBytes }]);
}

export function tickLeader(core: CoreState): void {
  core.heartbeatElapsed++;
  core.electionElapsed++;
  if (core.electionElapsed >= core.config.electionTicks) {
    core.electionElapsed = 0;
    if (core.config.checkQuorum) checkQuorum(core);
    // A transfer that takes longer than an election has failed: take proposals again.
    if (core.role === 'leader') core.leadTransferee = 0;
  }
  if (core.role === 'leader' && core.heartbeatElapsed >= core.config.heartbeatTicks) {
    core.heartbeatElapsed = 0;
    broadcastHeartbeat(core);
  }
}

/** The log was applied up to here: leaves a joint group that is to be left by itself. */
export function leaveJointWhenApplied(core: CoreState): void {
  if (core.role !== 'leader' || !core.membership.configuration.autoLeave) return;
  if (core.log.applied < core.pendingConfIndex) return;
  const data = encodeConfChange(leaveJointChange);
  try {
    propose(core, [{ type: 'conf-change-v2', data }]);
  } catch (error) {
    // Tried again with the next entry that is applied.
    if (!(error instanceof ProposalDropped)) throw error;
  }
}

/** Entries were applied: makes room for new proposals. */
export function reduceUncommitted(core: CoreState, payloadBytes: number): void {
  core.uncommittedBytes = Math.max(0, core.uncommittedBytes - payloadBytes);
}

export function stepLeader(core: CoreState, message: Message): void {
  switch (message.type) {
    case 'MsgBeat':
      broadcastHeartbeat(core);
      return;
    case 'MsgCheckQuorum':
      checkQuorum(core);
      return;
    case 'MsgProp':
      propose(core, message.entries ?? []);
      return;
    case 'MsgReadIndex':
      handleReadIndex(core, message);
      return;
  }
  const progress = core.membership.progress.get(message.from);
  if (progress !== undefined) stepFromMember(core, message, progress);
}

function stepFromMember(core: CoreState, message: Message, progress: Progress): void {
  switch (message.type) {
    case 'MsgAppResp':
      progress.recentActive = true;
      if (message.reject === true) handleRejection(core, message, progress);
      else handleAcknowledgement(core, message.from, message.index ?? 0, progress);
      return;
    case 'MsgHeartbeatResp':
      handleHeartbeatResponse(core, message, progress);
      return;
    case 'MsgSnapStatus':
      if (progress.state !== 'snapshot') return;
      if (message.reject === true) progress.pendingSnapshot = 0;
      progress.becomeProbe();
      // The snapshot is still being swallowed, or just failed: wait for an answer or a heartbeat.
      progress.flowPaused = true;
      return;
    case 'MsgUnreachable':
      // What went out ahead was probably lost.
      if (progress.state === 'replicate') progress.becomeProbe();
      return;
    case 'MsgTransferLeader':
      transferTo(core, message.from, progress);
      return;
  }
}

function append(core: CoreState, proposals: readonly Proposal[]): void {
  const index = core.log.lastIndex + 1;
  const entries: Entry[] = [];
  for (let i = 0; i < proposals.length; i++) {
    const { type, data } = proposals[i]!;
    entries.push({ term: core.term, index: index + i, type, data });
  }
  const size = payloadSizeBytes(entries);
  // One proposal of any size is taken when nothing is pending, and empty ones always are.
  if (core.uncommittedBytes > 0 && size > 0 && core.uncommittedBytes + size > core.maxUncommittedBytes) {
    throw new ProposalDropped(
      'too-much-uncommitted',
      `${core.uncommittedBytes} bytes of proposals wait to be committed; try again later`,
    );
  }
  core.uncommittedBytes += size;
  core.log.append(entries);
  // Its own vote for the entries counts once they are durable.
  core.messagesAfterAppend.push({
    type: 'MsgAppResp',
    to: core.id,
    from: core.id,
    term: core.term,
    index: index + entries.length - 1,
  });
}

function propose(core: CoreState, proposals: readonly Proposal[]): void {
  if (proposals.length === 0) broken(core.id, 'a proposal without entries');
  if (!core.membership.progress.has(core.id)) {
    throw new ProposalDropped('removed', 'this manager is no longer a member of the group it leads');
  }
  if (core.leadTransferee !== 0) {
    throw new ProposalDropped('transferring', 'leadership is being handed over; try again');
  }
  const pendingConfIndex = core.pendingConfIndex;
  const checked = proposals.map((proposal, position) => screened(core, proposal, position));
  try {
    append(core, checked);
  } catch (error) {
    core.pendingConfIndex = pendingConfIndex;
    throw error;
  }
  broadcastAppend(core);
}

/** A membership change that cannot be taken now becomes an empty entry, so that indexes stay as promised. */
function screened(core: CoreState, proposal: Proposal, position: number): Proposal {
  if (proposal.type === 'normal') return proposal;
  const alreadyPending = core.pendingConfIndex > core.log.applied;
  const wantsLeave = decodeConfChange(proposal.data).changes.length === 0;
  const fits = isJoint(core.membership.configuration) === wantsLeave;
  if ((alreadyPending || !fits) && core.config.disableConfChangeValidation !== true) {
    return { type: 'normal', data: noBytes };
  }
  core.pendingConfIndex = core.log.lastIndex + position + 1;
  return proposal;
}

function checkQuorum(core: CoreState): void {
  const { configuration, progress } = core.membership;
  const active = new Map<MemberId, boolean>();
  for (const [member, known] of progress) {
    if (!known.isLearner) active.set(member, member === core.id || known.recentActive);
  }
  if (jointVote(configuration.voters, configuration.votersOutgoing, active) !== 'won') {
    core.becomeFollower(core.term, 0);
  }
  for (const [member, known] of progress) {
    if (member !== core.id) known.recentActive = false;
  }
}

function handleRejection(core: CoreState, message: Message, progress: Progress): void {
  const hint = message.rejectHint ?? 0;
  const term = message.logTerm ?? 0;
  // Skip what this log cannot share with the follower's, as the follower did the other way round.
  const probe = term > 0 ? core.log.findConflictByTerm(hint, term).index : hint;
  if (!progress.backOff(message.index ?? 0, probe)) return;
  if (progress.state === 'replicate') progress.becomeProbe();
  sendAppend(core, message.from, progress, true);
}

function handleAcknowledgement(core: CoreState, from: MemberId, index: number, progress: Progress): void {
  // An old answer says nothing new, except that a probe may end.
  if (!progress.acknowledge(index) && !(progress.match === index && progress.state === 'probe')) return;
  if (progress.state === 'probe') {
    progress.becomeReplicate();
  } else if (progress.state === 'replicate') {
    progress.inflights.freeUpTo(index);
  } else if (progress.match + 1 >= core.log.firstIndex) {
    // Whichever snapshot it took, the log goes on from there.
    progress.becomeProbe();
    progress.becomeReplicate();
  }
  if (advanceCommit(core)) {
    releaseEarlyReads(core);
    broadcastAppend(core);
  } else if (from !== core.id && progress.canBumpCommit(core.log.committed)) {
    sendAppend(core, from, progress, true);
  }
  if (from === core.id) return;
  while (sendAppend(core, from, progress, false)) {
    // The window has room again: fill it.
  }
  if (from === core.leadTransferee && progress.match === core.log.lastIndex) sendTimeoutNow(core, from);
}

function handleHeartbeatResponse(core: CoreState, message: Message, progress: Progress): void {
  progress.recentActive = true;
  progress.flowPaused = false;
  if (progress.match < core.log.lastIndex || progress.state === 'probe') {
    sendAppend(core, message.from, progress, true);
  }
  confirmReads(core, message);
}

function transferTo(core: CoreState, to: MemberId, progress: Progress): void {
  if (progress.isLearner || core.leadTransferee === to) return;
  core.leadTransferee = 0;
  if (to === core.id) return;
  core.electionElapsed = 0;
  core.leadTransferee = to;
  if (progress.match === core.log.lastIndex) sendTimeoutNow(core, to);
  else sendAppend(core, to, progress, true);
}

function sendTimeoutNow(core: CoreState, to: MemberId): void {
  core.messages.push({ type: 'MsgTimeoutNow', to, from: core.id, term: core.term });
}
