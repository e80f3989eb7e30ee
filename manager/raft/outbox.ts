/**
 * What leaves for the other members, in groups; the leader's notices of commits wait a moment for company.
 *
 * In: messages. Out: the same, at once, but for appends without entries: these tell a follower only how far the log is
 * committed, which the next append tells as well, and each costs both sides a message and its answer. A notice leaves
 * within a bounded time, or is dropped when a newer append to that member says as much. The consensus core bears both:
 * to it the network was slow, or lost one of two.
 */
import type { Clock, Timer } from '../../proto/ports.ts';
import type { MemberId, Message } from './core/types.ts';

/** What a follower shows may be this much older than what the leader shows. */
const holdMs = 3;

export interface OutboxOptions {
  readonly clock: Clock;
  readonly send: (to: MemberId, messages: readonly Message[]) => void;
  /** Whether someone at another member waits for what is committed now. */
  readonly isAwaited: () => boolean;
}

export class Outbox {
  readonly #options: OutboxOptions;
  readonly #held = new Map<MemberId, Message>();
  #heldSinceMs = 0;
  #timer: Timer | undefined;

  constructor(options: OutboxOptions) {
    this.#options = options;
  }

  send(messages: readonly Message[]): void {
    if (messages.length === 0) return;
    const groups = new Map<MemberId, Message[]>();
    const mayHold = !this.#options.isAwaited();
    for (const message of messages) {
      const { to } = message;
      if (message.type === 'MsgApp') {
        if (mayHold && message.entries?.length === 0) {
          this.#hold(message);
          continue;
        }
        this.#held.delete(to);
      }
      const group = groups.get(to);
      if (group === undefined) groups.set(to, [message]);
      else group.push(message);
    }
    for (const [to, group] of groups) this.#options.send(to, group);
  }

  /** Sends what is held. */
  flush(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    const held = [...this.#held.values()];
    this.#held.clear();
    for (const message of held) this.#options.send(message.to, [message]);
  }

  #hold(message: Message): void {
    if (this.#held.size === 0) this.#heldSinceMs = this.#options.clock.monotonicMs();
    this.#held.set(message.to, message);
    this.#timer ??= this.#options.clock.after(holdMs, () => this.#due());
  }

  #due(): void {
    this.#timer = undefined;
    if (this.#held.size === 0) return;
    const { clock } = this.#options;
    const leftMs = this.#heldSinceMs + holdMs - clock.monotonicMs();
    // Those that the timer was set for have gone.
    if (leftMs > 0.5) this.#timer = clock.after(leftMs, () => this.#due());
    else this.flush();
  }
}
