/** No flag of the docker CLI is left out: each has its case in this folder, and our own client takes it, too. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { runProgram } from '../../cli/daemon.ts';
import { findCorpus } from '../../corpus.ts';
import { clusterCases } from './cluster.ts';
import { listingCasesAll } from './listings.ts';
import { membershipCases } from './membership.ts';
import { objectCases } from './objects.ts';
import { serviceCreateCases } from './service-create.ts';
import { serviceUpdateCases } from './service-update.ts';

const cases = [
  ...clusterCases,
  ...membershipCases,
  ...listingCasesAll,
  ...objectCases,
  ...serviceCreateCases,
  ...serviceUpdateCases,
];
const commands = [...new Set(cases.map(({ command }) => command))];
const flagsOf = (command: string) =>
  cases.filter((one) => one.command === command && one.flag !== '').map(({ flag }) => flag);

interface Listed {
  commands: Record<string, { flags: { flag: string }[] }>;
}

describe('conformance: the docker CLI’s flags', () => {
  it('each has its case', function () {
    const path = join(findCorpus(), 'docker-api', 'cli-flags.json');
    if (!existsSync(path)) return this.skip();
    const listed = (JSON.parse(readFileSync(path, 'utf8')) as Listed).commands;
    assert.deepEqual([...commands].sort(), Object.keys(listed).sort());
    for (const [command, { flags }] of Object.entries(listed)) {
      assert.deepEqual(flagsOf(command).sort(), flags.map(({ flag }) => flag).sort(), command);
    }
  });

  for (const command of commands) {
    it(`our own client takes those of ${command}, or refuses them by name`, async () => {
      const words = command.split(' ').slice(1);
      const { stdout } = await runProgram('shoal', [...words, '--help']);
      const missing = flagsOf(command).filter((flag) => !new RegExp(`${flag}(?![\\w-])`).test(stdout));
      for (const flag of missing) {
        const { status, stderr } = await runProgram('shoal', [...words, flag, 'value']);
        assert.notEqual(status, 0, flag);
        assert.match(stderr, new RegExp(`${flag} .*(not supported|Allowed choices)`));
      }
    });
  }
});
