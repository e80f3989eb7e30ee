import assert from 'node:assert/strict';
import { engineLostAfterMs } from '../../../manager/orchestrator/enforcer.ts';
import { engineUnavailableLabel, type GenericResource, type Task } from '../../../proto/docker.ts';
import type { NodeId } from '../../../proto/ids.ts';
import { makeSpec, makeTask } from './objects.ts';
import { World } from './world.ts';

const gpu = (Value: string): GenericResource => ({ NamedResourceSpec: { Kind: 'gpu', Value } });
const ssd = (Value: number): GenericResource => ({ DiscreteResourceSpec: { Kind: 'ssd', Value } });

function resources(world: World, Resources: Record<string, unknown>): World {
  return world.setNode('n1', { Description: { Resources } });
}

/** A service whose tasks `reserve`, all on n1, with n2 free. */
function onOneNode(
  reserve: { NanoCPUs?: number; MemoryBytes?: number },
  generic: GenericResource[][] = [[], []],
): World {
  const world = resources(new World(2), { GenericResources: [gpu('a'), gpu('b'), ssd(5)] });
  const spec = makeSpec({ TaskTemplate: { Resources: { Reservations: reserve } } });
  world.createService('s', { ...spec, Mode: { Replicated: { Replicas: generic.length } } });
  const tasks = generic.map((AssignedGenericResources, at) =>
    makeTask(`own${at + 1}`, 's', { Slot: at + 1, NodeID: 'n1' as NodeId, AssignedGenericResources }),
  );
  for (const object of tasks) {
    world.now += 1000;
    world.apply([{ op: 'create', kind: 'task', object }]);
  }
  return world.settle();
}

function places(world: World): (string | undefined)[] {
  return world
    .active('s')
    .sort((a, b) => a.Slot! - b.Slot!)
    .map((task) => task.NodeID);
}

/** All that is to be stopped stops, and what takes its place is put on n2. */
function follow(world: World): World {
  world.settle();
  for (const task of world.workable()) world.work(task);
  for (const task of world.active('s').filter((one) => one.Status.State === 'pending')) {
    const fields: Partial<Task> = { NodeID: 'n2' as NodeId, Status: { ...task.Status, State: 'assigned' } };
    world.apply([{ op: 'merge', kind: 'task', id: task.ID, fields }]);
  }
  return world.settle();
}

