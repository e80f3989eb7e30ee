/**
 * The bytes of the log's records, before sealing and after opening. One record holds one Ready batch, so
 * that a batch is there whole or not at all. Numbers are doubles (exact below 2^53), little-endian.
 */
import { pack, unpack } from 'msgpackr';
import type { Member } from './contract.ts';
import type { Entry, EntryType, HardState } from './core/types.ts';

/** Names a snapshot that was made durable before this mark was. */
export interface SnapshotMark {
  readonly index: number;
  readonly term: number;
}

/** What one flush makes durable. Absent parts did not change. */
export interface LogBatch {
  readonly hardState: HardState | undefined;
  readonly mark: SnapshotMark | undefined;
  readonly entries: readonly Entry[];
}

/** The head of a segment: everything that the segments before it, which may be removed, knew besides entries. */
export interface SegmentHead {
  /** Who this member is. */
  readonly self: Member;
  readonly hardState: HardState;
  readonly marks: readonly SnapshotMark[];
  /** Index of the last entry before this segment. */
  readonly lastIndex: number;
  /** Length of the segment before this one; 0 for the first. */
  readonly previousBytes: number;
}

export type LogRecord =
  | { readonly kind: 'head'; readonly head: SegmentHead }
  | { readonly kind: 'batch'; readonly batch: LogBatch };

const headTag = 1;
const batchTag = 2;
const hasHardState = 1;
const hasMark = 2;
const entryTypes: readonly EntryType[] = ['normal', 'conf-change', 'conf-change-v2'];
const entryOverheadBytes = 8 + 8 + 1 + 4;

/** A segment's head as bytes. */
export function encodeHead(head: SegmentHead): Uint8Array {
  return Buffer.concat([Buffer.of(headTag), pack(head)]);
}

/** A batch as bytes. */
export function encodeBatch(batch: LogBatch): Uint8Array {
  const { hardState, mark, entries } = batch;
  let sizeBytes = 2 + 4 + (hardState === undefined ? 0 : 24) + (mark === undefined ? 0 : 16);
  for (const entry of entries) sizeBytes += entryOverheadBytes + entry.data.length;
  const bytes = Buffer.allocUnsafe(sizeBytes);
  bytes[0] = batchTag;
  bytes[1] = (hardState === undefined ? 0 : hasHardState) | (mark === undefined ? 0 : hasMark);
  let at = 2;
  if (hardState !== undefined) {
    at = bytes.writeDoubleLE(hardState.term, at);
    at = bytes.writeDoubleLE(hardState.vote, at);
    at = bytes.writeDoubleLE(hardState.commit, at);
  }
  if (mark !== undefined) {
    at = bytes.writeDoubleLE(mark.index, at);
    at = bytes.writeDoubleLE(mark.term, at);
  }
  at = bytes.writeUInt32LE(entries.length, at);
  for (const entry of entries) {
    at = bytes.writeDoubleLE(entry.term, at);
    at = bytes.writeDoubleLE(entry.index, at);
    at = bytes.writeUInt8(entryTypes.indexOf(entry.type), at);
    at = bytes.writeUInt32LE(entry.data.length, at);
    bytes.set(entry.data, at);
    at += entry.data.length;
  }
  return bytes;
}

/** Reads what encodeHead or encodeBatch wrote; throws on anything else. Entries share `data`'s memory. */
export function decodeRecord(data: Uint8Array): LogRecord {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
  if (bytes[0] === headTag) return { kind: 'head', head: unpack(bytes.subarray(1)) as SegmentHead };
  if (bytes[0] !== batchTag) throw new Error(`unknown kind of record: ${bytes[0]}`);
  const flags = bytes.readUInt8(1);
  let at = 2;
  const next = (): number => {
    at += 8;
    return bytes.readDoubleLE(at - 8);
  };
  const hardState = flags & hasHardState ? { term: next(), vote: next(), commit: next() } : undefined;
  const mark = flags & hasMark ? { index: next(), term: next() } : undefined;
  const count = bytes.readUInt32LE(at);
  at += 4;
  const entries: Entry[] = [];
  for (let number = 0; number < count; number += 1) {
    const term = next();
    const index = next();
    const type = entryTypes[bytes.readUInt8(at)];
    if (type === undefined) throw new Error(`unknown type of entry ${index}`);
    const start = at + 5;
    at = start + bytes.readUInt32LE(at + 1);
    if (at > bytes.length) throw new Error(`entry ${index} is longer than its record`);
    entries.push({ term, index, type, data: bytes.subarray(start, at) });
  }
  return { kind: 'batch', batch: { hardState, mark, entries } };
}
