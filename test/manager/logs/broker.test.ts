import assert from 'node:assert/strict';
import { LogBroker, nodeTimeoutMs } from '../../../manager/logs/broker.ts';
import { type LogOptions, millisecondsOf, wireLogOptions, wireTime } from '../../../manager/logs/wire.ts';
import { isShoalError } from '../../../proto/errors.ts';
import type { SubscribeLogsMessage__Output } from '../../../proto/generated/docker/swarmkit/v1/SubscribeLogsMessage.ts';
import type { SubscriptionMessage__Output } from '../../../proto/generated/docker/swarmkit/v1/SubscriptionMessage.ts';
import type { Timestamp__Output as WireTimestamp } from '../../../proto/generated/google/protobuf/Timestamp.ts';
import { asId, type NodeId } from '../../../proto/ids.ts';
import { settle } from '../../simulation/clock.ts';
import { seededRandom } from '../../simulation/random.ts';
import { makeNode, makeTask, TestBed, TestSink } from '../dispatcher/cluster.ts';

const all: LogOptions = { follow: false, stdout: true, stderr: true, tail: 'all' };
const node1 = asId<NodeId>('node1');
const node2 = asId<NodeId>('node2');

function line(text: string, seconds = '1') {
  return { context: { task_id: 'a' }, timestamp: { seconds }, data: Buffer.from(text) };
}

function texts(sink: TestSink<SubscribeLogsMessage__Output>): string[] {
  return sink.messages.flatMap((message) => (message.messages ?? []).map((item) => `${item.data}`));
}

