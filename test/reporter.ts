/**
 * Mocha's reporter for a stage of the suite: prints as `spec` does, and writes the counts and the names
 * of what was skipped to the file named by SHOAL_TEST_REPORT, for run.ts to add up.
 */
import { writeFileSync } from 'node:fs';
import { relative } from 'node:path';
import Mocha from 'mocha';
import type { TestOutcome } from './never-had.ts';

interface Counts {
  passed: number;
  failed: number;
  skipped: string[];
  tests: TestOutcome[];
  /** Milliseconds that each file took, hooks included, by its path. */
  tookMs: Record<string, number>;
}

export default class StageReporter extends Mocha.reporters.Spec {
  constructor(runner: Mocha.Runner, options: Mocha.MochaOptions) {
    super(runner, options);
    const counts: Counts = { passed: 0, failed: 0, skipped: [], tests: [], tookMs: {} };
    const note = (test: Mocha.Test, state: TestOutcome['state']): void => {
      const path = relative(process.cwd(), test.file ?? test.parent?.file ?? '');
      counts.tests.push({ path, titles: test.titlePath(), state });
    };
    runner.on('pass', (test) => {
      counts.passed += 1;
      note(test, 'passed');
    });
    runner.on('fail', (test) => {
      counts.failed += 1;
      note(test, 'failed');
    });
    runner.on('pending', (test) => {
      counts.skipped.push(test.fullTitle());
      note(test, 'skipped');
    });
    const began = new Map<Mocha.Suite, number>();
    runner.on('suite', (suite) => {
      if (suite.parent?.root) began.set(suite, performance.now());
    });
    runner.on('suite end', (suite) => {
      const start = began.get(suite);
      if (start === undefined) return;
      const path = relative(process.cwd(), suite.file ?? '');
      counts.tookMs[path] = (counts.tookMs[path] ?? 0) + performance.now() - start;
    });
    runner.once('end', () => {
      const target = process.env.SHOAL_TEST_REPORT;
      if (target) writeFileSync(target, JSON.stringify(counts));
    });
  }
}
