/** What every `inspect` does: objects in full as JSON, by a template, or in a form for people. */
import type { Command } from 'commander';
import { throwAll } from './context.ts';
import { parseTemplate } from './format.ts';
import { print } from './output.ts';
import { UsageError } from './usage.ts';

export interface InspectFlags {
  readonly format?: string;
  readonly pretty?: boolean;
}

/** Adds -f/--format, and --pretty where there is a form for people. */
export function inspectOptions(command: Command, withPretty: boolean): Command {
  command.option('-f, --format <format>', 'json, or a Go template such as "{{.Spec.Name}}"');
  return withPretty ? command.option('--pretty', 'print in a form for people') : command;
}

/**
 * Prints what `find` answers for each name. Those that are not found are told at the end, after the others
 * were printed, and the command then fails.
 */
export async function inspect<T>(
  names: readonly string[],
  flags: InspectFlags,
  find: (name: string) => Promise<T>,
  pretty?: (object: T) => string,
): Promise<void> {
  if (flags.pretty && flags.format !== undefined) {
    throw new UsageError('--format is incompatible with human friendly format');
  }
  const template = flags.format && flags.format !== 'json' ? parseTemplate(flags.format) : undefined;
  const results = await Promise.allSettled(names.map(find));
  const found = results.filter((result) => result.status === 'fulfilled').map(({ value }) => value);
  const failures = results.filter((result) => result.status === 'rejected').map(({ reason }) => reason);
  if (flags.pretty && pretty) print(found.map(pretty).join('\n\n'));
  else if (template) print(found.map(template).join('\n'));
  else if (flags.format === 'json') print(JSON.stringify(found));
  else print(JSON.stringify(found, undefined, 4));
  throwAll(failures);
}

/** A map's entries as docker's pretty form has them, below a heading; nothing when there are none. */
export function labelLines(heading: string, labels: Record<string, string> | undefined): string[] {
  const entries = Object.entries(labels ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  return entries.length === 0 ? [] : [heading, ...entries.map(([key, value]) => ` - ${key}=${value}`)];
}
