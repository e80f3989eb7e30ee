import assert from 'node:assert/strict';
import type { NodeId } from '../../../proto/ids.ts';
import { makeNode, makeSpec, makeTask } from './objects.ts';
import { World } from './world.ts';

function service(nodes = 3, constraints: string[] = []): World {
  const spec = makeSpec({ TaskTemplate: { Placement: { Constraints: constraints } } });
  return new World(nodes).createService('s', { ...spec, Mode: { Global: {} } }).run();
}

function nodes(world: World): string[] {
  return world
    .active('s')
    .map((task) => task.NodeID as string)
    .sort();
}

describe('manager/orchestrator/global', () => {
  it('runs one task on each node, also on those that come later', () => {
    const world = service(2);
    assert.deepEqual(nodes(world), ['n1', 'n2']);
    world.apply([{ op: 'create', kind: 'node', object: makeNode('n3') }]);
    assert.deepEqual(nodes(world.run()), ['n1', 'n2', 'n3']);
    assert.equal(world.running('s').length, 3);
  });

  it('leaves nodes that are down, drained or removed, and comes back', () => {
    const world = service();
    world.setNode('n1', { Status: { State: 'down' } }).run();
    assert.deepEqual(nodes(world), ['n2', 'n3']);
    world.setNode('n2', { Spec: { Availability: 'drain' } }).run();
    assert.deepEqual(nodes(world), ['n3']);
    world.setNode('n1', { Status: { State: 'ready' } }).run();
    world.setNode('n2', { Spec: { Availability: 'active' } }).run();
    assert.deepEqual(nodes(world), ['n1', 'n2', 'n3']);
    world.apply([{ op: 'remove', kind: 'node', id: 'n3' as NodeId }]);
    assert.deepEqual(nodes(world.run()), ['n1', 'n2']);
  });

  it('is removed with its tasks, once these have stopped', () => {
    const world = service(2);
    world.removeService('s').settle();
    assert.deepEqual(
      world.tasks('s').map(({ DesiredState }) => DesiredState),
      ['remove', 'remove'],
    );
    assert.equal(world.run().tasks('s').length, 0);
  });

  it('keeps its task on a paused node, and starts none there', () => {
    const world = service(2);
    world.setNode('n1', { Spec: { Availability: 'pause' } }).run();
    assert.deepEqual(nodes(world), ['n1', 'n2']);
    const [task] = world.active('s').filter((one) => one.NodeID === 'n1');
    world.report(task!.ID, 'failed').runFor(20_000);
    assert.deepEqual(nodes(world), ['n2']);
    world.setNode('n1', { Spec: { Availability: 'active' } }).runFor(20_000);
    assert.deepEqual(nodes(world), ['n1', 'n2']);
  });

  it('goes by the constraints, and follows labels', () => {
    const world = service(2, ['node.labels.zone==a']);
    assert.deepEqual(nodes(world), []);
    world.setNode('n1', { Spec: { Labels: { zone: 'a' } } }).run();
    assert.deepEqual(nodes(world), ['n1']);
    world.setNode('n1', { Spec: { Labels: {} } }).run();
    assert.deepEqual(nodes(world), []);
  });

  it('restarts a task on its node, after the delay', () => {
    const world = service(2);
    const [task] = world.active('s');
    world.report(task!.ID, 'failed').settle();
    const next = world.active('s').find((one) => one.NodeID === task!.NodeID);
    assert.equal(next?.DesiredState, 'ready');
    assert.equal(world.runFor(6_000).running('s').length, 2);
  });

  it('does not restart beyond the attempts', () => {
    const spec = makeSpec({
      TaskTemplate: { RestartPolicy: { Condition: 'on-failure', MaxAttempts: 1, Delay: 0 } },
    });
    const world = new World(1).createService('s', { ...spec, Mode: { Global: {} } }).run();
    for (let fall = 0; fall < 2; fall += 1) world.report(world.active('s')[0]!.ID, 'failed').run();
    assert.equal(world.runFor(60_000).active('s').length, 0);
    world.newLeader();
    assert.equal(world.runFor(60_000).active('s').length, 0);
  });

  it('comes back to a node that was drained, whatever the attempts', () => {
    const spec = makeSpec({ TaskTemplate: { RestartPolicy: { MaxAttempts: 1, Delay: 0 } } });
    const world = new World(1).createService('s', { ...spec, Mode: { Global: {} } }).run();
    world.report(world.active('s')[0]!.ID, 'failed').run();
    world.setNode('n1', { Spec: { Availability: 'drain' } }).run();
    assert.deepEqual(nodes(world), []);
    world.setNode('n1', { Spec: { Availability: 'active' } }).run();
    assert.equal(world.running('s').length, 1);
  });

  it('makes up for a task that was taken away', () => {
    const world = service(2);
    const [task] = world.active('s');
    world.apply([{ op: 'remove', kind: 'task', id: task!.ID }]);
    assert.deepEqual(nodes(world.run()), ['n1', 'n2']);
  });

  it('keeps the services of a node apart', () => {
    const world = service(2);
    world.createService('r', { ...makeSpec({ Name: 'other' }), Mode: { Global: {} } }).run();
    world.report(world.active('s')[0]!.ID, 'failed').runFor(10_000);
    assert.deepEqual(nodes(world), ['n1', 'n2']);
    assert.equal(world.running('r').length, 2);
    assert.equal(world.tasks('r').length, 2);
  });

  /** What is told here happens while nobody leads. */
  function behind(world: World, happens: () => void): World {
    happens();
    world.newLeader();
    return world;
  }

  it('a new leader restarts what ended while nobody led', () => {
    for (const state of ['failed', 'rejected'] as const) {
      const world = service(2);
      behind(world, () => world.report(world.active('s')[0]!.ID, state)).runFor(10_000);
      assert.deepEqual(nodes(world), ['n1', 'n2']);
      assert.equal(world.running('s').length, 2);
    }
  });

  it('a new leader leaves one task where there are two', () => {
    const world = service(1);
    const object = makeTask('extra', 's', { NodeID: 'n1' as NodeId });
    behind(world, () => world.apply([{ op: 'create', kind: 'task', object }])).run();
    assert.equal(world.running('s').length, 1);
  });

  it('a new leader takes tasks off nodes that were drained or removed meanwhile', () => {
    const world = service(3);
    behind(world, () => {
      world.setNode('n1', { Spec: { Availability: 'drain' } });
      world.apply([{ op: 'remove', kind: 'node', id: 'n2' as NodeId }]);
    }).run();
    assert.deepEqual(nodes(world), ['n3']);
  });

  it('is updated a node at a time', () => {
    const world = service(3);
    world.updateService('s', (spec) => ({
      ...spec,
      TaskTemplate: { ...spec.TaskTemplate, ContainerSpec: { Image: 'web:2' } },
    }));
    world.settle();
    assert.equal(world.active('s').filter((task) => world.image(task) === 'web:2').length, 1);
    world.runFor(30_000);
    assert.ok(world.running('s').every((task) => world.image(task) === 'web:2'));
    assert.equal(world.service('s').UpdateStatus?.State, 'completed');
  });

  it('updates a node that was paused or down in the meantime when it comes back', () => {
    for (const away of [{ Status: { State: 'down' } }, { Spec: { Availability: 'pause' } }] as const) {
      const world = service(2);
      world.setNode('n1', away).run();
      world.updateService('s', (spec) => ({
        ...spec,
        TaskTemplate: { ...spec.TaskTemplate, ContainerSpec: { Image: 'web:2' } },
      }));
      world.runFor(30_000);
      assert.equal(world.service('s').UpdateStatus?.State, 'completed');
      world.setNode('n1', { Status: { State: 'ready' }, Spec: { Availability: 'active' } }).runFor(30_000);
      assert.deepEqual(
        world.running('s').map((task) => world.image(task)),
        ['web:2', 'web:2'],
      );
    }
  });
});
