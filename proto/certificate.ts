/**
 * Reads certificates and judges them: what a node's certificate says, whether it leads to the roots that are
 * trusted and fits its key. By node:crypto alone; making them is x509.ts. Does no I/O and takes time as an
 * argument.
 */
import { createHash, createPrivateKey, X509Certificate } from 'node:crypto';
import type { NodeRole } from './docker.ts';
import { messageOf, ShoalError } from './errors.ts';
import { formatRootDigest, roleOfUnit } from './identity.ts';
import { asId, type ClusterId, isId, type NodeId } from './ids.ts';

/** Certificate (leaf first, then any intermediates), key and trusted roots, all in PEM. */
export interface IdentityPem {
  readonly certificatePem: string;
  readonly keyPem: string;
  readonly rootsPem: string;
}

/** What a node's certificate says. Times in ms since the epoch. */
export interface NodeCertificate {
  readonly nodeId: NodeId;
  readonly clusterId: ClusterId;
  readonly role: NodeRole;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** The certificates of a PEM text, in its order. Throws `invalid-argument` when there is none or one is broken. */
export function readCertificates(pem: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) {
    throw new ShoalError('invalid-argument', 'no certificate found where one in PEM was expected');
  }
  return blocks.map((block) => {
    try {
      return new X509Certificate(block);
    } catch (error) {
      throw new ShoalError('invalid-argument', `the certificate can't be read: ${messageOf(error)}`);
    }
  });
}

/** What the first certificate of `pem` says. Throws `invalid-argument` when it is no node's. */
export function readNodeCertificate(pem: string): NodeCertificate {
  const leaf = readCertificates(pem)[0]!;
  const subject = leaf.toLegacyObject().subject as unknown as Readonly<Record<string, unknown>>;
  const { CN: nodeId, O: clusterId, OU: unit } = subject;
  const role = typeof unit === 'string' ? roleOfUnit(unit) : undefined;
  if (typeof nodeId !== 'string' || typeof clusterId !== 'string' || !isId(nodeId) || !role) {
    throw new ShoalError(
      'invalid-argument',
      'the certificate is not one of a cluster node: it needs O=<cluster>, OU=swarm-manager or swarm-worker, CN=<node>',
    );
  }
  return {
    nodeId: asId(nodeId),
    clusterId: asId(clusterId),
    role,
    notBeforeMs: Date.parse(leaf.validFrom),
    notAfterMs: Date.parse(leaf.validTo),
  };
}

/**
 * What an identity's certificate says, once it is sure that it leads to the identity's roots and belongs to its
 * key. Expiry is not looked at (see refuseExpired). Throws `invalid-argument`.
 */
export function verifyIdentity(identity: IdentityPem): NodeCertificate {
  const facts = readNodeCertificate(identity.certificatePem);
  if (!leadsToRoots(identity.certificatePem, identity.rootsPem)) {
    throw new ShoalError(
      'invalid-argument',
      `the certificate of node ${facts.nodeId} was not issued by the trusted root: it belongs to another cluster, or the root was replaced`,
    );
  }
  if (!fitsKey(identity.certificatePem, identity.keyPem)) {
    throw new ShoalError(
      'invalid-argument',
      `the certificate of node ${facts.nodeId} does not belong to the private key beside it`,
    );
  }
  return facts;
}

/** Whether the first certificate of `certificatePem` was issued by one of the roots, through the others given. */
export function leadsToRoots(certificatePem: string, rootsPem: string): boolean {
  const roots = readCertificates(rootsPem);
  const [leaf, ...intermediates] = readCertificates(certificatePem);
  let current = leaf!;
  for (let depth = 0; depth <= intermediates.length; depth += 1) {
    if (roots.some((root) => issued(root, current))) return true;
    const above = intermediates.find((candidate) => candidate !== current && issued(candidate, current));
    if (!above) return false;
    current = above;
  }
  return false;
}

function issued(issuer: X509Certificate, certificate: X509Certificate): boolean {
  return issuer.ca && certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

/** Whether the first certificate of `certificatePem` is for the public half of `keyPem`. */
export function fitsKey(certificatePem: string, keyPem: string): boolean {
  try {
    return readCertificates(certificatePem)[0]!.checkPrivateKey(createPrivateKey(keyPem));
  } catch {
    return false;
  }
}

/** Whether the certificate is past its time at `now`. */
export function isExpired(certificate: NodeCertificate, now: number): boolean {
  return now > certificate.notAfterMs;
}

/** Throws `unauthenticated`, with what to do, when the certificate is past its time at `now`. */
export function refuseExpired(certificate: NodeCertificate, now: number): void {
  if (!isExpired(certificate, now)) return;
  const expiry = new Date(certificate.notAfterMs).toISOString();
  throw new ShoalError(
    'unauthenticated',
    `the certificate of node ${certificate.nodeId} expired at ${expiry}: managers no longer know it. Check this machine's clock (it says ${new Date(now).toISOString()}); if it is right, run \`shoal swarm leave --force\` and join again with a current token`,
  );
}

/** The digest of root certificates as a join token carries it: over the exact bytes of the PEM text. */
export function rootDigestOf(rootsPem: string | Uint8Array): string {
  return formatRootDigest(createHash('sha256').update(rootsPem).digest());
}

/** The certificate (PEM) that issued an identity's: the next of its chain, or the trusted root that did. */
export function issuerOf(identity: Pick<IdentityPem, 'certificatePem' | 'rootsPem'>): string {
  const [leaf, ...intermediates] = readCertificates(identity.certificatePem);
  const issuer = [...intermediates, ...readCertificates(identity.rootsPem)].find((candidate) =>
    issued(candidate, leaf!),
  );
  if (!issuer) throw new ShoalError('invalid-argument', 'the certificate was not issued by the trusted root');
  return issuer.toString();
}
