import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AgentIdentity } from '../../../agent/identity.ts';
import { newNode } from '../../../manager/ca/bootstrap.ts';
import { returnWithinLabel } from '../../../manager/ca/returning.ts';
import { issueLocally } from '../../../manager/ca/root.ts';
import { beginRotation, rootRotation, rotationStep } from '../../../manager/ca/rotation.ts';
import type { Change } from '../../../manager/store/change.ts';
import { leadsToRoots, readNodeCertificate, rootDigestOf } from '../../../proto/certificate.ts';
import { engineIdLabel, type NodeDescription } from '../../../proto/docker.ts';
import { parseJoinToken } from '../../../proto/identity.ts';
import { type NodeId, newId } from '../../../proto/ids.ts';
import { silentLog } from '../../../proto/ports.ts';
import { tlsInfoOf } from '../../../proto/x509.ts';
import { seededRandom } from '../../simulation/random.ts';
import { TestAuthority } from './authority.ts';

describe('rotation of the root', () => {
  let authority: TestAuthority;
  let parent: string;
  let agents: AgentIdentity[];

  beforeEach(async () => {
    authority = await TestAuthority.start();
    parent = mkdtempSync(join(tmpdir(), 'shoal-rotation-'));
    agents = [];
  });
  afterEach(async () => {
    for (const agent of agents) agent.stop();
    await authority.stop();
    rmSync(parent, { recursive: true, force: true });
  });

  const random = seededRandom(5);
  const context = () => ({ now: authority.clock.now(), random });
  const step = (now = authority.clock.now()) => rotationStep(authority.store, now, () => newId(random));
  const next = (): readonly Change[] => step().changes;
  const rotating = () =>
    authority.store
      .list('node')
      .filter((node) => node.Private.Certificate?.State === 'rotate')
      .map((node) => node.ID);

  async function agent(): Promise<AgentIdentity> {
    const identity = new AgentIdentity({
      directory: join(parent, String(agents.length)),
      clock: authority.clock,
      random,
      log: silentLog,
      version: '0.1.0',
      managers: () => [authority.address],
    });
    agents.push(identity);
    await identity.obtain({ token: authority.cluster.JoinTokens.Worker, addresses: [authority.address] });
    return identity;
  }

  /** What the dispatcher does when an agent registers: its description goes into the store. */
  async function register(nodeId: string, TLSInfo: NodeDescription['TLSInfo']): Promise<void> {
    await authority.editNode(nodeId, (node) => ({
      ...node,
      Description: { ...node.Description, TLSInfo },
    }));
  }

  /** The first manager renews in place and serves its new certificate. */
  async function renewManager(): Promise<void> {
    const { node } = authority.first;
    const issue = await issueLocally(authority.cluster, { nodeId: node.ID, role: 'manager' }, context());
    const stored = authority.node(node.ID);
    const Certificate = {
      State: 'issued' as const,
      Csr: issue.requestPem,
      Pem: issue.identity.certificatePem,
    };
    await authority.propose([
      { op: 'merge', kind: 'node', id: node.ID, fields: { Private: { ...stored.Private, Certificate } } },
    ]);
    authority.serve(issue.identity);
    await register(node.ID, tlsInfoOf(issue.identity));
  }

  it('is nothing to do while none is under way', () => {
    assert.deepEqual(next(), []);
    assert.deepEqual(rootRotation.allKeys(authority.store), []);
  });

  it('gives every node a certificate of the next root, then trusts that root, and no call fails', async () => {
    const worker = await agent();
    const workerId = worker.current()!.certificate.nodeId;
    const old = authority.cluster;
    await authority.propose([{ op: 'update', kind: 'cluster', object: await beginRotation(old, context()) }]);
    assert.equal(authority.cluster.RootRotationInProgress, true);
    assert.equal(authority.cluster.TLSInfo.TrustRoot, old.TLSInfo.TrustRoot);
    assert.deepEqual(authority.cluster.JoinTokens, old.JoinTokens);
    assert.deepEqual(rootRotation.allKeys(authority.store), ['root']);

    await authority.propose(next());
    assert.deepEqual(rotating(), [authority.first.node.ID, workerId]);
    assert.deepEqual(next(), [], 'nodes are asked once');

    await renewManager();
    await worker.renew();
    assert.equal(leadsToRoots(worker.current()!.identity.certificatePem, old.TLSInfo.TrustRoot), true);
    assert.deepEqual(next(), [], 'the worker has not yet told that it has its certificate');
    const joiner = await agent();
    assert.equal(authority.node(joiner.current()!.certificate.nodeId).Spec.Role, 'worker');
    await register(workerId, worker.tlsInfo()!);

    await authority.propose(next());
    const done = authority.cluster;
    assert.equal(done.RootRotationInProgress, false);
    assert.equal(done.Private.RootRotation, undefined);
    assert.notEqual(done.TLSInfo.TrustRoot, old.TLSInfo.TrustRoot);
    for (const role of ['Worker', 'Manager'] as const) {
      assert.notEqual(done.JoinTokens[role], old.JoinTokens[role]);
      assert.equal(parseJoinToken(done.JoinTokens[role]).rootDigest, rootDigestOf(done.TLSInfo.TrustRoot));
    }
    assert.deepEqual(next(), []);

    // The worker, which still trusts the old root alone, reaches the manager, and then trusts the new one.
    const { certificatePem } = authority.served;
    authority.serve({ ...authority.served, rootsPem: done.TLSInfo.TrustRoot });
    assert.ok(leadsToRoots(certificatePem, done.TLSInfo.TrustRoot));
    await worker.renew();
    await worker.setRoots(done.TLSInfo.TrustRoot);
    assert.equal(worker.current()!.identity.rootsPem, done.TLSInfo.TrustRoot);
    await worker.renew();
    assert.equal(leadsToRoots(worker.current()!.identity.certificatePem, done.TLSInfo.TrustRoot), true);
    await agent();
  });

  it('asks thirty nodes at a time', async () => {
    for (let count = 0; count < 40; count += 1) {
      const object = newNode({
        nodeId: newId<NodeId>(random),
        role: 'worker',
        availability: 'active',
        tlsInfo: authority.cluster.TLSInfo,
        requestPem: `request ${count}`,
        certificatePem: '',
      });
      await authority.propose([{ op: 'create', kind: 'node', object }]);
    }
    await authority.propose([
      { op: 'update', kind: 'cluster', object: await beginRotation(authority.cluster, context()) },
    ]);
    await authority.propose(next());
    assert.equal(rotating().length, 30);
    assert.deepEqual(next(), []);
    await renewManager();
    await authority.propose(next());
    assert.equal(rotating().length, 30);
  });

  describe('with nodes that are away', () => {
    /** A node that is down, of our agents unless it is a stock engine's. */
    async function awayNode(kind: 'ours' | 'stock', role: 'worker' | 'manager' = 'worker'): Promise<NodeId> {
      const nodeId = newId<NodeId>(random);
      const { requestPem, identity } = await issueLocally(authority.cluster, { nodeId, role }, context());
      const made = newNode({
        nodeId,
        role,
        availability: 'active',
        tlsInfo: authority.cluster.TLSInfo,
        requestPem,
        certificatePem: identity.certificatePem,
      });
      const Engine = {
        ...made.Description.Engine,
        Labels: kind === 'ours' ? { [engineIdLabel]: nodeId } : {},
      };
      const object = {
        ...made,
        Description: { ...made.Description, Engine },
        Status: { ...made.Status, State: 'down' as const },
      };
      await authority.propose([{ op: 'create', kind: 'node', object }]);
      return nodeId;
    }
    const begin = async () => {
      const object = await beginRotation(authority.cluster, context());
      await authority.propose([{ op: 'update', kind: 'cluster', object }]);
    };

    it('goes on without our workers, who have a way back', async () => {
      await awayNode('ours');
      await begin();
      await renewManager();
      await authority.propose(next());
      assert.equal(authority.cluster.RootRotationInProgress, false);
    });

    it('waits for a stock worker until its certificate has expired, and for our own where none may come back', async () => {
      for (const kind of ['stock', 'ours'] as const) {
        const nodeId = await awayNode(kind);
        if (kind === 'ours') {
          await authority.edit((cluster) => ({
            ...cluster,
            Spec: { ...cluster.Spec, Labels: { [returnWithinLabel]: '0s' } },
          }));
        }
        await begin();
        await renewManager();
        const { notAfterMs } = readNodeCertificate(authority.node(nodeId).Private.Certificate!.Pem);
        assert.deepEqual(step(notAfterMs), { changes: [], wakeAt: notAfterMs + 1 });
        await authority.propose(step(notAfterMs + 1).changes);
        assert.equal(authority.cluster.RootRotationInProgress, false);
      }
    });

    it('waits for a manager, however long', async () => {
      await awayNode('ours', 'manager');
      await begin();
      await renewManager();
      assert.deepEqual(step(authority.clock.now() + 1e12), { changes: [] });
    });

    it('asks those that are there, however many are not', async function () {
      this.timeout(30_000);
      for (let count = 0; count < 35; count += 1) await awayNode('stock');
      await begin();
      await authority.propose(next());
      assert.deepEqual(rotating(), [authority.first.node.ID]);
    });
  });

  it('can be done again, each root vouching for the one after it', async () => {
    for (let round = 0; round < 3; round += 1) {
      const before = authority.cluster;
      const object = await beginRotation(before, context());
      await authority.propose([{ op: 'update', kind: 'cluster', object }]);
      await renewManager();
      await authority.propose(next());
      const { certificatePem } = authority.served;
      assert.equal(leadsToRoots(certificatePem, before.TLSInfo.TrustRoot), true);
      assert.equal(leadsToRoots(certificatePem, authority.cluster.TLSInfo.TrustRoot), true);
      await renewManager();
      assert.equal(leadsToRoots(authority.served.certificatePem, before.TLSInfo.TrustRoot), true);
    }
  });

  it('starts over when another one is begun before it has ended', async () => {
    const first = await beginRotation(authority.cluster, context());
    await authority.propose([{ op: 'update', kind: 'cluster', object: first }]);
    await renewManager();
    const second = await beginRotation(authority.cluster, context());
    await authority.propose([{ op: 'update', kind: 'cluster', object: second }]);
    assert.notEqual(second.TLSInfo.CertIssuerPublicKey, first.TLSInfo.CertIssuerPublicKey);
    await authority.propose(next());
    assert.deepEqual(rotating(), [authority.first.node.ID]);
    await renewManager();
    await authority.propose(next());
    assert.equal(authority.cluster.RootRotationInProgress, false);
    assert.equal(authority.cluster.TLSInfo.TrustRoot, second.Private.RootRotation?.CaCertPem);
  });
});