describe('logs/broker', () => {
  let bed: TestBed;
  let broker: LogBroker;

  beforeEach(() => {
    bed = new TestBed();
    const description = { ...makeNode('x').Description, Hostname: 'beta' };
    bed.commit(
      { op: 'create', kind: 'node', object: makeNode('node1') },
      { op: 'create', kind: 'node', object: makeNode('node2', { Description: description }) },
      { op: 'create', kind: 'task', object: makeTask('a', 'node1', 'running') },
      { op: 'create', kind: 'task', object: makeTask('b', 'node2', 'running') },
    );
    broker = new LogBroker({ store: bed.store, clock: bed.clock, random: seededRandom(1) });
    broker.start();
  });

  afterEach(() => broker.stop());

  function listen(nodeId: NodeId) {
    const sink = new TestSink<SubscriptionMessage__Output>();
    const handle = broker.listen(nodeId, sink);
    return { sink, handle };
  }

  function read(
    selector: { service_ids?: string[]; task_ids?: string[] },
    options: Partial<LogOptions> = {},
  ) {
    const sink = new TestSink<SubscribeLogsMessage__Output>();
    const request = { selector, options: wireLogOptions({ ...all, ...options }) };
    return { sink, subscription: broker.subscribe(request, sink) };
  }

  it('asks the nodes of a service, passes their lines on, and ends when all have sent theirs', async () => {
    const [one, two] = [listen(node1), listen(node2)];
    const { sink } = read({ service_ids: ['service1'] }, { tail: 10 });
    const asked = one.sink.messages[0]!;
    assert.deepEqual(asked.selector, { service_ids: ['service1'] });
    assert.equal(asked.options?.tail, '-11');
    assert.equal(two.sink.messages[0]?.id, asked.id);
    const publishers = [broker.publisher(node1), broker.publisher(node2)];
    const subscription_id = asked.id ?? '';
    await publishers[0]!.publish({ subscription_id, messages: [line('one')] });
    await publishers[1]!.publish({ subscription_id, messages: [line('two')] });
    await publishers[0]!.publish({ subscription_id, close: true });
    assert.equal(sink.ended === undefined, true);
    await publishers[1]!.publish({ subscription_id, close: true });
    assert.deepEqual(sink.ended, { error: undefined });
    assert.deepEqual(texts(sink), ['one', 'two']);
    assert.equal(sink.messages[1]?.messages?.[0]?.context?.node_id, 'node2');
  });

  it('names a node that is down at once, and does not wait for it', async () => {
    bed.commit({
      op: 'merge',
      kind: 'node',
      id: node2,
      fields: { Status: { State: 'down', Addr: '' } },
    });
    const one = listen(node1);
    const { sink } = read({ service_ids: ['service1'] });
    const subscription_id = one.sink.messages[0]?.id ?? '';
    await broker.publisher(node1).publish({ subscription_id, messages: [line('one')], close: true });
    assert.match(sink.ended?.error?.message ?? '', /incomplete log stream.*node beta is not available$/);
    assert.deepEqual(texts(sink), ['one']);
    const nobody = read({ task_ids: ['b'] });
    assert.match(nobody.sink.ended?.error?.message ?? '', /node beta is not available/);
  });

  it('gives a node that is up a while to connect, as after a change of leader', async () => {
    const { sink } = read({ task_ids: ['b'] });
    assert.equal(sink.ended === undefined, true);
    const two = listen(node2);
    const subscription_id = two.sink.messages[0]?.id ?? '';
    await broker.publisher(node2).publish({ subscription_id, messages: [line('two')], close: true });
    assert.deepEqual(sink.ended, { error: undefined });
    two.handle.close();
    const late = read({ task_ids: ['b'] });
    await bed.clock.run(nodeTimeoutMs);
    assert.match(late.sink.ended?.error?.message ?? '', /node beta is not available/);
  });

  it('names a node that does not answer after its own time limit, and revokes the question', async () => {
    const [one, two] = [listen(node1), listen(node2)];
    const { sink } = read({ service_ids: ['service1'] });
    const subscription_id = one.sink.messages[0]?.id ?? '';
    await broker.publisher(node1).publish({ subscription_id, messages: [line('one')] });
    await bed.clock.run(nodeTimeoutMs / 2);
    await broker.publisher(node1).publish({ subscription_id, messages: [line('more')], close: true });
    assert.equal(sink.ended === undefined, true);
    await bed.clock.run(nodeTimeoutMs / 2);
    assert.match(sink.ended?.error?.message ?? '', /reasons: node beta did not answer within 10 s$/);
    assert.deepEqual(texts(sink), ['one', 'more']);
    assert.deepEqual([two.sink.messages[1]?.id, two.sink.messages[1]?.close], [subscription_id, true]);
  });

  it('a slow reader’s time does not count as the node’s', async () => {
    const one = listen(node1);
    const { sink } = read({ task_ids: ['a'] });
    sink.isBlocked = true;
    const subscription_id = one.sink.messages[0]?.id ?? '';
    const publishing = broker.publisher(node1).publish({ subscription_id, messages: [line('one')] });
    await settle();
    await bed.clock.run(10 * nodeTimeoutMs);
    sink.unblock();
    await publishing;
    assert.equal(sink.ended === undefined, true);
  });

  it('tells who follows of a node that is away, as of a line of its task', async () => {
    const { sink } = read({ task_ids: ['b'] }, { follow: true });
    await bed.clock.run(nodeTimeoutMs);
    const [notice] = sink.messages[0]?.messages ?? [];
    assert.equal(`${notice?.data}`, 'warning: node beta is not available; its lines follow once it is\n');
    assert.deepEqual([notice?.stream, notice?.context?.task_id], ['LOG_STREAM_STDERR', 'b']);
    assert.equal(sink.ended === undefined, true);
    assert.equal(listen(node2).sink.messages.length, 1);
    await bed.clock.run(10 * nodeTimeoutMs);
    assert.equal(sink.messages.length, 1);
  });

  it('names a node that is lost on the way, and a task that was never placed', async () => {
    bed.commit({ op: 'create', kind: 'task', object: makeTask('c', undefined, 'pending') });
    const one = listen(node1);
    const { sink } = read({ task_ids: ['a', 'c'] });
    const publisher = broker.publisher(node1);
    await publisher.publish({ subscription_id: one.sink.messages[0]?.id ?? '', messages: [line('one')] });
    publisher.end();
    one.handle.close();
    assert.match(
      sink.ended?.error?.message ?? '',
      /reasons: node node1 disconnected unexpectedly, task c has not been scheduled$/,
    );
  });

  it('follows a service to nodes where its tasks come up later', async () => {
    const three = asId<NodeId>('node3');
    listen(node1);
    listen(node2);
    const late = listen(three);
    const { sink } = read({ service_ids: ['service1'] }, { follow: true });
    assert.equal(late.sink.messages.length, 0);
    bed.commit({ op: 'create', kind: 'task', object: makeTask('c', 'node3') });
    bed.commit({ op: 'create', kind: 'task', object: makeTask('d', 'node3') });
    assert.equal(late.sink.messages.length, 1);
    const subscription_id = late.sink.messages[0]?.id ?? '';
    await broker.publisher(three).publish({ subscription_id, messages: [line('late')] });
    assert.deepEqual(texts(sink), ['late']);
  });

  describe('a node that comes back to a follower', () => {
    const at = (ms: number) => wireTime(bed.clock.now() + ms);
    const of = (task: string, text: string, time: WireTimestamp) => ({
      ...line(text),
      context: { task_id: task },
      timestamp: time,
    });

    it('goes on with each of its tasks after that task’s last line', async () => {
      bed.commit({ op: 'create', kind: 'task', object: makeTask('a2', 'node1', 'running') });
      const first = listen(node1);
      listen(node2);
      const { sink } = read({ service_ids: ['service1'] }, { follow: true, tail: 5 });
      const subscription_id = first.sink.messages[0]?.id ?? '';
      await bed.clock.run(100_000);
      const sent = [of('a', 'a1', at(-90)), of('a2', 'b1', at(-80)), of('a', 'a2', at(-10))];
      await broker.publisher(node1).publish({ subscription_id, messages: sent });
      // Another line of a2 was written before, and did not get here.
      const late = of('a2', 'b2', at(-50));
      await bed.clock.run(5_000);
      first.handle.close();
      const second = listen(node1);
      const { since, tail } = second.sink.messages[0]?.options ?? {};
      assert.equal(tail, '0');
      assert.ok(millisecondsOf(since) < millisecondsOf(late.timestamp), 'it is asked for what is missing');
      const again = [...sent, late, of('a', 'a3', sent[2]!.timestamp), of('a', 'a4', at(0))];
      await broker.publisher(node1).publish({ subscription_id, messages: again });
      assert.deepEqual(texts(sink), ['a1', 'b1', 'a2', 'b2', 'a3', 'a4']);
      assert.equal(sink.ended === undefined, true);
    });

    it('begins again where it broke off before it had sent what is past', async () => {
      const first = listen(node1);
      const { sink } = read({ task_ids: ['a'] }, { follow: true });
      const subscription_id = first.sink.messages[0]?.id ?? '';
      const messages = [of('a', 'one', at(-9_000_000)), of('a', 'two', at(-8_000_000))];
      await broker.publisher(node1).publish({ subscription_id, messages: messages.slice(0, 1) });
      first.handle.close();
      const second = listen(node1);
      assert.deepEqual(second.sink.messages[0]?.options, first.sink.messages[0]?.options);
      await broker.publisher(node1).publish({ subscription_id, messages });
      assert.deepEqual(texts(sink), ['one', 'two']);
    });

    it('is asked for nothing from before the time that the reader asked for', async () => {
      const first = listen(node1);
      await bed.clock.run(100_000);
      const since = at(0);
      read({ task_ids: ['a'] }, { follow: true, since });
      const subscription_id = first.sink.messages[0]?.id ?? '';
      await broker.publisher(node1).publish({ subscription_id, messages: [of('a', 'one', at(1))] });
      await bed.clock.run(5_000);
      first.handle.close();
      assert.deepEqual(listen(node1).sink.messages[0]?.options?.since, since);
    });
  });

  it('tells the nodes when the reader has gone, and refuses what they still send', async () => {
    const one = listen(node1);
    const { subscription } = read({ task_ids: ['a'] }, { follow: true });
    const subscription_id = one.sink.messages[0]?.id ?? '';
    subscription.close();
    assert.deepEqual([one.sink.messages[1]?.id, one.sink.messages[1]?.close], [subscription_id, true]);
    const publisher = broker.publisher(node1);
    await assert.rejects(publisher.publish({ subscription_id, messages: [line('x')] }), (error) =>
      isShoalError(error, 'not-found'),
    );
    await publisher.publish({ subscription_id, close: true });
  });

  it('makes a publisher wait for a slow reader', async () => {
    const one = listen(node1);
    const { sink } = read({ task_ids: ['a'] });
    sink.isBlocked = true;
    let published = false;
    const subscription_id = one.sink.messages[0]?.id ?? '';
    const publishing = broker.publisher(node1).publish({ subscription_id, messages: [line('one')] });
    void publishing.then(() => {
      published = true;
    });
    await settle();
    assert.equal(published, false);
    sink.unblock();
    await publishing;
  });

  it('takes no lines from a node that was not asked, and no request for nothing', async () => {
    const one = listen(node1);
    read({ task_ids: ['a'] });
    const subscription_id = one.sink.messages[0]?.id ?? '';
    await assert.rejects(
      broker.publisher(node2).publish({ subscription_id, messages: [line('forged')] }),
      (error) => isShoalError(error, 'permission-denied'),
    );
    assert.throws(
      () => read({}),
      (error) => isShoalError(error, 'invalid-argument'),
    );
  });

  it('ends readers and listeners when it stops, and names the leader', () => {
    const one = listen(node1);
    const { sink } = read({ task_ids: ['a'] }, { follow: true });
    broker.stop('10.0.0.9:2377');
    assert.equal(sink.ended?.error?.details.leader, '10.0.0.9:2377');
    assert.ok(isShoalError(one.sink.ended?.error, 'not-leader'));
  });

  it('counts tail as SwarmKit does', () => {
    assert.deepEqual(
      (['all', 0, 1, 10] as const).map((tail) => wireLogOptions({ ...all, tail }).tail),
      ['0', '-1', '-2', '-11'],
    );
  });
});
