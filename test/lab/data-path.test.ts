/**
 * Hosts that are unlike the others: with an address of its own for the traffic between containers, without br_netfilter. And
 * a service whose tasks are told the client's address by a header (shoal.ingress=proxy-protocol), asked on a host without one.
 */
import assert from 'node:assert/strict';
import type { Service } from '../../proto/docker.ts';
import { create, waitForRunning } from './asking.ts';
import { clientOf, isReady, nodesSeenBy, runningTasks } from './cluster.ts';
import { startLoad } from './http-load.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';
import { toldBy, toldClient } from './told-client.ts';

const boundMs = 60_000;
const hostCount = 2;
const perSecond = 10;
/** The address that vxlan packets are to come from; the other one is the host's for all else. */
function dataPathOf(host: LabHost): string {
  return host.address.replace('10.77.', '10.78.');
}

describe('lab: a data path of its own, and no br_netfilter', () => {
  let lab: Lab;
  let address: string;

  before(async function () {
    const missing = labMissing();
    if (missing) return this.skip();
    lab = await Lab.up(hostCount, 'shoal-lab-path');
    for (const host of lab.hosts) {
      await host.exec('ip', 'address', 'add', `${dataPathOf(host)}/24`, 'dev', 'eth0');
      // As a kernel without the module has it: nothing is filtered on bridges, and there is nothing to set.
      const lacking =
        'echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables; mount -t tmpfs none /proc/sys/net/bridge';
      await host.exec('sh', '-c', lacking);
    }
    await Promise.all(lab.hosts.map((host) => host.startShoald()));
    const [first, ...others] = lab.hosts as [LabHost, ...LabHost[]];
    const addresses = (host: LabHost) => [
      '--advertise-addr',
      host.address,
      '--data-path-addr',
      dataPathOf(host),
    ];
    await first.shoal('swarm', 'init', ...addresses(first));
    const { stdout: token } = await first.shoal('swarm', 'join-token', '-q', 'worker');
    for (const host of others) {
      await host.shoal('swarm', 'join', ...addresses(host), '--token', token.trim(), `${first.address}:2377`);
    }
    await waitFor('both nodes', boundMs, async () => {
      const nodes = await nodesSeenBy(first);
      return nodes.length === hostCount && nodes.every(isReady);
    });
    await first.shoal('network', 'create', '-d', 'overlay', 'front');
    const command = [
      'busybox:lab',
      'sh',
      '-c',
      'mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www',
    ];
    await first.shoal(
      ...[
        'service',
        'create',
        '--name',
        'web',
        '--mode',
        'global',
        '--network',
        'front',
        '--publish',
        '8080:80',
      ],
      ...['--stop-grace-period', '1s', '--hostname', '{{.Node.Hostname}}', ...command],
    );
    await waitFor('its tasks', boundMs, async () => (await runningTasks(first, 'web')).length === hostCount);
    const { Endpoint } = await clientOf(first).get<Service>('/services/web');
    address = Endpoint.VirtualIPs?.at(-1)?.Addr.replace(/\/.*/, '') ?? '';
  });

  after(async () => {
    await lab?.down();
  });

  async function ask(host: LabHost, from: string): Promise<string> {
    const filter = ['--filter', 'label=com.docker.swarm.service.name=web'];
    const { stdout: id } = await host.engine('ps', '-q', ...filter);
    const script = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 ${from} 80 | tail -1`;
    return (await host.engine('exec', id.split('\n')[0]!, 'sh', '-c', script)).stdout.trim();
  }

  it('sends vxlan packets by the address for them, to those of the others, and takes them from there', async () => {
    for (const host of lab.hosts) {
      const { stdout: links } = await host.exec('ip', '-d', 'link', 'show', 'type', 'vxlan');
      assert.ok(links.includes(`local ${dataPathOf(host)} `), links);
      const { stdout: entries } = await host.exec('bridge', 'fdb');
      const others = lab.hosts.filter((other) => other !== host);
      for (const other of others)
        assert.ok(entries.includes(`dst ${dataPathOf(other)} self permanent`), entries);
      assert.ok(!/dst 10\.77\./.test(entries), entries);
      const { stdout: guard } = await host.exec('nft', 'list', 'set', 'inet', 'shoal', 'peers4');
      for (const other of others) assert.ok(guard.includes(dataPathOf(other)), guard);
    }
  });

  it('names on the node what is missing', async () => {
    for (const { Description } of await nodesSeenBy(lab.host(1))) {
      assert.match(
        Description.Engine.Labels['shoal.dataplane.limits'] ?? '',
        /^the kernel lacks br_netfilter/,
      );
      assert.equal(Description.Engine.Labels['shoal.dataplane'], 'vxlan');
    }
  });

  it('reaches every task by the virtual address from every host, a task itself included', async () => {
    for (const host of lab.hosts) {
      await waitFor(`both tasks, from ${host.name}`, boundMs, async () => {
        const answers = new Set<string>();
        for (let count = 0; count < hostCount * 2; count += 1) answers.add(await ask(host, address));
        return [...answers].sort().join() === 'h1,h2';
      });
    }
  });

  it('answers a published port on every host', async () => {
    for (const host of lab.hosts) {
      const answers = new Set<string>();
      for (let count = 0; count < hostCount * 2; count += 1) {
        const { stdout } = await lab.script(
          'exec',
          'sw',
          'curl',
          '-s',
          '-m',
          '5',
          `http://${host.address}:8080/`,
        );
        answers.add(stdout.trim());
      }
      assert.deepEqual([...answers].sort(), ['h1', 'h2'], host.name);
    }
  });

  describe('with tasks that are told the client’s address', () => {
    before(async () => {
      const flags = ['--replicas', '3', '--constraint', 'node.hostname==h1', '--publish', '8090:80'];
      await create(lab.host(1), 'told', ...flags, ...toldClient);
      await waitForRunning(lab.host(1), 'told', 3);
    });

    it('tells them on every host, one without a task included, from outside and on 127.0.0.1', async () => {
      for (const { name, address: asked } of lab.hosts) {
        for (const [from, to, client] of [
          ['sw', asked, '10.77.0.1'],
          [name, '127.0.0.1', '127.0.0.1'],
        ] as const) {
          await waitFor(`a task to be asked by ${name} from ${from}`, boundMs, async () => {
            assert.equal(await toldBy(lab, from, to, 8090), `${client} ${to} 8090`);
            return true;
          });
        }
      }
    });

    it('says in a trace that the agent takes the connection, and no rule does', async () => {
      const [first, second] = lab.hosts as [LabHost, LabHost];
      const { stdout } = await first.shoal('network', 'trace', 'h2:8090');
      assert.match(
        stdout,
        /h2: the TCP proxy of shoald takes it, no rule of nftables, and passes it on to 3 tasks/,
      );
      assert.match(stdout, /It ends at 3 of 3 tasks\./);
      const { stdout: rules } = await second.exec('nft', 'list', 'table', 'inet', 'shoal');
      assert.ok(!rules.includes('8090') && rules.includes('8080'), rules);
      const { stdout: difference } = await first.shoal('network', 'diff', 'h2');
      assert.match(difference, /nothing to do/);
    });

    it('loses no connection when the service is scaled', async () => {
      const [first, second] = lab.hosts as [LabHost, LabHost];
      const enter = [lab.scriptPath, 'exec', 'sw'];
      const load = startLoad(enter, lab.environment, second.address, 8090, perSecond);
      try {
        for (const count of [1, 3]) {
          await first.shoal('service', 'scale', '--detach', `told=${count}`);
          await waitForRunning(first, 'told', count);
        }
      } finally {
        const { succeeded, failures } = await load.finish();
        assert.deepEqual(failures, []);
        assert.ok(succeeded > perSecond, `only ${succeeded} succeeded`);
      }
    });

    it('answers after the agent was killed and started again, from what it was told last', async () => {
      const [, second] = lab.hosts as [LabHost, LabHost];
      await second.killShoald();
      await second.startShoald();
      await waitFor('the second host to answer', boundMs, async () => {
        assert.equal(await toldBy(lab, 'sw', second.address, 8090), `10.77.0.1 ${second.address} 8090`);
        return true;
      });
    });
  });
});
