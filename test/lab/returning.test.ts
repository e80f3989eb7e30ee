/**
 * Nodes that are away while the cluster's trust moves on: the root is replaced without a worker of ours, a stock one is
 * waited for, and after so long that every certificate has expired all come back by themselves, or are told what to do.
 */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Cluster } from '../../proto/docker.ts';
import { create, idle, nodeNamed, swarmOf, waitForRunning } from './asking.ts';
import { clientOf, isReady, nodesSeenBy } from './cluster.ts';
import { clockFile, library, ownClock } from './fault-run/daemons.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

const patienceMs = 60_000;
const offline = { DOCKER_SERVICE_PREFER_OFFLINE_IMAGE: '1' };

describe('lab: nodes that were away while certificates ended', () => {
  let lab: Lab;
  let managers: LabHost[];
  let manager: LabHost;
  let worker: LabHost;
  let stock: LabHost;

  before(async function () {
    if (labMissing() || library === undefined) return this.skip();
    lab = await Lab.up(5, 'shoal-returning', offline);
    managers = [lab.host(1), lab.host(2), lab.host(3)];
    [manager, worker, stock] = [lab.host(1), lab.host(4), lab.host(5)];
    await Promise.all([...managers, worker].map((host) => startAt(host, '+0s')));
    await manager.shoal('swarm', 'init', '--cert-expiry', '1h', '--advertise-addr', manager.address);
    for (const host of managers.slice(1)) await join(host, 'manager');
    await join(worker, 'worker');
    await stock.engine('swarm', 'join', '--token', await tokenFor('worker'), `${manager.address}:2377`);
    for (const { name } of managers) await manager.shoal('node', 'update', '--availability', 'drain', name);
    await create(
      manager,
      'web',
      '--replicas',
      '2',
      '--constraint',
      'node.hostname==h4',
      '--network',
      'host',
      ...idle,
    );
    await waitForRunning(manager, 'web', 2);
  });

  after(async () => {
    await lab?.down();
  });

  /** Starts the host's daemon with its wall clock so far off. */
  async function startAt(host: LabHost, offset: string): Promise<void> {
    mkdirSync(dirname(clockFile(host)), { recursive: true });
    writeFileSync(clockFile(host), offset);
    await host.startShoald({ environment: ownClock(host) });
  }

  const tokenFor = async (role: 'worker' | 'manager') =>
    (await manager.shoal('swarm', 'join-token', '-q', role)).stdout.trim();
  const join = async (host: LabHost, role: 'worker' | 'manager') =>
    host.shoal('swarm', 'join', '--token', await tokenFor(role), `${manager.address}:2377`);
  const cluster = () => clientOf(manager).get<Cluster>('/swarm');
  const isDown = (name: string) =>
    waitFor(
      `${name} to be down`,
      patienceMs,
      async () => (await nodeNamed(manager, name)).Status.State === 'down',
    );
  const allReady = (...names: string[]) =>
    waitFor(`${names} to be ready`, patienceMs, async () => {
      const nodes = await nodesSeenBy(manager);
      const ready = nodes.filter(isReady).map((node) => node.Description.Hostname);
      if (names.every((name) => ready.includes(name))) return true;
      throw new Error(`ready: ${ready}`);
    });
  /** As `swarm ca --rotate` without --detach: until it is done. */
  const replaced = () =>
    waitFor('the root to be replaced', patienceMs, async () => !(await cluster()).RootRotationInProgress);

  it('the root is replaced without a worker of ours that is away; it comes back by itself', async () => {
    await worker.killShoald();
    await isDown('h4');
    const before = (await cluster()).TLSInfo.TrustRoot;
    await manager.docker('swarm', 'ca', '--rotate', '--detach');
    await replaced();
    const { TrustRoot } = (await cluster()).TLSInfo;
    assert.notEqual(TrustRoot, before);
    await startAt(worker, '+0s');
    await allReady('h1', 'h2', 'h3', 'h4', 'h5');
    await waitFor('it to trust the new root', patienceMs, async () => {
      const described = (await nodeNamed(manager, 'h4')).Description.TLSInfo;
      return described.TrustRoot === TrustRoot;
    });
    await waitForRunning(manager, 'web', 2);
  });

  it('a stock worker that is away is waited for, and follows when it is back', async () => {
    await stock.powerOff();
    await isDown('h5');
    await manager.docker('swarm', 'ca', '--rotate', '--detach');
    const issuer = (await cluster()).TLSInfo.CertIssuerPublicKey;
    await waitFor('the others to have followed', patienceMs, async () => {
      const nodes = await nodesSeenBy(manager);
      return nodes.filter((node) => node.Description.TLSInfo.CertIssuerPublicKey === issuer).length === 4;
    });
    assert.equal((await cluster()).RootRotationInProgress, true);
    await stock.powerOn();
    await replaced();
    await allReady('h1', 'h2', 'h3', 'h4', 'h5');
  });

  it('after two hours off all certificates have expired: managers and workers of ours come back by themselves', async () => {
    await stock.engine('swarm', 'leave');
    await Promise.all([...managers, worker].map((host) => host.killShoald()));
    await Promise.all([...managers, worker].map((host) => startAt(host, '+2h')));
    await allReady('h1', 'h2', 'h3', 'h4');
    await waitForRunning(manager, 'web', 2);
    await manager.shoal('service', 'scale', '--detach', 'web=3');
    await waitForRunning(manager, 'web', 3);
  });

  it('one that comes back later than the cluster allows is told so, and joins anew', async () => {
    await manager.shoal('swarm', 'update', '--return-within', '30m');
    await Promise.all([...managers, worker].map((host) => host.killShoald()));
    await Promise.all(managers.map((host) => startAt(host, '+5h')));
    await allReady('h1', 'h2', 'h3');
    await startAt(worker, '+5h');
    const told = await waitFor('the refusal', patienceMs, async () => {
      const swarm = await swarmOf(worker);
      return swarm.LocalNodeState === 'error' && swarm.Error;
    });
    assert.match(told, /expired at .*no later than 30m after that.*swarm leave --force.*shoal swarm join/);
    await worker.shoal('swarm', 'leave', '--force');
    await join(worker, 'worker');
    await waitForRunning(manager, 'web', 3);
  });
});
