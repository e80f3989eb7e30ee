import assert from 'node:assert/strict';
import fc from 'fast-check';
import { createWal, openWal, type WalContents } from '../../../manager/raft/wal.ts';
import { isShoalError, ShoalError } from '../../../proto/errors.ts';
import { SimulatedDisk } from '../../simulation/disk.ts';
import { seededRandom } from '../../simulation/random.ts';
import { batchOf, entry, self, testSealer, texts } from './log-fixture.ts';

const noEntries = { hardState: undefined, mark: undefined, entries: [] };

async function diskWith(count: number, segmentBytes?: number): Promise<SimulatedDisk> {
  const disk = new SimulatedDisk();
  const options = { disk, sealer: testSealer(), ...(segmentBytes === undefined ? {} : { segmentBytes }) };
  const wal = await createWal(options, self, batchOf(entry(1)));
  for (let index = 2; index <= count; index += 1) await wal.append(batchOf(entry(index)));
  await wal.close();
  return disk;
}

async function contentsOf(disk: SimulatedDisk): Promise<WalContents> {
  const opened = await openWal({ disk, sealer: testSealer(2) });
  assert.ok(opened !== undefined, 'there is a log');
  await opened.wal.close();
  return opened.contents;
}

describe('log on disk', () => {
  it('gives back what was appended, and goes on from there', async () => {
    const disk = await diskWith(3);
    const opened = await openWal({ disk, sealer: testSealer(2) });
    await opened?.wal.append(batchOf(entry(4), entry(5)));
    await opened?.wal.close();
    const contents = await contentsOf(disk);
    assert.deepEqual(contents.self, self);
    assert.deepEqual(contents.hardState, { term: 1, vote: 7, commit: 4 });
    assert.deepEqual(
      texts(contents.entries),
      [1, 2, 3, 4, 5].map((index) => `1/${index} entry ${index}`),
    );
  });

  it('is absent where nothing was written', async () => {
    assert.equal(await openWal({ disk: new SimulatedDisk(), sealer: testSealer() }), undefined);
  });

  it('lets a new leader overwrite what its predecessor could not commit', async () => {
    const disk = await diskWith(5);
    const opened = await openWal({ disk, sealer: testSealer(2) });
    await opened?.wal.append(batchOf(entry(3, 'other', 2)));
    await opened?.wal.close();
    assert.deepEqual(texts((await contentsOf(disk)).entries), ['1/1 entry 1', '1/2 entry 2', '2/3 other']);
  });

  it('does not show its entries to who reads the disk', async () => {
    const disk = await diskWith(3);
    for (const name of await disk.list()) {
      assert.ok(!Buffer.from(disk.contents(name)).includes('entry'), name);
    }
  });

  it('cuts off a last record that is torn at any byte, and goes on', async () => {
    const before = (await diskWith(2)).contents('log-0000000001').length;
    const whole = (await diskWith(3)).contents('log-0000000001');
    // The real disk keeps zeros ahead of the end.
    const padded = [0, 5_000].flatMap((zeros) =>
      Array.from({ length: whole.length - before }, (_, torn) => ({ length: before + torn, zeros })),
    );
    for (const { length, zeros } of padded) {
      const disk = new SimulatedDisk();
      disk.place('log-0000000001', Buffer.concat([whole.subarray(0, length), Buffer.alloc(zeros)]));
      const opened = await openWal({ disk, sealer: testSealer(2) });
      assert.equal(opened?.contents.entries.length, 2, `torn at ${length}`);
      const written = whole.subarray(before, length);
      assert.equal(opened?.contents.tornBytes, written.findLastIndex((byte) => byte !== 0) + 1);
      await opened?.wal.append(batchOf(entry(3, 'again')));
      await opened?.wal.close();
      assert.equal(texts((await contentsOf(disk)).entries).at(-1), '1/3 again');
    }
  });

  it('refuses a bit flipped anywhere before the last record, naming file and byte', async () => {
    const before = (await diskWith(3)).contents('log-0000000001').length;
    const whole = (await diskWith(4)).contents('log-0000000001');
    for (let bit = 0; bit < before * 8; bit += 1) {
      const disk = new SimulatedDisk();
      disk.place('log-0000000001', whole);
      disk.flipBit('log-0000000001', bit >> 3, bit & 7);
      await assert.rejects(openWal({ disk, sealer: testSealer(2) }), (error) => {
        assert.ok(error instanceof ShoalError && error.code === 'corrupted', `bit ${bit}`);
        assert.match(error.message, /log-0000000001, byte \d+: .*backup.*join.*--force-new-cluster/s);
        assert.ok(Number(error.details.byteOffset) <= bit >> 3);
        return true;
      });
    }
  });

  it('refuses damage, loss and truncation of a segment that is not the last', async () => {
    const flipped = await diskWith(20, 500);
    const names = await flipped.list();
    assert.ok(names.length >= 3, 'several segments');
    const [first = '', second = ''] = names;
    flipped.flipBit(first, flipped.contents(first).length - 1);
    await assert.rejects(contentsOf(flipped), (error) => isShoalError(error, 'corrupted'));

    const missing = await diskWith(20, 500);
    await missing.remove(second);
    await assert.rejects(contentsOf(missing), /log-0000000002.*missing/);

    const padded = await diskWith(20, 500);
    for (const name of names) {
      padded.place(name, Buffer.concat([padded.contents(name), Buffer.alloc(1_000)]));
    }
    assert.deepEqual(
      await contentsOf(padded),
      await contentsOf(await diskWith(20, 500)),
      'zeros are no damage',
    );

    const cut = await diskWith(20, 500);
    const lastRecordBytes = cut.contents(first).length;
    const shorter = (await diskWith(1)).contents(first);
    assert.ok(shorter.length < lastRecordBytes);
    const twoRecords = await diskWith(2);
    cut.place(first, twoRecords.contents(first));
    await assert.rejects(contentsOf(cut), /bytes were written, the rest is missing/);
  });

  it('rolls over to new segments and reads across them', async () => {
    const disk = await diskWith(100, 1000);
    assert.ok((await disk.list()).length > 5);
    const contents = await contentsOf(disk);
    assert.equal(contents.entries.length, 100);
    assert.equal(contents.hardState.commit, 99);
  });

  it('removes segments before a snapshot and keeps hard state and marks', async () => {
    const disk = new SimulatedDisk();
    const wal = await createWal({ disk, sealer: testSealer(), segmentBytes: 500 }, self, batchOf(entry(1)));
    for (let index = 2; index <= 30; index += 1) await wal.append(batchOf(entry(index)));
    await wal.append({ ...noEntries, mark: { index: 20, term: 1 } });
    for (let index = 31; index <= 60; index += 1) await wal.append(batchOf(entry(index)));
    const segments = (await disk.list()).length;
    await wal.removeUpTo(20);
    await wal.close();
    assert.ok((await disk.list()).length < segments);
    const contents = await contentsOf(disk);
    assert.deepEqual(contents.marks, [{ index: 20, term: 1 }]);
    assert.ok((contents.entries[0]?.index ?? 0) <= 21);
    assert.equal(contents.entries.at(-1)?.index, 60);
    assert.deepEqual(contents.hardState, { term: 1, vote: 7, commit: 59 });
  });

  it('carries hard state, marks and self over into new segments', async () => {
    const disk = new SimulatedDisk();
    const first = { ...batchOf(entry(1)), mark: { index: 1, term: 1 } };
    const wal = await createWal({ disk, sealer: testSealer(), segmentBytes: 300 }, self, first);
    const later = { ...self, address: '10.9.9.9:2377' };
    await wal.append({ ...noEntries, entries: [entry(2)] }, later);
    for (let index = 3; index <= 20; index += 1) await wal.append({ ...noEntries, entries: [entry(index)] });
    await wal.removeUpTo(15);
    await wal.close();
    assert.ok(!(await disk.list()).includes('log-0000000001'));
    const contents = await contentsOf(disk);
    assert.deepEqual(contents.self, later);
    assert.deepEqual(contents.hardState, { term: 1, vote: 7, commit: 0 });
    assert.deepEqual(contents.marks, [{ index: 1, term: 1 }]);
  });

  it('starts over behind a snapshot that came from the leader', async () => {
    const disk = await diskWith(5);
    const opened = await openWal({ disk, sealer: testSealer(2) });
    await opened?.wal.append({ ...batchOf(entry(51, 'after', 3)), mark: { index: 50, term: 3 } });
    await opened?.wal.close();
    assert.deepEqual(texts((await contentsOf(disk)).entries), ['3/51 after']);
  });

  it('recovers from a full disk: the part that was written is cut before the next append', async () => {
    for (let room = 0; room < 120; room += 7) {
      const disk = await diskWith(3, 1000);
      const opened = await openWal({ disk, sealer: testSealer(2), segmentBytes: 400 });
      disk.limit(disk.usedBytes + room);
      await assert.rejects(
        async () => opened!.wal.append(batchOf(entry(4, 'x'.repeat(200)))),
        (error) => isShoalError(error, 'disk-full'),
      );
      await assert.rejects(async () => opened!.wal.append(batchOf(entry(4, 'x'.repeat(200)))));
      disk.limit(Number.POSITIVE_INFINITY);
      await opened!.wal.append(batchOf(entry(4, 'with room')));
      await opened!.wal.append(batchOf(entry(5)));
      await opened!.wal.close();
      assert.deepEqual(texts((await contentsOf(disk)).entries).slice(3), ['1/4 with room', '1/5 entry 5']);
    }
  });

  it('opens on what a crash in the middle of a full disk left', async () => {
    const disk = await diskWith(8, 500);
    const opened = await openWal({ disk, sealer: testSealer(2), segmentBytes: 100 });
    disk.limit(disk.usedBytes + 60);
    await assert.rejects(async () => opened!.wal.append(batchOf(entry(9))));
    disk.crash();
    assert.equal((await contentsOf(disk)).entries.length, 8);
  });

  it('never loses a flushed batch, whatever a crash tears (property)', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(300), { minLength: 1, maxLength: 20 }),
        fc.double({ min: 0, max: 0.99, noNaN: true }),
        async (sizes, tear) => {
          const random = seededRandom(sizes.length);
          const disk = new SimulatedDisk({ tear: () => tear, isQuick: () => random.float() < 0.5 });
          const wal = await createWal({ disk, sealer: testSealer(), segmentBytes: 700 }, self, noEntries);
          const written = sizes.map((size, position) => entry(position + 1, 'y'.repeat(size)));
          for (const one of written) await wal.append(batchOf(one));
          const lost = wal.append(batchOf(entry(written.length + 1, 'unflushed')));
          disk.crash();
          await lost?.catch(() => {});
          const found = texts((await contentsOf(disk)).entries);
          assert.deepEqual(found.slice(0, written.length), texts(written));
        },
      ),
      { numRuns: 60 },
    );
  });
});
