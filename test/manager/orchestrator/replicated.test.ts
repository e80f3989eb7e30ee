import assert from 'node:assert/strict';
import { sparingOrder } from '../../../manager/orchestrator/slots.ts';
import type { NodeId } from '../../../proto/ids.ts';
import type { TaskState } from '../../../proto/task-state.ts';
import { makeSpec, makeTask } from './objects.ts';
import { World } from './world.ts';

function service(replicas: number): World {
  return new World(3).createService('s', makeSpec({ Mode: { Replicated: { Replicas: replicas } } })).run();
}

function slots(world: World): number[] {
  return world
    .active('s')
    .map((task) => task.Slot!)
    .sort((left, right) => left - right);
}

describe('manager/orchestrator/replicated', () => {
  it('fills as many slots as there are replicas, one when the spec says nothing', () => {
    assert.deepEqual(slots(service(3)), [1, 2, 3]);
    assert.deepEqual(slots(service(0)), []);
    const world = new World(1).createService('s', { ...makeSpec(), Mode: { Replicated: {} } }).run();
    assert.deepEqual(slots(world), [1]);
  });

  it('scales up, down, to nothing and back', () => {
    const world = service(2);
    assert.deepEqual(slots(world.scale('s', 5).run()), [1, 2, 3, 4, 5]);
    assert.deepEqual(slots(world.scale('s', 2).run()).length, 2);
    assert.deepEqual(slots(world.scale('s', 0).run()), []);
    assert.equal(world.tasks('s').length, 0, 'scaled-down tasks are forgotten');
    assert.deepEqual(slots(world.scale('s', 3).run()), [1, 2, 3]);
    assert.equal(world.running('s').length, 3);
    assert.equal(world.service('s').UpdateStatus, undefined, 'scaling is no update');
  });

  it('fills gaps with the lowest numbers', () => {
    const world = service(4);
    world.scale('s', 1).run();
    const [left] = slots(world);
    world.scale('s', 2).run();
    assert.deepEqual(slots(world), left === 1 ? [1, 2] : [1, left]);
  });

  it('waits with a slot that is filled again until its old task has stopped', () => {
    const world = service(1);
    const [old] = world.active('s');
    world.scale('s', 0).settle();
    assert.equal(world.task(old!.ID).DesiredState, 'remove');
    world.scale('s', 1).settle();
    const [next] = world.active('s');
    assert.equal(next?.DesiredState, 'ready');
    world.report(old!.ID, 'shutdown').settle();
    assert.equal(world.task(old!.ID), undefined);
    assert.equal(world.task(next!.ID).DesiredState, 'running');
  });

  const sparing: [string, [number, string | undefined, TaskState][], number[]][] = [
    [
      'the newest go first',
      [
        [1, 'a', 'running'],
        [2, 'b', 'running'],
        [3, 'c', 'running'],
      ],
      [1, 2, 3],
    ],
    [
      'the fullest nodes go first',
      [
        [1, 'a', 'running'],
        [2, 'a', 'running'],
        [3, 'b', 'running'],
      ],
      [1, 3, 2],
    ],
    [
      'those that do not serve go before those that do',
      [
        [1, 'a', 'starting'],
        [2, 'b', 'running'],
      ],
      [2, 1],
    ],
    [
      'on one node too',
      [
        [1, 'a', 'starting'],
        [2, 'a', 'running'],
      ],
      [2, 1],
    ],
    [
      'those without a node go before all',
      [
        [1, undefined, 'pending'],
        [2, 'a', 'running'],
        [3, 'a', 'running'],
      ],
      [2, 3, 1],
    ],
    [
      'ended ones as well',
      [
        [1, 'a', 'failed'],
        [2, 'b', 'running'],
        [3, 'b', 'running'],
      ],
      [2, 3, 1],
    ],
    [
      'the spread outweighs health',
      [
        [1, 'a', 'running'],
        [2, 'a', 'running'],
        [3, 'b', 'starting'],
      ],
      [1, 3, 2],
    ],
  ];
  for (const [name, tasks, expected] of sparing) {
    it(`when scaling down, ${name}`, () => {
      const rows = tasks.map(([number, node, State]) => ({
        key: `s/${number}`,
        place: { Slot: number },
        tasks: [
          makeTask(`t${number}`, 's', {
            Slot: number,
            ...(node ? { NodeID: node as NodeId } : {}),
            Status: { State },
          }),
        ],
      }));
      assert.deepEqual(
        sparingOrder(rows).map((slot) => slot.place.Slot),
        expected,
      );
    });
  }

  it('keeps tasks spread over nodes when it scales down', () => {
    const world = service(6);
    world.scale('s', 3).run();
    const nodes = new Set(world.active('s').map((task) => task.NodeID));
    assert.equal(nodes.size, 3);
  });

  it('replaces the tasks of a node that is down at once, and says why', () => {
    const world = service(3);
    const [lost] = world.active('s').filter((task) => task.NodeID === 'n2');
    world.setNode('n2', { Status: { State: 'down' } }).settle();
    const old = world.task(lost!.ID);
    assert.equal(old.DesiredState, 'shutdown');
    assert.equal(old.Status.State, 'running', 'its status stays as last seen');
    assert.equal(old.Status.Err, 'node n2 is down');
    const next = world.active('s').find((task) => task.Slot === lost!.Slot);
    assert.equal(next?.DesiredState, 'running');
    assert.match(next!.Status.Message, /node n2 is down/);
    world.run();
    assert.equal(world.running('s').length, 3);
    assert.ok(world.active('s').every((task) => task.NodeID !== 'n2'));
  });

  it('runs nothing twice when a lost node comes back', () => {
    const world = service(3);
    const [lost] = world.active('s').filter((task) => task.NodeID === 'n2');
    world.setNode('n2', { Status: { State: 'down' } }).run();
    world.setNode('n2', { Status: { State: 'ready' } }).settle();
    world.report(lost!.ID, 'running').settle();
    assert.equal(world.task(lost!.ID).DesiredState, 'shutdown');
    assert.equal(world.active('s').length, 3);
    world.run();
    assert.equal(world.task(lost!.ID).Status.State, 'shutdown');
  });

  it('moves the tasks of a drained node, and leaves those of a paused one', () => {
    const world = service(3);
    const before = world.active('s');
    world.setNode('n1', { Spec: { Availability: 'pause' } }).run();
    assert.deepEqual(world.active('s'), before);
    world.setNode('n1', { Spec: { Availability: 'drain' } }).run();
    assert.equal(world.running('s').length, 3);
    assert.ok(world.active('s').every((task) => task.NodeID !== 'n1'));
  });

  it('gives up the tasks of a node that was removed', () => {
    const world = service(3);
    const [lost] = world.active('s').filter((task) => task.NodeID === 'n3');
    world.apply([{ op: 'remove', kind: 'node', id: 'n3' as NodeId }]);
    world.settle();
    assert.equal(world.task(lost!.ID).Status.State, 'orphaned');
    assert.equal(world.task(lost!.ID).Status.Err, 'node n3 was removed');
    assert.equal(world.run().running('s').length, 3);
  });

  it('moves a task whose node no longer satisfies its constraints', () => {
    const world = new World(2);
    world
      .setNode('n1', { Spec: { Labels: { zone: 'a' } } })
      .setNode('n2', { Spec: { Labels: { zone: 'a' } } });
    world.createService(
      's',
      makeSpec({ TaskTemplate: { Placement: { Constraints: ['node.labels.zone==a'] } } }),
    );
    const [task] = world.run().active('s');
    world.setNode(task!.NodeID!, { Spec: { Labels: { zone: 'b' } } }).settle();
    assert.equal(world.task(task!.ID).DesiredState, 'shutdown');
    const [next] = world.active('s');
    assert.equal(next?.Private.Cause, 'node');
    assert.match(next!.Status.Message, /node\.labels\.zone==a/);
  });

  it('leaves a task where it is when its constraint was taken back before the label', () => {
    const world = new World(2);
    world
      .setNode('n1', { Spec: { Labels: { zone: 'a' } } })
      .setNode('n2', { Spec: { Labels: { zone: 'a' } } });
    const constrained = makeSpec({ TaskTemplate: { Placement: { Constraints: ['node.labels.zone==a'] } } });
    const before = world.createService('s', constrained).run().active('s');
    world.updateService('s', () => makeSpec()).run();
    world.setNode(before[0]!.NodeID!, { Spec: { Labels: {} } }).run();
    assert.deepEqual(
      world.active('s').map((task) => task.ID),
      before.map((task) => task.ID),
    );
  });

  it('goes by the constraint that the service has now, also for a task that was made before it had one', () => {
    const world = new World(2);
    const zoned = { Spec: { Labels: { zone: 'a' } } };
    world.setNode('n1', zoned).setNode('n2', zoned);
    const [task] = world.createService('s', makeSpec()).run().active('s');
    const Placement = { Constraints: ['node.labels.zone==a'] };
    world.updateService('s', () => makeSpec({ TaskTemplate: { Placement } })).run();
    assert.deepEqual(
      world.active('s').map(({ ID }) => ID),
      [task!.ID],
      'its node is as the new constraint asks',
    );
    world.setNode(task!.NodeID!, { Spec: { Labels: {} } }).settle();
    assert.equal(world.task(task!.ID).DesiredState, 'shutdown');
    assert.match(world.active('s')[0]!.Status.Message, /replaces task/);
  });

  it('makes up for a task that was taken away', () => {
    const world = service(2);
    world.apply([{ op: 'remove', kind: 'task', id: world.active('s')[0]!.ID }]);
    assert.equal(world.run().running('s').length, 2);
  });

  it('does not repeat what was completed beside a task that was dropped', () => {
    const spec = makeSpec({ TaskTemplate: { RestartPolicy: { Condition: 'on-failure' } } });
    const startFirst = { ...spec, UpdateConfig: { Parallelism: 1, Order: 'start-first' as const } };
    const world = new World(2).createService('s', startFirst).run();
    const [old] = world.active('s');
    world.updateService('s', (now) => ({
      ...now,
      TaskTemplate: { ...now.TaskTemplate, ContainerSpec: { Image: 'web:2' } },
    }));
    world.settle().pass(10).rollbackService('s').settle().pass(20_000);
    assert.deepEqual(
      world.active('s').map((task) => task.ID),
      [old!.ID],
    );
    world.report(old!.ID, 'complete').runFor(20_000);
    world.newLeader();
    assert.equal(world.runFor(20_000).active('s').length, 0);
  });

  it('a new leader restarts what was rejected or failed while nobody led', () => {
    for (const state of ['failed', 'rejected'] as const) {
      const world = new World(2)
        .createService('s', makeSpec({ Mode: { Replicated: { Replicas: 2 } } }))
        .run();
      world.report(world.active('s')[0]!.ID, state).newLeader();
      world.runFor(10_000);
      assert.equal(world.running('s').length, 2);
      assert.equal(world.tasks('s').length, 3);
    }
  });

  it('a new leader moves the tasks of a node that was lost while nobody led', () => {
    const world = new World(2).createService('s', makeSpec({ Mode: { Replicated: { Replicas: 2 } } })).run();
    world.setNode('n1', { Status: { State: 'down' } }).newLeader();
    world.run();
    assert.deepEqual(
      world.running('s').map((task) => task.NodeID),
      ['n2', 'n2'],
    );
  });

  it('heals a slot that got two tasks', () => {
    const world = service(1);
    world.apply([
      {
        op: 'create',
        kind: 'task',
        object: makeTask('twin', 's', { Slot: 1, Status: { State: 'pending' } }),
      },
    ]);
    world.settle();
    assert.equal(world.active('s').length, 1);
    assert.equal(world.task('twin').DesiredState, 'shutdown');
  });

  it('forgets a removed service and its tasks once they have stopped', () => {
    const world = service(2);
    world.removeService('s').settle();
    assert.ok(world.tasks('s').every((task) => task.DesiredState === 'remove'));
    assert.equal(world.tasks('s').length, 2);
    world.run();
    assert.equal(world.store.count('task'), 0);
    assert.equal(world.store.count('revision'), 0);
  });

  it('concerns itself with the one slot of a task that changed', () => {
    const world = service(50);
    const failing = world.active('s')[7]!.ID;
    world.proposals = 0;
    let reads = 0;
    const find = world.store.find.bind(world.store);
    world.store.find = (kind, index, key) => {
      if (kind === 'task' && index === 'service') reads += 1;
      return find(kind, index, key);
    };
    world.report(failing, 'failed').settle();
    assert.equal(world.proposals, 1);
    assert.equal(reads, 0, 'no look at all tasks of the service');
  });

  it('a slot that is bound to its volumes remembers their node from task to task', () => {
    const spec = makeSpec({
      Labels: { 'shoal.volume.sticky': 'true' },
      Mode: { Replicated: { Replicas: 2 } },
    });
    const world = new World(3).createService('db', spec).run();
    const nodeOf = (slot: number) => world.active('db').find((task) => task.Slot === slot)!;
    const home = nodeOf(1).NodeID!;
    assert.equal(nodeOf(1).Private.Home, undefined);
    world.setNode(home, { Status: { State: 'down' } }).settle();
    assert.deepEqual([nodeOf(1).Private.Home, nodeOf(1).NodeID], [home, undefined]);
    world.updateService('db', (one) => ({ ...one, TaskTemplate: { ...one.TaskTemplate, ForceUpdate: 1 } }));
    world.settle();
    assert.equal(nodeOf(1).Private.Home, home, 'though the one before never had a node');
  });
});
