/** `npm run simulate`: the whole cluster, simulated from seeds. */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { commandLine, countAbove0 } from './command-line.ts';
import type { ClusterOptions } from './simulation/cluster.ts';
import { plants } from './simulation/plants.ts';
import { type RunReport, runSeed } from './simulation/run.ts';
import { addSeed, emptyTally, type Tally, tellTally } from './simulation/tally.ts';

const usage = `usage: npm run simulate -- [OPTIONS]

  --seeds 1000       seeds 1 to 1000 (--from N: from N on), on all processors or --threads N of them; goes on
                     after a violation, and ends with a summary
  --seed 42          runs one again and tells all that happens
  --steps N          N virtual seconds of faults instead of as many as the seed draws
  --whole            services in every run, not in each tenth
  --guarded          runs about services that stop on isolation: networks cut for long
  --varied           runs about jobs, schedules and scaling by what tasks use
  --resume FILE      notes in FILE how far it is, and goes on from there when FILE is of the same run
  --plant NAME       puts a bug in, and succeeds when an invariant catches it`;
const defaultSeeds = 100;
const shownLines = 50;
/** Seeds that a thread takes at a time. */
const chunkSeeds = 20;
const progressMs = 30_000;
/** More than so many need no more runs to be looked into. */
const mostViolations = 20;

interface Job {
  readonly plant: string | undefined;
  readonly steps: number | undefined;
  readonly whole: boolean;
  readonly guarded: boolean;
  readonly varied: boolean;
}

interface Range extends Job {
  readonly from: number;
  readonly to: number;
  readonly threads: number;
  readonly resume: string | undefined;
}

interface Chunk {
  readonly from: number;
  readonly to: number;
}

async function main(): Promise<number> {
  const text = { type: 'string' } as const;
  const { values } = commandLine(usage, {
    options: {
      seed: text,
      seeds: text,
      from: text,
      steps: text,
      plant: text,
      threads: text,
      resume: text,
      whole: { type: 'boolean', default: false },
      guarded: { type: 'boolean', default: false },
      varied: { type: 'boolean', default: false },
    },
  });
  const { plant, resume, whole, guarded, varied } = values;
  if (plant !== undefined && !(plant in plants)) {
    console.error(`there is no plant ${plant}; there are ${Object.keys(plants).join(', ')}`);
    return 2;
  }
  const steps = values.steps === undefined ? undefined : countAbove0('steps', values.steps);
  if (values.seed !== undefined)
    return replay(countAbove0('seed', values.seed), { plant, steps, whole, guarded, varied });
  const from = values.from === undefined ? 1 : countAbove0('from', values.from);
  const seeds = values.seeds === undefined ? defaultSeeds : countAbove0('seeds', values.seeds);
  const wanted =
    values.threads === undefined ? availableParallelism() : countAbove0('threads', values.threads);
  const threads = Math.min(wanted, Math.ceil(seeds / chunkSeeds));
  return new Campaign({
    from,
    to: from + seeds - 1,
    plant,
    steps,
    whole,
    guarded,
    varied,
    threads,
    resume,
  }).run();
}

async function replay(seed: number, job: Job): Promise<number> {
  const show = (line: string): void => console.log(line);
  const report = await runSeed({ ...optionsOf(seed, job), show });
  console.log(`seed ${seed}: ${outcomeOf(report)}, event hash ${report.hash}`);
  return report.violation === undefined ? 0 : 1;
}

function optionsOf(seed: number, { plant, steps, whole, guarded, varied }: Job): ClusterOptions {
  return { seed, plant: plant === undefined ? undefined : plants[plant], steps, whole, guarded, varied };
}

/** Many seeds on several threads. */
class Campaign {
  readonly #range: Range;
  readonly #workers: Worker[] = [];
  #tally: Tally;
  /** Chunks that were begun here and are not through, by where they begin. */
  readonly #open = new Set<number>();
  #next: number;
  #isOver = false;
  readonly #began = performance.now();

  constructor(range: Range) {
    this.#range = range;
    const { tally, next } = this.#resumed();
    this.#tally = tally;
    this.#next = next;
  }

