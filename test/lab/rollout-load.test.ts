/**
 * Not one request is lost while a service of 20 replicas under load is updated (start-first, and stop-first), scaled,
 * moved and its cluster's leader dies. A task counts when its health check has passed. The load goes through a host's
 * published port and, from within a container, to the service's virtual address.
 */
import assert from 'node:assert/strict';
import type { Service } from '../../proto/docker.ts';
import { clientOf, formCluster, leaderHost, runningTasks } from './cluster.ts';
import { type Load, startLoad } from './http-load.ts';
import { Lab, labMissing, waitFor } from './lab.ts';

const replicas = 20;
const fewer = 5;
const perSecond = 40;
const boundMs = 240_000;

describe('lab: a service under load', () => {
  let lab: Lab;
  /** What enters the network of a container on the first host. */
  let insideContainer: readonly string[];
  let virtualAddress: string;

  before(async function () {
    const missing = labMissing();
    if (missing) return this.skip();
    lab = await Lab.up(3, 'shoal-lab-load');
    await formCluster(lab, 3);
    const first = lab.host(1);
    // The hosts share the machine with all other tests: a busy one is not a lost one.
    await first.shoal('swarm', 'update', '--dispatcher-heartbeat', '4s');
    await first.shoal('network', 'create', '-d', 'overlay', 'front');
    const stopsSoon = ['--stop-grace-period', '2s'];
    const probe = ['--name', 'probe', '--constraint', 'node.hostname==h1', '--network', 'front'];
    await first.shoal('service', 'create', ...probe, ...stopsSoon, 'busybox:lab', 'sleep', '1000000');
    const script = 'mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www';
    await first.shoal(
      ...['service', 'create', '--name', 'web', '--replicas', String(replicas), '--network', 'front'],
      ...['--publish', '8080:80', '--update-parallelism', '5', '--update-monitor', '1s', ...stopsSoon],
      ...['--health-cmd', 'nc 127.0.0.1 80 </dev/null', '--health-interval', '3s', '--health-timeout', '20s'],
      '--detach',
      ...['busybox:lab', 'sh', '-c', script],
    );
    await running(replicas);
    const filter = ['--filter', 'label=com.docker.swarm.service.name=probe'];
    const { stdout: container } = await first.engine('ps', '-q', ...filter);
    const { stdout: pid } = await first.engine('inspect', '--format', '{{.State.Pid}}', container.trim());
    insideContainer = ['exec', 'h1', 'nsenter', '-t', pid.trim(), '-n'];
    const { Endpoint } = await clientOf(first).get<Service>('/services/web');
    virtualAddress = Endpoint.VirtualIPs?.at(-1)?.Addr.replace(/\/\d+$/, '') ?? '';
  });

  after(async () => {
    await lab?.down();
  });

  function running(count: number, lost?: string): Promise<boolean> {
    return waitFor(`${count} tasks of web`, boundMs, async () => {
      const tasks = await runningTasks(lab.host(1), 'web', lost);
      return tasks.length === count;
    });
  }

  async function withoutLoss(what: () => Promise<unknown>): Promise<void> {
    const loads: Load[] = [
      // The second host answers for all of them, its own and the others' tasks.
      startLoad([lab.scriptPath, 'exec', 'sw'], lab.environment, lab.host(2).address, 8080, perSecond),
      startLoad([lab.scriptPath, ...insideContainer], lab.environment, virtualAddress, 80, perSecond),
    ];
    let results: Awaited<ReturnType<Load['finish']>>[] = [];
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

  /** Updates the service and waits until that is through: every task is another one, and serves. */
  async function update(...flags: string[]): Promise<void> {
    const before = new Set((await runningTasks(lab.host(1), 'web')).map(({ ID }) => ID));
    await lab.host(1).docker('service', 'update', '--detach', '--force', ...flags, 'web');
    await waitFor(`${replicas} new tasks`, boundMs, async () => {
      const [tasks, service] = await Promise.all([
        runningTasks(lab.host(1), 'web'),
        clientOf(lab.host(1)).get<Service>('/services/web'),
      ]);
      const { State, Message } = service.UpdateStatus ?? {};
      const fresh = tasks.filter(({ ID }) => !before.has(ID)).length;
      if (fresh === replicas && tasks.length === replicas && State === 'completed') return true;
      throw new Error(`${fresh} new of ${tasks.length}, ${State}: ${Message}`);
    });
  }

  for (const order of ['start-first', 'stop-first']) {
    it(`loses no request to a rolling update, ${order}`, () =>
      withoutLoss(() => update('--update-order', order)));
  }

  it('loses none to fewer and more tasks', () =>
    withoutLoss(async () => {
      await lab.host(1).shoal('service', 'scale', '--detach', `web=${fewer}`);
      await running(fewer);
      await lab.host(1).shoal('service', 'scale', '--detach', `web=${replicas}`);
      await running(replicas);
    }));

  it('loses none to a node that is drained', () =>
    withoutLoss(async () => {
      await lab.host(1).shoal('node', 'update', '--availability', 'drain', 'h3');
      await running(replicas, 'h3');
    }));

  it('loses none to the leader’s death', () =>
    withoutLoss(async () => {
      const leader = await leaderHost(lab, lab.host(1));
      await leader.killShoald();
      const witness = lab.hosts.find((host) => host !== leader)!;
      await waitFor('another leader', boundMs, async () => (await leaderHost(lab, witness)) !== leader);
      await leader.startShoald();
    }));
});
