import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort, runProgram } from './daemon.ts';

const planted = {
  rejection: 'Promise.reject(new Error("planted fault"))',
  exception: '(() => { throw new Error("planted fault") })()',
};

describe('a fault of shoald’s own', function () {
  this.timeout(120_000);
  for (const [kind, code] of Object.entries(planted)) {
    it(`ends it with a message and status 1: an unhandled ${kind}`, async () => {
      const folder = mkdtempSync(join(tmpdir(), 'shoal-fault-'));
      const socket = join(folder, 'socket');
      // Once it is up.
      const isUp = `process.getBuiltinModule('node:fs').existsSync(${JSON.stringify(socket)})`;
      const fault = `const timer = setInterval(() => { if (${isUp}) { clearInterval(timer); ${code} } }, 50)`;
      try {
        const args = ['--data-dir', join(folder, 'data'), '--host', `unix://${socket}`];
        const { status, stderr } = await runProgram(
          'shoald',
          [...args, '--engine', 'simulated', '--metrics-addr', `127.0.0.1:${await freePort()}`],
          { env: { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(fault)}` } },
        );
        assert.equal(status, 1);
        assert.match(stderr, /shoald ends for a fault of its own: planted fault/);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });
  }
});
