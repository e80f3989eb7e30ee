/**
 * A large file sealed and written beside the loop, in a thread of its own: to seal hundreds of megabytes in slices of the
 * loop's time leaves as much memory behind that is to be collected, and everything else waits for that.
 *
 * In: what is to be written, in memory that threads share, and leave to seal one text. Out: the file, whole and durable, or an
 * error and the file from before. The data key stays in this process, in memory.
 */
import {
  closeSync,
  constants,
  fdatasyncSync,
  fsyncSync,
  openSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { crc32 } from 'node:zlib';
import { beginSealing, type SealingPermit } from './seal.ts';

const sealedBytes = 2 ** 20;
/** As much is made durable at a time: the log's own flushes wait for what the disk is busy with. */
const flushedBytes = 2 ** 23;
const checksumBytes = 4;
const ownerOnly = 0o600;
const jobName = 'shoal-sealed-file';
/** It holds little but the texts that it is given. */
const heapMegabytes = 32;

/** magic, the checksum of all that follows, then `plain` as one sealed text. */
export interface SealedFile {
  readonly magic: Uint8Array;
  /** Large ones in shared memory; else they are copied for the thread. */
  readonly plain: readonly Uint8Array[];
  readonly permit: SealingPermit;
}

interface Job {
  readonly name: typeof jobName;
  readonly path: string;
  readonly temporaryPath: string;
  readonly file: SealedFile;
}

/** What the thread says at its end: nothing, or what the file system said. */
interface Outcome {
  readonly failure?: { readonly message: string; readonly code: string | undefined };
}

/** Writes `file` under `temporaryPath` and, once it is durable, renames it to `path`. Rejects with the file system's errors. */
export async function writeSealedBeside(
  path: string,
  temporaryPath: string,
  file: SealedFile,
): Promise<void> {
  const job: Job = { name: jobName, path, temporaryPath, file };
  const thread = new Worker(new URL(import.meta.url), {
    workerData: job,
    resourceLimits: { maxOldGenerationSizeMb: heapMegabytes },
    execArgv: [],
  });
  const { failure } = await outcomeOf(thread);
  if (failure !== undefined) throw Object.assign(new Error(failure.message), { code: failure.code });
}

function outcomeOf(thread: Worker): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    thread.once('message', resolve);
    thread.once('error', reject);
    // After one of the two it says nothing new.
    thread.once('exit', (code) =>
      reject(new Error(`the thread that writes the file ended with code ${code}`)),
    );
  });
}

/** As writeSealedBeside, on the spot. */
function writeSealed({ path, temporaryPath, file }: Job): void {
  try {
    const handle = openSync(temporaryPath, 'w', ownerOnly);
    try {
      writeAll(handle, file);
      fsyncSync(handle);
    } finally {
      closeSync(handle);
    }
    renameSync(temporaryPath, path);
    const folder = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      fsyncSync(folder);
    } finally {
      closeSync(folder);
    }
  } catch (error) {
    rmSync(temporaryPath, { force: true });
    throw error;
  }
}

function writeAll(handle: number, { magic, plain, permit }: SealedFile): void {
  let at = magic.length + checksumBytes;
  let checksum = 0;
  let unflushedBytes = 0;
  const add = (bytes: Uint8Array): void => {
    checksum = crc32(bytes, checksum);
    writeAt(handle, bytes, at);
    at += bytes.length;
    unflushedBytes += bytes.length;
    if (unflushedBytes < flushedBytes) return;
    fdatasyncSync(handle);
    unflushedBytes = 0;
  };
  const sealing = beginSealing(permit);
  add(sealing.head);
  for (const text of plain) {
    for (let from = 0; from < text.length; from += sealedBytes) {
      add(sealing.update(text.subarray(from, from + sealedBytes)));
    }
  }
  add(sealing.final());
  const head = Buffer.alloc(magic.length + checksumBytes);
  head.set(magic);
  head.writeUInt32LE(checksum, magic.length);
  writeAt(handle, head, 0);
}

function writeAt(handle: number, bytes: Uint8Array, position: number): void {
  for (let written = 0; written < bytes.length; ) {
    written += writeSync(handle, bytes, written, bytes.length - written, position + written);
  }
}

function carryOut(job: Job): Outcome {
  try {
    writeSealed(job);
    return {};
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    return { failure: { message, code } };
  }
}

const given = workerData as Partial<Job> | null;
if (!isMainThread && given?.name === jobName) parentPort?.postMessage(carryOut(given as Job));
