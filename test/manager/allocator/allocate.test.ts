import assert from 'node:assert/strict';
import fc from 'fast-check';
import { allocate, networkReconciler } from '../../../manager/allocator/allocate.ts';
import type { Change } from '../../../manager/store/change.ts';
import { restMs } from '../../../manager/store/claims.ts';
import { describeSubnetConflict, overlaps, parseSubnet, subnetsOf } from '../../../manager/store/ip.ts';
import type { IPAMConfig, Network, NetworkSpec, PortConfig, Task } from '../../../proto/docker.ts';
import type { NetworkId } from '../../../proto/ids.ts';
import type { TaskState } from '../../../proto/task-state.ts';
import { makeCluster, makeRevision, makeService, makeSpec, makeTask } from '../orchestrator/objects.ts';
import { noIds, now, type TaskOver, World } from '../scheduler/world.ts';

const waitingStatus = {
  Timestamp: new Date(now).toISOString(),
  State: 'pending',
  Message: 'created',
} as const;

function makeNetwork(id: string, over: Partial<NetworkSpec> = {}): Network {
  return {
    ID: id as NetworkId,
    Version: { Index: 0 },
    CreatedAt: '',
    UpdatedAt: '',
    Spec: { Name: id, Labels: {}, DriverConfiguration: { Name: 'overlay' }, ...over },
    IPAMOptions: { Driver: { Name: 'default' }, Configs: [] },
  };
}

/** Names resolve to the tasks themselves: the only addresses are theirs. */
const withoutVip = { EndpointSpec: { Mode: 'dnsrr' } } as const;

/** A network `net` with the given subnets, or one of the pool, and a service `web` on it. */
function onNetwork(configs: IPAMConfig[] = [{ Subnet: '10.9.0.0/29' }], at = now): World {
  const world = new World();
  world.apply([{ op: 'create', kind: 'cluster', object: makeCluster() }]);
  const network = makeNetwork('net', { IPAMOptions: { Configs: configs } });
  propose(world, [{ op: 'create', kind: 'network', object: network }], at);
  return world.service('web', {
    ...withoutVip,
    TaskTemplate: { Networks: [{ Target: 'net', Aliases: ['web'] }] },
  });
}

function propose(world: World, changes: readonly Change[], at = now): void {
  world.apply(allocate(world.store, changes, at), at);
}

function creations(ids: readonly string[], over: TaskOver = {}): Change[] {
  return ids.map((id) => ({
    op: 'create',
    kind: 'task',
    object: makeTask(id, 'web', { Slot: 1, Status: waitingStatus, ...over }),
  }));
}

function addressOf(task: Task): string | undefined {
  return task.NetworksAttachments?.[0]?.Addresses[0];
}

function end(world: World, id: string, at = now): void {
  const Status = {
    ...world.task(id).Status,
    State: 'shutdown' as TaskState,
    Timestamp: new Date(at).toISOString(),
  };
  world.apply([{ op: 'merge', kind: 'task', id: world.task(id).ID, fields: { Status } }], at);
}

function reconcile(world: World, key: string, at = now): readonly Change[] {
  const { changes } = networkReconciler().reconcile(world.store, key, at, noIds);
  world.apply(changes, at);
  return changes;
}

function networkOf(world: World, id: string): Network {
  const network = world.store.get('network', id as NetworkId);
  assert.ok(network);
  return network;
}

