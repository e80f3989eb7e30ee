/**
 * A node's certificate, key and trusted roots on disk, under SwarmKit's names. Each file is replaced whole; a
 * power cut between two of them leaves a pair that fits, or one that the next read sets right.
 *
 * A new key is first written beside the old one. Once the new certificate is in place it takes the old one's
 * name; a read that finds a certificate that fits only the key beside finishes that step. The key lies in the
 * clear or, with autolock, encrypted under the unlock key (PKCS#8, which `openssl pkey` reads as well).
 */
import { createPrivateKey } from 'node:crypto';
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fitsKey, type IdentityPem, readNodeCertificate } from '../proto/certificate.ts';
import { ShoalError } from '../proto/errors.ts';
import { formatUnlockKey, lockedMessage, parseUnlockKey } from '../proto/identity.ts';

const secretMode = 0o600;
const publicMode = 0o644;
const folderMode = 0o700;

const names = {
  certificate: 'swarm-node.crt',
  key: 'swarm-node.key',
  nextKey: 'swarm-node.key.next',
  roots: 'swarm-root-ca.crt',
} as const;

/** An identity as it lies on the disk. */
export interface StoredIdentity {
  readonly identity: IdentityPem;
  /** The unlock key that its key is sealed under; undefined when that lies in the clear. */
  readonly sealedUnder: string | undefined;
}

interface StoredKey {
  readonly keyPem: string;
  readonly sealedUnder: string | undefined;
}

export class CertificateFiles {
  private readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  /**
   * What is stored; undefined when the node has no certificate yet. Throws `corrupted` when the certificate
   * has no roots or key beside it, and 'locked' (details.nodeId) when the key is sealed under another unlock
   * key than `unlockKey`; details.reason is 'wrong-key' when one was given.
   */
  async read(unlockKey?: string): Promise<StoredIdentity | undefined> {
    const certificatePem = await this.text(names.certificate);
    if (certificatePem === undefined) return undefined;
    const rootsPem = await this.text(names.roots);
    const key = await this.fittingKey(certificatePem, unlockKey);
    if (rootsPem === undefined || key === undefined) {
      const lacking = rootsPem === undefined ? names.roots : `${names.key} that fits ${names.certificate}`;
      throw new ShoalError(
        'corrupted',
        `${this.directory} holds the certificate of a node but no ${lacking}: restore it from a backup, or run \`shoal swarm leave --force\` and join again`,
      );
    }
    return { identity: { certificatePem, keyPem: key.keyPem, rootsPem }, sealedUnder: key.sealedUnder };
  }

  /** Replaces everything. The key's file is readable for its owner alone, and sealed under `unlockKey` if given. */
  async write(identity: IdentityPem, unlockKey?: string): Promise<void> {
    await mkdir(this.directory, { recursive: true, mode: folderMode });
    await this.writeNextKey(identity.keyPem, unlockKey);
    await this.replace(names.roots, identity.rootsPem, publicMode);
    await this.replace(names.certificate, identity.certificatePem, publicMode);
    await this.finishKey();
  }

  /** Replaces the trusted roots alone. */
  async writeRoots(rootsPem: string): Promise<void> {
    await this.replace(names.roots, rootsPem, publicMode);
  }

  /** Removes everything; the certificate first, without which the rest means nothing. */
  async clear(): Promise<void> {
    for (const name of [names.certificate, names.nextKey, names.key, names.roots]) {
      await rm(join(this.directory, name), { force: true });
    }
  }

  /**
   * Writes the present key once more beside itself, sealed under another unlock key or (without one) in the clear.
   * Until `finishKey` both stand there, and a read takes the one that opens with the key it is given.
   */
  async writeNextKey(keyPem: string, unlockKey?: string): Promise<void> {
    await this.replace(
      names.nextKey,
      unlockKey === undefined ? keyPem : sealed(keyPem, unlockKey),
      secretMode,
    );
  }

  private async fittingKey(
    certificatePem: string,
    unlockKey: string | undefined,
  ): Promise<StoredKey | undefined> {
    let isLocked = false;
    for (const name of [names.key, names.nextKey]) {
      const text = await this.text(name);
      if (text === undefined) continue;
      const keyPem = isSealed(text) ? opened(text, unlockKey) : text;
      if (keyPem === undefined) isLocked = true;
      if (keyPem === undefined || !fitsKey(certificatePem, keyPem)) continue;
      if (name === names.nextKey) await this.finishKey();
      return { keyPem, sealedUnder: isSealed(text) ? unlockKey : undefined };
    }
    if (!isLocked) return undefined;
    const { nodeId } = readNodeCertificate(certificatePem);
    const reason = unlockKey === undefined ? {} : { reason: 'wrong-key' };
    throw new ShoalError('locked', lockedMessage, { details: { nodeId, ...reason } });
  }

  /** Gives the key that was written last the name that it is read by. */
  async finishKey(): Promise<void> {
    await rename(join(this.directory, names.nextKey), join(this.directory, names.key));
    await flushFolder(this.directory);
  }

  private async text(name: string): Promise<string | undefined> {
    try {
      return await readFile(join(this.directory, name), 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  }

  private async replace(name: string, text: string, mode: number): Promise<void> {
    const path = join(this.directory, name);
    const temporary = `${path}.tmp`;
    await rm(temporary, { force: true });
    const file = await open(temporary, 'wx', mode);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await flushFolder(this.directory);
  }
}

function isSealed(keyPem: string): boolean {
  return keyPem.includes('-----BEGIN ENCRYPTED PRIVATE KEY-----');
}

/** The key encrypted under the unlock key, which has the strength of a random 256-bit key and needs no stretching. */
function sealed(keyPem: string, unlockKey: string): string {
  return createPrivateKey(keyPem)
    .export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: passphraseOf(unlockKey) })
    .toString();
}

/** The key in the clear; undefined when `unlockKey` does not open it. */
function opened(sealedPem: string, unlockKey: string | undefined): string | undefined {
  if (unlockKey === undefined) return undefined;
  try {
    const key = createPrivateKey({ key: sealedPem, passphrase: passphraseOf(unlockKey) });
    return key.export({ type: 'pkcs8', format: 'pem' }).toString();
  } catch {
    return undefined;
  }
}

/** The unlock key as `swarm unlock-key` prints it. Throws 'invalid-argument' for what is none. */
function passphraseOf(unlockKey: string): string {
  return formatUnlockKey(parseUnlockKey(unlockKey));
}

/** Makes renames in a folder survive a power cut. */
async function flushFolder(directory: string): Promise<void> {
  const folder = await open(directory, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
