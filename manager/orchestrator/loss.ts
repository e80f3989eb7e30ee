/**
 * Why a task can't stay where it is: at once (its node is lost, or drained in haste), or in good order, when another
 * one serves in its place (its node is drained, or the task is to be elsewhere).
 */
import type { ClusterNode, Task } from '../../proto/docker.ts';
import { type DrainOrder, serviceOption } from '../store/service-options.ts';
import { modeName } from '../store/tables.ts';
import { type Context, constraintProblem, nodeName, nodeProblem, specOf } from './context.ts';
import { isGuarded, sparedUntil } from './partition.ts';
import { isServing } from './slots.ts';

/** Label of a node by which it gives up all its tasks at once when it is drained: `at-once`. */
const nodeDrainLabel = 'shoal.drain';

/**
 * How a service's tasks leave a drained node. Its label says; else as its updates go. Where these do not say either,
 * a service of several replicas starts the new task first, for it is made for more than one; a single one does not.
 */
export function drainOrder(context: Context): DrainOrder {
  const { service } = context;
  return askedOrder(context) ?? service.Spec.UpdateConfig?.Order ?? usualOrder(context);
}

/**
 * How a task goes to a node where it is only better off: as drainOrder, but that several replicas start first whatever
 * their updates do (clients write stop-first there unasked), for nothing forces the move.
 */
export function moveOrder(context: Context, task: Task): DrainOrder {
  const isDrain = context.view.get('node', task.NodeID)?.Spec.Availability === 'drain';
  if (isDrain || usualOrder(context) === 'stop-first') return drainOrder(context);
  return askedOrder(context) ?? 'start-first';
}

function askedOrder({ service }: Context): DrainOrder | undefined {
  const asked = serviceOption(service.Spec.Labels, 'drain');
  return asked !== 'at-once' && isGuarded(service) ? 'stop-first' : asked;
}

function usualOrder({ service }: Context): DrainOrder {
  return (service.Spec.Mode.Replicated?.Replicas ?? 1) > 1 ? 'start-first' : 'stop-first';
}

/** Why a task that serves is to leave in good order, in words; undefined when it may stay, or has to go at once. */
export function departureOf(context: Context, task: Task): string | undefined {
  if (!isServing(task) || modeName(context.service.Spec.Mode) !== 'Replicated') return undefined;
  const node = context.view.get('node', task.NodeID);
  if (!node || node.Status.State === 'down' || task.Private.Eviction) return undefined;
  if (node.Spec.Availability !== 'drain') return task.Private.Move?.Reason;
  // A task that is to run once is not run again elsewhere.
  if (specOf(context, task).TaskTemplate.RestartPolicy?.Condition === 'none') return undefined;
  const isHasty = drainOrder(context) === 'at-once' || node.Spec.Labels[nodeDrainLabel] === 'at-once';
  return isHasty ? undefined : `node ${nodeName(node)} is drained`;
}

/**
 * Why a task can't stay where it is a moment longer, in words; undefined when it can. Constraints count when the node
 * changed (the task's own are broken too): after a change of the spec, tasks move by the rolling update.
 */
export function lossOf(context: Context, task: Task): string | undefined {
  if (task.NodeID === undefined) return undefined;
  const node = context.view.get('node', task.NodeID);
  if (node && isBorne(context, task, node)) return undefined;
  const problem = nodeProblem(node, task.NodeID) ?? task.Private.Eviction?.Reason;
  if (problem !== undefined || node === undefined) return problem;
  if (!constraintProblem(node, context.service.Spec)) return undefined;
  return constraintProblem(node, specOf(context, task));
}

/** Whether a task stays for now although its node has a problem. */
function isBorne(context: Context, task: Task, node: ClusterNode): boolean {
  if (sparedUntil(context, task, node) !== undefined) return true;
  return node.Spec.Availability === 'drain' && departureOf(context, task) !== undefined;
}
