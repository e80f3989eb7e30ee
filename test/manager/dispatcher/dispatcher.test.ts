import assert from 'node:assert/strict';
import { type Agent, Dispatcher } from '../../../manager/dispatcher/dispatcher.ts';
import { downAfterMs, heartbeatPeriodMs } from '../../../manager/dispatcher/sessions.ts';
import { engineUnavailableLabel } from '../../../proto/docker.ts';
import { isShoalError, ShoalError } from '../../../proto/errors.ts';
import type { AssignmentsMessage__Output } from '../../../proto/generated/docker/swarmkit/v1/AssignmentsMessage.ts';
import type { SessionMessage__Output } from '../../../proto/generated/docker/swarmkit/v1/SessionMessage.ts';
import type { SessionRequest__Output } from '../../../proto/generated/docker/swarmkit/v1/SessionRequest.ts';
import { asId, type NodeId } from '../../../proto/ids.ts';
import { silentLog } from '../../../proto/ports.ts';
import { settle } from '../../simulation/clock.ts';
import { seededRandom } from '../../simulation/random.ts';
import { makeCluster, makeNode, makeRevision, makeTask, TestBed, TestSink } from './cluster.ts';

const node1 = asId<NodeId>('node1');
const agent: Agent = { nodeId: node1, role: 'worker', address: '10.0.0.1' };
const request: SessionRequest__Output = { description: { hostname: 'alpha' } };

class Harness extends TestBed {
  readonly dispatcher = new Dispatcher({
    store: this.store,
    propose: this.propose,
    clock: this.clock,
    random: seededRandom(1),
    log: silentLog,
  });

  constructor() {
    super();
    this.commit(
      { op: 'create', kind: 'cluster', object: makeCluster() },
      { op: 'create', kind: 'revision', object: makeRevision('revision1') },
      { op: 'create', kind: 'node', object: makeNode('node1') },
    );
  }

  async register(who = agent, asked: SessionRequest__Output = request) {
    const sink = new TestSink<SessionMessage__Output>();
    const handle = await this.dispatcher.session(who, asked, sink);
    await settle();
    return { sink, handle, sessionId: handle.sessionId };
  }

  assign(sessionId: string) {
    const sink = new TestSink<AssignmentsMessage__Output>();
    const handle = this.dispatcher.assignments(node1, sessionId, sink);
    return { sink, handle };
  }

  report(
    sessionId: string,
    taskId: string,
    state: 'ACCEPTED' | 'RUNNING' | 'FAILED' | 'REMOVE',
    message = '',
  ) {
    return this.dispatcher.updateTaskStatus(node1, sessionId, [
      { task_id: taskId, status: { state, message, timestamp: { seconds: '10' } } },
    ]);
  }
}

