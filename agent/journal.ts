/**
 * What the agent remembers across restarts: its tasks as the managers last sent them, with their statuses, the
 * managers' addresses, and when it heard them last. One small file for each task, replaced whole, so that a kill leaves the old or the new.
 * It never holds a secret: payloads are not given to it, and registry credentials are taken out.
 *
 * Nothing waits for the disk, and nothing is flushed: after a power cut the containers themselves say how they
 * are, and the managers send the tasks again.
 */
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../proto/errors.ts';
import type { Log } from '../proto/ports.ts';
import type { Answer } from './isolation.ts';
import type { AgentStatus, WireTask } from './wire.ts';

export interface JournalEntry {
  readonly task: WireTask;
  readonly status: AgentStatus;
}

/** A manager's address, and how eagerly it should be chosen. */
export interface RememberedManager {
  readonly nodeId: string;
  readonly address: string;
  readonly weight: number;
}

export interface Remembered {
  readonly tasks: JournalEntry[];
  readonly managers: RememberedManager[];
  readonly heard: Answer | undefined;
}

export interface Journal {
  load(): Promise<Remembered>;
  /** Keeps the task's newest state; soon, not now. */
  put(entry: JournalEntry): void;
  drop(taskId: string): void;
  putManagers(managers: readonly RememberedManager[]): void;
  /** Keeps when the managers were last heard, for a life that is to follow soon (isolation.ts). */
  putHeard(heard: Answer): void;
  /** Resolves when all that was put is written. */
  flush(): Promise<void>;
  /** Forgets everything. */
  clear(): Promise<void>;
}

/** The task as it may be written to a disk. */
export function withoutCredentials(task: WireTask): WireTask {
  const container = task.spec?.container;
  if (container?.pull_options === undefined) return task;
  const { pull_options: _credentials, ...kept } = container;
  return { ...task, spec: { ...task.spec, container: kept } };
}

export class FileJournal implements Journal {
  readonly #folder: string;
  readonly #tasks: string;
  readonly #managers: string;
  readonly #heard: string;
  readonly #log: Log;
  /** File → what it is to hold; undefined: it is to go. */
  readonly #waiting = new Map<string, (() => string) | undefined>();
  #writing: Promise<void> | undefined;

  /** `folder` is the agent's alone, e.g. <data-dir>/agent. */
  constructor(folder: string, log: Log) {
    this.#folder = folder;
    this.#tasks = join(folder, 'tasks');
    this.#managers = join(folder, 'managers.json');
    this.#heard = join(folder, 'heard.json');
    this.#log = log;
  }

  async load(): Promise<Remembered> {
    await mkdir(this.#tasks, { recursive: true, mode: 0o700 });
    const tasks: JournalEntry[] = [];
    for (const name of (await readdir(this.#tasks)).sort()) {
      if (!name.endsWith('.json')) {
        // A write that a kill cut short; the file that it was to replace still stands.
        await rm(join(this.#tasks, name), { force: true });
        continue;
      }
      const entry = await this.#read<JournalEntry>(join(this.#tasks, name));
      if (entry?.task?.id !== undefined && entry.status?.state !== undefined) tasks.push(entry);
    }
    const managers = (await this.#read<RememberedManager[]>(this.#managers)) ?? [];
    const heard = await this.#read<Answer>(this.#heard);
    const isHeard = typeof heard?.atMs === 'number' && typeof heard.periodMs === 'number';
    return { tasks, managers, heard: isHeard ? heard : undefined };
  }

  put(entry: JournalEntry): void {
    const { task, status } = entry;
    this.#write(join(this.#tasks, `${task.id}.json`), () =>
      JSON.stringify({ task: withoutCredentials(task), status }, bytesToText),
    );
  }

  drop(taskId: string): void {
    this.#write(join(this.#tasks, `${taskId}.json`), undefined);
  }

  putHeard(heard: Answer): void {
    this.#write(this.#heard, () => JSON.stringify(heard));
  }

  putManagers(managers: readonly RememberedManager[]): void {
    this.#write(this.#managers, () => JSON.stringify(managers));
  }

  async flush(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
  }

  async clear(): Promise<void> {
    this.#waiting.clear();
    await this.flush();
    await rm(this.#folder, { recursive: true, force: true });
  }

  #write(path: string, content: (() => string) | undefined): void {
    this.#waiting.set(path, content);
    this.#writing ??= this.#drain().finally(() => {
      this.#writing = undefined;
    });
  }

  async #drain(): Promise<void> {
    // What is put in the same turn, or while a write is under way, is written once.
    await Promise.resolve();
    for (const [path, content] of this.#waiting) {
      this.#waiting.delete(path);
      try {
        if (content === undefined) await rm(path, { force: true });
        else {
          await writeFile(`${path}.new`, content(), { mode: 0o600 });
          await rename(`${path}.new`, path);
        }
      } catch (error) {
        this.#log.error({ path, reason: messageOf(error) }, 'the journal could not be written');
      }
    }
  }

  async #read<T>(path: string): Promise<T | undefined> {
    try {
      return JSON.parse(await readFile(path, 'utf8'), textToBytes) as T;
    } catch (error) {
      if ((error as { code?: string }).code !== 'ENOENT') {
        this.#log.warn({ path, reason: messageOf(error) }, 'a file of the journal is unreadable and ignored');
      }
      return undefined;
    }
  }
}

/** A journal that lasts as long as the process: for simulated nodes. */
export class MemoryJournal implements Journal {
  readonly tasks = new Map<string, JournalEntry>();
  managers: readonly RememberedManager[] = [];
  heard: Answer | undefined;

  async load(): Promise<Remembered> {
    return { tasks: [...this.tasks.values()], managers: [...this.managers], heard: this.heard };
  }

  put(entry: JournalEntry): void {
    this.tasks.set(entry.task.id ?? '', { task: withoutCredentials(entry.task), status: entry.status });
  }

  drop(taskId: string): void {
    this.tasks.delete(taskId);
  }

  putHeard(heard: Answer): void {
    this.heard = heard;
  }

  putManagers(managers: readonly RememberedManager[]): void {
    this.managers = managers;
  }

  async flush(): Promise<void> {}

  async clear(): Promise<void> {
    this.tasks.clear();
    this.managers = [];
    this.heard = undefined;
  }
}

const bytesKey = 'shoal.bytes';

function bytesToText(_key: string, value: unknown): unknown {
  const bytes = value as { type?: string; data?: number[] } | null;
  return bytes?.type === 'Buffer' && Array.isArray(bytes.data)
    ? { [bytesKey]: Buffer.from(bytes.data).toString('base64') }
    : value;
}

function textToBytes(_key: string, value: unknown): unknown {
  const text = (value as Record<string, unknown> | null)?.[bytesKey];
  return typeof text === 'string' ? Buffer.from(text, 'base64') : value;
}
