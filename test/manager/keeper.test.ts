import assert from 'node:assert/strict';
import { keeperPlan } from '../../manager/keeper.ts';
import type { RaftStatus } from '../../manager/raft/contract.ts';
import { Store } from '../../manager/store/store.ts';
import type { ClusterNode } from '../../proto/docker.ts';
import { makeNode } from './dispatcher/cluster.ts';

type GroupMember = RaftStatus['members'][number];

/** What the keeper makes of the node `n` as `member` of a group that another one leads. */
function reachabilityOf(member: Partial<GroupMember>): string | undefined {
  const store = new Store();
  store.applyEntry(1, { now: 0, changes: [{ op: 'create', kind: 'node', object: makeNode('n') }] });
  const known: GroupMember = {
    raftId: 2,
    nodeId: 'n',
    address: '10.0.0.2:2377',
    isLearner: false,
    isActive: true,
    ...member,
  };
  const status: RaftStatus = {
    raftId: 1,
    role: 'leader',
    term: 1,
    commitIndex: 1,
    appliedIndex: 1,
    lastIndex: 1,
    leader: { ...known, raftId: 1, nodeId: 'leader' },
    members: [known],
  };
  const [change] = keeperPlan(store, status).changes;
  assert.equal(change?.op, 'merge');
  return (change as unknown as { fields: Partial<ClusterNode> }).fields.ManagerStatus?.Reachability;
}

describe('what is said of a manager', () => {
  it('is reachable when it votes and answers', () => {
    assert.equal(reachabilityOf({}), 'reachable');
    assert.equal(reachabilityOf({ isActive: false }), 'unreachable');
  });

  // Else somebody counts on it, stops another manager, and the quorum is gone.
  it('is unknown as long as it has no vote, for it does not count for the quorum', () => {
    assert.equal(reachabilityOf({ isLearner: true }), 'unknown');
    assert.equal(reachabilityOf({ isLearner: true, isActive: false }), 'unknown');
  });
});
