import assert from 'node:assert/strict';
import { NodeTable } from '../../../manager/scheduler/node-table.ts';
import { schedule } from '../../../manager/scheduler/schedule.ts';
import { abilitiesLabel, agentAbilities } from '../../../proto/agent-abilities.ts';
import {
  dataPlaneLabel,
  dataPlaneMissingLabel,
  encryptionLabel,
  engineIdLabel,
} from '../../../proto/docker.ts';
import type { NetworkId, NodeId } from '../../../proto/ids.ts';
import { type NodeOver, now, type SpecOver, World } from './world.ts';

function run(world: World): void {
  const pending = world.store.find('task', 'state', 'pending');
  world.apply(schedule(world.store, pending, NodeTable.build(world.store), now));
}

/** A stock engine, which has Docker's overlay. */
const stock: NodeOver = { Description: { Engine: { Plugins: [{ Type: 'Network', Name: 'overlay' }] } } };

/** An agent of ours on an engine of its own. */
function ours(id: string, labels: Record<string, string> = {}): NodeOver {
  const Plugins = [{ Type: 'Network', Name: 'overlay' }];
  return { Description: { Engine: { Labels: { [engineIdLabel]: id, ...labels }, Plugins } } };
}

function vxlan(id: string, labels: Record<string, string> = {}): NodeOver {
  return ours(id, { [dataPlaneLabel]: 'vxlan', [abilitiesLabel]: agentAbilities.join(','), ...labels });
}

function on(...networks: string[]): SpecOver {
  return { TaskTemplate: { Networks: networks.map((Target) => ({ Target })) } };
}

function attached(...networks: string[]) {
  return { NetworksAttachments: networks.map((id) => ({ NetworkID: id as NetworkId, Addresses: [] })) };
}

function places(world: World, service: string): string[] {
  return Object.values(world.placements(service)).map((place) => place ?? '');
}

/** d1, d2: stock engines; s1, s2: ours without a data plane; v1, v2, v3: ours with one. */
function mixed(): World {
  return new World()
    .node('d1', stock)
    .node('d2', stock)
    .node('s1', ours('s1'))
    .node('s2', ours('s2'))
    .node('v1', vxlan('v1'))
    .node('v2', vxlan('v2'))
    .node('v3', vxlan('v3'))
    .network('app');
}

