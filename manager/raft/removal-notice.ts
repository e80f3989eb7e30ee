/**
 * How a member learns that it was removed: the group no longer sends it its log, so whoever it calls tells
 * it. The notice travels as a message type that the core never sends to others.
 */
import type { MemberId, Message } from './core/types.ts';
import type { Directory } from './directory.ts';

const mark = Buffer.from('removed', 'latin1');

/** Tells member `to` that the group has removed it. */
export function removalNotice(from: MemberId, to: MemberId, term: number): Message {
  return { type: 'MsgForgetLeader', from, to, term, context: mark };
}

/**
 * Notices to every member that node `nodeId` once was, for a connection of it: one that is behind as a learner
 * calls nobody, and would never be told otherwise. Other members on that node take no notice of them.
 */
export function removalNotices(
  { removed }: Directory,
  nodeId: string,
  from: MemberId,
  term: number,
): Message[] {
  const former = [...removed.values()].filter((member) => member.nodeId === nodeId);
  return former.map(({ raftId }) => removalNotice(from, raftId, term));
}

export function isRemovalNotice(message: Message): boolean {
  return message.type === 'MsgForgetLeader' && message.context !== undefined && mark.equals(message.context);
}
