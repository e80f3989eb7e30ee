/**
 * How a member learns that it was removed: the group no longer sends it its log, so whoever it calls tells
 * it. The notice travels as a message type that the core never sends to others.
 */
import type { MemberId, Message } from './core/types.ts';

const mark = Buffer.from('removed', 'latin1');

/** Tells member `to` that the group has removed it. */
export function removalNotice(from: MemberId, to: MemberId, term: number): Message {
  return { type: 'MsgForgetLeader', from, to, term, context: mark };
}

export function isRemovalNotice(message: Message): boolean {
  return message.type === 'MsgForgetLeader' && message.context !== undefined && mark.equals(message.context);
}
