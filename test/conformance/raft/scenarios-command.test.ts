/** `npm run scenarios`: what it prints and how it ends, on files that pass and files that don't. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

// This file runs from dist/test/conformance/raft.
const root = resolve(import.meta.dirname, '../../../..');
const good = join(root, 'test/scenarios/raft/election.txt');

function scenarios(...args: string[]) {
  const { status, stdout } = spawnSync(process.execPath, [join(root, 'dist/test/scenarios.js'), ...args], {
    encoding: 'utf8',
    env: { ...process.env, INIT_CWD: folder },
  });
  return { status, lines: stdout.trim().split('\n') };
}

let folder: string;

describe('npm run scenarios', () => {
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'shoal-scenarios-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it('prints a line for each file and succeeds when all pass', () => {
    copyFileSync(good, join(folder, 'same.txt'));
    const { status, lines } = scenarios(good, 'same.txt');
    assert.equal(status, 0);
    assert.equal(lines.length, 3);
    assert.match(lines[0]!, /^ok .*election\.txt \(\d+ directives\)$/);
    assert.match(lines[1]!, /^ok .*same\.txt/, 'a relative path is one of where npm was called');
  });

  it('fails for one other byte of what is expected, a missing file and one without a directive', () => {
    const text = readFileSync(good, 'utf8');
    assert.ok(text.includes('Commit:'));
    writeFileSync(join(folder, 'other.txt'), text.replace('Commit:', 'Commit :'));
    writeFileSync(join(folder, 'empty.txt'), '# nothing\n');
    for (const file of ['other.txt', 'empty.txt', 'missing.txt']) {
      const { status, lines } = scenarios(good, file);
      assert.equal(status, 1, file);
      assert.match(lines[0]!, /^ok /);
      assert.match(lines[1]!, new RegExp(`^FAILED .*${file}`));
      assert.equal(lines.at(-1), '1 of 2 files passed');
    }
  });

  it('leaves files that are not ours as they are', () => {
    copyFileSync(good, join(folder, 'theirs.txt'));
    assert.equal(scenarios('--rewrite', 'theirs.txt').status, 1);
    assert.equal(readFileSync(join(folder, 'theirs.txt'), 'utf8'), readFileSync(good, 'utf8'));
  });

  it('wants a file', () => assert.equal(scenarios().status, 2));
});
