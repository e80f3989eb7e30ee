import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Kernel } from '../../../agent/network/kernel.ts';
import { remnantDetail } from '../../../agent/network/plan.ts';
import { Remnants, wordsOfRefusal } from '../../../agent/network/remnants.ts';
import { realClock } from '../../../cli/runtime.ts';
import { ShoalError } from '../../../proto/errors.ts';
import { type Clock, silentLog } from '../../../proto/ports.ts';

const held = 'shoal4097';
const tryAgainMs = 30_000;

describe('an engine that remembers the bridge of a network it has not got', () => {
  let host: ChildProcess;
  let kernel: Kernel;
  let folder: string;

  before(async function () {
    if (process.getuid?.() !== 0) return this.skip();
    host = spawn('unshare', ['--net', 'sh', '-c', 'echo ready; read -r _'], {
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    await once(host.stdout!, 'data');
    kernel = new Kernel({ prefix: ['nsenter', `--net=/proc/${host.pid}/ns/net`] });
  });

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'shoal-remnants-'));
  });

  afterEach(async () => {
    await kernel.run('ip', ['link', 'delete', held]).catch(() => {});
    await rm(folder, { recursive: true, force: true });
  });

  after(async () => {
    if (host === undefined) return;
    host.stdin?.end();
    await once(host, 'exit');
  });

  const kindOf = async () =>
    /vxlan|bridge|veth/.exec(await kernel.run('ip', ['-details', 'link', 'show', held]).catch(() => ''))?.[0];
  const remembered = new ShoalError('conflict', 'networks have same bridge name', {
    details: { [remnantDetail]: held },
  });
  const inTheWay = new ShoalError('invalid-argument', `existing interface ${held} is not a bridge`);

  const remembering = ({ clock }: { clock: Clock }) =>
    new Remnants({ kernel, clock, log: silentLog, folder });

  it('is noted, and told of to whoever makes the node leave, also by a later life', async () => {
    await remembering({ clock: realClock }).mend(remembered);
    const later = remembering({ clock: realClock });
    await later.load();
    const [told = '', ...others] = await later.leave();
    assert.match(
      told,
      new RegExp(`makes its bridge ${held} again each time it starts.*ip link delete ${held}`),
    );
    assert.deepEqual(others, []);
    const afterwards = remembering({ clock: realClock });
    await afterwards.load();
    assert.deepEqual(await afterwards.leave(), []);
    assert.deepEqual(await readdir(folder), []);
  });

  it('is kept from taking it up at its next start, and asked again after a while', async () => {
    let elapsedMs = 0;
    const clock = { ...realClock, monotonicMs: () => elapsedMs };
    const remnants = remembering({ clock });
    await kernel.ip([`link add ${held} type bridge`]);
    assert.equal(await remnants.mend(remembered), false);
    assert.equal(await kindOf(), 'vxlan');
    assert.equal(await remnants.mend(inTheWay), false);
    elapsedMs += tryAgainMs;
    assert.equal(await remnants.mend(inTheWay), true);
    assert.equal(await kindOf(), undefined);
    // The engine has not been started anew: it refuses again. An agent that was does not know since when.
    assert.equal(await remnants.mend(remembered), false);
    assert.equal(await remembering({ clock }).mend(inTheWay), true);
    assert.equal(await kindOf(), undefined);
  });

  it('leaves a stranger’s interface of that name alone', async () => {
    await kernel.ip([`link add ${held} type veth peer name other`]);
    const remnants = remembering({ clock: realClock });
    assert.equal(await remnants.mend(inTheWay), false);
    assert.equal(await kindOf(), 'veth');
  });

  it('is told of with what to do', () => {
    for (const refusal of [remembered, inTheWay]) {
      assert.match(
        wordsOfRefusal('front', refusal),
        /^network front: the engine was killed.*start the engine anew/,
      );
    }
    assert.equal(wordsOfRefusal('front', new Error('no')), 'network front: no');
  });
});
