/** A short run of what `npm run faults` does for as long as it is told: every kind of fault has its turn. */
import assert from 'node:assert/strict';
import { runFaults } from './fault-run/fault-run.ts';
import { labMissing } from './lab.ts';

describe('lab: faults under load', () => {
  it('every history is linearizable, nothing acknowledged is lost, and all comes to rest as asked', async function () {
    if (labMissing()) return this.skip();
    const told: string[] = [];
    const report = await runFaults({
      labName: 'shoal-faults',
      faultsMs: 45_000,
      clients: 6,
      gapMs: 1_500,
      lastsMs: 3_000,
      tell: (words) => told.push(words),
    });
    const story = `${told.join('\n')}\n${JSON.stringify(report, null, 2)}`;
    assert.deepEqual(report.violations, [], story);
    assert.deepEqual(report.troubles, [], story);
    assert.ok(Object.keys(report.faults).length >= 5, story);
    assert.ok(report.operations > 100 && report.acknowledged > 5, story);
  });
});
