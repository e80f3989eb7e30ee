/**
 * The subset of Go's templates that `--format` is used with: fields and paths, variables of a range, if,
 * else, range, with, pipes, and docker's functions (json, join, upper, lower, title, split, len, index, eq,
 * ne, not, and, or, print, println, printf). Pure: template and value in, text out.
 */
import { UsageError } from './usage.ts';

type Node =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'value'; readonly pipe: string }
  | { readonly kind: 'set'; readonly names: readonly string[]; readonly pipe: string }
  | {
      readonly kind: 'if' | 'range' | 'with';
      readonly pipe: string;
      readonly names: readonly string[];
      readonly body: readonly Node[];
      readonly otherwise: readonly Node[];
    };

interface Scope {
  readonly dot: unknown;
  readonly variables: ReadonlyMap<string, unknown>;
}

/** A template ready to be filled in. Throws UsageError when it is malformed. */
export function parseTemplate(template: string): (value: unknown) => string {
  const source = template.replaceAll('\\t', '\t').replaceAll('\\n', '\n');
  const tokens = tokenize(source);
  const { nodes, end } = parseNodes(tokens, 0);
  if (end < tokens.length) throw malformed(`unexpected {{${tokens[end]!.text}}}`);
  return (value) => fill(nodes, { dot: value, variables: new Map([['$', value]]) });
}

function malformed(reason: string): UsageError {
  return new UsageError(`--format: template parsing error: ${reason}`);
}

// ---------------------------------------------------------------- reading

interface Token {
  readonly kind: 'text' | 'action';
  readonly text: string;
}

function tokenize(source: string): Token[] {
  const tokens: Token[] = [];
  let rest = source;
  for (;;) {
    const open = rest.indexOf('{{');
    if (open < 0) break;
    let before = rest.slice(0, open);
    const close = rest.indexOf('}}', open);
    if (close < 0) throw malformed('a {{ has no }}');
    let inner = rest.slice(open + 2, close);
    rest = rest.slice(close + 2);
    if (/^-\s/.test(inner)) {
      before = before.trimEnd();
      inner = inner.slice(1);
    }
    if (/\s-$/.test(inner)) {
      rest = rest.trimStart();
      inner = inner.slice(0, -1);
    }
    if (before !== '') tokens.push({ kind: 'text', text: before });
    if (!inner.trim().startsWith('/*')) tokens.push({ kind: 'action', text: inner.trim() });
  }
  if (rest !== '') tokens.push({ kind: 'text', text: rest });
  return tokens;
}

function parseNodes(tokens: readonly Token[], start: number): { nodes: Node[]; end: number } {
  const nodes: Node[] = [];
  let at = start;
  while (at < tokens.length) {
    const token = tokens[at]!;
    if (token.kind === 'text') nodes.push({ kind: 'text', text: token.text });
    else if (/^(end|else\b.*)$/.test(token.text)) return { nodes, end: at };
    else {
      const block = /^(if|range|with)\s+(.*)$/s.exec(token.text);
      if (block) {
        const parsed = parseBlock(tokens, at, block[1] as 'if' | 'range' | 'with', block[2]!);
        nodes.push(parsed.node);
        at = parsed.end;
      } else {
        const { names, pipe } = splitAssignment(token.text);
        nodes.push(names.length > 0 ? { kind: 'set', names, pipe } : { kind: 'value', pipe });
      }
    }
    at += 1;
  }
  return { nodes, end: at };
}

/** A block from its opening to its {{end}}; `else if` is an if inside of else that shares the end. */
function parseBlock(
  tokens: readonly Token[],
  start: number,
  kind: 'if' | 'range' | 'with',
  head: string,
): { node: Node; end: number } {
  const { names, pipe } = splitAssignment(head);
  const body = parseNodes(tokens, start + 1);
  const closing = tokens[body.end];
  if (!closing) throw malformed(`{{${kind}}} has no {{end}}`);
  if (closing.text === 'end') {
    return { node: { kind, pipe, names, body: body.nodes, otherwise: [] }, end: body.end };
  }
  const chained = /^else\s+(if|with)\s+(.*)$/s.exec(closing.text);
  if (chained) {
    const next = parseBlock(tokens, body.end, chained[1] as 'if' | 'with', chained[2]!);
    return { node: { kind, pipe, names, body: body.nodes, otherwise: [next.node] }, end: next.end };
  }
  const otherwise = parseNodes(tokens, body.end + 1);
  if (tokens[otherwise.end]?.text !== 'end') throw malformed(`{{${kind}}} has no {{end}}`);
  return {
    node: { kind, pipe, names, body: body.nodes, otherwise: otherwise.nodes },
    end: otherwise.end,
  };
}

