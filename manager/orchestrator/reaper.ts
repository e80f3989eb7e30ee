/**
 * Forgetting: tasks of removed services, tasks that were told to be removed and are gone, history beyond the
 * limit, tasks on nodes that will not come back, revisions that nothing needs, stacks of which nothing is left.
 * Keys say what is looked at: `slot:…`, `service:…`, `node:…` or `stack:…`.
 */
import { type Service, type ServiceRevision, stackLabel, type Task } from '../../proto/docker.ts';
import { asId, type NodeId, type ServiceId } from '../../proto/ids.ts';
import { isTerminal } from '../../proto/task-state.ts';
import type { Change } from '../store/change.ts';
import { nothing, type Reconciler, type Reconciliation } from '../store/reconciler.ts';
import type { View } from '../store/store.ts';
import { slotKey } from '../store/tables.ts';
import { isAttempt } from '../store/update-progress.ts';
import type { StoreEvent } from '../store/watch.ts';
import { nodeName, orphaned, removeTask } from './context.ts';
import { isActive, isHandedOut, isOfIteration, isRollingOut, lastWord } from './slots.ts';

const defaultTaskHistory = 5;
const keptRevisions = 10;
const stackParts = ['service', 'network', 'secret', 'config'] as const;
type StackPart = (typeof stackParts)[number];
/** After how long on a node that is down a task is given up (SwarmKit's time). */
const orphanAfterMs = 24 * 60 * 60 * 1000;

export const reaper: Reconciler = {
  name: 'reaper',
  keysFor,
  allKeys: (view) => [
    ...slotKeys(view),
    ...serviceKeys(view),
    ...view.list('node').map((node) => `node:${node.ID}`),
    ...lostNodes(view),
    ...view.list('stack').map((stack) => `stack:${stack.Spec.Name}`),
  ],
  reconcile(view, key, now) {
    const [kind, rest] = [key.slice(0, key.indexOf(':')), key.slice(key.indexOf(':') + 1)];
    if (kind === 'node') return reapNode(view, asId<NodeId>(rest), now);
    if (kind === 'stack') return { changes: reapStack(view, rest) };
    if (kind === 'service') return { changes: reapService(view, asId<ServiceId>(rest)) };
    return { changes: reapSlot(view, rest) };
  },
};

function keysFor(event: StoreEvent, view: View): string[] {
  switch (event.kind) {
    case 'task': {
      const isGone = event.op === 'remove';
      return isGone ? revisionKeys(event.object, view) : [`slot:${slotKey(event.object)}`];
    }
    case 'service':
      return [`service:${event.object.ID}`, ...evidenceKeys(event, view), ...stackKeys(event)];
    case 'stack':
      return ownersOf(event, view);
    case 'network':
    case 'secret':
    case 'config':
      return stackKeys(event);
    case 'node':
      if (event.op === 'update' && event.previous?.Status.State === event.object.Status.State) return [];
      return [`node:${event.object.ID}`];
    case 'cluster':
      return historyLimit(event.previous) === historyLimit(event.object) ? [] : slotKeys(view);
    default:
      return [];
  }
}

/** The stack that something is no longer part of. */
function stackKeys(event: Extract<StoreEvent, { kind: StackPart }>): string[] {
  const before = event.previous?.Spec.Labels[stackLabel];
  const isLeft = event.op === 'remove' || event.object.Spec.Labels[stackLabel] !== before;
  return before && isLeft ? [`stack:${before}`] : [];
}

/** The services whose revisions a stack named, and may name no longer. */
function ownersOf(event: Extract<StoreEvent, { kind: 'stack' }>, view: View): string[] {
  const { Deployment, History } = event.previous ?? event.object;
  const named = [Deployment, ...History].flatMap((one) => one?.Revisions ?? []);
  const owners = named.map((id) => view.get('revision', id)?.ServiceID).filter((id) => id !== undefined);
  return [...new Set(owners)].map((id) => `service:${id}`);
}

/** A stock client's `stack rm` removes what is in a stack, and knows of no object for the stack itself. */
function reapStack(view: View, name: string): Change[] {
  const [stack] = view.find('stack', 'name', name);
  const isEmpty = stackParts.every((kind) => view.find(kind, 'stack', name).length === 0);
  return stack && isEmpty ? [{ op: 'remove', kind: 'stack', id: stack.ID }] : [];
}

/** What is kept for an update to be decided may go when the update is over, or another one has begun. */
function evidenceKeys(event: Extract<StoreEvent, { kind: 'service' }>, view: View): string[] {
  const { previous, object } = event;
  const isSame =
    previous?.UpdateStatus?.State === object.UpdateStatus?.State &&
    previous?.Private.RevisionID === object.Private.RevisionID;
  if (isSame || event.op !== 'update') return [];
  return [...new Set(view.find('task', 'service', object.ID).map((task) => `slot:${slotKey(task)}`))];
}

/** A task that went may have been the last to need its revision. */
function revisionKeys(task: Task, view: View): string[] {
  const isCurrent = view.get('service', task.ServiceID)?.Private.RevisionID === task.RevisionID;
  return isCurrent ? [] : [`service:${task.ServiceID}`];
}

function slotKeys(view: View): string[] {
  return [...new Set(view.list('task').map((task) => `slot:${slotKey(task)}`))];
}

function serviceKeys(view: View): string[] {
  const owners = [...view.list('task'), ...view.list('revision')].map((object) => object.ServiceID);
  const ids = new Set([...view.list('service').map((service) => service.ID), ...owners]);
  return [...ids].map((id) => `service:${id}`);
}

function lostNodes(view: View): string[] {
  const ids = new Set(view.list('task').map((task) => task.NodeID));
  return [...ids].filter((id) => id !== undefined && !view.get('node', id)).map((id) => `node:${id}`);
}

