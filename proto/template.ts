/**
 * The templates that Swarm's users write (template-syntax.ts), filled in: {{.Service.Name}}, {{index .Service.Labels "x"}},
 * {{if eq .Task.Slot "1"}}…{{end}}, {{range $key, $value := .Service.Labels}}…{{end}}, {{env "X"}}, {{secret "x"}}. Pure. What it
 * does not know is refused in words and never passed through, for a container would then start with `{{…}}` in its
 * environment. Where Go prints a whole group, such as all labels at once, this refuses: nobody could read it back.
 */
import { assertNever } from './errors.ts';
import {
  type Command,
  type Node,
  type Operand,
  type Pipe,
  parseTemplate,
  refused,
} from './template-syntax.ts';

/** What templates can name; nested names are reached with dots. */
export interface TemplateValues {
  readonly [name: string]: string | TemplateValues;
}

/** Stands for labels of which nothing is known: every name is among them. */
export const anyLabels: TemplateValues = {};

/**
 * What the templates of a service's tasks can name (SwarmKit's), with values that stand for those of a task:
 * for checking a template before there is one. The agent fills in the real ones.
 */
export function exampleValues(service: { Name: string; Labels: TemplateValues }): TemplateValues {
  return {
    Service: { ID: 'service-id', ...service },
    Node: { ID: 'node-id', Hostname: 'hostname', Platform: { Architecture: 'x86_64', OS: 'linux' } },
    Task: { ID: 'task-id', Name: `${service.Name}.1.task-id`, Slot: '1' },
  };
}

/** Functions of one text argument, e.g. env. */
export type TemplateFunctions = Readonly<Record<string, (argument: string) => string>>;

type Value = string | number | boolean | TemplateValues;

/** A template that goes round and round would hold up everybody. */
const mostSteps = 100_000;
const mostCharacters = 4 * 1024 * 1024;

/** Fills in `text`. Throws `invalid-argument` naming the action that it cannot carry out. */
export function expand(text: string, values: TemplateValues, functions: TemplateFunctions = {}): string {
  if (!text.includes('{{')) return text;
  return new Filling(functions, false).fill(parseTemplate(text), scopeOf(values));
}

/**
 * Throws what `expand` would, whichever way a task of another node, slot or with other labels goes: both sides of each
 * condition are tried, and what stands inside of a range even if there is nothing to go over.
 */
export function checkTemplate(text: string, values: TemplateValues, functions: TemplateFunctions = {}): void {
  if (text.includes('{{')) new Filling(functions, true).fill(parseTemplate(text), scopeOf(values));
}

interface Scope {
  readonly dot: Value;
  readonly variables: ReadonlyMap<string, Value>;
  /** A way that is only tried: labels that are not there might be. */
  readonly isTrial: boolean;
}

function scopeOf(values: TemplateValues): Scope {
  return { dot: values, variables: new Map([['$', values]]), isTrial: false };
}

function bound(scope: Scope, names: readonly string[], values: readonly Value[]): Scope {
  const variables = new Map(scope.variables);
  for (const [index, name] of names.entries()) variables.set(name, values[index] ?? '');
  return { ...scope, variables };
}

class Filling {
  readonly #functions: TemplateFunctions;
  readonly #triesAll: boolean;
  #steps = 0;
  #characters = 0;

  constructor(functions: TemplateFunctions, triesAll: boolean) {
    this.#functions = functions;
    this.#triesAll = triesAll;
  }

