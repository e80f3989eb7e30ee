/** The demo, whole, with simulated containers: every act comes to its end and nothing is left. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const program = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'deploy', 'demo.js');

/** A node is down after 3.25 heartbeats of a second; the new leader gives it as long from its own election on. */
const silentNodeSeconds = 3;

describe('demo', function () {
  this.timeout(240_000);

  it('--simulate plays every act and takes everything down', () => {
    const folder = mkdtempSync(join(tmpdir(), 'shoal-demo-'));
    rmSync(folder, { recursive: true });
    const { status, stdout, stderr } = spawnSync(process.execPath, [program, '--simulate'], {
      encoding: 'utf8',
      // Where CI is set, programs take colours for wanted.
      env: { ...process.env, SHOAL_DEMO_FOLDER: folder, NO_COLOR: '1' },
    });
    assert.equal(status, 0, `${stdout}\n${stderr}`);
    for (const act of [
      /join with the tokens/,
      /tasks running/,
      /10 of 10 running/,
      /leads/,
      /elsewhere/,
      /all ten replaced/,
      /take all of it down/,
    ]) {
      assert.match(stdout, act);
    }
    const back = /^✔ start manager-\d again: (.*) ([\d.]+) s$/m.exec(stdout);
    assert.ok(back, stdout);
    // A machine so busy that the daemon's start outlasts the deadline of a silent node may see tasks moved, no other may.
    if (Number(back[2]) < silentNodeSeconds) assert.equal(back[1], 'not one container was touched');
    assert.equal(existsSync(folder), false);
  });
});
