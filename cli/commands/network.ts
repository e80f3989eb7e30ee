/** shoal network: networks of the cluster and of the engine, who is reached on them and where. */
import { type Command, Option } from 'commander';
import type { NetworkDifference, NetworkEndpoints } from '../../manager/api/network-sight.ts';
import type { NetworkTrace, TraceStep } from '../../manager/api/network-trace.ts';
import { messageOf, ShoalError } from '../../proto/errors.ts';
import { type Context, collect, filterQuery, listOptions } from '../context.ts';
import { type InspectFlags, inspect, inspectOptions, labelLines } from '../inspect.ts';
import { type Column, type ListOptions, print, printError, renderList } from '../output.ts';
import { parseLabels } from '../parse.ts';
import { refuseFlags } from '../usage.ts';
import { addRemove } from './objects.ts';

interface NetworkResource {
  Id: string;
  Name: string;
  Driver: string;
  Scope: string;
}

interface NetworkFlags {
  driver: string;
  subnet?: string[];
  gateway?: string[];
  ipRange?: string[];
  internal?: boolean;
  attachable?: boolean;
  ingress?: boolean;
  ipv6?: boolean;
  label?: string[];
  opt?: string[];
}

/** Adds the noun network. */
export function addNetworkCommands(program: Command, context: Context): void {
  const network = program.command('network').description('manage networks');
  const create = network
    .command('create')
    .description('make a network')
    .argument('<name>')
    .option('-d, --driver <driver>', 'driver', 'overlay')
    .addOption(new Option('--scope <scope>', 'scope').choices(['swarm']).hideHelp())
    .option('--subnet <cidr>', 'subnet', collect)
    .option('--gateway <address>', 'gateway of the subnet at the same place', collect)
    .option('--ip-range <cidr>', 'part of the subnet that addresses come from', collect)
    .option('--internal', 'no way out of it')
    .option('--attachable', 'let containers outside of services attach')
    .option('--ingress', 'the network over which published ports are reached on every node')
    .option('--ipv6', 'IPv6 addresses beside the IPv4 ones')
    .option('--label <key=value>', 'label', collect)
    .option('-o, --opt <key=value>', 'option of the driver', collect)
    .action(async (name: string, flags: NetworkFlags) => {
      print((await context.client().post<{ Id: string }>('/networks/create', networkBody(name, flags))).Id);
    });
  refuseFlags(create, refusedNetworkFlags);
  listOptions(network.command('ls').alias('list').description('list networks'))
    .option('-f, --filter <filter>', 'id, name, driver, label or scope: key=value', collect)
    .action(async (flags: ListOptions & { filter?: string[] }) => {
      const found = await context
        .client()
        .get<NetworkResource[]>('/networks', { filters: filterQuery(flags.filter) });
      found.sort((a, b) => a.Name.localeCompare(b.Name));
      print(renderList(found, networkColumns, (row) => row.Id, flags));
    });
  addNetworkInspect(network, context);
  addRemove(network, context, '/networks');
  addDifference(network, context);
  addTrace(network, context);
}

const networkColumns: Column<NetworkResource>[] = [
  { heading: 'NETWORK ID', field: 'ID', value: (row) => row.Id.slice(0, 12) },
  { heading: 'NAME', field: 'Name', value: (row) => row.Name },
  { heading: 'DRIVER', field: 'Driver', value: (row) => row.Driver },
  { heading: 'SCOPE', field: 'Scope', value: (row) => row.Scope },
];

/** What docker has for networks of the engine, and for its own address management. */
const refusedNetworkFlags = [
  '--aux-address <address>',
  '--config-from <network>',
  '--config-only',
  '--ipam-driver <driver>',
  '--ipam-opt <option>',
  '--ipv4',
];

function networkBody(name: string, flags: NetworkFlags) {
  const configs = (flags.subnet ?? []).map((subnet, index) => ({
    Subnet: subnet,
    ...(flags.gateway?.[index] ? { Gateway: flags.gateway[index] } : {}),
    ...(flags.ipRange?.[index] ? { IPRange: flags.ipRange[index] } : {}),
  }));
  return {
    Name: name,
    Driver: flags.driver,
    Internal: flags.internal ?? false,
    Attachable: flags.attachable ?? false,
    ...(flags.ingress ? { Ingress: true } : {}),
    ...(flags.ipv6 ? { EnableIPv6: true } : {}),
    Labels: parseLabels(flags.label ?? []),
    Options: parseLabels(flags.opt ?? []),
    ...(configs.length > 0 ? { IPAM: { Driver: 'default', Config: configs } } : {}),
  };
}

