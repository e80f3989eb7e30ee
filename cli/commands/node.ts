/** shoal node: the machines of the cluster. */
import { isDeepStrictEqual } from 'node:util';
import type { Command } from 'commander';
import {
  type ClusterNode,
  dataPlaneLabel,
  dataPlaneLimitsLabel,
  dataPlaneMissingLabel,
  encryptionLabel,
  encryptionMissingLabel,
  engineUnavailableLabel,
  type NodeProblem,
  type NodeSpec,
} from '../../proto/docker.ts';
import { type Context, collect, filterQuery, forEach, listOptions } from '../context.ts';
import { type InspectFlags, inspect, inspectOptions, labelLines } from '../inspect.ts';
import { binarySize, type Column, capital, type ListOptions, print, renderList } from '../output.ts';
import { parseChoice, parseLabels } from '../parse.ts';
import { UsageError } from '../usage.ts';
import { listTasks, type TaskListFlags, taskListOptions } from './tasks.ts';
import { addDrain } from './upkeep.ts';

type ListedNode = Omit<ClusterNode, 'Private' | 'Problems'> & {
  readonly Problems?: readonly (NodeProblem & { readonly Network?: string; readonly Service?: string })[];
};

/** Adds the noun with its verbs. */
export function addNodeCommands(program: Command, context: Context): void {
  const node = program.command('node').description('manage nodes');
  addList(node, context);
  addInspect(node, context);
  addTasks(node, context);
  addUpdate(node, context);
  addRoles(node, context);
  addDrain(node, context);
  node
    .command('rm')
    .alias('remove')
    .description('forget nodes that have left or are down')
    .argument('<node...>')
    .option('-f, --force', 'also when it is not down')
    .action((nodes: string[], flags: { force?: boolean }) =>
      forEach(nodes, async (name) => {
        await context.client().delete(nodePath(name), flags.force ? { force: 'true' } : {});
        print(name);
      }),
    );
}

function nodePath(name: string): string {
  return `/nodes/${encodeURIComponent(name)}`;
}

function addList(node: Command, context: Context): void {
  listOptions(node.command('ls').alias('list').description('list nodes'))
    .option('-f, --filter <filter>', 'id, label, name, role or membership: key=value', collect)
    .action(async (flags: ListOptions & { filter?: string[] }) => {
      const client = context.client();
      const nodes = await client.get<ListedNode[]>('/nodes', { filters: filterQuery(flags.filter) });
      const { Swarm } = await client.get<{ Swarm: { NodeID: string } }>('/info');
      nodes.sort(
        (a, b) =>
          a.Description.Hostname.localeCompare(b.Description.Hostname, 'en', { numeric: true }) ||
          a.ID.localeCompare(b.ID),
      );
      print(renderList(nodes, columns(Swarm.NodeID), (row) => row.ID, flags));
    });
}

function columns(selfId: string): Column<ListedNode>[] {
  return [
    {
      heading: 'ID',
      field: 'ID',
      value: (row) => `${row.ID}${row.ID === selfId ? ' *' : ''}`,
      raw: (row) => row.ID,
    },
    {
      heading: 'SELF',
      field: 'Self',
      value: (row) => String(row.ID === selfId),
      raw: (row) => row.ID === selfId,
      hidden: true,
    },
    { heading: 'HOSTNAME', field: 'Hostname', value: (row) => row.Description.Hostname },
    { heading: 'STATUS', field: 'Status', value: (row) => capital(row.Status.State) },
    { heading: 'AVAILABILITY', field: 'Availability', value: (row) => capital(row.Spec.Availability) },
    { heading: 'MANAGER STATUS', field: 'ManagerStatus', value: managerStatus },
    {
      heading: 'ENGINE VERSION',
      field: 'EngineVersion',
      // A node whose engine does not answer is up and can do nothing; docker has no word for that.
      value: (row) =>
        row.Description.Engine?.Labels?.[engineUnavailableLabel] === undefined
          ? (row.Description.Engine?.EngineVersion ?? '')
          : 'unavailable',
    },
  ];
}

