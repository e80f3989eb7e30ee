/**
 * How far a service is: which of its places run what they should, what keeps the others from it, and
 * whether waiting has come to an end. Pure: service, tasks and nodes in, a picture out.
 */
import { matchesConstraints, parseConstraints } from '../manager/store/constraint.ts';
import type { ClusterNode, Service } from '../proto/docker.ts';
import { isTerminal } from '../proto/task-state.ts';
import type { ListedTask } from './commands/tasks.ts';

/** A slot, or a node of a global service. */
export interface Place {
  /** `1/3`, or a node's name. */
  readonly name: string;
  /** The newest task of it that is up to date. */
  readonly task: ListedTask | undefined;
  readonly isDone: boolean;
  /** Why it does not run, when its newest task or the one before says so. */
  readonly problem: string | undefined;
}

export interface Picture {
  readonly places: readonly Place[];
  readonly done: number;
  readonly total: number;
  /** `update paused: …` and the like: why waiting makes no sense. */
  readonly failure: string | undefined;
  /** An update or a rollback is under way. */
  readonly isRolling: boolean;
  readonly isJob: boolean;
  /** Why the service is being rolled back, or that it has been. */
  readonly rollback: { readonly isOver: boolean; readonly message: string } | undefined;
}

/**
 * The picture of a service. `current` are its tasks that are up to date, `all` all of them. For a global
 * service the places are the nodes that can have a task; they may be more than those that have one yet.
 */
export function pictureOf(
  service: Service,
  current: readonly ListedTask[],
  all: readonly ListedTask[],
  nodes: readonly ClusterNode[],
): Picture {
  const { Global, GlobalJob, ReplicatedJob } = service.Spec.Mode;
  const isGlobal = (Global ?? GlobalJob) !== undefined;
  const isPresent = (task: ListedTask) =>
    !service.JobStatus || task.JobIteration?.Index === service.JobStatus.JobIteration.Index;
  const keyOf = (task: ListedTask) => String(task.Slot ?? (ReplicatedJob ? 0 : (task.NodeID ?? '')));
  const newest = newestByPlace(current.filter(isPresent), keyOf);
  const history = newestByPlace(
    all.filter((task) => isPresent(task) && troubleOf(task) !== undefined),
    keyOf,
  );
  const keys = isGlobal ? eligibleNodes(service, nodes, newest) : slotNumbers(service, newest);
  const names = new Map<string, string>(nodes.map((node) => [node.ID, node.Description.Hostname]));
  const places = keys.map((key): Place => {
    const task = newest.get(key);
    const isDone = task !== undefined && isDonePlace(service, task);
    const last = history.get(key);
    return {
      name: isGlobal ? (names.get(key) ?? key) : `${ReplicatedJob ? Number(key) + 1 : key}/${keys.length}`,
      task,
      isDone,
      problem: isDone ? undefined : (task && troubleOf(task)) || (last && troubleOf(last)),
    };
  });
  return {
    places,
    done: places.filter((place) => place.isDone).length,
    total: places.length,
    failure: failureOf(service) ?? endFailure(places),
    isRolling: isRolling(service),
    isJob: service.JobStatus !== undefined,
    rollback: rollbackOf(service),
  };
}

/** The newest task of each slot or node. */
function newestByPlace(
  tasks: readonly ListedTask[],
  keyOf: (task: ListedTask) => string,
): Map<string, ListedTask> {
  const newest = new Map<string, ListedTask>();
  for (const task of tasks) {
    if (task.DesiredState === 'remove') continue;
    const key = keyOf(task);
    const other = newest.get(key);
    if (!other || isNewer(task, other)) newest.set(key, task);
  }
  return newest;
}

/** What is wanted comes before what is not; then what was made later. */
function isNewer(task: ListedTask, other: ListedTask): boolean {
  if (isWanted(task) !== isWanted(other)) return isWanted(task);
  return task.CreatedAt > other.CreatedAt;
}

function isWanted(task: ListedTask): boolean {
  return task.DesiredState === 'running' || task.DesiredState === 'ready' || task.DesiredState === 'complete';
}

