/**
 * How a member begins: with a new group, as a joiner, from its disk, or from its disk alone.
 *
 * In: RaftStart and a disk. Out: the log in memory and on disk, the directory, and a state machine that
 * stands at the last snapshot. It refuses a disk whose pieces do not fit together.
 */
import { ShoalError } from '../../proto/errors.ts';
import type { Clock, Log } from '../../proto/ports.ts';
import type { Disk, Member, RaftStart, StateMachine } from './contract.ts';
import { decodeConfChange } from './core/core.ts';
import type { ConfState, HardState, Snapshot } from './core/types.ts';
import {
  changeDirectory,
  type Directory,
  decodeSnapshotData,
  directoryOf,
  encodeSnapshotData,
  onlyMember,
} from './directory.ts';
import { GroupStorage } from './group-storage.ts';
import type { SnapshotMark } from './log-record.ts';
import { payloadOf } from './proposals.ts';
import type { Sealer } from './seal.ts';
import { wayOutOfDamage } from './segment.ts';
import { restoreInSlices } from './slices.ts';
import { loadSnapshot, saveSnapshot } from './snapshot.ts';
import { createWal, openWal, type Wal, type WalContents, type WalOptions } from './wal.ts';

export interface RecoveryOptions {
  readonly start: RaftStart;
  readonly disk: Disk;
  readonly sealer: Sealer;
  readonly stateMachine: StateMachine;
  readonly clock: Clock;
  readonly log: Log;
  readonly segmentBytes?: number | undefined;
}

/** A member ready to run. */
export interface Recovered {
  readonly self: Member;
  readonly storage: GroupStorage;
  readonly wal: Wal;
  readonly directory: Directory;
  /** As of the snapshot; later changes are in the log and come by as committed entries. */
  readonly confState: ConfState;
  readonly marks: readonly SnapshotMark[];
}

const firstIndex = 1;
const firstTerm = 1;
const noOne: ConfState = { voters: [], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };

/**
 * Throws 'failed-precondition' when the disk holds a log and none is expected or the other way round (then
 * with details.reason 'no-log'),
 * 'corrupted' when what it holds is damaged, 'disk-full'.
 */
export async function recover(options: RecoveryOptions): Promise<Recovered> {
  const { start, disk, sealer, segmentBytes } = options;
  const walOptions = { disk, sealer, ...(segmentBytes === undefined ? {} : { segmentBytes }) };
  const opened = await openWal(walOptions);
  switch (start.kind) {
    case 'bootstrap':
    case 'join':
      if (opened !== undefined) {
        await opened.wal.close();
        throw new ShoalError(
          'failed-precondition',
          'this manager already has a Raft log: it is part of a cluster',
        );
      }
      return start.kind === 'bootstrap'
        ? bootstrap(options, walOptions, start)
        : join(walOptions, start.self, start.members);
    case 'restart':
    case 'force-new-cluster': {
      if (opened === undefined) {
        throw new ShoalError(
          'failed-precondition',
          'this manager has no Raft log to start from: init or join a cluster first',
          { details: { reason: 'no-log' } },
        );
      }
      const restarted = await restart(options, opened.wal, opened.contents);
      return start.kind === 'restart' ? restarted : standAlone(options, restarted, start.self);
    }
  }
}

/** The group begins with a snapshot, so that a joiner always gets the state as it was before the log. */
async function bootstrap(
  options: RecoveryOptions,
  walOptions: WalOptions,
  { self, after }: Extract<RaftStart, { kind: 'bootstrap' }>,
): Promise<Recovered> {
  const directory = onlyMember(directoryOf(after?.members ?? []), self);
  const mark = { index: after?.index ?? firstIndex, term: after?.term ?? firstTerm };
  const confState = { ...noOne, voters: [self.raftId] };
  const snapshot: Snapshot = {
    metadata: { ...mark, confState },
    data: encodeSnapshotData(directory, options.stateMachine.snapshot()),
  };
  const hardState: HardState = { term: mark.term, vote: 0, commit: mark.index };
  await saveSnapshot(options.disk, options.sealer, snapshot, options.clock);
  const wal = await createWal(walOptions, self, { hardState, mark, entries: [] });
  const storage = new GroupStorage();
  storage.applySnapshot(snapshot);
  storage.setHardState(hardState);
  return { self, storage, wal, directory, confState, marks: [mark] };
}

