/** Services that wait for each other: on creation, update, restarts, and after everything lost its power. */
import assert from 'node:assert/strict';
import { circleOf } from '../../../manager/store/dependencies.ts';
import type { ServiceSpec } from '../../../proto/docker.ts';
import { makeSpec } from './objects.ts';
import { World } from './world.ts';

const dependsOn = (value: string) => ({ 'shoal.depends-on': value });

function spec(name: string, dependencies?: string, more: Partial<ServiceSpec> = {}): ServiceSpec {
  return { ...makeSpec({ Name: name, Labels: dependencies ? dependsOn(dependencies) : {} }), ...more };
}

const job = { Mode: { ReplicatedJob: { MaxConcurrent: 1, TotalCompletions: 2 } } };

describe('manager/orchestrator/order', () => {
  it('starts a service when what it depends on runs, and prepares it meanwhile', () => {
    const world = new World(2).createService('web', spec('web', 'db:service_healthy')).run();
    const [task] = world.active('web');
    assert.deepEqual([task?.DesiredState, task?.Status.State], ['ready', 'ready'], 'there is no db yet');
    world.createService('db', spec('db')).settle().schedule().settle();
    assert.equal(world.active('web')[0]?.DesiredState, 'ready', 'db does not run yet');
    const [db] = world.active('db');
    world.report(db!.ID, 'starting').settle();
    assert.equal(world.active('web')[0]?.DesiredState, 'ready', 'db starts');
    world.report(db!.ID, 'running').settle();
    assert.equal(world.active('web')[0]?.DesiredState, 'running');
    assert.deepEqual(world.unsettled(), []);
  });

  it('takes a container that was started for service_started, before its health check has passed', () => {
    const world = new World(1).createService('web', spec('web', 'db')).createService('db', spec('db'));
    world.settle().schedule().settle();
    const [db] = world.active('db');
    const Status = { ...db!.Status, State: 'starting' as const };
    world.apply([{ op: 'merge', kind: 'task', id: db!.ID, fields: { Status } }]);
    assert.equal(world.settle().active('web')[0]?.DesiredState, 'ready');
    const ContainerStatus = { ContainerID: 'c', PID: 7, ExitCode: 0 };
    world.apply([
      { op: 'merge', kind: 'task', id: db!.ID, fields: { Status: { ...Status, ContainerStatus } } },
    ]);
    assert.equal(world.settle().active('web')[0]?.DesiredState, 'running');
  });

  it('waits for all completions of a job, and for those of its new run in an update', () => {
    const world = new World(2)
      .createService('web', spec('web', 'migrate:service_completed_successfully'))
      .createService('migrate', spec('migrate', undefined, job));
    world.settle().schedule().settle();
    const complete = () => {
      const [task] = world.active('migrate').filter((one) => one.Status.State !== 'complete');
      world.report(task!.ID, 'complete').settle().schedule().settle();
    };
    complete();
    assert.equal(world.active('web')[0]?.DesiredState, 'ready', 'one of two');
    complete();
    assert.equal(world.active('web')[0]?.DesiredState, 'running');
    world.run();
    const newer = (image: string) => (one: ServiceSpec) => ({
      ...one,
      TaskTemplate: { ...one.TaskTemplate, ContainerSpec: { Image: image } },
    });
    world.updateService('migrate', newer('app:2')).updateService('web', newer('app:2'));
    world.settle().schedule().settle();
    assert.equal(world.running('web').length, 1, 'the old one serves on while the new run is under way');
    assert.equal(world.image(world.running('web')[0]!), 'web:1');
    assert.match(world.service('web').UpdateStatus?.Message ?? '', /waiting for dependency migrate .*0 of 2/);
    world.newLeader();
    complete();
    assert.match(world.service('web').UpdateStatus?.Message ?? '', /1 of 2/);
    complete();
    world.runFor(10_000);
    assert.equal(world.image(world.running('web')[0]!), 'app:2');
    assert.equal(world.service('web').UpdateStatus?.State, 'completed');
  });

  it('updates a service only once what it depends on was updated', () => {
    const world = new World(2)
      .createService('db', spec('db'))
      .createService('web', spec('web', 'db:service_healthy'))
      .run();
    const newer = (one: ServiceSpec) => ({
      ...one,
      TaskTemplate: { ...one.TaskTemplate, ContainerSpec: { Image: 'x:2' } },
    });
    world.updateService('db', newer).updateService('web', newer).settle().schedule().settle();
    assert.deepEqual(
      world.running('web').map((task) => world.image(task)),
      ['web:1'],
    );
    world.runFor(20_000);
    assert.deepEqual(
      [...world.running('db'), ...world.running('web')].map((task) => world.image(task)),
      ['x:2', 'x:2'],
    );
  });

  it('keeps the order after a power cut of everything, whichever node comes back first', () => {
    const world = new World(2)
      .createService('db', spec('db'))
      .createService('web', spec('web', 'db:service_healthy'))
      .run();
    const [db] = world.active('db');
    const [web] = world.active('web');
    world.setNode(db!.NodeID!, { Status: { State: 'unknown' } });
    world.newLeader();
    // The web's node is back first, and says what became of its container.
    world.report(web!.ID, 'failed').pass(60_000).schedule().settle();
    assert.equal(world.active('web')[0]?.DesiredState, 'ready', 'what db was before the cut does not count');
    world
      .setNode(db!.NodeID!, { Status: { State: 'ready' } })
      .report(db!.ID, 'failed')
      .pass(6_000);
    assert.equal(world.active('web')[0]?.DesiredState, 'ready');
    world.run();
    assert.deepEqual([world.running('db').length, world.running('web').length], [1, 1]);
  });

  it('does not stop what runs when its dependency fails', () => {
    const world = new World(1).createService('db', spec('db')).createService('web', spec('web', 'db')).run();
    world.report(world.active('db')[0]!.ID, 'failed').settle();
    assert.equal(world.running('web').length, 1);
  });

  it('finds circles, also through what is stored, and means services of the own stack first', () => {
    const world = new World(1).createService('db', spec('db', 'web'));
    const of = (...specs: ServiceSpec[]) => circleOf(world.store, specs);
    assert.deepEqual(of(spec('web', 'db')), ['web', 'db', 'web']);
    assert.deepEqual(of(spec('web', 'web')), ['web', 'web']);
    assert.equal(of(spec('web', 'cache'), spec('cache')), undefined);
    const stack = { 'com.docker.stack.namespace': 'app' };
    const own = (name: string, value: string) => ({
      ...spec(name),
      Labels: { ...stack, ...dependsOn(value) },
    });
    assert.equal(of(spec('web'), own('app_web', 'db'), own('app_db', 'x')), undefined);
    assert.deepEqual(of(own('app_a', 'b'), own('app_b', 'c'), own('app_c', 'a')), [
      'app_a',
      'app_b',
      'app_c',
      'app_a',
    ]);
  });
});
