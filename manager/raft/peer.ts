/**
 * The connection to one other member: a long-lived link for messages, snapshots in chunks over gRPC beside it.
 *
 * In: messages. Out: frames, as long as the other side takes them; beyond a bound they are dropped and
 * reported, for the consensus core sends again what matters. It reconnects by itself with a short backoff.
 */
import { assertNever, messageOf, ShoalError } from '../../proto/errors.ts';
import type { Link } from '../../proto/link.ts';
import type { Clock, Log, Timer } from '../../proto/ports.ts';
import type { Member } from './contract.ts';
import type { Message } from './core/types.ts';
import { decodeFrame, groupsThatFit, type QuestionKind, sizeOfMessage } from './frame.ts';
import { encodeMessages } from './message-codec.ts';
import { type HeardAnswer, Questions } from './questions.ts';
import type { SnapshotOffer } from './snapshot-sender.ts';

const firstBackoffMs = 100;
const longestBackoffMs = 1_000;
const maxQueuedBytes = 32 * 2 ** 20;
const snapshotTimeoutMs = 600_000;
/** How long an ended link may take to deliver its last frames. */
const lingerMs = 5_000;

type Connection =
  | { readonly kind: 'waiting'; readonly timer: Timer }
  | { readonly kind: 'open'; readonly link: Link; isEstablished: boolean; isFull: boolean }
  | { readonly kind: 'closed' };

export interface PeerOptions {
  readonly member: Member;
  readonly clusterId: string;
  readonly openLink: () => Link;
  /** Over a connection of its own. */
  readonly sendSnapshot: (offer: SnapshotOffer) => Promise<void>;
  readonly clock: Clock;
  readonly log: Log;
  readonly questionTimeoutMs: number;
  readonly receive: (message: Message) => void;
  readonly unreachable: () => void;
  /** Nothing listens there any more. */
  readonly gone: () => void;
  readonly snapshotSent: (ok: boolean) => void;
}

export class Peer {
  readonly #options: PeerOptions;
  #connection: Connection;
  #backoffMs = firstBackoffMs;
  #queue: Buffer[] = [];
  #queuedBytes = 0;
  readonly #questions: Questions;
  #isSendingSnapshot = false;
  #wasReported = false;
  /** The link that is being closed. */
  #lingering: { readonly link: Link; readonly timer: Timer } | undefined;

