/**
 * The flags by which clusters are made and looked after. Most are tried on the other daemon, which is put into a
 * cluster of its own and leaves it again; the cases therefore run one after the other.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createRoot } from '../../../manager/ca/root.ts';
import {
  at,
  docker,
  effect,
  type FlagCase,
  inspect,
  type Json,
  type Result,
  tryDocker,
  type World,
  waitFor,
} from './case.ts';
import {
  dataPathIsLoopback,
  other,
  own,
  swarmInfo,
  tokenFor,
  withJoined,
  withSwarm,
} from './other-daemon.ts';

const hour = 3_600e9;

function initCase(flag: string, args: readonly string[], path: string, value: Json): FlagCase {
  return own('swarm init', `--${flag}`, (world) =>
    withSwarm(world, args, (swarm) => {
      assert.deepEqual(at(swarm.Cluster, path), value, path);
      return effect(`\`${path}\` of the cluster`);
    }),
  );
}

const externalCa = 'protocol=cfssl,url=https://ca.test';

const init: readonly FlagCase[] = [
  own('swarm init', '', (world) =>
    withSwarm(world, [], (swarm, output) => {
      assert.equal(swarm.ControlAvailable, true);
      assert.match(output, /swarm join --token SWMTKN-1-/);
      return effect('a cluster with this node as its manager; the token to join with');
    }),
  ),
  own('swarm init', '--advertise-addr', (world) =>
    withSwarm(world, ['--advertise-addr', 'lo:2399'], (swarm) => {
      assert.deepEqual([swarm.NodeAddr, swarm.RemoteManagers[0].Addr], ['127.0.0.1', '127.0.0.1:2399']);
      return effect('`Swarm.NodeAddr` and `Swarm.RemoteManagers` of `docker info`');
    }),
  ),
  own('swarm init', '--listen-addr', (world) =>
    withSwarm(world, ['--listen-addr', '127.0.0.1:2398'], async () => {
      assert.match(await world.otherExec('cat', '/proc/net/tcp'), / 0100007F:095E 00000000:0000 0A /);
      return effect('the port listens there');
    }),
  ),
  own('swarm init', '--data-path-addr', (world) =>
    withSwarm(world, ['--data-path-addr', 'lo'], (swarm) =>
      dataPathIsLoopback(world, world.otherSocket, swarm.NodeID),
    ),
  ),
  initCase('autolock', ['--autolock'], 'Spec.EncryptionConfig.AutoLockManagers', true),
  own('swarm init', '--availability', (world) =>
    withSwarm(world, ['--availability', 'drain'], async () => {
      const { stdout } = await docker(
        world,
        ['node', 'inspect', '--format', '{{.Spec.Availability}}', 'self'],
        other(world),
      );
      assert.equal(stdout.trim(), 'drain');
      return effect('`Spec.Availability` of the node');
    }),
  ),
  initCase('cert-expiry', ['--cert-expiry', '48h'], 'Spec.CAConfig.NodeCertExpiry', 48 * hour),
  initCase('data-path-port', ['--data-path-port', '4799'], 'DataPathPort', 4799),
  initCase('default-addr-pool', ['--default-addr-pool', '10.99.0.0/16'], 'DefaultAddrPool', ['10.99.0.0/16']),
  initCase(
    'default-addr-pool-mask-length',
    ['--default-addr-pool', '10.99.0.0/16', '--default-addr-pool-mask-length', '26'],
    'SubnetSize',
    26,
  ),
  initCase('dispatcher-heartbeat', ['--dispatcher-heartbeat', '3s'], 'Spec.Dispatcher.HeartbeatPeriod', 3e9),
  own(
    'swarm init',
    '--external-ca',
    (world) =>
      withSwarm(world, ['--external-ca', externalCa], (swarm) => {
        assert.equal(swarm.Cluster.Spec.CAConfig.ExternalCAs.length, 1);
        return effect('`Spec.CAConfig.ExternalCAs` of the cluster');
      }),
    /external certificate authorit/i,
  ),
  own('swarm init', '--force-new-cluster', (world) =>
    withSwarm(world, [], async (before) => {
      await docker(world, ['swarm', 'init', '--force-new-cluster'], other(world));
      const after = await swarmInfo(world, world.otherSocket);
      assert.deepEqual(
        [after.NodeID, after.Cluster.ID, after.Managers],
        [before.NodeID, before.Cluster.ID, 1],
      );
      return effect('the same cluster with this manager alone');
    }),
  ),
  initCase('max-snapshots', ['--max-snapshots', '3'], 'Spec.Raft.KeepOldSnapshots', 3),
  initCase('snapshot-interval', ['--snapshot-interval', '5000'], 'Spec.Raft.SnapshotInterval', 5000),
  initCase(
    'task-history-limit',
    ['--task-history-limit', '2'],
    'Spec.Orchestration.TaskHistoryRetentionLimit',
    2,
  ),
];

const tokens: readonly FlagCase[] = [
  own('swarm join-token', '', async (world) => {
    assert.match(
      (await docker(world, ['swarm', 'join-token', 'worker'])).stdout,
      /swarm join --token SWMTKN-1-/,
    );
    return effect('the command to join with');
  }),
  own('swarm join-token', '--quiet', async (world) => {
    assert.match(await tokenFor(world, 'manager'), /^SWMTKN-1-\w+-\w+$/);
    return effect('the token only');
  }),
  own('swarm join-token', '--rotate', async (world) => {
    const before = await tokenFor(world, 'worker');
    await docker(world, ['swarm', 'join-token', '--rotate', 'worker']);
    assert.notEqual(await tokenFor(world, 'worker'), before);
    return effect('another token');
  }),
  own('swarm leave', '', async (world) =>
    withJoined(world, [], async (id) => {
      await docker(world, ['swarm', 'leave'], other(world));
      await waitFor(
        'the node to be down',
        30_000,
        async () => (await inspect(world, 'node', id)).Status.State === 'down',
      );
      return effect('a worker leaves; its node is down');
    }),
  ),
  own('swarm leave', '--force', async (world) =>
    withSwarm(world, [], async () => {
      const refused = await tryDocker(world, ['swarm', 'leave'], other(world));
      assert.match(refused.stderr, /Use `--force`/);
      await docker(world, ['swarm', 'leave', '--force'], other(world));
      assert.equal((await swarmInfo(world, world.otherSocket)).LocalNodeState, 'inactive');
      return effect('a manager leaves; without it that is refused');
    }),
  ),
  own('swarm unlock', '', async (world) =>
    withSwarm(world, ['--autolock'], async (_, output) => {
      const key = /SWMKEY-1-\S+/.exec(output)?.[0] ?? '';
      await world.restartOther();
      assert.equal((await swarmInfo(world, world.otherSocket)).LocalNodeState, 'locked');
      await docker(world, ['swarm', 'unlock'], { ...other(world), input: `${key}\n` });
      await waitFor(
        'the node to be unlocked',
        30_000,
        async () => (await swarmInfo(world, world.otherSocket)).LocalNodeState === 'active',
      );
      return effect('a locked manager goes on');
    }),
  ),
  own('swarm unlock-key', '', async (world) =>
    withSwarm(world, ['--autolock'], async () => {
      assert.match((await docker(world, ['swarm', 'unlock-key'], other(world))).stdout, /SWMKEY-1-/);
      return effect('the key, and what to do with it');
    }),
  ),
  own('swarm unlock-key', '--quiet', async (world) =>
    withSwarm(world, ['--autolock'], async () => {
      assert.match(
        (await docker(world, ['swarm', 'unlock-key', '-q'], other(world))).stdout,
        /^SWMKEY-1-\S+\n$/,
      );
      return effect('the key only');
    }),
  ),
  own('swarm unlock-key', '--rotate', async (world) =>
    withSwarm(world, ['--autolock'], async () => {
      const key = async (...flags: string[]) =>
        (await docker(world, ['swarm', 'unlock-key', '-q', ...flags], other(world))).stdout.trim();
      const before = await key();
      await docker(world, ['swarm', 'unlock-key', '--rotate'], other(world));
      assert.notEqual(await key(), before);
      return effect('another key');
    }),
  ),
];

function updateCase(flag: string, args: readonly string[], path: string, value: Json): FlagCase {
  return own(
    'swarm update',
    `--${flag}`,
    (world) =>
      withSwarm(world, [], async () => {
        await docker(world, ['swarm', 'update', ...args], other(world));
        const { Cluster } = await swarmInfo(world, world.otherSocket);
        assert.deepEqual(at(Cluster, path), value);
        return effect(`\`${path}\` of the cluster`);
      }),
    flag === 'external-ca' ? /external certificate authorit/i : undefined,
  );
}

const updates: readonly FlagCase[] = [
  updateCase('autolock', ['--autolock'], 'Spec.EncryptionConfig.AutoLockManagers', true),
  updateCase('cert-expiry', ['--cert-expiry', '48h'], 'Spec.CAConfig.NodeCertExpiry', 48 * hour),
  updateCase(
    'dispatcher-heartbeat',
    ['--dispatcher-heartbeat', '3s'],
    'Spec.Dispatcher.HeartbeatPeriod',
    3e9,
  ),
  updateCase(
    'external-ca',
    ['--external-ca', externalCa],
    'Spec.CAConfig.ExternalCAs.0.URL',
    'https://ca.test',
  ),
  updateCase('max-snapshots', ['--max-snapshots', '3'], 'Spec.Raft.KeepOldSnapshots', 3),
  updateCase('snapshot-interval', ['--snapshot-interval', '5000'], 'Spec.Raft.SnapshotInterval', 5000),
  updateCase(
    'task-history-limit',
    ['--task-history-limit', '2'],
    'Spec.Orchestration.TaskHistoryRetentionLimit',
    2,
  ),
];

async function rootOf(world: World): Promise<string> {
  return (await docker(world, ['swarm', 'ca'], other(world))).stdout.trim();
}

/** `swarm ca --rotate` with flags, on a cluster of the other daemon; answers what it printed. */
async function rotated(
  world: World,
  flags: readonly string[],
  check: (before: string, output: string) => Promise<Result>,
): Promise<Result> {
  return withSwarm(world, [], async () => {
    const before = await rootOf(world);
    const { stdout } = await docker(world, ['swarm', 'ca', '--rotate', ...flags], other(world));
    return check(before, stdout);
  });
}

