/** An encrypted network between hosts, with a capture on the switch from before it is made until after its end. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { Network } from '../../proto/docker.ts';
import { clientOf, formCluster, nodesSeenBy, runningTasks } from './cluster.ts';
import { ask, enterContainer, enterTask, serve } from './exchange.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

const hiddenWords = 'HIDDEN-FROM-THE-WIRE';
const openWords = 'SEEN-ON-THE-WIRE';

function serverOf(words: string): string[] {
  const script = `mkdir /www; echo ${words} > /www/index.html; exec httpd -f -p 80 -h /www`;
  return ['busybox:lab', 'sh', '-c', script];
}

describe('lab: an encrypted network', () => {
  let lab: Lab;
  let capture: string;
  let capturePid: string;

  before(async function () {
    const missing = labMissing();
    if (missing) return this.skip();
    lab = await Lab.up(3, 'shoal-lab-secret');
    await formCluster(lab, 1, { flags: ['--data-path-key-rotation', '8s'] });
    const nodes = await nodesSeenBy(lab.host(1));
    const label = 'shoal.dataplane.encryption';
    if (nodes.some((node) => node.Description.Engine.Labels[label] === undefined)) return this.skip();
    capture = `/var/lib/${lab.name}/capture.pcap`;
    const words = `tcpdump -i any -U -Z root -s 0 -w ${capture} udp >/dev/null 2>&1 & echo $!`;
    capturePid = (await lab.script('exec', 'sw', 'sh', '-c', words)).stdout.trim();
    await waitFor('the capture to begin', 20_000, () => readFileSync(capture).length > 0);
    await makeServices(lab.host(1));
  });

  after(async () => {
    await lab?.down();
  });

  async function makeServices(first: LabHost): Promise<void> {
    const secret = ['--opt', 'encrypted', '--attachable', '--ipv6', 'secret'];
    await first.shoal('network', 'create', '-d', 'overlay', ...secret);
    await first.shoal('network', 'create', '-d', 'overlay', 'open');
    const create = (name: string, networks: string[], command: string[]) =>
      first.shoal(
        ...['service', 'create', '--name', name, '--mode', 'global', '--stop-grace-period', '1s'],
        ...networks.flatMap((network) => ['--network', network]),
        ...command,
      );
    await create('hidden', ['secret'], serverOf(hiddenWords));
    await create('plain', ['open'], serverOf(openWords));
    await create('probe', ['secret', 'open'], ['busybox:lab', 'sleep', '1000000']);
    for (const name of ['hidden', 'plain', 'probe']) {
      const all = async () => (await runningTasks(first, name)).length === lab.hosts.length;
      await waitFor(`${name} to run on every host`, 60_000, all);
    }
  }

  /** Asks the service `count` times from its neighbour on `host`; the answers that are not `words`. */
  async function failures(host: LabHost, service: string, words: string, count: number): Promise<string[]> {
    const filter = ['--filter', 'label=com.docker.swarm.service.name=probe'];
    const { stdout: id } = await host.engine('ps', '-q', ...filter);
    const script = `a=$(nslookup -type=a ${service} | sed -n 's/^Address: //p' | head -1)
      for i in $(seq ${count}); do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 8 $a 80 | tail -1 || echo failed; done`;
    const { stdout } = await host.engine('exec', id.split('\n')[0]!, 'sh', '-c', script);
    const answers = stdout.split('\n').slice(0, -1);
    return [...answers, ...Array<string>(Math.max(0, count - answers.length)).fill('nothing')].filter(
      (answer) => answer !== words,
    );
  }

  async function keysOf(host: LabHost): Promise<string[]> {
    const { stdout } = await host.exec('wg', 'show', 'all', 'public-key');
    return stdout.split('\n').filter(Boolean);
  }

  /** Packets of the capture that match. */
  async function captured(expression: string): Promise<number> {
    const { stdout } = await lab.script('exec', 'sw', 'tcpdump', '-n', '-r', capture, expression);
    return stdout.split('\n').filter(Boolean).length;
  }

  it('carries what an open one does', async () => {
    for (const host of lab.hosts) {
      // A task runs a moment before its server listens.
      await waitFor('all servers to listen', 30_000, async () => {
        const [hidden, plain] = [
          await failures(host, 'hidden', hiddenWords, 3),
          await failures(host, 'plain', openWords, 3),
        ];
        return hidden.length + plain.length === 0;
      });
      assert.deepEqual(await failures(host, 'hidden', hiddenWords, 9), [], host.name);
      assert.deepEqual(await failures(host, 'plain', openWords, 9), [], host.name);
    }
  });

  /** Both families and protocols, from and to tasks and plain containers, with the hidden words in every answer. */
  async function exchanges(from: LabHost): Promise<string[]> {
    const asked = ([4, 6] as const).flatMap((family) =>
      (['tcp', 'udp'] as const).flatMap((protocol) => [
        { to: 'tasks.hidden', family, protocol },
        { to: 'plain-h3', family, protocol },
      ]),
    );
    const answers = await ask(lab, await enterTask(from, 'probe'), asked);
    return answers.flatMap(({ servers, errors, addresses }, at) => {
      const names = Object.values(servers).flat();
      const isWhole =
        addresses.length === (asked[at]!.to === 'plain-h3' ? 1 : lab.hosts.length) &&
        names.length === addresses.length &&
        names.every((name) => name.startsWith(hiddenWords));
      return isWhole ? [] : [JSON.stringify([asked[at], servers, errors])];
    });
  }

  async function whole(from: LabHost): Promise<void> {
    await waitFor(`the network to be whole from ${from.name}`, 60_000, async () => {
      const missing = await exchanges(from);
      if (missing.length > 0) throw new Error(missing.join());
      return true;
    });
  }

  it('carries TCP and UDP, IPv4 and IPv6, of tasks and of plain containers', async () => {
    for (const host of lab.hosts) {
      await serve(lab, await enterTask(host, 'hidden'), `${hiddenWords}-${host.name}`);
    }
    const third = lab.host(3);
    await third.docker(
      'run',
      '-d',
      '--name',
      'plain-h3',
      '--network',
      'secret',
      'busybox:lab',
      'sleep',
      '1000000',
    );
    await serve(lab, await enterContainer(third, 'plain-h3'), `${hiddenWords}-plain`);
    for (const host of lab.hosts) await whole(host);
  });

  it('loses nothing while keys become new ones', async () => {
    const before = await Promise.all(lab.hosts.map(keysOf));
    await waitFor('new keys on every host', 60_000, async () => {
      const lost = await Promise.all(lab.hosts.map((host) => failures(host, 'hidden', hiddenWords, 30)));
      assert.deepEqual(lost.flat(), []);
      const now = await Promise.all(lab.hosts.map(keysOf));
      return now.every((keys, index) => !keys.some((key) => before[index]!.includes(key)));
    });
  });

  it('survives a new start of the agent, with the keys that stand in the kernel', async () => {
    const host = lab.host(2);
    await host.killShoald('SIGKILL');
    // Not long, for with keys this short-lived an agent that is away misses those of the others.
    await host.startShoald({ flags: ['--data-path-key-rotation', '8s'] });
    await waitFor('the network to be whole', 60_000, async () => {
      return (await failures(lab.host(1), 'hidden', hiddenWords, 6)).length === 0;
    });
  });

  it('has no way at all while what encrypts is gone, and heals', async () => {
    const host = lab.host(2);
    for (const name of ['shwg0', 'shwg1']) await host.exec('ip', 'link', 'delete', name).catch(() => {});
    await waitFor('the network to heal', 60_000, async () => {
      return (await failures(host, 'hidden', hiddenWords, 6)).length === 0;
    });
  });

  it('has no way while what encrypts is killed and all rules are flushed, and heals', async () => {
    const host = lab.host(1);
    // Nothing of ours holds anything back any more: what there is no tunnel for must have no way by itself.
    await host.exec('nft', 'flush', 'ruleset');
    await host.exec('sh', '-c', 'for n in shwg0 shwg1; do ip link set $n down 2>/dev/null; done; true');
    await host.exec('sh', '-c', 'kill -9 $(pidof wireguard-go) 2>/dev/null; true');
    await exchanges(lab.host(2));
    await exchanges(host);
    await whole(lab.host(2));
  });

  it('survives the death of the engine, and of the host’s agent in the middle of a rotation', async () => {
    const host = lab.host(2);
    await lab.script('crash', host.name);
    const asked = exchanges(lab.host(1));
    await host.killShoald('SIGKILL');
    await lab.script('start', host.name);
    await host.startShoald({ flags: ['--data-path-key-rotation', '8s'] });
    await asked;
    await waitFor('the network to carry again', 90_000, async () => {
      return (await failures(lab.host(1), 'hidden', hiddenWords, 6)).length === 0;
    });
  });

  it('is never seen in the clear on the wire', async () => {
    await lab.script('exec', 'sw', 'kill', capturePid);
    const vxlanId = async (name: string) => {
      const network = await clientOf(lab.host(1)).get<{ Options?: Record<string, string> } & Network>(
        `/networks/${name}`,
      );
      return Number(network.Options?.['com.docker.network.driver.overlay.vxlanid_list']);
    };
    const inClear = async (name: string) =>
      captured(`udp port 4789 and udp[12:4] = ${(await vxlanId(name)) * 256}`);
    assert.ok((await vxlanId('secret')) > 0);
    assert.equal(await inClear('secret'), 0);
    assert.ok((await inClear('open')) > 0, 'the capture sees an open network');
    assert.ok((await captured('udp portrange 51840-51841')) > 0, 'the capture sees the encrypted packets');
    const bytes = readFileSync(capture, 'latin1');
    assert.ok(bytes.includes(openWords));
    assert.ok(!bytes.includes(hiddenWords));
  });

  it('leaves nothing on a host that leaves', async () => {
    const leaving = lab.host(3);
    await leaving.shoal('swarm', 'leave');
    const { stdout } = await leaving.exec('ip', '-o', 'link');
    assert.ok(!/shwg|vx\d/.test(stdout), stdout);
  });
});
