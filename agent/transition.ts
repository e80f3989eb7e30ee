/**
 * What is to be done next for a task. Pure: the status it has, what the managers want, the container as it was
 * last seen. Calling it again after carrying out the answer leads, step by step, to `rest`; nothing is remembered
 * in between, so a daemon that was killed goes on where it stopped.
 */
import { assertNever } from '../proto/errors.ts';
import { isTerminal, type TaskState, taskStateRank } from '../proto/task-state.ts';
import type { ContainerState } from './engine/engine.ts';
import type { AgentStatus, Desired } from './wire.ts';

/** `unknown`: the engine does not answer; `absent`: it has no container of this task. */
export type ContainerView = ContainerState | 'absent' | 'unknown';

/**
 * What managers want, or `gone`: the task is no longer assigned to this node; or `isolated`: the managers have not been
 * heard for so long that they may start it elsewhere.
 */
export type Wanted = Desired | 'gone' | 'isolated';

export type Action =
  /** Nothing, until something changes. */
  | { readonly kind: 'rest' }
  /** The task's status is now this. */
  | {
      readonly kind: 'advance';
      readonly state: TaskState;
      readonly message: string;
      readonly err?: string;
    }
  /** Pull the image, make networks and files, create the container; the task is then ready. */
  | { readonly kind: 'prepare' }
  | { readonly kind: 'start' }
  /** Send the stop signal and wait, within the grace. */
  | { readonly kind: 'stop' }
  /** Remove the container. */
  | { readonly kind: 'remove' }
  /** Nothing is left of the task: release what it held and forget it. */
  | { readonly kind: 'forget' };

const rest: Action = { kind: 'rest' };

/** The next action for a task. The messages are those of Docker's swarm mode. */
export function transition(status: AgentStatus, wanted: Wanted, container: ContainerView): Action {
  switch (wanted) {
    case 'gone':
      return towardsGone(container);
    case 'shutdown':
      return towardsShutdown(status, container);
    case 'isolated':
      return towardsShutdown(status, container, isolatedReason);
    case 'ready':
    case 'running':
      return isTerminal(status.state) ? stopLeftover(container) : towardsRunning(status, wanted, container);
    default:
      return assertNever(wanted);
  }
}

function towardsGone(container: ContainerView): Action {
  if (container === 'unknown') return rest;
  if (container === 'absent') return { kind: 'forget' };
  return container.phase === 'running' ? { kind: 'stop' } : { kind: 'remove' };
}

const isolatedReason =
  'the node had lost its managers: stopped, so that it never runs twice (shoal.partition.stop-on-isolation)';

function towardsShutdown(status: AgentStatus, container: ContainerView, err?: string): Action {
  if (isTerminal(status.state)) return stopLeftover(container);
  if (container === 'unknown') return rest;
  if (container !== 'absent' && container.phase === 'running') return { kind: 'stop' };
  return { kind: 'advance', state: 'shutdown', message: 'shutdown', ...(err === undefined ? {} : { err }) };
}

/** A task that has ended must not have a container that runs. */
function stopLeftover(container: ContainerView): Action {
  const runs = typeof container === 'object' && container.phase === 'running';
  return runs ? { kind: 'stop' } : rest;
}

function towardsRunning(status: AgentStatus, wanted: 'ready' | 'running', container: ContainerView): Action {
  const { state } = status;
  if (taskStateRank[state] < taskStateRank.accepted) {
    return { kind: 'advance', state: 'accepted', message: 'accepted' };
  }
  switch (state) {
    case 'accepted':
      return { kind: 'advance', state: 'preparing', message: 'preparing' };
    case 'preparing':
      if (container === 'absent') return { kind: 'prepare' };
      // Left by a daemon that was killed while it made it: it may lack a network or a file.
      return container === 'unknown' ? rest : { kind: 'remove' };
    case 'ready':
      if (container === 'absent') return { kind: 'prepare' };
      return wanted === 'ready' ? rest : { kind: 'advance', state: 'starting', message: 'starting' };
    case 'starting':
      return whileStarting(status, container);
    case 'running':
      return whileRunning(status, container);
    default:
      return rest;
  }
}

function whileStarting(status: AgentStatus, container: ContainerView): Action {
  if (typeof container !== 'object') return container === 'unknown' ? rest : vanished(status);
  if (container.phase === 'created') return { kind: 'start' };
  if (container.phase !== 'running') return ended(container);
  if (container.health === 'starting') return rest;
  if (container.health === 'unhealthy') return { kind: 'stop' };
  return { kind: 'advance', state: 'running', message: 'started' };
}

function whileRunning(status: AgentStatus, container: ContainerView): Action {
  if (typeof container !== 'object') return container === 'unknown' ? rest : vanished(status);
  if (container.phase !== 'running') return ended(container);
  return container.health === 'unhealthy' ? { kind: 'stop' } : rest;
}

function vanished(status: AgentStatus): Action {
  const err = `No such container: ${status.container?.id ?? 'it was removed from the engine'}`;
  return { kind: 'advance', state: 'failed', message: status.message, err };
}

/** A container that ended by itself, or that was stopped because its health check failed. */
function ended(container: ContainerState): Action {
  const isUnhealthy = container.health === 'unhealthy';
  if (container.exitCode === 0 && !isUnhealthy && !container.oomKilled) {
    return { kind: 'advance', state: 'complete', message: 'finished' };
  }
  return { kind: 'advance', state: 'failed', message: 'started', err: reasonOf(container) };
}

/** Docker's sentence for how a container ended, with the reason when there is one. */
function reasonOf(container: ContainerState): string {
  const reasons: string[] = [];
  if (container.oomKilled) reasons.push('OOM: the container ran out of memory');
  if (container.health === 'unhealthy') {
    reasons.push(
      container.healthOutput === ''
        ? 'unhealthy container'
        : `unhealthy container: ${container.healthOutput}`,
    );
  }
  if (container.error !== '') reasons.push(container.error);
  return [`task: non-zero exit (${container.exitCode})`, ...reasons].join(': ');
}
