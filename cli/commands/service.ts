/** shoal service: what runs on the cluster. */
import type { Command } from 'commander';
import type { PlannedService } from '../../manager/api/plans.ts';
import type { PortConfig, Service, ServiceMode, ServiceSpec } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import { type Context, collect, filterQuery, forEach, listOptions } from '../context.ts';
import { type InspectFlags, inspect, inspectOptions } from '../inspect.ts';
import { type Column, type ListOptions, print, renderList } from '../output.ts';
import { prettyService } from '../pretty-service.ts';
import { waitForService } from '../progress.ts';
import { UsageError } from '../usage.ts';
import { addHistory, rollBackTo } from './history.ts';
import { addLogs } from './logs.ts';
import { printServices } from './plan.ts';
import { addCreate, addUpdate } from './service-change.ts';
import { addRuns } from './service-runs.ts';
import { listTasks, type TaskListFlags, taskListOptions } from './tasks.ts';
import { addRebalance } from './upkeep.ts';
import { addServiceWhy } from './why.ts';

/** A service as the list answers it with status=true. */
export type ListedService = Service & {
  ServiceStatus?: { RunningTasks: number; DesiredTasks: number; CompletedTasks?: number };
};

export interface WaitFlags {
  readonly detach?: boolean;
  readonly quiet?: boolean;
}

/** Adds the noun with its verbs. */
export function addServiceCommands(program: Command, context: Context): void {
  const service = program.command('service').description('manage services');
  addCreate(service, context);
  addUpdate(service, context);
  addList(service, context);
  addTasks(service, context);
  addInspect(service, context);
  addScale(service, context);
  addRollback(service, context);
  addLogs(service, context);
  addServiceWhy(service, context);
  addHistory(service, context, 'services');
  addRuns(service, context);
  addRebalance(service, context);
  service
    .command('rm')
    .alias('remove')
    .description('remove services')
    .argument('<service...>')
    .action((names: string[]) =>
      forEach(names, async (name) => {
        await context.client().delete(servicePath(name));
        print(name);
      }),
    );
}

function servicePath(name: string): string {
  return `/services/${encodeURIComponent(name)}`;
}

/** Prints warnings of an answer on standard error. */
export function printWarnings(warnings: readonly string[] | null | undefined): void {
  for (const warning of warnings ?? []) process.stderr.write(`${warning}\n`);
}

/** Adds -d/--detach and -q/--quiet, which every command that waits has. */
export function waitOptions(command: Command): Command {
  return command
    .option('-d, --detach', 'do not wait until the service has converged')
    .option('-q, --quiet', 'do not show progress');
}

/** Waits for the service unless told not to. */
export async function converge(
  context: Context,
  serviceId: string,
  flags: WaitFlags & { readonly rollback?: unknown },
): Promise<void> {
  if (flags.detach) return;
  const { Spec } = await context.client().get<Service>(`/services/${serviceId}`);
  if ('shoal.cron' in Spec.Labels) {
    process.stderr.write(`It runs by its schedule: see \`shoal service runs ${Spec.Name}\`.\n`);
    return;
  }
  await waitForService(context.client(), serviceId, {
    quiet: flags.quiet ?? false,
    clock: context.clock,
    output: process.stderr,
    isRollback: flags.rollback === true,
  });
}

/** Columns of a list of services. */
export const serviceColumns: readonly Column<ListedService>[] = [
  { heading: 'ID', field: 'ID', value: (row) => row.ID.slice(0, 12) },
  { heading: 'NAME', field: 'Name', value: (row) => row.Spec.Name },
  { heading: 'MODE', field: 'Mode', value: (row) => modeText(row.Spec.Mode) },
  { heading: 'REPLICAS', field: 'Replicas', value: replicasOf },
  { heading: 'IMAGE', field: 'Image', value: (row) => row.Spec.TaskTemplate.ContainerSpec.Image },
  { heading: 'PORTS', field: 'Ports', value: (row) => (row.Endpoint.Ports ?? []).map(portText).join(', ') },
];

/** A mode in docker's words for lists. */
export function modeText(mode: ServiceMode): string {
  if (mode.Global) return 'global';
  if (mode.GlobalJob) return 'global job';
  return mode.ReplicatedJob ? 'replicated job' : 'replicated';
}

function replicasOf(row: ListedService): string {
  const { RunningTasks = 0, DesiredTasks = 0, CompletedTasks = 0 } = row.ServiceStatus ?? {};
  const { ReplicatedJob, GlobalJob } = row.Spec.Mode;
  if (ReplicatedJob || GlobalJob) {
    const total = ReplicatedJob ? (ReplicatedJob.TotalCompletions ?? 1) : DesiredTasks + CompletedTasks;
    return `${RunningTasks}/${DesiredTasks} (${CompletedTasks}/${total} completed)`;
  }
  const limit = row.Spec.TaskTemplate.Placement?.MaxReplicas;
  return `${RunningTasks}/${DesiredTasks}${limit ? ` (max ${limit} per node)` : ''}`;
}

/** `*:8080->80/tcp`. */
export function portText(port: PortConfig): string {
  return `*:${port.PublishedPort ?? ''}->${port.TargetPort}/${port.Protocol ?? 'tcp'}`;
}

