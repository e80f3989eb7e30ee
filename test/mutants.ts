/**
 * `npm run mutants`: plants one bug after the other (test/mutants/mutants.ts) into a copy of the compiled project and runs
 * the tests of raft, log and store on it. Prints a line for each; exit code 0 when every bug is found, 1 when one
 * survives, 2 when the tests fail without any or the list is out of date. `--only WORDS` takes those whose name has the
 * words in it; `--jobs N` runs so many at once (two by default).
 */
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { commandLine, countAbove0 } from './command-line.ts';
import type { Mutant } from './mutants/mutant.ts';
import { mutants } from './mutants/mutants.ts';
import { planted } from './mutants/plant.ts';

// This file runs from dist/test.
const root = resolve(import.meta.dirname, '../..');
/** A bug that makes a test hang is found as well; a busy machine is no bug, see boundShare. */
const boundMs = 120_000;
const intactBoundMs = 1_800_000;
/** So many times what the tests take without any bug. */
const boundShare = 3;
const testTimeoutMs = 20_000;

const specs = {
  // The quick ones first; the one that finds most takes longest.
  core: [
    ...'quorum log progress election replication flow snapshot membership one-change transfer read-index chaos'
      .split(' ')
      .map((name) => `manager/raft/core/${name}.test.js`),
    'conformance/raft/scenarios.test.js',
  ],
  raft: [
    ...'wal disk flush-pace outbox read-points seal snapshot compaction large-snapshot on-the-spot promotion recovery removal-while-asking node promises chaos'
      .split(' ')
      .map((name) => `manager/raft/${name}.test.js`),
  ],
  recovery: [
    ...'manager/manager manager/backup/backup cli/autolock cli/recovery cli/daemon'
      .split(' ')
      .map((name) => `${name}.test.js`),
  ],
  store: ['manager/store/*.test.js'],
};

/** Those first that are nearest to the bug. */
function specsFor(file: string): readonly string[] {
  const { core, raft, recovery, store } = specs;
  if (file.startsWith('store/')) return store;
  if (file === 'manager.js' || file.startsWith('backup/')) return recovery;
  if (file === 'raft/recovery.js') return [...raft, ...recovery];
  return file.startsWith('raft/core/') ? [...core, ...raft] : [...raft, ...core];
}

/** A copy of what the tests need, to plant in. */
class Plot {
  readonly #folder = mkdtempSync(join(tmpdir(), 'shoal-mutants-'));

  constructor() {
    for (const part of ['dist', 'proto', 'package.json', 'test/scenarios', 'test/manager/formats']) {
      cpSync(join(root, part), join(this.#folder, part), { recursive: true });
    }
    symlinkSync(join(root, 'node_modules'), join(this.#folder, 'node_modules'));
  }

  /** The first failing test with the bug planted; undefined when all pass. */
  async killer(mutant: Mutant, patienceMs: number): Promise<string | undefined> {
    const path = join(this.#folder, 'dist/manager', mutant.file);
    const intact = readFileSync(path, 'utf8');
    writeFileSync(path, planted(intact, mutant));
    try {
      // What does not even load would be found by any test.
      const { status, stderr } = spawnSync(process.execPath, ['--check', path], { encoding: 'utf8' });
      if (status !== 0) throw new Error(`the planted bug "${mutant.name}" is no code: ${stderr}`);
      return await this.failure(specsFor(mutant.file), patienceMs);
    } finally {
      writeFileSync(path, intact);
    }
  }

  /** The first of these tests that fails, or that they have no end within so many ms; undefined when all pass. */
  failure(patterns: readonly string[], patienceMs: number): Promise<string | undefined> {
    const mocha = join(root, 'node_modules/mocha/bin/mocha.js');
    const files = patterns.map((pattern) => join(this.#folder, 'dist/test', pattern));
    const options = ['--exit', '--bail', '--reporter', 'json', '--timeout', String(testTimeoutMs)];
    const child = spawn(process.execPath, [mocha, ...options, ...files], {
      cwd: this.#folder,
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { ...process.env, SHOAL_CORPUS: process.env.SHOAL_CORPUS ?? resolve(root, '../shared/corpus') },
    });
    let output = '';
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      child.kill('SIGKILL');
    }, patienceMs);
    child.stdout.setEncoding('utf8');
    child.stdout.on('data', (text: string) => {
      output += text;
    });
    return new Promise((resolve) => {
      child.on('close', (code) => {
        clearTimeout(timer);
        if (isLate) resolve(`no end within ${Math.round(patienceMs / 1000)} s`);
        else resolve(code === 0 ? undefined : firstFailure(output));
      });
    });
  }

  /** Also when the run is broken off. */
  clear(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

function firstFailure(output: string): string {
  try {
    const report = JSON.parse(output.slice(output.indexOf('{'))) as { failures: { fullTitle: string }[] };
    return report.failures[0]?.fullTitle ?? 'the tests ended with an error';
  } catch {
    return 'the tests ended with an error';
  }
}

/** How long to wait for the tests with a bug, by how long they take without; undefined when they fail so. */
async function patienceWithout(plots: readonly Plot[]): Promise<number | undefined> {
  const groups = Object.values(specs);
  const began = performance.now();
  const failures = await Promise.all(
    groups.map((group, at) => (plots[at] ?? plots[0]!).failure(group, intactBoundMs)),
  );
  const failure = failures.find((found) => found !== undefined);
  if (failure === undefined) return Math.max(boundMs, boundShare * (performance.now() - began));
  console.error(`the tests fail without any planted bug: ${failure}`);
  return undefined;
}

async function main(): Promise<number> {
  const { values } = commandLine('usage: npm run mutants -- [--only WORDS] [--jobs N]', {
    options: { only: { type: 'string', default: '' }, jobs: { type: 'string', default: '2' } },
  });
  const chosen = mutants.filter(({ name }) => name.includes(values.only));
  if (chosen.length === 0 || !existsSync(join(root, 'dist'))) {
    console.error(`no planted bug has "${values.only}" in its name`);
    return 2;
  }
  const plots = Array.from({ length: countAbove0('jobs', values.jobs) }, () => new Plot());
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      for (const plot of plots) plot.clear();
      process.exit(2);
    });
  }
  try {
    const patienceMs = await patienceWithout(plots);
    if (patienceMs === undefined) return 2;
    const waiting = [...chosen];
    const survivors: string[] = [];
    const work = async (plot: Plot): Promise<void> => {
      for (let mutant = waiting.shift(); mutant !== undefined; mutant = waiting.shift()) {
        const killer = await plot.killer(mutant, patienceMs);
        if (killer === undefined) survivors.push(mutant.name);
        console.log(killer === undefined ? `SURVIVED ${mutant.name}` : `killed ${mutant.name}  (${killer})`);
      }
    };
    await Promise.all(plots.map(work));
    console.log(`${chosen.length - survivors.length} of ${chosen.length} planted bugs were found`);
    return survivors.length === 0 ? 0 : 1;
  } finally {
    for (const plot of plots) plot.clear();
  }
}

process.exitCode = await main().catch((error: unknown) => {
  console.error(error);
  return 2;
});
