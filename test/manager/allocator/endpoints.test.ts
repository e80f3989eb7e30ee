import assert from 'node:assert/strict';
import fc from 'fast-check';
import { allocate, networkReconciler } from '../../../manager/allocator/allocate.ts';
import { vxlanIdsOf } from '../../../manager/allocator/ipam.ts';
import type { Change } from '../../../manager/store/change.ts';
import { restMs } from '../../../manager/store/claims.ts';
import { contains, hostOf, parseAddress, parseSubnet } from '../../../manager/store/ip.ts';
import type { Network, NetworkSpec, PortConfig, Service, Task } from '../../../proto/docker.ts';
import type { NetworkId, NodeId, ServiceId } from '../../../proto/ids.ts';
import { makeCluster, makeSpec, makeTask } from '../orchestrator/objects.ts';
import { noIds, now, type SpecOver, servedService, World } from '../scheduler/world.ts';

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

/** A cluster whose changes all pass the allocator, as the API's and the loop's do. */
class Cluster extends World {
  constructor(networks: Record<string, Partial<NetworkSpec>> = {}) {
    super();
    this.apply([{ op: 'create', kind: 'cluster', object: makeCluster() }]);
    for (const [id, over] of Object.entries(networks)) this.make(id, over);
  }

  propose(changes: readonly Change[], at = now): void {
    this.apply(allocate(this.store, changes, at), at);
  }

  make(id: string, over: Partial<NetworkSpec> = {}): Network {
    this.propose([{ op: 'create', kind: 'network', object: makeNetwork(id, over) }]);
    return this.net(id);
  }

  net(id: string): Network {
    return this.store.get('network', id as NetworkId)!;
  }

  serve(id: string, networks: readonly string[], over: SpecOver = {}, at = now): Service {
    const spec = makeSpec({
      Name: id,
      TaskTemplate: { Networks: networks.map((Target) => ({ Target })) },
      ...over,
    });
    this.apply([{ op: 'create', kind: 'revision', object: { ...revisionMeta(id), Spec: spec } }]);
    this.propose([{ op: 'create', kind: 'service', object: servedService(id, spec) }], at);
    return this.get(id);
  }

  get(id: string): Service {
    return this.store.get('service', id as ServiceId)!;
  }

  update(id: string, over: SpecOver): Service {
    const service = this.get(id);
    const Spec = makeSpec({ Name: id, ...over });
    this.propose([{ op: 'update', kind: 'service', object: { ...service, Spec } }]);
    return this.get(id);
  }

  tasks(service: string, ids: readonly string[], at = now): void {
    const Status = { Timestamp: new Date(at).toISOString(), State: 'pending', Message: '' } as const;
    const made = ids.map((id) => makeTask(id, service, { Slot: 1, Status }));
    this.propose(
      made.map((object) => ({ op: 'create', kind: 'task', object })),
      at,
    );
  }

  /** As the scheduler assigns. */
  assign(id: string, node: string, at = now): void {
    const task = this.task(id);
    const Status = { Timestamp: new Date(at).toISOString(), State: 'assigned', Message: '' } as const;
    this.propose(
      [{ op: 'merge', kind: 'task', id: task.ID, fields: { NodeID: node as NodeId, Status } }],
      at,
    );
  }

  end(id: string, at = now): void {
    const task = this.task(id);
    const Status = { ...task.Status, State: 'failed', Timestamp: new Date(at).toISOString() } as const;
    this.apply([{ op: 'merge', kind: 'task', id: task.ID, fields: { Status } }], at);
  }

  reconcile(key: string, at = now): number | undefined {
    const { changes, wakeAt } = networkReconciler().reconcile(this.store, key, at, noIds);
    this.apply(changes, at);
    return wakeAt;
  }

  nodeAddresses(id: string): string[] {
    const { Attachments } = this.store.get('node', id as NodeId)!;
    return (Attachments ?? []).flatMap(({ Addresses }) => Addresses);
  }
}

