/**
 * A small file system of its own for each host's data directory: an image on a loop device, so that it can be filled,
 * and made to fail. The image of a fragile disk lies on a small tmpfs: once that is full, writes to blocks that the
 * image has not yet taken up fail as those of a dying disk do (EIO, which the file system reports).
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Lab, LabHost } from '../lab.ts';

const run = promisify(execFile);
const imageBytes = 96 * 2 ** 20;
const tmpfsSize = '64m';

/** The disks of a lab's hosts; close() after lab.down(). */
export class HostDisks {
  readonly #folder: string;
  readonly #disks = new Map<LabHost, HostDisk>();

  constructor(lab: Lab) {
    this.#folder = `/var/tmp/${lab.name}-disks`;
  }

  /** Makes the disk of `host` and mounts it there; `fragile` ones can fail. */
  async add(host: LabHost, isFragile: boolean): Promise<HostDisk> {
    const disk = new HostDisk(host, join(this.#folder, host.name), isFragile);
    await disk.create();
    this.#disks.set(host, disk);
    await disk.mount();
    return disk;
  }

  of(host: LabHost): HostDisk {
    return this.#disks.get(host)!;
  }

  /** Lets go of every device and removes the images. The hosts must be off. */
  async close(): Promise<void> {
    for (const disk of this.#disks.values()) await disk.discard();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

export class HostDisk {
  readonly isFragile: boolean;
  readonly #host: LabHost;
  readonly #folder: string;
  #device = '';

  constructor(host: LabHost, folder: string, isFragile: boolean) {
    this.#host = host;
    this.#folder = folder;
    this.isFragile = isFragile;
  }

  get #image(): string {
    return join(this.#folder, 'image');
  }

  async create(): Promise<void> {
    await this.discard();
    mkdirSync(this.#folder, { recursive: true });
    if (this.isFragile) await run('mount', ['-t', 'tmpfs', '-o', `size=${tmpfsSize}`, 'tmpfs', this.#folder]);
    writeFileSync(this.#image, '');
    truncateSync(this.#image, imageBytes);
    await run('mkfs.ext4', ['-q', '-F', this.#image]);
    const { stdout } = await run('losetup', ['-f', '--show', this.#image]);
    this.#device = stdout.trim();
  }

  /** Mounts it in its host, after every boot. */
  async mount(): Promise<void> {
    mkdirSync(this.#host.dataDir, { recursive: true });
    await this.#host.exec('mount', this.#device, this.#host.dataDir);
  }

  async fill(): Promise<void> {
    await this.#host.exec(
      'sh',
      '-c',
      `dd if=/dev/zero of=${this.#host.dataDir}/ballast bs=64k 2>/dev/null; dd if=/dev/zero of=${this.#host.dataDir}/ballast2 bs=1k 2>/dev/null; true`,
    );
  }

  async makeRoom(): Promise<void> {
    await this.#host.exec('rm', '-f', `${this.#host.dataDir}/ballast`, `${this.#host.dataDir}/ballast2`);
  }

  /** From now on, writes to blocks that were never written fail. */
  async fail(): Promise<void> {
    await run('sh', ['-c', `dd if=/dev/zero of=${join(this.#folder, 'ballast')} bs=64k 2>/dev/null; true`]);
  }

  /** The disk works again and its file system is checked. Nothing may run on it. */
  async repair(): Promise<void> {
    rmSync(join(this.#folder, 'ballast'), { force: true });
    await this.#host.exec('umount', this.#host.dataDir);
    // 1 and 2: errors were corrected.
    await run('e2fsck', ['-fy', this.#device]).catch((error: { code?: number }) => {
      if ((error.code ?? 8) > 2) throw error;
    });
    await this.mount();
  }

  async discard(): Promise<void> {
    if (existsSync(this.#image)) {
      const { stdout } = await run('losetup', ['-j', this.#image, '-n', '-O', 'NAME']);
      for (const device of stdout.split('\n').filter(Boolean)) await run('losetup', ['-d', device]);
    }
    await run('umount', [this.#folder]).catch(() => {});
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
