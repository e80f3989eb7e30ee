/**
 * What is left when managers are lost for good: a group made new from any one survivor, and a backup, taken while
 * clients write, restored on a fresh host with another address. Workers and their containers stay.
 */
import assert from 'node:assert/strict';
import { rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { create, idle, nodeNamed, serviceOf, waitForRunning } from './asking.ts';
import { clientOf, containerFingerprint, formCluster, isReady, nodesSeenBy } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

const patienceMs = 40_000;

describe('lab: managers are lost for good', () => {
  let lab: Lab;
  let managers: LabHost[];
  let worker: LabHost;
  let fresh: LabHost;
  let file: string;
  let key: string;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(6, 'shoal-recovery');
    managers = [lab.host(1), lab.host(2), lab.host(3)];
    worker = lab.host(4);
    fresh = lab.host(5);
    file = join('/var/lib', lab.name, 'cluster.backup');
    await formCluster({ hosts: lab.hosts.slice(0, 4) } as Lab, 3);
    // A worker that a busy machine keeps from finding its new leader in time would be taken for lost.
    await managers[0]!.shoal('swarm', 'update', '--dispatcher-heartbeat', '5s');
    for (const { name } of managers)
      await managers[0]!.shoal('node', 'update', '--availability', 'drain', name);
    await create(managers[0]!, 'web', '--replicas', '4', '--network', 'host', ...idle);
    await waitForRunning(managers[0]!, 'web', 4);
  });

  after(async () => {
    await lab?.down();
  });

  const tokenOf = async (role: 'worker' | 'manager', witness: LabHost) =>
    (await witness.shoal('swarm', 'join-token', '-q', role)).stdout.trim();

  /** Kills managers and forgets what was on their disks. */
  async function lose(hosts: readonly LabHost[]): Promise<void> {
    await Promise.all(hosts.map((host) => host.killShoald('SIGKILL')));
    for (const { dataDir } of hosts) rmSync(dataDir, { recursive: true, force: true });
  }

  async function threeManagers(witness: LabHost): Promise<void> {
    await waitFor('three managers and all nodes ready', patienceMs, async () => {
      const nodes = await nodesSeenBy(witness);
      const reachable = nodes.filter((node) => node.ManagerStatus?.Reachability === 'reachable');
      return reachable.length === 3 && nodes.length === 4 && nodes.every(isReady);
    });
  }

  async function rejoin(hosts: readonly LabHost[], witness: LabHost): Promise<void> {
    for (const { name } of hosts) {
      await waitFor(`${name} to be removed`, patienceMs, async () => {
        await witness.shoal('node', 'rm', '--force', (await nodeNamed(witness, name)).ID);
        return true;
      });
    }
    const token = await tokenOf('manager', witness);
    await Promise.all(hosts.map((host) => host.startShoald()));
    for (const host of hosts) {
      const flags = ['--token', token, '--availability', 'drain'];
      await host.shoal('swarm', 'join', ...flags, `${witness.address}:2377`);
    }
    await threeManagers(witness);
  }

  describe('a new group from one survivor', () => {
    for (const number of [1, 2, 3]) {
      it(`which is h${number}: the worker, its containers and the tokens stay`, async () => {
        const survivor = lab.host(number);
        const others = managers.filter((host) => host !== survivor);
        const before = await containerFingerprint(worker);
        const token = await tokenOf('worker', survivor);
        await lose(others);
        await survivor.shoal('swarm', 'init', '--force-new-cluster');
        await waitFor('the worker to be ready', patienceMs, async () =>
          isReady(await nodeNamed(survivor, 'h4')),
        );
        await waitForRunning(survivor, 'web', 4);
        assert.deepEqual(await containerFingerprint(worker), before);
        assert.equal(await tokenOf('worker', survivor), token);
        await rejoin(others, survivor);
        assert.deepEqual(await containerFingerprint(worker), before);
      });
    }
  });

  describe('a backup', () => {
    it('is taken on a follower while clients write, and holds all that was acknowledged before', async () => {
      const follower = await waitFor('a follower', patienceMs, async () => {
        const nodes = await nodesSeenBy(managers[0]!);
        const name = nodes.find((node) => node.ManagerStatus && !node.ManagerStatus.Leader)?.Description
          .Hostname;
        return managers.find((host) => host.name === name);
      });
      const client = clientOf(managers[0]!);
      let isOver = false;
      let acknowledged = 0;
      const load = (async () => {
        for (let number = 1; !isOver; number += 1) {
          await client.post('/configs/create', { Name: `load-${number}`, Data: 'bG9hZA==', Labels: {} });
          acknowledged = number;
        }
      })();
      await waitFor('writes', patienceMs, () => acknowledged >= 50);
      await managers[0]!.shoalReading('hush-hush', 'secret', 'create', 'hush', '-');
      const acknowledgedBefore = acknowledged;
      const { stdout } = await follower.shoal('backup', 'create', file);
      const acknowledgedAfter = acknowledged;
      isOver = true;
      await load;
      assert.ok(acknowledgedAfter > acknowledgedBefore, 'nobody waited for the backup');
      key = /SHOALBACKUP-1-\S+/.exec(stdout)?.[0] ?? '';
      assert.notEqual(key, '', 'without autolock a key is made and printed');
      assert.equal(statSync(file).mode & 0o777, 0o600);
      await assert.rejects(follower.shoal('backup', 'create', file), /is there already/);
      const configs = /(\d+) configs/.exec(
        (await fresh.shoalReading(key, 'backup', 'verify', file)).stdout,
      )?.[1];
      assert.ok(Number(configs) >= acknowledgedBefore, `${configs} of ${acknowledgedBefore}`);
    });

    it('is rehearsed by a host that runs no daemon, and refused with another key', async () => {
      const { stdout } = await fresh.shoalReading(key, 'backup', 'verify', file);
      assert.match(stdout, /Managers: +3 \(h\d, h\d, h\d\)/);
      assert.match(stdout, /Services: +1 \(web\), 4 tasks wanted/);
      assert.match(stdout, /It can be restored/);
      assert.match((await fresh.shoal('backup', 'inspect', file)).stdout, /^Cluster: +\w{25}$/m);
      await assert.rejects(
        fresh.shoalReading('nonsense', 'backup', 'verify', file),
        /does not open the backup/,
      );
    });

    it('is restored on a fresh host at another address: the same cluster; its containers are not touched', async () => {
      const cluster = await clientOf(managers[0]!).get<{ ID: string; JoinTokens: unknown }>('/swarm');
      const before = await containerFingerprint(worker);
      await lose(managers);
      await fresh.startShoald();
      const keyFile = `${file}.key`;
      writeFileSync(keyFile, key, { mode: 0o600 });
      const at = ['--advertise-addr', fresh.address, '--availability', 'drain'];
      const { stdout } = await fresh.shoal('backup', 'restore', file, '--key-file', keyFile, ...at);
      const restored = await clientOf(fresh).get<{ ID: string; JoinTokens: unknown }>('/swarm');
      assert.deepEqual([restored.ID, restored.JoinTokens], [cluster.ID, cluster.JoinTokens]);
      for (const { name } of managers) {
        const lost = await nodeNamed(fresh, name);
        assert.deepEqual([lost.Status.State, lost.Spec.Role], ['down', 'worker']);
      }
      assert.equal((await nodeNamed(fresh, 'h4')).Status.State, 'disconnected');
      await assert.rejects(
        fresh.shoal('backup', 'restore', file, '--key-file', keyFile),
        /already part of a swarm/,
      );

      // The command that restore printed, as it is.
      const told = /shoal (swarm join --token \S+ \S+)/.exec(stdout)![1]!.split(' ');
      await worker.shoal(...told);
      await waitFor('the worker to be ready', patienceMs, async () => isReady(await nodeNamed(fresh, 'h4')));
      await waitForRunning(fresh, 'web', 4);
      assert.deepEqual(await containerFingerprint(worker), before);
      await assert.rejects(worker.shoal(...told), /already part of a swarm/, 'it has found them');
      await serviceOf(fresh, 'web');
    });

    it('goes on: new managers and workers join with the old tokens, secrets are there, a service is scaled', async () => {
      const before = await containerFingerprint(worker);
      const newcomer = lab.host(6);
      await newcomer.startShoald();
      await newcomer.shoal(
        'swarm',
        'join',
        '--token',
        await tokenOf('manager', fresh),
        `${fresh.address}:2377`,
      );
      await waitFor('two managers', patienceMs, async () => {
        const nodes = await nodesSeenBy(newcomer);
        return nodes.filter((node) => node.ManagerStatus?.Reachability === 'reachable').length === 2;
      });
      for (const { name } of managers) await fresh.shoal('node', 'rm', name);
      await create(
        newcomer,
        'reads',
        '--secret',
        'hush',
        '--network',
        'host',
        '--constraint',
        'node.hostname==h4',
        ...idle,
      );
      await waitForRunning(newcomer, 'reads', 1);
      await newcomer.shoal('service', 'scale', '--detach', 'web=6');
      await waitForRunning(newcomer, 'web', 6);
      const after = await containerFingerprint(worker);
      assert.deepEqual(
        before.filter((line) => !after.includes(line)),
        [],
      );
      await worker.killShoald('SIGKILL');
      await worker.startShoald();
      await waitFor('the worker to be ready', patienceMs, async () => isReady(await nodeNamed(fresh, 'h4')));
    });
  });
});
