/** Where a daemon keeps what must lie in memory only; known from its data directory, so that it can be cleared away. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Below /run, a folder for each data directory, so that daemons can share a host. */
export function runFolderOf(dataDir: string): string {
  const name = createHash('sha256').update(dataDir).digest('hex').slice(0, 12);
  return process.getuid?.() === 0
    ? `/run/shoal/nodes/${name}`
    : join(tmpdir(), `shoal-${process.getuid?.()}`, name);
}

/** Removes what a daemon that was killed left there, file systems that it mounted too. The daemon must have ended. */
export function clearRunFolder(dataDir: string): void {
  const folder = runFolderOf(dataDir);
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((path) => path.startsWith(`${folder}/`));
  for (const path of mounts.reverse()) execFileSync('umount', ['-l', path], { stdio: 'ignore' });
  rmSync(folder, { recursive: true, force: true });
}
