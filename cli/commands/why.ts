/** shoal task why, shoal service why: what happened to tasks, and what they wait for. */
import type { Command } from 'commander';
import type { ServiceWhy, TaskWhy } from '../../manager/api/why.ts';
import type { Context } from '../context.ts';
import { type Column, type ListOptions, print, renderList } from '../output.ts';
import { addTaskExec } from './task-exec.ts';

type Moment = TaskWhy['Timeline'][number] & { readonly task: string };

const columns: readonly Column<Moment>[] = [
  { heading: 'WHEN', field: 'When', value: (row) => row.At },
  { heading: 'TASK', field: 'Task', value: (row) => row.task },
  { heading: 'STATE', field: 'State', value: (row) => row.State },
  { heading: 'WANTED', field: 'DesiredState', value: (row) => row.DesiredState },
  { heading: 'NODE', field: 'Node', value: (row) => row.Node ?? '' },
  { heading: 'WHY', field: 'Text', value: (row) => row.Text },
];

/** Adds `task` with its verb. */
export function addTaskCommands(program: Command, context: Context): void {
  const task = program.command('task').description('look into tasks');
  whyOptions(task.command('why').description('why a task is where it is').argument('<task>')).action(
    async (id: string, flags: WhyFlags) => {
      const why = await context.client().get<TaskWhy>(`/tasks/${encodeURIComponent(id)}/why`);
      if (flags.format === 'json') return print(JSON.stringify(why, undefined, 2));
      print(headline(why));
      process.stdout.write('\n');
      printTimeline([why]);
    },
  );
  addTaskExec(task, context);
}

/** `shoal service why`. */
export function addServiceWhy(service: Command, context: Context): void {
  whyOptions(
    service.command('why').description("why a service's tasks are where they are").argument('<service>'),
  ).action(async (name: string, flags: WhyFlags) => {
    const why = await context.client().get<ServiceWhy>(`/services/${encodeURIComponent(name)}/why`);
    if (flags.format === 'json') return print(JSON.stringify(why, undefined, 2));
    for (const reason of why.Reasons) print(`${why.Name}: ${reason}`);
    for (const task of why.Tasks.filter(isOpen)) print(headline(task));
    if (why.Reasons.length === 0 && !why.Tasks.some(isOpen))
      print(`${why.Name}: every task is as it should be`);
    process.stdout.write('\n');
    printTimeline(why.Tasks);
  });
}

type WhyFlags = Pick<ListOptions, 'format'>;

function whyOptions(command: Command): Command {
  return command.option('--format <format>', 'json, for programs');
}

function isOpen(task: TaskWhy): boolean {
  return task.Reason !== '' && task.DesiredState !== 'shutdown';
}

function headline(task: TaskWhy): string {
  const where = task.Node === '' ? '' : ` on ${task.Node}`;
  const reason = task.Reason === '' ? 'as it should be' : task.Reason;
  return `${task.Name} (${task.ID.slice(0, 12)}) is ${task.State}${where}: ${reason}`;
}

function printTimeline(tasks: readonly TaskWhy[]): void {
  const rows = tasks
    .flatMap((task) =>
      task.Timeline.map((moment) => ({ ...moment, task: `${task.Name} ${task.ID.slice(0, 12)}` })),
    )
    .sort((left, right) => (left.At < right.At ? -1 : left.At > right.At ? 1 : 0));
  print(renderList(rows, columns, (row) => row.task, {}));
}