/** As many slots as there are replicas: those that have tasks, and numbers for those that have none yet. */
function slotNumbers(service: Service, newest: ReadonlyMap<string, ListedTask>): string[] {
  const job = service.Spec.Mode.ReplicatedJob;
  if (job) return Array.from({ length: job.TotalCompletions ?? 1 }, (_, slot) => String(slot));
  const replicas = service.Spec.Mode.Replicated?.Replicas ?? 1;
  const held = [...newest].filter(([, task]) => isWanted(task) || isTerminal(task.Status.State));
  const live = held.filter(([, task]) => isWanted(task)).map(([key]) => key);
  const ended = held.filter(([, task]) => !isWanted(task)).map(([key]) => key);
  const keys = new Set([...live, ...ended].slice(0, replicas));
  for (let slot = 1; keys.size < replicas; slot += 1) keys.add(String(slot));
  return [...keys].sort((a, b) => Number(a) - Number(b));
}

/** The nodes that a global service is to run on: up, active (or already having a task), and as constrained. */
function eligibleNodes(
  service: Service,
  nodes: readonly ClusterNode[],
  newest: ReadonlyMap<string, ListedTask>,
): string[] {
  const constraints = parseConstraints(service.Spec.TaskTemplate.Placement?.Constraints);
  return nodes
    .filter((node) => node.Status.State === 'ready')
    .filter(
      (node) =>
        node.Spec.Availability === 'active' ||
        (node.Spec.Availability === 'pause' && isLive(newest.get(node.ID))),
    )
    .filter((node) => matchesConstraints(constraints, withPrivateRole(node)))
    .sort((a, b) => a.Description.Hostname.localeCompare(b.Description.Hostname))
    .map((node) => node.ID);
}

/** The role that managers compare is not answered by the API; the one that is asked for stands in for it. */
function withPrivateRole(node: ClusterNode): ClusterNode {
  return {
    ...node,
    Private: { ...(node.Private as object), Role: node.Spec.Role } as ClusterNode['Private'],
  };
}

function isLive(task: ListedTask | undefined): boolean {
  return task !== undefined && isWanted(task) && !isTerminal(task.Status.State);
}

/** Whether the place has what it should: a running task, or one that has done its work for good. */
function isDonePlace(service: Service, task: ListedTask): boolean {
  if (service.JobStatus) return task.Status.State === 'complete';
  if (task.Status.State === 'running') return isWanted(task);
  const condition = service.Spec.TaskTemplate.RestartPolicy?.Condition ?? 'any';
  return task.Status.State === 'complete' && condition !== 'any';
}

/** A task that ended and has no successor: its restart policy lets none come. */
function isGivenUp(place: Place): boolean {
  const { task } = place;
  return task !== undefined && !place.isDone && !isWanted(task) && isTerminal(task.Status.State);
}

/** Nothing more will happen: every place is done or given up, and one at least is given up. */
function endFailure(places: readonly Place[]): string | undefined {
  const givenUp = places.filter(isGivenUp);
  if (givenUp.length === 0 || !places.every((place) => place.isDone || isGivenUp(place))) return undefined;
  const reason = givenUp.map((place) => place.problem).find((problem) => problem !== undefined);
  const count = `${givenUp.length} of ${places.length} tasks`;
  return `${count} ended and will not be restarted, as the restart policy says: ${reason ?? 'see `shoal service ps`'}`;
}

function troubleOf(task: ListedTask): string | undefined {
  return task.Status.Err || undefined;
}

function isRolling(service: Service): boolean {
  const state = service.UpdateStatus?.State;
  return state === 'updating' || state === 'rollback_started';
}

function rollbackOf(service: Service): Picture['rollback'] {
  const status = service.UpdateStatus;
  if (status?.State !== 'rollback_started' && status?.State !== 'rollback_completed') return undefined;
  return { isOver: status.State === 'rollback_completed', message: status.Message };
}

function failureOf(service: Service): string | undefined {
  const status = service.UpdateStatus;
  if (status?.State === 'paused') return `service update paused: ${status.Message}`;
  if (status?.State === 'rollback_paused') return `service rollback paused: ${status.Message}`;
  return undefined;
}
