import assert from 'node:assert/strict';
import { NodeTable } from '../../../manager/scheduler/node-table.ts';
import { schedule, schedulerReconciler } from '../../../manager/scheduler/schedule.ts';
import type { Change } from '../../../manager/store/change.ts';
import type { StoreEvent } from '../../../manager/store/watch.ts';
import { engineIdLabel, engineUnavailableLabel } from '../../../proto/docker.ts';
import type { NetworkId, NodeId, RevisionId, ServiceId } from '../../../proto/ids.ts';
import { makeRevision } from '../orchestrator/objects.ts';
import { type NodeOver, noIds, now, type SpecOver, World } from './world.ts';

const mebibyte = 2 ** 20;

function run(world: World, at = now): Change[] {
  const pending = world.store.find('task', 'state', 'pending');
  const changes = schedule(world.store, pending, NodeTable.build(world.store), at);
  world.apply(changes, at);
  return changes;
}

function three(): World {
  return new World().node('h1').node('h2').node('h3');
}

function reserve(memoryBytes: number): SpecOver {
  return { TaskTemplate: { Resources: { Reservations: { MemoryBytes: memoryBytes } } } };
}

function place(placement: NonNullable<NonNullable<SpecOver['TaskTemplate']>['Placement']>): SpecOver {
  return { TaskTemplate: { Placement: placement } };
}

function publish(port: number): SpecOver {
  return { EndpointSpec: { Ports: [{ TargetPort: 80, PublishedPort: port, PublishMode: 'host' }] } };
}

function nodesOf(world: World, service: string): string[] {
  return Object.values(world.placements(service)).map((place) => place ?? '');
}

