/**
 * Why a task is where it is, in words that a person can act on: from what is stored, at the time of asking. Nothing
 * is said of a task that runs as it should.
 */
import type { ClusterNode, Service, Task } from '../../proto/docker.ts';
import { compareTaskStates, isTerminal, taskStates } from '../../proto/task-state.ts';
import { clusterAttachments, hasAddresses } from './attachment.ts';
import { unmetDependencies } from './dependencies.ts';
import type { View } from './store.ts';
import { slotKey } from './tables.ts';

const defaultStopGraceNs = 10e9;

/**
 * What there is to say of where a task is.
 * - `none`: it runs and is to run, or ended as it should.
 * - `step`: only whose turn it is, which its state says already: enough for a moment, not for a state that lasts.
 * - `cause`: what it waits for, or what went wrong.
 */
export type Reason =
  | { readonly kind: 'none' }
  | { readonly kind: 'step'; readonly by: 'managers' | 'node'; readonly text: string }
  | { readonly kind: 'cause'; readonly text: string };

const none: Reason = { kind: 'none' };

/** What an agent says of a step that it has just begun: it names the step, and not what keeps it. */
const stepWords: ReadonlySet<string> = new Set([...taskStates, 'prepared', 'started', '']);

/** The reason in words; empty for a task that runs and is to run, or ended as it should. */
export function reasonOf(view: View, task: Task, now: number): string {
  const reason = explain(view, task, now);
  return reason.kind === 'none' ? '' : reason.text;
}

/** Why a task is where it is. `now` in ms since the epoch. */
export function explain(view: View, task: Task, now: number): Reason {
  const { State, Err, Message } = task.Status;
  if (isTerminal(State)) return endReason(task);
  const lost = silenceOf(view, task);
  if (lost !== undefined) return cause(lost);
  if (isOnItsWayOut(task)) return cause(stoppingReason(view, task));
  if (Err) return cause(Err);
  const held = task.DesiredState === 'ready' ? holdReason(view, task, now) : undefined;
  switch (State) {
    case 'running': {
      const problem = problemOf(view, task);
      return problem === '' ? none : cause(problem);
    }
    case 'new':
    case 'pending':
      return held === undefined
        ? { kind: 'step', by: 'managers', text: pendingReason(view, task) }
        : cause(held);
    case 'assigned':
    case 'accepted':
      return nodesTurn(view, task, 'take the task');
    case 'preparing':
      return stepWords.has(Message)
        ? nodesTurn(view, task, 'prepare its networks, files and container')
        : cause(`${Message} since ${task.Status.Timestamp}`);
    case 'ready':
      if (held !== undefined) return cause(held);
      return task.DesiredState === 'ready'
        ? { kind: 'step', by: 'managers', text: 'waiting for the managers to let it start' }
        : nodesTurn(view, task, 'start it');
    default:
      return stepWords.has(Message) ? nodesTurn(view, task, 'start its container') : cause(Message);
  }
}

/** A reason that says what is waited for, or what went wrong. */
export function cause(text: string): Reason {
  return { kind: 'cause', text };
}

function nodesTurn(view: View, task: Task, step: string): Reason {
  const text = `waiting for node ${nodeNameOf(view, task)} to ${step} since ${task.Status.Timestamp}`;
  return { kind: 'step', by: 'node', text };
}

function endReason({ Status: { State, Err } }: Task): Reason {
  if (Err) return cause(Err);
  if (State !== 'failed' && State !== 'rejected' && State !== 'orphaned') return none;
  return { kind: 'step', by: 'node', text: `${State}, and its node did not say why` };
}

/** As reasonOf for lists: nothing for a step that is just being taken. */
export function reasonToTell(view: View, task: Task, now: number): string {
  if (task.Status.Err) return task.Status.Err;
  const isQuick = now - Date.parse(task.Status.Timestamp) < quickStepMs;
  const waits = task.DesiredState === 'ready' || /^waiting/.test(task.Status.Message);
  const isSteady = task.Status.State === 'running' && task.DesiredState === 'running';
  return isQuick && !waits && !isSteady ? '' : reasonOf(view, task, now);
}

const quickStepMs = 1_000;

