/**
 * A small rollout as a machine of states: the leader's loop with its one proposal under way, agents, a scheduler, and
 * what may go wrong, each as often as the scenario allows. What decides are the real reconcilers. A state is made
 * anew for each step and never changed, so that every interleaving can be gone through.
 */
import { reconcilers } from '../../../manager/orchestrator/orchestrator.ts';
import { isActive, isHandedOut } from '../../../manager/orchestrator/slots.ts';
import type { Change } from '../../../manager/store/change.ts';
import { updateServiceChanges } from '../../../manager/store/service-change.ts';
import type { StoreEvent } from '../../../manager/store/watch.ts';
import type { ServiceSpec, Task, UpdateConfig } from '../../../proto/docker.ts';
import type { NodeId, ServiceId } from '../../../proto/ids.ts';
import { isTerminal, type TaskState } from '../../../proto/task-state.ts';
import {
  makeCluster,
  makeNode,
  makeRevision,
  makeService,
  makeSpec,
  makeTask,
} from '../../manager/orchestrator/objects.ts';
import { Objects } from './objects.ts';

export interface Scenario {
  readonly name: string;
  readonly replicas: number;
  readonly nodes: number;
  readonly update: UpdateConfig;
  readonly restart?: ServiceSpec['TaskTemplate']['RestartPolicy'];
  /** How often each may happen in a run. */
  readonly failures: number;
  readonly leaders: number;
  readonly updates: number;
  readonly losses: number;
  /** A bug to be found, in what the leader proposes or in when it looks again. */
  readonly plant?: Plant;
}

export interface Plant {
  readonly propose?: (changes: readonly Change[]) => readonly Change[];
  readonly forgetsWakes?: boolean;
}

export interface Budget {
  readonly failures: number;
  readonly leaders: number;
  readonly updates: number;
  readonly losses: number;
}

export interface State {
  readonly objects: Objects;
  /** ms since the epoch. */
  readonly now: number;
  /** `reconciler key` that events made due while a proposal was under way. */
  readonly dirty: ReadonlySet<string>;
  /** `reconciler key` → when it is to be looked at again. */
  readonly wakes: ReadonlyMap<string, number>;
  /** Proposed, not committed yet. */
  readonly proposal: readonly Change[] | undefined;
  readonly budget: Budget;
  /** Slots that something went wrong in since they served last. */
  readonly broken: ReadonlySet<number>;
  readonly made: number;
  /** What the proposal stops of what did not serve. */
  readonly doomed: ReadonlySet<string>;
  readonly plant: Plant | undefined;
}

export interface Step {
  readonly name: string;
  readonly to: State;
}

export const serviceId = 's' as ServiceId;
/** Time does not pass further than this while somebody has something to do at once. */
const patienceMs = 10_000;

export function specOf(scenario: Scenario, image: number): ServiceSpec {
  const spec = makeSpec({
    TaskTemplate: { ContainerSpec: { Image: `web:${image}` }, RestartPolicy: scenario.restart },
    UpdateConfig: scenario.update,
    RollbackConfig: { ...scenario.update, FailureAction: 'pause' },
  });
  return { ...spec, Mode: { Replicated: { Replicas: scenario.replicas } } };
}

/** All replicas serve revision 1, and the user has just asked for revision 2. */
export function begin(scenario: Scenario): State {
  const now = Date.UTC(2026, 0, 1, 1);
  const spec = specOf(scenario, 1);
  const tasks = Array.from({ length: scenario.replicas }, (_, at) =>
    makeTask(`o${at + 1}`, serviceId, {
      Slot: at + 1,
      NodeID: `n${(at % scenario.nodes) + 1}` as NodeId,
      Private: { RunningSince: now - 3_600_000 },
    }),
  );
  const objects = new Objects({
    cluster: [makeCluster({ Spec: { Orchestration: { TaskHistoryRetentionLimit: 1 } } })],
    node: Array.from({ length: scenario.nodes }, (_, at) => makeNode(`n${at + 1}`)),
    service: [makeService(serviceId, spec)],
    revision: [makeRevision(serviceId, 1, spec)],
    task: tasks,
  });
  const { failures, leaders, losses, updates } = scenario;
  const start: State = {
    objects,
    now,
    dirty: new Set(),
    wakes: new Map(),
    proposal: undefined,
    budget: { failures, leaders, losses, updates },
    broken: new Set(),
    made: 0,
    doomed: new Set(),
    plant: scenario.plant,
  };
  return update(start, scenario, 2);
}

/** Every step that can be taken from a state. */
export function stepsOf(state: State, scenario: Scenario): Step[] {
  return [...leaderSteps(state), ...agentSteps(state), ...timeSteps(state), ...mishaps(state, scenario)];
}