describe('scheduler', () => {
  it('assigns with a message, and spreads over nodes', () => {
    const world = three().service('web');
    world.waiting('web', 3);
    run(world);
    assert.deepEqual(nodesOf(world, 'web').sort(), ['h1', 'h2', 'h3']);
    const { Status, NodeID } = world.task('web.1');
    assert.equal(NodeID, 'h1');
    assert.deepEqual(Status, {
      Timestamp: new Date(now).toISOString(),
      State: 'assigned',
      Message: 'scheduler assigned task to node',
    });
  });

  it("counts this service's tasks before all tasks", () => {
    const world = three().service('web').service('db');
    for (let i = 0; i < 4; i += 1) world.running('db', 'h1');
    world.running('db', 'h2').running('web', 'h2').running('web', 'h3');
    world.waiting('web');
    run(world);
    assert.equal(world.task('web.3').NodeID, 'h1');
    world.waiting('db');
    run(world);
    assert.equal(world.task('db.6').NodeID, 'h3');
  });

  it('does not count tasks that are being stopped as replicas, but their ports and memory', () => {
    const world = new World().node('h1').node('h2').service('web', publish(80));
    world.running('web', 'h1', { DesiredState: 'shutdown' });
    world.waiting('web', 2);
    run(world);
    assert.deepEqual(nodesOf(world, 'web').slice(1), [
      'h2',
      'no suitable node (host port 80/tcp already in use on 2 nodes)',
    ]);
  });

  it('spreads over preferences, one inside the other', () => {
    const world = new World();
    const zones = ['east', 'east', 'east', 'west'];
    zones.forEach((zone, index) => {
      world.node(`h${index}`, { Spec: { Labels: { zone, rack: `${index % 2}` } } });
    });
    const spread = (label: string) => ({ Spread: { SpreadDescriptor: `node.labels.${label}` } });
    world.service('web', place({ Preferences: [spread('zone'), spread('rack')] }));
    world.waiting('web', 8);
    run(world);
    const counts = new Map<string, number>();
    for (const node of nodesOf(world, 'web')) counts.set(node, (counts.get(node) ?? 0) + 1);
    assert.deepEqual(Object.fromEntries([...counts].sort()), { h0: 1, h1: 2, h2: 1, h3: 4 });
  });

  it('avoids a node on which the revision failed five times in five minutes', () => {
    const world = three().service('web');
    world.running('web', 'h2').running('web', 'h3');
    const failed = { State: 'failed', Timestamp: new Date(now - 60_000).toISOString() } as const;
    for (let i = 0; i < 5; i += 1) {
      world.waiting('web', 1, { NodeID: 'h1' as NodeId, Slot: 9, Status: failed });
    }
    world.waiting('web', 1);
    run(world);
    assert.notEqual(world.task('web.8').NodeID, 'h1');
    world.waiting('web', 1);
    run(world, now + 6 * 60_000);
    assert.equal(world.task('web.9').NodeID, 'h1');
  });

  it('avoids a node for the revision that failed there, and for no other', () => {
    const world = three().service('web');
    const spec = world.store.get('service', 'web' as ServiceId)!.Spec;
    const next: Change = { op: 'create', kind: 'revision', object: makeRevision('web', 2, spec) };
    world.apply([next]);
    world.running('web', 'h2').running('web', 'h3');
    const failed = { State: 'failed', Timestamp: new Date(now - 60_000).toISOString() } as const;
    for (let i = 0; i < 5; i += 1) {
      world.waiting('web', 1, { NodeID: 'h1' as NodeId, Slot: 9, Status: failed });
    }
    world.waiting('web', 1, { RevisionID: 'web-2' as RevisionId });
    run(world);
    assert.equal(world.task('web.8').NodeID, 'h1');
  });

  it('adds tasks to nested preferences where they are fewest, from the outside in', () => {
    const world = new World();
    const places = [
      ['h1', 'east', '1'],
      ['h2', 'east', '2'],
      ['h3', 'west', '1'],
      ['h4', 'west', '2'],
    ] as const;
    for (const [name, zone, rack] of places) world.node(name, { Spec: { Labels: { zone, rack } } });
    const spread = (label: string) => ({ Spread: { SpreadDescriptor: `node.labels.${label}` } });
    world.service('web', place({ Preferences: [spread('zone'), spread('rack')] }));
    world.running('web', 'h1').running('web', 'h1').running('web', 'h1').running('web', 'h3');
    world.waiting('web', 4);
    run(world);
    const counts = new Map<string, number>();
    for (const node of nodesOf(world, 'web')) counts.set(node, (counts.get(node) ?? 0) + 1);
    // East had three and west one: the zones are even first, then the racks as far as what was there lets them.
    assert.deepEqual(Object.fromEntries([...counts].sort()), { h1: 3, h2: 1, h3: 2, h4: 2 });
  });

  it('takes nothing for tasks that have ended, and places again when one does', () => {
    const world = new World().node('h1', { Description: { Resources: { MemoryBytes: 1024 * mebibyte } } });
    world.service('web', reserve(800 * mebibyte));
    world.running('web', 'h1', { Status: { State: 'failed', Message: 'started' }, DesiredState: 'shutdown' });
    world.waiting('web', 2);
    run(world);
    const [first, second] = [world.task('web.2'), world.task('web.3')];
    assert.equal(first.NodeID, 'h1');
    assert.match(second.Status.Err ?? '', /insufficient memory/);
    const Status = { ...first.Status, State: 'complete' as const };
    world.apply([{ op: 'merge', kind: 'task', id: first.ID, fields: { Status } }]);
    run(world);
    assert.equal(world.task('web.3').NodeID, 'h1');
  });

  it('checks tasks of global services against their node only', () => {
    const world = three().service('agent', reserve(512 * mebibyte));
    world.apply([
      {
        op: 'merge',
        kind: 'node',
        id: 'h2' as NodeId,
        fields: {
          Description: {
            ...world.store.get('node', 'h2' as NodeId)!.Description,
            Resources: { NanoCPUs: 1e9, MemoryBytes: 300 * mebibyte },
          },
        },
      },
    ]);
    for (const node of ['h1', 'h2', 'gone']) world.waiting('agent', 1, { NodeID: node as NodeId });
    run(world);
    assert.equal(world.task('agent.1').Status.State, 'assigned');
    assert.equal(
      world.task('agent.2').Status.Err,
      'node h2 cannot take it (insufficient memory on 1 node: 512 MiB asked, 300 MiB free)',
    );
    assert.equal(world.task('agent.3').Status.Err, 'its node gone is not in the cluster any more');
  });

  it('leaves alone what is not to be scheduled', () => {
    const world = three()
      .network('n1')
      .service('web')
      .service('net', {
        TaskTemplate: { Networks: [{ Target: 'n1' }] },
      });
    world.waiting('web', 1, { DesiredState: 'shutdown' });
    world.waiting('net', 1);
    assert.deepEqual(run(world), []);
    world.waiting('net', 1, {
      NetworksAttachments: [{ NetworkID: 'n1' as NetworkId, Addresses: ['10.0.0.2/24'] }],
    });
    run(world);
    assert.equal(world.task('net.2').Status.State, 'assigned');
  });

  it('fills a node to the last byte', () => {
    const world = new World().node('h1', { Description: { Resources: { MemoryBytes: 4 * mebibyte } } });
    world.service('web', reserve(2 * mebibyte)).waiting('web', 3);
    run(world);
    assert.deepEqual(nodesOf(world, 'web'), [
      'h1',
      'h1',
      'no suitable node (insufficient memory on 1 node: 2 MiB asked, 0 B free)',
    ]);
  });

  it('writes a reason once, and again only when it changes', () => {
    const world = new World().node('h1', { Spec: { Availability: 'drain' } }).service('web');
    world.waiting('web', 2);
    assert.equal(run(world).length, 2);
    assert.equal(world.task('web.1').Status.Err, 'no suitable node (1 of 1 node is drained)');
    assert.deepEqual(run(world), []);
    world.node('h2', { Status: { State: 'down' } });
    assert.equal(run(world).length, 2);
    assert.equal(
      world.task('web.1').Status.Err,
      'no suitable node (1 of 2 nodes is drained; 1 of 2 nodes is down)',
    );
  });
});

