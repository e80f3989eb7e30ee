/**
 * Membership changes as the bytes of log entries: the protobuf encoding of etcd's raftpb.ConfChangeV2,
 * in which the change that only leaves a joint group is empty.
 */
import { ShoalError } from '../../../proto/errors.ts';
import type { ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2 } from './types.ts';

const transitions: readonly ConfChangeTransition[] = ['auto', 'implicit', 'explicit'];
const types: readonly ConfChangeType[] = ['add-voter', 'remove', 'update', 'add-learner'];

const noBytes = new Uint8Array(0);

/** The change that leaves a joint group. */
export const leaveJointChange: ConfChangeV2 = { transition: 'auto', changes: [], context: noBytes };

function pushVarint(out: number[], value: number): void {
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) out.push((rest % 128) | 128);
  out.push(rest);
}

/** The data of a conf-change entry. */
export function encodeConfChange(change: ConfChangeV2): Uint8Array {
  const out: number[] = [];
  if (change.transition !== 'auto') out.push(0x08, transitions.indexOf(change.transition));
  for (const { type, member } of change.changes) {
    const single = [0x08, types.indexOf(type), 0x10];
    pushVarint(single, member);
    out.push(0x12, single.length, ...single);
  }
  if (change.context.length === 0) return Uint8Array.from(out);
  out.push(0x1a);
  pushVarint(out, change.context.length);
  const bytes = new Uint8Array(out.length + change.context.length);
  bytes.set(out);
  bytes.set(change.context, out.length);
  return bytes;
}

interface Field {
  readonly number: number;
  readonly value: number;
  readonly bytes: Uint8Array;
}

function malformed(what: string): never {
  throw new ShoalError('corrupted', `malformed membership change: ${what}`);
}

/** Reads the fields of a message that has none but varints and length-delimited ones. */
function* fields(data: Uint8Array): Generator<Field> {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = data[at++];
      if (byte === undefined) malformed('it ends within a number');
      value += (byte & 127) * scale;
      if (value > Number.MAX_SAFE_INTEGER) malformed('a number is too large');
      if (byte < 128) return value;
    }
  };
  while (at < data.length) {
    const key = varint();
    const value = varint();
    if ((key & 7) === 0) {
      yield { number: key >>> 3, value, bytes: noBytes };
    } else if ((key & 7) === 2 && at + value <= data.length) {
      yield { number: key >>> 3, value, bytes: data.subarray(at, at + value) };
      at += value;
    } else {
      malformed(`field ${key >>> 3} has a kind or a length it cannot have`);
    }
  }
}

function decodeSingle(data: Uint8Array): ConfChangeSingle {
  let type: ConfChangeType = 'add-voter';
  let member = 0;
  for (const field of fields(data)) {
    if (field.number === 1) type = types[field.value] ?? malformed(`change type ${field.value}`);
    else if (field.number === 2) member = field.value;
  }
  return { type, member };
}

/** The inverse of encodeConfChange; throws ShoalError 'corrupted'. */
export function decodeConfChange(data: Uint8Array): ConfChangeV2 {
  let transition: ConfChangeTransition = 'auto';
  let context: Uint8Array = noBytes;
  const changes: ConfChangeSingle[] = [];
  for (const field of fields(data)) {
    if (field.number === 1) transition = transitions[field.value] ?? malformed(`transition ${field.value}`);
    else if (field.number === 2) changes.push(decodeSingle(field.bytes));
    else if (field.number === 3) context = field.bytes;
  }
  return { transition, changes, context };
}
