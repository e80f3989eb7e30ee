/**
 * Who may be a node: hands out the root, and certificates to those who bring a join token or already hold a
 * certificate of the cluster. Works on every manager, for all hold the cluster's key.
 *
 * In: requests, the store, and how to commit changes to it. Out: signed certificates, and node objects made or
 * changed by proposals. It never decides a node's role (an operator does, and the leader when), never tells a
 * secret in an error, and keeps nothing that is not in the store. rpc.ts puts it on the wire.
 */
import type { Cluster, ClusterNode, NodeAvailability, NodeRole } from '../../proto/docker.ts';
import { isShoalError, ShoalError } from '../../proto/errors.ts';
import { asId, type NodeId, newId } from '../../proto/ids.ts';
import type { Clock, Log, Random } from '../../proto/ports.ts';
import type { Propose } from '../store/change.ts';
import type { View } from '../store/store.ts';
import type { Commit } from '../store/watch.ts';
import { newNode } from './bootstrap.ts';
import { type CertificateReader, judgeReturn, type ReturnRequest, x509Reader } from './returning.ts';
import { roleToCertify } from './roles.ts';
import { type Issuer, x509Issuer } from './root.ts';
import { roleOfToken } from './tokens.ts';

const statusWaitMs = 20_000;
/** Anyone may send one; with its intermediates it has some thousand bytes. */
const certificateMaxBytes = 64 * 1024;

export interface CertificateServiceOptions {
  readonly store: View & { onCommit(listener: (commit: Commit) => void): () => void };
  readonly propose: Propose;
  /** After it resolves the store holds everything acknowledged before the call. */
  readonly readBarrier: () => Promise<void>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** How certificates are made and read. */
  readonly authority?: Authority | undefined;
}

export type Authority = Issuer & CertificateReader;
export const x509Authority: Authority = { ...x509Issuer, ...x509Reader };

/** Certificates that a node asked for and may not have received, of which the cluster knows. */
const mostLostAnswers = 4;
/** How often a certificate is signed anew for one request, because the node was changed meanwhile. */
const mostAttempts = 10;

/** Who asks: someone with a join token, or a node whose client certificate was verified. */
export type Applicant =
  | { readonly kind: 'joiner'; readonly token: string }
  | {
      readonly kind: 'member';
      readonly nodeId: string;
      readonly clusterId: string;
      /** SHA-256 (hex) of the certificate it showed, which is the one that it holds. */
      readonly certificateDigest: string;
    };

export interface CertificateRequest {
  readonly applicant: Applicant;
  /** PEM; only its key is used. */
  readonly requestPem: string;
  /** Of a node that joins. */
  readonly availability: NodeAvailability;
  /** Whether the asker is a node of ours; a stock Docker Engine can't be a manager here. */
  readonly isShoal: boolean;
}

export interface IssuedCertificate {
  readonly nodeId: NodeId;
  readonly role: NodeRole;
  readonly state: 'issued' | 'rotate';
  /** As they came. */
  readonly requestPem: string;
  readonly certificatePem: string;
}

export class CertificateService {
  private readonly options: CertificateServiceOptions;
  private readonly authority: Authority;

  constructor(options: CertificateServiceOptions) {
    this.options = options;
    this.authority = options.authority ?? x509Authority;
  }

  /** PEM of the root(s) that nodes trust: exactly the bytes whose digest the join tokens carry. */
  rootCertificates(): string {
    return this.cluster().TLSInfo.TrustRoot;
  }

  /**
   * The key that unlocks managers' disks, undefined while autolock is off, and the index of its object. Throws
   * `permission-denied` unless `callerId` still is a manager, whatever its certificate says.
   */
  async unlockKey(callerId: string): Promise<{ key: string | undefined; versionIndex: number }> {
    await this.options.readBarrier();
    if (this.member(callerId).Spec.Role !== 'manager') {
      throw new ShoalError(
        'permission-denied',
        `node ${callerId} is no manager any more: it may not have the unlock key`,
      );
    }
    const cluster = this.cluster();
    return { key: cluster.Private.UnlockKey, versionIndex: cluster.Version.Index };
  }

  /**
   * Signs a request and records the certificate; resolves with the node's id once that is committed.
   * Throws `permission-denied` (token not valid, node removed, a stock engine with a manager's token),
   * `unauthenticated` (neither token nor certificate), `invalid-argument` (bad request), and what a proposal
   * throws.
   */
  async issue(request: CertificateRequest): Promise<NodeId> {
    await this.options.readBarrier();
    const { applicant } = request;
    return applicant.kind === 'joiner' ? this.join(applicant.token, request) : this.renew(applicant, request);
  }