  fill(nodes: readonly Node[], outer: Scope): string {
    let text = '';
    let scope = outer;
    for (const node of nodes) {
      this.#step(node);
      switch (node.kind) {
        case 'text':
          text += node.text;
          break;
        case 'show':
          text += shown(node.pipe, this.#evaluate(node.pipe, scope));
          break;
        case 'set':
          scope = bound(scope, [node.name], [this.#evaluate(node.pipe, scope)]);
          break;
        case 'range':
          text += this.#range(node, scope);
          break;
        case 'if':
        case 'with':
          text += this.#condition(node, scope);
          break;
        default:
          assertNever(node);
      }
      this.#grow(text.length);
    }
    return text;
  }

  #step(node: Node): void {
    this.#steps += 1;
    if (this.#steps > mostSteps)
      throw refused(node.kind === 'text' ? '…' : node.pipe.text, `it takes more than ${mostSteps} steps`);
  }

  #grow(length: number): void {
    this.#characters = Math.max(this.#characters, length);
    if (this.#characters > mostCharacters)
      throw refused('…', `it makes more than ${mostCharacters} characters`);
  }

  #condition(node: Extract<Node, { names: readonly string[] }>, scope: Scope): string {
    const value = this.#evaluate(node.pipe, scope);
    const inside = bound(scope, node.names, [value]);
    const within = { ...inside, dot: node.kind === 'with' ? value : scope.dot };
    const isTaken = isTrue(value);
    if (this.#triesAll) {
      const trial = { isTrial: true };
      if (isTaken) this.fill(node.otherwise, { ...scope, ...trial });
      // What would be there of another task is a text, like all that a template comes to.
      else this.fill(node.body, { ...within, ...trial });
    }
    return isTaken ? this.fill(node.body, within) : this.fill(node.otherwise, scope);
  }

  #range(node: Extract<Node, { names: readonly string[] }>, scope: Scope): string {
    const value = this.#evaluate(node.pipe, scope);
    if (typeof value !== 'object')
      throw refused(node.pipe.text, 'there is nothing to go over: it is one value');
    const entries = Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1));
    const round = ([key, item]: readonly [string, Value], within: Scope): string => {
      const values = node.names.length > 1 ? [key, item] : [item];
      return this.fill(node.body, { ...bound(within, node.names, values), dot: item });
    };
    if (this.#triesAll && entries.length === 0) round(['', ''], { ...scope, isTrial: true });
    if (entries.length === 0) return this.fill(node.otherwise, scope);
    return entries.map((entry) => round(entry, scope)).join('');
  }

  #evaluate(pipe: Pipe, scope: Scope): Value {
    this.#steps += 1;
    let piped: readonly Value[] = [];
    for (const command of pipe.commands) piped = [this.#command(command, piped, pipe, scope)];
    return piped[0]!;
  }

