/**
 * Runs about jobs, schedules and scaling: what their tasks do, what must hold of them at every entry and every 250 ms, and
 * whether they have come to what is asked of them in the end.
 */
import { taskIdLabel } from '../../../agent/engine/container-spec.ts';
import { statusOf } from '../../../manager/api/answers.ts';
import { isActive } from '../../../manager/orchestrator/slots.ts';
import { cronOptions } from '../../../manager/store/service-options.ts';
import type { Store } from '../../../manager/store/store.ts';
import { slotKey } from '../../../manager/store/tables.ts';
import type { Service, Task } from '../../../proto/docker.ts';
import { isTerminal } from '../../../proto/task-state.ts';
import type { SimulatedCluster } from '../cluster.ts';
import { short } from '../invariants.ts';
import type { Machine } from '../machine.ts';
import { JobInvariants } from './jobs.ts';
import { Load } from './load.ts';
import { isScaledTo, ScalingInvariants } from './scaling.ts';
import { ScheduleInvariants } from './schedules.ts';
import { periodMsOf } from './specs.ts';
import type { Happening, Watching } from './watch.ts';

const lookEveryMs = 250;

/** Since when the same manager has led by an even clock, and could write. */
interface Steady {
  readonly leads: string;
  readonly commitIndex: number;
  readonly sinceMs: number;
}

export class Kinds {
  readonly load: Load;
  readonly #cluster: SimulatedCluster;
  readonly #jobs: JobInvariants;
  readonly #schedules: ScheduleInvariants;
  readonly #scaling: ScalingInvariants;
  #steady: Steady = { leads: '', commitIndex: 0, sinceMs: 0 };
  #isSkewed = false;
  #leaders = 0;
  /** How many tasks of jobs were done, runs begun, and numbers of tasks changed: to see that there was something to look at. */
  readonly counts = { completions: 0, runs: 0, changes: 0 };

  constructor(cluster: SimulatedCluster) {
    this.#cluster = cluster;
    this.load = new Load(cluster);
    const watching: Watching = {
      violate: (invariant, what) => cluster.invariants.violate(invariant, what),
      nowMs: () => cluster.clock.monotonicMs(),
      leaders: () => this.#leaders,
      isSkewed: () => this.#isSkewed,
    };
    this.#jobs = new JobInvariants(watching);
    this.#schedules = new ScheduleInvariants(watching);
    this.#scaling = new ScalingInvariants(watching);
  }

  start(): void {
    this.load.start();
    this.#lookSoon();
  }

  happened(happening: Happening): void {
    this.#count(happening);
    this.#jobs.happened(happening);
    this.#schedules.happened(happening);
    this.#scaling.happened(happening);
  }

  started(machine: Machine, id: string): void {
    const labels = machine.engine.requests().get(id)?.labels ?? {};
    this.#jobs.started(labels[taskIdLabel] ?? '');
    this.load.mayFail(machine, id, labels);
  }

  /** Another manager leads. */
  led(): void {
    this.#leaders += 1;
  }

  /** Entries were lost. */
  forget(): void {
    this.#jobs.forget();
  }

  #count({ event }: Happening): void {
    if (event.op !== 'update') return;
    if (event.kind === 'task' && event.object.JobIteration && event.object.Status.State === 'complete')
      if (event.previous?.Status.State !== 'complete') this.counts.completions += 1;
    if (event.kind !== 'service') return;
    const [before, after] = [event.previous?.Private, event.object.Private];
    if (before?.Cron?.NextAt !== after.Cron?.NextAt) this.counts.runs += 1;
    if (before?.Autoscale?.ChangedAt !== after.Autoscale?.ChangedAt) this.counts.changes += 1;
  }

  // ------------------------------------------------------------ at any moment

  #lookSoon(): void {
    this.#cluster.clock.after(lookEveryMs, () => {
      this.#look();
      this.#lookSoon();
    });
  }

  #look(): void {
    this.#isSkewed ||= this.#cluster.machines.some(({ skewMs }) => skewMs !== 0);
    const leader = this.#cluster.leader();
    if (leader === undefined) {
      this.#steady = { leads: '', commitIndex: 0, sinceMs: 0 };
      return;
    }
    const nowMs = this.#cluster.clock.monotonicMs();
    const { term, commitIndex, lastIndex } = leader.manager.raft.status();
    const { skewMs } = this.#cluster.machine(leader.machine);
    const leads = `${leader.machine} in term ${term}, off by ${skewMs} ms`;
    const isStalled = lastIndex > commitIndex && commitIndex === this.#steady.commitIndex;
    const isSame = leads === this.#steady.leads && !isStalled && leader.process.isRunning;
    this.#steady = { leads, commitIndex, sinceMs: isSame ? this.#steady.sinceMs : nowMs };
    const steadyMs = nowMs - this.#steady.sinceMs;
    const { store } = leader.manager;
    this.#schedules.look(store, leader.process.now(), steadyMs);
    this.#scaling.look(store, steadyMs);
  }

  // ------------------------------------------------------------ in the end

  /** What differs still from what is asked of a service of these kinds; undefined for another one. */
  differences(store: Store, service: Service): string[] | undefined {
    const { Mode, Name } = service.Spec;
    if (Mode.ReplicatedJob || Mode.GlobalJob) return this.#ofJob(store, service);
    const work = this.load.workOf(service);
    if (isScaledTo(service, work)) return undefined;
    const why = service.Private.Autoscale?.Reason ?? 'nothing is said';
    return [`${Name} has ${Mode.Replicated?.Replicas} tasks for the work of ${work}: ${why}`];
  }

  #ofJob(store: Store, service: Service): string[] {
    const { Mode, Name } = service.Spec;
    const iteration = service.JobStatus?.JobIteration.Index;
    const runs = service.Private.Cron?.Runs ?? [];
    const options = cronOptions(service.Spec.Labels);
    if (periodMsOf(options?.schedule) !== undefined) return [`${Name} runs every now and then`];
    if (runs.some(({ Outcome }) => Outcome === 'running')) return [`${Name} has a run that is not over`];
    if (options && runs.length === 0 && iteration === 0) return [];
    const tasks = store.find('task', 'service', service.ID);
    const busy = tasks.filter((task) => isActive(task) && !isTerminal(task.Status.State));
    if (busy.length > 0) return [`${Name} is at work still`];
    const complete = tasks.filter(
      (task) => task.JobIteration?.Index === iteration && task.Status.State === 'complete',
    );
    const slots = new Set(complete.map((task) => slotKey(task)));
    const { MaxConcurrent = 1, TotalCompletions = MaxConcurrent } = Mode.ReplicatedJob ?? {};
    const wanted: Pick<Task, 'Slot' | 'NodeID'>[] = Mode.GlobalJob
      ? store.list('node').map(({ ID }) => ({ NodeID: ID }))
      : Array.from({ length: TotalCompletions }, (_, Slot) => ({ Slot }));
    const missing = wanted.filter(
      (slot) =>
        !slots.has(slotKey({ ServiceID: service.ID, ...slot })) &&
        !this.#jobs.mayBeGivenUp(store, service, slot),
    );
    const { CompletedTasks } = statusOf(store, service);
    return [
      ...missing.map(({ Slot, NodeID }) => `${Name} has not completed ${Slot ?? short(NodeID ?? '')}`),
      ...(CompletedTasks === slots.size
        ? []
        : [`${Name} counts ${CompletedTasks} completions of ${slots.size}`]),
    ];
  }
}