  constructor(options: PeerOptions) {
    this.#options = options;
    this.#questions = new Questions({
      clock: options.clock,
      address: options.member.address,
      timeoutMs: options.questionTimeoutMs,
      write: (frame) => this.#write(frame),
    });
    this.#connection = this.#open();
  }

  get member(): Member {
    return this.#options.member;
  }

  /** Whether the other side has answered on the stream that stands now. */
  get isConnected(): boolean {
    return this.#connection.kind === 'open' && this.#connection.isEstablished;
  }

  send(messages: readonly Message[]): void {
    let frames = messages;
    if (messages.some(({ type }) => type === 'MsgSnap')) {
      frames = messages.filter(({ type }) => type !== 'MsgSnap');
      for (const message of messages) if (message.type === 'MsgSnap') this.#sendSnapshot(message);
    }
    for (const group of groupsThatFit(frames, sizeOfMessage)) this.#write(encodeMessages(group));
  }

  /** Asks the leader. Throws 'unavailable'; details.outcome says whether the question may have been heard. */
  async ask(kind: QuestionKind, data: Uint8Array): Promise<HeardAnswer> {
    // Not asking at all is the one failure that leaves no doubt.
    if (!this.isConnected) throw unreachableLeader(this.member);
    return this.#questions.ask(kind, data);
  }

  /** What was handed over before still goes out, if the other side takes it. */
  close(): void {
    this.#questions.flush();
    const connection = this.#connection;
    this.#connection = { kind: 'closed' };
    const { clock } = this.#options;
    if (connection.kind === 'waiting') connection.timer.cancel();
    if (connection.kind !== 'open') return;
    // Questions under way are still answered before the other side ends the link as well.
    const { link } = connection;
    this.#lingering = { link, timer: clock.after(lingerMs, () => link.destroy()) };
    link.end();
  }

  #write(payload: Buffer): void {
    const connection = this.#connection;
    if (connection.kind === 'open' && !connection.isFull) {
      if (!connection.link.write(payload)) connection.isFull = true;
      return;
    }
    if (connection.kind !== 'open' || this.#queuedBytes + payload.length > maxQueuedBytes) {
      this.#options.unreachable();
      return;
    }
    this.#queue.push(payload);
    this.#queuedBytes += payload.length;
  }

  #drained(link: Link): void {
    const connection = this.#connection;
    if (connection.kind !== 'open' || connection.link !== link) return;
    connection.isFull = false;
    const queue = this.#queue;
    this.#queue = [];
    this.#queuedBytes = 0;
    for (const payload of queue) this.#write(payload);
  }

  #open(): Connection {
    const { openLink, log, member, gone } = this.#options;
    const link = openLink();
    const connection: Connection = { kind: 'open', link, isEstablished: false, isFull: false };
    let refusal: string | undefined;
    link.start({
      opened: () => {
        connection.isEstablished = true;
        this.#backoffMs = firstBackoffMs;
        this.#wasReported = false;
      },
      drained: () => this.#drained(link),
      frame: (bytes) => {
        try {
          refusal = this.#heard(bytes) ?? refusal;
        } catch (error) {
          log.warn(
            { manager: member.address, problem: messageOf(error) },
            'a manager sent what cannot be read',
          );
        }
      },
      closed: (problem, isRefused) => {
        if (isRefused) gone();
        // What was refused once is not welcome the next moment.
        if (refusal !== undefined) {
          this.#backoffMs = longestBackoffMs;
          connection.isEstablished = false;
        }
        this.#lost(link, refusal ?? problem);
      },
    });
    return connection;
  }

  /** Takes a frame in; answers why the other side hangs up, if that is what it says. */
  #heard(bytes: Buffer): string | undefined {
    const heard = decodeFrame(bytes);
    switch (heard.kind) {
      case 'messages':
        for (const message of heard.messages) this.#options.receive(message);
        return undefined;
      case 'answers':
        this.#questions.answered(heard.answers);
        return undefined;
      case 'refusal':
        return heard.error.message;
      case 'questions':
        return undefined;
      default:
        return assertNever(heard);
    }
  }

  #lost(link: Link, problem: string): void {
    if (this.#lingering?.link === link) {
      this.#lingering.timer.cancel();
      this.#questions.lost();
    }
    if (this.#connection.kind !== 'open' || this.#connection.link !== link) return;
    const { clock, log, member, unreachable } = this.#options;
    const wasEstablished = this.#connection.isEstablished;
    this.#queue = [];
    this.#queuedBytes = 0;
    // The first attempt is made at once: it tells a process that ended from a connection that broke.
    const timer = clock.after(wasEstablished ? 0 : this.#backoffMs, () => {
      this.#connection = this.#open();
    });
    if (!wasEstablished) this.#backoffMs = Math.min(2 * this.#backoffMs, longestBackoffMs);
    this.#connection = { kind: 'waiting', timer };
    // One line for each loss, not for each attempt.
    if (!this.#wasReported)
      log.warn({ manager: member.address, problem }, 'the connection to a manager is lost');
    this.#wasReported = true;
    this.#questions.lost();
    unreachable();
  }

  #sendSnapshot(message: Message): void {
    // The core asks again after it was told how this one ended.
    if (this.#isSendingSnapshot || this.#connection.kind !== 'open') {
      if (!this.#isSendingSnapshot) this.#options.snapshotSent(false);
      return;
    }
    this.#isSendingSnapshot = true;
    const { sendSnapshot, clock, clusterId, log, member, snapshotSent } = this.#options;
    const offer = {
      clusterId,
      announcement: encodeMessages([message]),
      data: message.snapshot?.data ?? new Uint8Array(0),
      deadline: clock.now() + snapshotTimeoutMs,
    };
    const ended = (problem?: string): void => {
      this.#isSendingSnapshot = false;
      if (problem !== undefined)
        log.warn({ manager: member.address, problem }, 'a manager did not get its snapshot');
      snapshotSent(problem === undefined);
    };
    sendSnapshot(offer).then(
      () => ended(),
      (error: unknown) => ended(messageOf(error)),
    );
  }
}

/** The error for a leader that was not even asked. */
export function unreachableLeader(leader: Member): ShoalError {
  return new ShoalError('unavailable', `the leader at ${leader.address} cannot be reached`, {
    details: { outcome: 'not-appended' },
  });
}
