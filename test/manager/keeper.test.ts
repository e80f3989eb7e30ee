import assert from 'node:assert/strict';
import { keeperPlan } from '../../manager/keeper.ts';
import type { RaftStatus } from '../../manager/raft/contract.ts';
import type { Change } from '../../manager/store/change.ts';
import { Store } from '../../manager/store/store.ts';
import type { ClusterNode } from '../../proto/docker.ts';
import { makeNode } from './dispatcher/cluster.ts';

type GroupMember = RaftStatus['members'][number];

/** A group that a node without an object leads. */
function groupOf(members: readonly GroupMember[]): RaftStatus {
  const leader = { raftId: 1, nodeId: 'leader', address: '10.0.0.1:2377' };
  return {
    raftId: 1,
    role: 'leader',
    term: 1,
    commitIndex: 1,
    appliedIndex: 1,
    lastIndex: 1,
    leader,
    members,
  };
}

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
  const [change] = keeperPlan(store, groupOf([known])).changes;
  assert.equal(change?.op, 'merge');
  return (change as unknown as { fields: Partial<ClusterNode> }).fields.ManagerStatus?.Reachability;
}

describe('the role that a node’s next certificate is for', () => {
  it('is set without undoing a certificate that the node got in that moment', () => {
    const store = new Store();
    const { Private, ...rest } = makeNode('n');
    const node: ClusterNode = { ...rest, Private, Spec: { ...rest.Spec, Role: 'manager' } };
    store.applyEntry(1, { now: 0, changes: [{ op: 'create', kind: 'node', object: node }] });
    const { changes, roles } = keeperPlan(store, groupOf([]));
    assert.deepEqual(changes, []);
    const Certificate = { State: 'issued', Csr: 'request', Pem: 'certificate' } as const;
    const issued = {
      op: 'merge',
      kind: 'node',
      id: node.ID,
      fields: { Private: { ...Private, Certificate } },
    };
    store.applyEntry(2, { now: 0, changes: [issued as Change] });
    const late = store.applyEntry(3, { now: 0, changes: roles });
    assert.equal(late.ok, false);
    const again = store.applyEntry(4, { now: 0, changes: keeperPlan(store, groupOf([])).roles });
    assert.equal(again.ok, true);
    assert.deepEqual(store.get('node', node.ID)?.Private, { Role: 'manager', Certificate });
    assert.deepEqual(keeperPlan(store, groupOf([])).roles, []);
  });

  it('comes in one entry with what is said of the manager', () => {
    const store = new Store();
    const ManagerStatus = { Reachability: 'reachable', Addr: '10.0.0.2:2377' } as const;
    const before = makeNode('n');
    const node: ClusterNode = { ...before, ManagerStatus, Private: { ...before.Private, Role: 'manager' } };
    store.applyEntry(1, { now: 0, changes: [{ op: 'create', kind: 'node', object: node }] });
    const { changes, roles } = keeperPlan(store, groupOf([]));
    assert.equal(store.applyEntry(2, { now: 0, changes: [...changes, ...roles] }).ok, true);
    const after = store.get('node', node.ID);
    assert.equal(after?.Private.Role, 'worker');
    assert.equal(after?.ManagerStatus, undefined);
  });
});

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
