import assert from 'node:assert/strict';
import fc from 'fast-check';
import { isActive } from '../../../manager/orchestrator/slots.ts';
import type { ServiceMode, Task } from '../../../proto/docker.ts';
import type { ServiceId } from '../../../proto/ids.ts';
import { isTerminal } from '../../../proto/task-state.ts';
import { makeNode, makeSpec } from './objects.ts';
import { World } from './world.ts';

type Policy = NonNullable<ReturnType<typeof makeSpec>['TaskTemplate']['RestartPolicy']>;

function job(mode: ServiceMode, nodes = 3, RestartPolicy: Policy = { Delay: 1e9 }): World {
  const spec = makeSpec({ TaskTemplate: { RestartPolicy } });
  return new World(nodes).createService('j', { ...spec, Mode: mode });
}

const replicated = (TotalCompletions: number, MaxConcurrent = TotalCompletions): ServiceMode => ({
  ReplicatedJob: { MaxConcurrent, TotalCompletions },
});
const everywhere: ServiceMode = { GlobalJob: {} };

function alive(world: World): Task[] {
  return world.active('j').filter((task) => !isTerminal(task.Status.State));
}

function completed(world: World): Task[] {
  const iteration = world.service('j').JobStatus!.JobIteration.Index;
  return world
    .tasks('j')
    .filter((task) => task.Status.State === 'complete' && task.JobIteration?.Index === iteration);
}

function rerun(world: World): World {
  return world.updateService('j', (spec) => ({
    ...spec,
    TaskTemplate: { ...spec.TaskTemplate, ForceUpdate: (spec.TaskTemplate.ForceUpdate ?? 0) + 1 },
  }));
}

/** Everything that is to begin runs, and nothing ends by itself. */
function begin(world: World): World {
  for (let step = 0; step < 100; step += 1) {
    world.settle().schedule();
    const task = world.workable().find((one) => one.Status.State !== 'running' || !isActive(one));
    if (!task) return world;
    world.work(task);
  }
  throw new Error('the tasks did not begin');
}

