import assert from 'node:assert/strict';
import { keeperPlan, refuseReplaced } from '../../manager/keeper.ts';
import type { RaftStatus } from '../../manager/raft/contract.ts';
import type { Change } from '../../manager/store/change.ts';
import { Store } from '../../manager/store/store.ts';
import type { ClusterNode } from '../../proto/docker.ts';
import { asId, type NodeId } from '../../proto/ids.ts';
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
    const late = store.applyEntry(3, { now: 0, changes: roles.flat() });
    assert.equal(late.ok, false);
    const again = store.applyEntry(4, { now: 0, changes: keeperPlan(store, groupOf([])).roles.flat() });
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
    assert.equal(store.applyEntry(2, { now: 0, changes: [...changes, ...roles.flat()] }).ok, true);
    const after = store.get('node', node.ID);
    assert.equal(after?.Private.Role, 'worker');
    assert.equal(after?.ManagerStatus, undefined);
  });
});

describe('a manager that another node replaces', () => {
  const member = (nodeId: string, isLearner: boolean): GroupMember => {
    return { raftId: isLearner ? 3 : 2, nodeId, address: '10.0.0.2:2377', isLearner, isActive: true };
  };
  let store: Store;
  const node = (id: string): ClusterNode => store.get('node', asId<NodeId>(id))!;
  const next = (...members: GroupMember[]) => keeperPlan(store, groupOf(members)).roles.flat();
  const apply = (index: number, changes: readonly Change[]) =>
    assert.equal(store.applyEntry(index, { now: 0, changes }).ok, true);

  beforeEach(() => {
    store = new Store();
    const made = ['new', 'old'].map((id): Change => {
      const before = makeNode(id);
      const Replaces = id === 'new' ? { Replaces: asId<NodeId>('old') } : {};
      const object: ClusterNode = {
        ...before,
        Spec: { ...before.Spec, Role: 'manager' },
        Private: { ...before.Private, Role: 'manager', ...Replaces },
      };
      return { op: 'create', kind: 'node', object };
    });
    apply(1, made);
  });

  it('stays one until that node votes, and is a worker in the same entry in which that is noted', () => {
    assert.deepEqual(next(member('old', false), member('new', true)), []);
    const end = next(member('old', false), member('new', false));
    assert.equal(end.length, 2);
    apply(2, end);
    assert.equal(node('new').Private.Replaces, undefined);
    assert.equal(node('old').Spec.Role, 'worker');
    assert.equal(node('new').Spec.Role, 'manager');
  });

  it('is not let in again in between', () => {
    const group = groupOf([member('new', false)]);
    assert.throws(() => refuseReplaced(store, group, 'old'), {
      code: 'permission-denied',
      message: /node old was replaced as a manager by node new/,
    });
    refuseReplaced(store, group, 'new');
    refuseReplaced(store, groupOf([member('new', true)]), 'old');
  });

  it('stays one for good when that is called off', () => {
    const called = { op: 'merge', kind: 'node', id: asId<NodeId>('new') } as const;
    apply(2, [{ ...called, fields: { Spec: { ...node('new').Spec, Role: 'worker' } } }]);
    apply(3, next(member('old', false)));
    assert.equal(node('new').Private.Replaces, undefined);
    assert.equal(node('old').Spec.Role, 'manager');
  });

  it('is forgotten as such when it went by itself', () => {
    apply(2, [{ op: 'remove', kind: 'node', id: asId<NodeId>('old') }]);
    apply(3, next(member('new', true)));
    assert.equal(node('new').Private.Replaces, undefined);
    assert.equal(node('new').Spec.Role, 'manager');
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
