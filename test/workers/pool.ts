/**
 * Runs files of tests in several worker processes at once. What a file printed is passed on together when it has ended. Each
 * worker has names of its own in the lab and a temporary folder of its own; a worker that dies, or is at a file for too long,
 * is a failure of that file: what it had is taken away, and another one goes on.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { endListedLabs } from '../lab/lab.ts';
import type { FileQueue } from './queue.ts';
import { emptyReport, merge, type Report, reportOf, sourcePath } from './report.ts';
import type { Answer, Order } from './worker.ts';

export interface PoolOptions {
  /** Where the built project is. */
  readonly root: string;
  /** An empty folder for what the workers print and write. */
  readonly folder: string;
  readonly workers: number;
  /** Of each test and hook. */
  readonly timeoutMs: number;
  /** Of each file. */
  readonly limitMs: number;
  readonly hasColor: boolean;
  readonly say: (text: string) => void;
}

const program = join(dirname(fileURLToPath(import.meta.url)), 'worker.js');

class Worker {
  readonly name: string;
  readonly #options: PoolOptions;
  readonly #folder: string;
  #process: ChildProcess | undefined;
  #printed = 0;

  constructor(name: string, options: PoolOptions) {
    this.name = name;
    this.#options = options;
    this.#folder = join(options.folder, name);
    mkdirSync(join(this.#folder, 'tmp'), { recursive: true });
  }

  /** Runs a file to its end. Never rejects: a process that dies is a failure in the report. */
  async run(path: string): Promise<{ report: Report; printed: string }> {
    const { timeoutMs, limitMs, hasColor } = this.#options;
    const running = this.#process ?? this.#start();
    const order: Order = { path, timeoutMs, hasColor };
    let death = '';
    const report = await new Promise<Report>((resolve) => {
      let why = '';
      const limit = setTimeout(() => {
        why = `it had not ended after ${limitMs / 1000} s`;
        this.kill();
      }, limitMs);
      const onMessage = (answer: Answer): void => finish(answer.report);
      const onExit = (status: number | null, signal: string | null): void => {
        this.#process = undefined;
        this.#takeAway();
        const end = why || `its process ended by ${signal ?? `itself, with status ${status}`}`;
        death = `\n  ✖ is run to its end: ${end}`;
        finish(reportOf(sourcePath(path), 'is run to its end', end));
      };
      const finish = (outcome: Report): void => {
        clearTimeout(limit);
        running.off('message', onMessage).off('exit', onExit);
        resolve(outcome);
      };
      running.on('message', onMessage).on('exit', onExit);
      if (running.exitCode !== null || running.signalCode !== null)
        onExit(running.exitCode, running.signalCode);
      else running.send(order, () => {});
    });
    return { report, printed: `${this.#read()}${death}` };
  }

  #start(): ChildProcess {
    const output = openSync(this.#outputPath, 'a');
    const started = spawn(process.execPath, [program], {
      cwd: this.#options.root,
      env: {
        ...process.env,
        SHOAL_LAB_SUFFIX: `${process.env.SHOAL_LAB_SUFFIX ?? ''}-${this.name}`,
        SHOAL_LAB_LIST: this.#labList,
        TMPDIR: join(this.#folder, 'tmp'),
      },
      // To a file each write is complete before the next step, so that nothing printed comes after the report.
      stdio: ['ignore', output, output, 'ipc'],
      // A group of its own, which is ended as a whole.
      detached: true,
    });
    closeSync(output);
    this.#process = started;
    return started;
  }

  get #outputPath(): string {
    return join(this.#folder, 'output');
  }

  get #labList(): string {
    return join(this.#folder, 'labs');
  }

  /** What was printed since the last call. */
  #read(): string {
    const all = readFileSync(this.#outputPath);
    const text = all.toString('utf8', this.#printed);
    this.#printed = all.length;
    return text;
  }

  /** Ends it and its children at once. */
  kill(): void {
    const pid = this.#process?.pid;
    if (pid === undefined) return;
    try {
      process.kill(-pid, 'SIGKILL');
    } catch {
      // It has ended.
    }
  }

  /** Takes away what a process that died left in the lab. */
  #takeAway(): void {
    endListedLabs(this.#labList);
  }

  /** Lets it end, as there is nothing more for it; resolves when it has. */
  async end(): Promise<void> {
    const running = this.#process;
    if (running === undefined || running.exitCode !== null || running.signalCode !== null) return;
    const ended = new Promise((resolve) => running.once('exit', resolve));
    running.disconnect();
    await ended;
  }

  /** Ends it at once, with what it has in the lab. */
  abandon(): void {
    this.kill();
    this.#takeAway();
  }
}

export class Pool {
  readonly #options: PoolOptions;
  readonly #workers: Worker[];
  #isAbandoned = false;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#workers = Array.from({ length: options.workers }, (_, at) => new Worker(`w${at + 1}`, options));
  }

  /** Runs what the queue has; the report of all. */
  async run(queue: FileQueue): Promise<Report> {
    const reports: Report[] = [emptyReport];
    const idle = [...this.#workers];
    const underWay = new Set<Promise<void>>();
    while (!queue.isDone && !this.#isAbandoned) {
      const path = idle.length > 0 ? queue.take() : undefined;
      if (path === undefined) {
        await Promise.race(underWay);
        continue;
      }
      const worker = idle.shift()!;
      const turn: Promise<void> = this.#runOn(worker, path).then((report) => {
        reports.push(report);
        queue.end(path);
        idle.push(worker);
        underWay.delete(turn);
      });
      underWay.add(turn);
    }
    await Promise.all(this.#workers.map((worker) => worker.end()));
    return merge(reports);
  }

  async #runOn(worker: Worker, path: string): Promise<Report> {
    const began = performance.now();
    const { report, printed } = await worker.run(path);
    const tookMs = performance.now() - began;
    if (!this.#isAbandoned) this.#tell(path, printed, tookMs);
    return { ...report, tookMs: { [path]: tookMs } };
  }

  #tell(path: string, printed: string, tookMs: number): void {
    const seconds = (tookMs / 1000).toFixed(tookMs < 10_000 ? 1 : 0);
    this.#options.say(`\n-- ${sourcePath(path)} (${seconds} s)`);
    if (printed.trim() !== '') this.#options.say(printed.replace(/^\n+|\s+$/g, ''));
  }

  /** Ends all workers at once, and what they have in the lab. */
  abandon(): void {
    this.#isAbandoned = true;
    for (const worker of this.#workers) worker.abandon();
  }
}
