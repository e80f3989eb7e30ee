/**
 * Only one daemon may use a data directory. The lock is a name in the kernel's list of abstract sockets, made
 * of the directory's own identity: it is taken or refused in one step, leaves no file, and is gone with the
 * process that holds it, however that ends.
 */
import { statSync } from 'node:fs';
import { createServer } from 'node:net';
import { messageOf, ShoalError } from '../proto/errors.ts';

/** Takes the lock of `folder` until the process ends. Throws 'conflict' when another process has it. */
export function lockFolder(folder: string): Promise<void> {
  if (process.platform !== 'linux') return Promise.resolve();
  const { dev, ino } = statSync(folder, { bigint: true });
  const server = createServer((socket) => socket.destroy());
  // The lock alone is no reason for the process to go on.
  server.unref();
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const reason =
        error.code === 'EADDRINUSE'
          ? 'is in use by another shoald; end that one, or give this one a folder of its own'
          : `can't be locked: ${messageOf(error)}`;
      reject(new ShoalError('conflict', `--data-dir ${folder} ${reason}`, { cause: error }));
    });
    server.listen(`\0shoal-data-dir-${dev}-${ino}`, resolve);
  });
}
