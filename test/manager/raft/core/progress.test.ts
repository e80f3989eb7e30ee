import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Inflights, Progress } from '../../../../manager/raft/core/progress.ts';

function progressAt(match: number, next: number, messages = 256): Progress {
  const progress = new Progress(next, false, new Inflights({ messages, bytes: 1_000 }), true);
  progress.restart(match, next);
  return progress;
}

describe('raft window of messages on their way', () => {
  it('counts like a plain list', () => {
    const step = fc.oneof(
      fc.record({ add: fc.integer({ min: 1, max: 3 }), bytes: fc.integer({ min: 0, max: 40 }) }),
      fc.record({ free: fc.integer({ min: 0, max: 60 }) }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9 }), fc.array(step, { maxLength: 60 }), (messages, steps) => {
        const inflights = new Inflights({ messages, bytes: 100 });
        let model: { index: number; bytes: number }[] = [];
        let index = 0;
        for (const each of steps) {
          if ('free' in each) {
            inflights.freeUpTo(each.free);
            model = model.filter((sent) => sent.index > each.free);
          } else if (!inflights.full) {
            index += each.add;
            inflights.add(index, each.bytes);
            model.push({ index, bytes: each.bytes });
          }
          const bytes = model.reduce((sum, sent) => sum + sent.bytes, 0);
          assert.equal(inflights.count, model.length);
          assert.equal(inflights.full, model.length >= messages || bytes >= 100);
        }
      }),
    );
  });
});

describe('raft progress of a member', () => {
  it('pauses after one probe, until it is answered', () => {
    const progress = progressAt(3, 5);
    assert.equal(progress.paused, false);
    progress.sentEntries(2, 10);
    assert.equal(progress.paused, true);
    assert.equal(progress.next, 5, 'a probe is sent again from the same place');
    assert.equal(progress.acknowledge(6), true);
    assert.deepEqual([progress.paused, progress.match, progress.next], [false, 6, 7]);
  });

  it('sends ahead while it replicates, up to the window', () => {
    const progress = progressAt(3, 4, 2);
    progress.becomeReplicate();
    progress.sentEntries(2, 10);
    assert.deepEqual([progress.paused, progress.next], [false, 6]);
    progress.sentEntries(1, 10);
    assert.deepEqual([progress.paused, progress.next], [true, 7]);
    progress.inflights.freeUpTo(5);
    progress.acknowledge(5);
    assert.equal(progress.paused, false);
  });

  it('takes old news for what they are', () => {
    const progress = progressAt(5, 10);
    assert.equal(progress.acknowledge(5), false);
    assert.equal(progress.acknowledge(4), false);
    assert.equal(progress.backOff(8, 2), false, 'a probe that was not the last one');
    progress.becomeReplicate();
    assert.equal(progress.backOff(5, 2), false, 'refused before it matched');
  });

  it('backs off to the hint, never behind what matched', () => {
    const probing = progressAt(0, 10);
    assert.equal(probing.backOff(9, 4), true);
    assert.equal(probing.next, 5);
    const matched = progressAt(6, 10);
    assert.equal(matched.backOff(9, 2), true);
    assert.equal(matched.next, 7);
    const replicating = progressAt(5, 6);
    replicating.becomeReplicate();
    replicating.sentEntries(4, 1);
    assert.equal(replicating.backOff(9, 9), true);
    assert.equal(replicating.next, 6);
  });

  it('goes on behind a snapshot that was sent, or where it was if that failed', () => {
    const sent = progressAt(1, 2);
    sent.becomeSnapshot(10);
    assert.deepEqual([sent.paused, sent.next, sent.pendingSnapshot], [true, 11, 10]);
    sent.becomeProbe();
    assert.deepEqual([sent.next, sent.pendingSnapshot], [11, 0]);
    const failed = progressAt(1, 2);
    failed.becomeSnapshot(10);
    failed.pendingSnapshot = 0;
    failed.becomeProbe();
    assert.equal(failed.next, 2);
  });

  it('tells a commit index again that went with what was refused', () => {
    const progress = progressAt(5, 6);
    progress.becomeReplicate();
    progress.sentEntries(5, 1);
    progress.sentCommit(10);
    assert.equal(progress.canBumpCommit(10), false);
    assert.equal(progress.backOff(10, 5), true);
    progress.sentEntries(5, 1);
    assert.equal(progress.canBumpCommit(10), true);
  });

  it('tells a commit index only where that can help', () => {
    const progress = progressAt(4, 5);
    progress.becomeReplicate();
    assert.equal(progress.canBumpCommit(3), true);
    progress.sentCommit(3);
    assert.equal(progress.canBumpCommit(3), false);
    assert.equal(progress.canBumpCommit(9), true);
    progress.sentCommit(9);
    assert.equal(progress.canBumpCommit(10), false, 'it holds no more than was committed already');
  });
});
