/**
 * The log on disk: what a member must not forget, in append-only segments.
 *
 * In: one batch per Ready (hard state, entries, the mark of a snapshot). Out: word that the batch survives a
 * power cut (at once, or a promise of it), and on the next start everything again. It never rewrites a record; a
 * batch that could not be written whole is cut off before the next one is appended.
 */
import { isShoalError, ShoalError } from '../../proto/errors.ts';
import type { AppendFile, Disk, Member } from './contract.ts';
import type { Entry, HardState } from './core/types.ts';
import { encodeBatch, encodeHead, type LogBatch, type SegmentHead, type SnapshotMark } from './log-record.ts';
import type { Sealer } from './seal.ts';
import { damaged, frameRecords, readSegment, segmentName, segmentNumber } from './segment.ts';

const defaultSegmentBytes = 16 * 2 ** 20;
/** As many as snapshots are kept: the older one is for when the newer one turns out to be damaged. */
const keptMarks = 2;

export interface WalOptions {
  readonly disk: Disk;
  readonly sealer: Sealer;
  /** A segment that has grown beyond this is followed by a new one. */
  readonly segmentBytes?: number;
}

/** What the log remembered. */
export interface WalContents {
  readonly self: Member;
  readonly hardState: HardState;
  /** In order of index without a gap; the first need not be 1. */
  readonly entries: readonly Entry[];
  /** Snapshots that were durable when they were marked, the newest last. */
  readonly marks: readonly SnapshotMark[];
  /** How many bytes of a torn tail were cut off; 0 after an orderly stop. */
  readonly tornBytes: number;
}

/** The open log. One append at a time. */
export interface Wal {
  /**
   * Makes the batch durable: it is when undefined is answered, or when the promise resolves. After 'disk-full' nothing of it counts, and the same or another batch may be
   * appended; after any other error the log takes no more. With `self`, this member is someone else from
   * then on (force-new-cluster).
   */
  append(batch: LogBatch, self?: Member): Promise<void> | undefined;
  /** Removes the segments that hold nothing but entries up to `index`. */
  removeUpTo(index: number): Promise<void>;
  close(): Promise<void>;
}

interface Segment {
  readonly number: number;
  /** The highest index of an entry in it. */
  lastIndex: number;
}

/** Starts a log where there is none, with `first` as its first batch; what was left of one is replaced. */
export async function createWal(options: WalOptions, self: Member, first: LogBatch): Promise<Wal> {
  for (const number of await segmentsOn(options.disk)) await options.disk.remove(segmentName(number));
  const wal = new SegmentedWal(options, self);
  await wal.append(first);
  return wal;
}

/**
 * Reads the log and opens it for appending. undefined when there is none, or only the stump of one whose
 * very first write was cut short. Throws 'corrupted' when it is damaged.
 */
export async function openWal(
  options: WalOptions,
): Promise<{ readonly wal: Wal; readonly contents: WalContents } | undefined> {
  const numbers = await segmentsOn(options.disk);
  const replay = new Replay();
  let goodBytes = 0;
  let tornBytes = 0;
  for (const [position, number] of numbers.entries()) {
    const isLast = position === numbers.length - 1;
    const file = await options.disk.read(segmentName(number));
    const segment = readSegment(options.sealer, number, file, isLast);
    tornBytes = segment.tornBytes;
    if (segment.records.length === 0) {
      // The first write to a new segment was cut short: the one before it is the last.
      await options.disk.remove(segmentName(number));
      break;
    }
    replay.segment(number, goodBytes, segment.records);
    goodBytes = segment.goodBytes;
  }
  const contents = replay.contents(tornBytes);
  if (contents === undefined) return undefined;
  const wal = new SegmentedWal(options, contents.self);
  await wal.resume(replay, goodBytes);
  return { wal, contents };
}

async function segmentsOn(disk: Disk): Promise<number[]> {
  const names = await disk.list();
  return names
    .map(segmentNumber)
    .filter((number) => number !== undefined)
    .sort((a, b) => a - b);
}

