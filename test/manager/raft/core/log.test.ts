import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  CompactedError,
  entriesSizeBytes,
  entrySizeBytes,
  RaftLog,
  UnavailableError,
} from '../../../../manager/raft/core/log.ts';
import { nobody } from '../../../../manager/raft/core/membership.ts';
import { MemoryStorage } from '../../../../manager/raft/core/memory-storage.ts';
import type { Entry } from '../../../../manager/raft/core/types.ts';

const noBytes = new Uint8Array(0);
const unlimited = Number.POSITIVE_INFINITY;

/** Entries of the given terms, from `first` on. */
function entriesOf(first: number, ...terms: number[]): Entry[] {
  return terms.map((term, i) => ({ term, index: first + i, type: 'normal', data: noBytes }));
}

/** A log whose first `stable` entries are in the storage. */
function logOf(terms: readonly number[], stable = terms.length): { log: RaftLog; storage: MemoryStorage } {
  const storage = new MemoryStorage();
  storage.append(entriesOf(1, ...terms.slice(0, stable)));
  const log = new RaftLog(1, storage, unlimited);
  log.append(entriesOf(stable + 1, ...terms.slice(stable)));
  return { log, storage };
}

function termsOf(log: RaftLog): number[] {
  return log.slice(log.firstIndex, log.lastIndex + 1, unlimited).map(({ term }) => term);
}

