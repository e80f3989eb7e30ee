/** The demo, whole, with simulated containers: every act comes to its end and nothing is left. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const program = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'deploy', 'demo.js');

describe('demo', function () {
  this.timeout(240_000);

  it('--simulate plays every act and takes everything down', () => {
    const folder = mkdtempSync(join(tmpdir(), 'shoal-demo-'));
    rmSync(folder, { recursive: true });
    const { status, stdout, stderr } = spawnSync(process.execPath, [program, '--simulate'], {
      encoding: 'utf8',
      env: { ...process.env, SHOAL_DEMO_FOLDER: folder },
    });
    assert.equal(status, 0, `${stdout}\n${stderr}`);
    for (const act of [
      /join with the tokens/,
      /tasks running/,
      /10 of 10 running/,
      /leads/,
      /not one container was touched/,
      /elsewhere/,
      /all ten replaced/,
      /take all of it down/,
    ]) {
      assert.match(stdout, act);
    }
    assert.equal(existsSync(folder), false);
  });
});
