/** What every command of the client is handed, and the options that many of them share. */
import type { Command } from 'commander';
import type { Clock } from '../proto/ports.ts';
import type { ApiClient } from './client.ts';

export interface Context {
  readonly client: () => ApiClient;
  readonly clock: Clock;
}

/** Adds -f/--format and -q/--quiet, which every list has. */
export function listOptions(command: Command): Command {
  return command
    .option('--format <format>', 'print as "json", or by a template of {{.Field}}s')
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
  for (const filter of filters) {
    const [key, ...value] = filter.split('=');
    query[key!] = { ...query[key!], [value.join('=')]: true };
  }
  return JSON.stringify(query);
}
