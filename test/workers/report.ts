/** What became of tests: of a file, of a stage, of a whole run. */
import type { TestOutcome } from '../never-had.ts';

export interface Failure {
  /** The file, e.g. `test/lab/failover.test.ts`, or the stage. */
  readonly where: string;
  readonly title: string;
  readonly message: string;
}

export interface Report {
  readonly passed: number;
  readonly failures: readonly Failure[];
  /** Full titles. */
  readonly skipped: readonly string[];
  readonly tests: readonly TestOutcome[];
  /** Milliseconds that each file took, hooks included, by its path. */
  readonly tookMs: Readonly<Record<string, number>>;
}

export const emptyReport: Report = { passed: 0, failures: [], skipped: [], tests: [], tookMs: {} };

/** One test that is no file's: it passed, or failed with `message`. */
export function reportOf(where: string, title: string, message?: string): Report {
  return message === undefined
    ? { ...emptyReport, passed: 1 }
    : { ...emptyReport, failures: [{ where, title, message }] };
}

export function merge(reports: readonly Report[]): Report {
  return {
    passed: reports.reduce((sum, { passed }) => sum + passed, 0),
    failures: reports.flatMap(({ failures }) => failures),
    skipped: reports.flatMap(({ skipped }) => skipped),
    tests: reports.flatMap(({ tests }) => tests),
    tookMs: Object.assign({}, ...reports.map(({ tookMs }) => tookMs)) as Report['tookMs'],
  };
}

/** `dist/test/x.test.js` → `test/x.test.ts`: what a reader opens. */
export function sourcePath(path: string): string {
  return path.replace(/^dist\//, '').replace(/\.js$/, '.ts');
}

/** Where the time went, a line each: the files that took ten seconds and more, the slowest first. */
export function timeLines(tookMs: Report['tookMs']): string[] {
  return Object.entries(tookMs)
    .filter(([, ms]) => ms >= 10_000)
    .sort((a, b) => b[1] - a[1])
    .map(([path, ms]) => `${String(Math.round(ms / 1000)).padStart(5)} s  ${sourcePath(path)}`);
}

/** What a run ends with: its failures, the names of what was skipped, and one line of counts. */
export function closingLines({ passed, failures, skipped }: Report): string[] {
  return [
    ...failures.flatMap(({ where, title, message }) => [
      `failed: ${where}: ${title}`,
      ...message.split('\n').map((line) => `    ${line}`),
    ]),
    ...skipped.map((name) => `skipped: ${name}`),
    `${passed} passed, ${failures.length} failed, ${skipped.length} skipped`,
  ];
}
