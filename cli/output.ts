/** What the client prints: Docker-style tables, JSON lines, templates, quiet ids, words for times. */
import Table from 'cli-table3';
import colors from 'picocolors';
import { ShoalError } from '../proto/errors.ts';

/** A column: its heading, its field in --format templates and JSON, and how to read it off a row. */
export interface Column<T> {
  readonly heading: string;
  readonly field: string;
  readonly value: (row: T) => string;
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
  if (options.quiet) return rows.map(quietValue).join('\n');
  const format = options.format;
  if (format === 'json' || format === '{{json .}}') {
    return rows
      .map((row) =>
        JSON.stringify(Object.fromEntries(columns.map((column) => [column.field, column.value(row)]))),
      )
      .join('\n');
  }
  if (format === undefined || format === 'table') return renderTable(rows, columns);
  if (format.startsWith('table ')) {
    const template = format.slice('table '.length);
    const chosen = template.split(/\\t|\s+/).map((part) => columnOf(part, columns));
    return renderTable(rows, chosen);
  }
  return rows.map((row) => renderTemplate(format, row, columns)).join('\n');
}

function columnOf<T>(part: string, columns: readonly Column<T>[]): Column<T> {
  const field = /^\{\{\s*\.(\w+)\s*\}\}$/.exec(part)?.[1];
  const column = columns.find((candidate) => candidate.field === field);
  if (column) return column;
  throw new ShoalError(
    'invalid-argument',
    `--format: "${part}" is not one of ${columns.map((candidate) => `{{.${candidate.field}}}`).join(' ')}`,
  );
}

function renderTemplate<T>(format: string, row: T, columns: readonly Column<T>[]): string {
  const text = format.replaceAll('\\t', '\t').replaceAll('\\n', '\n');
  return text.replace(/\{\{[^}]*\}\}/g, (part) => columnOf(part, columns).value(row));
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
