import assert from 'node:assert/strict';
import { encodeMessages } from '../../manager/raft/message-codec.ts';
import { encodeEntry } from '../../manager/store/change.ts';
import { isShoalError } from '../../proto/errors.ts';
import type { ClusterId } from '../../proto/ids.ts';
import type { NodeIdentity, RpcChannel } from '../../proto/rpc.ts';
import { waitFor } from '../agent/wait.ts';
import { boundMs, ManagersOnPorts } from './managers-on-ports.ts';
import { linkTo } from './raft/link-client.ts';

interface Stream {
  on(event: 'error', listener: () => void): unknown;
  on(event: 'data', listener: (data: unknown) => void): unknown;
  on(event: 'status', listener: (status: { code: number; details: string }) => void): unknown;
}

/** How a stream ends. */
function ended(stream: Stream): Promise<string> {
  return new Promise((resolve) => {
    stream.on('error', () => {});
    stream.on('data', () => {});
    stream.on('status', ({ details }) => resolve(details));
  });
}

describe('callers on the cluster’s port', function () {
  this.timeout(60_000);
  let managers: ManagersOnPorts;
  let address: string;

  before(async () => {
    managers = await ManagersOnPorts.form(2);
    address = managers.seats[0]!.address;
  });

  after(() => managers.close());

  const channelOf = (identity: NodeIdentity): RpcChannel => managers.channel(address, identity);
  const refused = async (call: Promise<unknown>, code: Parameters<typeof isShoalError>[1], words: RegExp) => {
    await assert.rejects(call, (error) => {
      assert.ok(isShoalError(error, code), String(error));
      assert.match(error.message, words);
      return true;
    });
  };

  it('of another cluster are refused everywhere, though the authority is the same', async () => {
    const elsewhere = await managers.certificate('stranger', 'manager', 'elsewhere' as ClusterId);
    const channel = channelOf(elsewhere);
    const words = /belongs to another cluster/;
    assert.match(await ended(channel.client('Dispatcher').Session({})), words);
    assert.match(await ended(channel.client('LogBroker').ListenSubscriptions({})), words);
    assert.match(await ended(channel.client('Logs').SubscribeLogs({})), words);
    assert.match(await linkTo(address, elsewhere).ended, words);
    await refused(channel.call('CA', 'GetUnlockKey', {}), 'permission-denied', words);
    await refused(channel.call('Forward', 'ReadIndex', {}), 'permission-denied', words);
    await refused(channel.call('Membership', 'Leave', { node_id: 'x' }), 'permission-denied', words);
    await refused(channel.call('Membership', 'Join', { address: '127.0.0.1:1' }), 'permission-denied', words);
  });

  it('without a certificate are refused by all but what leads to one', async () => {
    const channel = managers.channel(address);
    const words = /this method needs a client certificate of the cluster/;
    for (const method of ['Session', 'Assignments'] as const) {
      assert.match(await ended(channel.client('Dispatcher')[method]({})), words, method);
    }
    assert.match(await ended(channel.client('LogBroker').ListenSubscriptions({})), words);
    assert.match(await ended(channel.client('Logs').SubscribeLogs({})), words);
    await refused(channel.call('Dispatcher', 'Heartbeat', {}), 'permission-denied', words);
    await refused(channel.call('Dispatcher', 'UpdateTaskStatus', {}), 'permission-denied', words);
    await refused(channel.call('CA', 'GetUnlockKey', {}), 'permission-denied', words);
    await refused(channel.call('Forward', 'ReadIndex', {}), 'permission-denied', words);
    await refused(channel.call('Membership', 'Leave', { node_id: 'x' }), 'permission-denied', words);
    const { certificate } = await channel.call('CA', 'GetRootCACertificate', {});
    assert.match(String(certificate), /BEGIN CERTIFICATE/);
  });

  it('that were removed are told so', async () => {
    const seat = await managers.node('worker');
    const channel = channelOf(seat.identity);
    const session = channel.client('Dispatcher').Session({ description: { hostname: 'x' } });
    const end = ended(session);
    const { manager } = managers.leader();
    await waitFor(
      () => manager.store.get('node', seat.nodeId)?.Status.State === 'ready',
      boundMs,
      'it is registered',
    );
    await manager.propose([{ op: 'remove', kind: 'node', id: seat.nodeId }]);
    const words = /was removed from the cluster/;
    assert.match(await end, words);
    assert.match(await ended(channel.client('Dispatcher').Session({})), words);
    assert.match(await ended(channel.client('LogBroker').ListenSubscriptions({})), words);
    await refused(channel.call('Dispatcher', 'Heartbeat', { session_id: 'x' }), 'not-found', words);
  });

  it('that were managers may do no more than a worker', async () => {
    const seat = await managers.join();
    const { manager } = managers.leader();
    const raftId = seat.server!.manager.raft.status().raftId;
    const node = manager.store.get('node', seat.nodeId)!;
    await manager.propose([
      { op: 'merge', kind: 'node', id: node.ID, fields: { Spec: { ...node.Spec, Role: 'worker' } } },
    ]);
    await waitFor(() => manager.raft.standing(seat.nodeId) === 'former', boundMs, 'it left the group');
    await waitFor(() => seat.server?.manager.raft.status().role === 'removed', boundMs, 'it was told');
    await managers.stop(seat);
    const channel = channelOf(seat.identity);
    const none = /not one of the cluster's managers/;
    assert.match(await ended(channel.client('Logs').SubscribeLogs({})), none);
    await refused(channel.call('CA', 'GetUnlockKey', {}), 'permission-denied', none);
    const data = Buffer.from(encodeEntry({ now: 0, changes: [] }));
    await refused(channel.call('Forward', 'Propose', { data }), 'permission-denied', none);
    await refused(
      channel.call('Membership', 'Leave', { node_id: manager.nodeId }),
      'permission-denied',
      none,
    );
    await refused(
      channel.call('Membership', 'Join', { address: seat.address }),
      'permission-denied',
      /is a worker now/,
    );
    const { term } = manager.raft.status();
    for (const [from, words] of [
      [manager.raft.status().raftId, /may not speak as member/],
      [4711, none],
    ] as const) {
      const { link, ended: end } = linkTo(address, seat.identity);
      const to = manager.raft.status().raftId;
      link.write(encodeMessages([{ type: 'MsgHeartbeat', from, to, term: term + 100, commit: 0 }]));
      assert.match(await end, words);
    }
    assert.equal(manager.raft.status().term, term, 'nobody was deposed');
    // As the member it was, it is answered that it is none any more.
    const { link, heard } = linkTo(address, seat.identity);
    const to = manager.raft.status().raftId;
    link.write(encodeMessages([{ type: 'MsgHeartbeatResp', from: raftId, to, term }]));
    assert.equal((await heard).kind, 'messages');
    link.destroy();
  });

  it('with garbage in every field crash nothing', async () => {
    const seat = await managers.node('worker');
    const channel = channelOf(seat.identity);
    const huge = '9'.repeat(400);
    const session = channel.client('Dispatcher').Session({
      description: {
        hostname: '\u0000'.repeat(1000),
        resources: {
          nano_cpus: '9223372036854775807',
          memory_bytes: '-9223372036854775808',
          generic: [{}, { named_resource_spec: {} }, { discrete_resource_spec: { kind: '', value: '-1' } }],
        },
        engine: { plugins: [{}, { type: huge }], labels: { '': '', ['__proto__']: 'x' } },
        tls_info: { trust_root: Buffer.from([0xff, 0xfe]) },
      },
      session_id: huge,
    } as never);
    const first = await new Promise<{ session_id?: string }>((resolve, reject) => {
      session.once('data', resolve);
      session.once('error', reject);
    });
    session.on('error', () => {});
    const session_id = first.session_id ?? '';
    await refused(
      channel.call('Dispatcher', 'Heartbeat', { session_id: huge }),
      'invalid-argument',
      /session/,
    );
    await refused(channel.call('Dispatcher', 'Heartbeat', {}), 'invalid-argument', /session/);
    await channel.call('Dispatcher', 'UpdateTaskStatus', {
      session_id,
      updates: [{}, { task_id: huge }, { task_id: 'x', status: {} }, { status: { state: 'RUNNING' } }],
    });
    assert.match(await ended(channel.client('Dispatcher').Assignments({ session_id: huge })), /session/);
    assert.match(await linkTo(address, seat.identity).ended, /may not call/);
    const publish = channel.client('LogBroker').PublishLogs(() => {});
    publish.on('error', () => {});
    publish.write({ subscription_id: huge, messages: [{}, { data: Buffer.alloc(10) }] });
    publish.end();
    await channel.call('Dispatcher', 'Heartbeat', { session_id });
    session.cancel();
    const { manager } = managers.leader();
    await manager.readBarrier();
    assert.deepEqual(managers.failures, []);
  });

  it('with garbage as a manager crash nothing', async () => {
    const channel = channelOf(managers.seats[1]!.identity);
    const { manager } = managers.leader();
    const { link, ended: end } = linkTo(address, managers.seats[1]!.identity);
    link.write(Buffer.from('garbage'));
    assert.match(await end, /cannot be read/);
    for (const data of [Buffer.from('garbage'), Buffer.alloc(0)]) {
      const answer = await channel.call('Forward', 'Propose', { data });
      assert.match(answer.result!.toString('latin1'), /invalid-argument/);
    }
    await manager.propose([]);
    assert.equal(manager.isLeader(), true);
    assert.deepEqual(managers.failures, []);
  });
});
