import assert from 'node:assert/strict';
import { stackLabel } from '../../../proto/docker.ts';
import type { ConfigId, NodeId, RevisionId, SecretId, ServiceId, StackId } from '../../../proto/ids.ts';
import { makeSpec, makeTask } from './objects.ts';
import { World } from './world.ts';

const dayMs = 24 * 60 * 60 * 1000;

function service(replicas = 1): World {
  const spec = makeSpec({
    Mode: { Replicated: { Replicas: replicas } },
    TaskTemplate: { RestartPolicy: { Delay: 0 } },
  });
  return new World(2).createService('s', spec).run();
}

function setHistory(world: World, TaskHistoryRetentionLimit: number): World {
  const cluster = world.store.cluster()!;
  const Spec = { ...cluster.Spec, Orchestration: { TaskHistoryRetentionLimit } };
  world.apply([{ op: 'merge', kind: 'cluster', id: cluster.ID, fields: { Spec } }]);
  return world;
}

function fail(world: World, times: number): World {
  for (let count = 0; count < times; count += 1) {
    world.report(world.active('s')[0]!.ID, 'failed').run().pass(1_000);
  }
  return world;
}

function setImage(world: World, Image: string): World {
  return world.updateService('s', (spec) => ({
    ...spec,
    TaskTemplate: { ...spec.TaskTemplate, ContainerSpec: { Image } },
  }));
}

