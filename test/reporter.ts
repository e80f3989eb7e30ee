/**
 * Mocha's reporter for a stage of the suite: prints as `spec` does, and writes the counts and the names
 * of what was skipped to the file named by SHOAL_TEST_REPORT, for run.ts to add up.
 */
import { writeFileSync } from 'node:fs';
import { relative } from 'node:path';
import Mocha from 'mocha';

interface Counts {
  passed: number;
  failed: number;
  skipped: string[];
  /** Milliseconds that each file took, hooks included, by its path. */
  tookMs: Record<string, number>;
}

export default class StageReporter extends Mocha.reporters.Spec {
  constructor(runner: Mocha.Runner, options: Mocha.MochaOptions) {
    super(runner, options);
    const counts: Counts = { passed: 0, failed: 0, skipped: [], tookMs: {} };
    runner.on('pass', () => {
      counts.passed += 1;
    });
    runner.on('fail', () => {
      counts.failed += 1;
    });
    runner.on('pending', (test) => {
      counts.skipped.push(test.fullTitle());
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
