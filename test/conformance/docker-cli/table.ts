/** The results as a page: every flag of every command, what was checked or the refusal's words. */
import type { Result } from './case.ts';

export interface Row {
  readonly command: string;
  readonly flag: string;
  readonly result: Result;
}

/** The page's text, in Markdown. */
export function page(client: string, rows: readonly Row[]): string {
  const refused = rows.filter(({ flag, result }) => flag !== '' && result.kind === 'refused').length;
  const unsent = rows.filter(({ result }) => result.kind === 'unsent').length;
  const flags = rows.filter(({ flag }) => flag !== '').length;
  const commands = [...new Set(rows.map(({ command }) => command))].sort();
  return `${[
    '# The docker CLI’s flags',
    '',
    'Made by `npm run flags`: each command and each flag of the swarm commands is run by the stock client against',
    '`shoald` and a real engine (Debian’s 20.10), and its effect is looked for in the object (`inspect`), in the',
    'container, or in the output. What is not done is refused, in words that name it; nothing is ignored in silence.',
    'With `SHOAL_DOCKER_CLI=/usr/bin/docker` another client is tried, such as Debian’s 20.10, for the flags that it has.',
    '',
    `Client ${client}: ${commands.length} commands, ${flags} flags; ${flags - refused - unsent} have their effect, ${refused} are refused, ${unsent} the client itself forgets.`,
    ...commands.flatMap((command) => [
      '',
      `## ${command}`,
      '',
      ...tableOf(rows.filter((row) => row.command === command)),
    ]),
  ].join('\n')}\n`;
}

function tableOf(rows: readonly Row[]): string[] {
  const cells = rows
    .map(({ flag, result }) => [
      flag === '' ? '(the command)' : `\`${flag}\``,
      result.kind,
      escaped(result.words),
    ])
    .sort(([one = ''], [other = '']) => (one < other ? -1 : 1));
  const all = [['flag', 'result', 'checked, or the words'], ...cells];
  const widths = [0, 1, 2].map((at) => Math.max(...all.map((row) => row[at]!.length)));
  const line = (row: readonly string[]) =>
    `| ${row.map((cell, at) => cell.padEnd(widths[at]!)).join(' | ')} |`;
  const rule = `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`;
  return [line(all[0]!), rule, ...all.slice(1).map(line)];
}

/** Ids and addresses differ from run to run. */
function escaped(words: string): string {
  return words
    .replaceAll('|', '\\|')
    .replaceAll(/\b[a-z0-9]{25}\b/g, 'ID')
    .replaceAll(/\bflag\d+\b/g, 'NAME')
    .replaceAll(/\/tmp\/[\w-]+\//g, '');
}