function revisionMeta(service: string) {
  return {
    ID: `${service}-1` as never,
    Version: { Index: 0 },
    CreatedAt: '',
    UpdatedAt: '',
    ServiceID: service as ServiceId,
    Number: 1,
  };
}

const vips = (service: Service) => (service.Endpoint.VirtualIPs ?? []).map(({ Addr }) => Addr);
const addresses = (task: Task) => (task.NetworksAttachments ?? []).flatMap((one) => one.Addresses);

describe('allocator: vxlan ids', () => {
  it('one for each IPv4 subnet, rising; the ingress network has Docker’s', () => {
    const cluster = new Cluster({ ingress: { Ingress: true }, a: {} });
    const Configs = [{ Subnet: '10.7.0.0/24' }, { Subnet: '10.8.0.0/24' }, { Subnet: 'fd07::/64' }];
    const Options = { 'com.docker.network.driver.mtu': '1400' };
    cluster.make('b', {
      IPAMOptions: { Configs },
      DriverConfiguration: { Name: 'overlay', Options },
      IPv6Enabled: true,
    });
    assert.deepEqual(
      ['ingress', 'a', 'b'].map((id) => vxlanIdsOf(cluster.net(id))),
      [[4096], [4097], [4098, 4099]],
    );
    assert.deepEqual(cluster.net('b').DriverState, {
      Name: 'overlay',
      Options: { ...Options, 'com.docker.network.driver.overlay.vxlanid_list': '4098,4099' },
    });
  });

  it('are never used again, for a host that was away may still have the old device', () => {
    const cluster = new Cluster({ a: {}, b: {} });
    cluster.apply([{ op: 'remove', kind: 'network', id: 'b' as NetworkId }]);
    assert.deepEqual(vxlanIdsOf(cluster.make('c')), [4099]);
    const snapshot = cluster.store.snapshot();
    cluster.apply([{ op: 'remove', kind: 'network', id: 'c' as NetworkId }]);
    cluster.store.restore(cluster.store.index, snapshot);
    assert.deepEqual(vxlanIdsOf(cluster.make('d')), [4100]);
  });

  it('come to a network that was made before there were any', () => {
    const cluster = new Cluster();
    const Configs = [{ Subnet: '10.3.0.0/24', Gateway: '10.3.0.1' }];
    const old = { ...makeNetwork('old'), IPAMOptions: { Driver: { Name: 'default' }, Configs } };
    cluster.apply([{ op: 'create', kind: 'network', object: old }]);
    cluster.reconcile('subnets');
    assert.deepEqual(
      [vxlanIdsOf(cluster.net('old')), cluster.net('old').IPAMOptions.Configs],
      [[4097], Configs],
    );
  });
});

