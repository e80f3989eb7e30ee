/** shoal stack: services that belong together, from compose files. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import type { Plan } from '../../manager/api/plans.ts';
import type { CompiledStack } from '../../manager/stack/compose.ts';
import { stackLabel } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import { delay } from '../../proto/ports.ts';
import { type Context, collect, forEach, listOptions } from '../context.ts';
import { type Column, type ListOptions, print, renderList } from '../output.ts';
import { refuseFlags, UsageError } from '../usage.ts';
import { addHistory } from './history.ts';
import { printServices } from './plan.ts';
import {
  converge,
  fetchServices,
  printWarnings,
  serviceColumns,
  type WaitFlags,
  waitOptions,
} from './service.ts';
import { listTasks, type TaskListFlags, taskListOptions } from './tasks.ts';

interface ListedStack {
  Name: string;
  Services: number;
}

interface DeployAnswer {
  Created: ObjectName[];
  Updated: ObjectName[];
  Removed: ObjectName[];
  Unchanged: ObjectName[];
  Warnings?: string[] | null;
}

interface ObjectName {
  Kind: string;
  Name: string;
}

interface ComposeFlags {
  readonly composeFile?: string[];
}

/** Adds the noun with its verbs. */
export function addStackCommands(program: Command, context: Context): void {
  const stack = program.command('stack').description('manage stacks');
  addDeploy(stack, context);
  addPlan(stack, context);
  listOptions(stack.command('ls').alias('list').description('list stacks')).action(
    async (flags: ListOptions) => {
      const stacks = await context.client().get<ListedStack[]>('/stacks');
      print(renderList(stacks, stackColumns, (row) => row.Name, flags));
    },
  );
  taskListOptions(stack.command('ps').description("list a stack's tasks").argument('<stack>')).action(
    async (name: string, flags: TaskListFlags) => {
      await requireStack(context, name);
      await listTasks(context, { label: [`${stackLabel}=${name}`] }, flags);
    },
  );
  listOptions(stack.command('services').description("list a stack's services").argument('<stack>'))
    .option('-f, --filter <filter>', 'id, name, label or mode: key=value', collect)
    .action(async (name: string, flags: ListOptions & { filter?: string[] }) => {
      await requireStack(context, name);
      const services = await fetchServices(context, [...(flags.filter ?? []), `label=${stackLabel}=${name}`]);
      print(renderList(services, serviceColumns, (row) => row.ID, flags));
    });
  addRemove(stack, context);
  addHistory(stack, context, 'stacks');
  addStackRollback(stack, context);
  const config = composeOptions(
    stack.command('config').description('print the merged and checked compose files'),
  ).action(async (flags: ComposeFlags) => {
    const input = composeInput(flags);
    const { compileCompose, parseCompose } = await compiler();
    parseCompose(input);
    const compiled = compileCompose(input, 'stack');
    printWarnings(compiled.warnings);
    print(compiled.source.trimEnd());
  });
  refuseFlags(config, ['--skip-interpolation']);
}

function addRemove(stack: Command, context: Context): void {
  stack
    .command('rm')
    .aliases(['remove', 'down'])
    .description('remove stacks')
    .argument('<stack...>')
    .option('-d, --detach', 'do not wait until their tasks are gone (default; --detach=false waits)')
    .action((names: string[], flags: WaitFlags) =>
      forEach(names, async (name) => {
        const done = await context.client().delete<DeployAnswer>(stackPath(name));
        for (const { Kind, Name } of done.Removed) print(`Removing ${Kind} ${Name}`);
        if (flags.detach === false) await waitUntilGone(context, name);
      }),
    );
}

const gonePollMs = 200;

/** Waits until no task of a removed stack is left. */
async function waitUntilGone(context: Context, name: string): Promise<void> {
  const filters = JSON.stringify({ label: { [`${stackLabel}=${name}`]: true } });
  while ((await context.client().get<unknown[]>('/tasks', { filters })).length > 0) {
    await delay(context.clock, gonePollMs);
  }
}

function stackPath(name: string): string {
  return `/stacks/${encodeURIComponent(name)}`;
}

const stackColumns: Column<ListedStack>[] = [
  { heading: 'NAME', field: 'Name', value: (row) => row.Name },
  { heading: 'SERVICES', field: 'Services', value: (row) => String(row.Services) },
];

async function requireStack(context: Context, name: string): Promise<void> {
  await context.client().get(stackPath(name));
}

/** Loaded when it is needed: reading YAML and checking it takes longer to load than all the rest. */
function compiler() {
  return import('../../manager/stack/compose.ts');
}

function composeOptions(command: Command): Command {
  return command.option(
    '-c, --compose-file <path>',
    'compose file, or - for standard input; several are merged',
    collect,
  );
}

function composeInput(flags: ComposeFlags) {
  const paths = flags.composeFile ?? [];
  if (paths.length === 0) throw new UsageError('name the compose file with -c/--compose-file');
  return {
    files: paths.map((path) => ({ path: path === '-' ? 'stdin' : path, content: readText(path) })),
    folder: paths[0] === '-' ? process.cwd() : dirname(resolve(paths[0]!)),
    environment: definedOnly(process.env),
    readFile: (path: string) => (existsSync(resolve(path)) ? readFileSync(resolve(path)) : undefined),
  };
}

