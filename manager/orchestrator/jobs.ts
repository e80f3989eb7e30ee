/**
 * Jobs: services whose tasks are to end. A replicated job has as many slots as it wants completions, numbered
 * from 0 as Docker's clients expect, and no more than MaxConcurrent of them live at a time; a global job has one
 * on each node that can have it. Each change of the service is a new iteration (store/service-change.ts), which
 * runs the job again; what is left of the iterations before it is stopped and forgotten, what they completed
 * stays in the history.
 *
 * A slot is complete with its first task that completes. One whose task failed is tried again as the restart
 * policy says, where `any` means `on-failure`, for a job is not run again because it succeeded. When the policy
 * gives a slot up, it stays so until the next iteration, and the other slots go on.
 *
 * A key is a service or, while only one slot is concerned, its slot (as slotKey of store/tables.ts).
 */
import type { Service, Task } from '../../proto/docker.ts';
import { asId, type NodeId, type ServiceId } from '../../proto/ids.ts';
import { isTerminal } from '../../proto/task-state.ts';
import type { Change } from '../store/change.ts';
import {
  earlier,
  nothing,
  type Reconciler,
  type Reconciliation,
  reconciliation,
} from '../store/reconciler.ts';
import { cronOptions } from '../store/service-options.ts';
import type { View } from '../store/store.ts';
import { modeName, slotKey } from '../store/tables.ts';
import type { StoreEvent } from '../store/watch.ts';
import {
  type Context,
  constraintProblem,
  createTask,
  makeContext,
  nodeProblem,
  removeTask,
  stopTask,
} from './context.ts';
import { lossOf } from './loss.ts';
import { mendSlot, mustWait } from './mend.ts';
import { waitersFor } from './order.ts';
import { concernsTasks } from './replicated.ts';
import { endedByItself, isActive, isOfIteration, lastWord, type Slot } from './slots.ts';

type JobMode = 'ReplicatedJob' | 'GlobalJob';

export const replicatedJobs: Reconciler = jobReconciler('replicated jobs', 'ReplicatedJob', reconcileSlots);
export const globalJobs: Reconciler = jobReconciler('global jobs', 'GlobalJob', reconcileNodes);

function jobReconciler(
  name: string,
  mode: JobMode,
  reconcileService: (context: Context) => Reconciliation,
): Reconciler {
  const isOurs = (service: Service | undefined): service is Service =>
    service !== undefined && modeName(service.Spec.Mode) === mode;
  const ownKeys = (event: StoreEvent, view: View): readonly string[] => {
    if (event.kind === 'service') return isOurs(event.object) ? [event.object.ID] : [];
    if (event.kind === 'node') return keysForNode(event, view, mode);
    if (event.kind !== 'task') return [];
    const service = view.get('service', event.object.ServiceID);
    return isOurs(service) ? [keyForTask(event)] : [];
  };
  return {
    name,
    keysFor: (event, view) => [...ownKeys(event, view), ...waitersFor(event, view, mode)],
    allKeys: (view) => view.find('service', 'mode', mode).map((service) => service.ID),
    distinct: (keys) => [...keys].filter((key) => serviceOf(key) === key || !keys.has(serviceOf(key))),
    reconcile(view, key, now, newId, steadySince) {
      const service = view.get('service', serviceOf(key));
      if (!isOurs(service) || waitsForSchedule(service)) return nothing;
      const context = makeContext(view, service, now, newId, steadySince);
      if (key === service.ID) return reconcileService(context);
      const { changes, wakeAt } = mendJobSlot(
        context,
        slotOf(tasksThatCount(service, view.find('task', 'slot', key)), key),
      );
      return reconciliation(changes, wakeAt);
    },
  };
}

/** Whether a job with a schedule has yet to be told to run its present iteration. */
function waitsForSchedule({ Spec, JobStatus, Private }: Service): boolean {
  if (cronOptions(Spec.Labels) === undefined) return false;
  return !(Private.Cron?.Runs ?? []).some((run) => run.Iteration === JobStatus?.JobIteration.Index);
}

/** Tasks of earlier runs are left alone where a schedule lets runs overlap. */
function tasksThatCount(service: Service, tasks: readonly Task[]): readonly Task[] {
  const options = cronOptions(service.Spec.Labels);
  return options?.overlap === 'allow' ? tasks.filter((task) => isOfIteration(service, task)) : tasks;
}

