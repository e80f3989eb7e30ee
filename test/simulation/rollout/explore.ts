/**
 * Goes through every state that a scenario can get into, and checks each. Two states are the same when they differ in
 * nothing that is decided on: ids, versions and messages do not count, nor how long ago something was that is past.
 */

import { isActive } from '../../../manager/orchestrator/slots.ts';
import type { Change } from '../../../manager/store/change.ts';
import { isAttempt } from '../../../manager/store/update-progress.ts';
import type { Task } from '../../../proto/docker.ts';
import { begin, isAlive, type Scenario, type State, serves, serviceId, stepsOf, unsettled } from './model.ts';

export interface Exploration {
  readonly states: number;
  readonly ends: number;
}

interface Node {
  readonly state: State;
  readonly parent: Node | undefined;
  readonly step: string;
  readonly from: Node[];
  isEnd: boolean;
}

/** Longer ago than any of the times that decide. */
const longAgoMs = 20_000;

/** Visits every state once. Throws an Error that tells the way to a state that breaks a promise. */
export function explore(scenario: Scenario): Exploration {
  const start: Node = { state: begin(scenario), parent: undefined, step: 'update', from: [], isEnd: false };
  const seen = new Map<string, Node>([[keyOf(start.state), start]]);
  const waiting = [start];
  for (let node = waiting.pop(); node; node = waiting.pop()) {
    const problem = problemOf(node.state, scenario);
    if (problem) throw new Error(`${scenario.name}: ${problem}\n${storyOf(node)}`);
    const steps = stepsOf(node.state, scenario);
    node.isEnd = !steps.some((step) => isInevitable(step.name));
    if (node.isEnd) {
      const unfinished = unfinishedOf(node.state);
      if (unfinished) throw new Error(`${scenario.name}: it ended ${unfinished}\n${storyOf(node)}`);
    }
    for (const { name, to } of steps) {
      const key = keyOf(to);
      const known = seen.get(key);
      const next = known ?? { state: to, parent: node, step: name, from: [], isEnd: false };
      next.from.push(node);
      if (known) continue;
      seen.set(key, next);
      waiting.push(next);
    }
  }
  const nodes = [...seen.values()];
  const stuck = stuckIn(nodes);
  if (stuck) throw new Error(`${scenario.name}: no end can be reached from here\n${storyOf(stuck)}`);
  return { states: nodes.length, ends: nodes.filter((node) => node.isEnd).length };
}

/** Steps that happen sooner or later, as opposed to mishaps, which may never. */
function isInevitable(step: string): boolean {
  return !/ fails$| is lost$|^another /.test(step);
}

/** A state from which no end is reached: the rollout goes around in a circle for ever. */
function stuckIn(nodes: readonly Node[]): Node | undefined {
  const ending = new Set(nodes.filter((node) => node.isEnd));
  const waiting = [...ending];
  for (let node = waiting.pop(); node; node = waiting.pop()) {
    for (const before of node.from) {
      if (ending.has(before)) continue;
      ending.add(before);
      waiting.push(before);
    }
  }
  return nodes.find((node) => !ending.has(node));
}

// ---------------------------------------------------------------- what is promised

function problemOf(state: State, scenario: Scenario): string | undefined {
  const { objects } = state;
  const isStartFirst = scenario.update.Order === 'start-first';
  const slots = Array.from({ length: scenario.replicas }, (_, at) => at + 1);
  for (const slot of slots) {
    const alive = objects.list('task').filter((task) => task.Slot === slot && isAlive(objects, task));
    if (alive.length > (isStartFirst ? 2 : 1)) return `${alive.length} tasks are alive in slot ${slot}`;
  }
  const dark = slots.filter((slot) => !serves(objects, slot) && !state.broken.has(slot));
  const allowed = isStartFirst ? 0 : scenario.update.Parallelism;
  if (dark.length > allowed) {
    return `slots ${dark.join(', ')} do not serve though nothing went wrong there, and ${allowed} may be updated at a time`;
  }
  return undefined;
}

