/**
 * Hosts without nft: published ports are answered by a TCP proxy, on every one of them; what a proxy can't do is refused by
 * name. Then a host with nft joins: what is published goes there, and is answered everywhere.
 */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { create, idle, nodeNamed, waitForReason, waitForRunning } from './asking.ts';
import { clientOf, formCluster, isReady, nodesSeenBy, runningTasks } from './cluster.ts';
import { startLoad } from './http-load.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';
import { toldBy, toldClient } from './told-client.ts';

const perSecond = 20;
const boundMs = 120_000;
const server = [
  ...['--health-cmd', 'nc 127.0.0.1 80 </dev/null', '--health-interval', '2s', '--health-timeout', '20s'],
  ...['--stop-grace-period', '2s', '--update-monitor', '1s'],
  ...['busybox:lab', 'sh', '-c', 'mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www'],
];

describe('lab: published ports where there is no nft', () => {
  let lab: Lab;
  let first: LabHost;
  let withNft: LabHost;
  let without: LabHost[];
  let path: string;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(3, 'shoal-proxy');
    [first, withNft] = [lab.host(1), lab.host(3)];
    without = [lab.host(1), lab.host(2)];
    path = join(first.dataDir, '..', 'programs');
    mkdirSync(path, { recursive: true });
    for (const folder of ['/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin']) {
      for (const name of readdirSync(folder)) {
        if (name === 'nft') continue;
        try {
          symlinkSync(join(folder, name), join(path, name));
        } catch (error) {
          assert.equal((error as NodeJS.ErrnoException).code, 'EEXIST');
        }
      }
    }
    await formCluster({ hosts: without } as Lab, 1, { environment: [`PATH=${path}`] });
    // The hosts share the machine with all other tests: a busy one is not a lost one.
    await first.shoal('swarm', 'update', '--dispatcher-heartbeat', '4s');
    await create(first, 'web', '--replicas', '3', '--publish', '8080:80', ...server);
    await waitForRunning(first, 'web', 3);
  });

  after(async () => {
    await lab?.down();
  });

  /** Who answers on a host's port, of `count` questions; '' for a refusal. */
  async function answers(host: LabHost, port: number, count: number, from = 'sw'): Promise<Set<string>> {
    const address = from === 'sw' ? host.address : '127.0.0.1';
    const script = `for i in $(seq ${count}); do curl -s -m 5 http://${address}:${port}/ || echo; done`;
    const { stdout } = await lab.script('exec', from, 'sh', '-c', script);
    return new Set(stdout.trimEnd().split('\n'));
  }

  async function answersEverywhere(hosts: readonly LabHost[], port: number, replicas: number): Promise<void> {
    for (const host of hosts) {
      for (const from of ['sw', host.name]) {
        await waitFor(`${replicas} to answer on ${host.name} from ${from}`, 30_000, async () => {
          const seen = await answers(host, port, 4 * replicas, from);
          if (seen.size === replicas && !seen.has('')) return true;
          throw new Error([...seen].join());
        });
      }
    }
  }

  async function problemsOf(name: string): Promise<string> {
    const { Problems = [] } = await nodeNamed(first, name);
    return Problems.map(({ Message }) => Message).join('; ');
  }

  async function withoutLoss(port: number, what: () => Promise<unknown>): Promise<void> {
    const loads = without.map((host) =>
      startLoad([lab.scriptPath, 'exec', 'sw'], lab.environment, host.address, port, perSecond),
    );
    let results: Awaited<ReturnType<(typeof loads)[number]['finish']>>[] = [];
    try {
      await what();
    } finally {
      results = await Promise.all(loads.map((load) => load.finish()));
    }
    for (const { succeeded, failures } of results) {
      assert.ok(succeeded > perSecond, `only ${succeeded} succeeded`);
      assert.deepEqual(failures, []);
    }
  }

  async function update(service: string, replicas: number, ...flags: string[]): Promise<void> {
    const old = new Set((await runningTasks(first, service)).map(({ ID }) => ID));
    await first.shoal('service', 'update', '--detach', '--force', ...flags, service);
    await waitFor('the update to be through', boundMs, async () => {
      const tasks = await runningTasks(first, service);
      return tasks.length === replicas && !tasks.some(({ ID }) => old.has(ID));
    });
  }

  it('the node says what it has, why, and what works otherwise', async () => {
    const { Labels } = (await nodeNamed(first, 'h2')).Description.Engine;
    assert.equal(Labels['shoal.dataplane'], 'proxy');
    assert.match(
      Labels['shoal.dataplane.missing'] ?? '',
      /^nftables can't be used \(install nftables\): nft: the program is not installed$/,
    );
    const { stdout } = await first.shoal('node', 'inspect', '--pretty', 'h2');
    assert.match(stdout, /Data plane:\t\tproxy: nftables can't be used/);
    assert.match(
      stdout,
      /Limits:\t\tports published in ingress mode are answered by a TCP proxy of shoald: not over UDP/,
    );
  });

  it('every host answers for all tasks, from outside and on 127.0.0.1', async () => {
    await answersEverywhere(without, 8080, 3);
  });

  it('tells tasks on either host the client’s address where the service asks for it', async () => {
    const flags = ['--replicas', '2', '--replicas-max-per-node', '1', '--publish', '8087:80'];
    await create(first, 'told', ...flags, ...toldClient);
    await waitForRunning(first, 'told', 2);
    for (const { address } of without) {
      // Each of the two tasks is asked, one of them on the other host.
      for (let count = 0; count < 4; count += 1) {
        await waitFor(`a task to be asked by ${address}`, 30_000, async () => {
          assert.equal(await toldBy(lab, 'sw', address, 8087), `10.77.0.1 ${address} 8087`);
          return true;
        });
      }
    }
    await first.shoal('service', 'rm', 'told');
  });

  it('what a proxy can’t do is refused in words', async () => {
    await create(first, 'dns', '--publish', '5353:53/udp', ...idle);
    await waitForReason(
      first,
      'dns',
      /port 5353\/udp is published in ingress mode, and 2 nodes have a TCP proxy in place of a routing mesh \(nftables/,
    );
    await first.shoal('service', 'rm', 'dns');
    await first.shoal('network', 'create', '-d', 'overlay', 'front');
    await create(first, 'pair', '--mode', 'global', '--network', 'front', ...idle);
    await waitForReason(
      first,
      'pair',
      /network front lives on the engine of node h\d, which is out of reach/,
    );
    await first.shoal('service', 'rm', 'pair');
    await assert.rejects(
      first.docker('run', '--rm', '--network', 'front', 'busybox:lab', 'true'),
      /it has no networks between hosts \(nftables can't be used/,
    );
  });

  it('a port that another program holds is named, and taken when it is free', async () => {
    const holder = `require('node:net').createServer().listen(8085, '0.0.0.0')`;
    const script = `nohup ${process.execPath} -e "$1" >/dev/null 2>&1 & echo $!`;
    const { stdout: pid } = await without[1]!.exec('sh', '-c', script, 'sh', holder);
    await create(first, 'held', '--publish', '8085:80', ...server);
    await waitFor('the reason', boundMs, async () =>
      /port 8085\/tcp is held by another program on this node/.test(await problemsOf('h2')),
    );
    await without[1]!.exec('kill', pid.trim());
    await waitForRunning(first, 'held', 1);
    await answersEverywhere(without, 8085, 1);
    await waitFor('the reason to be gone', boundMs, async () => (await problemsOf('h2')) === '');
    await first.shoal('service', 'rm', 'held');
    await waitFor('the port to be free', boundMs, async () => (await answers(without[1]!, 8085, 1)).has(''));
  });

  it('no request is lost in rollouts, start-first and stop-first, nor when the service is scaled', async () => {
    await withoutLoss(8080, () => update('web', 3, '--update-order', 'start-first'));
    await withoutLoss(8080, () => update('web', 3, '--update-order', 'stop-first'));
    await withoutLoss(8080, async () => {
      for (const count of [1, 3]) {
        await first.shoal('service', 'scale', '--detach', `web=${count}`);
        await waitForRunning(first, 'web', count);
      }
    });
  });

  it('an agent that was killed answers from the last state when it is started again', async () => {
    const [, second] = without;
    await second!.killShoald();
    await second!.startShoald({ environment: [`PATH=${path}`] });
    await answersEverywhere([second!], 8080, 3);
  });

  it('who joins with nft can’t reach tasks behind proxies and says so; what is published goes there, and is answered everywhere', async () => {
    await withNft.startShoald();
    const { stdout: token } = await first.shoal('swarm', 'join-token', '-q', 'worker');
    await withNft.shoal('swarm', 'join', '--token', token.trim(), `${first.address}:2377`);
    await waitFor(
      'it to be ready',
      boundMs,
      async () => (await nodesSeenBy(first)).filter(isReady).length === 3,
    );
    await waitFor('the reason', boundMs, async () =>
      /all of its tasks are on nodes with a TCP proxy in place of a routing mesh/.test(
        await problemsOf('h3'),
      ),
    );
    assert.deepEqual([...(await answers(withNft, 8080, 2))], ['']);
    await answersEverywhere(without, 8080, 3);
    await update('web', 3);
    await waitFor('the reason to be gone', boundMs, async () => (await problemsOf('h3')) === '');
    const nodes = new Set((await runningTasks(first, 'web')).map(({ NodeID }) => NodeID));
    assert.deepEqual([...nodes], [(await nodeNamed(first, 'h3')).ID]);
    await answersEverywhere(lab.hosts, 8080, 3);
    await withoutLoss(8080, () => update('web', 3, '--update-order', 'start-first'));
  });

  it('a service that asks for each node’s own tasks runs, and answers, where they are', async () => {
    const flags = ['--mode', 'global', '--publish', '8086:80', '--label', 'shoal.ingress=local'];
    await create(first, 'own', ...flags, '--hostname', '{{.Node.Hostname}}', ...server);
    await waitForRunning(first, 'own', 3);
    for (const host of lab.hosts) {
      await waitFor(`${host.name} to answer for itself`, 30_000, async () => {
        const seen = [...(await answers(host, 8086, 3))];
        return seen.length === 1 && seen[0] === host.name;
      });
    }
  });

  it('after leave nothing listens', async () => {
    const [, second] = without;
    await second!.shoal('swarm', 'leave');
    assert.deepEqual([...(await answers(second!, 8080, 1))], ['']);
    assert.ok(
      (await clientOf(second!).get<{ Swarm: { LocalNodeState: string } }>('/info')).Swarm.LocalNodeState ===
        'inactive',
    );
  });
});
