import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { Kernel } from '../../../agent/network/kernel.ts';
import { probeEncryption } from '../../../agent/network/keyring.ts';
import { probeDataPlane } from '../../../agent/network/probe.ts';
import { waitFor } from '../../lab/lab.ts';

describe('what a host can do for networks', function () {
  this.timeout(60_000);
  let host: ChildProcess;
  let kernel: Kernel;

  before(async function () {
    if (process.getuid?.() !== 0) return this.skip();
    host = spawn('unshare', ['--net', 'sh', '-c', 'echo ready; read -r _'], {
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    await once(host.stdout!, 'data');
    kernel = new Kernel({ prefix: ['nsenter', `--net=/proc/${host.pid}/ns/net`] });
  });

  after(async () => {
    if (host === undefined) return;
    host.stdin?.end();
    await once(host, 'exit');
  });

  /** Another process of this machine may be at it; it is for a moment only. */
  const possible = async () => {
    const probe = await waitFor('the turn', 30_000, async () => {
      const one = await probeDataPlane(kernel);
      return one.kind === 'impossible' && /another shoald/.test(one.reason) ? undefined : one;
    });
    if (probe.kind === 'possible') probe.lock.close();
    return probe;
  };
  const links = async () => kernel.run('ip', ['-o', 'link']);

  it('is found by a trial that leaves nothing', async () => {
    const before = await links();
    assert.equal((await possible()).kind, 'possible');
    await probeEncryption(kernel);
    assert.equal(await links(), before);
  });

  it('is found, too, after one that was killed in the middle of its trial', async () => {
    const before = await links();
    const encryption = await probeEncryption(kernel);
    await kernel.ip(['link add shoal-trial type vxlan id 1 dstport 4789', 'link add shwgtrial type bridge']);
    assert.deepEqual(await possible().then(({ kind }) => kind), 'possible');
    assert.deepEqual(await probeEncryption(kernel), encryption);
    assert.equal(await links(), before);
  });
});
