/**
 * What must hold of jobs at every entry: no slot is begun again that is complete, and none is complete whose container did not
 * come to its end; no more slots are begun than may be at a time; what failed is tried again within the restart policy.
 */
import { isActive } from '../../../manager/orchestrator/slots.ts';
import type { Store, View } from '../../../manager/store/store.ts';
import { slotKey } from '../../../manager/store/tables.ts';
import type { Service, Task } from '../../../proto/docker.ts';
import { isTerminal } from '../../../proto/task-state.ts';
import { short } from '../invariants.ts';
import { tookLabel } from './specs.ts';
import type { Happening, Watching } from './watch.ts';

/** What was decided before an entry was applied may still come after it, while the same manager leads. */
const overtakenMs = 3_000;

interface SlotRecord {
  complete: { readonly atMs: number; readonly leaders: number } | undefined;
  /** Tasks created because the one before failed, by revision. */
  readonly retries: Map<string, number>;
}

export class JobInvariants {
  readonly #watching: Watching;
  readonly #slots = new Map<string, SlotRecord>();
  /** Some retries may not be counted. */
  #hasForgotten = false;
  /** When a task's container was started last. */
  readonly #startedMs = new Map<string, number>();

  constructor(watching: Watching) {
    this.#watching = watching;
  }

  /** Entries were lost, and with them what is known of them. */
  forget(): void {
    this.#slots.clear();
    this.#hasForgotten = true;
  }

  started(taskId: string): void {
    this.#startedMs.set(taskId, this.#watching.nowMs());
  }

  happened({ store, event }: Happening): void {
    if (event.kind !== 'task' || event.object.JobIteration === undefined) return;
    if (event.op === 'create') this.#created(store, event.object);
    if (event.op === 'update' && event.object.Status.State === 'complete')
      if (event.previous?.Status.State !== 'complete') this.#completed(store, event.object);
  }

  #slot(task: Task): SlotRecord {
    const key = `${slotKey(task)} ${task.JobIteration?.Index}`;
    const known = this.#slots.get(key) ?? { complete: undefined, retries: new Map() };
    this.#slots.set(key, known);
    return known;
  }

  #created(store: Store, task: Task): void {
    const slot = this.#slot(task);
    const { complete } = slot;
    const isSure =
      complete?.leaders === this.#watching.leaders() && this.#watching.nowMs() - complete.atMs > overtakenMs;
    if (isSure) this.#watching.violate('completed-once', `${nameOf(task)} is begun again, and was complete`);
    if (task.Private.Cause === 'failure') this.#retried(store, task, slot);
    const service = store.get('service', task.ServiceID);
    if (service && task.Private.Cause === undefined) this.#begun(store, task, service);
  }

  #retried(store: Store, task: Task, { retries }: SlotRecord): void {
    const policy = store.get('revision', task.RevisionID)?.Spec.TaskTemplate.RestartPolicy ?? {};
    const times = (retries.get(task.RevisionID) ?? 0) + 1;
    retries.set(task.RevisionID, times);
    const { MaxAttempts = 0, Condition } = policy;
    if (Condition === 'none')
      this.#watching.violate('retried-as-asked', `${nameOf(task)} is tried again, and is to be tried once`);
    if (MaxAttempts > 0 && times > MaxAttempts)
      this.#watching.violate(
        'retried-as-asked',
        `${nameOf(task)} is tried again for the ${times}th time, of ${MaxAttempts}`,
      );
    const before = store.get('task', task.Private.Replaces);
    if (before?.Status.State === 'complete')
      this.#watching.violate('retried-as-asked', `${nameOf(task)} follows one that is complete`);
  }

  /** A task that none came before in its slot: one slot more is at work. */
  #begun(store: Store, task: Task, service: Service): void {
    const { ReplicatedJob } = service.Spec.Mode;
    if (!ReplicatedJob || task.JobIteration?.Index !== service.JobStatus?.JobIteration.Index) return;
    const most = ReplicatedJob.MaxConcurrent ?? 1;
    const busy = busySlots(store, service);
    if (busy.size > most)
      this.#watching.violate(
        'jobs-at-a-time',
        `${service.Spec.Name} has ${busy.size} slots at work of ${most} at a time`,
      );
  }

  #completed(store: Store, task: Task): void {
    const { nowMs, leaders } = this.#watching;
    this.#slot(task).complete ??= { atMs: nowMs(), leaders: leaders() };
    const template = store.get('revision', task.RevisionID)?.Spec.TaskTemplate;
    const tookMs = Number(template?.ContainerSpec.Labels?.[tookLabel] ?? 0);
    const startedMs = this.#startedMs.get(task.ID);
    if (startedMs === undefined || nowMs() - startedMs < tookMs)
      this.#watching.violate('completed-once', `${nameOf(task)} is complete and did not do its work`);
  }

  /** Why a slot without a complete task may be left so, or that it may not: for the end of a run. */
  mayBeGivenUp(store: View, service: Service, slot: Pick<Task, 'Slot' | 'NodeID'>): boolean {
    const tasks = store
      .find('task', 'slot', slotKey({ ServiceID: service.ID, ...slot }))
      .filter((task) => task.JobIteration?.Index === service.JobStatus?.JobIteration.Index);
    const last = tasks.at(-1);
    if (last === undefined || tasks.some((task) => !isTerminal(task.Status.State))) return false;
    const { Condition, MaxAttempts = 0 } =
      store.get('revision', last.RevisionID)?.Spec.TaskTemplate.RestartPolicy ?? {};
    if (Condition === 'none') return true;
    if (this.#hasForgotten) return MaxAttempts > 0;
    return MaxAttempts > 0 && (this.#slot(last).retries.get(last.RevisionID) ?? 0) >= MaxAttempts;
  }
}

/** Slots of the job's present iteration with a task that runs, or is to. */
function busySlots(store: Store, service: Service): Set<string> {
  const busy = store
    .find('task', 'service', service.ID)
    .filter((task) => task.JobIteration?.Index === service.JobStatus?.JobIteration.Index)
    .filter((task) => isActive(task) && !isTerminal(task.Status.State));
  return new Set(busy.map((task) => slotKey(task)));
}

function nameOf(task: Task): string {
  return `task ${short(task.ID)} (${short(slotKey(task))}, iteration ${task.JobIteration?.Index})`;
}
