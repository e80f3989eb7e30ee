/** Five hosts with their own engines: hosts die and come back, daemons are killed; the service goes on. */
import assert from 'node:assert/strict';
import type { ListedTask } from '../../cli/commands/tasks.ts';
import {
  containerFingerprint,
  containersOn,
  formCluster,
  isReady,
  leaderHost,
  nodesSeenBy,
  runningTasks,
  tasksOf,
} from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

const replicas = 10;

describe('lab: a cluster of five hosts', () => {
  let lab: Lab;

  before(async function () {
    const missing = labMissing();
    if (missing) return this.skip();
    lab = await Lab.up(5);
    await formCluster(lab, 3);
    await lab
      .host(1)
      .shoal(
        'service',
        'create',
        '--name',
        'web',
        '--replicas',
        String(replicas),
        '--stop-grace-period',
        '1s',
        'busybox:lab',
        'sleep',
        '1000000',
      );
  });

  after(async () => {
    await lab?.down();
  });

  /** Another manager than `host`. */
  const witnessBeside = (host: LabHost): LabHost => (host === lab.host(1) ? lab.host(2) : lab.host(1));

  async function everyTaskRunsOnce(witness: LabHost, lost?: LabHost): Promise<ListedTask[]> {
    return waitFor('every slot to run exactly once', 40_000, async () => {
      const running = await runningTasks(witness, 'web', lost?.name);
      const slots = new Set(running.map((task) => task.Slot));
      return running.length === replicas && slots.size === replicas && running;
    });
  }

  it('runs ten replicas, spread evenly', async () => {
    await everyTaskRunsOnce(lab.host(1));
    const counts = await Promise.all(lab.hosts.map(async (host) => (await containersOn(host)).length));
    assert.deepEqual(counts, [2, 2, 2, 2, 2]);
  });

  it('restarts no container when shoald is killed with -9 and started again on every host in turn', async () => {
    // However slow this machine is: no node is taken for lost while its daemon starts.
    await lab.host(1).shoal('swarm', 'update', '--dispatcher-heartbeat', '5s');
    for (const host of lab.hosts) {
      const before = await containerFingerprint(host);
      assert.equal(before.length, 2);
      await host.killShoald('SIGKILL');
      await host.startShoald();
      await waitFor(`all nodes to be ready after ${host.name}`, 30_000, async () =>
        (await nodesSeenBy(witnessBeside(host))).every(isReady),
      );
      assert.deepEqual(await containerFingerprint(host), before, `containers of ${host.name}`);
    }
    await lab.host(1).shoal('swarm', 'update', '--dispatcher-heartbeat', '1s');
    await everyTaskRunsOnce(lab.host(1));
  });

  it('runs the tasks of a worker host that lost its power elsewhere, and takes it back without doubles', async () => {
    const worker = lab.host(5);
    await worker.powerOff();
    await everyTaskRunsOnce(lab.host(1), worker);
    await worker.powerOn();
    await worker.startShoald();
    await waitFor('all nodes to be ready', 30_000, async () =>
      (await nodesSeenBy(lab.host(1))).every(isReady),
    );
    await everyTaskRunsOnce(lab.host(1));
    await waitFor('the old containers to be gone', 30_000, async () => {
      const containers = await Promise.all(lab.hosts.map(containersOn));
      return containers.flat().length === replicas;
    });
  });

  it('elects another leader when the leader’s host loses its power; the host comes back and deposes nobody', async () => {
    const leader = await leaderHost(lab, lab.host(1));
    const witness = witnessBeside(leader);
    await leader.powerOff();
    await waitFor('another leader', 30_000, async () => (await leaderHost(lab, witness)) !== leader);
    await everyTaskRunsOnce(witness, leader);
    const next = await leaderHost(lab, witness);
    await leader.powerOn();
    await leader.startShoald();
    await waitFor('all nodes to be ready', 30_000, async () => (await nodesSeenBy(witness)).every(isReady));
    assert.equal(await leaderHost(lab, witness), next);
    await everyTaskRunsOnce(witness);
    const slots = (await tasksOf(witness, 'web'))
      .filter((task) => task.DesiredState === 'running')
      .map((task) => task.Slot);
    assert.equal(new Set(slots).size, slots.length, 'two tasks in a slot');
  });

  it('acknowledges no write without a majority, and goes on when one is back', async () => {
    const [first, second, third] = [lab.host(1), lab.host(2), lab.host(3)];
    await second.killShoald('SIGKILL');
    await third.killShoald('SIGKILL');
    await assert.rejects(first.shoal('service', 'scale', '--detach', 'web=3'), /no leader|quorum|managers/i);
    await Promise.all([second.startShoald(), third.startShoald()]);
    await waitFor('a write to go through again', 30_000, async () => {
      await first.shoal('service', 'update', '--detach', '--label-add', 'after=quorum', 'web');
      return true;
    });
    await everyTaskRunsOnce(first);
  });
});
