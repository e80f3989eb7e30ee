/**
 * `npm run simulate`: the whole cluster, simulated from seeds. `--seeds 1000` runs seeds 1 to 1000 on all
 * processors; `--seed 42` runs one again, telling all that happens; `--plant NAME` puts a bug in and succeeds when an
 * invariant catches it; `--from N` begins elsewhere; `--steps N` has N virtual seconds of faults.
 */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { plants } from './simulation/plants.ts';
import { type RunReport, runSeed } from './simulation/run.ts';

const defaultSeeds = 100;
const shownLines = 50;

interface Job {
  readonly from: number;
  readonly every: number;
  readonly to: number;
  readonly plant: string | undefined;
  readonly steps: number | undefined;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string' },
      seeds: { type: 'string' },
      from: { type: 'string' },
      steps: { type: 'string' },
      plant: { type: 'string' },
    },
  });
  const { plant } = values;
  if (plant !== undefined && !(plant in plants)) {
    console.error(`there is no plant ${plant}; there are ${Object.keys(plants).join(', ')}`);
    return 2;
  }
  const steps = values.steps === undefined ? undefined : count('steps', values.steps);
  if (values.seed !== undefined) return replay(count('seed', values.seed), plant, steps);
  const from = values.from === undefined ? 1 : count('from', values.from);
  const seeds = values.seeds === undefined ? defaultSeeds : count('seeds', values.seeds);
  return runMany({ from, to: from + seeds - 1, plant, steps });
}

function count(flag: string, text: string): number {
  const number = Number(text);
  if (Number.isSafeInteger(number) && number > 0) return number;
  console.error(`--${flag} takes a number above 0, not ${text}`);
  process.exit(2);
}

async function replay(seed: number, plant: string | undefined, steps: number | undefined): Promise<number> {
  const show = (line: string): void => console.log(line);
  const report = await runSeed({ seed, plant: plant === undefined ? undefined : plants[plant], steps, show });
  console.log(`seed ${seed}: ${outcomeOf(report)}, event hash ${report.hash}`);
  return report.violation === undefined ? 0 : 1;
}

async function runMany(range: {
  from: number;
  to: number;
  plant: string | undefined;
  steps: number | undefined;
}): Promise<number> {
  const { from, to, plant } = range;
  const threads = Math.min(availableParallelism(), to - from + 1);
  let ran = 0;
  let caught: RunReport | undefined;
  const began = performance.now();
  const workers = Array.from({ length: threads }, (_, at) => {
    const job: Job = { ...range, from: from + at, every: threads };
    return new Worker(new URL(import.meta.url), { workerData: job });
  });
  await Promise.all(
    workers.map(
      (worker) =>
        new Promise<void>((resolve, reject) => {
          worker.on('message', (report: RunReport) => {
            ran += 1;
            if (report.violation === undefined || caught !== undefined) return;
            caught = report;
            for (const other of workers) void other.terminate();
          });
          worker.on('error', reject);
          worker.on('exit', () => resolve());
        }),
    ),
  );
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  if (caught === undefined) {
    console.log(`${ran} seeds, from ${from} to ${to}, in ${seconds} s: no invariant was violated`);
    if (plant !== undefined) console.log(`the plant ${plant} was not caught`);
    return plant === undefined ? 0 : 1;
  }
  if (plant !== undefined) {
    console.log(
      `the plant ${plant} was caught at seed ${caught.seed}, after ${ran} seeds in ${seconds} s, by ${outcomeOf(caught)}`,
    );
    return 0;
  }
  console.log(caught.lastLines.slice(-shownLines).join('\n'));
  console.log(`seed ${caught.seed}: ${outcomeOf(caught)}`);
  console.log(`again, with all that happens: npm run simulate -- --seed ${caught.seed}`);
  return 1;
}

function outcomeOf({ violation }: RunReport): string {
  return violation === undefined
    ? 'no invariant was violated'
    : `invariant ${violation.invariant}: ${violation.what}`;
}

async function work({ from, to, every, plant, steps }: Job): Promise<void> {
  for (let seed = from; seed <= to; seed += every) {
    parentPort?.postMessage(
      await runSeed({ seed, plant: plant === undefined ? undefined : plants[plant], steps }),
    );
  }
}

if (isMainThread) process.exitCode = await main();
else await work(workerData as Job);
