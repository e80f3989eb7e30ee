/** Addresses of containers that are no tasks, and of their nodes for them. */
import assert from 'node:assert/strict';
import { allocate, networkReconciler } from '../../../manager/allocator/allocate.ts';
import type { Change } from '../../../manager/store/change.ts';
import type { ContainerAddress, IPAMConfig, Network } from '../../../proto/docker.ts';
import { asId, type NetworkId, type NodeId } from '../../../proto/ids.ts';
import { makeCluster } from '../orchestrator/objects.ts';
import { noIds, now, World } from '../scheduler/world.ts';

const networkId = asId<NetworkId>('net');
const nodeId = asId<NodeId>('node1');

function begin(configs: IPAMConfig[]): World {
  const world = new World();
  world.apply([{ op: 'create', kind: 'cluster', object: makeCluster() }]);
  world.node('node1');
  const network: Network = {
    ID: networkId,
    Version: { Index: 0 },
    CreatedAt: '',
    UpdatedAt: '',
    Spec: {
      Name: 'net',
      Labels: {},
      DriverConfiguration: { Name: 'overlay' },
      Attachable: true,
      IPAMOptions: { Configs: configs },
    },
    IPAMOptions: { Driver: { Name: 'default' }, Configs: [] },
  };
  propose(world, [{ op: 'create', kind: 'network', object: network }]);
  return world;
}

function propose(world: World, changes: readonly Change[]): void {
  world.apply(allocate(world.store, changes, now), now);
}

function addresses(world: World): readonly ContainerAddress[] {
  return world.store.get('node', nodeId)?.ContainerAddresses ?? [];
}

/** The node asks for these, and the allocator does what it owes. */
function ask(world: World, ...ids: string[]): void {
  const previous = world.store.get('node', nodeId)!;
  const ContainerAttachments = ids.map((ID) => ({ ID, NetworkID: networkId, Names: [] }));
  propose(world, [{ op: 'merge', kind: 'node', id: nodeId, fields: { ContainerAttachments } }]);
  const object = world.store.get('node', nodeId)!;
  const event = { op: 'update', kind: 'node', object, previous } as const;
  const allocator = networkReconciler();
  for (const key of allocator.keysFor(event, world.store)) {
    world.apply(allocator.reconcile(world.store, key, now, noIds).changes, now);
  }
}

describe('containers that are no tasks', () => {
  it('get addresses, and their node its own; each is claimed, and kept', () => {
    const world = begin([{ Subnet: '10.9.0.0/28' }]);
    ask(world, 'a', 'b');
    const before = addresses(world);
    ask(world, 'a', 'b', 'c');
    assert.deepEqual(addresses(world).slice(0, 2), before);
    const own = world.store.get('node', nodeId)?.Attachments ?? [];
    assert.equal(own.length, 1);
    const all = [...addresses(world), ...own].flatMap(({ Addresses }) => Addresses);
    assert.equal(new Set(all).size, 4, all.join());
    for (const address of all) {
      const holder = world.store.claims.holderOfAddress(networkId, address.replace(/\/.*/, ''));
      assert.deepEqual(holder, { kind: 'node', id: nodeId });
    }
  });

  it('say why they have none', () => {
    const world = begin([{ Subnet: '10.9.0.0/29' }]);
    ask(world, 'a', 'b', 'c', 'd', 'e', 'f', 'g');
    const without = addresses(world).filter(({ Addresses }) => Addresses.length === 0);
    assert.ok(without.length > 0 && without.length < 7);
    for (const { Err } of without) assert.match(Err ?? '', /address/);
  });

  it('give theirs back, and the last of them their node’s', () => {
    const world = begin([{ Subnet: '10.9.0.0/28' }]);
    ask(world, 'a', 'b');
    ask(world, 'b');
    assert.deepEqual(
      addresses(world).map(({ ID }) => ID),
      ['b'],
    );
    assert.equal(world.store.get('node', nodeId)?.Attachments?.length, 1);
    ask(world);
    const { Attachments, ContainerAddresses } = world.store.get('node', nodeId)!;
    assert.deepEqual([Attachments, ContainerAddresses], [[], []]);
    assert.equal(world.store.claims.countAddresses(networkId), 0);
  });
});
