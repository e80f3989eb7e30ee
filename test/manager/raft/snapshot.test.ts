import assert from 'node:assert/strict';
import { realClock } from '../../../cli/runtime.ts';
import type { Snapshot } from '../../../manager/raft/core/types.ts';
import {
  ChunkAssembly,
  chunksOf,
  loadSnapshot,
  removeOlderSnapshots,
  saveSnapshot,
  snapshotName,
} from '../../../manager/raft/snapshot.ts';
import { isShoalError } from '../../../proto/errors.ts';
import { silentLog } from '../../../proto/ports.ts';
import { SimulatedDisk } from '../../simulation/disk.ts';
import { testSealer } from './log-fixture.ts';

const confState = { voters: [1, 2], votersOutgoing: [], learners: [3], learnersNext: [], autoLeave: false };

function snapshotAt(index: number): Snapshot {
  return { metadata: { index, term: 2, confState }, data: Buffer.from(`the state at ${index}`) };
}

const marks = [10, 20].map((index) => ({ index, term: 2 }));

describe('snapshot files', () => {
  it('come back whole, the newest first, sealed', async () => {
    const disk = new SimulatedDisk();
    for (const index of [10, 20]) await saveSnapshot(disk, testSealer(), snapshotAt(index), realClock);
    const loaded = await loadSnapshot(disk, testSealer(2), marks, silentLog, realClock);
    assert.deepEqual(loaded?.metadata, snapshotAt(20).metadata);
    assert.equal(Buffer.from(loaded!.data).toString(), 'the state at 20');
    assert.ok(!Buffer.from(disk.contents(snapshotName(marks[0]!))).includes('state'));
  });

  it('are passed over for the one before at every flipped bit, and refused when none is left', async () => {
    const disk = new SimulatedDisk();
    for (const index of [10, 20]) await saveSnapshot(disk, testSealer(), snapshotAt(index), realClock);
    const newest = snapshotName(marks[1]!);
    const intact = disk.contents(newest);
    for (let bit = 0; bit < intact.length * 8; bit += 1) {
      disk.place(newest, intact);
      disk.flipBit(newest, bit >> 3, bit & 7);
      const loaded = await loadSnapshot(disk, testSealer(2), marks, silentLog, realClock);
      assert.equal(loaded?.metadata.index, 10, `bit ${bit}`);
    }
    await disk.remove(snapshotName(marks[0]!));
    await assert.rejects(loadSnapshot(disk, testSealer(2), marks, silentLog, realClock), (error) => {
      assert.ok(isShoalError(error, 'corrupted'));
      assert.match(error.message, new RegExp(`${newest}: byte`));
      return true;
    });
  });

  it('do not count without a mark in the log', async () => {
    const disk = new SimulatedDisk();
    await saveSnapshot(disk, testSealer(), snapshotAt(10), realClock);
    assert.equal(await loadSnapshot(disk, testSealer(), [], silentLog, realClock), undefined);
  });

  it('are removed when they are older than those to keep', async () => {
    const disk = new SimulatedDisk();
    for (const index of [5, 10, 20]) await saveSnapshot(disk, testSealer(), snapshotAt(index), realClock);
    disk.place('log-0000000001', Buffer.from('stays'));
    await removeOlderSnapshots(disk, marks[0]!);
    assert.deepEqual(await disk.list(), ['log-0000000001', ...marks.map(snapshotName)]);
  });
});

describe('snapshots in chunks', () => {
  it('are put together again, whatever their length', () => {
    for (const length of [0, 1, 9, 10, 11, 100]) {
      const data = Buffer.alloc(length, 'abc');
      const assembly = new ChunkAssembly(length);
      for (const chunk of chunksOf(data, 10)) assembly.add(chunk.offset, chunk.data);
      assert.deepEqual(assembly.whole(), data);
    }
  });

  it('are refused with a gap, a repetition or an excess', () => {
    const assembly = new ChunkAssembly(20);
    assembly.add(0, Buffer.alloc(10));
    assert.equal(assembly.whole(), undefined);
    for (const offset of [0, 11]) assert.throws(() => assembly.add(offset, Buffer.alloc(5)), /out of order/);
    assert.throws(() => assembly.add(10, Buffer.alloc(11)), /out of order/);
  });
});
