/**
 * `npm run bench -- NAME [--json] [--runs N] [--no-peer]`: measures ours and a peer on this machine, in turn.
 * Progress goes to standard error, one line of JSON a metric to standard output. Exit code 0 when every limit
 * holds, 1 when one does not, 2 when the bench cannot run here.
 */
import { commandLine, countAbove0 } from '../command-line.ts';
import { convergence } from './convergence.ts';
import { dataplane } from './dataplane.ts';
import { failover } from './failover.ts';
import { lists } from './lists.ts';
import { raft } from './raft.ts';
import { raftGrowth } from './raft-growth.ts';
import { memberCommand, runMember } from './raft-member.ts';
import { raftScale } from './raft-scale.ts';
import { recovery } from './recovery.ts';
import { type Line, lineOf, type Metric, type Summary } from './report.ts';
import { scheduler } from './scheduler.ts';
import { startup } from './startup.ts';
import { runStoreMember, storeMemberCommand } from './store-member.ts';

export interface BenchOptions {
  /** How often ours is measured. */
  readonly runs: number | undefined;
  readonly withPeer: boolean;
  readonly progress: (words: string) => void;
}

export interface Bench {
  readonly name: string;
  readonly description: string;
  /** Why it can't run here, in words. */
  readonly missing: () => string | undefined;
  readonly run: (options: BenchOptions) => Promise<Metric[]>;
}

const benches: readonly Bench[] = [
  startup,
  failover,
  raft,
  raftGrowth,
  raftScale,
  lists,
  scheduler,
  recovery,
  dataplane,
  convergence,
];

function help(): string {
  const rows = benches.map(({ name, description }) => `  ${name.padEnd(11)} ${description}`);
  return [
    'usage: npm run bench -- NAME [--json] [--runs N] [--no-peer]',
    '',
    ...rows,
    '',
    '  --runs N   how often ours is measured',
    '  --no-peer  ours only',
    '  --json     nothing but one line of JSON a metric on standard output',
  ].join('\n');
}

function tableOf(lines: readonly Line[]): string {
  const three = (summary: Summary | null) =>
    summary === null ? '-' : `${summary.min} / ${summary.median} / ${summary.max}`;
  const rows = lines.map((line) => [
    line.metric,
    line.unit,
    three(line.ours),
    three(line.peer),
    String(line.ratio ?? '-'),
    line.limit === null ? '' : `${line.limit}: ${line.holds ? 'holds' : 'DOES NOT HOLD'}`,
  ]);
  const all = [['metric', 'unit', 'ours min/median/max', 'peer min/median/max', 'ratio', 'limit'], ...rows];
  const widths = all[0]!.map((_, column) => Math.max(...all.map((row) => row[column]!.length)));
  return all.map((row) => row.map((cell, at) => cell.padEnd(widths[at]!)).join('  ')).join('\n');
}

async function main(): Promise<number> {
  const { values, positionals } = commandLine(help(), {
    allowPositionals: true,
    options: {
      json: { type: 'boolean', default: false },
      'no-peer': { type: 'boolean', default: false },
      runs: { type: 'string' },
    },
  });
  const bench = benches.find(({ name }) => name === positionals[0]);
  const runs = values.runs === undefined ? undefined : countAbove0('runs', values.runs);
  if (bench === undefined) {
    console.error(help());
    return 2;
  }
  const missing = bench.missing();
  if (missing !== undefined) {
    console.error(`bench ${bench.name}: ${missing}`);
    return 2;
  }
  const progress = (words: string) => console.error(`${bench.name}: ${words}`);
  const metrics = await bench.run({ runs, withPeer: !values['no-peer'], progress });
  const lines = metrics.map((metric) => lineOf(bench.name, metric));
  if (!values.json) console.error(`\n${tableOf(lines)}\n`);
  for (const line of lines) console.log(JSON.stringify(line));
  return lines.every((line) => line.holds) ? 0 : 1;
}

if (process.argv[2] === memberCommand) {
  runMember();
} else if (process.argv[2] === storeMemberCommand) {
  runStoreMember();
} else {
  process.exitCode = await main().catch((error: unknown) => {
    console.error(error);
    return 2;
  });
}