  /**
   * The certificate of a node, as soon as it is issued. Throws `not-found` for a node that is not (any more)
   * part of the cluster and `timeout` when nothing was issued for 20 s or `signal` fired.
   */
  async status(nodeId: string, signal?: AbortSignal): Promise<IssuedCertificate> {
    await this.options.readBarrier();
    return issuedTo(this.node(nodeId)) ?? this.issuedLater(nodeId, signal);
  }

  private async join(token: string, request: CertificateRequest): Promise<NodeId> {
    const cluster = this.cluster();
    const role = joiningRole(cluster, token, request.isShoal);
    const known = this.joinedBefore(request.requestPem, role);
    if (known) return known.ID;
    const { random, log } = this.options;
    const nodeId = newId<NodeId>(random);
    const certificatePem = await this.sign(cluster, request.requestPem, nodeId, role);
    const { requestPem, availability } = request;
    const tlsInfo = cluster.TLSInfo;
    const object = newNode({ nodeId, role, availability, tlsInfo, requestPem, certificatePem });
    await this.options.propose([{ op: 'create', kind: 'node', object }]);
    log.info({ nodeId, role }, 'a node joined: certificate issued');
    return nodeId;
  }

  /** The node that the same request made before, when the answer got lost and the joiner asks again. */
  private joinedBefore(requestPem: string, role: NodeRole): ClusterNode | undefined {
    return this.options.store
      .list('node')
      .find((node) => node.Private.Certificate?.Csr === requestPem && node.Spec.Role === role);
  }

  private async renew(
    { nodeId, clusterId, certificateDigest }: Extract<Applicant, { kind: 'member' }>,
    request: CertificateRequest,
  ): Promise<NodeId> {
    if (clusterId !== this.cluster().ID) {
      throw new ShoalError('permission-denied', `node ${nodeId} belongs to another cluster (${clusterId})`);
    }
    const replacement = await this.replace(nodeId, request.requestPem, certificateDigest, (node) =>
      // A stock engine that was promoted keeps the only role it can fill, and its certificate with it.
      request.isShoal ? roleToCertify(node) : 'worker',
    );
    this.options.log.info({ nodeId, role: replacement.role }, 'certificate renewed');
    return replacement.nodeId;
  }

  /**
   * A new certificate (PEM) for a node whose present one TLS does not take any more, see returning.ts. Throws what
   * judgeReturn throws, `permission-denied` for a node that was removed, and what a proposal throws.
   */
  async comeBack(brought: ReturnRequest): Promise<string> {
    if (brought.certificatePem.length > certificateMaxBytes) {
      throw new ShoalError('too-large', `the certificate is larger than ${certificateMaxBytes} bytes`);
    }
    await this.options.readBarrier();
    const { nodeId } = this.authority.read(brought.certificatePem);
    const digest = this.authority.digest(brought.certificatePem);
    const { role, certificatePem } = await this.replace(
      nodeId,
      brought.requestPem,
      digest,
      (node, cluster) => {
        judgeReturn(cluster, node, brought, this.options.clock.now(), this.authority);
        return roleToCertify(node);
      },
    );
    this.options.log.info({ nodeId, role }, 'a node came back with a certificate of before: renewed');
    return certificatePem;
  }

  /**
   * Signs a request of a node that has a certificate already, for the role that `judge` answers, and records it in the
   * place of that one. What it holds (`certificateDigest`) stays known, however many answers get lost: not what was
   * issued before, which it may never have seen. When another manager changed the node meanwhile, all of it is judged
   * anew, so that of two requests at a time the later one knows of the other.
   */
  private async replace(
    nodeId: string,
    requestPem: string,
    certificateDigest: string,
    judge: (node: ClusterNode, cluster: Cluster) => NodeRole,
  ): Promise<{ nodeId: NodeId; role: NodeRole; certificatePem: string }> {
    for (let attempt = 1; ; attempt += 1) {
      const cluster = this.cluster();
      const node = this.member(nodeId);
      const role = judge(node, cluster);
      const certificatePem = await this.sign(cluster, requestPem, node.ID, role);
      const Certificate = {
        State: 'issued' as const,
        Csr: requestPem,
        Pem: certificatePem,
        FormerDigests: this.stillHeld(node, certificateDigest),
      };
      const object = { ...node, Private: { ...node.Private, Role: role, Certificate } };
      try {
        await this.options.propose([{ op: 'update', kind: 'node', object }]);
        return { nodeId: node.ID, role, certificatePem };
      } catch (error) {
        if (isShoalError(error, 'not-found')) this.member(nodeId);
        if (!isShoalError(error, 'out-of-sequence')) throw error;
        if (attempt >= mostAttempts) throw busy(nodeId);
      }
    }
  }

