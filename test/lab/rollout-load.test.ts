/**
 * Not one request is lost while a service under load is updated (start-first, and stop-first), scaled, moved and its
 * cluster's leader dies; when a node loses its power only those that were on their way to it are. A task counts when its
 * health check has passed. The load goes through a host's published port and, from within a container, to the service's
 * virtual address: half of the requests on connections of their own, half on a few that are kept until their server
 * ends them.
 *
 * SHOAL_LOAD_HOSTS, SHOAL_LOAD_REPLICAS and SHOAL_LOAD_PER_SECOND (of each of the two ways) make it larger; of several rates
 * (`250,500,1000`) each test is run at each. SHOAL_LOAD_FIGURES names a file to which each test adds its figures, a line
 * of JSON.
 */
import assert from 'node:assert/strict';
import { appendFileSync, readFileSync } from 'node:fs';
import type { Service } from '../../proto/docker.ts';
import { clientOf, formCluster, isReady, leaderHost, nodesSeenBy, runningTasks } from './cluster.ts';
import { type Load, type LoadResult, startLoad } from './http-load.ts';
import { httpServer } from './http-server.ts';
import { Lab, labMissing, waitFor } from './lab.ts';

const fromEnvironment = (name: string, otherwise: number) => Number(process.env[name] ?? otherwise);
const hostCount = fromEnvironment('SHOAL_LOAD_HOSTS', 3);
const replicas = fromEnvironment('SHOAL_LOAD_REPLICAS', 20);
const fewer = Math.ceil(replicas * 0.3);
const rates = (process.env.SHOAL_LOAD_PER_SECOND ?? '40').split(',').map(Number);
const keptConnections = 8;
const figuresFile = process.env.SHOAL_LOAD_FIGURES;
/** The hosts share the machine with all other tests: a busy one is not a lost one. */
const heartbeatSeconds = 4;
/** A node is down after so many heartbeats missed; then as long as a node may take to confirm that it knows. */
const detectionMs = 3.25 * heartbeatSeconds * 1_000;
const withdrawalMs = 2_000;
const boundMs = 240_000;

