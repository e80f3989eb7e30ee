/**
 * Keeps the log short: every so many entries a snapshot takes the place of what came before it.
 *
 * In: how far the state machine is. Out: a snapshot's file, made and written beside the log's own work, then its
 * mark for the log, then the removal of what nobody needs any more. A snapshot that fails (a full disk) is
 * tried again later; the log goes on meanwhile.
 */
import { messageOf } from '../../proto/errors.ts';
import type { Clock, Log } from '../../proto/ports.ts';
import type { Disk } from './contract.ts';
import type { ConfState, Snapshot } from './core/types.ts';
import type { GroupStorage } from './group-storage.ts';
import type { SnapshotMark } from './log-record.ts';
import type { Sealer } from './seal.ts';
import { Gathering } from './slices.ts';
import { removeOlderSnapshots, saveSnapshot } from './snapshot.ts';
import type { Wal } from './wal.ts';

/** The newest, and one that can stand in for it. */
const leastKeptSnapshots = 2;
/** After a failure a tenth of the entries between two snapshots is waited for. */
const retryShare = 0.1;
/** Snapshots of a state of so many bytes are made as often as asked for; of larger ones, more seldom. */
const smallStateBytes = 32 * 2 ** 20;
const longestSpacing = 10;

/** The state as of `index`, whenever the pieces are taken, with the members at that index. */
export interface StateInPieces {
  readonly index: number;
  readonly confState: ConfState;
  readonly pieces: Iterable<Uint8Array>;
}

/** What the cluster's settings say, where they say something; they may change while the member runs. */
export interface CompactionPolicy {
  readonly snapshotEntries?: number | undefined;
  readonly keepEntries?: number | undefined;
  /** Snapshots kept besides the newest. */
  readonly keepSnapshots?: number | undefined;
}

export interface CompactionOptions {
  readonly disk: Disk;
  readonly sealer: Sealer;
  readonly storage: GroupStorage;
  readonly wal: Wal;
  readonly clock: Clock;
  readonly log: Log;
  /** A snapshot is made after this many applied entries. */
  readonly snapshotEntries: number;
  /** Entries before the snapshot that stay in memory for followers that are a little behind. */
  readonly keepEntries: number;
  readonly compactionPolicy?: (() => CompactionPolicy) | undefined;
  readonly marks: readonly SnapshotMark[];
  /** A snapshot's file is durable: its mark may go into the log. */
  readonly ready: () => void;
}

export class Compaction {
  readonly #options: CompactionOptions;
  #marks: readonly SnapshotMark[];
  /** The next snapshot is made so many times the setting's entries after this index. */
  #from: number;
  #times = 1;
  #isSaving = false;
  #saving: Promise<void> = Promise.resolve();
  #cleaning: Promise<void> = Promise.resolve();
  #pendingMark: SnapshotMark | undefined;

  constructor(options: CompactionOptions) {
    this.#options = options;
    this.#marks = options.marks;
    this.#from = options.marks.at(-1)?.index ?? 0;
  }

  #policy(): { snapshotEntries: number; keepEntries: number; keptSnapshots: number } {
    const { compactionPolicy, snapshotEntries, keepEntries } = this.#options;
    const said = compactionPolicy?.() ?? {};
    return {
      snapshotEntries: said.snapshotEntries ?? snapshotEntries,
      keepEntries: said.keepEntries ?? keepEntries,
      keptSnapshots: Math.max(leastKeptSnapshots, 1 + (said.keepSnapshots ?? 0)),
    };
  }

  get #nextIndex(): number {
    return this.#from + Math.ceil(this.#policy().snapshotEntries * this.#times);
  }

  /** The mark of a saved snapshot that the log does not hold yet. */
  get pendingMark(): SnapshotMark | undefined {
    return this.#pendingMark;
  }

  /** Makes a snapshot when it is time. `applied` is in the log in memory. */
  consider(applied: number, stateNow: () => StateInPieces): void {
    if (applied < this.#nextIndex || this.#isSaving || this.#pendingMark !== undefined) return;
    const now = stateNow();
    this.#start(now, this.#gathering(now));
  }

  /** A snapshot as of now if that is quickly made. If not, one is under way, or will be when asked again. */
  soon(now: StateInPieces): Snapshot | undefined {
    const gathering = this.#gathering(now);
    const data = gathering.workOneSlice();
    if (data !== undefined) return this.#options.storage.snapshotOf({ ...now, data });
    if (!this.#isSaving && this.#pendingMark === undefined) this.#start(now, gathering);
    return undefined;
  }

  #gathering({ pieces }: StateInPieces): Gathering {
    const { clock, storage } = this.#options;
    return new Gathering(clock, pieces, storage.snapshotBytes);
  }

  #start(now: StateInPieces, gathering: Gathering): void {
    this.#from = now.index;
    this.#times = 1;
    this.#isSaving = true;
    this.#saving = this.#save(now, gathering);
  }

  /** The log holds `mark` now: what only older snapshots needed may go. */
  marked(mark: SnapshotMark): void {
    if (this.#pendingMark !== undefined && this.#pendingMark.index <= mark.index)
      this.#pendingMark = undefined;
    const { snapshotEntries, keepEntries, keptSnapshots } = this.#policy();
    this.#marks = [...this.#marks.filter(({ index }) => index !== mark.index), mark].slice(-keptSnapshots);
    if (mark.index + snapshotEntries > this.#nextIndex) {
      this.#from = mark.index;
      this.#times = 1;
    }
    const { storage } = this.#options;
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

  async #save(now: StateInPieces, gathering: Gathering): Promise<void> {
    const { disk, sealer, clock, log, ready, storage } = this.#options;
    const { index } = now;
    try {
      const data = gathering.workOneSlice() ?? (await gathering.whole());
      const snapshot = storage.snapshotOf({ ...now, data });
      const { term } = snapshot.metadata;
      // One that came from the leader meanwhile is newer, and saved already.
      if (snapshot.metadata.index !== index) return;
      this.#from = index;
      this.#times = spacing(data.length);
      await saveSnapshot(disk, sealer, snapshot, clock);
      // One that came from the leader meanwhile is newer.
      if (index > (this.#marks.at(-1)?.index ?? 0)) this.#pendingMark = { index, term };
      log.info({ index, bytes: snapshot.data.length }, 'snapshot of the cluster state written');
    } catch (error) {
      this.#from = index;
      this.#times = retryShare;
      log.warn({ index, problem: messageOf(error) }, 'cannot write a snapshot of the cluster state');
    } finally {
      this.#isSaving = false;
    }
    ready();
  }
}

/** A large state is not written again for every few changes: how many times the entries asked for lie between. */
function spacing(sizeBytes: number): number {
  return Math.min(longestSpacing, Math.max(1, Math.ceil(sizeBytes / smallStateBytes)));
}
