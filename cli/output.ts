/** What the client prints: Docker-style tables, JSON lines, templates, quiet ids, words for times. */
import Table from 'cli-table3';
import colors from 'picocolors';
import { parseTemplate } from './format.ts';
import { UsageError } from './usage.ts';

/** A column: its heading, its field in --format templates and JSON, and how to read it off a row. */
export interface Column<T> {
  readonly heading: string;
  readonly field: string;
  readonly value: (row: T) => string;
  /** What templates and JSON have in place of the table's text. */
  readonly raw?: (row: T) => unknown;
  /** Only for templates and JSON, not in the table. */
  readonly hidden?: boolean;
}

export interface ListOptions {
  readonly format?: string;
  readonly quiet?: boolean;
}

const borderless = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '   ',
};

/**
 * The text of a list: a table, or with `quiet` what `quietValue` answers, or as `format` says: `json`, or
 * a template of {{.Field}}s, `table ` before it for a heading.
 */
export function renderList<T>(
  rows: readonly T[],
  columns: readonly Column<T>[],
  quietValue: (row: T) => string,
  options: ListOptions,
): string {
  const format = options.format;
  if (options.quiet && format === undefined) return rows.map(quietValue).join('\n');
  if (format === undefined || format === '' || format === 'table') {
    return renderTable(
      rows,
      columns.filter((column) => !column.hidden),
    );
  }
  if (format === 'json') return rows.map((row) => JSON.stringify(recordOf(row, columns, true))).join('\n');
  if (/^table\s/.test(format)) return renderTableTemplate(rows, columns, format.slice('table '.length));
  const fill = parseTemplate(format);
  checkFields(format, columns);
  return rows.map((row) => fill(recordOf(row, columns, true))).join('\n');
}

function recordOf<T>(row: T, columns: readonly Column<T>[], raw: boolean): Record<string, unknown> {
  return Object.fromEntries(
    columns.map((column) => [column.field, raw && column.raw ? column.raw(row) : column.value(row)]),
  );
}

/** A field that the list does not have is a mistake to be told, not an empty text. */
function checkFields<T>(format: string, columns: readonly Column<T>[]): void {
  for (const [, actions = ''] of format.matchAll(/\{\{(.*?)\}\}/gs)) {
    const unquoted = actions.replace(/"(?:[^"\\]|\\.)*"|`[^`]*`/g, '');
    for (const [, field] of unquoted.matchAll(/(?<![\w)$.])\.([A-Za-z]\w*)/g)) {
      if (!columns.some((column) => column.field === field)) {
        const known = columns.map((column) => `.${column.field}`).join(' ');
        throw new UsageError(`--format: "${format}" asks for .${field}; there are ${known}`);
      }
    }
  }
}

/** `table {{.A}}\t{{.B}}`: each part between tabs is a column, headed by the headings of its fields. */
function renderTableTemplate<T>(rows: readonly T[], columns: readonly Column<T>[], template: string): string {
  checkFields(template, columns);
  const parts = template.trim().split(/\\t|\t/);
  const headings = Object.fromEntries(columns.map((column) => [column.field, column.heading]));
  const chosen = parts.map((part): Column<T> => {
    const fill = parseTemplate(part);
    return {
      heading: parseTemplate(part)(headings),
      field: part,
      value: (row) => fill(recordOf(row, columns, false)),
    };
  });
  return renderTable(rows, chosen);
}

function renderTable<T>(rows: readonly T[], columns: readonly Column<T>[]): string {
  const table = new Table({
    head: columns.map((column) => column.heading),
    chars: borderless,
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
  });
  for (const row of rows) table.push(columns.map((column) => column.value(row)));
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

/** `3 minutes ago` of a time, as Docker says it. */
export function ago(timestamp: string, nowMs: number): string {
  return `${duration(nowMs - Date.parse(timestamp))} ago`;
}

/** `About a minute` style words of a duration, as Docker says it. */
export function duration(durationMs: number): string {
  const seconds = Math.floor(durationMs / 1000);
  if (seconds < 1) return 'Less than a second';
  if (seconds === 1) return '1 second';
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.floor(seconds / 60);
  if (minutes === 1) return 'About a minute';
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.round(minutes / 60);
  if (hours === 1) return 'About an hour';
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 14) return `${Math.floor(hours / 24)} days`;
  if (hours < 24 * 60) return `${Math.floor(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.floor(hours / 24 / 30)} months`;
  return `${Math.floor(hours / 24 / 365)} years`;
}

/** Text cut to `length` characters, the last one an ellipsis. */
export function cut(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

/** First letter in capitals. */
export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** An error as the client prints it, on standard error. */
export function printError(message: string): void {
  process.stderr.write(`${colors.red('Error:')} ${message}\n`);
}

/** Prints a line unless it is empty. */
export function print(text: string): void {
  if (text !== '') process.stdout.write(`${text}\n`);
}

/** Bytes as docker says them: `512MiB`, `1.5GiB`. */
export function binarySize(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${Number(value.toPrecision(4))}${units[unit]}`;
}

/** Nanoseconds as Go says a duration: `1m30s`, `500ms`. */
export function durationText(nanoseconds: number): string {
  if (nanoseconds === 0) return '0s';
  if (nanoseconds < 1e9) return `${nanoseconds / 1e6}ms`;
  const hours = Math.floor(nanoseconds / 3600e9);
  const minutes = Math.floor((nanoseconds % 3600e9) / 60e9);
  const seconds = (nanoseconds % 60e9) / 1e9;
  return `${hours > 0 ? `${hours}h` : ''}${hours > 0 || minutes > 0 ? `${minutes}m` : ''}${seconds}s`;
}
