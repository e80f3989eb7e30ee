/**
 * Text scenarios as etcd's raft has them (the format of cockroachdb/datadriven): a directive with
 * arguments, lines of input, `----`, and the expected output up to a blank line. Output that has blank lines itself
 * stands between two lines of `----` and two more.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';

export interface Argument {
  readonly key: string;
  readonly values: readonly string[];
}

export interface Directive {
  readonly command: string;
  readonly arguments: readonly Argument[];
  readonly input: string;
  readonly expected: string;
  /** 1-based line of the directive, for messages. */
  readonly line: number;
}

/** A part of a file: text that is kept as it is, or a directive with its head lines. */
interface Piece {
  readonly head: string;
  readonly directive: Directive | undefined;
}

const separator = '----';

/** The expected output that begins at line `start`, and the line after it. */
function readExpected(lines: readonly string[], start: number): { expected: string; end: number } {
  if (lines[start] !== separator) {
    const blank = lines.indexOf('', start);
    const end = blank === -1 ? lines.length : blank;
    return { expected: `${lines.slice(start, end).join('\n')}\n`, end };
  }
  let end = start + 1;
  while (end < lines.length && !(lines[end] === separator && lines[end + 1] === separator)) end++;
  assert.ok(end < lines.length, `line ${start + 1}: the output between two ---- and two more has no end`);
  assert.ok(!lines[end + 2], `line ${end + 3}: output goes on after its end`);
  return { expected: `${lines.slice(start + 1, end).join('\n')}\n`, end: end + 2 };
}

function parseArguments(text: string, line: number): Argument[] {
  const found: Argument[] = [];
  const pattern = /\s*([^\s=()]+)(?:=(?:\(([^)]*)\)|(\S*)))?/y;
  while (pattern.lastIndex < text.trimEnd().length) {
    const match = pattern.exec(text);
    assert.ok(match, `line ${line}: cannot read the arguments of: ${text}`);
    const [, key, list, single] = match;
    if (list !== undefined) {
      found.push({ key: key!, values: list.split(',').map((value) => value.trim()) });
    } else {
      found.push({ key: key!, values: single === undefined ? [] : [single] });
    }
  }
  return found;
}

function parsePieces(text: string): Piece[] {
  const lines = text.split('\n');
  const pieces: Piece[] = [];
  for (let at = 0; at < lines.length; ) {
    const first = lines[at]!;
    if (first.trim() === '' || first.startsWith('#')) {
      pieces.push({ head: first, directive: undefined });
      at++;
      continue;
    }
    const start = at;
    let directive = first;
    while (directive.endsWith('\\')) directive = directive.slice(0, -1) + lines[++at]!;
    at++;
    const inputStart = at;
    while (at < lines.length && lines[at] !== separator) at++;
    assert.ok(at < lines.length, `line ${start + 1}: the directive has no ----`);
    const input = lines.slice(inputStart, at).join('\n');
    const expectedStart = ++at;
    const { expected, end } = readExpected(lines, expectedStart);
    at = end;
    const [command, ...rest] = directive.split(/\s+/);
    pieces.push({
      head: lines.slice(start, expectedStart).join('\n'),
      directive: {
        command: command!,
        arguments: parseArguments(rest.join(' '), start + 1),
        input,
        expected,
        line: start + 1,
      },
    });
  }
  return pieces;
}

/** The directives of a scenario, in order. */
export function parseScenario(text: string): Directive[] {
  return parsePieces(text).flatMap((piece) => (piece.directive === undefined ? [] : [piece.directive]));
}

export interface RunOptions {
  /** Applied to both sides before they are compared. */
  readonly normalise?: (output: string) => string;
  /** Writes what came out into the file instead of comparing. */
  readonly rewrite?: boolean;
}

/** Runs a file's directives one after another and compares each output with the expected one. */
export function runScenario(
  path: string,
  handle: (directive: Directive) => string,
  { normalise = (output) => output, rewrite = false }: RunOptions = {},
): void {
  const pieces = parsePieces(fs.readFileSync(path, 'utf8'));
  const rewritten: string[] = [];
  for (const { head, directive } of pieces) {
    rewritten.push(head);
    if (directive === undefined) continue;
    const raw = handle(directive);
    const actual = raw.endsWith('\n') ? raw : `${raw}\n`;
    const written = actual.slice(0, -1);
    const isPlain = !written.split('\n').includes('') && !written.startsWith(separator);
    rewritten.push(isPlain ? written : [separator, written, separator, separator].join('\n'));
    if (rewrite) continue;
    const where = `${path}:${directive.line}: ${directive.command}`;
    assert.equal(normalise(actual), normalise(directive.expected), where);
  }
  if (rewrite) fs.writeFileSync(path, rewritten.join('\n'));
}

/** The one value of an argument, if it is given. */
export function singleValue(directive: Directive, key: string): string | undefined {
  return directive.arguments.find((argument) => argument.key === key)?.values[0];
}

/** The values of a list argument as numbers; empty if it is not given. */
export function numbersOf(directive: Directive, key: string): number[] {
  const values = directive.arguments.find((argument) => argument.key === key)?.values ?? [];
  return values.map(Number);
}

/** The arguments without a value, as numbers. */
export function plainNumbers(directive: Directive): number[] {
  return directive.arguments.filter((argument) => argument.values.length === 0).map(({ key }) => Number(key));
}
