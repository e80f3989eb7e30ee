/** One membership change at a time: another one that comes before the first is applied becomes an empty entry. */
import assert from 'node:assert/strict';
import type { ConfChangeV2, EntryType } from '../../../../manager/raft/core/types.ts';
import { Group, plain } from './group.ts';

const change = (member: number): ConfChangeV2 => ({
  transition: 'auto',
  changes: [{ type: 'add-learner', member }],
  context: new Uint8Array(0),
});

function types(group: Group, id: number): EntryType[] {
  const { storage } = group.get(id);
  const [first, last] = [storage.firstIndex(), storage.lastIndex()];
  return storage.entries(first, last + 1, Number.POSITIVE_INFINITY).map(({ type }) => type);
}

describe('raft membership changes in the log', () => {
  it('are taken one at a time', () => {
    const group = new Group(3, plain);
    group.elect(1);
    group.core(1).proposeConfChange(change(4));
    group.core(1).proposeConfChange(change(5));
    group.settle();
    assert.deepEqual(types(group, 1), ['normal', 'conf-change-v2', 'normal']);
    assert.deepEqual(group.get(2).confState.learners, [4]);
    group.core(1).proposeConfChange(change(5));
    group.settle();
    assert.deepEqual(group.get(2).confState.learners, [4, 5], 'after the first is applied');
  });

  it('are not taken by a new leader that may have one unapplied in its log', () => {
    const group = new Group(3, plain);
    group.elect(1);
    // The change reaches member 2 alone, and nobody hears of that: it is not committed.
    group.loses = ({ type, to }) => type === 'MsgAppResp' || (type === 'MsgApp' && to === 3);
    group.core(1).proposeConfChange(change(4));
    group.settle();
    assert.equal(types(group, 2).at(-1), 'conf-change-v2');
    group.loses = ({ from, to }) => from === 1 || to === 1;
    group.core(2).campaign();
    for (let round = 0; round < 10 && group.core(2).status().role !== 'leader'; round += 1) {
      group.flush(2, 3);
      for (const message of group.network.splice(0)) group.deliver(message);
    }
    group.core(2).proposeConfChange(change(5));
    group.settle();
    assert.deepEqual(types(group, 2).slice(1), ['conf-change-v2', 'normal', 'normal']);
    assert.deepEqual(group.get(3).confState.learners, [4]);
  });
});