// ---------------------------------------------------------------- the leader

/** A commit, then what the loop makes of it: it looks at once unless a proposal is under way. */
function commit(state: State, changes: readonly Change[]): State {
  const applied = state.objects.apply(changes, state.now);
  if (!applied) return state;
  const dirty = new Set(state.dirty);
  for (const event of applied.events) for (const key of keysOf(event, applied.objects)) dirty.add(key);
  const { objects } = applied;
  const isBack = (slot: number) =>
    objects
      .list('task')
      .some((task) => task.Slot === slot && isServingOn(objects, task) && !state.doomed.has(task.ID));
  const broken = new Set([...state.broken].filter((slot) => !isBack(slot)));
  return look({ ...state, objects: applied.objects, dirty, broken });
}

/** Tasks that a proposal stops and that did not serve when it was made: should one come up meanwhile, it is none lost. */
function doomedBy(objects: Objects, proposal: readonly Change[]): Set<string> {
  const stopped = proposal.flatMap((change) =>
    change.op === 'merge' && change.kind === 'task' && change.fields.DesiredState === 'shutdown'
      ? [change.id]
      : [],
  );
  return new Set(stopped.filter((id) => !isServingOn(objects, objects.get('task', id)!)));
}

function keysOf(event: StoreEvent, objects: Objects): string[] {
  return reconcilers.flatMap((one, at) => one.keysFor(event, objects).map((key) => `${at} ${key}`));
}

/** As the loop does: the first reconciler that wants something has it proposed. */
function look(state: State): State {
  if (state.proposal) return state;
  const dirty = new Set(state.dirty);
  const wakes = new Map(state.wakes);
  let made = state.made;
  const newId = () => {
    made += 1;
    return `t${made}`;
  };
  for (const [at, reconciler] of reconcilers.entries()) {
    const keys = [...dirty]
      .filter((key) => key.startsWith(`${at} `))
      .map((key) => key.slice(`${at} `.length));
    const distinct = reconciler.distinct ? [...reconciler.distinct(new Set(keys))] : keys;
    const changes: Change[] = [];
    for (const key of keys) dirty.delete(`${at} ${key}`);
    for (const key of distinct) {
      const wanted = reconciler.reconcile(state.objects, key, state.now, newId as never);
      if (wanted.wakeAt === undefined || state.plant?.forgetsWakes) wakes.delete(`${at} ${key}`);
      else wakes.set(`${at} ${key}`, wanted.wakeAt);
      changes.push(...wanted.changes);
    }
    const proposal = state.plant?.propose?.(changes) ?? changes;
    if (proposal.length > 0) {
      return { ...state, dirty, wakes, made, proposal, doomed: doomedBy(state.objects, proposal) };
    }
  }
  return { ...state, dirty, wakes, made };
}

function allKeys(objects: Objects): Set<string> {
  return new Set(reconcilers.flatMap((one, at) => one.allKeys(objects).map((key) => `${at} ${key}`)));
}

/** What a new leader has in memory. */
function nothingUnderWay(objects: Objects): Pick<State, 'proposal' | 'dirty' | 'wakes' | 'doomed'> {
  return { proposal: undefined, dirty: allKeys(objects), wakes: new Map(), doomed: new Set() };
}

/** What a look at everything would still change. */
export function unsettled(state: State): readonly Change[] {
  const fresh = { ...state, ...nothingUnderWay(state.objects) };
  return look(fresh).proposal ?? [];
}

function leaderSteps(state: State): Step[] {
  const steps: Step[] = [];
  if (state.proposal) {
    const { proposal } = state;
    const free: State = { ...state, proposal: undefined, doomed: new Set() };
    // Refused for being out of date, it is decided anew.
    const isStale = state.objects.apply(proposal, state.now) === undefined;
    const next = isStale ? look({ ...free, dirty: allKeys(state.objects) }) : commit(free, proposal);
    steps.push({ name: isStale ? 'refused' : 'committed', to: next });
  }
  if (state.budget.leaders > 0) {
    const budget = { ...state.budget, leaders: state.budget.leaders - 1 };
    const fresh = { ...state, ...nothingUnderWay(state.objects), budget };
    steps.push({ name: 'another leader', to: look(fresh) });
  }
  return steps;
}

// ---------------------------------------------------------------- scheduler and agents

function isUp(objects: Objects, task: Task): boolean {
  return objects.get('node', task.NodeID)?.Status.State === 'ready';
}

/** Whether a task's container may be there: it runs, or its agent was told to run it. */
export function isAlive(objects: Objects, task: Task): boolean {
  if (!isUp(objects, task) || !isHandedOut(task) || isTerminal(task.Status.State)) return false;
  return task.Status.State === 'running' || task.DesiredState === 'running';
}

