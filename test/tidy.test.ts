/**
 * The house of DESIGN as a test: which room may import which, what pure files may not touch, where time
 * and chance stand, that files and functions stay readable, and that no file is dead.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = findRoot(dirname(fileURLToPath(import.meta.url)));
const rooms = ['proto', 'manager', 'agent', 'cli', 'test', 'deploy'];
const maximumFileLines = 520;
const maximumFunctionLines = 90;

function findRoot(start: string): string {
  return existsSync(join(start, 'package.json')) ? start : findRoot(dirname(start));
}

function filesBelow(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === 'generated' ? [] : filesBelow(path);
    return entry.name.endsWith('.ts') ? [path] : [];
  });
}

interface SourceFile {
  /** From the root, e.g. manager/raft/wal.ts. */
  path: string;
  text: string;
  /** Local imports, from the root. */
  imports: string[];
  /** Package and node: imports. */
  packages: string[];
}

function read(path: string): SourceFile {
  const text = readFileSync(path, 'utf8');
  const specifiers = [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map((match) => match[1]!);
  return {
    path: relative(root, path),
    text,
    imports: specifiers
      .filter((name) => name.startsWith('.'))
      .map((name) => relative(root, normalize(join(dirname(path), name)))),
    packages: specifiers.filter((name) => !name.startsWith('.')),
  };
}

const files = rooms.flatMap((room) => filesBelow(join(root, room))).map(read);
const sources = files.filter((file) => !file.path.startsWith('test/'));

/** The text without comments, strings kept. */
function code(file: SourceFile): string {
  return file.text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '$1');
}

const siblings = [
  'orchestrator',
  'scheduler',
  'allocator',
  'stack',
  'dispatcher',
  'ca',
  'backup',
  'logs',
  'exec',
  'usage',
  'api',
  'raft',
  'store',
];

/** What a file in `manager/<room>` may import besides its own room. */
const managerMayImport: Record<string, string[]> = {
  store: ['proto'],
  raft: ['proto'],
  orchestrator: ['proto', 'manager/store'],
  scheduler: ['proto', 'manager/store'],
  allocator: ['proto', 'manager/store'],
  stack: ['proto', 'manager/store'],
  dispatcher: ['proto', 'manager/store'],
  ca: ['proto', 'manager/store'],
  backup: ['proto', 'manager/store', 'manager/ca'],
  logs: ['proto', 'manager/store'],
  exec: ['proto', 'manager/store'],
  usage: ['proto', 'manager/store'],
  api: ['proto', 'manager/store', 'manager/stack', 'manager/ca', 'manager/logs', 'manager/exec'],
};

function mayImport(from: string, to: string): boolean {
  const [floor, room] = from.split('/');
  const below = (folder: string) => to.startsWith(`${folder}/`);
  switch (floor) {
    case 'proto':
      return below('proto');
    case 'agent':
      return below('agent') || below('proto');
    case 'cli':
      return ['cli', 'manager', 'agent', 'proto'].some(below);
    case 'manager':
      if (!siblings.includes(room!)) return below('manager') || below('proto');
      return below(`manager/${room}`) || managerMayImport[room!]!.some(below);
    default:
      return true;
  }
}

function isPure(path: string): boolean {
  if (path === 'manager/orchestrator/loop.ts') return false;
  return (
    /^manager\/(raft\/core|orchestrator|scheduler|allocator|stack)\//.test(path) ||
    /^agent\/network\/(arrival|desired|firewall|links|names|nftables|proxied|proxy-header|reconcile|ruleset|trace)\.ts$/.test(
      path,
    ) ||
    /^manager\/dispatcher\/endpoint-state\.ts$/.test(path) ||
    /\/(plan|wire|container-spec|transition)\.ts$/.test(path)
  );
}

/** Functions and methods that are longer than a screen, by their indentation: the formatter keeps it regular. */
function longFunctions(file: SourceFile): string[] {
  const lines = file.text.split('\n');
  return lines.flatMap((line, start) => {
    const indent = /^ */.exec(line)![0];
    if (indent.length > 2 || !startsFunction(lines, start, indent)) return [];
    const length = lines.findIndex((other, at) => at > start && other === `${indent}}`) - start + 1;
    return length > maximumFunctionLines ? [`${file.path}:${start + 1}: ${length} lines`] : [];
  });
}