describe('scheduler: reasons', () => {
  it('a node whose engine does not answer gets nothing', () => {
    const Engine = { EngineVersion: '', Labels: { [engineUnavailableLabel]: 'refused' }, Plugins: [] };
    const world = new World().node('h1', { Description: { Engine } }).service('web');
    world.waiting('web');
    run(world);
    assert.equal(world.task('web.1').Status.Err, 'no suitable node (1 of 1 node is without its engine)');
    world.node('h2');
    run(world);
    assert.deepEqual(nodesOf(world, 'web'), ['h2']);
  });

  const big = { Description: { Resources: { NanoCPUs: 2e9, MemoryBytes: 300 * mebibyte } } };
  const drained = { Spec: { Availability: 'drain' } } as const;

  function reason(world: World, over: SpecOver): string | undefined {
    world.service('web', over);
    world.waiting('web');
    run(world);
    assert.equal(world.task('web.1').NodeID, undefined);
    return world.task('web.1').Status.Err;
  }

  it('no node', () => {
    assert.equal(reason(new World(), {}), 'no suitable node (the cluster has no nodes)');
  });

  it('drained nodes and too little memory', () => {
    const world = new World().node('a', drained).node('b', drained).node('c', drained);
    world.node('d', big).node('e', big);
    assert.equal(
      reason(world, reserve(512 * mebibyte)),
      'no suitable node (3 of 5 nodes are drained; insufficient memory on 2 nodes: 512 MiB asked, 300 MiB free)',
    );
  });

  it('processors', () => {
    const world = new World().node('a', big).node('b');
    assert.equal(
      reason(world, { TaskTemplate: { Resources: { Reservations: { NanoCPUs: 8.5e9 } } } }),
      'no suitable node (insufficient CPU on 2 nodes: 8.5 CPUs asked, at most 4 CPUs free)',
    );
  });

  it('constraints', () => {
    const world = three();
    assert.equal(
      reason(world, place({ Constraints: ['node.role==manager'] })),
      'no suitable node (placement constraint node.role==manager not satisfied on 3 nodes)',
    );
    assert.equal(
      reason(new World().node('a'), place({ Constraints: ['node.labels.disk==ssd'] })),
      'no suitable node (placement constraint not satisfied on 1 node: node.labels.disk==ssd, but it is not set)',
    );
  });

  it('a constraint that cannot be understood', () => {
    assert.match(reason(three(), place({ Constraints: ['node=foo'] })) ?? '', /invalid placement constraint/);
  });

  it('platforms', () => {
    assert.equal(
      reason(three(), place({ Platforms: [{ OS: 'linux', Architecture: 'aarch64' }] })),
      'no suitable node (unsupported platform on 3 nodes: linux/arm64 asked, linux/amd64 there)',
    );
  });

  it('replicas per node', () => {
    const world = new World()
      .node('a')
      .node('b')
      .service('web', place({ MaxReplicas: 1 }));
    world.waiting('web', 3);
    run(world);
    assert.deepEqual(nodesOf(world, 'web'), [
      'a',
      'b',
      'no suitable node (max replicas per node limit reached on 2 nodes: at most 1 of this service on each)',
    ]);
  });

  it('host ports, which nodes on one engine share', () => {
    const shared = { Description: { Engine: { Labels: { [engineIdLabel]: 'e1' } } } };
    const world = new World().node('a', shared).node('b', shared).node('c').service('web', publish(8080));
    world.waiting('web', 3);
    run(world);
    assert.deepEqual(nodesOf(world, 'web'), [
      'a',
      'c',
      'no suitable node (host port 8080/tcp already in use on 3 nodes)',
    ]);
  });

  it('networks that reach one engine', () => {
    const on = (engine: string) => ({ Description: { Engine: { Labels: { [engineIdLabel]: engine } } } });
    const world = new World().node('h1', on('e1')).node('h1b', on('e1')).node('h2', on('e2'));
    const joined: SpecOver = { TaskTemplate: { Networks: [{ Target: 'app_default' }] } };
    const attached = {
      NetworksAttachments: [{ NetworkID: 'app_default' as NetworkId, Addresses: ['10.0.0.2/24'] }],
    };
    world.network('app_default').service('web', joined);
    world.waiting('web', 4, attached);
    run(world);
    assert.deepEqual(nodesOf(world, 'web').sort(), ['h1', 'h1', 'h1b', 'h1b']);
    world.service('db', {
      TaskTemplate: {
        Networks: [{ Target: 'app_default' }],
        Placement: { Constraints: ['node.hostname==h2'] },
      },
    });
    world.waiting('db', 1, attached);
    run(world);
    assert.match(
      world.task('db.1').Status.Err ?? '',
      /; network app_default lives on the engine of node h1, which is out of reach from node h2 \(an engine of its own\)\)$/,
    );
  });

  it('a network goes to the engine that takes most of what is on it', () => {
    const size = (MemoryBytes: number) => ({ Description: { Resources: { MemoryBytes } } });
    const joined = (memory: number): SpecOver => ({
      TaskTemplate: { ...reserve(memory).TaskTemplate, Networks: [{ Target: 'app_default' }] },
    });
    const attached = {
      NetworksAttachments: [{ NetworkID: 'app_default' as NetworkId, Addresses: ['10.0.0.2/24'] }],
    };
    const placed = (...memory: number[]): string[] => {
      const world = new World()
        .network('app_default')
        .service('busy')
        .service('web', joined(2))
        .service('db', joined(3));
      memory.forEach((bytes, index) => {
        world.node(`h${index}`, size(bytes));
      });
      world.running('busy', 'h0');
      world.waiting('web', 2, attached);
      world.waiting('db', 1, attached);
      run(world);
      return [...nodesOf(world, 'web'), ...nodesOf(world, 'db')].map((place) => place.slice(0, 16));
    };
    assert.deepEqual(placed(9, 9), ['h1', 'h1', 'h1']);
    assert.deepEqual(placed(7, 6), ['h0', 'h0', 'h0']);
    assert.deepEqual(placed(1, 3, 5), ['h2', 'h2', 'no suitable node']);
    assert.deepEqual(placed(1, 1), ['no suitable node', 'no suitable node', 'no suitable node']);
  });

  it('a network moves when the node of its tasks is lost or drained, but not when it is paused', () => {
    const joined: SpecOver = { TaskTemplate: { Networks: [{ Target: 'app_default' }] } };
    const attached = {
      NetworksAttachments: [{ NetworkID: 'app_default' as NetworkId, Addresses: ['10.0.0.2/24'] }],
    };
    const placedGiven = (over: NodeOver): string[] => {
      const world = new World().node('h1', over).node('h2').network('app_default').service('web', joined);
      world.running('web', 'h1', attached);
      world.waiting('web', 1, attached);
      run(world);
      return nodesOf(world, 'web').slice(1);
    };
    assert.deepEqual(placedGiven({ Status: { State: 'down' } }), ['h2']);
    assert.deepEqual(placedGiven({ Spec: { Availability: 'drain' } }), ['h2']);
    assert.match(
      placedGiven({ Spec: { Availability: 'pause' } })[0] ?? '',
      /1 of 2 nodes is paused; network app_default/,
    );
  });

  it('the service with the least choice chooses the engine of a network', () => {
    const world = three()
      .network('app_default')
      .service('web', {
        TaskTemplate: { Networks: [{ Target: 'app_default' }] },
      });
    world.service('db', {
      TaskTemplate: {
        Networks: [{ Target: 'app_default' }],
        Placement: { Constraints: ['node.hostname==h2'] },
      },
    });
    const attached = {
      NetworksAttachments: [{ NetworkID: 'app_default' as NetworkId, Addresses: ['10.0.0.2/24'] }],
    };
    world.waiting('web', 2, attached);
    world.waiting('db', 1, attached);
    run(world);
    assert.deepEqual([...nodesOf(world, 'web'), ...nodesOf(world, 'db')], ['h2', 'h2', 'h2']);
  });
});

