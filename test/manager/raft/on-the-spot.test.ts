/** A group whose disks are durable on the spot, or not, or now and then: what is said is the same. */
import assert from 'node:assert/strict';
import { RaftCluster } from './raft-cluster.ts';

describe('raft: flushes on the spot', () => {
  let cluster: RaftCluster;

  beforeEach(() => {
    cluster = new RaftCluster();
  });

  afterEach(() => cluster.stop());

  for (const share of [0, 0.5, 1]) {
    it(`keep everything acknowledged through a loss of power of all (${share} of them)`, async () => {
      cluster.quickShare = share;
      await cluster.form(3);
      const lines = Array.from({ length: 30 }, (_, number) => `line ${number}`);
      for (const [number, line] of lines.entries())
        await cluster.wait(cluster.propose(1 + (number % 3), line));
      for (const raftId of [1, 2, 3]) cluster.kill(raftId);
      for (const raftId of [1, 2, 3]) await cluster.restart(raftId);
      await cluster.until(() => cluster.leader() !== undefined, 'one of them leads');
      await cluster.wait(cluster.leader()!.node!.readBarrier());
      assert.deepEqual(cluster.leader()!.journal.lines, lines);
    });
  }

  it('take no time of a member alone', async () => {
    cluster.quickShare = 1;
    await cluster.form(1);
    await cluster.wait(cluster.propose(1, 'zero'));
    const startMs = cluster.clock.monotonicMs();
    await cluster.wait(cluster.propose(1, 'one'));
    assert.equal(cluster.clock.monotonicMs(), startMs);
  });

  it('are acknowledged by a majority, not by the leader alone', async () => {
    cluster.quickShare = 1;
    await cluster.form(3);
    cluster.loses = ({ type, from }) => type === 'MsgAppResp' && from !== 1;
    const proposal = cluster.propose(1, 'never heard of');
    let isAnswered = false;
    proposal.then(
      () => {
        isAnswered = true;
      },
      () => {},
    );
    await cluster.clock.run(500);
    assert.equal(isAnswered, false);
    cluster.loses = undefined;
  });

  it('do not keep a follower waiting for what its own client asked for', async () => {
    cluster.quickShare = 1;
    await cluster.form(3);
    const follower = 1 + (cluster.leader()!.member.raftId % 3);
    for (let number = 0; number < 5; number += 1) {
      const startMs = cluster.clock.monotonicMs();
      await cluster.wait(cluster.propose(follower, `asked ${number}`));
      // There and back to the leader, and what the leader and the others say to each other.
      const tookMs = cluster.clock.monotonicMs() - startMs;
      assert.ok(tookMs < 1.5, `${tookMs} ms`);
    }
  });
});
