import assert from 'node:assert/strict';
import type { Metadata } from '@grpc/grpc-js';
import { Dispatcher } from '../../../manager/dispatcher/dispatcher.ts';
import { registerDispatcher } from '../../../manager/dispatcher/service.ts';
import { isShoalError } from '../../../proto/errors.ts';
import type { AssignmentsMessage__Output } from '../../../proto/generated/docker/swarmkit/v1/AssignmentsMessage.ts';
import type { SessionMessage__Output } from '../../../proto/generated/docker/swarmkit/v1/SessionMessage.ts';
import { asId } from '../../../proto/ids.ts';
import { silentLog } from '../../../proto/ports.ts';
import { createChannel, createRpcServer, type RpcChannel, type RpcServer } from '../../../proto/rpc.ts';
import { fromGrpcError, managerHeader } from '../../../proto/rpc-status.ts';
import { packageVersion } from '../../../proto/version.ts';
import { makeRoot, type TestRoot } from '../../proto/certificates.ts';
import { seededRandom } from '../../simulation/random.ts';
import { makeCluster, makeNode, makeRevision, makeTask, TestBed } from './cluster.ts';

const nodeId = 'node1';

describe('dispatcher over gRPC', () => {
  let root: TestRoot;
  let bed: TestBed;
  let dispatcher: Dispatcher;
  let leads: boolean;
  let server: RpcServer;
  let channel: RpcChannel;

  before(async () => {
    root = await makeRoot();
  });

  beforeEach(async () => {
    bed = new TestBed();
    bed.commit(
      { op: 'create', kind: 'cluster', object: makeCluster() },
      { op: 'create', kind: 'revision', object: makeRevision('revision1') },
      { op: 'create', kind: 'node', object: makeNode(nodeId) },
      { op: 'create', kind: 'task', object: makeTask('a', nodeId) },
    );
    leads = true;
    const { store, propose, clock } = bed;
    dispatcher = new Dispatcher({ store, propose, clock, random: seededRandom(1), log: silentLog });
    dispatcher.start();
    const clusterId = 'cluster';
    server = createRpcServer({
      credentials: await root.issue({ nodeId: 'manager1', role: 'manager', clusterId }),
    });
    registerDispatcher(server, {
      dispatcher: () => (leads ? dispatcher : undefined),
      leader: () => ({ nodeId: 'manager2', address: '10.0.0.2:2377' }),
    });
    const port = await server.listen('127.0.0.1:0');
    channel = createChannel(`127.0.0.1:${port}`, {
      identity: await root.issue({ nodeId, role: 'worker', clusterId }),
      roots: root.pem,
      serverName: 'swarm-manager',
    });
  });

  afterEach(async () => {
    channel.close();
    dispatcher.stop();
    await server.close();
  });

  it('carries a session, its assignments, heartbeats and reports', async () => {
    const session = channel.client('Dispatcher').Session({ description: { hostname: 'alpha' } });
    const head = new Promise<Metadata>((resolve) => session.once('metadata', resolve));
    const first = await next<SessionMessage__Output>(session);
    const session_id = first.session_id ?? '';
    assert.deepEqual((await head).get(managerHeader), [packageVersion()], 'by which our agents know us');
    assert.equal(bed.node(nodeId).Status.Addr, '127.0.0.1');
    const beat = await channel.call('Dispatcher', 'Heartbeat', { session_id });
    assert.equal(beat.period?.seconds, '1');
    const assignments = channel.client('Dispatcher').Assignments({ session_id });
    const complete = await next<AssignmentsMessage__Output>(assignments);
    assert.equal(complete.changes?.[0]?.assignment?.task?.spec?.container?.image, 'nginx');
    await channel.call('Dispatcher', 'UpdateTaskStatus', {
      session_id,
      updates: [{ task_id: 'a', status: { state: 'RUNNING', container: { container_id: 'c', pid: 7 } } }],
    });
    assert.deepEqual(bed.task('a').Status.ContainerStatus, { ContainerID: 'c', PID: 7, ExitCode: 0 });
    const ended = failure(session);
    failure(assignments);
    bed.commit({ op: 'remove', kind: 'node', id: asId(nodeId) });
    assert.ok(isShoalError(await ended, 'not-found'));
  });

  it('tells the dispatcher when an agent ends its session', async () => {
    const session = channel.client('Dispatcher').Session({});
    await next(session);
    const cancelled = failure(session);
    session.cancel();
    await cancelled;
    // A call on the same connection is answered after the cancellation before it was read.
    await assert.rejects(channel.call('Dispatcher', 'Heartbeat', { session_id: 'wrong' }));
    await bed.clock.run(10_000);
    assert.match(bed.node(nodeId).Status.Message ?? '', /connection ended/);
  });

  it('a manager that does not lead names the one that does, in a way that stock engines read too', async () => {
    leads = false;
    const session = channel.client('Dispatcher').Session({});
    const error = failure(session);
    const message = await next<SessionMessage__Output>(session);
    assert.deepEqual(message.managers, [
      { peer: { node_id: 'manager2', addr: '10.0.0.2:2377' }, weight: '10' },
    ]);
    const failures = [await error];
    failures.push(
      await channel.call('Dispatcher', 'Heartbeat', { session_id: 'x' }).then(
        () => assert.fail('a follower answered a heartbeat'),
        (refusal: unknown) => fromGrpcError(refusal),
      ),
    );
    for (const refusal of failures) {
      assert.ok(isShoalError(refusal, 'not-leader'));
      assert.equal(refusal.details.leader, '10.0.0.2:2377');
    }
  });
});

interface Stream {
  once(event: 'data', listener: (message: unknown) => void): unknown;
  once(event: 'error', listener: (error: unknown) => void): unknown;
  on(event: 'error', listener: (error: unknown) => void): unknown;
}

/** The next message of a stream; rejects when the stream fails first. */
function next<Message>(stream: Stream): Promise<Message> {
  return new Promise((resolve, reject) => {
    stream.once('data', (message) => resolve(message as Message));
    stream.once('error', (error) => reject(fromGrpcError(error)));
  });
}

/** What a stream fails with. */
function failure(stream: Stream): Promise<Error> {
  return new Promise((resolve) => {
    stream.on('error', (error) => resolve(fromGrpcError(error)));
  });
}