describe('allocator: virtual addresses', () => {
  it('one on each network, in the entry that makes the service', () => {
    const cluster = new Cluster({ a: {}, b: {} });
    const service = cluster.serve('web', ['a', 'b']);
    assert.deepEqual(service.Endpoint.VirtualIPs, [
      { NetworkID: 'a', Addr: '10.0.0.2/24' },
      { NetworkID: 'b', Addr: '10.0.1.2/24' },
    ]);
    assert.deepEqual(vips(cluster.serve('rr', ['a'], { EndpointSpec: { Mode: 'dnsrr' } })), []);
  });

  it('stay with an update, come and go with networks and mode, and rest', () => {
    const cluster = new Cluster({ a: {}, b: {} });
    cluster.serve('web', ['a']);
    const on = (networks: string[], mode?: 'dnsrr'): SpecOver => ({
      TaskTemplate: { Networks: networks.map((Target) => ({ Target })) },
      ...(mode ? { EndpointSpec: { Mode: mode } } : {}),
    });
    assert.deepEqual(vips(cluster.update('web', on(['b', 'a']))), ['10.0.1.2/24', '10.0.0.2/24']);
    assert.deepEqual(vips(cluster.update('web', on(['b']))), ['10.0.1.2/24']);
    assert.deepEqual(vips(cluster.update('web', on(['b'], 'dnsrr'))), []);
    assert.deepEqual(vips(cluster.serve('next', ['a', 'b'])), ['10.0.0.3/24', '10.0.1.3/24']);
    cluster.apply([{ op: 'remove', kind: 'service', id: 'next' as ServiceId }]);
    assert.deepEqual(vips(cluster.serve('last', ['a'])), ['10.0.0.4/24']);
  });

  it('without one tasks wait and say so; both come when an address is given back', () => {
    const cluster = new Cluster({ small: { IPAMOptions: { Configs: [{ Subnet: '10.9.0.0/30' }] } } });
    cluster.serve('one', ['small']);
    assert.deepEqual(vips(cluster.serve('two', ['small'])), []);
    cluster.tasks('two', ['t1']);
    assert.deepEqual(addresses(cluster.task('t1')), []);
    assert.match(
      cluster.task('t1').Status.Err ?? '',
      /^service two has no virtual address: no free address in network small \(subnet 10\.9\.0\.0\/30: 1 in use\)/,
    );
    cluster.apply([{ op: 'remove', kind: 'service', id: 'one' as ServiceId }]);
    cluster.reconcile('waiting');
    assert.deepEqual(vips(cluster.get('two')), ['10.9.0.2/30']);
    assert.match(cluster.task('t1').Status.Err ?? '', /^no free address in network small/);
  });

  it('are handed out apart when several services wait for the same network', () => {
    const cluster = new Cluster();
    cluster.apply([{ op: 'create', kind: 'network', object: makeNetwork('late') }]);
    cluster.serve('a', ['late']);
    cluster.serve('b', ['late']);
    cluster.reconcile('subnets');
    cluster.reconcile('everything');
    assert.deepEqual([...vips(cluster.get('a')), ...vips(cluster.get('b'))], ['10.0.0.2/24', '10.0.0.3/24']);
  });
});

describe('allocator: published ports', () => {
  const publish = (...Ports: PortConfig[]): SpecOver => ({ EndpointSpec: { Ports } });
  const published = (service: Service) => service.Endpoint.Ports?.map((port) => port.PublishedPort);

  it('left open are given out from 30000, and stay with the service', () => {
    const cluster = new Cluster({ ingress: { Ingress: true } });
    cluster.serve('db', [], publish({ TargetPort: 5432, PublishedPort: 30_001, PublishMode: 'host' }));
    assert.deepEqual(
      published(cluster.serve('a', [], publish({ TargetPort: 80 }, { TargetPort: 81 }))),
      [30_000, 30_002],
    );
    assert.deepEqual(published(cluster.serve('b', [], publish({ TargetPort: 80 }))), [30_003]);
    assert.deepEqual(
      published(cluster.update('a', publish({ TargetPort: 81 }, { TargetPort: 53, Protocol: 'udp' }))),
      [30_002, 30_000],
    );
    assert.deepEqual(cluster.get('a').Endpoint.Spec.Ports?.[0]?.PublishedPort, undefined);
  });

  it('bring the ingress network: an address for the service and for each task, before its others', () => {
    const cluster = new Cluster({ ingress: { Ingress: true }, a: {} });
    const service = cluster.serve('web', ['a'], publish({ TargetPort: 80, PublishedPort: 8080 }));
    assert.deepEqual(service.Endpoint.VirtualIPs, [
      { NetworkID: 'ingress', Addr: '10.0.0.2/24' },
      { NetworkID: 'a', Addr: '10.0.1.2/24' },
    ]);
    cluster.tasks('web', ['t1']);
    assert.deepEqual(cluster.task('t1').NetworksAttachments, [
      { NetworkID: 'ingress', Addresses: ['10.0.0.3/24'] },
      { NetworkID: 'a', Addresses: ['10.0.1.3/24'] },
    ]);
  });

  it('on the host alone do not', () => {
    const cluster = new Cluster({ ingress: { Ingress: true } });
    const service = cluster.serve('web', [], publish({ TargetPort: 80, PublishMode: 'host' }));
    assert.deepEqual(vips(service), []);
  });

  it('two entries that were on their way together can’t both have one', () => {
    const cluster = new Cluster({ ingress: { Ingress: true } });
    const spec = (Name: string) => makeSpec({ Name, ...publish({ TargetPort: 80, PublishedPort: 8080 }) });
    const entries = ['a', 'b'].map((id) =>
      allocate(cluster.store, [{ op: 'create', kind: 'service', object: servedService(id, spec(id)) }], now),
    );
    cluster.apply(entries[0]!);
    assert.deepEqual(cluster.store.applyEntry(99, { now, changes: entries[1]! }), {
      ok: false,
      code: 'invalid-argument',
      message: "port '8080' is already in use by service 'a' (a) as an ingress port",
    });
  });
});

