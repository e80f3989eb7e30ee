/** What a member has said it stands by, over power cuts and lost messages: votes, answers, promotions. */
import assert from 'node:assert/strict';
import type { Message } from '../../../manager/raft/core/types.ts';
import { memberOf, RaftCluster } from './raft-cluster.ts';

describe('a member', () => {
  let cluster: RaftCluster;

  beforeEach(async () => {
    cluster = new RaftCluster();
    await cluster.form(3);
  });

  afterEach(async () => {
    cluster.loses = undefined;
    await cluster.stop();
  });

  it('gives one vote a term, though the power fails as soon as the vote is heard', async () => {
    const heard: Message[] = [];
    cluster.loses = (message) => {
      heard.push(message);
      return true;
    };
    await cluster.clock.run(3_000);
    const term = cluster.node(2).status().term + 50;
    const ask = async (from: number): Promise<Message> => {
      heard.length = 0;
      const request = { type: 'MsgVote', to: 2, from, term, index: 10_000, logTerm: term } as const;
      cluster.node(2).receive(request);
      const answer = () => heard.find(({ type, to }) => type === 'MsgVoteResp' && to === from);
      await cluster.until(() => answer() !== undefined, `the answer to ${from}`);
      return answer()!;
    };
    assert.notEqual((await ask(3)).reject, true);
    cluster.kill(2);
    await cluster.restart(2);
    assert.equal((await ask(1)).reject, true);
    assert.notEqual((await ask(3)).reject, true, 'the same one is told the same');
  });

  it('answers a proposal that it passed on when it has applied it itself', async () => {
    // It hears of commits with heartbeats alone, long after the leader's answer.
    cluster.loses = ({ type, to, entries = [] }) => to === 2 && type === 'MsgApp' && entries.length === 0;
    for (let number = 0; number < 5; number += 1) {
      await cluster.wait(cluster.propose(2, `passed on ${number}`));
      assert.equal(cluster.seat(2).journal.lines.at(-1), `passed on ${number}`);
    }
  });

  it('votes only once it has caught up, however long that takes', async () => {
    for (let number = 0; number < 100; number += 1) await cluster.wait(cluster.propose(1, `line ${number}`));
    const members = cluster.node(1).status().members;
    // It is heard of, but gets nothing.
    cluster.loses = ({ type, to }) => to === 4 && (type === 'MsgApp' || type === 'MsgSnap');
    await cluster.start(4, { kind: 'join', self: memberOf(4), members });
    await cluster.wait(cluster.node(1).addMember(memberOf(4)));
    await cluster.clock.run(5_000);
    const isLearner = () =>
      cluster
        .node(1)
        .status()
        .members.find(({ raftId }) => raftId === 4)?.isLearner;
    assert.equal(isLearner(), true);
    cluster.loses = undefined;
    await cluster.until(() => isLearner() === false, 'it votes');
    assert.equal(cluster.seat(4).journal.lines.length, 100);
  });

  it('that was removed leaves a number that nobody gets again', async () => {
    await cluster.wait(cluster.node(1).removeMember('node-3'));
    await assert.rejects(cluster.wait(cluster.node(1).addMember(memberOf(3))), /never used again/);
  });
});
