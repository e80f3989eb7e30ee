/**
 * Reports of tasks and nodes, gathered into few proposals.
 *
 * In: single changes. Out: one proposal at a time; what arrives while it is under way shares the next one, so
 * that a thousand tasks that start together cost a handful of log entries. Of several reports about the same
 * task in one batch the furthest state goes in. It never lets a status go backwards and never drops one
 * without saying so: `add` resolves when the change is committed, and rejects when it was refused.
 */
import type { TaskStatus } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { TaskStatus__Output as WireTaskStatus } from '../../proto/generated/docker/swarmkit/v1/TaskStatus.ts';
import type { NodeId, TaskId } from '../../proto/ids.ts';
import { compareTaskStates, taskStateOfWire, taskStateRank } from '../../proto/task-state.ts';
import type { Change, ChangeOf, Propose } from '../store/change.ts';
import type { View } from '../store/store.ts';
import { dockerTaskStatus } from './wire.ts';

/** Changes in one proposal, at most; the rest waits for the next. */
const maxChangesPerProposal = 2_000;

/** What the writers of this folder propose: fields of tasks and nodes that the dispatcher owns. */
export type StatusChange = Extract<ChangeOf<'task'> | ChangeOf<'node'>, { op: 'merge' }>;

interface Waiting {
  change: StatusChange;
  readonly settle: { resolve: () => void; reject: (error: unknown) => void }[];
}

export class StatusBatch {
  private readonly propose: Propose;
  private waiting = new Map<string, Waiting>();
  private running = false;

  constructor(propose: Propose) {
    this.propose = propose;
  }

  /** Resolves once the change is committed. */
  add(change: StatusChange): Promise<void> {
    return new Promise((resolve, reject) => {
      const key = `${change.kind}/${change.id}`;
      const present = this.waiting.get(key);
      if (present === undefined) this.waiting.set(key, { change, settle: [{ resolve, reject }] });
      else {
        present.change = mergeChanges(present.change, change);
        present.settle.push({ resolve, reject });
      }
      if (!this.running) void this.run();
    });
  }

  private async run(): Promise<void> {
    this.running = true;
    // One turn of waiting lets the reports that arrived in one read of the network share a proposal.
    await Promise.resolve();
    while (this.waiting.size > 0) {
      const batch = [...this.waiting].slice(0, maxChangesPerProposal);
      for (const [key] of batch) this.waiting.delete(key);
      const changes: Change[] = batch.map(([, { change }]) => change);
      let failure: { error: unknown } | undefined;
      await this.propose(changes).catch((error: unknown) => {
        failure = { error };
      });
      for (const { settle } of batch.map(([, entry]) => entry)) {
        for (const { resolve, reject } of settle) failure ? reject(failure.error) : resolve();
      }
    }
    this.running = false;
  }
}

/** Two changes of one object as one: the later one's fields, but never an earlier state of a task. */
function mergeChanges(first: StatusChange, second: StatusChange): StatusChange {
  if (first.kind === 'task' && second.kind === 'task') {
    const [before, after] = [first.fields.Status, second.fields.Status];
    if (before && after && compareTaskStates(after.State, before.State) < 0) return first;
    return { ...second, fields: { ...first.fields, ...second.fields } };
  }
  if (first.kind === 'node' && second.kind === 'node') {
    return { ...second, fields: { ...first.fields, ...second.fields } };
  }
  return second;
}

/** A report of one task, as UpdateTaskStatus carries it. */
export interface Report {
  readonly task_id?: string | undefined;
  readonly status?: WireTaskStatus | undefined;
}

/**
 * What `nodeId`'s report of a task changes: undefined when the task is gone or it is told nothing new, for
 * terminal states are reported twice and reports can overtake each other. Throws `permission-denied` for a
 * task of another node. `now` in ms since the epoch.
 */
export function changeOfReport(
  view: View,
  nodeId: NodeId,
  report: Report,
  now: number,
): StatusChange | undefined {
  const task = view.get('task', (report.task_id ?? '') as TaskId);
  if (task === undefined || report.status === undefined) return undefined;
  if (task.NodeID !== nodeId) {
    throw new ShoalError(
      'permission-denied',
      `node ${nodeId} may not report the status of task ${task.ID}, which is not assigned to it`,
    );
  }
  const state = taskStateOfWire(report.status.state);
  if (taskStateRank[state] >= taskStateRank.remove) return undefined;
  if (compareTaskStates(state, task.Status.State) < 0) return undefined;
  const status = dockerTaskStatus(report.status, now);
  if (isSameReport(task.Status, status)) return undefined;
  return { op: 'merge', kind: 'task', id: task.ID, fields: { Status: status } };
}

/** Whether a report says what is known; the time at which it says so does not count. */
function isSameReport(known: TaskStatus, reported: TaskStatus): boolean {
  return JSON.stringify({ ...known, Timestamp: '' }) === JSON.stringify({ ...reported, Timestamp: '' });
}
