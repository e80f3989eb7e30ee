/** Nodes that join, leave and change their roles; a cluster that is locked, or recovered from one survivor. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { ClusterNode } from '../../proto/docker.ts';
import { create, idle, nodeNamed, serviceOf, swarmOf, waitForReason, waitForRunning } from './asking.ts';
import {
  containerFingerprint,
  containersOn,
  isReady,
  leaderHost,
  nodesSeenBy,
  runningTasks,
  tasksOf,
} from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

/** What a locked manager is asked for. */
const lockedOut = [
  ['node', 'ls'],
  ['service', 'ls'],
  ['service', 'create', 'busybox'],
  ['stack', 'ls'],
  ['secret', 'ls'],
  ['config', 'ls'],
  ['swarm', 'join-token', 'worker'],
  ['swarm', 'unlock-key'],
  ['swarm', 'update', '--autolock', 'false'],
  ['swarm', 'ca'],
  ['swarm', 'init'],
  ['backup', 'create', '/tmp/never-written.backup'],
] as const;

function nodeKeyOf(host: LabHost): string {
  return readFileSync(join(host.dataDir, 'certificates', 'swarm-node.key'), 'utf8');
}

describe('lab: nodes come, go and change their roles', () => {
  let lab: Lab;
  let h1: LabHost;
  let h2: LabHost;
  let h3: LabHost;
  let h4: LabHost;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(4, 'shoal-faults');
    [h1, h2, h3, h4] = [lab.host(1), lab.host(2), lab.host(3), lab.host(4)];
    await Promise.all(lab.hosts.map((host) => host.startShoald()));
    await h1.shoal('swarm', 'init', '--advertise-addr', h1.address);
  });

  after(async () => {
    await lab?.down();
  });

  const tokenOf = async (role: 'worker' | 'manager', witness = h1) =>
    (await witness.shoal('swarm', 'join-token', '-q', role)).stdout.trim();
  const join_ = (host: LabHost, token: string, through = h1) =>
    host.shoal('swarm', 'join', '--token', token, `${through.address}:2377`);

  /** Waits until exactly these hosts are reachable managers, and every node is ready. */
  function managersAre(witness: LabHost, ...hosts: LabHost[]): Promise<ClusterNode[]> {
    const wanted = hosts.map((host) => host.name).sort();
    return waitFor(`the managers to be ${wanted}`, 40_000, async () => {
      const nodes = await nodesSeenBy(witness);
      const managers = nodes.filter((node) => node.ManagerStatus?.Reachability === 'reachable');
      const names = managers.map((node) => node.Description.Hostname).sort();
      const down = nodes.filter((node) => !isReady(node)).map((node) => node.Description.Hostname);
      if (String(names) === String(wanted) && down.length === 0) return nodes;
      throw new Error(`managers ${names}, not ready ${down}`);
    });
  }

  async function becomes(host: LabHost, role: 'worker' | 'manager'): Promise<void> {
    await waitFor(`${host.name} to be a ${role}`, 40_000, async () => {
      return (await swarmOf(host)).ControlAvailable === (role === 'manager');
    });
  }

  describe('joining', () => {
    it('is refused in words with a token that is none, of another cluster, or rotated', async () => {
      const old = await tokenOf('worker');
      await assert.rejects(join_(h4, 'SWMTKN-nonsense'), /invalid join token/);
      const parts = old.split('-');
      const foreign = [parts[0], parts[1], `0${parts[2]!.slice(1)}`.replace(/.$/, '0'), parts[3]].join('-');
      await assert.rejects(join_(h4, foreign), /does not match the join token/);
      const { stdout } = await h1.shoal('swarm', 'join-token', '--rotate', 'worker');
      assert.match(stdout, /Successfully rotated worker join token/);
      assert.notEqual(await tokenOf('worker'), old);
      await assert.rejects(join_(h4, old), /no longer\) valid.*rotated/);
      await assert.rejects(h4.docker('swarm', 'join', '--token', old, `${h1.address}:2377`), /rotated/);
      await assert.rejects(
        h4.shoal('swarm', 'join', '--token', old, '10.77.0.99:2377'),
        /no manager could be reached/,
      );
      assert.equal((await swarmOf(h4)).LocalNodeState, 'inactive', 'nothing is left of the attempts');
      assert.equal((await nodesSeenBy(h1)).length, 1);
    });

    it('works with the current one, and a second time is refused', async () => {
      const token = await tokenOf('worker');
      for (const host of [h2, h3, h4]) await join_(host, token);
      await managersAre(h1, h1);
      assert.equal((await nodesSeenBy(h1)).length, 4);
      await assert.rejects(join_(h4, token), /already part of a swarm/);
      await create(h1, 'web', '--replicas', '8', ...idle);
      await waitForRunning(h1, 'web', 8);
    });
  });

  describe('roles', () => {
    it('a worker is promoted and manages for real: it is in the group and its API answers', async () => {
      await assert.rejects(
        h2.shoal('node', 'ls'),
        /Worker nodes can't be used to view or modify cluster state/,
      );
      await h1.shoal('node', 'promote', 'h2', 'h3');
      await becomes(h2, 'manager');
      await becomes(h3, 'manager');
      await managersAre(h1, h1, h2, h3);
      await create(h3, 'viah3', '--replicas', '0', ...idle);
      await serviceOf(h2, 'viah3');
      await h2.shoal('service', 'rm', 'viah3');
      assert.ok(existsSync(join(h3.dataDir, 'raft', 'log-0000000001')));
    });

    it('a manager is demoted: out of the group, its API says worker, its log is gone, its containers stay', async () => {
      const before = await containerFingerprint(h3);
      await h1.shoal('node', 'demote', 'h3');
      await becomes(h3, 'worker');
      await managersAre(h1, h1, h2);
      await assert.rejects(h3.shoal('service', 'ls'), /Worker nodes can't be used/);
      await waitFor('the log of h3 to be gone', 20_000, () => !existsSync(join(h3.dataDir, 'raft')));
      assert.deepEqual(await containerFingerprint(h3), before);
      await h2.shoal('node', 'promote', 'h3');
      await managersAre(h1, h1, h2, h3);
    });

    it('the leader itself is demoted: another leads, nothing stops', async () => {
      const leader = await leaderHost(lab, h2);
      const witness = leader === h2 ? h3 : h2;
      const before = await Promise.all(lab.hosts.map(containerFingerprint));
      await leader.shoal('node', 'demote', leader.name);
      await becomes(leader, 'worker');
      await managersAre(witness, ...[h1, h2, h3].filter((host) => host !== leader));
      assert.notEqual(await leaderHost(lab, witness), leader);
      await create(witness, 'after', '--replicas', '0', ...idle);
      await witness.shoal('service', 'rm', 'after');
      assert.deepEqual(await Promise.all(lab.hosts.map(containerFingerprint)), before);
      await witness.shoal('node', 'promote', leader.name);
      await managersAre(witness, h1, h2, h3);
    });

    it('a worker takes the place of a manager in one step, which stays until it has caught up', async () => {
      await assert.rejects(h1.shoal('node', 'promote', 'h2', '--demote', 'h3'), /h2 is a manager already/);
      await assert.rejects(h1.shoal('node', 'promote', 'h4', '--demote', 'h4'), /the same node/);
      await assert.rejects(h1.shoal('node', 'promote', 'h4', 'h3', '--demote', 'h2'), /name one node/);
      const before = await Promise.all(lab.hosts.map(containerFingerprint));
      const { stdout } = await h1.shoal('node', 'promote', 'h4', '--demote', 'h3');
      assert.match(stdout, /Node h4 takes the place of manager h3 as soon as it has caught up/);
      await becomes(h4, 'manager');
      await becomes(h3, 'worker');
      await managersAre(h4, h1, h2, h4);
      await waitFor('the log of h3 to be gone', 20_000, () => !existsSync(join(h3.dataDir, 'raft')));
      await h2.shoal('node', 'promote', 'h3', '--demote', 'h4');
      await becomes(h4, 'worker');
      await managersAre(h1, h1, h2, h3);
      assert.deepEqual(await Promise.all(lab.hosts.map(containerFingerprint)), before);
    });

    it('what would lose the quorum is refused, and so is removing a node that is up or manages', async () => {
      await h3.killShoald('SIGKILL');
      await waitFor(
        'h3 to be unreachable',
        30_000,
        async () => (await nodeNamed(h1, 'h3')).ManagerStatus?.Reachability === 'unreachable',
      );
      await assert.rejects(h1.shoal('node', 'demote', 'h2'), /loss of quorum/);
      await assert.rejects(h1.shoal('node', 'demote', 'h1'), /loss of quorum/);
      await assert.rejects(h1.shoal('swarm', 'leave'), /quorum|force/i);
      await h3.startShoald();
      await managersAre(h1, h1, h2, h3);
      await assert.rejects(h1.shoal('node', 'rm', 'h4'), /is not down and can't be removed/);
      await assert.rejects(
        h1.shoal('node', 'rm', '--force', 'h2'),
        /must be demoted to worker before removal/,
      );
      await assert.rejects(h1.shoal('node', 'rm', 'nobody'), /no such node|node nobody not found/i);
      await managersAre(h1, h1, h2, h3);
    });
  });

  describe('availability', () => {
    const countOn = async (host: LabHost): Promise<number> => {
      const { ID } = await nodeNamed(h1, host.name);
      return (await runningTasks(h1, 'web')).filter((task) => task.NodeID === ID).length;
    };

    it('drain moves a node’s tasks away, and active lets new ones come', async () => {
      assert.ok((await countOn(h4)) > 0);
      await h1.docker('node', 'update', '--availability', 'drain', 'h4');
      await waitFor('h4 to be empty', 40_000, async () => (await countOn(h4)) === 0);
      await waitForRunning(h1, 'web', 8);
      await waitFor(
        'its containers to be stopped',
        30_000,
        async () => (await containersOn(h4)).length === 0,
      );
      assert.match((await h1.docker('node', 'ls')).stdout, /h4 +Ready +Drain/);
      await h1.shoal('node', 'update', '--availability', 'active', 'h4');
      await h1.shoal('service', 'scale', '--detach', 'web=11');
      await waitForRunning(h1, 'web', 11);
      assert.ok((await countOn(h4)) >= 2, 'the empty node gets the new ones');
      await h1.shoal('service', 'scale', '--detach', 'web=8');
      await waitForRunning(h1, 'web', 8);
    });

    it('pause keeps what runs and takes nothing new', async () => {
      const before = await containersOn(h4);
      await h1.shoal('node', 'update', '--availability', 'pause', 'h4');
      await create(h1, 'pinned', '--constraint', 'node.hostname==h4', ...idle);
      await waitForReason(h1, 'pinned', /1 of 4 nodes is paused/);
      assert.deepEqual(await containersOn(h4), before);
      await h1.shoal('node', 'update', '--availability', 'active', 'h4');
      await waitForRunning(h1, 'pinned', 1);
      await h1.shoal('service', 'rm', 'pinned');
    });
  });

  describe('leaving', () => {
    it('a worker leaves: its containers go, its tasks run elsewhere, it is removed and joins again', async () => {
      const old = await nodeNamed(h1, 'h4');
      assert.match((await h4.shoal('swarm', 'leave')).stdout, /Node left the swarm/);
      assert.deepEqual((await h4.engine('ps', '-aq')).stdout, '');
      assert.equal((await swarmOf(h4)).LocalNodeState, 'inactive');
      await waitFor('h4 to be down', 30_000, async () => (await nodeNamed(h1, 'h4')).Status.State === 'down');
      await waitForRunning(h1, 'web', 8);
      await h1.shoal('node', 'rm', 'h4');
      await join_(h4, await tokenOf('worker'));
      const nodes = await managersAre(h1, h1, h2, h3);
      assert.equal(nodes.length, 4);
      assert.ok(!nodes.some(({ ID }) => ID === old.ID));
    });

    it('a manager leaves by force only, the others go on, and it joins again as one', async () => {
      await assert.rejects(h3.shoal('swarm', 'leave'), /participating as a manager.*`--force`/s);
      await h3.shoal('swarm', 'leave', '--force');
      assert.equal((await swarmOf(h3)).LocalNodeState, 'inactive');
      await waitFor('h3 to be down', 30_000, async () => (await nodeNamed(h1, 'h3')).Status.State === 'down');
      const old = await nodeNamed(h1, 'h3');
      await create(h2, 'two', '--replicas', '0', ...idle);
      await h1.shoal('node', 'demote', old.ID).catch(() => undefined);
      await waitFor('the old node to be removed', 30_000, async () => {
        await h1.shoal('node', 'rm', '--force', old.ID);
        return true;
      });
      await join_(h3, await tokenOf('manager'));
      assert.equal((await managersAre(h1, h1, h2, h3)).length, 4);
      await serviceOf(h3, 'two');
      await h1.shoal('service', 'rm', 'two');
    });
  });

  describe('autolock', () => {
    it('a manager that was restarted is locked until it is given the key; its containers go on', async () => {
      // A locked node is silent: on a slow machine long enough to be taken for lost.
      await h1.shoal('swarm', 'update', '--dispatcher-heartbeat', '1m');
      const { stdout } = await h1.shoal('swarm', 'update', '--autolock', 'true');
      const key = /SWMKEY-1-\S+/.exec(stdout)?.[0] ?? '';
      assert.equal((await h1.docker('swarm', 'unlock-key', '-q')).stdout.trim(), key);
      const before = await containerFingerprint(h2);
      await waitFor('h2 to know of the key', 20_000, async () =>
        (await h2.shoal('swarm', 'unlock-key', '-q')).stdout.includes(key),
      );
      await waitFor('its certificate’s key to be sealed', 20_000, () =>
        /BEGIN ENCRYPTED PRIVATE KEY/.test(nodeKeyOf(h2)),
      );
      assert.match(nodeKeyOf(h4), /BEGIN PRIVATE KEY/, 'a worker comes up by itself');
      await h2.killShoald('SIGTERM');
      await h2.startShoald();
      assert.equal((await swarmOf(h2)).LocalNodeState, 'locked');
      for (const command of lockedOut) {
        await assert.rejects(
          h2.shoal(...command),
          /Swarm is encrypted and needs to be unlocked/,
          String(command),
        );
      }
      await assert.rejects(h2.docker('service', 'ls'), /Swarm is encrypted and needs to be unlocked/);
      await assert.rejects(h2.shoalReading('nonsense\n', 'swarm', 'unlock'), /invalid/);
      const wrong = `SWMKEY-1-${'A'.repeat(43)}`;
      await assert.rejects(
        h2.shoalReading(`${wrong}\n`, 'swarm', 'unlock'),
        /could not be unlocked: invalid key/,
      );
      assert.equal((await swarmOf(h2)).LocalNodeState, 'locked');
      await h2.shoalReading(`${key}\n`, 'swarm', 'unlock');
      await managersAre(h1, h1, h2, h3);
      await h2.shoal('node', 'ls');
      const rotated =
        /SWMKEY-1-\S+/.exec((await h1.shoal('swarm', 'unlock-key', '--rotate')).stdout)?.[0] ?? '';
      assert.notEqual(rotated, key);
      await waitFor('h2 to be sealed under the new key', 40_000, async () => {
        await h2.killShoald('SIGKILL');
        await h2.startShoald();
        return h2.shoalReading(`${rotated}\n`, 'swarm', 'unlock').then(
          () => true,
          // It had not yet heard of the new key: under the old one it learns of it.
          () => h2.shoalReading(`${key}\n`, 'swarm', 'unlock').then(() => false),
        );
      });
      await managersAre(h1, h1, h2, h3);
      await h1.shoal('swarm', 'update', '--autolock', 'false');
      await waitFor('h2 to need no key', 20_000, async () =>
        /no unlock key|^$/.test((await h2.shoal('swarm', 'unlock-key', '-q')).stdout.trim()),
      );
      await waitFor('h2 to start without one', 40_000, async () => {
        await h2.killShoald('SIGKILL');
        await h2.startShoald();
        return (await swarmOf(h2)).LocalNodeState === 'active';
      });
      await managersAre(h1, h1, h2, h3);
      const after = await containerFingerprint(h2);
      assert.deepEqual(
        before.filter((line) => !after.includes(line)),
        [],
      );
      await h1.shoal('swarm', 'update', '--dispatcher-heartbeat', '1s');
    });
  });

  describe('a quorum that is lost for good', () => {
    it('one survivor of three makes a new group of itself; workers and their containers stay', async () => {
      await waitForRunning(h1, 'web', 8);
      const before = await Promise.all([h1, h4].map(containerFingerprint));
      await Promise.all([h2.powerOff(), h3.powerOff()]);
      await assert.rejects(
        create(h1, 'nobody', '--replicas', '0', ...idle),
        /no leader|quorum|majority|managers/i,
      );
      await assert.rejects(
        h4.shoal('swarm', 'init', '--force-new-cluster'),
        /already part of a swarm|managers/,
      );
      await h1.shoal('swarm', 'init', '--force-new-cluster', '--advertise-addr', h1.address);
      await waitForRunning(h1, 'web', 8);
      const after = await Promise.all([h1, h4].map(containerFingerprint));
      for (const [index, lines] of before.entries()) {
        assert.deepEqual(
          lines.filter((line) => !after[index]!.includes(line)),
          [],
          'no container was restarted',
        );
      }
      assert.ok(isReady(await nodeNamed(h1, 'h4')), 'the worker is still there');
      assert.equal((await nodeNamed(h1, 'h1')).ManagerStatus?.Leader, true);
      await assert.rejects(serviceOf(h1, 'nobody'), /not found/);
      for (const name of ['h2', 'h3']) {
        await waitFor(`${name} to be removed`, 30_000, async () => {
          await h1.shoal('node', 'rm', name);
          return true;
        });
      }
      for (const host of [h2, h3]) {
        rmSync(host.dataDir, { recursive: true, force: true });
        await host.powerOn();
        await host.startShoald();
        await join_(host, await tokenOf('manager'));
      }
      await managersAre(h2, h1, h2, h3);
      const slots = (await tasksOf(h2, 'web')).filter((task) => task.DesiredState === 'running');
      assert.equal(new Set(slots.map((task) => task.Slot)).size, slots.length);
    });
  });
});
