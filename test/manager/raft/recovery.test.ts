/** How a member begins from a disk whose pieces do not fit together. */
import assert from 'node:assert/strict';
import { isShoalError } from '../../../proto/errors.ts';
import { RaftCluster } from './raft-cluster.ts';

describe('a member that starts again', () => {
  let cluster: RaftCluster;
  afterEach(() => cluster.stop());

  it('refuses a log that does not follow on its snapshot', async () => {
    cluster = new RaftCluster({ segmentBytes: 2_000 });
    await cluster.form(1);
    for (let number = 0; number < 100; number += 1) await cluster.wait(cluster.propose(1, `line ${number}`));
    cluster.kill(1);
    await cluster.seat(1).disk.remove('log-0000000001');
    await assert.rejects(cluster.wait(cluster.restart(1)), (error) => {
      assert.ok(isShoalError(error, 'corrupted'), String(error));
      assert.match(error.message, /log is damaged: entries 2 to \d+ are missing/);
      return true;
    });
  });
});
