/** Read points of a leader that comes to be none, or that hangs. */
import assert from 'node:assert/strict';
import { ReadPoints } from '../../../manager/raft/read-points.ts';
import { isShoalError, ShoalError } from '../../../proto/errors.ts';
import { RaftCluster } from './raft-cluster.ts';

const notLeader = () => new ShoalError('not-leader', 'this manager is not the leader');

function bed() {
  const asked: Uint8Array[] = [];
  const state = { isLeading: true };
  const points = new ReadPoints((context) => {
    if (!state.isLeading) throw notLeader();
    asked.push(context);
  }, 10);
  return { asked, points, state };
}

const turns = () => new Promise((resolve) => setImmediate(resolve));

describe('read points', () => {
  it('those who come while a question is under way share the next', async () => {
    const { asked, points } = bed();
    const first = points.get();
    await turns();
    const [second, third] = [points.get(), points.get()];
    points.answered([{ index: 7, context: asked[0]! }]);
    await turns();
    assert.equal(asked.length, 2);
    points.answered([{ index: 9, context: asked[1]! }]);
    assert.deepEqual(await Promise.all([first, second, third]), [7, 9, 9]);
  });

  it('one who waits for the next when the leadership is lost is refused, and no later one waits for it', async () => {
    const { asked, points, state } = bed();
    const [first, second] = [points.get(), turns().then(() => points.get())];
    const outcomes = Promise.allSettled([first, second]);
    await turns();
    await turns();
    state.isLeading = false;
    points.failAll(notLeader);
    for (const outcome of await outcomes) {
      assert.ok(outcome.status === 'rejected' && isShoalError(outcome.reason, 'not-leader'));
    }
    state.isLeading = true;
    const later = points.get();
    await turns();
    points.answered([{ index: 11, context: asked.at(-1)! }]);
    assert.equal(await later, 11);
  });
});

describe('a group whose leader hangs', () => {
  it('reads on under the next what was asked of it, and what the next asks before it begins', async () => {
    const cluster = new RaftCluster();
    await cluster.form(3);
    cluster.hung.add(1);
    const asked = [2, 3].map((raftId) => cluster.node(raftId).readBarrier());
    const leader = await cluster.newLeader(1);
    // Whoever comes while a question is under way waits for its end.
    await cluster.wait(Promise.all([...asked, leader.node!.readBarrier()]));
    await cluster.stop();
  });
});
