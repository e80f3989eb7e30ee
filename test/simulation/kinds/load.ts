/**
 * What simulated tasks do by themselves in runs about jobs and scaling: the processes of some jobs fail, and what there is to
 * do for a service that is scaled is shared out evenly among those of its containers that run.
 */
import { taskIdLabel } from '../../../agent/engine/container-spec.ts';
import { autoscaleOptions } from '../../../manager/store/autoscale-options.ts';
import type { Labels, Service } from '../../../proto/docker.ts';
import type { SimulatedCluster } from '../cluster.ts';
import type { Machine } from '../machine.ts';
import { seededRandom } from '../random.ts';
import { flakyLabel, tookLabel } from './specs.ts';

const measureEveryMs = 500;
const changesEveryMs = 9_000;
const mostWork = 9;

/** Of a machine's container. */
interface Place {
  readonly machine: Machine;
  readonly id: string;
}

export class Load {
  readonly #cluster: SimulatedCluster;
  readonly #random: ReturnType<typeof seededRandom>;
  /** By service: work for so many tasks, each as busy as it should be. */
  readonly #work = new Map<string, number>();
  #isConstant = false;

  constructor(cluster: SimulatedCluster) {
    this.#cluster = cluster;
    this.#random = seededRandom(cluster.seed + 0x60000000);
  }

  start(): void {
    this.#measureSoon();
    this.#changeSoon();
  }

  /** From now on there is as much to do as there is. */
  hold(): void {
    this.#isConstant = true;
  }

  /** Work for so many tasks of the service. */
  workOf({ ID }: Service): number {
    const known = this.#work.get(ID) ?? this.#draw();
    this.#work.set(ID, known);
    return known;
  }

  #draw(): number {
    return this.#random.integer(6) === 0 ? 0 : Math.round(this.#random.float() * mostWork * 100) / 100;
  }

  #changeSoon(): void {
    this.#cluster.clock.after(this.#random.float() * changesEveryMs, () => {
      if (this.#isConstant) return;
      const ids = [...this.#work.keys()];
      const id = ids[this.#random.integer(ids.length)];
      if (id !== undefined) this.#work.set(id, this.#draw());
      this.#changeSoon();
    });
  }

  #measureSoon(): void {
    this.#cluster.clock.after(measureEveryMs, () => {
      this.#measure();
      this.#measureSoon();
    });
  }

  #measure(): void {
    const store = this.#cluster.leader()?.manager.store;
    if (store === undefined) return;
    const places = this.#running();
    for (const service of store.list('service')) {
      const options = autoscaleOptions(service.Spec.Labels);
      if (options === undefined) continue;
      const tasks = store.find('task', 'service', service.ID);
      const running = tasks.flatMap((task) => places.get(task.ID) ?? []);
      const share = this.workOf(service) / Math.max(1, running.length);
      for (const { machine, id } of running) {
        const { used } = machine.engine.meter;
        const cpuNanos = used.get(id)?.cpuNanos ?? 0;
        const busyNanos = share * (options.target.value / 100) * measureEveryMs * 1e6;
        const memoryBytes = Math.round(share * options.target.value);
        used.set(id, { cpuNanos: cpuNanos + busyNanos, memoryBytes });
      }
    }
  }

  /** Containers that run, by their tasks. */
  #running(): Map<string, Place> {
    const places = new Map<string, Place>();
    for (const machine of this.#cluster.machines) {
      for (const { id, labels, phase } of machine.engine.states()) {
        if (phase === 'running') places.set(labels[taskIdLabel] ?? '', { machine, id });
      }
    }
    return places;
  }

  /** A container was started: some fail before they are through, each time for itself. */
  mayFail(machine: Machine, id: string, labels: Labels): void {
    const percent = Number(labels[flakyLabel] ?? 0);
    if (percent === 0 || this.#random.float() * 100 >= percent) return;
    const afterMs = this.#random.float() * Number(labels[tookLabel] ?? 0) * 0.9;
    const exitCode = 1 + this.#random.integer(3);
    const stateOf = () => machine.engine.states().find((state) => state.id === id);
    const pid = stateOf()?.pid;
    this.#cluster.clock.after(afterMs, () => {
      const state = stateOf();
      if (state?.phase === 'running' && state.pid === pid) machine.engine.exit(id, exitCode);
    });
  }
}
