/** Where a connection would go, put together from what nodes say of their kernels and what the store knows. */
import assert from 'node:assert/strict';
import { type NetworkTrace, readTracePort, readTraceTo } from '../../../manager/api/network-trace.ts';
import type { Network, Task } from '../../../proto/docker.ts';
import { ShoalError } from '../../../proto/errors.ts';
import type { EndpointsAnswer } from '../../../proto/generated/shoal/v1/EndpointsAnswer.ts';
import type { EndpointsQuestion } from '../../../proto/generated/shoal/v1/EndpointsQuestion.ts';
import { asId, type NetworkId, type NodeId } from '../../../proto/ids.ts';
import { TestApi, testNode, testTask } from './host.ts';

describe('api: a trace', () => {
  let api: TestApi;
  let asked: [string, EndpointsQuestion][];
  let client: Task;
  let web: Task;

  beforeEach(async () => {
    api = await TestApi.start();
    for (const name of ['front', 'back', 'ingress']) {
      const network = {
        ID: asId<NetworkId>(name),
        Spec: {
          ...{ Name: name, Labels: {}, DriverConfiguration: { Name: 'overlay' } },
          ...(name === 'ingress' ? { Ingress: true } : {}),
        },
        IPAMOptions: { Driver: { Name: 'default' }, Configs: [] },
      } as unknown as Network;
      api.host.apply([{ op: 'create', kind: 'network', object: network }]);
    }
    for (const id of ['n1', 'n2']) {
      api.host.apply([
        { op: 'create', kind: 'node', object: testNode(asId<NodeId>(id), `h${id[1]}`, 'worker') },
      ]);
    }
    const create = async (Name: string, network: string, ports: object[] = []) => {
      const spec = {
        Name,
        TaskTemplate: { ContainerSpec: { Image: 'a' }, Networks: [{ Target: network }] },
        EndpointSpec: { Ports: ports },
      };
      return (await api.post('/services/create', spec)).json.ID as string;
    };
    const task = (service: string, NodeID: string, address: string, PID: number): Task => {
      const base = testTask(api.host, service);
      const NetworksAttachments = [{ NetworkID: asId<NetworkId>('front'), Addresses: [`${address}/24`] }];
      const Status = { ...base.Status, ContainerStatus: { ContainerID: 'c', PID, ExitCode: 0 } };
      return { ...base, NodeID: asId(NodeID), NetworksAttachments, Status };
    };
    client = task(await create('client', 'front'), 'n1', '10.0.1.5', 11);
    web = task(await create('web', 'front', [{ TargetPort: 80, PublishedPort: 8080 }]), 'n2', '10.0.1.6', 22);
    await create('hidden', 'back');
    api.host.apply([client, web].map((object) => ({ op: 'create', kind: 'task', object })));
    asked = [];
    answers({});
  });
  afterEach(() => api.close());

  function answers({ trace, arrival }: { trace?: EndpointsAnswer; arrival?: () => EndpointsAnswer }): void {
    const step = (text: string, breaks = false) => ({ text, breaks });
    const target = (task_id: string, node_id: string, address: string, breaks = false) => ({
      ...{ task_id, node_id, address, name: 'web.1', network_id: 'front' },
      steps: [step('goes', breaks)],
    });
    api.host.nodeAnswers = (nodeId, question) => {
      asked.push([nodeId, question]);
      if (question.trace) {
        const targets = [target(web.ID, 'n2', '10.0.1.6'), target('', '', '10.0.1.7', true)];
        return (
          trace ?? {
            steps: [step('named')],
            ways: [{ address: '10.0.1.2', steps: [step('sent on')], targets }],
          }
        );
      }
      return arrival?.() ?? { arrivals: [{ steps: [step('listens')] }] };
    };
  }

  const trace = async (to: string, from = 'client.1') => {
    const answer = await api.get(`/tasks/${from}/trace?to=${encodeURIComponent(to)}`);
    assert.equal(answer.status, 200, answer.text);
    return answer.json as NetworkTrace;
  };
  const linesOf = ({ Steps, Ways }: NetworkTrace) =>
    [...Steps, ...Ways.flatMap((way) => [...way.Steps, ...way.Ends.flatMap((end) => end.Steps)])].map(
      ({ Node, Text, Breaks }) => `${Node} ${Breaks ? '✘ ' : ''}${Text}`,
    );

  it('asks the task’s node, then the nodes where it may end, and tells each step with its node', async () => {
    const answer = await trace('web:80');
    assert.deepEqual(asked, [
      ['n1', { trace: { addresses: { front: '10.0.1.5' }, name: 'web', ipv6: false } }],
      [
        'n2',
        {
          arrival: {
            from_node_id: 'n1',
            port: 80,
            protocol: 'tcp',
            targets: [{ network_id: 'front', address: '10.0.1.6', pid: 22 }],
          },
        },
      ],
    ]);
    assert.deepEqual(linesOf(answer), ['h1 named', 'h1 sent on', 'h1 goes', 'h2 listens', 'h1 ✘ goes']);
    assert.deepEqual([answer.From, answer.To, answer.Outcome], ['client.1', 'web:80/tcp', 'partly']);
    assert.deepEqual(
      answer.Ways[0]?.Ends.map(({ Task: name, Node, Reached }) => [name, Node, Reached]),
      [
        ['web.1', 'h2', true],
        ['web.1', '', false],
      ],
    );
  });

  it('breaks where a node that is lost would take over, and goes on where one can’t be asked', async () => {
    const fail = () => {
      throw new ShoalError('unavailable', 'node h2 can’t be asked: why');
    };
    answers({ arrival: fail });
    assert.ok(linesOf(await trace('web:80')).includes('h2 node h2 can’t be asked: why'));
    const Status = { State: 'down' as const, Addr: '' };
    api.host.apply([{ op: 'merge', kind: 'node', id: asId<NodeId>('n2'), fields: { Status } }]);
    const lost = await trace('web:80');
    assert.ok(linesOf(lost).includes('h2 ✘ node h2 can’t be asked: why'));
    assert.equal(lost.Outcome, 'broken');
  });

  it('says what the store knows: networks that are not shared, published ports, problems of the node', async () => {
    answers({ trace: { steps: [{ text: 'no such name', breaks: true }], ways: [] } });
    const apart = await trace('hidden:80');
    assert.equal(apart.Outcome, 'broken');
    assert.match(
      linesOf(apart).at(-1) ?? '',
      /service hidden is on back, the task on front: who shares no network/,
    );
    answers({});
    assert.match(linesOf(await trace('web:8080'))[1] ?? '', /port 8080 is published .* at its own port 80$/);
    const Problems = [{ Message: 'no names', Since: '2026-01-01T00:00:00.000Z' }];
    api.host.apply([{ op: 'merge', kind: 'node', id: asId<NodeId>('n1'), fields: { Problems } }]);
    assert.equal(linesOf(await trace('web:80'))[1], 'h1 the node has a problem: no names');
  });

  it('asks nobody for a task that does not run', async () => {
    const Status = { ...client.Status, State: 'failed' as const, Err: 'it fell' };
    api.host.apply([{ op: 'merge', kind: 'task', id: client.ID, fields: { Status } }]);
    const answer = await trace('web:80');
    assert.match(linesOf(answer)[0] ?? '', /^h1 ✘ the task does not run \(it is failed\): it fell/);
    assert.deepEqual([asked, answer.Outcome], [[], 'broken']);
  });

  it('from outside: asks the node for the port, and the nodes of tasks for the service’s own one', async () => {
    const from = async (words: string) => {
      const answer = await api.get(`/nodes/${words}`);
      assert.equal(answer.status, 200, answer.text);
      return answer.json as NetworkTrace;
    };
    const answer = await from('h1/trace?port=8080');
    assert.deepEqual(asked, [
      ['n1', { trace: { published_port: 8080, protocol: 'tcp', ipv6: false } }],
      [
        'n2',
        {
          arrival: {
            ...{ from_node_id: 'n1', port: 80, protocol: 'tcp' },
            targets: [{ network_id: 'front', address: '10.0.1.6', pid: 22 }],
          },
        },
      ],
    ]);
    assert.deepEqual([answer.From, answer.To, answer.Outcome], ['outside', 'h1:8080/tcp', 'partly']);
    assert.deepEqual(linesOf(answer), ['h1 named', 'h1 sent on', 'h1 goes', 'h2 listens', 'h1 ✘ goes']);
    const Problems = [
      { ServiceID: web.ServiceID, Message: 'port 8080/tcp is held', Since: '' },
      { ServiceID: client.ServiceID, Message: 'not of it', Since: '' },
    ];
    api.host.apply([{ op: 'merge', kind: 'node', id: asId<NodeId>('n1'), fields: { Problems } }]);
    assert.equal(
      linesOf(await from('h1/trace?port=8080'))[0],
      'h1 the node has a problem: port 8080/tcp is held',
    );
    asked = [];
    assert.deepEqual(linesOf(await from('h1/trace?port=8080/udp')), [
      ' ✘ no service publishes port 8080/udp',
    ]);
    assert.deepEqual(asked, []);
    for (const port of ['', '0', '65536', 'http', '80/sctp']) {
      assert.throws(() => readTracePort(port, false), /names no published port: write 8080 or 53\/udp/);
    }
    assert.equal((await api.get('/nodes/h1/trace?port=http')).status, 400);
    assert.equal((await api.get('/nodes/nobody/trace?port=80')).status, 404);
  });

  it('refuses in words what names no service and port, and no task', async () => {
    for (const to of ['web', 'web:', ':80', 'web:0', 'web:65536', 'web:80/sctp', 'web:80:90', '']) {
      assert.throws(
        () => readTraceTo(to, false),
        /names no service and port: write web:80 or web:53\/udp/,
        to,
      );
    }
    assert.deepEqual(readTraceTo('tasks.web:53/udp', true), {
      ...{ name: 'tasks.web', port: 53, protocol: 'udp', isIpv6: true },
    });
    assert.equal((await api.get('/tasks/client.1/trace?to=web')).status, 400);
    assert.equal((await api.get('/tasks/nobody.1/trace?to=web:80')).status, 404);
    api.host.refusal = new ShoalError('unavailable', 'node h1 can’t be asked');
    assert.equal((await api.get('/tasks/client.1/trace?to=web:80')).status, 503);
  });
});
