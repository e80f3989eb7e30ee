/**
 * Keeps the log short: every so many entries a snapshot takes the place of what came before it.
 *
 * In: how far the state machine is. Out: a snapshot's file, written beside the log's own work, then its
 * mark for the log, then the removal of what nobody needs any more. A snapshot that fails (a full disk) is
 * tried again later; the log goes on meanwhile.
 */
import { messageOf } from '../../proto/errors.ts';
import type { Log } from '../../proto/ports.ts';
import type { Disk } from './contract.ts';
import type { Snapshot } from './core/types.ts';
import type { GroupStorage, StateNow } from './group-storage.ts';
import type { SnapshotMark } from './log-record.ts';
import type { Sealer } from './seal.ts';
import { removeOlderSnapshots, saveSnapshot } from './snapshot.ts';
import type { Wal } from './wal.ts';

const keptSnapshots = 2;

export interface CompactionOptions {
  readonly disk: Disk;
  readonly sealer: Sealer;
  readonly storage: GroupStorage;
  readonly wal: Wal;
  readonly log: Log;
  /** A snapshot is made after this many applied entries. */
  readonly snapshotEntries: number;
  /** Entries before the snapshot that stay in memory for followers that are a little behind. */
  readonly keepEntries: number;
  readonly marks: readonly SnapshotMark[];
  /** A snapshot's file is durable: its mark may go into the log. */
  readonly ready: () => void;
}

export class Compaction {
  readonly #options: CompactionOptions;
  #marks: readonly SnapshotMark[];
  /** The next snapshot is made at this applied index. */
  #nextIndex: number;
  #isSaving = false;
  #saving: Promise<void> = Promise.resolve();
  #cleaning: Promise<void> = Promise.resolve();
  #pendingMark: SnapshotMark | undefined;

  constructor(options: CompactionOptions) {
    this.#options = options;
    this.#marks = options.marks;
    this.#nextIndex = (options.marks.at(-1)?.index ?? 0) + options.snapshotEntries;
  }

  /** The mark of a saved snapshot that the log does not hold yet. */
  get pendingMark(): SnapshotMark | undefined {
    return this.#pendingMark;
  }

  /** Makes a snapshot when it is time. `applied` is in the log in memory. */
  consider(applied: number, stateNow: () => StateNow): void {
    if (applied < this.#nextIndex || this.#isSaving || this.#pendingMark !== undefined) return;
    const { storage, snapshotEntries } = this.#options;
    this.#nextIndex = applied + snapshotEntries;
    this.#isSaving = true;
    this.#saving = this.#save(storage.snapshotOf(stateNow()));
  }

  /** The log holds `mark` now: what only older snapshots needed may go. */
  marked(mark: SnapshotMark): void {
    if (this.#pendingMark !== undefined && this.#pendingMark.index <= mark.index)
      this.#pendingMark = undefined;
    this.#marks = [...this.#marks.filter(({ index }) => index !== mark.index), mark].slice(-keptSnapshots);
    this.#nextIndex = Math.max(this.#nextIndex, mark.index + this.#options.snapshotEntries);
    const { storage, keepEntries } = this.#options;
    const compactTo = mark.index - keepEntries;
    if (compactTo >= storage.firstIndex()) storage.compact(compactTo);
    this.#cleaning = this.#cleaning.then(() => this.#clean());
  }

  /** Resolves when nothing is being written or removed. */
  async idle(): Promise<void> {
    await this.#saving;
    await this.#cleaning;
  }

  async #clean(): Promise<void> {
    const { wal, disk, log } = this.#options;
    // Back to the older snapshot, so that it can stand in for a newer one that turns out to be damaged.
    const [oldest, newest] = this.#marks;
    if (oldest === undefined || newest === undefined) return;
    try {
      await wal.removeUpTo(oldest.index);
      await removeOlderSnapshots(disk, oldest);
    } catch (error) {
      log.warn({ problem: messageOf(error) }, 'cannot remove old parts of the Raft log; trying again later');
    }
  }

  async #save(snapshot: Snapshot): Promise<void> {
    const { disk, sealer, log, ready, snapshotEntries } = this.#options;
    const { index, term } = snapshot.metadata;
    try {
      await saveSnapshot(disk, sealer, snapshot);
      // One that came from the leader meanwhile is newer.
      if (index > (this.#marks.at(-1)?.index ?? 0)) this.#pendingMark = { index, term };
      log.info({ index, bytes: snapshot.data.length }, 'snapshot of the cluster state written');
    } catch (error) {
      this.#nextIndex = index + Math.ceil(snapshotEntries / 10);
      log.warn({ index, problem: messageOf(error) }, 'cannot write a snapshot of the cluster state');
    } finally {
      this.#isSaving = false;
    }
    ready();
  }
}