describe('lab: a service under load', () => {
  let lab: Lab;
  /** What enters the network of a container on the first host. */
  let insideContainer: readonly string[];
  let virtualAddress: string;

  before(async function () {
    const missing = labMissing();
    if (missing) return this.skip();
    lab = await Lab.up(hostCount, 'shoal-lab-load');
    await formCluster(lab, 3);
    const first = lab.host(1);
    await first.shoal('swarm', 'update', '--dispatcher-heartbeat', `${heartbeatSeconds}s`);
    await first.shoal('network', 'create', '-d', 'overlay', 'front');
    const stopsSoon = ['--stop-grace-period', '5s'];
    const probe = ['--name', 'probe', '--constraint', 'node.hostname==h1', '--network', 'front'];
    await first.shoal('service', 'create', ...probe, ...stopsSoon, 'busybox:lab', 'sleep', '1000000');
    await first.shoal(
      ...['service', 'create', '--name', 'web', '--replicas', String(replicas), '--network', 'front'],
      ...['--publish', '8080:80', '--update-parallelism', '5', '--update-monitor', '1s', ...stopsSoon],
      ...['--health-cmd', 'nc 127.0.0.1 80 </dev/null', '--health-interval', '3s', '--health-timeout', '20s'],
      ...['--detach', ...httpServer.flags, 'busybox:lab', ...httpServer.command],
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

  /** How often a task was stopped though some node had not confirmed in time that it sends nothing more to it. */
  function unconfirmedWithdrawals(): number {
    const logs = lab.hosts.map((host) => readFileSync(host.logPath, 'utf8'));
    return logs.join('').split('nodes did not confirm in time').length - 1;
  }

  /** What becomes of both loads while `what` happens. */
  async function underLoad(
    title: string,
    perSecond: number,
    what: () => Promise<unknown>,
  ): Promise<LoadResult[]> {
    const startOne = (enter: readonly string[], address: string, port: number): Load =>
      startLoad([lab.scriptPath, ...enter], lab.environment, address, port, perSecond, keptConnections);
    const loads = [
      // The second host answers for all of them, its own and the others' tasks.
      startOne(['exec', 'sw'], lab.host(2).address, 8080),
      startOne(insideContainer, virtualAddress, 80),
    ];
    const unconfirmedBefore = unconfirmedWithdrawals();
    let results: LoadResult[] = [];
    try {
      await what();
    } finally {
      results = await Promise.all(loads.map((load) => load.finish()));
    }
    const unconfirmed = unconfirmedWithdrawals() - unconfirmedBefore;
    if (figuresFile !== undefined) {
      for (const [index, { failures, servers, beganAtMs, ...rest }] of results.entries()) {
        const way = index === 0 ? 'published port' : 'virtual address';
        const counts = { failed: failures.length, servers: Object.keys(servers).length };
        const reasons = [...new Set(failures.map(({ reason }) => reason))];
        const line = {
          title,
          way,
          replicas,
          hostCount,
          perSecond,
          ...rest,
          ...counts,
          reasons,
          unconfirmed,
          beganAtMs,
        };
        appendFileSync(figuresFile, `${JSON.stringify(line)}\n`);
      }
    }
    for (const { succeeded, succeededOnKept } of results) {
      assert.ok(succeeded > perSecond, `only ${succeeded} succeeded`);
      assert.ok(succeededOnKept > 0 && succeededOnKept < succeeded, `${succeededOnKept} on kept connections`);
    }
    return results;
  }

  async function withoutLoss(title: string, perSecond: number, what: () => Promise<unknown>): Promise<void> {
    for (const { failures } of await underLoad(title, perSecond, what)) assert.deepEqual(failures, []);
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

  for (const perSecond of rates) {
    const rate = `${perSecond * 2} requests a second`;
    for (const order of ['start-first', 'stop-first']) {
      it(`loses no request to a rolling update, ${order}, of ${rate}`, () =>
        withoutLoss(`rolling update, ${order}`, perSecond, () => update('--update-order', order)));
    }

    it(`loses none to fewer and more tasks, of ${rate}`, () =>
      withoutLoss(`scale ${replicas} → ${fewer} → ${replicas}`, perSecond, async () => {
        await lab.host(1).shoal('service', 'scale', '--detach', `web=${fewer}`);
        await running(fewer);
        await lab.host(1).shoal('service', 'scale', '--detach', `web=${replicas}`);
        await running(replicas);
      }));

    it(`loses none to a node that is drained, of ${rate}`, async () => {
      await withoutLoss('drain of a node', perSecond, async () => {
        await lab.host(1).shoal('node', 'update', '--availability', 'drain', 'h3');
        await running(replicas, 'h3');
      });
      await lab.host(1).shoal('node', 'update', '--availability', 'active', 'h3');
    });

    it(`loses none to the leader’s death, of ${rate}`, () =>
      withoutLoss('leader’s daemon killed, started', perSecond, async () => {
        const leader = await leaderHost(lab, lab.host(1));
        await leader.killShoald();
        const witness = lab.hosts.find((host) => host !== leader)!;
        await waitFor('another leader', boundMs, async () => (await leaderHost(lab, witness)) !== leader);
        await leader.startShoald();
        await waitFor('all nodes to be ready', boundMs, async () =>
          (await nodesSeenBy(witness)).every(isReady),
        );
      }));
  }

  it('loses to a node’s loss of power what was on its way there, and no longer than that is not known', async () => {
    const lost = lab.host(3);
    // Tasks come back to it after it was drained.
    await update('--update-order', 'start-first');
    const nodes = await nodesSeenBy(lab.host(1));
    const lostId = nodes.find(({ Description }) => Description.Hostname === lost.name)?.ID;
    const tasks = await runningTasks(lab.host(1), 'web');
    const share = tasks.filter(({ NodeID }) => NodeID === lostId).length / tasks.length;
    assert.ok(share > 0 && share < 1, `${share} of the tasks run there`);
    let offAtMs = 0;
    let downAtMs = 0;
    const now = () => performance.timeOrigin + performance.now();
    const results = await underLoad('power loss of a node', rates.at(-1)!, async () => {
      offAtMs = now();
      await lost.powerOff();
      await waitFor('the node to be down', boundMs, async () => {
        const all = await nodesSeenBy(lab.host(1));
        return all.some(({ ID, Status }) => ID === lostId && Status.State === 'down');
      });
      downAtMs = now();
      await running(replicas, lost.name);
    });
    assert.ok(downAtMs - offAtMs < detectionMs * 2, `it took ${downAtMs - offAtMs} ms to be known`);
    for (const { failures, beganAtMs, sent, sentForMs } of results) {
      const sentAtMs = failures.map((failure) => beganAtMs + failure.sentMs);
      // Those that were being answered when the power went were sent a little before.
      const early = sentAtMs.filter((atMs) => atMs < offAtMs - 1_000);
      const late = sentAtMs.filter((atMs) => atMs > downAtMs + withdrawalMs);
      assert.deepEqual([early, late], [[], []], JSON.stringify({ offAtMs, downAtMs }));
      const sentMeanwhile = (sent / sentForMs) * (downAtMs + withdrawalMs - offAtMs + 1_000);
      const most = Math.ceil(share * sentMeanwhile);
      assert.ok(failures.length <= most, `${failures.length} failed, ${most} went there at most`);
    }
  });
});
