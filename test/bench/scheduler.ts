/**
 * Tasks a second that the leader's loop places: from the moment that they are stored as pending until the store has
 * each one's node, with the scheduler, the allocator's pass, each entry encoded, decoded and applied, and a watch that
 * is told. Tasks of services of 100, tasks on their own (a service for each), few tasks on very many nodes, and how
 * time a task grows from 1,000 to 100,000 tasks. No Raft and no disk, as in the figures of the peer.
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
  few: { nodes: 1_000, tasks: 1_000, tasksOfService: 100 },
  many: { nodes: 1_000, tasks: 100_000, tasksOfService: 100 },
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
  const rate = (name: keyof typeof shapes) => times[name]!.map((ms) => (shapes[name].tasks / ms) * 1_000);
  const eachMs = (name: keyof typeof shapes) => Math.min(...processor[name]!) / shapes[name].tasks;
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
    {
      name: 'processor-time-a-task-growth',
      unit: 'times from 1,000 to 100,000 tasks',
      ours: [eachMs('many') / eachMs('few')],
      peer: [],
      limit: { kind: 'worst', atMost: 1.5 },
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
  const store = new Store();
  let index = 0;
  const apply = (changes: readonly Change[]): number => {
    index += 1;
    const result = store.apply(index, encodeEntry({ now: Date.UTC(2026, 0, 1), changes }));
    if (!result.ok) throw new Error(result.message);
    return index;
  };
  const inPieces = (changes: readonly Change[]) => {
    for (let at = 0; at < changes.length; at += changesAtATime) apply(changes.slice(at, at + changesAtATime));
  };
  const nodes = Array.from({ length: shape.nodes }, (_, at) => makeNode(`node-${at}`));
  inPieces([
    { op: 'create', kind: 'cluster', object: makeCluster() },
    ...nodes.map((object): Change => ({ op: 'create', kind: 'node', object })),
  ]);
  const { revisions, tasks } = workOf(shape);
  inPieces(revisions);

  let left = shape.tasks;
  let done = () => {};
  const allPlaced = new Promise<void>((resolve) => {
    done = resolve;
  });
  store.onCommit((commit) => {
    if (commit.kind !== 'changed') return;
    for (const event of commit.events) {
      if (event.kind === 'task' && event.op === 'update' && event.object.Status.State === 'assigned')
        left -= 1;
    }
    if (left === 0) done();
  });
  const loop = new ReconcileLoop({
    store,
    propose: async (changes) => apply(changes),
    clock: realClock,
    random: realRandom,
    log: silentLog,
    reconcilers: [schedulerReconciler()],
    finish: allocate,
  });
  loop.start();
  globalThis.gc?.();
  // One entry, however long: the clock starts when the last task is there.
  apply(tasks);
  const begin = performance.now();
  const usedBefore = process.cpuUsage();
  await allPlaced;
  const wallMs = performance.now() - begin;
  const { user, system } = process.cpuUsage(usedBefore);
  await loop.stop();
  return { wallMs, processorMs: (user + system) / 1_000 };
}

function workOf(shape: Shape): { revisions: Change[]; tasks: Change[] } {
  const revisions: Change[] = [];
  const tasks: Change[] = [];
  for (let first = 0; first < shape.tasks; first += shape.tasksOfService) {
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
