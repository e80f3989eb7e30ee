/** What a node's engine must have for a task, and what a task is given of its node by name or by number. */
import assert from 'node:assert/strict';
import { NodeTable } from '../../../manager/scheduler/node-table.ts';
import { schedule } from '../../../manager/scheduler/schedule.ts';
import { now, type SpecOver, World } from './world.ts';

function run(world: World): void {
  const pending = world.store.find('task', 'state', 'pending');
  world.apply(schedule(world.store, pending, NodeTable.build(world.store), now), now);
}

function nodesOf(world: World, service: string): string[] {
  return Object.values(world.placements(service)).map((place) => place ?? '');
}

function reason(world: World, over: SpecOver): string | undefined {
  world.service('web', over);
  world.waiting('web');
  run(world);
  return world.task('web.1').Status.Err;
}

describe('scheduler: what an engine must have', () => {
  it('drivers', () => {
    const plugins = (name: string) => ({
      Description: { Engine: { Plugins: [{ Type: 'Volume', Name: name }] } },
    });
    const world = new World().node('a', plugins('local')).node('b', plugins('nfs:latest'));
    const mount = { Type: 'volume', Source: 'v', Target: '/v' } as const;
    const over = (driver: string): SpecOver => ({
      TaskTemplate: {
        ContainerSpec: { Mounts: [{ ...mount, VolumeOptions: { DriverConfig: { Name: driver } } }] },
      },
    });
    world.service('files', over('nfs'));
    world.waiting('files');
    run(world);
    assert.equal(world.task('files.1').NodeID, 'b');
    assert.equal(reason(world, over('ceph')), 'no suitable node (missing volume driver "ceph" on 2 nodes)');
  });

  it('drivers of logs, which nodes that name none are taken to have', () => {
    const logs = (...names: string[]) => ({
      Description: { Engine: { Plugins: names.map((Name) => ({ Type: 'Log', Name })) } },
    });
    const over = (Name: string): SpecOver => ({ TaskTemplate: { LogDriver: { Name } } });
    const world = new World().node('a', logs('json-file')).node('b', logs('json-file', 'gelf'));
    world.service('told', over('gelf')).service('mute', over('none'));
    world.waiting('told', 2);
    world.waiting('mute', 2);
    run(world);
    assert.deepEqual(nodesOf(world, 'told'), ['b', 'b']);
    assert.deepEqual(nodesOf(world, 'mute').sort(), ['a', 'b'], 'every engine can log nothing');
    assert.equal(reason(world, over('loki')), 'no suitable node (missing log driver "loki" on 2 nodes)');
    world.node('c');
    run(world);
    assert.equal(world.task('web.1').NodeID, 'c');
  });
});

describe('scheduler: generic resources', () => {
  const gpus = {
    Description: {
      Resources: {
        GenericResources: [
          { NamedResourceSpec: { Kind: 'gpu', Value: 'a' } },
          { NamedResourceSpec: { Kind: 'gpu', Value: 'b' } },
          { DiscreteResourceSpec: { Kind: 'ssd', Value: 3 } },
        ],
      },
    },
  };

  it('claims instances by name and amounts by number', () => {
    const world = new World().node('h1', gpus);
    const ask = (Kind: string, Value: number) => ({ DiscreteResourceSpec: { Kind, Value } });
    world.service('train', {
      TaskTemplate: { Resources: { Reservations: { GenericResources: [ask('gpu', 1), ask('ssd', 1)] } } },
    });
    world.waiting('train', 3);
    run(world);
    const claims = ['train.1', 'train.2'].map((id) => world.task(id).AssignedGenericResources);
    assert.deepEqual(claims, [
      [{ NamedResourceSpec: { Kind: 'gpu', Value: 'a' } }, ask('ssd', 1)],
      [{ NamedResourceSpec: { Kind: 'gpu', Value: 'b' } }, ask('ssd', 1)],
    ]);
    assert.equal(
      world.task('train.3').Status.Err,
      'no suitable node (insufficient resource gpu on 1 node: 1 asked, at most 0 free)',
    );
  });
});