function managerStatus(row: ListedNode): string {
  if (!row.ManagerStatus) return '';
  return row.ManagerStatus.Leader ? 'Leader' : capital(row.ManagerStatus.Reachability);
}

function addInspect(node: Command, context: Context): void {
  const command = node
    .command('inspect')
    .description('print nodes in full')
    .argument('<node...>', 'ids, names or self');
  inspectOptions(command, true).action((names: string[], flags: InspectFlags) =>
    inspect(names, flags, (name) => context.client().get<ListedNode>(nodePath(name)), pretty),
  );
}

function pretty(node: ListedNode): string {
  const { Description, Spec, Status, ManagerStatus } = node;
  const { Platform, Resources, Engine, TLSInfo } = Description;
  return [
    `ID:\t\t\t${node.ID}`,
    ...(Spec.Name ? [`Name:\t\t\t${Spec.Name}`] : []),
    ...labelLines('Labels:', Spec.Labels),
    `Hostname:              \t${Description.Hostname}`,
    `Joined at:             \t${node.CreatedAt}`,
    'Status:',
    ` State:\t\t\t${capital(Status.State)}`,
    ...(Status.Message ? [` Message:\t\t${capital(Status.Message)}`] : []),
    ` Availability:         \t${capital(Spec.Availability)}`,
    ` Address:\t\t${Status.Addr}`,
    ...(ManagerStatus
      ? [
          'Manager Status:',
          ` Address:\t\t${ManagerStatus.Addr}`,
          ` Raft Status:\t\t${capital(ManagerStatus.Reachability)}`,
          ` Leader:\t\t${ManagerStatus.Leader ? 'Yes' : 'No'}`,
        ]
      : []),
    'Platform:',
    ` Operating System:\t${Platform.OS}`,
    ` Architecture:\t\t${Platform.Architecture}`,
    'Resources:',
    ` CPUs:\t\t\t${Resources.NanoCPUs / 1e9}`,
    ` Memory:\t\t${binarySize(Resources.MemoryBytes)}`,
    ...plugins(Engine.Plugins ?? []),
    `Engine Version:\t\t${Engine.EngineVersion}`,
    ...labelLines('Engine Labels:', Engine.Labels),
    ...networkLines(node),
    ...(TLSInfo.TrustRoot ? ['TLS Info:', ` TrustRoot:\n${TLSInfo.TrustRoot.trimEnd()}`] : []),
  ].join('\n');
}

/** What the node has of networks between hosts, what it does without, and what it can't do; nothing for a stock engine. */
function networkLines({ Description, Problems = [] }: ListedNode): string[] {
  const labels = Description.Engine.Labels ?? {};
  const missing = labels[dataPlaneMissingLabel];
  const plane = labels[dataPlaneLabel]
    ? [labels[dataPlaneLabel], ...(missing ? [missing] : [])].join(': ')
    : missing && `none: ${missing}`;
  const limits = labels[dataPlaneLimitsLabel];
  const noEncryption = labels[encryptionMissingLabel];
  const encryption = labels[encryptionLabel] ?? (noEncryption && `none: ${noEncryption}`);
  if (plane === undefined && Problems.length === 0) return [];
  return [
    'Networks between hosts:',
    ...(plane === undefined ? [] : [` Data plane:\t\t${plane}`]),
    ...(encryption === undefined ? [] : [` Encryption:\t\t${encryption}`]),
    ...(limits === undefined ? [] : [` Limits:\t\t${limits}`]),
    ...(Problems.length === 0 ? [' Problems:\t\tnone'] : [' Problems:']),
    ...Problems.map(
      ({ Message, Service, Since }) =>
        `  - ${Service ? `service ${Service}: ` : ''}${Message} (since ${Since})`,
    ),
  ];
}

function plugins(list: readonly { Type: string; Name: string }[]): string[] {
  const types = [...new Set(list.map((plugin) => plugin.Type))].sort();
  const names = (type: string) => list.filter((plugin) => plugin.Type === type).map((plugin) => plugin.Name);
  return types.length === 0
    ? []
    : ['Plugins:', ...types.map((type) => ` ${type}:\t\t${names(type).join(', ')}`)];
}

