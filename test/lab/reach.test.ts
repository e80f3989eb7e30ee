/**
 * How services are reached, beside by whom (overlay-pairs): over TCP and UDP, IPv4 and IPv6, by published ports of nodes
 * with and without a task, with the client's address, by SRV and PTR records, from plain containers on an encrypted
 * network; what a trace says of it; and connections that are idle for long.
 */
import assert from 'node:assert/strict';
import type { NetworkTrace } from '../../manager/api/network-trace.ts';
import type { Service, Task } from '../../proto/docker.ts';
import { idle } from './asking.ts';
import { clientOf, formCluster, runningTasks } from './cluster.ts';
import {
  type Answered,
  ask,
  enterContainer,
  enterTask,
  exchangePort,
  hold,
  records,
  serve,
} from './exchange.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

const boundMs = 60_000;
const outside = ['exec', 'sw'];
const protocols = ['tcp', 'udp'] as const;
/** What others' connection tracking has been known to forget after 15 minutes (moby#31208). */
const idleSeconds = 1_200;
/** SHOAL_IDLE_MINUTES=20: connections are left alone for so long, in place of a look at what would cut them by then. */
const idleMinutes = Number(process.env.SHOAL_IDLE_MINUTES ?? 0);

function ipv6Of(host: number): string {
  return `fd77::${host}`;
}

