/**
 * The way back of a node whose certificate TLS does not take any more: it has expired while the node was away, or its
 * root was replaced meanwhile. Pure. The node shows that certificate and signs its request with the key of it.
 *
 * What vouches for it is not the signature of a root, which may have been replaced because its key is known to
 * others, but the cluster's own record: only the certificate that the node was given last, or one that it may hold
 * still because that one did not reach it, opens the way, or a newer one of the present root (a manager may have issued it
 * to itself; a backup may know of an older one). Asking twice does no harm: a request yields a certificate for its own
 * key alone, and nothing once the node has renewed.
 */
import { createHash, verify, X509Certificate } from 'node:crypto';
import { leadsToRoots, type NodeCertificate, readNodeCertificate } from '../../proto/certificate.ts';
import type { Cluster, ClusterNode, Labels } from '../../proto/docker.ts';
import { formatDurationMs, parseDurationMs } from '../../proto/duration.ts';
import { ShoalError } from '../../proto/errors.ts';
import { returnStatement } from '../../proto/identity.ts';

/** Label of the cluster's spec: how long after its certificate's end a node may come back, e.g. 720h; 0s: not at all. */
export const returnWithinLabel = 'shoal.return-within';

const defaultReturnWithinMs = 30 * 24 * 3_600_000;

/** What a node brings: its certificate (PEM, the leaf first), a request, and its key's signature of both. */
export interface ReturnRequest {
  readonly certificatePem: string;
  /** PEM; only its key is used. */
  readonly requestPem: string;
  readonly signature: Uint8Array;
}

/** Reads and checks certificates in PEM: x509Reader, but for the simulation, whose certificates are simpler. */
export interface CertificateReader {
  /** What the first certificate says; throws 'invalid-argument' when it is no node's. */
  read(certificatePem: string): NodeCertificate;
  /** By what a certificate is known again when it is not the last one any more. */
  digest(certificatePem: string): string;
  leadsToRoots(certificatePem: string, rootsPem: string): boolean;
  /** Whether the request is signed with the certificate's key. */
  isSigned(brought: ReturnRequest): boolean;
}

export const x509Reader: CertificateReader = {
  read: readNodeCertificate,
  digest: (pem) => createHash('sha256').update(new X509Certificate(pem).raw).digest('hex'),
  leadsToRoots,
  isSigned({ certificatePem, requestPem, signature }) {
    const { publicKey } = new X509Certificate(certificatePem);
    return verify('sha256', returnStatement(certificatePem, requestPem), publicKey, signature);
  },
};

/** How long after its certificate's end a node may come back, in ms. Throws 'invalid-argument' for what is no duration. */
export function readReturnWithinMs(labels: Labels): number {
  const text = labels[returnWithinLabel];
  if (text === undefined) return defaultReturnWithinMs;
  const durationMs = parseDurationMs(text);
  if (durationMs !== undefined) return durationMs;
  throw new ShoalError(
    'invalid-argument',
    `Spec.Labels: ${returnWithinLabel} must be a duration such as 720h (0s: nobody comes back), not ${JSON.stringify(text)}`,
  );
}

/**
 * Throws unless `node` may have a certificate for what it brought: 'permission-denied' when that proves nothing,
 * 'unauthenticated' when it comes too late.
 */
export function judgeReturn(
  cluster: Cluster,
  node: ClusterNode,
  brought: ReturnRequest,
  now: number,
  reader: CertificateReader = x509Reader,
): void {
  const certificate = reader.read(brought.certificatePem);
  if (certificate.clusterId !== cluster.ID || certificate.nodeId !== node.ID)
    throw refused(node, 'it is not of this cluster');
  if (!isKnown(cluster, node, brought.certificatePem, reader))
    throw refused(node, 'it is not the last one that this cluster gave it');
  if (!reader.isSigned(brought)) throw refused(node, 'the request is not signed with its key');
  const withinMs = readReturnWithinMs(cluster.Spec.Labels);
  if (now > certificate.notAfterMs + withinMs) {
    const ended = new Date(certificate.notAfterMs).toISOString();
    throw new ShoalError(
      'unauthenticated',
      `the certificate of node ${node.ID} expired at ${ended}, and a node may come back with one no later than ${formatDurationMs(withinMs)} after that (shoal swarm update --return-within). Check its clock; if that is right, ${joinAnew}`,
    );
  }
}

const joinAnew =
  'run `shoal swarm leave --force` on it and join again with a current token (`shoal swarm join`)';

function refused(node: ClusterNode, fault: string): ShoalError {
  return new ShoalError(
    'permission-denied',
    `the certificate that node ${node.ID} came back with does not let it in: ${fault}; ${joinAnew}`,
  );
}

/** Whether the cluster's record of `node` vouches for this certificate (PEM), as said above. */
export function isKnown(
  cluster: Cluster,
  node: ClusterNode,
  pem: string,
  reader: CertificateReader = x509Reader,
): boolean {
  const record = node.Private.Certificate;
  if (!record?.Pem) return false;
  const digest = reader.digest(pem);
  if (digest === reader.digest(record.Pem) || record.FormerDigests?.includes(digest)) return true;
  const roots = cluster.TLSInfo.TrustRoot + (cluster.Private.RootRotation?.CaCertPem ?? '');
  return (
    reader.leadsToRoots(pem, roots) && reader.read(pem).notBeforeMs > reader.read(record.Pem).notBeforeMs
  );
}
