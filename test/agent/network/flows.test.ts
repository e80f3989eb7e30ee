import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { forgetFlows } from '../../../agent/network/flows.ts';
import { Kernel } from '../../../agent/network/kernel.ts';
import { realClock } from '../../../cli/runtime.ts';
import type { Clock } from '../../../proto/ports.ts';

describe('connections to an address that takes no more', () => {
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

  const conntrack = (words: string) => kernel.run('sh', ['-c', `conntrack ${words} 2>/dev/null || true`]);
  /** One from a client's port to a virtual address, which was sent on to `task`. */
  const tuple = (port: number, task: string) =>
    `-p tcp -s 10.0.0.9 -d 10.0.0.2 --sport ${port} --dport 80 -r ${task} -q 10.0.0.9 --reply-port-src 80 --reply-port-dst ${port}`;
  const begun = (port: number, task: string) =>
    conntrack(`-I ${tuple(port, task)} --timeout 100 --state SYN_SENT`);
  const ports = async () =>
    [...(await conntrack('-L')).matchAll(/dst=10\.0\.0\.2 sport=(\d+)/g)]
      .map(([, port]) => Number(port))
      .sort();

  it('are forgotten when nobody answered them, but for those that are answered just now, and others’', async () => {
    await begun(1001, '10.0.0.11');
    await begun(1002, '10.0.0.11');
    await begun(1003, '10.0.0.12');
    assert.deepEqual(await ports(), [1001, 1002, 1003]);
    const clock: Clock = {
      ...realClock,
      after: (waitMs, action) =>
        realClock.after(waitMs, () => {
          void conntrack(`-U ${tuple(1001, '10.0.0.11')} --state ESTABLISHED`).then(action);
        }),
    };
    await forgetFlows(kernel, clock, ['10.0.0.11']);
    assert.deepEqual(await ports(), [1001, 1003]);
  });

  it('are forgotten at once where they are of UDP, over IPv4 and IPv6, however the address is written', async () => {
    const flow = (from: string, to: string, task: string) =>
      conntrack(
        `-I -p udp -s ${from} -d ${to} --sport 2001 --dport 53 -r ${task} -q ${from} --reply-port-src 53 --reply-port-dst 2001 --timeout 100`,
      );
    await flow('10.0.0.9', '10.0.0.2', '10.0.0.11');
    await flow('10.0.0.8', '10.0.0.2', '10.0.0.12');
    await flow('fd00::9', 'fd00::2', 'fd00::11');
    await forgetFlows(kernel, realClock, ['10.0.0.11', 'fd00:0::11']);
    const left = `${await conntrack('-L -p udp')}${await conntrack('-L -f ipv6 -p udp')}`;
    assert.deepEqual(
      [...left.matchAll(/ src=(\S+) dst=\S+ sport=2001/g)].map(([, from]) => from),
      ['10.0.0.8'],
    );
  });

  it('are waited for only where there are any', async () => {
    const clock: Clock = { ...realClock, after: () => assert.fail('nothing is to be waited for') };
    await forgetFlows(kernel, clock, ['10.0.0.13', 'fd00::1']);
    await forgetFlows(kernel, clock, []);
  });
});