describe('manager/orchestrator/enforcer', () => {
  it('leaves tasks whose node has enough', () => {
    const world = onOneNode({ NanoCPUs: 2e9, MemoryBytes: 4e9 });
    resources(world, { NanoCPUs: 4e9, MemoryBytes: 8e9 });
    resources(world, { NanoCPUs: 5e9, MemoryBytes: 9e9 }).settle();
    assert.deepEqual(places(follow(world)), ['n1', 'n1']);
  });

  const shrunk: [string, Record<string, unknown>, RegExp][] = [
    ['CPUs', { NanoCPUs: 3e9, MemoryBytes: 8e9 }, /node n1 has no room for it any more: too few CPUs/],
    ['memory', { NanoCPUs: 4e9, MemoryBytes: 5e9 }, /too few bytes of memory/],
  ];
  for (const [what, left, words] of shrunk) {
    it(`moves the newest tasks when a node has less ${what}`, () => {
      const world = onOneNode({ NanoCPUs: 2e9, MemoryBytes: 4e9 });
      resources(world, left);
      assert.deepEqual(places(follow(world)), ['n1', 'n2']);
      assert.equal(world.task('own2').DesiredState, 'shutdown');
      const successor = world.active('s').find((task) => task.Slot === 2)!;
      assert.match(successor.Status.Message, words);
      assert.equal(successor.Private.Cause, 'node');
      assert.equal(successor.Private.StartAt, undefined);
      assert.deepEqual(world.unsettled(), []);
    });
  }

  it('moves tasks whose named resource is gone, and those beyond a smaller amount', () => {
    const named = onOneNode({}, [[gpu('a')], [gpu('b')]]);
    resources(named, { GenericResources: [gpu('b')] });
    assert.deepEqual(places(follow(named)), ['n2', 'n1']);
    const counted = onOneNode({}, [[ssd(2)], [ssd(2)], [ssd(1)]]);
    resources(counted, { GenericResources: [ssd(3)] });
    assert.deepEqual(places(follow(counted)), ['n1', 'n2', 'n1']);
  });

  it('asks nothing of a node whose engine was never described', () => {
    const world = onOneNode({ NanoCPUs: 2e9 });
    resources(world, { NanoCPUs: 0, MemoryBytes: 0 });
    assert.deepEqual(places(follow(world)), ['n1', 'n1']);
  });

  it('takes no notice of tasks of a job that have completed', () => {
    const world = new World(1);
    const spec = makeSpec({ TaskTemplate: { Resources: { Reservations: { NanoCPUs: 3e9 } } } });
    world.createService('j', { ...spec, Mode: { ReplicatedJob: { TotalCompletions: 2, MaxConcurrent: 1 } } });
    world.runFor(5_000);
    resources(world, { NanoCPUs: 2e9, MemoryBytes: 8e9 }).runFor(5_000);
    assert.deepEqual(
      world.tasks('j').map((task) => [task.Status.State, task.DesiredState, task.Private.Eviction]),
      [
        ['complete', 'complete', undefined],
        ['complete', 'complete', undefined],
      ],
    );
  });

  describe('an engine that does not answer', () => {
    const down = { Engine: { Labels: { [engineUnavailableLabel]: 'connect ENOENT' } } };

    it('keeps its tasks for half a minute, then they run elsewhere without waiting for it', () => {
      const world = onOneNode({});
      world.setNode('n1', { Description: down });
      world.pass(engineLostAfterMs - 1);
      assert.deepEqual(places(world), ['n1', 'n1']);
      world.pass(1);
      const successors = world.active('s').filter((task) => task.Status.State === 'pending');
      assert.deepEqual(
        successors.map((task) => task.DesiredState),
        ['running', 'running'],
      );
      assert.match(
        successors[0]!.Status.Message,
        /the engine of node n1 has not answered for 30s: connect ENOENT/,
      );
      assert.equal(world.task('own1').DesiredState, 'shutdown');
      assert.deepEqual(world.unsettled(), []);
    });

    it('that is back in time keeps them', () => {
      const world = onOneNode({});
      world.setNode('n1', { Description: down });
      world.pass(engineLostAfterMs - 1);
      world.setNode('n1', { Description: { Engine: { Labels: {} } } });
      world.pass(10 * engineLostAfterMs);
      assert.deepEqual(places(world), ['n1', 'n1']);
      assert.equal(world.store.get('node', 'n1' as NodeId)?.Private.EngineDownSince, undefined);
    });

    it('is borne as long as the service asks, from then on as it asks now', () => {
      const asks = (world: World, policy: string): World =>
        world.updateService('s', (old) => ({ ...old, Labels: { 'shoal.partition': policy } }));
      const waits = asks(onOneNode({}), 'wait:10m');
      waits.setNode('n1', { Description: down }).pass(10 * 60_000 - 1);
      assert.deepEqual(places(waits), ['n1', 'n1']);
      waits.pass(1);
      assert.equal(waits.task('own1').DesiredState, 'shutdown');
      const never = asks(onOneNode({}), 'never');
      never.setNode('n1', { Description: down }).pass(24 * 3_600_000);
      assert.deepEqual(places(never), ['n1', 'n1']);
      assert.deepEqual(never.unsettled(), []);
      asks(never, 'replace').settle();
      assert.equal(never.task('own1').DesiredState, 'shutdown');
    });

    it('is decided by a new leader as by the one before', () => {
      const world = onOneNode({});
      world.setNode('n1', { Description: down });
      world.pass(engineLostAfterMs / 2);
      world.newLeader();
      world.pass(engineLostAfterMs / 2);
      assert.equal(world.task('own1').DesiredState, 'shutdown');
    });
  });
});
