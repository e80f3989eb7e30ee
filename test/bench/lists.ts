/**
 * Milliseconds from a client's request to the last byte of long lists, with 5,000 services and 20,000 tasks on 100
 * nodes in a manager's memory; and how much longer the same takes than with a quarter of them, which tells whether
 * something is looked for anew for each item (4 is in proportion).
 */
import { createServiceChanges } from '../../manager/store/service-change.ts';
import { asId, type NodeId, newId } from '../../proto/ids.ts';
import { TestApi, TestHost, testNode, testTask } from '../manager/api/host.ts';
import type { Bench, BenchOptions } from './bench.ts';
import type { Metric } from './report.ts';

const whole = { services: 5_000, tasksEach: 4, nodes: 100 };
const quarter = 4;
const defaultRuns = 5;
const atATime = 500;

export const lists: Bench = {
  name: 'lists',
  description: `lists of ${whole.services} services and ${whole.services * whole.tasksEach} tasks`,
  missing: () => undefined,
  run: measure,
};

interface Asked {
  readonly name: string;
  readonly path: (world: World) => string;
  readonly atMostMs: number;
}

interface World {
  readonly api: TestApi;
  readonly serviceIds: readonly string[];
  readonly nodeIds: readonly NodeId[];
}

const filters = (value: object) => `filters=${encodeURIComponent(JSON.stringify(value))}`;

const asked: readonly Asked[] = [
  { name: 'service-ls', path: () => '/v1.47/services?status=true', atMostMs: 1_500 },
  {
    name: 'stack-services',
    path: () => `/v1.47/services?status=true&${filters({ label: ['com.docker.stack.namespace=stack7'] })}`,
    atMostMs: 100,
  },
  { name: 'task-ls', path: () => '/v1.47/tasks', atMostMs: 5_000 },
  {
    name: 'service-ps',
    path: ({ serviceIds }) => `/v1.47/tasks?${filters({ service: [serviceIds[7]] })}`,
    atMostMs: 100,
  },
  {
    name: 'service-ps-of-500',
    path: ({ serviceIds }) => `/v1.47/tasks?${filters({ service: serviceIds.slice(0, 500) })}`,
    atMostMs: 1_000,
  },
  {
    name: 'node-ps',
    path: ({ nodeIds }) => `/v1.47/tasks?${filters({ node: [nodeIds[7]], 'desired-state': ['running'] })}`,
    atMostMs: 200,
  },
  {
    name: 'stack-ps',
    path: () => `/v1.47/tasks?${filters({ label: ['com.docker.stack.namespace=stack7'] })}`,
    atMostMs: 100,
  },
  {
    name: 'tasks-up-to-date',
    path: () => `/v1.47/tasks?${filters({ '_up-to-date': ['true'] })}`,
    atMostMs: 5_000,
  },
  { name: 'node-ls', path: () => '/v1.47/nodes', atMostMs: 200 },
];

async function measure({ runs, progress }: BenchOptions): Promise<Metric[]> {
  const [full, part] = [await worldOf(whole.services), await worldOf(whole.services / quarter)];
  try {
    const metrics: Metric[] = [];
    for (const { name, path, atMostMs } of asked) {
      const times = await timesOf(full, path(full), runs ?? defaultRuns);
      const partTimes = await timesOf(part, path(part), runs ?? defaultRuns);
      progress(`${name}: ${times.map((ms) => ms.toFixed(1)).join(' ')} ms`);
      metrics.push({ name, unit: 'ms', ours: times, peer: [], limit: { kind: 'worst', atMost: atMostMs } });
      const growth = Math.min(...times) / Math.min(...partTimes);
      metrics.push({
        name: `${name}-growth`,
        unit: `times for ${quarter} times as much`,
        ours: [growth],
        peer: [],
        // Of short answers, what is the same for each request counts for most; the bound is for the long ones.
        limit: { kind: 'worst', atMost: 2 * quarter },
      });
    }
    return metrics;
  } finally {
    await full.api.close();
    await part.api.close();
  }
}

/** The first answer warms the program up and does not count. */
async function timesOf(world: World, path: string, runs: number): Promise<number[]> {
  const times: number[] = [];
  for (let run = 0; run <= runs; run++) {
    const begin = performance.now();
    const { status } = await world.api.get(path);
    if (status !== 200) throw new Error(`${path} answered ${status}`);
    times.push(performance.now() - begin);
  }
  return times.slice(1);
}

async function worldOf(services: number): Promise<World> {
  const host = new TestHost();
  const nodeIds = Array.from({ length: whole.nodes }, () => newId<NodeId>(host.random));
  host.apply(
    nodeIds.map((id, at) => ({ op: 'create', kind: 'node', object: testNode(id, `w${at}`, 'worker') })),
  );
  const serviceIds: string[] = [];
  for (let first = 0; first < services; first += atATime) {
    const made = Array.from({ length: atATime }, (_, at) => {
      const Labels = { 'com.docker.stack.namespace': `stack${(first + at) % (services / 10)}` };
      const TaskTemplate = { ContainerSpec: { Image: 'nginx:1', Env: ['A=b'] } };
      const Mode = { Replicated: { Replicas: whole.tasksEach } };
      const spec = { Name: `service-${first + at}`, Labels, TaskTemplate, Mode };
      return createServiceChanges(spec, host.clock.now(), () => newId(host.random));
    });
    host.apply(made.flatMap(({ changes }) => changes));
    serviceIds.push(...made.map(({ service }) => service.ID));
  }
  for (const [at, id] of serviceIds.entries()) {
    host.apply(
      Array.from({ length: whole.tasksEach }, (_, slot) => ({
        op: 'create' as const,
        kind: 'task' as const,
        object: testTask(host, id, {
          Slot: slot + 1,
          NodeID: asId<NodeId>(nodeIds[(at * whole.tasksEach + slot) % nodeIds.length]!),
        }),
      })),
    );
  }
  return { api: await TestApi.start(host), serviceIds, nodeIds };
}
