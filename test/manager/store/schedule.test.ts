import assert from 'node:assert/strict';
import fc from 'fast-check';
import { isTimezone, nextRunAt, scheduleFault } from '../../../manager/store/schedule.ts';

const next = (schedule: string, timezone: string, after: string): string | undefined => {
  const at = nextRunAt(schedule, timezone, Date.parse(after));
  return at === undefined ? undefined : new Date(at).toISOString();
};

describe('schedules', () => {
  for (const [schedule, timezone, after, expected] of [
    ['0 3 * * *', 'UTC', '2026-01-01T03:00:00Z', '2026-01-02T03:00:00.000Z'],
    ['0 3 * * *', 'UTC', '2026-01-01T02:59:59.999Z', '2026-01-01T03:00:00.000Z'],
    ['0 3 * * *', 'America/New_York', '2026-01-01T00:00:00Z', '2026-01-01T08:00:00.000Z'],
    ['*/15 * * * *', 'UTC', '2026-01-01T00:07:00Z', '2026-01-01T00:15:00.000Z'],
    ['*/10 * * * * *', 'UTC', '2026-01-01T00:00:01Z', '2026-01-01T00:00:10.000Z'],
    ['@daily', 'UTC', '2026-01-01T12:00:00Z', '2026-01-02T00:00:00.000Z'],
    // The night without 02:30, and the one with two of them.
    ['30 2 * * *', 'Europe/Berlin', '2026-03-28T12:00:00Z', '2026-03-29T01:00:00.000Z'],
    ['30 2 * * *', 'Europe/Berlin', '2026-10-24T12:00:00Z', '2026-10-25T00:30:00.000Z'],
    ['30 2 * * *', 'Europe/Berlin', '2026-10-25T00:30:00Z', '2026-10-26T01:30:00.000Z'],
  ] as const) {
    it(`${schedule} in ${timezone} after ${after}`, () => {
      assert.equal(next(schedule, timezone, after), expected);
    });
  }

  it('always comes after the time asked about, and nothing of it in between', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 59 }),
        fc.integer({ min: 0, max: 23 }),
        fc.integer({ min: 1_700_000_000_000, max: 1_800_000_000_000 }),
        fc.constantFrom('UTC', 'Europe/Berlin', 'Asia/Kolkata', 'America/Sao_Paulo'),
        (minute, hour, after, timezone) => {
          const at = nextRunAt(`${minute} ${hour} * * *`, timezone, after)!;
          assert.ok(at > after && at - after <= 25 * 3_600_000);
          assert.equal(nextRunAt(`${minute} ${hour} * * *`, timezone, at - 1), at);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('says what is wrong', () => {
    assert.equal(scheduleFault('0 3 * * 1-5'), undefined);
    for (const bad of ['', '* * *', '61 * * * *', 'daily', '* * * * * * 2030', '0 0 30 2 *']) {
      assert.match(scheduleFault(bad) ?? '', /^must be /, bad);
    }
    assert.deepEqual(['UTC', 'Europe/Berlin', 'Mars/Olympus'].map(isTimezone), [true, true, false]);
  });
});