describe('allocator: the nodes’ own addresses', () => {
  it('come in the entry that assigns the first task, and once', () => {
    const cluster = new Cluster({ a: {}, b: {} });
    cluster
      .node('h1')
      .node('h2')
      .serve('web', ['a', 'b'], { EndpointSpec: { Mode: 'dnsrr' } });
    cluster.tasks('web', ['t1', 't2', 't3']);
    cluster.assign('t1', 'h1');
    assert.deepEqual(cluster.nodeAddresses('h1'), ['10.0.0.5/24', '10.0.1.5/24']);
    cluster.assign('t2', 'h1');
    cluster.assign('t3', 'h2');
    assert.deepEqual(
      [cluster.nodeAddresses('h1'), cluster.nodeAddresses('h2')],
      [
        ['10.0.0.5/24', '10.0.1.5/24'],
        ['10.0.0.6/24', '10.0.1.6/24'],
      ],
    );
  });

  it('when there is none the task goes on waiting with the reason, said once', () => {
    const cluster = new Cluster({ small: { IPAMOptions: { Configs: [{ Subnet: '10.9.0.0/29' }] } } });
    cluster.node('h1').serve('web', ['small'], { EndpointSpec: { Mode: 'dnsrr' } });
    cluster.tasks('web', ['t1', 't2', 't3', 't4', 't5']);
    cluster.assign('t1', 'h1');
    const { Status, NodeID } = cluster.task('t1');
    assert.deepEqual([Status.State, NodeID, cluster.nodeAddresses('h1')], ['pending', undefined, []]);
    assert.match(Status.Err ?? '', /^node h1 needs an address of its own: no free address in network small/);
    const before = cluster.task('t1').Version.Index;
    cluster.assign('t1', 'h1');
    assert.equal(cluster.task('t1').Version.Index, before);
    cluster.end('t2');
    cluster.assign('t1', 'h1');
    assert.deepEqual([cluster.task('t1').NodeID, cluster.nodeAddresses('h1')], ['h1', ['10.9.0.3/29']]);
  });

  it('are given back when nothing there has needed them for a while, or the network is gone', () => {
    const cluster = new Cluster({ a: {} });
    cluster.node('h1').serve('web', ['a'], { EndpointSpec: { Mode: 'dnsrr' } });
    cluster.tasks('web', ['t1', 't2']);
    cluster.assign('t1', 'h1');
    cluster.assign('t2', 'h1');
    cluster.end('t1', now + 1000);
    assert.equal(cluster.reconcile('node/h1', now + 2 * restMs), undefined);
    cluster.end('t2', now + 2 * restMs);
    assert.equal(cluster.reconcile('node/h1', now + 2 * restMs), now + 3 * restMs);
    assert.deepEqual(cluster.nodeAddresses('h1'), ['10.0.0.4/24']);
    cluster.reconcile('node/h1', now + 3 * restMs);
    assert.deepEqual(cluster.nodeAddresses('h1'), []);
    cluster.tasks('web', ['t3'], now + 3 * restMs);
    cluster.assign('t3', 'h1', now + 3 * restMs);
    assert.deepEqual(cluster.nodeAddresses('h1'), ['10.0.0.6/24']);
    cluster.apply([
      { op: 'remove', kind: 'service', id: 'web' as ServiceId },
      { op: 'remove', kind: 'network', id: 'a' as NetworkId },
    ]);
    cluster.reconcile('everything');
    assert.deepEqual(cluster.nodeAddresses('h1'), []);
  });

  it('on the ingress network every node with a mesh has one as soon as a port is published', () => {
    const cluster = new Cluster({ ingress: { Ingress: true } });
    const stock = { Description: { Engine: { Plugins: [{ Type: 'Network', Name: 'overlay' }] } } };
    cluster.node('d1', stock).node('h1');
    cluster.reconcile('everything');
    assert.deepEqual(cluster.nodeAddresses('d1'), []);
    cluster.serve('web', [], { EndpointSpec: { Ports: [{ TargetPort: 80, PublishedPort: 80 }] } });
    cluster.reconcile('everything');
    cluster.node('d2', stock);
    cluster.reconcile('everything');
    assert.deepEqual(
      ['d1', 'd2', 'h1'].map((id) => cluster.nodeAddresses(id)),
      [['10.0.0.3/24'], ['10.0.0.4/24'], []],
    );
    cluster.apply([{ op: 'remove', kind: 'service', id: 'web' as ServiceId }]);
    cluster.reconcile('everything', now + 2 * restMs);
    assert.deepEqual(cluster.nodeAddresses('d1'), ['10.0.0.3/24']);
  });

  it('tasks that were assigned before nodes had any get theirs', () => {
    const cluster = new Cluster({ a: {} });
    cluster.node('h1').serve('web', ['a']);
    cluster.running('web', 'h1', { NetworksAttachments: [{ NetworkID: 'a' as NetworkId, Addresses: [] }] });
    cluster.reconcile('everything');
    assert.deepEqual(cluster.nodeAddresses('h1'), ['10.0.0.3/24']);
  });
});

