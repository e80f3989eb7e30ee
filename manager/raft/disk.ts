/**
 * The disk under the log, for real: one flat folder of files that only their owner can read.
 *
 * In: names and bytes. Out: bytes that survive a power cut once a promise resolved. Appends go through a
 * handle opened with O_DSYNC: one hop into the thread pool for write and flush together. It never
 * interprets what it writes.
 */
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ShoalError } from '../../proto/errors.ts';
import type { AppendFile, Disk } from './contract.ts';

const ownerOnly = 0o600;
const temporarySuffix = '.tmp';
const paddingBytes = 2 ** 20;
const zeros = Buffer.alloc(paddingBytes);

/**
 * Opens `folder`, creating it when it is missing, and clears away half-written replacements of a
 * process that died. Methods throw ShoalError 'disk-full' when there is no room, and Node's own errors
 * otherwise.
 */
export async function openDisk(folder: string): Promise<Disk> {
  await guard(folder, () => mkdir(folder, { recursive: true, mode: 0o700 }));
  for (const name of await readdir(folder)) {
    if (name.endsWith(temporarySuffix)) await rm(join(folder, name), { force: true });
  }
  return {
    async list() {
      const found = await readdir(folder, { withFileTypes: true });
      return found
        .filter((entry) => entry.isFile() && !entry.name.endsWith(temporarySuffix))
        .map((entry) => entry.name)
        .sort();
    },
    read: (name) => readFile(join(folder, name)),
    create: (name) => createFile(folder, name),
    reopen: (name, keepBytes) => reopenFile(folder, name, keepBytes),
    replace: (name, data) => replaceFile(folder, name, data),
    async remove(name) {
      await rm(join(folder, name), { force: true });
    },
  };
}

async function createFile(folder: string, name: string): Promise<AppendFile> {
  const path = join(folder, name);
  const flags = constants.O_CREAT | constants.O_TRUNC | constants.O_WRONLY | constants.O_DSYNC;
  return guard(path, async () => {
    const handle = await open(path, flags, ownerOnly);
    try {
      await flushFolder(folder);
    } catch (error) {
      await handle.close();
      throw error;
    }
    return new PaddedFile(handle, path, 0);
  });
}

async function reopenFile(folder: string, name: string, keepBytes: number): Promise<AppendFile> {
  const path = join(folder, name);
  return guard(path, async () => {
    const handle = await open(path, constants.O_WRONLY | constants.O_DSYNC);
    try {
      await handle.truncate(keepBytes);
      await handle.sync();
    } catch (error) {
      await handle.close();
      throw error;
    }
    return new PaddedFile(handle, path, keepBytes);
  });
}

/**
 * Keeps zeros ahead of the file's end, written while nobody waits: a flush into room that is there already has no
 * change of the file's size to make durable as well, which costs as much again. What follows the end is cut off on
 * close; after a crash it stands there, as zeros.
 */
class PaddedFile implements AppendFile {
  readonly #handle: FileHandle;
  readonly #path: string;
  #endBytes: number;
  #paddedBytes: number;
  #padding: Promise<void> | undefined;
  #canPad = true;

  constructor(handle: FileHandle, path: string, endBytes: number) {
    this.#handle = handle;
    this.#path = path;
    this.#endBytes = endBytes;
    this.#paddedBytes = endBytes;
  }

  async append(data: Uint8Array): Promise<void> {
    // Zeros under way must not come to stand on what is written now.
    if (this.#padding !== undefined && this.#endBytes + data.length > this.#paddedBytes) await this.#padding;
    await guard(this.#path, async () => {
      let written = 0;
      while (written < data.length) {
        const { bytesWritten } = await this.#handle.write(
          data,
          written,
          data.length - written,
          this.#endBytes,
        );
        written += bytesWritten;
        this.#endBytes += bytesWritten;
      }
    });
    if (
      this.#padding === undefined &&
      this.#canPad &&
      this.#endBytes + paddingBytes / 2 > this.#paddedBytes
    ) {
      this.#padding = this.#pad(Math.max(this.#paddedBytes, this.#endBytes));
    }
  }

  async close(): Promise<void> {
    await this.#padding;
    // Only to be tidy.
    await this.#handle.truncate(this.#endBytes).catch(() => {});
    await this.#handle.close();
  }

  async #pad(from: number): Promise<void> {
    this.#paddedBytes = from;
    try {
      await this.#handle.write(zeros, 0, paddingBytes, from);
      this.#paddedBytes = from + paddingBytes;
    } catch {
      // No room for zeros is no harm: the file grows as it is written then.
      this.#canPad = false;
    } finally {
      this.#padding = undefined;
    }
  }
}

async function replaceFile(
  folder: string,
  name: string,
  data: Uint8Array | readonly Uint8Array[],
): Promise<void> {
  const path = join(folder, name);
  const temporaryPath = path + temporarySuffix;
  await guard(path, async () => {
    try {
      const handle = await open(temporaryPath, 'w', ownerOnly);
      try {
        for (const piece of data instanceof Uint8Array ? [data] : data) await handle.writeFile(piece);
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(temporaryPath, path);
      await flushFolder(folder);
    } catch (error) {
      await rm(temporaryPath, { force: true });
      throw error;
    }
  });
}

/** A file's name is durable only once the folder that holds it is. */
async function flushFolder(folder: string): Promise<void> {
  const handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function guard<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'ENOSPC' && code !== 'EDQUOT') throw error;
    const what = code === 'ENOSPC' ? 'no space is left on its file system' : 'the disk quota is used up';
    throw new ShoalError(
      'disk-full',
      `cannot write ${path}: ${what}; free some space there (this manager goes on by itself as soon as there is room)`,
      { cause: error, details: { path } },
    );
  }
}
