/**
 * Maintenance without a dip, and nodes that are cut off: what is drained, evened out, lost or isolated, as a person asks
 * for it by our client and by labels through the stock docker CLI. How many ran at each moment, and that there never
 * were two, is told by the engines: by when they started and ended each container. One manager, three workers.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { TaskWhy } from '../../manager/api/why.ts';
import { create, idle, nodeNamed, serviceOf, waitForReason, waitForRunning } from './asking.ts';
import { clientOf, containersOn, formCluster, tasksOf } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';
import { Lifetimes } from './lifetimes.ts';

const soon = ['--stop-grace-period', '2s'];
const label = (name: string, value: string) => ['--label', `shoal.${name}=${value}`];

describe('lab: maintenance without a dip, and nodes that are cut off', () => {
  let lab: Lab;
  let host: LabHost;
  let last: LabHost;
  let lifetimes: Lifetimes;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(4, 'shoal-upkeep');
    [host, last] = [lab.host(1), lab.host(4)];
    lifetimes = new Lifetimes(lab.hosts);
    await formCluster(lab, 1);
    // The hosts share the machine with all other tests: a busy one is not a lost one.
    await host.shoal('swarm', 'update', '--dispatcher-heartbeat', '4s');
  });

  after(() => lab?.down());

  /** `docker service create --detach --name NAME …`, by the stock client. */
  const dockerCreate = (name: string, ...rest: string[]) =>
    host.docker('service', 'create', '--detach', '--name', name, ...soon, ...rest, ...idle);
  const shoalCreate = (name: string, ...rest: string[]) => create(host, name, ...soon, ...rest, ...idle);
  const availability = (value: string, ...hosts: LabHost[]) =>
    Promise.all(hosts.map((one) => host.docker('node', 'update', '--availability', value, one.name)));

  /** How many tasks of the service run on a host. */
  async function countOn(service: string, on: LabHost): Promise<number> {
    const { ID } = await nodeNamed(host, on.name);
    return (await waitForRunning(host, service, await replicasOf(service))).filter((t) => t.NodeID === ID)
      .length;
  }

  /** Sees to it that the service has tasks on h4, also if that was away for a moment when they were placed. */
  const isOnLast = (service: string) =>
    waitFor(`${service} to have tasks on h4`, 90_000, async () => {
      if ((await countOn(service, last)) > 0) return true;
      await host.shoal('service', 'rebalance', service);
      return false;
    });

  const replicasOf = async (service: string) =>
    (await serviceOf(host, service)).Spec.Mode.Replicated?.Replicas ?? 0;

  /** Waits until no task is left on the host, whatever state it is in, and no container of one runs. */
  const emptied = (on: LabHost) =>
    waitFor(`${on.name} to be empty`, 60_000, async () => (await containersOn(on)).length === 0);

  async function whyOf(taskId: string): Promise<string> {
    const { Timeline } = await clientOf(host).get<TaskWhy>(`/tasks/${taskId}/why`);
    return Timeline.map(({ Text }) => Text).join('\n');
  }

  async function removeAll(...services: string[]): Promise<void> {
    await host.docker('service', 'rm', ...services);
    await Promise.all(lab.hosts.map(emptied));
    lifetimes.forget();
  }

  describe('a node that is drained', () => {
    it('gives its tasks up start-first, as many at a time as the updates: none is missing on the way', async () => {
      const wide = ['--replicas', '8', '--update-parallelism', '2'];
      await Promise.all([
        dockerCreate('labelled', ...wide, ...label('drain', 'start-first')),
        shoalCreate('plain', '--replicas', '8'),
      ]);
      await Promise.all([waitForRunning(host, 'labelled', 8), waitForRunning(host, 'plain', 8)]);
      await Promise.all(['labelled', 'plain'].map((service) => isOnLast(service)));
      const since = await lifetimes.now();
      const { stdout, stderr } = await host.shoal('node', 'drain', '--wait', last.name);
      assert.match(stdout, /h4/);
      assert.match(stderr, /labelled: \d left/);
      assert.deepEqual(await containersOn(last), []);
      await Promise.all([waitForRunning(host, 'labelled', 8), waitForRunning(host, 'plain', 8)]);
      for (const [service, surge] of [
        ['labelled', 2],
        ['plain', 1],
      ] as const) {
        const { fewest, most } = await lifetimes.concurrency(service, since);
        assert.equal(fewest, 8, `${service} dipped to ${fewest}`);
        assert.ok(most > 8, `${service} had ${most} at a time`);
        const wanted = await lifetimes.mostWanted(host, service, since);
        assert.ok(wanted <= 8 + surge, `${wanted} of ${service} were wanted at a time`);
      }
    });

    it('gives them up one after the other or at once, where that is asked', async () => {
      await availability('active', last);
      await availability('drain', lab.host(3));
      await host.shoal('service', 'update', '--detach', '--drain', 'stop-first', 'plain');
      await host.docker('service', 'update', '--detach', '--label-add', 'shoal.drain=at-once', 'labelled');
      await emptied(lab.host(3));
      await waitForRunning(host, 'plain', 8);
      const since = await lifetimes.now();
      const before = await countOn('labelled', lab.host(2));
      assert.ok(before >= 2);
      await availability('drain', lab.host(2));
      await emptied(lab.host(2));
      await Promise.all([waitForRunning(host, 'labelled', 8), waitForRunning(host, 'plain', 8)]);
      const plain = await lifetimes.concurrency('plain', since);
      assert.deepEqual([plain.fewest, plain.most], [7, 8]);
      const labelled = await lifetimes.concurrency('labelled', since);
      assert.ok(labelled.fewest <= 8 - 2, `at-once left ${labelled.fewest}`);
      await removeAll('plain', 'labelled');
      await availability('active', lab.host(2), lab.host(3));
    });

    it('is emptied of what fits nowhere else, and says so; what asks to start first by name stays', async () => {
      const bound = ['--replicas', '2', '--constraint', `node.hostname==${last.name}`];
      await dockerCreate('bound', ...bound);
      await shoalCreate('stays', ...bound, '--drain', 'start-first');
      const [task] = await waitForRunning(host, 'bound', 2);
      await waitForRunning(host, 'stays', 2);
      const stays = await containersOn(last);
      await availability('drain', last);
      const gone = await waitFor('the tasks of bound to be stopped', 60_000, async () => {
        const tasks = await tasksOf(host, 'bound');
        return tasks.every((one) => one.Status.State !== 'running') && tasks;
      });
      assert.ok(gone.some(({ ID, Status }) => ID === task!.ID && Status.State === 'shutdown'));
      assert.match(
        await whyOf(task!.ID),
        /node h4 is drained, and no other can take it: no suitable node \(/,
      );
      await waitForReason(host, 'bound', /no suitable node \(/);
      assert.match((await host.docker('service', 'ps', '--no-trunc', 'bound')).stdout, /no suitable node/);
      const left = await containersOn(last);
      assert.equal(left.length, 2);
      assert.ok(left.every((id) => stays.includes(id)));
      assert.match((await host.shoal('service', 'why', 'stays')).stdout, /no suitable node/);
      // At last it is told to go, and whoever waited for that is told.
      const waiting = host.shoal('node', 'drain', '--wait', last.name);
      await host.shoal('service', 'update', '--detach', '--drain', '', 'stays');
      assert.match((await waiting).stdout, /h4/);
      assert.deepEqual(await containersOn(last), []);
      await availability('active', last);
      await Promise.all([waitForRunning(host, 'bound', 2), waitForRunning(host, 'stays', 2)]);
      await removeAll('bound', 'stays');
    });
  });

  describe('a node that joins', () => {
    it('is given its share of what asks for it, start-first and within the budget; of the rest by command', async () => {
      await last.shoal('swarm', 'leave');
      await waitFor('the manager to see it', 30_000, async () => {
        await host.shoal('node', 'rm', '--force', last.name);
        return true;
      });
      const eight = ['--replicas', '8', '--update-parallelism', '0'];
      await dockerCreate('evened', ...eight, ...label('rebalance', '1'));
      await shoalCreate('asked', ...eight);
      await Promise.all([waitForRunning(host, 'evened', 8), waitForRunning(host, 'asked', 8)]);
      const since = await lifetimes.now();
      const { stdout: token } = await host.shoal('swarm', 'join-token', '-q', 'worker');
      await last.shoal('swarm', 'join', '--token', token.trim(), `${host.address}:2377`);
      await waitFor(
        'two tasks of evened to be on h4',
        90_000,
        async () => (await countOn('evened', last)) === 2,
      );
      const evened = await lifetimes.concurrency('evened', since);
      assert.equal(evened.fewest, 8);
      assert.ok(evened.most > 8);
      const wanted = await lifetimes.mostWanted(host, 'evened', since);
      assert.ok(wanted <= 9, `one at a time, as the budget says; ${wanted} were wanted`);
      assert.equal(await countOn('asked', last), 0);

      const before = (await tasksOf(host, 'asked')).map(({ ID }) => ID).sort();
      const preview = (await host.shoal('service', 'rebalance', '--dry-run', 'asked')).stdout;
      assert.match(preview, /^asked\.\d: node h4 has less to do than node h\d$/m);
      assert.equal(preview.trim().split('\n').length, 2);
      assert.deepEqual(
        (await tasksOf(host, 'asked')).map(({ ID }) => ID).sort(),
        before,
        'nothing was changed',
      );
      assert.equal((await host.shoal('service', 'rebalance', 'asked')).stdout, preview);
      await waitFor(
        'two tasks of asked to be on h4',
        60_000,
        async () => (await countOn('asked', last)) === 2,
      );
      const asked = await lifetimes.concurrency('asked', since);
      assert.equal(asked.fewest, 8);
      assert.ok(asked.most <= 10);
      assert.match((await host.shoal('service', 'rebalance', 'asked')).stdout, /nothing to move/);
      await removeAll('evened', 'asked');
    });
  });

  describe('a node that is cut off', () => {
    const policies = ['replaced', 'waits', 'stays', 'guarded', 'guarded-too'];

    /** Services of one task each, all of them on h4. */
    async function onLast(): Promise<void> {
      await availability('pause', ...lab.hosts.slice(0, 3));
      await Promise.all([
        dockerCreate('replaced'),
        dockerCreate('waits', ...label('partition', 'wait:40s')),
        shoalCreate('stays', '--partition', 'never'),
        dockerCreate('guarded', ...label('partition.stop-on-isolation', 'after:5s')),
        shoalCreate('guarded-too', '--stop-on-isolation', 'true', '--update-order', 'start-first'),
      ]);
      await Promise.all(policies.map((service) => waitForRunning(host, service, 1)));
      assert.equal((await containersOn(last)).length, policies.length);
      await availability('active', ...lab.hosts.slice(0, 3));
    }

    /** The service's task that runs on another node than h4. */
    async function elsewhere(service: string): Promise<boolean> {
      const { ID } = await nodeNamed(host, last.name);
      return (await tasksOf(host, service)).some((t) => t.Status.State === 'running' && t.NodeID !== ID);
    }

    const runsElsewhere = (service: string) =>
      waitFor(`${service} to run elsewhere`, 120_000, () => elsewhere(service));

    async function neverTwo(...services: string[]): Promise<void> {
      for (const service of services) {
        const { most } = await lifetimes.concurrency(service);
        assert.equal(most, 1, `${service} ran ${most} times at once`);
      }
    }

    it('has its tasks replaced at once, later or never; what must not run twice is stopped there before', async () => {
      await onLast();
      await lab.script('partition', last.name);
      try {
        await runsElsewhere('replaced');
        assert.equal(await elsewhere('waits'), false);
        await waitForReason(host, 'waits', /node h4 is down: replaced 40s after its loss/);
        await waitForReason(host, 'stays', /not replaced, as the service asks \(shoal\.partition=never\)/);
        await Promise.all(['guarded', 'guarded-too', 'waits'].map(runsElsewhere));
        assert.equal(await elsewhere('stays'), false);
        // Cut off, the node runs on what nobody asked it to stop.
        assert.deepEqual((await lifetimes.runningOn(last)).sort(), ['replaced', 'stays', 'waits']);
        await neverTwo('guarded', 'guarded-too');
        assert.equal((await lifetimes.concurrency('replaced')).most, 2);
      } finally {
        await lab.script('heal');
      }
      await waitFor('h4 to have only what stayed', 60_000, async () => {
        const left = await lifetimes.runningOn(last);
        return String(left) === 'stays';
      });
      await neverTwo('guarded', 'guarded-too', 'stays');
      assert.equal((await waitForRunning(host, 'stays', 1))[0]?.Status.Err ?? '', '');
      await removeAll(...policies);
    });

    it('is no other when only its engine hangs: as long as each service asks, and never two', async () => {
      await onLast();
      const pid = readFileSync(`/run/${lab.name}/${last.name}/engine.pid`, 'utf8').trim();
      await last.exec('kill', '-STOP', pid);
      try {
        await runsElsewhere('replaced');
        for (const service of policies.slice(1)) assert.equal(await elsewhere(service), false, service);
        await runsElsewhere('waits');
        for (const service of ['stays', 'guarded', 'guarded-too'])
          assert.equal(await elsewhere(service), false, service);
        assert.match(
          (await host.docker('service', 'ps', '--no-trunc', 'stays')).stdout,
          /Running .*engine unavailable/,
        );
      } finally {
        await last.exec('kill', '-CONT', pid);
      }
      await Promise.all(['guarded', 'guarded-too'].map(runsElsewhere));
      await neverTwo('guarded', 'guarded-too', 'stays');
      await waitForRunning(host, 'stays', 1);
      assert.equal(await elsewhere('stays'), false);
      await removeAll(...policies);
    });
  });
});