describe('dispatcher', () => {
  let bed: Harness;

  beforeEach(() => {
    bed = new Harness();
    bed.dispatcher.start();
  });

  afterEach(() => bed.dispatcher.stop());

  describe('registration', () => {
    it('makes the node ready with its address and description, and tells it what it needs', async () => {
      const manager = makeNode('manager1', {
        Spec: { Labels: {}, Role: 'manager', Availability: 'active' },
        ManagerStatus: { Leader: true, Reachability: 'reachable', Addr: '10.0.0.9:2377' },
      });
      bed.commit({ op: 'create', kind: 'node', object: manager });
      const { sink, sessionId } = await bed.register();
      assert.deepEqual(bed.node('node1').Status, { State: 'ready', Addr: '10.0.0.1' });
      assert.equal(bed.node('node1').Description.Hostname, 'alpha');
      const message = sink.messages[0]!;
      assert.equal(sink.messages.length, 1);
      assert.equal(message.session_id, sessionId);
      assert.equal(message.node?.id, 'node1');
      assert.deepEqual(message.managers, [
        { peer: { node_id: 'manager1', addr: '10.0.0.9:2377' }, weight: '10' },
      ]);
      assert.equal(message.RootCA?.toString(), 'PEM');
      assert.equal(message.network_bootstrap_keys?.[0]?.key?.length, 16);
    });

    it('says of a node whose engine does not answer that it is so, for as long as it is', async () => {
      const labels = { [engineUnavailableLabel]: 'connection refused' };
      const asked = {
        description: { hostname: 'alpha', engine: { engine_version: '', labels, plugins: [] } },
      };
      await bed.register(agent, asked);
      const { State, Message } = bed.node('node1').Status;
      assert.equal(State, 'ready');
      assert.equal(Message, 'the container engine does not answer: connection refused');
      await bed.register();
      assert.deepEqual(bed.node('node1').Status, { State: 'ready', Addr: '10.0.0.1' });
    });

    it('what an earlier session said and is stored late does not outlast what the newer one says', async () => {
      await bed.register();
      const labels = { [engineUnavailableLabel]: 'connection refused' };
      const asked = {
        description: { hostname: 'alpha', engine: { engine_version: '', labels, plugins: [] } },
      };
      // Both within the time that storing the first takes.
      await Promise.allSettled([bed.register(agent, asked), bed.register()]);
      await settle();
      assert.deepEqual(bed.node('node1').Status, { State: 'ready', Addr: '10.0.0.1' });
    });

    it('of a node that is as it was costs no log entry', async () => {
      await bed.register();
      const before = bed.proposals.length;
      await bed.register();
      assert.equal(bed.proposals.length, before);
    });

    it('ends the older session, whose id is no longer good', async () => {
      const first = await bed.register();
      const second = await bed.register();
      assert.ok(isShoalError(first.sink.ended?.error, 'conflict'));
      assert.throws(
        () => bed.dispatcher.heartbeat(node1, first.sessionId),
        (error) => isShoalError(error, 'invalid-argument'),
      );
      assert.ok(bed.dispatcher.heartbeat(node1, second.sessionId));
      first.handle.close();
      assert.ok(bed.dispatcher.heartbeat(node1, second.sessionId), 'the old stream ends late');
    });

    it('is refused for unknown nodes and for a stock engine with a manager certificate', async () => {
      const unknown = { ...agent, nodeId: asId<NodeId>('nobody') };
      await assert.rejects(bed.register(unknown), (error) => isShoalError(error, 'not-found'));
      await assert.rejects(bed.register({ ...agent, role: 'manager' }), /worker token/);
    });

    it('that is not committed is no registration', async () => {
      bed.refusal = new ShoalError('no-quorum', 'no quorum');
      await assert.rejects(bed.register(), (error) => isShoalError(error, 'no-quorum'));
      assert.equal(bed.dispatcher.sessionCount, 0);
    });
  });

  describe('session messages', () => {
    it('follow changes of the node, of the managers and of the keys, and nothing else', async () => {
      const { sink } = await bed.register();
      const spec = { ...bed.node('node1').Spec, Availability: 'drain' as const };
      bed.commit({ op: 'merge', kind: 'node', id: node1, fields: { Spec: spec } });
      await settle();
      assert.equal(sink.messages.at(-1)?.node?.spec?.availability, 'DRAIN');
      bed.commit({
        op: 'create',
        kind: 'node',
        object: makeNode('manager1', {
          Spec: { Labels: {}, Role: 'manager', Availability: 'active' },
          ManagerStatus: { Reachability: 'reachable', Addr: 'm:2377' },
        }),
      });
      await settle();
      assert.equal(sink.messages.at(-1)?.managers?.length, 1);
      assert.equal(sink.messages.length, 3);
      bed.commit({ op: 'create', kind: 'node', object: makeNode('node2') });
      bed.commit({ op: 'create', kind: 'task', object: makeTask('a', 'node2') });
      const status = { State: 'ready', Addr: '10.0.0.2' } as const;
      bed.commit({ op: 'merge', kind: 'node', id: asId('node2'), fields: { Status: status } });
      await settle();
      assert.equal(sink.messages.length, 3);
    });

    it('end when the node is removed from the cluster', async () => {
      const { sink, sessionId } = await bed.register();
      bed.commit({ op: 'remove', kind: 'node', id: node1 });
      assert.ok(isShoalError(sink.ended?.error, 'not-found'));
      assert.throws(() => bed.dispatcher.heartbeat(node1, sessionId));
      await bed.clock.run(60_000);
      assert.equal(bed.store.get('node', node1), undefined);
    });
  });

  describe('heartbeats', () => {
    it('are a second apart on a small cluster and at most 250 a second on a large one', async () => {
      const { sessionId } = await bed.register();
      assert.deepEqual(bed.dispatcher.heartbeat(node1, sessionId), { period: { seconds: '1', nanos: 0 } });
      assert.equal(heartbeatPeriodMs(250, 1000), 1000);
      for (const nodes of [251, 1_000, 5_000, 10_001]) {
        assert.ok((nodes * 1000) / heartbeatPeriodMs(nodes, 1000) <= 250);
      }
    });

    it('keep the node ready; three missed ones make it down, with the reason', async () => {
      const { sink, sessionId } = await bed.register();
      for (let beat = 0; beat < 20; beat++) {
        await bed.clock.run(1_000);
        bed.dispatcher.heartbeat(node1, sessionId);
      }
      await bed.clock.run(2_999);
      assert.equal(bed.node('node1').Status.State, 'ready');
      await bed.clock.run(downAfterMs(1_000) - 2_999);
      const status = bed.node('node1').Status;
      assert.equal(status.State, 'down');
      assert.match(status.Message ?? '', /^heartbeat failure: nothing heard/);
      assert.equal(status.Addr, '10.0.0.1');
      assert.ok(isShoalError(sink.ended?.error, 'timeout'));
      assert.throws(
        () => bed.dispatcher.heartbeat(node1, sessionId),
        (error) => isShoalError(error, 'not-found'),
      );
      await bed.register();
      assert.deepEqual(bed.node('node1').Status, { State: 'ready', Addr: '10.0.0.1' });
    });

    it('a loss that is stored only after the agent came back does not last', async () => {
      const bed = new Harness();
      bed.dispatcher.start();
      await bed.register();
      const Status = { State: 'down', Message: 'heartbeat failure', Addr: '10.0.0.1' } as const;
      bed.commit({ op: 'merge', kind: 'node', id: node1, fields: { Status } });
      await settle();
      assert.deepEqual(bed.node('node1').Status, { State: 'ready', Addr: '10.0.0.1' });
    });

    it('an agent that restarts in time stays ready, one that ended its session goes down', async () => {
      const first = await bed.register();
      first.handle.close();
      await bed.clock.run(2_000);
      const second = await bed.register();
      second.handle.close();
      await bed.clock.run(2_000);
      assert.equal(bed.node('node1').Status.State, 'ready');
      await bed.clock.run(2_000);
      assert.match(bed.node('node1').Status.Message ?? '', /connection ended/);
    });

    it('a loss that could not be stored is stored later', async () => {
      await bed.register();
      bed.refusal = new ShoalError('no-quorum', 'no quorum');
      await bed.clock.run(10_000);
      assert.equal(bed.node('node1').Status.State, 'ready');
      bed.refusal = undefined;
      await bed.clock.run(1_000);
      assert.equal(bed.node('node1').Status.State, 'down');
    });

    it('a new leader gives known nodes time to find it', async () => {
      await bed.register();
      bed.dispatcher.stop();
      bed.dispatcher.start();
      await bed.clock.run(3_000);
      assert.equal(bed.node('node1').Status.State, 'ready');
      await bed.clock.run(1_000);
      assert.match(bed.node('node1').Status.Message ?? '', /after the leader changed/);
    });
  });

  describe('task reports', () => {
    let sessionId: string;

    beforeEach(async () => {
      sessionId = (await bed.register()).sessionId;
      bed.commit({ op: 'create', kind: 'task', object: makeTask('a', 'node1') });
      bed.commit({ op: 'create', kind: 'task', object: makeTask('b', 'node2') });
      bed.proposals.length = 0;
    });

    it('are stored, never go backwards, and cost nothing when they say nothing new', async () => {
      await bed.report(sessionId, 'a', 'RUNNING', 'started');
      assert.deepEqual(bed.task('a').Status, {
        Timestamp: '1970-01-01T00:00:10.000Z',
        State: 'running',
        Message: 'started',
      });
      await bed.report(sessionId, 'a', 'ACCEPTED');
      await bed.report(sessionId, 'a', 'RUNNING', 'started');
      await bed.report(sessionId, 'a', 'REMOVE');
      await bed.report(sessionId, 'gone', 'RUNNING');
      assert.equal(bed.task('a').Status.State, 'running');
      assert.equal(bed.proposals.length, 1);
    });

    it('that arrive together share a proposal, and of one task the furthest state counts', async () => {
      for (let index = 0; index < 50; index++) {
        bed.commit({ op: 'create', kind: 'task', object: makeTask(`t${index}`, 'node1') });
      }
      const reports = Array.from({ length: 50 }, (_, index) => bed.report(sessionId, `t${index}`, 'RUNNING'));
      reports.push(bed.report(sessionId, 'a', 'FAILED'), bed.report(sessionId, 'a', 'ACCEPTED'));
      await Promise.all(reports);
      assert.ok(bed.proposals.length <= 2, `${bed.proposals.length} proposals`);
      assert.equal(bed.task('a').Status.State, 'failed');
      assert.equal(bed.task('t49').Status.State, 'running');
    });

    it('about tasks of other nodes and from wrong sessions are refused', async () => {
      await assert.rejects(bed.report(sessionId, 'b', 'RUNNING'), (error) =>
        isShoalError(error, 'permission-denied'),
      );
      await assert.rejects(bed.report('wrong', 'a', 'RUNNING'), (error) =>
        isShoalError(error, 'invalid-argument'),
      );
      assert.equal(bed.proposals.length, 0);
    });

    it('that are not committed are answered with the error, so that the agent reports again', async () => {
      bed.refusal = new ShoalError('no-quorum', 'no quorum');
      await assert.rejects(bed.report(sessionId, 'a', 'RUNNING'), (error) =>
        isShoalError(error, 'no-quorum'),
      );
    });
  });

  describe('assignments', () => {
    it('are sent whole, then as they change, and only to the node that they concern', async () => {
      const { sessionId } = await bed.register();
      const { sink } = bed.assign(sessionId);
      assert.deepEqual(
        sink.messages.map((message) => message.type),
        ['COMPLETE'],
      );
      bed.commit({ op: 'create', kind: 'task', object: makeTask('b', 'node2') });
      await settle();
      assert.equal(sink.messages.length, 1);
      bed.commit({ op: 'create', kind: 'task', object: makeTask('a', 'node1') });
      await settle();
      assert.equal(sink.messages[1]?.changes?.[0]?.assignment?.task?.id, 'a');
    });

    it('gather while the agent is slow, instead of queueing', async () => {
      const { sessionId } = await bed.register();
      const { sink } = bed.assign(sessionId);
      await settle();
      sink.isBlocked = true;
      for (let index = 0; index < 20; index++) {
        bed.commit({ op: 'create', kind: 'task', object: makeTask(`t${index}`, 'node1') });
        await settle();
      }
      assert.equal(sink.messages.length, 2);
      sink.unblock();
      await settle();
      assert.equal(sink.messages.length, 3);
      assert.equal(sink.messages[2]?.changes?.length, 19);
    });

    it('need the current session, and end with it', async () => {
      const { sessionId } = await bed.register();
      assert.throws(
        () => bed.assign('wrong'),
        (error) => isShoalError(error, 'invalid-argument'),
      );
      const { sink } = bed.assign(sessionId);
      await bed.clock.run(10_000);
      assert.ok(isShoalError(sink.ended?.error, 'timeout'));
    });

    it('are sent whole again after the store was restored from a snapshot', async () => {
      const { sessionId } = await bed.register();
      bed.commit({ op: 'create', kind: 'task', object: makeTask('a', 'node1') });
      const snapshot = bed.store.snapshot();
      bed.commit({ op: 'remove', kind: 'task', id: asId('a') });
      const { sink } = bed.assign(sessionId);
      bed.store.restore(bed.store.index, snapshot);
      await settle();
      const last = sink.messages.at(-1);
      assert.deepEqual([last?.type, last?.changes?.length], ['COMPLETE', 1]);
    });
  });

  it('ends every stream when it stops to lead, and names the new leader', async () => {
    const { sink, sessionId } = await bed.register();
    const assignments = bed.assign(sessionId);
    bed.dispatcher.stop('10.0.0.9:2377');
    for (const { ended } of [sink, assignments.sink]) {
      assert.ok(isShoalError(ended?.error, 'not-leader'));
      assert.deepEqual(ended.error.details, { leader: '10.0.0.9:2377' });
    }
    assert.throws(
      () => bed.dispatcher.heartbeat(node1, sessionId),
      (error) => isShoalError(error, 'not-leader'),
    );
    await bed.clock.run(60_000);
    assert.equal(bed.node('node1').Status.State, 'ready', 'the next leader decides');
  });
});
