import assert from 'node:assert/strict';
import fc from 'fast-check';
import { isActive } from '../../../manager/orchestrator/slots.ts';
import type { ServiceSpec, Task, UpdateConfig } from '../../../proto/docker.ts';
import { makeSpec } from './objects.ts';
import { World } from './world.ts';

const serviceId = 's';

interface Plan {
  readonly isGlobal: boolean;
  readonly replicas: number;
  readonly update: UpdateConfig;
  readonly rollback: UpdateConfig;
  readonly condition: 'none' | 'on-failure' | 'any';
  readonly maxAttempts: number;
  readonly historyLimit: number;
  readonly steps: readonly Step[];
}

type Step =
  | {
      readonly kind: 'work' | 'fail' | 'complete' | 'lose' | 'drain' | 'pause' | 'remove';
      readonly at: number;
    }
  | { readonly kind: 'back'; readonly at: number }
  | { readonly kind: 'pass'; readonly ms: number }
  | { readonly kind: 'scale' | 'image'; readonly to: number }
  | { readonly kind: 'leader' | 'rollback' | 'schedule' };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('work' as const), at: fc.nat(20) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('fail' as const), at: fc.nat(20) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom('complete' as const, 'lose' as const, 'drain' as const, 'pause' as const),
      at: fc.nat(20),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('back' as const), at: fc.nat(20) }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.constantFrom(10, 900, 6_000, 70_000) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('scale' as const), to: fc.nat(5) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('image' as const), to: fc.nat(3) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom('leader' as const, 'rollback' as const, 'schedule' as const, 'schedule' as const),
    }),
  },
);

const config: fc.Arbitrary<UpdateConfig> = fc.record({
  Parallelism: fc.constantFrom(1, 2),
  Delay: fc.constantFrom(0, 2e9),
  FailureAction: fc.constantFrom('pause' as const, 'continue' as const, 'rollback' as const),
  Monitor: fc.constantFrom(0, 1e9),
  MaxFailureRatio: fc.constantFrom(0, 0.5),
  Order: fc.constantFrom('stop-first' as const, 'start-first' as const),
});

const plan: fc.Arbitrary<Plan> = fc.record({
  isGlobal: fc.boolean(),
  replicas: fc.nat(4),
  update: config,
  rollback: config,
  condition: fc.constantFrom('none' as const, 'on-failure' as const, 'any' as const),
  maxAttempts: fc.constantFrom(0, 0, 2),
  historyLimit: fc.constantFrom(0, 1, 5),
  steps: fc.array(step, { maxLength: 60, size: 'max' }),
});

function specOf(of: Plan): ServiceSpec {
  return makeSpec({
    Mode: of.isGlobal ? { Replicated: undefined, Global: {} } : { Replicated: { Replicas: of.replicas } },
    TaskTemplate: { RestartPolicy: { Condition: of.condition, MaxAttempts: of.maxAttempts } },
    UpdateConfig: of.update,
    RollbackConfig: of.rollback,
  });
}

function withoutAbsentMode(spec: ServiceSpec): ServiceSpec {
  return spec.Mode.Global ? { ...spec, Mode: { Global: {} } } : spec;
}

function pick<T>(items: readonly T[], at: number): T | undefined {
  return items.length === 0 ? undefined : items[at % items.length];
}

function take(world: World, of: Plan, now: Step): void {
  const nodes = world.store.list('node');
  switch (now.kind) {
    case 'work': {
      const task = pick(world.workable(), now.at);
      if (task) world.work(task);
      break;
    }
    case 'fail':
    case 'complete': {
      const alive = world.workable().concat(world.running(serviceId));
      const task = pick(alive, now.at);
      const node = task && world.store.get('node', task.NodeID);
      if (task && isActive(task) && node?.Status.State === 'ready') {
        world.report(task.ID, now.kind === 'fail' ? 'failed' : 'complete');
      }
      break;
    }
    case 'lose':
      world.setNode(pick(nodes, now.at)!.ID, { Status: { State: 'down' } });
      break;
    case 'drain':
    case 'pause':
      world.setNode(pick(nodes, now.at)!.ID, { Spec: { Availability: now.kind } });
      break;
    case 'back':
      world.setNode(pick(nodes, now.at)!.ID, {
        Status: { State: 'ready' },
        Spec: { Availability: 'active' },
      });
      break;
    case 'pass':
      world.pass(now.ms);
      break;
    case 'scale':
      if (!of.isGlobal) world.scale(serviceId, now.to);
      break;
    case 'image':
      world.updateService(serviceId, (spec) => ({
        ...spec,
        TaskTemplate: { ...spec.TaskTemplate, ContainerSpec: { Image: `web:${now.to}` } },
      }));
      break;
    case 'rollback':
      world.rollbackService(serviceId);
      break;
    case 'leader':
      world.newLeader();
      break;
    case 'schedule':
      world.schedule();
      break;
    case 'remove':
      break;
  }
}