function readText(path: string): string {
  try {
    return readFileSync(path === '-' ? 0 : path, 'utf8');
  } catch (error) {
    throw new ShoalError('invalid-argument', `the compose file ${path} can't be read`, { cause: error });
  }
}

function definedOnly(environment: NodeJS.ProcessEnv): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).filter((pair): pair is [string, string] => pair[1] !== undefined),
  );
}

function addDeploy(stack: Command, context: Context): void {
  const command = stack
    .command('deploy')
    .alias('up')
    .description('deploy a stack, whole or not at all')
    .argument('<stack>')
    .option('--prune', 'remove services that the files no longer have')
    .option('--plan-version <version>', 'only if it does what `stack plan` showed under this version')
    .addOption(new Option('--resolve-image <when>').choices(['never']).hideHelp());
  waitOptions(composeOptions(command)).action((name: string, flags: DeployFlags) =>
    deploy(context, name, flags),
  );
  refuseFlags(command, ['--with-registry-auth']);
}

function addStackRollback(stack: Command, context: Context): void {
  const command = stack
    .command('rollback')
    .description('make a stack what an earlier deployment made it')
    .argument('<stack>')
    .requiredOption('--to <number>', 'the deployment, as `stack history` shows it');
  waitOptions(command).action(async (name: string, flags: WaitFlags & { readonly to: string }) => {
    const done = await context
      .client()
      .post<DeployAnswer>(`${stackPath(name)}/rollback`, {}, { to: flags.to });
    report(done);
    await waitForStack(context, name, done, flags);
  });
}

type DeployFlags = ComposeFlags & WaitFlags & { readonly prune?: boolean; readonly planVersion?: string };

async function deploy(context: Context, name: string, flags: DeployFlags): Promise<void> {
  const body = await compiledBody(name, flags);
  const done = await context
    .client()
    .put<DeployAnswer>(stackPath(name), body, { planVersion: flags.planVersion });
  printWarnings(done.Warnings);
  report(done);
  await waitForStack(context, name, done, flags);
}

async function waitForStack(
  context: Context,
  name: string,
  done: DeployAnswer,
  flags: WaitFlags,
): Promise<void> {
  if (flags.detach) return;
  const changed = [...done.Created, ...done.Updated].map((one) => one.Name);
  for (const service of await fetchServices(context, [`label=${stackLabel}=${name}`])) {
    if (!flags.quiet) process.stderr.write(`${service.Spec.Name}\n`);
    // An old rollback of a service that this deployment leaves alone is none of its concern.
    const rollback = !changed.includes(service.Spec.Name);
    await converge(context, service.ID, { ...flags, rollback });
  }
}

async function compiledBody(name: string, flags: DeployFlags) {
  const { compileCompose } = await compiler();
  const compiled = compileCompose(composeInput(flags), name);
  if (compiled.refusals.length > 0) throw new ShoalError('not-supported', compiled.refusals.join('\n'));
  printWarnings(compiled.warnings);
  return deployBody(compiled, flags.prune ?? false);
}

function addPlan(stack: Command, context: Context): void {
  const command = stack
    .command('plan')
    .description('tell what a deploy would do, and change nothing')
    .argument('<stack>')
    .option('--prune', 'as deploy --prune would');
  composeOptions(command)
    .option('--format <format>', 'json, for programs')
    .action(async (name: string, flags: DeployFlags & { readonly format?: string }) => {
      const body = await compiledBody(name, flags);
      const plan = await context.client().post<DeployAnswer & Plan>(`${stackPath(name)}/plan`, body);
      if (flags.format === 'json') return print(JSON.stringify(plan, undefined, 2));
      printWarnings(plan.Warnings);
      const others = (names: readonly ObjectName[]) => names.filter((one) => one.Kind !== 'service');
      for (const { Kind, Name } of others(plan.Created)) print(`create ${Kind} ${Name}`);
      for (const { Kind, Name } of others(plan.Updated)) print(`update ${Kind} ${Name}`);
      printServices(plan.Services);
      for (const { Kind, Name } of plan.Unchanged) print(`leave ${Kind} ${Name}`);
      print(`Nothing was changed. To do this and nothing else: stack deploy --plan-version ${plan.Version}`);
    });
}

function deployBody(compiled: CompiledStack, prune: boolean) {
  return {
    Source: compiled.source,
    Prune: prune,
    Compiled: {
      Services: compiled.services,
      Networks: compiled.networks,
      Secrets: compiled.secrets,
      Configs: compiled.configs,
      Places: Object.fromEntries(compiled.places),
    },
  };
}

function report(done: DeployAnswer): void {
  const say = (verb: string, names: readonly ObjectName[]): void => {
    for (const { Kind, Name } of names) print(`${verb} ${Kind} ${Name}`);
  };
  say('Creating', done.Created);
  say('Updating', done.Updated);
  say('Removing', done.Removed);
  if (done.Created.length + done.Updated.length + done.Removed.length === 0) print('Nothing to change.');
}
