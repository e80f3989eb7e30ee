/**
 * Endpoints on their way out: which nodes may still send connections to a task that is to stop. In: tasks that begin
 * to stop, what nodes were told and what they confirmed. Out: the word that nobody does any more (`onWithdrawn`), a
 * moment after the last confirmation, for what is under way then has to arrive; or that a node was waited for long
 * enough. Until then the task's agent is not told to stop it.
 */
import type { Task } from '../../proto/docker.ts';
import type { NodeId, ServiceId, TaskId } from '../../proto/ids.ts';
import type { Clock, Log, Timer } from '../../proto/ports.ts';

/**
 * As long as a node may take to confirm that an endpoint is withdrawn. Longer than a silent one takes to be known as down
 * with the usual heartbeat, which ends the wait: a busy one that still sends connections would send them to a closed door.
 */
export const withdrawalTimeoutMs = 5_000;
/**
 * After the last confirmation: a packet that passed the rules before they changed reaches its task, which takes the
 * connection and answers it. A server that is told to stop closes its door, and refuses those that stand before it.
 */
export const settleMs = 200;

export interface WithdrawalsOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** Nobody sends connections to the task any more: its agent may be told to stop it. */
  readonly onWithdrawn: (task: Task) => void;
}

interface Withdrawal {
  readonly task: Task;
  timer: Timer;
  /** Node → the revision that it has to confirm; undefined: it was not told yet. */
  readonly pending: Map<NodeId, number | undefined>;
}

export class Withdrawals {
  private readonly options: WithdrawalsOptions;
  private readonly byTask = new Map<TaskId, Withdrawal>();

  constructor(options: WithdrawalsOptions) {
    this.options = options;
  }

  /** Begins one that each of `nodes` has to confirm, within `boundMs`. Nobody to wait for: nothing is withheld. */
  begin(task: Task, nodes: Iterable<NodeId>, boundMs = withdrawalTimeoutMs): void {
    const pending = new Map([...nodes].map((nodeId) => [nodeId, undefined] as const));
    if (pending.size === 0 || this.byTask.has(task.ID)) return;
    const timer = this.options.clock.after(boundMs, () => {
      this.options.log.warn(
        { task: task.ID, nodes: [...pending.keys()] },
        'nodes did not confirm in time that they send no more connections to the task',
      );
      this.release(task.ID);
    });
    this.byTask.set(task.ID, { task, timer, pending });
  }

  /** Whether some node may still send connections to the task. */
  isWithheld(taskId: TaskId): boolean {
    return this.byTask.has(taskId);
  }

  /** The node is told of the store's state at `revision` now; `isTold`: whether that says anything of a service. */
  told(nodeId: NodeId, revision: number, isTold: (serviceId: ServiceId) => boolean): void {
    for (const [taskId, { task, pending }] of this.byTask) {
      if (!pending.has(nodeId) || pending.get(nodeId) !== undefined) continue;
      // One that is not told of the service sends nothing to it.
      if (isTold(task.ServiceID)) pending.set(nodeId, revision);
      else this.settle(taskId, nodeId);
    }
  }

  /** The node's kernel holds `revision`. */
  confirmed(nodeId: NodeId, revision: number): void {
    for (const [taskId, { pending }] of this.byTask) {
      const awaited = pending.get(nodeId);
      if (awaited !== undefined && revision >= awaited) this.settle(taskId, nodeId);
    }
  }

  /** The node does not listen at present: it goes on as it was told last, and is told anew when it is back. */
  silent(nodeId: NodeId): void {
    for (const { pending } of this.byTask.values()) if (pending.has(nodeId)) pending.set(nodeId, undefined);
  }

  /** The node is lost: it is not waited for. */
  gone(nodeId: NodeId): void {
    for (const taskId of [...this.byTask.keys()]) this.settle(taskId, nodeId);
  }

  stop(): void {
    for (const { timer } of this.byTask.values()) timer.cancel();
    this.byTask.clear();
  }

  private settle(taskId: TaskId, nodeId: NodeId): void {
    const withdrawal = this.byTask.get(taskId);
    if (withdrawal === undefined || !withdrawal.pending.delete(nodeId) || withdrawal.pending.size > 0) return;
    withdrawal.timer.cancel();
    withdrawal.timer = this.options.clock.after(settleMs, () => this.release(taskId));
  }

  private release(taskId: TaskId): void {
    const withdrawal = this.byTask.get(taskId);
    if (withdrawal === undefined) return;
    this.byTask.delete(taskId);
    this.options.onWithdrawn(withdrawal.task);
  }
}
