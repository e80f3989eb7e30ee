import assert from 'node:assert/strict';
import { bootstrapCluster } from '../../../manager/ca/bootstrap.ts';
import { issueLocally } from '../../../manager/ca/root.ts';
import { newJoinTokens, roleOfToken, withRotated } from '../../../manager/ca/tokens.ts';
import { decodeEntry, encodeEntry } from '../../../manager/store/change.ts';
import { Store } from '../../../manager/store/store.ts';
import { rootDigestOf, verifyIdentity } from '../../../proto/certificate.ts';
import { parseJoinToken, parseUnlockKey } from '../../../proto/identity.ts';
import { isId } from '../../../proto/ids.ts';
import { VirtualClock } from '../../simulation/clock.ts';
import { seededRandom } from '../../simulation/random.ts';

const clock = new VirtualClock();

describe('a new cluster', () => {
  it('is complete in its first log entry', async () => {
    const made = await bootstrapCluster({ random: seededRandom(1), clock });
    const store = new Store();
    const data = encodeEntry({ now: clock.now(), changes: made.changes });
    assert.deepEqual(store.apply(1, data), { ok: true });
    assert.deepEqual(decodeEntry(data).changes, JSON.parse(JSON.stringify(made.changes)));
    const cluster = store.cluster()!;
    assert.ok(isId(cluster.ID));
    assert.deepEqual(cluster.DefaultAddrPool, ['10.0.0.0/8']);
    assert.equal(cluster.SubnetSize, 24);
    assert.equal(cluster.DataPathPort, 4789);
    assert.equal(cluster.Spec.Name, 'default');
    assert.equal(cluster.Spec.Dispatcher.HeartbeatPeriod, 1_000_000_000);
    assert.equal(cluster.Spec.CAConfig.NodeCertExpiry, 7_776_000_000_000_000);
    assert.equal(cluster.Private.UnlockKey, undefined);
    assert.equal(
      parseJoinToken(cluster.JoinTokens.Worker).rootDigest,
      rootDigestOf(cluster.TLSInfo.TrustRoot),
    );
    const node = store.list('node')[0]!;
    assert.equal(node.Spec.Role, 'manager');
    const facts = verifyIdentity(made.identity);
    assert.deepEqual([facts.nodeId, facts.clusterId, facts.role], [node.ID, cluster.ID, 'manager']);
  });

  it('shows its first manager as the leader from the first entry on', async () => {
    const advertiseAddress = '10.0.0.1:2377';
    const { node } = await bootstrapCluster({ random: seededRandom(1), clock, advertiseAddress });
    const wanted = { Leader: true, Reachability: 'reachable', Addr: advertiseAddress };
    assert.deepEqual(node.ManagerStatus, wanted);
  });

  it('has three keys of 16 bytes for each of the two subsystems of stock overlays', async () => {
    const { cluster } = await bootstrapCluster({ random: seededRandom(2), clock });
    for (const subsystem of ['networking:gossip', 'networking:ipsec']) {
      const keys = cluster.Private.NetworkKeys.filter((key) => key.Subsystem === subsystem);
      assert.deepEqual(
        keys.map((key) => [key.LamportTime, Buffer.from(key.Key, 'base64').length]),
        [
          [1, 16],
          [2, 16],
          [3, 16],
        ],
      );
    }
    assert.equal(new Set(cluster.Private.NetworkKeys.map((key) => key.Key)).size, 6);
  });

  it('takes over what init asked for, zeros standing for defaults', async () => {
    const { cluster, node } = await bootstrapCluster({
      random: seededRandom(3),
      clock,
      availability: 'drain',
      defaultAddrPool: ['10.50.0.0/16'],
      subnetSize: 26,
      dataPathPort: 4800,
      spec: {
        Labels: { tier: 'one' },
        Orchestration: { TaskHistoryRetentionLimit: 0 },
        Raft: { ElectionTick: 0, HeartbeatTick: 0 },
        CAConfig: { NodeCertExpiry: 3_600_000_000_000 },
        EncryptionConfig: { AutoLockManagers: true },
      },
    });
    assert.equal(node.Spec.Availability, 'drain');
    assert.deepEqual([cluster.DefaultAddrPool, cluster.SubnetSize], [['10.50.0.0/16'], 26]);
    assert.equal(cluster.DataPathPort, 4800);
    assert.deepEqual(cluster.Spec.Labels, { tier: 'one' });
    assert.equal(cluster.Spec.Orchestration.TaskHistoryRetentionLimit, 0);
    assert.equal(cluster.Spec.Raft.ElectionTick, 10);
    assert.equal(cluster.Spec.CAConfig.NodeCertExpiry, 3_600_000_000_000);
    assert.equal(parseUnlockKey(cluster.Private.UnlockKey!).length, 32);
  });

  it('lets its manager issue itself a certificate in place', async () => {
    const { cluster, node } = await bootstrapCluster({ random: seededRandom(4), clock });
    const context = { now: clock.now(), random: seededRandom(5) };
    const { identity } = await issueLocally(cluster, { nodeId: node.ID, role: 'manager' }, context);
    assert.equal(verifyIdentity(identity).nodeId, node.ID);
  });
});

describe('join tokens of a cluster', () => {
  it('tell the role, and nothing else does', () => {
    const tokens = newJoinTokens('root', seededRandom(1));
    assert.equal(roleOfToken(tokens, tokens.Worker), 'worker');
    assert.equal(roleOfToken(tokens, tokens.Manager), 'manager');
    for (const wrong of ['', tokens.Worker.slice(0, -1), `${tokens.Manager}0`, tokens.Worker.toUpperCase()]) {
      assert.equal(roleOfToken(tokens, wrong), undefined);
    }
  });

  it('are replaced one by one, and the unlock key only while managers lock', async () => {
    const random = seededRandom(6);
    const { cluster } = await bootstrapCluster({ random, clock });
    const worker = withRotated(cluster, { worker: true, manager: false, unlockKey: true }, random);
    assert.notEqual(worker.JoinTokens.Worker, cluster.JoinTokens.Worker);
    assert.equal(worker.JoinTokens.Manager, cluster.JoinTokens.Manager);
    assert.equal(worker.Private.UnlockKey, undefined);
    const EncryptionConfig = { AutoLockManagers: true };
    const locking = { ...cluster, Spec: { ...cluster.Spec, EncryptionConfig } };
    const locked = withRotated(locking, { worker: false, manager: true, unlockKey: true }, random);
    assert.equal(locked.JoinTokens.Worker, cluster.JoinTokens.Worker);
    assert.notEqual(locked.JoinTokens.Manager, cluster.JoinTokens.Manager);
    assert.match(locked.Private.UnlockKey!, /^SWMKEY-1-/);
  });
});
