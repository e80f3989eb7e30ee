import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { ServiceSpec, UpdateConfig } from '../../../proto/docker.ts';
import type { SecretId } from '../../../proto/ids.ts';
import { makeSpec } from './objects.ts';
import { World } from './world.ts';

const second = 1e9;

interface Options {
  readonly replicas?: number;
  readonly update?: Partial<UpdateConfig>;
  readonly rollback?: Partial<UpdateConfig>;
  readonly nodes?: number;
}

function service({ replicas = 4, update, rollback, nodes = 3 }: Options = {}): World {
  const spec = makeSpec({ Mode: { Replicated: { Replicas: replicas } } });
  const full: ServiceSpec = {
    ...spec,
    ...(update ? { UpdateConfig: { Parallelism: 1, ...update } } : {}),
    ...(rollback ? { RollbackConfig: { Parallelism: 1, ...rollback } } : {}),
  };
  return new World(nodes).createService('s', full).run();
}

function setImage(world: World, Image: string): World {
  return world.updateService('s', (spec) => ({
    ...spec,
    TaskTemplate: { ...spec.TaskTemplate, ContainerSpec: { Image } },
  }));
}

function images(world: World): string[] {
  return world
    .active('s')
    .map((task) => world.image(task))
    .sort();
}

function status(world: World): [string | undefined, string | undefined] {
  const { State, Message } = world.service('s').UpdateStatus ?? {};
  return [State, Message];
}

/** Lets everything go well but tasks of `image`, which fail when they start. */
function runWithout(world: World, image: string, durationMs: number): World {
  for (let passed = 0; passed < durationMs; passed += 500) {
    for (let step = 0; step < 200; step += 1) {
      world.settle().schedule().settle();
      const [task] = world.workable();
      if (!task) break;
      const fails = world.image(task) === image && task.DesiredState === 'running';
      if (fails) world.report(task.ID, 'failed');
      else world.work(task);
    }
    world.pass(500);
  }
  return world;
}

