/**
 * Tasks a second that the leader's loop places: from the moment that they are stored as pending until the store has
 * each one's node, with the scheduler, the allocator's pass, each entry encoded, decoded and applied, and a watch that
 * is told. Tasks of services of 100, tasks on their own (a service for each), few tasks on very many nodes, and how
 * time a task grows: of 100,000 at once against waves of 1,000, and from a cluster's first waves to the last. No Raft and no disk, as in the figures of the peer.
 */
import { realClock, realRandom } from '../../cli/runtime.ts';
import { allocate } from '../../manager/allocator/allocate.ts';
import { ReconcileLoop } from '../../manager/orchestrator/loop.ts';
import { schedulerReconciler } from '../../manager/scheduler/schedule.ts';
import { type Change, encodeEntry } from '../../manager/store/change.ts';
import { createServiceChanges } from '../../manager/store/service-change.ts';
import { Store } from '../../manager/store/store.ts';
import type { Task } from '../../proto/docker.ts';
import { asId, newId, type TaskId } from '../../proto/ids.ts';
import { silentLog } from '../../proto/ports.ts';
import { makeCluster, makeNode, makeSpec } from '../manager/orchestrator/objects.ts';
import type { Bench, BenchOptions } from './bench.ts';
import type { Metric } from './report.ts';

const defaultRuns = 5;
const changesAtATime = 2_000;
const waveTasks = 1_000;
const growthRuns = 3;
/** What SwarmKit's scheduler did with its store on two shared cores, without Raft. */
const peer = { services: 16_200, single: 3_040, manyNodesS: 64 } as const;

export const scheduler: Bench = {
  name: 'scheduler',
  description: 'tasks placed a second, with store commit and watch',
  missing: () => undefined,
  run: measure,
};

interface Shape {
  readonly nodes: number;
  readonly tasks: number;
  readonly tasksOfService: number;
}

const shapes = {
  services: { nodes: 1_000, tasks: 10_000, tasksOfService: 100 },
  single: { nodes: 1_000, tasks: 10_000, tasksOfService: 1 },
  manyNodes: { nodes: 100_000, tasks: 1_000, tasksOfService: 100 },
  atOnce: { nodes: 1_000, tasks: 100_000, tasksOfService: 100 },
} satisfies Record<string, Shape>;

async function measure({ runs, progress }: BenchOptions): Promise<Metric[]> {
  const times: Record<string, number[]> = {};
  const processor: Record<string, number[]> = {};
  await place({ ...shapes.services, tasks: 5_000 });
  for (const [name, shape] of Object.entries(shapes)) {
    const taken: Taken[] = [];
    for (let run = 0; run < (runs ?? defaultRuns); run += 1) taken.push(await place(shape));
    times[name] = taken.map(({ wallMs }) => wallMs);
    processor[name] = taken.map(({ processorMs }) => processorMs);
    const words = taken.map(({ wallMs, processorMs }) => `${wallMs.toFixed(0)} (${processorMs.toFixed(0)})`);
    progress(`${name}: ${words.join(' ')} ms (of processor time)`);
  }
  const growth: Growth[] = [];
  for (let run = 0; run < growthRuns; run += 1) growth.push(await growthIn(shapes.atOnce));
  progress(`waves: ${growth.map(({ eachUs }) => eachUs.toFixed(1)).join(' ')} µs a task (of processor time)`);
  const rate = (name: keyof typeof shapes) => times[name]!.map((ms) => (shapes[name].tasks / ms) * 1_000);
  const us = (name: keyof typeof shapes) => processor[name]!.map((ms) => (ms / shapes[name].tasks) * 1_000);
  return [
    {
      name: 'service-tasks',
      unit: '1/s',
      ours: rate('services'),
      peer: [peer.services],
      limit: { kind: 'ratio-least', atLeast: 50_000 / peer.services },
    },
    {
      name: 'single-tasks',
      unit: '1/s',
      ours: rate('single'),
      peer: [peer.single],
      limit: { kind: 'ratio-least', atLeast: 30_000 / peer.single },
    },
    {
      name: 'tasks-on-100000-nodes',
      unit: 's',
      ours: times.manyNodes!.map((ms) => ms / 1_000),
      peer: [peer.manyNodesS],
      limit: { kind: 'ratio', atMost: 1 / peer.manyNodesS },
    },
    {
      name: 'service-task-processor-time',
      unit: 'µs',
      ours: us('services'),
      peer: [],
    },
    { name: 'single-task-processor-time', unit: 'µs', ours: us('single'), peer: [] },
    // The same 100,000 tasks on both sides, and what the garbage collector does for them.
    {
      name: 'growth-100000-at-once',
      unit: 'times the processor time of as many in waves of 1,000',
      ours: [Math.min(...us('atOnce')) / Math.min(...growth.map(({ eachUs }) => eachUs))],
      peer: [],
      limit: { kind: 'worst', atMost: 1.5 },
    },
    {
      name: 'growth-last-waves',
      unit: 'times the processor time a task of the first ten',
      ours: growth.map(({ lastOverFirst }) => lastOverFirst),
      peer: [],
      limit: { kind: 'percentile', percent: 50, atMost: 1.5 },
    },
  ];
}