  async run(): Promise<number> {
    const { threads, from, to } = this.#range;
    const progress = setInterval(() => console.log(`${this.#elapsed()}: ${this.#shortly()}`), progressMs);
    await Promise.all(Array.from({ length: threads }, () => this.#employ()));
    clearInterval(progress);
    this.#save();
    const { violations } = this.#tally;
    const { plant, steps, whole, guarded, varied } = this.#range;
    if (plant !== undefined) {
      const caught = violations[0];
      const how = caught ? `was caught at seed ${caught.seed}, by ${caught.outcome}` : 'was not caught';
      console.log(`the plant ${plant} ${how}, after ${this.#tally.seeds} seeds in ${this.#elapsed()}`);
      return caught ? 0 : 1;
    }
    console.log(tellTally(this.#tally));
    const outcome =
      violations.length === 0 ? 'no invariant was violated' : `${violations.length} seeds violated one`;
    console.log(`${this.#tally.seeds} seeds, from ${from} to ${to}, in ${this.#elapsed()}: ${outcome}`);
    for (const { seed, outcome: what } of violations) console.log(`seed ${seed}: ${what}`);
    if (violations[0]) {
      const flags = `--seed ${violations[0].seed}${whole ? ' --whole' : ''}${guarded ? ' --guarded' : ''}${varied ? ' --varied' : ''}${steps ? ` --steps ${steps}` : ''}`;
      console.log(`again, with all that happens: npm run simulate -- ${flags}`);
    }
    return violations.length === 0 && this.#next > to ? 0 : 1;
  }

  /** One thread, until nothing is left to do. */
  #employ(): Promise<void> {
    return new Promise((resolve, reject) => {
      const { plant, steps, whole, guarded, varied } = this.#range;
      const job: Job = { plant, steps, whole, guarded, varied };
      const worker = new Worker(new URL(import.meta.url), { workerData: job });
      this.#workers.push(worker);
      let chunk: Chunk | undefined;
      const hand = (): void => {
        if (chunk) this.#open.delete(chunk.from);
        chunk = this.#take();
        if (chunk) worker.postMessage(chunk);
        else void worker.terminate();
        this.#save();
      };
      worker.on('message', (report: RunReport | 'through') => {
        if (report === 'through') hand();
        else this.#add(report);
      });
      worker.on('error', reject);
      worker.on('exit', () => resolve());
      hand();
    });
  }

  #take(): Chunk | undefined {
    const from = this.#next;
    if (this.#isOver || from > this.#range.to) return undefined;
    const to = Math.min(this.#range.to, from + chunkSeeds - 1);
    this.#next = to + 1;
    this.#open.add(from);
    return { from, to };
  }

  #add(report: RunReport): void {
    if (this.#isOver) return;
    addSeed(this.#tally, report, outcomeOf(report));
    if (report.violation === undefined) return;
    const { plant } = this.#range;
    if (plant === undefined) {
      console.log(report.lastLines.slice(-shownLines).join('\n'));
      console.log(`seed ${report.seed}: ${outcomeOf(report)}`);
    }
    if (plant === undefined && this.#tally.violations.length < mostViolations) return;
    this.#isOver = true;
    for (const worker of this.#workers) void worker.terminate();
  }

  #elapsed(): string {
    return `${((performance.now() - this.#began) / 1000).toFixed(0)} s`;
  }

  #shortly(): string {
    const { seeds, violations } = this.#tally;
    const { from, to } = this.#range;
    return `${seeds} of ${to - from + 1} seeds, ${violations.length} with a violation`;
  }

  // ------------------------------------------------------------ going on after a break

  /** Chunks that were under way are run again; what they had added already is counted twice, no violation lost. */
  #save(): void {
    const { resume, from, to, steps, whole, guarded, varied } = this.#range;
    if (resume === undefined) return;
    const next = Math.min(this.#next, ...this.#open);
    const note = JSON.stringify({ from, to, steps, whole, guarded, varied, next, tally: this.#tally });
    writeFileSync(`${resume}.new`, note);
    renameSync(`${resume}.new`, resume);
  }

  #resumed(): { tally: Tally; next: number } {
    const { resume, from, to, steps, whole, guarded, varied } = this.#range;
    const fresh = { tally: emptyTally(), next: from };
    if (resume === undefined || !existsSync(resume)) return fresh;
    const note = JSON.parse(readFileSync(resume, 'utf8')) as {
      from: number;
      to: number;
      steps?: number;
      whole: boolean;
      guarded: boolean;
      varied?: boolean;
      next: number;
      tally: Tally;
    };
    const isSame = note.from === from && note.to === to && note.steps === steps;
    if (!isSame || note.whole !== whole || note.guarded !== guarded || (note.varied ?? false) !== varied) {
      console.error(
        `${resume} is of another run, of seeds ${note.from} to ${note.to}; remove it to begin anew`,
      );
      process.exit(2);
    }
    console.log(`going on at seed ${note.next}, as ${resume} says`);
    return { tally: note.tally, next: note.next };
  }
}

function outcomeOf({ violation }: RunReport): string {
  return violation === undefined
    ? 'no invariant was violated'
    : `invariant ${violation.invariant}: ${violation.what}`;
}

function work(job: Job): void {
  // Where an error came from is told when the seed is run again; here it costs time in every refused call.
  Error.stackTraceLimit = 0;
  parentPort?.on('message', async ({ from, to }: Chunk) => {
    for (let seed = from; seed <= to; seed += 1) {
      const report = await runSeed(optionsOf(seed, job));
      parentPort?.postMessage(report.violation === undefined ? { ...report, lastLines: [] } : report);
    }
    parentPort?.postMessage('through');
  });
}

if (isMainThread) process.exitCode = await main();
else work(workerData as Job);