function historyLimit(cluster: ReturnType<View['cluster']>): number {
  return cluster?.Spec.Orchestration.TaskHistoryRetentionLimit ?? defaultTaskHistory;
}

// ---------------------------------------------------------------- slots

function reapSlot(view: View, key: string): Change[] {
  const tasks = view.find('task', 'slot', key);
  const service = view.get('service', tasks[0]?.ServiceID);
  const changes: Change[] = [];
  const kept: Task[] = [];
  for (const task of tasks) {
    if (task.DesiredState === 'remove' && isGone(view, task)) changes.push(drop(task));
    else if (!service && task.DesiredState !== 'remove')
      changes.push(removeTask(task, 'its service was removed'));
    else kept.push(task);
  }
  if (!service) return changes;
  return [...changes, ...surplus(kept, service, historyLimit(view.cluster())).map(drop)];
}

function drop(task: Task): Change {
  return { op: 'remove', kind: 'task', id: task.ID };
}

/** Whether nothing of a task is left that its node would have to stop. */
function isGone(view: View, task: Task): boolean {
  return isTerminal(task.Status.State) || !isHandedOut(task) || !view.get('node', task.NodeID);
}

/**
 * The oldest tasks of a slot's history beyond the limit, which counts the slot's running task as well (as
 * SwarmKit's does) and is never less than the restart policy needs to count its attempts.
 */
function surplus(tasks: readonly Task[], service: Service, limit: number): Task[] {
  if (limit < 0) return [];
  const attempts = service.Spec.TaskTemplate.RestartPolicy?.MaxAttempts ?? 0;
  const keep = attempts > 0 ? Math.max(limit, attempts + 1) : limit;
  const excess = tasks.length - keep;
  if (excess <= 0) return [];
  return tasks
    .filter((task) => isHistory(task, service) && !isEvidence(task, tasks, service))
    .slice(0, excess);
}

function isHistory(task: Task, service: Service): boolean {
  return isTerminal(task.Status.State) && (!isActive(task) || !isOfIteration(service, task));
}

/** Whether decisions still to be made go by this task, though it is over. */
function isEvidence(task: Task, tasks: readonly Task[], service: Service): boolean {
  if (!isOfIteration(service, task)) return false;
  if (
    task === lastWord(tasks.filter((other) => isOfIteration(service, other))) ||
    isCountedRestart(task, tasks, service)
  )
    return true;
  if (!isAttempt(service, task)) return false;
  const isOutdated = (other: Task | undefined) => other?.RevisionID !== service.Private.RevisionID;
  const isTriedInVain = isOutdated(lastWord(tasks)) || tasks.filter(isActive).some(isOutdated);
  return isRollingOut(service) || isTriedInVain;
}

function isCountedRestart(task: Task, tasks: readonly Task[], service: Service): boolean {
  const attempts = service.Spec.TaskTemplate.RestartPolicy?.MaxAttempts ?? 0;
  if (attempts === 0 || task.Private.Cause !== 'failure') return false;
  const counted = tasks.filter(
    (other) => other.Private.Cause === 'failure' && other.RevisionID === task.RevisionID,
  );
  return task.RevisionID === lastWord(tasks)?.RevisionID && counted.slice(-attempts).includes(task);
}

// ---------------------------------------------------------------- services

function reapService(view: View, id: ServiceId): Change[] {
  const service = view.get('service', id);
  const revisions = view.find('revision', 'service', id);
  if (service) return oldRevisions(view, service, revisions).map(dropRevision);
  const tasks = view.find('task', 'service', id);
  if (tasks.length === 0) {
    return revisions.filter((revision) => !isOfStack(view, revision)).map(dropRevision);
  }
  return tasks
    .filter((task) => task.DesiredState !== 'remove')
    .map((task) => removeTask(task, 'its service was removed'));
}

function dropRevision(revision: ServiceRevision): Change {
  return { op: 'remove', kind: 'revision', id: revision.ID };
}

/** Whether a stack may be taken back to it. */
function isOfStack(view: View, revision: ServiceRevision): boolean {
  return view.find('stack', 'revision', revision.ID).length > 0;
}

/** Revisions but for the newest ones, those that the service names, and those of which there are tasks. */
function oldRevisions(
  view: View,
  service: Service,
  revisions: readonly ServiceRevision[],
): ServiceRevision[] {
  const { RevisionID, PreviousRevisionID } = service.Private;
  return [...revisions]
    .sort((left, right) => right.Number - left.Number)
    .slice(keptRevisions)
    .filter((revision) => revision.ID !== RevisionID && revision.ID !== PreviousRevisionID)
    .filter((revision) => view.find('task', 'revision', revision.ID).length === 0)
    .filter((revision) => !isOfStack(view, revision));
}

// ---------------------------------------------------------------- nodes

/** Gives up what is on a node that was removed, or has been down for a day. */
function reapNode(view: View, id: NodeId, now: number): Reconciliation {
  const node = view.get('node', id);
  if (!node) return { changes: giveUp(view, id, now, `node ${id} was removed`) };
  if (node.Status.State !== 'down') return nothing;
  const wakeAt = (node.Private.DownSince ?? now) + orphanAfterMs;
  if (wakeAt > now) return { changes: [], wakeAt };
  return { changes: giveUp(view, id, now, `node ${nodeName(node)} has been down for 24 hours`) };
}

function giveUp(view: View, id: NodeId, now: number, reason: string): Change[] {
  return view
    .find('task', 'node', id)
    .filter((task) => !isActive(task) && isHandedOut(task) && !isTerminal(task.Status.State))
    .map((task) => ({
      op: 'merge',
      kind: 'task',
      id: task.ID,
      fields: { Status: orphaned(task, now, reason) },
    }));
}
