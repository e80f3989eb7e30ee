/**
 * `npm run scenarios -- FILE…`: runs text scenarios of the consensus core, those of etcd's raft as they are (log
 * lines apart) or our own, and prints a line for each. Exit code 0 when all pass, 1 when one does not, 2 when there is
 * nothing to run. `--rewrite` writes what comes out into our own scenarios instead of comparing.
 */
import { statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { commandLine } from './command-line.ts';
import { runScenarioFile, withoutLogLines } from './conformance/raft/scenario-file.ts';

// This file runs from dist/test.
const ownFolder = resolve(dirname(fileURLToPath(import.meta.url)), '../../test/scenarios/raft');

const usage =
  'usage: npm run scenarios -- [--rewrite] FILE…   (--rewrite: only files of test/scenarios/raft)';

function run(named: string, rewrite: boolean): boolean {
  // npm runs its scripts in the project's folder, wherever it was called.
  const file = resolve(process.env.INIT_CWD ?? '.', named);
  try {
    if (!statSync(file).isFile()) throw new Error('not a file');
    if (rewrite && dirname(resolve(file)) !== ownFolder) {
      throw new Error(`not one of our own scenarios, in ${ownFolder}; only those are rewritten`);
    }
    const count = runScenarioFile(file, rewrite ? { rewrite } : { normalise: withoutLogLines });
    console.log(`${rewrite ? 'rewritten' : 'ok'} ${file} (${count} directives)`);
    return true;
  } catch (error) {
    const words = error instanceof Error ? error.message : String(error);
    console.log(`FAILED ${file}: ${words.replaceAll('\n', '\n    ')}`);
    return false;
  }
}

function main(): number {
  const { values, positionals } = commandLine(usage, {
    allowPositionals: true,
    options: { rewrite: { type: 'boolean', default: false } },
  });
  if (positionals.length === 0) {
    console.error(usage);
    return 2;
  }
  const passed = positionals.filter((file) => run(file, values.rewrite)).length;
  console.log(`${passed} of ${positionals.length} files passed`);
  return passed === positionals.length ? 0 : 1;
}

try {
  process.exitCode = main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
