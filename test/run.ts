/**
 * `npm test`: every stage in turn, then what failed and one line of counts. Names of stages as arguments run only those:
 * lint types unit simulation lab. `--workers=N` runs N files of a stage at once, `--only=PART,PART` runs only files with such
 * a part in their path (`lab/failover`). With CI set, a skipped test is a failure.
 * `npm run never-had` is one more stage, of scripts that the lab's has among others.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { pointLines, scriptNames, type TestOutcome } from './never-had.ts';
import { leftovers, traces } from './traces.ts';
import { expectedSeconds } from './workers/durations.ts';
import { Pool } from './workers/pool.ts';
import { FileQueue } from './workers/queue.ts';
import { closingLines, merge, type Report, reportOf, timeLines } from './workers/report.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const bin = (name: string) => join(root, 'node_modules', '.bin', name);

interface CommandStage {
  readonly name: string;
  readonly kind: 'command';
  readonly command: string;
  readonly args: readonly string[];
}

interface MochaStage {
  readonly name: string;
  readonly kind: 'mocha';
  /** Whether a file, from `dist/test`, belongs to it. */
  readonly includes: (path: string) => boolean;
  /** Of each test and hook. */
  readonly timeoutMs: number;
  /** How many files are run at once. */
  readonly workers: number;
  /** Files, from `dist/test`, that are run when all others have ended. */
  readonly alone?: readonly string[];
  /** Run only when it is named. */
  readonly isOnDemand?: true;
  /** What to say of its tests at the end. */
  readonly summary?: (tests: readonly TestOutcome[]) => string[];
}

type Stage = CommandStage | MochaStage;

const isSimulation = (path: string) => path.startsWith('simulation/');
const isLab = (path: string) => path.startsWith('lab/') || path.startsWith('conformance/clients/');

const stages: readonly Stage[] = [
  { name: 'lint', kind: 'command', command: bin('biome'), args: ['check', '.'] },
  { name: 'types', kind: 'command', command: bin('tsc'), args: ['-p', 'tsconfig.json', '--noEmit'] },
  {
    name: 'unit',
    kind: 'mocha',
    includes: (path) => !isLab(path) && !isSimulation(path),
    timeoutMs: 30_000,
    workers: 2,
  },
  { name: 'simulation', kind: 'mocha', includes: isSimulation, timeoutMs: 600_000, workers: 2 },
  {
    name: 'lab',
    kind: 'mocha',
    includes: isLab,
    timeoutMs: 300_000,
    workers: 2,
    // They load the cluster as much as two cores bear, and judge what became of each request.
    alone: ['lab/rollout-load.test.js', 'lab/fault-run.test.js'],
  },
  {
    name: 'never-had',
    kind: 'mocha',
    includes: (path) => scriptNames().some((name) => path === `lab/${name}.test.js`),
    timeoutMs: 300_000,
    workers: 2,
    isOnDemand: true,
    summary: pointLines,
  },
];

/** Files of tests below a folder, from the root, sorted. */
function testFiles(folder = join(root, 'dist', 'test')): string[] {
  const entries = readdirSync(folder, { withFileTypes: true });
  return entries
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return testFiles(path);
      return entry.name.endsWith('.test.js') ? [relative(root, path)] : [];
    })
    .sort();
}

/** What is under way, for an interruption to end. */
let pool: Pool | undefined;

interface Wishes {
  /** Names of stages; all when empty. */
  readonly stages: readonly string[];
  readonly workers: number | undefined;
  /** Parts of paths; all files when empty. */
  readonly only: readonly string[];
}

async function runStage(stage: Stage, folder: string, { workers, only }: Wishes): Promise<Report> {
  console.log(`\n== ${stage.name}`);
  if (stage.kind === 'command') {
    const { status } = spawnSync(stage.command, [...stage.args], { cwd: root, stdio: 'inherit' });
    return reportOf(stage.name, stage.command, status === 0 ? undefined : 'see above');
  }
  const own = join(folder, stage.name);
  mkdirSync(own);
  const paths = testFiles()
    .filter((path) => stage.includes(path.slice('dist/test/'.length)))
    .filter((path) => only.length === 0 || only.some((part) => path.includes(part)));
  const alone = (stage.alone ?? []).map((path) => `dist/test/${path}`);
  pool = new Pool({
    root,
    folder: own,
    workers: workers ?? stage.workers,
    timeoutMs: stage.timeoutMs,
    limitMs: Math.max(600_000, 4 * stage.timeoutMs),
    hasColor: Boolean(process.stdout.isTTY) && !process.env.NO_COLOR,
    say: (text) => console.log(text),
  });
  const report = await pool.run(new FileQueue(paths, expectedSeconds, (path) => alone.includes(path)));
  pool = undefined;
  const lines = [...timeLines(report.tookMs), ...(stage.summary?.(report.tests) ?? [])];
  if (lines.length > 0) console.log(`\n${lines.join('\n')}`);
  return report;
}

/** Counts as a test of its own: what the stages left on this machine. */
function checkTraces(before: ReadonlySet<string>): Report {
  const left = leftovers(before);
  for (const trace of left) console.log(`left behind: ${trace}`);
  console.log(left.length === 0 ? '\n  ✔ nothing was left behind' : '\n  ✖ the tests left something behind');
  return reportOf('traces', 'nothing is left behind', left.length === 0 ? undefined : left.join('\n'));
}

function parseCommandLine(): Wishes {
  const { values, positionals } = parseArgs({
    options: { workers: { type: 'string' }, only: { type: 'string' } },
    allowPositionals: true,
  });
  const unknown = positionals.filter((name) => !stages.some((stage) => stage.name === name));
  if (unknown.length > 0) {
    throw new Error(
      `unknown stage ${unknown.join(', ')}; the stages are ${stages.map((s) => s.name).join(', ')}`,
    );
  }
  const workers = values.workers === undefined ? undefined : Number(values.workers);
  if (workers !== undefined && !(Number.isInteger(workers) && workers > 0))
    throw new Error(`--workers=${values.workers}: a whole number from 1 on is needed`);
  return { stages: positionals, workers, only: values.only?.split(',') ?? [] };
}

async function main(): Promise<void> {
  const wishes = parseCommandLine();
  const folder = mkdtempSync(join(tmpdir(), 'shoal-test-'));
  const removeFolder = () => rmSync(folder, { recursive: true, force: true });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      console.log(`\n${signal}: what is under way is ended`);
      pool?.abandon();
      removeFolder();
      process.exit(128 + constants.signals[signal]);
    });
  }
  const before = traces();
  const chosen = stages.filter((stage) =>
    wishes.stages.length === 0 ? !('isOnDemand' in stage) : wishes.stages.includes(stage.name),
  );
  const reports: Report[] = [];
  for (const stage of chosen) reports.push(await runStage(stage, folder, wishes));
  removeFolder();
  reports.push(checkTraces(before));
  const whole = merge(reports);
  for (const line of closingLines(whole)) console.log(line);
  process.exit(whole.failures.length > 0 || (process.env.CI && whole.skipped.length > 0) ? 1 : 0);
}

try {
  await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exit(2);
}
