import assert from 'node:assert/strict';
import { LogBroker } from '../../../manager/logs/broker.ts';
import { registerLogs, subscribeThrough } from '../../../manager/logs/service.ts';
import { wireLogOptions } from '../../../manager/logs/wire.ts';
import type { SubscribeLogsMessage__Output } from '../../../proto/generated/docker/swarmkit/v1/SubscribeLogsMessage.ts';
import type { SubscriptionMessage__Output } from '../../../proto/generated/docker/swarmkit/v1/SubscriptionMessage.ts';
import { createChannel, createRpcServer, type RpcChannel, type RpcServer } from '../../../proto/rpc.ts';
import { unaryHandler } from '../../../proto/rpc-status.ts';
import { makeRoot } from '../../proto/certificates.ts';
import { seededRandom } from '../../simulation/random.ts';
import { makeTask, TestBed, TestSink } from '../dispatcher/cluster.ts';

describe('logs over gRPC', () => {
  let bed: TestBed;
  let broker: LogBroker;
  let server: RpcServer;
  let agent: RpcChannel;
  let follower: RpcChannel;

  beforeEach(async () => {
    const root = await makeRoot();
    bed = new TestBed();
    bed.commit({ op: 'create', kind: 'task', object: makeTask('a', 'node1', 'running') });
    broker = new LogBroker({ store: bed.store, clock: bed.clock, random: seededRandom(1) });
    broker.start();
    const issue = (nodeId: string, role: 'manager' | 'worker') =>
      root.issue({ nodeId, role, clusterId: 'cluster' });
    server = createRpcServer({ credentials: await issue('manager1', 'manager') });
    registerLogs(server, { broker: () => broker, leader: () => undefined });
    server.addService('Dispatcher', { Heartbeat: unaryHandler(() => ({ period: { seconds: '1' } })) });
    const address = `127.0.0.1:${await server.listen('127.0.0.1:0')}`;
    const options = { roots: root.pem, serverName: 'swarm-manager' } as const;
    agent = createChannel(address, { ...options, identity: await issue('node1', 'worker') });
    follower = createChannel(address, { ...options, identity: await issue('manager2', 'manager') });
  });

  afterEach(async () => {
    agent.close();
    follower.close();
    broker.stop();
    await server.close();
  });

  async function listen() {
    const call = agent.client('LogBroker').ListenSubscriptions({});
    call.on('error', () => undefined);
    await new Promise((resolve) => call.once('metadata', resolve));
    return call;
  }

  function next(call: NodeJS.ReadableStream): Promise<SubscriptionMessage__Output> {
    return new Promise((resolve) => {
      call.once('data', (message) => resolve(message as unknown as SubscriptionMessage__Output));
    });
  }

  it('brings lines from an agent to a reader on another manager', async () => {
    const asked = next(await listen());
    const sink = new TestSink<SubscribeLogsMessage__Output>();
    const ended = new Promise<void>((resolve) => {
      const end = sink.end.bind(sink);
      sink.end = (error) => {
        end(error);
        resolve();
      };
    });
    const options = wireLogOptions({ follow: false, stdout: true, stderr: false, tail: 3 });
    subscribeThrough(follower, { selector: { task_ids: ['a'] }, options }, sink);
    const { id: subscription_id, options: received } = await asked;
    assert.deepEqual(received?.streams, ['LOG_STREAM_STDOUT']);
    assert.equal(received.tail, '-4');
    await new Promise<void>((resolve, reject) => {
      const call = agent.client('LogBroker').PublishLogs((error) => (error ? reject(error) : resolve()));
      call.write({
        subscription_id,
        messages: [{ context: { task_id: 'a' }, stream: 'LOG_STREAM_STDOUT', data: Buffer.from('hello') }],
      });
      call.write({ subscription_id, close: true });
      call.end();
    });
    await ended;
    assert.deepEqual(sink.ended, { error: undefined });
    assert.equal(`${sink.messages[0]?.messages?.[0]?.data}`, 'hello');
  });

  it('a reader that has stopped reading holds up the lines, and never the heartbeats beside them', async () => {
    const asked = next(await listen());
    const sink = new TestSink<SubscribeLogsMessage__Output>();
    sink.isBlocked = true;
    const options = wireLogOptions({ follow: true, stdout: true, stderr: true, tail: 'all' });
    const subscription = broker.subscribe({ selector: { task_ids: ['a'] }, options }, sink);
    const { id: subscription_id } = await asked;
    const calls = [1, 2, 3].map(() => {
      const call = agent.client('LogBroker').PublishLogs(() => undefined);
      const data = Buffer.alloc(100_000, 'x');
      for (let count = 0; count < 20; count++) call.write({ subscription_id, messages: [{ data }] });
      return call;
    });
    for (let beat = 0; beat < 20; beat++) {
      const answer = await agent.call('Dispatcher', 'Heartbeat', { session_id: 'x' });
      assert.equal(answer.period?.seconds, '1');
    }
    assert.ok(sink.messages.length <= 3, `${sink.messages.length} messages were taken`);
    for (const call of calls) call.cancel();
    subscription.close();
  });

  it('is for managers to read and for agents to write', async () => {
    const call = agent.client('Logs').SubscribeLogs({ selector: { task_ids: ['a'] } });
    const error = await new Promise<{ details?: string }>((resolve) => call.once('error', resolve as never));
    assert.match(error.details ?? '', /a worker may not call this/);
  });
});