describe('allocator: networks', () => {
  it('take the next subnet of the pool, with its gateway', () => {
    const world = onNetwork([]);
    assert.deepEqual(networkOf(world, 'net').IPAMOptions, {
      Driver: { Name: 'default' },
      Configs: [{ Subnet: '10.0.0.0/24', Gateway: '10.0.0.1' }],
    });
    propose(world, [
      { op: 'create', kind: 'network', object: makeNetwork('b') },
      { op: 'create', kind: 'network', object: makeNetwork('c') },
      {
        op: 'create',
        kind: 'network',
        object: makeNetwork('host', { DriverConfiguration: { Name: 'host' } }),
      },
    ]);
    assert.deepEqual(
      ['b', 'c', 'host'].map((id) => networkOf(world, id).IPAMOptions.Configs[0]?.Subnet),
      ['10.0.1.0/24', '10.0.2.0/24', undefined],
    );
  });

  it('get the gateway that a client left out, and no task has it meanwhile', () => {
    const world = new World();
    const Configs = [{ Subnet: '10.9.0.0/29' }];
    const network = makeNetwork('net', { IPAMOptions: { Configs } });
    world.apply([
      {
        op: 'create',
        kind: 'network',
        object: { ...network, IPAMOptions: { ...network.IPAMOptions, Configs } },
      },
    ]);
    world.service('web', { ...withoutVip, TaskTemplate: { Networks: [{ Target: 'net' }] } });
    propose(world, creations(['t1']));
    assert.deepEqual(world.task('t1').NetworksAttachments?.[0]?.Addresses, []);
    assert.equal(reconcile(world, 'subnets').length, 1);
    assert.deepEqual(networkOf(world, 'net').IPAMOptions.Configs, [
      { Subnet: '10.9.0.0/29', Gateway: '10.9.0.1' },
    ]);
    assert.equal(reconcile(world, 'subnets').length, 0);
    reconcile(world, 'waiting');
    assert.equal(addressOf(world.task('t1')), '10.9.0.2/29');
  });

  it('keep clear of subnets that others chose and of the nodes themselves', () => {
    const world = onNetwork([{ Subnet: '10.0.0.0/23' }]).node('h1', { Status: { Addr: '10.0.2.7' } });
    propose(world, [{ op: 'create', kind: 'network', object: makeNetwork('b') }]);
    assert.equal(networkOf(world, 'b').IPAMOptions.Configs[0]?.Subnet, '10.0.3.0/24');
  });

  it('keep what they were told', () => {
    const configs = [{ Subnet: '192.168.5.0/24', Gateway: '192.168.5.254', IPRange: '192.168.5.128/25' }];
    const world = onNetwork(configs);
    assert.deepEqual(networkOf(world, 'net').IPAMOptions.Configs, configs);
    propose(world, creations(['t1']));
    assert.equal(addressOf(world.task('t1')), '192.168.5.128/24');
  });

  it('wait when the pool is used up, and tasks say so', () => {
    const world = new World();
    world.apply([
      { op: 'create', kind: 'cluster', object: makeCluster({ DefaultAddrPool: ['10.7.0.0/24'] }) },
    ]);
    propose(
      world,
      ['a', 'net'].map((id) => ({ op: 'create', kind: 'network', object: makeNetwork(id) })),
    );
    world.service('web', { ...withoutVip, TaskTemplate: { Networks: [{ Target: 'net' }] } });
    propose(world, creations(['t1']));
    assert.match(
      world.task('t1').Status.Err ?? '',
      /^network net has no subnet: none of size \/24 is left in 10\.7\.0\.0\/24/,
    );
    world.apply([{ op: 'remove', kind: 'network', id: 'a' as NetworkId }]);
    assert.equal(reconcile(world, 'subnets').length, 1);
    assert.equal(reconcile(world, 'waiting').length, 1);
    assert.equal(addressOf(world.task('t1')), '10.7.0.2/24');
    assert.equal(world.task('t1').Status.Err, undefined);
  });

  it('conflicts are told in words', () => {
    const world = onNetwork();
    const spec = makeNetwork('b', { IPAMOptions: { Configs: [{ Subnet: '10.9.0.0/16' }] } }).Spec;
    assert.equal(
      describeSubnetConflict(world.store, spec),
      'subnet 10.9.0.0/16 of network b overlaps 10.9.0.0/29, which network net uses: choose another',
    );
    assert.equal(describeSubnetConflict(world.store, spec, 'net' as NetworkId), undefined);
  });
});

