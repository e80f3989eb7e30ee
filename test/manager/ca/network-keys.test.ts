import assert from 'node:assert/strict';
import { networkKeyRotation, rotated, rotationPeriodMs } from '../../../manager/ca/network-keys.ts';
import { Store } from '../../../manager/store/store.ts';
import type { Cluster, NetworkKey } from '../../../proto/docker.ts';
import { type Id, type NewId, newId } from '../../../proto/ids.ts';
import { seededRandom } from '../../simulation/random.ts';
import { makeCluster } from '../orchestrator/objects.ts';

const start = Date.UTC(2026, 0, 1);

function keys(): NetworkKey[] {
  const all = (['networking:gossip', 'networking:ipsec'] as const).flatMap((Subsystem) =>
    [1, 2, 3].map((LamportTime) => ({ Subsystem, LamportTime, Key: Buffer.alloc(16).toString('base64') })),
  );
  return all;
}

const random = seededRandom(4);
const makeId: NewId = <I extends Id<string>>() => newId<I>(random);

describe('ca: the keys of stock workers’ networks', () => {
  it('three a subsystem, the oldest replaced, Lamport times rising, sixteen bytes that differ', () => {
    let now = keys();
    for (let round = 0; round < 4; round += 1) {
      const next = rotated(now, makeId);
      for (const subsystem of ['networking:gossip', 'networking:ipsec'] as const) {
        const before = now.filter((key) => key.Subsystem === subsystem);
        const after = next.filter((key) => key.Subsystem === subsystem);
        assert.equal(after.length, 3);
        assert.deepEqual(after.slice(0, 2), before.slice(1));
        assert.ok(after[2]!.LamportTime > after[1]!.LamportTime);
        assert.equal(Buffer.from(after[2]!.Key, 'base64').length, 16);
      }
      now = next;
    }
    assert.equal(new Set(now.map((key) => key.Key)).size, 6);
  });

  it('are rotated every twelve hours, by whoever leads then', () => {
    const store = new Store();
    const Private = { CaKeyPem: 'k', NetworkKeys: keys() };
    store.applyEntry(1, {
      now: start,
      changes: [{ op: 'create', kind: 'cluster', object: makeCluster({ Private }) }],
    });
    const look = (now: number) => {
      const found = networkKeyRotation.reconcile(store, 'keys', now, makeId);
      store.applyEntry(store.index + 1, { now, changes: found.changes });
      return found;
    };
    const first = look(start + 1);
    assert.deepEqual([first.changes, first.wakeAt], [[], start + rotationPeriodMs]);
    const due = look(start + rotationPeriodMs);
    assert.equal(due.wakeAt, start + 2 * rotationPeriodMs);
    const { NetworkKeys, CaKeyPem } = store.cluster()!.Private as Cluster['Private'];
    assert.equal(CaKeyPem, 'k');
    assert.deepEqual(
      NetworkKeys.map((key) => key.LamportTime),
      [2, 3, 4, 2, 3, 5],
    );
    assert.deepEqual(look(start + rotationPeriodMs + 5).changes, []);
  });
});
