import assert from 'node:assert/strict';
import { closingLines, emptyReport, merge, type Report, reportOf, timeLines } from './report.ts';

const one: Report = {
  passed: 2,
  failures: [{ where: 'test/a.test.ts', title: 'a does', message: 'Error: no\n  at b' }],
  skipped: ['a may'],
  tests: [{ path: 'dist/test/a.test.js', titles: ['a', 'does'], state: 'failed' }],
  tookMs: { 'dist/test/a.test.js': 12_400 },
};
const other: Report = {
  ...emptyReport,
  passed: 3,
  tookMs: { 'dist/test/b.test.js': 9_900, 'dist/test/c.test.js': 60_000 },
};

describe('reports of tests', () => {
  it('add up', () => {
    const whole = merge([one, other, reportOf('traces', 'nothing is left'), reportOf('lint', 'biome', 'x')]);
    assert.equal(whole.passed, 6);
    assert.deepEqual(
      whole.failures.map(({ where }) => where),
      ['test/a.test.ts', 'lint'],
    );
    assert.deepEqual([whole.skipped, whole.tests], [one.skipped, one.tests]);
    assert.deepEqual(timeLines(whole.tookMs), ['   60 s  test/c.test.ts', '   12 s  test/a.test.ts']);
    assert.deepEqual(merge([]), emptyReport);
  });

  it('end with what failed, what was skipped, and one line of counts', () => {
    assert.deepEqual(closingLines(merge([one, other])), [
      'failed: test/a.test.ts: a does',
      '    Error: no',
      '      at b',
      'skipped: a may',
      '5 passed, 1 failed, 1 skipped',
    ]);
  });
});
