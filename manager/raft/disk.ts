/**
 * The disk under the log, for real: one flat folder of files that only their owner can read.
 *
 * In: names and bytes. Out: bytes that survive a power cut once a promise resolved. Appends go through a
 * handle opened with O_DSYNC: write and flush are one call, on the spot while the disk is quick (flush-pace.ts),
 * in the thread pool otherwise. It never interprets what it writes.
 */
import { constants, writeSync } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ShoalError } from '../../proto/errors.ts';
import type { Clock } from '../../proto/ports.ts';
import type { AppendFile, Disk } from './contract.ts';
import { FlushPace } from './flush-pace.ts';
import { writeSealedBeside } from './sealed-file.ts';

const ownerOnly = 0o600;
const temporarySuffix = '.tmp';
const paddingBytes = 2 ** 20;
/** What is larger takes its time on any disk. */
const largestOnTheSpotBytes = 256 * 1024;
const zeros = Buffer.alloc(paddingBytes);

/**
 * Opens `folder`, creating it when it is missing, and clears away half-written replacements of a
 * process that died. `clock` measures how quick the disk is. Methods throw ShoalError 'disk-full' when there is no
 * room, and Node's own errors otherwise.
 */
export async function openDisk(folder: string, clock: Clock): Promise<Disk> {
  const means: Means = { clock, pace: new FlushPace() };
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
    create: (name) => createFile(folder, name, means),
    reopen: (name, keepBytes) => reopenFile(folder, name, keepBytes, means),
    replace: (name, data) => replaceFile(folder, name, data),
    replaceSealed(name, file) {
      const path = join(folder, name);
      return guard(path, () => writeSealedBeside(path, path + temporarySuffix, file));
    },
    async remove(name) {
      await rm(join(folder, name), { force: true });
    },
  };
}

/** What the files of one disk share. */
interface Means {
  readonly clock: Clock;
  readonly pace: FlushPace;
}

async function createFile(folder: string, name: string, means: Means): Promise<AppendFile> {
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
    return new PaddedFile(handle, path, 0, means);
  });
}

async function reopenFile(
  folder: string,
  name: string,
  keepBytes: number,
  means: Means,
): Promise<AppendFile> {
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
    return new PaddedFile(handle, path, keepBytes, means);
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
  readonly #means: Means;
  #endBytes: number;
  #paddedBytes: number;
  #padding: Promise<void> | undefined;
  #canPad = true;

  constructor(handle: FileHandle, path: string, endBytes: number, means: Means) {
    this.#handle = handle;
    this.#path = path;
    this.#means = means;
    this.#endBytes = endBytes;
    this.#paddedBytes = endBytes;
  }

  append(data: Uint8Array): Promise<void> | undefined {
    // Where the file grows, and while zeros are written, a flush waits for the file system's journal, too.
    const isQuick =
      this.#means.pace.isQuick &&
      this.#padding === undefined &&
      this.#endBytes + data.length <= this.#paddedBytes &&
      data.length <= largestOnTheSpotBytes;
    return isQuick ? this.#appendHere(data) : this.#appendInPool(data);
  }

  #appendHere(data: Uint8Array): Promise<void> | undefined {
    const { clock, pace } = this.#means;
    const beganMs = clock.monotonicMs();
    try {
      for (let written = 0; written < data.length; ) {
        const bytes = writeSync(this.#handle.fd, data, written, data.length - written, this.#endBytes);
        written += bytes;
        this.#endBytes += bytes;
      }
    } catch (error) {
      return Promise.reject(named(this.#path, error));
    }
    pace.flushedHere(clock.monotonicMs() - beganMs);
    this.#padAhead();
    return undefined;
  }

  async #appendInPool(data: Uint8Array): Promise<void> {
    // Zeros under way must not come to stand on what is written now.
    if (this.#padding !== undefined && this.#endBytes + data.length > this.#paddedBytes) await this.#padding;
    const { clock, pace } = this.#means;
    const beganMs = clock.monotonicMs();
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
    pace.flushedInPool(clock.monotonicMs() - beganMs);
    this.#padAhead();
  }

  #padAhead(): void {
    if (this.#padding !== undefined || !this.#canPad) return;
    if (this.#endBytes + paddingBytes / 2 <= this.#paddedBytes) return;
    this.#padding = this.#pad(Math.max(this.#paddedBytes, this.#endBytes));
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
    throw named(path, error);
  }
}

/** A full disk in words; any other error as it is. */
function named(path: string, error: unknown): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return error;
  const what = code === 'ENOSPC' ? 'no space is left on its file system' : 'the disk quota is used up';
  return new ShoalError(
    'disk-full',
    `cannot write ${path}: ${what}; free some space there (this manager goes on by itself as soon as there is room)`,
    { cause: error, details: { path } },
  );
}
