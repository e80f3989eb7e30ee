/**
 * The agent's session with the managers. In: where managers are, what the node is. Out: one session at a time with
 * the leader: heartbeats, assignments to the worker, statuses from the reporter, requests for logs. When it breaks
 * another is opened at once, elsewhere if need be; tasks know nothing of it. It never gives up.
 */
import { isShoalError, messageOf, ShoalError } from '../proto/errors.ts';
import type { Clock, Log, Random, Timer } from '../proto/ports.ts';
import { type NodeIdentity, noCertificate } from '../proto/rpc.ts';
import {
  type ConnectDispatcher,
  type DispatcherClient,
  type ManagerKind,
  reasonOfEnd,
  type Stream,
} from './dispatcher-client.ts';
import type { RememberedManager } from './journal.ts';
import type { LogForwarder } from './logs.ts';
import type { Remotes } from './remotes.ts';
import type { Reporter } from './reporter.ts';
import type { WireDescription, WireSessionMessage } from './wire.ts';
import type { Worker } from './worker.ts';

/**
 * A manager has this long to answer a new session: as long as the last heartbeat period, which grows with the
 * cluster and so with how busy a new leader is, and twice as long each time that none answered. A host without
 * power never answers, and a node that waits for it would be taken for lost itself.
 */
const shortestOpenTimeoutMs = 1_000;
const longestOpenTimeoutMs = 5_000;
const firstRetryMs = 50;
const lastRetryMs = 1_500;
/** A period of 0 on the wire would be a hot loop. */
const shortestPeriodMs = 100;
/** A manager that is busy is not gone; a session that is opened anew makes it busier. */
const shortestDeadlineMs = 1_000;
const longestDeadlineMs = 3_000;
/** Following hints in a circle is no progress. */
const mostHintsInARow = 3;

export interface SessionOptions {
  readonly connect: ConnectDispatcher;
  readonly identity: () => NodeIdentity;
  readonly description: () => WireDescription;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly remotes: Remotes;
  readonly worker: Worker;
  readonly reporter: Reporter;
  readonly logs: LogForwarder;
  /** Told of each session with managers of ours, and of its end. */
  readonly listeners: readonly SessionListener[];
  readonly onMessage: (message: WireSessionMessage) => void;
  readonly onManagers: (managers: readonly RememberedManager[]) => void;
  /** A manager of ours did not take the certificate. */
  readonly onNotTaken: () => void;
}

export interface SessionListener {
  connect(client: DispatcherClient): void;
  disconnect(): void;
}

/** How the session stands, for `docker info`. */
export type SessionState =
  | { readonly kind: 'stopped' }
  | { readonly kind: 'connecting'; readonly reason: string }
  | { readonly kind: 'established'; readonly address: string; readonly sessionId: string };

/** One connection, from its opening to its end. */
interface Attempt {
  readonly client: DispatcherClient;
  readonly streams: Stream[];
  sessionId: string | undefined;
  managers: ManagerKind | undefined;
  timer: Timer | undefined;
  assignments: Stream | undefined;
  isOver: boolean;
}

