/** The `filters` parameter of lists: read, checked and matched as the Docker Engine does. */
import type { Request } from 'express';
import type { Labels } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import { jsonFault } from './json.ts';
import { query } from './request.ts';

/** Filter name → its values, in the order given. */
export type Filters = ReadonlyMap<string, readonly string[]>;

/**
 * The filters of a request, in either form that clients send: {"name": ["a"]} or, before API 1.22,
 * {"name": {"a": true}}. Throws ShoalError 'invalid-argument' when they are not JSON or not that.
 */
export function readFilters(request: Request): Filters {
  const raw = query(request, 'filters');
  if (raw === '') return new Map();
  const fault = jsonFault(raw);
  if (fault !== undefined) throw new ShoalError('invalid-argument', fault);
  const parsed: unknown = JSON.parse(raw);
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    throw new ShoalError('invalid-argument', 'invalid filters: an object of filter names is needed');
  }
  return new Map(Object.entries(parsed).map(([name, values]) => [name, readValues(name, values)]));
}

function readValues(name: string, values: unknown): string[] {
  if (Array.isArray(values) && values.every((value) => typeof value === 'string')) return values;
  if (typeof values === 'object' && values !== null && !Array.isArray(values)) {
    const entries = Object.entries(values as Record<string, unknown>);
    if (entries.every(([, isOn]) => typeof isOn === 'boolean')) {
      return entries.filter(([, isOn]) => isOn).map(([value]) => value);
    }
  }
  throw new ShoalError('invalid-argument', `invalid filter '${name}': a list of strings is needed`);
}

/** Refuses filters that are not in `known`. */
export function checkFilters(filters: Filters, known: readonly string[]): void {
  for (const name of filters.keys()) {
    if (!known.includes(name)) throw new ShoalError('invalid-argument', `Invalid filter '${name}'`);
  }
}

/** The values of a filter; none when it is not there. */
export function valuesOf(filters: Filters, name: string): readonly string[] {
  return filters.get(name) ?? [];
}

/** Whether `value` is one of the filter's, or the filter is not there. */
export function isAsked(filters: Filters, name: string, value: string): boolean {
  const values = valuesOf(filters, name);
  return values.length === 0 || values.includes(value);
}

/**
 * Whether `value` is, or as a regular expression matches, one of the filter's, or the filter is not there. A pattern
 * that is none matches nothing.
 */
export function matchesFilter(filters: Filters, name: string, value: string): boolean {
  const values = valuesOf(filters, name);
  const fits = (pattern: string): boolean => {
    try {
      return value === pattern || new RegExp(pattern).test(value);
    } catch {
      return false;
    }
  };
  return values.length === 0 || values.some(fits);
}

/** Whether `value` begins with one of the filter's, or the filter is not there. */
export function hasAskedPrefix(filters: Filters, name: string, value: string): boolean {
  const values = valuesOf(filters, name);
  return values.length === 0 || values.some((prefix) => value.startsWith(prefix));
}

/** Whether `labels` hold all that the filter asks for: `key`, or `key=value`. */
export function hasLabels(filters: Filters, name: string, labels: Labels | undefined): boolean {
  return valuesOf(filters, name).every((wanted) => {
    const [key, value] = splitLabel(wanted);
    if (!labels || !Object.hasOwn(labels, key)) return false;
    return value === '' || labels[key] === value;
  });
}

/** Whether `labels` hold nothing that the filter asks to be left alone: `key`, or `key=value`. */
export function lacksLabels(filters: Filters, name: string, labels: Labels | undefined): boolean {
  return valuesOf(filters, name).every((unwanted) => !hasLabels(new Map([[name, [unwanted]]]), name, labels));
}

const unitsMs: Record<string, number> = {
  h: 3_600_000,
  m: 60_000,
  s: 1_000,
  ms: 1,
  us: 1e-3,
  µs: 1e-3,
  ns: 1e-6,
};

/** The moment before which `until` asks for, in ms since the epoch: a time, or how long before `nowMs`, e.g. 1h30m. */
export function untilOf(filters: Filters, nowMs: number): number | undefined {
  const [text, ...others] = valuesOf(filters, 'until');
  if (text === undefined) return undefined;
  if (others.length > 0) throw new ShoalError('invalid-argument', 'more than one until filter specified');
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  if (/^(\d+(\.\d*)?(h|ms|m|us|µs|ns|s))+$/.test(text)) {
    const parts = [...text.matchAll(/(\d+(?:\.\d*)?)(h|ms|m|us|µs|ns|s)/g)];
    return nowMs - parts.reduce((sum, [, number, unit]) => sum + Number(number) * unitsMs[unit!]!, 0);
  }
  const time = Date.parse(text);
  if (!Number.isNaN(time)) return time;
  throw new ShoalError(
    'invalid-argument',
    `invalid value for the filter until: "${text}" is neither a time nor a duration`,
  );
}

/** `key=value` as its two parts; the value is empty when there is none. */
export function splitLabel(text: string): [key: string, value: string] {
  const at = text.indexOf('=');
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
}

/** The values of a filter whose words are fixed; `all` in any case, as Docker takes them. */
export function wordsOf(filters: Filters, name: string, all: readonly string[]): string[] {
  return valuesOf(filters, name)
    .filter((value) => value !== '')
    .map((value) => {
      const word = value.toLowerCase();
      if (!all.includes(word)) throw new ShoalError('invalid-argument', `Invalid ${name} filter: '${value}'`);
      return word;
    });
}
