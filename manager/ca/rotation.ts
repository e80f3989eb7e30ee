/**
 * Replaces the cluster's root (`docker swarm ca --rotate`) while everything goes on, by SwarmKit's way, so that
 * stock workers follow: the next root is signed by the present one as well, so who trusts only the present one
 * accepts what the next one issues; every node gets a certificate of the next one; then the next root becomes
 * the one that is trusted, with new join tokens.
 *
 * A node counts as done when its own description says who issued its certificate. One that stays away holds the
 * rotation up until it comes back or is removed: without its new certificate it would be locked out.
 */
import { rootDigestOf } from '../../proto/certificate.ts';
import type { Cluster, ClusterNode } from '../../proto/docker.ts';
import { formatJoinToken } from '../../proto/identity.ts';
import { type Id, newId } from '../../proto/ids.ts';
import { crossSign, tlsInfoOfIssuer } from '../../proto/x509.ts';
import type { Change } from '../store/change.ts';
import type { Reconciler } from '../store/reconciler.ts';
import type { View } from '../store/store.ts';
import { rotated } from './network-keys.ts';
import { createRoot, type IssueContext, presentRoot } from './root.ts';

const serialBytes = 16;
/** Nodes asked to renew at a time, so that a large cluster's managers are not swamped. */
const nodesAtATime = 30;

/**
 * The cluster with a rotation begun: a next root made and cross-signed, by which all certificates are issued
 * from now on. One that is under way is given up for the new one. Propose it as an update.
 */
export async function beginRotation(cluster: Cluster, context: IssueContext): Promise<Cluster> {
  const next = await createRoot(context);
  const crossSigned = await crossSign(
    next.certificatePem,
    presentRoot(cluster),
    context.random.bytes(serialBytes),
  );
  return {
    ...cluster,
    RootRotationInProgress: true,
    // The trusted root stays; the issuer already is the next one.
    TLSInfo: tlsInfoOfIssuer(next.certificatePem, cluster.TLSInfo.TrustRoot),
    Private: {
      ...cluster.Private,
      // Who could issue certificates could have had these as well.
      NetworkKeys: rotated(cluster.Private.NetworkKeys, () => newId(context.random)),
      NetworkKeysSince: context.now,
      RootRotation: {
        CaCertPem: next.certificatePem,
        CaKeyPem: next.keyPem,
        CrossSignedPem: crossSigned,
      },
    },
  };
}

/** How far a node has followed the rotation. */
type Progress = 'to-ask' | 'asked' | 'issued' | 'done';

function progressOf(node: ClusterNode, cluster: Cluster, crossSignedPem: string): Progress {
  const issuer = node.Description.TLSInfo.CertIssuerPublicKey;
  if (issuer === cluster.TLSInfo.CertIssuerPublicKey) return 'done';
  const certificate = node.Private.Certificate;
  if (certificate?.State === 'rotate') return 'asked';
  return certificate?.Pem.endsWith(crossSignedPem) ? 'issued' : 'to-ask';
}

/**
 * The leader's next changes: nodes asked to renew, at most 30 under way at a time, or the end of the rotation.
 * Empty while none is under way or nodes are still busy. Every call of `newSecret` gives a new token's secret.
 */
export function rotationChanges(view: View, newSecret: () => string): Change[] {
  const cluster = view.cluster();
  const rotation = cluster?.Private.RootRotation;
  if (!cluster || !rotation) return [];
  const rows = view
    .list('node')
    .map((node) => ({ node, progress: progressOf(node, cluster, rotation.CrossSignedPem) }));
  if (rows.every(({ progress }) => progress === 'done')) {
    return [{ op: 'update', kind: 'cluster', object: ended(cluster, rotation, newSecret) }];
  }
  const underWay = rows.filter(({ progress }) => progress === 'asked').length;
  return rows
    .filter(({ progress }) => progress === 'to-ask')
    .slice(0, Math.max(0, nodesAtATime - underWay))
    .map(({ node }) => askedToRenew(node));
}

function askedToRenew(node: ClusterNode): Change {
  const Certificate = { Csr: '', Pem: '', ...node.Private.Certificate, State: 'rotate' as const };
  return { op: 'merge', kind: 'node', id: node.ID, fields: { Private: { ...node.Private, Certificate } } };
}

function ended(
  cluster: Cluster,
  rotation: NonNullable<Cluster['Private']['RootRotation']>,
  newSecret: () => string,
): Cluster {
  const { RootRotation: _ended, ...rest } = cluster.Private;
  const rootDigest = rootDigestOf(rotation.CaCertPem);
  return {
    ...cluster,
    RootRotationInProgress: false,
    TLSInfo: { ...cluster.TLSInfo, TrustRoot: rotation.CaCertPem },
    JoinTokens: {
      Worker: formatJoinToken({ rootDigest, secret: newSecret() }),
      Manager: formatJoinToken({ rootDigest, secret: newSecret() }),
    },
    // Nodes hear of the new root only after this: until then what it issues must lead to the old one too.
    Private: { ...rest, CaKeyPem: rotation.CaKeyPem, CaCrossSignedPem: rotation.CrossSignedPem },
  };
}

/** The rotation as the leader's loop drives it: one piece, looked at when the cluster or a node changes. */
export const rootRotation: Reconciler = {
  name: 'root-rotation',
  keysFor(event, view) {
    const concerns = event.kind === 'cluster' || event.kind === 'node';
    return concerns && view.cluster()?.Private.RootRotation ? ['root'] : [];
  },
  allKeys(view) {
    return view.cluster()?.Private.RootRotation ? ['root'] : [];
  },
  reconcile(view, _key, _now, newId) {
    // An identifier has the form and the chance of a token's secret: 128 bits as 25 digits of base 36.
    return { changes: rotationChanges(view, () => newId<Id<'secret'>>()) };
  },
};
