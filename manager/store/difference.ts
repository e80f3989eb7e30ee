/** What differs between two specs of a service, for people: one line a field, the meaning compared and not the writing. */
import type { ServiceSpec } from '../../proto/docker.ts';
import { canonicalServiceSpec, sameValue } from './normalize.ts';

const longestValue = 120;

/** `ContainerSpec.Image: web:1 → web:2` and the like; empty when both mean the same. Credentials are not looked at. */
export function differencesOf(before: ServiceSpec, after: ServiceSpec): string[] {
  return compare('', shown(before), shown(after));
}

function shown(spec: ServiceSpec): unknown {
  const { PullOptions: _secret, ...ContainerSpec } = spec.TaskTemplate.ContainerSpec;
  return canonicalServiceSpec({ ...spec, TaskTemplate: { ...spec.TaskTemplate, ContainerSpec } });
}

function compare(path: string, before: unknown, after: unknown): string[] {
  if (sameValue(before, after)) return [];
  if (isMap(before) && isMap(after)) {
    const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])];
    return keys.flatMap((key) => compare(path === '' ? key : `${path}.${key}`, before[key], after[key]));
  }
  const name = path.replace(/^TaskTemplate\./, '');
  if (isWordList(before) && isWordList(after) && name.endsWith('Env')) {
    const gone = before.filter((one) => !after.includes(one)).map((one) => `-${one}`);
    const come = after.filter((one) => !before.includes(one)).map((one) => `+${one}`);
    return [`${name}: ${[...gone, ...come].map(short).join(' ') || 'another order'}`];
  }
  return [`${name}: ${text(before)} → ${text(after)}`];
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isWordList(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}

function text(value: unknown): string {
  if (value === undefined) return '(not set)';
  return short(typeof value === 'string' ? value : JSON.stringify(value));
}

function short(value: string): string {
  return value.length > longestValue ? `${value.slice(0, longestValue - 1)}…` : value;
}
