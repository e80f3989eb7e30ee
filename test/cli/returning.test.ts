/** Nodes that were away until TLS took their certificates no more, as daemons live it, on real ports with real TLS. */
import assert from 'node:assert/strict';
import { realClock, realRandom } from '../../cli/runtime.ts';
import { returnWithinLabel } from '../../manager/ca/returning.ts';
import { beginRotation } from '../../manager/ca/rotation.ts';
import { readNodeCertificate } from '../../proto/certificate.ts';
import type { Cluster, SwarmSpec } from '../../proto/docker.ts';
import type { NodeId } from '../../proto/ids.ts';
import { waitFor } from '../agent/wait.ts';
import { freePort } from './daemon.ts';
import { clusterOf, Hosts } from './hosts.ts';

const boundMs = 40_000;
const second = 1_000_000_000;

describe('a node whose certificate TLS does not take any more', function () {
  this.timeout(240_000);
  const hosts = new Hosts();
  let [first, other, third, worker] = [0, 0, 0, 0];
  let workerId: NodeId;
  let otherId: NodeId;

  before(async () => {
    [first, other, third, worker] = [await freePort(), await freePort(), await freePort(), await freePort()];
  });

  after(() => hosts.close());

  const leading = () => {
    const found = [...hosts.running.values()].find((daemon) => {
      const membership = daemon.membership();
      return membership.kind === 'manager' && membership.cluster.isLeader();
    });
    return found && clusterOf(found);
  };
  const leader = async () => {
    await waitFor(() => leading() !== undefined, boundMs, 'someone leads');
    return leading()!;
  };
  const stateOf = (nodeId: NodeId) => leading()?.store.get('node', nodeId)?.Status.State;
  const isReady = (nodeId: NodeId) =>
    waitFor(() => stateOf(nodeId) === 'ready', boundMs, `${nodeId} is ready`);
  const isDown = (nodeId: NodeId) => waitFor(() => stateOf(nodeId) === 'down', boundMs, `${nodeId} is down`);
  const setSpec = async (change: Partial<SwarmSpec>): Promise<void> => {
    const cluster = await leader();
    const object = cluster.store.cluster()!;
    const Spec = { ...object.Spec, ...change };
    await cluster.propose([{ op: 'merge', kind: 'cluster', id: object.ID, fields: { Spec } }]);
  };
  const live = (seconds: number) => setSpec({ CAConfig: { NodeCertExpiry: seconds * second } });
  const stopUntilExpired = async (ports: readonly number[], seconds: number): Promise<void> => {
    for (const port of ports) await hosts.stop(port);
    const expiredMs = realClock.now() + seconds * 1_000 + 500;
    await waitFor(() => realClock.now() > expiredMs, boundMs, 'all have expired');
  };
  const beginReplacing = async (): Promise<void> => {
    const cluster = await leader();
    const begun = await beginRotation(cluster.store.cluster()!, { now: realClock.now(), random: realRandom });
    await cluster.propose([{ op: 'update', kind: 'cluster', object: begun }]);
  };
  const replaceRoot = async (): Promise<Cluster> => {
    await beginReplacing();
    const done = () => leading()?.store.cluster();
    await waitFor(() => done()?.RootRotationInProgress === false, boundMs, 'the root is replaced');
    return done()!;
  };

  it('issues itself a new one as a manager, and comes back to it as a worker', async () => {
    const daemon = await hosts.start(first);
    await daemon.init({ Spec: { CAConfig: { NodeCertExpiry: 3 * second } } });
    const token = (await leader()).store.cluster()!.JoinTokens.Worker;
    const joined = await hosts.start(worker);
    await joined.join({ RemoteAddrs: [`127.0.0.1:${first}`], JoinToken: token });
    workerId = (joined.membership() as { nodeId: NodeId }).nodeId;
    await stopUntilExpired([worker, first], 3);

    // The worker is there first: it waits for managers as any other would.
    await hosts.start(worker);
    assert.equal(hosts.running.get(worker)!.membership().kind, 'worker');
    const back = await hosts.start(first);
    const { nodeId } = clusterOf(back);
    await isReady(nodeId);
    await isReady(workerId);
  });

  it('is told to join anew when it comes too late', async () => {
    await setSpec({ Labels: { [returnWithinLabel]: '1s' } });
    await stopUntilExpired([worker], 3 + 1);
    const late = await hosts.start(worker);
    await waitFor(() => late.membership().kind === 'error', boundMs, 'the refusal');
    const membership = late.membership();
    assert.ok(membership.kind === 'error' && membership.nodeId === workerId);
    assert.match(
      membership.message,
      /expired at .*no later than 1s after.*leave --force.*`shoal swarm join`/,
    );
    await late.leave(true);
    await setSpec({ Labels: {} });
    const token = (await leader()).store.cluster()!.JoinTokens.Worker;
    await late.join({ RemoteAddrs: [`127.0.0.1:${first}`], JoinToken: token });
    workerId = (late.membership() as { nodeId: NodeId }).nodeId;
    await isReady(workerId);
  });

  it('comes back after the root was replaced twice without it', async () => {
    await live(3_600);
    const lastsMs = () =>
      readNodeCertificate(leading()!.store.get('node', workerId)!.Private.Certificate!.Pem).notAfterMs;
    await waitFor(
      () => lastsMs() > realClock.now() + 1_000_000,
      boundMs,
      'a certificate that does not expire',
    );
    await isReady(workerId);
    await hosts.stop(worker);
    await isDown(workerId);
    const before = (await leader()).store.cluster()!;
    await replaceRoot();
    const { TLSInfo, JoinTokens } = await replaceRoot();
    assert.notEqual(TLSInfo.TrustRoot, before.TLSInfo.TrustRoot);
    await hosts.start(worker);
    await isReady(workerId);
    const described = () => leading()?.store.get('node', workerId)?.Description.TLSInfo;
    await waitFor(() => described()?.TrustRoot === TLSInfo.TrustRoot, boundMs, 'it trusts the present root');
    assert.notEqual(JoinTokens.Worker, before.JoinTokens.Worker);
  });

  it('a manager that was away until then is waited for, and comes back by itself', async () => {
    await live(4);
    for (const port of [other, third]) {
      const token = (await leader()).store.cluster()!.JoinTokens.Manager;
      const daemon = await hosts.start(port);
      await daemon.join({ RemoteAddrs: [`127.0.0.1:${first}`], JoinToken: token });
      if (port === other) otherId = clusterOf(daemon).nodeId;
    }
    const reachable = () =>
      leading()
        ?.store.list('node')
        .filter((node) => node.ManagerStatus?.Reachability === 'reachable').length;
    await waitFor(() => reachable() === 3, boundMs, 'three managers');
    await stopUntilExpired([other], 4);
    await hosts.start(other);
    await isReady(otherId);
    await waitFor(() => reachable() === 3, boundMs, 'three managers');
  });

  it('a replacement of the root waits for a manager that is away, and ends when it and a worker are back, both expired', async () => {
    const before = (await leader()).store.cluster()!.TLSInfo.TrustRoot;
    for (const port of [other, worker]) await hosts.stop(port);
    await isDown(workerId);
    await beginReplacing();
    const issuer = (await leader()).store.cluster()!.TLSInfo.CertIssuerPublicKey;
    const followed = () =>
      leading()
        ?.store.list('node')
        .filter((node) => node.Description.TLSInfo.CertIssuerPublicKey === issuer).length;
    await waitFor(() => followed() === 2, boundMs, 'those that are there have followed');
    await stopUntilExpired([], 4);
    assert.equal((await leader()).store.cluster()!.RootRotationInProgress, true);
    for (const port of [worker, other]) await hosts.start(port);
    await waitFor(
      () => leading()?.store.cluster()?.RootRotationInProgress === false,
      boundMs,
      'the root is replaced',
    );
    const { TrustRoot } = (await leader()).store.cluster()!.TLSInfo;
    assert.notEqual(TrustRoot, before);
    for (const nodeId of [otherId, workerId]) {
      await isReady(nodeId);
      const trusts = () => leading()?.store.get('node', nodeId)?.Description.TLSInfo.TrustRoot;
      await waitFor(() => trusts() === TrustRoot, boundMs, `${nodeId} trusts the present root`);
    }
  });

  it('a manager that was made a worker meanwhile comes back as one, though its root was replaced', async () => {
    await live(3_600);
    await hosts.stop(other);
    const cluster = await leader();
    const node = cluster.store.get('node', otherId)!;
    await cluster.propose([
      { op: 'merge', kind: 'node', id: otherId, fields: { Spec: { ...node.Spec, Role: 'worker' } } },
    ]);
    await isDown(otherId);
    await waitFor(() => cluster.managerAddresses().length === 2, boundMs, 'it is out of the group');
    await replaceRoot();
    const back = await hosts.start(other);
    await waitFor(() => back.membership().kind === 'worker', boundMs, 'it is a worker');
    await isReady(otherId);
    assert.deepEqual(hosts.failures, []);
  });
});
