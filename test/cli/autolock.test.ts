/** Autolock as a daemon lives it: its whole disk is sealed, and opens with one key whatever cut a change short. */
import assert from 'node:assert/strict';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Daemon } from '../../cli/daemon.ts';
import type { NodeId } from '../../proto/ids.ts';
import { waitFor } from '../agent/wait.ts';
import { freePort } from './daemon.ts';
import { clusterOf, Hosts } from './hosts.ts';

const boundMs = 40_000;
const sealedKey = /BEGIN ENCRYPTED PRIVATE KEY/;

describe('a manager with autolock', function () {
  this.timeout(240_000);
  const hosts = new Hosts();
  let port = 0;
  let nodeId: string;
  let daemon: Daemon;

  const nodeKeyFile = () => join(hosts.dataDir(port), 'certificates', 'swarm-node.key');
  const dataKeysFile = () => join(hosts.raftFolder(port), 'data-keys');
  const nodeKey = () => readFileSync(nodeKeyFile(), 'utf8');
  const unlockKey = () => clusterOf(daemon).store.cluster()?.Private.UnlockKey;
  const leads = () =>
    waitFor(
      () => daemon.membership().kind === 'manager' && clusterOf(daemon).isLeader(),
      boundMs,
      'it leads',
    );
  const lockWith = async (UnlockKey: string | undefined): Promise<void> => {
    const cluster = clusterOf(daemon).store.cluster()!;
    const { UnlockKey: _, ...rest } = cluster.Private;
    const Private = { ...rest, ...(UnlockKey ? { UnlockKey } : {}) };
    await clusterOf(daemon).propose([{ op: 'merge', kind: 'cluster', id: cluster.ID, fields: { Private } }]);
  };
  const restart = async (): Promise<void> => {
    await hosts.stop(port);
    daemon = await hosts.start(port);
  };
  const isLocked = () => assert.deepEqual(daemon.membership(), { kind: 'locked', nodeId });

  before(async () => {
    port = await freePort();
    daemon = await hosts.start(port);
  });

  after(() => hosts.close());

  let key: string;

  it('has nothing on its disk in the clear from its first hour, and is locked after a restart', async () => {
    nodeId = (await daemon.init({ AutoLockManagers: true })) as NodeId;
    await leads();
    key = unlockKey()!;
    assert.match(nodeKey(), sealedKey);
    await restart();
    isLocked();
    await assert.rejects(daemon.unlock(`SWMKEY-1-${'A'.repeat(43)}`), /could not be unlocked: invalid key/);
    await assert.rejects(daemon.unlock('nonsense'), /could not be unlocked: invalid key/);
    isLocked();
    await daemon.unlock(key);
    await leads();
    assert.match(nodeKey(), sealedKey);
  });

  it('goes over to another key, without writing its log anew', async () => {
    const log = () => readFileSync(join(hosts.raftFolder(port), 'log-0000000001'));
    const written = log().subarray(0, 512);
    const old = key;
    key = `SWMKEY-1-${Buffer.alloc(32, 7).toString('base64').replace(/=+$/, '')}`;
    const before = nodeKey();
    await lockWith(key);
    await waitFor(() => nodeKey() !== before, boundMs, 'its own key is sealed anew');
    await restart();
    assert.deepEqual(log().subarray(0, 512), written);
    await assert.rejects(daemon.unlock(old), /could not be unlocked: invalid key/);
    await daemon.unlock(key);
    await leads();
  });

  it('seals its own key when an earlier version had sealed its log alone', async () => {
    const sealed = nodeKey();
    await lockWith(undefined);
    await waitFor(() => !sealedKey.test(nodeKey()), boundMs, 'it lies open');
    const open = nodeKey();
    await lockWith(key);
    await waitFor(() => sealedKey.test(nodeKey()), boundMs, 'it is sealed');
    assert.notEqual(nodeKey(), sealed);
    await hosts.stop(port);
    writeFileSync(nodeKeyFile(), open, { mode: 0o600 });
    daemon = await hosts.start(port);
    isLocked();
    await daemon.unlock(key);
    await leads();
    assert.match(nodeKey(), sealedKey);
  });

  it('opens with the new key after a power cut between its log’s keys and its own', async () => {
    await hosts.stop(port);
    const [oldNodeKey, old] = [nodeKey(), key];
    daemon = await hosts.start(port);
    await daemon.unlock(old);
    await leads();
    key = `SWMKEY-1-${Buffer.alloc(32, 9).toString('base64').replace(/=+$/, '')}`;
    await lockWith(key);
    await waitFor(() => nodeKey() !== oldNodeKey, boundMs, 'its own key is sealed anew');
    await hosts.stop(port);
    // As the disk is when the log's keys were sealed anew, and the new file did not get its name.
    cpSync(nodeKeyFile(), `${nodeKeyFile()}.next`);
    writeFileSync(nodeKeyFile(), oldNodeKey, { mode: 0o600 });
    daemon = await hosts.start(port);
    isLocked();
    await assert.rejects(daemon.unlock(old), /could not be unlocked: invalid key/);
    await daemon.unlock(key);
    await leads();
  });

  it('comes up by itself when autolock was turned off, also when that was cut short', async () => {
    const [sealed, dataKeys] = [nodeKey(), readFileSync(dataKeysFile())];
    await lockWith(undefined);
    await waitFor(() => !sealedKey.test(nodeKey()), boundMs, 'it lies open');
    assert.notDeepEqual(readFileSync(dataKeysFile()), dataKeys);
    await hosts.stop(port);
    cpSync(nodeKeyFile(), `${nodeKeyFile()}.next`);
    writeFileSync(nodeKeyFile(), sealed, { mode: 0o600 });
    daemon = await hosts.start(port);
    await leads();
    assert.deepEqual(hosts.failures, []);
  });

  it('may leave without its key', async () => {
    await lockWith(key);
    await waitFor(() => sealedKey.test(nodeKey()), boundMs, 'it is sealed');
    await restart();
    isLocked();
    await daemon.leave(true);
    assert.equal(daemon.membership().kind, 'none');
  });
});
