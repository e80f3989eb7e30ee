/**
 * Backups: the whole cluster in one sealed file, its CA's key and its secrets included.
 *
 * In: the store's bytes as of one index, and a key. Out: the file, in pieces; the file's content again, or in words
 * why not. Nothing of the cluster's state ever stands in it in the clear but the cluster's id and the time. It
 * touches no disk and no store.
 *
 * The file: magic, length and JSON of the head, the content (gzip, AES-256-GCM under a key that scrypt makes of the
 * user's), the tag. The head is authenticated. The content: length and JSON of the facts, then the store's bytes.
 */
import { createCipheriv, createDecipheriv, createHmac, scrypt, timingSafeEqual } from 'node:crypto';
import { PassThrough } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { createGzip, gunzip } from 'node:zlib';
import { isShoalError, messageOf, ShoalError } from '../../proto/errors.ts';
import type { Random } from '../../proto/ports.ts';

const magic = Buffer.from('SHOALBK1', 'latin1');
const saltBytes = 16;
const nonceBytes = 12;
const tagBytes = 16;
const keyBytes = 32;
const lengthBytes = 4;
const pieceBytes = 256 * 1024;
const newKeyBytes = 32;
const backupKeyPrefix = 'SHOALBACKUP-1-';
/** 32 MiB and about a tenth of a second. */
const cost = { N: 2 ** 15, r: 8, p: 1 };
const costMemoryBytes = 64 * 1024 * 1024;

/** Which key opens a backup: the cluster's unlock key as it was then, or one that was given or made for it. */
export type SealedUnder = 'unlock-key' | 'backup-key';

/** What stands at the head of the file, for everyone to read. */
export interface BackupHead {
  readonly format: 1;
  readonly clusterId: string;
  /** RFC 3339. */
  readonly createdAt: string;
  /** Of the program that wrote it. */
  readonly version: string;
  readonly sealedUnder: SealedUnder;
}

/** What a restored cluster goes on from. */
export interface BackupFacts {
  /** Of the last entry that is in it. */
  readonly index: number;
  readonly term: number;
  /** The manager that made it. */
  readonly nodeId: string;
  readonly members: readonly { readonly raftId: number; readonly nodeId: string; readonly address: string }[];
}

export interface Backup {
  readonly head: BackupHead;
  readonly facts: BackupFacts;
  /** See Store.snapshot. */
  readonly state: Uint8Array;
}

/** A backup to be: its state may come in pieces, made as they are taken; see Store.snapshotPieces. */
export type BackupToSeal = Omit<Backup, 'state'> & { readonly state: Uint8Array | Iterable<Uint8Array> };

/** The head as it is written, with what is needed to get from the user's key to the content's. */
interface WrittenHead extends BackupHead {
  readonly salt: string;
  readonly nonce: string;
  /** By which a wrong key is told from a damaged file. */
  readonly keyCheck: string;
}

/** A key for one backup, as a person keeps it. */
export function newBackupKey(random: Random): string {
  return `${backupKeyPrefix}${Buffer.from(random.bytes(newKeyBytes)).toString('base64url')}`;
}

/** The file of `backup`, piece by piece. */
export async function* sealBackup(
  backup: BackupToSeal,
  key: string,
  random: Random,
): AsyncGenerator<Uint8Array> {
  const salt = Buffer.from(random.bytes(saltBytes));
  const nonce = Buffer.from(random.bytes(nonceBytes));
  const sealKey = await derive(key, salt);
  const written: WrittenHead = {
    ...backup.head,
    salt: salt.toString('base64'),
    nonce: nonce.toString('base64'),
    keyCheck: checkOf(sealKey).toString('base64'),
  };
  const head = Buffer.concat([magic, withLength(Buffer.from(JSON.stringify(written)))]);
  yield head;
  const cipher = createCipheriv('aes-256-gcm', sealKey, nonce);
  cipher.setAAD(head);
  const sealed = new PassThrough();
  const done = pipeline(contentOf(backup), createGzip(), cipher, sealed);
  done.catch(() => undefined); // told by the stream
  for await (const piece of sealed) yield piece as Uint8Array;
  await done;
  yield cipher.getAuthTag();
}

function* contentOf({ facts, state }: BackupToSeal): Generator<Uint8Array> {
  yield withLength(Buffer.from(JSON.stringify(facts)));
  if (!(state instanceof Uint8Array)) {
    yield* state;
    return;
  }
  for (let at = 0; at < state.length; at += pieceBytes) yield state.subarray(at, at + pieceBytes);
}

/** What a backup says of itself without its key. Throws 'invalid-argument' when it is none, 'not-supported'. */
export function readBackupHead(file: Uint8Array): BackupHead {
  const { written } = takeApart(file);
  const { format, clusterId, createdAt, version, sealedUnder } = written;
  return { format, clusterId, createdAt, version, sealedUnder };
}

