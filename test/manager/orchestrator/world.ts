/**
 * A cluster small enough to reason about: a store, the reconcilers driven by its commits, a scheduler that
 * takes the emptiest node, and agents that do what a test tells them.
 */
import assert from 'node:assert/strict';
import { autoscaler } from '../../../manager/orchestrator/autoscale.ts';
import { reconcilers as plain } from '../../../manager/orchestrator/orchestrator.ts';
import { isActive } from '../../../manager/orchestrator/slots.ts';
import { WakeTimes } from '../../../manager/orchestrator/wake-times.ts';
import type { Change } from '../../../manager/store/change.ts';
import type { Reconciler, Reconciliation } from '../../../manager/store/reconciler.ts';
import { Store } from '../../../manager/store/store.ts';
import { slotKey } from '../../../manager/store/tables.ts';
import type { TaskUsage } from '../../../manager/store/usage.ts';
import type { Commit } from '../../../manager/store/watch.ts';
import type { ClusterNode, Service, ServiceSpec, Task } from '../../../proto/docker.ts';
import type { NodeId, RevisionId, ServiceId, TaskId } from '../../../proto/ids.ts';
import { compareTaskStates, isTerminal, type TaskState } from '../../../proto/task-state.ts';
import { makeCluster, makeNode, makeRevision, makeService } from './objects.ts';

const maximumRounds = 200;

function jobStatus(spec: ServiceSpec, Index: number): Pick<Service, 'JobStatus'> {
  const isJob = spec.Mode.ReplicatedJob !== undefined || spec.Mode.GlobalJob !== undefined;
  return isJob ? { JobStatus: { JobIteration: { Index } } } : {};
}

export class World {
  readonly store = new Store();
  now = Date.UTC(2026, 0, 1);
  /** Entries proposed by the reconcilers. */
  proposals = 0;
  private index = 0;
  private ids = 0;
  private wakeTimes = new WakeTimes();
  /** Since when the present leader counts. */
  private steadySince = this.now;
  /** What tasks use, as their agents would have reported it. */
  readonly usage = new Map<string, TaskUsage>();
  private readonly reconcilers = [...plain, autoscaler((id) => this.usage.get(id))];
  private dirty = this.reconcilers.map(() => new Set<string>());

  constructor(nodes: number | readonly ClusterNode[] = 3) {
    this.store.onCommit((commit) => this.hear(commit));
    const made =
      typeof nodes === 'number' ? Array.from({ length: nodes }, (_, at) => makeNode(`n${at + 1}`)) : nodes;
    this.apply([
      { op: 'create', kind: 'cluster', object: makeCluster() },
      ...made.map((object): Change => ({ op: 'create', kind: 'node', object })),
    ]);
  }

  private hear(commit: Commit): void {
    if (commit.kind === 'restored') {
      this.newLeader();
      return;
    }
    for (const [at, reconciler] of this.reconcilers.entries()) {
      for (const event of commit.events) {
        for (const key of reconciler.keysFor(event, this.store)) this.dirty[at]!.add(key);
      }
    }
  }

  apply(changes: readonly Change[]): void {
    this.index += 1;
    const result = this.store.applyEntry(this.index, { now: this.now, changes });
    assert.ok(result.ok, result.ok ? '' : result.message);
  }

  newId = <I extends string>(): I => {
    this.ids += 1;
    return `t${this.ids}` as I;
  };

  /** Forgets all that a leader holds in memory, and looks at everything. */
  newLeader(): void {
    this.wakeTimes = new WakeTimes();
    this.steadySince = this.now;
    this.dirty = this.reconcilers.map((reconciler) => new Set(reconciler.allKeys(this.store)));
  }

  /** Reconciles until nothing is left to do. */
  settle(): this {
    for (let round = 0; round < maximumRounds; round += 1) if (!this.round()) return this;
    throw new Error(`the reconcilers did not come to rest in ${maximumRounds} rounds`);
  }

