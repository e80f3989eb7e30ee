/**
 * The calls by which a node gets a certificate from a manager: the root, checked against the join token, then
 * the certificate for a request; and the way back when TLS does not take the one held any more. In: addresses, token or present identity, a request. Out: certificates that
 * were verified. Keeps nothing and writes nothing.
 */
import { sign } from 'node:crypto';
import { rootDigestOf, verifyIdentity } from '../proto/certificate.ts';
import type { NodeAvailability } from '../proto/docker.ts';
import { type ErrorCode, isShoalError, messageOf, ShoalError } from '../proto/errors.ts';
import { type JoinToken, returnStatement, versionMetadataKey } from '../proto/identity.ts';
import { type Clock, delay } from '../proto/ports.ts';
import { createChannel, fetchUnverifiedRoot, type NodeIdentity, type RpcChannel } from '../proto/rpc.ts';

const callTimeoutMs = 10_000;
const statusTimeoutMs = 30_000;
const statusPollMs = 500;

export interface EnrolContext {
  readonly clock: Clock;
  /** Of this program; tells managers that it is not a stock Docker Engine. */
  readonly version: string;
  readonly signal?: AbortSignal | undefined;
}

/** A request for a certificate, and what entitles to it: a join token, or the identity held so far. */
export interface Enrolment {
  readonly requestPem: string;
  readonly keyPem: string;
  readonly rootsPem: string;
  readonly token: string;
  readonly availability: NodeAvailability;
  readonly identity?: NodeIdentity | undefined;
}

/**
 * The cluster's root certificates from the manager at `address`, proven by the token's digest. Throws
 * `permission-denied` when the manager is of another cluster than the token.
 */
export async function fetchRoots(address: string, token: JoinToken, context: EnrolContext): Promise<string> {
  const deadline = context.clock.now() + callTimeoutMs;
  const bytes = await unlessAborted(fetchUnverifiedRoot(address, { deadline }), context.signal);
  if (rootDigestOf(bytes) !== token.rootDigest) {
    throw new ShoalError(
      'permission-denied',
      'the root certificate of this manager does not match the join token: the token is of another cluster, or of this one before its root was rotated, or someone stands between. Check the address, and run `shoal swarm join-token worker` (or manager) on a manager of the cluster for the current token',
    );
  }
  return bytes.toString('utf8');
}

/** Asks the manager at `address` for a certificate and verifies it. */
export async function requestCertificate(
  address: string,
  enrolment: Enrolment,
  context: EnrolContext,
): Promise<NodeIdentity> {
  const channel = createChannel(address, {
    roots: enrolment.rootsPem,
    serverName: 'swarm-ca',
    identity: enrolment.identity,
  });
  try {
    return await unlessAborted(issueAndWait(channel, enrolment, context), context.signal);
  } finally {
    channel.close();
  }
}

/**
 * Asks the manager at `address` for a certificate by the one held so far, which TLS does not take any more: it has
 * expired, or is of a root that was replaced. Throws `unauthenticated` or `permission-denied` when the managers don't
 * take it either, and `not-supported` when they are Docker's.
 */
export async function requestReturn(
  address: string,
  request: { readonly requestPem: string; readonly keyPem: string },
  held: NodeIdentity,
  { clock }: EnrolContext,
): Promise<NodeIdentity> {
  const channel = createChannel(address, { roots: held.rootsPem, serverName: 'swarm-ca' });
  try {
    const answer = await channel.call(
      'Returning',
      'Renew',
      {
        certificate: Buffer.from(held.certificatePem),
        csr: Buffer.from(request.requestPem),
        signature: sign('sha256', returnStatement(held.certificatePem, request.requestPem), held.keyPem),
      },
      { deadline: clock.now() + callTimeoutMs },
    );
    const { keyPem } = request;
    const certificatePem = (answer.certificate ?? Buffer.alloc(0)).toString('utf8');
    const identity = { certificatePem, keyPem, rootsPem: held.rootsPem };
    verifyIdentity(identity);
    return identity;
  } finally {
    channel.close();
  }
}

async function issueAndWait(
  channel: RpcChannel,
  enrolment: Enrolment,
  context: EnrolContext,
): Promise<NodeIdentity> {
  const { clock, version, signal } = context;
  const csr = Buffer.from(enrolment.requestPem);
  const metadata = { [versionMetadataKey]: version };
  const availability = wireAvailability[enrolment.availability];
  const issued = await channel.call(
    'NodeCA',
    'IssueNodeCertificate',
    { csr, token: enrolment.token, availability },
    { deadline: clock.now() + callTimeoutMs, metadata },
  );
  const endMs = clock.monotonicMs() + statusTimeoutMs;
  while (!signal?.aborted && clock.monotonicMs() < endMs) {
    const answer = await channel.call(
      'NodeCA',
      'NodeCertificateStatus',
      { node_id: issued.node_id ?? '' },
      { deadline: clock.now() + statusTimeoutMs, metadata },
    );
    const state = answer.status?.state;
    if (state === 'FAILED') {
      throw new ShoalError('permission-denied', `no certificate was issued: ${answer.status?.err ?? ''}`);
    }
    const certificate = answer.certificate;
    const isOurs = certificate?.csr !== undefined && csr.equals(certificate.csr);
    if (isOurs && certificate.certificate && (state === 'ISSUED' || state === 'ROTATE')) {
      return verified(certificate.certificate.toString('utf8'), enrolment);
    }
    await delay(clock, statusPollMs);
  }
  throw new ShoalError('timeout', `no certificate was issued within ${statusTimeoutMs} ms`);
}

function verified(certificatePem: string, { keyPem, rootsPem }: Enrolment): NodeIdentity {
  const identity = { certificatePem, keyPem, rootsPem };
  verifyIdentity(identity);
  return identity;
}

const wireAvailability = { active: 'ACTIVE', pause: 'PAUSE', drain: 'DRAIN' } as const;

/** What a manager says of itself, not of who asks: that it was taken out of the group, is locked, or has failed. */
const ofTheAskedAlone: ReadonlySet<ErrorCode> = new Set(['not-a-manager', 'locked', 'internal', 'corrupted']);

/**
 * The first answer that `ask` gets from one of the addresses, asked in their order. A manager that can't be
 * reached, or can't answer for a reason of its own, is passed over; a refusal is final. The error names each address
 * and its reason.
 */
export async function fromFirst<T>(
  addresses: readonly string[],
  ask: (address: string) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const failures: string[] = [];
  for (const address of addresses) {
    try {
      return await ask(address);
    } catch (error) {
      if (signal?.aborted) throw error;
      const text = `${address}: ${messageOf(error)}`;
      if (!isShoalError(error)) throw new ShoalError('internal', text, { cause: error });
      if (!error.retriable && !ofTheAskedAlone.has(error.code)) {
        throw new ShoalError(error.code, text, { cause: error, details: { ...error.details } });
      }
      failures.push(text);
    }
  }
  const reasons = failures.length > 0 ? failures.join('; ') : 'no address of a manager is known';
  throw new ShoalError('unavailable', `no manager could be reached: ${reasons}`);
}

/** The outcome of `promise`, or a `timeout` error as soon as `signal` fires. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(new ShoalError('timeout', 'stopped before a certificate was issued'));
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
