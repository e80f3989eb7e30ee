/**
 * The files of secrets and configs. In: a task and what its secrets and configs hold. Out: one folder per task
 * in memory (a tmpfs), and which file appears where in the container. Secrets are never written to a disk: when
 * the folder is not in memory and no tmpfs can be mounted there, the task is refused. They leave with the task.
 */
import { execFile } from 'node:child_process';
import { chmod, chown, mkdir, open, readdir, readFile, rm, statfs, writeFile } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { promisify } from 'node:util';
import { messageOf, ShoalError } from '../proto/errors.ts';
import { expand } from '../proto/template.ts';
import { containerOf, type FileMount, type NodeForTasks, templateValues } from './engine/container-spec.ts';
import type { WireConfig, WireSecret, WireTask } from './wire.ts';

/** statfs(2)'s f_type of tmpfs and ramfs. */
const memoryFilesystems: ReadonlySet<number> = new Set([0x01021994, 0x858458f6]);
const secretsFolder = '/run/secrets';
const defaultMode = 0o444;
/** Shown in the list of mounts. */
const tmpfsName = 'shoal-files';
const run = promisify(execFile);

/** Looks up what a task's references name; undefined when the managers did not send it. */
export interface Payloads {
  secret(id: string): WireSecret | undefined;
  config(id: string): WireConfig | undefined;
}

/** A file to be: where it appears in the container, and what it holds. */
export interface PlannedFile {
  readonly target: string;
  readonly data: Uint8Array;
  readonly uid: number;
  readonly gid: number;
  /** Permission bits. */
  readonly mode: number;
}

/** Where a task's files live. */
export interface TaskFiles {
  /** Writes the files of a task (again, when it has some already) and says where each appears. */
  write(taskId: string, files: readonly PlannedFile[]): Promise<readonly FileMount[]>;
  /** Gives files that `write` made other contents where they are, so that a running container sees them. */
  rewrite(taskId: string, files: readonly PlannedFile[]): Promise<void>;
  remove(taskId: string): Promise<void>;
  /** Ids of the tasks that have files. */
  list(): Promise<readonly string[]>;
  /** Removes everything, for good. */
  clear(): Promise<void>;
}

/** Which secrets and configs, in which versions, a task is given: equal texts for equal ones. */
export function filesNamedBy(task: WireTask): string {
  const { secrets, configs } = containerOf(task);
  const ids = [
    ...(secrets ?? []).map((ref) => ref.secret_id),
    ...(configs ?? []).map((ref) => ref.config_id),
  ];
  return ids.join(' ');
}

/** The files that `task` gets. Throws `not-found` when one was not sent, `invalid-argument` for a bad template. */
export function planFiles(task: WireTask, node: NodeForTasks, payloads: Payloads): PlannedFile[] {
  const spec = containerOf(task);
  const files: PlannedFile[] = [];
  for (const { secret_id: id, secret_name: name, file } of spec.secrets ?? []) {
    const secret = payloads.secret(id ?? '');
    if (secret === undefined)
      throw new ShoalError('not-found', `secret ${name ?? id ?? ''} is not available on this node`);
    const target = file?.name || name || '';
    files.push({
      target: isAbsolute(target) ? target : `${secretsFolder}/${target}`,
      data: contentOf(secret.spec, task, node, payloads),
      ...ownership(file),
    });
  }
  for (const { config_id: id, config_name: name, file, runtime } of spec.configs ?? []) {
    if (runtime !== undefined && file === undefined) continue;
    const config = payloads.config(id ?? '');
    if (config === undefined)
      throw new ShoalError('not-found', `config ${name ?? id ?? ''} is not available on this node`);
    const target = file?.name || name || '';
    files.push({
      target: isAbsolute(target) ? target : `/${target}`,
      data: contentOf(config.spec, task, node, payloads),
      ...ownership(file),
    });
  }
  return files;
}

function ownership(
  file: { uid?: string | undefined; gid?: string | undefined; mode?: number | undefined } | undefined,
) {
  const number = (text: string | undefined): number => {
    const value = Number(text || 0);
    if (Number.isInteger(value) && value >= 0) return value;
    throw new ShoalError('invalid-argument', `"${text}" is no user or group id: give a number`);
  };
  return { uid: number(file?.uid), gid: number(file?.gid), mode: (file?.mode ?? defaultMode) & 0o7777 };
}

type Payload =
  | { data?: Uint8Array | undefined; templating?: { name?: string | undefined } | undefined }
  | undefined;

