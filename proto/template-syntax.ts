/**
 * The syntax of the templates that Swarm's users write, which are Go's (text/template): actions in {{ }} with trim markers,
 * fields, variables, pipes, parentheses, functions, if, with, range, else and end. Pure: text in, a tree out, or a refusal that
 * names the action. What of Go's is not in it (define, template, block, break, continue) is refused by name.
 */
import { ShoalError } from './errors.ts';

/** What stands for a value. `path`: names that follow, with dots. */
export type Operand =
  | { readonly kind: 'literal'; readonly value: string | number | boolean }
  | { readonly kind: 'dot'; readonly path: readonly string[] }
  | { readonly kind: 'variable'; readonly name: string; readonly path: readonly string[] }
  | { readonly kind: 'pipe'; readonly pipe: Pipe; readonly path: readonly string[] };

/** One part of a pipe: a value, or a function with its arguments, to which the part before adds the last. */
export type Command =
  | { readonly kind: 'value'; readonly operand: Operand }
  | { readonly kind: 'call'; readonly name: string; readonly args: readonly Operand[] };

export interface Pipe {
  /** As written, for messages. */
  readonly text: string;
  readonly commands: readonly Command[];
}

export type Node =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'show'; readonly pipe: Pipe }
  | { readonly kind: 'set'; readonly name: string; readonly pipe: Pipe }
  | {
      readonly kind: 'if' | 'with' | 'range';
      /** Variables that it sets for its body. */
      readonly names: readonly string[];
      readonly pipe: Pipe;
      readonly body: readonly Node[];
      readonly otherwise: readonly Node[];
    };

type Token =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'action'; readonly text: string };

const mostNested = 50;

/** Reads a template. Throws 'invalid-argument' that names the action that can't be read. */
export function parseTemplate(source: string): readonly Node[] {
  const reader = new Reader(tokenize(source));
  const nodes = reader.nodes(0);
  const rest = reader.next();
  if (rest !== undefined) throw refused(rest.text, 'there is nothing that it ends');
  return nodes;
}

/** A fault of one action. */
export function refused(action: string, reason: string): ShoalError {
  return new ShoalError('invalid-argument', `expanding template {{${action}}} failed: ${reason}`);
}

// ---------------------------------------------------------------- actions and text

