/** shoal task exec: a command in a running task, on whatever node it is, as docker exec does it in a container. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { ShoalError } from '../../proto/errors.ts';
import type { ApiClient } from '../client.ts';
import { type Context, collect } from '../context.ts';
import { DetachFilter, parseDetachKeys } from '../detach-keys.ts';
import { FrameSplitter } from '../frames.ts';
import { print } from '../output.ts';
import { UsageError } from '../usage.ts';

interface ExecFlags {
  readonly detach?: boolean;
  readonly detachKeys?: string;
  readonly env?: string[];
  readonly envFile?: string[];
  readonly interactive?: boolean;
  readonly privileged?: boolean;
  readonly tty?: boolean;
  readonly user?: string;
  readonly workdir?: string;
}

/** Adds the verb. */
export function addTaskExec(task: Command, context: Context): void {
  task
    .command('exec')
    .description('run a command in a running task, wherever it runs')
    .argument('<task>', 'its id, or its name such as web.3')
    .argument('<command...>')
    .passThroughOptions()
    .option('-d, --detach', 'leave the command running in the background')
    .option('--detach-keys <keys>', 'the keys that leave a terminal to itself', '')
    .option('-e, --env <variable>', 'NAME=VALUE, or NAME for the value that it has here', collect)
    .option('--env-file <file>', 'a file of variables', collect)
    .option('-i, --interactive', 'keep standard input open')
    .option(
      '--privileged',
      'with all rights, where the cluster allows that (swarm update --allow-privileges)',
    )
    .option('-t, --tty', 'with a terminal')
    .option('-u, --user <user>', 'as whom, NAME|UID[:GROUP|GID]', '')
    .option('-w, --workdir <folder>', 'in which folder', '')
    .action(async (name: string, words: string[], flags: ExecFlags) => {
      if (flags.tty && flags.interactive && !flags.detach && !process.stdin.isTTY)
        throw new UsageError('the input device is not a TTY');
      const keys = parseDetachKeys(flags.detachKeys ?? '');
      const client = context.client();
      const { Id } = await client.post<{ Id: string }>(
        `/tasks/${encodeURIComponent(name)}/exec`,
        requestOf(words, flags),
      );
      if (flags.detach) {
        await client.post(`/exec/${Id}/start`, { Detach: true, Tty: flags.tty === true });
        return print(Id);
      }
      await converse(client, Id, flags, keys);
      process.exitCode = await exitCodeOf(client, Id);
    });
}

/** The command as the API takes it. */
export function requestOf(words: readonly string[], flags: ExecFlags): Record<string, unknown> {
  const fromFiles = (flags.envFile ?? []).flatMap(variablesIn);
  const env = [...fromFiles, ...(flags.env ?? [])].flatMap(withValue);
  return {
    Cmd: words,
    Env: env,
    User: flags.user ?? '',
    WorkingDir: flags.workdir ?? '',
    Tty: flags.tty === true,
    AttachStdin: flags.interactive === true && !flags.detach,
    AttachStdout: !flags.detach,
    AttachStderr: !flags.detach,
    DetachKeys: flags.detachKeys ?? '',
    Privileged: flags.privileged === true,
  };
}

function variablesIn(file: string): string[] {
  try {
    return readFileSync(file, 'utf8')
      .split('\n')
      .map((line) => line.trimStart())
      .filter((line) => line !== '' && !line.startsWith('#'));
  } catch (error) {
    throw new UsageError(`--env-file ${file} can't be read: ${(error as NodeJS.ErrnoException).code}`);
  }
}

/** A variable without a value has the one of this process; none where there is none. */
function withValue(variable: string): string[] {
  if (variable.includes('=')) return [variable];
  const value = process.env[variable];
  return value === undefined ? [] : [`${variable}=${value}`];
}

/** Joins this process' streams to the command until it has ended, or was left by the keys that detach. */
async function converse(client: ApiClient, id: string, flags: ExecFlags, keys: Buffer): Promise<void> {
  const connection = await client.upgrade(`/exec/${id}/start`, { Detach: false, Tty: flags.tty === true });
  const output = flags.tty ? undefined : new FrameSplitter(process.stdout, process.stderr);
  const over = new Promise<void>((resolve, reject) => {
    connection.once('end', () => (output ? output.once('finish', resolve) : resolve()));
    connection.once('close', () => !connection.readableEnded && resolve());
    connection.once('error', reject);
  });
  let isLeft = false;
  const leave = (): void => {
    isLeft = true;
    connection.destroy();
  };
  const input = flags.tty ? new DetachFilter(keys, leave) : undefined;
  const restore = flags.tty ? enterTerminal(client, id, flags.interactive === true) : () => {};
  const stdin = process.stdin;
  try {
    if (flags.interactive) (input ? stdin.pipe(input) : stdin).pipe(connection);
    connection.pipe(output ?? process.stdout);
    await over;
  } finally {
    restore();
    stdin.unpipe();
    // A standard input that is still open would keep this process.
    stdin.destroy();
    connection.destroy();
  }
  // In docker's words, and with its status.
  if (isLeft) throw new ShoalError('conflict', 'read escape sequence');
}

/** The terminal hands on every key, and the command learns its size; answers what undoes that. */
function enterTerminal(client: ApiClient, id: string, isInteractive: boolean): () => void {
  const { stdin, stdout } = process;
  const isRaw = isInteractive && stdin.isTTY === true;
  const resize = (): void => {
    const query = { h: String(stdout.rows ?? 0), w: String(stdout.columns ?? 0) };
    // A command that has just ended has no size.
    if (stdout.isTTY) void client.post(`/exec/${id}/resize`, undefined, query).catch(() => undefined);
  };
  if (isRaw) stdin.setRawMode(true);
  stdout.on('resize', resize);
  resize();
  return () => {
    stdout.off('resize', resize);
    if (isRaw) stdin.setRawMode(false);
  };
}

/** 0 for one that goes on without us. */
async function exitCodeOf(client: ApiClient, id: string): Promise<number> {
  const answer = await client.get<{ Running: boolean; ExitCode: number | null; Problem: string }>(
    `/exec/${id}/json`,
  );
  if (answer.Problem !== '') throw new ShoalError('unavailable', answer.Problem);
  return answer.Running ? 0 : (answer.ExitCode ?? 0);
}
