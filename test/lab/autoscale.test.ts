/** Services that are scaled by what their tasks use: real load on real processors, memory, a metric, through both clients. */
import assert from 'node:assert/strict';
import type { Service } from '../../proto/docker.ts';
import { clientOf, formCluster, leaderHost, runningTasks, tasksOf } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

describe('lab: autoscaling', () => {
  let lab: Lab;
  let host: LabHost;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(3, 'shoal-scale');
    await formCluster(lab, 3);
    host = lab.host(1);
  });

  after(() => lab?.down());

  const replicas = async (on: LabHost, name: string): Promise<number | undefined> =>
    (await clientOf(on).get<Service>(`/services/${name}`)).Spec.Mode.Replicated?.Replicas;
  /** `meanwhile` is done again and again: on a busy machine a node is taken for lost now and then, with its task. */
  const reaches = (on: LabHost, name: string, count: number, meanwhile = async () => {}, most = count) =>
    waitFor(`${count} replicas of ${name}`, 120_000, async () => {
      await meanwhile();
      const now = await replicas(on, name);
      if (now !== undefined && now >= count && now <= most) return true;
      throw new Error(`${now}; ${(await on.shoal('service', 'why', name)).stdout.split('\n')[0]}`);
    });

  it('more while their processors are busy, fewer after, and another leader goes on', async () => {
    // A busy loop while there is a file, limited to so little of a processor that there is as much on a busy machine.
    const loop =
      'while true; do if [ -e /tmp/busy ]; then i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; else sleep 1; fi; done';
    const limits = ['--limit-cpu', '0.04'];
    const scaling = ['max=3', 'target=60%', 'down-window=10s', 'cooldown=5s'].flatMap((pair) => [
      `--autoscale-${pair.split('=')[0]}`,
      pair.slice(pair.indexOf('=') + 1),
    ]);
    await host.shoal(
      'service',
      'create',
      '--name',
      'web',
      ...limits,
      ...scaling,
      'busybox:lab',
      'sh',
      '-c',
      loop,
    );
    await waitFor('the task', 60_000, async () => (await runningTasks(host, 'web')).length === 1);
    await waitFor('a first measurement', 60_000, async () =>
      /autoscale: cpu is .*% a task, target 60%/.test((await host.shoal('service', 'why', 'web')).stdout),
    );
    assert.equal(await replicas(host, 'web'), 1);
    const busy = async (on: LabHost, is: boolean): Promise<void> => {
      for (const { ID } of await runningTasks(on, 'web'))
        await on.shoal('task', 'exec', ID, ...(is ? ['touch', '/tmp/busy'] : ['rm', '-f', '/tmp/busy']));
    };
    await reaches(host, 'web', 2, () => busy(host, true), 3);
    assert.match((await host.shoal('service', 'why', 'web')).stdout, /went from 1 to 2 at .*cpu is/);
    await reaches(host, 'web', 3, () => busy(host, true));
    const leader = await leaderHost(lab, host);
    await leader.killShoald();
    const witness = lab.hosts.find((one) => one !== leader)!;
    await waitFor('another leader', 60_000, async () => (await leaderHost(lab, witness)) !== leader);
    await leader.startShoald();
    await reaches(witness, 'web', 3, () => busy(witness, true));
    await busy(witness, false);
    await reaches(witness, 'web', 1);
    host = witness;
    await host.shoal('service', 'rm', 'web');
  });

  it('by what a metric of another service says, from none and to none, by labels of the stock CLI', async () => {
    const serve = 'mkdir /www; echo "jobs 0" > /www/metrics; exec httpd -f -p 80 -h /www';
    await host.docker('service', 'create', '--detach', '--name', 'queue', 'busybox:lab', 'sh', '-c', serve);
    const labels = {
      max: '3',
      min: '0',
      metric: 'prometheus:jobs',
      source: 'queue',
      target: '10',
      port: '80',
      'down-window': '0s',
      cooldown: '0s',
    };
    const flags = Object.entries(labels).flatMap(([key, value]) => [
      '--label',
      `shoal.autoscale.${key}=${value}`,
    ]);
    const worker = ['--name', 'work', '--replicas', '0', ...flags, 'busybox:lab', 'sleep', '1d'];
    await host.docker('service', 'create', '--detach', ...worker);
    await waitFor('a first measurement', 60_000, async () =>
      /autoscale: jobs is 0 at queue, of 10 a task/.test((await host.shoal('service', 'why', 'work')).stdout),
    );
    const say = (jobs: number) =>
      host.shoal('task', 'exec', 'queue.1', 'sh', '-c', `echo "jobs ${jobs}" > /www/metrics`);
    await say(12);
    await reaches(host, 'work', 2);
    await waitFor('its tasks', 60_000, async () => (await runningTasks(host, 'work')).length === 2);
    // The stock CLI updates what it reads: the number stays.
    await host.docker('service', 'update', '--detach', '--env-add', 'A=1', 'work');
    assert.equal(await replicas(host, 'work'), 2);
    await say(0);
    await reaches(host, 'work', 0);
    // A job has as many tasks at a time; what runs goes on to its end.
    const job = ['--name', 'job', '--mode', 'replicated-job', '--replicas', '6', '--max-concurrent', '1'];
    await host.docker('service', 'create', '--detach', ...job, ...flags, 'busybox:lab', 'sleep', '3');
    const concurrent = async () =>
      (await clientOf(host).get<Service>('/services/job')).Spec.Mode.ReplicatedJob?.MaxConcurrent;
    await waitFor('none at a time', 60_000, async () => (await concurrent()) === 0);
    await say(25);
    await waitFor('three at a time', 60_000, async () => (await concurrent()) === 3);
    await waitFor('all to be complete', 120_000, async () => {
      const tasks = await tasksOf(host, 'job');
      return tasks.filter(({ Status }) => Status.State === 'complete').length === 6;
    });
    await say(0);
    await waitFor('none again', 60_000, async () => (await concurrent()) === 0);
    await host.shoal('service', 'rm', 'job', 'work', 'queue');
  });

  it('by memory; what does not go together is refused by name', async () => {
    const hold = 'dd if=/dev/zero of=/dev/shm/held bs=1M count=30; sleep 1d';
    const labels = ['max=2', 'metric=memory', 'target=20m'].flatMap((pair) => [
      '--label',
      `shoal.autoscale.${pair}`,
    ]);
    await host.docker(
      'service',
      'create',
      '--detach',
      '--name',
      'mem',
      ...labels,
      'busybox:lab',
      'sh',
      '-c',
      hold,
    );
    await reaches(host, 'mem', 2);
    await assert.rejects(
      host.docker('service', 'create', '--detach', '--label', 'shoal.autoscale.min=2', 'busybox:lab', 'true'),
      /shoal\.autoscale\.min says nothing without shoal\.autoscale\.max/,
    );
    await host.shoal('service', 'rm', 'mem');
  });
});
