/**
 * Two answers compared, key by key: what one has and the other has not, what has another type, what has another
 * value. Pure.
 */
import type { Body } from './recording.ts';

export interface Difference {
  /** Steps from the body's root, e.g. `[].Spec.Name`; `[]` is any item of a list. */
  readonly path: string;
  readonly kind: 'missing' | 'added' | 'type' | 'value';
  readonly recorded: unknown;
  readonly answered: unknown;
}

/** What is another one in every cluster, whatever it holds; types are compared. */
const volatile = new Set(['Version', 'CreatedAt', 'UpdatedAt', 'Created', 'SystemTime']);

/** Where `answered` is not `recorded`. Items of lists are matched by their id or name, else by their place. */
export function differences(recorded: Body, answered: Body, path = ''): Difference[] {
  const theirs = typeOf(recorded);
  const ours = typeOf(answered);
  if (theirs !== ours) return [{ path, kind: 'type', recorded, answered }];
  if (theirs === 'list') return listDifferences(recorded, answered, path);
  if (theirs !== 'object') return recorded === answered ? [] : [{ path, kind: 'value', recorded, answered }];
  const keys = new Set([...Object.keys(recorded), ...Object.keys(answered)]);
  return [...keys].flatMap((key): Difference[] => {
    const at = `${path}.${key}`;
    if (!(key in answered))
      return [{ path: at, kind: 'missing', recorded: recorded[key], answered: undefined }];
    if (!(key in recorded))
      return [{ path: at, kind: 'added', recorded: undefined, answered: answered[key] }];
    const found = differences(recorded[key], answered[key], at);
    return volatile.has(key) ? found.filter(({ kind }) => kind !== 'value') : found;
  });
}

function listDifferences(recorded: Body[], answered: Body[], path: string): Difference[] {
  const at = `${path}[]`;
  const names: (string | undefined)[] = recorded.map(nameOf);
  const isNamed =
    !names.includes(undefined) &&
    new Set(names).size === names.length &&
    answered.every((item) => nameOf(item) !== undefined);
  const counterpart = (item: Body, index: number): Body =>
    isNamed ? answered.find((other) => nameOf(other) === nameOf(item)) : answered[index];
  const found = recorded.flatMap((item, index): Difference[] => {
    const other = counterpart(item, index);
    return other === undefined
      ? [{ path: at, kind: 'missing', recorded: item, answered: undefined }]
      : differences(item, other, at);
  });
  const added = answered.filter((item, index) =>
    isNamed ? !names.includes(nameOf(item)) : index >= recorded.length,
  );
  return [
    ...found,
    ...added.map((item): Difference => ({ path: at, kind: 'added', recorded: undefined, answered: item })),
  ];
}

function nameOf(item: Body): string | undefined {
  const name: unknown = item?.ID ?? item?.Id ?? item?.Name;
  return typeof name === 'string' && name !== '' ? name : undefined;
}

function typeOf(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'list' : typeof value;
}