/** Rebuilds the state of the log from its records, in order. */
class Replay {
  readonly segments: Segment[] = [];
  head: SegmentHead | undefined;
  hardState: HardState = { term: 0, vote: 0, commit: 0 };
  marks: SnapshotMark[] = [];
  #entries: Entry[] = [];
  /** Index that the next entry would have if it follows the last. */
  #nextIndex = 1;

  get lastIndex(): number {
    return this.#nextIndex - 1;
  }

  segment(number: number, previousBytes: number, records: ReturnType<typeof readSegment>['records']): void {
    const previous = this.segments.at(-1);
    const [first, ...rest] = records;
    if (first?.kind !== 'head') throw damaged(number, 0, 'it does not begin with a segment head');
    if (previous === undefined) {
      this.hardState = first.head.hardState;
      this.marks = [...first.head.marks];
      this.#nextIndex = first.head.lastIndex + 1;
    } else if (number !== previous.number + 1) {
      throw damaged(previous.number + 1, 0, 'the file is missing');
    } else if (first.head.previousBytes !== previousBytes) {
      throw damaged(
        previous.number,
        previousBytes,
        `${first.head.previousBytes} bytes were written, the rest is missing`,
      );
    }
    this.head = first.head;
    this.segments.push({ number, lastIndex: 0 });
    for (const record of rest) {
      if (record.kind !== 'batch') throw damaged(number, 0, 'it holds a second segment head');
      this.#batch(number, record.batch);
    }
  }

  contents(tornBytes: number): WalContents | undefined {
    if (this.head === undefined) return undefined;
    const { hardState, marks } = this;
    return { self: this.head.self, hardState, marks, entries: this.#entries, tornBytes };
  }

  #batch(number: number, batch: LogBatch): void {
    if (batch.hardState !== undefined) this.hardState = batch.hardState;
    if (batch.mark !== undefined) this.#mark(batch.mark);
    const segment = this.segments.at(-1)!;
    for (const entry of batch.entries) {
      if (entry.index > this.#nextIndex)
        throw damaged(number, 0, `entries before ${entry.index} are missing`);
      // A new leader's entries take the place of those that its predecessor could not commit.
      const kept = this.#entries.length - (this.#nextIndex - entry.index);
      this.#entries.length = Math.max(0, kept);
      this.#entries.push(entry);
      this.#nextIndex = entry.index + 1;
      segment.lastIndex = Math.max(segment.lastIndex, entry.index);
    }
  }

  /** A snapshot of what the log holds leaves the log as it is; one of something else replaces it. */
  #mark(mark: SnapshotMark): void {
    this.marks = withMark(this.marks, mark);
    const known = this.#entries[this.#entries.length - (this.#nextIndex - mark.index)];
    if (known?.term === mark.term || mark.index < this.#nextIndex - this.#entries.length) return;
    this.#entries = [];
    this.#nextIndex = mark.index + 1;
  }
}

function withMark(marks: readonly SnapshotMark[], mark: SnapshotMark): SnapshotMark[] {
  return [...marks.filter((other) => other.index !== mark.index), mark].slice(-keptMarks);
}

class SegmentedWal implements Wal {
  readonly #options: WalOptions;
  #self: Member;
  #segments: Segment[] = [];
  #file: AppendFile | undefined;
  /** Where the next record of the last segment goes. */
  #endBytes = 0;
  /** A failed append may have left a part of its bytes behind the end. */
  #hasStump = false;
  #failure: unknown;
  #hardState: HardState = { term: 0, vote: 0, commit: 0 };
  #marks: readonly SnapshotMark[] = [];
  #lastIndex = 0;

  constructor(options: WalOptions, self: Member) {
    this.#options = options;
    this.#self = self;
  }

  async resume(replay: Replay, endBytes: number): Promise<void> {
    this.#segments = replay.segments;
    this.#hardState = replay.hardState;
    this.#marks = replay.marks;
    this.#lastIndex = replay.lastIndex;
    this.#endBytes = endBytes;
    this.#file = await this.#options.disk.reopen(segmentName(this.#segments.at(-1)!.number), endBytes);
  }