/**
 * Where a schedule lets runs overlap, tasks of earlier ones go on to their end: but for those that have yet to begin, and those
 * whose node is lost.
 */
function endEarlierRuns(context: Context): Change[] {
  const { view, service } = context;
  if (cronOptions(service.Spec.Labels)?.overlap !== 'allow') return [];
  return view
    .find('task', 'service', service.ID)
    .filter((task) => !isOfIteration(service, task) && isActive(task) && !isTerminal(task.Status.State))
    .flatMap((task) => {
      if (task.DesiredState === 'ready') return [removeTask(task, 'the next run of the job has begun')];
      const loss = lossOf(context, task);
      return loss === undefined ? [] : [stopTask(context, task, loss)];
    });
}

/** What has become of the job's present iteration: over when every slot is complete or given up. */
export function outcomeOfIteration(context: Context): 'running' | 'complete' | 'failed' {
  const { view, service } = context;
  const isGlobal = modeName(service.Spec.Mode) === 'GlobalJob';
  const places: Slot['place'][] = isGlobal
    ? view
        .list('node')
        .filter((node) => !nodeProblem(node, node.ID) && !constraintProblem(node, service.Spec))
        .map((node) => ({ NodeID: node.ID }))
    : Array.from({ length: goalOf(service).completions }, (_, Slot) => ({ Slot }));
  const states = places.map((place) => {
    const key = slotKey({ ServiceID: service.ID, ...place });
    const tasks = tasksThatCount(service, view.find('task', 'slot', key));
    return tasks.length === 0 ? 'open' : mendJobSlot(context, { key, place, tasks }).state;
  });
  if (states.some((state) => state === 'live' || state === 'open')) return 'running';
  return states.includes('given-up') ? 'failed' : 'complete';
}

function serviceOf(key: string): ServiceId {
  return asId<ServiceId>(key.split(/[/@]/, 1)[0]!);
}

/** A task that ended, came or went may let another slot begin. */
function keyForTask({ op, object }: Extract<StoreEvent, { kind: 'task' }>): string {
  return op === 'remove' || isTerminal(object.Status.State) ? object.ServiceID : slotKey(object);
}

function keysForNode(
  event: Extract<StoreEvent, { kind: 'node' }>,
  view: View,
  mode: JobMode,
): readonly string[] {
  if (!concernsTasks(event)) return [];
  if (mode === 'GlobalJob') return view.find('service', 'mode', mode).map((service) => service.ID);
  return [...new Set(view.find('task', 'node', event.object.ID).map((task) => task.ServiceID))];
}

function slotOf(tasks: readonly Task[], key: string): Slot {
  const first = tasks[0];
  const place = first?.Slot === undefined ? { NodeID: first?.NodeID } : { Slot: first.Slot };
  return { key, place: place as Slot['place'], tasks };
}

// ---------------------------------------------------------------- one slot

interface JobSlot {
  readonly changes: readonly Change[];
  readonly wakeAt: number | undefined;
  /**
   * - complete: a task of it did the work
   * - live: a task of it runs, or is to run
   * - given-up: its tasks failed, and the restart policy lets none follow
   * - open: it has had no task in this iteration, or lost the one it had
   */
  readonly state: 'complete' | 'live' | 'given-up' | 'open';
}

function mendJobSlot(context: Context, slot: Slot): JobSlot {
  const { service } = context;
  const current = slot.tasks.filter((task) => isOfIteration(service, task));
  const leftovers = slot.tasks
    .filter((task) => !isOfIteration(service, task) && isActive(task) && !isTerminal(task.Status.State))
    .map((task) => removeTask(task, 'the job is run again'));
  if (current.some((task) => task.Status.State === 'complete')) {
    const surplus = current.filter((task) => isActive(task) && task.Status.State !== 'complete');
    return {
      changes: [...leftovers, ...surplus.map((task) => stopTask(context, task, 'its slot is complete'))],
      wakeAt: undefined,
      state: 'complete',
    };
  }
  const plan = mendSlot(context, { ...slot, tasks: slot.tasks.map((task) => pastAsGone(service, task)) });
  const last = lastWord(current);
  const isGivenUp = plan.state === 'finished' && last !== undefined && endedByItself(last);
  const state = plan.state === 'live' ? 'live' : isGivenUp ? 'given-up' : 'open';
  return { changes: [...leftovers, ...plan.changes], wakeAt: plan.wakeAt, state };
}

