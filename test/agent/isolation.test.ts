import assert from 'node:assert/strict';
import fc from 'fast-check';
import { IsolationWatch } from '../../agent/isolation.ts';
import { isolationHoldMs, isolationLabel, restartedMarginMs } from '../../proto/isolation.ts';
import { VirtualClock } from '../simulation/clock.ts';

const labels = { [isolationLabel]: 'after:20s' };

/** A watch with one task of ours and one that does not mind, and when each was stopped. */
function watched(given: Record<string, string> = labels) {
  const clock = new VirtualClock();
  const stopped: [string, number][] = [];
  const watch = new IsolationWatch(clock, (id) => stopped.push([id, clock.monotonicMs()]));
  watch.add('t1', given);
  watch.add('t2', {});
  return { clock, stopped, watch };
}

const pass = (clock: VirtualClock, durationMs: number) => clock.run(durationMs);

describe('isolation', () => {
  it('stops a task that minds when its time is over, once, and no other', async () => {
    const { clock, stopped, watch } = watched();
    watch.heard(0, 1_000);
    await pass(clock, 19_999);
    assert.deepEqual(stopped, []);
    await pass(clock, 60_000);
    assert.deepEqual(stopped, [['t1', 20_000]]);
  });

  it('counts from when the request that was answered was sent', async () => {
    const { clock, stopped, watch } = watched();
    for (let sentAtMs = 0; sentAtMs < 100_000; sentAtMs += 1_000) {
      await pass(clock, 1_000);
      watch.heard(sentAtMs, 1_000);
    }
    await pass(clock, 60_000);
    assert.deepEqual(stopped, [['t1', 99_000 + 20_000]]);
  });

  it('bears the silence that a large cluster asks for', async () => {
    const { clock, stopped, watch } = watched();
    watch.heard(0, 40_000);
    await pass(clock, 119_999);
    assert.deepEqual(stopped, []);
    await pass(clock, 1);
    assert.equal(stopped.length, 1);
  });

  it('gives a daemon that was restarted a few seconds to be heard', async () => {
    const { clock, stopped } = watched();
    await pass(clock, 5_000);
    assert.deepEqual(stopped, [['t1', 5_000]]);
  });

  describe('of a daemon that was restarted', () => {
    /** The managers were heard at 0, the daemon began anew `deadMs` later; when the task was stopped then. */
    async function stoppedAfter(deadMs: number): Promise<number | undefined> {
      const clock = new VirtualClock();
      await pass(clock, deadMs);
      const stopped: number[] = [];
      const watch = new IsolationWatch(clock, () => stopped.push(clock.monotonicMs()));
      watch.resume({ atMs: 0, periodMs: 1_000 });
      watch.add('t1', labels);
      await pass(clock, 100_000);
      return stopped[0];
    }

    it('goes on counting, with a few seconds to be heard while the managers wait', async () => {
      assert.equal(await stoppedAfter(500), 20_000);
      assert.equal(await stoppedAfter(17_000), 22_000);
      assert.equal(await stoppedAfter(22_000), 24_000);
      assert.equal(await stoppedAfter(60_000), 60_000);
    });

    it('knows nothing after another boot of the machine', async () => {
      const { clock, stopped, watch } = watched();
      watch.resume({ atMs: 77_000, periodMs: 1_000 });
      await pass(clock, 60_000);
      assert.deepEqual(stopped, [['t1', 5_000]]);
    });
  });

  it('forgets tasks that are gone, and rings no more when it is stopped', async () => {
    const { clock, stopped, watch } = watched();
    watch.forget('t1');
    await pass(clock, 100_000);
    watch.add('t3', labels);
    watch.stop();
    await pass(clock, 100_000);
    assert.deepEqual(stopped, []);
  });

  it('is over before the managers start another task, whatever the times', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          limitMs: fc.integer({ min: 5_000, max: 600_000 }),
          periodMs: fc.integer({ min: 100, max: 60_000 }),
          graceMs: fc.integer({ min: 0, max: 60_000 }),
          /** How long the last answer's request took to arrive. */
          underwayMs: fc.integer({ min: 0, max: 3_000 }),
          /** The daemon is dead from then on, and back after so long, within the agent's time and most of the margin. */
          restart: fc.option(fc.double({ min: 0, max: 1, noNaN: true })),
        }),
        async ({ limitMs, periodMs, graceMs, underwayMs, restart }) => {
          const asked = { [isolationLabel]: `after:${limitMs}ms` };
          const { clock, stopped, watch } = watched(asked);
          watch.heard(0, periodMs);
          if (restart !== null) {
            watch.forget('t1');
            await pass(clock, restart * (Math.max(limitMs, 3 * periodMs) + restartedMarginMs));
            watch.resume({ atMs: 0, periodMs });
            watch.add('t1', asked);
          }
          await pass(clock, 1_000_000);
          const goneBy = stopped[0]![1] + graceMs;
          const downAt = underwayMs + 3.25 * periodMs;
          assert.ok(goneBy < downAt + isolationHoldMs(asked, graceMs)!);
        },
      ),
    );
  });
});