/**
 * The content of a backup. Throws 'permission-denied' for a wrong key, 'corrupted' when the file is not what was
 * written, and what readBackupHead throws.
 */
export async function openBackup(file: Uint8Array, key: string): Promise<Backup> {
  const { bytes, written, headEnd } = takeApart(file);
  const sealKey = await derive(key, Buffer.from(written.salt, 'base64'));
  const expected = Buffer.from(written.keyCheck, 'base64');
  const check = checkOf(sealKey);
  if (expected.length !== check.length || !timingSafeEqual(expected, check)) {
    throw new ShoalError(
      'permission-denied',
      `this key does not open the backup: ${whichKey(written)}. If it is that key, the file was damaged at its head`,
    );
  }
  try {
    const decipher = createDecipheriv('aes-256-gcm', sealKey, Buffer.from(written.nonce, 'base64'));
    decipher.setAAD(bytes.subarray(0, headEnd));
    decipher.setAuthTag(bytes.subarray(bytes.length - tagBytes));
    const packed = decipher.update(bytes.subarray(headEnd, bytes.length - tagBytes));
    decipher.final();
    const content = await promisify<Buffer, Buffer>(gunzip)(packed);
    const factsEnd = lengthBytes + content.readUInt32BE(0);
    const facts = JSON.parse(content.toString('utf8', lengthBytes, factsEnd)) as BackupFacts;
    return { head: readBackupHead(file), facts, state: content.subarray(factsEnd) };
  } catch (cause) {
    throw new ShoalError(
      'corrupted',
      `the backup is damaged (${bytes.length} bytes, ${messageOf(cause)}): some of it was changed or cut off after it was written; take another one`,
      { cause },
    );
  }
}

/** Which key it is that opens a backup, for whoever is asked for it. */
export function whichKey({ sealedUnder, createdAt }: BackupHead): string {
  return sealedUnder === 'unlock-key'
    ? `it is sealed under the unlock key that the cluster had on ${createdAt} (SWMKEY-1-…)`
    : `it is sealed under the key that was given or printed when it was made on ${createdAt}`;
}

function takeApart(file: Uint8Array): { bytes: Buffer; written: WrittenHead; headEnd: number } {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.length);
  if (!bytes.subarray(0, magic.length).equals(magic)) {
    throw new ShoalError('invalid-argument', 'this is not a backup of a Shoal cluster (shoal backup create)');
  }
  const start = magic.length + lengthBytes;
  const headEnd = bytes.length < start ? start : start + bytes.readUInt32BE(magic.length);
  try {
    if (bytes.length < headEnd + tagBytes) throw new Error('its end is missing');
    return { bytes, written: readHead(bytes.toString('utf8', start, headEnd)), headEnd };
  } catch (cause) {
    if (isShoalError(cause)) throw cause;
    throw new ShoalError(
      'corrupted',
      `the backup is damaged at its head: ${messageOf(cause)}; take another one`,
      { cause },
    );
  }
}

/** Anything may stand here when bytes were changed: it is authenticated only once the key is known. */
function readHead(text: string): WrittenHead {
  const read: unknown = JSON.parse(text);
  if (typeof read !== 'object' || read === null) throw new Error('it is no object');
  const head = read as Readonly<Record<string, unknown>>;
  const textOf = (name: keyof WrittenHead): string => {
    const value = head[name];
    if (typeof value === 'string') return value;
    throw new Error(`"${name}" is missing`);
  };
  const version = textOf('version');
  const { format } = head;
  if (typeof format !== 'number') throw new Error('"format" is missing');
  if (format !== 1) {
    throw new ShoalError(
      'not-supported',
      `the backup has format ${format}, and this version reads format 1: use the version that wrote it (${version})`,
    );
  }
  const sealedUnder = textOf('sealedUnder');
  if (sealedUnder !== 'unlock-key' && sealedUnder !== 'backup-key') {
    throw new Error('"sealedUnder" names no key');
  }
  return {
    format,
    clusterId: textOf('clusterId'),
    createdAt: textOf('createdAt'),
    version,
    sealedUnder,
    salt: textOf('salt'),
    nonce: textOf('nonce'),
    keyCheck: textOf('keyCheck'),
  };
}

function derive(key: string, salt: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    scrypt(key.trim(), salt, keyBytes, { ...cost, maxmem: costMemoryBytes }, (error, derived) => {
      if (error) reject(error);
      else resolve(derived);
    });
  });
}

function checkOf(sealKey: Buffer): Buffer {
  return createHmac('sha256', sealKey).update('shoal backup key').digest().subarray(0, 8);
}

function withLength(data: Buffer): Buffer {
  const length = Buffer.allocUnsafe(lengthBytes);
  length.writeUInt32BE(data.length, 0);
  return Buffer.concat([length, data]);
}
