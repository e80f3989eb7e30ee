import assert from 'node:assert/strict';
import fc from 'fast-check';
import { ReadIndexQueue } from '../../../../manager/raft/core/read-index.ts';
import type { Message } from '../../../../manager/raft/core/types.ts';
import { confStateOf, Group } from './group.ts';

function context(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** The read points a member was given, as `index context`. */
function reads(group: Group, id: number): string[] {
  return group.get(id).readStates.map((state) => `${state.index} ${new TextDecoder().decode(state.context)}`);
}

describe('raft reads (dissertation, 6.4)', () => {
  it('are given the commit index as it was when they were asked, on every member', () => {
    const group = new Group(3, {}, [1, 2], [3]);
    group.elect(1);
    const expected: string[] = [];
    for (const id of [1, 2, 3]) {
      for (let i = 0; i < 4; i++) {
        group.propose(1, `${id}.${i}`);
        group.settle();
        expected.push(`${group.core(1).status().commit} r${i}`);
        group.core(id).readIndex(context(`r${i}`));
        group.settle();
      }
      assert.deepEqual(reads(group, id), expected);
      expected.length = 0;
    }
  });

  it('wait for a majority to confirm the leader', () => {
    const group = new Group(3);
    group.elect(1);
    group.isolate(1);
    group.core(1).readIndex(context('stale'));
    group.settle();
    // Meanwhile others may elect another and write.
    group.core(2).forgetLeader();
    group.core(3).forgetLeader();
    group.elect(2);
    group.propose(2, 'newer');
    group.settle();
    assert.deepEqual(reads(group, 1), []);
    group.heal();
    group.tick(3);
    assert.deepEqual(reads(group, 1), [], 'the deposed leader forgets it; the asker asks again');
    group.core(1).readIndex(context('fresh'));
    group.settle();
    assert.deepEqual(reads(group, 1), [`${group.core(2).status().commit} fresh`]);
  });

  it('of a new leader wait until it has committed something itself', () => {
    const group = new Group(3);
    group.elect(1);
    group.loses = ({ type }) => type === 'MsgAppResp';
    group.core(2).forgetLeader();
    group.core(3).forgetLeader();
    group.core(2).campaign();
    group.settle();
    assert.equal(group.core(2).status().role, 'leader');
    group.core(2).readIndex(context('early'));
    group.tick(2);
    assert.deepEqual(reads(group, 2), []);
    group.heal();
    group.tick(3);
    assert.deepEqual(reads(group, 2), [`${group.core(2).status().commit} early`]);
  });

  it('of a group of one are answered at once', () => {
    const group = new Group(1);
    group.elect(1);
    group.core(1).readIndex(context('r'));
    group.settle();
    assert.deepEqual(reads(group, 1), [`${group.core(1).status().commit} r`]);
  });

  it('without a leader are dropped', () => {
    const group = new Group(3);
    group.core(1).readIndex(context('r'));
    group.settle();
    assert.deepEqual(reads(group, 1), []);
  });

  it('with the same context asked twice are both answered', () => {
    const group = new Group(3);
    group.elect(1);
    group.core(1).readIndex(context('r'));
    group.core(1).readIndex(context('r'));
    group.settle();
    assert.equal(reads(group, 1).length, 2);
  });

  it('by lease cost no round, on the leader nor on a follower', () => {
    const group = new Group(3, { readOnly: 'lease-based' });
    group.elect(1);
    group.loses = ({ type }) => type.startsWith('MsgHeartbeat');
    for (const id of [1, 2]) {
      group.core(id).readIndex(context('r'));
      group.settle();
      assert.deepEqual(reads(group, id), [`${group.core(1).status().commit} r`]);
    }
    group.core(2).forgetLeader();
    assert.equal(group.core(2).status().lead, 1, 'the lease counts on it');
    assert.throws(() => new Group(1, { readOnly: 'lease-based', checkQuorum: false }), {
      code: 'invalid-argument',
    });
  });

  it('are confirmed in order, each once, by any majority that answered after it was asked', () => {
    const configuration = confStateOf([1, 2, 3]);
    const action = fc.oneof(
      fc.constant({ kind: 'ask' as const }),
      fc.record({ kind: fc.constant('answer' as const), from: fc.integer({ min: 2, max: 3 }) }),
      fc.record({ kind: fc.constant('send' as const), to: fc.integer({ min: 2, max: 3 }) }),
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 40 }), (actions) => {
        const queue = new ReadIndexQueue();
        const sent = new Map<number, { context: Uint8Array; asked: number }[]>();
        const heard = new Map<number, number>();
        let asked = 0;
        const confirmed: number[] = [];
        for (const each of actions) {
          if (each.kind === 'ask') {
            asked++;
            queue.add({ type: 'MsgReadIndex', from: 0, to: 1, term: 0 } satisfies Message, asked);
            queue.acknowledge(1, queue.heartbeatContext()!);
          } else if (each.kind === 'send') {
            const context = queue.heartbeatContext();
            if (context !== undefined) sent.set(each.to, [...(sent.get(each.to) ?? []), { context, asked }]);
          } else {
            const answer = sent.get(each.from)?.shift();
            if (answer === undefined) continue;
            queue.acknowledge(each.from, answer.context);
            heard.set(each.from, Math.max(heard.get(each.from) ?? 0, answer.asked));
          }
          confirmed.push(...queue.takeConfirmed(configuration).map(({ index }) => index));
          const most = Math.max(heard.get(2) ?? 0, heard.get(3) ?? 0);
          assert.deepEqual(
            confirmed,
            Array.from({ length: most }, (_, i) => i + 1),
          );
          assert.equal(queue.heartbeatContext() === undefined, most === asked, 'nothing is kept');
        }
      }),
    );
  });
});