  #command(command: Command, piped: readonly Value[], pipe: Pipe, scope: Scope): Value {
    if (command.kind === 'value') return this.#operand(command.operand, pipe, scope);
    const args = [...command.args.map((operand) => this.#operand(operand, pipe, scope)), ...piped];
    const own = Object.hasOwn(this.#functions, command.name) ? this.#functions[command.name] : undefined;
    if (own !== undefined) {
      if (args.length !== 1) throw refused(pipe.text, `${command.name} takes one argument`);
      return own(shown(pipe, args[0]!));
    }
    const builtIn = Object.hasOwn(builtIns, command.name) ? builtIns[command.name] : undefined;
    if (builtIn === undefined)
      throw refused(pipe.text, `"${command.name}" is not understood here: there is no such function`);
    return builtIn(args, (reason) => refused(pipe.text, `${command.name}: ${reason}`));
  }

  #operand(operand: Operand, pipe: Pipe, scope: Scope): Value {
    switch (operand.kind) {
      case 'literal':
        return operand.value;
      case 'dot':
        return follow(scope.dot, operand.path, pipe, scope);
      case 'variable': {
        const value = scope.variables.get(operand.name);
        if (value === undefined) throw refused(pipe.text, `there is no variable ${operand.name}`);
        return follow(value, operand.path, pipe, scope);
      }
      case 'pipe':
        return follow(this.#evaluate(operand.pipe, scope), operand.path, pipe, scope);
      default:
        return assertNever(operand);
    }
  }
}

function follow(from: Value, path: readonly string[], { text }: Pipe, { isTrial }: Scope): Value {
  let found = from;
  for (const [index, name] of path.entries()) {
    if (found === anyLabels) return '';
    if (typeof found !== 'object' || !Object.hasOwn(found, name)) {
      // Whether a task has such a label is not known yet.
      if (isTrial && path[index - 1] === 'Labels') return '';
      throw refused(text, `there is no .${path.join('.')}`);
    }
    found = found[name]!;
  }
  return found;
}

function isTrue(value: Value): boolean {
  return typeof value === 'object' ? Object.keys(value).length > 0 : Boolean(value);
}

function shown(pipe: Pipe, value: Value): string {
  if (typeof value !== 'object') return String(value);
  throw refused(pipe.text, 'it names a group, not a value');
}

// ---------------------------------------------------------------- functions

type BuiltIn = (args: readonly Value[], fault: (reason: string) => Error) => Value;

/** Go's own, and SwarmKit's join. */
const builtIns: Readonly<Record<string, BuiltIn>> = {
  index([from, ...keys], fault) {
    let found: Value = from ?? '';
    if (keys.length === 0) throw fault('it takes a group and a name');
    for (const key of keys) {
      if (typeof found !== 'object') throw fault('what it looks into has no parts');
      found = Object.hasOwn(found, String(key)) ? found[String(key)]! : '';
    }
    return found;
  },
  len: ([value, ...more], fault) => {
    if (value === undefined || more.length > 0 || typeof value === 'number' || typeof value === 'boolean')
      throw fault('it takes a text or a group');
    return typeof value === 'string' ? Buffer.byteLength(value) : Object.keys(value).length;
  },
  eq: ([first, ...others], fault) => {
    if (first === undefined || others.length === 0) throw fault('it takes two values or more');
    return others.map((other) => compare(first, other, fault) === 0).includes(true);
  },
  ne: (args, fault) => compareTwo(args, fault) !== 0,
  lt: (args, fault) => compareTwo(args, fault) < 0,
  le: (args, fault) => compareTwo(args, fault) <= 0,
  gt: (args, fault) => compareTwo(args, fault) > 0,
  ge: (args, fault) => compareTwo(args, fault) >= 0,
  not: ([value, ...more], fault) => {
    if (value === undefined || more.length > 0) throw fault('it takes one value');
    return !isTrue(value);
  },
  and: (args, fault) => args.find((value) => !isTrue(value)) ?? last(args, fault),
  or: (args, fault) => args.find(isTrue) ?? last(args, fault),
  print: (args, fault) => args.map((value) => textOf(value, fault)).join(''),
  println: (args, fault) => `${args.map((value) => textOf(value, fault)).join(' ')}\n`,
  printf: ([pattern, ...args], fault) => printf(textOf(pattern ?? '', fault), args, fault),
  join: ([separator, ...parts], fault) =>
    parts.map((part) => textOf(part, fault)).join(textOf(separator ?? '', fault)),
};

function last(args: readonly Value[], fault: (reason: string) => Error): Value {
  const value = args.at(-1);
  if (value === undefined) throw fault('it takes one value or more');
  return value;
}

function textOf(value: Value, fault: (reason: string) => Error): string {
  if (typeof value !== 'object') return String(value);
  throw fault('it takes values, not a group');
}

function compareTwo(args: readonly Value[], fault: (reason: string) => Error): number {
  const [one, other, ...more] = args;
  if (one === undefined || other === undefined || more.length > 0) throw fault('it takes two values');
  return compare(one, other, fault);
}

/** As in Go, what is of two kinds can't be compared: a slot is a text, "1". */
function compare(one: Value, other: Value, fault: (reason: string) => Error): number {
  if (typeof one === 'object' || typeof one !== typeof other)
    throw fault(`${typeof one} and ${typeof other} can't be compared`);
  if (one === other) return 0;
  return one < other ? -1 : 1;
}

function printf(pattern: string, args: readonly Value[], fault: (reason: string) => Error): string {
  let next = 0;
  const made = pattern.replace(/%(-?)(0?)(\d{0,3})([a-zA-Z%])/g, (_, left, zero, width, verb: string) => {
    if (verb === '%') return '%';
    const value = args[next++];
    if (value === undefined) throw fault(`%${verb} has no argument`);
    if (!['s', 'v', 'q', 'd', 't'].includes(verb)) throw fault(`%${verb} is not supported`);
    if (verb === 'd' && typeof value !== 'number') throw fault('%d takes a number');
    const text = verb === 'q' ? JSON.stringify(textOf(value, fault)) : textOf(value, fault);
    if (left) return text.padEnd(Number(width));
    return text.padStart(Number(width), zero ? '0' : ' ');
  });
  if (next < args.length) throw fault('it has more arguments than places for them');
  return made;
}
