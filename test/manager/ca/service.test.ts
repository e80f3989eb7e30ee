import assert from 'node:assert/strict';
import { x509Reader } from '../../../manager/ca/returning.ts';
import { issueLocally } from '../../../manager/ca/root.ts';
import { CertificateService } from '../../../manager/ca/service.ts';
import { withRotated } from '../../../manager/ca/tokens.ts';
import { readNodeCertificate, rootDigestOf, verifyIdentity } from '../../../proto/certificate.ts';
import type { NodeRole } from '../../../proto/docker.ts';
import type { ErrorCode } from '../../../proto/errors.ts';
import { parseJoinToken, versionMetadataKey } from '../../../proto/identity.ts';
import { asId } from '../../../proto/ids.ts';
import { silentLog } from '../../../proto/ports.ts';
import { createChannel, fetchUnverifiedRoot, type NodeIdentity } from '../../../proto/rpc.ts';
import { makeRequest } from '../../../proto/x509.ts';
import { TestAuthority } from './authority.ts';

const ours = { metadata: { [versionMetadataKey]: '0.1.0' } };

describe('certificate service', () => {
  let authority: TestAuthority;

  beforeEach(async () => {
    authority = await TestAuthority.start();
  });
  afterEach(() => authority.stop());

  /** Runs `use` with a channel as a joiner (no identity) or a node has it. */
  async function withChannel<T>(
    identity: NodeIdentity | undefined,
    use: (channel: ReturnType<typeof createChannel>) => Promise<T>,
  ): Promise<T> {
    const roots = authority.cluster.TLSInfo.TrustRoot;
    const channel = createChannel(authority.address, { roots, serverName: 'swarm-ca', identity });
    try {
      return await use(channel);
    } finally {
      channel.close();
    }
  }

  /** Issues and fetches, as an agent does, and answers the identity. */
  async function enrol(
    token: string,
    options: {
      identity?: NodeIdentity;
      isStock?: boolean;
      request?: { requestPem: string; keyPem: string };
    } = {},
  ): Promise<NodeIdentity> {
    const { requestPem, keyPem } = options.request ?? (await makeRequest());
    const csr = Buffer.from(requestPem);
    return withChannel(options.identity, async (channel) => {
      const call = options.isStock ? {} : ours;
      const issued = await channel.call('NodeCA', 'IssueNodeCertificate', { csr, token }, call);
      assert.equal(issued.node_membership, 'ACCEPTED');
      const request = { node_id: issued.node_id };
      const answer = await channel.call('NodeCA', 'NodeCertificateStatus', request);
      assert.equal(answer.status?.state, 'ISSUED');
      assert.equal(answer.certificate?.status?.state, 'ISSUED');
      assert.deepEqual(answer.certificate?.csr, csr, 'a worker polls for ever unless its request is echoed');
      assert.equal(answer.certificate?.cn, issued.node_id);
      const certificatePem = answer.certificate!.certificate!.toString();
      const identity = { certificatePem, keyPem, rootsPem: authority.cluster.TLSInfo.TrustRoot };
      assert.equal(verifyIdentity(identity).nodeId, issued.node_id);
      return identity;
    });
  }

  async function refusal(promise: Promise<unknown>, code: ErrorCode, message: RegExp): Promise<void> {
    await assert.rejects(promise, (error: Error & { code?: string }) => {
      assert.match(error.message, message);
      assert.equal(error.code, code);
      for (const token of Object.values(authority.cluster.JoinTokens)) {
        assert.ok(!error.message.includes(parseJoinToken(token).secret), 'the refusal tells a token');
      }
      return true;
    });
  }

  it('shows its root to anyone, in the bytes whose digest the tokens carry', async () => {
    const root = await fetchUnverifiedRoot(authority.address);
    const { Worker, Manager } = authority.cluster.JoinTokens;
    assert.equal(rootDigestOf(root), parseJoinToken(Worker).rootDigest);
    assert.equal(rootDigestOf(root), parseJoinToken(Manager).rootDigest);
  });

  for (const role of ['worker', 'manager'] as const) {
    it(`lets a node with the ${role}'s token join as ${role}`, async () => {
      const { Worker, Manager } = authority.cluster.JoinTokens;
      const identity = await enrol(role === 'worker' ? Worker : Manager);
      const facts = readNodeCertificate(identity.certificatePem);
      assert.equal(facts.role, role);
      assert.equal(facts.clusterId, authority.cluster.ID);
      const node = authority.node(facts.nodeId);
      assert.equal(node.Spec.Role, role);
      assert.equal(node.Private.Role, role);
      assert.equal(node.Spec.Availability, 'active');
      assert.equal(node.Status.State, 'unknown');
      const lifetimeMs = 90 * 24 * 3_600_000;
      assert.ok(Math.abs(facts.notAfterMs - authority.clock.now() - lifetimeMs) <= 1_000);
    });
  }

  it('keeps the availability that a joiner asks for', async () => {
    const { requestPem } = await makeRequest();
    const request = {
      csr: Buffer.from(requestPem),
      token: authority.cluster.JoinTokens.Worker,
      availability: 'DRAIN',
    } as const;
    const issued = await withChannel(undefined, (channel) =>
      channel.call('NodeCA', 'IssueNodeCertificate', request, ours),
    );
    assert.equal(authority.node(issued.node_id!).Spec.Availability, 'drain');
  });

  it('knows a joiner again that asks twice with one request', async () => {
    const request = await makeRequest();
    const token = authority.cluster.JoinTokens.Worker;
    const first = readNodeCertificate((await enrol(token, { request })).certificatePem);
    const again = readNodeCertificate((await enrol(token, { request })).certificatePem);
    assert.equal(again.nodeId, first.nodeId);
    assert.equal(authority.store.count('node'), 2);
  });

  it('refuses tokens that are not, or no longer, the cluster’s', async () => {
    const { Worker, Manager } = authority.cluster.JoinTokens;
    await authority.edit((cluster) =>
      withRotated(cluster, { worker: true, manager: false, unlockKey: false }, authority.random),
    );
    const words =
      /not \(or no longer\) valid for the cluster: it may have been rotated.*shoal swarm join-token/;
    await refusal(enrol(Worker), 'permission-denied', words);
    await refusal(enrol(`${Manager}x`), 'permission-denied', words);
    await refusal(enrol('nonsense'), 'permission-denied', words);
    await enrol(Manager);
    await enrol(authority.cluster.JoinTokens.Worker);
  });

  it('refuses who brings neither token nor certificate', async () => {
    await refusal(enrol(''), 'unauthenticated', /neither a join token nor a valid certificate/);
  });

  it('lets a stock Docker Engine in as a worker, and says why it can not be a manager', async () => {
    const { Worker, Manager } = authority.cluster.JoinTokens;
    const identity = await enrol(Worker, { isStock: true });
    assert.equal(readNodeCertificate(identity.certificatePem).role, 'worker');
    await refusal(
      enrol(Manager, { isStock: true }),
      'permission-denied',
      /a Docker Engine can join as a worker only.*Raft.*worker token/,
    );
  });

  it('refuses bad requests and makes no node of them', async () => {
    const token = authority.cluster.JoinTokens.Worker;
    const bad = { requestPem: 'no request', keyPem: '' };
    await refusal(enrol(token, { request: bad }), 'invalid-argument', /not a certificate request in PEM/);
    const csr = Buffer.from([0xff, 0xfe, 0x00]);
    const call = withChannel(undefined, (channel) =>
      channel.call('NodeCA', 'IssueNodeCertificate', { csr, token }, ours),
    );
    await refusal(call, 'invalid-argument', /not PEM/);
    assert.equal(authority.store.count('node'), 1);
  });

  describe('for a node that has a certificate', () => {
    let identity: NodeIdentity;
    let nodeId: string;

    beforeEach(async () => {
      identity = await enrol(authority.cluster.JoinTokens.Worker);
      nodeId = readNodeCertificate(identity.certificatePem).nodeId;
    });

    const wish = (role: NodeRole) =>
      authority.editNode(nodeId, (node) => ({ ...node, Spec: { ...node.Spec, Role: role } }));
    const roleOf = (renewed: NodeIdentity) => readNodeCertificate(renewed.certificatePem).role;

    it('renews it under the same id, for a new key', async () => {
      const renewed = await enrol('', { identity });
      assert.equal(readNodeCertificate(renewed.certificatePem).nodeId, nodeId);
      assert.notEqual(renewed.certificatePem, identity.certificatePem);
      assert.equal(authority.node(nodeId).Private.Certificate?.Pem, renewed.certificatePem);
      assert.equal(authority.store.count('node'), 2);
    });

    it('knows the one that it holds still, however many answers were lost on their way', async () => {
      const issued = [identity];
      for (const _ of [1, 2, 3]) issued.push(await enrol('', { identity }));
      const digests = () => authority.node(nodeId).Private.Certificate?.FormerDigests;
      const digest = (one: NodeIdentity) => x509Reader.digest(one.certificatePem);
      assert.deepEqual(digests(), issued.slice(0, 3).map(digest));
      const later = await enrol('', { identity: issued[2]! });
      assert.deepEqual(digests(), issued.slice(2).map(digest), 'what came before is of no use any more');
      await enrol('', { identity: later });
      assert.deepEqual(digests(), [digest(later)]);
      for (let count = 0; count < 7; count += 1) await enrol('', { identity: later });
      assert.equal(digests()?.[0], digest(later), 'as many answers as may be lost');
      const { clock, random, cluster } = authority;
      const self = await issueLocally(
        cluster,
        { nodeId: asId(nodeId), role: 'worker' },
        { now: clock.now(), random },
      );
      await enrol('', { identity: self.identity });
      assert.ok(
        digests()?.includes(digest(later)),
        'beside one that it made itself, those that it was given',
      );
      assert.ok(digests()?.includes(x509Reader.digest(self.identity.certificatePem)));
    });

    it('knows both of two that two managers give it at the same time, for the role of the moment', async () => {
      const { store, clock, random } = authority;
      const request = async () => ({
        applicant: {
          kind: 'member' as const,
          nodeId,
          clusterId: authority.cluster.ID,
          certificateDigest: x509Reader.digest(identity.certificatePem),
        },
        requestPem: (await makeRequest()).requestPem,
        availability: 'active' as const,
        isShoal: true,
      });
      const other = await request();
      let meanwhile = async () => {
        await authority.service.issue(other);
        await wish('manager');
      };
      const slow = new CertificateService({
        store,
        clock,
        random,
        log: silentLog,
        readBarrier: () => Promise.resolve(),
        propose: async (changes) => {
          const first = meanwhile;
          meanwhile = () => Promise.resolve();
          await first();
          return authority.propose(changes);
        },
      });
      const last = await request();
      await slow.issue(last);
      const { Role, Certificate } = authority.node(nodeId).Private;
      assert.equal(Certificate?.Csr, last.requestPem);
      assert.equal(Role, 'manager');
      assert.equal(readNodeCertificate(Certificate!.Pem).role, 'manager');
      assert.equal(Certificate?.FormerDigests?.[0], x509Reader.digest(identity.certificatePem));
      assert.equal(Certificate?.FormerDigests?.length, 2, 'the one that the other manager gave is forgotten');
    });

    it('asks to try again when it is changed without end meanwhile', async () => {
      const { store, clock, random, cluster } = authority;
      const slow = new CertificateService({
        store,
        clock,
        random,
        log: silentLog,
        readBarrier: () => Promise.resolve(),
        propose: async (changes) => {
          await wish('worker');
          return authority.propose(changes);
        },
      });
      const applicant = { kind: 'member', nodeId, clusterId: cluster.ID, certificateDigest: '' } as const;
      const { requestPem } = await makeRequest();
      const asked = slow.issue({ applicant, requestPem, availability: 'active', isShoal: true });
      await assert.rejects(asked, { code: 'unavailable', message: /was changed 10 times.*try again/ });
    });

    it('follows a promotion, and a demotion once it has left the managers’ group', async () => {
      await wish('manager');
      const manager = await enrol('', { identity });
      assert.equal(roleOf(manager), 'manager');
      assert.equal(authority.node(nodeId).Private.Role, 'manager');
      const ManagerStatus = { Reachability: 'reachable', Addr: '10.0.0.2:2377' } as const;
      await authority.editNode(nodeId, (node) => ({ ...node, ManagerStatus }));
      await wish('worker');
      assert.equal(roleOf(await enrol('', { identity: manager })), 'manager');
      await authority.editNode(nodeId, ({ ManagerStatus: _left, ...node }) => node);
      assert.equal(roleOf(await enrol('', { identity: manager })), 'worker');
      assert.equal(authority.node(nodeId).Private.Role, 'worker');
    });

    it('leaves a stock engine the worker it can be', async () => {
      await wish('manager');
      assert.equal(roleOf(await enrol('', { identity, isStock: true })), 'worker');
    });

    it('refuses it when the node was removed', async () => {
      await authority.propose([{ op: 'remove', kind: 'node', id: authority.node(nodeId).ID }]);
      await refusal(enrol('', { identity }), 'permission-denied', /was removed from the cluster/);
      await refusal(
        withChannel(identity, (channel) =>
          channel.call('NodeCA', 'NodeCertificateStatus', { node_id: nodeId }),
        ),
        'not-found',
        /is not, or no longer, part of the cluster/,
      );
    });

    it('tells the unlock key to managers alone', async () => {
      const ask = (who: NodeIdentity | undefined) =>
        withChannel(who, (channel) => channel.call('CA', 'GetUnlockKey', {}));
      const manager = authority.first.identity;
      assert.equal((await ask(manager)).unlock_key?.toString() ?? '', '');
      await authority.edit((cluster) => ({
        ...cluster,
        Private: { ...cluster.Private, UnlockKey: 'SWMKEY-1-test' },
      }));
      const answer = await ask(manager);
      assert.equal(answer.unlock_key?.toString(), 'SWMKEY-1-test');
      assert.equal(answer.version?.index, String(authority.cluster.Version.Index));
      await assert.rejects(ask(identity), { code: 'permission-denied' });
      await assert.rejects(ask(undefined), { code: 'permission-denied' });
      await wish('manager');
      const promoted = await enrol('', { identity });
      await wish('worker');
      await refusal(ask(promoted), 'permission-denied', /is no manager any more/);
    });

    it('waits with the status until the certificate is issued', async () => {
      const issued = authority.node(nodeId).Private.Certificate!;
      await authority.editNode(nodeId, (node) => ({
        ...node,
        Private: { ...node.Private, Certificate: { ...issued, State: 'pending' } },
      }));
      const status = authority.service.status(nodeId);
      const abandoned = new AbortController();
      const gone = authority.service.status(nodeId, abandoned.signal);
      const late = authority.service.status(nodeId);
      await authority.clock.run(1_000);
      abandoned.abort();
      await assert.rejects(gone, { code: 'timeout' });
      await authority.editNode(nodeId, (node) => ({
        ...node,
        Private: { ...node.Private, Certificate: { ...issued, State: 'rotate' } },
      }));
      assert.equal((await status).state, 'rotate');
      assert.equal((await late).certificatePem, issued.Pem);
    });
  });

  it('refuses a certificate of another cluster', async () => {
    const other = await TestAuthority.start({ seed: 99 });
    try {
      const call = enrol('', { identity: other.first.identity });
      await refusal(call, 'unauthenticated', /valid certificate of this cluster/);
      await assert.rejects(
        authority.service.issue({
          applicant: {
            kind: 'member',
            nodeId: other.first.node.ID,
            clusterId: other.cluster.ID,
            certificateDigest: '',
          },
          requestPem: (await makeRequest()).requestPem,
          availability: 'active',
          isShoal: true,
        }),
        /belongs to another cluster/,
      );
    } finally {
      await other.stop();
    }
  });

  it('refuses an expired certificate', async () => {
    // The lifetime is over before it begins: an hour before now, of which the backdating takes all.
    const NodeCertExpiry = -1_800_000_000_000;
    await authority.edit((cluster) => ({
      ...cluster,
      Spec: { ...cluster.Spec, CAConfig: { NodeCertExpiry } },
    }));
    const identity = await enrol(authority.cluster.JoinTokens.Worker);
    assert.ok(readNodeCertificate(identity.certificatePem).notAfterMs < Date.now());
    await refusal(enrol('', { identity }), 'unauthenticated', /expired certificate.*join again/);
  });
});
