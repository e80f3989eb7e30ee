/** shoal service: what runs on the cluster. */
import type { Command } from 'commander';
import type { PortConfig, Service, ServiceSpec, UpdateConfig } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import { type Context, collect, filterQuery, listOptions } from '../context.ts';
import { ago, type Column, type ListOptions, print, renderList } from '../output.ts';
import { waitForService } from '../progress.ts';
import { addLogs } from './logs.ts';
import { addCreate, addUpdate } from './service-change.ts';
import { listTasks, type TaskListFlags, taskListOptions } from './tasks.ts';

/** A service as the list answers it with status=true. */
export type ListedService = Service & { ServiceStatus?: { RunningTasks: number; DesiredTasks: number } };

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
  service
    .command('rm')
    .description('remove services')
    .argument('<service...>')
    .action(async (names: string[]) => {
      for (const name of names) {
        await context.client().delete(`/services/${name}`);
        print(name);
      }
    });
}

/** Adds -d/--detach and -q/--quiet, which every command that waits has. */
export function waitOptions(command: Command): Command {
  return command
    .option('-d, --detach', 'do not wait until the service has converged')
    .option('-q, --quiet', 'do not show progress');
}

/** Waits for the service unless told not to. */
export async function converge(context: Context, serviceId: string, flags: WaitFlags): Promise<void> {
  if (flags.detach) return;
  await waitForService(context.client(), serviceId, {
    quiet: flags.quiet ?? false,
    clock: context.clock,
    output: process.stderr,
  });
}

/** Columns of a list of services. */
export const serviceColumns: readonly Column<ListedService>[] = [
  { heading: 'ID', field: 'ID', value: (row) => row.ID.slice(0, 12) },
  { heading: 'NAME', field: 'Name', value: (row) => row.Spec.Name },
  { heading: 'MODE', field: 'Mode', value: (row) => (row.Spec.Mode.Global ? 'global' : 'replicated') },
  { heading: 'REPLICAS', field: 'Replicas', value: replicasOf },
  { heading: 'IMAGE', field: 'Image', value: (row) => row.Spec.TaskTemplate.ContainerSpec.Image },
  { heading: 'PORTS', field: 'Ports', value: (row) => (row.Endpoint.Ports ?? []).map(portText).join(', ') },
];

function replicasOf(row: ListedService): string {
  const { RunningTasks = 0, DesiredTasks = 0 } = row.ServiceStatus ?? {};
  const limit = row.Spec.TaskTemplate.Placement?.MaxReplicas;
  return `${RunningTasks}/${DesiredTasks}${limit ? ` (max ${limit} per node)` : ''}`;
}

function portText(port: PortConfig): string {
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
      const found = await Promise.all(
        names.map((name) => context.client().get<Service>(`/services/${name}`)),
      );
      await listTasks(context, { service: found.map((one) => one.ID) }, flags);
    },
  );
}

function addInspect(service: Command, context: Context): void {
  service
    .command('inspect')
    .description('print services in full')
    .argument('<service...>')
    .option('--format <format>', 'json')
    .option('--pretty', 'print in a form for people')
    .action(async (names: string[], flags: { pretty?: boolean }) => {
      const query = flags.pretty ? { insertDefaults: 'true' } : {};
      const found = await Promise.all(
        names.map((name) => context.client().get<Service>(`/services/${name}`, query)),
      );
      const now = context.clock.now();
      print(
        flags.pretty
          ? found.map((one) => pretty(one, now)).join('\n\n')
          : JSON.stringify(found, undefined, 4),
      );
    });
}

