/**
 * What becomes of tasks on nodes that nobody hears of: when they count as lost, and until when they may still run.
 * By the service's labels `shoal.partition` and `shoal.partition.stop-on-isolation` (store/service-options.ts,
 * proto/isolation.ts): a node's loss is noticed in seconds, but a node that is only cut off goes on running what it
 * has.
 */
import type { ClusterNode, Service, ServiceSpec, Task } from '../../proto/docker.ts';
import { formatDurationMs } from '../../proto/duration.ts';
import { defaultGraceMs, isolationHoldMs } from '../../proto/isolation.ts';
import { isTerminal } from '../../proto/task-state.ts';
import type { ChangeOf } from '../store/change.ts';
import { serviceOption } from '../store/service-options.ts';
import { type Context, nodeName, specOf } from './context.ts';
import { isActive, isHandedOut } from './slots.ts';

type TaskMerge = Extract<ChangeOf<'task'>, { op: 'merge' }>;

/** How long a service's container has to stop, in ms. */
export function graceMsOf(spec: ServiceSpec): number {
  const grace = spec.TaskTemplate.ContainerSpec.StopGracePeriod;
  return grace === undefined ? defaultGraceMs : grace / 1e6;
}

/** Whether a service never has two tasks in a slot, whatever happens to nodes: its agents see to it. */
export function isGuarded(service: Service): boolean {
  return serviceOption(service.Spec.Labels, 'partition.stopOnIsolation') !== undefined;
}

/**
 * From when on a task on a node that is down is not to be waited for (ms since the epoch); infinite: for as long as
 * the node is down. What the service asks for now counts, and what the task's agent was told when it was made.
 */
export function givenUpAt(context: Context, task: Task, node: ClusterNode): number {
  const { afterMs } = serviceOption(context.service.Spec.Labels, 'partition');
  return Math.max(downSince(context, node) + afterMs, endsAloneAt(context, task, node) ?? 0);
}

/**
 * When a task on a node that is down has been stopped by its own agent for certain; undefined when it is not; infinite
 * where the agent could not, for its engine did not answer when the node was heard last.
 */
function endsAloneAt(context: Context, task: Task, node: ClusterNode): number | undefined {
  const told = specOf(context, task);
  const holdMs = isolationHoldMs(told.Labels, graceMsOf(told));
  if (holdMs === undefined) return undefined;
  if (node.Private.EngineDownSince !== undefined) return Number.POSITIVE_INFINITY;
  return countedFrom(context, node) + holdMs;
}

/** Since when a node has been down. A time that is yet to come was told by a clock that went ahead. */
function downSince({ now, steadySince }: Context, node: ClusterNode): number {
  const since = node.Private.DownSince ?? now;
  return since > now ? (steadySince ?? now) : since;
}

/** The same for certain: what another clock told, or this one before it stepped, may have been too early. */
function countedFrom(context: Context, node: ClusterNode): number {
  return Math.max(downSince(context, node), context.steadySince ?? 0);
}

/** Until when a task of the node is left alone although the node is down; undefined when it is not, or no longer. */
export function sparedUntil(context: Context, task: Task, node: ClusterNode): number | undefined {
  if (node.Status.State !== 'down' || !isHandedOut(task)) return undefined;
  const at = givenUpAt(context, task, node);
  return at > context.now ? at : undefined;
}

/** Tells in the status of a task that is spared why nothing happens, once. */
export function explainSparing(context: Context, task: Task, node: ClusterNode, until: number): TaskMerge[] {
  const Err = `node ${nodeName(node)} is down${sparingOf(context, node, until)}`;
  if (isTerminal(task.Status.State) || task.Status.Err === Err) return [];
  const Timestamp = new Date(context.now).toISOString();
  return [{ op: 'merge', kind: 'task', id: task.ID, fields: { Status: { ...task.Status, Timestamp, Err } } }];
}

function sparingOf(context: Context, node: ClusterNode, until: number): string {
  if (Number.isFinite(until)) {
    const waitMs = until - downSince(context, node);
    return `: replaced ${formatDurationMs(waitMs)} after its loss, as the service asks`;
  }
  const isAsked = !Number.isFinite(serviceOption(context.service.Spec.Labels, 'partition').afterMs);
  return isAsked
    ? ': not replaced, as the service asks (shoal.partition=never)'
    : ', and its engine did not answer: the task may run there still, and is not replaced before the node is back or given up (node rm --force)';
}

/**
 * Until when a task that is no longer wanted may still run: a time (ms since the epoch); infinite when only its agent
 * can tell; undefined when it does not run. `isGuarded`: nothing else may end the wait.
 */
export function stopsBy(context: Context, task: Task): { at: number; isGuarded: boolean } | undefined {
  if (isActive(task) || isTerminal(task.Status.State) || !isHandedOut(task)) return undefined;
  const node = context.view.get('node', task.NodeID);
  if (node === undefined) return undefined;
  const aloneAt = endsAloneAt(context, task, node);
  if (aloneAt === undefined) {
    const isLost = task.Private.Eviction?.isUnreachable || node.Status.State === 'down';
    return isLost ? undefined : { at: Number.POSITIVE_INFINITY, isGuarded: false };
  }
  if (node.Status.State !== 'down') return { at: Number.POSITIVE_INFINITY, isGuarded: true };
  return aloneAt > context.now ? { at: aloneAt, isGuarded: true } : undefined;
}
