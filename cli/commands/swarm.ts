/** shoal swarm: make, join, leave and look after a cluster. */
import type { Command } from 'commander';
import { returnWithinLabel } from '../../manager/ca/returning.ts';
import { allowLabel, grants } from '../../manager/store/privileges.ts';
import type { Cluster, ClusterNode } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import { delay } from '../../proto/ports.ts';
import { askSecret } from '../ask.ts';
import type { Context } from '../context.ts';
import { print } from '../output.ts';
import { parseBoolean, parseChoice, parseCount, parseDuration } from '../parse.ts';
import { refuseFlags, UsageError } from '../usage.ts';
import { printWarnings } from './service.ts';

interface Info {
  Swarm: { NodeID: string; NodeAddr: string; RemoteManagers: { Addr: string }[] | null };
}

/** Adds the noun with its verbs. */
export function addSwarmCommands(program: Command, context: Context): void {
  const swarm = program.command('swarm').description('manage the cluster');
  addInit(swarm, context);
  addJoin(swarm, context);
  addJoinToken(swarm, context);
  addLeave(swarm, context);
  addUpdate(swarm, context);
  addUnlock(swarm, context);
  addCa(swarm, context);
}

interface InitFlags {
  advertiseAddr?: string;
  listenAddr?: string;
  availability: string;
  autolock?: boolean;
  forceNewCluster?: boolean;
  defaultAddrPool?: string[];
  dataPathPort?: string;
  dataPathAddr?: string;
  maxSnapshots?: string;
  snapshotInterval?: string;
  defaultAddrPoolMaskLength?: string;
  taskHistoryLimit?: string;
  certExpiry?: string;
  dispatcherHeartbeat?: string;
}

function addInit(swarm: Command, context: Context): void {
  const command = swarm
    .command('init')
    .description('make a cluster with this node as its first manager')
    .option('--advertise-addr <address>', 'address that other nodes reach this one by (HOST[:PORT])')
    .option('--listen-addr <address>', "address of the cluster's port (default: the daemon's --listen-addr)")
    .option('--availability <availability>', 'active, pause or drain', 'active')
    .option('--autolock', 'seal the managers’ disks with a key that is asked for after a restart')
    .option('--force-new-cluster', 'recover from a lost quorum: go on with this manager as the only one')
    .option('--default-addr-pool <cidr>', 'pool that networks get their subnets from', collectCommas)
    .option('--default-addr-pool-mask-length <length>', 'length of a subnet’s mask (default 24)')
    .option('--data-path-addr <address>', 'address or interface of the traffic between containers')
    .option('--data-path-port <port>', 'port of the traffic between containers (default 4789)');
  settingOptions(command).action((flags: InitFlags) => init(context, flags));
  refuseFlags(command, ['--external-ca <specification>']);
}

async function init(context: Context, flags: InitFlags): Promise<void> {
  const client = context.client();
  const nodeId = await client.post<string>('/swarm/init', initBody(flags));
  const info = await client.get<Info>('/info');
  const cluster = await client.get<Cluster>('/swarm');
  const address = managerAddress(info, flags.advertiseAddr);
  print(`Swarm initialized: current node (${nodeId}) is now a manager.\n`);
  printJoin('worker', cluster.JoinTokens.Worker, address);
  print(
    "To add a manager to this swarm, run 'shoal swarm join-token manager' and follow the instructions.\n",
  );
  if (flags.autolock) await printUnlockKey(context);
}

/** Adds what init and update have in common. */
function settingOptions(command: Command): Command {
  return command
    .option('--task-history-limit <count>', 'ended tasks kept for each slot (default 5)')
    .option('--cert-expiry <duration>', 'how long a node’s certificate is valid (default 2160h)')
    .option('--dispatcher-heartbeat <duration>', 'time between two heartbeats of a node')
    .option('--snapshot-interval <count>', 'log entries between two snapshots (default 10000)')
    .option('--max-snapshots <count>', 'older snapshots to keep');
}

/** Collects an option whose values may also be given in one word, with commas between. */
function collectCommas(value: string, previous: string[] | undefined): string[] {
  return [...(previous ?? []), ...value.split(',')];
}

