/** shoal secret, config and network: what services are given. */
import { readFileSync } from 'node:fs';
import { buffer } from 'node:stream/consumers';
import type { Command } from 'commander';
import { type Context, collect, filterQuery, listOptions } from '../context.ts';
import { ago, type Column, type ListOptions, print, renderList } from '../output.ts';
import { parseLabels } from '../parse.ts';

interface FileObject {
  ID: string;
  CreatedAt: string;
  UpdatedAt: string;
  Spec: { Name: string; Labels: Record<string, string> };
}

/** Adds the nouns secret and config, which have the same verbs. */
export function addFileCommands(program: Command, context: Context, kind: 'secret' | 'config'): void {
  const noun = program.command(kind).description(`manage ${kind}s`);
  noun
    .command('create')
    .description(`make a ${kind} from a file or, with -, from standard input`)
    .argument('<name>')
    .argument('<file>')
    .option('-l, --label <key=value>', 'label', collect)
    .action(async (name: string, file: string, flags: { label?: string[] }) => {
      const data = file === '-' ? await buffer(process.stdin) : readFileSync(file);
      const spec = { Name: name, Labels: parseLabels(flags.label ?? []), Data: data.toString('base64') };
      print((await context.client().post<{ ID: string }>(`/${kind}s/create`, spec)).ID);
    });
  listOptions(noun.command('ls').alias('list').description(`list ${kind}s`))
    .option('-f, --filter <filter>', 'id, name or label: key=value', collect)
    .action(async (flags: ListOptions & { filter?: string[] }) => {
      const found = await context
        .client()
        .get<FileObject[]>(`/${kind}s`, { filters: filterQuery(flags.filter) });
      found.sort((a, b) => a.Spec.Name.localeCompare(b.Spec.Name));
      print(renderList(found, fileColumns(context.clock.now()), (row) => row.ID, flags));
    });
  addInspect(noun, context, `/${kind}s`);
  addRemove(noun, context, `/${kind}s`);
}

function fileColumns(nowMs: number): Column<FileObject>[] {
  return [
    { heading: 'ID', field: 'ID', value: (row) => row.ID },
    { heading: 'NAME', field: 'Name', value: (row) => row.Spec.Name },
    { heading: 'CREATED', field: 'CreatedAt', value: (row) => ago(row.CreatedAt, nowMs) },
    { heading: 'UPDATED', field: 'UpdatedAt', value: (row) => ago(row.UpdatedAt, nowMs) },
  ];
}

function addInspect(noun: Command, context: Context, path: string): void {
  noun
    .command('inspect')
    .description('print in full')
    .argument('<name...>')
    .option('--format <format>', 'json')
    .action(async (names: string[]) => {
      const found = await Promise.all(
        names.map((name) => context.client().get(`${path}/${encodeURIComponent(name)}`)),
      );
      print(JSON.stringify(found, undefined, 4));
    });
}

function addRemove(noun: Command, context: Context, path: string): void {
  noun
    .command('rm')
    .description('remove')
    .argument('<name...>')
    .action(async (names: string[]) => {
      for (const name of names) {
        await context.client().delete(`${path}/${encodeURIComponent(name)}`);
        print(name);
      }
    });
}

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
  label?: string[];
  opt?: string[];
}

/** Adds the noun network. */
export function addNetworkCommands(program: Command, context: Context): void {
  const network = program.command('network').description('manage networks');
  network
    .command('create')
    .description('make a network')
    .argument('<name>')
    .option('-d, --driver <driver>', 'driver', 'overlay')
    .option('--subnet <cidr>', 'subnet', collect)
    .option('--gateway <address>', 'gateway of the subnet at the same place', collect)
    .option('--ip-range <cidr>', 'part of the subnet that addresses come from', collect)
    .option('--internal', 'no way out of it')
    .option('--attachable', 'let containers outside of services attach')
    .option('--label <key=value>', 'label', collect)
    .option('-o, --opt <key=value>', 'option of the driver', collect)
    .action(async (name: string, flags: NetworkFlags) => {
      print((await context.client().post<{ Id: string }>('/networks/create', networkBody(name, flags))).Id);
    });
  listOptions(network.command('ls').alias('list').description('list networks'))
    .option('-f, --filter <filter>', 'id, name, driver, label or scope: key=value', collect)
    .action(async (flags: ListOptions & { filter?: string[] }) => {
      const found = await context
        .client()
        .get<NetworkResource[]>('/networks', { filters: filterQuery(flags.filter) });
      found.sort((a, b) => a.Name.localeCompare(b.Name));
      print(renderList(found, networkColumns, (row) => row.Id, flags));
    });
  addInspect(network, context, '/networks');
  addRemove(network, context, '/networks');
}

const networkColumns: Column<NetworkResource>[] = [
  { heading: 'NETWORK ID', field: 'ID', value: (row) => row.Id.slice(0, 12) },
  { heading: 'NAME', field: 'Name', value: (row) => row.Name },
  { heading: 'DRIVER', field: 'Driver', value: (row) => row.Driver },
  { heading: 'SCOPE', field: 'Scope', value: (row) => row.Scope },
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
    Labels: parseLabels(flags.label ?? []),
    Options: parseLabels(flags.opt ?? []),
    ...(configs.length > 0 ? { IPAM: { Driver: 'default', Config: configs } } : {}),
  };
}
