/** What is seen of networks between hosts: what a node can't do, who holds what, how a connection would go. */
import assert from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';
import type { NetworkDifference, NetworkEndpoints } from '../../manager/api/network-sight.ts';
import type { NetworkTrace } from '../../manager/api/network-trace.ts';
import type { ServiceWhy } from '../../manager/api/why.ts';
import type { NodeProblem } from '../../proto/docker.ts';
import { clientOf, formCluster, runningTasks, tasksOf } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

const server = [
  'busybox:lab',
  'sh',
  '-c',
  'mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www',
];
/** Longer than a node looks at everything anew. */
const boundMs = 45_000;
const flushed = 'nft flush chain inet shoal pre';

describe('lab: networks are seen through', () => {
  let lab: Lab;

  before(async function () {
    const missing = labMissing();
    if (missing) return this.skip();
    lab = await Lab.up(3, 'shoal-lab-sight');
    await formCluster(lab, 3);
    await lab.host(1).shoal('network', 'create', '-d', 'overlay', 'front');
  });

  after(async () => {
    await lab?.down();
  });

  async function problemsOf(name: string): Promise<readonly (NodeProblem & { Service?: string })[]> {
    const node = await clientOf(lab.host(1)).get<{ Problems?: NodeProblem[] }>(`/nodes/${name}`);
    return node.Problems ?? [];
  }

  it('a port that something else holds is named on its node and on tasks there, until it is free', async () => {
    const [first, second] = [lab.host(1), lab.host(2)];
    const hold = 'busybox nc -ll -p 8080 -e true >/dev/null 2>&1 & echo $!';
    const pid = (await second.exec('sh', '-c', hold)).stdout.trim();
    await first.shoal(
      ...['service', 'create', '--name', 'web', '--mode', 'global', '--network', 'front'],
      ...['--publish', '8080:80', '--stop-grace-period', '1s', ...server],
    );
    const held = /port 8080\/tcp is held by another program/;
    await waitFor('the problem', boundMs, async () => (await problemsOf('h2')).length > 0);
    const [problem] = await problemsOf('h2');
    assert.equal(problem?.Service, 'web');
    assert.match(problem?.Message ?? '', held);
    assert.deepEqual(await problemsOf('h1'), []);
    const { stdout: pretty } = await first.shoal('node', 'inspect', '--pretty', 'h2');
    assert.match(pretty, /Problems:\n {2}- service web: port 8080\/tcp is held/);
    await waitFor('the stock client to show it', boundMs, async () => {
      const { stdout } = await first.docker(
        'service',
        'ps',
        '--no-trunc',
        '--format',
        '{{.Node}} {{.Error}}',
        'web',
      );
      const lines = stdout.trim().split('\n');
      return (
        lines.some((line) => line.startsWith('h2') && held.test(line)) &&
        lines.filter((line) => held.test(line)).length === 1
      );
    });
    assert.match((await first.docker('node', 'inspect', 'h2')).stdout, held);
    const why = await clientOf(first).get<ServiceWhy>('/services/web/why');
    assert.ok(
      why.Reasons.some((reason) => /^on node h2, port 8080\/tcp/.test(reason)),
      why.Reasons.join(),
    );
    await second.exec('kill', pid);
    await waitFor('the problem to be gone', boundMs, async () => (await problemsOf('h2')).length === 0);
    assert.deepEqual(
      (await tasksOf(first, 'web')).flatMap(({ Status }) => Status.Err ?? []),
      [],
    );
    await waitFor('the port to answer', boundMs, async () => {
      const { stdout } = await second.exec('curl', '-s', '-m', '3', `http://${second.address}:8080/`);
      return stdout.trim() !== '';
    });
    assert.equal((await runningTasks(first, 'web')).length, 3);
  });

  it('a network tells who is reached on it, and which nodes hold it', async () => {
    const first = lab.host(1);
    // Not the leader: it asks that one.
    const seen = async () => {
      const { stdout } = await lab.host(2).shoal('network', 'inspect', 'front');
      const [network] = JSON.parse(stdout) as [{ Name: string } & NetworkEndpoints];
      return network;
    };
    const names = lab.hosts.map(({ name }) => name);
    await waitFor('every node to hold every endpoint', boundMs, async () => {
      const { Nodes, Endpoints } = await seen();
      const isHeld = Endpoints.every(
        ({ Programmed, Missing }) => Programmed.length === 3 && Missing.length === 0,
      );
      return isHeld && Endpoints.length === 3 && Nodes.every(({ State }) => State === 'current');
    });
    const network = await seen();
    assert.equal(network.Name, 'front');
    assert.deepEqual(network.Endpoints.map(({ Node }) => Node).sort(), names);
    const { stdout: lines } = await first.shoal(
      ...[
        'network',
        'inspect',
        '--format',
        '{{range .Endpoints}}{{.Node}} {{join .Programmed ","}};{{end}}',
        'front',
      ],
    );
    assert.ok(
      names.every((name) => lines.includes(`${name} h1,h2,h3;`)),
      lines,
    );
    const { stdout: pretty } = await first.shoal('network', 'inspect', '--pretty', 'ingress');
    assert.match(pretty, /web +10\.\d+\.\d+\.\d+ +8080->80\/tcp +\d+ +all 3 nodes/);
    // A host that is cut off holds what it held, and nothing new.
    await lab.host(3).killShoald('SIGKILL');
    await first.shoal('service', 'update', '--detach', '--label-add', 'shoal.ingress=local', 'web');
    await waitFor('the node to be named', boundMs, async () => {
      const { Nodes, Endpoints } = await seen();
      const [third] = Nodes.filter(({ Name }) => Name === 'h3');
      return third?.State === 'down' && Endpoints.every(({ Programmed }) => Programmed.join() === 'h1,h2');
    });
    await lab.host(3).startShoald();
    await waitFor('it to hold everything again', boundMs, async () =>
      (await seen()).Nodes.every(({ State }) => State === 'current'),
    );
  });

  it('what a node’s kernel lacks is told, and nothing is done', async () => {
    const [first, second] = [lab.host(1), lab.host(2)];
    const diff = async (name: string) => (await lab.host(3).shoal('network', 'diff', name)).stdout.trim();
    await waitFor('nothing to be left to do on every node', boundMs, async () => {
      const all = await Promise.all(lab.hosts.map(({ name }) => diff(name)));
      return all.every((text, index) =>
        text.startsWith(`${lab.hosts[index]?.name}: the kernel holds what it was told`),
      );
    });
    await second.whileUndoing(flushed, async () => {
      const lacks = (lines: readonly string[]) =>
        lines.length === 3 && lines.every((line) => line.startsWith('nft add rule inet shoal pre '));
      await waitFor('what it lacks', boundMs, async () => lacks((await diff('h2')).split('\n')));
      assert.ok((await diff('h1')).startsWith('h1: the kernel holds'));
      await waitFor('the same as JSON', boundMs, async () => {
        const { stdout } = await first.shoal('network', 'diff', '--format', 'json', 'h2');
        return lacks((JSON.parse(stdout) as NetworkDifference).Operations);
      });
    });
    await waitFor('the node to heal it', boundMs, async () =>
      (await diff('h2')).startsWith('h2: the kernel holds'),
    );
  });

  it('a connection is followed to each of its ends, or to where it breaks', async () => {
    const [first, second] = [lab.host(1), lab.host(2)];
    const isolated = ['service', 'create', '--name', 'hidden', '--network', 'back', ...server];
    await first.shoal('network', 'create', '-d', 'overlay', 'back');
    await first.shoal(...isolated);
    await first.shoal(
      ...['service', 'create', '--name', 'client', '--mode', 'global', '--network', 'front'],
      ...['--stop-grace-period', '1s', 'busybox:lab', 'sleep', '1000000'],
    );
    const trace = async (to: string) => {
      const json = await lab
        .host(3)
        .shoal('network', 'trace', '--format', 'json', 'client.h2', to)
        .catch((error) => error);
      return JSON.parse((json as { stdout: string }).stdout) as NetworkTrace;
    };
    const breaksOf = ({ Steps, Ways }: NetworkTrace) =>
      [...Steps, ...Ways.flatMap((way) => [...way.Steps, ...way.Ends.flatMap((end) => end.Steps)])]
        .filter(({ Breaks }) => Breaks)
        .map(({ Node, Text }) => `${Node}: ${Text}`);
    /** Whether the client's own connections to web are answered, as often as there are tasks. */
    const connects = async () => {
      const { stdout: id } = await second.engine(
        'ps',
        '-q',
        '--filter',
        'label=com.docker.swarm.service.name=client',
      );
      const script = `a=$(nslookup -type=a web | sed -n 's/^Address: //p' | head -1)
        for i in 1 2 3 4 5 6; do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 $a 80 | grep -q 200 && echo yes || echo no; done`;
      const { stdout } = await second.engine('exec', id.trim(), 'sh', '-c', script);
      return stdout.trim().split('\n');
    };
    const whole = await waitFor('the way to all three tasks', boundMs, async () => {
      const answer = await trace('web:80');
      return answer.Outcome === 'reached' && answer;
    });
    assert.deepEqual(
      whole.Ways[0]?.Ends.map(({ Node }) => Node).sort(),
      lab.hosts.map(({ name }) => name),
    );
    assert.deepEqual(await connects(), Array(6).fill('yes'));
    assert.equal(
      breaksOf(await trace('web:81')).filter((text) =>
        /no program of the task listens on port 81\/tcp; it listens on 80\/tcp/.test(text),
      ).length,
      3,
    );
    assert.match(JSON.stringify(await trace('web:8080')), /port 8080 is published on the nodes/);
    assert.match(JSON.stringify(await trace('hidden:80')), /service hidden is on back, the task on front/);
    // One of the three is behind an interface that goes.
    const { stdout: links } = await second.exec(
      'sh',
      '-c',
      "ip -o link | sed -n 's/.*: \\(vx[0-9]*\\):.*/\\1/p'",
    );
    const { stdout: front } = await first.shoal(
      'network',
      'inspect',
      '--format',
      '{{json .Options}}',
      'front',
    );
    const vxlan = `vx${/vxlanid_list":"(\d+)/.exec(front)?.[1]}`;
    assert.ok(links.split('\n').includes(vxlan), links);
    await second.whileUndoing(`ip link delete ${vxlan}`, async () => {
      const gone = Array(2).fill(`h2: the interface ${vxlan} to other hosts is not there`);
      await waitFor('two ways to break', boundMs, async () => {
        const { Outcome, ...seen } = await trace('web:80');
        return Outcome === 'partly' && isDeepStrictEqual(breaksOf({ Outcome, ...seen }), gone);
      });
      await waitFor('connections to go as the trace says', boundMs, async () => {
        return (await connects()).filter((one) => one === 'yes').length === 2;
      });
    });
    await second.whileUndoing(flushed, async () => {
      const lacking = /^h2: the rules for virtual addresses do not stand in the kernel/;
      await waitFor('the rules to be missed', boundMs, async () =>
        lacking.test(breaksOf(await trace('web:80')).join()),
      );
      await waitFor('a trace that says so, and fails', boundMs, () =>
        first.shoal('network', 'trace', 'client.h2', 'web:80').then(
          () => false,
          (error: unknown) => /the connection reaches no task/.test(String(error)),
        ),
      );
    });
    await waitFor('the node to heal it', boundMs, async () => (await trace('web:80')).Outcome === 'reached');
    assert.deepEqual(await connects(), Array(6).fill('yes'));
  });

  it('what nodes hold, send on and drop is measured', async () => {
    const [first, second] = [lab.host(1), lab.host(2)];
    /** Values by name with labels. */
    const scrape = async (host: LabHost) => {
      const { stdout } = await host.exec('curl', '-s', 'http://127.0.0.1:9323/metrics');
      const lines = stdout.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
      return new Map(lines.map((line) => line.split(/ (?=\S+$)/) as [string, string]));
    };
    const value = async (name: string, host = second) => Number((await scrape(host)).get(name));
    const rises = async (name: string, by: number, what: () => Promise<unknown>) => {
      const before = await value(name);
      await what();
      assert.equal((await value(name)) - before, by, name);
    };
    await waitFor(
      'the node to hold all there is',
      boundMs,
      async () => (await value('shoal_network_reconcile_lag_seconds')) === 0,
    );
    const own = await scrape(second);
    // Three tasks of web and three of client; that of hidden where it shares the network.
    assert.match(own.get('shoal_network_endpoints') ?? '', /^[67]$/);
    assert.match(own.get('shoal_network_networks') ?? '', /^[23]$/);
    assert.equal(own.get('shoal_network_problems'), '0');
    assert.ok(Number(own.get('shoal_network_programming_seconds_count')) > 0);
    assert.ok(Number(own.get('shoal_network_conntrack_entries_limit')) > 0);
    const convergences = await Promise.all(
      lab.hosts.map((host) => value('shoal_network_convergence_seconds_count', host)),
    );
    assert.ok(
      convergences.some((count) => count > 0),
      convergences.join(),
    );
    await rises('shoal_network_connections_total{to="published_port"}', 5, async () => {
      for (let count = 0; count < 5; count += 1) {
        await lab.script('exec', 'sw', 'curl', '-s', '-m', '5', `http://${second.address}:8080/`);
      }
    });
    const { stdout: id } = await second.engine(
      'ps',
      '-q',
      '--filter',
      'label=com.docker.swarm.service.name=client',
    );
    const ask = `a=$(nslookup -type=a web | sed -n 's/^Address: //p' | head -1)
      for i in 1 2 3; do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 $a 80 >/dev/null; done`;
    await rises('shoal_network_connections_total{to="virtual_address"}', 3, () =>
      second.engine('exec', id.trim(), 'sh', '-c', ask),
    );
    // The switch is no peer of anybody.
    await rises('shoal_network_drops_total{reason="stranger"}', 4, () =>
      lab.script(
        'exec',
        'sw',
        'bash',
        '-c',
        `for i in 1 2 3 4; do echo x > /dev/udp/${second.address}/4789; done`,
      ),
    );
    const before = await value('shoal_network_drops_total{reason="refused"}');
    await first.shoal('service', 'scale', '--detach', 'hidden=0');
    await first.shoal('service', 'update', '--publish-add', '8090:80', '--detach', 'hidden');
    await waitFor('a published port without a task to refuse', boundMs, async () => {
      await lab
        .script('exec', 'sw', 'curl', '-s', '-m', '1', `http://${second.address}:8090/`)
        .catch(() => {});
      return (await value('shoal_network_drops_total{reason="refused"}')) > before;
    });
  });

  it('a node without networks between hosts says so, and has no other problems', async () => {
    const [first, third] = [lab.host(1), lab.host(3)];
    await third.killShoald('SIGTERM');
    await third.startShoald({ flags: ['--data-plane', 'off'] });
    await waitFor('the node to say so', boundMs, async () => {
      const { stdout } = await first.shoal('node', 'inspect', '--pretty', 'h3');
      return /Data plane:\s+none: shoald runs with --data-plane off\n Problems:\s+none/.test(stdout);
    });
    await assert.rejects(
      first.shoal('network', 'diff', 'h3'),
      /node h3 can't be asked: it has no networks between hosts: shoald runs with --data-plane off/,
    );
  });
});
