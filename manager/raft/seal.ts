/**
 * Sealing of what the log writes (AES-256-GCM under a data key), and the file that keeps the data keys.
 *
 * In: plaintext and where it will stand. Out: sealed bytes, bound to that place. The data keys lie beside
 * the log, in the clear or, with autolock, sealed in turn by an unlock key that no disk of the cluster
 * holds: changing the unlock key rewrites this one small file and not the log. It never prints a key.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto';
import { pack, unpack } from 'msgpackr';
import { ShoalError } from '../../proto/errors.ts';
import { lockedMessage, parseUnlockKey } from '../../proto/identity.ts';
import type { Random } from '../../proto/ports.ts';
import type { Disk } from './contract.ts';

const keyBytes = 32;
const prefixBytes = 8;
const nonceBytes = 12;
const tagBytes = 16;
const counterLimit = 2 ** 32;

/** Where the keys lie, in the log's folder. */
export const keyFileName = 'data-keys';

/** How many bytes a sealed text is longer than the plain one: key number, nonce and tag. */
export const sealOverheadBytes = 1 + nonceBytes + tagBytes;

/**
 * The data keys of this manager, by number (0..255). New records are sealed under `current`. A running sealer
 * goes by changes of it (changeOver).
 */
export interface DataKeys {
  readonly current: number;
  readonly keys: ReadonlyMap<number, Uint8Array>;
}

/** A long text being sealed. */
export interface Sealing {
  readonly head: Uint8Array;
  update(plaintext: Uint8Array): Uint8Array;
  final(): Uint8Array;
}

/** Leave to seal one text, for a thread of this process: the key, and a nonce that nobody else uses. It never reaches a disk. */
export interface SealingPermit {
  readonly keyNumber: number;
  readonly key: Uint8Array;
  readonly nonce: Uint8Array;
  readonly place: string;
}

/** Seals and opens records. One per process and log: its nonces never repeat under one key. */
export interface Sealer {
  /** `place` (file and offset) is authenticated, so that a record moved elsewhere does not open. */
  seal(plaintext: Uint8Array, place: string): Uint8Array;
  /** Seals a long text piece by piece: head, what update() answers and final() together are what seal() would. */
  begin(place: string): Sealing;
  /** For beginSealing() elsewhere. To be used once. */
  permit(place: string): SealingPermit;
  /** Throws an Error when the key is unknown, or the bytes or their place are not those that were sealed. */
  open(sealed: Uint8Array, place: string): Uint8Array;
  /** The same, piece by piece of at most `pieceBytes`: none of them is to be trusted before the last one has come. */
  openInPieces(sealed: Uint8Array, place: string, pieceBytes: number): Iterable<Uint8Array>;
}

/**
 * A sealer under `dataKeys`. Its nonces are 8 random bytes and a counter, written with each record: a
 * record that is cut off and written anew must not use the same nonce twice.
 */
export function createSealer(dataKeys: DataKeys, random: Random): Sealer {
  const nonce = Buffer.alloc(nonceBytes);
  let counter = counterLimit;
  let { current } = dataKeys;
  let key = keyOf(dataKeys, current);
  const nextNonce = (): Uint8Array => {
    if (dataKeys.current !== current) {
      current = dataKeys.current;
      key = keyOf(dataKeys, current);
      counter = counterLimit;
    }
    if (counter >= counterLimit) {
      nonce.set(random.bytes(prefixBytes), 0);
      counter = 0;
    }
    nonce.writeUInt32BE(counter, prefixBytes);
    counter += 1;
    return nonce;
  };
  const permit = (place: string): SealingPermit => {
    const used = Uint8Array.from(nextNonce());
    return { keyNumber: current, key: Uint8Array.from(key), nonce: used, place };
  };
  return {
    seal(plaintext, place) {
      const used = nextNonce();
      return sealWith(key, current, used, plaintext, place);
    },
    begin: (place) => beginSealing(permit(place)),
    permit,
    open: (sealed, place) => openWith(keyOfRecord(dataKeys, sealed), sealed, place),
    openInPieces: (sealed, place, pieceBytes) =>
      openPieces(keyOfRecord(dataKeys, sealed), sealed, place, pieceBytes),
  };
}

/** Begins to seal the text that `permit` was given for. */
export function beginSealing({ keyNumber, key, nonce, place }: SealingPermit): Sealing {
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  cipher.setAAD(Buffer.from(place, 'utf8'));
  return {
    head: Buffer.from([keyNumber, ...nonce]),
    update: (plaintext) => cipher.update(plaintext),
    final() {
      cipher.final();
      return cipher.getAuthTag();
    },
  };
}

function keyOfRecord(dataKeys: DataKeys, sealed: Uint8Array): Uint8Array {
  const number = sealed[0] ?? 0;
  const key = dataKeys.keys.get(number);
  if (key === undefined) throw new Error(`data key ${number} is not in ${keyFileName}`);
  return key;
}

function keyOf(dataKeys: DataKeys, number: number): Uint8Array {
  const key = dataKeys.keys.get(number);
  if (key === undefined) throw new ShoalError('internal', 'the current data key is missing from its ring');
  return key;
}

function sealWith(
  key: Uint8Array,
  keyNumber: number,
  nonce: Uint8Array,
  plaintext: Uint8Array,
  place: string,
): Uint8Array {
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  cipher.setAAD(Buffer.from(place, 'utf8'));
  const sealed = Buffer.allocUnsafe(sealOverheadBytes + plaintext.length);
  sealed[0] = keyNumber;
  sealed.set(nonce, 1);
  sealed.set(cipher.update(plaintext), 1 + nonceBytes);
  cipher.final();
  sealed.set(cipher.getAuthTag(), 1 + nonceBytes + plaintext.length);
  return sealed;
}

