/** The flags by which nodes come, change and go: `docker swarm join` and `docker node`. */
import assert from 'node:assert/strict';
import { at, docker, effect, type FlagCase, inspect, type Json, tryDocker, waitFor } from './case.ts';
import { dataPathIsLoopback, other, own, tokenFor, withJoined } from './other-daemon.ts';

const joining: readonly FlagCase[] = [
  own('swarm join', '', (world) =>
    withJoined(world, [], async (id) => {
      assert.equal((await inspect(world, 'node', id)).Spec.Role, 'worker');
      return effect('the node is in the cluster');
    }),
  ),
  own('swarm join', '--token', async (world) =>
    withJoined(world, ['--token', await tokenFor(world, 'manager')], async (id) => {
      await waitFor(
        'a second manager',
        30_000,
        async () => (await inspect(world, 'node', id)).ManagerStatus?.Reachability === 'reachable',
      );
      return effect("the role is the token's");
    }),
  ),
  own('swarm join', '--advertise-addr', async (world) => {
    const token = await tokenFor(world, 'manager');
    return withJoined(
      world,
      ['--token', token, '--advertise-addr', `${world.otherAddress}:2377`],
      async (id) => {
        const { ManagerStatus } = await inspect(world, 'node', id);
        assert.equal(ManagerStatus.Addr, `${world.otherAddress}:2377`);
        return effect('`ManagerStatus.Addr` of the node');
      },
    );
  }),
  own('swarm join', '--availability', (world) =>
    withJoined(world, ['--availability', 'pause'], async (id) => {
      assert.equal((await inspect(world, 'node', id)).Spec.Availability, 'pause');
      return effect('`Spec.Availability` of the node');
    }),
  ),
  own('swarm join', '--data-path-addr', (world) =>
    withJoined(world, ['--data-path-addr', '127.0.0.1'], (id) => dataPathIsLoopback(world, world.socket, id)),
  ),
  own('swarm join', '--listen-addr', async (world) => {
    const token = await tokenFor(world, 'manager');
    const flags = [
      '--token',
      token,
      '--listen-addr',
      `${world.otherAddress}:2398`,
      '--advertise-addr',
      `${world.otherAddress}:2398`,
    ];
    return withJoined(world, flags, async (id) => {
      assert.match(await world.otherExec('cat', '/proc/net/tcp'), /:095E 00000000:0000 0A /);
      assert.ok(id);
      return effect('the port listens there');
    });
  }),
];

function nodeUpdate(
  flag: string,
  args: readonly string[],
  path: string,
  value: Json,
  first: readonly string[] = [],
): FlagCase {
  return own('node update', flag, (world) =>
    withJoined(world, [], async (id) => {
      if (first.length > 0) await docker(world, ['node', 'update', ...first, id]);
      await docker(world, ['node', 'update', ...args, id]);
      assert.deepEqual(at(await inspect(world, 'node', id), path), value);
      return effect(`\`${path}\` of the node`);
    }),
  );
}

const nodes: readonly FlagCase[] = [
  nodeUpdate('--availability', ['--availability', 'drain'], 'Spec.Availability', 'drain'),
  nodeUpdate('--label-add', ['--label-add', 'disk=ssd'], 'Spec.Labels', { disk: 'ssd' }),
  nodeUpdate('--label-rm', ['--label-rm', 'disk'], 'Spec.Labels', {}, ['--label-add', 'disk=ssd']),
  nodeUpdate('--role', ['--role', 'manager'], 'Spec.Role', 'manager'),
  own('node promote', '', (world) =>
    withJoined(world, [], async (id) => {
      await docker(world, ['node', 'promote', id]);
      await waitFor(
        'a second manager',
        30_000,
        async () => (await inspect(world, 'node', id)).ManagerStatus?.Reachability === 'reachable',
      );
      await docker(world, ['node', 'demote', id]);
      return effect('the node becomes a manager');
    }),
  ),
  own('node demote', '', async (world) =>
    withJoined(world, ['--token', await tokenFor(world, 'manager')], async (id) => {
      await docker(world, ['node', 'demote', id]);
      await waitFor(
        'it to be a manager no more',
        30_000,
        async () => (await inspect(world, 'node', id)).ManagerStatus === undefined,
      );
      return effect('the manager becomes a worker');
    }),
  ),
  own('node rm', '', (world) =>
    withJoined(world, [], async (id) => {
      await docker(world, ['swarm', 'leave'], other(world));
      await waitFor(
        'the node to be down',
        30_000,
        async () => (await inspect(world, 'node', id)).Status.State === 'down',
      );
      await docker(world, ['node', 'rm', id]);
      assert.notEqual((await tryDocker(world, ['node', 'inspect', id])).status, 0);
      return effect('a node that is down is gone');
    }),
  ),
  own('node rm', '--force', (world) =>
    withJoined(world, [], async (id) => {
      assert.match((await tryDocker(world, ['node', 'rm', id])).stderr, /is not down/);
      await docker(world, ['node', 'rm', '--force', id]);
      assert.notEqual((await tryDocker(world, ['node', 'inspect', id])).status, 0);
      return effect('a node that is up is gone; without it that is refused');
    }),
  ),
];

/** They run one after the other. */
export const membershipCases: readonly FlagCase[] = [...joining, ...nodes];
