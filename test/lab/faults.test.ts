/** Engines that die or hang, hosts that freeze, networks that part: three managers on h1 to h3, a worker on h4. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { create, idle, nodeNamed, serviceOf, waitForReason, waitForRunning } from './asking.ts';
import {
  clientOf,
  containersOn,
  formCluster,
  leaderHost,
  nodesSeenBy,
  runningTasks,
  tasksOf,
} from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

describe('lab: engines, hosts and networks that fail', () => {
  let lab: Lab;
  let first: LabHost;
  let worker: LabHost;
  const replicas = 8;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(4, 'shoal-faults');
    await formCluster(lab, 3);
    first = lab.host(1);
    worker = lab.host(4);
    await create(first, 'web', '--replicas', String(replicas), '--restart-delay', '500ms', ...idle);
    await waitForRunning(first, 'web', replicas);
  });

  after(async () => {
    await lab?.down();
  });

  /** Every slot has one task that runs and one container, on every host that answers; nothing more. */
  async function converged(witness: LabHost): Promise<void> {
    await waitFor('every slot to have exactly one task and one container', 90_000, async () => {
      const nodes = await nodesSeenBy(witness);
      const notReady = nodes.find((node) => node.Status.State !== 'ready' || node.Status.Message);
      if (notReady) throw new Error(`${notReady.Description.Hostname} is ${notReady.Status.State}`);
      const running = await runningTasks(witness, 'web');
      const wanted = (await tasksOf(witness, 'web')).filter((task) => task.DesiredState === 'running');
      const slots = new Set(running.map((task) => task.Slot));
      const known = running.map((task) => task.Status.ContainerStatus?.ContainerID ?? '').sort();
      const there = (await Promise.all(lab.hosts.map(containersOn))).flat().sort();
      const numbers = `${wanted.length} wanted, ${running.length} run, ${slots.size} slots, ${there.length} containers`;
      if (wanted.length !== replicas || running.length !== replicas || slots.size !== replicas) {
        throw new Error(numbers);
      }
      assert.deepEqual(there, known, numbers);
      return true;
    });
  }

  const saysSo = (host: LabHost) =>
    waitFor('the node to say that its engine does not answer', 60_000, async () =>
      /container engine does not answer/.test((await nodeNamed(first, host.name)).Status.Message ?? ''),
    );

  /** After half a minute without its engine a node's tasks run elsewhere, and those that were there say why. */
  async function movedFrom(host: LabHost): Promise<void> {
    assert.match((await first.shoal('node', 'ls')).stdout, new RegExp(`${host.name} .*unavailable`));
    assert.match((await first.docker('node', 'inspect', '--pretty', host.name)).stdout, /does not answer/);
    await create(first, 'later', '--constraint', `node.hostname==${host.name}`, ...idle);
    await waitForReason(first, 'later', /without its engine|placement constraint/);
    await first.shoal('service', 'rm', 'later');
    await waitFor('every slot to run elsewhere', 120_000, async () => {
      const running = await runningTasks(first, 'web', host.name);
      return new Set(running.map((task) => task.Slot)).size === replicas;
    });
    const { ID } = await nodeNamed(first, host.name);
    const left = (await tasksOf(first, 'web')).filter((task) => task.NodeID === ID);
    assert.ok(left.length > 0 && left.every((task) => task.DesiredState === 'shutdown'));
    assert.ok(left.every((task) => /engine unavailable/.test(task.Status.Err ?? '')));
    assert.match((await first.docker('service', 'ps', '--no-trunc', 'web')).stdout, /engine unavailable/);
  }

  describe('an engine', () => {
    it('that hangs for a moment: the node says so, and not one container is touched when it goes on', async () => {
      const before = await containersOn(worker);
      assert.ok(before.length > 0);
      const pid = readFileSync(`/run/${lab.name}/${worker.name}/engine.pid`, 'utf8').trim();
      await worker.exec('kill', '-STOP', pid);
      try {
        await saysSo(worker);
      } finally {
        await worker.exec('kill', '-CONT', pid);
      }
      await converged(first);
      assert.deepEqual(await containersOn(worker), before);
    });

    it('that was killed: the node says so, its tasks run elsewhere; back again, each slot runs once', async () => {
      await lab.script('crash', worker.name);
      await saysSo(worker);
      await movedFrom(worker);
      await lab.script('start', worker.name);
      await converged(first);
      // Nothing moves back by itself; what comes next needs tasks there.
      await first.shoal('service', 'update', '--force', '--quiet', '--update-parallelism', '0', 'web');
      await converged(first);
      assert.ok((await containersOn(worker)).length > 0);
    });
  });

  describe('a host', () => {
    it('that freezes: its tasks run elsewhere; thawed, it gives up what it no longer has', async () => {
      await lab.script('freeze', worker.name);
      try {
        await waitFor('every slot to run elsewhere', 60_000, async () => {
          const running = await runningTasks(first, 'web', worker.name);
          return new Set(running.map((task) => task.Slot)).size === replicas;
        });
        const { ID } = await nodeNamed(first, worker.name);
        const lost = (await tasksOf(first, 'web')).filter((task) => task.NodeID === ID);
        assert.ok(lost.length > 0 && lost.every((task) => task.DesiredState !== 'running'));
        assert.equal((await nodeNamed(first, worker.name)).Status.State, 'down');
      } finally {
        await lab.script('thaw', worker.name);
      }
      await converged(first);
    });

    it('that leads and freezes: another leads; thawed, it follows', async () => {
      const leader = await leaderHost(lab, first);
      const witness = lab.hosts.find((host) => host !== leader && host !== worker)!;
      await lab.script('freeze', leader.name);
      try {
        await waitFor('another leader', 30_000, async () => (await leaderHost(lab, witness)) !== leader);
        await create(witness, 'frozen', '--replicas', '0', ...idle);
      } finally {
        await lab.script('thaw', leader.name);
      }
      await converged(witness);
      await waitFor('the thawed manager to know', 30_000, () => serviceOf(leader, 'frozen'));
      await witness.shoal('service', 'rm', 'frozen');
    });
  });

  describe('a network', () => {
    it('that parts the leader from the majority: it acknowledges nothing, the others go on, and it heals', async () => {
      const leader = await leaderHost(lab, first);
      const others = lab.hosts.filter((host) => host !== leader && host !== worker);
      const witness = others[0]!;
      await lab.script('partition', leader.name, worker.name);
      try {
        const lost = create(leader, 'lost', '--replicas', '1', ...idle);
        await assert.rejects(lost, /no leader|quorum|majority|managers/i);
        await assert.rejects(
          leader.shoal('service', 'ls'),
          /no leader|quorum|majority|managers/i,
          'nor reads',
        );
        await waitFor('another leader', 30_000, async () => (await leaderHost(lab, witness)) !== leader);
        await create(witness, 'kept', '--replicas', '1', ...idle);
        await waitForRunning(witness, 'kept', 1);
        await waitFor('every slot to run on the majority’s side', 60_000, async () => {
          const running = await runningTasks(witness, 'web');
          const ids = new Set(
            (await nodesSeenBy(witness)).filter((n) => n.Status.State === 'ready').map((n) => n.ID),
          );
          return (
            new Set(running.filter((t) => ids.has(t.NodeID as never)).map((t) => t.Slot)).size === replicas
          );
        });
      } finally {
        await lab.script('heal');
      }
      await waitForRunning(leader, 'kept', 1);
      await assert.rejects(serviceOf(witness, 'lost'), /not found/);
      await assert.rejects(serviceOf(leader, 'lost'), /not found/);
      await witness.shoal('service', 'rm', 'kept');
      await waitFor(
        'the containers of kept to be gone',
        30_000,
        async () => (await clientOf(witness).get<unknown[]>('/tasks')).length > 0,
      );
      await converged(witness);
    });

    it('that carries in one direction only: a leader that hears nobody gives way', async () => {
      const leader = await leaderHost(lab, first);
      const others = lab.hosts.filter((host) => host !== leader && host !== worker);
      for (const host of others) await lab.script('cut', '--oneway', host.name, leader.name);
      try {
        const witness = others[0]!;
        await waitFor('another leader', 30_000, async () => (await leaderHost(lab, witness)) !== leader);
        await create(witness, 'oneway', '--replicas', '0', ...idle);
      } finally {
        await lab.script('heal');
      }
      await waitFor('the deaf manager to hear of it', 30_000, () => serviceOf(leader, 'oneway'));
      await first.shoal('service', 'rm', 'oneway');
      await converged(first);
    });
  });
});