describe('raft log', () => {
  describe('takes what a leader sends (Raft paper, 5.3)', () => {
    const cases: {
      name: string;
      previous: [term: number, index: number];
      terms: number[];
      commit: number;
      last: number | undefined;
      after: number[];
      committed: number;
    }[] = [
      {
        name: 'another term before',
        previous: [2, 3],
        terms: [4],
        commit: 3,
        last: undefined,
        after: [1, 2, 3],
        committed: 1,
      },
      {
        name: 'a gap before',
        previous: [3, 4],
        terms: [4],
        commit: 3,
        last: undefined,
        after: [1, 2, 3],
        committed: 1,
      },
      {
        name: 'nothing but a commit',
        previous: [3, 3],
        terms: [],
        commit: 3,
        last: 3,
        after: [1, 2, 3],
        committed: 3,
      },
      {
        name: 'a commit beyond what it sent',
        previous: [2, 2],
        terms: [],
        commit: 3,
        last: 2,
        after: [1, 2, 3],
        committed: 2,
      },
      {
        name: 'a commit behind',
        previous: [3, 3],
        terms: [4],
        commit: 0,
        last: 4,
        after: [1, 2, 3, 4],
        committed: 1,
      },
      {
        name: 'what is there already',
        previous: [1, 1],
        terms: [2],
        commit: 1,
        last: 2,
        after: [1, 2, 3],
        committed: 1,
      },
      {
        name: 'what is there and more',
        previous: [1, 1],
        terms: [2, 3, 4],
        commit: 4,
        last: 4,
        after: [1, 2, 3, 4],
        committed: 4,
      },
      {
        name: 'a different tail',
        previous: [1, 1],
        terms: [2, 4, 4],
        commit: 3,
        last: 4,
        after: [1, 2, 4, 4],
        committed: 3,
      },
      {
        name: 'a different and shorter tail',
        previous: [1, 1],
        terms: [4],
        commit: 2,
        last: 2,
        after: [1, 4],
        committed: 2,
      },
    ];
    for (const stable of [0, 1, 2, 3]) {
      for (const { name, previous, terms, commit, last, after, committed } of cases) {
        it(`${name}, with ${stable} of 3 entries durable`, () => {
          const { log } = logOf([1, 2, 3], stable);
          log.commitTo(1);
          const entries = entriesOf(previous[1] + 1, ...terms);
          assert.equal(log.tryAppend(previous[0], previous[1], entries, commit), last);
          assert.deepEqual(termsOf(log), after);
          assert.equal(log.committed, committed);
        });
      }
    }

    it('and refuses to go on when a committed entry would change', () => {
      const { log } = logOf([1, 2, 3]);
      log.commitTo(2);
      assert.throws(() => log.tryAppend(1, 1, entriesOf(2, 4), 2), { code: 'corrupted' });
      assert.throws(() => log.commitTo(4), { code: 'corrupted' });
    });
  });

  it('writes a replaced tail again, whether it was on its way to the disk or not', () => {
    const { log } = logOf([1, 2, 2, 2], 1);
    assert.deepEqual(log.unstable.nextEntries(), entriesOf(2, 2, 2, 2));
    log.unstable.acceptInProgress();
    assert.deepEqual(log.unstable.nextEntries(), []);
    log.append(entriesOf(3, 3));
    assert.deepEqual(log.unstable.nextEntries(), entriesOf(3, 3));
    // What was written before is not there any more; its report must not pass for the new entry's.
    log.unstable.stableTo(2, 4);
    log.unstable.stableTo(2, 3);
    assert.equal(log.unstable.offset, 2);
    log.unstable.stableTo(2, 2);
    assert.equal(log.unstable.offset, 3);
    assert.equal(log.term(3), 3);
  });

  it('keeps entries that arrive while others are written', () => {
    const { log, storage } = logOf([1, 1], 0);
    storage.append(log.unstable.nextEntries());
    log.unstable.acceptInProgress();
    log.append(entriesOf(3, 1, 1));
    log.unstable.stableTo(1, 2);
    assert.equal(log.unstable.offset, 3);
    assert.deepEqual(log.unstable.nextEntries(), entriesOf(3, 1, 1));
    assert.deepEqual(termsOf(log), [1, 1, 1, 1]);
  });

  it('finds where it may agree with another log of which one entry is known', () => {
    const { log } = logOf([2, 2, 5, 5, 5]);
    assert.deepEqual(log.findConflictByTerm(5, 5), { index: 5, term: 5 });
    assert.deepEqual(log.findConflictByTerm(5, 4), { index: 2, term: 2 });
    assert.deepEqual(log.findConflictByTerm(4, 2), { index: 2, term: 2 });
    assert.deepEqual(log.findConflictByTerm(5, 1), { index: 0, term: 0 });
    assert.deepEqual(log.findConflictByTerm(9, 5), { index: 9, term: 0 }, 'not known: assume it does');
  });

  it('finds that place as going back one by one would', () => {
    const rising = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 12 }).map((steps) => {
      let term = 1;
      return steps.map((step) => (term += step));
    });
    const number = fc.integer({ min: 0, max: 15 });
    fc.assert(
      fc.property(rising, number, number, number, number, (terms, stable, compacted, index, term) => {
        const { log, storage } = logOf(terms, Math.min(stable, terms.length));
        if (compacted > 0 && compacted <= storage.lastIndex()) storage.compact(compacted);
        let expected = { index: 0, term: 0 };
        for (let at = index; at > 0; at--) {
          const ours = log.term(at);
          if (ours !== undefined && ours > term) continue;
          expected = { index: at, term: ours ?? 0 };
          break;
        }
        assert.deepEqual(log.findConflictByTerm(index, term), expected);
      }),
    );
  });

  it('knows whose log is ahead (Raft paper, 5.4.1)', () => {
    const { log } = logOf([1, 2, 3]);
    for (const [term, index, ahead] of [
      [2, 9, false],
      [3, 2, false],
      [3, 3, true],
      [3, 4, true],
      [4, 1, true],
    ] as const) {
      assert.equal(log.isUpToDate(term, index), ahead, `${term}/${index}`);
    }
  });

  it('commits by counting only what is of the term', () => {
    const { log } = logOf([1, 2, 2]);
    assert.equal(log.tryCommit(3, 3), false);
    assert.equal(log.tryCommit(2, 4), false);
    assert.equal(log.tryCommit(2, 3), true);
    assert.equal(log.tryCommit(2, 2), false);
    assert.equal(log.committed, 3);
  });

  it('reads across what is durable and what is not, up to a size', () => {
    for (const stable of [0, 1, 2, 3, 4]) {
      const { log } = logOf([1, 1, 1, 1], stable);
      const one = entrySizeBytes(entriesOf(1, 1)[0]!);
      for (const [limit, count] of [
        [0, 1],
        [one, 1],
        [2 * one - 1, 1],
        [2 * one, 2],
        [3 * one + 1, 3],
        [unlimited, 4],
      ] as const) {
        assert.equal(log.slice(1, 5, limit).length, count, `${stable} durable, limit ${limit}`);
        assert.ok(entriesSizeBytes(log.slice(1, 5, limit)) <= Math.max(limit, one));
      }
      assert.deepEqual(log.entriesFrom(5, unlimited), []);
    }
  });

  it('hands out committed entries once, in pages, and no more than are to be applied at a time', () => {
    const storage = new MemoryStorage();
    storage.append(entriesOf(1, 1, 1, 1));
    const one = entrySizeBytes(entriesOf(1, 1)[0]!);
    const log = new RaftLog(1, storage, 2 * one);
    assert.equal(log.hasNextCommitted(true), false);
    log.commitTo(3);
    const page = log.nextCommitted(true);
    assert.deepEqual(page, entriesOf(1, 1, 1));
    log.acceptApplying(2, 2 * one, true);
    assert.equal(log.hasNextCommitted(true), false, 'full until some are applied');
    log.appliedTo(2, 2 * one);
    assert.deepEqual(log.nextCommitted(true), entriesOf(3, 1));
  });

  it('holds back committed entries that are not durable, if asked to', () => {
    const { log } = logOf([1, 1, 1], 2);
    log.commitTo(3);
    assert.equal(log.nextCommitted(true).length, 3);
    assert.equal(log.nextCommitted(false).length, 2);
  });

  it('starts over behind a snapshot, applying nothing until it is stored', () => {
    const { log } = logOf([1, 1, 1], 2);
    const metadata = { index: 9, term: 4, confState: nobody.configuration };
    log.restore({ metadata, data: noBytes });
    assert.deepEqual([log.firstIndex, log.lastIndex, log.lastTerm, log.committed], [10, 9, 4, 9]);
    assert.equal(log.term(9), 4);
    assert.equal(log.term(8), undefined);
    log.append(entriesOf(10, 4));
    log.commitTo(10);
    assert.equal(log.hasNextCommitted(true), false);
    assert.equal(log.unstable.nextSnapshot()?.metadata.index, 9);
    log.unstable.stableSnapshot(9);
    assert.equal(log.unstable.nextSnapshot(), undefined);
  });

  it('tells what is compacted from what is not there', () => {
    const { log, storage } = logOf([1, 1, 2, 2]);
    storage.compact(3);
    assert.equal(log.firstIndex, 4);
    assert.equal(log.term(3), 2, 'the term before the first entry is kept, for matching');
    assert.equal(log.term(2), undefined);
    assert.throws(() => log.slice(3, 5, unlimited), CompactedError);
    assert.throws(() => storage.entries(4, 6, unlimited), UnavailableError);
    assert.throws(() => storage.term(2), CompactedError);
    assert.throws(() => storage.term(5), UnavailableError);
    assert.throws(() => storage.compact(3), CompactedError);
  });
});