/** Whether a function's head begins here: `name(…) {` on one line, or its parameters on lines of their own. */
function startsFunction(lines: readonly string[], start: number, indent: string): boolean {
  const line = lines[start]!.trim();
  if (!/^[#\w$ *<>,[\]]+\(/.test(line) || /^(if|for|while|switch|return|catch|await)\b/.test(line))
    return false;
  if (line.endsWith('{')) return true;
  if (!line.endsWith('(')) return false;
  const close = lines.slice(start + 1).find((other) => other.startsWith(`${indent})`));
  return close?.endsWith('{') ?? false;
}

describe('tidy', () => {
  it('imports go down the house only', () => {
    const wrong = files.flatMap((file) =>
      file.imports.filter((to) => !mayImport(file.path, to)).map((to) => `${file.path} imports ${to}`),
    );
    assert.deepEqual(wrong, []);
  });

  it('every local import names a file that exists', () => {
    const known = new Set(files.map((file) => file.path));
    const wrong = files.flatMap((file) =>
      file.imports
        .filter((to) => to.endsWith('.ts') && !to.startsWith('proto/generated/') && !known.has(to))
        .map((to) => `${file.path} imports ${to}`),
    );
    assert.deepEqual(wrong, []);
  });

  it('pure files touch no node module, wait for nothing and take time as an argument', () => {
    const wrong = sources
      .filter((file) => isPure(file.path))
      .flatMap((file) => [
        ...file.packages
          .filter((name) => name.startsWith('node:'))
          .map((name) => `${file.path} imports ${name}`),
        ...(/\b(await|async)\b/.test(code(file)) ? [`${file.path} waits`] : []),
      ]);
    assert.deepEqual(wrong, []);
  });

  it('time, timers and chance stand in cli/runtime.ts only', () => {
    const forbidden =
      /\b(Date\.now|Math\.random|performance\.now|process\.hrtime|setTimeout|setInterval|setImmediate|new Date\(\))/;
    const wrong = sources
      .filter((file) => file.path !== 'cli/runtime.ts')
      .filter((file) => forbidden.test(code(file)))
      .map((file) => `${file.path}: ${forbidden.exec(code(file))?.[0]}`);
    assert.deepEqual(wrong, []);
  });

  it('adapters own their effects', () => {
    const owners: Record<string, RegExp> = {
      dockerode: /^agent\/engine\/docker\.ts$/,
      '@peculiar/x509': /^proto\/x509\.ts$/,
      express: /^manager\/api\//,
      pino: /^cli\/runtime\.ts$/,
      'prom-client': /^manager\/metrics\.ts$/,
      yaml: /^manager\/stack\//,
    };
    const wrong = sources.flatMap((file) =>
      file.packages
        .filter((name) => name in owners && !owners[name]!.test(file.path))
        .map((name) => `${file.path} imports ${name}`),
    );
    assert.deepEqual(wrong, []);
  });

  it('no file is dead: each is imported, a test, or a program', () => {
    const imported = new Set(files.flatMap((file) => file.imports));
    const programs =
      /^(cli\/(shoald?|shoal-names)\.ts|test\/.*\.test\.ts|test\/(run|simulate|faults|mutants|scenarios)\.ts|test\/workers\/worker\.ts|test\/bench\/bench\.ts|test\/lab\/cli\.ts|deploy\/demo\.ts)$/;
    const usedByProduct = new Set(sources.flatMap((file) => file.imports));
    const dead = files
      .filter((file) => !programs.test(file.path))
      .filter((file) =>
        file.path.startsWith('test/') ? !imported.has(file.path) : !usedByProduct.has(file.path),
      )
      .map((file) => file.path);
    assert.deepEqual(dead, []);
  });

  it('names no junk drawer', () => {
    const wrong = files.filter((file) => /(^|\/)(utils?|helpers?|common|misc)(\/|\.ts$)/.test(file.path));
    assert.deepEqual(
      wrong.map((file) => file.path),
      [],
    );
  });

  it(`files stay below ${maximumFileLines} lines`, () => {
    const wrong = files
      .map((file) => ({ path: file.path, lines: file.text.split('\n').length }))
      .filter((file) => file.lines > maximumFileLines);
    assert.deepEqual(wrong, []);
  });

  it(`functions stay below ${maximumFunctionLines} lines`, () => {
    assert.deepEqual(sources.flatMap(longFunctions), []);
  });

  it("every folder's main file opens with its contract", () => {
    const mains = sources.filter((file) => {
      const parts = file.path.split('/');
      return parts.length >= 2 && parts.at(-1) === `${parts.at(-2)}.ts`;
    });
    const wrong = mains.filter((file) => !file.text.startsWith('/**')).map((file) => file.path);
    assert.deepEqual(wrong, []);
  });
});
