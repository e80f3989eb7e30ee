/** Hosts whose services find and reach each other: overlays, names, virtual addresses, published ports. */
import assert from 'node:assert/strict';
import { formCluster, runningTasks } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

/** A web server that tells its own host name. */
const server = [
  'busybox:lab',
  'sh',
  '-c',
  'mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www',
];
const idle = ['busybox:lab', 'sleep', '1000000'];
/** A node looks at its kernel no less often. */
const reconcileMs = 30_000;
const stopSoon = ['--stop-grace-period', '1s'];

describe('lab: networks between hosts', () => {
  let lab: Lab;

  before(async function () {
    const missing = labMissing();
    if (missing) return this.skip();
    lab = await Lab.up(3, 'shoal-lab-dp');
    await formCluster(lab, 1);
    const first = lab.host(1);
    await first.shoal('network', 'create', '-d', 'overlay', 'front');
    await first.shoal('network', 'create', '-d', 'overlay', '--internal', 'back');
    await first.shoal(
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
      ...stopSoon,
      '--hostname',
      '{{.Node.Hostname}}',
      ...server,
    );
    await first.shoal(
      'service',
      'create',
      '--name',
      'db',
      '--replicas',
      '1',
      '--network',
      'back',
      '--endpoint-mode',
      'dnsrr',
      ...stopSoon,
      ...server,
    );
    await first.shoal(
      'service',
      'create',
      '--name',
      'probe',
      '--mode',
      'global',
      '--network',
      'front',
      '--network',
      'back',
      ...stopSoon,
      ...idle,
    );
    await first.shoal(
      'service',
      'create',
      '--name',
      'outsider',
      '--mode',
      'global',
      '--network',
      'back',
      ...stopSoon,
      ...idle,
    );
  });

  after(async () => {
    await lab?.down();
  });

  /** The container of a service's task on `host`. */
  async function containerOn(host: LabHost, service: string): Promise<string> {
    const filter = ['--filter', `label=com.docker.swarm.service.name=${service}`];
    const { stdout } = await host.engine('ps', '-q', ...filter);
    return stdout.split('\n')[0]!;
  }

  async function inside(host: LabHost, service: string, ...command: string[]): Promise<string> {
    const { stdout } = await host.engine('exec', await containerOn(host, service), ...command);
    return stdout;
  }

  /** What the web server behind a name answers. (The image's wget does not work with its C library.) */
  async function ask(host: LabHost, from: string, name: string): Promise<string> {
    const script = `a=$(nslookup ${name} | sed -n 's/^Address: //p' | head -1); [ -n "$a" ] || exit 3; printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 $a 80 | tail -1`;
    return (await inside(host, from, 'sh', '-c', script)).trim();
  }

  it('services find each other by name and virtual address, from every host to every host', async () => {
    for (const host of lab.hosts) {
      const answers = new Set<string>();
      for (let count = 0; count < 6; count += 1) answers.add(await ask(host, 'probe', 'web'));
      assert.deepEqual([...answers].sort(), ['h1', 'h2', 'h3'], `from ${host.name}`);
    }
  });

  it('tasks are found by tasks.NAME, and a service without a virtual address by its own', async () => {
    const [host] = lab.hosts;
    const all = await inside(host!, 'probe', 'nslookup', 'tasks.web');
    assert.equal(new Set(all.match(/Address[^:]*: (\d+\.\d+\.\d+\.\d+)$/gm)).size >= 3, true, all);
    for (const one of lab.hosts) {
      const answer = await ask(one, 'probe', 'db');
      assert.match(answer, /^[0-9a-f]{12}$/m);
    }
  });

  it('what is on other networks has no name and no way', async () => {
    for (const host of lab.hosts) {
      await assert.rejects(ask(host, 'outsider', 'web'), { code: 3 });
    }
  });

  it('a task reaches itself through its service’s address', async () => {
    for (const host of lab.hosts) {
      const seen = new Set<string>();
      for (let count = 0; count < 6; count += 1) seen.add(await ask(host, 'web', 'web'));
      assert.equal(seen.size, 3, `from ${host.name}`);
    }
  });

  it('a published port answers on every host, from outside and on 127.0.0.1', async () => {
    for (const host of lab.hosts) {
      for (const address of [host.address, '127.0.0.1']) {
        const seen = new Set<string>();
        for (let count = 0; count < 6; count += 1) {
          const { stdout } = await host.exec('curl', '-s', '-m', '5', `http://${address}:8080/`);
          seen.add(stdout.trim());
        }
        assert.deepEqual([...seen].sort(), ['h1', 'h2', 'h3'], `${address} on ${host.name}`);
      }
      const { stdout } = await lab.script(
        'exec',
        'sw',
        'curl',
        '-s',
        '-m',
        '5',
        `http://${host.address}:8080/`,
      );
      assert.match(stdout, /^h\d/);
    }
  });

  it('goes on when the firewall is flushed and engine or agent are started anew', async () => {
    const host = lab.host(2);
    const answers = () =>
      waitFor('the port to answer', 60_000, async () => {
        const { stdout } = await lab
          .script('exec', 'sw', 'curl', '-s', '-m', '3', `http://${host.address}:8080/`)
          .catch(() => ({ stdout: '' }));
        return /^h\d/.test(stdout);
      });
    await host.killShoald('SIGKILL');
    await answers();
    await host.startShoald();
    await host.exec('nft', 'flush', 'table', 'inet', 'shoal');
    await answers();
  });

  it('what changed while a host was cut off is gone there within one reconcile of its return', async () => {
    const [first, second, away] = [lab.host(1), lab.host(2), lab.host(3)];
    const moving = ['--name', 'moving', '--network', 'front', '--constraint', 'node.hostname==h2'];
    await first.shoal('service', 'create', ...moving, ...stopSoon, ...server);
    const current = async () => {
      const [task] = await runningTasks(first, 'moving');
      const containerId = task?.Status.ContainerStatus?.ContainerID ?? '';
      const format = '{{.NetworkSettings.Networks.front.IPAddress}}';
      const { stdout } = await second.engine('inspect', '--format', format, containerId);
      return { containerId, address: stdout.trim() };
    };
    const rules = async () => (await away.exec('nft', 'list', 'table', 'inet', 'shoal')).stdout;
    const hasRule = async (address: string) => new RegExp(`\\b${address}\\b`).test(await rules());
    const { address: before } = await current();
    await waitFor('its rule', reconcileMs, () => hasRule(before));
    await lab.script('partition', away.name);
    await first.shoal('service', 'update', '--force', 'moving');
    const { address: after, containerId } = await waitFor('another address', 60_000, async () => {
      const one = await current();
      return one.address !== '' && one.address !== before && one;
    });
    // Nobody can have told it: what it goes by is what it was told before.
    assert.ok(await hasRule(before));
    assert.ok(!(await hasRule(after)));
    await lab.script('heal', away.name);
    await waitFor('what was before to be gone', reconcileMs, async () => !(await hasRule(before)));
    await waitFor('what is now to be there', reconcileMs, () => hasRule(after));
    await waitFor('it to be reached from there', 60_000, async () => {
      return (await ask(away, 'probe', 'moving')) === containerId.slice(0, 12);
    });
    await first.shoal('service', 'rm', 'moving');
  });

  it('leaves nothing on a host that leaves', async () => {
    const leaving = lab.host(3);
    await leaving.shoal('swarm', 'leave');
    const links = (await leaving.exec('ip', '-o', 'link')).stdout;
    assert.ok(!/shoal\d|vx\d/.test(links), links);
    assert.ok(!(await leaving.exec('nft', 'list', 'tables')).stdout.includes('shoal'));
    assert.ok(!(await leaving.exec('iptables', '-S')).stdout.includes('SHOAL'));
    await waitFor(
      'the others to go on alone',
      30_000,
      async () => (await runningTasks(lab.host(1), 'web')).length === 2,
    );
  });
});
