/** Plain containers on the cluster's networks: `docker run --network` on any node, by the stock CLI. */
import assert from 'node:assert/strict';
import type { Service } from '../../proto/docker.ts';
import { clientOf, formCluster, runningTasks } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

const boundMs = 60_000;
const idle = ['busybox:lab', 'sleep', '1000000'];

/** A web server that tells `words`. */
function server(words: string): string[] {
  return [
    'busybox:lab',
    'sh',
    '-c',
    `mkdir /www; echo ${words} > /www/index.html; exec httpd -f -p 80 -h /www`,
  ];
}

describe('lab: plain containers on networks of the cluster', () => {
  let lab: Lab;

  before(async function () {
    const missing = labMissing();
    if (missing) return this.skip();
    lab = await Lab.up(2, 'shoal-lab-attach');
    await formCluster(lab, 1);
    const first = lab.host(1);
    await first.shoal('network', 'create', '-d', 'overlay', '--attachable', 'open');
    await first.shoal('network', 'create', '-d', 'overlay', 'closed');
    await first.shoal(
      ...['service', 'create', '--name', 'web', '--network', 'open', '--stop-grace-period', '1s'],
      ...['--constraint', 'node.hostname==h1', ...server('service')],
    );
  });

  after(async () => {
    await lab?.down();
  });

  /** What the web server behind a name says to a container. */
  async function ask(host: LabHost, container: string, name: string): Promise<string> {
    const script = `a=$(nslookup -type=a ${name} | sed -n 's/^Address: //p' | head -1); printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 $a 80 | tail -1`;
    return (await host.docker('exec', container, 'sh', '-c', script)).stdout.trim();
  }

  const addressOf = async (host: LabHost, container: string) => {
    const format = '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}';
    return (await host.docker('inspect', '--format', format, container)).stdout.trim();
  };

  it('reach services and each other by name, on a node where nothing of the network runs, too', async () => {
    const [h1, h2] = [lab.host(1), lab.host(2)];
    await h2.docker(
      'run',
      '-d',
      '--name',
      'plain',
      '--network',
      'open',
      '--network-alias',
      'nick',
      ...server('plain'),
    );
    await h1.docker('run', '-d', '--name', 'other', '--network', 'open', ...idle);
    for (const [host, container, name, words] of [
      [h2, 'plain', 'web', 'service'],
      [h1, 'other', 'web', 'service'],
      [h1, 'other', 'plain', 'plain'],
      [h1, 'other', 'nick', 'plain'],
    ] as const) {
      await waitFor(
        `${container} to reach ${name}`,
        boundMs,
        async () => (await ask(host, container, name)) === words,
      );
    }
  });

  it('have addresses that nobody else has', async () => {
    const [h1, h2] = [lab.host(1), lab.host(2)];
    await h1.shoal('service', 'scale', 'web=4');
    await waitFor('the tasks to run', boundMs, async () => (await runningTasks(h1, 'web')).length === 4);
    const tasks = await clientOf(h1).get<{ NetworksAttachments?: { Addresses: string[] }[] }[]>('/tasks');
    const { Endpoint } = await clientOf(h1).get<Service>('/services/web');
    const addresses = [
      ...tasks.flatMap(({ NetworksAttachments = [] }) =>
        NetworksAttachments.flatMap(({ Addresses }) => Addresses),
      ),
      ...(Endpoint.VirtualIPs ?? []).map(({ Addr }) => Addr),
      await addressOf(h2, 'plain'),
      await addressOf(h1, 'other'),
    ].map((address) => address.replace(/\/\d+$/, ''));
    assert.equal(new Set(addresses).size, addresses.length, addresses.join());
    assert.ok(addresses.length >= 7 && addresses.every((address) => address !== ''), addresses.join());
  });

  it('keep them when they, the agent or the engine are started anew', async () => {
    const host = lab.host(2);
    const before = await addressOf(host, 'plain');
    await host.docker('restart', '-t', '0', 'plain');
    await host.killShoald();
    await host.startShoald();
    await waitFor(
      'the service to be reached',
      boundMs,
      async () => (await ask(host, 'plain', 'web')) === 'service',
    );
    assert.equal(await addressOf(host, 'plain'), before);
  });

  it('are refused where the network is not for them, and an address of their own choice', async () => {
    const [h1, h2] = [lab.host(1), lab.host(2)];
    for (const host of [h1, h2]) {
      await assert.rejects(host.docker('run', '--network', 'closed', ...idle), /not manually attachable/);
      await assert.rejects(
        host.docker('run', '--network', 'none-such', ...idle),
        /network none-such not found/,
      );
      await assert.rejects(
        host.docker('run', '--network', 'open', '--ip', '10.0.1.77', ...idle),
        /gives its addresses itself/,
      );
    }
  });

  it('join by network connect, too', async () => {
    const host = lab.host(2);
    await host.docker('run', '-d', '--name', 'late', ...idle);
    await host.docker('network', 'connect', 'open', 'late');
    const format = '{{.NetworkSettings.Networks.open.IPAddress}}';
    const { stdout } = await host.docker('inspect', '--format', format, 'late');
    await waitFor('its name to be known', boundMs, async () => {
      const answer = await lab.host(1).docker('exec', 'other', 'nslookup', '-type=a', 'late');
      return answer.stdout.includes(stdout.trim());
    });
  });

  it('hold the network until they are gone', async () => {
    const [h1, h2] = [lab.host(1), lab.host(2)];
    await h1.shoal('service', 'rm', 'web');
    await waitFor('the tasks to be gone', boundMs, async () => {
      const tasks = await clientOf(h1).get<unknown[]>('/tasks');
      return tasks.length === 0;
    });
    await assert.rejects(h1.docker('network', 'rm', 'open'), /in use by container/);
    await h2.docker('rm', '-f', 'plain', 'late');
    await h1.docker('rm', '-f', 'other');
    await waitFor('the network to be free', boundMs * 2, async () => {
      return (await h1.docker('network', 'rm', 'open')).stdout.includes('open');
    });
    await waitFor('nothing of it to be left', boundMs, async () => {
      const links = await Promise.all([h1, h2].map((host) => host.exec('ip', '-o', 'link')));
      return links.every(({ stdout }) => !/shoal\d/.test(stdout));
    });
  });
});
