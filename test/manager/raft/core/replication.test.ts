import assert from 'node:assert/strict';
import { ProposalDropped } from '../../../../manager/raft/core/core.ts';
import type { Message } from '../../../../manager/raft/core/types.ts';
import { Group, type Member, plain } from './group.ts';

const noBytes = new Uint8Array(0);

function termsOf({ storage }: Member): number[] {
  return storage.entries(2, storage.lastIndex() + 1, Number.POSITIVE_INFINITY).map(({ term }) => term);
}

describe('raft replication', () => {
  describe('of what is proposed (Raft paper, 5.3)', () => {
    it('goes to all at once, and is committed when a majority holds it', () => {
      const group = new Group(5, plain);
      group.elect(1);
      group.propose(1, 'x');
      group.flush(1);
      assert.deepEqual(group.appends(), ['2:3-3', '3:3-3', '4:3-3', '5:3-3']);
      const [first] = group.network as [Message];
      assert.deepEqual([first.logTerm, first.index, first.commit], [2, 2, 2]);
      group.get(4).crash();
      group.get(5).crash();
      group.settle();
      assert.deepEqual(
        [1, 2, 3].map((id) => group.texts(id)),
        [['x'], ['x'], ['x']],
      );
    });

    it('is not committed by less than a majority', () => {
      const group = new Group(4, plain);
      group.elect(1);
      group.get(3).crash();
      group.get(4).crash();
      group.propose(1, 'x');
      group.settle();
      assert.deepEqual(group.texts(1), []);
      group.get(3).restart();
      group.tick(2);
      assert.deepEqual(group.texts(1), ['x']);
    });

    it('counts the leader only once its own disk holds it', () => {
      const group = new Group(3, plain);
      group.elect(1);
      group.get(3).crash();
      group.propose(1, 'x');
      const ready = group.core(1).ready();
      for (const message of ready.messages) group.deliver(message);
      group.flush(2);
      for (const message of group.network.splice(0)) group.deliver(message);
      assert.equal(group.core(1).status().commit, 2, 'member 2 holds it, the leader not yet');
      group.get(1).write(ready.hardState, ready.entries, ready.snapshot);
      group.core(1).advance();
      assert.equal(group.core(1).status().commit, 3);
    });

    it('is committed at once when the one who is missing is removed', () => {
      const group = new Group(2, plain);
      group.elect(1);
      const changes = [{ type: 'remove', member: 2 }] as const;
      group.core(1).proposeConfChange({ transition: 'auto', changes, context: noBytes });
      group.propose(1, 'x');
      group.propose(1, 'y');
      group.loses = ({ type, to, entries = [] }) =>
        type === 'MsgApp' && to === 2 && entries.some((entry) => entry.type === 'normal');
      group.settle();
      assert.deepEqual(group.texts(1), ['x', 'y']);
      assert.deepEqual(group.texts(2), []);
    });

    it('reaches learners, whose answers do not count', () => {
      const group = new Group(3, plain, [1, 2], [3]);
      group.elect(1);
      group.get(2).crash();
      group.propose(1, 'x');
      group.settle();
      assert.equal(group.core(1).status().progress.get(3)!.match, 3);
      assert.equal(group.core(1).status().commit, 2);
    });

    it('by way of a follower ends at the leader', () => {
      const group = new Group(3);
      group.elect(1);
      group.propose(2, 'x');
      group.settle();
      assert.deepEqual(group.texts(3), ['x']);
    });

    it('is refused without a leader, or where it must not be passed on', () => {
      const group = new Group(3, { disableProposalForwarding: true });
      const reasons = (): string => {
        try {
          group.propose(2, 'x');
          return 'taken';
        } catch (error) {
          assert.ok(error instanceof ProposalDropped && error.retriable);
          return error.reason;
        }
      };
      assert.equal(reasons(), 'no-leader');
      group.elect(1);
      assert.equal(reasons(), 'forwarding-disabled');
      group.core(2).campaign();
      assert.equal(reasons(), 'no-leader', 'a candidate knows of none');
    });

    it('is refused while too much waits, but for one of any size, and empty ones', () => {
      const group = new Group(3, { maxUncommittedEntriesSizeBytes: 20 });
      group.elect(1);
      group.propose(1, 'a'.repeat(50));
      assert.throws(
        () => group.propose(1, 'b'),
        (error) => error instanceof ProposalDropped && error.reason === 'too-much-uncommitted',
      );
      group.propose(1, '');
      group.settle();
      for (let i = 0; i < 4; i++) group.propose(1, 'ccccc');
      assert.throws(() => group.propose(1, 'c'), ProposalDropped);
      group.settle();
      assert.equal(group.texts(2).length, 5);
    });
  });

  describe('of another leader’s entries', () => {
    it('commits them only with one of its own (Raft paper, 5.4.2, figure 8)', () => {
      const group = new Group(3, plain);
      group.setLog(1, [2, 2], 2);
      group.setLog(2, [2, 2], 2);
      const core = group.core(1);
      core.campaign();
      group.flush(1);
      const { term } = core.status();
      core.step({ type: 'MsgVoteResp', from: 2, to: 1, term });
      core.step({ type: 'MsgAppResp', from: 2, to: 1, term, index: 3 });
      group.flush(1);
      assert.equal(core.status().commit, 1, 'a majority holds 3, but it is of an earlier term');
      core.step({ type: 'MsgAppResp', from: 2, to: 1, term, index: 4 });
      assert.equal(core.status().commit, 4);
    });

    for (const [name, terms] of [
      ['a: it lacks one', [2, 2, 2, 5, 5, 6, 6, 7, 7]],
      ['b: it lacks many', [2, 2, 2, 5]],
      ['c: it has one too many', [2, 2, 2, 5, 5, 6, 6, 7, 7, 7, 7]],
      ['d: it has some of a later term', [2, 2, 2, 5, 5, 6, 6, 7, 7, 7, 8, 8]],
      ['e: it has others of the same term', [2, 2, 2, 5, 5, 5, 5]],
      ['f: it has others of many terms', [2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4]],
    ] as const) {
      it(`brings a follower's log in line (figure 7 ${name})`, () => {
        const group = new Group(3, plain);
        const lead = [2, 2, 2, 5, 5, 6, 6, 7, 7, 7];
        group.setLog(1, lead, 9);
        group.setLog(2, terms, 8);
        group.setLog(3, lead, 9);
        group.loses = ({ from, to }) => from === 2 && to === 1 && group.roles()[0] !== 'leader';
        group.elect(1);
        group.propose(1, 'x');
        group.settle();
        group.tick(2);
        assert.deepEqual(termsOf(group.get(2)), termsOf(group.get(1)));
        assert.deepEqual(termsOf(group.get(1)).slice(0, 10), lead);
        assert.equal(group.core(2).status().commit, group.core(1).status().commit);
      });
    }

    it('finds where logs part in a round per term, not per entry', () => {
      const group = new Group(3, plain);
      group.setLog(1, [...Array(50).fill(2), ...Array(50).fill(5)], 9);
      group.setLog(2, [...Array(50).fill(2), ...Array(80).fill(3)], 8);
      group.setLog(3, [...Array(50).fill(2), ...Array(50).fill(5)], 9);
      let rejections = 0;
      group.loses = (message) => {
        if (message.type === 'MsgAppResp' && message.reject === true) rejections++;
        return false;
      };
      group.elect(1);
      group.tick(2);
      assert.deepEqual(termsOf(group.get(2)), termsOf(group.get(1)));
      assert.ok(rejections <= 2, `${rejections} rejections`);
    });
  });

  it('is handed out again only after it was dealt with', () => {
    const group = new Group(1);
    group.core(1).campaign();
    group.core(1).ready();
    assert.throws(() => group.core(1).ready(), { code: 'internal' });
  });

  it('takes no message that a member can only send to itself', () => {
    const group = new Group(3);
    for (const type of ['MsgHup', 'MsgBeat', 'MsgUnreachable', 'MsgSnapStatus', 'MsgCheckQuorum'] as const) {
      assert.throws(() => group.core(1).step({ type, from: 2, to: 1, term: 0 }), { reason: 'local-message' });
    }
    assert.throws(() => group.core(1).step({ type: 'MsgAppResp', from: 9, to: 1, term: 1 }), {
      reason: 'unknown-member',
    });
  });
});
