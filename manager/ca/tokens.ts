/** Join tokens of the cluster: made, compared and replaced. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { rootDigestOf } from '../../proto/certificate.ts';
import type { Cluster, NodeRole } from '../../proto/docker.ts';
import { formatJoinToken, newTokenSecret, newUnlockKey } from '../../proto/identity.ts';
import type { Random } from '../../proto/ports.ts';

/** A new token that lets a node of one role join a cluster whose root is `trustRootPem`. */
export function newJoinToken(trustRootPem: string, random: Random): string {
  return formatJoinToken({ rootDigest: rootDigestOf(trustRootPem), secret: newTokenSecret(random) });
}

/** A new token for each role. */
export function newJoinTokens(trustRootPem: string, random: Random): Cluster['JoinTokens'] {
  return { Worker: newJoinToken(trustRootPem, random), Manager: newJoinToken(trustRootPem, random) };
}

/** The role that `token` lets join; undefined when it is none of the cluster's. Takes the same time for each. */
export function roleOfToken(tokens: Cluster['JoinTokens'], token: string): NodeRole | undefined {
  const isWorker = isSame(tokens.Worker, token);
  const isManager = isSame(tokens.Manager, token);
  if (isManager) return 'manager';
  return isWorker ? 'worker' : undefined;
}

/** Compares digests, so that neither content nor length shows in the time it takes. */
function isSame(left: string, right: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(left), digest(right));
}

/** The cluster with new join tokens, and a new unlock key, where asked (the key only while autolock is on). */
export function withRotated(
  cluster: Cluster,
  what: { readonly worker: boolean; readonly manager: boolean; readonly unlockKey: boolean },
  random: Random,
): Cluster {
  const root = cluster.TLSInfo.TrustRoot;
  const isLocking = cluster.Spec.EncryptionConfig.AutoLockManagers;
  return {
    ...cluster,
    JoinTokens: {
      Worker: what.worker ? newJoinToken(root, random) : cluster.JoinTokens.Worker,
      Manager: what.manager ? newJoinToken(root, random) : cluster.JoinTokens.Manager,
    },
    Private:
      what.unlockKey && isLocking ? { ...cluster.Private, UnlockKey: newUnlockKey(random) } : cluster.Private,
  };
}
