/**
 * What the host's own settings (under /proc/sys) were before the data plane changed them, kept on disk until they are so
 * again: a host that leaves is to be as it was. In: settings that are about to be changed. Out: the values of before, for
 * the plan.
 * Settings of our bridges are none of these: they go with the bridge.
 */
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

export class PriorSettings {
  readonly #folder: string;
  #values = new Map<string, string>();

  /** `folder`: where the file stands, <data-dir>/agent. */
  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Path under /proc/sys → its value before it was changed. */
  get values(): ReadonlyMap<string, string> {
    return this.#values;
  }

  /** Takes up what the last life noted. Throws when the file is there and can't be read. */
  async load(): Promise<void> {
    try {
      this.#values = new Map(Object.entries(JSON.parse(await readFile(this.#file, 'utf8')) as object));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }

  /**
   * Notes on disk what `paths` hold, those that are not noted yet: to be called before anything changes them, the engine
   * included, for it changes some when it makes a network of ours. Throws what `read` throws.
   */
  async noteBefore(
    paths: Iterable<string>,
    read: (paths: readonly string[]) => Promise<ReadonlyMap<string, string>>,
  ): Promise<void> {
    const unknown = [...paths].filter((path) => !this.#values.has(path));
    if (unknown.length === 0) return;
    for (const [path, value] of await read(unknown)) this.#values.set(path, value);
    await this.#write();
  }

  /** Forgets those that `wanted` has no more: they are as they were, or someone else's by now. */
  async keepOnly(wanted: ReadonlyMap<string, string>): Promise<void> {
    const gone = [...this.#values.keys()].filter((path) => !wanted.has(path));
    if (gone.length === 0) return;
    for (const path of gone) this.#values.delete(path);
    await this.#write();
  }

  get #file(): string {
    return join(this.#folder, 'settings-before.json');
  }

  async #write(): Promise<void> {
    if (this.#values.size === 0) return rm(this.#file, { force: true });
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await writeFile(`${this.#file}.new`, JSON.stringify(Object.fromEntries(this.#values)), { mode: 0o600 });
    await rename(`${this.#file}.new`, this.#file);
  }
}