  /** What a node may hold that holds `digest`, or did when it asked: a request can arrive after a later one. */
  private stillHeld(node: ClusterNode, digest: string): string[] {
    const { Pem, FormerDigests = [] } = node.Private.Certificate ?? {};
    const issued = [...FormerDigests, ...(Pem ? [this.authority.digest(Pem)] : [])];
    const at = issued.lastIndexOf(digest);
    const [oldest, ...later] = at < 0 ? issued : issued.slice(at);
    // The first of them it holds for certain. A manager that showed one of its own making keeps those that it was given.
    const known = [...(oldest === undefined ? [] : [oldest]), ...later.slice(-mostLostAnswers)];
    return at < 0 ? [...known, digest] : known;
  }

  private sign(cluster: Cluster, requestPem: string, nodeId: NodeId, role: NodeRole): Promise<string> {
    const { clock, random } = this.options;
    return this.authority.sign(cluster, { requestPem, nodeId, role }, { now: clock.now(), random });
  }

  private issuedLater(nodeId: string, signal: AbortSignal | undefined): Promise<IssuedCertificate> {
    const { store, clock } = this.options;
    return new Promise((resolve, reject) => {
      const end = (finish: () => void) => {
        stop();
        timer.cancel();
        signal?.removeEventListener('abort', onAbort);
        finish();
      };
      const onAbort = () => end(() => reject(new ShoalError('timeout', 'the caller went away')));
      const stop = store.onCommit(() => {
        try {
          const issued = issuedTo(this.node(nodeId));
          if (issued) end(() => resolve(issued));
        } catch (error) {
          end(() => reject(error));
        }
      });
      const timer = clock.after(statusWaitMs, () =>
        end(() =>
          reject(
            new ShoalError(
              'timeout',
              `no certificate was issued to node ${nodeId} within ${statusWaitMs} ms`,
            ),
          ),
        ),
      );
      signal?.addEventListener('abort', onAbort);
    });
  }

  private cluster(): Cluster {
    const cluster = this.options.store.cluster();
    if (cluster) return cluster;
    throw new ShoalError('unavailable', 'this manager has not received the cluster yet: try again shortly');
  }

  private node(nodeId: string): ClusterNode {
    const node = this.options.store.get('node', asId<NodeId>(nodeId));
    if (node) return node;
    throw new ShoalError('not-found', `node ${nodeId} is not, or no longer, part of the cluster`);
  }

  /** The node that a certificate names. One that was removed keeps its certificate but not its rights. */
  private member(nodeId: string): ClusterNode {
    const node = this.options.store.get('node', asId<NodeId>(nodeId));
    if (node) return node;
    throw new ShoalError(
      'permission-denied',
      `node ${nodeId} was removed from the cluster: run \`shoal swarm leave --force\` on it, then \`shoal swarm join\` with a token`,
    );
  }
}

function busy(nodeId: string): ShoalError {
  return new ShoalError(
    'unavailable',
    `node ${nodeId} was changed ${mostAttempts} times while its certificate was signed: try again`,
  );
}

function issuedTo(node: ClusterNode): IssuedCertificate | undefined {
  const certificate = node.Private.Certificate;
  if (!certificate || certificate.State === 'pending') return undefined;
  return {
    nodeId: node.ID,
    role: node.Private.Role,
    state: certificate.State,
    requestPem: certificate.Csr,
    certificatePem: certificate.Pem,
  };
}

/** The role that a token lets join as. */
function joiningRole(cluster: Cluster, token: string, isShoal: boolean): NodeRole {
  if (token === '') {
    throw new ShoalError(
      'unauthenticated',
      'neither a join token nor a valid certificate of this cluster was presented: a node that was part of it may have an expired certificate, or one of another cluster. Leave with `shoal swarm leave --force` and join again with a token',
    );
  }
  const role = roleOfToken(cluster.JoinTokens, token);
  if (role === undefined) {
    throw new ShoalError(
      'permission-denied',
      'this join token is not (or no longer) valid for the cluster: it may have been rotated. Run `shoal swarm join-token worker` (or manager) on a manager for the current one',
    );
  }
  if (role === 'manager' && !isShoal) {
    throw new ShoalError(
      'permission-denied',
      "a Docker Engine can join as a worker only: it can't take part in this cluster's Raft. Use the worker token: `shoal swarm join-token worker` on a manager shows it",
    );
  }
  return role;
}