describe('allocator: IPv6', () => {
  it('a subnet of the cluster’s own local range, an address of each family for task, service and node', () => {
    const cluster = new Cluster({ six: { IPv6Enabled: true }, other: { IPv6Enabled: true } });
    const [four, six] = cluster.net('six').IPAMOptions.Configs;
    assert.equal(four?.Subnet, '10.0.0.0/24');
    assert.match(six?.Subnet ?? '', /^fd[0-9a-f]{2}:[0-9a-f:]+::\/64$/);
    assert.notEqual(cluster.net('other').IPAMOptions.Configs[1]?.Subnet, six?.Subnet);
    assert.deepEqual(vxlanIdsOf(cluster.net('six')), [4097]);
    cluster.node('h1').serve('web', ['six']);
    cluster.tasks('web', ['t1']);
    cluster.assign('t1', 'h1');
    const local = six!.Subnet!.replace('/64', '');
    assert.equal(six?.Gateway, `${local}1`);
    assert.deepEqual(vips(cluster.get('web')), ['10.0.0.2/24', `${local}2/64`]);
    assert.deepEqual(addresses(cluster.task('t1')), ['10.0.0.3/24', `${local}3/64`]);
    assert.deepEqual(cluster.nodeAddresses('h1'), ['10.0.0.4/24', `${local}4/64`]);
  });

  it('given subnets are used as they are', () => {
    const Configs = [{ Subnet: 'fd12:1::/80', Gateway: 'fd12:1::ff', IPRange: 'fd12:1::100/120' }];
    const cluster = new Cluster({ six: { IPv6Enabled: true, IPAMOptions: { Configs } } });
    assert.deepEqual(cluster.net('six').IPAMOptions.Configs, [
      { Subnet: '10.0.0.0/24', Gateway: '10.0.0.1' },
      ...Configs,
    ]);
    cluster.serve('web', ['six']);
    assert.deepEqual(vips(cluster.get('web')), ['10.0.0.2/24', 'fd12:1::100/80']);
  });
});

