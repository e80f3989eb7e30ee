/**
 * What changes of services would do, without doing it: they are laid over what is stored (trial-view.ts), the orchestrators
 * and the scheduler are asked there as they would be here, and what comes of it is told. In: the store, changes as
 * they would be proposed. Out: for each service that they concern, which tasks are replaced, started, stopped or left
 * alone, and where new ones would be placed, or why nowhere. It touches nothing.
 */
import type { Service, Task } from '../proto/docker.ts';
import { ShoalError } from '../proto/errors.ts';
import type { NewId, TaskId } from '../proto/ids.ts';
import { isTerminal } from '../proto/task-state.ts';
import { allocate } from './allocator/allocate.ts';
import type { ServicePreview, TaskPreview } from './api/contract.ts';
import { homeOf } from './orchestrator/context.ts';
import { serviceReconcilers } from './orchestrator/orchestrator.ts';
import { isGuarded } from './orchestrator/partition.ts';
import { NodeTable } from './scheduler/node-table.ts';
import { schedule } from './scheduler/schedule.ts';
import { type Change, newMeta } from './store/change.ts';
import { dirtyTest } from './store/revision.ts';
import type { View } from './store/store.ts';
import { TrialView } from './store/trial-view.ts';

/** Throws ShoalError when the changes would be refused. `now` in ms since the epoch. */
export function preview(
  store: View,
  changes: readonly Change[],
  now: number,
  newId: NewId,
): ServicePreview[] {
  const trial = new Trial(store, now, newId);
  trial.apply(changes);
  const removed = changes.flatMap((change) =>
    change.op === 'remove' && change.kind === 'service' ? [store.get('service', change.id)!] : [],
  );
  const changed = changes.flatMap((change) =>
    change.kind === 'service' && (change.op === 'create' || change.op === 'update')
      ? [{ service: change.object, op: change.op }]
      : [],
  );
  return [
    ...changed.map(({ service, op }) => trial.service(service, op)),
    ...removed.map((service): ServicePreview => {
      const stopped = activeTasks(store, service);
      return {
        Name: service.Spec.Name,
        Action: 'remove',
        Replaced: [],
        Started: [],
        Stopped: stopped.length,
        Untouched: 0,
      };
    }),
  ];
}

class Trial {
  private readonly store: View;
  private readonly trial: TrialView;
  private readonly table: NodeTable;
  private readonly now: number;
  private readonly newId: NewId;

  constructor(store: View, now: number, newId: NewId) {
    this.store = store;
    this.now = now;
    this.newId = newId;
    this.trial = new TrialView(store);
    this.table = NodeTable.build(store);
  }

  apply(changes: readonly Change[]): void {
    const { trial, now } = this;
    const result = trial.apply({ now, changes: allocate(trial, changes, now) });
    if (!result.ok) throw new ShoalError(result.code, result.message);
    for (const event of result.events) this.table.note(event, trial);
  }

  service({ ID, Spec }: Service, op: 'create' | 'update'): ServicePreview {
    const { trial, store } = this;
    const service = trial.get('service', ID)!;
    const before = activeTasks(store, service);
    // Counts first: what is scaled down is not replaced, what is added is placed beside what is there.
    const wanted = serviceReconcilers.flatMap((one) => [
      ...one.reconcile(trial, ID, this.now, this.newId).changes,
    ]);
    const created = wanted.flatMap((change) =>
      change.op === 'create' && change.kind === 'task' ? [change.object.ID] : [],
    );
    this.apply(wanted.filter((change) => change.kind === 'task'));
    this.place(created);
    const isDirty = dirtyTest(trial, service);
    const staying = before.filter((task) => isActiveTask(trial.get('task', task.ID)));
    const outdated = service.JobStatus ? [] : staying.filter(isDirty);
    const Replaced = outdated.map((task) => this.replace(service, task));
    return {
      Name: Spec.Name,
      Action: op,
      Replaced,
      Started: created.map((id) => this.told(trial.get('task', id)!)),
      Stopped: before.length - staying.length,
      Untouched: staying.length - outdated.length,
    };
  }

  /** One slot's turn in the rolling update. */
  private replace(service: Service, old: Task): TaskPreview {
    const ID = this.newId<TaskId>();
    const { NodeID, NetworksAttachments: _attached, AssignedGenericResources: _given, ...rest } = old;
    const successor: Task = {
      ...rest,
      ...newMeta(ID),
      // A global service's place is its node.
      ...(old.Slot === undefined && NodeID !== undefined ? { NodeID } : {}),
      RevisionID: service.Private.RevisionID,
      Status: { Timestamp: new Date(this.now).toISOString(), State: 'pending', Message: '' },
      DesiredState: 'running',
      Private: {
        Replaces: old.ID,
        Cause: 'update',
        ...(old.Slot === undefined ? {} : homeOf({ view: this.trial, service }, { Slot: old.Slot })),
      },
    };
    const stop: Change = {
      op: 'merge',
      kind: 'task',
      id: old.ID,
      fields: { DesiredState: 'shutdown', Status: { ...old.Status, State: 'shutdown' } },
    };
    const isStartFirst = service.Spec.UpdateConfig?.Order === 'start-first' && !isGuarded(service);
    if (!isStartFirst) this.apply([stop]);
    this.apply([{ op: 'create', kind: 'task', object: successor }]);
    this.place([ID]);
    if (isStartFirst) this.apply([stop]);
    return { ...this.told(this.trial.get('task', ID)!), From: this.nodeName(old) };
  }

  private place(ids: readonly TaskId[]): void {
    const pending = ids.map((id) => this.trial.get('task', id)!).filter((task) => task !== undefined);
    const decided = schedule(this.trial, pending, this.table, this.now);
    if (decided.length > 0) this.apply(decided);
  }

  private told(task: Task): TaskPreview {
    const name = this.trial.get('service', task.ServiceID)?.Spec.Name ?? task.ServiceID;
    const Node = task.Status.State === 'pending' ? '' : this.nodeName(task);
    const Reason = task.Status.State === 'pending' ? (task.Status.Err ?? 'no node was found for it') : '';
    return { Task: `${name}.${task.Slot ?? this.nodeName(task)}`, Node, Reason };
  }

  private nodeName(task: Task): string {
    return this.trial.get('node', task.NodeID)?.Description.Hostname || (task.NodeID ?? '');
  }
}

function activeTasks(store: View, service: Service): Task[] {
  return store.find('task', 'service', service.ID).filter(isActiveTask);
}

function isActiveTask(task: Task | undefined): task is Task {
  if (!task || isTerminal(task.Status.State)) return false;
  return task.DesiredState !== 'shutdown' && task.DesiredState !== 'remove';
}
