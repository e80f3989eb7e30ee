/** docs/checklist-swarmkit.md and docs/services.md promise that behaviours are tested, and by what: that must stay true. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const table = join(root, 'docs', 'checklist-swarmkit.md');

interface Row {
  readonly name: string;
  readonly file: string;
  /** A title of ours where `file` is one; else why there is none. */
  readonly text: string;
}

function rows(): Map<string, Row[]> {
  const sections = new Map<string, Row[]>();
  let section = '';
  for (const line of readFileSync(table, 'utf8').split('\n')) {
    const heading = /^## ([^:]+)/.exec(line);
    if (heading) section = heading[1]!;
    const row = /^\| (Test\w+) +\| (?:`([^`]+)`)? *\| (.*\S) +\|$/.exec(line);
    if (!row) continue;
    const [, name = '', file = '', text = ''] = row;
    sections.set(section, [...(sections.get(section) ?? []), { name, file, text }]);
  }
  return sections;
}

/** A title as it may stand in a file: between quotes, with those inside it escaped. */
function isTitleIn(source: string, title: string): boolean {
  const written = [title, title.replaceAll("'", "\\'")];
  return written.some((text) =>
    ["'", '"', '`'].some((quote) => source.includes(`it(${quote}${text}${quote}`)),
  );
}

describe('checklist of SwarmKit', () => {
  it('has a row for every name', () => {
    const counts = Object.fromEntries([...rows()].map(([section, list]) => [section, list.length]));
    assert.deepEqual(counts, { Scheduler: 35, Orchestrators: 59, 'Control API': 97, Dispatcher: 31 });
  });

  it('names tests that exist', () => {
    const missing = [...rows().values()].flat().flatMap(({ name, file, text }) => {
      if (file === '') return text.length > 10 ? [] : [`${name}: no reason`];
      const title = /^`+ ?(.*?) ?`+$/.exec(text)?.[1] ?? '';
      if (!existsSync(join(root, file))) return [`${name}: there is no ${file}`];
      return isTitleIn(readFileSync(join(root, file), 'utf8'), title)
        ? []
        : [`${name}: ${file} has no "${title}"`];
    });
    assert.deepEqual(missing, []);
  });
});

/** Files, and titles in them, that a cell names: `file` “title” “title”; `file`. */
function shownBy(cell: string): { file: string; titles: string[] }[] {
  return [...cell.matchAll(/`([\w-]+(?:\/[\w-]+)*)`((?: “[^”]*”)*)/g)].map(([, file = '', titles = '']) => ({
    file: join('test', `${file}.test.ts`),
    titles: [...titles.matchAll(/“([^”]*)”/g)].map(([, title = '']) => title),
  }));
}

describe('what docs/services.md says is shown', () => {
  const page = readFileSync(join(root, 'docs', 'services.md'), 'utf8');
  const shown = page.slice(page.indexOf('## What shows it')).split('\n');
  const cells = shown
    .filter((line) => line.startsWith('| ') && !/^\| (what|number|-+) /.test(line))
    .map((line) => line.split('|').map((cell) => cell.trim()))
    .map((row) => (/^\d+$/.test(row[1]!) ? row[6]! : row[2]!));

  it('is there, for each thing that Swarm has and each that it never had', () => {
    assert.equal(cells.length, 23 + 10);
    const faults = cells.flatMap((cell) => {
      const named = shownBy(cell);
      if (named.length === 0) return /`npm run bench/.test(cell) ? [] : [`nothing is named: ${cell}`];
      return named.flatMap(({ file, titles }) => {
        if (!existsSync(join(root, file))) return [`there is no ${file}`];
        const source = readFileSync(join(root, file), 'utf8');
        return titles
          .filter((title) => !isTitleIn(source, title))
          .map((title) => `${file} has no "${title}"`);
      });
    });
    assert.deepEqual(faults, []);
  });
});
