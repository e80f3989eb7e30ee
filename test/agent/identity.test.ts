import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AgentIdentity, type HeldIdentity, renewalDelayMs } from '../../agent/identity.ts';
import { withRotated } from '../../manager/ca/tokens.ts';
import type { NodeRole } from '../../proto/docker.ts';
import { isShoalError } from '../../proto/errors.ts';
import { formatJoinToken, newUnlockKey, parseJoinToken } from '../../proto/identity.ts';
import { asId } from '../../proto/ids.ts';
import { type Clock, silentLog } from '../../proto/ports.ts';
import { TestAuthority } from '../manager/ca/authority.ts';
import { settle } from '../simulation/clock.ts';
import { seededRandom } from '../simulation/random.ts';

const hourNs = 3_600_000_000_000;
/** Nothing listens there: the port is privileged and unassigned. */
const deadAddress = '127.0.0.1:1';

function bound(clock: Clock): Clock {
  return {
    now: () => clock.now(),
    monotonicMs: () => clock.monotonicMs(),
    after: (delayMs, action) => clock.after(delayMs, action),
  };
}

describe('identity of an agent', () => {
  let authority: TestAuthority;
  let parent: string;
  let directory: string;
  let managers: string[];
  const made: AgentIdentity[] = [];

  beforeEach(async () => {
    // Certificates of two hours: in virtual time they can be renewed while real TLS still accepts them.
    authority = await TestAuthority.start({ spec: { CAConfig: { NodeCertExpiry: 2 * hourNs } } });
    parent = mkdtempSync(join(tmpdir(), 'shoal-identity-'));
    directory = join(parent, 'certificates');
    managers = [authority.address];
  });
  afterEach(async () => {
    for (const identity of made.splice(0)) identity.stop();
    await authority.stop();
    rmSync(parent, { recursive: true, force: true });
  });

  function agent(seed = 1): AgentIdentity {
    const identity = new AgentIdentity({
      directory,
      clock: authority.clock,
      random: seededRandom(seed),
      log: silentLog,
      version: '0.1.0',
      managers: () => managers,
    });
    made.push(identity);
    return identity;
  }

  const enter = (
    identity: AgentIdentity,
    token = authority.cluster.JoinTokens.Worker,
    addresses = managers,
  ) => identity.obtain({ token, addresses });
  const file = (name: string) => join(directory, name);

  /** Lets real I/O happen, without virtual time passing, until `condition` holds. */
  async function waitFor(condition: () => boolean, what: string): Promise<void> {
    const endMs = Date.now() + 10_000;
    while (!condition()) {
      if (Date.now() > endMs) throw new Error(`${what} did not come about within 10 s`);
      await settle();
    }
  }

  it('joins, keeps what it got on disk, and takes it up again', async () => {
    const identity = agent();
    assert.equal(await identity.load(), undefined);
    const told: HeldIdentity[] = [];
    identity.onChange((held) => told.push(held));
    const held = await enter(identity);
    assert.equal(held.certificate.role, 'worker');
    assert.equal(held.certificate.clusterId, authority.cluster.ID);
    assert.deepEqual(told, [held]);
    assert.equal(
      authority.node(held.certificate.nodeId).Private.Certificate?.Pem,
      held.identity.certificatePem,
    );
    assert.deepEqual(await agent().load(), held);
    assert.deepEqual(identity.tlsInfo(), authority.cluster.TLSInfo);
  });

  it('keeps its key for its owner alone, and no more files than it needs', async () => {
    await enter(agent());
    assert.equal(statSync(file('swarm-node.key')).mode & 0o777, 0o600);
    assert.equal(statSync(directory).mode & 0o777, 0o700);
    assert.deepEqual(readdirSync(directory).sort(), [
      'swarm-node.crt',
      'swarm-node.key',
      'swarm-root-ca.crt',
    ]);
  });

  it('becomes a manager by the manager’s token, with the availability asked for', async () => {
    const token = authority.cluster.JoinTokens.Manager;
    const held = await agent().obtain({ token, addresses: managers, availability: 'drain' });
    assert.equal(held.certificate.role, 'manager');
    assert.equal(authority.node(held.certificate.nodeId).Spec.Availability, 'drain');
  });

  it('passes over a manager that does not answer', async () => {
    const held = await enter(agent(), undefined, [deadAddress, authority.address]);
    assert.equal(held.certificate.role, 'worker');
  });

  it('names each address that it could not reach, and why', async () => {
    await assert.rejects(enter(agent(), undefined, [deadAddress, 'localhost:1']), (error: Error) => {
      assert.match(error.message, /no manager could be reached: 127\.0\.0\.1:1: .*; localhost:1: /);
      assert.match(error.message, /connection refused: nothing listens there/);
      assert.ok(!error.message.includes('Resolution note'));
      return true;
    });
    await assert.rejects(enter(agent(), undefined, ['nowhere.invalid:2377']), {
      code: 'unavailable',
      message: /the name in nowhere\.invalid:2377 can't be resolved/,
    });
    await assert.rejects(enter(agent(), undefined, []), /no address of a manager is known/);
  });

  it('does not wait for ever for a machine that takes connections and says nothing', async () => {
    const taken: Socket[] = [];
    const mute = createServer((socket) => {
      taken.push(socket);
      socket.on('error', () => {}).resume();
    }).listen(0, '127.0.0.1');
    await new Promise((resolve) => mute.once('listening', resolve));
    const address = `127.0.0.1:${(mute.address() as AddressInfo).port}`;
    // The deadline is told to gRPC in real time, of which the clock here is nearly ten seconds behind.
    const clock = { ...bound(authority.clock), now: () => Date.now() - 9_700 };
    const identity = new AgentIdentity({
      directory,
      clock,
      random: seededRandom(1),
      log: silentLog,
      version: '0.1.0',
      managers: () => managers,
    });
    try {
      await assert.rejects(enter(identity, undefined, [address]), /no answer within 0\.\d s/);
      await enter(identity, undefined, [address, authority.address]);
    } finally {
      mute.close();
      for (const socket of taken) socket.destroy();
    }
  });

  it('does not speak to a manager of another cluster than the token’s', async () => {
    const { secret } = parseJoinToken(authority.cluster.JoinTokens.Worker);
    const token = formatJoinToken({ rootDigest: '1'.repeat(50), secret });
    await assert.rejects(enter(agent(), token), (error: Error) => {
      assert.match(error.message, new RegExp(`^${authority.address}: .*does not match the join token`));
      assert.ok(!error.message.includes(secret));
      return true;
    });
    assert.equal(authority.store.count('node'), 1);
  });

  it('hands on what a manager refuses it with', async () => {
    const { Worker } = authority.cluster.JoinTokens;
    await authority.edit((cluster) =>
      withRotated(cluster, { worker: true, manager: true, unlockKey: false }, authority.random),
    );
    await assert.rejects(enter(agent(), Worker), {
      code: 'permission-denied',
      message: /may have been rotated/,
    });
    await assert.rejects(enter(agent(), 'SWMTKN-1-short'), { code: 'invalid-argument' });
  });

  it('stops joining when told to', async () => {
    await assert.rejects(
      agent().obtain({
        token: authority.cluster.JoinTokens.Worker,
        addresses: managers,
        signal: AbortSignal.abort(),
      }),
      { code: 'timeout' },
    );
    assert.deepEqual(readdirSync(parent), []);
  });

  it('finishes a change of key that a power cut left half done', async () => {
    const held = await enter(agent());
    renameSync(file('swarm-node.key'), file('swarm-node.key.next'));
    writeFileSync(file('swarm-node.key'), 'the key before', { mode: 0o600 });
    assert.deepEqual(await agent().load(), held);
    assert.equal(readFileSync(file('swarm-node.key'), 'utf8'), held.identity.keyPem);
  });

  describe('sealed by an unlock key', () => {
    const manager = async () => {
      const identity = agent();
      return { identity, held: await enter(identity, authority.cluster.JoinTokens.Manager) };
    };
    const [first, second] = [newUnlockKey(seededRandom(7)), newUnlockKey(seededRandom(8))];
    const isLocked = (reason: string | undefined) => (error: Error) => {
      assert.ok(isShoalError(error, 'locked'));
      assert.match(error.message, /needs to be unlocked/);
      assert.equal(error.details.reason, reason);
      return true;
    };

    it('the key of a manager opens with that one alone, and renewals keep it so', async () => {
      const { identity, held } = await manager();
      await identity.sealUnder(first);
      assert.match(readFileSync(file('swarm-node.key'), 'utf8'), /^-----BEGIN ENCRYPTED PRIVATE KEY-----/);
      assert.equal(statSync(file('swarm-node.key')).mode & 0o777, 0o600);
      await assert.rejects(agent().load(), (error: Error) => {
        assert.ok(isShoalError(error, 'locked') && error.details.nodeId === held.certificate.nodeId);
        return isLocked(undefined)(error);
      });
      await assert.rejects(agent().load(second), isLocked('wrong-key'));
      await assert.rejects(agent().load('no key'), isLocked('wrong-key'));
      assert.deepEqual(await agent().load(first), held);
      const renewed = await identity.renew();
      await assert.rejects(agent().load(), isLocked(undefined));
      assert.deepEqual(await agent().load(first), renewed);
      await identity.sealUnder(second);
      await assert.rejects(agent().load(first), isLocked('wrong-key'));
      await identity.sealUnder(undefined);
      assert.deepEqual(await agent().load(), renewed);
    });

    it('after a power cut in the middle, it opens with the key that the rest of the disk has', async () => {
      const { identity, held } = await manager();
      const changes: [string | undefined, string | undefined][] = [
        [undefined, first],
        [first, second],
        [second, undefined],
      ];
      for (const [before, after] of changes) {
        const dies = async (disk: 'before' | 'after') => {
          await assert.rejects(
            identity.sealUnder(after, async () => {
              // The rest of the disk is not written (before), or is and nothing after it (after).
              assert.deepEqual(await agent().load(before), held);
              throw new Error(disk);
            }),
            { message: disk },
          );
        };
        await dies('before');
        assert.deepEqual(await agent().load(before), held);
        await dies('after');
        assert.deepEqual(await agent().load(after ?? before), held);
        await identity.sealUnder(after);
        assert.deepEqual(await agent().load(after), held);
      }
    });

    it('lies in the clear once the node is a worker: workers come up by themselves', async () => {
      const { identity, held } = await manager();
      await identity.sealUnder(first);
      const { nodeId } = held.certificate;
      await authority.editNode(nodeId, (node) => ({ ...node, Spec: { ...node.Spec, Role: 'worker' } }));
      const worker = await identity.renew();
      assert.equal(worker.certificate.role, 'worker');
      assert.deepEqual(await agent().load(), worker);
      await identity.sealUnder(first);
      assert.deepEqual(await agent().load(), worker);
    });
  });

  it('refuses files that do not belong together', async () => {
    await enter(agent());
    writeFileSync(file('swarm-node.key'), 'no key');
    await assert.rejects(agent().load(), { code: 'corrupted', message: /no swarm-node\.key that fits/ });
    rmSync(file('swarm-root-ca.crt'));
    await assert.rejects(agent().load(), { code: 'corrupted', message: /no swarm-root-ca\.crt/ });
  });

  it('forgets everything when the node leaves', async () => {
    const identity = agent();
    await enter(identity);
    await identity.clear();
    assert.equal(identity.current(), undefined);
    assert.deepEqual(readdirSync(directory), []);
    await assert.rejects(identity.renew(), /not part of a cluster/);
  });

  describe('renewal', () => {
    const wish = async (nodeId: string, role: NodeRole) =>
      authority.editNode(nodeId, (node) => ({ ...node, Spec: { ...node.Spec, Role: role } }));

    it('comes between half and four fifths of the lifetime, for a new key', async () => {
      const identity = agent();
      const first = await enter(identity);
      identity.startRenewing();
      const dueMs = authority.clock.nextDueMs()!;
      assert.ok(dueMs >= 0.5 * 7_200_000 - 1_000 && dueMs <= 0.8 * 7_200_000, `due after ${dueMs} ms`);
      await authority.clock.run(dueMs);
      await waitFor(() => identity.current() !== first, 'renewal');
      const second = identity.current()!;
      assert.equal(second.certificate.nodeId, first.certificate.nodeId);
      assert.notEqual(second.identity.keyPem, first.identity.keyPem);
      assert.ok(second.certificate.notAfterMs > first.certificate.notAfterMs);
      assert.deepEqual(await agent().load(), second);
      const nextMs = authority.clock.nextDueMs()! - dueMs;
      assert.ok(nextMs >= 0.5 * 7_200_000 - 1_000, `the one after is due ${nextMs} ms later`);
    });

    it('is spread by chance, and due at once when it is late', () => {
      const certificate = {
        nodeId: asId<never>('n'),
        clusterId: asId<never>('c'),
        role: 'worker' as const,
        notBeforeMs: 0,
        notAfterMs: 11 * 3_600_000,
      };
      const hourMs = 3_600_000;
      assert.equal(renewalDelayMs(certificate, hourMs, 0), 5 * hourMs);
      assert.equal(renewalDelayMs(certificate, hourMs, 0.999_999_9) < 8 * hourMs, true);
      assert.equal(renewalDelayMs(certificate, 10 * hourMs, 0.5), 0);
    });

    it('is tried again while no manager answers', async () => {
      const identity = agent();
      const first = await enter(identity);
      identity.startRenewing();
      managers = [deadAddress];
      identity.renewSoon();
      await waitFor(() => authority.clock.nextDueMs()! < 1_000, 'the first retry');
      managers = [authority.address];
      await authority.clock.run(1_000);
      await waitFor(() => identity.current() !== first, 'renewal');
    });

    it('follows a promotion at once, and a demotion as soon as the managers certify it', async () => {
      const identity = agent();
      const { nodeId } = (await enter(identity)).certificate;
      identity.startRenewing();
      await wish(nodeId, 'manager');
      identity.expectRole('manager');
      await waitFor(() => identity.current()?.certificate.role === 'manager', 'promotion');
      const ManagerStatus = { Reachability: 'reachable', Addr: '10.0.0.2:2377' } as const;
      await authority.editNode(nodeId, (node) => ({ ...node, ManagerStatus }));
      await wish(nodeId, 'worker');
      const before = identity.current();
      identity.expectRole('worker');
      await waitFor(() => identity.current() !== before, 'a certificate, still of a manager');
      assert.equal(identity.current()?.certificate.role, 'manager');
      await waitFor(() => authority.clock.nextDueMs()! - authority.clock.monotonicMs() < 1_000, 'a retry');
      await authority.editNode(nodeId, ({ ManagerStatus: _left, ...node }) => node);
      await authority.clock.run(1_000);
      await waitFor(() => identity.current()?.certificate.role === 'worker', 'demotion');
    });

    it('says in words that the node was removed', async () => {
      const identity = agent();
      const { nodeId } = (await enter(identity)).certificate;
      await authority.propose([{ op: 'remove', kind: 'node', id: nodeId }]);
      await assert.rejects(identity.renew(), {
        code: 'permission-denied',
        message: /was removed from the cluster/,
      });
    });
  });

  it('keeps both a renewal and new roots that come at the same time', async () => {
    const identity = agent();
    const first = await enter(identity);
    const other = await TestAuthority.start({ seed: 99 });
    await other.stop();
    const both = first.identity.rootsPem + other.cluster.TLSInfo.TrustRoot;
    await Promise.all([identity.renew(), identity.setRoots(both), identity.setRoots(both), identity.renew()]);
    const held = identity.current()!;
    assert.equal(held.identity.rootsPem, both);
    assert.notEqual(held.identity.certificatePem, first.identity.certificatePem);
    assert.deepEqual(await agent().load(), held);
  });

  it('stays out when the node leaves while it renews', async () => {
    const identity = agent();
    await enter(identity);
    const renewal = identity.renew();
    await identity.clear();
    await assert.rejects(renewal, /not part of a cluster/);
    assert.deepEqual(readdirSync(directory), []);
  });

  it('does not take a root that would lock it out', async () => {
    const identity = agent();
    const held = await enter(identity);
    const other = await TestAuthority.start({ seed: 99 });
    try {
      await identity.setRoots(other.cluster.TLSInfo.TrustRoot);
      assert.deepEqual(identity.current(), held);
      const both = held.identity.rootsPem + other.cluster.TLSInfo.TrustRoot;
      await identity.setRoots(both);
      assert.equal(identity.current()?.identity.rootsPem, both);
      assert.equal(readFileSync(file('swarm-root-ca.crt'), 'utf8'), both);
    } finally {
      await other.stop();
    }
  });
});
