/** The list of tasks that `service ps`, `node ps` and `stack ps` share. */
import type { Command } from 'commander';
import type { ClusterNode, PortConfig, Service, TaskSpec, TaskStatus } from '../../proto/docker.ts';
import { isTerminal } from '../../proto/task-state.ts';
import { type Context, collect, listOptions, splitFilter } from '../context.ts';
import { ago, type Column, capital, cut, type ListOptions, print, renderList } from '../output.ts';

/** A task as the API answers it. */
export interface ListedTask {
  ID: string;
  ServiceID: string;
  NodeID?: string;
  Slot?: number;
  JobIteration?: { Index?: number };
  Spec: TaskSpec;
  Status: TaskStatus;
  DesiredState: string;
  CreatedAt: string;
  Version: { Index: number };
}

export interface TaskListFlags extends ListOptions {
  readonly filter?: string[];
  readonly trunc?: boolean;
  readonly resolve?: boolean;
}

/** Adds the options that lists of tasks have. */
export function taskListOptions(command: Command): Command {
  return listOptions(command)
    .option('-f, --filter <filter>', 'id, name, node or desired-state: key=value', collect)
    .option('--no-trunc', 'do not shorten')
    .option('--no-resolve', 'print ids instead of names');
}

interface Row {
  task: ListedTask;
  name: string;
  node: string;
}

/** Prints the tasks that match `scope` and the user's filters, newest of each slot first. */
export async function listTasks(
  context: Context,
  scope: Record<string, readonly string[]>,
  flags: TaskListFlags,
): Promise<void> {
  const client = context.client();
  const filters: Record<string, Record<string, true>> = {};
  const add = (key: string, value: string): void => {
    filters[key] = { ...filters[key], [value]: true };
  };
  for (const [key, values] of Object.entries(scope)) for (const value of values) add(key, value);
  for (const [key, value] of (flags.filter ?? []).map(splitFilter)) add(key, value);
  const [tasks, services, nodes] = await Promise.all([
    client.get<ListedTask[]>('/tasks', { filters: JSON.stringify(filters) }),
    client.get<Service[]>('/services'),
    client.get<ClusterNode[]>('/nodes'),
  ]);
  const serviceNames = new Map<string, string>(services.map((service) => [service.ID, service.Spec.Name]));
  const nodeNames = new Map<string, string>(nodes.map((node) => [node.ID, node.Description.Hostname]));
  const rows = tasks.map((task) => ({
    task,
    name: taskName(
      task,
      flags.resolve === false ? task.ServiceID : (serviceNames.get(task.ServiceID) ?? task.ServiceID),
    ),
    node: task.NodeID
      ? flags.resolve === false
        ? task.NodeID
        : (nodeNames.get(task.NodeID) ?? task.NodeID)
      : '',
  }));
  const width = flags.trunc === false ? Number.POSITIVE_INFINITY : 60;
  print(
    renderList(
      indentHistory(sortRows(rows), flags),
      columns(width, context.clock.now()),
      (row) => row.task.ID,
      flags,
    ),
  );
}

function taskName(task: ListedTask, service: string): string {
  return `${service}.${task.Slot || task.NodeID || ''}`;
}

function sortRows(rows: Row[]): Row[] {
  return rows.sort(
    (a, b) =>
      a.name.localeCompare(b.name, 'en', { numeric: true }) ||
      b.task.CreatedAt.localeCompare(a.task.CreatedAt),
  );
}

/** Docker marks the earlier tasks of a slot by ` \_ ` before the name. */
function indentHistory(rows: Row[], flags: TaskListFlags): Row[] {
  if (flags.quiet || (flags.format !== undefined && !flags.format.startsWith('table'))) return rows;
  return rows.map((row, index) =>
    rows[index - 1]?.name === row.name ? { ...row, name: ` \\_ ${row.name}` } : row,
  );
}

function columns(width: number, nowMs: number): Column<Row>[] {
  return [
    {
      heading: 'ID',
      field: 'ID',
      value: ({ task }) => (width === Number.POSITIVE_INFINITY ? task.ID : task.ID.slice(0, 12)),
    },
    { heading: 'NAME', field: 'Name', value: ({ name }) => name },
    {
      heading: 'IMAGE',
      field: 'Image',
      value: ({ task }) => imageName(task.Spec.ContainerSpec.Image, width),
    },
    { heading: 'NODE', field: 'Node', value: ({ node }) => node },
    { heading: 'DESIRED STATE', field: 'DesiredState', value: ({ task }) => capital(task.DesiredState) },
    {
      heading: 'CURRENT STATE',
      field: 'CurrentState',
      value: ({ task }) => `${capital(task.Status.State)} ${ago(task.Status.Timestamp, nowMs).toLowerCase()}`,
    },
    { heading: 'ERROR', field: 'Error', value: ({ task }) => errorOf(task, width) },
    { heading: 'PORTS', field: 'Ports', value: ({ task }) => portsOf(task.Status.PortStatus?.Ports ?? []) },
  ];
}

function imageName(image: string, width: number): string {
  return width === Number.POSITIVE_INFINITY ? image : image.replace(/@sha256:[0-9a-f]+$/, '');
}

/** Why the task waits or ended; a message that is not an error is shown where the task is not running yet. */
function errorOf(task: ListedTask, width: number): string {
  const text = task.Status.Err ?? '';
  if (text === '') return '';
  return cut(`"${text}"`, isTerminal(task.Status.State) ? width : Math.max(width, 100));
}

function portsOf(ports: readonly PortConfig[]): string {
  return ports
    .map((port) => `*:${port.PublishedPort}->${port.TargetPort}/${port.Protocol ?? 'tcp'}`)
    .join(',');
}
