/**
 * Who this node is to its cluster: its certificate, key and trusted roots, kept on disk and renewed in time.
 *
 * In: a join token and addresses, or an identity made in place; what the session says about role and roots.
 * Out: the identity, and word of each new one. It never decides a role, never trusts a root that neither a
 * token's digest nor an authenticated manager vouched for, and never lets a key leave its directory.
 */
import {
  isExpired,
  leadsToRoots,
  type NodeCertificate,
  refuseExpired,
  verifyIdentity,
} from '../proto/certificate.ts';
import type { NodeAvailability, NodeRole, TLSInfo } from '../proto/docker.ts';
import { isShoalError, messageOf, ShoalError } from '../proto/errors.ts';
import { parseJoinToken } from '../proto/identity.ts';
import type { Clock, Log, Random, Timer } from '../proto/ports.ts';
import type { NodeIdentity } from '../proto/rpc.ts';
import { makeRequest, tlsInfoOf } from '../proto/x509.ts';
import { CertificateFiles } from './certificate-files.ts';
import { type Enrolment, fetchRoots, fromFirst, requestCertificate, requestReturn } from './enrol.ts';

/** Authorities date certificates back by this, for clocks that are behind. */
const backdateMs = 3_600_000;
const renewFrom = 0.5;
const renewUntil = 0.8;
const retryFirstMs = 500;
const retryMaxMs = 300_000;
/** While no manager takes the certificate, nothing is more urgent. */
const shutOutRetryMaxMs = 10_000;

/** An identity and what its certificate says. */
export interface HeldIdentity {
  readonly identity: NodeIdentity;
  readonly certificate: NodeCertificate;
}

export interface AgentIdentityOptions {
  /** Folder of the certificate files, e.g. <data-dir>/certificates. */
  readonly directory: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Of this program. */
  readonly version: string;
  /** host:port of the managers known at the time, the best first. */
  readonly managers: () => readonly string[];
  /** A certificate that this node's manager makes with the cluster's key; undefined on a node that has none. */
  readonly issueToSelf?: () => Promise<NodeIdentity | undefined>;
  /** Where the identity is kept and how managers are asked for another; the disk and gRPC when absent. */
  readonly files?: Pick<CertificateFiles, keyof CertificateFiles>;
  readonly calls?: IdentityCalls;
  /** The certificate has expired and the managers will not take the node back, for the reason given. */
  readonly onShutOut?: (error: ShoalError) => void;
}

/** What becomes of requests and certificates outside of this node. */
export interface IdentityCalls {
  readonly makeRequest: typeof makeRequest;
  readonly requestCertificate: typeof requestCertificate;
  readonly requestReturn: typeof requestReturn;
  readonly verifyIdentity: typeof verifyIdentity;
}

/** Over gRPC, with X.509. */
export const realCalls: IdentityCalls = { makeRequest, requestCertificate, requestReturn, verifyIdentity };

export interface JoinOptions {
  readonly token: string;
  readonly addresses: readonly string[];
  readonly availability?: NodeAvailability | undefined;
  readonly signal?: AbortSignal | undefined;
}

export class AgentIdentity {
  private readonly options: AgentIdentityOptions;
  private readonly files: Pick<CertificateFiles, keyof CertificateFiles>;
  private readonly calls: IdentityCalls;
  private readonly listeners = new Set<(held: HeldIdentity) => void>();
  private held: HeldIdentity | undefined;
  /** The unlock key that the key on disk is sealed under; undefined while it lies in the clear. */
  private sealedUnder: string | undefined;
  /** What the disk holds while a certificate is held that no other manager knows of yet. */
  private stored: NodeIdentity | undefined;
  /** False from a manager's word that TLS does not take the certificate, to the next one. */
  private isTaken = true;
  /** The managers' last answer to a node that wanted to come back. */
  private refusal: unknown;
  private renewing: Promise<HeldIdentity> | undefined;
  /** The last of the changes to what is held, which go one after the other. */
  private lastChange: Promise<unknown> = Promise.resolve();
  private upkeep: { wantedRole: NodeRole | undefined; tries: number; timer: Timer | undefined } | undefined;

  constructor(options: AgentIdentityOptions) {
    this.options = options;
    this.files = options.files ?? new CertificateFiles(options.directory);
    this.calls = options.calls ?? realCalls;
  }

