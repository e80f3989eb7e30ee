/**
 * Messages between members as bytes: msgpack arrays, fields by position, one array for all that leaves for
 * one member at once. What comes off the wire is checked before it is believed. Pure.
 */
import { pack } from 'msgpackr';
import { ShoalError } from '../../proto/errors.ts';
import type { Entry, EntryType, Message, MessageType, SnapshotMetadata } from './core/types.ts';

/** By number on the wire: only ever add at the end. */
const messageTypes: readonly MessageType[] = [
  'MsgHup',
  'MsgBeat',
  'MsgProp',
  'MsgApp',
  'MsgAppResp',
  'MsgVote',
  'MsgVoteResp',
  'MsgSnap',
  'MsgHeartbeat',
  'MsgHeartbeatResp',
  'MsgUnreachable',
  'MsgSnapStatus',
  'MsgCheckQuorum',
  'MsgTransferLeader',
  'MsgTimeoutNow',
  'MsgReadIndex',
  'MsgReadIndexResp',
  'MsgPreVote',
  'MsgPreVoteResp',
  'MsgForgetLeader',
];
const typeNumbers = new Map(messageTypes.map((type, number) => [type, number]));
const entryTypes: readonly EntryType[] = ['normal', 'conf-change', 'conf-change-v2'];

type WireEntry = [term: number, index: number, type: number, data: Uint8Array];
type WireMessage = [
  type: number,
  to: number,
  from: number,
  term: number,
  logTerm: number,
  index: number,
  commit: number,
  vote: number,
  rejectHint: number,
  reject: boolean,
  entries: WireEntry[] | null,
  context: Uint8Array | null,
  snapshot: SnapshotMetadata | null,
];

/** A snapshot's data is left out: it goes in chunks beside the message (withSnapshotData puts it back). */
export function encodeMessages(messages: readonly Message[]): Buffer {
  return pack(messages.map(toWire));
}

/** The messages of an unpacked list. Throws ShoalError 'invalid-argument' on what encodeMessages did not write. */
export function messagesOf(list: readonly unknown[]): Message[] {
  return list.map(fromWire);
}

/** Puts back what encodeMessages left out. */
export function withSnapshotData(message: Message, data: Uint8Array): Message {
  if (message.snapshot === undefined) throw malformed();
  return { ...message, snapshot: { metadata: message.snapshot.metadata, data } };
}

function toWire(message: Message): WireMessage {
  return [
    typeNumbers.get(message.type) ?? -1,
    message.to,
    message.from,
    message.term,
    message.logTerm ?? 0,
    message.index ?? 0,
    message.commit ?? 0,
    message.vote ?? 0,
    message.rejectHint ?? 0,
    message.reject ?? false,
    message.entries?.map(({ term, index, type, data }) => [term, index, entryTypes.indexOf(type), data]) ??
      null,
    message.context ?? null,
    message.snapshot?.metadata ?? null,
  ];
}

function fromWire(wire: unknown): Message {
  if (!Array.isArray(wire) || wire.length !== 13) throw malformed();
  const [
    typeNumber,
    to,
    from,
    term,
    logTerm,
    index,
    commit,
    vote,
    rejectHint,
    reject,
    entries,
    context,
    snapshot,
  ] = wire as WireMessage;
  const type = messageTypes[typeNumber];
  const numbers = [to, from, term, logTerm, index, commit, vote, rejectHint];
  if (type === undefined || !numbers.every(isCount)) throw malformed();
  return {
    type,
    to,
    from,
    term,
    logTerm,
    index,
    commit,
    vote,
    rejectHint,
    reject: reject === true,
    ...(entries === null ? {} : { entries: entries.map(entryFromWire) }),
    ...(context === null ? {} : { context: bytesOf(context) }),
    ...(snapshot === null ? {} : { snapshot: { metadata: metadataOf(snapshot), data: new Uint8Array(0) } }),
  };
}

function entryFromWire(wire: unknown): Entry {
  if (!Array.isArray(wire)) throw malformed();
  const [term, index, typeNumber, data] = wire as WireEntry;
  const type = entryTypes[typeNumber];
  if (type === undefined || !isCount(term) || !isCount(index)) throw malformed();
  return { term, index, type, data: bytesOf(data) };
}

function metadataOf(value: SnapshotMetadata): SnapshotMetadata {
  const { index, term, confState } = value;
  const { voters, votersOutgoing, learners, learnersNext, autoLeave } = confState ?? {};
  const lists = [voters, votersOutgoing, learners, learnersNext];
  if (
    !isCount(index) ||
    !isCount(term) ||
    !lists.every((list) => Array.isArray(list) && list.every(isCount))
  ) {
    throw malformed();
  }
  return {
    index,
    term,
    confState: { voters, votersOutgoing, learners, learnersNext, autoLeave: autoLeave === true },
  };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function bytesOf(value: unknown): Uint8Array {
  if (!(value instanceof Uint8Array)) throw malformed();
  return value;
}

/** The error for bytes off the wire that make no sense. */
export function malformed(cause?: unknown): ShoalError {
  return new ShoalError('invalid-argument', 'another manager sent Raft messages that cannot be read', {
    cause,
  });
}