describe('lab: services are reached', () => {
  let lab: Lab;
  let first: LabHost;
  /** Has no task of web. */
  let third: LabHost;
  let virtual: { ipv4: string; ipv6: string };

  before(async function () {
    const missing = labMissing();
    if (missing) return this.skip();
    lab = await Lab.up(3, 'shoal-lab-reach');
    [first, third] = [lab.host(1), lab.host(3)];
    await lab.script('exec', 'sw', 'ip', 'address', 'add', `${ipv6Of(100)}/64`, 'dev', 'br0', 'nodad');
    for (const [index, host] of lab.hosts.entries()) {
      await host.exec('ip', 'address', 'add', `${ipv6Of(index + 1)}/64`, 'dev', 'eth0', 'nodad');
    }
    await formCluster(lab, 1);
    // A node whose agent is started anew on a busy machine is not a lost one.
    await first.shoal('swarm', 'update', '--dispatcher-heartbeat', '10s');
    await first.dockerReading('y\n', 'network', 'rm', 'ingress');
    await waitFor('the ingress network to be gone', boundMs, async () => {
      return !(await first.docker('network', 'ls', '--format', '{{.Name}}')).stdout.includes('ingress');
    });
    await first.shoal('network', 'create', '-d', 'overlay', '--ingress', '--ipv6', 'mesh');
    await first.shoal('network', 'create', '-d', 'overlay', '--ipv6', 'front');
    const secret = ['--opt', 'encrypted', '--attachable', '--ipv6', 'secret'];
    await first.shoal('network', 'create', '-d', 'overlay', ...secret);
    const create = (name: string, ...flags: string[]) =>
      first.shoal('service', 'create', '--detach', '--name', name, ...flags, ...idle);
    await create(
      'web',
      ...['--replicas', '2', '--replicas-max-per-node', '1', '--constraint', 'node.hostname!=h3'],
      ...['--network', 'front', '--network', 'secret'],
      ...['--publish', `8000:${exchangePort}`, '--publish', `8000:${exchangePort}/udp`],
    );
    await create('probe', '--mode', 'global', '--network', 'front');
    for (const [name, count] of [
      ['web', 2],
      ['probe', 3],
    ] as const) {
      await waitFor(`${name} to run`, boundMs * 2, async () => {
        return (await runningTasks(first, name)).length === count;
      });
    }
    for (const host of [lab.host(1), lab.host(2)]) {
      await serve(lab, await enterTask(host, 'web'), host.name);
    }
    virtual = await virtualAddresses('web', 'front');
  });

  after(async () => {
    await lab?.down();
  });

  async function virtualAddresses(service: string, network: string) {
    const client = clientOf(first);
    const { Id } = await client.get<{ Id: string }>(`/networks/${network}`);
    const { Endpoint } = await client.get<Service>(`/services/${service}`);
    const all = (Endpoint.VirtualIPs ?? [])
      .filter(({ NetworkID }) => NetworkID === Id)
      .map(({ Addr }) => Addr.replace(/\/\d+$/, ''));
    return {
      ipv4: all.find((address) => !address.includes(':')) ?? '',
      ipv6: all.find((address) => address.includes(':')) ?? '',
    };
  }

  const namesIn = ({ servers }: Answered) => Object.values(servers).flat().sort();
  const published = (to: string, protocol: 'tcp' | 'udp', servers = 2) => ({
    to,
    protocol,
    port: 8000,
    servers,
  });
  const addressesOfHosts = () => lab.hosts.flatMap(({ address }, index) => [address, ipv6Of(index + 1)]);

  it('by a published port of every node, TCP and UDP, IPv4 and IPv6, with a task there or not', async () => {
    const asked = addressesOfHosts().flatMap((to) => protocols.map((protocol) => published(to, protocol)));
    for (const [at, answered] of (await ask(lab, outside, asked)).entries()) {
      assert.deepEqual(namesIn(answered), ['h1', 'h2'], JSON.stringify([asked[at], answered]));
    }
  });

  it('by a published port of the own node, on 127.0.0.1 and by the node’s addresses', async () => {
    for (const [index, host] of lab.hosts.entries()) {
      const asked = ['127.0.0.1', host.address, ipv6Of(index + 1)].flatMap((to) =>
        protocols.map((protocol) => published(to, protocol)),
      );
      for (const [at, answered] of (await ask(lab, ['exec', host.name], asked)).entries()) {
        const what = `${host.name}: ${JSON.stringify([asked[at], answered])}`;
        assert.deepEqual(namesIn(answered), ['h1', 'h2'], what);
      }
      // No way leads out of a host from there: who tries finds that out at once, and takes the other address.
      const [itself] = await ask(lab, ['exec', host.name], [published('::1', 'tcp')]);
      assert.deepEqual(itself?.errors, ['ECONNREFUSED'], host.name);
    }
  });

  it('by the virtual address, TCP and UDP, IPv4 and IPv6, from every node', async () => {
    const asked = [virtual.ipv4, virtual.ipv6].flatMap((to) =>
      protocols.map((protocol) => ({ to, protocol, servers: 2 })),
    );
    assert.ok(asked.every(({ to }) => to !== ''));
    for (const host of lab.hosts) {
      for (const [at, answered] of (await ask(lab, await enterTask(host, 'probe'), asked)).entries()) {
        const what = `${host.name}: ${JSON.stringify([asked[at], answered])}`;
        assert.deepEqual(namesIn(answered), ['h1', 'h2'], what);
      }
    }
  });

  it('by name on their own networks alone: the ingress network has none', async () => {
    const [name] = await ask(lab, await enterTask(lab.host(1), 'web'), [{ to: 'web', servers: 0 }]);
    const own = [virtual, await virtualAddresses('web', 'secret')].map(({ ipv4 }) => ipv4).sort();
    assert.deepEqual(name?.addresses, own);
  });

  it('by SRV and PTR records', async () => {
    const probe = await enterTask(first, 'probe');
    const tasks = await runningTasks(first, 'web');
    const nameOf = (slot: number) => `web.${slot}.${tasks.find(({ Slot }) => Slot === slot)?.ID}`;
    const found = (await records(lab, probe, 'SRV', `_${exchangePort}._tcp.web`)) as {
      name: string;
      port: number;
    }[];
    assert.deepEqual(found.map(({ name, port }) => `${name}:${port}`).sort(), [
      `${nameOf(1)}:${exchangePort}`,
      `${nameOf(2)}:${exchangePort}`,
    ]);
    for (const address of [virtual.ipv4, virtual.ipv6]) {
      assert.deepEqual(await records(lab, probe, 'PTR', address), ['web'], address);
    }
    const asked = ([4, 6] as const).map((family) => ({ to: 'web.1', family, servers: 0 }));
    for (const { addresses } of await ask(lab, probe, asked)) {
      // Of a container of its own the engine answers itself, and adds the network.
      const [own] = (await records(lab, probe, 'PTR', addresses[0] ?? '')) as string[];
      assert.equal(own?.replace(/\.front$/, ''), nameOf(1), addresses.join());
    }
  });

  it('from plain containers on an encrypted network, over IPv4 and IPv6', async () => {
    for (const host of [lab.host(2), third]) {
      await host.docker('run', '-d', '--name', `plain-${host.name}`, '--network', 'secret', ...idle);
      await serve(lab, await enterContainer(host, `plain-${host.name}`), `plain@${host.name}`);
    }
    const enter = await enterContainer(third, 'plain-h3');
    const asked = ([4, 6] as const).flatMap((family) =>
      protocols.flatMap((protocol) => [
        { to: 'web', family, protocol, servers: 2 },
        { to: 'plain-h2', family, protocol },
      ]),
    );
    await waitFor('the container to find all of them', boundMs, async () => {
      const answers = await ask(lab, enter, asked);
      const wrong = answers.flatMap((answered, at) => {
        const expected = asked[at]!.to === 'web' ? 'h1,h2' : 'plain@h2';
        return namesIn(answered).join() === expected ? [] : [[asked[at], answered]];
      });
      if (wrong.length > 0) throw new Error(JSON.stringify(wrong));
      return true;
    });
  });

  async function trace(...words: string[]): Promise<NetworkTrace> {
    const ended = await first
      .shoal('network', 'trace', '--format', 'json', ...words)
      .catch((error: { stdout: string }) => error);
    return JSON.parse(ended.stdout) as NetworkTrace;
  }

  const wordsOf = ({ Steps, Ways }: NetworkTrace) =>
    [...Steps, ...Ways.flatMap((way) => [...way.Steps, ...way.Ends.flatMap((end) => end.Steps)])].map(
      ({ Text }) => Text,
    );

  it('as a trace from outside says', async () => {
    for (const host of lab.hosts) {
      for (const flags of [[], ['--ipv6'], ['/udp']]) {
        const isUdp = flags[0] === '/udp';
        const words = isUdp ? [`${host.name}:8000/udp`] : [...flags, `${host.name}:8000`];
        const traced = await trace(...words);
        const what = `${words.join(' ')}: ${JSON.stringify(traced)}`;
        assert.equal(traced.Outcome, 'reached', what);
        assert.deepEqual(traced.Ways[0]?.Ends.map(({ Node }) => Node).sort(), ['h1', 'h2'], what);
      }
    }
    assert.match(wordsOf(await trace('h1:8001')).join(), /^no service publishes port 8001\/tcp$/);
    await third.whileUndoing('nft delete element inet shoal ports "{ 6 . 8000 }"', async () => {
      await waitFor('the rule to be missed', boundMs, async () => {
        const broken = await trace('h3:8000');
        const last = wordsOf(broken).at(-1) ?? '';
        return broken.Outcome === 'broken' && /^no rule in the kernel sends port 8000\/tcp on$/.test(last);
      });
      await waitFor('a trace that says so, and fails', boundMs, () =>
        first.shoal('network', 'trace', 'h3:8000').then(
          () => false,
          (error: unknown) => /the connection reaches no task/.test(String(error)),
        ),
      );
    });
    await waitFor('the node to heal it', boundMs, async () => (await trace('h3:8000')).Outcome === 'reached');
  });

  for (const [family, client] of [
    ['IPv4', '10.77.0.1'],
    ['IPv6', ipv6Of(100)],
  ] as const) {
    it(`with the client’s address where the task is on the node asked, over ${family}`, async () => {
      const asked = lab.hosts.map(({ address }, index) =>
        published(family === 'IPv4' ? address : ipv6Of(index + 1), 'tcp'),
      );
      const [own, , none] = (await ask(lab, outside, asked)) as [Answered, Answered, Answered];
      assert.ok(own.seenAs.includes(client) && own.seenAs.length === 2, own.seenAs.join());
      assert.ok(!none.seenAs.includes(client) && none.seenAs.length > 0, none.seenAs.join());
    });
  }

  it('with the client’s address alone by shoal.ingress=local, on nodes with a task', async () => {
    await first.shoal('service', 'update', '--detach', '--label-add', 'shoal.ingress=local', 'web');
    const asked = addressesOfHosts().flatMap((to) =>
      protocols.map((protocol) => ({ ...published(to, protocol, 1), host: to })),
    );
    await waitFor('every node to follow', boundMs, async () => {
      const answers = await ask(lab, outside, asked);
      for (const [at, answered] of answers.entries()) {
        const { host } = asked[at]!;
        const own = lab.hosts.findIndex(({ address }, index) => [address, ipv6Of(index + 1)].includes(host));
        const isServed = own < 2;
        const what = JSON.stringify([asked[at], answered]);
        assert.deepEqual(namesIn(answered), isServed ? [`h${own + 1}`] : [], what);
        assert.deepEqual(
          answered.seenAs,
          isServed ? [host.includes(':') ? ipv6Of(100) : '10.77.0.1'] : [],
          what,
        );
      }
      return true;
    });
    assert.match(wordsOf(await trace('h3:8000')).at(-1) ?? '', /no healthy task on this node/);
    await first.shoal('service', 'update', '--detach', '--label-rm', 'shoal.ingress', 'web');
    await waitFor('the third node to answer', boundMs, async () => {
      const [answered] = await ask(lab, outside, [published(third.address, 'tcp')]);
      return namesIn(answered!).join() === 'h1,h2';
    });
  });

  /** Seconds that the host goes on tracking each of the connections, if nothing is heard of it. */
  async function tracked(host: LabHost): Promise<number[]> {
    const established = ['-p', 'tcp', '--state', 'ESTABLISHED'];
    const listings = await Promise.all([
      host.exec('conntrack', '-L', ...established),
      host.exec('conntrack', '-L', '-f', 'ipv6', ...established),
    ]);
    return listings.flatMap(({ stdout }) =>
      stdout
        .split('\n')
        .flatMap((line) => /^tcp +6 (\d+) ESTABLISHED .*? dport=(?:8000|7000) /.exec(line)?.[1] ?? [])
        .map(Number),
    );
  }

  /** What minutes of silence do to a host: it has forgotten where others on its networks are. */
  async function forgetNeighbours(host: LabHost): Promise<void> {
    await host.exec('sh', '-c', 'ip neigh flush all; ip -6 neigh flush all');
    const vxlans = "for v in $(ip -o link show type vxlan | sed -n 's/^[0-9]*: \\([^:]*\\):.*/\\1/p'); do";
    const forget = `bridge fdb show dev $v | grep -v permanent | while read mac rest; do bridge fdb del $mac dev $v master 2>/dev/null; bridge fdb del $mac dev $v self 2>/dev/null; done; done; true`;
    await host.exec('sh', '-c', `${vxlans} ${forget}`);
  }

  it('by few connections for a new version, while an update with a share is under way', async () => {
    const shared = [
      '--label',
      'shoal.rollout.share=10%',
      '--update-parallelism',
      '1',
      '--update-delay',
      '1h',
    ];
    const ofShared = ['--name', 'shared', '--replicas', '2', '--network', 'front', ...shared];
    await first.shoal('service', 'create', '--detach', ...ofShared, '--stop-grace-period', '1s', ...idle);
    await waitFor('shared to run', boundMs, async () => (await runningTasks(first, 'shared')).length === 2);
    const addressesNow = async () => {
      const filters = JSON.stringify({ service: { shared: true }, 'desired-state': { running: true } });
      const tasks = await clientOf(first).get<Task[]>('/tasks', { filters });
      const running = tasks.filter(({ Status }) => Status.State === 'running');
      const all = running.flatMap(({ NetworksAttachments = [] }) => NetworksAttachments);
      return all
        .flatMap(({ Addresses }) => Addresses.map((one) => one.replace(/\/.*/, '')))
        .filter((one) => !one.includes(':'));
    };
    const old = await addressesNow();
    await first.shoal('service', 'update', '--detach', '--env-add', 'VERSION=2', 'shared');
    await waitFor('a tenth for the new version in the rules', boundMs, async () => {
      const now = await addressesNow();
      const [fresh = '', ...more] = now.filter((one) => !old.includes(one));
      const [stays = ''] = now.filter((one) => old.includes(one));
      if (fresh === '' || stays === '' || more.length > 0) return false;
      const map = fresh < stays ? `0 : ${fresh}, 1-9 : ${stays}` : `0-8 : ${stays}, 9 : ${fresh}`;
      const { stdout } = await third.exec('nft', '-nn', 'list', 'table', 'inet', 'shoal');
      if (stdout.includes(`numgen random mod 10 map { ${map} }`)) return true;
      throw new Error(
        `no ${map} in ${stdout
          .split('\n')
          .filter((line) => line.includes('mod 10'))
          .join()}`,
      );
    });
    assert.match(
      wordsOf(await trace('probe.h3', `shared:${exchangePort}`)).join(),
      /2 tasks, to each its share/,
    );
    await first.shoal('service', 'rm', 'shared');
  });

  it(`by connections that are idle for ${idleMinutes || 20} minutes, through a virtual address and a published port`, async function () {
    if (idleMinutes > 0) this.timeout(idleMinutes * 120_000);
    const probe = await enterTask(third, 'probe');
    const held = await Promise.all([
      hold(lab, probe, virtual.ipv4),
      hold(lab, probe, virtual.ipv6),
      hold(lab, outside, third.address, 8000),
      hold(lab, outside, ipv6Of(3), 8000),
      hold(lab, outside, first.address, 8000),
    ]);
    const before = await Promise.all(held.map((one) => one.say()));
    if (idleMinutes > 0) {
      const began = performance.now();
      const idleMs = idleMinutes * 60_000;
      await waitFor('the time to pass', idleMs * 2, () => performance.now() - began >= idleMs);
    } else {
      const left = await Promise.all(lab.hosts.map(tracked));
      assert.ok(left[2]!.length >= 4 && left[0]!.length >= 1, JSON.stringify(left));
      assert.ok(
        left.flat().every((seconds) => seconds > idleSeconds),
        JSON.stringify(left),
      );
      await Promise.all(lab.hosts.map(forgetNeighbours));
    }
    // Rules are looked at and made anew meanwhile, many times.
    const another = ['--name', 'another', '--publish', '8100:8100', ...idle];
    await first.shoal('service', 'create', '--detach', ...another);
    await third.killShoald();
    await third.startShoald();
    await waitFor('the rules of the change', boundMs, async () => {
      return (await trace('h3:8100')).Steps.some(({ Text }) => /publishes port 8100/.test(Text));
    });
    const after = await Promise.all(held.map((one) => one.say().catch((error: Error) => error.message)));
    assert.deepEqual(after, before);
    for (const one of held) one.end();
  });
});
