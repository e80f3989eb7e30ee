/** What every command of the client is handed, and the options that many of them share. */
import type { Command } from 'commander';
import { messageOf, ShoalError } from '../proto/errors.ts';
import type { Clock } from '../proto/ports.ts';
import type { ApiClient } from './client.ts';
import { UsageError } from './usage.ts';

export interface Context {
  readonly client: () => ApiClient;
  readonly clock: Clock;
}

/** Adds -f/--format and -q/--quiet, which every list has. */
export function listOptions(command: Command): Command {
  return command
    .option('--format <format>', 'table, json, or a Go template such as "{{.ID}}: {{.Name}}"')
    .option('-q, --quiet', 'print ids only');
}

/** Collects an option that may be given several times. */
export function collect(value: string, previous: string[] | undefined): string[] {
  return [...(previous ?? []), value];
}

/** The API's `filters` parameter of `key=value` texts; undefined when there are none. */
export function filterQuery(filters: readonly string[] | undefined): string | undefined {
  if (!filters || filters.length === 0) return undefined;
  const query: Record<string, Record<string, true>> = {};
  for (const [key, value] of filters.map(splitFilter)) query[key] = { ...query[key], [value]: true };
  return JSON.stringify(query);
}

/** Key and value of `key=value`. Throws UsageError without the =. */
export function splitFilter(filter: string): [string, string] {
  const at = filter.indexOf('=');
  if (at <= 0) throw new UsageError(`--filter "${filter}": write KEY=VALUE`);
  return [filter.slice(0, at).trim().toLowerCase(), filter.slice(at + 1).trim()];
}

/** Does the same to every name; what fails does not keep the others from being done, and is told at the end. */
export async function forEach(
  names: readonly string[],
  action: (name: string) => Promise<void>,
): Promise<void> {
  const failures: unknown[] = [];
  for (const name of names) {
    try {
      await action(name);
    } catch (error) {
      failures.push(error);
    }
  }
  throwAll(failures);
}

/** Throws what failed, as one error when there are several, each different sentence once. */
export function throwAll(failures: readonly unknown[]): void {
  const sentences = [...new Set(failures.map(messageOf))];
  if (sentences.length === 1) throw failures[0];
  if (sentences.length > 1) throw new ShoalError('failed-precondition', sentences.join('\nError: '));
}
