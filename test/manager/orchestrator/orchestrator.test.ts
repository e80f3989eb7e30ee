import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Task } from '../../../proto/docker.ts';
import { type Plan, plan, serviceId, specOf, take } from './model.ts';
import { World } from './world.ts';

function checkAlways(world: World, of: Plan): void {
  const isStartFirst = of.update.Order === 'start-first' || of.rollback.Order === 'start-first';
  const slots = world.bySlot(serviceId);
  for (const [slot, tasks] of slots) {
    // One that leaves a drained node, and the one that is to serve in its place.
    const isMoved = world.store.find('task', 'slot', slot).some((task) => task.Private.Cause === 'move');
    assert.ok(tasks.length <= (isStartFirst || isMoved ? 2 : 1), `${tasks.length} active tasks in ${slot}`);
    if (isMoved) continue;
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

function checkConverged(world: World, of: Plan): void {
  const service = world.service(serviceId);
  const state = service.UpdateStatus?.State;
  assert.ok(state !== 'updating' && state !== 'rollback_started', `still ${state}`);
  const current = service.Spec.TaskTemplate.ContainerSpec.Image;
  const mayGiveUp = of.condition !== 'any' || of.maxAttempts > 0;
  const isStartFirst = of.update.Order === 'start-first' || of.rollback.Order === 'start-first';
  // A slot whose new task failed for good goes on with its old one.
  const isMixed = state === 'paused' || state === 'rollback_paused' || (isStartFirst && mayGiveUp);
  for (const task of world.active(serviceId)) {
    assert.equal(task.Status.State, 'running');
    if (!isMixed) assert.equal(world.image(task), current);
  }
  const slots = new Map<string, Task[]>();
  for (const task of world.tasks(serviceId)) {
    const key = `${task.Slot ?? task.NodeID}`;
    slots.set(key, [...(slots.get(key) ?? []), task]);
  }
  const wanted = of.isGlobal ? world.store.count('node') : service.Spec.Mode.Replicated!.Replicas!;
  assert.equal(slots.size, wanted, 'slots that run or are over');
  if (!mayGiveUp) {
    assert.equal(world.bySlot(serviceId).size, wanted, 'slots that run');
  }
}

function runThrough(of: Plan): void {
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
  world.createService(serviceId, specOf(of)).settle();
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
}

/** Found by the property below: the second move began only when something else happened to the service. */
const twoDrains: Plan = {
  isGlobal: false,
  replicas: 3,
  update: gently('stop-first'),
  rollback: gently('stop-first'),
  condition: 'any',
  maxAttempts: 0,
  historyLimit: 5,
  steps: [
    { kind: 'drain', at: 1 },
    { kind: 'schedule' },
    { kind: 'work', at: 17 },
    { kind: 'drain', at: 0 },
    { kind: 'work', at: 0 },
    { kind: 'schedule' },
    { kind: 'work', at: 7 },
  ],
};

function gently(Order: 'stop-first' | 'start-first'): Plan['update'] {
  return { Parallelism: 1, Delay: 0, FailureAction: 'pause', Monitor: 0, MaxFailureRatio: 0, Order };
}

describe('manager/orchestrator', () => {
  it('goes on emptying nodes when the task that took over from a failed successor serves', () => {
    runThrough(twoDrains);
  });

  it('keeps its promises whatever tasks, nodes, users and leaders do', () => {
    fc.assert(fc.property(plan, runThrough), { numRuns: 500 });
  }).timeout(120_000);
});