function addTasks(node: Command, context: Context): void {
  taskListOptions(
    node.command('ps').description("list a node's tasks").argument('[node...]', 'default: self'),
  ).action(async (names: string[], flags: TaskListFlags) => {
    const client = context.client();
    const wanted = names.length > 0 ? names : ['self'];
    const nodes = await Promise.all(wanted.map((name) => client.get<ListedNode>(nodePath(name))));
    await listTasks(context, { node: nodes.map((found) => found.ID) }, flags);
  });
}

/** Changes a node's spec, naming the version that was read. Answers whether it is another one then. */
async function changeNode(
  context: Context,
  name: string,
  change: (spec: NodeSpec) => NodeSpec,
): Promise<boolean> {
  const client = context.client();
  const node = await client.get<ListedNode>(nodePath(name));
  const spec = change(node.Spec);
  if (isDeepStrictEqual(spec, node.Spec)) return false;
  await client.post(`/nodes/${node.ID}/update`, spec, { version: String(node.Version.Index) });
  return true;
}

interface UpdateFlags {
  readonly availability?: string;
  readonly role?: string;
  readonly labelAdd?: string[];
  readonly labelRm?: string[];
}

const availabilities = ['active', 'pause', 'drain'] as const;

function addUpdate(node: Command, context: Context): void {
  node
    .command('update')
    .description('change a node')
    .argument('<node>')
    .option('--availability <availability>', 'active, pause or drain')
    .option('--role <role>', 'worker or manager')
    .option('--label-add <key=value>', 'add or change a label', collect)
    .option('--label-rm <key>', 'remove a label', collect)
    .action(async (name: string, flags: UpdateFlags) => {
      await changeNode(context, name, (spec) => updatedSpec(spec, name, flags));
      print(name);
    });
}

function updatedSpec(spec: NodeSpec, name: string, flags: UpdateFlags): NodeSpec {
  const Labels = { ...spec.Labels };
  for (const key of flags.labelRm ?? []) {
    if (!(key in Labels)) throw new UsageError(`key ${key} doesn't exist in node's labels (${name})`);
    delete Labels[key];
  }
  Object.assign(Labels, parseLabels(flags.labelAdd ?? []));
  const { availability, role } = flags;
  return {
    ...spec,
    Labels,
    ...(availability === undefined
      ? {}
      : { Availability: parseChoice(availability, '--availability', availabilities) }),
    ...(role === undefined ? {} : { Role: parseChoice(role, '--role', ['worker', 'manager'] as const) }),
  };
}

function addRoles(node: Command, context: Context): void {
  const roles = [
    {
      verb: 'promote',
      role: 'manager',
      done: 'promoted to a manager in the swarm.',
      already: 'is already a manager.',
    },
    {
      verb: 'demote',
      role: 'worker',
      done: 'demoted in the swarm.',
      already: 'is already a worker.',
    },
  ] as const;
  for (const { verb, role, done, already } of roles) {
    const command = node.command(verb).description(`make nodes ${role}s`).argument('<node...>');
    if (verb === 'promote') {
      command.option(
        '--demote <manager>',
        'this manager becomes a worker in the moment in which the node, having caught up, gets its vote',
      );
    }
    command.action(async (names: string[], flags: { demote?: string }) => {
      if (flags.demote !== undefined) {
        await replaceManager(context, names, flags.demote);
        return;
      }
      await forEach(names, async (name) => {
        const changed = await changeNode(context, name, (spec) => ({ ...spec, Role: role }));
        const noun = changed && role === 'worker' ? 'Manager' : 'Node';
        print(`${noun} ${name} ${changed ? done : already}`);
      });
    });
  }
}

async function replaceManager(context: Context, names: readonly string[], manager: string): Promise<void> {
  const [name, ...more] = names;
  if (name === undefined || more.length > 0) {
    throw new UsageError('--demote: one node takes the place of one manager; name one node to promote');
  }
  await context.client().post(`${nodePath(name)}/promote`, undefined, { demote: manager });
  print(`Node ${name} takes the place of manager ${manager} as soon as it has caught up.`);
}
