/**
 * Replaces the cluster's root (`docker swarm ca --rotate`) while everything goes on, by SwarmKit's way, so that
 * stock workers follow: the next root is signed by the present one as well, so who trusts only the present one
 * accepts what the next one issues; every node gets a certificate of the next one; then the next root becomes
 * the one that is trusted, with new join tokens.
 *
 * A node counts as done when its own description says who issued its certificate. A worker of ours that is away is
 * not waited for: it comes back with the certificate it has (returning.ts). A stock one has no other way back than TLS
 * with the root it knows, so it is waited for until its certificate has expired. A manager is always waited for: of
 * several that are away, the ones that the group needs could not be heard.
 */
import { readNodeCertificate, rootDigestOf } from '../../proto/certificate.ts';
import { type Cluster, type ClusterNode, engineIdLabel } from '../../proto/docker.ts';
import { formatJoinToken } from '../../proto/identity.ts';
import { type Id, newId } from '../../proto/ids.ts';
import { crossSign, tlsInfoOfIssuer } from '../../proto/x509.ts';
import type { Change } from '../store/change.ts';
import { nothing, type Reconciler, type Reconciliation, reconciliation } from '../store/reconciler.ts';
import type { View } from '../store/store.ts';
import { rotated } from './network-keys.ts';
import { readReturnWithinMs } from './returning.ts';
import { createRoot, crossSignedChain, type IssueContext, presentRoot } from './root.ts';

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
  return certificate?.Pem.includes(crossSignedPem) ? 'issued' : 'to-ask';
}

/** Until when the rotation waits for a node, in ms since the epoch; 0 for one that it does not wait for. */
function awaitedUntilMs(node: ClusterNode, canReturn: boolean): number {
  const isManager = node.Spec.Role === 'manager' || node.Private.Role === 'manager' || !!node.ManagerStatus;
  const pem = node.Private.Certificate?.Pem;
  if (isManager || node.Status.State !== 'down' || !pem) return Number.POSITIVE_INFINITY;
  const isOurs = node.Description.Engine.Labels[engineIdLabel] !== undefined;
  return isOurs && canReturn ? 0 : readNodeCertificate(pem).notAfterMs;
}

/**
 * The leader's next changes: nodes asked to renew, at most 30 under way at a time, or the end of the rotation.
 * Empty while none is under way or nodes are still busy. Every call of `newSecret` gives a new token's secret.
 */
export function rotationStep(view: View, now: number, newSecret: () => string): Reconciliation {
  const cluster = view.cluster();
  const rotation = cluster?.Private.RootRotation;
  if (!cluster || !rotation) return nothing;
  const rows = view
    .list('node')
    .map((node) => ({ node, progress: progressOf(node, cluster, rotation.CrossSignedPem) }));
  const canReturn = readReturnWithinMs(cluster.Spec.Labels) > 0;
  const awaited = rows
    .filter(({ progress }) => progress !== 'done')
    .map(({ node }) => awaitedUntilMs(node, canReturn))
    .filter((untilMs) => untilMs >= now);
  if (awaited.length === 0) {
    return { changes: [{ op: 'update', kind: 'cluster', object: ended(cluster, rotation, newSecret) }] };
  }
  // One that is away is asked when it is back, and takes no turn of the others until then.
  const present = rows.filter(({ node }) => node.Status.State !== 'down');
  const underWay = present.filter(({ progress }) => progress === 'asked').length;
  const changes = present
    .filter(({ progress }) => progress === 'to-ask')
    .slice(0, Math.max(0, nodesAtATime - underWay))
    .map(({ node }) => askedToRenew(node));
  const firstMs = Math.min(...awaited);
  return reconciliation(changes, Number.isFinite(firstMs) ? firstMs + 1 : undefined);
}

/** Refused when the node was changed meanwhile: a certificate that it got in that moment must stay recorded. */
function askedToRenew(node: ClusterNode): Change {
  const Certificate = { Csr: '', Pem: '', ...node.Private.Certificate, State: 'rotate' as const };
  return { op: 'update', kind: 'node', object: { ...node, Private: { ...node.Private, Certificate } } };
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
    Private: {
      ...rest,
      CaKeyPem: rotation.CaKeyPem,
      CaCrossSignedPem: crossSignedChain(cluster, rotation.CrossSignedPem),
    },
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
  reconcile(view, _key, now, newId) {
    // An identifier has the form and the chance of a token's secret: 128 bits as 25 digits of base 36.
    return rotationStep(view, now, () => newId<Id<'secret'>>());
  },
};
