import assert from 'node:assert/strict';
import { delay } from '../../proto/ports.ts';
import { VirtualClock } from './clock.ts';

describe('virtual clock', () => {
  it('fires timers in order of time, then of setting', async () => {
    const clock = new VirtualClock();
    const fired: string[] = [];
    for (const [name, delayMs] of [
      ['c', 30],
      ['a', 10],
      ['b', 20],
      ['b2', 20],
      ['d', 40],
    ] as const) {
      clock.after(delayMs, () => fired.push(name));
    }
    clock.after(15, () => fired.push('cancelled')).cancel();
    await clock.run(30);
    assert.deepEqual(fired, ['a', 'b', 'b2', 'c']);
    assert.equal(clock.monotonicMs(), 30);
  });

  it('runs promise chains between timers', async () => {
    const clock = new VirtualClock();
    const chain = (async () => {
      for (let round = 0; round < 5; round += 1) await delay(clock, 7);
      return clock.monotonicMs();
    })();
    assert.equal(await clock.runFor(chain, 100), 35);
  });

  it('says when what is waited for does not come', async () => {
    const clock = new VirtualClock();
    clock.after(10, () => {});
    await assert.rejects(
      clock.runUntil(() => false, 50, 'a miracle'),
      /a miracle did not come about/,
    );
  });
});