  append(batch: LogBatch, self?: Member): Promise<void> | undefined {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const flush = this.#write(batch, self);
    if (flush === undefined) {
      this.#remember(batch);
      return undefined;
    }
    return flush.then(
      () => this.#remember(batch),
      (error: unknown) => {
        if (!isShoalError(error, 'disk-full')) this.#failure = error;
        throw error;
      },
    );
  }

  #remember(batch: LogBatch): void {
    this.#hardState = batch.hardState ?? this.#hardState;
    if (batch.mark !== undefined) {
      this.#marks = withMark(this.#marks, batch.mark);
      this.#lastIndex = Math.max(this.#lastIndex, batch.mark.index);
    }
    const last = batch.entries.at(-1);
    if (last === undefined) return;
    this.#lastIndex = last.index;
    const segment = this.#segments.at(-1)!;
    segment.lastIndex = Math.max(segment.lastIndex, last.index);
  }

  async removeUpTo(index: number): Promise<void> {
    for (let first = this.#segments[0]; this.#segments.length > 1 && first !== undefined; ) {
      if (first.lastIndex > index) return;
      await this.#options.disk.remove(segmentName(first.number));
      this.#segments.shift();
      first = this.#segments[0];
    }
  }

  async close(): Promise<void> {
    this.#failure ??= new ShoalError('unavailable', 'the log is closed');
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }

  #write(batch: LogBatch, self: Member | undefined): Promise<void> | undefined {
    const { segmentBytes = defaultSegmentBytes } = this.#options;
    const segment = this.#segments.at(-1);
    const isFull = this.#endBytes >= segmentBytes;
    const file = this.#file;
    if (segment === undefined || file === undefined || self !== undefined || this.#hasStump || isFull) {
      return this.#writeElsewhere(batch, self);
    }
    return this.#writeRecord(segment.number, file, batch);
  }

  #writeRecord(number: number, file: AppendFile, batch: LogBatch): Promise<void> | undefined {
    const bytes = frameRecords(this.#options.sealer, number, this.#endBytes, [encodeBatch(batch)]);
    this.#hasStump = true;
    const flush = file.append(bytes);
    if (flush !== undefined) return flush.then(() => this.#written(bytes.length));
    this.#written(bytes.length);
    return undefined;
  }

  #written(sizeBytes: number): void {
    this.#hasStump = false;
    this.#endBytes += sizeBytes;
  }

  /** Behind a stump that is cut off first, or in a new segment. */
  async #writeElsewhere(batch: LogBatch, self: Member | undefined): Promise<void> {
    const { disk, segmentBytes = defaultSegmentBytes } = this.#options;
    if (self !== undefined) this.#self = self;
    const segment = this.#segments.at(-1);
    if (this.#hasStump && segment !== undefined) {
      await this.#file?.close();
      this.#file = undefined;
      this.#file = await disk.reopen(segmentName(segment.number), this.#endBytes);
      this.#hasStump = false;
    }
    const isFull = this.#endBytes >= segmentBytes;
    if (segment === undefined || this.#file === undefined || self !== undefined || isFull) {
      return this.#roll(batch);
    }
    await this.#writeRecord(segment.number, this.#file, batch);
  }

  /** The head of a new segment and its first batch are one write: a segment without a head never counted. */
  async #roll(batch: LogBatch): Promise<void> {
    const { disk, sealer } = this.#options;
    const number = (this.#segments.at(-1)?.number ?? 0) + 1;
    const head = encodeHead({
      self: this.#self,
      hardState: this.#hardState,
      marks: this.#marks,
      lastIndex: this.#lastIndex,
      previousBytes: this.#endBytes,
    });
    const bytes = frameRecords(sealer, number, 0, [head, encodeBatch(batch)]);
    const file = await disk.create(segmentName(number));
    try {
      await file.append(bytes);
    } catch (error) {
      await file.close().catch(() => {});
      throw error;
    }
    await this.#file?.close();
    this.#file = file;
    this.#endBytes = bytes.length;
    this.#segments.push({ number, lastIndex: 0 });
  }
}
