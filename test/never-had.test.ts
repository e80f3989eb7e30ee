import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { repositoryRoot } from './lab/lab.ts';
import { pointLines, points, type TestOutcome, testsOf } from './never-had.ts';

const sourceOf = (name: string) => join(repositoryRoot, 'test', 'lab', `${name}.test.ts`);

describe('the ten that Swarm never had', () => {
  it('are ten, each with scripts that are there and go through the clients', () => {
    assert.equal(points.length, 10);
    for (const { scripts } of points) {
      for (const { name, part } of scripts) {
        assert.ok(existsSync(sourceOf(name)), name);
        const source = readFileSync(sourceOf(name), 'utf8');
        assert.match(source, /\.shoal\(/, name);
        if (part !== undefined) assert.ok(source.includes(`describe('${part}'`), `${name}: ${part}`);
      }
    }
  });

  it('are shown through the stock CLI where it can', () => {
    for (const { what, scripts, stock } of points) {
      if (stock.startsWith('nothing')) continue;
      const sources = scripts.map(({ name }) => readFileSync(sourceOf(name), 'utf8'));
      assert.ok(
        sources.some((source) => /\.docker\(/.test(source)),
        what,
      );
    }
  });

  it('stand in docs/services.md as they are run', () => {
    const page = readFileSync(join(repositoryRoot, 'docs', 'services.md'), 'utf8');
    const rows = page
      .split('\n')
      .filter((line) => /^\| \d+ +\|/.test(line))
      .map((line) => line.split('|').map((cell) => cell.trim()));
    const wanted = points.map(({ what, scripts, stock }, at) => [
      String(at + 1),
      what,
      [...new Set(scripts.map(({ name }) => `\`${name}\``))].join(', '),
      stock,
    ]);
    assert.deepEqual(
      rows.map((row) => row.slice(1, 5)),
      wanted,
    );
  });

  it('are told apart by what became of their tests', () => {
    const tests: TestOutcome[] = [
      {
        path: 'dist/test/lab/service-extras.test.js',
        titles: ['lab: why, plan and order', 'why', 'tells'],
        state: 'passed',
      },
      {
        path: 'dist/test/lab/service-extras.test.js',
        titles: ['lab: why, plan and order', 'plan', 'shows'],
        state: 'failed',
      },
      { path: 'dist/test/lab/service-cron.test.js', titles: ['lab: y', 'plan'], state: 'skipped' },
    ];
    assert.deepEqual(
      points.map((point) => testsOf(point, tests).length),
      [1, 1, 0, 0, 0, 0, 0, 1, 0, 0],
    );
    const lines = pointLines(tests);
    assert.match(
      lines[0]!,
      /^✔ {2}1 Why +1 passed, 0 failed, 0 skipped +test\/lab\/service-extras\.test\.ts$/,
    );
    assert.ok(lines.slice(1).every((line) => line.startsWith('✖')));
  });
});
