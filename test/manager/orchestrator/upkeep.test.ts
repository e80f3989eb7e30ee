/** Maintenance and partitions: tasks that leave drained nodes, and those of nodes that nobody hears of. */
import assert from 'node:assert/strict';
import { drainPatienceMs } from '../../../manager/orchestrator/relocate.ts';
import { isActive } from '../../../manager/orchestrator/slots.ts';
import { engineUnavailableLabel, type ServiceSpec, type Task } from '../../../proto/docker.ts';
import { makeSpec } from './objects.ts';
import { World } from './world.ts';

type Over = Parameters<typeof makeSpec>[0];

function spec(Replicas: number, Labels: Record<string, string> = {}, over: Over = {}): ServiceSpec {
  return makeSpec({
    ...over,
    Labels,
    Mode: { Replicated: { Replicas } },
    TaskTemplate: { RestartPolicy: { Condition: 'any', Delay: 1e9 } },
  });
}

function running(made: ServiceSpec, nodes = 3): World {
  return new World(nodes).createService('s', made).run();
}

const drain = { Spec: { Availability: 'drain' } } as const;
const down = { Status: { State: 'down' } } as const;
const up = { Status: { State: 'ready' } } as const;

function on(world: World, node: string): Task[] {
  return world.active('s').filter((task) => task.NodeID === node);
}

/** Lets agents work step by step; answers the fewest that served and the most that were wanted on the way. */
function watch(world: World): { fewest: number; most: number } {
  let [fewest, most] = [Number.POSITIVE_INFINITY, 0];
  for (let step = 0; step < 1_000; step += 1) {
    world.settle().schedule().settle();
    fewest = Math.min(fewest, world.running('s').length);
    most = Math.max(most, world.active('s').length);
    const [task] = world.workable();
    if (!task) return { fewest, most };
    world.work(task);
  }
  throw new Error('does not come to rest');
}