function initBody(flags: InitFlags) {
  const autolock = flags.autolock ?? false;
  return {
    ...(flags.listenAddr ? { ListenAddr: flags.listenAddr } : {}),
    ...(flags.advertiseAddr ? { AdvertiseAddr: flags.advertiseAddr } : {}),
    ...(flags.defaultAddrPool ? { DefaultAddrPool: flags.defaultAddrPool } : {}),
    ...(flags.defaultAddrPoolMaskLength
      ? { SubnetSize: parseCount(flags.defaultAddrPoolMaskLength, '--default-addr-pool-mask-length') }
      : {}),
    ...(flags.dataPathAddr ? { DataPathAddr: flags.dataPathAddr } : {}),
    ...(flags.dataPathPort ? { DataPathPort: parseCount(flags.dataPathPort, '--data-path-port') } : {}),
    ForceNewCluster: flags.forceNewCluster ?? false,
    AutoLockManagers: autolock,
    Availability: parseChoice(flags.availability, '--availability', ['active', 'pause', 'drain'] as const),
    Spec: { EncryptionConfig: { AutoLockManagers: autolock }, ...specOf(flags) },
  };
}

/** The parts of a cluster's spec that flags set. */
function specOf(flags: Partial<InitFlags>) {
  const raft = {
    ...(flags.snapshotInterval
      ? { SnapshotInterval: parseCount(flags.snapshotInterval, '--snapshot-interval') }
      : {}),
    ...(flags.maxSnapshots ? { KeepOldSnapshots: parseCount(flags.maxSnapshots, '--max-snapshots') } : {}),
  };
  return {
    ...(Object.keys(raft).length > 0 ? { Raft: raft } : {}),
    ...(flags.taskHistoryLimit
      ? {
          Orchestration: {
            TaskHistoryRetentionLimit: parseCount(flags.taskHistoryLimit, '--task-history-limit'),
          },
        }
      : {}),
    ...(flags.certExpiry
      ? { CAConfig: { NodeCertExpiry: parseDuration(flags.certExpiry, '--cert-expiry') } }
      : {}),
    ...(flags.dispatcherHeartbeat
      ? {
          Dispatcher: { HeartbeatPeriod: parseDuration(flags.dispatcherHeartbeat, '--dispatcher-heartbeat') },
        }
      : {}),
  };
}

function managerAddress(info: Info, advertised: string | undefined): string {
  const listed = info.Swarm.RemoteManagers?.find((manager) => manager.Addr.startsWith(info.Swarm.NodeAddr));
  if (listed) return listed.Addr;
  const address = advertised ?? info.Swarm.NodeAddr;
  return /:\d+$/.test(address) ? address : `${address}:2377`;
}

function printJoin(role: 'worker' | 'manager', token: string, address: string): void {
  print(
    `To add a ${role} to this swarm, run the following command:\n\n    shoal swarm join --token ${token} ${address}\n`,
  );
}

function addJoin(swarm: Command, context: Context): void {
  swarm
    .command('join')
    .description('join a cluster as a worker or manager, as the token says')
    .argument('<address>', 'a manager: HOST:PORT')
    .requiredOption('--token <token>', 'join token (shoal swarm join-token worker|manager)')
    .option('--advertise-addr <address>', 'address that other nodes reach this one by (HOST[:PORT])')
    .option('--listen-addr <address>', "address of the cluster's port, when it is a manager")
    .option('--data-path-addr <address>', 'address or interface of the traffic between containers')
    .option('--availability <availability>', 'active, pause or drain', 'active')
    .action(async (address: string, flags: { token: string } & InitFlags) => {
      const client = context.client();
      await client.post('/swarm/join', {
        RemoteAddrs: [/:\d+$/.test(address) ? address : `${address}:2377`],
        JoinToken: flags.token,
        Availability: parseChoice(flags.availability, '--availability', [
          'active',
          'pause',
          'drain',
        ] as const),
        ...(flags.advertiseAddr ? { AdvertiseAddr: flags.advertiseAddr } : {}),
        ...(flags.listenAddr ? { ListenAddr: flags.listenAddr } : {}),
        ...(flags.dataPathAddr ? { DataPathAddr: flags.dataPathAddr } : {}),
      });
      const info = await client.get<{ Swarm: { ControlAvailable: boolean } }>('/info');
      print(`This node joined a swarm as a ${info.Swarm.ControlAvailable ? 'manager' : 'worker'}.`);
    });
}

