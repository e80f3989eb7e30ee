/** What the decisions about one service have in common: what they see, and the changes they may ask for. */
import type { ClusterNode, Service, ServiceSpec, Task } from '../../proto/docker.ts';
import type { NewId, NodeId, TaskId } from '../../proto/ids.ts';
import { isTerminal } from '../../proto/task-state.ts';
import { type Change, newMeta } from '../store/change.ts';
import { explainConstraints, parseConstraints } from '../store/constraint.ts';
import { unmetDependencies } from '../store/dependencies.ts';
import { dirtyTest } from '../store/revision.ts';
import { serviceOption } from '../store/service-options.ts';
import type { View } from '../store/store.ts';
import { slotKey } from '../store/tables.ts';
import { createdAtMs, goalState, isHandedOut, type Slot } from './slots.ts';

export interface Context {
  readonly view: View;
  readonly service: Service;
  /** ms since the epoch. */
  readonly now: number;
  /** Since when (ms since the epoch) one clock has counted, without a step; undefined: always. */
  readonly steadySince: number | undefined;
  readonly newId: NewId;
  isDirty(task: Task): boolean;
  /** Whether the service's tasks may not start yet, for what it depends on is not so far. */
  mustHold(): boolean;
}

export function makeContext(
  view: View,
  service: Service,
  now: number,
  newId: NewId,
  steadySince?: number,
): Context {
  let held: boolean | undefined;
  const mustHold = () => {
    // A job that is run again comes after what was changed along with it.
    const isUpdate = (service.JobStatus?.JobIteration.Index ?? 0) > 0;
    held ??= unmetDependencies(view, service, isUpdate).length > 0;
    return held;
  };
  return { view, service, now, steadySince, newId, isDirty: dirtyTest(view, service), mustHold };
}

/** The spec that a task was made from; the service's own when its revision is gone. */
export function specOf(context: Context, task: Task): ServiceSpec {
  return context.view.get('revision', task.RevisionID)?.Spec ?? context.service.Spec;
}

/** What a person calls a node. */
export function nodeName(node: ClusterNode): string {
  return node.Description.Hostname || node.ID;
}

/** Why a node can't have any task, in words; undefined when it can. */
export function nodeProblem(node: ClusterNode | undefined, id: NodeId): string | undefined {
  if (!node) return `node ${id} was removed`;
  if (node.Status.State === 'down') return `node ${nodeName(node)} is down`;
  if (node.Spec.Availability === 'drain') return `node ${nodeName(node)} is drained`;
  return undefined;
}

/** Why a node does not satisfy a spec's placement constraints, in words; undefined when it does. */
export function constraintProblem(node: ClusterNode, spec: ServiceSpec): string | undefined {
  const expressions = spec.TaskTemplate.Placement?.Constraints ?? [];
  if (expressions.length === 0) return undefined;
  const explanation = explainConstraints(parseConstraints(expressions), node);
  return explanation && `node ${nodeName(node)} does not satisfy the constraint ${explanation}`;
}

interface Succession {
  readonly replaces?: TaskId;
  readonly cause?: NonNullable<Task['Private']['Cause']>;
  /** ms since the epoch; absent or past: at once. */
  readonly startAt?: number | undefined;
  /** Whether an earlier task of the slot is still stopping, and must be waited for. */
  readonly waits: boolean;
  /** Why there is a new task, in words. */
  readonly reason?: string | undefined;
}

/** Creates a task of the service's current revision in a slot. */
export function createTask(context: Context, place: Slot['place'], succession: Succession): Change {
  const { service, now } = context;
  const { replaces, cause, startAt, waits, reason } = succession;
  const isDelayed = startAt !== undefined && startAt > now;
  const message = 'pending task scheduling';
  const task: Task = {
    ...newMeta(context.newId<TaskId>()),
    ServiceID: service.ID,
    RevisionID: service.Private.RevisionID,
    ...place,
    Labels: {},
    Status: {
      Timestamp: new Date(now).toISOString(),
      State: 'pending',
      Message: reason === undefined ? message : `${message}: ${reason}`,
    },
    DesiredState: isDelayed || waits || context.mustHold() ? 'ready' : goalState(service),
    ...(service.JobStatus ? { JobIteration: service.JobStatus.JobIteration } : {}),
    Private: {
      ...homeOf(context, place),
      ...(isDelayed ? { StartAt: startAt } : {}),
      ...(replaces === undefined ? {} : { Replaces: replaces }),
      ...(cause === undefined ? {} : { Cause: cause }),
    },
  };
  return { op: 'create', kind: 'task', object: task };
}

/**
 * The node that has the volumes of a slot which is bound to them: where its last task that had a node was, as long as the
 * cluster has that node. Carried from task to task, for the history of a slot is forgotten sooner.
 */
export function homeOf(
  { view, service }: Pick<Context, 'view' | 'service'>,
  { Slot }: Slot['place'],
): Pick<Task['Private'], 'Home'> {
  if (Slot === undefined || !serviceOption(service.Spec.Labels, 'volume.sticky')) return {};
  const tasks = view.find('task', 'slot', slotKey({ ServiceID: service.ID, Slot }));
  const newest = tasks
    .filter((task) => view.get('node', task.NodeID ?? task.Private.Home))
    .reduce<Task | undefined>(
      (last, task) => (last && createdAtMs(last) > createdAtMs(task) ? last : task),
      undefined,
    );
  const Home = newest && (newest.NodeID ?? newest.Private.Home);
  return Home === undefined ? {} : { Home };
}

/** As stopTask, unless the task that takes its place has stopped serving by the time this is committed. */
export function stopForServing(context: Context, task: Task, successor: Task): Change {
  return {
    ...stopTask(context, task, `task ${successor.ID} serves in its place`),
    whileServes: successor.ID,
  } as Change;
}

/**
 * Tells a task to stop and stay in the history. Its status is its agent's to write, but for what no agent
 * can tell: that it never got to one, or that the agent is gone. `because` says why, for its history.
 */
export function stopTask(context: Context, task: Task, because: string): Change {
  const Status = lastWords(context.view, task, context.now);
  const fields: Partial<Task> = { DesiredState: 'shutdown', ...(Status ? { Status } : {}) };
  return { op: 'merge', kind: 'task', id: task.ID, fields, because };
}

function lastWords(view: View, task: Task, now: number): Task['Status'] | undefined {
  if (isTerminal(task.Status.State)) return undefined;
  const Timestamp = new Date(now).toISOString();
  if (!isHandedOut(task)) {
    return { ...task.Status, Timestamp, State: 'shutdown', Message: 'shut down before it had started' };
  }
  const node = view.get('node', task.NodeID);
  if (!node) return orphaned(task, now, `node ${task.NodeID} was removed`);
  if (node.Status.State !== 'down') return undefined;
  const Err = `node ${nodeName(node)} is down`;
  return { ...task.Status, Message: Err, Err };
}

/** The status of a task that nobody will ever report on again. */
export function orphaned(task: Task, now: number, reason: string): Task['Status'] {
  const Timestamp = new Date(now).toISOString();
  return { ...task.Status, Timestamp, State: 'orphaned', Message: 'orphaned', Err: reason };
}

/** Tells a task to stop and be forgotten. */
export function removeTask(task: Task, because: string): Change {
  return { op: 'merge', kind: 'task', id: task.ID, fields: { DesiredState: 'remove' }, because };
}
