/**
 * A node's certificate, key and trusted roots on disk, under SwarmKit's names. Each file is replaced whole; a
 * power cut between two of them leaves a pair that fits, or one that the next read sets right.
 *
 * A new key is first written beside the old one. Once the new certificate is in place it takes the old one's
 * name; a read that finds a certificate that fits only the key beside finishes that step.
 */
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fitsKey, type IdentityPem } from '../proto/certificate.ts';
import { ShoalError } from '../proto/errors.ts';

const secretMode = 0o600;
const publicMode = 0o644;
const folderMode = 0o700;

const names = {
  certificate: 'swarm-node.crt',
  key: 'swarm-node.key',
  nextKey: 'swarm-node.key.next',
  roots: 'swarm-root-ca.crt',
} as const;

export class CertificateFiles {
  private readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  /**
   * What is stored; undefined when the node has no certificate yet. Throws `corrupted` when the certificate
   * has no roots or key beside it.
   */
  async read(): Promise<IdentityPem | undefined> {
    const certificatePem = await this.text(names.certificate);
    if (certificatePem === undefined) return undefined;
    const rootsPem = await this.text(names.roots);
    const keyPem = await this.fittingKey(certificatePem);
    if (rootsPem === undefined || keyPem === undefined) {
      const lacking = rootsPem === undefined ? names.roots : `${names.key} that fits ${names.certificate}`;
      throw new ShoalError(
        'corrupted',
        `${this.directory} holds the certificate of a node but no ${lacking}: restore it from a backup, or run \`shoal swarm leave --force\` and join again`,
      );
    }
    return { certificatePem, keyPem, rootsPem };
  }

  /** Replaces everything. The key's file is readable for its owner alone. */
  async write(identity: IdentityPem): Promise<void> {
    await mkdir(this.directory, { recursive: true, mode: folderMode });
    await this.replace(names.nextKey, identity.keyPem, secretMode);
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

  private async fittingKey(certificatePem: string): Promise<string | undefined> {
    const key = await this.text(names.key);
    if (key !== undefined && fitsKey(certificatePem, key)) return key;
    const next = await this.text(names.nextKey);
    if (next === undefined || !fitsKey(certificatePem, next)) return undefined;
    await this.finishKey();
    return next;
  }

  private async finishKey(): Promise<void> {
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

/** Makes renames in a folder survive a power cut. */
async function flushFolder(directory: string): Promise<void> {
  const folder = await open(directory, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
