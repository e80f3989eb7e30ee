import assert from 'node:assert/strict';
import type { Entry } from '../../../../manager/raft/core/types.ts';
import { Group, plain } from './group.ts';

const noBytes = new Uint8Array(0);

describe('raft flow to a member', () => {
  /** Member 1 leads 2 and 3, who are in step. */
  function leading(options = {}): Group {
    const group = new Group(3, { ...plain, maxInflightMessages: 4, ...options });
    group.elect(1);
    group.settle();
    return group;
  }

  it('runs ahead of the answers up to the window, and on as they come', () => {
    const group = leading();
    for (let i = 0; i < 6; i++) group.propose(1, `${i}`);
    group.flush(1);
    assert.deepEqual(
      group.appends().filter((sent) => sent.startsWith('2')),
      ['2:3-3', '2:4-4', '2:5-5', '2:6-6'],
    );
    assert.equal(group.core(1).status().progress.get(2)!.paused, true);
    group.settle();
    assert.equal(group.texts(2).length, 6);
  });

  it('is bounded in bytes too', () => {
    const group = leading({ maxInflightBytes: 1_000, maxInflightMessages: 99 });
    for (let i = 0; i < 6; i++) group.propose(1, 'x'.repeat(400));
    group.flush(1);
    assert.equal(group.appends().filter((sent) => sent.startsWith('2')).length, 3);
    group.settle();
    assert.equal(group.texts(2).length, 6);
  });

  it('cuts what is sent at once by size', () => {
    const group = leading({ maxSizePerMessageBytes: 100 });
    group.get(3).crash();
    for (let i = 0; i < 6; i++) group.propose(1, 'x'.repeat(40));
    group.settle();
    const sizes: number[] = [];
    group.loses = (message) => {
      if (message.to === 3 && message.type === 'MsgApp') sizes.push(message.entries!.length);
      return false;
    };
    group.get(3).restart();
    group.tick(2);
    assert.equal(group.texts(3).length, 6);
    assert.ok(sizes.length > 1 && sizes.every((count) => count <= 2), String(sizes));
  });

  it('stops for a member that is not reachable, but for a probe with each heartbeat', () => {
    const group = leading();
    group.get(3).crash();
    group.core(1).reportUnreachable(3);
    for (let i = 0; i < 5; i++) group.propose(1, `${i}`);
    group.flush(1);
    assert.deepEqual(
      group.appends().filter((sent) => sent.startsWith('3')),
      ['3:3-3'],
    );
    group.get(3).restart();
    group.network = [];
    group.tick(2);
    assert.deepEqual(
      [group.texts(3).length, group.core(1).status().progress.get(3)!.state],
      [5, 'replicate'],
    );
  });

  it('survives messages that come out of order, late or twice', () => {
    const group = leading();
    for (let i = 0; i < 4; i++) group.propose(1, `${i}`);
    group.flush(1);
    group.network.reverse();
    group.network.push(...group.network);
    group.settle();
    group.tick(3);
    assert.deepEqual(group.texts(2), ['0', '1', '2', '3']);
  });

  it('answers what lies before its commit with that', () => {
    const group = leading();
    for (let i = 0; i < 4; i++) group.propose(1, `${i}`);
    group.settle();
    const { term, commit } = group.core(2).status();
    group.get(2).compact(0);
    group.core(2).step({ type: 'MsgApp', from: 1, to: 2, term, logTerm: 1, index: 1, commit: 2 });
    const [answer] = group.process(group.get(2)).messages;
    assert.deepEqual([answer!.reject, answer!.index], [undefined, commit]);
  });

  it('tells a follower of the commit even if nothing else is to be said', () => {
    const group = leading();
    group.propose(1, 'x');
    group.loses = ({ to, type, commit }) => to === 2 && type === 'MsgApp' && commit === 3;
    group.settle();
    assert.deepEqual(group.texts(2), []);
    group.heal();
    group.tick(1);
    assert.deepEqual(group.texts(2), ['x'], 'by the heartbeat');
  });
});

describe('raft with asynchronous writes', () => {
  const options = { ...plain, asyncStorageWrites: true };

  it('keeps entries until the very ones are durable that stand there now', () => {
    // 2 follows leader 1 in term 2, then 3 in term 3 who replaces its entries, then 1 again in term 4 who
    // brings back the first ones; the writes of all three are still under way.
    const group = new Group(3, options);
    const follower = group.get(2);
    const entry = (term: number): Entry => ({ term, index: 2, type: 'normal', data: noBytes });
    for (const [term, from, of] of [
      [2, 1, 2],
      [3, 3, 3],
      [4, 1, 2],
    ] as const) {
      const entries = [entry(of)];
      follower.core.step({ type: 'MsgApp', from, to: 2, term, logTerm: 1, index: 1, entries });
      group.process(follower);
    }
    group.work(follower, 'append');
    group.work(follower, 'append');
    assert.equal(follower.storage.term(2), 3, 'on the disk stands what is not meant to stay');
    const heartbeat = { type: 'MsgHeartbeat', from: 1, to: 2, term: 4, commit: 2 } as const;
    follower.core.step(heartbeat);
    assert.equal(group.process(follower).committedEntries.length, 0, 'nothing is applied from there');
    while (group.work(follower, 'append')) group.process(follower);
    while (group.work(follower, 'apply')) group.process(follower);
    assert.deepEqual([follower.storage.term(2), follower.applied], [2, 2]);
  });

  it('hands out on and on, without waiting for the disk', () => {
    const group = new Group(3, options);
    group.elect(1);
    for (let i = 0; i < 3; i++) {
      group.propose(1, `${i}`);
      group.process(group.get(1));
    }
    assert.equal(group.get(1).appendWork.length, 3);
    assert.deepEqual(
      group.appends().filter((sent) => sent.startsWith('2')),
      ['2:3-3', '2:4-4', '2:5-5'],
    );
    group.settle();
    assert.deepEqual(group.texts(1), ['0', '1', '2']);
    assert.throws(() => group.core(1).advance(), { code: 'internal' });
  });
});