async function join(walOptions: WalOptions, self: Member, members: readonly Member[]): Promise<Recovered> {
  const wal = await createWal(walOptions, self, { hardState: undefined, mark: undefined, entries: [] });
  return {
    self,
    storage: new GroupStorage(),
    wal,
    directory: directoryOf(members),
    confState: noOne,
    marks: [],
  };
}

async function restart(options: RecoveryOptions, wal: Wal, contents: WalContents): Promise<Recovered> {
  const { disk, sealer, log, stateMachine, clock } = options;
  const { self, marks } = contents;
  if (contents.tornBytes > 0) {
    log.warn(
      { tornBytes: contents.tornBytes },
      'the last write to the Raft log was cut short; it is cut off',
    );
  }
  const snapshot = await loadSnapshot(disk, sealer, marks, log, clock);
  const storage = new GroupStorage();
  let directory = directoryOf([]);
  if (snapshot !== undefined) {
    const { state, ...decoded } = decodeSnapshotData(snapshot.data);
    directory = decoded.directory;
    storage.applySnapshot(snapshot);
    await restoreInSlices(clock, stateMachine, snapshot.metadata.index, state);
  }
  const base = storage.lastIndex();
  const first = contents.entries[0];
  if (first !== undefined && first.index > base + 1) throw gap(base, first.index);
  storage.append(contents.entries.filter((entry) => entry.index > base));
  const commit = Math.max(contents.hardState.commit, base);
  if (commit > storage.lastIndex()) throw gap(storage.lastIndex(), commit + 1);
  storage.setHardState({ ...contents.hardState, commit });
  const confState = snapshot?.metadata.confState ?? noOne;
  return { self, storage, wal, directory, confState, marks };
}

function gap(before: number, after: number): ShoalError {
  return new ShoalError(
    'corrupted',
    `the Raft log is damaged: entries ${before + 1} to ${after - 1} are missing. ${wayOutOfDamage}`,
  );
}

/**
 * Makes this member the only one: its whole log counts, also what it could not know to be committed
 * (some of it may have been acknowledged), and a snapshot of that starts the new group.
 */
async function standAlone(options: RecoveryOptions, from: Recovered, self: Member): Promise<Recovered> {
  const { storage, wal } = from;
  const { stateMachine } = options;
  const index = storage.lastIndex();
  const base = storage.firstIndex();
  let directory = from.directory;
  const entries = index < base ? [] : storage.entries(base, index + 1, Number.MAX_SAFE_INTEGER);
  for (const entry of entries) {
    if (entry.type !== 'normal') directory = changeDirectory(directory, decodeConfChange(entry.data));
    else if (entry.data.length > 0) stateMachine.apply(entry.index, payloadOf(entry.data));
  }
  const mark = { index, term: storage.term(index) };
  const confState = { ...noOne, voters: [self.raftId] };
  directory = onlyMember(directory, self);
  const snapshot = {
    metadata: { ...mark, confState },
    data: encodeSnapshotData(directory, stateMachine.snapshot()),
  };
  await saveSnapshot(options.disk, options.sealer, snapshot, options.clock);
  const { term } = storage.initialState().hardState;
  // A term of its own: nothing that the old group still sends can be taken for this group's.
  const hardState = { term: Math.max(term, mark.term) + 1, vote: 0, commit: index };
  await wal.append({ hardState, mark, entries: [] }, self);
  const alone = new GroupStorage();
  alone.applySnapshot(snapshot);
  alone.setHardState(hardState);
  return { self, storage: alone, wal, directory, confState, marks: [mark] };
}
