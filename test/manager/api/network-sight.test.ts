/** Who is reached on a network, and which nodes hold it, as the API answers it. */
import assert from 'node:assert/strict';
import type { NetworkEndpoints } from '../../../manager/api/network-sight.ts';
import type { ClusterNode, Network } from '../../../proto/docker.ts';
import { ShoalError } from '../../../proto/errors.ts';
import type { ProgrammedNode } from '../../../proto/generated/shoal/v1/ProgrammedNode.ts';
import { asId, type NetworkId, type NodeId } from '../../../proto/ids.ts';
import { TestApi, testNode } from './host.ts';

describe('api: the endpoints of a network', () => {
  let api: TestApi;
  const networkId = asId<NetworkId>('net1');

  beforeEach(async () => {
    api = await TestApi.start();
    const network = {
      ID: networkId,
      Spec: { Name: 'front', Labels: {}, DriverConfiguration: { Name: 'overlay' } },
      IPAMOptions: { Driver: { Name: 'default' }, Configs: [] },
    } as unknown as Network;
    api.host.apply([{ op: 'create', kind: 'network', object: network }]);
    for (const [index, name] of ['w1', 'w2', 'w3', 'w4'].entries()) {
      const Attachments = [{ NetworkID: networkId, Addresses: [`10.0.1.${250 + index}/24`] }];
      const node: ClusterNode = { ...testNode(asId<NodeId>(name), `host-${name}`, 'worker'), Attachments };
      const down = { ...node, Status: { ...node.Status, State: 'down' as const } };
      api.host.apply([{ op: 'create', kind: 'node', object: name === 'w4' ? down : node }]);
    }
  });
  afterEach(() => api.close());

  const told = (node_id: string, confirmed: number, service: string): ProgrammedNode => ({
    node_id,
    watches: true,
    told: '20',
    confirmed: String(confirmed),
    network: '5',
    services: { web: service },
  });
  const ask = async () => (await api.get('/networks/front/endpoints')).json as NetworkEndpoints;

  it('name the nodes that hold each, those that do not yet, and with which version', async () => {
    api.host.programmed = {
      services: [
        {
          id: 'web',
          name: 'web',
          networks: [{ network_id: 'net1', virtual_addresses: ['10.0.1.2'] }, { network_id: 'other' }],
          endpoints: [
            { task_id: 't1', name: 'web.1', hostname: 'host-w1', addresses: { net1: '10.0.1.3,fd00::3' } },
            {
              task_id: 't2',
              name: 'web.2',
              hostname: 'host-w2',
              addresses: { net1: '10.0.1.4' },
              is_draining: true,
            },
            { task_id: 't3', name: 'web.3', hostname: 'host-w2', addresses: { other: '10.0.2.4' } },
          ],
        },
      ],
      nodes: [
        told('w1', 20, '18'),
        told('w2', 17, '18'),
        { node_id: 'w3', watches: false },
        { node_id: 'w4' },
      ],
    };
    const answer = await ask();
    const where = { Version: 18, Programmed: ['host-w1'], Missing: ['host-w2', 'host-w3'] };
    assert.deepEqual(
      answer.Nodes.map(({ Name, Addresses, Version, State }) => [Name, Addresses[0], Version, State]),
      [
        ['host-w1', '10.0.1.250', 20, 'current'],
        ['host-w2', '10.0.1.251', 17, 'behind'],
        ['host-w3', '10.0.1.252', 0, 'silent'],
        ['host-w4', '10.0.1.253', 0, 'down'],
      ],
    );
    assert.deepEqual(answer.Services, [
      { ID: 'web', Name: 'web', VirtualAddresses: ['10.0.1.2'], Ports: [], ...where },
    ]);
    const endpoint = (Name: string, TaskID: string, Node: string, Addresses: string[], State: string) => ({
      ...{ Name, Service: 'web', TaskID, Node, Addresses, State },
      ...where,
    });
    assert.deepEqual(answer.Endpoints, [
      endpoint('web.1', 't1', 'host-w1', ['10.0.1.3', 'fd00::3'], 'serving'),
      endpoint('web.2', 't2', 'host-w2', ['10.0.1.4'], 'draining'),
    ]);
  });

  it('are held by nobody while nobody was told', async () => {
    api.host.programmed = {
      services: [{ id: 'web', name: 'web', networks: [{ network_id: 'net1' }] }],
      nodes: [{ ...told('w1', 20, ''), services: {} }],
    };
    const answer = await ask();
    assert.deepEqual(answer.Services[0]?.Missing, ['host-w1']);
    assert.deepEqual([answer.Services[0]?.Version, answer.Nodes[0]?.State], [0, 'behind']);
  });

  it('are refused in words while no leader can tell, and for a network that is none', async () => {
    api.host.refusal = new ShoalError('no-quorum', 'no manager leads');
    const answer = await api.get('/networks/front/endpoints');
    assert.deepEqual([answer.status, answer.json.message], [503, 'no manager leads']);
    assert.equal((await api.get('/networks/nothing/endpoints')).status, 404);
  });
});

describe('api: the difference of a node', () => {
  let api: TestApi;
  beforeEach(async () => {
    api = await TestApi.start();
  });
  afterEach(() => api.close());

  it('is what the node answers, and its words when it can’t', async () => {
    api.host.nodeAnswers = (nodeId, question) => {
      assert.deepEqual([nodeId, question], [api.host.nodeId, { difference: {} }]);
      return { revision: '7', operations: ['ip link delete vx1'] };
    };
    const answer = await api.get('/nodes/self/network-difference');
    assert.deepEqual(answer.json, { Node: 'm1', Version: 7, Operations: ['ip link delete vx1'] });
    api.host.refusal = new ShoalError('unavailable', 'node m1 can’t be asked: it is down');
    const refused = await api.get('/nodes/m1/network-difference');
    assert.deepEqual([refused.status, refused.json.message], [503, 'node m1 can’t be asked: it is down']);
    assert.equal((await api.get('/nodes/nobody/network-difference')).status, 404);
  });
});