describe('manager/orchestrator/jobs: replicated', () => {
  it('runs no more at a time than it may, until each slot from 0 on has completed once', () => {
    const world = begin(job(replicated(5, 2)));
    assert.deepEqual(
      alive(world).map((task) => [task.Slot, task.DesiredState, task.JobIteration]),
      [
        [0, 'complete', { Index: 0 }],
        [1, 'complete', { Index: 0 }],
      ],
    );
    const first = alive(world)[0]!;
    begin(world.report(first.ID, 'complete'));
    assert.deepEqual(
      alive(world)
        .map((task) => task.Slot)
        .sort(),
      [1, 2],
    );
    assert.equal(world.task(first.ID).DesiredState, 'complete');
    world.runFor(10_000);
    assert.deepEqual(
      completed(world)
        .map((task) => task.Slot)
        .sort(),
      [0, 1, 2, 3, 4],
    );
    assert.equal(world.tasks('j').length, 5);
  });

  it('runs one task when it says nothing', () => {
    const world = job({ ReplicatedJob: {} }).runFor(5_000);
    assert.equal(world.tasks('j').length, 1);
    assert.equal(completed(world).length, 1);
  });

  it('tries a failed slot again after the delay, in place of a new one', () => {
    const world = begin(job(replicated(3, 1)));
    const [task] = alive(world);
    world.report(task!.ID, 'failed').settle();
    const [next] = alive(world);
    assert.deepEqual([next!.Slot, next!.DesiredState], [0, 'ready']);
    assert.equal(alive(world).length, 1);
    begin(world.pass(1_000));
    assert.equal(world.task(next!.ID).DesiredState, 'complete');
    world.runFor(10_000);
    assert.equal(completed(world).length, 3);
  });

  for (const Condition of ['any', 'on-failure'] as const) {
    it(`does not run again what completed under restart condition ${Condition}`, () => {
      const world = job(replicated(2), 3, { Condition, Delay: 1e9 }).runFor(30_000);
      assert.equal(world.tasks('j').length, 2);
    });
  }

  const limits: [string, Policy, number][] = [
    ['with condition none at once', { Condition: 'none' }, 1],
    ['after as many restarts as it may have', { Condition: 'on-failure', MaxAttempts: 2, Delay: 0 }, 3],
  ];
  for (const [name, policy, attempts] of limits) {
    it(`gives a failing slot up ${name}, and goes on with the others`, () => {
      const world = job(replicated(3, 1), 3, policy);
      for (let step = 0; step < 200; step += 1) {
        begin(world);
        const [task] = alive(world);
        if (task?.Status.State === 'running') world.report(task.ID, task.Slot === 1 ? 'failed' : 'complete');
        world.pass(500);
      }
      assert.deepEqual(
        completed(world).map((task) => task.Slot),
        [0, 2],
      );
      assert.equal(world.tasks('j').filter((task) => task.Slot === 1).length, attempts);
      assert.deepEqual(alive(world), []);
      rerun(world).runFor(5_000);
      assert.equal(completed(world).length, 3);
    });
  }

  it('counts what was lost with its node as no attempt', () => {
    const world = job(replicated(1), 3, { Condition: 'on-failure', MaxAttempts: 1, Delay: 0 });
    for (const [state, left] of [
      ['orphaned', 1],
      ['failed', 1],
      ['failed', 0],
    ] as const) {
      begin(world);
      world.report(alive(world)[0]!.ID, state).settle().pass(500);
      assert.equal(alive(world).length, left, state);
    }
  });

  it('runs again as a new iteration when it is forced, and counts only what that completes', () => {
    const world = job(replicated(2)).runFor(5_000);
    const before = completed(world).map((task) => task.ID);
    rerun(world).runFor(5_000);
    assert.equal(completed(world).length, 2);
    assert.ok(completed(world).every((task) => !before.includes(task.ID) && task.JobIteration?.Index === 1));
    assert.ok(before.every((id) => world.task(id).Status.State === 'complete'));
  });

  it('stops and forgets what an earlier iteration still runs, before the slot is filled anew', () => {
    const world = begin(job(replicated(1)));
    const [old] = alive(world);
    rerun(world).settle().schedule();
    assert.equal(world.task(old!.ID).DesiredState, 'remove');
    assert.deepEqual(
      alive(world).map((task) => task.DesiredState),
      ['ready'],
    );
    world.report(old!.ID, 'shutdown');
    begin(world);
    assert.equal(world.task(old!.ID), undefined);
    assert.deepEqual(
      alive(world).map((task) => [task.DesiredState, task.Status.State]),
      [['complete', 'running']],
    );
  });

  it('moves a task whose node is lost at once, and keeps what completed there', () => {
    const world = begin(job(replicated(3, 2), 2));
    const [done, lost] = alive(world);
    world.report(done!.ID, 'complete');
    begin(world);
    world.setNode(lost!.NodeID!, { Status: { State: 'down' } });
    begin(world);
    assert.equal(world.task(done!.ID).Status.State, 'complete');
    const successor = alive(world).find((task) => task.Slot === lost!.Slot);
    assert.deepEqual([successor?.Status.State, successor?.NodeID !== lost!.NodeID], ['running', true]);
    world.runFor(5_000);
    assert.equal(completed(world).length, 3);
  });

  it('keeps no more of earlier iterations than the history limit', () => {
    const world = job(replicated(1));
    world.apply([
      {
        op: 'merge',
        kind: 'cluster',
        id: world.store.cluster()!.ID,
        fields: {
          Spec: { ...world.store.cluster()!.Spec, Orchestration: { TaskHistoryRetentionLimit: 2 } },
        },
      },
    ]);
    for (let run = 0; run < 6; run += 1) rerun(world.runFor(3_000));
    world.runFor(3_000);
    assert.equal(world.tasks('j').length, 2);
    assert.equal(completed(world).length, 1);
  });

  it('goes when its service is removed', () => {
    const world = job(replicated(2)).runFor(3_000);
    world.apply([{ op: 'remove', kind: 'service', id: 'j' as ServiceId }]);
    world.runFor(3_000);
    assert.equal(world.store.count('task'), 0);
  });
});

