/** Mocha's reporter for one file: prints as `spec` does, without the counts at its end, and hands on a report. */
import { relative } from 'node:path';
import Mocha from 'mocha';
import type { TestOutcome } from '../never-had.ts';
import { type Failure, type Report, sourcePath } from './report.ts';

// Mocha's own are coloured where CI is set, whoever reads them.
Object.assign(Mocha.reporters.Base.symbols, { ok: '✔', err: '✖' });

/** What is told of an error at the end of a run; all of it stands where the file's tests do. */
const messageLines = 6;

export interface ReporterOptions {
  readonly done: (report: Report) => void;
}

export class FileReporter extends Mocha.reporters.Spec {
  constructor(runner: Mocha.Runner, options: Mocha.MochaOptions) {
    super(runner, options);
    const { done } = options.reporterOptions as ReporterOptions;
    const failures: Failure[] = [];
    const skipped: string[] = [];
    const tests: TestOutcome[] = [];
    const tookMs: Record<string, number> = {};
    const note = (test: Mocha.Runnable, state: TestOutcome['state']): string => {
      const path = relative(process.cwd(), test.file ?? test.parent?.file ?? '');
      tests.push({ path, titles: test.titlePath(), state });
      return sourcePath(path);
    };
    runner.on('pass', (test) => {
      note(test, 'passed');
    });
    runner.on('fail', (test, error: unknown) => {
      const where = note(test, 'failed');
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      const message = text.split('\n').slice(0, messageLines).join('\n');
      failures.push({ where, title: test.fullTitle(), message });
    });
    runner.on('pending', (test) => {
      skipped.push(test.fullTitle());
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
      tookMs[path] = (tookMs[path] ?? 0) + performance.now() - start;
    });
    runner.once('end', () => {
      const passed = tests.filter(({ state }) => state === 'passed').length;
      done({ passed, failures, skipped, tests, tookMs });
    });
  }

  override epilogue(): void {
    if (this.failures.length > 0) Mocha.reporters.Base.list(this.failures);
  }
}