function pretty(service: Service, nowMs: number): string {
  const { Spec, UpdateStatus } = service;
  const container = Spec.TaskTemplate.ContainerSpec;
  const constraints = Spec.TaskTemplate.Placement?.Constraints ?? [];
  return [
    `ID:             ${service.ID}`,
    `Name:           ${Spec.Name}`,
    `Service Mode:   ${Spec.Mode.Global ? 'Global' : 'Replicated'}`,
    ...(Spec.Mode.Replicated ? [` Replicas:      ${Spec.Mode.Replicated.Replicas ?? 1}`] : []),
    ...(UpdateStatus
      ? [
          'UpdateStatus:',
          ` State:         ${UpdateStatus.State}`,
          ...(UpdateStatus.StartedAt ? [` Started:       ${ago(UpdateStatus.StartedAt, nowMs)}`] : []),
          ...(UpdateStatus.CompletedAt ? [` Completed:     ${ago(UpdateStatus.CompletedAt, nowMs)}`] : []),
          ` Message:       ${UpdateStatus.Message}`,
        ]
      : []),
    ...(constraints.length > 0 ? ['Placement:', ` Constraints:   ${constraints.join(', ')}`] : []),
    ...rollout('UpdateConfig:', Spec.UpdateConfig),
    ...rollout('RollbackConfig:', Spec.RollbackConfig),
    'ContainerSpec:',
    ` Image:         ${container.Image}`,
    ...(container.Args ? [` Args:          ${container.Args.join(' ')}`] : []),
    ...(container.Env ? [` Env:           ${container.Env.join(' ')}`] : []),
    ...(container.User ? [` User:          ${container.User}`] : []),
    ...((service.Endpoint.Ports ?? []).length > 0
      ? ['Ports:', ...(service.Endpoint.Ports ?? []).map((p) => ` ${portText(p)}`)]
      : []),
  ].join('\n');
}

function rollout(heading: string, config: UpdateConfig | undefined): string[] {
  if (!config) return [];
  return [
    heading,
    ` Parallelism:   ${config.Parallelism}`,
    ...(config.Delay ? [` Delay:         ${config.Delay / 1e9}s`] : []),
    ...(config.FailureAction ? [` On failure:    ${config.FailureAction}`] : []),
    ...(config.Monitor ? [` Monitoring Period: ${config.Monitor / 1e9}s`] : []),
    ...(config.MaxFailureRatio === undefined ? [] : [` Max failure ratio: ${config.MaxFailureRatio}`]),
    ...(config.Order ? [` Update order:  ${config.Order}`] : []),
  ];
}

/** Reads the service, changes its spec and writes it, naming the version that was read. */
export async function changeService(
  context: Context,
  name: string,
  change: (spec: ServiceSpec, service: Service) => ServiceSpec | Promise<ServiceSpec>,
  query: Record<string, string> = {},
): Promise<Service> {
  const client = context.client();
  const service = await client.get<Service>(`/services/${name}`);
  const spec = await change(service.Spec, service);
  const answer = await client.post<{ Warnings?: string[] | null }>(`/services/${service.ID}/update`, spec, {
    version: String(service.Version.Index),
    ...query,
  });
  for (const warning of answer?.Warnings ?? []) process.stderr.write(`${warning}\n`);
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
      for (const { name, replicas } of wanted) {
        changed.push(
          await changeService(context, name, (spec) => {
            if (!spec.Mode.Replicated) {
              throw new ShoalError(
                'invalid-argument',
                `${name}: scale can only be used with replicated mode; this service is global`,
              );
            }
            return { ...spec, Mode: { Replicated: { Replicas: replicas } } };
          }),
        );
        print(`${name} scaled to ${replicas}`);
      }
      for (const one of changed) await converge(context, one.ID, flags);
    });
}

function parseScale(pair: string): { name: string; replicas: number } {
  const match = /^([^=]+)=(\d+)$/.exec(pair);
  if (!match) throw new ShoalError('invalid-argument', `"${pair}" is not SERVICE=REPLICAS, e.g. web=5`);
  return { name: match[1]!, replicas: Number(match[2]) };
}

function addRollback(service: Command, context: Context): void {
  waitOptions(
    service.command('rollback').description("go back to a service's previous spec").argument('<service>'),
  ).action(async (name: string, flags: WaitFlags) => {
    const changed = await changeService(context, name, (spec) => spec, { rollback: 'previous' });
    print(name);
    await converge(context, changed.ID, flags);
  });
}
