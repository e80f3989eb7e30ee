import assert from 'node:assert/strict';
import { ProposalDropped } from '../../../../manager/raft/core/core.ts';
import type { ConfChangeType } from '../../../../manager/raft/core/types.ts';
import { Group } from './group.ts';

function change(group: Group, leader: number, type: ConfChangeType, member: number): void {
  group.core(leader).proposeConfChange({
    transition: 'auto',
    changes: [{ type, member }],
    context: new Uint8Array(0),
  });
}

describe('raft transfer of leadership (dissertation, 3.10)', () => {
  let group: Group;

  /** Member 3 hears nothing for a while, so that a transfer to it stays pending. */
  function pendingToThree(): void {
    group.isolate(3);
    group.propose(1, 'missed by 3');
    group.settle();
    group.core(1).transferLeader(3);
    group.settle();
    assert.equal(group.core(1).status().leadTransferee, 3);
  }

  beforeEach(() => {
    group = new Group(3);
    group.elect(1);
    group.propose(1, 'a');
    group.settle();
  });

  for (const asked of [1, 2, 3]) {
    it(`to a member that is up to date, asked of ${asked}, takes one round and no timeout`, () => {
      group.core(asked).transferLeader(2);
      group.settle();
      assert.deepEqual(group.roles(), ['follower', 'leader', 'follower']);
      assert.equal(group.core(1).status().lead, 2);
    });
  }

  it('works under a lease and with pre-vote: the leader itself asked for it', () => {
    group.tick(3);
    group.core(1).transferLeader(3);
    group.settle();
    assert.equal(group.roles()[2], 'leader');
    group.core(3).transferLeader(1);
    group.settle();
    assert.equal(group.roles()[0], 'leader');
  });

  it('first brings a slow member up to date', () => {
    group.isolate(3);
    for (let i = 0; i < 20; i++) group.propose(1, `b${i}`);
    group.settle();
    group.heal();
    group.core(1).transferLeader(3);
    group.tick(2);
    assert.equal(group.roles()[2], 'leader');
    assert.equal(group.texts(3).length, 21);
  });

  it('waits for a member that needs a snapshot', () => {
    group.isolate(3);
    group.propose(1, 'b');
    group.settle();
    group.get(1).compact(0);
    group.heal();
    group.core(1).transferLeader(3);
    group.tick(3);
    assert.equal(group.roles()[2], 'leader');
  });

  it('to itself, to nobody known or to a learner is none', () => {
    for (const to of [1, 9]) {
      group.core(1).transferLeader(to);
      group.settle();
      assert.equal(group.core(1).status().leadTransferee, 0);
    }
    change(group, 1, 'remove', 3);
    group.settle();
    change(group, 1, 'add-learner', 3);
    group.settle();
    group.core(1).transferLeader(3);
    group.settle();
    assert.equal(group.core(1).status().leadTransferee, 0);
    assert.equal(group.roles()[0], 'leader');
  });

  it('refuses proposals until it is done', () => {
    pendingToThree();
    assert.throws(
      () => group.propose(1, 'x'),
      (error) => error instanceof ProposalDropped && error.reason === 'transferring' && error.retriable,
    );
  });

  it('is given up after an election time', () => {
    pendingToThree();
    for (let i = 0; i < 9; i++) group.core(1).tick();
    assert.equal(group.core(1).status().leadTransferee, 3);
    group.core(1).tick();
    assert.equal(group.core(1).status().leadTransferee, 0);
    group.propose(1, 'b');
    group.settle();
    assert.deepEqual(group.texts(2), ['a', 'missed by 3', 'b']);
  });

  it('is over when someone else wins meanwhile', () => {
    pendingToThree();
    group.core(2).forgetLeader();
    const { term } = group.core(2).status();
    group.core(1).step({ type: 'MsgVote', from: 2, to: 1, term: term + 1, logTerm: term, index: 99 });
    assert.equal(group.roles()[0], 'leader', 'its own lease holds while it leads');
    group.core(1).step({ type: 'MsgAppResp', from: 2, to: 1, term: term + 1 });
    const status = group.core(1).status();
    assert.deepEqual([status.role, status.leadTransferee, status.term], ['follower', 0, term + 1]);
  });

  it('asked for again does not last longer', () => {
    pendingToThree();
    for (let i = 0; i < 5; i++) group.core(1).tick();
    group.core(1).transferLeader(3);
    for (let i = 0; i < 5; i++) group.core(1).tick();
    assert.equal(group.core(1).status().leadTransferee, 0);
  });

  it('gives way to one to another member, or back to itself', () => {
    pendingToThree();
    group.core(1).transferLeader(1);
    assert.equal(group.core(1).status().leadTransferee, 0);
    assert.equal(group.roles()[0], 'leader');
    group.core(1).transferLeader(3);
    group.core(1).transferLeader(2);
    group.settle();
    assert.equal(group.roles()[1], 'leader');
  });

  it('ends when the member is removed or made a learner', () => {
    for (const type of ['remove', 'add-learner'] as const) {
      group = new Group(4);
      group.elect(1);
      group.isolate(3);
      change(group, 1, type, 3);
      // Committed and applied only after the transfer began.
      group.process(group.get(1));
      group.core(1).transferLeader(3);
      group.settle();
      assert.equal(group.core(1).status().leadTransferee, 0, type);
    }
  });

  it('means nothing to a member that was removed', () => {
    change(group, 1, 'remove', 3);
    group.settle();
    assert.ok(!group.get(3).confState.voters.includes(3));
    group.core(3).step({ type: 'MsgTimeoutNow', from: 1, to: 3, term: group.terms()[2]! });
    assert.equal(group.roles()[2], 'follower');
  });
});