describe('draining in good order', () => {
  it('a service of several replicas loses none on the way, and has one more at a time', () => {
    const world = running(spec(6));
    assert.equal(on(world, 'n1').length, 2);
    world.setNode('n1', drain);
    assert.deepEqual(watch(world), { fewest: 6, most: 7 });
    assert.equal(on(world, 'n1').length, 0);
    assert.deepEqual(world.unsettled(), []);
    const moved = world.active('s').filter((task) => task.Private.Cause === 'move');
    assert.equal(moved.length, 2);
    assert.match(moved[0]!.Status.Message, /running/);
  });

  it('as many at a time as its updates', () => {
    const world = running(spec(9, {}, { UpdateConfig: { Parallelism: 2 } }));
    world.setNode('n1', drain);
    assert.deepEqual(watch(world), { fewest: 9, most: 11 });
    const all = running(spec(9, {}, { UpdateConfig: { Parallelism: 0 } }));
    all.setNode('n1', drain);
    assert.deepEqual(watch(all), { fewest: 9, most: 12 });
  });

  it('stop-first where the updates are, one at a time', () => {
    const world = running(spec(6, {}, { UpdateConfig: { Parallelism: 1, Order: 'stop-first' } }));
    world.setNode('n1', drain);
    assert.deepEqual(watch(world), { fewest: 5, most: 6 });
    assert.equal(on(world, 'n1').length, 0);
  });

  it('a single replica stops first, unless its updates or its label say that it may be there twice', () => {
    const single = running(spec(1), 2);
    const { NodeID } = single.active('s')[0]!;
    single.setNode(NodeID!, drain);
    assert.deepEqual(watch(single), { fewest: 0, most: 1 });
    for (const made of [
      spec(1, {}, { UpdateConfig: { Parallelism: 1, Order: 'start-first' } }),
      spec(1, { 'shoal.drain': 'start-first' }),
    ]) {
      const world = running(made, 2);
      world.setNode(world.active('s')[0]!.NodeID!, drain);
      assert.deepEqual(watch(world), { fewest: 1, most: 2 });
    }
  });

  it('at once when the service or the node says so', () => {
    const hasty = running(spec(6, { 'shoal.drain': 'at-once' }));
    hasty.setNode('n1', drain).settle();
    assert.equal(hasty.running('s').length, 4);
    const node = running(spec(6));
    node.setNode('n1', { Spec: { Availability: 'drain', Labels: { 'shoal.drain': 'at-once' } } }).settle();
    assert.equal(node.running('s').length, 4);
  });

  describe('with no other node that takes its tasks', () => {
    const patient = drainPatienceMs - 1;

    it('they serve on for a while, and stay when the node is back meanwhile', () => {
      const world = running(spec(2), 1);
      const before = world.active('s').map((task) => task.ID);
      world.setNode('n1', drain).run().pass(patient);
      assert.equal(world.running('s').length, 2);
      assert.equal(world.active('s').filter((task) => task.Status.State === 'pending').length, 1);
      world.setNode('n1', { Spec: { Availability: 'active' } }).run();
      assert.deepEqual(
        world.active('s').map((task) => task.ID),
        before,
      );
      world.runFor(2 * drainPatienceMs);
      assert.equal(world.running('s').length, 2);
      assert.deepEqual(world.unsettled(), []);
    });

    it('they are stopped then, all of them, each with the reason', () => {
      const world = running(spec(3), 1);
      const [task] = world.active('s');
      world.setNode('n1', drain).run().pass(patient).run();
      assert.equal(world.running('s').length, 3);
      world.pass(1).run();
      assert.equal(world.running('s').length, 0);
      assert.ok(world.tasks('s').every((one) => one.NodeID === undefined || !isActive(one)));
      assert.equal(world.active('s').length, 3);
      assert.ok(world.active('s').every((one) => one.Status.State === 'pending'));
      assert.match(
        world
          .task(task!.ID)
          .Private.History!.map((moment) => moment.Text)
          .join('; '),
        /node n1 is drained, and no other can take it: no suitable node/,
      );
      assert.deepEqual(world.unsettled(), []);
      world.setNode('n1', { Spec: { Availability: 'active' } }).run();
      assert.equal(world.running('s').length, 3);
    });

    it('stop-first, the others do not wait for the first for ever', () => {
      const world = running(spec(3, { 'shoal.drain': 'stop-first' }), 1);
      world.setNode('n1', drain).run();
      assert.equal(world.running('s').length, 2);
      world.pass(drainPatienceMs).run();
      assert.equal(world.running('s').length, 0);
      assert.equal(world.active('s').length, 3);
    });

    it('they stay for as long as it takes where the service asks to start first by name', () => {
      const world = running(spec(3, { 'shoal.drain': 'start-first' }), 1);
      world
        .setNode('n1', drain)
        .run()
        .runFor(10 * drainPatienceMs);
      assert.equal(world.running('s').length, 3);
      world.setNode('n1', { Spec: { Availability: 'active' } }).run();
      assert.equal(world.active('s').length, 3);
    });

    it('nor are they kept by one that took over, failed, and finds no node any more', () => {
      const world = running(spec(2), 2);
      world.setNode('n1', drain).settle().schedule().settle();
      const [fresh] = world.active('s').filter((task) => task.Private.Cause === 'move');
      world.report(fresh!.ID, 'failed').settle();
      world.setNode('n2', { Spec: { Availability: 'pause' } }).runFor(2 * drainPatienceMs);
      assert.equal(on(world, 'n1').length, 0);
    });

    it('a new leader waits no longer than the one before', () => {
      const world = running(spec(2), 1);
      world
        .setNode('n1', drain)
        .run()
        .pass(drainPatienceMs / 2);
      world.newLeader();
      world
        .run()
        .pass(drainPatienceMs / 2)
        .run();
      assert.equal(world.running('s').length, 0);
    });

    it('one that was only to be better off elsewhere stays where it is', () => {
      const world = running(spec(1, { 'shoal.drain': 'start-first' }), 2);
      const [task] = world.active('s');
      const other = task!.NodeID === 'n1' ? 'n2' : 'n1';
      world.setNode(other, { Spec: { Availability: 'pause' } });
      world.setNode(task!.NodeID!, { Spec: { Availability: 'pause' } });
      const Private = { ...task!.Private, Move: { Reason: 'node n2 has less to do' } };
      world.apply([{ op: 'merge', kind: 'task', id: task!.ID, fields: { Private } }]);
      world.run().pass(drainPatienceMs).run();
      assert.equal(world.task(task!.ID).Private.Move, undefined);
      assert.deepEqual(
        world.active('s').map((one) => one.ID),
        [task!.ID],
      );
    });
  });

  it('a replacement that fails is tried again after the restart delay, and the old one serves on', () => {
    const world = running(spec(2), 2);
    world.setNode('n1', drain).settle().schedule().settle();
    const [fresh] = world.active('s').filter((task) => task.Private.Cause === 'move');
    world.report(fresh!.ID, 'failed').settle();
    assert.equal(world.running('s').length, 2);
    const again = world.active('s').filter((task) => task.Status.State === 'pending');
    assert.equal(again.length, 1);
    assert.equal(again[0]!.DesiredState, 'ready');
    world.runFor(2_000);
    assert.equal(on(world, 'n1').length, 0);
    assert.equal(world.running('s').length, 2);
  });

  it('a new leader goes on with it', () => {
    const world = running(spec(9));
    world.setNode('n1', drain);
    for (let step = 0; step < 200; step += 1) {
      world.newLeader();
      world.settle().schedule().settle();
      assert.ok(world.running('s').length >= 9);
      const [task] = world.workable();
      if (!task) break;
      world.work(task);
    }
    assert.equal(on(world, 'n1').length, 0);
  });

  it('a task marked to be elsewhere makes way start-first, whatever the updates do', () => {
    const world = running(spec(3, {}, { UpdateConfig: { Parallelism: 0, Order: 'stop-first' } }));
    const [task] = world.active('s');
    const Private = { ...task!.Private, Move: { Reason: 'node n2 has less to do' } };
    world.apply([{ op: 'merge', kind: 'task', id: task!.ID, fields: { Private } }]);
    assert.deepEqual(watch(world), { fewest: 3, most: 4 });
    assert.equal(world.task(task!.ID).DesiredState, 'shutdown');
  });
});