function addJoinToken(swarm: Command, context: Context): void {
  swarm
    .command('join-token')
    .description('print, or rotate, the token that nodes join with')
    .argument('<role>', 'worker or manager')
    .option('--rotate', 'make a new token; the old one is refused from then on')
    .option('-q, --quiet', 'print the token only')
    .action(async (roleText: string, flags: { rotate?: boolean; quiet?: boolean }) => {
      const role = parseChoice(roleText, 'role', ['worker', 'manager'] as const);
      const client = context.client();
      if (flags.rotate) {
        await updateSwarm(context, (spec) => spec, {
          [role === 'worker' ? 'rotateWorkerToken' : 'rotateManagerToken']: 'true',
        });
        if (!flags.quiet) print(`Successfully rotated ${role} join token.\n`);
      }
      const cluster = await client.get<Cluster>('/swarm');
      const token = role === 'worker' ? cluster.JoinTokens.Worker : cluster.JoinTokens.Manager;
      if (flags.quiet) return print(token);
      printJoin(role, token, managerAddress(await client.get<Info>('/info'), undefined));
    });
}

function addLeave(swarm: Command, context: Context): void {
  swarm
    .command('leave')
    .description('take this node out of its cluster')
    .option('-f, --force', 'also when it is a manager and the cluster would suffer')
    .action(async (flags: { force?: boolean }) => {
      const query: Record<string, string> = flags.force ? { force: 'true' } : {};
      const answer = await context
        .client()
        .post<{ Warnings?: string[] } | undefined>('/swarm/leave', undefined, query);
      print('Node left the swarm.');
      printWarnings(answer?.Warnings?.map((words) => `Warning: ${words}`));
    });
}

async function updateSwarm(
  context: Context,
  change: (spec: Cluster['Spec']) => Cluster['Spec'],
  query: Record<string, string> = {},
): Promise<void> {
  const client = context.client();
  const cluster = await client.get<Cluster>('/swarm');
  await client.post('/swarm/update', change(cluster.Spec), {
    version: String(cluster.Version.Index),
    ...query,
  });
}

function addUpdate(swarm: Command, context: Context): void {
  const command = swarm
    .command('update')
    .description("change the cluster's settings")
    .option(
      '--autolock [true|false]',
      'seal the managers’ disks with a key that is asked for after a restart',
    )
    .option(
      '--allow-privileges <list>',
      `what services may have of their hosts: all, none, or some of ${grants.join(',')} (default none)`,
    )
    .option(
      '--return-within <duration>',
      'how long after its certificate’s end a node may come back with it (default 720h; 0s: not at all)',
    );
  settingOptions(command).action(
    async (
      flags: Omit<InitFlags, 'autolock'> & {
        autolock?: string | boolean;
        allowPrivileges?: string;
        returnWithin?: string;
      },
    ) => {
      if (Object.keys(flags).length === 0) return command.outputHelp();
      const autolock = flags.autolock === undefined ? undefined : readAutolock(String(flags.autolock));
      const { autolock: _asked, allowPrivileges, returnWithin, ...settings } = flags;
      const labels = {
        ...(allowPrivileges !== undefined && { [allowLabel]: allowPrivileges }),
        ...(returnWithin !== undefined && { [returnWithinLabel]: returnWithin }),
      };
      const changes = specOf(settings);
      await updateSwarm(context, (spec) => ({
        ...spec,
        ...(Object.keys(labels).length > 0 && { Labels: { ...spec.Labels, ...labels } }),
        Orchestration: { ...spec.Orchestration, ...changes.Orchestration },
        CAConfig: { ...spec.CAConfig, ...changes.CAConfig },
        Dispatcher: { ...spec.Dispatcher, ...changes.Dispatcher },
        Raft: { ...spec.Raft, ...changes.Raft },
        ...(autolock === undefined ? {} : { EncryptionConfig: { AutoLockManagers: autolock } }),
      }));
      print('Swarm updated.');
      if (autolock) await printUnlockKey(context);
    },
  );
  refuseFlags(command, ['--external-ca <specification>']);
}