interface Taken {
  readonly wallMs: number;
  /** Of all the process's threads: what a machine that is busy with other things says least wrongly. */
  readonly processorMs: number;
}

/** Places the tasks of a cluster made for it; answers how long that took. */
async function place(shape: Shape): Promise<Taken> {
  const bed = new TestBed(shape.nodes);
  const taken = await bed.place(workOf(shape));
  await bed.end();
  return taken;
}

interface Growth {
  /** Processor time a task, of all waves. */
  readonly eachUs: number;
  /** Of the last ten waves over the first ten: medians, for the collector comes when it likes. */
  readonly lastOverFirst: number;
}

/** The tasks of `shape` in waves, one after the other, in one cluster that grows by them. */
async function growthIn(shape: Shape): Promise<Growth> {
  const bed = new TestBed(shape.nodes);
  const waves: number[] = [];
  for (let from = 0; from < shape.tasks; from += waveTasks) {
    waves.push((await bed.place(workOf({ ...shape, tasks: waveTasks }, from))).processorMs);
  }
  await bed.end();
  const median = (list: number[]) => list.sort((a, b) => a - b)[Math.floor(list.length / 2)]!;
  return {
    eachUs: (waves.reduce((sum, ms) => sum + ms, 0) / shape.tasks) * 1_000,
    lastOverFirst: median(waves.slice(-10)) / median(waves.slice(0, 10)),
  };
}

/** A cluster's store and its leader's loop, with the scheduler alone. */
class TestBed {
  private readonly store = new Store();
  private readonly loop: ReconcileLoop;
  private index = 0;
  private placed = 0;
  private onPlaced = () => {};

  constructor(nodeCount: number) {
    const nodes = Array.from({ length: nodeCount }, (_, at) => makeNode(`node-${at}`));
    this.applyInPieces([
      { op: 'create', kind: 'cluster', object: makeCluster() },
      ...nodes.map((object): Change => ({ op: 'create', kind: 'node', object })),
    ]);
    this.store.onCommit((commit) => {
      if (commit.kind !== 'changed') return;
      for (const event of commit.events) {
        if (event.kind === 'task' && event.op === 'update' && event.object.Status.State === 'assigned')
          this.placed += 1;
      }
      this.onPlaced();
    });
    this.loop = new ReconcileLoop({
      store: this.store,
      propose: async (changes) => this.apply(changes),
      clock: realClock,
      random: realRandom,
      log: silentLog,
      reconcilers: [schedulerReconciler()],
      finish: allocate,
    });
    this.loop.start();
  }

  /** Stores the tasks and waits until all of them are placed. */
  async place({ revisions, tasks }: Work): Promise<Taken> {
    this.applyInPieces(revisions);
    const wanted = this.placed + tasks.length;
    const allPlaced = new Promise<void>((resolve) => {
      this.onPlaced = () => this.placed === wanted && resolve();
    });
    globalThis.gc?.();
    // One entry, however long: the clock starts when the last task is there.
    this.apply(tasks);
    const begin = performance.now();
    const usedBefore = process.cpuUsage();
    await allPlaced;
    const wallMs = performance.now() - begin;
    const { user, system } = process.cpuUsage(usedBefore);
    return { wallMs, processorMs: (user + system) / 1_000 };
  }

  end(): Promise<void> {
    return this.loop.stop();
  }

  private apply(changes: readonly Change[]): number {
    this.index += 1;
    const entry = encodeEntry({ now: Date.UTC(2026, 0, 1), changes });
    const result = this.store.apply(this.index, entry);
    if (!result.ok) throw new Error(result.message);
    return this.index;
  }

  private applyInPieces(changes: readonly Change[]): void {
    for (let at = 0; at < changes.length; at += changesAtATime)
      this.apply(changes.slice(at, at + changesAtATime));
  }
}

/** Revisions of services, and the tasks that are to be placed. */
interface Work {
  readonly revisions: Change[];
  readonly tasks: Change[];
}

/** Tasks numbered from `from` on. */
function workOf(shape: Shape, from = 0): Work {
  const revisions: Change[] = [];
  const tasks: Change[] = [];
  for (let first = from; first < from + shape.tasks; first += shape.tasksOfService) {
    const Mode = { Replicated: { Replicas: shape.tasksOfService } };
    const spec = { ...makeSpec({ Mode }), Name: `service-${first}` };
    const made = createServiceChanges(spec, 0, () => newId(realRandom));
    revisions.push(...made.changes);
    for (let slot = 1; slot <= shape.tasksOfService; slot += 1) {
      const object: Task = {
        ID: asId<TaskId>(`task-${first + slot}`),
        Version: { Index: 0 },
        CreatedAt: '',
        UpdatedAt: '',
        ServiceID: made.service.ID,
        RevisionID: made.service.Private.RevisionID,
        Slot: slot,
        Labels: {},
        Status: {
          Timestamp: '2026-01-01T00:00:00.000Z',
          State: 'pending',
          Message: 'pending task scheduling',
        },
        DesiredState: 'running',
        Private: {},
      };
      tasks.push({ op: 'create', kind: 'task', object });
    }
  }
  return { revisions, tasks };
}
