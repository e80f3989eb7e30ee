/**
 * Snapshots: the state as of one index, in place of the log before it; as files, and in chunks on the wire.
 *
 * In: a snapshot, or the bytes of one. Out: a file that is there whole or not at all, sealed and
 * checksummed; the newest one that is intact. It never looks into the state.
 */
import { crc32 } from 'node:zlib';
import { pack, unpack } from 'msgpackr';
import { messageOf, ShoalError } from '../../proto/errors.ts';
import type { Clock, Log } from '../../proto/ports.ts';
import type { Disk } from './contract.ts';
import type { Snapshot, SnapshotMetadata } from './core/types.ts';
import type { SnapshotMark } from './log-record.ts';
import { isShared, roomFor } from './room.ts';
import { type Sealer, sealOverheadBytes } from './seal.ts';
import { workInSlices } from './slices.ts';

const magic = Buffer.from('SHOALSN1', 'latin1');
const headBytes = magic.length + 4;
/** As much is sealed or opened at a time: below a millisecond's work. */
const sealedBytes = 2 ** 20;
const namePattern = /^snapshot-(\d{16})-\d+$/;

/** The file name of the snapshot that `mark` names. */
export function snapshotName(mark: SnapshotMark): string {
  return `snapshot-${String(mark.index).padStart(16, '0')}-${mark.term}`;
}

/**
 * Writes the snapshot's file, sealing it slice by slice of `clock`'s time, or, a large one, beside the loop. It counts once the log holds its mark.
 */
export async function saveSnapshot(
  disk: Disk,
  sealer: Sealer,
  snapshot: Snapshot,
  clock: Clock,
): Promise<void> {
  const name = snapshotName(snapshot.metadata);
  const metadata = pack(snapshot.metadata);
  const length = Buffer.allocUnsafe(4);
  length.writeUInt32LE(metadata.length, 0);
  const first = Buffer.concat([length, metadata]);
  if (disk.replaceSealed !== undefined && isShared(snapshot.data)) {
    await disk.replaceSealed(name, { magic, plain: [first, snapshot.data], permit: sealer.permit(name) });
    return;
  }
  const sealed: Uint8Array[] = [];
  let checksum = 0;
  const seal = function* (): Generator<void, void> {
    const sealing = sealer.begin(name);
    const add = (bytes: Uint8Array): void => {
      checksum = crc32(bytes, checksum);
      sealed.push(bytes);
    };
    add(sealing.head);
    add(sealing.update(first));
    for (const { data } of chunksOf(snapshot.data, sealedBytes)) {
      add(sealing.update(data));
      yield;
    }
    add(sealing.final());
  };
  await workInSlices(clock, seal());
  const head = Buffer.alloc(headBytes);
  head.set(magic);
  head.writeUInt32LE(checksum, magic.length);
  await disk.replace(name, [head, ...sealed]);
}

/**
 * The newest intact snapshot among `marks` (newest last). undefined when nothing was ever marked. A
 * damaged one is passed over with a warning: the log is kept back to the one before it. Throws 'corrupted'
 * when none is left.
 */
export async function loadSnapshot(
  disk: Disk,
  sealer: Sealer,
  marks: readonly SnapshotMark[],
  log: Log,
  clock: Clock,
): Promise<Snapshot | undefined> {
  const failures: string[] = [];
  for (const mark of [...marks].reverse()) {
    const file = snapshotName(mark);
    try {
      return await readSnapshot(sealer, file, await disk.read(file), clock);
    } catch (error) {
      failures.push(`${file}: ${messageOf(error)}`);
      log.warn({ file, problem: messageOf(error) }, 'a snapshot is damaged; trying the one before it');
    }
  }
  if (failures.length === 0) return undefined;
  throw new ShoalError(
    'corrupted',
    `no snapshot of the Raft log is intact (${failures.join('; ')}). Restore this manager's data directory from a backup; or, if the other managers still have a quorum, remove the data directory and join this manager anew`,
  );
}

/** Removes the snapshot files from before `oldest`. */
export async function removeOlderSnapshots(disk: Disk, oldest: SnapshotMark): Promise<void> {
  for (const name of await disk.list()) {
    const match = namePattern.exec(name);
    if (match !== null && Number(match[1]) < oldest.index) await disk.remove(name);
  }
}

async function readSnapshot(sealer: Sealer, name: string, file: Uint8Array, clock: Clock): Promise<Snapshot> {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.length);
  if (bytes.length < headBytes || !bytes.subarray(0, magic.length).equals(magic)) {
    throw new Error('byte 0: not a snapshot file');
  }
  const sealed = bytes.subarray(headBytes);
  const plain = roomFor(Math.max(0, sealed.length - sealOverheadBytes));
  const open = function* (): Generator<void, void> {
    let checksum = 0;
    for (const { data } of chunksOf(sealed, sealedBytes)) {
      checksum = crc32(data, checksum);
      yield;
    }
    if (checksum !== bytes.readUInt32LE(magic.length)) {
      throw new Error(`byte ${headBytes}: the checksum does not match`);
    }
    let at = 0;
    for (const piece of sealer.openInPieces(sealed, name, sealedBytes)) {
      plain.set(piece, at);
      at += piece.length;
      yield;
    }
  };
  await workInSlices(clock, open());
  const end = 4 + plain.readUInt32LE(0);
  return { metadata: unpack(plain.subarray(4, end)) as SnapshotMetadata, data: plain.subarray(end) };
}

/** `data` in pieces of at most `chunkBytes`, in order; at least one, which may be empty. */
export function* chunksOf(
  data: Uint8Array,
  chunkBytes: number,
): Generator<{ readonly offset: number; readonly data: Uint8Array }> {
  let offset = 0;
  do {
    yield { offset, data: data.subarray(offset, offset + chunkBytes) };
    offset += chunkBytes;
  } while (offset < data.length);
}

/** Puts chunks together again; refuses gaps, repetitions and more than was announced. */
export class ChunkAssembly {
  readonly #totalBytes: number;
  /** Room for all of it, taken with the first chunk: gathering hundreds of megabytes at the end would be a pause. */
  #bytes: Buffer | undefined;
  #receivedBytes = 0;

  constructor(totalBytes: number) {
    this.#totalBytes = totalBytes;
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** Throws 'invalid-argument' when the chunk does not follow the one before it. */
  add(offset: number, data: Uint8Array): void {
    if (offset !== this.#receivedBytes || offset + data.length > this.#totalBytes) {
      throw new ShoalError(
        'invalid-argument',
        `a chunk of a snapshot came out of order: offset ${offset} after ${this.#receivedBytes} of ${this.#totalBytes} bytes`,
      );
    }
    this.#bytes ??= roomFor(this.#totalBytes);
    this.#bytes.set(data, offset);
    this.#receivedBytes += data.length;
  }

  /** The whole; undefined while something is missing. */
  whole(): Uint8Array | undefined {
    return this.#receivedBytes === this.#totalBytes ? (this.#bytes ?? Buffer.alloc(0)) : undefined;
  }
}