describe('scheduler: as a reconciler', () => {
  it('counts what lives on a node that comes back', () => {
    const world = new World().node('h1').service('web', publish(80)).running('web', 'h1');
    const scheduler = schedulerReconciler();
    scheduler.allKeys(world.store);
    world.store.onCommit((commit) => {
      if (commit.kind === 'changed') for (const event of commit.events) scheduler.keysFor(event, world.store);
    });
    world.apply([{ op: 'remove', kind: 'node', id: 'h1' as NodeId }]);
    world.node('h1').waiting('web');
    world.apply(scheduler.reconcile(world.store, 'pending', now, noIds).changes);
    assert.match(world.task('web.2').Status.Err ?? '', /host port 80/);
  });

  it('follows the store by its events, and wakes only for what may matter', () => {
    const world = new World().node('h1').service('web', publish(80));
    const scheduler = schedulerReconciler();
    const keys: string[][] = [];
    scheduler.allKeys(world.store);
    world.store.onCommit((commit) => {
      if (commit.kind === 'changed') {
        keys.push(commit.events.flatMap((event: StoreEvent) => scheduler.keysFor(event, world.store)));
      }
    });
    const reconcile = () => world.apply(scheduler.reconcile(world.store, 'pending', now, noIds).changes);
    world.waiting('web', 2);
    assert.deepEqual(keys.pop(), ['pending', 'pending']);
    reconcile();
    assert.deepEqual(keys.pop(), []);
    assert.deepEqual(nodesOf(world, 'web'), [
      'h1',
      'no suitable node (host port 80/tcp already in use on 1 node)',
    ]);
    const first = world.task('web.1');
    world.apply([
      { op: 'merge', kind: 'task', id: first.ID, fields: { Status: { ...first.Status, State: 'failed' } } },
    ]);
    assert.deepEqual(keys.pop(), ['pending']);
    reconcile();
    assert.equal(world.task('web.2').NodeID, 'h1');
    world.apply([{ op: 'remove', kind: 'task', id: first.ID }]);
    reconcile();
    assert.equal(scheduler.reconcile(world.store, 'pending', now, noIds).changes.length, 0);
  });
});
