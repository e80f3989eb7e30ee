/**
 * What a node should have, and the difference to what it was told: pure.
 *
 * In: the store's view and the tasks of the node that changed. Out: assignment messages, COMPLETE once and
 * INCREMENTAL from then on, each naming the message that it applies to. Secrets and configs travel with the
 * first task that uses them and are taken away with the last. Work is proportional to the tasks that changed.
 */
import type { Task } from '../../proto/docker.ts';
import type { AssignmentChange__Output as WireChange } from '../../proto/generated/docker/swarmkit/v1/AssignmentChange.ts';
import type { AssignmentsMessage__Output as WireAssignments } from '../../proto/generated/docker/swarmkit/v1/AssignmentsMessage.ts';
import type { ConfigId, NodeId, SecretId, TaskId } from '../../proto/ids.ts';
import { isTerminal, taskStateRank } from '../../proto/task-state.ts';
import type { View } from '../store/store.ts';
import { wireConfig, wireSecret, wireTask } from './wire.ts';

/** A secret or config that a task uses. */
type Dependency =
  | { readonly kind: 'secret'; readonly id: SecretId }
  | { readonly kind: 'config'; readonly id: ConfigId };

interface Sent {
  readonly task: Task;
  /** Empty once the task has ended. */
  readonly dependencies: readonly Dependency[];
}

interface Changes {
  /** Dependencies first, so that a task never arrives before what it needs. */
  readonly added: WireChange[];
  readonly tasks: WireChange[];
  readonly touched: Map<string, Dependency>;
}

/** What one node's assignment stream has been told so far. */
export class AssignmentSet {
  private readonly nodeId: NodeId;
  private readonly isWithheld: (id: TaskId) => boolean;
  private sent = new Map<TaskId, Sent>();
  private users = new Map<string, Set<TaskId>>();
  private sequence = 0;

  /** `isWithheld`: whether the node may not be told yet that the task is to stop. */
  constructor(nodeId: NodeId, isWithheld: (id: TaskId) => boolean = () => false) {
    this.nodeId = nodeId;
    this.isWithheld = isWithheld;
  }

  /** Everything that the node should have, whatever it was told before. */
  complete(view: View): WireAssignments {
    this.sent = new Map();
    this.users = new Map();
    const changes: Changes = { added: [], tasks: [], touched: new Map() };
    for (const task of view.find('task', 'node', this.nodeId)) this.consider(view, task.ID, changes);
    this.sequence++;
    return {
      type: 'COMPLETE',
      results_in: String(this.sequence),
      changes: [...changes.added, ...changes.tasks],
    };
  }

  /** What changes for the node when `taskIds` changed; undefined when nothing does. */
  incremental(view: View, taskIds: Iterable<TaskId>): WireAssignments | undefined {
    const changes: Changes = { added: [], tasks: [], touched: new Map() };
    for (const id of taskIds) this.consider(view, id, changes);
    const removed = [...changes.touched]
      .filter(([key]) => !this.users.has(key))
      .map(([, dependency]) => removal(dependency));
    const all = [...changes.added, ...changes.tasks, ...removed];
    if (all.length === 0) return undefined;
    const appliesTo = String(this.sequence);
    this.sequence++;
    return {
      type: 'INCREMENTAL',
      applies_to: appliesTo,
      results_in: String(this.sequence),
      changes: all,
    };
  }

