/** A learner that takes the place of a voter: one joint change, in which nobody is missing. */
import assert from 'node:assert/strict';
import type { MemberId } from '../../../manager/raft/core/types.ts';
import { memberOf, RaftCluster } from './raft-cluster.ts';

describe('a member that replaces another one', () => {
  let cluster: RaftCluster;
  let replaced: MemberId;

  /** Voters of the leader's view, each time that it changes. */
  async function formed(count: number, leaving: MemberId): Promise<void> {
    replaced = leaving;
    cluster = new RaftCluster({
      replacedBy: (nodeId) => (nodeId === `node-${count + 1}` ? `node-${replaced}` : undefined),
    });
    await cluster.form(count);
  }

  afterEach(() => cluster.stop());

  const votersAt = (raftId: MemberId): MemberId[] =>
    cluster
      .node(raftId)
      .status()
      .members.filter(({ isLearner }) => !isLearner)
      .map((member) => member.raftId);

  async function join(raftId: MemberId): Promise<void> {
    const leader = cluster.leader()!.member.raftId;
    const members = votersAt(leader).map(memberOf);
    await cluster.start(raftId, { kind: 'join', self: memberOf(raftId), members });
    await cluster.wait(cluster.node(leader).addMember(memberOf(raftId)));
  }

  const isAmong = (raftId: MemberId, ...voters: MemberId[]) =>
    cluster.until(() => String(votersAt(raftId)) === String(voters), `the voters are ${voters}`);

  it('votes in the moment in which the other one leaves: never fewer voters, never one more for good', async () => {
    await formed(3, 2);
    const seen: string[] = [];
    cluster.node(1).onChange(() => seen.push(String(votersAt(1))));
    await join(4);
    await isAmong(1, 1, 3, 4);
    await cluster.until(() => cluster.node(2).status().role === 'removed', 'member 2 is told');
    await cluster.until(() => cluster.node(4).status().role === 'follower', 'member 4 votes');
    assert.deepEqual([...new Set(seen)], ['1,2,3', '1,2,3,4', '1,3,4']);
    await cluster.wait(cluster.propose(4, 'after'));
  });

  it('does so with another manager dead, for the one that leaves helps until it has left', async () => {
    await formed(3, 2);
    cluster.kill(3);
    await join(4);
    await isAmong(1, 1, 3, 4);
    await cluster.until(() => cluster.node(2).status().role === 'removed', 'member 2 is told');
    await cluster.restart(3);
    await isAmong(3, 1, 3, 4);
    await cluster.wait(cluster.propose(3, 'after'));
  });

  it('does so for one that is dead, which is told when it is back', async () => {
    await formed(3, 2);
    cluster.kill(2);
    await join(4);
    await isAmong(1, 1, 3, 4);
    await cluster.restart(2);
    await cluster.until(() => cluster.node(2).status().role === 'removed', 'member 2 is told');
  });

  it('goes on where a leader died in the middle of it', async () => {
    await formed(3, 2);
    // The joint change is in every log; what ends it reaches nobody.
    let isLost = false;
    cluster.node(1).onChange(() => {
      if (votersAt(1).length === 4) isLost = true;
    });
    cluster.loses = (message) => isLost && message.from === 1;
    await join(4);
    await cluster.until(() => isLost, 'the joint change is in force');
    cluster.kill(1);
    cluster.loses = undefined;
    const { raftId } = (await cluster.newLeader(1)).member;
    await cluster.restart(1);
    await isAmong(raftId === 2 ? 3 : raftId, 1, 3, 4);
    await cluster.wait(cluster.propose(4, 'after'));
  });

  it('lets a leader that leaves hand over first', async () => {
    await formed(3, 1);
    await join(4);
    await isAmong(4, 2, 3, 4);
    await cluster.until(() => cluster.node(1).status().role === 'removed', 'member 1 is told');
    assert.ok([2, 3, 4].includes(cluster.leader()!.member.raftId));
  });

  it('votes beside the only one, which could not hand over to anyone yet', async () => {
    await formed(1, 1);
    await join(2);
    await isAmong(2, 1, 2);
    await cluster.until(() => cluster.node(2).status().role === 'follower', 'member 2 knows that it votes');
    // The promotion is still being written there.
    await cluster.clock.run(5);
    await cluster.wait(cluster.node(1).transferLeadership());
    await cluster.newLeader(1);
    await cluster.wait(cluster.node(2).removeMember('node-1'));
    await isAmong(2, 2);
  });
});
