/** The version of this package, as nodes and clients tell it. */
import { createRequire } from 'node:module';

/** The version in package.json, which is the same from the source tree and from dist/. */
export function packageVersion(): string {
  const require = createRequire(import.meta.url);
  for (const path of ['../package.json', '../../package.json']) {
    try {
      return (require(path) as { version: string }).version;
    } catch {
      // not there: this file is one folder deeper when it is compiled
    }
  }
  return 'unknown';
}