  private round(): boolean {
    for (const [at, reconciler] of this.reconcilers.entries()) {
      const all = this.dirty[at]!;
      this.dirty[at] = new Set();
      const changes: Change[] = [];
      for (const key of reconciler.distinct ? [...reconciler.distinct(all)] : all) {
        const wanted = this.ask(reconciler, key);
        this.wakeTimes.set(at, key, wanted.wakeAt);
        changes.push(...wanted.changes);
      }
      if (changes.length === 0) continue;
      this.proposals += 1;
      this.apply(changes);
      return true;
    }
    return false;
  }

  /** What a look at everything would still change: nothing, when events concern all that they should. */
  unsettled(): Change[] {
    return this.reconcilers.flatMap((reconciler) =>
      reconciler.allKeys(this.store).flatMap((key) => this.ask(reconciler, key).changes),
    );
  }

  private ask(reconciler: Reconciler, key: string): Reconciliation {
    return reconciler.reconcile(this.store, key, this.now, this.newId as never, this.steadySince);
  }

  /** Lets time pass, waking the reconcilers when they asked for it. */
  pass(durationMs: number): this {
    const end = this.now + durationMs;
    this.settle();
    for (let at = this.wakeTimes.earliest(); at !== undefined && at <= end; at = this.wakeTimes.earliest()) {
      this.now = Math.max(this.now, at);
      for (const { reconciler, key } of this.wakeTimes.takeDue(this.now)) this.dirty[reconciler]!.add(key);
      this.settle();
    }
    this.now = end;
    return this;
  }

  // ------------------------------------------------------------ what users do

  createService(id: string, spec: ServiceSpec): this {
    this.apply([
      { op: 'create', kind: 'revision', object: makeRevision(id, 1, spec) },
      { op: 'create', kind: 'service', object: makeService(id, spec, jobStatus(spec, 0)) },
    ]);
    return this;
  }

  /** As the API does: a new revision, the spec before it kept, the update's status cleared. */
  updateService(id: string, change: (spec: ServiceSpec) => ServiceSpec): this {
    const { UpdateStatus: _, ...service } = this.service(id);
    const number = this.store.find('revision', 'service', id).reduce((max, r) => Math.max(max, r.Number), 0);
    const Spec = change(service.Spec);
    const revision = makeRevision(id, number + 1, Spec);
    this.apply([
      { op: 'create', kind: 'revision', object: revision },
      {
        op: 'update',
        kind: 'service',
        object: {
          ...service,
          Spec,
          PreviousSpec: service.Spec,
          ...jobStatus(Spec, (service.JobStatus?.JobIteration.Index ?? 0) + 1),
          Private: { RevisionID: revision.ID, PreviousRevisionID: service.Private.RevisionID },
        },
      },
    ]);
    return this;
  }

  rollbackService(id: string): this {
    const { PreviousSpec, ...service } = this.service(id);
    const { PreviousRevisionID } = service.Private;
    if (!PreviousSpec || !PreviousRevisionID) return this;
    const StartedAt = new Date(this.now).toISOString();
    this.apply([
      {
        op: 'update',
        kind: 'service',
        object: {
          ...service,
          Spec: PreviousSpec,
          Private: { RevisionID: PreviousRevisionID },
          UpdateStatus: { State: 'rollback_started', StartedAt, Message: 'manually requested rollback' },
        },
      },
    ]);
    return this;
  }

  scale(id: string, Replicas: number): this {
    return this.updateService(id, (spec) => ({ ...spec, Mode: { Replicated: { Replicas } } }));
  }

  removeService(id: string): this {
    this.apply([{ op: 'remove', kind: 'service', id: id as ServiceId }]);
    return this;
  }

  setNode(id: string, over: Parameters<typeof makeNode>[1]): this {
    const node = this.store.get('node', id as NodeId)!;
    const { Spec, Description, Status, Private } = makeNode(id, over);
    const fields: Partial<ClusterNode> = {};
    if (over?.Spec) fields.Spec = { ...node.Spec, ...Spec, ...over.Spec } as ClusterNode['Spec'];
    if (over?.Description) fields.Description = Description;
    if (over?.Status) fields.Status = { ...node.Status, ...Status };
    if (over?.Private) fields.Private = Private;
    this.apply([{ op: 'merge', kind: 'node', id: node.ID, fields }]);
    return this;
  }

  // ------------------------------------------------------------ scheduler and agents

