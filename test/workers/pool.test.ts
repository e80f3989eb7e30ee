/** Workers as processes, with files of tests made for the purpose. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { waitFor } from '../lab/lab.ts';
import { Pool, type PoolOptions } from './pool.ts';
import { FileQueue } from './queue.ts';
import type { Report } from './report.ts';

describe('a pool of workers', function () {
  this.timeout(120_000);
  let root: string;
  let said: string[];

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'shoal-pool-'));
    said = [];
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  /** A file of tests; `body` has `fs`, `wait(path)` for another one's mark, and `mark(path)`. */
  const file = (name: string, body: string): string => {
    const head = `
      const assert = require('node:assert');
      const fs = require('node:fs');
      const mark = (path) => fs.writeFileSync(path, String(process.pid));
      const wait = async (path) => { while (!fs.existsSync(path)) await new Promise((go) => setTimeout(go, 5)); };
    `;
    writeFileSync(join(root, `${name}.test.cjs`), `${head}\n${body}`);
    return `${name}.test.cjs`;
  };

  const poolOf = (workers: number, more: Partial<PoolOptions> = {}): Pool => {
    const folder = join(root, 'work');
    mkdirSync(folder, { recursive: true });
    const say = (text: string): void => {
      said.push(text);
    };
    return new Pool({
      root,
      folder,
      workers,
      timeoutMs: 60_000,
      limitMs: 90_000,
      hasColor: false,
      say,
      ...more,
    });
  };
  const runAll = (pool: Pool, paths: string[]): Promise<Report> => pool.run(new FileQueue(paths, () => 1));

  it('runs files at once, each with names of its own in the lab, and says what each printed together', async () => {
    const meet = (own: string, other: string) =>
      file(
        own,
        `describe('${own}', () => {
          it('meets', async () => { console.log('${own} begins'); mark('${own}'); await wait('${other}'); });
          it('is apart', () => fs.writeFileSync('${own}.env', [process.env.SHOAL_LAB_SUFFIX, process.env.TMPDIR].join()));
          it('may not');
        });`,
      );
    const report = await runAll(poolOf(2), [meet('a', 'b'), meet('b', 'a')]);
    assert.deepEqual(report.failures, []);
    assert.deepEqual([report.passed, report.skipped.length], [4, 2]);
    const apart = ['a', 'b'].map((name) => readFileSync(join(root, `${name}.env`), 'utf8').split(','));
    assert.notEqual(apart[0]?.[0], apart[1]?.[0]);
    assert.notEqual(apart[0]?.[1], apart[1]?.[1]);
    const printed = said.filter((text) => text.includes('begins'));
    assert.equal(printed.length, 2);
    for (const text of printed) assert.match(text, /^ {2}(\w)\n\1 begins\n.*✔ meets(.|\n)*- may not$/);
  });

  it('tells a failure with its file and message, and a file that cannot be loaded', async () => {
    const paths = [
      file('wrong', `describe('what', () => it('is', () => assert.equal(1, 2, 'one is not two')));`),
      file('broken', `throw new Error('does not parse');`),
    ];
    const { failures, passed } = await runAll(poolOf(1), paths);
    assert.equal(passed, 0);
    assert.deepEqual(
      failures.map(({ where, title }) => [where, title]),
      [
        ['wrong.test.cjs', 'what is'],
        ['broken.test.cjs', 'is loaded'],
      ],
    );
    assert.match(failures[0]!.message, /one is not two/);
    assert.match(failures[1]!.message, /does not parse/);
    assert.match(said.join('\n'), /one is not two/);
  });

  it('takes a process that dies for a failure of its file, and goes on', async () => {
    const paths = [
      file('dies', `describe('d', () => it('dies', () => process.kill(process.pid, 'SIGKILL')));`),
      file('leaves', `describe('l', () => it('leaves', () => process.exit(0)));`),
      file('works', `describe('w', () => it('works', () => {}));`),
    ];
    const { failures, passed } = await runAll(poolOf(1), paths);
    assert.equal(passed, 1);
    assert.deepEqual(
      failures.map(({ where, message }) => `${where}: ${message}`),
      [
        'dies.test.cjs: its process ended by SIGKILL',
        'leaves.test.cjs: its process ended by itself, with status 0',
      ],
    );
  });

  it('ends a file that does not end', async () => {
    const endless = file('endless', `describe('e', () => it('goes on', () => { for (;;); }));`);
    const { failures } = await runAll(poolOf(1, { limitMs: 3000 }), [endless]);
    assert.deepEqual(
      failures.map(({ message }) => message),
      ['it had not ended after 3 s'],
    );
  });

  it('ends what is under way when it is abandoned, with what that had started', async () => {
    const path = file(
      'long',
      `describe('l', () => it('is long', async () => {
        const { spawn } = require('node:child_process');
        fs.writeFileSync('pid.new', String(spawn('sleep', ['1000']).pid));
        fs.renameSync('pid.new', 'pid');
        await wait('never');
      }));`,
    );
    const pool = poolOf(1);
    const ran = runAll(pool, [path]);
    await waitFor('the file to be under way', 60_000, () => existsSync(join(root, 'pid')));
    const child = readFileSync(join(root, 'pid'), 'utf8');
    pool.abandon();
    await ran;
    assert.deepEqual(said, []);
    await waitFor('its child to end', 20_000, () => {
      // Whoever inherits a process that ended may leave it as a zombie.
      if (!existsSync(`/proc/${child}`)) return true;
      return /^State:\s+Z/m.test(readFileSync(`/proc/${child}/status`, 'utf8'));
    });
  });
});