describe('allocator: nothing is had by two', () => {
  const step = fc.record({
    what: fc.constantFrom('service', 'unserve', 'tasks', 'assign', 'end', 'reap', 'network', 'reconcile'),
    which: fc.nat(99),
    minutes: fc.nat(8),
  });

  it('addresses of services, tasks and nodes, vxlan ids: whatever happens, and after a restart', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.boolean(), (steps, isSix) => {
        const small = { IPAMOptions: { Configs: [{ Subnet: '10.9.0.0/28' }] }, IPv6Enabled: isSix };
        const cluster = new Cluster({ small, wide: {} });
        cluster.node('h1').node('h2');
        let at = now;
        let next = 0;
        const pick = <T>(all: readonly T[], which: number): T | undefined => all[which % (all.length || 1)];
        for (const { what, which, minutes } of steps) {
          at += minutes * 60_000;
          const services = cluster.store.list('service');
          const tasks = cluster.store.list('task');
          const live = tasks.filter((task) => !['failed'].includes(task.Status.State));
          if (what === 'service')
            cluster.serve(`s${next++}`, which % 2 ? ['small'] : ['small', 'wide'], {}, at);
          if (what === 'network') cluster.make(`n${next++}`);
          const service = pick(services, which);
          if (what === 'tasks' && service) cluster.tasks(service.ID, [`t${next++}`, `t${next++}`], at);
          if (what === 'unserve' && service)
            cluster.apply([{ op: 'remove', kind: 'service', id: service.ID }], at);
          const ready = live.filter((task) => task.Status.State === 'pending' && addresses(task).length > 0);
          const task = pick(what === 'assign' ? ready : what === 'reap' ? tasks : live, which);
          if (what === 'assign' && task) cluster.assign(task.ID, which % 3 ? 'h1' : 'h2', at);
          if (what === 'end' && task) cluster.end(task.ID, at);
          if (what === 'reap' && task) cluster.apply([{ op: 'remove', kind: 'task', id: task.ID }], at);
          if (what === 'reconcile') {
            cluster.reconcile('everything', at);
            cluster.store.restore(cluster.store.index, cluster.store.snapshot());
          }
          checkUnique(cluster);
        }
      }),
    );
  });

  function checkUnique(cluster: Cluster): void {
    const held = [
      ...cluster.store.list('service').flatMap((one) => one.Endpoint.VirtualIPs ?? []),
      ...cluster.store
        .list('task')
        .filter((task) => task.Status.State !== 'failed')
        .flatMap((task) => attached(task.NetworksAttachments)),
      ...cluster.store.list('node').flatMap((node) => attached(node.Attachments)),
    ].map(({ NetworkID, Addr }) => ({ NetworkID, host: hostOf(Addr) }));
    const keys = held.map(({ NetworkID, host }) => `${NetworkID} ${host}`);
    assert.equal(new Set(keys).size, keys.length, `twice among ${keys.join(', ')}`);
    for (const { NetworkID, host } of held) {
      const { Configs } = cluster.net(NetworkID).IPAMOptions;
      assert.ok(Configs.some((config) => contains(parseSubnet(config.Subnet!)!, parseAddress(host)!)));
      assert.ok(Configs.every((config) => config.Gateway !== host));
    }
    const ids = cluster.store.list('network').flatMap(vxlanIdsOf);
    assert.equal(new Set(ids).size, ids.length);
  }

  function attached(all: Task['NetworksAttachments']): { NetworkID: NetworkId; Addr: string }[] {
    return (all ?? []).flatMap(({ NetworkID, Addresses }) => Addresses.map((Addr) => ({ NetworkID, Addr })));
  }
});
