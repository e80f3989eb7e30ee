/** The way back of a node whose certificate TLS does not take any more: it has expired, or its root was replaced. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CertificateFiles } from '../../agent/certificate-files.ts';
import { AgentIdentity, type IdentityCalls, realCalls } from '../../agent/identity.ts';
import { returnWithinLabel } from '../../manager/ca/returning.ts';
import { issueLocally } from '../../manager/ca/root.ts';
import { beginRotation, rotationStep } from '../../manager/ca/rotation.ts';
import { ShoalError } from '../../proto/errors.ts';
import { newTokenSecret } from '../../proto/identity.ts';
import { silentLog } from '../../proto/ports.ts';
import type { NodeIdentity } from '../../proto/rpc.ts';
import { TestAuthority } from '../manager/ca/authority.ts';
import { settle } from '../simulation/clock.ts';
import { seededRandom } from '../simulation/random.ts';

/** Nothing listens there: the port is privileged and unassigned. */
const deadAddress = '127.0.0.1:1';

describe('identity of an agent whose certificate TLS does not take any more', () => {
  let authority: TestAuthority;
  let parent: string;
  let directory: string;
  let managers: string[];
  const made: AgentIdentity[] = [];

  beforeEach(async () => {
    shutOut.splice(0);
    const NodeCertExpiry = 2 * 3_600_000_000_000;
    authority = await TestAuthority.start({ spec: { CAConfig: { NodeCertExpiry } } });
    parent = mkdtempSync(join(tmpdir(), 'shoal-returning-'));
    directory = join(parent, 'certificates');
    managers = [authority.address];
  });
  afterEach(async () => {
    for (const identity of made.splice(0)) identity.stop();
    await authority.stop();
    rmSync(parent, { recursive: true, force: true });
  });

  const agent = (): AgentIdentity => away();
  const enter = (identity: AgentIdentity, token = authority.cluster.JoinTokens.Worker) =>
    identity.obtain({ token, addresses: managers });

  /** Lets real I/O happen, without virtual time passing, until `condition` holds. */
  async function waitFor(condition: () => boolean, what: string): Promise<void> {
    const endMs = Date.now() + 10_000;
    while (!condition()) {
      if (Date.now() > endMs) throw new Error(`${what} did not come about within 10 s`);
      await settle();
    }
  }

  const hourMs = 3_600_000;
  const shutOut: Error[] = [];
  const away = (issueToSelf?: () => Promise<NodeIdentity>, calls: Partial<IdentityCalls> = {}) => {
    const identity = new AgentIdentity({
      directory,
      clock: authority.clock,
      random: seededRandom(2),
      log: silentLog,
      version: '0.1.0',
      managers: () => managers,
      onShutOut: (error) => shutOut.push(error),
      ...(issueToSelf ? { issueToSelf } : {}),
      calls: { ...realCalls, ...calls },
    });
    made.push(identity);
    return identity;
  };
  // Later the port still has to show what real TLS takes.
  const later = async (ms: number) => {
    await authority.clock.run(ms);
    authority.serve(authority.first.identity);
  };
  const within = (text: string) =>
    authority.edit((cluster) => ({
      ...cluster,
      Spec: { ...cluster.Spec, Labels: { [returnWithinLabel]: text } },
    }));

  it('comes back with it, within the bound that the cluster sets', async () => {
    const first = await enter(agent());
    await later(2 * hourMs + 1_000);
    const identity = away();
    assert.deepEqual(await identity.load(), first);
    identity.startRenewing();
    await authority.clock.run(1);
    await waitFor(() => identity.current()?.identity.keyPem !== first.identity.keyPem, 'renewal');
    const held = identity.current()!;
    assert.equal(held.certificate.nodeId, first.certificate.nodeId);
    assert.ok(held.certificate.notAfterMs > authority.clock.now());
    assert.deepEqual(await agent().load(), held);
    assert.equal(
      authority.node(held.certificate.nodeId).Private.Certificate?.Pem,
      held.identity.certificatePem,
    );
  });

  it('may have lost the answer of the try before, but nothing older than that opens the way', async () => {
    const first = await enter(agent());
    await later(2 * hourMs + 1_000);
    const restarted = async () => {
      const identity = away();
      await identity.load();
      return identity;
    };
    const [one, two] = [await restarted(), await restarted()];
    await one.renew();
    // As the disk is when the power went before the new certificate was on it.
    await new CertificateFiles(directory).write(first.identity);
    await two.renew();
    const third = await two.renew();
    await new CertificateFiles(directory).write(first.identity);
    await assert.rejects((await restarted()).renew(), {
      code: 'permission-denied',
      message: /is not the last one that this cluster gave it.*shoal swarm join/,
    });
    await new CertificateFiles(directory).write(third.identity);
    await (await restarted()).renew();
  });

  it('is shut out after the bound, and told what to do', async () => {
    await within('1h');
    await enter(agent());
    await later(3 * hourMs + 1_000);
    const identity = away();
    await identity.load();
    identity.startRenewing();
    await authority.clock.run(1);
    await waitFor(() => shutOut.length > 0, 'the refusal');
    assert.match(
      shutOut[0]!.message,
      /expired at 20.*no later than 1h after that.*--return-within.*swarm leave --force.*`shoal swarm join`/,
    );
    assert.equal(authority.clock.nextDueMs(), undefined, 'it tries no more');
  });

  it('is shut out when it was removed', async () => {
    const { nodeId } = (await enter(agent())).certificate;
    await authority.propose([{ op: 'remove', kind: 'node', id: nodeId }]);
    await later(2 * hourMs + 1_000);
    const identity = away();
    await identity.load();
    identity.startRenewing();
    await authority.clock.run(1);
    await waitFor(() => shutOut.length > 0, 'the refusal');
    assert.match(shutOut[0]!.message, /was removed from the cluster: .*`shoal swarm join`/);
  });

  it('comes back when its root was replaced meanwhile, more than once', async () => {
    const identity = agent();
    const first = await enter(identity);
    for (let round = 0; round < 2; round += 1) await replaceRoot();
    identity.startRenewing();
    identity.notTaken();
    await waitFor(() => identity.current()?.identity.keyPem !== first.identity.keyPem, 'renewal');
    const { TrustRoot } = authority.cluster.TLSInfo;
    await identity.setRoots(TrustRoot);
    assert.equal(identity.current()?.identity.rootsPem, TrustRoot);
    await identity.renew();
  });

  it('is not shut out as a manager when its certificate expires while the others are asked', async () => {
    const first = await enter(away(), authority.cluster.JoinTokens.Manager);
    const { nodeId } = first.certificate;
    const refuse = async (): Promise<never> => {
      await later(2 * hourMs + 1_000);
      throw new ShoalError('unauthenticated', 'it comes too late');
    };
    const issueToSelf = async () => {
      const context = { now: authority.clock.now(), random: authority.random };
      return (await issueLocally(authority.cluster, { nodeId, role: 'manager' }, context)).identity;
    };
    const identity = away(issueToSelf, { requestCertificate: refuse, requestReturn: refuse });
    await identity.load();
    identity.startRenewing();
    identity.renewSoon();
    await waitFor(() => identity.current()?.identity.keyPem !== first.identity.keyPem, 'its own');
    assert.deepEqual(shutOut, []);
  });

  it('is not shut out by managers that speak of themselves: removed, locked or failed ones', async () => {
    const first = await enter(agent());
    await later(2 * hourMs + 1_000);
    const [removed, locked, failed] = ['removed:1', 'locked:1', 'failed:1'];
    const words: Readonly<Record<string, ShoalError>> = {
      [removed]: new ShoalError('not-a-manager', 'this manager was removed from the cluster'),
      [locked]: new ShoalError('locked', 'this manager is locked'),
      [failed]: new ShoalError('internal', 'this manager has failed'),
    };
    const identity = away(undefined, {
      requestReturn: async (address, ...asked) => {
        if (words[address]) throw words[address];
        return realCalls.requestReturn(address, ...asked);
      },
    });
    await identity.load();
    managers = [removed, locked, failed];
    await assert.rejects(identity.renew(), {
      code: 'unavailable',
      message: /removed:1: .*locked:1: .*failed/,
    });
    identity.startRenewing();
    await authority.clock.run(1);
    await waitFor(() => authority.clock.nextDueMs() !== undefined, 'another try');
    assert.deepEqual(shutOut, []);
    managers = [removed, locked, failed, authority.address];
    await authority.clock.run(10_000);
    await waitFor(() => identity.current()?.identity.keyPem !== first.identity.keyPem, 'renewal');
  });

  it('is not shut out as a manager that can make none just now', async () => {
    await within('1h');
    const first = await enter(away(), authority.cluster.JoinTokens.Manager);
    const { nodeId } = first.certificate;
    await later(4 * hourMs);
    let hasCaughtUp = false;
    const identity = away(async () => {
      if (!hasCaughtUp) throw new ShoalError('unavailable', 'not yet applied what the log holds');
      const context = { now: authority.clock.now(), random: authority.random };
      return (await issueLocally(authority.cluster, { nodeId, role: 'manager' }, context)).identity;
    });
    await identity.load();
    identity.startRenewing();
    await authority.clock.run(1);
    await waitFor(() => shutOut.length > 0 || authority.clock.nextDueMs() !== undefined, 'another try');
    assert.deepEqual(shutOut, [], 'what the others say is not final for it');
    hasCaughtUp = true;
    await authority.clock.run(10_000);
    await waitFor(() => (identity.current()?.certificate.notAfterMs ?? 0) > authority.clock.now(), 'its own');
  });

  it('goes on as a manager with one that it makes itself, until the others know of a newer one', async () => {
    const first = await enter(agent(), authority.cluster.JoinTokens.Manager);
    const { nodeId } = first.certificate;
    await later(2 * hourMs + 1_000);
    const identity = away(async () => {
      const context = { now: authority.clock.now(), random: authority.random };
      return (await issueLocally(authority.cluster, { nodeId, role: 'manager' }, context)).identity;
    });
    await identity.load();
    managers = [deadAddress];
    identity.startRenewing();
    await authority.clock.run(1);
    await waitFor(() => (identity.current()?.certificate.notAfterMs ?? 0) > authority.clock.now(), 'its own');
    assert.deepEqual(await agent().load(), first, 'the disk keeps what the others know');
    const own = identity.current()!;
    await waitFor(() => authority.clock.nextDueMs() !== undefined, 'another try');
    managers = [authority.address];
    await authority.clock.run(10_000);
    await waitFor(() => identity.current()?.identity.keyPem !== own.identity.keyPem, 'renewal');
    assert.deepEqual(await agent().load(), identity.current());
  });

  /** The cluster's root is another one, and the port shows a certificate of it. */
  async function replaceRoot(): Promise<void> {
    const context = { now: authority.clock.now(), random: authority.random };
    const begun = await beginRotation(authority.cluster, context);
    await authority.propose([{ op: 'update', kind: 'cluster', object: begun }]);
    for (const node of authority.store.list('node')) {
      await authority.editNode(node.ID, (one) => ({
        ...one,
        Description: { ...one.Description, TLSInfo: begun.TLSInfo },
      }));
    }
    const { changes } = rotationStep(authority.store, context.now, () => newTokenSecret(authority.random));
    await authority.propose(changes);
    const nodeId = authority.first.node.ID;
    const { identity } = await issueLocally(authority.cluster, { nodeId, role: 'manager' }, context);
    authority.serve(identity);
  }
});
