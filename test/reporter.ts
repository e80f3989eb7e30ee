/**
 * Mocha's reporter for a stage of the suite: prints as `spec` does, and writes the counts and the names
 * of what was skipped to the file named by SHOAL_TEST_REPORT, for run.ts to add up.
 */
import { writeFileSync } from 'node:fs';
import Mocha from 'mocha';

interface Counts {
  passed: number;
  failed: number;
  skipped: string[];
}

export default class StageReporter extends Mocha.reporters.Spec {
  constructor(runner: Mocha.Runner, options: Mocha.MochaOptions) {
    super(runner, options);
    const counts: Counts = { passed: 0, failed: 0, skipped: [] };
    runner.on('pass', () => {
      counts.passed += 1;
    });
    runner.on('fail', () => {
      counts.failed += 1;
    });
    runner.on('pending', (test) => {
      counts.skipped.push(test.fullTitle());
    });
    runner.once('end', () => {
      const target = process.env.SHOAL_TEST_REPORT;
      if (target) writeFileSync(target, JSON.stringify(counts));
    });
  }
}
