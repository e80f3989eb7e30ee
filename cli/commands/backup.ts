/** shoal backup: the whole cluster as one sealed file, tried without touching anything, and restored elsewhere. */
import { createWriteStream, existsSync, readFileSync } from 'node:fs';
import { open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { Command } from 'commander';
import {
  type Backup,
  newBackupKey,
  openBackup,
  readBackupHead,
  whichKey,
} from '../../manager/backup/backup.ts';
import type { Examination } from '../../manager/backup/examine.ts';
import type { Cluster } from '../../proto/docker.ts';
import { messageOf, ShoalError } from '../../proto/errors.ts';
import { silentLog } from '../../proto/ports.ts';
import { askSecret } from '../ask.ts';
import type { Context } from '../context.ts';
import { binarySize, durationText, print } from '../output.ts';
import { parseChoice, parseDuration } from '../parse.ts';
import { realRandom } from '../runtime.ts';

const ownerOnly = 0o600;
const keyHeader = 'X-Shoal-Backup-Key';
const progressStepBytes = 1024 * 1024;
const longestName = 8;
const nanosPerMillisecond = 1_000_000;

interface KeyFlags {
  keyFile?: string;
}

/** Adds the noun with its verbs. */
export function addBackupCommands(program: Command, context: Context): void {
  const backup = program.command('backup').description('back the cluster up, and restore it elsewhere');
  addCreate(backup, context);
  addInspect(backup);
  addVerify(backup, context);
  addRestore(backup, context);
}

function addCreate(backup: Command, context: Context): void {
  backup
    .command('create')
    .description('write everything that the managers hold into one sealed file, while the cluster runs')
    .argument('<file>', 'is made, readable for its owner alone')
    .option(
      '--key-file <path>',
      'seal it under the key in this file (default: the unlock key when autolock is on, else a new key, printed once)',
    )
    .option('--force', 'replace the file when there is one')
    .action(async (file: string, flags: KeyFlags & { force?: boolean }) => {
      if (existsSync(file) && !flags.force) {
        throw new ShoalError('already-exists', `${file} is there already: name another file, or add --force`);
      }
      const client = context.client();
      const key = await keyForCreate(context, flags);
      const headers = key.isUnlockKey
        ? {}
        : { [keyHeader]: Buffer.from(key.text, 'utf8').toString('base64') };
      const response = await client.open('POST', '/swarm/backup', {}, undefined, headers);
      const part = `${file}.part`;
      try {
        await rm(part, { force: true });
        await pipeline(response, withProgress, createWriteStream(part, { mode: ownerOnly, flush: true }));
        const made = await openBackup(readFileSync(part), key.text);
        await rename(part, file);
        await flushFolder(dirname(file));
        print(
          `Backup of cluster ${made.head.clusterId} as of ${made.head.createdAt} (index ${made.facts.index}) in ${file}: ${binarySize((await stat(file)).size)}.`,
        );
      } catch (error) {
        await rm(part, { force: true });
        throw new ShoalError('unavailable', `the backup broke off and was removed: ${messageOf(error)}`, {
          cause: error,
        });
      }
      if (key.isNew) {
        print(
          `\nIt is sealed under this key, which is kept nowhere else. Store it in a password manager, for without it\nthe backup can't be opened:\n\n    ${key.text}\n`,
        );
      } else if (key.isUnlockKey) {
        print(
          'It is sealed under the cluster’s unlock key (shoal swarm unlock-key). Keep it: after a rotation this backup still needs the present one.',
        );
      }
      print(`Try it out, without touching anything: shoal backup verify ${file}`);
    });
}

async function keyForCreate(
  context: Context,
  flags: KeyFlags,
): Promise<{ text: string; isNew: boolean; isUnlockKey: boolean }> {
  if (flags.keyFile !== undefined)
    return { text: readKeyFile(flags.keyFile), isNew: false, isUnlockKey: false };
  const client = context.client();
  const cluster = await client.get<Cluster>('/swarm');
  if (!cluster.Spec.EncryptionConfig.AutoLockManagers) {
    return { text: newBackupKey(realRandom), isNew: true, isUnlockKey: false };
  }
  const { UnlockKey } = await client.get<{ UnlockKey: string }>('/swarm/unlockkey');
  return { text: UnlockKey, isNew: false, isUnlockKey: true };
}

/** Passes on what comes, and says on a terminal how much that is. */
async function* withProgress(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const { stderr } = process;
  let bytes = 0;
  let told = 0;
  for await (const piece of source) {
    bytes += piece.length;
    if (stderr.isTTY && bytes - told >= progressStepBytes) {
      told = bytes;
      stderr.write(`\r${binarySize(bytes)} …`);
    }
    yield piece;
  }
  if (told > 0) stderr.write('\r\x1b[K');
}

function addInspect(backup: Command): void {
  backup
    .command('inspect')
    .description('print what a backup says of itself; its key is not needed')
    .argument('<file>')
    .action((file: string) => {
      const bytes = readBackupFile(file);
      const head = readBackupHead(bytes);
      print(
        [
          `Cluster:  ${head.clusterId}`,
          `Time:     ${head.createdAt}`,
          `Version:  shoald ${head.version}`,
          `Size:     ${binarySize(bytes.length)}`,
          `Key:      ${whichKey(head)}`,
        ].join('\n'),
      );
    });
}

function addVerify(backup: Command, context: Context): void {
  backup
    .command('verify')
    .description('rehearse the restore of a backup in memory: no cluster and no disk is touched')
    .argument('<file>')
    .option('--key-file <path>', 'the key is in this file (default: it is asked for)')
    .action(async (file: string, flags: KeyFlags) => {
      const made = await openWithKey(file, flags);
      const { rehearse } = await import('../../manager/rehearsal.ts');
      const found = await rehearse(made, { clock: context.clock, random: realRandom, log: silentLog });
      print(summary(made, found));
      if (found.faults.length > 0) {
        throw new ShoalError(
          'corrupted',
          `the backup does not hold a sound cluster:\n- ${found.faults.join('\n- ')}`,
        );
      }
      print('It can be restored: shoal backup restore (rehearsed in memory).');
    });
}

function summary({ head, facts }: Backup, found: Examination): string {
  const { counts } = found;
  return [
    `Cluster:   ${head.clusterId}`,
    `Time:      ${head.createdAt} (index ${facts.index}, term ${facts.term})`,
    `Managers:  ${found.managers.length} (${listed(found.managers)})`,
    `Workers:   ${found.workers.length} (${listed(found.workers)})`,
    `Services:  ${counts.service} (${listed(found.services)}), ${found.wantedTasks} tasks wanted`,
    `Objects:   ${counts.stack} stacks, ${counts.network} networks, ${counts.secret} secrets, ${counts.config} configs`,
    `Autolock:  ${found.isLocking ? 'on' : 'off'}`,
  ].join('\n');
}

function listed(names: readonly string[]): string {
  if (names.length === 0) return 'none';
  const rest = names.length - longestName;
  return rest > 0 ? `${names.slice(0, longestName).join(', ')} and ${rest} more` : names.join(', ');
}

interface RestoreFlags extends KeyFlags {
  advertiseAddr?: string;
  listenAddr?: string;
  availability: string;
  waitForNodes: string;
}

function addRestore(backup: Command, context: Context): void {
  backup
    .command('restore')
    .description('make this host, which is outside, the one manager of the cluster in a backup')
    .argument('<file>')
    .option('--key-file <path>', 'the key is in this file (default: it is asked for)')
    .option('--advertise-addr <address>', 'address that other nodes reach this one by (HOST[:PORT])')
    .option('--listen-addr <address>', "address of the cluster's port (default: the daemon's --listen-addr)")
    .option('--availability <availability>', 'active, pause or drain', 'active')
    .option(
      '--wait-for-nodes <duration>',
      'how long workers have to come before their tasks are run elsewhere',
      '10m',
    )
    .action(async (file: string, flags: RestoreFlags) => {
      const made = await openWithKey(file, flags);
      const client = context.client();
      const wait = parseDuration(flags.waitForNodes, '--wait-for-nodes');
      const availability = parseChoice(flags.availability, '--availability', [
        'active',
        'pause',
        'drain',
      ] as const);
      const nodeId = await client.postBytes<string>(
        '/swarm/restore',
        readBackupFile(file),
        {
          availability,
          awaitNodesMs: String(Math.round(wait / nanosPerMillisecond)),
          ...(flags.advertiseAddr ? { advertiseAddr: flags.advertiseAddr } : {}),
          ...(flags.listenAddr ? { listenAddr: flags.listenAddr } : {}),
        },
        { [keyHeader]: Buffer.from(made.key, 'utf8').toString('base64') },
      );
      const info = await client.get<{
        Swarm: { NodeAddr: string; RemoteManagers: { Addr: string }[] | null };
      }>('/info');
      const address = info.Swarm.RemoteManagers?.[0]?.Addr ?? `${info.Swarm.NodeAddr}:2377`;
      const cluster = await client.get<Cluster>('/swarm');
      print(`Cluster ${made.head.clusterId} as of ${made.head.createdAt} is restored; this node (${nodeId}) is its one manager.

Its workers keep their containers. Those that no longer find a manager are told where it is, each with:

    shoal swarm join --token ${cluster.JoinTokens.Worker} ${address}

They have ${durationText(wait)} before their tasks are run elsewhere. Add managers with 'shoal swarm join-token manager',
and remove the lost ones with 'shoal node rm'.`);
    });
}

async function openWithKey(file: string, flags: KeyFlags): Promise<Backup & { key: string }> {
  const bytes = readBackupFile(file);
  const head = readBackupHead(bytes);
  const key =
    flags.keyFile === undefined
      ? await askSecret(
          `Key of the backup (${whichKey(head)}): `,
          'the key of the backup is needed: --key-file, or type it in',
        )
      : readKeyFile(flags.keyFile);
  return { ...(await openBackup(bytes, key)), key };
}

function readBackupFile(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new ShoalError('not-found', `the backup can't be read: ${messageOf(cause)}`, { cause });
  }
}

function readKeyFile(path: string): string {
  let key: string;
  try {
    key = readFileSync(path, 'utf8').trim();
  } catch (cause) {
    throw new ShoalError('not-found', `--key-file: ${messageOf(cause)}`, { cause });
  }
  if (key === '') throw new ShoalError('invalid-argument', `--key-file: ${path} is empty`);
  return key;
}

/** Makes the new name survive a power cut. */
async function flushFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