  /** The identity held; undefined before load or obtain found one. */
  current(): HeldIdentity | undefined {
    return this.held;
  }

  /** Which root is trusted and who issued the certificate, for the node's description. */
  tlsInfo(): TLSInfo | undefined {
    return this.held && tlsInfoOf(this.held.identity);
  }

  /** Calls `listener` with each new identity. Returns how to stop it. */
  onChange(listener: (held: HeldIdentity) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /**
   * Takes up the identity on disk, also when its certificate has expired; undefined when there is none. Throws
   * `invalid-argument` or `corrupted` when the files don't belong together, and 'locked' (details.nodeId) when the
   * key is sealed and `unlockKey` is absent or (details.reason 'wrong-key') another one.
   */
  async load(unlockKey?: string): Promise<HeldIdentity | undefined> {
    const stored = await this.files.read(unlockKey);
    if (!stored) return undefined;
    const { identity } = stored;
    const certificate = this.calls.verifyIdentity(identity);
    this.sealedUnder = stored.sealedUnder;
    this.held = { identity, certificate };
    return this.held;
  }

  /**
   * Seals the key on disk under `unlockKey`, a manager's alone, or leaves it in the clear without one. `alongside`
   * seals the rest of the disk alike; a power cut at any point leaves both to be opened with one of the two keys.
   */
  sealUnder(unlockKey: string | undefined, alongside: () => Promise<void> = async () => {}): Promise<void> {
    return this.inTurn(async () => {
      const { identity, certificate } = this.mustHold();
      const { keyPem } = this.stored ?? identity;
      const wanted = certificate.role === 'manager' ? unlockKey : undefined;
      const isSealedSo = wanted === this.sealedUnder;
      if (!isSealedSo) await this.files.writeNextKey(keyPem, wanted);
      await alongside();
      this.sealedUnder = wanted;
      if (!isSealedSo) await this.files.finishKey();
    });
  }

  /**
   * Joins a cluster: proves the manager by the token, gets a certificate and keeps it. Throws
   * `invalid-argument` for a malformed token, `permission-denied` for one that is not the cluster's or not
   * valid any more, `unavailable` naming each address that could not be reached, `timeout` when `signal` fired.
   */
  async obtain({ token, addresses, availability = 'active', signal }: JoinOptions): Promise<HeldIdentity> {
    const parsed = parseJoinToken(token);
    const context = { clock: this.options.clock, version: this.options.version, signal };
    // One request for all addresses: a manager that committed it knows it again when its answer got lost.
    const request = await this.calls.makeRequest();
    const identity = await fromFirst(
      addresses,
      async (address) => {
        const rootsPem = await fetchRoots(address, parsed, context);
        const enrolment: Enrolment = { ...request, rootsPem, token: token.trim(), availability };
        return this.calls.requestCertificate(address, enrolment, context);
      },
      signal,
    );
    return this.adopt(identity);
  }

  /**
   * Keeps an identity that was made elsewhere (swarm init; a manager that issued its own) and tells of it. Its key
   * is sealed under `unlockKey`, if one is given, or as the one before.
   */
  adopt(identity: NodeIdentity, unlockKey?: string): Promise<HeldIdentity> {
    return this.inTurn(() => this.keep(identity, unlockKey));
  }

  private inTurn<T>(change: () => Promise<T>): Promise<T> {
    const result = this.lastChange.then(change);
    this.lastChange = result.catch(() => undefined);
    return result;
  }

  private async keep(identity: NodeIdentity, unlockKey = this.sealedUnder): Promise<HeldIdentity> {
    const certificate = this.calls.verifyIdentity(identity);
    refuseExpired(certificate, this.options.clock.now());
    // A worker comes up without being asked for a key.
    const sealedUnder = certificate.role === 'manager' ? unlockKey : undefined;
    await this.files.write(identity, sealedUnder);
    this.sealedUnder = sealedUnder;
    this.stored = undefined;
    this.isTaken = true;
    return this.hold({ identity, certificate });
  }

  private hold(held: HeldIdentity): HeldIdentity {
    this.held = held;
    if (this.upkeep) this.schedule();
    for (const listener of [...this.listeners]) listener(held);
    return held;
  }

  /**
   * Gets a new certificate for a new key now, from any manager; also when TLS does not take the present one any more.
   * Calls that overlap share one.
   */
  renew(): Promise<HeldIdentity> {
    this.renewing ??= this.renewOnce().finally(() => {
      this.renewing = undefined;
    });
    return this.renewing;
  }

  private async renewOnce(): Promise<HeldIdentity> {
    await this.issueToSelf();
    const { identity, certificate } = this.mustHold();
    const request = await this.calls.makeRequest();
    const renewed = isExpired(certificate, this.options.clock.now())
      ? await this.comeBack(request)
      : await this.renewByTls(request, identity).catch((error) => {
          if (isShoalError(error, 'unauthenticated')) return this.comeBack(request);
          throw error;
        });
    // Roots that were replaced while the call was under way stay replaced.
    return this.inTurn(() => this.keep({ ...renewed, rootsPem: this.mustHold().identity.rootsPem }));
  }

  /**
   * A manager whose certificate has expired goes on with one that it makes itself, for the others, perhaps in the same
   * state, would not even speak to it. The disk keeps the one that the others know, until they know a newer one.
   * Answers whether it may yet make one, though it could not now.
   */
  private async issueToSelf(): Promise<boolean> {
    const { clock, log, issueToSelf } = this.options;
    if (!issueToSelf || !this.held || !isExpired(this.held.certificate, clock.now())) return false;
    let mayYet = false;
    const own = await issueToSelf().catch((error) => {
      log.warn({ error: messageOf(error) }, 'this manager could not issue itself a certificate');
      mayYet = isShoalError(error) && error.retriable;
      return undefined;
    });
    if (!own) return mayYet;
    await this.inTurn(async () => {
      this.stored ??= this.mustHold().identity;
      this.hold({ identity: own, certificate: this.calls.verifyIdentity(own) });
    });
    log.warn({}, "this manager's certificate had expired; it issued itself a new one");
    return false;
  }

  /** By the certificate that the managers know, and its key's signature. */
  private comeBack(request: { requestPem: string; keyPem: string }): Promise<NodeIdentity> {
    const { clock, version, managers } = this.options;
    const known = this.stored ?? this.mustHold().identity;
    return fromFirst(managers(), (address) =>
      this.calls.requestReturn(address, request, known, { clock, version }),
    ).catch((error) => {
      this.refusal = isShoalError(error, 'not-supported') ? this.expiry() : error;
      throw this.refusal;
    });
  }

  /** What a certificate's end means where the managers know no way back: those of a Docker Swarm. */
  private expiry(): unknown {
    try {
      refuseExpired(this.mustHold().certificate, this.options.clock.now());
    } catch (error) {
      return error;
    }
    return new ShoalError('unavailable', 'the managers do not take this node’s certificate');
  }

  private renewByTls(
    request: { requestPem: string; keyPem: string },
    identity: NodeIdentity,
  ): Promise<NodeIdentity> {
    const { clock, version, managers } = this.options;
    const enrolment: Enrolment = {
      ...request,
      rootsPem: identity.rootsPem,
      token: '',
      availability: 'active',
      identity,
    };
    return fromFirst(managers(), (address) =>
      this.calls.requestCertificate(address, enrolment, { clock, version }),
    );
  }

  /** Renews at a random point between half and four fifths of each certificate's life, until stop. */
  startRenewing(): void {
    this.upkeep ??= { wantedRole: undefined, tries: 0, timer: undefined };
    this.schedule();
  }

  stop(): void {
    this.upkeep?.timer?.cancel();
    this.upkeep = undefined;
  }

  /** The role that the managers now certify this node for: renews until the certificate says so. */
  expectRole(role: NodeRole): void {
    const { upkeep } = this;
    if (!upkeep || upkeep.wantedRole === role) return;
    upkeep.wantedRole = role;
    upkeep.tries = 0;
    if (this.held?.certificate.role !== role) void this.attempt();
  }

  /** Renews at once and, when that fails, again and again: the managers asked for it (a root is rotated). */
  renewSoon(): void {
    if (this.upkeep) void this.attempt();
  }

  /** A manager did not take the certificate: it may have expired, or its root been replaced. */
  notTaken(): void {
    this.isTaken = false;
    if (this.upkeep?.tries === 0) void this.attempt();
  }

  /**
   * Trusts these roots from now on: an authenticated manager sent them. Roots that this node's own certificate
   * does not lead to are not taken, for it would lock itself out; it renews instead.
   */
  setRoots(rootsPem: string): Promise<void> {
    return this.inTurn(() => this.replaceRoots(rootsPem));
  }

  private async replaceRoots(rootsPem: string): Promise<void> {
    const held = this.mustHold();
    if (rootsPem === held.identity.rootsPem) return;
    if (this.stored || !leadsToRoots(held.identity.certificatePem, rootsPem)) {
      this.options.log.warn(
        {},
        'the managers sent a root that did not issue this certificate: renewing it first',
      );
      this.renewSoon();
      return;
    }
    await this.files.writeRoots(rootsPem);
    this.held = { ...held, identity: { ...held.identity, rootsPem } };
    for (const listener of [...this.listeners]) listener(this.held);
  }

  /** Forgets the identity, on disk too: the node left its cluster. */
  async clear(): Promise<void> {
    this.stop();
    await this.inTurn(async () => {
      this.held = undefined;
      this.stored = undefined;
      this.sealedUnder = undefined;
      await this.files.clear();
    });
  }

  private mustHold(): HeldIdentity {
    if (this.held) return this.held;
    throw new ShoalError('failed-precondition', 'this node has no certificate: it is not part of a cluster');
  }

  private async attempt(): Promise<void> {
    const { upkeep } = this;
    if (!upkeep) return;
    upkeep.timer?.cancel();
    try {
      await this.renew();
    } catch (error) {
      if (this.upkeep !== upkeep) return;
      // It may have expired only while the managers were asked.
      const mayYetIssue = await this.issueToSelf();
      if (this.upkeep !== upkeep) return;
      if (!mayYetIssue && this.isShutOut(error)) {
        this.stop();
        this.options.onShutOut?.(error);
        return;
      }
      this.options.log.warn(
        { error: messageOf(error) },
        'the certificate could not be renewed: trying again',
      );
      this.retry();
      return;
    }
    if (this.upkeep === upkeep && !this.hasWantedRole()) this.retry();
  }

  /** Whether `error` is a refusal that will stay one, of a node that has nothing else to show. */
  private isShutOut(error: unknown): error is ShoalError {
    const { held, options } = this;
    const isHopeless = held !== undefined && isExpired(held.certificate, options.clock.now());
    return error === this.refusal && isHopeless && isShoalError(error) && !error.retriable;
  }

  private hasWantedRole(): boolean {
    const wanted = this.upkeep?.wantedRole;
    return wanted === undefined || this.held?.certificate.role === wanted;
  }

  /** After a failure, or a certificate that does not yet say the role that is expected. */
  private retry(): void {
    const { upkeep } = this;
    if (!upkeep) return;
    const { held, stored, isTaken, options } = this;
    const isUrgent = stored || !isTaken || (held && isExpired(held.certificate, options.clock.now()));
    const baseMs = Math.min(isUrgent ? shutOutRetryMaxMs : retryMaxMs, retryFirstMs * 2 ** upkeep.tries);
    upkeep.tries += 1;
    this.arm(baseMs * (0.75 + this.options.random.float() / 2));
  }

  private schedule(): void {
    if (!this.upkeep || !this.held) return;
    if (this.stored) {
      this.retry();
      return;
    }
    if (this.hasWantedRole()) this.upkeep.tries = 0;
    this.arm(renewalDelayMs(this.held.certificate, this.options.clock.now(), this.options.random.float()));
  }

  private arm(delayMs: number): void {
    if (!this.upkeep) return;
    this.upkeep.timer?.cancel();
    this.upkeep.timer = this.options.clock.after(delayMs, () => void this.attempt());
  }
}

/** How long to wait before renewing: `chance` in [0, 1) places it between 50 % and 80 % of the lifetime. */
export function renewalDelayMs(certificate: NodeCertificate, now: number, chance: number): number {
  const { notBeforeMs, notAfterMs } = certificate;
  const startMs = notBeforeMs + backdateMs < notAfterMs ? notBeforeMs + backdateMs : notBeforeMs;
  const share = renewFrom + chance * (renewUntil - renewFrom);
  return Math.max(0, startMs + share * (notAfterMs - startMs) - now);
}
