/** Holds a compose file against its shapes, and says what is wrong in words, each with its line. */
import type { z } from 'zod';
import { type ComposeFile, composeFile, knownKeys, refusedServiceKeys } from './schema.ts';
import { type Path, type Problems, placeIn, type Tree, toPlain, treeAt } from './tree.ts';

/** The file in its shapes; undefined, and errors told, when it does not fit. */
export function checkShapes(tree: Tree, problems: Problems): ComposeFile | undefined {
  refusePrototypes(tree, [], problems);
  const result = composeFile.safeParse(toPlain(tree));
  if (result.success) return result.data;
  for (const issue of result.error.issues) tell(issue, tree, problems);
  return undefined;
}

/** The schema would leave out what has this name, whatever the file says there. */
function refusePrototypes(tree: Tree, path: Path, problems: Problems): void {
  if (tree.kind === 'scalar') return;
  if (tree.kind === 'list') {
    for (const [index, item] of tree.items.entries()) refusePrototypes(item, [...path, index], problems);
    return;
  }
  for (const [name, { at, value }] of tree.entries) {
    if (name === '__proto__') problems.error(at, [...path, name], 'nothing can have this name');
    else refusePrototypes(value, [...path, name], problems);
  }
}

function tell(issue: z.core.$ZodIssue, tree: Tree, problems: Problems): void {
  const path = issue.path.filter((part) => typeof part !== 'symbol');
  if (issue.code === 'unrecognized_keys') {
    for (const key of issue.keys) {
      const keyPath = [...path, key];
      problems.error(placeIn(tree, keyPath), keyPath, unknownKey(path, key));
    }
    return;
  }
  problems.error(placeIn(tree, path), path, describe(issue, treeAt(tree, path), path));
}

function describe(issue: z.core.$ZodIssue, at: Tree | undefined, path: Path): string {
  if (!at) return `is missing: ${String(path.at(-1))} must be given`;
  switch (issue.code) {
    case 'invalid_type':
      return `must be ${nameOfType(issue.expected)}, not ${nameOfTree(at)}`;
    case 'invalid_value':
      return `must be one of ${issue.values.map(String).join(', ')}${at.kind === 'scalar' ? `, not ${JSON.stringify(at.value)}` : ''}`;
    case 'invalid_union':
      return at.kind === 'scalar' && at.value === null ? `is empty: it ${issue.message}` : issue.message;
    default:
      return issue.message;
  }
}

const typeNames: Record<string, string> = {
  object: 'a map',
  record: 'a map',
  array: 'a list',
  string: 'a string',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
};

function nameOfType(expected: string): string {
  return typeNames[expected] ?? expected;
}

function nameOfTree(tree: Tree): string {
  if (tree.kind === 'map') return 'a map';
  if (tree.kind === 'list') return 'a list';
  if (tree.value === null) return 'empty';
  return `${typeNames[typeof tree.value]?.replace('true or false', 'a boolean') ?? ''} (${JSON.stringify(tree.value)})`;
}

function unknownKey(path: Path, key: string): string {
  const isService = path[0] === 'services' && path.length === 2;
  const instead = isService && Object.hasOwn(refusedServiceKeys, key) ? refusedServiceKeys[key] : undefined;
  if (instead !== undefined) return `is not supported in a stack: ${instead}`;
  const meant = suggestion(path, key, isService);
  return meant === undefined ? 'unknown key' : `unknown key (did you mean ${meant}?)`;
}

/** The key that was probably meant: one of the same part first, then one of another. */
function suggestion(path: Path, key: string, isService: boolean): string | undefined {
  const here = partOf(path, isService);
  const own = here === undefined ? undefined : nearest(key, knownKeys[here]);
  if (own !== undefined) return JSON.stringify(own);
  for (const part of Object.keys(knownKeys) as (keyof typeof knownKeys)[]) {
    if (part === here || (part === '' && !isService)) continue;
    const other = nearest(key, knownKeys[part]);
    if (other === undefined) continue;
    return `${JSON.stringify(other)} ${part === '' ? 'at the top level' : part === 'services' ? 'under a service' : `under ${part}`}`;
  }
  return undefined;
}

function partOf(path: Path, isService: boolean): keyof typeof knownKeys | undefined {
  if (path.length === 0) return '';
  if (isService) return 'services';
  const within =
    path[0] === 'services' ? path.slice(2).join('.').replace('rollback_config', 'update_config') : '';
  return within !== '' && within in knownKeys ? (within as keyof typeof knownKeys) : undefined;
}

function nearest(key: string, candidates: readonly string[]): string | undefined {
  const most = key.length <= 4 ? 1 : 2;
  let best: { name: string; distance: number } | undefined;
  for (const name of candidates) {
    const distance = editDistance(key.toLowerCase(), name);
    if (distance <= most && (!best || distance < best.distance)) best = { name, distance };
  }
  return best?.name;
}

/** How many letters must be added, dropped or exchanged to get from one word to the other. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const exchange = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(exchange, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
