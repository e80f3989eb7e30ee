/** What a node begins with as the first manager of a cluster: a new one, or one that a backup holds. */
import type { RestoreRequest, SwarmInitRequest } from '../manager/api/contract.ts';
import { openBackup } from '../manager/backup/backup.ts';
import { planRestore } from '../manager/backup/restore.ts';
import { bootstrapCluster } from '../manager/ca/bootstrap.ts';
import type { ManagerStart } from '../manager/server.ts';
import type { Clock, Random } from '../proto/ports.ts';
import type { NodeIdentity } from '../proto/rpc.ts';

export interface Beginning {
  readonly identity: NodeIdentity;
  readonly start: Extract<ManagerStart, { readonly kind: 'bootstrap' | 'restore' }>;
}

interface Context {
  readonly clock: Clock;
  readonly random: Random;
}

/** A new cluster, as `request` asks for it. */
export async function newCluster(
  request: SwarmInitRequest,
  advertiseAddress: string,
  { clock, random }: Context,
): Promise<Beginning> {
  const { identity, changes, cluster } = await bootstrapCluster({
    random,
    clock,
    spec: {
      ...request.Spec,
      ...(request.AutoLockManagers ? { EncryptionConfig: { AutoLockManagers: true } } : {}),
    },
    availability: request.Availability,
    defaultAddrPool: request.DefaultAddrPool,
    subnetSize: request.SubnetSize,
    dataPathPort: request.DataPathPort,
    advertiseAddress,
  });
  return { identity, start: { kind: 'bootstrap', changes, unlockKey: cluster.Private.UnlockKey } };
}

/** The cluster of a backup; throws what openBackup and planRestore throw. */
export async function restoredCluster(
  request: RestoreRequest,
  { clock, random }: Context,
): Promise<Beginning> {
  const plan = await planRestore(await openBackup(request.file, request.key), {
    now: clock.now(),
    random,
    availability: request.Availability,
    awaitNodesMs: request.awaitNodesMs,
  });
  return { identity: plan.identity, start: { kind: 'restore', plan, unlockKey: plan.unlockKey } };
}
