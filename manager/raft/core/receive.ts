/** What every member does with the messages of the leader of its term. */
import { restoreMembership } from './membership.ts';
import type { CoreState } from './state.ts';
import type { Message, Snapshot } from './types.ts';

/** Answers the leader, once what came before is durable. */
function respond(core: CoreState, to: number, index: number): void {
  core.messagesAfterAppend.push({ type: 'MsgAppResp', to, from: core.id, term: core.term, index });
}

export function handleAppend(core: CoreState, message: Message): void {
  const { log } = core;
  const index = message.index ?? 0;
  if (index < log.committed) {
    respond(core, message.from, log.committed);
    return;
  }
  const logTerm = message.logTerm ?? 0;
  const last = log.tryAppend(logTerm, index, message.entries ?? [], message.commit ?? 0);
  if (last !== undefined) {
    respond(core, message.from, last);
    return;
  }
  // Name the furthest point where the logs may agree, so that the leader skips whole terms, not entries.
  const hint = log.findConflictByTerm(Math.min(index, log.lastIndex), logTerm);
  core.messagesAfterAppend.push({
    type: 'MsgAppResp',
    to: message.from,
    from: core.id,
    term: core.term,
    logTerm: hint.term,
    index,
    reject: true,
    rejectHint: hint.index,
  });
}

export function handleHeartbeat(core: CoreState, message: Message): void {
  core.log.commitTo(message.commit ?? 0);
  const { context } = message;
  core.messages.push({
    type: 'MsgHeartbeatResp',
    to: message.from,
    from: core.id,
    term: core.term,
    ...(context === undefined ? {} : { context }),
  });
}

/**
 * A snapshot that arrives while handed-out entries are still being applied waits for that: it would change
 * the membership under their hands, and one of them may change it once more (see step.ts).
 */
export function handleSnapshot(core: CoreState, message: Message): void {
  if (core.log.applied < core.log.applying) {
    core.waitingSnapshot = message;
    return;
  }
  const restored = message.snapshot !== undefined && restore(core, message.snapshot);
  respond(core, message.from, restored ? core.log.lastIndex : core.log.committed);
}

/**
 * Replaces log and membership by the snapshot's; false if it brings nothing. Other than etcd's, it takes
 * one that does not name this member: that may be older than the entry that adds it, which then follows.
 */
function restore(core: CoreState, snapshot: Snapshot): boolean {
  const { index, term, confState } = snapshot.metadata;
  if (index <= core.log.committed) return false;
  if (core.log.matches(term, index)) {
    core.log.commitTo(index);
    return false;
  }
  core.log.restore(snapshot);
  core.membership = restoreMembership(confState, core.log.lastIndex, core.limits);
  return true;
}