describe('allocator: addresses', () => {
  it('come with the task in the entry that creates it, rising, with aliases', () => {
    const world = onNetwork();
    propose(world, creations(['t1', 't2']));
    assert.deepEqual(world.task('t1').NetworksAttachments, [
      { NetworkID: 'net', Addresses: ['10.9.0.2/29'], Aliases: ['web'] },
    ]);
    assert.equal(addressOf(world.task('t2')), '10.9.0.3/29');
    assert.deepEqual(world.task('t1').Status, waitingStatus);
  });

  it('come also when network, service and task are made in one entry', () => {
    const world = new World();
    const spec = makeSpec({ ...withoutVip, TaskTemplate: { Networks: [{ Target: 'net' }] } });
    propose(world, [
      { op: 'create', kind: 'network', object: makeNetwork('net') },
      { op: 'create', kind: 'revision', object: makeRevision('web', 1, spec) },
      { op: 'create', kind: 'service', object: makeService('web', spec) },
      ...creations(['t1']),
    ]);
    assert.equal(addressOf(world.task('t1')), '10.0.0.2/24');
  });

  it('rest after they were given back, while there are others', () => {
    const world = onNetwork();
    propose(world, creations(['t1', 't2']));
    end(world, 't1');
    end(world, 't2');
    propose(world, creations(['t3', 't4', 't5', 't6']));
    const given = ['t3', 't4', 't5', 't6'].map((id) => addressOf(world.task(id)));
    assert.deepEqual(given, ['10.9.0.4/29', '10.9.0.5/29', '10.9.0.6/29', '10.9.0.2/29']);
    end(world, 't4', now + restMs);
    propose(world, creations(['t7']), now + restMs + 1);
    assert.equal(addressOf(world.task('t7')), '10.9.0.3/29');
  });

  it('go on rising after those that were given back have rested', () => {
    const world = onNetwork();
    propose(world, creations(['t1', 't2']));
    end(world, 't2');
    propose(world, creations(['t3']), now + 2 * restMs);
    assert.equal(addressOf(world.task('t3')), '10.9.0.4/29');
  });

  it('once all were used, those that have rested come before those that have not', () => {
    const world = onNetwork();
    propose(world, creations(['t1', 't2', 't3', 't4', 't5']));
    end(world, 't2');
    end(world, 't1', now + restMs - 1);
    propose(world, creations(['t6', 't7']), now + restMs);
    assert.deepEqual(
      ['t6', 't7'].map((id) => addressOf(world.task(id))),
      ['10.9.0.3/29', '10.9.0.2/29'],
    );
  });

  it('run out: the task waits, says why, and gets the next that is given back', () => {
    const world = onNetwork();
    propose(world, creations(['t1', 't2', 't3', 't4', 't5', 't6', 't7']));
    assert.deepEqual(world.task('t6').NetworksAttachments?.[0]?.Addresses, []);
    assert.match(
      world.task('t6').Status.Err ?? '',
      /^no free address in network net \(subnet 10\.9\.0\.0\/29: 5 in use\)/,
    );
    assert.deepEqual(reconcile(world, 'waiting'), []);
    end(world, 't3');
    assert.equal(reconcile(world, 'waiting').length, 1);
    assert.equal(addressOf(world.task('t6')), '10.9.0.4/29');
    assert.equal(world.task('t6').Status.Err, undefined);
    assert.equal(addressOf(world.task('t7')), undefined);
  });

  it('are not asked for on the engines’ own networks', () => {
    const world = new World().network('host', 'host').service('web', {
      TaskTemplate: { Networks: [{ Target: 'host' }, { Target: 'bridge' }] },
    });
    propose(world, creations(['t1']));
    assert.equal(world.task('t1').NetworksAttachments, undefined);
    assert.deepEqual(reconcile(world, 'waiting'), []);
  });

  it('that changes of the same batch hand out are not handed out again', () => {
    const world = onNetwork();
    world.apply(creations(['late']));
    const owed = networkReconciler().reconcile(world.store, 'waiting', now, noIds).changes;
    propose(world, [...owed, ...creations(['t1'])]);
    assert.deepEqual(
      [addressOf(world.task('late')), addressOf(world.task('t1'))],
      ['10.9.0.2/29', '10.9.0.3/29'],
    );
  });

  it('the reconciler hears of what concerns it', () => {
    const world = onNetwork();
    const reconciler = networkReconciler();
    const keys: string[] = [];
    world.store.onCommit((commit) => {
      if (commit.kind !== 'changed') return;
      for (const event of commit.events) keys.push(...reconciler.keysFor(event, world.store));
    });
    const heard = () => keys.splice(0);
    propose(world, creations(['t1']));
    assert.deepEqual(heard(), []);
    world.apply(creations(['t2']));
    assert.deepEqual(heard(), ['waiting']);
    end(world, 't1');
    assert.deepEqual(heard(), ['waiting']);
    world.apply([{ op: 'create', kind: 'network', object: makeNetwork('b') }]);
    assert.deepEqual(heard(), ['subnets']);
    reconcile(world, 'subnets');
    assert.deepEqual(heard(), ['everything']);
    assert.deepEqual(reconciler.allKeys(world.store), ['subnets', 'everything']);
  });
});