type InspectedNetwork = NetworkResource & {
  readonly Internal: boolean;
  readonly Attachable: boolean;
  readonly Ingress: boolean;
  readonly IPAM: { readonly Config: readonly { readonly Subnet?: string }[] | null };
  readonly Options: Record<string, string> | null;
  readonly Labels: Record<string, string> | null;
} & Partial<NetworkEndpoints>;

function addNetworkInspect(network: Command, context: Context): void {
  const command = network
    .command('inspect')
    .description('print networks in full, with who is reached on them and which nodes hold it')
    .argument('<name...>');
  inspectOptions(command, true).action((names: string[], flags: InspectFlags) =>
    inspect(names, flags, (name) => inspectedNetwork(context, name), prettyNetwork),
  );
}

/** The engine's own networks have no endpoints that managers know of; where no leader can tell, the rest is shown. */
async function inspectedNetwork(context: Context, name: string): Promise<InspectedNetwork> {
  const client = context.client();
  const network = await client.get<InspectedNetwork>(`/networks/${encodeURIComponent(name)}`);
  if (network.Scope !== 'swarm' || network.Id === network.Name) return network;
  try {
    return { ...network, ...(await client.get<NetworkEndpoints>(`/networks/${network.Id}/endpoints`)) };
  } catch (error) {
    printError(`endpoints of network ${network.Name} are not known: ${messageOf(error)}`);
    return network;
  }
}

const nodeColumns: readonly Column<NetworkEndpoints['Nodes'][number]>[] = [
  { heading: 'NODE', field: 'Name', value: (row) => row.Name },
  { heading: 'ADDRESSES', field: 'Addresses', value: (row) => row.Addresses.join(', ') },
  { heading: 'VERSION', field: 'Version', value: (row) => String(row.Version || '') },
  { heading: 'STATE', field: 'State', value: (row) => row.State },
  { heading: 'PROBLEMS', field: 'Problems', value: (row) => row.Problems.join('; ') },
];

const serviceColumns: readonly Column<NetworkEndpoints['Services'][number]>[] = [
  { heading: 'SERVICE', field: 'Name', value: (row) => row.Name },
  {
    heading: 'ADDRESSES',
    field: 'VirtualAddresses',
    value: (row) => row.VirtualAddresses.join(', ') || 'its tasks’',
  },
  { heading: 'PORTS', field: 'Ports', value: (row) => row.Ports.join(', ') },
  { heading: 'VERSION', field: 'Version', value: (row) => String(row.Version || '') },
  { heading: 'HELD BY', field: 'Programmed', value: whereHeld },
];

const endpointColumns: readonly Column<NetworkEndpoints['Endpoints'][number]>[] = [
  { heading: 'TASK', field: 'Name', value: (row) => row.Name },
  { heading: 'NODE', field: 'Node', value: (row) => row.Node },
  { heading: 'ADDRESSES', field: 'Addresses', value: (row) => row.Addresses.join(', ') },
  { heading: 'STATE', field: 'State', value: (row) => row.State },
  { heading: 'VERSION', field: 'Version', value: (row) => String(row.Version || '') },
  { heading: 'HELD BY', field: 'Programmed', value: whereHeld },
];

function whereHeld({
  Programmed,
  Missing,
}: {
  readonly Programmed: readonly string[];
  readonly Missing: readonly string[];
}): string {
  const all = Programmed.length + Missing.length;
  if (all === 0) return 'no node';
  return Missing.length === 0
    ? `all ${all} nodes`
    : `${Programmed.length} of ${all} nodes, not ${Missing.join(', ')}`;
}

function prettyNetwork(network: InspectedNetwork): string {
  const { Nodes, Services = [], Endpoints = [], Options, Labels } = network;
  const words = (['Internal', 'Attachable', 'Ingress'] as const).filter((word) => network[word]);
  const subnets = (network.IPAM.Config ?? []).flatMap(({ Subnet }) => Subnet ?? []);
  const table = <T>(rows: readonly T[], columns: readonly Column<T>[]): string[] =>
    rows.length === 0 ? [] : [renderList(rows, columns, () => '', {}).replace(/^/gm, ' ')];
  return [
    `ID:\t\t${network.Id}`,
    `Name:\t\t${network.Name}`,
    `Driver:\t\t${network.Driver}`,
    `Scope:\t\t${network.Scope}`,
    `Subnets:\t${subnets.join(', ')}`,
    ...(words.length > 0 ? [`Kind:\t\t${words.join(', ').toLowerCase()}`] : []),
    ...labelLines('Options:', Options ?? {}),
    ...labelLines('Labels:', Labels ?? {}),
    ...(Nodes === undefined
      ? []
      : [
          Nodes.length === 0 ? 'Nodes: none has an address on it' : 'Nodes:',
          ...table(Nodes, nodeColumns),
          Services.length === 0 ? 'Services: none' : 'Services:',
          ...table(Services, serviceColumns),
          Endpoints.length === 0 ? 'Endpoints: none' : 'Endpoints:',
          ...table(Endpoints, endpointColumns),
        ]),
  ].join('\n');
}

