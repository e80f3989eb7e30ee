import assert from 'node:assert/strict';
import { serviceStateOf } from '../../../manager/dispatcher/endpoint-state.ts';
import { EndpointsBoard } from '../../../manager/dispatcher/endpoints.ts';
import { settleMs } from '../../../manager/dispatcher/withdrawals.ts';
import {
  type ClusterNode,
  dataPlaneLabel,
  engineIdLabel,
  type Network,
  type Service,
  type Task,
} from '../../../proto/docker.ts';
import type { EndpointsUpdate } from '../../../proto/generated/shoal/v1/EndpointsUpdate.ts';
import { asId, type NodeId, type ServiceId } from '../../../proto/ids.ts';
import { silentLog } from '../../../proto/ports.ts';
import { settle } from '../../simulation/clock.ts';
import { emptyDescription, makeCluster, makeRevision, TestBed, TestSink } from './cluster.ts';
import { networkId, overlayNetwork, overlayNode, overlayService, overlayTask } from './endpoint-objects.ts';

const gatheredMs = 20;
const serviceId = asId<ServiceId>('service1');
const given = { Ports: [{ Protocol: 'tcp' as const, TargetPort: 80, PublishedPort: 32_001 }] };

/** A node that answers published ports by a proxy; it has an address on the network for the task that it runs. */
function proxyNode(number: number): ClusterNode {
  const Labels = { [engineIdLabel]: `e${number}`, [dataPlaneLabel]: 'proxy' };
  const Engine = { EngineVersion: '20.10', Labels, Plugins: [] };
  return overlayNode(number, { Description: { ...emptyDescription, Hostname: `h${number}`, Engine } });
}

/** web, published over the ingress network: t1 on a node of the mesh, t2 on one with a proxy; and another proxy. */
class Published extends TestBed {
  readonly withdrawn: string[] = [];
  readonly board: EndpointsBoard;

  constructor(options: Record<string, string> = {}) {
    super();
    const network: Network = overlayNetwork();
    const service: Service = overlayService();
    const ports = [
      { TargetPort: 80, PublishedPort: 8080, Protocol: 'tcp' as const, PublishMode: 'ingress' as const },
    ];
    this.commit({ op: 'create', kind: 'cluster', object: makeCluster() });
    this.commit({
      op: 'create',
      kind: 'network',
      object: {
        ...network,
        Spec: { ...network.Spec, Ingress: true, DriverConfiguration: { Name: 'overlay', Options: options } },
      },
    });
    this.commit(
      { op: 'create', kind: 'revision', object: makeRevision('revision1') },
      {
        op: 'create',
        kind: 'service',
        object: {
          ...service,
          Spec: {
            ...service.Spec,
            TaskTemplate: { ...service.Spec.TaskTemplate, Networks: [] },
            EndpointSpec: { Ports: ports },
          },
          Endpoint: { ...service.Endpoint, Ports: ports },
        },
      },
    );
    for (const object of [overlayNode(1), proxyNode(2), proxyNode(3)]) {
      this.commit({ op: 'create', kind: 'node', object });
    }
    const second = overlayTask('t2', 'n2', '10.1.0.12');
    const tasks: Task[] = [
      overlayTask('t1', 'n1', '10.1.0.11'),
      { ...second, Status: { ...second.Status, PortStatus: given } },
    ];
    for (const object of tasks) this.commit({ op: 'create', kind: 'task', object });
    this.board = new EndpointsBoard({
      store: this.store,
      clock: this.clock,
      log: silentLog,
      onWithdrawn: ({ ID }) => this.withdrawn.push(ID),
      commit: () => Promise.resolve(),
    });
    this.board.start(0);
    this.store.onCommit((commit) => this.board.onCommit(commit));
  }

  endpoints() {
    return (serviceStateOf(this.store, serviceId)?.endpoints ?? []).map(
      ({ task_id, addresses, host_address, host_ports }) => [task_id, addresses, host_address, host_ports],
    );
  }

  watch(nodeId: string) {
    const sink = new TestSink<EndpointsUpdate>();
    const handle = this.board.watch(asId<NodeId>(nodeId), sink);
    return { sink, confirm: () => handle.report({ revision: sink.messages.at(-1)?.revision ?? '' }) };
  }

  async pass(ms: number): Promise<void> {
    await this.clock.run(ms);
    await settle();
  }
}

describe('endpoints of published ports, where nodes have a proxy', () => {
  it('are reached by their network and their node’s port, or by the port that the engine gave the task', () => {
    const bed = new Published();
    assert.deepEqual(bed.endpoints(), [
      ['t1', { [networkId]: '10.1.0.11' }, '192.0.2.1', { '80': 8080 }],
      ['t2', {}, '192.0.2.2', { '80': 32_001 }],
    ]);
  });

  it('are not reached by a port that something else holds on their node, nor before their own port is known', () => {
    const bed = new Published();
    const Problems = [{ Message: 'held', ServiceID: serviceId, Since: '' }];
    bed.commit({ op: 'merge', kind: 'node', id: asId('n1'), fields: { Problems } });
    const Status = { ...bed.store.get('task', asId('t2'))!.Status };
    delete Status.PortStatus;
    bed.commit({ op: 'merge', kind: 'task', id: asId('t2'), fields: { Status } });
    assert.deepEqual(bed.endpoints(), [['t1', { [networkId]: '10.1.0.11' }, undefined, undefined]]);
  });

  it('of an encrypted network are not reached in the clear', () => {
    const bed = new Published({ encrypted: '' });
    assert.deepEqual(bed.endpoints(), [['t1', { [networkId]: '10.1.0.11' }, undefined, undefined]]);
  });

  it('are told to proxies, which are on no network, and to whose withdrawal proxies have their word', async () => {
    const bed = new Published();
    const watchers = ['n1', 'n2', 'n3'].map((id) => bed.watch(id));
    await settle();
    for (const { sink } of watchers.slice(1)) {
      assert.deepEqual(sink.messages[0]?.networks, []);
      assert.deepEqual(
        sink.messages[0]?.services?.map(({ name }) => name),
        [overlayService().Spec.Name],
      );
    }
    bed.commit({ op: 'merge', kind: 'task', id: asId('t1'), fields: { DesiredState: 'shutdown' } });
    await bed.pass(gatheredMs);
    for (const { confirm } of watchers.slice(0, 2)) confirm();
    await bed.pass(settleMs);
    assert.deepEqual(bed.withdrawn, []);
    watchers[2]!.confirm();
    await bed.pass(settleMs);
    assert.deepEqual(bed.withdrawn, ['t1']);
    assert.equal(watchers[2]!.sink.messages.length, 2);
  });
});