export class Session {
  readonly #options: SessionOptions;
  #attempt: Attempt | undefined;
  #retry: Timer | undefined;
  #retryMs = firstRetryMs;
  #hints = 0;
  /** How many attempts in a row were not answered at all. */
  #unanswered = 0;
  #periodMs = shortestOpenTimeoutMs;
  #isRunning = false;
  #reason = 'not connected yet';

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  get state(): SessionState {
    if (!this.#isRunning) return { kind: 'stopped' };
    const attempt = this.#attempt;
    if (attempt?.sessionId === undefined) return { kind: 'connecting', reason: this.#reason };
    return { kind: 'established', address: attempt.client.address, sessionId: attempt.sessionId };
  }

  start(): void {
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#open();
  }

  stop(): void {
    this.#isRunning = false;
    this.#retry?.cancel();
    this.#retry = undefined;
    if (this.#attempt !== undefined) this.#end(this.#attempt);
  }

  /** What the node says of itself, or its certificate, changed: the session is opened anew, with the same manager. */
  reopen(): void {
    const attempt = this.#attempt;
    if (attempt === undefined) return;
    if (attempt.sessionId !== undefined) this.#options.remotes.hint(attempt.client.address);
    this.#end(attempt);
    this.#open();
  }

  /** Someone who should know says who leads; a session with another manager moves there. */
  leaderHint(address: string): void {
    const { remotes } = this.#options;
    const attempt = this.#attempt;
    if (attempt?.client.address === address) return;
    remotes.hint(address);
    this.#retryMs = firstRetryMs;
    if (!this.#isRunning) return;
    if (attempt !== undefined) this.#end(attempt);
    this.#retry?.cancel();
    this.#retry = undefined;
    this.#open();
  }

  #open(): void {
    const { remotes, clock, connect, identity, description, worker } = this.#options;
    const address = remotes.pick();
    if (address === undefined) {
      this.#openLater(new ShoalError('unavailable', 'no manager is known'));
      return;
    }
    let client: DispatcherClient;
    try {
      client = connect(address, identity());
    } catch (error) {
      remotes.failed(address);
      this.#openLater(error);
      return;
    }
    const attempt: Attempt = {
      client,
      streams: [],
      sessionId: undefined,
      managers: undefined,
      timer: undefined,
      assignments: undefined,
      isOver: false,
    };
    this.#attempt = attempt;
    const timeoutMs = Math.max(this.#periodMs, shortestOpenTimeoutMs) * 2 ** this.#unanswered;
    attempt.timer = clock.after(Math.min(timeoutMs, longestOpenTimeoutMs), () => {
      this.#unanswered += 1;
      this.#fail(attempt, new ShoalError('timeout', `${address} does not answer`));
    });
    attempt.streams.push(
      client.session(description(), {
        onManagerKind: (kind) => {
          attempt.managers = kind;
          if (!attempt.isOver) worker.managersAre(kind);
        },
        onMessage: (message) => this.#onMessage(attempt, message),
        onEnd: (error) => this.#fail(attempt, error ?? new ShoalError('unavailable', reasonOfEnd(error))),
      }),
    );
  }

  #onMessage(attempt: Attempt, message: WireSessionMessage): void {
    if (attempt.isOver) return;
    const { remotes, onManagers, onMessage } = this.#options;
    const managers = managersOf(message);
    // Without a session the list is a manager's way of naming the leader, and the error that follows says so too.
    if (managers.length > 0 && (message.session_id || attempt.sessionId !== undefined)) {
      remotes.replace(managers);
      onManagers(managers);
    }
    if (message.session_id && attempt.sessionId !== message.session_id) {
      if (attempt.sessionId !== undefined) {
        this.#fail(attempt, new ShoalError('conflict', 'the manager changed the session'));
        return;
      }
      attempt.sessionId = message.session_id;
      this.#establish(attempt, message.session_id);
    }
    onMessage(message);
  }

  #establish(attempt: Attempt, sessionId: string): void {
    const { log, remotes, worker, reporter, logs } = this.#options;
    log.info({ manager: attempt.client.address }, 'session with the managers established');
    remotes.worked(attempt.client.address);
    this.#retryMs = firstRetryMs;
    this.#hints = 0;
    this.#unanswered = 0;
    attempt.timer?.cancel();
    this.#beat(attempt, sessionId);
    this.#assign(attempt, sessionId);
    // What an earlier leader was told may not have outlived it: every status is said again.
    for (const { taskId, status } of worker.statuses()) reporter.report(taskId, status);
    reporter.connect((updates) => attempt.client.updateTaskStatus(sessionId, updates));
    logs.connect(attempt.client);
    if (attempt.managers !== 'shoal') return;
    for (const listener of this.#options.listeners) listener.connect(attempt.client);
  }

  #assign(attempt: Attempt, sessionId: string): void {
    const { worker, log } = this.#options;
    worker.restartAssignments();
    attempt.assignments = attempt.client.assignments(sessionId, {
      onMessage: (message) => {
        if (attempt.isOver || worker.apply(message)) return;
        log.warn({ manager: attempt.client.address }, 'an assignment message is missing: asking for all');
        attempt.assignments?.cancel();
        this.#assign(attempt, sessionId);
      },
      onEnd: (error) => this.#fail(attempt, error ?? new ShoalError('unavailable', reasonOfEnd(error))),
    });
  }

  #beat(attempt: Attempt, sessionId: string, lastPeriodMs = 1_000): void {
    if (attempt.isOver) return;
    const timeoutMs = Math.min(Math.max(lastPeriodMs, shortestDeadlineMs), longestDeadlineMs);
    const { clock, worker } = this.#options;
    const sentAtMs = clock.monotonicMs();
    attempt.client.heartbeat(sessionId, timeoutMs).then(
      (periodMs) => {
        if (attempt.isOver) return;
        const nextMs = Math.max(periodMs, shortestPeriodMs);
        worker.heard(sentAtMs, nextMs);
        this.#periodMs = nextMs;
        attempt.timer = clock.after(nextMs, () => this.#beat(attempt, sessionId, nextMs));
      },
      (error: unknown) => this.#fail(attempt, error),
    );
  }

  #fail(attempt: Attempt, error: unknown): void {
    if (attempt.isOver) return;
    const { remotes, log } = this.#options;
    const { address } = attempt.client;
    const wasEstablished = attempt.sessionId !== undefined;
    log.info({ manager: address, reason: messageOf(error) }, 'session with the managers ended');
    this.#end(attempt);
    if (isShoalError(error) && error.details.reason === noCertificate) this.#options.onNotTaken();
    const leader = isShoalError(error) ? error.details.leader : undefined;
    if (leader !== undefined && leader !== address && this.#hints < mostHintsInARow) {
      this.#hints += 1;
      remotes.hint(leader);
      this.#open();
      return;
    }
    // Elected, and about to lead: it is asked again for a while, for another manager could only name it.
    if (leader === address && this.#retryMs < lastRetryMs / 2) remotes.hint(address);
    else if (!(wasEstablished && isStaleSession(error))) remotes.failed(address);
    this.#openLater(error);
  }

  #openLater(error: unknown): void {
    if (!this.#isRunning) return;
    const { clock, random } = this.#options;
    this.#reason = messageOf(error);
    const waitMs = this.#retryMs * (1 + random.float());
    this.#retryMs = Math.min(this.#retryMs * 2, lastRetryMs / 2);
    this.#retry = clock.after(waitMs, () => {
      this.#retry = undefined;
      this.#hints = 0;
      this.#open();
    });
  }

  #end(attempt: Attempt): void {
    attempt.isOver = true;
    this.#attempt = undefined;
    attempt.timer?.cancel();
    if (attempt.sessionId !== undefined) {
      this.#options.reporter.connect(undefined);
      this.#options.logs.disconnect();
      for (const listener of this.#options.listeners) listener.disconnect();
    }
    attempt.assignments?.cancel();
    for (const stream of attempt.streams) stream.cancel();
    attempt.client.close();
  }
}

/** The manager lives and leads, it only does not know this session any more. */
function isStaleSession(error: unknown): boolean {
  return isShoalError(error) && ['not-found', 'invalid-argument', 'conflict'].includes(error.code);
}

function managersOf(message: WireSessionMessage): RememberedManager[] {
  return (message.managers ?? []).flatMap(({ peer, weight }) =>
    peer?.addr ? { nodeId: peer.node_id ?? '', address: peer.addr, weight: Number(weight ?? 1) } : [],
  );
}
