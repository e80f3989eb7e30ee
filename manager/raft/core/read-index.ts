/**
 * Linearizable reads without a log entry (Raft dissertation, 6.4): the leader notes its commit index,
 * and once a majority answers a heartbeat sent after that, the index is a read point. Requests are
 * counted; a heartbeat carries the count so far, and its answer confirms every read up to there.
 */
import { jointCommitted } from './quorum.ts';
import type { ConfState, MemberId, Message } from './types.ts';

export interface PendingRead {
  /** The MsgReadIndex as it was asked. */
  readonly request: Message;
  /** The leader's commit index at that time. */
  readonly index: number;
}

const noReads: readonly PendingRead[] = [];

function encodeCount(count: number): Uint8Array {
  const bytes = new Uint8Array(8);
  let rest = count;
  for (let i = 0; rest > 0; i++) {
    bytes[i] = rest % 256;
    rest = Math.floor(rest / 256);
  }
  return bytes;
}

function decodeCount(bytes: Uint8Array): number {
  let count = 0;
  for (let i = Math.min(bytes.length, 7) - 1; i >= 0; i--) count = count * 256 + bytes[i]!;
  return count;
}

export class ReadIndexQueue {
  #pending: PendingRead[] = [];
  #confirmed = 0;
  readonly #acks = new Map<MemberId, number>();

  add(request: Message, commitIndex: number): void {
    this.#pending.push({ request, index: commitIndex });
  }

  /** What a heartbeat must carry so that its answers confirm every pending read; undefined without any. */
  heartbeatContext(): Uint8Array | undefined {
    return this.#pending.length === 0 ? undefined : encodeCount(this.#confirmed + this.#pending.length);
  }

  /** `member` answered a heartbeat that carried `context`. */
  acknowledge(member: MemberId, context: Uint8Array): void {
    const count = decodeCount(context);
    if (count > (this.#acks.get(member) ?? 0)) this.#acks.set(member, count);
  }

  /** Takes out the reads that a quorum has confirmed by now. */
  takeConfirmed(configuration: ConfState): readonly PendingRead[] {
    const { voters, votersOutgoing } = configuration;
    const quorum = jointCommitted(voters, votersOutgoing, (member) => this.#acks.get(member));
    const count = Math.min(quorum, this.#confirmed + this.#pending.length) - this.#confirmed;
    if (count <= 0) return noReads;
    this.#confirmed += count;
    return this.#pending.splice(0, count);
  }
}
