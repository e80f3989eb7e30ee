/** The whole cluster under faults, from a number of seeds; more of them with `npm run simulate`. */
import assert from 'node:assert/strict';
import { plants } from './plants.ts';
import { type RunReport, runSeed } from './run.ts';

const seeds = 400;
const wholeSeeds = 30;
const guardedSeeds = 20;
const variedSeeds = 12;
/** Within so many seeds a planted bug must be caught. */
const plantSeeds = 200;

function explain({ seed, violation, lastLines }: RunReport): string {
  return `${lastLines.slice(-50).join('\n')}\nseed ${seed}: ${violation?.invariant}: ${violation?.what}\nagain: npm run simulate -- --seed ${seed}`;
}

describe('simulation', () => {
  for (const [what, count, options] of [
    ['seeds', seeds, {}],
    ['seeds of whole clusters', wholeSeeds, { whole: true }],
    ['seeds of services that stop on isolation', guardedSeeds, { guarded: true }],
    ['seeds of jobs, schedules and scaling', variedSeeds, { varied: true }],
  ] as const) {
    it(`keeps every invariant over ${count} ${what}`, async () => {
      let done = 0;
      let unknown = 0;
      for (let seed = 1; seed <= count; seed += 1) {
        const report = await runSeed({ seed, ...options });
        assert.equal(report.violation, undefined, explain(report));
        done += report.done;
        unknown += report.unknown;
      }
      assert.ok(done > 10 * count, `only ${done} requests were acknowledged: the runs do nothing`);
      assert.ok(unknown > count / 4, `only ${unknown} requests were left open: the faults do nothing`);
    });
  }

  it('does the same for the same seed, event by event', async () => {
    for (const [seed, whole] of [
      [3, true],
      [7, false],
      [12, true],
      [16, false],
    ] as const) {
      const [first, second] = [await runSeed({ seed, whole }), await runSeed({ seed, whole })];
      assert.equal(second.hash, first.hash, `seed ${seed}`);
      assert.deepEqual(second, first);
    }
    const [one, other] = [await runSeed({ seed: 3 }), await runSeed({ seed: 4 })];
    assert.notEqual(one.hash, other.hash);
  });
});

describe('simulation: planted bugs are caught', () => {
  const expected: Readonly<Record<string, readonly string[]>> = {
    'ack-before-flush': [
      'log-equal',
      'store-equal',
      'acknowledged-kept',
      'manager-goes-on',
      'converges',
      'one-leader-a-term',
    ],
    'vote-twice': ['one-leader-a-term', 'log-equal', 'manager-goes-on', 'acknowledged-kept'],
    'forget-slot': ['one-task-a-slot'],
    'address-twice': ['one-holder-an-address'],
    'own-address-twice': ['one-holder-an-address'],
    'hasty-successor': ['never-two'],
    'wordless-scheduler': ['reason-told'],
    'stale-read': ['linearizable', 'acknowledged-kept'],
    'lost-remove': ['converges', 'one-container-a-task'],
    'no-way-back': ['comes-back'],
    'job-again': ['completed-once'],
    'eager-jobs': ['jobs-at-a-time'],
    'endless-retries': ['retried-as-asked'],
    'lost-run': ['schedule-kept'],
    'overlapping-runs': ['runs-apart'],
    'too-many-tasks': ['scale-bounds'],
    'hasty-scaling': ['scale-steady'],
  };

  it('every plant is expected here', () => {
    assert.deepEqual(Object.keys(plants).sort(), Object.keys(expected).sort());
  });

  for (const [name, plant] of Object.entries(plants)) {
    it(`${name}: ${plant.what}`, async () => {
      for (let seed = 1; seed <= plantSeeds; seed += 1) {
        const { violation } = await runSeed({ seed, plant });
        if (violation === undefined) continue;
        assert.ok(
          expected[name]?.includes(violation.invariant),
          `seed ${seed}: ${violation.invariant}: ${violation.what}`,
        );
        return;
      }
      assert.fail(`${plantSeeds} seeds did not catch it`);
    });
  }
});