describe('allocator: services', () => {
  it('get their endpoint with defaults written out', () => {
    const world = new World();
    const Ports: PortConfig[] = [{ TargetPort: 80, PublishedPort: 8080, PublishMode: 'host' }];
    const service = makeService('web', makeSpec({ EndpointSpec: { Ports } }));
    propose(world, [{ op: 'create', kind: 'service', object: service }]);
    const port = { ...Ports[0], Protocol: 'tcp' };
    const { Endpoint } = world.store.list('service')[0]!;
    assert.deepEqual(Endpoint, { Spec: { Mode: 'vip', Ports: [port] }, Ports: [port] });
  });
});

describe('allocator: properties', () => {
  const prefix = fc.integer({ min: 26, max: 30 });
  const steps = fc.array(
    fc.record({
      create: fc.boolean(),
      count: fc.integer({ min: 1, max: 5 }),
      which: fc.nat(99),
      minutes: fc.nat(8),
    }),
    {
      maxLength: 40,
    },
  );

  it('no address twice among live tasks, nor the gateway, nor the network, nor the broadcast', () => {
    fc.assert(
      fc.property(prefix, steps, (bits, actions) => {
        const world = onNetwork([{ Subnet: `10.9.1.64/${bits}` }]);
        const size = 2 ** (32 - bits);
        let at = now;
        let next = 0;
        for (const { create, count, which, minutes } of actions) {
          at += minutes * 60_000;
          const live = world.store.list('task').filter((task) => task.Status.State === 'pending');
          if (create) {
            propose(world, creations(Array.from({ length: count }, () => `t${next++}`)), at);
          } else if (live.length > 0) end(world, live[which % live.length]!.ID, at);
          reconcile(world, 'waiting', at);
          const tasks = world.store.list('task').filter((task) => task.Status.State === 'pending');
          const given = tasks.map(addressOf).filter((address) => address !== undefined);
          assert.equal(new Set(given).size, given.length, 'twice');
          for (const address of given) {
            const last = Number(address.split('/')[0]!.split('.')[3]);
            assert.ok(last > 65 && last < 64 + size - 1, address);
          }
          assert.equal(given.length, Math.min(tasks.length, size - 3), 'given while there are any');
          for (const task of tasks)
            assert.equal(task.Status.Err === undefined, addressOf(task) !== undefined);
        }
      }),
    );
  });

  it('no two subnets overlap', () => {
    const asked = fc.option(fc.record({ third: fc.nat(15), bits: fc.integer({ min: 20, max: 26 }) }));
    fc.assert(
      fc.property(
        fc.array(asked, { maxLength: 12 }),
        fc.integer({ min: 22, max: 28 }),
        (wishes, SubnetSize) => {
          const world = new World();
          const pool = { DefaultAddrPool: ['10.1.0.0/20', '10.2.0.0/22'], SubnetSize };
          world.apply([{ op: 'create', kind: 'cluster', object: makeCluster(pool) }]);
          wishes.forEach((wish, index) => {
            const Configs = wish ? [{ Subnet: `10.1.${wish.third}.0/${wish.bits}` }] : [];
            const network = makeNetwork(`n${index}`, { IPAMOptions: { Configs } });
            if (describeSubnetConflict(world.store, network.Spec)) return;
            propose(world, [{ op: 'create', kind: 'network', object: network }]);
          });
          const subnets = world.store
            .list('network')
            .flatMap((network) => subnetsOf(network.IPAMOptions.Configs));
          subnets.forEach((subnet, index) => {
            for (const other of subnets.slice(index + 1)) assert.ok(!overlaps(subnet, other));
          });
        },
      ),
    );
  });

  it('subnets are read with their host bits cut off', () => {
    assert.deepEqual(parseSubnet('10.1.2.3/24'), parseSubnet('10.1.2.0/24'));
    for (const bad of [
      '10.1.2.0',
      '10.1.2.0/33',
      '10.1.2/24',
      '10.1.2.256/24',
      'fd00::1::/64',
      'fd00::/129',
      '10.1.2.0/24/1',
    ]) {
      assert.equal(parseSubnet(bad), undefined, bad);
    }
  });
});