/** What the task's node can't do for its service: the task runs, and not everybody reaches it there. */
function problemOf(view: View, task: Task): string {
  const problem = view
    .get('node', task.NodeID)
    ?.Problems?.find(
      ({ ServiceID, NetworkID }) =>
        ServiceID === task.ServiceID ||
        (NetworkID !== undefined &&
          (task.NetworksAttachments ?? []).some((one) => one.NetworkID === NetworkID)),
    );
  return problem?.Message ?? '';
}

/** What nodes can't do for a service, whether they run a task of it or not: a published port is answered everywhere. */
export function problemsWith(view: View, service: Service): string[] {
  return view
    .list('node')
    .flatMap((node) =>
      node.Status.State === 'down'
        ? []
        : (node.Problems ?? [])
            .filter(({ ServiceID }) => ServiceID === service.ID)
            .map(({ Message }) => `on node ${nameOf(node)}, ${Message}`),
    );
}

/** The node of a task that was handed out does not answer. */
function silenceOf(view: View, task: Task): string | undefined {
  if (task.NodeID === undefined || compareTaskStates(task.Status.State, 'assigned') < 0) return undefined;
  const node = view.get('node', task.NodeID);
  if (!node) return `node ${task.NodeID} was removed`;
  if (node.Status.State === 'ready') return undefined;
  const since = node.Private.DownSince;
  const words = since === undefined ? '' : ` (silent since ${time(since)})`;
  const wish = isOnItsWayOut(task) ? 'to say that it has stopped' : 'to answer';
  return `waiting for node ${nameOf(node)} ${wish}: it is ${node.Status.State}${words}`;
}

function isOnItsWayOut(task: Task): boolean {
  return task.DesiredState === 'shutdown' || task.DesiredState === 'remove';
}

function stoppingReason(view: View, task: Task): string {
  const since = task.Private.RetiredAt;
  const graceNs = specOf(view, task)?.TaskTemplate.ContainerSpec.StopGracePeriod ?? defaultStopGraceNs;
  const why = task.Private.History?.findLast((moment) => moment.Desired === task.DesiredState)?.Text;
  const order = why ? ` (${why})` : '';
  return `stopping${order}: waiting for it to end within its stop grace period of ${graceNs / 1e9} s${since === undefined ? '' : ` since ${time(since)}`}`;
}

/** What keeps a task that is told to wait from being started. */
function holdReason(view: View, task: Task, now: number): string | undefined {
  const startAt = task.Private.StartAt ?? 0;
  if (startAt > now) return `waiting for its restart delay until ${time(startAt)}`;
  const before = view
    .find('task', 'slot', slotKey(task))
    .find((other) => other.ID !== task.ID && isStopping(other));
  if (before) {
    return `waiting for task ${before.ID}, which it takes over from, to stop on node ${nodeNameOf(view, before)}`;
  }
  const service = view.get('service', task.ServiceID);
  return service && unmetOf(view, service)[0];
}

/** What a service's tasks wait for, as the orchestrators see it. */
export function unmetOf(view: View, service: Service): string[] {
  return unmetDependencies(view, service, (service.JobStatus?.JobIteration.Index ?? 0) > 0);
}

function isStopping(task: Task): boolean {
  return (
    isOnItsWayOut(task) &&
    !isTerminal(task.Status.State) &&
    compareTaskStates(task.Status.State, 'assigned') >= 0
  );
}

function pendingReason(view: View, task: Task): string {
  const spec = specOf(view, task);
  if (spec && !hasAddresses(task, clusterAttachments(view, spec))) {
    return 'waiting for an address on each of its networks';
  }
  return 'waiting for the scheduler to find a node';
}

function specOf(view: View, task: Task) {
  return view.get('revision', task.RevisionID)?.Spec ?? view.get('service', task.ServiceID)?.Spec;
}

function nodeNameOf(view: View, task: Task): string {
  const node = view.get('node', task.NodeID);
  return node ? nameOf(node) : (task.NodeID ?? '(none)');
}

function nameOf(node: ClusterNode): string {
  return node.Description.Hostname || node.ID;
}

function time(atMs: number): string {
  return new Date(atMs).toISOString();
}
