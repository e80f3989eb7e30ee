/**
 * A process that runs files of tests, one after the other, as it is told by the pool that started it: `{path, timeoutMs,
 * hasColor}` in, `{path, report}` out. What the tests print goes to its standard output. It ends when the pool lets go of it.
 */
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import Mocha from 'mocha';
import { endListedLabs } from '../lab/lab.ts';
import { type Report, reportOf, sourcePath } from './report.ts';
import { FileReporter, type ReporterOptions } from './reporter.ts';

export interface Order {
  readonly path: string;
  readonly timeoutMs: number;
  readonly hasColor: boolean;
}

export interface Answer {
  readonly path: string;
  readonly report: Report;
}

async function runFile({ path, timeoutMs, hasColor }: Order): Promise<Report> {
  const reports: Report[] = [];
  const reporterOptions: ReporterOptions = { done: (report) => reports.push(report) };
  const mocha = new Mocha({ timeout: timeoutMs, color: hasColor, reporter: FileReporter, reporterOptions });
  const file = join(process.cwd(), path);
  try {
    // Not by mocha, which requires modules: what such a module imports of CommonJS was empty once, in a process at work.
    mocha.suite.emit('pre-require', globalThis, file, mocha);
    await import(pathToFileURL(file).href);
    mocha.suite.emit('post-require', globalThis, file, mocha);
  } catch (error) {
    console.error(error);
    return reportOf(sourcePath(path), 'is loaded', String(error));
  }
  await new Promise<void>((resolve) => {
    mocha.run(() => resolve());
  });
  mocha.dispose();
  return reports[0] ?? reportOf(sourcePath(path), 'is run to its end', 'mocha told nothing');
}

process.on('message', (order: Order) => {
  void runFile(order).then((report) => {
    const answer: Answer = { path: order.path, report };
    process.send?.(answer);
  });
});
// The pool has no more for it, or is no more; then nobody else ends what it has in the lab.
process.on('disconnect', () => {
  endListedLabs();
  // A handle that a test left open must not keep it from ending; processes left behind are looked for.
  process.exit(0);
});