/** Why a state in which nothing is left to do is no end; undefined when it is one. */
function unfinishedOf(state: State): string | undefined {
  const { objects } = state;
  const service = objects.get('service', serviceId)!;
  const update = service.UpdateStatus?.State;
  if (unsettled(state).length > 0) return 'though a new leader would still change something';
  const active = objects.list('task').filter(isActive);
  const replicas = service.Spec.Mode.Replicated!.Replicas!;
  const serving = active.filter((task) => task.Slot !== undefined && serves(objects, task.Slot));
  if (new Set(serving.map((task) => task.Slot)).size < replicas && objects.list('node').some(isReady)) {
    return `with ${serving.length} of ${replicas} serving, update ${update}`;
  }
  if (update === 'paused' || update === 'rollback_paused') return undefined;
  if (update !== 'completed' && update !== 'rollback_completed') return `while the update is ${update}`;
  const outdated = active.find((task) => task.RevisionID !== service.Private.RevisionID);
  return outdated && `${update}, with ${outdated.ID} out of date`;
}

function isReady(node: { Status: { State: string } }): boolean {
  return node.Status.State === 'ready';
}

function storyOf(node: Node): string {
  const steps: string[] = [];
  for (let at: Node | undefined = node; at; at = at.parent) steps.unshift(at.step);
  const tasks = node.state.objects
    .list('task')
    .map(
      (task) =>
        `  ${task.Slot} ${task.ID} ${task.RevisionID} ${task.DesiredState} ${task.Status.State} ${task.NodeID}`,
    );
  const service = node.state.objects.get('service', serviceId);
  return [`${steps.join(' → ')}`, JSON.stringify(service?.UpdateStatus), ...tasks].join('\n');
}

// ---------------------------------------------------------------- when two states are the same

function keyOf(state: State): string {
  const { objects, now, budget } = state;
  const service = objects.get('service', serviceId)!;
  const tasks = objects.list('task');
  const names = new Map(tasks.map((task, at) => [task.ID as string, at]));
  const age = (time: number | undefined): number | undefined =>
    time === undefined ? undefined : Math.max(time - now, -longAgoMs);
  const retired = tasks
    .map((task) => task.Private.RetiredAt ?? Number.POSITIVE_INFINITY)
    .map((time, _at, all) => all.filter((other) => other < time).length);
  const ofTask = (task: Task, at: number) => [
    task.Slot,
    task.RevisionID,
    task.Status.State,
    task.DesiredState,
    task.NodeID,
    isAttempt(service, task),
    task.Private.Cause,
    age(task.Private.StartAt),
    age(task.Private.RunningSince),
    age(task.Private.EndedAt),
    age(Date.parse(task.CreatedAt)),
    retired[at],
  ];
  return JSON.stringify([
    tasks.map(ofTask),
    service.Private.RevisionID,
    service.Private.PreviousRevisionID,
    service.UpdateStatus?.State,
    age(Date.parse(service.UpdateStatus?.StartedAt ?? '')),
    objects.list('node').map((node) => node.Status.State),
    [...state.dirty].sort(),
    [...state.wakes].map(([key, at]) => [key, at - now]).sort(),
    state.proposal?.map((change) => changeKey(change, objects, names, age)),
    [...state.broken].sort(),
    [...state.doomed].map((id) => names.get(id)).sort(),
    budget,
  ]);
}

function changeKey(
  change: Change,
  objects: State['objects'],
  names: ReadonlyMap<string, number>,
  age: (time: number | undefined) => number | undefined,
): unknown {
  if (change.op === 'remove') return ['remove', change.kind, names.get(change.id) ?? change.id];
  if (change.op === 'merge') {
    const { Status, ...fields } = change.fields as Partial<Task>;
    return ['merge', change.kind, names.get(change.id) ?? change.id, Status?.State, fields.DesiredState];
  }
  if (change.kind === 'task') {
    const { Slot, RevisionID, DesiredState, Private } = change.object;
    return [change.op, Slot, RevisionID, DesiredState, Private.Cause, age(Private.StartAt)];
  }
  if (change.kind === 'service') {
    const isFresh = objects.get('service', serviceId)!.Version.Index === change.object.Version.Index;
    const { UpdateStatus, Private } = change.object;
    return [
      isFresh,
      UpdateStatus?.State,
      age(Date.parse(UpdateStatus?.StartedAt ?? '')),
      age(Date.parse(UpdateStatus?.CompletedAt ?? '')),
      Private.RevisionID,
    ];
  }
  return [change.op, change.kind, change.object.ID];
}
