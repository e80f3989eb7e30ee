import assert from 'node:assert/strict';
import { parseCounters } from '../../../agent/network/figures.ts';
import { Pace } from '../../../agent/network/pace.ts';
import { VirtualClock } from '../../simulation/clock.ts';

describe('a data plane’s pace', () => {
  function begin() {
    const clock = new VirtualClock();
    const took: number[] = [];
    return { clock, took, pace: new Pace(clock, (ms) => took.push(ms)) };
  }

  it('is the time of each update from its arrival, and of the oldest one that waits', async () => {
    const { clock, took, pace } = begin();
    assert.equal(pace.lagMs(), 0);
    pace.told('9', true);
    await clock.run(10);
    pace.told('10', false);
    await clock.run(5);
    assert.equal(pace.lagMs(), 15);
    pace.held('9');
    assert.deepEqual([took, pace.lagMs()], [[15], 5]);
    pace.told('11', false);
    await clock.run(1);
    pace.held('11');
    assert.deepEqual([took, pace.lagMs()], [[15, 6, 1], 0]);
    pace.held('11');
    assert.equal(took.length, 3);
  });

  it('begins anew with a complete update, though managers count from less', async () => {
    const { clock, took, pace } = begin();
    pace.told('500', false);
    await clock.run(10);
    pace.told('20', true);
    await clock.run(1);
    pace.held('20');
    assert.deepEqual([took, pace.lagMs()], [[1], 0]);
  });
});

describe('the kernel’s counters', () => {
  it('are read by name, whatever else is listed', () => {
    const listing = `{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"counter": {"family": "inet", "name": "strangers",
      "table": "shoal", "handle": 1, "packets": 7, "bytes": 900}}, {"counter": {"name": "refused", "packets": 2}}]}`;
    assert.deepEqual(
      [...parseCounters(listing)],
      [
        ['strangers', 7],
        ['refused', 2],
      ],
    );
    assert.deepEqual([...parseCounters('')], []);
  });
});