function contentOf(spec: Payload, task: WireTask, node: NodeForTasks, payloads: Payloads): Uint8Array {
  const data = spec?.data ?? new Uint8Array();
  const driver = spec?.templating?.name;
  if (!driver) return data;
  if (driver !== 'golang') {
    throw new ShoalError('not-supported', `template driver "${driver}" is not supported; use "golang"`);
  }
  const container = containerOf(task);
  const text = (bytes: Uint8Array | undefined): string => new TextDecoder().decode(bytes ?? new Uint8Array());
  const missing = (what: string): never => {
    throw new ShoalError('not-found', `${what} not found`);
  };
  const expanded = expand(text(data), templateValues(task, node), {
    env: (name) => {
      const entry = (container.env ?? []).find((line) => line.startsWith(`${name}=`));
      return entry === undefined ? '' : entry.slice(name.length + 1);
    },
    secret: (target) => {
      const reference = (container.secrets ?? []).find(({ file }) => file?.name === target);
      const secret = reference && payloads.secret(reference.secret_id ?? '');
      return secret === undefined ? missing(`secret target ${target}`) : text(secret.spec?.data);
    },
    config: (target) => {
      const reference = (container.configs ?? []).find(({ file }) => file?.name === target);
      const config = reference && payloads.config(reference.config_id ?? '');
      return config === undefined ? missing(`config target ${target}`) : text(config.spec?.data);
    },
  });
  return new TextEncoder().encode(expanded);
}

/** Files under `folder`, which is made a tmpfs when it is not in memory already. */
export class MemoryFolder implements TaskFiles {
  readonly #folder: string;
  #ready: Promise<void> | undefined;

  /** `folder` is the agent's alone, e.g. /run/shoal/files. */
  constructor(folder: string) {
    this.#folder = folder;
  }

  async write(taskId: string, files: readonly PlannedFile[]): Promise<readonly FileMount[]> {
    if (files.length === 0) return [];
    this.#ready ??= this.#prepare().catch((error: unknown) => {
      this.#ready = undefined;
      throw error;
    });
    await this.#ready;
    const folder = join(this.#folder, taskId);
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { mode: 0o700 });
    const mounts: FileMount[] = [];
    for (const [index, file] of files.entries()) {
      const source = join(folder, String(index));
      await writeFile(source, file.data, { mode: 0o600 });
      if (process.getuid?.() === 0) await chown(source, file.uid, file.gid);
      await chmod(source, file.mode);
      mounts.push({ source, target: file.target });
    }
    return mounts;
  }

  async rewrite(taskId: string, files: readonly PlannedFile[]): Promise<void> {
    const isRoot = process.getuid?.() === 0;
    for (const [index, { data, mode }] of files.entries()) {
      const source = join(this.#folder, taskId, String(index));
      // Opened and cut, never replaced: a container's mount is of this very file.
      if (!isRoot) await chmod(source, 0o600);
      const file = await open(source, 'r+');
      try {
        await file.truncate(data.byteLength);
        await file.write(data, 0, data.byteLength, 0);
      } finally {
        await file.close();
      }
      if (!isRoot) await chmod(source, mode);
    }
  }

  async remove(taskId: string): Promise<void> {
    await rm(join(this.#folder, taskId), { recursive: true, force: true });
  }

  async list(): Promise<readonly string[]> {
    return readdir(this.#folder).catch(() => []);
  }

  async clear(): Promise<void> {
    for (const taskId of await this.list()) await this.remove(taskId);
    const mounts = await readFile('/proc/self/mounts', 'utf8').catch(() => '');
    if (mounts.includes(`${tmpfsName} ${this.#folder} `)) await run('umount', [this.#folder]);
    await rm(this.#folder, { recursive: true, force: true });
    this.#ready = undefined;
  }

  async #prepare(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    if (await isInMemory(this.#folder)) return;
    try {
      await run('mount', ['-t', 'tmpfs', '-o', 'mode=0700,nosuid,nodev,noexec', tmpfsName, this.#folder]);
    } catch (error) {
      throw new ShoalError(
        'failed-precondition',
        `secrets are kept in memory only, and ${this.#folder} is on a disk and no tmpfs can be mounted there ` +
          `(${messageOf(error).split('\n')[0]}): run the daemon as root, or put its run directory on a tmpfs such as /run`,
      );
    }
    if (!(await isInMemory(this.#folder))) {
      throw new ShoalError(
        'failed-precondition',
        `${this.#folder} is on a disk although a tmpfs was mounted there`,
      );
    }
  }
}

async function isInMemory(folder: string): Promise<boolean> {
  return memoryFilesystems.has((await statfs(folder)).type);
}

/** Files that are only remembered: for the simulated engine, whose containers read nothing. */
export class RememberedFiles implements TaskFiles {
  readonly files = new Map<string, readonly PlannedFile[]>();

  async write(taskId: string, files: readonly PlannedFile[]): Promise<readonly FileMount[]> {
    if (files.length > 0) this.files.set(taskId, files);
    return files.map(({ target }, index) => ({ source: `/remembered/${taskId}/${index}`, target }));
  }

  async rewrite(taskId: string, files: readonly PlannedFile[]): Promise<void> {
    this.files.set(taskId, files);
  }

  async remove(taskId: string): Promise<void> {
    this.files.delete(taskId);
  }

  async list(): Promise<readonly string[]> {
    return [...this.files.keys()];
  }

  async clear(): Promise<void> {
    this.files.clear();
  }
}