/** Tasks of earlier iterations count only as long as they have to be waited for. */
function pastAsGone(service: Service, task: Task): Task {
  return isOfIteration(service, task) ? task : { ...task, DesiredState: 'remove' };
}

/** The first task of an iteration in a slot, after any of an earlier one that is still stopping there. */
function begin(context: Context, slot: Slot): Change {
  const past = slot.tasks.map((task) => pastAsGone(context.service, task));
  return createTask(context, slot.place, { waits: mustWait(context, { ...slot, tasks: past }, []) });
}

// ---------------------------------------------------------------- replicated jobs

/** How many completions a replicated job wants, and how many tasks it may have at a time: 1 unless it says. */
function goalOf({ Spec }: Service): { completions: number; concurrent: number } {
  const { MaxConcurrent = 1, TotalCompletions = MaxConcurrent } = Spec.Mode.ReplicatedJob ?? {};
  return { completions: TotalCompletions, concurrent: MaxConcurrent };
}

function reconcileSlots(context: Context): Reconciliation {
  const { view, service } = context;
  const { completions, concurrent } = goalOf(service);
  const bySlot = new Map<number, Task[]>();
  for (const task of tasksThatCount(service, view.find('task', 'service', service.ID))) {
    const number = task.Slot ?? 0;
    const tasks = bySlot.get(number);
    if (tasks) tasks.push(task);
    else bySlot.set(number, [task]);
  }
  const changes = endEarlierRuns(context);
  let wakeAt: number | undefined;
  let live = 0;
  const open: Slot[] = [];
  for (let number = 0; number < completions; number += 1) {
    const tasks = bySlot.get(number) ?? [];
    const slot: Slot = { key: `${service.ID}/${number}`, place: { Slot: number }, tasks };
    bySlot.delete(number);
    const mended = tasks.length === 0 ? undefined : mendJobSlot(context, slot);
    changes.push(...(mended?.changes ?? []));
    wakeAt = earlier(wakeAt, mended?.wakeAt);
    if (mended?.state === 'live') live += 1;
    if (mended === undefined || mended.state === 'open') open.push(slot);
  }
  for (const task of [...bySlot.values()].flat()) {
    if (isActive(task) && !isTerminal(task.Status.State))
      changes.push(removeTask(task, 'the job wants fewer completions'));
  }
  const room = Math.max(0, concurrent - live);
  for (const slot of open.slice(0, room)) changes.push(begin(context, slot));
  return reconciliation(changes, wakeAt);
}

// ---------------------------------------------------------------- global jobs

function reconcileNodes(context: Context): Reconciliation {
  const { view, service } = context;
  const byNode = new Map<NodeId, Task[]>(view.list('node').map((node) => [node.ID, []]));
  for (const task of tasksThatCount(service, view.find('task', 'service', service.ID))) {
    if (task.NodeID === undefined) continue;
    const tasks = byNode.get(task.NodeID);
    if (tasks) tasks.push(task);
    else byNode.set(task.NodeID, [task]);
  }
  const changes = endEarlierRuns(context);
  let wakeAt: number | undefined;
  for (const [NodeID, tasks] of byNode) {
    const key = slotKey({ ServiceID: service.ID, NodeID });
    const mended = reconcileNode(context, { key, place: { NodeID }, tasks });
    changes.push(...mended.changes);
    wakeAt = earlier(wakeAt, mended.wakeAt);
  }
  return reconciliation(changes, wakeAt);
}

function reconcileNode(context: Context, slot: Slot): Pick<JobSlot, 'changes' | 'wakeAt'> {
  const nodeId = slot.place.NodeID!;
  const node = context.view.get('node', nodeId);
  if (!node || nodeProblem(node, nodeId) || constraintProblem(node, context.service.Spec)) {
    const problem =
      nodeProblem(node, nodeId) ?? constraintProblem(node!, context.service.Spec) ?? 'its node was lost';
    const stranded = slot.tasks.filter((task) => isActive(task) && !isTerminal(task.Status.State));
    return { changes: stranded.map((task) => stopTask(context, task, problem)), wakeAt: undefined };
  }
  const mended = mendJobSlot(context, slot);
  const mayBegin = mended.state === 'open' && node.Spec.Availability === 'active';
  if (!mayBegin || node.Status.State !== 'ready') return mended;
  return { changes: [...mended.changes, begin(context, slot)], wakeAt: mended.wakeAt };
}