describe('raft storage in memory', () => {
  it('replaces an overlapping tail, and ignores what is compacted', () => {
    const storage = new MemoryStorage();
    storage.append(entriesOf(1, 1, 1, 1, 1));
    storage.compact(2);
    storage.append(entriesOf(1, 1, 1));
    assert.equal(storage.lastIndex(), 4);
    storage.append(entriesOf(2, 1, 3));
    assert.deepEqual([storage.lastIndex(), storage.term(3)], [3, 3]);
    assert.throws(() => storage.append(entriesOf(9, 3)), UnavailableError);
  });

  it('gives as many entries as fit, at least one, from wherever it is asked', () => {
    const sizes = fc.array(fc.nat(20), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(sizes, fc.nat(30), fc.nat(30), fc.nat(100), fc.nat(5), (lengths, at, count, max, gone) => {
        const storage = new MemoryStorage();
        const all = entriesOf(1, ...lengths.map(() => 1)).map((entry, i) => ({
          ...entry,
          data: new Uint8Array(lengths[i]!),
        }));
        storage.append(all);
        const base = Math.min(gone, all.length - 1);
        if (base > 0) storage.compact(base);
        const low = Math.min(base + 1 + at, all.length);
        const high = Math.min(low + count, all.length + 1);
        const expected = all.slice(low - 1, high - 1);
        while (expected.length > 1 && entriesSizeBytes(expected) > max) expected.pop();
        assert.deepEqual(storage.entries(low, high, max), expected);
      }),
    );
  });

  it('refuses a snapshot that is not newer', () => {
    const storage = new MemoryStorage();
    storage.append(entriesOf(1, 1, 1));
    const confState = { ...nobody.configuration, voters: [1] };
    assert.equal(storage.createSnapshot(2, confState, noBytes).metadata.term, 1);
    assert.deepEqual(storage.initialState().confState, confState);
    assert.throws(() => storage.createSnapshot(2, confState, noBytes), { code: 'out-of-sequence' });
    const metadata = { index: 1, term: 1, confState };
    assert.throws(() => storage.applySnapshot({ metadata, data: noBytes }), { code: 'out-of-sequence' });
  });
});
