/**
 * One flag of one command of the docker CLI, and how it is shown to have its effect. A case runs the stock client
 * against a daemon with a real engine and looks at the object, the container or the output; a command that is refused
 * must name the flag or the field, and then that is the result.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';

export interface Output {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** What became of a flag. */
export type Result =
  | { readonly kind: 'effect'; readonly words: string }
  /** The stock client takes the flag and sends nothing of it; our own client does. */
  | { readonly kind: 'unsent'; readonly words: string }
  | { readonly kind: 'refused'; readonly words: string };

export interface FlagCase {
  /** E.g. `docker service create`. */
  readonly command: string;
  /** E.g. `--cap-add`; empty for the command itself. */
  readonly flag: string;
  readonly run: (world: World) => Promise<Result>;
  /** How a refusal names the flag, where it does not by the flag's own words. */
  readonly names?: RegExp;
}

/** A command that ended with a failure, with what it said. */
export class Refusal extends Error {
  readonly output: Output;

  constructor(args: readonly string[], output: Output) {
    super(
      `docker ${args.join(' ')} ended with ${output.status}: ${output.stderr.trim() || output.stdout.trim()}`,
    );
    this.output = output;
  }
}

/** Where the cases run: a manager with an engine, and a second daemon that is in no cluster. */
export interface World {
  /** The client's program. */
  readonly client: string;
  /** Folder for files of the cases; also the client's configuration. */
  readonly folder: string;
  /** The API's socket of the cluster's manager, and of the daemon that init, join and leave are tried on. */
  readonly socket: string;
  readonly otherSocket: string;
  /** The engine's own socket on the manager's host. */
  readonly engineSocket: string;
  /** Addresses, without a port, of both hosts. */
  readonly address: string;
  readonly otherAddress: string;
  readonly image: string;
  /** HOST:PORT of a registry that wants to know who asks, and the lines `PATH CREDENTIALS` of who did (registry.ts). */
  readonly registry: string;
  readonly registryLog: string;
  /** Runs a command on the other daemon's host; answers its standard output. */
  readonly otherExec: (...command: string[]) => Promise<string>;
  /** Ends the other daemon and starts it again. */
  readonly restartOther: () => Promise<void>;
  /** Our own client against the cluster's manager; rejects when it fails. */
  readonly shoal: (...args: string[]) => Promise<unknown>;
}

/** Runs the client; `socket` is the manager's unless told otherwise. */
export function tryDocker(
  world: World,
  args: readonly string[],
  options: { readonly socket?: string; readonly input?: string; readonly boundMs?: number } = {},
): Promise<Output> {
  return new Promise((resolve) => {
    const child = execFile(
      world.client,
      ['-H', `unix://${options.socket ?? world.socket}`, ...args],
      {
        env: { ...process.env, DOCKER_CONFIG: world.folder },
        maxBuffer: 16 * 1024 * 1024,
        timeout: options.boundMs ?? 60_000,
      },
      (error, stdout, stderr) => {
        const status = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
        resolve({ status, stdout, stderr });
      },
    );
    child.stdin?.on('error', () => {});
    child.stdin?.end(options.input ?? '');
  });
}

/** As tryDocker, of a command that has to succeed. Throws a Refusal. */
export async function docker(
  world: World,
  args: readonly string[],
  options: { readonly socket?: string; readonly input?: string; readonly boundMs?: number } = {},
): Promise<Output> {
  const output = await tryDocker(world, args, options);
  if (output.status !== 0) throw new Refusal(args, output);
  return output;
}

// biome-ignore lint/suspicious/noExplicitAny: whatever the API answered
export type Json = any;

/** The object that `docker KIND inspect NAME` prints. */
export async function inspect(world: World, kind: string, name: string, socket?: string): Promise<Json> {
  const { stdout } = await docker(world, [...kind.split(' '), 'inspect', name], socket ? { socket } : {});
  return (JSON.parse(stdout) as Json[])[0];
}

/** The value at a path such as `TaskTemplate.Placement.Constraints.0`. */
export function at(object: Json, path: string): Json {
  return path.split('.').reduce((value: Json, key) => value?.[key], object);
}

/** The container of a service's task on the manager's engine, once it is there. */
export async function containerOf(world: World, service: string): Promise<Json> {
  const filter = `label=com.docker.swarm.service.name=${service}`;
  const socket = world.engineSocket;
  const id = await waitFor(`a container of ${service}`, 40_000, async () => {
    const { stdout } = await docker(world, ['ps', '-q', '--no-trunc', '--filter', filter], { socket });
    return stdout.split('\n').filter(Boolean)[0];
  });
  return (JSON.parse((await docker(world, ['inspect', id], { socket })).stdout) as Json[])[0];
}

export async function waitFor<T>(
  what: string,
  boundMs: number,
  probe: () => Promise<T | undefined | false>,
): Promise<T> {
  const end = performance.now() + boundMs;
  for (;;) {
    const answer = await probe();
    if (answer !== undefined && answer !== false) return answer;
    if (performance.now() > end) throw new Error(`waited ${boundMs} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

export function effect(words: string): Result {
  return { kind: 'effect', words };
}

/**
 * Runs a case. A refusal counts as its result when it names the flag, or the field that `names` matches; any other
 * failure is a failure.
 */
export async function outcomeOf(one: FlagCase, world: World): Promise<Result> {
  try {
    return await one.run(world);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    const said = error.output.stderr.trim() || error.output.stdout.trim();
    const bare = one.flag.replace(/^--/, '').replace(/-(add|rm)$/, '');
    const words = bare.split('-').join('[-_ ]?');
    const isNamed = new RegExp(words, 'i').test(said) || one.names?.test(said) === true;
    // The usage that the client prints names every flag and tells nothing.
    assert.ok(isNamed && !/unknown flag/.test(said), error.message);
    return { kind: 'refused', words: said.split('\n').filter(Boolean).join(' ') };
  }
}