async function rootBecomesAnother(world: World, before: string): Promise<void> {
  await waitFor('another root', 30_000, async () => (await rootOf(world)) !== before);
}

const random = { bytes: (count: number) => randomBytes(count), float: () => 0.5 };

async function madeRoot(world: World): Promise<{ cert: string; key: string; pem: string }> {
  const [cert, key] = [join(world.folder, 'root.pem'), join(world.folder, 'root.key')];
  const root = await createRoot({ now: Date.now(), random });
  writeFileSync(cert, root.certificatePem);
  writeFileSync(key, root.keyPem);
  return { cert, key, pem: root.certificatePem.trim() };
}

const authority: readonly FlagCase[] = [
  own('swarm ca', '', async (world) => {
    assert.match((await docker(world, ['swarm', 'ca'])).stdout, /^-----BEGIN CERTIFICATE-----/);
    return effect('the root certificate');
  }),
  own('swarm ca', '--rotate', (world) =>
    rotated(world, [], async (before, output) => {
      const after = await rootOf(world);
      assert.notEqual(after, before);
      assert.ok(output.includes(after));
      return effect('another root certificate');
    }),
  ),
  own('swarm ca', '--detach', (world) =>
    rotated(world, ['--detach'], async (before) => {
      await rootBecomesAnother(world, before);
      return effect('returns at once');
    }),
  ),
  own('swarm ca', '--quiet', (world) =>
    rotated(world, ['--quiet'], async (_, output) => {
      assert.equal(output, '');
      return effect('no progress is printed');
    }),
  ),
  own('swarm ca', '--cert-expiry', (world) =>
    rotated(world, ['--detach', '--cert-expiry', '48h'], async () => {
      const { Cluster } = await swarmInfo(world, world.otherSocket);
      assert.equal(Cluster.Spec.CAConfig.NodeCertExpiry, 48 * hour);
      return effect('`Spec.CAConfig.NodeCertExpiry` of the cluster');
    }),
  ),
  own(
    'swarm ca',
    '--ca-cert',
    async (world) => {
      const { cert, key, pem } = await madeRoot(world);
      return rotated(world, ['--quiet', '--ca-cert', cert, '--ca-key', key], async () => {
        assert.equal(await rootOf(world), pem);
        return effect('the root certificate is that one');
      });
    },
    /certificate authority of your own|SigningCA/,
  ),
  own(
    'swarm ca',
    '--ca-key',
    async (world) => {
      const { cert, key, pem } = await madeRoot(world);
      return rotated(world, ['--quiet', '--ca-cert', cert, '--ca-key', key], async () => {
        assert.equal(await rootOf(world), pem);
        return effect('certificates are signed with that key');
      });
    },
    /certificate authority of your own|SigningCA/,
  ),
  own(
    'swarm ca',
    '--external-ca',
    async (world) =>
      rotated(world, ['--quiet', '--external-ca', externalCa], async () => {
        throw new Error('--external-ca was taken');
      }),
    /external certificate authorit/i,
  ),
];

/** They run one after the other. */
export const clusterCases: readonly FlagCase[] = [...init, ...tokens, ...updates, ...authority];