describe('manager/orchestrator/rollout', () => {
  it('replaces tasks one by one when nothing is said, and tells how it goes', () => {
    const world = service();
    setImage(world, 'web:2').settle();
    assert.deepEqual(status(world), ['updating', 'update in progress']);
    assert.deepEqual(images(world), ['web:1', 'web:1', 'web:1', 'web:2']);
    world.run();
    assert.deepEqual(images(world), ['web:2', 'web:2', 'web:2', 'web:2']);
    assert.equal(status(world)[0], 'updating', 'the last task is still watched');
    world.pass(4_999);
    assert.equal(status(world)[0], 'updating');
    world.pass(1);
    assert.deepEqual(status(world), ['completed', 'update completed']);
    assert.equal(world.service('s').UpdateStatus?.CompletedAt, new Date(world.now).toISOString());
  });

  it('updates as many at a time as the parallelism says, all for 0', () => {
    for (const [Parallelism, expected] of [
      [1, 1],
      [2, 2],
      [3, 3],
      [0, 4],
    ] as const) {
      const world = service({ update: { Parallelism } });
      setImage(world, 'web:2').settle();
      assert.equal(images(world).filter((image) => image === 'web:2').length, expected);
    }
  });

  it('waits for the delay between tasks, under a new leader as well', () => {
    const world = service({ update: { Delay: 10 * second } });
    setImage(world, 'web:2').run();
    const count = () => images(world).filter((image) => image === 'web:2').length;
    assert.equal(count(), 1);
    world.pass(6_000);
    world.newLeader();
    world.settle().pass(3_999);
    assert.equal(count(), 1);
    world.pass(1);
    assert.equal(count(), 2);
  });

  it('stops first: the new task starts when the old one has stopped', () => {
    const world = service({ replicas: 1 });
    const [old] = world.active('s');
    setImage(world, 'web:2').settle();
    const [next] = world.active('s');
    assert.equal(world.task(old!.ID).DesiredState, 'shutdown');
    assert.equal(next?.DesiredState, 'ready');
    world.report(old!.ID, 'shutdown').settle();
    assert.equal(world.task(next!.ID).DesiredState, 'running');
  });

  it('does not wait for ever for an old task that does not stop', () => {
    const world = service({ replicas: 1 });
    const [old] = world.active('s');
    setImage(world, 'web:2').settle();
    world.pass(59_000);
    assert.equal(world.active('s')[0]?.DesiredState, 'ready');
    world.pass(1_000);
    assert.equal(world.active('s')[0]?.DesiredState, 'running');
    assert.equal(world.task(old!.ID).Status.State, 'running');
  });

  it('starts first: the old task is not stopped for a new one that failed meanwhile', () => {
    const world = service({ replicas: 1, update: { Order: 'start-first' } });
    const [old] = world.active('s');
    setImage(world, 'web:2').settle().schedule().settle();
    const next = world.active('s').find((task) => task.ID !== old!.ID)!;
    world.report(next.ID, 'running');
    // What the leader wants on seeing the new one run, committed only after it has failed.
    const late = world.unsettled();
    assert.ok(late.some((change) => change.op === 'merge' && change.id === old!.ID));
    world.report(next.ID, 'failed');
    world.apply(late);
    assert.equal(world.task(old!.ID).DesiredState, 'running');
    world.settle();
    assert.equal(world.task(old!.ID).DesiredState, 'running');
  });

  it('takes no serving task down beside one that an earlier update left to come up', () => {
    const world = service({ replicas: 2 });
    setImage(world, 'web:2').settle();
    const [stopped] = world.tasks('s').filter((task) => task.DesiredState === 'shutdown');
    world.report(stopped!.ID, 'shutdown');
    setImage(world, 'web:3').settle();
    assert.equal(world.running('s').length, 1);
  });

  it('starts first: the old task stops when the new one runs', () => {
    const world = service({ replicas: 1, update: { Order: 'start-first' } });
    const [old] = world.active('s');
    setImage(world, 'web:2').settle().schedule().settle();
    const next = world.active('s').find((task) => task.ID !== old!.ID);
    assert.equal(next?.DesiredState, 'running');
    assert.equal(world.task(old!.ID).DesiredState, 'running');
    world.report(next!.ID, 'running').settle();
    assert.equal(world.task(old!.ID).DesiredState, 'shutdown');
    assert.deepEqual(
      world.active('s').map((task) => task.ID),
      [next!.ID],
    );
  });

  it('starts first: the old task goes on when the new one fails, and both stay when paused', () => {
    const world = service({ replicas: 2, update: { Order: 'start-first' } });
    setImage(world, 'web:2');
    runWithout(world, 'web:2', 20_000);
    assert.equal(status(world)[0], 'paused');
    assert.deepEqual(
      world.running('s').map((task) => world.image(task)),
      ['web:1', 'web:1'],
    );
  });

  it('pauses at a failure, names the task, and goes no further', () => {
    const world = service();
    setImage(world, 'web:2');
    runWithout(world, 'web:2', 1_000);
    const failed = world.tasks('s').find((task) => task.Private.Cause === 'update');
    assert.deepEqual(status(world), [
      'paused',
      `update paused due to failure or early termination of task ${failed?.ID}`,
    ]);
    runWithout(world, 'web:2', 60_000);
    assert.equal(status(world)[0], 'paused');
    assert.equal(images(world).filter((image) => image === 'web:1').length, 3);
  });

  it('counts an end within the monitoring period as failure, and none after', () => {
    for (const [ranMs, expected] of [
      [2_000, 'paused'],
      [2_001, 'updating'],
    ] as const) {
      const world = service({ replicas: 2, update: { Monitor: 2 * second, Delay: 60 * second } });
      setImage(world, 'web:2').run();
      const updated = world.running('s').find((task) => world.image(task) === 'web:2');
      world.pass(ranMs);
      world.report(updated!.ID, 'complete').settle();
      assert.equal(status(world)[0], expected);
    }
  });

  it('tolerates failures up to the ratio', () => {
    for (const [MaxFailureRatio, expected] of [
      [0.24, 'paused'],
      [0.25, 'completed'],
    ] as const) {
      const world = service({ update: { MaxFailureRatio } });
      setImage(world, 'web:2').settle().schedule().settle();
      const first = world.active('s').find((task) => world.image(task) === 'web:2');
      world.report(first!.ID, 'failed').settle();
      assert.equal(status(world)[0], expected === 'paused' ? 'paused' : 'updating');
      world.runFor(30_000);
      assert.equal(status(world)[0], expected);
    }
  });

  it('does not take a lost node for a failure of the update', () => {
    const world = service({ replicas: 2 });
    setImage(world, 'web:2').settle().schedule().settle();
    const first = world.active('s').find((task) => world.image(task) === 'web:2');
    world.setNode(first!.NodeID!, { Status: { State: 'down' } }).runFor(30_000);
    assert.deepEqual(status(world), ['completed', 'update completed']);
    assert.deepEqual(images(world), ['web:2', 'web:2']);
  });

  it('goes on in spite of failures when it is to continue', () => {
    const world = service({ update: { FailureAction: 'continue' } });
    setImage(world, 'web:2');
    runWithout(world, 'web:2', 60_000);
    assert.deepEqual(images(world), ['web:2', 'web:2', 'web:2', 'web:2']);
    assert.equal(status(world)[0], 'completed');
  });

  it('rolls back at a failure when it is to, to the revision before', () => {
    const world = service({ update: { FailureAction: 'rollback' } });
    setImage(world, 'web:2');
    runWithout(world, 'web:2', 500);
    const failed = world.tasks('s').find((task) => task.Private.Cause === 'update');
    assert.deepEqual(status(world), [
      'rollback_started',
      `update rolled back due to failure or early termination of task ${failed?.ID}`,
    ]);
    assert.equal(world.service('s').PreviousSpec, undefined);
    assert.equal(world.service('s').Private.RevisionID, 's-1');
    world.newLeader();
    runWithout(world, 'web:2', 60_000);
    assert.deepEqual(status(world), ['rollback_completed', 'rollback completed']);
    assert.deepEqual(
      world.running('s').map((task) => world.image(task)),
      ['web:1', 'web:1', 'web:1', 'web:1'],
    );
  });

  it('never rolls back a rollback', () => {
    const world = service({
      replicas: 2,
      update: { FailureAction: 'rollback' },
      rollback: { FailureAction: 'rollback' },
    });
    setImage(world, 'web:2').runFor(20_000);
    world.rollbackService('s');
    runWithout(world, 'web:1', 500);
    const [state, message] = status(world);
    assert.equal(state, 'rollback_paused');
    assert.match(message!, /^rollback paused due to failure or early termination of task /);
  });

  it('rolls back by hand with the settings for it', () => {
    const world = service({ rollback: { Parallelism: 3 } });
    setImage(world, 'web:2').runFor(20_000);
    assert.equal(status(world)[0], 'completed');
    world.rollbackService('s').settle();
    assert.equal(images(world).filter((image) => image === 'web:1').length, 3);
    world.runFor(20_000);
    assert.deepEqual(status(world), ['rollback_completed', 'rollback completed']);
    assert.deepEqual(images(world), ['web:1', 'web:1', 'web:1', 'web:1']);
  });

  it('pauses when there is nothing to roll back to', () => {
    const world = service({ replicas: 1, update: { FailureAction: 'rollback' } });
    setImage(world, 'web:2');
    const { PreviousSpec: _, ...rest } = world.service('s');
    world.apply([{ op: 'update', kind: 'service', object: rest }]);
    runWithout(world, 'web:2', 500);
    assert.equal(status(world)[0], 'paused');
  });

  it('pauses when what the spec before needs was removed meanwhile', () => {
    const spec = makeSpec({ Name: 's', Mode: { Replicated: { Replicas: 1 } } });
    const world = service({ replicas: 1, update: { FailureAction: 'rollback' } });
    setImage(world, 'web:2');
    const secret = { SecretID: 'gone' as SecretId, SecretName: 'password' };
    const PreviousSpec = { ...spec, TaskTemplate: { ContainerSpec: { Image: 'web:1', Secrets: [secret] } } };
    world.apply([{ op: 'update', kind: 'service', object: { ...world.service('s'), PreviousSpec } }]);
    runWithout(world, 'web:2', 500);
    assert.equal(status(world)[0], 'paused');
    assert.match(status(world)[1]!, /the previous spec needs secret password, which was removed$/);
  });

  it('changes its goal when the service is updated once more', () => {
    const world = service();
    setImage(world, 'web:2').settle();
    setImage(world, 'web:3').settle();
    assert.deepEqual(
      images(world),
      ['web:1', 'web:1', 'web:1', 'web:3'],
      'the slot that is down anyway is next',
    );
    world.runFor(30_000);
    assert.deepEqual(images(world), ['web:3', 'web:3', 'web:3', 'web:3']);
    assert.equal(status(world)[0], 'completed');
  });

  it('begins with slots that do not serve', () => {
    const world = service();
    const idle = world.active('s').find((task) => task.Slot === 3);
    world.report(idle!.ID, 'failed').settle();
    setImage(world, 'web:2').settle();
    const updated = world.active('s').filter((task) => world.image(task) === 'web:2');
    assert.deepEqual(
      updated.map((task) => task.Slot),
      [3],
    );
  });

  it('counts failures though no history is kept', () => {
    const world = service({ update: { MaxFailureRatio: 0.4 } });
    const cluster = world.store.cluster()!;
    const Spec = { ...cluster.Spec, Orchestration: { TaskHistoryRetentionLimit: 0 } };
    world.apply([{ op: 'merge', kind: 'cluster', id: cluster.ID, fields: { Spec } }]);
    setImage(world, 'web:2');
    runWithout(world, 'web:2', 10_000);
    assert.equal(status(world)[0], 'paused');
    assert.equal(images(world).filter((image) => image === 'web:2').length, 2);
  });

  it('goes on after a pause with the next update', () => {
    const world = service();
    setImage(world, 'web:2');
    runWithout(world, 'web:2', 10_000);
    assert.equal(status(world)[0], 'paused');
    setImage(world, 'web:3').runFor(30_000);
    assert.equal(status(world)[0], 'completed');
    assert.deepEqual(images(world), ['web:3', 'web:3', 'web:3', 'web:3']);
  });

  const untouched: [string, (spec: ServiceSpec) => ServiceSpec][] = [
    ['labels', (spec) => ({ ...spec, Labels: { a: 'b' } })],
    ['update settings', (spec) => ({ ...spec, UpdateConfig: { Parallelism: 3 } })],
    [
      'empty fields',
      (spec) => ({ ...spec, TaskTemplate: { ...spec.TaskTemplate, Networks: [], Resources: {} } }),
    ],
    [
      'defaults that are spelled out',
      (spec) => ({
        ...spec,
        TaskTemplate: { ...spec.TaskTemplate, RestartPolicy: { Condition: 'any', Delay: 5 * second } },
        EndpointSpec: { Mode: 'vip' },
      }),
    ],
    [
      'constraints that its nodes satisfy',
      (spec) => ({
        ...spec,
        TaskTemplate: { ...spec.TaskTemplate, Placement: { Constraints: ['node.role==worker'] } },
      }),
    ],
    [
      'placement preferences',
      (spec) => ({
        ...spec,
        TaskTemplate: {
          ...spec.TaskTemplate,
          Placement: { Preferences: [{ Spread: { SpreadDescriptor: 'node.labels.a' } }] },
        },
      }),
    ],
  ];
  for (const [name, change] of untouched) {
    it(`does not touch tasks for ${name}`, () => {
      const world = service();
      const before = world.active('s').map((task) => task.ID);
      world.updateService('s', change).runFor(20_000);
      assert.deepEqual(
        world.active('s').map((task) => task.ID),
        before,
      );
      assert.equal(status(world)[0], undefined);
    });
  }

  const replaced: [string, (spec: ServiceSpec) => ServiceSpec][] = [
    ['a forced update', (spec) => ({ ...spec, TaskTemplate: { ...spec.TaskTemplate, ForceUpdate: 1 } })],
    ['a published port', (spec) => ({ ...spec, EndpointSpec: { Ports: [{ TargetPort: 80 }] } })],
    [
      'an environment',
      (spec) => ({
        ...spec,
        TaskTemplate: { ...spec.TaskTemplate, ContainerSpec: { Image: 'web:1', Env: ['A=1'] } },
      }),
    ],
    [
      'a limit',
      (spec) => ({ ...spec, TaskTemplate: { ...spec.TaskTemplate, Resources: { Limits: { Pids: 9 } } } }),
    ],
  ];
  for (const [name, change] of replaced) {
    it(`replaces tasks for ${name}`, () => {
      const world = service();
      const before = new Set(world.active('s').map((task) => task.ID));
      world.updateService('s', change).runFor(30_000);
      assert.equal(status(world)[0], 'completed');
      assert.equal(world.running('s').filter((task) => before.has(task.ID)).length, 0);
      assert.equal(world.running('s').length, 4);
    });
  }

  it('replaces only tasks on nodes that new constraints rule out', () => {
    const world = service({ replicas: 3 });
    const before = world.active('s');
    world.updateService('s', (spec) => ({
      ...spec,
      TaskTemplate: { ...spec.TaskTemplate, Placement: { Constraints: ['node.id!=n2'] } },
    }));
    world.settle();
    const stopped = before.filter((task) => world.task(task.ID).DesiredState === 'shutdown');
    assert.deepEqual(
      stopped.map((task) => task.NodeID),
      ['n2'],
    );
  });

  it('updates and scales at the same time', () => {
    const world = service({ replicas: 2 });
    world.updateService('s', (spec) => ({
      ...spec,
      Mode: { Replicated: { Replicas: 5 } },
      TaskTemplate: { ContainerSpec: { Image: 'web:2' } },
    }));
    world.runFor(30_000);
    assert.deepEqual(images(world), new Array(5).fill('web:2'));
    assert.equal(status(world)[0], 'completed');
  });

  it('never has fewer serving than promised while tasks go well', () => {
    const orders = fc.constantFrom('stop-first' as const, 'start-first' as const);
    const steps = fc.array(fc.tuple(fc.nat(50), fc.constantFrom(0, 300)), { minLength: 30, maxLength: 120 });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 3 }),
        orders,
        steps,
        fc.boolean(),
        (parallelism, Order, order, moves) => {
          const replicas = 5;
          const world = service({ replicas, update: { Parallelism: parallelism, Order } });
          setImage(world, 'web:2').settle();
          const least = Order === 'start-first' ? replicas : replicas - parallelism;
          for (const [pick, ms] of order) {
            world.schedule().settle();
            const workable = world.workable();
            const task = workable[pick % Math.max(1, workable.length)];
            if (task) world.work(task).settle();
            if (moves && pick % 7 === 0) world.newLeader();
            world.settle().pass(ms);
            assert.ok(world.running('s').length >= least, `${world.running('s').length} of ${least} serve`);
            assert.ok(world.active('s').length <= replicas + (Order === 'start-first' ? parallelism : 0));
          }
          world.runFor(60_000, 1_000);
          assert.deepEqual(images(world), new Array(replicas).fill('web:2'));
          assert.equal(status(world)[0], 'completed');
        },
      ),
      { numRuns: 60 },
    );
  }).timeout(60_000);
});

describe('rollout: managers whose clocks differ', () => {
  it('carries out a rollback that was asked for where the clock is behind', () => {
    const world = service({ replicas: 1, update: { Monitor: 1e6 } });
    setImage(world, 'web:2').run();
    world.pass(10_000).run();
    setImage(world, 'web:3').run();
    world.pass(10_000).run();
    assert.deepEqual(images(world), ['web:3']);
    world.now -= 60_000;
    world.rollbackService('s');
    world.now += 60_000;
    world.run().pass(10_000);
    assert.deepEqual(images(world), ['web:2']);
  });
});