  private consider(view: View, id: TaskId, changes: Changes): void {
    const stored = view.get('task', id);
    const before = this.sent.get(id);
    // A node that is told everything anew is told that the task runs on, until its endpoint is withdrawn.
    const task: Task | undefined =
      stored !== undefined && this.isWithheld(id) ? { ...stored, DesiredState: 'running' } : stored;
    if (task === undefined || !isAssignedTo(task, this.nodeId)) {
      if (before === undefined) return;
      this.sent.delete(id);
      this.release(before, id, changes);
      changes.tasks.push({
        assignment: { task: { id }, item: 'task' },
        action: 'REMOVE',
      });
      return;
    }
    // Once more when its endpoint is withdrawn.
    if (before !== undefined && this.isWithheld(id)) return;
    const revision = view.get('revision', task.RevisionID);
    if (revision === undefined) return;
    const dependencies = isTerminal(task.Status.State)
      ? []
      : dependenciesOf(revision.Spec.TaskTemplate.ContainerSpec);
    this.sent.set(id, { task, dependencies });
    this.acquire(view, dependencies, id, changes);
    if (before !== undefined) this.release(before, id, changes, dependencies);
    if (before !== undefined && !concernsNode(before.task, task)) return;
    const wired = wireTask({
      task,
      revision,
      service: view.get('service', task.ServiceID),
      cluster: view.cluster(),
      network: (networkId) => view.get('network', networkId),
    });
    changes.tasks.push({ assignment: { task: wired, item: 'task' }, action: 'UPDATE' });
  }

  private acquire(view: View, dependencies: readonly Dependency[], id: TaskId, changes: Changes): void {
    for (const dependency of dependencies) {
      const key = keyOf(dependency);
      const users = this.users.get(key);
      if (users !== undefined) {
        users.add(id);
        continue;
      }
      const change = addition(view, dependency);
      if (change === undefined) continue;
      this.users.set(key, new Set([id]));
      changes.added.push(change);
    }
  }

  private release(before: Sent, id: TaskId, changes: Changes, kept: readonly Dependency[] = []): void {
    if (before.dependencies.length === 0) return;
    const stays = new Set(kept.map(keyOf));
    for (const dependency of before.dependencies) {
      const key = keyOf(dependency);
      if (stays.has(key)) continue;
      const users = this.users.get(key);
      if (users?.delete(id) !== true || users.size > 0) continue;
      this.users.delete(key);
      changes.touched.set(key, dependency);
    }
  }
}

/** A node is told of a task from its assignment until it is forgotten or given up as lost. */
function isAssignedTo(task: Task, nodeId: NodeId): boolean {
  return (
    task.NodeID === nodeId &&
    taskStateRank[task.Status.State] >= taskStateRank.assigned &&
    task.Status.State !== 'orphaned'
  );
}

/** Whether a change of a task is one that its node must hear of; its own reports of status are not. */
function concernsNode(before: Task, after: Task): boolean {
  return (
    before.DesiredState !== after.DesiredState ||
    before.RevisionID !== after.RevisionID ||
    before.NetworksAttachments !== after.NetworksAttachments ||
    before.AssignedGenericResources !== after.AssignedGenericResources ||
    before.Labels !== after.Labels
  );
}

function dependenciesOf(container: {
  Secrets?: { SecretID: SecretId }[];
  Configs?: { ConfigID: ConfigId }[];
}): Dependency[] {
  return [
    ...(container.Secrets ?? []).map(({ SecretID: id }) => ({ kind: 'secret', id }) as const),
    ...(container.Configs ?? []).map(({ ConfigID: id }) => ({ kind: 'config', id }) as const),
  ];
}

function keyOf(dependency: Dependency): string {
  return `${dependency.kind}/${dependency.id}`;
}

/** Undefined when the object is gone: the worker then rejects the task and says which one it misses. */
function addition(view: View, dependency: Dependency): WireChange | undefined {
  if (dependency.kind === 'secret') {
    const secret = view.get('secret', dependency.id);
    return secret && { assignment: { secret: wireSecret(secret), item: 'secret' }, action: 'UPDATE' };
  }
  const config = view.get('config', dependency.id);
  return config && { assignment: { config: wireConfig(config), item: 'config' }, action: 'UPDATE' };
}

function removal(dependency: Dependency): WireChange {
  return {
    assignment:
      dependency.kind === 'secret'
        ? { secret: { id: dependency.id }, item: 'secret' }
        : { config: { id: dependency.id }, item: 'config' },
    action: 'REMOVE',
  };
}
