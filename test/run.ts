/**
 * `npm test`: every stage in turn, then one line of counts. Names of stages as arguments run only those:
 * lint types unit simulation lab. With CI set, a skipped test is a failure. `npm run never-had` is one more stage, of
 * scripts that the lab's has among others.
 */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pointLines, scriptNames, type TestOutcome } from './never-had.ts';
import { leftovers, traces } from './traces.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const bin = (name: string) => join(root, 'node_modules', '.bin', name);

interface Outcome {
  passed: number;
  failed: number;
  skipped: string[];
  tests?: TestOutcome[];
  tookMs?: Record<string, number>;
}

type Stage =
  | { name: string; kind: 'command'; command: string; args: string[] }
  | {
      name: string;
      kind: 'mocha';
      specs: string[];
      ignore?: string[];
      timeoutMs: number;
      /** Run only when it is named. */
      isOnDemand?: true;
      /** What to say of its tests at the end. */
      summary?: (tests: readonly TestOutcome[]) => string[];
    };

const stages: Stage[] = [
  { name: 'lint', kind: 'command', command: bin('biome'), args: ['check', '.'] },
  { name: 'types', kind: 'command', command: bin('tsc'), args: ['-p', 'tsconfig.json', '--noEmit'] },
  {
    name: 'unit',
    kind: 'mocha',
    specs: ['dist/test/**/*.test.js'],
    ignore: ['dist/test/lab/**', 'dist/test/simulation/**', 'dist/test/conformance/clients/**'],
    timeoutMs: 30_000,
  },
  { name: 'simulation', kind: 'mocha', specs: ['dist/test/simulation/**/*.test.js'], timeoutMs: 600_000 },
  {
    name: 'lab',
    kind: 'mocha',
    specs: ['dist/test/lab/**/*.test.js', 'dist/test/conformance/clients/**/*.test.js'],
    timeoutMs: 300_000,
  },
  {
    name: 'never-had',
    kind: 'mocha',
    specs: scriptNames().map((name) => `dist/test/lab/${name}.test.js`),
    timeoutMs: 300_000,
    isOnDemand: true,
    summary: pointLines,
  },
];

function runStage(stage: Stage, reportPath: string): Outcome {
  console.log(`\n== ${stage.name}`);
  if (stage.kind === 'command') {
    return outcomeOfCommand(spawnSync(stage.command, stage.args, { cwd: root, stdio: 'inherit' }));
  }
  const args = [
    bin('mocha'),
    // A handle that a test left open must not keep the suite from ending; processes left behind are looked for.
    '--exit',
    '--reporter',
    'dist/test/reporter.js',
    '--timeout',
    String(stage.timeoutMs),
    ...(stage.ignore ?? []).flatMap((glob) => ['--ignore', glob]),
    ...stage.specs,
  ];
  rmSync(reportPath, { force: true });
  const result = spawnSync(process.execPath, args, {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, SHOAL_TEST_REPORT: reportPath, SHOAL_TEST_STAGE: stage.name },
  });
  const outcome = readReport(reportPath);
  sayTimes(outcome?.tookMs ?? {});
  for (const line of stage.summary?.(outcome?.tests ?? []) ?? []) console.log(line);
  // A stage that died before its end, or left open handles that made it fail, must not pass for its counts.
  if (outcome && result.status !== 0 && outcome.failed === 0) return { ...outcome, failed: 1 };
  return outcome ?? { passed: 0, failed: 1, skipped: [] };
}

/** Where a stage's time went: its files that took ten seconds and more, the slowest first. */
function sayTimes(tookMs: Record<string, number>): void {
  const slow = Object.entries(tookMs).filter(([, ms]) => ms >= 10_000);
  for (const [path, ms] of slow.sort((a, b) => b[1] - a[1])) {
    console.log(`${String(Math.round(ms / 1000)).padStart(5)} s  ${path}`);
  }
}

function outcomeOfCommand(result: SpawnSyncReturns<Buffer>): Outcome {
  return { passed: result.status === 0 ? 1 : 0, failed: result.status === 0 ? 0 : 1, skipped: [] };
}

function readReport(path: string): Outcome | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Outcome;
  } catch {
    return undefined;
  }
}

/** Counts as a test of its own: what the stages left on this machine. */
function checkTraces(before: ReadonlySet<string>): Outcome {
  const left = leftovers(before);
  for (const trace of left) console.log(`left behind: ${trace}`);
  console.log(left.length === 0 ? '\n  ✔ nothing was left behind' : '\n  ✖ the tests left something behind');
  return { passed: left.length === 0 ? 1 : 0, failed: left.length === 0 ? 0 : 1, skipped: [] };
}

function main(): void {
  const wanted = process.argv.slice(2);
  const unknown = wanted.filter((name) => !stages.some((stage) => stage.name === name));
  if (unknown.length > 0) {
    console.error(
      `unknown stage ${unknown.join(', ')}; the stages are ${stages.map((s) => s.name).join(', ')}`,
    );
    process.exit(2);
  }
  const folder = mkdtempSync(join(tmpdir(), 'shoal-test-'));
  const before = traces();
  const chosen = stages.filter((stage) =>
    wanted.length === 0 ? !('isOnDemand' in stage) : wanted.includes(stage.name),
  );
  const outcomes = chosen.map((stage) => runStage(stage, join(folder, 'report.json')));
  rmSync(folder, { recursive: true, force: true });
  outcomes.push(checkTraces(before));
  const passed = outcomes.reduce((sum, outcome) => sum + outcome.passed, 0);
  const failed = outcomes.reduce((sum, outcome) => sum + outcome.failed, 0);
  const skipped = outcomes.flatMap((outcome) => outcome.skipped);
  for (const name of skipped) console.log(`skipped: ${name}`);
  console.log(`${passed} passed, ${failed} failed, ${skipped.length} skipped`);
  process.exit(failed > 0 || (process.env.CI && skipped.length > 0) ? 1 : 0);
}

main();