const actionForm = /\{\{((?:"(?:\\.|[^"\\])*"|`[^`]*`|\/\*[\s\S]*?\*\/|[^}"`]|\}(?!\}))*?)\}\}/g;

function tokenize(source: string): Token[] {
  const tokens: Token[] = [];
  let end = 0;
  let trims = false;
  const addText = (text: string): void => {
    if (text.includes('{{')) throw refused(text.slice(text.indexOf('{{') + 2), 'it is not closed');
    const kept = trims ? text.trimStart() : text;
    if (kept !== '') tokens.push({ kind: 'text', text: kept });
  };
  for (const match of source.matchAll(actionForm)) {
    let body = match[1]!;
    let before = source.slice(end, match.index);
    if (/^-\s/.test(body)) {
      before = before.trimEnd();
      body = body.slice(1);
    }
    addText(before);
    trims = /\s-$/.test(body);
    if (trims) body = body.slice(0, -1);
    body = body.trim();
    if (!/^\/\*[\s\S]*\*\/$/.test(body)) tokens.push({ kind: 'action', text: body });
    end = match.index + match[0].length;
  }
  addText(source.slice(end));
  return tokens;
}

class Reader {
  readonly #tokens: readonly Token[];
  #at = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  next(): Token | undefined {
    return this.#tokens[this.#at];
  }

  /** Up to an `else` or `end`, which is left to whoever began, or to the end of all. */
  nodes(depth: number): readonly Node[] {
    const nodes: Node[] = [];
    for (let token = this.next(); token !== undefined; token = this.next()) {
      if (token.kind === 'action' && /^(?:end|else\b[\s\S]*)$/.test(token.text)) break;
      this.#at += 1;
      nodes.push(token.kind === 'text' ? token : this.#action(token.text, depth));
    }
    return nodes;
  }

  #action(text: string, depth: number): Node {
    const [, word, rest = ''] = /^([a-z]+)\b\s*([\s\S]*)$/.exec(text) ?? [];
    if (word === 'if' || word === 'with' || word === 'range') return this.#block(word, text, rest, depth + 1);
    if (word !== undefined && ['define', 'template', 'block', 'break', 'continue'].includes(word))
      throw refused(text, `"${word}" is not supported`);
    const { names, pipe } = readAssignment(text);
    if (names.length === 0) return { kind: 'show', pipe };
    if (names.length > 1) throw refused(text, 'two variables can only be set by range');
    return { kind: 'set', name: names[0]!, pipe };
  }

  #block(kind: 'if' | 'with' | 'range', text: string, head: string, depth: number): Node {
    if (depth > mostNested) throw refused(text, `it is nested more than ${mostNested} deep`);
    const { names, pipe } = readAssignment(head, text);
    if (names.length > 1 && kind !== 'range') throw refused(text, 'two variables can only be set by range');
    const body = this.nodes(depth);
    const closing = this.next();
    if (closing === undefined) throw refused(text, 'it has no {{end}}');
    this.#at += 1;
    if (closing.text === 'end') return { kind, names, pipe, body, otherwise: [] };
    const [, chained, rest = ''] = /^else\s+(if|with)\b\s*([\s\S]*)$/.exec(closing.text) ?? [];
    if (chained !== undefined) {
      // It shares the end.
      const next = this.#block(chained as 'if' | 'with', closing.text, rest, depth + 1);
      return { kind, names, pipe, body, otherwise: [next] };
    }
    if (closing.text !== 'else') throw refused(closing.text, 'else is followed by nothing, if or with');
    const otherwise = this.nodes(depth);
    if (this.next()?.text !== 'end') throw refused(text, 'it has no {{end}}');
    this.#at += 1;
    return { kind, names, pipe, body, otherwise };
  }
}

// ---------------------------------------------------------------- pipes

function readAssignment(text: string, whole = text): { names: string[]; pipe: Pipe } {
  const match = /^(\$\w*)(?:\s*,\s*(\$\w+))?\s*:?=\s*([\s\S]*)$/.exec(text);
  const names = match ? [match[1]!, ...(match[2] === undefined ? [] : [match[2]])] : [];
  return { names, pipe: readPipe(match?.[3] ?? text, whole) };
}

const wordForm = /"(?:\\.|[^"\\])*"|`[^`]*`|\(|\)|\||,|[^\s()|,"`]+/g;

function readPipe(text: string, whole: string): Pipe {
  const words = text.match(wordForm) ?? [];
  const { pipe, end } = pipeFrom(words, 0, whole);
  if (end < words.length) throw refused(whole, `"${words[end]}" is not understood here`);
  return pipe;
}

function pipeFrom(words: readonly string[], start: number, whole: string): { pipe: Pipe; end: number } {
  const commands: Command[] = [];
  for (let at = start; ; at += 1) {
    const { command, end } = commandFrom(words, at, whole);
    if (command.kind === 'value' && commands.length > 0)
      throw refused(whole, 'only a function can take what is piped to it');
    commands.push(command);
    at = end;
    if (words[at] !== '|') return { pipe: { text: whole, commands }, end: at };
  }
}

function commandFrom(
  words: readonly string[],
  start: number,
  whole: string,
): { command: Command; end: number } {
  const first = words[start];
  if (first === undefined || first === '|' || first === ')') throw refused(whole, 'it is empty');
  const isCall = /^[a-zA-Z]\w*$/.test(first) && !['true', 'false', 'nil'].includes(first);
  const args: Operand[] = [];
  let at = isCall ? start + 1 : start;
  while (at < words.length && words[at] !== '|' && words[at] !== ')') {
    const { operand, end } = operandFrom(words, at, whole);
    args.push(operand);
    at = end;
  }
  if (isCall) return { command: { kind: 'call', name: first, args }, end: at };
  if (args.length > 1) throw refused(whole, `"${first}" is no function, and takes no arguments`);
  return { command: { kind: 'value', operand: args[0]! }, end: at };
}

function operandFrom(words: readonly string[], at: number, whole: string): { operand: Operand; end: number } {
  const word = words[at]!;
  if (word !== '(') return { operand: operandOf(word, whole), end: at + 1 };
  const { pipe, end } = pipeFrom(words, at + 1, whole);
  if (words[end] !== ')') throw refused(whole, 'a ( has no )');
  const follows = /^\.\w/.test(words[end + 1] ?? '');
  const path = follows ? words[end + 1]!.split('.').slice(1) : [];
  return { operand: { kind: 'pipe', pipe, path }, end: follows ? end + 2 : end + 1 };
}

const pathForm = /^(?:\.|(?:\.\w+)+)$/;

function operandOf(word: string, whole: string): Operand {
  if (word.startsWith('"') || word.startsWith('`')) return { kind: 'literal', value: unquote(word) };
  if (word === 'true' || word === 'false') return { kind: 'literal', value: word === 'true' };
  if (/^-?\d{1,15}(?:\.\d{1,9})?$/.test(word)) return { kind: 'literal', value: Number(word) };
  if (pathForm.test(word)) return { kind: 'dot', path: word === '.' ? [] : word.split('.').slice(1) };
  const [, name, path] = /^(\$\w*)((?:\.\w+)*)$/.exec(word) ?? [];
  if (name !== undefined) return { kind: 'variable', name, path: path!.split('.').slice(1) };
  if (/^[a-zA-Z]\w*$/.test(word))
    throw refused(whole, `a function that is an argument stands in parentheses: (${word} …)`);
  throw refused(whole, `"${word}" is not understood here`);
}

const escapes: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r' };

function unquote(word: string): string {
  if (word.startsWith('`')) return word.slice(1, -1);
  return word.slice(1, -1).replace(/\\(.)/g, (_, character: string) => escapes[character] ?? character);
}
