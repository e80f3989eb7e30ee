/**
 * The keys of stock workers' overlay networks: exactly three a subsystem (gossip, data), or they make no overlay at
 * all. Workers encrypt with the middle one, so that a key is known everywhere before it is used and for a while
 * after. Every twelve hours the oldest gives way to a new one, as in SwarmKit.
 */
import type { Cluster, NetworkKey } from '../../proto/docker.ts';
import type { NewId } from '../../proto/ids.ts';
import { nothing, type Reconciler, reconciliation } from '../store/reconciler.ts';

export const rotationPeriodMs = 12 * 3_600_000;
const keyBits = 128n;
const keysKey = 'keys';

export const networkKeyRotation: Reconciler = {
  name: 'network-keys',
  keysFor: (event) => (event.kind === 'cluster' && event.op === 'create' ? [keysKey] : []),
  allKeys: () => [keysKey],
  reconcile(view, _key, now, newId) {
    const cluster = view.cluster();
    if (!cluster) return nothing;
    const since = cluster.Private.NetworkKeysSince ?? Date.parse(cluster.CreatedAt);
    if (now < since + rotationPeriodMs) return reconciliation([], since + rotationPeriodMs);
    const Private: Cluster['Private'] = {
      ...cluster.Private,
      NetworkKeys: rotated(cluster.Private.NetworkKeys, newId),
      NetworkKeysSince: now,
    };
    const change = { op: 'merge', kind: 'cluster', id: cluster.ID, fields: { Private } } as const;
    return reconciliation([change], now + rotationPeriodMs);
  },
};

/** The keys with the oldest of each subsystem replaced by a new one, whose Lamport time is above all others. */
export function rotated(keys: readonly NetworkKey[], newId: NewId): NetworkKey[] {
  let last = Math.max(0, ...keys.map((key) => key.LamportTime));
  const subsystems = [...new Set(keys.map((key) => key.Subsystem))];
  return subsystems.flatMap((Subsystem) => {
    const rising = keys
      .filter((key) => key.Subsystem === Subsystem)
      .sort((a, b) => a.LamportTime - b.LamportTime);
    last += 1;
    return [...rising.slice(1), { Subsystem, LamportTime: last, Key: keyOf(newId()) }];
  });
}

/** Sixteen bytes, base64, of an identifier: it is 25 random digits of base 36, which are 129 bits. */
function keyOf(id: string): string {
  const digits = [...id].reduce((sum, digit) => sum * 36n + BigInt(Number.parseInt(digit, 36)), 0n);
  const hex = BigInt.asUintN(Number(keyBits), digits).toString(16).padStart(32, '0');
  return Buffer.from(hex, 'hex').toString('base64');
}
