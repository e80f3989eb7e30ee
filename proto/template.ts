/**
 * The part of Go's templates that Swarm's users write: {{.Service.Name}}, {{index .Service.Labels "x"}},
 * {{env "X"}}, {{secret "x"}}, {{config "x"}}, with trim markers. Pure. What it does not know is refused in
 * words and never passed through, for a container would then start with `{{…}}` in its environment.
 */
import { ShoalError } from '../proto/errors.ts';

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

/** Replaces each action in `text`. Throws `invalid-argument` naming the action that it cannot carry out. */
export function expand(text: string, values: TemplateValues, functions: TemplateFunctions = {}): string {
  if (!text.includes('{{')) return text;
  const action = /(\s*)\{\{(- )?((?:"(?:\\.|[^"\\])*"|`[^`]*`|[^}"`]|\}(?!\}))*?)( -)?\}\}(\s*)/g;
  let expanded = '';
  let end = 0;
  for (const match of text.matchAll(action)) {
    const [whole, before = '', trimBefore, body = '', trimAfter, after = ''] = match;
    expanded += literal(text.slice(end, match.index));
    expanded += `${trimBefore ? '' : before}${evaluate(body.trim(), values, functions)}${trimAfter ? '' : after}`;
    end = match.index + whole.length;
  }
  return expanded + literal(text.slice(end));
}

function literal(text: string): string {
  if (text.includes('{{')) throw refused(text.slice(text.indexOf('{{') + 2), 'it is not closed');
  return text;
}

function evaluate(body: string, values: TemplateValues, functions: TemplateFunctions): string {
  if (/^\/\*.*\*\/$/s.test(body)) return '';
  const words = body.match(/"(?:\\.|[^"\\])*"|`[^`]*`|[^\s]+/g) ?? [];
  const [head, ...rest] = words;
  if (head === undefined) throw refused(body, 'it is empty');
  if (rest.length === 0 && head.startsWith('.')) return textOf(body, lookUp(body, head, values));
  if (rest.length === 0 && isQuoted(head)) return unquote(head);
  if (head === 'index' && rest.length === 2) {
    const from = lookUp(body, rest[0]!, values);
    if (typeof from === 'string') throw refused(body, `${rest[0]} has no parts`);
    return textOf(body, from[unquote(rest[1]!)] ?? '');
  }
  const call = Object.hasOwn(functions, head) ? functions[head] : undefined;
  if (call !== undefined && rest.length === 1) {
    return call(isQuoted(rest[0]!) ? unquote(rest[0]!) : textOf(body, lookUp(body, rest[0]!, values)));
  }
  throw refused(body, `"${head}" is not understood here`);
}

function lookUp(body: string, path: string, values: TemplateValues): string | TemplateValues {
  let found: string | TemplateValues = values;
  for (const name of path.split('.').slice(1)) {
    if (found === anyLabels) return '';
    if (typeof found === 'string' || !Object.hasOwn(found, name)) {
      throw refused(body, `there is no ${path}`);
    }
    found = found[name]!;
  }
  return found;
}

function textOf(body: string, value: string | TemplateValues): string {
  if (typeof value === 'string') return value;
  throw refused(body, 'it names a group, not a value');
}

function isQuoted(word: string): boolean {
  return /^(".*"|`.*`)$/s.test(word);
}

function unquote(word: string): string {
  if (word.startsWith('`')) return word.slice(1, -1);
  return word
    .slice(1, -1)
    .replace(/\\(.)/g, (_all, character: string) =>
      character === 'n' ? '\n' : character === 't' ? '\t' : character,
    );
}

function refused(body: string, reason: string): ShoalError {
  return new ShoalError('invalid-argument', `expanding template {{${body}}} failed: ${reason}`);
}
