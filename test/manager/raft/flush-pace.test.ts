/** When a flush is waited for on the spot: on quick disks, and not for long on any other. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { FlushPace } from '../../../manager/raft/flush-pace.ts';

/** Flushes `count` times; `hereMs` on the spot, a millisecond in the pool. How many were on the spot. */
function flush(pace: FlushPace, count: number, hereMs: number | (() => number)): number {
  let here = 0;
  for (let number = 0; number < count; number += 1) {
    if (pace.isQuick) {
      here += 1;
      pace.flushedHere(typeof hereMs === 'number' ? hereMs : hereMs());
    } else pace.flushedInPool(1);
  }
  return here;
}

describe('raft: the pace of flushes', () => {
  it('waits on the spot for a quick disk, after a first look', () => {
    const pace = new FlushPace();
    assert.equal(flush(pace, 16, 0.2), 0);
    assert.equal(flush(pace, 1_000, 0.2), 1_000);
  });

  it('does not mind single flushes that a busy processor makes long', () => {
    const pace = new FlushPace();
    flush(pace, 16, 0.2);
    let number = 0;
    const mixed = (): number => {
      number += 1;
      return number % 3 === 0 ? 8 : 0.2;
    };
    assert.equal(flush(pace, 1_000, mixed), 1_000);
  });

  it('leaves a slow disk to the pool, and tries it ever more seldom', () => {
    const pace = new FlushPace();
    const shares = [1_000, 10_000, 100_000].map((count) => flush(pace, count, 8) / count);
    assert.ok(shares[0]! < 0.25, `${shares[0]}`);
    assert.ok(shares[1]! < shares[0]! / 2, `${shares}`);
    assert.ok(shares[2]! < 0.01, `${shares}`);
  });

  it('is held up once by a disk that hangs, and stays away while that goes on', () => {
    const pace = new FlushPace();
    flush(pace, 16, 0.2);
    assert.equal(flush(pace, 17, 3_000), 1);
    for (let number = 0; number < 100; number += 1) pace.flushedInPool(3_000);
    assert.equal(pace.isQuick, false);
    assert.equal(flush(pace, 100, 0.2) > 0, true, 'it comes back when the disk does');
  });

  it('of any slow flushes in a row never waits for more than thirty-two (property)', () => {
    const step = fc.double({ min: 0, max: 500, noNaN: true });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 400 }), (durations) => {
        const pace = new FlushPace();
        let slow = 0;
        for (const durationMs of durations) {
          if (!pace.isQuick) {
            pace.flushedInPool(durationMs);
            slow = 0;
            continue;
          }
          slow = durationMs > 1 ? slow + 1 : 0;
          assert.ok(slow <= 32, `${slow} slow ones`);
          pace.flushedHere(durationMs);
          if (durationMs >= 250) assert.equal(pace.isQuick, false);
        }
      }),
    );
  });
});
