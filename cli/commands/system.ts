/** shoal version and info: which programs these are, and how this node is doing. */
import type { Command } from 'commander';
import { messageOf, ShoalError } from '../../proto/errors.ts';
import { packageVersion } from '../../proto/version.ts';
import type { Context } from '../context.ts';
import { parseTemplate } from '../format.ts';
import { binarySize, print } from '../output.ts';

interface Version {
  readonly Version: string;
  readonly ApiVersion: string;
  readonly MinAPIVersion: string;
  readonly Os: string;
  readonly Arch: string;
  readonly Components: { Name: string; Version: string }[];
}

interface Info {
  readonly Name: string;
  readonly ServerVersion?: string;
  readonly OperatingSystem?: string;
  readonly KernelVersion?: string;
  readonly Architecture?: string;
  readonly NCPU?: number;
  readonly MemTotal?: number;
  readonly Warnings?: string[] | null;
  readonly Swarm: {
    readonly NodeID: string;
    readonly NodeAddr: string;
    readonly LocalNodeState: string;
    readonly ControlAvailable: boolean;
    readonly Error: string;
    readonly RemoteManagers: { NodeID: string; Addr: string }[] | null;
    readonly Nodes?: number;
    readonly Managers?: number;
    readonly Cluster?: { ID: string };
  };
}

interface Flags {
  readonly format?: string;
}

const formatHelp = 'json, or a Go template';

/** Adds the two commands. */
export function addSystemCommands(program: Command, context: Context): void {
  program
    .command('version')
    .description("print the client's and the daemon's versions")
    .option('-f, --format <format>', formatHelp)
    .action(async (flags: Flags) => {
      const Client = { Version: packageVersion(), NodeVersion: process.version };
      const asked = await askVersion(context);
      const Server = asked instanceof ShoalError ? null : asked;
      printFormatted({ Client, Server }, flags, () => versionLines(Client, Server).join('\n'));
      if (asked instanceof ShoalError) throw asked;
    });
  program
    .command('info')
    .description('print how this node and its cluster are doing')
    .option('-f, --format <format>', formatHelp)
    .action(async (flags: Flags) => {
      const info = await context.client().get<Info>('/info');
      printFormatted(info, flags, () => infoLines(info).join('\n'));
      for (const warning of info.Warnings ?? []) process.stderr.write(`WARNING: ${warning}\n`);
    });
}

function printFormatted(value: unknown, { format }: Flags, text: () => string): void {
  if (format === undefined) print(text());
  else if (format === 'json') print(JSON.stringify(value));
  else print(parseTemplate(format)(value));
}

/** A daemon that does not answer is no reason not to say the client's version. */
async function askVersion(context: Context): Promise<Version | ShoalError> {
  try {
    return await context.client().get<Version>('/version');
  } catch (error) {
    return error instanceof ShoalError ? error : new ShoalError('unavailable', messageOf(error));
  }
}

function versionLines(client: { Version: string; NodeVersion: string }, server: Version | null): string[] {
  const component = (name: string) => server?.Components.find((one) => one.Name === name)?.Version;
  return [
    'Client:',
    ` Version:          ${client.Version}`,
    ` Node.js version:  ${client.NodeVersion}`,
    ...(server
      ? [
          '',
          'Server:',
          ` Version:          ${component('Shoal') ?? server.Version}`,
          ` API version:      ${server.ApiVersion} (minimum version ${server.MinAPIVersion})`,
          ` OS/Arch:          ${server.Os}/${server.Arch}`,
          ...(component('Shoal') ? [` Container engine: ${component('Engine') ?? ''}`] : []),
        ]
      : []),
  ];
}

function infoLines(info: Info): string[] {
  const { Swarm } = info;
  const isManager = Swarm.ControlAvailable;
  // What a container engine does not tell is left out.
  const known = (heading: string, value: string | number | undefined): string[] =>
    value === undefined || value === '' ? [] : [`${heading}: ${value}`];
  return [
    `Name: ${info.Name}`,
    ...known('Engine Version', info.ServerVersion),
    ...known('Operating System', info.OperatingSystem),
    ...known('Kernel Version', info.KernelVersion),
    ...known('Architecture', info.Architecture),
    ...known('CPUs', info.NCPU),
    ...known('Total Memory', info.MemTotal === undefined ? undefined : binarySize(info.MemTotal)),
    `Swarm: ${Swarm.LocalNodeState}`,
    ...(Swarm.Error ? [` Error: ${Swarm.Error}`] : []),
    ...(Swarm.NodeID ? [` NodeID: ${Swarm.NodeID}`, ` Is Manager: ${isManager}`] : []),
    ...(Swarm.Cluster ? [` ClusterID: ${Swarm.Cluster.ID}`] : []),
    ...(Swarm.Managers === undefined ? [] : [` Managers: ${Swarm.Managers}`, ` Nodes: ${Swarm.Nodes}`]),
    ...(Swarm.NodeAddr ? [` Node Address: ${Swarm.NodeAddr}`] : []),
    ...managerLines(Swarm.RemoteManagers ?? []),
  ];
}

function managerLines(managers: readonly { Addr: string }[]): string[] {
  return managers.length === 0
    ? []
    : [' Manager Addresses:', ...managers.map(({ Addr }) => `  ${Addr}`).sort()];
}