describe('scheduler: data planes', () => {
  it('a fresh network goes where most nodes share one, and stays there', () => {
    const world = mixed().service('web', on('app'));
    world.waiting('web', 6, attached('app'));
    run(world);
    assert.deepEqual(places(world, 'web').sort(), ['v1', 'v1', 'v2', 'v2', 'v3', 'v3']);
    world.service('db', on('app')).waiting('db', 3, attached('app'));
    run(world);
    assert.deepEqual(places(world, 'db').sort(), ['v1', 'v2', 'v3']);
  });

  it('a constraint decides which, and says so to those that come after', () => {
    const on2 = on('app');
    const world = mixed().service('first', {
      TaskTemplate: { ...on2.TaskTemplate, Placement: { Constraints: ['node.hostname==d1'] } },
    });
    world.waiting('first', 1, attached('app'));
    run(world);
    world.service('web', on('app')).waiting('web', 4, attached('app'));
    run(world);
    assert.deepEqual(places(world, 'web').sort(), ['d1', 'd1', 'd2', 'd2']);
    world.service('far', {
      TaskTemplate: {
        ...on2.TaskTemplate,
        Placement: { Constraints: ['node.hostname!=d1', 'node.hostname!=d2'] },
      },
    });
    world.waiting('far', 1, attached('app'));
    run(world);
    const reason = world.task('far.1').Status.Err ?? '';
    const home = 'network app lives on the overlay of Docker engines, which is out of reach from';
    assert.ok(reason.includes(`${home} 2 nodes (an engine of its own)`), reason);
    assert.ok(reason.includes(`${home} 3 nodes (on the overlay of Shoal agents)`), reason);
  });

  it('a port published in ingress mode is placed where a mesh answers, or says why not', () => {
    const publish: SpecOver = { EndpointSpec: { Ports: [{ TargetPort: 80, PublishedPort: 8080 }] } };
    const world = new World().node('s1', ours('s1')).node('s2', ours('s2')).service('web', publish);
    world.waiting('web', 1, attached('ingress'));
    run(world);
    assert.equal(
      world.task('web.1').Status.Err,
      'no suitable node (port 8080 is published in ingress mode, and the cluster has no ingress network: make one with "docker network create --ingress --driver overlay NAME")',
    );
    world.network('ingress', 'overlay', { Ingress: true });
    run(world);
    assert.equal(
      world.task('web.1').Status.Err,
      'no suitable node (port 8080 is published in ingress mode, and 2 nodes have no routing mesh: publish it in mode=host)',
    );
    const words = 'nftables can’t be used';
    const silent = new World().node('s1', ours('s1', { [dataPlaneMissingLabel]: words }));
    silent.network('ingress', 'overlay', { Ingress: true }).service('web', publish);
    silent.waiting('web', 1, attached('ingress'));
    run(silent);
    assert.equal(
      silent.task('web.1').Status.Err,
      `no suitable node (port 8080 is published in ingress mode, and 1 node has no routing mesh (${words}): publish it in mode=host)`,
    );
    world
      .node('d1', stock)
      .waiting('web', 1, { NetworksAttachments: [{ NetworkID: 'ingress' as NetworkId, Addresses: ['x'] }] });
    run(world);
    assert.deepEqual(places(world, 'web'), ['d1', 'd1']);
  });

  it('nodes with a proxy take what is published where no node has a mesh, or each answers for itself; never UDP', () => {
    const published = (PublishedPort: number) => [{ TargetPort: 80, PublishedPort }];
    const words = 'shoald runs with --data-plane proxy';
    const proxy = (id: string) => vxlan(id, { [dataPlaneLabel]: 'proxy', [dataPlaneMissingLabel]: words });
    const world = new World().node('p1', proxy('p1')).node('p2', proxy('p2'));
    world.network('ingress', 'overlay', { Ingress: true });
    world.service('web', { EndpointSpec: { Ports: published(8080) } }).waiting('web', 4, attached('ingress'));
    const UdpPorts = [...published(8081), { TargetPort: 53, PublishedPort: 53, Protocol: 'udp' as const }];
    world.service('dns', { EndpointSpec: { Ports: UdpPorts } }).waiting('dns', 1, attached('ingress'));
    run(world);
    assert.deepEqual(places(world, 'web').sort(), ['p1', 'p1', 'p2', 'p2']);
    assert.equal(
      world.task('dns.1').Status.Err,
      `no suitable node (port 53/udp is published in ingress mode, and 2 nodes have a TCP proxy in place of a routing mesh (${words}): publish it in mode=host)`,
    );
    world.node('v1', vxlan('v1'));
    world.service('api', { EndpointSpec: { Ports: published(8082) } }).waiting('api', 2, attached('ingress'));
    world.service('own', { EndpointSpec: { Ports: published(8083) }, Labels: { 'shoal.ingress': 'local' } });
    world.waiting('own', 3, attached('ingress'));
    const header = { 'shoal.ingress': 'proxy-protocol' };
    world.service('told', { EndpointSpec: { Ports: published(8085) }, Labels: header });
    world.waiting('told', 3, attached('ingress'));
    const onProxies: SpecOver = {
      EndpointSpec: { Ports: published(8084) },
      TaskTemplate: { Placement: { Constraints: ['node.hostname!=v1'] } },
    };
    world.service('far', onProxies).waiting('far', 1, attached('ingress'));
    run(world);
    assert.deepEqual(places(world, 'api'), ['v1', 'v1']);
    assert.deepEqual(places(world, 'own').sort(), ['p1', 'p2', 'v1']);
    assert.deepEqual(places(world, 'told').sort(), ['p1', 'p2', 'v1']);
    assert.ok(
      world
        .task('far.1')
        .Status.Err?.includes(
          `2 nodes have a TCP proxy in place of a routing mesh (${words}), whose tasks the nodes with a mesh do not reach: publish it in mode=host, or label the service shoal.ingress=local`,
        ),
      world.task('far.1').Status.Err,
    );
  });

  it('tasks that are to be told the client’s address are not for nodes whose agent tells none', () => {
    const older = { [dataPlaneLabel]: 'vxlan' };
    const world = new World().node('d1', stock).node('o1', ours('o1', older)).node('o2', ours('o2', older));
    world.network('ingress', 'overlay', { Ingress: true });
    const EndpointSpec = { Ports: [{ TargetPort: 80, PublishedPort: 8080 }] };
    world.service('web', { EndpointSpec, Labels: { 'shoal.ingress': 'proxy-protocol' } });
    world.waiting('web', 1, attached('ingress'));
    run(world);
    const rule =
      'port 8080 is published in ingress mode with a PROXY protocol header (label shoal.ingress=proxy-protocol)';
    assert.equal(
      world.task('web.1').Status.Err,
      `no suitable node (${rule}, and 1 node has Docker's own agent; ${rule}, and 2 nodes have an agent of an older version, which can't: update shoald there)`,
    );
    world.node('v1', vxlan('v1'));
    run(world);
    assert.deepEqual(places(world, 'web'), ['v1']);
  });

  it('tasks that publish SCTP in ingress mode are for stock engines alone, and in mode=host for any', () => {
    const world = new World().node('v1', vxlan('v1')).network('ingress', 'overlay', { Ingress: true });
    const port = { TargetPort: 80, PublishedPort: 8080, Protocol: 'sctp' as const };
    world.service('web', { EndpointSpec: { Ports: [port] } }).waiting('web', 1, attached('ingress'));
    world.service('near', { EndpointSpec: { Ports: [{ ...port, PublishMode: 'host' as const }] } });
    world.waiting('near');
    run(world);
    assert.equal(
      world.task('web.1').Status.Err,
      'no suitable node (port 8080/sctp is published in ingress mode, and 1 node has a mesh for TCP and UDP alone: publish it in mode=host)',
    );
    assert.deepEqual(places(world, 'near'), ['v1']);
    world.node('d1', stock);
    run(world);
    assert.deepEqual(places(world, 'web'), ['d1']);
  });

  it('tasks of a global service stay with the first that a fresh network has', () => {
    const world = new World().node('s1', ours('s1')).node('s2', ours('s2')).network('app');
    world.service('web', { ...on('app'), Mode: { Global: {} } });
    world.waiting('web', 1, { ...attached('app'), NodeID: 's1' as NodeId });
    world.waiting('web', 1, { ...attached('app'), NodeID: 's2' as NodeId });
    run(world);
    const tasks = world.store.list('task');
    assert.deepEqual(tasks.map(({ Status }) => Status.State).sort(), ['assigned', 'pending']);
    const reason = tasks.find(({ Status }) => Status.State === 'pending')?.Status.Err ?? '';
    assert.match(reason, /network app lives on the engine of node s\d, which is out of reach/);
  });

  it('host ports and the engines’ own networks go anywhere', () => {
    const Ports = [{ TargetPort: 80, PublishedPort: 80, PublishMode: 'host' as const }];
    const world = new World().node('s1', ours('s1')).node('d1', stock).node('v1', vxlan('v1'));
    world.service('web', { EndpointSpec: { Ports }, ...on('host') }).waiting('web', 3);
    run(world);
    assert.deepEqual(places(world, 'web').sort(), ['d1', 's1', 'v1']);
  });

  it('an encrypted network goes only where it is encrypted', () => {
    const options = { DriverConfiguration: { Name: 'overlay', Options: { encrypted: '' } } };
    const world = new World()
      .node('v1', vxlan('v1'))
      .network('app', 'overlay', options)
      .service('web', on('app'));
    world.waiting('web', 1, attached('app'));
    run(world);
    assert.equal(
      world.task('web.1').Status.Err,
      'no suitable node (network app is to be encrypted, which is not possible from node v1 (on the overlay of Shoal agents))',
    );
    world.node('v2', vxlan('v2', { [encryptionLabel]: 'wireguard' }));
    run(world);
    assert.deepEqual(places(world, 'web'), ['v2']);
  });
});
