/**
 * shoal-names, the program of the process that answers the names of a node's networks; shoald starts it, and it
 * goes on while shoald is away. In: `--socket PATH --version VERSION`. Out: see agent/network/name-server.ts.
 */
import { parseArgs } from 'node:util';
import { NameServer } from '../agent/network/name-server.ts';
import { realClock } from './runtime.ts';

const { values } = parseArgs({ options: { socket: { type: 'string' }, version: { type: 'string' } } });
const { socket: path, version } = values;
if (path === undefined || version === undefined) {
  process.stderr.write('shoal-names: shoald starts it, with --socket PATH --version VERSION\n');
  process.exit(2);
}
await new NameServer({ path, version, clock: realClock, onEnd: () => process.exit(0) }).start();
