/**
 * Reports statuses to the managers. In: every change of a task's status. Out: batches, in the order of change,
 * tried again until they are acknowledged; of one task only the newest is sent. It never drops a status before
 * a manager has it, and never blocks the task that changed.
 */
import { messageOf } from '../proto/errors.ts';
import type { Clock, Log, Timer } from '../proto/ports.ts';
import { type AgentStatus, statusToWire, type WireStatus } from './wire.ts';

/** Changes that come together travel together: a task that is accepted is preparing a moment later. */
const gatherMs = 10;
const retryMs = 500;
const largestBatch = 500;

export interface StatusUpdate {
  readonly task_id: string;
  readonly status: WireStatus;
}

/** Delivers a batch; rejects when it was not acknowledged. */
export type Deliver = (updates: StatusUpdate[]) => Promise<void>;

export class Reporter {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #nodeId: () => string;
  readonly #pending = new Map<string, AgentStatus>();
  #deliver: Deliver | undefined;
  #timer: Timer | undefined;
  /** Where a batch is on its way to. One that was meant for an earlier place is not waited for: nobody may answer there. */
  #sending: Deliver | undefined;

  constructor(clock: Clock, log: Log, nodeId: () => string) {
    this.#clock = clock;
    this.#log = log;
    this.#nodeId = nodeId;
  }

  /** How many tasks have a status that no manager acknowledged. */
  get pendingCount(): number {
    return this.#pending.size;
  }

  /** The task's status is now this. */
  report(taskId: string, status: AgentStatus): void {
    this.#pending.delete(taskId);
    this.#pending.set(taskId, status);
    this.#schedule(gatherMs);
  }

  /** The task is no longer this node's: nothing is to be said of it any more. */
  forget(taskId: string): void {
    this.#pending.delete(taskId);
  }

  /** From now on statuses go there; undefined: nowhere, they wait. */
  connect(deliver: Deliver | undefined): void {
    this.#deliver = deliver;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#schedule(0);
  }

  #schedule(delayMs: number): void {
    const isSending = this.#sending === this.#deliver;
    if (this.#deliver === undefined || isSending || this.#pending.size === 0) return;
    this.#timer ??= this.#clock.after(delayMs, () => {
      this.#timer = undefined;
      void this.#send();
    });
  }

  async #send(): Promise<void> {
    const deliver = this.#deliver;
    if (deliver === undefined || this.#sending === deliver) return;
    const batch = [...this.#pending].slice(0, largestBatch);
    if (batch.length === 0) return;
    this.#sending = deliver;
    let waitMs = 0;
    try {
      const nodeId = this.#nodeId();
      await deliver(batch.map(([id, status]) => ({ task_id: id, status: statusToWire(status, nodeId) })));
      for (const [id, status] of batch) if (this.#pending.get(id) === status) this.#pending.delete(id);
    } catch (error) {
      waitMs = retryMs;
      this.#log.debug({ reason: messageOf(error), count: batch.length }, 'statuses were not acknowledged');
    }
    if (this.#sending === deliver) this.#sending = undefined;
    this.#schedule(this.#deliver === deliver ? waitMs : 0);
  }
}
