import assert from 'node:assert/strict';
import type { RestartPolicy } from '../../../proto/docker.ts';
import type { TaskState } from '../../../proto/task-state.ts';
import { makeSpec } from './objects.ts';
import { World } from './world.ts';

const second = 1e9;

/** A service of one replica that runs. */
function running(policy: RestartPolicy | undefined): World {
  const spec = makeSpec(policy ? { TaskTemplate: { RestartPolicy: policy } } : {});
  return new World(2).createService('s', spec).run();
}

function only(world: World): string {
  const [task, ...others] = world.active('s');
  assert.ok(task && others.length === 0);
  return task.ID;
}

describe('manager/orchestrator/restart', () => {
  const conditions: [RestartPolicy['Condition'], TaskState, boolean][] = [
    [undefined, 'complete', true],
    [undefined, 'failed', true],
    ['any', 'complete', true],
    ['any', 'failed', true],
    ['any', 'rejected', true],
    ['on-failure', 'complete', false],
    ['on-failure', 'failed', true],
    ['on-failure', 'rejected', true],
    ['none', 'complete', false],
    ['none', 'failed', false],
    ['none', 'rejected', false],
  ];
  for (const [condition, state, restarts] of conditions) {
    it(`with condition ${condition ?? 'absent'}, a task that is ${state} is ${restarts ? '' : 'not '}restarted`, () => {
      const world = running(condition ? { Condition: condition } : undefined);
      const first = only(world);
      world.report(first, state).settle();
      assert.equal(world.task(first).DesiredState, 'shutdown');
      assert.equal(world.active('s').length, restarts ? 1 : 0);
      world.runFor(30_000);
      assert.equal(world.running('s').length, restarts ? 1 : 0);
      assert.deepEqual(world.unsettled(), []);
    });
  }

  it('starts the successor after the delay, five seconds unless the policy says otherwise', () => {
    for (const [delay, expectedMs] of [
      [undefined, 5_000],
      [2 * second, 2_000],
      [0, 0],
    ] as const) {
      const world = running(delay === undefined ? {} : { Delay: delay });
      world.report(only(world), 'failed').settle();
      const next = world.task(only(world));
      assert.equal(next.Private.Cause, 'failure');
      assert.equal(next.DesiredState, expectedMs === 0 ? 'running' : 'ready');
      if (expectedMs === 0) continue;
      assert.equal(next.Private.StartAt, world.now + expectedMs);
      world.pass(expectedMs - 1);
      assert.equal(world.task(next.ID).DesiredState, 'ready');
      world.pass(1);
      assert.equal(world.task(next.ID).DesiredState, 'running');
    }
  });

  it('goes on waiting after a change of the leader', () => {
    const world = running({ Delay: 10 * second });
    world.report(only(world), 'failed').settle().pass(6_000);
    const next = only(world);
    world.newLeader();
    world.settle().pass(3_999);
    assert.equal(world.task(next).DesiredState, 'ready');
    world.pass(1);
    assert.equal(world.task(next).DesiredState, 'running');
  });

  it('does not run in circles when a delayed task is rejected before its time', () => {
    const world = running({ Delay: 10 * second });
    world.report(only(world), 'failed').settle().schedule().settle();
    const delayed = only(world);
    world.report(delayed, 'rejected').settle();
    assert.equal(world.tasks('s').length, 2);
    world.pass(9_999);
    assert.equal(world.tasks('s').length, 2);
    world.pass(1);
    assert.equal(world.task(delayed).DesiredState, 'shutdown');
    assert.equal(world.task(only(world)).Private.StartAt, world.now + 10_000);
  });

  it('stops restarting after the maximum of attempts, also under a new leader', () => {
    const world = running({ MaxAttempts: 2, Delay: 0 });
    for (let restart = 0; restart < 2; restart += 1) {
      world.report(only(world), 'failed').run();
      world.newLeader();
      world.run();
    }
    world.report(only(world), 'failed').runFor(60_000);
    assert.equal(world.active('s').length, 0);
    world.newLeader();
    assert.equal(world.runFor(60_000).active('s').length, 0);
  });

  it('counts only the attempts of the window', () => {
    const world = running({ MaxAttempts: 1, Delay: 0, Window: 20 * second });
    world.report(only(world), 'failed').runFor(30_000);
    world.report(only(world), 'failed').runFor(1_000);
    assert.equal(world.running('s').length, 1, 'the first restart is out of the window');
    world.report(only(world), 'failed').runFor(60_000);
    assert.equal(world.active('s').length, 0, 'the second is not');
  });

  it('counts anew for a new revision', () => {
    const world = running({ MaxAttempts: 1, Delay: 0 });
    world.report(only(world), 'failed').run();
    world.report(only(world), 'failed').runFor(10_000);
    assert.equal(world.active('s').length, 0);
    world.updateService('s', (spec) => ({
      ...spec,
      TaskTemplate: { ...spec.TaskTemplate, ContainerSpec: { Image: 'web:2' } },
    }));
    world.runFor(10_000);
    assert.equal(world.running('s').length, 1);
    world.report(only(world), 'failed').run();
    assert.equal(world.running('s').length, 1);
  });

  it('is no attempt to move from a lost node, which happens at once', () => {
    const world = running({ MaxAttempts: 1, Delay: 60 * second });
    for (let move = 0; move < 3; move += 1) {
      const task = world.task(only(world));
      world.setNode(task.NodeID!, { Status: { State: 'down' } }).settle();
      assert.equal(world.task(only(world)).Private.Cause, 'node');
      world.run();
      assert.equal(world.running('s').length, 1);
      world.setNode(task.NodeID!, { Status: { State: 'ready' } }).run();
    }
  });

  it('does not run a task twice that was to run once, though its node is lost', () => {
    const world = running({ Condition: 'none' });
    const first = world.task(only(world));
    world.setNode(first.NodeID!, { Status: { State: 'down' } }).runFor(10_000);
    assert.equal(world.active('s').length, 0);
    assert.equal(world.tasks('s').length, 1);
  });

  it('lets a successor wait for the drained task to stop, but not for ever', () => {
    const world = running({ Delay: 0 });
    const first = world.task(only(world));
    world.setNode(first.NodeID!, { Spec: { Availability: 'drain' } }).settle();
    const next = only(world);
    assert.equal(world.task(first.ID).DesiredState, 'shutdown');
    assert.equal(world.task(next).DesiredState, 'ready');
    world.pass(59_999);
    assert.equal(world.task(next).DesiredState, 'ready');
    world.pass(1);
    assert.equal(world.task(next).DesiredState, 'running');
  });

  it('starts a successor as soon as the drained task has stopped', () => {
    const world = running({ Delay: 0 });
    const first = world.task(only(world));
    world.setNode(first.NodeID!, { Spec: { Availability: 'drain' } }).settle();
    world.report(first.ID, 'shutdown').settle();
    assert.equal(world.task(only(world)).DesiredState, 'running');
  });
});