describe('manager/orchestrator/jobs: global', () => {
  it('completes once on each node, also on one that comes later', () => {
    const world = job(everywhere, 2).runFor(5_000);
    assert.deepEqual(
      completed(world)
        .map((task) => task.NodeID)
        .sort(),
      ['n1', 'n2'],
    );
    world.apply([{ op: 'create', kind: 'node', object: makeNode('n3') }]);
    world.runFor(5_000);
    assert.equal(completed(world).length, 3);
    assert.equal(world.tasks('j').length, 3);
  });

  it('begins on no node that is paused, drained, down or not as constrained', () => {
    const world = new World(5);
    world.setNode('n1', { Spec: { Availability: 'pause' } });
    world.setNode('n2', { Spec: { Availability: 'drain' } });
    world.setNode('n3', { Status: { State: 'down' } });
    world.setNode('n4', { Spec: { Labels: { zone: 'b' } } });
    const spec = makeSpec({ TaskTemplate: { Placement: { Constraints: ['node.labels.zone!=b'] } } });
    world.createService('j', { ...spec, Mode: everywhere }).runFor(5_000);
    assert.deepEqual(
      completed(world).map((task) => task.NodeID),
      ['n5'],
    );
    world.setNode('n1', { Spec: { Availability: 'active' } }).runFor(5_000);
    assert.deepEqual(
      completed(world)
        .map((task) => task.NodeID)
        .sort(),
      ['n1', 'n5'],
    );
  });

  it('stops on a drained node and begins again when it is back', () => {
    const world = begin(job(everywhere, 2));
    world.setNode('n1', { Spec: { Availability: 'drain' } });
    begin(world);
    assert.deepEqual(
      alive(world).map((task) => task.NodeID),
      ['n2'],
    );
    world.setNode('n1', { Spec: { Availability: 'active' } }).runFor(5_000);
    assert.deepEqual(
      completed(world)
        .map((task) => task.NodeID)
        .sort(),
      ['n1', 'n2'],
    );
  });

  it('runs again on every node when it is forced', () => {
    const world = job(everywhere, 2).runFor(5_000);
    rerun(world).runFor(5_000);
    assert.equal(completed(world).length, 2);
    assert.equal(world.tasks('j').length, 4);
  });

  it('tries a failed node again, and gives it up as the policy says', () => {
    const world = begin(job(everywhere, 1, { Condition: 'on-failure', MaxAttempts: 1, Delay: 0 }));
    begin(world.report(alive(world)[0]!.ID, 'failed'));
    begin(world.report(alive(world)[0]!.ID, 'failed'));
    world.pass(60_000);
    assert.deepEqual(alive(world), []);
    assert.equal(world.tasks('j').length, 2);
  });
});

describe('manager/orchestrator/jobs: whatever happens', () => {
  const step = fc.record({
    kind: fc.constantFrom('work', 'work', 'work', 'fail', 'lose', 'back', 'rerun', 'leader', 'pass', 'drain'),
    at: fc.nat(7),
  });

  it('never has more alive than it may, never two in a slot, and completes in the end', () => {
    const modes = [replicated(3, 2), replicated(4, 1), replicated(2), everywhere];
    fc.assert(
      fc.property(fc.constantFrom(...modes), fc.array(step, { maxLength: 60 }), (mode, steps) => {
        const world = job(mode);
        for (const { kind, at } of steps) {
          takeStep(world, kind, at);
          checkAlways(world, mode);
        }
        for (const node of world.store.list('node')) {
          world.setNode(node.ID, { Status: { State: 'ready' }, Spec: { Availability: 'active' } });
        }
        world.runFor(60_000, 5_000);
        const wanted = mode.ReplicatedJob?.TotalCompletions ?? 3;
        assert.equal(completed(world).length, wanted);
        assert.deepEqual(alive(world), []);
        assert.deepEqual(world.unsettled(), []);
      }),
      { numRuns: 300 },
    );
  }).timeout(60_000);
});

function takeStep(world: World, kind: string, at: number): void {
  const nodes = world.store.list('node');
  const node = nodes[at % nodes.length]!;
  const workable = world.workable();
  const task = workable[at % Math.max(1, workable.length)];
  if (kind === 'work' && task) world.work(task);
  if (kind === 'fail' && task && isActive(task)) world.report(task.ID, 'failed');
  if (kind === 'lose') world.setNode(node.ID, { Status: { State: 'down' } });
  if (kind === 'drain') world.setNode(node.ID, { Spec: { Availability: 'drain' } });
  if (kind === 'back') {
    world.setNode(node.ID, { Status: { State: 'ready' }, Spec: { Availability: 'active' } });
  }
  if (kind === 'rerun') rerun(world);
  if (kind === 'leader') world.newLeader();
  if (kind === 'pass') world.pass(at * 500);
  world.settle().schedule().settle();
}

function checkAlways(world: World, mode: ServiceMode): void {
  assert.deepEqual(world.unsettled(), []);
  const places = alive(world).map((task) => task.Slot ?? task.NodeID);
  assert.equal(new Set(places).size, places.length, 'two tasks of a job in one slot');
  const most = mode.ReplicatedJob?.MaxConcurrent ?? 3;
  assert.ok(places.length <= most, `${places.length} tasks at a time, and ${most} allowed`);
  const done = completed(world).map((task) => task.Slot ?? task.NodeID);
  assert.equal(new Set(done).size, done.length, 'a slot completed twice');
}