export function serves(objects: Objects, slot: number): boolean {
  return objects.list('task').some((task) => task.Slot === slot && isServingOn(objects, task));
}

function isServingOn(objects: Objects, task: Task): boolean {
  return isActive(task) && task.Status.State === 'running' && isUp(objects, task);
}

function report(state: State, task: Task, State: TaskState): State {
  const Status = { Timestamp: new Date(state.now).toISOString(), State, Message: State };
  return commit(state, [{ op: 'merge', kind: 'task', id: task.ID, fields: { Status } }]);
}

function assign(state: State, task: Task): Step[] {
  const load = (id: NodeId) => state.objects.find('task', 'node', id).filter(isActive).length;
  const [node] = state.objects
    .list('node')
    .filter((one) => one.Status.State === 'ready')
    .sort((left, right) => load(left.ID) - load(right.ID));
  if (!node) return [];
  const Status = { Timestamp: '', State: 'assigned' as const, Message: '' };
  const fields = { NodeID: node.ID, Status };
  return [
    {
      name: `${task.Slot} assigned`,
      to: commit(state, [{ op: 'merge', kind: 'task', id: task.ID, fields }]),
    },
  ];
}

function agentSteps(state: State): Step[] {
  return state.objects.list('task').flatMap((task): Step[] => {
    const { State } = task.Status;
    if (isTerminal(State)) return [];
    if (State === 'pending') return isActive(task) ? assign(state, task) : [];
    if (!isUp(state.objects, task)) return [];
    if (!isActive(task)) return [{ name: `${task.Slot} stopped`, to: report(state, task, 'shutdown') }];
    if (State === 'assigned' && task.DesiredState === 'running') {
      return [{ name: `${task.Slot} runs`, to: report(state, task, 'running') }];
    }
    return [];
  });
}

// ---------------------------------------------------------------- time and mishaps

/** Whether a task that is no longer wanted may still run on a node that can be waited for. */
function isStopping({ objects }: State, task: Task): boolean {
  if (isActive(task) || isTerminal(task.Status.State) || !isHandedOut(task)) return false;
  const node = objects.get('node', task.NodeID);
  return node !== undefined && node.Status.State !== 'down';
}

function timeSteps(state: State): Step[] {
  const now = Math.min(...state.wakes.values());
  const isSomeoneStopping = state.objects.list('task').some((task) => isStopping(state, task));
  const isFar = now > state.now + (isSomeoneStopping ? patienceMs : 60_000);
  if (!Number.isFinite(now) || isFar) return [];
  const dirty = new Set(state.dirty);
  const wakes = new Map(state.wakes);
  for (const [key, at] of state.wakes) {
    if (at > now) continue;
    dirty.add(key);
    wakes.delete(key);
  }
  return [{ name: 'time passes', to: look({ ...state, now: Math.max(now, state.now), dirty, wakes }) }];
}

function update(state: State, scenario: Scenario, image: number): State {
  const service = state.objects.get('service', serviceId)!;
  const newId = () => `${serviceId}-${image}`;
  const { changes } = updateServiceChanges(
    state.objects,
    service,
    { spec: specOf(scenario, image) },
    state.now,
    newId as never,
  );
  return commit(state, changes);
}

function mishaps(state: State, scenario: Scenario): Step[] {
  const steps: Step[] = [];
  const { budget, objects } = state;
  if (budget.updates > 0) {
    const next = { ...state, budget: { ...budget, updates: budget.updates - 1 } };
    steps.push({ name: 'another update', to: update(next, scenario, 3) });
  }
  if (budget.failures > 0) {
    const next = { ...state, budget: { ...budget, failures: budget.failures - 1 } };
    for (const task of objects.list('task')) {
      if (!isActive(task) || !isAlive(objects, task)) continue;
      const broken = new Set([...state.broken, task.Slot!]);
      steps.push({ name: `${task.Slot} fails`, to: report({ ...next, broken }, task, 'failed') });
    }
  }
  if (budget.losses > 0) steps.push(...lossesOf(state));
  return steps;
}

function lossesOf(state: State): Step[] {
  const { objects, budget } = state;
  return objects
    .list('node')
    .filter((node) => node.Status.State === 'ready')
    .map((node) => {
      const hit = objects.find('task', 'node', node.ID).filter(isActive);
      const broken = new Set([...state.broken, ...hit.map((task) => task.Slot!)]);
      const next = { ...state, broken, budget: { ...budget, losses: budget.losses - 1 } };
      const fields = { Status: { ...node.Status, State: 'down' as const } };
      return {
        name: `${node.ID} is lost`,
        to: commit(next, [{ op: 'merge', kind: 'node', id: node.ID, fields }]),
      };
    });
}
