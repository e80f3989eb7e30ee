/**
 * The state of the networks that the managers told last, kept on disk: what an agent that is started anew goes on by, and
 * answers names from, before any manager has answered. In: each state. Out: the file, a moment later, for writing all of
 * a large state would hold up the change that it is about.
 */
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../../proto/errors.ts';
import type { Clock, Log, Timer } from '../../proto/ports.ts';
import type { Desired } from './desired.ts';

const gatherMs = 500;

export interface LastStateOptions {
  /** <data-dir>/agent; the file in it is network.json. */
  readonly folder: string;
  readonly clock: Clock;
  readonly log: Log;
}

export class LastState {
  readonly #options: LastStateOptions;
  #newest: Desired | undefined;
  #written = '';
  #timer: Timer | undefined;
  #writing: Promise<void> = Promise.resolve();
  #problem: string | undefined;

  constructor(options: LastStateOptions) {
    this.#options = options;
  }

  /** Why the newest state could not be written, in words; it is tried again with the next. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** What was kept; undefined when there is none, or it can't be read, which is logged. */
  async read(): Promise<Desired | undefined> {
    try {
      return JSON.parse(await readFile(this.#file, 'utf8')) as Desired;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
        this.#options.log.warn({ reason: messageOf(error) }, 'the last state of the networks can’t be read');
      }
      return undefined;
    }
  }

  /** `desired` will be on disk soon. */
  keep(desired: Desired): void {
    this.#newest = desired;
    if (desired.revision === this.#written) return;
    this.#timer ??= this.#options.clock.after(gatherMs, () => void this.flush());
  }

  /** Resolves when the newest state is on disk, or can't be. */
  flush(): Promise<void> {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#writing = this.#writing.then(() => this.#write());
    return this.#writing;
  }

  /** Removes it. */
  async forget(): Promise<void> {
    this.#newest = undefined;
    await this.flush();
    await rm(this.#file, { force: true });
  }

  get #file(): string {
    return join(this.#options.folder, 'network.json');
  }

  async #write(): Promise<void> {
    const state = this.#newest;
    if (state === undefined || state.revision === this.#written) return;
    try {
      await mkdir(this.#options.folder, { recursive: true, mode: 0o700 });
      await writeFile(`${this.#file}.new`, JSON.stringify(state), { mode: 0o600 });
      await rename(`${this.#file}.new`, this.#file);
      this.#written = state.revision;
      this.#problem = undefined;
    } catch (error) {
      this.#problem = `the state of the networks can't be written: ${messageOf(error)}`;
    }
  }
}