  /** Assigns what is to be assigned. */
  schedule(): this {
    const load = new Map<NodeId, number>();
    for (const task of this.store.list('task')) {
      if (task.NodeID && isActive(task)) load.set(task.NodeID, (load.get(task.NodeID) ?? 0) + 1);
    }
    for (const task of this.store.list('task')) {
      if (task.Status.State !== 'pending' || !isActive(task)) continue;
      const nodes = this.store
        .list('node')
        .filter((node) => node.Status.State === 'ready' && node.Spec.Availability === 'active')
        .sort((left, right) => (load.get(left.ID) ?? 0) - (load.get(right.ID) ?? 0));
      const NodeID = task.NodeID ?? nodes[0]?.ID;
      if (!NodeID) {
        this.explain(task, 'no suitable node');
        continue;
      }
      load.set(NodeID, (load.get(NodeID) ?? 0) + 1);
      const Status = { ...task.Status, State: 'assigned' as const, Message: 'assigned' };
      this.apply([{ op: 'merge', kind: 'task', id: task.ID, fields: { NodeID, Status } }]);
    }
    return this;
  }

  private explain(task: Task, Err: string): void {
    if (task.Status.Err === Err) return;
    this.apply([{ op: 'merge', kind: 'task', id: task.ID, fields: { Status: { ...task.Status, Err } } }]);
  }

  report(id: string, State: TaskState): this {
    const task = this.store.get('task', id as TaskId)!;
    const Timestamp = new Date(this.now).toISOString();
    this.apply([
      {
        op: 'merge',
        kind: 'task',
        id: task.ID,
        fields: { Status: { Timestamp, State, Message: State } },
      },
    ]);
    return this;
  }

  /** Tasks whose agent is there and has something to do. */
  workable(): Task[] {
    return this.store.list('task').filter((task) => {
      const node = this.store.get('node', task.NodeID);
      if (node?.Status.State !== 'ready') return false;
      if (compareTaskStates(task.Status.State, 'assigned') < 0 || isTerminal(task.Status.State)) return false;
      if (task.DesiredState === 'ready') return task.Status.State !== 'ready';
      return task.DesiredState !== 'running' || task.Status.State !== 'running';
    });
  }

  /** One agent's step for a task: towards what is desired of it. */
  work(task: Task): this {
    if (!isActive(task)) return this.report(task.ID, 'shutdown');
    if (task.DesiredState === 'complete' && task.Status.State === 'running') {
      return this.report(task.ID, 'complete');
    }
    return this.report(
      task.ID,
      compareTaskStates(task.Status.State, 'ready') < 0 && task.DesiredState === 'ready'
        ? 'ready'
        : 'running',
    );
  }

  /** Everything goes well, until nothing is left to do but waiting. */
  run(): this {
    for (let step = 0; step < 1_000; step += 1) {
      this.settle().schedule().settle();
      const [task] = this.workable();
      if (!task) return this;
      this.work(task);
    }
    throw new Error('the agents did not come to rest');
  }

  /** As run, while time passes. */
  runFor(durationMs: number, stepMs = 500): this {
    for (let passed = 0; passed < durationMs; passed += stepMs) this.run().pass(stepMs);
    return this.run();
  }

  // ------------------------------------------------------------ what there is

  service(id: string): Service {
    return this.store.get('service', id as ServiceId)!;
  }

  task(id: string): Task {
    return this.store.get('task', id as TaskId)!;
  }

  tasks(service: string): Task[] {
    return this.store.find('task', 'service', service);
  }

  active(service: string): Task[] {
    return this.tasks(service).filter(isActive);
  }

  running(service: string): Task[] {
    return this.active(service).filter((task) => task.Status.State === 'running');
  }

  image(task: Task): string {
    const revision = this.store.get('revision', task.RevisionID as RevisionId);
    return revision?.Spec.TaskTemplate.ContainerSpec.Image ?? '';
  }

  /** Active tasks by slot. */
  bySlot(service: string): Map<string, Task[]> {
    const slots = new Map<string, Task[]>();
    for (const task of this.active(service)) {
      slots.set(slotKey(task), [...(slots.get(slotKey(task)) ?? []), task]);
    }
    return slots;
  }
}