function splitAssignment(text: string): { names: string[]; pipe: string } {
  const match = /^(\$\w+)(?:\s*,\s*(\$\w+))?\s*:?=\s*(.*)$/s.exec(text);
  if (!match) return { names: [], pipe: text };
  return {
    names: [match[1]!, match[2]].filter((name): name is string => name !== undefined),
    pipe: match[3]!,
  };
}

// ---------------------------------------------------------------- filling in

function fill(nodes: readonly Node[], scope: Scope): string {
  let text = '';
  let current = scope;
  for (const node of nodes) {
    switch (node.kind) {
      case 'text':
        text += node.text;
        break;
      case 'value':
        text += show(evaluate(node.pipe, current));
        break;
      case 'set':
        current = bound(current, node.names.slice(0, 1), [evaluate(node.pipe, current)]);
        break;
      case 'range':
        text += fillRange(node, current);
        break;
      default: {
        const value = evaluate(node.pipe, current);
        const inside = bound(current, node.names.slice(0, 1), [value]);
        const dot = node.kind === 'with' ? value : current.dot;
        text += isTrue(value) ? fill(node.body, { ...inside, dot }) : fill(node.otherwise, current);
      }
    }
  }
  return text;
}

function bound(scope: Scope, names: readonly string[], values: readonly unknown[]): Scope {
  const variables = new Map(scope.variables);
  for (const [index, name] of names.entries()) variables.set(name, values[index]);
  return { ...scope, variables };
}

function fillRange(
  node: Extract<Node, { names: readonly string[]; body: readonly Node[] }>,
  scope: Scope,
): string {
  const value = evaluate(node.pipe, scope);
  const entries: [unknown, unknown][] = Array.isArray(value)
    ? [...value.entries()]
    : typeof value === 'object' && value !== null
      ? Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
      : [];
  if (entries.length === 0) return fill(node.otherwise, scope);
  return entries
    .map(([key, item]) => {
      const values = node.names.length === 1 ? [item] : [key, item];
      return fill(node.body, { ...bound(scope, node.names, values), dot: item });
    })
    .join('');
}

function isTrue(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (typeof value === 'object' && value !== null) return Object.keys(value).length > 0;
  return Boolean(value);
}

/** A value as Go prints it, near enough: lists in brackets, maps as map[key:value], nothing as <no value>. */
function show(value: unknown): string {
  if (value === undefined || value === null) return '<no value>';
  if (Array.isArray(value)) return `[${value.map(show).join(' ')}]`;
  if (typeof value !== 'object') return String(value);
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `map[${entries.map(([key, item]) => `${key}:${show(item)}`).join(' ')}]`;
}

// ---------------------------------------------------------------- expressions

const wordPattern = /"(?:[^"\\]|\\.)*"|`[^`]*`|\(|\)|\||[^\s()|]+/g;

function evaluate(pipe: string, scope: Scope): unknown {
  const words = pipe.match(wordPattern) ?? [];
  if (words.length === 0) throw malformed('missing value for command');
  const { value, end } = evaluatePipe(words, 0, scope);
  if (end < words.length) throw malformed(`unexpected "${words[end]}"`);
  return value;
}

