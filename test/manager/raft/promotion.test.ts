/** A member that was promoted and restarts: it must know that it votes. */
import assert from 'node:assert/strict';
import { RaftCluster } from './raft-cluster.ts';

describe('a promoted member', () => {
  it('knows after a restart that it votes, though nothing was written since', async () => {
    const cluster = new RaftCluster();
    await cluster.form(3);
    await cluster.clock.run(5);
    cluster.kill(3);
    cluster.cut.add(1).add(2);
    const node = await cluster.restart(3);
    await cluster.clock.run(5_000);
    assert.notEqual(node.status().role, 'learner');
    await cluster.stop();
  });

  it('leads with the only other survivor when that one lacks its last entry', async () => {
    const cluster = new RaftCluster();
    await cluster.form(3);
    await cluster.clock.run(5);
    cluster.cut.add(2);
    await cluster.wait(cluster.propose(1, 'only on 1 and 3'));
    cluster.kill(1);
    cluster.kill(3);
    cluster.cut.delete(2);
    await cluster.restart(3);
    const leader = await cluster.newLeader(1);
    assert.equal(leader.member.raftId, 3);
    await cluster.until(() => cluster.seat(2).journal.lines.includes('only on 1 and 3'), 'it goes on');
    await cluster.stop();
  });
});
