/** shoal service runs: the schedule of a job, and what became of its runs. */
import type { Command } from 'commander';
import type { CronRun } from '../../proto/docker.ts';
import { type Context, listOptions } from '../context.ts';
import { ago, type Column, capital, type ListOptions, print, renderList } from '../output.ts';

interface RunsAnswer {
  Schedule: string;
  Timezone: string;
  Overlap: string;
  NextAt?: string;
  Runs: Run[];
}

interface Run {
  ScheduledAt: string;
  StartedAt?: string;
  EndedAt?: string;
  Iteration?: number;
  Outcome: CronRun['Outcome'];
}

/** Adds `service runs`. */
export function addRuns(service: Command, context: Context): void {
  listOptions(
    service
      .command('runs')
      .description("a job's schedule, when it runs next, and the history of its runs")
      .argument('<service>'),
  ).action(async (name: string, flags: ListOptions) => {
    const path = `/services/${encodeURIComponent(name)}/runs`;
    const { Schedule, Timezone, Overlap, NextAt, Runs } = await context.client().get<RunsAnswer>(path);
    if (!flags.quiet && flags.format === undefined) {
      print(`schedule: ${Schedule} (${Timezone}), overlap: ${Overlap}, next run: ${NextAt ?? 'never'}`);
    }
    print(renderList(Runs, columns(context.clock.now()), (run) => run.ScheduledAt, flags));
  });
}

function columns(nowMs: number): Column<Run>[] {
  return [
    { heading: 'RUN', field: 'Iteration', value: (run) => String(run.Iteration ?? '') },
    { heading: 'SCHEDULED', field: 'ScheduledAt', value: (run) => run.ScheduledAt },
    { heading: 'STARTED', field: 'StartedAt', value: (run) => run.StartedAt ?? '' },
    { heading: 'TOOK', field: 'Took', value: took },
    { heading: 'OUTCOME', field: 'Outcome', value: (run) => outcome(run, nowMs) },
  ];
}

function took({ StartedAt, EndedAt }: Run): string {
  if (StartedAt === undefined || EndedAt === undefined) return '';
  return `${((Date.parse(EndedAt) - Date.parse(StartedAt)) / 1000).toFixed(1)}s`;
}

function outcome({ Outcome, EndedAt }: Run, nowMs: number): string {
  if (Outcome === 'skipped') return 'Skipped: the run before was not over';
  return EndedAt === undefined
    ? capital(Outcome)
    : `${capital(Outcome)} ${ago(EndedAt, nowMs).toLowerCase()}`;
}
