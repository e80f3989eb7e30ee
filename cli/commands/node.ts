/** shoal node: the machines of the cluster. */
import type { Command } from 'commander';
import type { ClusterNode, NodeSpec } from '../../proto/docker.ts';
import { type Context, collect, filterQuery, listOptions } from '../context.ts';
import { type Column, capital, type ListOptions, print, renderList } from '../output.ts';
import { parseChoice, parseLabels } from '../parse.ts';
import { listTasks, type TaskListFlags, taskListOptions } from './tasks.ts';

type ListedNode = Omit<ClusterNode, 'Private'>;

/** Adds the noun with its verbs. */
export function addNodeCommands(program: Command, context: Context): void {
  const node = program.command('node').description('manage nodes');
  addList(node, context);
  addInspect(node, context);
  addTasks(node, context);
  addUpdate(node, context);
  addRoles(node, context);
  node
    .command('rm')
    .description('forget nodes that have left or are down')
    .argument('<node...>')
    .option('-f, --force', 'also when it is not down')
    .action(async (nodes: string[], flags: { force?: boolean }) => {
      for (const name of nodes) {
        await context.client().delete(`/nodes/${name}`, flags.force ? { force: 'true' } : {});
        print(name);
      }
    });
}

function addList(node: Command, context: Context): void {
  listOptions(node.command('ls').alias('list').description('list nodes'))
    .option('-f, --filter <filter>', 'id, label, name, role or membership: key=value', collect)
    .action(async (flags: ListOptions & { filter?: string[] }) => {
      const client = context.client();
      const nodes = await client.get<ListedNode[]>('/nodes', { filters: filterQuery(flags.filter) });
      const { Swarm } = await client.get<{ Swarm: { NodeID: string } }>('/info');
      nodes.sort(
        (a, b) => a.Description.Hostname.localeCompare(b.Description.Hostname) || a.ID.localeCompare(b.ID),
      );
      print(renderList(nodes, columns(Swarm.NodeID), (row) => row.ID, flags));
    });
}

function columns(selfId: string): Column<ListedNode>[] {
  return [
    { heading: 'ID', field: 'ID', value: (row) => (row.ID === selfId ? `${row.ID} *` : row.ID) },
    { heading: 'HOSTNAME', field: 'Hostname', value: (row) => row.Description.Hostname },
    { heading: 'STATUS', field: 'Status', value: (row) => capital(row.Status.State) },
    { heading: 'AVAILABILITY', field: 'Availability', value: (row) => capital(row.Spec.Availability) },
    { heading: 'MANAGER STATUS', field: 'ManagerStatus', value: managerStatus },
    {
      heading: 'ENGINE VERSION',
      field: 'EngineVersion',
      value: (row) => row.Description.Engine?.EngineVersion ?? '',
    },
  ];
}

function managerStatus(row: ListedNode): string {
  if (!row.ManagerStatus) return '';
  return row.ManagerStatus.Leader ? 'Leader' : capital(row.ManagerStatus.Reachability);
}

function addInspect(node: Command, context: Context): void {
  node
    .command('inspect')
    .description('print nodes in full')
    .argument('<node...>', 'ids, names or self')
    .option('--format <format>', 'json')
    .option('--pretty', 'print in a form for people')
    .action(async (names: string[], flags: { pretty?: boolean }) => {
      const nodes = await Promise.all(
        names.map((name) => context.client().get<ListedNode>(`/nodes/${name}`)),
      );
      print(flags.pretty ? nodes.map(pretty).join('\n\n') : JSON.stringify(nodes, undefined, 4));
    });
}

function pretty(node: ListedNode): string {
  const { Description, Spec, Status } = node;
  const labels = Object.entries(Spec.Labels).map(([key, value]) => ` - ${key}=${value}`);
  return [
    `ID:             ${node.ID}`,
    ...(labels.length > 0 ? ['Labels:', ...labels] : []),
    `Hostname:       ${Description.Hostname}`,
    `Joined at:      ${node.CreatedAt}`,
    'Status:',
    ` State:         ${capital(Status.State)}`,
    ...(Status.Message ? [` Message:       ${Status.Message}`] : []),
    ` Availability:  ${capital(Spec.Availability)}`,
    ` Address:       ${Status.Addr}`,
    ...(node.ManagerStatus
      ? [
          'Manager Status:',
          ` Address:       ${node.ManagerStatus.Addr}`,
          ` Raft Status:   ${capital(node.ManagerStatus.Reachability)}`,
          ` Leader:        ${node.ManagerStatus.Leader ? 'Yes' : 'No'}`,
        ]
      : []),
    'Resources:',
    ` CPUs:          ${Description.Resources.NanoCPUs / 1e9}`,
    ` Memory:        ${(Description.Resources.MemoryBytes / 2 ** 30).toFixed(3)}GiB`,
    `Engine Version: ${Description.Engine.EngineVersion}`,
  ].join('\n');
}

function addTasks(node: Command, context: Context): void {
  taskListOptions(
    node.command('ps').description("list a node's tasks").argument('[node...]', 'default: self'),
  ).action(async (names: string[], flags: TaskListFlags) => {
    const client = context.client();
    const wanted = names.length > 0 ? names : ['self'];
    const nodes = await Promise.all(wanted.map((name) => client.get<ListedNode>(`/nodes/${name}`)));
    await listTasks(context, { node: nodes.map((found) => found.ID) }, flags);
  });
}

async function changeNode(
  context: Context,
  name: string,
  change: (spec: NodeSpec) => NodeSpec,
): Promise<void> {
  const client = context.client();
  const node = await client.get<ListedNode>(`/nodes/${name}`);
  await client.post(`/nodes/${node.ID}/update`, change(node.Spec), { version: String(node.Version.Index) });
}

function addUpdate(node: Command, context: Context): void {
  node
    .command('update')
    .description('change a node')
    .argument('<node>')
    .option('--availability <availability>', 'active, pause or drain')
    .option('--role <role>', 'worker or manager')
    .option('--label-add <label>', 'add or change a label: key=value', collect)
    .option('--label-rm <key>', 'remove a label', collect)
    .action(
      async (
        name: string,
        flags: { availability?: string; role?: string; labelAdd?: string[]; labelRm?: string[] },
      ) => {
        await changeNode(context, name, (spec) => {
          const labels = { ...spec.Labels, ...parseLabels(flags.labelAdd ?? []) };
          for (const key of flags.labelRm ?? []) delete labels[key];
          return {
            ...spec,
            Labels: labels,
            ...(flags.availability
              ? {
                  Availability: parseChoice(flags.availability, '--availability', [
                    'active',
                    'pause',
                    'drain',
                  ] as const),
                }
              : {}),
            ...(flags.role
              ? { Role: parseChoice(flags.role, '--role', ['worker', 'manager'] as const) }
              : {}),
          };
        });
        print(name);
      },
    );
}

function addRoles(node: Command, context: Context): void {
  const roles = [
    { verb: 'promote', role: 'manager', done: 'promoted to a manager in the swarm.' },
    { verb: 'demote', role: 'worker', done: 'demoted in the swarm.' },
  ] as const;
  for (const { verb, role, done } of roles) {
    node
      .command(verb)
      .description(`make nodes ${role}s`)
      .argument('<node...>')
      .action(async (names: string[]) => {
        for (const name of names) {
          await changeNode(context, name, (spec) => ({ ...spec, Role: role }));
          print(`Node ${name} ${done}`);
        }
      });
  }
}