function evaluatePipe(
  words: readonly string[],
  start: number,
  scope: Scope,
): { value: unknown; end: number } {
  let at = start;
  let piped: { value: unknown } | undefined;
  for (;;) {
    const args: unknown[] = [];
    const name = words[at];
    const isCall = name !== undefined && /^[a-z]\w*$/.test(name) && !['true', 'false', 'nil'].includes(name);
    if (isCall) at += 1;
    while (at < words.length && words[at] !== '|' && words[at] !== ')') {
      if (words[at] === '(') {
        const inner = evaluatePipe(words, at + 1, scope);
        if (words[inner.end] !== ')') throw malformed('a ( has no )');
        args.push(inner.value);
        at = inner.end + 1;
        // `(index .A 0).B`: a path that follows a parenthesis.
        if (words[at]?.startsWith('.')) args.push(follow(args.pop(), words[at++]!.slice(1)));
      } else args.push(operand(words[at++]!, scope));
    }
    if (piped) args.push(piped.value);
    if (!isCall && args.length !== 1)
      throw malformed(`can't give arguments to non-function in "${words.join(' ')}"`);
    piped = { value: isCall ? call(name, args) : args[0] };
    if (words[at] !== '|') return { value: piped.value, end: at };
    at += 1;
  }
}

function operand(word: string, scope: Scope): unknown {
  if (word.startsWith('"')) return JSON.parse(word) as string;
  if (word.startsWith('`')) return word.slice(1, -1);
  if (word === '.') return scope.dot;
  if (word.startsWith('.')) return follow(scope.dot, word.slice(1));
  if (word.startsWith('$')) {
    const [name, ...path] = word.split('.');
    if (!scope.variables.has(name!)) throw malformed(`undefined variable "${name}"`);
    return follow(scope.variables.get(name!), path.join('.'));
  }
  if (word === 'true' || word === 'false') return word === 'true';
  if (word === 'nil') return undefined;
  if (/^-?\d+(\.\d+)?$/.test(word)) return Number(word);
  throw malformed(`unexpected "${word}"`);
}

function follow(value: unknown, path: string): unknown {
  if (path === '') return value;
  let current = value;
  for (const key of path.split('.')) {
    if (typeof current !== 'object' || current === null) return undefined;
    current = Object.hasOwn(current, key) ? (current as Record<string, unknown>)[key] : undefined;
  }
  return current;
}

type TemplateFunction = (...args: unknown[]) => unknown;

const functions: Record<string, TemplateFunction> = {
  json: (value) => JSON.stringify(value ?? null),
  join: (list, separator) => (Array.isArray(list) ? list.map(String).join(String(separator)) : ''),
  split: (text, separator) => String(text).split(String(separator)),
  upper: (text) => String(text).toUpperCase(),
  lower: (text) => String(text).toLowerCase(),
  title: (text) => String(text).replace(/\b\p{L}/gu, (letter) => letter.toUpperCase()),
  println: (...values) => `${values.map(show).join(' ')}\n`,
  print: (...values) => values.map(show).join(''),
  printf: (pattern, ...values) => printf(String(pattern), values),
  pad: (text, before, after) => `${' '.repeat(Number(before))}${text}${' '.repeat(Number(after))}`,
  truncate: (text, length) => String(text).slice(0, Number(length)),
  len: (value) =>
    typeof value === 'string' || Array.isArray(value) ? value.length : Object.keys(value ?? {}).length,
  index: (value, ...keys) =>
    keys.reduce(
      (current: unknown, key) =>
        typeof current === 'object' && current !== null
          ? (current as Record<string, unknown>)[String(key)]
          : undefined,
      value,
    ),
  eq: (value, ...others) => others.some((other) => other === value),
  ne: (value, other) => value !== other,
  lt: (a, b) => (a as number) < (b as number),
  gt: (a, b) => (a as number) > (b as number),
  not: (value) => !isTrue(value),
  and: (...values) => values.find((value) => !isTrue(value)) ?? values.at(-1),
  or: (...values) => values.find(isTrue) ?? values.at(-1),
};

function call(name: string, args: readonly unknown[]): unknown {
  const found = Object.hasOwn(functions, name) ? functions[name] : undefined;
  if (!found) throw malformed(`function "${name}" not defined`);
  return found(...args);
}

function printf(pattern: string, values: readonly unknown[]): string {
  let next = 0;
  return pattern.replace(/%(-?)(\d*)([svdqt%])/g, (_whole, left: string, width: string, verb: string) => {
    if (verb === '%') return '%';
    const value = values[next++];
    const text = verb === 'q' ? JSON.stringify(String(value)) : show(value);
    return left === '-' ? text.padEnd(Number(width)) : text.padStart(Number(width));
  });
}