function checkAlways(world: World, of: Plan): void {
  const isStartFirst = of.update.Order === 'start-first' || of.rollback.Order === 'start-first';
  const slots = world.bySlot(serviceId);
  for (const [slot, tasks] of slots) {
    assert.ok(tasks.length <= (isStartFirst ? 2 : 1), `${tasks.length} active tasks in ${slot}`);
    const images = new Set(tasks.map((task) => world.image(task)));
    assert.equal(images.size, tasks.length, `two active tasks of one image in ${slot}`);
  }
  if (!of.isGlobal) {
    const wanted = world.service(serviceId).Spec.Mode.Replicated!.Replicas!;
    assert.ok(slots.size <= wanted, `${slots.size} slots instead of ${wanted}`);
  }
  const current = world.service(serviceId).Spec.TaskTemplate.ContainerSpec.Image;
  const inSwap = world
    .active(serviceId)
    .filter((task) => task.Private.Cause === 'update' && task.Private.RunningSince === undefined)
    .filter((task) => world.image(task) === current);
  const limit = Math.max(of.update.Parallelism, of.rollback.Parallelism);
  assert.ok(inSwap.length <= limit, `${inSwap.length} tasks being updated at a time`);
  const more = world.unsettled().map((change) => JSON.stringify(change));
  assert.ok(more.length === 0, `a look at everything finds more to do: ${more.join(' ').slice(-600)}`);
}

function restore(world: World): void {
  for (const node of world.store.list('node')) {
    world.setNode(node.ID, { Status: { State: 'ready' }, Spec: { Availability: 'active' } });
  }
  world.runFor(200_000, 5_000);
}

function isOver(world: World, slotTasks: readonly Task[]): boolean {
  const last = slotTasks.at(-1);
  return (
    last !== undefined &&
    !isActive(last) &&
    world.service(serviceId).Spec.TaskTemplate.RestartPolicy !== undefined
  );
}

function checkConverged(world: World, of: Plan): void {
  const service = world.service(serviceId);
  const state = service.UpdateStatus?.State;
  assert.ok(state !== 'updating' && state !== 'rollback_started', `still ${state}`);
  const current = service.Spec.TaskTemplate.ContainerSpec.Image;
  const isMixed = state === 'paused' || state === 'rollback_paused' || of.update.FailureAction === 'continue';
  for (const task of world.active(serviceId)) {
    assert.equal(task.Status.State, 'running');
    if (!isMixed && of.rollback.FailureAction !== 'continue') assert.equal(world.image(task), current);
  }
  const slots = new Map<string, Task[]>();
  for (const task of world.tasks(serviceId)) {
    const key = `${task.Slot ?? task.NodeID}`;
    slots.set(key, [...(slots.get(key) ?? []), task]);
  }
  const filled = [...slots.values()].filter((tasks) => tasks.some(isActive) || isOver(world, tasks)).length;
  const wanted = of.isGlobal ? world.store.count('node') : service.Spec.Mode.Replicated!.Replicas!;
  assert.equal(filled, wanted, 'slots that run or are over');
  if (of.condition === 'any' && of.maxAttempts === 0) {
    assert.equal(world.bySlot(serviceId).size, wanted, 'slots that run');
  }
}

describe('manager/orchestrator', () => {
  it('keeps its promises whatever tasks, nodes, users and leaders do', () => {
    fc.assert(
      fc.property(plan, (of) => {
        const world = new World(3);
        world.apply([
          {
            op: 'merge',
            kind: 'cluster',
            id: world.store.cluster()!.ID,
            fields: {
              Spec: {
                ...world.store.cluster()!.Spec,
                Orchestration: { TaskHistoryRetentionLimit: of.historyLimit },
              },
            },
          },
        ]);
        world.createService(serviceId, withoutAbsentMode(specOf(of))).settle();
        for (const now of of.steps) {
          world.pass(1);
          take(world, of, now);
          world.settle();
          checkAlways(world, of);
        }
        restore(world);
        checkAlways(world, of);
        checkConverged(world, of);
        world.removeService(serviceId).runFor(1_000);
        assert.equal(world.store.count('task'), 0);
        assert.equal(world.store.count('revision'), 0);
      }),
      { numRuns: 300 },
    );
  }).timeout(120_000);

  it('leaves services of the job modes alone', () => {
    const world = new World(2);
    world.createService('j', { ...makeSpec(), Mode: { ReplicatedJob: { TotalCompletions: 2 } } });
    world.createService('k', { ...makeSpec({ Name: 'k' }), Mode: { GlobalJob: {} } });
    world.runFor(10_000);
    assert.equal(world.store.count('task'), 0);
    assert.deepEqual(world.unsettled(), []);
  });
});
