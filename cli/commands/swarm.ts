/** shoal swarm: make, join, leave and look after a cluster. */
import { createInterface } from 'node:readline';
import type { Command } from 'commander';
import type { Cluster } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { Context } from '../context.ts';
import { print } from '../output.ts';
import { parseChoice, parseCount, parseDuration } from '../parse.ts';

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
  defaultAddrPool?: string;
  defaultAddrPoolMaskLength?: string;
  taskHistoryLimit?: string;
  certExpiry?: string;
  dispatcherHeartbeat?: string;
}

function addInit(swarm: Command, context: Context): void {
  swarm
    .command('init')
    .description('make a cluster with this node as its first manager')
    .option('--advertise-addr <address>', 'address that other nodes reach this one by (HOST[:PORT])')
    .option('--listen-addr <address>', "address of the cluster's port (default: the daemon's --listen-addr)")
    .option('--availability <availability>', 'active, pause or drain', 'active')
    .option('--autolock', 'seal the managers’ disks with a key that is asked for after a restart')
    .option('--force-new-cluster', 'recover from a lost quorum: go on with this manager as the only one')
    .option('--default-addr-pool <cidr>', 'pool that networks get their subnets from')
    .option('--default-addr-pool-mask-length <length>', 'length of a subnet’s mask')
    .option('--task-history-limit <count>', 'ended tasks kept for each slot')
    .option('--cert-expiry <duration>', 'how long a node’s certificate is valid')
    .option('--dispatcher-heartbeat <duration>', 'time between two heartbeats of a node')
    .action(async (flags: InitFlags) => {
      const client = context.client();
      const nodeId = await client.post<string>('/swarm/init', initBody(flags));
      const info = await client.get<Info>('/info');
      const cluster = await client.get<Cluster>('/swarm');
      const address = managerAddress(info, flags.advertiseAddr);
      print(`Swarm initialized: current node (${nodeId}) is now a manager.\n`);
      printJoin('worker', cluster.JoinTokens.Worker, address);
      print(
        "To add a manager to this swarm, run 'shoal swarm join-token manager' and follow the instructions.",
      );
      if (flags.autolock) await printUnlockKey(context);
    });
}

function initBody(flags: InitFlags) {
  const autolock = flags.autolock ?? false;
  return {
    ...(flags.listenAddr ? { ListenAddr: flags.listenAddr } : {}),
    ...(flags.advertiseAddr ? { AdvertiseAddr: flags.advertiseAddr } : {}),
    ...(flags.defaultAddrPool ? { DefaultAddrPool: [flags.defaultAddrPool] } : {}),
    ...(flags.defaultAddrPoolMaskLength
      ? { SubnetSize: parseCount(flags.defaultAddrPoolMaskLength, '--default-addr-pool-mask-length') }
      : {}),
    ForceNewCluster: flags.forceNewCluster ?? false,
    AutoLockManagers: autolock,
    Availability: parseChoice(flags.availability, '--availability', ['active', 'pause', 'drain'] as const),
    Spec: { EncryptionConfig: { AutoLockManagers: autolock }, ...specOf(flags) },
  };
}

/** The parts of a cluster's spec that flags set. */
function specOf(flags: Pick<InitFlags, 'taskHistoryLimit' | 'certExpiry' | 'dispatcherHeartbeat'>) {
  return {
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
      await context.client().post('/swarm/leave', undefined, flags.force ? { force: 'true' } : {});
      print('Node left the swarm.');
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
  swarm
    .command('update')
    .description("change the cluster's settings")
    .option('--autolock <boolean>', 'true or false: seal the managers’ disks')
    .option('--task-history-limit <count>', 'ended tasks kept for each slot')
    .option('--cert-expiry <duration>', 'how long a node’s certificate is valid')
    .option('--dispatcher-heartbeat <duration>', 'time between two heartbeats of a node')
    .action(async (flags: Omit<InitFlags, 'autolock'> & { autolock?: string }) => {
      const autolock =
        flags.autolock === undefined
          ? undefined
          : parseChoice(flags.autolock, '--autolock', ['true', 'false'] as const) === 'true';
      const changes = specOf(flags);
      await updateSwarm(context, (spec) => ({
        ...spec,
        Orchestration: { ...spec.Orchestration, ...changes.Orchestration },
        CAConfig: { ...spec.CAConfig, ...changes.CAConfig },
        Dispatcher: { ...spec.Dispatcher, ...changes.Dispatcher },
        ...(autolock === undefined ? {} : { EncryptionConfig: { AutoLockManagers: autolock } }),
      }));
      print('Swarm updated.');
      if (autolock) await printUnlockKey(context);
    });
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
      const key = await askForKey();
      await context.client().post('/swarm/unlock', { UnlockKey: key });
    });
}

/** Reads the unlock key without showing it on a terminal. */
function askForKey(): Promise<string> {
  const terminal = process.stdin.isTTY;
  if (terminal) process.stderr.write('Please enter unlock key: ');
  const lines = createInterface({ input: process.stdin, terminal: false });
  if (terminal) process.stdin.setRawMode(false);
  return new Promise((resolve, reject) => {
    lines.once('line', (line) => {
      lines.close();
      resolve(line.trim());
    });
    lines.once('close', () => reject(new ShoalError('invalid-argument', 'no unlock key was given')));
  });
}

function addCa(swarm: Command, context: Context): void {
  swarm
    .command('ca')
    .description("print the cluster's root certificate, or rotate it")
    .option('--rotate', 'make a new root; every node gets a new certificate')
    .action(async (flags: { rotate?: boolean }) => {
      if (flags.rotate) {
        await updateSwarm(context, (spec) => ({
          ...spec,
          CAConfig: { ...spec.CAConfig, ForceRotate: (spec.CAConfig.ForceRotate ?? 0) + 1 },
        }));
      }
      print((await context.client().get<Cluster>('/swarm')).TLSInfo.TrustRoot.trimEnd());
    });
}
