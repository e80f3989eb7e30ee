/** docs/checklist-raft.md against the code: every property of etcd's raft has a test of ours that exists. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { findCorpus } from '../../corpus.ts';

// This file runs from dist/test/manager/raft.
const root = resolve(import.meta.dirname, '../../../..');
const page = readFileSync(join(root, 'docs/checklist-raft.md'), 'utf8');
const lists = join(findCorpus(), 'checklists');

interface Row {
  readonly property: string;
  readonly file: string;
  readonly title: string;
}

const rows = [...page.matchAll(/^\| (Test\w+) +\| ([a-z-]+): (.*?) +\|$/gm)].map(
  ([, property = '', file = '', title = '']): Row => ({ property, file, title }),
);

describe('the checklist of raft properties', () => {
  it('has a row for each of the 26 and the 118', () => {
    assert.equal(rows.length, 26 + 118);
    assert.equal(new Set(rows.map(({ property }) => property)).size, rows.length);
  });

  it('names tests that exist', () => {
    for (const { property, file, title } of rows) {
      const text = readFileSync(join(root, 'test/manager/raft/core', `${file}.test.ts`), 'utf8');
      const isThere = [title, title.replaceAll("'", "\\'")].some((words) =>
        ["'", '"', '`'].some((quote) => text.includes(`${quote}${words}${quote}`)),
      );
      assert.ok(isThere, `${property}: no test "${title}" in ${file}.test.ts`);
    }
  });

  for (const name of ['raft_paper_test', 'raft_test']) {
    it(`has all names of ${name} (the collection is ${existsSync(lists) ? '' : 'not '}here)`, function () {
      if (!existsSync(lists)) this.skip();
      const list = readFileSync(join(lists, `raft-checklist-${name}.md`), 'utf8');
      for (const [, property] of list.matchAll(/^- (Test\w+)/gm)) {
        assert.ok(
          rows.some((row) => row.property === property),
          property,
        );
      }
    });
  }
});