describe('manager/orchestrator/reaper', () => {
  it('keeps five tasks a slot, the running one among them, and drops the oldest', () => {
    const world = service();
    const first = world.active('s')[0]!.ID;
    fail(world, 4);
    assert.equal(world.tasks('s').length, 5);
    assert.ok(world.task(first));
    fail(world, 3);
    assert.equal(world.tasks('s').length, 5);
    assert.equal(world.task(first), undefined);
  });

  it('drops a stack when the last of what was in it is gone', () => {
    const Labels = { [stackLabel]: 'app' };
    const meta = { Version: { Index: 0 }, CreatedAt: '', UpdatedAt: '' };
    const world = new World(2).createService('s', makeSpec({ Labels })).run();
    const named = (ID: string) => ({ ...meta, ID, Spec: { Name: ID, Labels, Data: '' } }) as never;
    world.apply([
      { op: 'create', kind: 'secret', object: named('secret') },
      { op: 'create', kind: 'config', object: named('config') },
      {
        op: 'create',
        kind: 'stack',
        object: { ...meta, ID: 'app' as StackId, Spec: { Name: 'app', Labels: {} }, Source: '', History: [] },
      },
    ]);
    world.apply([{ op: 'remove', kind: 'secret', id: 'secret' as SecretId }]);
    world.removeService('s').run();
    assert.equal(world.store.count('stack'), 1);
    world.apply([{ op: 'remove', kind: 'config', id: 'config' as ConfigId }]);
    world.settle();
    assert.equal(world.store.count('stack'), 0);
  });

  it('follows the limit when it changes; a negative one keeps all', () => {
    const world = setHistory(service(), -1);
    assert.equal(fail(world, 12).tasks('s').length, 13);
    setHistory(world, 3).settle();
    assert.equal(world.tasks('s').length, 3);
    setHistory(world, 0).settle();
    assert.equal(world.tasks('s').length, 1);
    assert.equal(world.running('s').length, 1);
  });

  it('keeps what the restart policy has to count', () => {
    const spec = makeSpec({ TaskTemplate: { RestartPolicy: { MaxAttempts: 7, Delay: 0 } } });
    const world = setHistory(new World(2), 0).createService('s', spec).run();
    fail(world, 7);
    assert.equal(world.tasks('s').length, 8);
    world.report(world.active('s')[0]!.ID, 'failed').runFor(60_000);
    assert.equal(world.active('s').length, 0);
  });

  it('does not start a finished slot again for having no history', () => {
    const spec = makeSpec({ TaskTemplate: { RestartPolicy: { Condition: 'none' } } });
    const world = setHistory(new World(1), 0).createService('s', spec).run();
    world.report(world.active('s')[0]!.ID, 'complete').runFor(60_000);
    world.newLeader();
    assert.equal(world.runFor(60_000).tasks('s').length, 1);
    assert.equal(world.active('s').length, 0);
  });

  it('keeps a task that still runs, however old', () => {
    const world = setHistory(service(), 0);
    const [old] = world.active('s');
    world.setNode(old!.NodeID!, { Status: { State: 'down' } }).run();
    assert.ok(world.task(old!.ID));
  });

  it('removes unassigned tasks of a removed service directly, assigned ones when they have stopped', () => {
    const world = new World(1)
      .createService('s', makeSpec({ Mode: { Replicated: { Replicas: 2 } } }))
      .settle();
    const [first, second] = world.active('s');
    world.schedule().settle();
    world.scale('s', 3).settle();
    world.removeService('s').settle();
    assert.deepEqual(
      world.tasks('s').map((task) => task.ID),
      [first!.ID, second!.ID],
    );
    world.report(first!.ID, 'shutdown').settle();
    assert.deepEqual(
      world.tasks('s').map((task) => task.ID),
      [second!.ID],
    );
    world.report(second!.ID, 'failed').settle();
    assert.equal(world.store.count('task'), 0);
  });

  it('a new leader clears away what the one before left, and leaves what runs and what is history', () => {
    const world = fail(service(2), 1);
    const kept = world.tasks('s').map(({ ID }) => ID);
    const gone = {
      ServiceID: 'gone' as ServiceId,
      RevisionID: 'gone-1' as RevisionId,
      DesiredState: 'remove',
    };
    const left = (id: string, over: object) =>
      world.apply([{ op: 'create', kind: 'task', object: makeTask(id, 's', { ...gone, ...over } as never) }]);
    const state = (State: string) => ({ Status: { State } });
    left('runs', { Slot: 1, NodeID: 'n1', ...state('running') });
    left('ended', { Slot: 2, NodeID: 'n1', ...state('complete') });
    left('unassigned', { Slot: 3, NodeID: undefined, ...state('pending') });
    left('scaled', { ServiceID: 's', RevisionID: 's-1', Slot: 9, NodeID: 'n1', ...state('shutdown') });
    world.newLeader();
    world.settle();
    const ids = world.store.list('task').map(({ ID }) => ID);
    assert.deepEqual(ids.sort(), [...kept, 'runs'].sort());
  });

  it('gives up after a day what was on a node that is down, under any leader', () => {
    const world = service();
    const [old] = world.active('s');
    world.setNode(old!.NodeID!, { Status: { State: 'down' } }).run();
    world.pass(dayMs / 2);
    world.newLeader();
    world.settle().pass(dayMs / 2 - 1);
    assert.equal(world.task(old!.ID).Status.State, 'running');
    world.pass(1);
    assert.equal(world.task(old!.ID).Status.State, 'orphaned');
    assert.match(world.task(old!.ID).Status.Err!, /down for 24 hours/);
  });

  it('starts counting anew when the node was back in between', () => {
    const world = service();
    const [old] = world.active('s');
    world
      .setNode(old!.NodeID!, { Status: { State: 'down' } })
      .run()
      .pass(dayMs - 1_000);
    world.setNode(old!.NodeID!, { Status: { State: 'ready' } }).settle();
    world
      .setNode(old!.NodeID!, { Status: { State: 'down' } })
      .settle()
      .pass(dayMs - 1_000);
    assert.equal(world.task(old!.ID).Status.State, 'running');
    world.pass(1_000);
    assert.equal(world.task(old!.ID).Status.State, 'orphaned');
  });

  it('forgets tasks of a removed service whose node was removed', () => {
    const world = service(2);
    world.setNode('n1', { Status: { State: 'down' } }).run();
    world.removeService('s').run();
    assert.ok(world.store.count('task') > 0, 'the dead node may come back');
    world.apply([{ op: 'remove', kind: 'node', id: 'n1' as NodeId }]);
    world.settle();
    assert.equal(world.store.count('task'), 0);
    assert.equal(world.store.count('revision'), 0);
  });

  it('keeps the last ten revisions, and those that a task has', () => {
    const world = setHistory(service(), -1);
    world.updateService('s', (spec) => ({
      ...spec,
      UpdateConfig: { Parallelism: 1, FailureAction: 'pause' },
    }));
    for (let version = 2; version <= 20; version += 1) {
      world.updateService('s', (spec) => ({ ...spec, Labels: { version: `${version}` } })).settle();
    }
    const numbers = () => world.store.find('revision', 'service', 's').map((revision) => revision.Number);
    assert.deepEqual(numbers(), [1, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]);
    setHistory(world, 0);
    setImage(world, 'web:2').runFor(20_000);
    assert.deepEqual(numbers(), [13, 14, 15, 16, 17, 18, 19, 20, 21, 22]);
  });
});
