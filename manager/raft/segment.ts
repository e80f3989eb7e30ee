/**
 * One segment of the log: how records stand in a file, and what of a file can be trusted.
 *
 * In: a file's bytes. Out: its records, and where the good part ends. A record that a power cut left
 * half-written can only be the last one: the good part ends before it. Any other damage is refused, for
 * what was acknowledged would be missing.
 */
import { crc32 } from 'node:zlib';
import { ShoalError } from '../../proto/errors.ts';
import { decodeRecord, type LogRecord } from './log-record.ts';
import type { Sealer } from './seal.ts';

const magic = Buffer.from('SHOALOG1', 'latin1');
/** Payload length, checksum of the payload, checksum of these two at this place. */
const recordHeadBytes = 12;
const namePattern = /^log-(\d{10})$/;

/** The file name of segment `number`. */
export function segmentName(number: number): string {
  return `log-${String(number).padStart(10, '0')}`;
}

/** The number of the segment that `name` is; undefined when it is none. */
export function segmentNumber(name: string): number | undefined {
  const match = namePattern.exec(name);
  return match === null ? undefined : Number(match[1]);
}

/** `records` (plain) framed for segment `number` from `offsetBytes` on; the first bytes of a file with its magic. */
export function frameRecords(
  sealer: Sealer,
  number: number,
  offsetBytes: number,
  records: readonly Uint8Array[],
): Uint8Array {
  const parts: Uint8Array[] = [];
  let at = offsetBytes;
  if (at === 0) {
    parts.push(magic);
    at = magic.length;
  }
  for (const record of records) {
    const payload = sealer.seal(record, placeOf(number, at));
    const head = Buffer.allocUnsafe(recordHeadBytes);
    head.writeUInt32LE(payload.length, 0);
    head.writeUInt32LE(crc32(payload), 4);
    head.writeUInt32LE(crc32(head.subarray(0, 8), headSeed(number, at)), 8);
    parts.push(head, payload);
    at += recordHeadBytes + payload.length;
  }
  return Buffer.concat(parts);
}

/** What readSegment found. Behind `goodBytes` stand `tornBytes` of a write that was cut short, and zeros. */
export interface SegmentContents {
  readonly records: readonly LogRecord[];
  readonly goodBytes: number;
  readonly tornBytes: number;
}

/**
 * Reads segment `number`. Throws 'corrupted' on damage that a power cut does not explain: everywhere but
 * at the very end of the last segment.
 */
export function readSegment(
  sealer: Sealer,
  number: number,
  file: Uint8Array,
  isLast: boolean,
): SegmentContents {
  const records: LogRecord[] = [];
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.length);
  let at = 0;
  if (bytes.subarray(0, magic.length).equals(magic)) {
    at = magic.length;
    for (let end = recordEnd(bytes, number, at); end !== undefined; end = recordEnd(bytes, number, at)) {
      records.push(openRecord(sealer, number, at, bytes.subarray(at + recordHeadBytes, end)));
      at = end;
    }
  }
  // The disk keeps zeros ahead of the end.
  const end = Math.max(at, lastNonZero(bytes, at) + 1);
  if (at === end && at > 0) return { records, goodBytes: at, tornBytes: 0 };
  if (!isLast || hasRecordAfter(bytes, number, at, end))
    throw damaged(number, at, 'its checksum does not match');
  const goodBytes = records.length === 0 ? 0 : at;
  return { records, goodBytes, tornBytes: end - goodBytes };
}

/** Where the last byte at or behind `from` stands that is not zero; `from - 1` when all are. */
function lastNonZero(bytes: Buffer, from: number): number {
  let at = bytes.length - 1;
  while (at >= from && bytes[at] === 0) at -= 1;
  return at;
}

/** Where the valid record that starts at `at` ends; undefined when there is none. */
function recordEnd(bytes: Buffer, number: number, at: number): number | undefined {
  const start = at + recordHeadBytes;
  if (start > bytes.length) return undefined;
  const end = start + bytes.readUInt32LE(at);
  if (end > bytes.length) return undefined;
  if (crc32(bytes.subarray(at, at + 8), headSeed(number, at)) !== bytes.readUInt32LE(at + 8))
    return undefined;
  if (crc32(bytes.subarray(start, end)) !== bytes.readUInt32LE(at + 4)) return undefined;
  return end;
}

/** Whether any valid record stands behind the damage at `from`: then it is no torn tail. */
function hasRecordAfter(bytes: Buffer, number: number, from: number, to: number): boolean {
  for (let at = from + 1; at < to && at + recordHeadBytes <= bytes.length; at += 1) {
    if (recordEnd(bytes, number, at) !== undefined) return true;
  }
  return false;
}

function openRecord(sealer: Sealer, number: number, at: number, payload: Uint8Array): LogRecord {
  try {
    return decodeRecord(sealer.open(payload, placeOf(number, at)));
  } catch (error) {
    throw damaged(number, at, 'it does not open with the data key', error);
  }
}

function placeOf(number: number, at: number): string {
  return `${segmentName(number)}@${at}`;
}

/** Ties a record's head to its place, so that bytes of a moved or copied record are not taken for one. */
function headSeed(number: number, at: number): number {
  return (Math.imul(number, 0x9e3779b1) ^ at) >>> 0;
}

/** What can be done about a log that is damaged. */
export const wayOutOfDamage =
  "Restore this manager's data directory from a backup; or, if the other managers still have a quorum, remove the data directory and join this manager anew, then take the old node out there with `shoal node demote` and `shoal node rm`; or recover the cluster on another manager with --force-new-cluster";

/** The refusal of a damaged log: which file, where in it, and what the operator can do. */
export function damaged(number: number, byteOffset: number, what: string, cause?: unknown): ShoalError {
  const file = segmentName(number);
  return new ShoalError(
    'corrupted',
    `the Raft log is damaged: ${file}, byte ${byteOffset}: ${what}. ${wayOutOfDamage}`,
    { cause, details: { file, byteOffset: String(byteOffset) } },
  );
}
