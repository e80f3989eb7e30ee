import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Daemon } from '../../cli/daemon.ts';
import type { NodeRole } from '../../proto/docker.ts';
import type { NodeId } from '../../proto/ids.ts';
import { waitFor } from '../agent/wait.ts';
import { freePort } from './daemon.ts';
import { clusterOf, Hosts } from './hosts.ts';

const boundMs = 40_000;

function isVoter(daemon: Daemon | undefined, nodeId: NodeId): boolean {
  const membership = daemon?.membership();
  if (membership?.kind !== 'manager') return false;
  const node = membership.cluster.store.get('node', nodeId);
  return node?.Spec.Role === 'manager' && node.ManagerStatus?.Reachability === 'reachable';
}

describe('a node’s way from role to role', function () {
  this.timeout(240_000);
  const hosts = new Hosts();
  let [first, second_, third, fourth] = [0, 0, 0, 0];
  const ids = new Map<number, NodeId>();

  before(async () => {
    [first, second_, third, fourth] = [
      await freePort(),
      await freePort(),
      await freePort(),
      await freePort(),
    ];
  });

  after(() => hosts.close());

  const leading = (): Daemon => {
    const found = [...hosts.running.values()].find((daemon) => {
      const membership = daemon.membership();
      return membership.kind === 'manager' && membership.cluster.isLeader();
    });
    if (!found) throw new Error('nobody leads');
    return found;
  };
  const setRole = async (port: number, Role: NodeRole): Promise<void> => {
    const cluster = clusterOf(leading());
    await cluster.readBarrier();
    const node = cluster.store.get('node', ids.get(port)!)!;
    await cluster.propose([
      { op: 'merge', kind: 'node', id: node.ID, fields: { Spec: { ...node.Spec, Role } } },
    ]);
  };
  // One that was taken out of the group is no manager any more before its certificate says so.
  const isCertifiedWorker = (port: number): boolean => {
    const file = join(hosts.dataDir(port), 'certificates', 'swarm-node.crt');
    return new X509Certificate(readFileSync(file)).subject.includes('OU=swarm-worker');
  };
  const kindOf = (port: number): string | undefined => hosts.running.get(port)?.membership().kind;
  const hasRole = (port: number, kind: 'manager' | 'worker') =>
    waitFor(
      () =>
        kindOf(port) === kind &&
        (kind === 'worker' ? isCertifiedWorker(port) : isVoter(hosts.running.get(port), ids.get(port)!)),
      boundMs,
      `host ${port} as ${kind}`,
    );
  const join_ = async (port: number, role: 'Manager' | 'Worker'): Promise<void> => {
    const { JoinTokens } = clusterOf(leading()).store.cluster()!;
    const daemon = await hosts.start(port);
    const known = new Set(
      clusterOf(leading())
        .store.list('node')
        .map((node) => node.ID),
    );
    await daemon.join({ RemoteAddrs: [`127.0.0.1:${first}`], JoinToken: JoinTokens[role] });
    await clusterOf(leading()).readBarrier();
    const node = clusterOf(leading())
      .store.list('node')
      .find(({ ID }) => !known.has(ID));
    ids.set(port, node!.ID);
  };

  it('is made, and joined', async () => {
    const daemon = await hosts.start(first);
    ids.set(first, (await daemon.init({})) as NodeId);
    await waitFor(() => clusterOf(daemon).isLeader(), boundMs, 'it leads');
    await join_(second_, 'Manager');
    await join_(third, 'Manager');
    await join_(fourth, 'Worker');
    for (const port of [second_, third]) await hasRole(port, 'manager');
    await hasRole(fourth, 'worker');
    assert.equal(existsSync(hosts.raftFolder(fourth)), false);
  });

  it('a worker is promoted, and demoted again: nothing of the cluster’s state stays with it', async () => {
    await setRole(fourth, 'manager');
    await hasRole(fourth, 'manager');
    await setRole(fourth, 'worker');
    await hasRole(fourth, 'worker');
    await waitFor(() => !existsSync(hosts.raftFolder(fourth)), boundMs, 'its log is gone');
    assert.equal(clusterOf(leading()).managerAddresses().length, 3);
  });

  it('a demotion that was cut short is finished at the next start', async () => {
    await hosts.stop(fourth);
    // It may stand there: a node that came back as a manager, in vain, a moment before the demotion was cut short itself.
    mkdirSync(hosts.raftFolder(fourth), { recursive: true });
    writeFileSync(join(hosts.raftFolder(fourth), 'data-keys'), 'left');
    await hosts.start(fourth);
    assert.equal(existsSync(hosts.raftFolder(fourth)), false);
    await hasRole(fourth, 'worker');
  });

  it('a promotion that was cut short before the first write to the log is finished at the next start', async () => {
    await setRole(fourth, 'manager');
    await hasRole(fourth, 'manager');
    await hosts.stop(fourth);
    for (const name of readdirSync(hosts.raftFolder(fourth))) {
      if (name !== 'data-keys') rmSync(join(hosts.raftFolder(fourth), name), { recursive: true });
    }
    await hosts.start(fourth);
    await hasRole(fourth, 'manager');
    await waitFor(() => clusterOf(leading()).managerAddresses().length === 4, boundMs, 'it is in once');
  });

  it('a manager that was demoted while it was down learns of it', async () => {
    await hosts.stop(fourth);
    await setRole(fourth, 'worker');
    await waitFor(() => clusterOf(leading()).managerAddresses().length === 3, boundMs, 'it is out');
    await hosts.start(fourth);
    await hasRole(fourth, 'worker');
    await waitFor(() => !existsSync(hosts.raftFolder(fourth)), boundMs, 'its log is gone');
  });

  it('a manager that was demoted and promoted while it was down comes back as a new member', async () => {
    await setRole(fourth, 'manager');
    await hasRole(fourth, 'manager');
    await hosts.stop(fourth);
    await setRole(fourth, 'worker');
    await waitFor(() => clusterOf(leading()).managerAddresses().length === 3, boundMs, 'it is out');
    await setRole(fourth, 'manager');
    await hosts.start(fourth);
    await waitFor(() => clusterOf(leading()).managerAddresses().length === 4, boundMs, 'it is in');
    await hasRole(fourth, 'manager');
  });

  it('one that goes to and fro leaves nothing behind', async () => {
    const warnings: Error[] = [];
    const note = (warning: Error) => warnings.push(warning);
    process.on('warning', note);
    const sockets = () => process.getActiveResourcesInfo().filter((name) => name.startsWith('TCP')).length;
    const round = async (): Promise<number> => {
      await setRole(fourth, 'worker');
      await hasRole(fourth, 'worker');
      await waitFor(() => !existsSync(hosts.raftFolder(fourth)), boundMs, 'its log is gone');
      await hosts.stop(fourth);
      await hosts.start(fourth);
      await setRole(fourth, 'manager');
      await hasRole(fourth, 'manager');
      return sockets();
    };
    const before = await round();
    for (let count = 0; count < 4; count += 1) await round();
    await waitFor(() => sockets() <= before + 6, boundMs, 'no more connections than before');
    process.off('warning', note);
    assert.deepEqual(warnings, []);
    assert.equal(clusterOf(leading()).managerAddresses().length, 4);
  });

  it('the leader is demoted: another leads first', async () => {
    const daemon = leading();
    const port = [...hosts.running].find(([, one]) => one === daemon)![0];
    await setRole(port, 'worker');
    await hasRole(port, 'worker');
    await waitFor(() => !existsSync(hosts.raftFolder(port)), boundMs, 'its log is gone');
    assert.notEqual(leading(), daemon);
    await clusterOf(leading()).propose([]);
  });

  it('the leader leaves: another leads first', async () => {
    const daemon = leading();
    await daemon.leave(false);
    assert.equal(daemon.membership().kind, 'none');
    await waitFor(
      () => [...hosts.running.values()].some((one) => one.membership().kind === 'manager'),
      boundMs,
    );
    await waitFor(() => clusterOf(leading()).managerAddresses().length === 2, boundMs, 'two are left');
  });

  it('one that lost the others goes on alone when it is told to, as another node of the same cluster', async () => {
    const [port, daemon] = [...hosts.running].find(([, one]) => one.membership().kind === 'manager')!;
    for (const other of [...hosts.running.keys()]) if (other !== port) await hosts.stop(other);
    const clusterId = clusterOf(daemon).store.cluster()!.ID;
    await daemon.init({ ForceNewCluster: true });
    await waitFor(() => clusterOf(daemon).isLeader(), boundMs, 'it leads alone');
    const { store } = clusterOf(daemon);
    assert.equal(store.cluster()!.ID, clusterId);
    assert.deepEqual(
      store.find('node', 'role', 'manager').map(({ ID }) => ID),
      [clusterOf(daemon).nodeId],
    );
    assert.deepEqual(hosts.failures, []);
  });
});
