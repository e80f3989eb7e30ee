/** Leader: what to send to one member or all, and how much. */
import { CompactedError } from './errors.ts';
import { payloadSizeBytes } from './log.ts';
import type { Progress } from './progress.ts';
import { jointCommitted } from './quorum.ts';
import type { CoreState } from './state.ts';
import type { Entry, MemberId, Message } from './types.ts';

/** Entries read once, for all the members who are sent the same. */
export interface SharedEntries {
  low: number;
  entries: readonly Entry[];
}

const noEntries: readonly Entry[] = [];

/**
 * Sends a MsgApp with what the member lacks, or a snapshot if that is compacted away, unless the member
 * is paused. Answers whether something was sent; with nothing to send that needs `evenIfEmpty`.
 */
export function sendAppend(
  core: CoreState,
  to: MemberId,
  progress: Progress,
  evenIfEmpty: boolean,
  shared?: SharedEntries,
): boolean {
  if (progress.paused) return false;
  const previousIndex = progress.next - 1;
  const previousTerm = core.log.term(previousIndex);
  if (previousTerm === undefined) return sendSnapshot(core, to, progress);
  let entries: readonly Entry[] | undefined = noEntries;
  if (progress.state !== 'replicate' || !progress.inflights.full) {
    entries = readEntries(core, progress.next, shared);
  }
  if (entries === undefined) return sendSnapshot(core, to, progress);
  if (entries.length === 0 && !evenIfEmpty) return false;
  core.messages.push({
    type: 'MsgApp',
    to,
    from: core.id,
    term: core.term,
    logTerm: previousTerm,
    index: previousIndex,
    entries,
    commit: core.log.committed,
  });
  progress.sentEntries(entries.length, payloadSizeBytes(entries));
  progress.sentCommit(core.log.committed);
  return true;
}

function readEntries(core: CoreState, low: number, shared?: SharedEntries): readonly Entry[] | undefined {
  if (shared?.low === low) return shared.entries;
  try {
    const entries = core.log.entriesFrom(low, core.config.maxSizePerMessageBytes);
    if (shared !== undefined) {
      shared.low = low;
      shared.entries = entries;
    }
    return entries;
  } catch (error) {
    if (error instanceof CompactedError) return undefined;
    throw error;
  }
}

/** A member that was not heard of lately gets none: it could not take it, and snapshots are large. */
function sendSnapshot(core: CoreState, to: MemberId, progress: Progress): boolean {
  if (!progress.recentActive) return false;
  const snapshot = core.log.snapshot();
  if (snapshot === undefined || snapshot.metadata.index === 0) return false;
  progress.becomeSnapshot(snapshot.metadata.index);
  core.messages.push({ type: 'MsgSnap', to, from: core.id, term: core.term, snapshot });
  return true;
}

export function broadcastAppend(core: CoreState): void {
  const shared: SharedEntries = { low: -1, entries: noEntries };
  for (const [member, progress] of core.membership.progress) {
    if (member !== core.id) sendAppend(core, member, progress, true, shared);
  }
}

/** Heartbeats never tell more of the commit index than the member is known to hold. */
export function broadcastHeartbeat(core: CoreState): void {
  const context = core.reads.heartbeatContext();
  for (const [to, progress] of core.membership.progress) {
    if (to === core.id) continue;
    const commit = Math.min(progress.match, core.log.committed);
    const message: Message = { type: 'MsgHeartbeat', to, from: core.id, term: core.term, commit };
    core.messages.push(context === undefined ? message : { ...message, context });
    progress.sentCommit(commit);
  }
}

/** Commits what a quorum holds by now; whether that is more than before. */
export function advanceCommit(core: CoreState): boolean {
  const { configuration, progress } = core.membership;
  const { voters, votersOutgoing } = configuration;
  const index = jointCommitted(voters, votersOutgoing, (member) => progress.get(member)?.match);
  return core.log.tryCommit(core.term, index);
}
