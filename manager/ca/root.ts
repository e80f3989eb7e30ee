/**
 * The cluster's own certificate authority, as it stands in the Cluster object: what it signs for a node, and
 * with which names and lifetime. Subjects, names and the hour of backdating are those of SwarmKit, whose
 * agents check them.
 */
import { readCertificates } from '../../proto/certificate.ts';
import type { Cluster, NodeRole } from '../../proto/docker.ts';
import { authorityName, unitOfRole } from '../../proto/identity.ts';
import type { ClusterId, NodeId } from '../../proto/ids.ts';
import type { Random } from '../../proto/ports.ts';
import { type Authority, makeAuthority, makeRequest, signRequest } from '../../proto/x509.ts';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const rootLifetimeMs = 20 * 365 * dayMs;
/** Certificates begin an hour ago, for machines whose clocks are behind ours. */
const backdateMs = hourMs;
/** Roots of before that certificates lead to. */
const formerRoots = 3;
const serialBytes = 16;
const nanosecondsPerMs = 1_000_000;

/** How long a node's certificate is valid when the cluster's spec does not say: 90 days, in nanoseconds. */
export const defaultNodeCertExpiry = 90 * dayMs * nanosecondsPerMs;

/** What issuing takes from outside. `now` in ms since the epoch. */
export interface IssueContext {
  readonly now: number;
  readonly random: Random;
}

/** A new root: ECDSA P-256, 20 years, CN swarm-ca. */
export function createRoot({ now, random }: IssueContext): Promise<Authority> {
  return makeAuthority({
    commonName: authorityName,
    notBeforeMs: now - backdateMs,
    notAfterMs: now + rootLifetimeMs,
    serial: random.bytes(serialBytes),
  });
}

/** The root that nodes trust at present, with its key. */
export function presentRoot(cluster: Cluster): Authority {
  return { certificatePem: cluster.TLSInfo.TrustRoot, keyPem: cluster.Private.CaKeyPem };
}

/** The authority that signs at present: while the root is replaced, already the next one. */
function signerOf(cluster: Cluster): {
  readonly authority: Authority;
  readonly intermediatesPem: string;
} {
  const rotation = cluster.Private.RootRotation;
  if (rotation) {
    return {
      authority: { certificatePem: rotation.CaCertPem, keyPem: rotation.CaKeyPem },
      intermediatesPem: crossSignedChain(cluster, rotation.CrossSignedPem),
    };
  }
  return { authority: presentRoot(cluster), intermediatesPem: cluster.Private.CaCrossSignedPem ?? '' };
}

/**
 * What leads from the next root, by `crossSignedPem`, to the present one and to those before it, the newest first: a node
 * that was away while the root was replaced knows the managers by it. It goes with every certificate, so it has an end.
 */
export function crossSignedChain(cluster: Cluster, crossSignedPem: string): string {
  const former = cluster.Private.CaCrossSignedPem;
  const before = former ? readCertificates(former).slice(0, formerRoots - 1) : [];
  return crossSignedPem + before.map((certificate) => certificate.toString()).join('');
}

/** The names under which a node of the role may be called. */
function dnsNamesOf(role: NodeRole, nodeId: NodeId): string[] {
  return role === 'manager' ? [unitOfRole(role), nodeId, authorityName] : [unitOfRole(role), nodeId];
}

/**
 * The certificate (PEM, with an intermediate once the root was replaced) of a node for the key of its request.
 * Whatever subject and names the request asks for are ignored. Throws `invalid-argument` for a bad request.
 */
export async function signNodeCertificate(
  cluster: Cluster,
  node: { readonly requestPem: string; readonly nodeId: NodeId; readonly role: NodeRole },
  { now, random }: IssueContext,
): Promise<string> {
  const { authority, intermediatesPem } = signerOf(cluster);
  const expiry = cluster.Spec.CAConfig.NodeCertExpiry ?? defaultNodeCertExpiry;
  const clusterId: ClusterId = cluster.ID;
  const leaf = await signRequest(node.requestPem, authority, {
    subject: { organization: clusterId, unit: unitOfRole(node.role), commonName: node.nodeId },
    dnsNames: dnsNamesOf(node.role, node.nodeId),
    notBeforeMs: now - backdateMs,
    notAfterMs: now + expiry / nanosecondsPerMs,
    serial: random.bytes(serialBytes),
  });
  return leaf + intermediatesPem;
}

/** How certificates are made: by the cluster's key, but for the simulation, whose certificates are simpler. */
export interface Issuer {
  readonly sign: typeof signNodeCertificate;
  readonly issueLocally: typeof issueLocally;
}

/** What a manager that holds the cluster's key issues to itself. */
export interface LocalIssue {
  readonly requestPem: string;
  readonly identity: { readonly certificatePem: string; readonly keyPem: string; readonly rootsPem: string };
}

/**
 * A key and certificate made in place, without asking anyone: for the first manager, and for a manager whose
 * own certificate expired while it was off.
 */
export async function issueLocally(
  cluster: Cluster,
  node: { readonly nodeId: NodeId; readonly role: NodeRole },
  context: IssueContext,
): Promise<LocalIssue> {
  const { requestPem, keyPem } = await makeRequest();
  const certificatePem = await signNodeCertificate(cluster, { requestPem, ...node }, context);
  return { requestPem, identity: { certificatePem, keyPem, rootsPem: cluster.TLSInfo.TrustRoot } };
}

/** By the cluster's key. */
export const x509Issuer: Issuer = { sign: signNodeCertificate, issueLocally };