function readAutolock(text: string): boolean {
  return parseBoolean(text, '--autolock');
}

async function printUnlockKey(context: Context): Promise<void> {
  const { UnlockKey } = await context.client().get<{ UnlockKey: string }>('/swarm/unlockkey');
  if (UnlockKey === '') {
    throw new ShoalError(
      'failed-precondition',
      'this swarm has no unlock key: autolock is off (shoal swarm update --autolock true)',
    );
  }
  print(
    `To unlock a swarm manager after it restarts, run the \`shoal swarm unlock\` command and provide the following key:\n\n    ${UnlockKey}\n\nRemember to store this key in a password manager, since without it you\nwill not be able to restart the manager.`,
  );
}

function addUnlock(swarm: Command, context: Context): void {
  swarm
    .command('unlock-key')
    .description('print, or rotate, the key that unlocks managers')
    .option('--rotate', 'make a new key')
    .option('-q, --quiet', 'print the key only')
    .action(async (flags: { rotate?: boolean; quiet?: boolean }) => {
      if (flags.rotate) {
        await updateSwarm(context, (spec) => spec, { rotateManagerUnlockKey: 'true' });
        if (!flags.quiet) print('Successfully rotated manager unlock key.\n');
      }
      if (!flags.quiet) return printUnlockKey(context);
      print((await context.client().get<{ UnlockKey: string }>('/swarm/unlockkey')).UnlockKey);
    });
  swarm
    .command('unlock')
    .description('unlock this manager after a restart; the key is read from standard input')
    .action(async () => {
      const key = await askSecret('Please enter unlock key: ', 'no unlock key was given');
      await context.client().post('/swarm/unlock', { UnlockKey: key });
    });
}

function addCa(swarm: Command, context: Context): void {
  const command = swarm
    .command('ca')
    .description("print the cluster's root certificate, or rotate it")
    .option('--rotate', 'make a new root; every node gets a new certificate')
    .option('--cert-expiry <duration>', 'how long a node’s certificate is valid (with --rotate)')
    .option('-d, --detach', 'do not wait until every node has its new certificate')
    .option('-q, --quiet', 'do not show progress')
    .action(async (flags: CaFlags) => {
      if (!flags.rotate && (flags.certExpiry !== undefined || flags.detach || flags.quiet))
        throw new UsageError('--cert-expiry, --detach and --quiet need --rotate');
      if (flags.rotate) await rotateRoot(context, flags);
      if (!flags.detach) print((await context.client().get<Cluster>('/swarm')).TLSInfo.TrustRoot.trimEnd());
    });
  refuseFlags(command, ['--ca-cert <file>', '--ca-key <file>', '--external-ca <specification>']);
}

interface CaFlags {
  readonly rotate?: boolean;
  readonly certExpiry?: string;
  readonly detach?: boolean;
  readonly quiet?: boolean;
}

async function rotateRoot(context: Context, flags: CaFlags): Promise<void> {
  const expiry = specOf(flags).CAConfig ?? {};
  await updateSwarm(context, (spec) => ({
    ...spec,
    CAConfig: { ...spec.CAConfig, ...expiry, ForceRotate: (spec.CAConfig.ForceRotate ?? 0) + 1 },
  }));
  if (!flags.detach) await waitForRotation(context, flags.quiet ?? false);
}

const rotationPollMs = 300;

/** Waits until every node's certificate was issued by the new root, and says how many have one. */
async function waitForRotation(context: Context, quiet: boolean): Promise<void> {
  const client = context.client();
  let said = '';
  for (;;) {
    const cluster = await client.get<Cluster>('/swarm');
    const nodes = await client.get<ClusterNode[]>('/nodes');
    const renewed = nodes.filter(
      ({ Description }) => Description.TLSInfo?.CertIssuerPublicKey === cluster.TLSInfo.CertIssuerPublicKey,
    );
    const line = `rotated TLS certificates: ${renewed.length}/${nodes.length} nodes`;
    if (!quiet && line !== said) process.stderr.write(`${line}\n`);
    said = line;
    if (!cluster.RootRotationInProgress) return;
    await delay(context.clock, rotationPollMs);
  }
}