/** The services that match, with how many of their tasks run, by name. */
export async function fetchServices(
  context: Context,
  filters: readonly string[] | undefined,
): Promise<ListedService[]> {
  const query = { status: 'true', filters: filterQuery(filters) };
  const services = await context.client().get<ListedService[]>('/services', query);
  return services.sort((a, b) => a.Spec.Name.localeCompare(b.Spec.Name));
}

function addList(service: Command, context: Context): void {
  listOptions(service.command('ls').alias('list').description('list services'))
    .option('-f, --filter <filter>', 'id, name, label or mode: key=value', collect)
    .action(async (flags: ListOptions & { filter?: string[] }) => {
      print(renderList(await fetchServices(context, flags.filter), serviceColumns, (row) => row.ID, flags));
    });
}

function addTasks(service: Command, context: Context): void {
  taskListOptions(service.command('ps').description("list services' tasks").argument('<service...>')).action(
    async (names: string[], flags: TaskListFlags) => {
      const found = await Promise.all(names.map((name) => context.client().get<Service>(servicePath(name))));
      await listTasks(context, { service: found.map((one) => one.ID) }, flags);
    },
  );
}

function addInspect(service: Command, context: Context): void {
  const command = service.command('inspect').description('print services in full').argument('<service...>');
  inspectOptions(command, true).action((names: string[], flags: InspectFlags) => {
    const query = { insertDefaults: 'true' };
    const find = (name: string) => context.client().get<Service>(servicePath(name), query);
    const now = context.clock.now();
    return inspect(names, flags, find, (one) => prettyService(one, now));
  });
}

/** A change of a service's spec, and what goes with the request that makes it. */
export interface ServiceChange {
  readonly change: (spec: ServiceSpec) => ServiceSpec | Promise<ServiceSpec>;
  /** Only tells what it would do. */
  readonly isDryRun?: boolean;
  readonly query?: Record<string, string>;
  readonly headers?: (spec: ServiceSpec) => Record<string, string>;
}

/** Reads the service, changes its spec and writes it, naming the version that was read. */
export async function changeService(
  context: Context,
  name: string,
  { change, query = {}, headers = () => ({}), isDryRun = false }: ServiceChange,
): Promise<Service> {
  const client = context.client();
  const service = await client.get<Service>(servicePath(name));
  const spec = await change(service.Spec);
  const answer = await client.post<{ Warnings?: string[] | null; Services?: PlannedService[] }>(
    `/services/${service.ID}/${isDryRun ? 'plan' : 'update'}`,
    spec,
    { version: String(service.Version.Index), ...query },
    headers(spec),
  );
  printWarnings(answer?.Warnings);
  if (isDryRun) {
    printServices(answer.Services ?? []);
    print('Nothing was changed.');
  }
  return service;
}

function addScale(service: Command, context: Context): void {
  service
    .command('scale')
    .description('set the number of replicas of services')
    .argument('<service=replicas...>')
    .option('-d, --detach', 'do not wait until the services have converged')
    .action(async (pairs: string[], flags: WaitFlags) => {
      const wanted = pairs.map(parseScale);
      const changed: Service[] = [];
      let failure: unknown;
      await forEach(
        wanted.map(({ name }) => name),
        async (name) => {
          const { replicas } = wanted.find((one) => one.name === name)!;
          changed.push(
            await changeService(context, name, { change: (spec) => withReplicas(spec, name, replicas) }),
          );
          print(`${name} scaled to ${replicas}`);
        },
      ).catch((error: unknown) => {
        failure = error;
      });
      for (const one of changed) {
        if (changed.length > 1 && !flags.detach) process.stderr.write(`${one.Spec.Name}\n`);
        await converge(context, one.ID, flags);
      }
      if (failure !== undefined) throw failure;
    });
}

function withReplicas(spec: ServiceSpec, name: string, replicas: number): ServiceSpec {
  const { Replicated, ReplicatedJob } = spec.Mode;
  if (Replicated) return { ...spec, Mode: { Replicated: { Replicas: replicas } } };
  if (ReplicatedJob) {
    return { ...spec, Mode: { ReplicatedJob: { ...ReplicatedJob, TotalCompletions: replicas } } };
  }
  throw new ShoalError(
    'invalid-argument',
    `${name}: scale can only be used with replicated or replicated-job mode`,
  );
}

function parseScale(pair: string): { name: string; replicas: number } {
  const match = /^([^=]+)=(\d+)$/.exec(pair);
  if (!match) throw new UsageError(`"${pair}" is not SERVICE=REPLICAS, e.g. web=5`);
  return { name: match[1]!, replicas: Number(match[2]) };
}

function addRollback(service: Command, context: Context): void {
  waitOptions(
    service
      .command('rollback')
      .description("go back to a service's previous spec")
      .argument('<service>')
      .option('--to <number>', 'the revision to go to, as `service history` shows it'),
  ).action(async (name: string, flags: WaitFlags & { readonly to?: string }) => {
    if (flags.to !== undefined) {
      const id = await rollBackTo(context, name, flags.to);
      print(name);
      return converge(context, id, { ...flags, rollback: true });
    }
    const changed = await changeService(context, name, {
      change: (spec) => spec,
      query: { rollback: 'previous' },
    });
    print(name);
    await converge(context, changed.ID, { ...flags, rollback: true });
  });
}