function openWith(key: Uint8Array, sealed: Uint8Array, place: string): Uint8Array {
  const [plaintext = new Uint8Array(0)] = [...openPieces(key, sealed, place, Number.POSITIVE_INFINITY)];
  return plaintext;
}

function* openPieces(
  key: Uint8Array,
  sealed: Uint8Array,
  place: string,
  pieceBytes: number,
): Generator<Uint8Array, void> {
  if (sealed.length < sealOverheadBytes) throw new Error('too short to be sealed');
  const end = sealed.length - tagBytes;
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(1, 1 + nonceBytes));
  decipher.setAAD(Buffer.from(place, 'utf8'));
  decipher.setAuthTag(sealed.subarray(end));
  for (let at = 1 + nonceBytes; at < end; at += pieceBytes) {
    yield decipher.update(sealed.subarray(at, Math.min(end, at + pieceBytes)));
  }
  decipher.final();
}

/** What stands in the key file: the ring itself, or the ring sealed under the unlock key. */
interface KeyFile {
  readonly format: 1;
  readonly plain?: KeyRing;
  readonly sealed?: Uint8Array;
}

interface KeyRing {
  readonly current: number;
  readonly keys: readonly { readonly number: number; readonly key: Uint8Array }[];
}

/** Makes the first data key and its file. `unlockKey` given: autolock is on from the start. */
export async function createKeyFile(disk: Disk, random: Random, unlockKey?: string): Promise<DataKeys> {
  const dataKeys: DataKeys = { current: 0, keys: new Map([[0, random.bytes(keyBytes)]]) };
  await sealKeyFile(disk, random, dataKeys, unlockKey);
  return dataKeys;
}

/**
 * Turns autolock on, off (no `unlockKey`) or over to another unlock key. The log stays as it is: only the
 * keys' file is written, atomically. Throws 'invalid-argument' for what is not an unlock key.
 */
export async function sealKeyFile(
  disk: Disk,
  random: Random,
  dataKeys: DataKeys,
  unlockKey?: string,
): Promise<void> {
  const ring: KeyRing = {
    current: dataKeys.current,
    keys: [...dataKeys.keys].map(([number, key]) => ({ number, key: Buffer.from(key) })),
  };
  let file: KeyFile = { format: 1, plain: ring };
  if (unlockKey !== undefined) {
    const key = parseUnlockKey(unlockKey);
    file = { format: 1, sealed: sealWith(key, 0, random.bytes(nonceBytes), pack(ring), keyFileName) };
  }
  await disk.replace(keyFileName, pack(file));
}

/**
 * A ring with a new current key; records under the old ones still open. To be used after autolock was
 * turned on, for the old key once lay on the disk in the clear. Write it with sealKeyFile before use.
 */
export function withNewDataKey(dataKeys: DataKeys, random: Random): DataKeys {
  let number = (dataKeys.current + 1) % 256;
  while (dataKeys.keys.has(number) && number !== dataKeys.current) number = (number + 1) % 256;
  if (number === dataKeys.current)
    throw new ShoalError('failed-precondition', 'all 256 data keys are in use');
  return { current: number, keys: new Map([...dataKeys.keys, [number, random.bytes(keyBytes)]]) };
}

/** Makes whoever holds `dataKeys` go on with `next`, which is on the disk already. */
export function changeOver(dataKeys: DataKeys, next: DataKeys): void {
  Object.assign(dataKeys, next);
}

/** Whether this manager has a key file, and whether an unlock key is needed to open it. */
export async function keyFileState(disk: Disk): Promise<'absent' | 'open' | 'locked'> {
  if (!(await disk.list()).includes(keyFileName)) return 'absent';
  return (await readKeyFile(disk)).plain === undefined ? 'locked' : 'open';
}

/**
 * Reads the data keys. Throws 'locked' in Docker's words when they are sealed and no unlock key, or a wrong
 * one (details.reason 'wrong-key'), is given; 'corrupted' when the file is missing or no key
 * file (keyFileState tells whether there is one).
 */
export async function openKeyFile(disk: Disk, unlockKey?: string): Promise<DataKeys> {
  const file = await readKeyFile(disk);
  let ring = file.plain;
  if (ring === undefined) {
    if (unlockKey === undefined || file.sealed === undefined) throw new ShoalError('locked', lockedMessage);
    try {
      ring = unpack(openWith(parseUnlockKey(unlockKey), file.sealed, keyFileName)) as KeyRing;
    } catch (error) {
      throw new ShoalError('locked', lockedMessage, { cause: error, details: { reason: 'wrong-key' } });
    }
  }
  return { current: ring.current, keys: new Map(ring.keys.map(({ number, key }) => [number, key])) };
}

async function readKeyFile(disk: Disk): Promise<KeyFile> {
  try {
    const file = unpack(await disk.read(keyFileName)) as KeyFile;
    if (file.format === 1 && (file.plain !== undefined || file.sealed !== undefined)) return file;
  } catch (error) {
    throw damagedKeyFile(error);
  }
  throw damagedKeyFile(undefined);
}

function damagedKeyFile(cause: unknown): ShoalError {
  return new ShoalError(
    'corrupted',
    `${keyFileName} is missing or damaged, and without it this manager's log cannot be read: restore it from a backup, or remove the data directory and join this manager anew`,
    { cause },
  );
}
