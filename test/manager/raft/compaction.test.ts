/** How often snapshots are made and how many are kept. */
import assert from 'node:assert/strict';
import { RaftCluster } from './raft-cluster.ts';

describe('raft: compaction', () => {
  let cluster: RaftCluster;

  afterEach(() => cluster.stop());

  it('snapshots as often, and keeps as many, as the settings of the moment say', async () => {
    let policy = { snapshotEntries: 1_000, keepEntries: 2, keepSnapshots: 0 };
    cluster = new RaftCluster({ compactionPolicy: () => policy, segmentBytes: 2_000 });
    await cluster.form(1);
    const snapshots = async (): Promise<number> =>
      (await cluster.seat(1).disk.list()).filter((name) => name.startsWith('snapshot-')).length;
    const add = async (count: number): Promise<void> => {
      for (let number = 0; number < count; number += 1) await cluster.wait(cluster.propose(1, 'line'));
      await cluster.clock.run(1_000);
    };
    await add(50);
    const before = await snapshots();
    policy = { snapshotEntries: 10, keepEntries: 2, keepSnapshots: 3 };
    await add(100);
    assert.deepEqual([before <= 1, await snapshots()], [true, 4]);
    policy = { ...policy, keepSnapshots: 0 };
    await add(30);
    assert.equal(await snapshots(), 2);
  });
});
