/** Where the collection of Docker's own files is, beside the repository; tests are skipped where there is none. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The collection's folder, which may not exist. */
export function findCorpus(): string {
  if (process.env.SHOAL_CORPUS) return process.env.SHOAL_CORPUS;
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json')) && folder !== '/') folder = dirname(folder);
  return join(folder, '..', 'shared', 'corpus');
}