describe('partition policy', () => {
  const guard = { 'shoal.partition.stop-on-isolation': 'after:20s' };

  it('replaces at once without a word', () => {
    const world = running(spec(3));
    world.setNode('n1', down).settle();
    assert.equal(on(world, 'n1').length, 0);
  });

  it('waits as long as asked, and says so', () => {
    const world = running(spec(3, { 'shoal.partition': 'wait:10m' }));
    world.setNode('n1', down).settle();
    const [task] = on(world, 'n1');
    assert.match(task!.Status.Err!, /node n1 is down: replaced 10m after its loss/);
    assert.equal(world.active('s').length, 3);
    world.pass(10 * 60_000 - 1);
    assert.equal(on(world, 'n1').length, 1);
    world.pass(1);
    assert.equal(on(world, 'n1').length, 0);
    assert.equal(world.run().running('s').length, 3);
  });

  it('does nothing when the node is back in time', () => {
    const world = running(spec(3, { 'shoal.partition': 'wait:10m' }));
    const before = world.active('s').map((task) => task.ID);
    world.setNode('n1', down).pass(9 * 60_000);
    world.setNode('n1', up).pass(30 * 60_000);
    assert.deepEqual(
      world.active('s').map((task) => task.ID),
      before,
    );
  });

  it('never, for as long as the node is there', () => {
    const world = running(spec(3, { 'shoal.partition': 'never' }));
    world.setNode('n1', down).pass(24 * 3_600_000);
    assert.equal(on(world, 'n1').length, 1);
    assert.match(on(world, 'n1')[0]!.Status.Err!, /shoal\.partition=never/);
    world.apply([{ op: 'remove', kind: 'node', id: 'n1' as never }]);
    assert.equal(world.run().running('s').length, 3);
  });

  it('a task that its agent stops is not started elsewhere before that is over', () => {
    const world = running(spec(1, guard));
    const { NodeID } = world.active('s')[0]!;
    world.setNode(NodeID!, down).settle();
    const holdMs = 20_000 + 10_000 + 5_000;
    world.pass(holdMs - 1);
    assert.equal(world.active('s').length, 1);
    assert.equal(on(world, NodeID!).length, 1);
    world.pass(1);
    assert.equal(on(world, NodeID!).length, 0);
    assert.equal(world.run().running('s').length, 1);
  });

  it('nor is the wait cut short or drawn out by a leader with another clock: it counts anew', () => {
    for (const aheadMs of [30_000, -3_600_000]) {
      const world = running(spec(1, guard));
      const { NodeID } = world.active('s')[0]!;
      world.setNode(NodeID!, down).settle().pass(5_000);
      world.now += aheadMs;
      world.newLeader();
      world.pass(35_000 - 1);
      assert.equal(on(world, NodeID!).length, 1);
      world.pass(1);
      assert.equal(on(world, NodeID!).length, 0);
    }
  });

  it('nor ever by itself, when the node was lost while its engine did not answer: nobody stopped it', () => {
    const world = running(spec(1, guard));
    const { NodeID } = world.active('s')[0]!;
    const silent = { Engine: { Labels: { [engineUnavailableLabel]: 'it hangs' } } };
    world
      .setNode(NodeID!, { Description: silent })
      .setNode(NodeID!, down)
      .pass(24 * 3_600_000);
    assert.equal(on(world, NodeID!).length, 1);
    assert.match(
      on(world, NodeID!)[0]!.Status.Err!,
      /is down, and its engine did not answer: .*node rm --force/,
    );
    world.apply([{ op: 'remove', kind: 'node', id: NodeID! }]);
    assert.equal(world.run().running('s').length, 1);
  });

  it('nor by an update, a drain or a scale meanwhile', () => {
    for (const change of [
      (world: World) =>
        world.updateService('s', (old) => ({
          ...old,
          TaskTemplate: { ...old.TaskTemplate, ForceUpdate: 1 },
        })),
      (world: World, node: string) => world.setNode(node, drain),
      (world: World) => world.scale('s', 0).settle().scale('s', 1),
    ]) {
      const world = running(spec(1, guard));
      const NodeID = world.active('s')[0]!.NodeID!;
      world.setNode(NodeID, down).settle();
      change(world, NodeID);
      world.run().pass(34_000).run();
      assert.equal(world.running('s').filter((task) => task.NodeID !== NodeID).length, 0);
      world.pass(61_000).run();
      assert.equal(world.running('s').length, 1);
    }
  });

  it('its updates stop first, whatever their order, and a node that does not stop it is waited for', () => {
    const world = running(spec(1, guard, { UpdateConfig: { Parallelism: 1, Order: 'start-first' } }));
    const before = world.active('s')[0]!.ID;
    world.updateService('s', (old) => ({ ...old, TaskTemplate: { ...old.TaskTemplate, ForceUpdate: 1 } }));
    world.settle().schedule().settle();
    world.pass(10 * 60_000);
    assert.equal(world.task(before).DesiredState, 'shutdown');
    assert.equal(world.active('s')[0]!.DesiredState, 'ready');
    world.report(before, 'shutdown').settle();
    assert.equal(world.active('s')[0]!.DesiredState, 'running');
  });
});
