/** The agent against the managers' own dispatcher and log broker, over TLS on a loopback port. */
import assert from 'node:assert/strict';
import { Agent } from '../../agent/agent.ts';
import { SimulatedEngine } from '../../agent/engine/simulated.ts';
import { MemoryJournal } from '../../agent/journal.ts';
import { RememberedFiles } from '../../agent/secrets.ts';
import { Dispatcher } from '../../manager/dispatcher/dispatcher.ts';
import { registerDispatcher } from '../../manager/dispatcher/service.ts';
import { LogBroker } from '../../manager/logs/broker.ts';
import { registerLogs } from '../../manager/logs/service.ts';
import type { SubscribeLogsMessage__Output } from '../../proto/generated/docker/swarmkit/v1/SubscribeLogsMessage.ts';
import { asId } from '../../proto/ids.ts';
import { silentLog } from '../../proto/ports.ts';
import { createRpcServer, type NodeIdentity, type RpcServer } from '../../proto/rpc.ts';
import {
  makeCluster,
  makeNode,
  makeRevision,
  makeSecret,
  makeTask,
  TestBed,
  TestSink,
} from '../manager/dispatcher/cluster.ts';
import { makeRoot, type TestRoot } from '../proto/certificates.ts';
import { seededRandom } from '../simulation/random.ts';
import { realClock, waitFor } from './wait.ts';

const patienceMs = 10_000;
const nodeId = 'node1';

interface Manager {
  readonly server: RpcServer;
  readonly address: string;
  leads: boolean;
}

describe('agent over gRPC', () => {
  const clock = realClock();
  let root: TestRoot;
  let bed: TestBed;
  let dispatcher: Dispatcher;
  let broker: LogBroker;
  let managers: Manager[];
  let engine: SimulatedEngine;
  let agent: Agent;

  before(async () => {
    root = await makeRoot();
  });

  beforeEach(async () => {
    bed = new TestBed();
    const secrets = [{ SecretID: asId<never>('secret1'), SecretName: 'key' }];
    bed.commit(
      { op: 'create', kind: 'cluster', object: makeCluster() },
      { op: 'create', kind: 'secret', object: makeSecret('secret1', 'hush') },
      {
        op: 'create',
        kind: 'revision',
        object: makeRevision('revision1', { ContainerSpec: { Image: 'web:1', Secrets: secrets } }),
      },
      { op: 'create', kind: 'node', object: makeNode(nodeId) },
      { op: 'create', kind: 'task', object: makeTask('a', nodeId) },
    );
    const { store, propose } = bed;
    dispatcher = new Dispatcher({ store, propose, clock, random: seededRandom(1), log: silentLog });
    dispatcher.start();
    broker = new LogBroker({ store, clock, random: seededRandom(2) });
    broker.start();
    managers = [];
    for (const name of ['manager1', 'manager2']) managers.push(await listen(name));
    managers[1]!.leads = true;
    engine = new SimulatedEngine({ clock, random: seededRandom(3) });
    agent = await join();
  });

  afterEach(async () => {
    await agent.stop();
    dispatcher.stop();
    broker.stop();
    for (const { server } of managers) await server.close();
  });

  async function listen(name: string): Promise<Manager> {
    const credentials = await root.issue({ nodeId: name, role: 'manager', clusterId: 'cluster' });
    const server = createRpcServer({ credentials });
    const manager = { server, address: '', leads: false };
    const leader = () => {
      const found = managers.find(({ leads }) => leads);
      return found && { nodeId: 'leader', address: found.address };
    };
    registerDispatcher(server, { dispatcher: () => (manager.leads ? dispatcher : undefined), leader });
    registerLogs(server, { broker: () => (manager.leads ? broker : undefined), leader });
    manager.address = `127.0.0.1:${await server.listen('127.0.0.1:0')}`;
    return manager;
  }

  async function join(): Promise<Agent> {
    const identity: NodeIdentity = await root.issue({ nodeId, role: 'worker', clusterId: 'cluster' });
    const made = new Agent({
      identity: {
        current: () => ({ identity, certificate: { nodeId } }),
        tlsInfo: () => undefined,
        onChange: () => () => {},
      },
      engine,
      clock,
      random: seededRandom(4),
      log: silentLog,
      hostname: 'alpha',
      managers: [managers[0]!.address],
      dataDir: '/nowhere',
      runDir: '/nowhere',
      journal: new MemoryJournal(),
      files: new RememberedFiles(),
    });
    await made.start();
    return made;
  }

  const running = () => waitFor(() => bed.task('a').Status.State === 'running', patienceMs, 'a running task');

  it('finds the leader, registers, runs its task and reports it', async () => {
    await running();
    const session = agent.session;
    assert.equal(session.kind === 'established' && session.address, managers[1]!.address);
    assert.equal(bed.node(nodeId).Description.Hostname, 'alpha');
    assert.equal(bed.node(nodeId).Status.State, 'ready');
    const [container] = await engine.list({});
    assert.equal(container!.name, 'web.1.a');
    assert.equal(bed.task('a').Status.ContainerStatus?.ContainerID, container!.id);
    engine.exit(container!.id, 4);
    await waitFor(() => bed.task('a').Status.State === 'failed', patienceMs, 'a failed task');
    assert.equal(bed.task('a').Status.Err, 'task: non-zero exit (4)');
  });

  it('takes assignments as they change', async () => {
    await running();
    bed.commit({ op: 'create', kind: 'task', object: { ...makeTask('b', nodeId), Slot: 2 } });
    await waitFor(() => bed.task('b').Status.State === 'running', patienceMs, 'the second task');
    bed.commit({ op: 'merge', kind: 'task', id: asId('a'), fields: { DesiredState: 'shutdown' } });
    await waitFor(() => bed.task('a').Status.State === 'shutdown', patienceMs, 'the first task shut down');
    bed.commit({ op: 'remove', kind: 'task', id: asId('a') });
    await waitFor(() => engine.requests().size === 1, patienceMs, 'its container removed');
    assert.deepEqual(
      (await engine.list({})).map(({ name }) => name),
      ['web.2.b'],
    );
  });

  it('moves to a new leader and touches nothing', async () => {
    await running();
    managers[1]!.leads = false;
    managers[0]!.leads = true;
    await managers[1]!.server.close();
    await waitFor(
      () => agent.session.kind === 'established' && agent.session.address === managers[0]!.address,
      patienceMs,
      'a session with the new leader',
    );
    assert.deepEqual([engine.calls.create, engine.calls.start, engine.calls.stop], [1, 1, 0]);
    assert.equal(bed.task('a').Status.State, 'running');
  });

  it('sends its logs to a reader', async () => {
    await running();
    const [container] = await engine.list({});
    engine.write(container!.id, 'a line');
    const sink = new TestSink<SubscribeLogsMessage__Output>();
    broker.subscribe({ selector: { task_ids: ['a'] }, options: { follow: true } }, sink);
    await waitFor(() => sink.messages.length > 0, patienceMs, 'a line');
    const [line] = sink.messages[0]!.messages!;
    assert.equal(line!.data?.toString(), 'a line\n');
    assert.deepEqual(line!.context, { service_id: 'service1', node_id: nodeId, task_id: 'a' });
  });
});
