/** A manager whose start failed: nothing asked of it then costs what is on its disk, and it is the survivor it was. */
import assert from 'node:assert/strict';
import { cpSync, renameSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import type { Daemon } from '../../cli/daemon.ts';
import { isShoalError } from '../../proto/errors.ts';
import type { ClusterId, NodeId } from '../../proto/ids.ts';
import { waitFor } from '../agent/wait.ts';
import { freePort } from './daemon.ts';
import { clusterOf, Hosts } from './hosts.ts';

const boundMs = 40_000;

describe('a manager that could not go on', function () {
  this.timeout(240_000);
  const hosts = new Hosts();
  let [port, other, elsewhere] = [0, 0, 0];
  let daemon: Daemon;
  let clusterId: ClusterId;
  let nodeId: NodeId;
  let inTheWay: Server | undefined;

  const leads = (one: Daemon) =>
    waitFor(() => one.membership().kind === 'manager' && clusterOf(one).isLeader(), boundMs, 'it leads');
  const occupy = (taken: number) =>
    new Promise<void>((resolve, reject) => {
      inTheWay = createServer().once('error', reject).listen(taken, '127.0.0.1', resolve);
    });
  const free = () =>
    new Promise<void>((resolve) => {
      if (inTheWay) inTheWay.close(() => resolve());
      else resolve();
      inTheWay = undefined;
    });
  /** It is what it was: the same node of the same cluster, with what was stored in it. */
  const assertSame = (one: Daemon) => {
    const { store } = clusterOf(one);
    assert.deepEqual([store.cluster()!.ID, clusterOf(one).nodeId], [clusterId, nodeId]);
    assert.deepEqual(
      store.list('config').map(({ Spec }) => Spec.Name),
      ['kept'],
    );
  };

  before(async () => {
    [port, other, elsewhere] = [await freePort(), await freePort(), await freePort()];
    daemon = await hosts.start(port);
    nodeId = (await daemon.init({})) as NodeId;
    await leads(daemon);
    clusterId = clusterOf(daemon).store.cluster()!.ID;
    const object = {
      ID: 'config0000000000000000001' as never,
      Version: { Index: 0 },
      CreatedAt: '',
      UpdatedAt: '',
      Spec: { Name: 'kept', Labels: {}, Data: 'eA==' },
    };
    await clusterOf(daemon).propose([{ op: 'create', kind: 'config', object }]);
    const joined = await hosts.start(other);
    const JoinToken = clusterOf(daemon).store.cluster()!.JoinTokens.Manager;
    await joined.join({ RemoteAddrs: [`127.0.0.1:${port}`], JoinToken });
    await waitFor(() => clusterOf(daemon).managerAddresses().length === 2, boundMs, 'two managers');
    // For good: it alone is left.
    await hosts.stop(other);
    await hosts.stop(port);
  });

  after(async () => {
    await free();
    await hosts.close();
  });

  it('says why, and refuses to make, to restore or to join a cluster over what it holds', async () => {
    await occupy(port);
    daemon = await hosts.start(port);
    const membership = daemon.membership();
    assert.ok(membership.kind === 'error' && membership.nodeId === nodeId, JSON.stringify(membership));
    const refused = (error: unknown) =>
      isShoalError(error, 'already-in-swarm') && /could not go on.*swarm leave --force/.test(error.message);
    await assert.rejects(daemon.init({}), refused);
    await assert.rejects(
      daemon.restore({ file: new Uint8Array(9), key: 'k', Availability: 'active', awaitNodesMs: 1 }),
      refused,
    );
    await assert.rejects(daemon.join({ RemoteAddrs: ['127.0.0.1:1'], JoinToken: 'SWMTKN-1-a-b' }), refused);
    assert.equal(daemon.membership().kind, 'error');
  });

  it('keeps what it holds when a recovery by force fails, however often, and recovers when it can', async () => {
    for (const _again of [1, 2]) {
      await assert.rejects(daemon.init({ ForceNewCluster: true }), /another process uses this port/);
      assert.equal(daemon.membership().kind, 'error');
    }
    await free();
    await daemon.init({ ForceNewCluster: true });
    await leads(daemon);
    assertSame(daemon);
    assert.equal(clusterOf(daemon).managerAddresses().length, 1);
  });

  it('is recovered elsewhere, at another address, from its folder alone', async () => {
    await hosts.stop(port);
    cpSync(hosts.dataDir(port), hosts.dataDir(elsewhere), { recursive: true });
    const moved = await hosts.start(elsewhere);
    await moved.init({ ForceNewCluster: true, AdvertiseAddr: `127.0.0.1:${elsewhere}` });
    await leads(moved);
    assertSame(moved);
    const addresses = () => clusterOf(moved).managerAddresses();
    assert.deepEqual(addresses(), [{ NodeID: nodeId, Addr: `127.0.0.1:${elsewhere}` }]);
    await hosts.stop(elsewhere);
    const again = await hosts.start(elsewhere);
    await leads(again);
    assertSame(again);
    assert.deepEqual(hosts.failures, []);
  });

  it('whose certificate is lost keeps its log, whatever is asked of it', async () => {
    await hosts.stop(elsewhere);
    const certificates = join(hosts.dataDir(elsewhere), 'certificates');
    renameSync(certificates, `${certificates}.lost`);
    const without = await hosts.start(elsewhere);
    assert.equal(without.membership().kind, 'none');
    const refused = (error: unknown) =>
      isShoalError(error, 'failed-precondition') && /holds the log of a swarm/.test(error.message);
    await assert.rejects(without.init({}), refused);
    await assert.rejects(without.init({ ForceNewCluster: true }), refused);
    await assert.rejects(without.join({ RemoteAddrs: ['127.0.0.1:1'], JoinToken: 'SWMTKN-1-a-b' }), refused);
    await hosts.stop(elsewhere);
    renameSync(`${certificates}.lost`, certificates);
    const again = await hosts.start(elsewhere);
    await leads(again);
    assertSame(again);
  });
});