function addDifference(network: Command, context: Context): void {
  network
    .command('diff')
    .description(
      'what a node would change in its kernel now, without doing it: what managers want against what is there',
    )
    .argument('<node>', 'id, name or self')
    .option('--format <format>', 'json, for programs')
    .action(async (name: string, flags: Pick<ListOptions, 'format'>) => {
      const path = `/nodes/${encodeURIComponent(name)}/network-difference`;
      const difference = await context.client().get<NetworkDifference>(path);
      if (flags.format === 'json') return print(JSON.stringify(difference));
      const { Node, Version, Operations } = difference;
      const state = Version === 0 ? 'nothing, as it was told' : `what it was told (version ${Version})`;
      print(
        Operations.length === 0 ? `${Node}: the kernel holds ${state}; nothing to do` : Operations.join('\n'),
      );
    });
}

function addTrace(network: Command, context: Context): void {
  network
    .command('trace')
    .description(
      'where a connection from a task to a service, or from outside to a published port, would go, step by step; nothing is sent',
    )
    .argument(
      '<task | node:port>',
      'the task that would connect: its id, or its name, such as web.1; or what someone outside would connect to: a node and a published port, such as h1:8080 or h1:53/udp',
    )
    .argument(
      '[service:port]',
      'of a task: the name as it would say it, and the port there, such as db:5432 or dns:53/udp',
    )
    .option('--ipv6', 'by the IPv6 addresses of the name, or of the node')
    .option('--format <format>', 'json, for programs')
    .action(async (from: string, to: string | undefined, flags: TraceFlags) => {
      const { path, asked } = traceRequest(from, to);
      const ipv6 = flags.ipv6 ? { ipv6: 'true' } : {};
      const trace = await context.client().get<NetworkTrace>(path, { ...asked, ...ipv6 });
      print(flags.format === 'json' ? JSON.stringify(trace) : traceText(trace));
      if (trace.Outcome === 'broken')
        throw new ShoalError('failed-precondition', 'the connection reaches no task');
      if (trace.Outcome === 'partly')
        throw new ShoalError('failed-precondition', 'some connections reach no task');
    });
}

type TraceFlags = Pick<ListOptions, 'format'> & { ipv6?: boolean };

/** What is asked of the cluster for a trace. Throws 'invalid-argument'. */
export function traceRequest(
  from: string,
  to: string | undefined,
): { path: string; asked: Record<string, string> } {
  if (to !== undefined) return { path: `/tasks/${encodeURIComponent(from)}/trace`, asked: { to } };
  const [, node, port] = /^([^:]+):([^:]+)$/.exec(from) ?? [];
  if (node === undefined || port === undefined) {
    throw new ShoalError(
      'invalid-argument',
      `"${from}" names no node and published port: write h1:8080, or a task and what it would connect to: web.1 db:5432`,
    );
  }
  return { path: `/nodes/${encodeURIComponent(node)}/trace`, asked: { port } };
}

/** A trace for a person: each step with the node where it happens, indented by what it is a part of. */
export function traceText({ From, To, Steps, Ways }: NetworkTrace): string {
  const line = (depth: number) => (step: TraceStep) =>
    `${'  '.repeat(depth)}${step.Breaks ? '✘' : '·'} ${step.Node === '' ? '' : `${step.Node}: `}${step.Text}`;
  const ends = Ways.flatMap((way) => way.Ends);
  const reached = ends.filter((one) => one.Reached).length;
  return [
    `${From} → ${To}`,
    ...Steps.map(line(1)),
    ...Ways.flatMap((way) => [
      `  ${way.Address}`,
      ...way.Steps.map(line(2)),
      ...way.Ends.flatMap((end) => [
        `    ${end.Reached ? '✔' : '✘'} ${end.Task || 'no task'} ${end.Address}${end.Node === '' ? '' : ` on ${end.Node}`}`,
        ...end.Steps.map(line(3)),
      ]),
    ]),
    ends.length === 0 ? 'It ends at no task.' : `It ends at ${reached} of ${ends.length} tasks.`,
  ].join('\n');
}
