import assert from 'node:assert/strict';
import { Dispatcher } from '../../../manager/dispatcher/dispatcher.ts';
import { problemsGapMs } from '../../../manager/dispatcher/problems.ts';
import { maxQuestionsOfNode, questionTimeoutMs } from '../../../manager/dispatcher/questions.ts';
import { settleMs, Withdrawals, withdrawalTimeoutMs } from '../../../manager/dispatcher/withdrawals.ts';
import { abilitiesLabel, agentAbilities } from '../../../proto/agent-abilities.ts';
import { engineIdLabel, type Task } from '../../../proto/docker.ts';
import type { AssignmentsMessage__Output } from '../../../proto/generated/docker/swarmkit/v1/AssignmentsMessage.ts';
import type { SessionMessage__Output } from '../../../proto/generated/docker/swarmkit/v1/SessionMessage.ts';
import type { EndpointsUpdate } from '../../../proto/generated/shoal/v1/EndpointsUpdate.ts';
import { asId, type NodeId, type ServiceId } from '../../../proto/ids.ts';
import { silentLog } from '../../../proto/ports.ts';
import { settle } from '../../simulation/clock.ts';
import { seededRandom } from '../../simulation/random.ts';
import { makeCluster, TestBed, TestSink } from './cluster.ts';
import { fill, networkId, overlayLabels, overlayTask } from './endpoint-objects.ts';

/** Longer than changes are gathered for. */
const gatheredMs = 20;

class Harness extends TestBed {
  readonly convergenceMs: number[] = [];
  dispatcher = this.lead();

  constructor(nodes = 2) {
    super();
    this.commit({ op: 'create', kind: 'cluster', object: makeCluster() });
    fill(this, nodes);
    this.dispatcher.start();
  }

  private lead(): Dispatcher {
    return new Dispatcher({
      store: this.store,
      propose: this.propose,
      clock: this.clock,
      random: seededRandom(1),
      log: silentLog,
      observeConvergence: (tookMs) => this.convergenceMs.push(tookMs),
    });
  }

  /** Another manager leads: nothing of what the one before knew is left. */
  changeLeader(): void {
    this.dispatcher.stop();
    this.dispatcher = this.lead();
    this.dispatcher.start();
  }

  /** A node's data plane: what it is told, and its word. */
  async watcher(nodeId: string) {
    const sink = new TestSink<EndpointsUpdate>();
    const handle = this.dispatcher.watchEndpoints(asId<NodeId>(nodeId), sink);
    await settle();
    const confirm = async (update = sink.messages.at(-1)) => {
      handle.report({ revision: update?.revision ?? '' });
      await this.pass(settleMs);
    };
    return { sink, handle, confirm };
  }

  /** A node's agent: what it is told of its tasks, as `id desired`. */
  async agent(nodeId: string, labels: Record<string, string> = overlayLabels) {
    const session = await this.dispatcher.session(
      { nodeId: asId<NodeId>(nodeId), role: 'worker', address: '192.0.2.1' },
      { description: { hostname: nodeId, engine: { labels } } },
      new TestSink<SessionMessage__Output>(),
    );
    const sink = new TestSink<AssignmentsMessage__Output>();
    this.dispatcher.assignments(asId<NodeId>(nodeId), session.sessionId, sink);
    await settle();
    return {
      told: () =>
        sink.messages.flatMap(({ changes }) =>
          (changes ?? []).flatMap(({ assignment, action }) =>
            assignment?.task
              ? [`${assignment.task.id} ${action === 'REMOVE' ? 'gone' : assignment.task.desired_state}`]
              : [],
          ),
        ),
    };
  }

  async pass(ms: number): Promise<void> {
    await this.clock.run(ms);
    await settle();
  }

  stopTask(id: string): Promise<void> {
    this.commit({ op: 'merge', kind: 'task', id: asId(id), fields: { DesiredState: 'shutdown' } });
    return this.pass(gatheredMs);
  }

  isWithheld(id: string): boolean {
    return this.dispatcher.isWithheld(asId(id));
  }
}

const endpointsOf = (update: EndpointsUpdate | undefined) =>
  (update?.services ?? []).flatMap(({ endpoints }) =>
    (endpoints ?? []).map(({ task_id, is_draining }) => `${task_id}${is_draining ? ' draining' : ''}`),
  );

describe('endpoints', () => {
  it('are told whole at first: networks with peers, services with addresses and endpoints', async () => {
    const bed = new Harness();
    const { sink } = await bed.watcher('n1');
    const [first] = sink.messages;
    assert.equal(first?.complete, true);
    assert.deepEqual(
      first?.networks?.map(({ id, gateways, vxlan_id, peers }) => [
        id,
        gateways,
        vxlan_id,
        peers?.map((peer) => peer.underlay),
      ]),
      [[networkId, ['10.1.0.251/24'], 4097, ['192.0.2.2']]],
    );
    assert.deepEqual(first?.services?.[0]?.networks?.[0]?.virtual_addresses, ['10.1.0.2']);
    assert.deepEqual(endpointsOf(first), ['t1', 't2']);
  });

  it('are told by what changed: one that is to stop is draining, one that ended is gone, and nothing twice', async () => {
    const bed = new Harness();
    const { sink } = await bed.watcher('n1');
    await bed.stopTask('t2');
    assert.deepEqual(sink.messages.slice(1).map(endpointsOf), [['t1', 't2 draining']]);
    bed.commit({
      op: 'merge',
      kind: 'task',
      id: asId('t2'),
      fields: { Status: { ...bed.task('t2').Status, State: 'shutdown' } },
    });
    await bed.pass(gatheredMs);
    assert.deepEqual(endpointsOf(sink.messages.at(-1)), ['t1']);
    bed.commit({ op: 'merge', kind: 'task', id: asId('t2'), fields: { Labels: { a: 'b' } } });
    await bed.pass(gatheredMs);
    assert.equal(sink.messages.length, 3);
  });

  it('of ports whose clients are named by a header are told to agents that send one, and to no older one', async () => {
    const bed = new Harness();
    const service = bed.store.get('service', asId<ServiceId>('service1'))!;
    const port = {
      TargetPort: 80,
      PublishedPort: 8080,
      Protocol: 'tcp' as const,
      PublishMode: 'ingress' as const,
    };
    const Spec = { ...service.Spec, Labels: { 'shoal.ingress': 'proxy-protocol' } };
    // What agents would take for TCP is told to none.
    const sctp = { ...port, PublishedPort: 8081, Protocol: 'sctp' as const };
    const Endpoint = { ...service.Endpoint, Ports: [port, sctp] };
    bed.commit({ op: 'merge', kind: 'service', id: service.ID, fields: { Spec, Endpoint } });
    await bed.agent('n1', { ...overlayLabels, [abilitiesLabel]: agentAbilities.join(',') });
    const portsOf = async (nodeId: string) => {
      const [first] = (await bed.watcher(nodeId)).sink.messages;
      return first?.services?.map(({ ports }) => ports?.map(({ published_port }) => published_port));
    };
    assert.deepEqual([await portsOf('n1'), await portsOf('n2')], [[[8080]], [[]]]);
  });

  it('of a node that is lost are none', async () => {
    const bed = new Harness();
    const { sink } = await bed.watcher('n1');
    const { Status } = bed.node('n2');
    bed.commit({
      op: 'merge',
      kind: 'node',
      id: asId('n2'),
      fields: { Status: { ...Status, State: 'down' } },
    });
    await bed.pass(gatheredMs);
    assert.deepEqual(endpointsOf(sink.messages.at(-1)), ['t1']);
  });

  it('are told once when changes come close together, and the newest while one is on its way', async () => {
    const bed = new Harness();
    const { sink } = await bed.watcher('n1');
    sink.isBlocked = true;
    for (const number of [3, 4, 5]) {
      bed.commit({
        op: 'create',
        kind: 'task',
        object: overlayTask(`t${number}`, 'n2', `10.1.0.${10 + number}`),
      });
    }
    await bed.pass(gatheredMs);
    bed.commit({ op: 'create', kind: 'task', object: overlayTask('t6', 'n2', '10.1.0.16') });
    await bed.pass(gatheredMs);
    assert.equal(sink.messages.length, 2);
    sink.unblock();
    await bed.pass(gatheredMs);
    assert.equal(sink.messages.length, 3);
    assert.deepEqual(endpointsOf(sink.messages.at(-1)), ['t1', 't2', 't3', 't4', 't5', 't6']);
  });
});

describe('who holds what', () => {
  const board = (bed: Harness) => bed.dispatcher.endpoints.programmed(asId(networkId));
  /** By node: what is held of the network and the service. */
  const heldBy = (bed: Harness) =>
    (board(bed).nodes ?? []).map(({ node_id, watches, confirmed = '', network = '', services }) => {
      const holds = (revision = '') => revision !== '' && Number(confirmed) >= Number(revision);
      if (watches !== true) return `${node_id} silent`;
      return `${node_id}${holds(network) ? ' network' : ''}${holds(services?.service1) ? ' service' : ''}`;
    });

  it('is known by what each node was told and confirmed', async () => {
    const bed = new Harness();
    assert.deepEqual(heldBy(bed), ['n1 silent', 'n2 silent']);
    const [one, two] = [await bed.watcher('n1'), await bed.watcher('n2')];
    assert.deepEqual(heldBy(bed), ['n1', 'n2']);
    await one.confirm();
    await two.confirm();
    assert.deepEqual(heldBy(bed), ['n1 network service', 'n2 network service']);
    assert.deepEqual(
      board(bed).services?.map(({ name, endpoints }) => [name, endpoints?.length]),
      [['web', 2]],
    );
    two.handle.close();
    assert.deepEqual(heldBy(bed), ['n1 network service', 'n2 silent']);
  });

  it('is not held from the moment of a change until it is confirmed, and what else changes is of no matter', async () => {
    const bed = new Harness();
    const [one, two] = [await bed.watcher('n1'), await bed.watcher('n2')];
    await one.confirm();
    await two.confirm();
    const stopping = bed.stopTask('t1');
    assert.deepEqual(heldBy(bed), ['n1 network', 'n2 network'], 'nobody was told yet');
    await stopping;
    await one.confirm();
    assert.deepEqual(heldBy(bed), ['n1 network service', 'n2 network']);
    await two.confirm();
    bed.commit({ op: 'merge', kind: 'task', id: asId('t2'), fields: { Labels: { a: 'b' } } });
    await bed.pass(gatheredMs);
    assert.deepEqual(heldBy(bed), ['n1 network service', 'n2 network service']);
  });
});

describe('the time until nodes hold a change', () => {
  it('is from the change to each node’s word; a node that begins to listen is not measured', async () => {
    const bed = new Harness();
    const [one, two] = [await bed.watcher('n1'), await bed.watcher('n2')];
    await one.confirm();
    await two.confirm();
    assert.deepEqual(bed.convergenceMs, []);
    const stopping = bed.stopTask('t1');
    await stopping;
    one.handle.report({ revision: one.sink.messages.at(-1)?.revision ?? '' });
    assert.deepEqual(bed.convergenceMs, [gatheredMs]);
    await bed.pass(100);
    two.handle.report({ revision: two.sink.messages.at(-1)?.revision ?? '' });
    two.handle.report({ revision: two.sink.messages.at(-1)?.revision ?? '' });
    assert.deepEqual(bed.convergenceMs, [gatheredMs, gatheredMs + 100]);
  });
});

describe('a question to a data plane', () => {
  const ask = (bed: Harness, nodeId = 'n1') =>
    bed.dispatcher.endpoints.ask(asId(nodeId), { difference: {} }).then(
      ({ operations }) => `answer ${operations?.join()}`,
      (error: Error) => error.message,
    );
  const questionsOf = ({ sink }: { sink: TestSink<EndpointsUpdate> }) =>
    sink.messages.flatMap(({ question }) => question ?? []);

  it('is answered, in whatever order, by the node that was asked and no other', async () => {
    const bed = new Harness();
    const [one, two] = [await bed.watcher('n1'), await bed.watcher('n2')];
    const answers = [ask(bed), ask(bed)];
    const [first, second] = questionsOf(one);
    assert.notEqual(first?.id, second?.id);
    two.handle.report({ answer: { question_id: first?.id, operations: ['forged'] } });
    one.handle.report({ answer: { question_id: second?.id, operations: ['2'] } });
    one.handle.report({ answer: { question_id: first?.id, operations: ['1'] } });
    one.handle.report({ answer: { question_id: first?.id, operations: ['again'] } });
    assert.deepEqual(await Promise.all(answers), ['answer 1', 'answer 2']);
  });

  it('ends in words when the node fails, says nothing, goes or never listened', async () => {
    const bed = new Harness(3);
    const one = await bed.watcher('n1');
    assert.match(await ask(bed, 'n2'), /^node h2 can't be asked: its agent does not listen/);
    bed.commit({
      op: 'merge',
      kind: 'node',
      id: asId('n3'),
      fields: { Status: { State: 'down', Addr: '' } },
    });
    assert.match(await ask(bed, 'n3'), /^node h3 can't be asked: it is down/);
    const failing = ask(bed);
    one.handle.report({ answer: { question_id: questionsOf(one)[0]?.id, error: 'nft: broken' } });
    assert.equal(await failing, 'node h1: nft: broken');
    const silent = ask(bed);
    await bed.pass(questionTimeoutMs);
    assert.match(await silent, /^node h1: the node did not answer within 8 s/);
    const leaving = ask(bed);
    one.handle.close();
    assert.match(await leaving, /^node h1: the node’s connection ended/);
  });

  it('is refused when too many wait', async () => {
    const bed = new Harness();
    const one = await bed.watcher('n1');
    const all = Array.from({ length: maxQuestionsOfNode + 1 }, () => ask(bed));
    assert.match((await all.at(-1))!, /16 questions wait/);
    one.handle.close();
    await Promise.all(all);
  });
});

describe('what a data plane can’t do', () => {
  const problem = { message: 'port 80/tcp is held by another program', service_id: 'service1' };
  const told = { revision: '1', problems_known: true, problems: [problem] };
  const wordsOf = (bed: Harness) => (bed.node('n1').Problems ?? []).map(({ Message }) => Message);

  it('is kept with its node until it ends, through an agent’s and a leader’s next life', async () => {
    const bed = new Harness();
    const { handle } = await bed.watcher('n1');
    handle.report(told);
    await settle();
    assert.deepEqual(wordsOf(bed), [problem.message]);
    bed.changeLeader();
    const next = await bed.watcher('n1');
    // It has not looked at its kernel yet.
    next.handle.report({ revision: '1' });
    await bed.pass(problemsGapMs);
    assert.deepEqual(wordsOf(bed), [problem.message]);
    next.handle.report({ ...told, problems: [] });
    await bed.pass(problemsGapMs);
    assert.deepEqual(wordsOf(bed), []);
  });

  it('is none of a node that came back without a data plane', async () => {
    const bed = new Harness();
    const { handle } = await bed.watcher('n1');
    handle.report(told);
    await bed.pass(problemsGapMs);
    await bed.agent('n1');
    assert.deepEqual(wordsOf(bed), [problem.message]);
    await bed.agent('n1', { [engineIdLabel]: 'engine' });
    assert.deepEqual(wordsOf(bed), []);
  });
});

describe('an endpoint’s withdrawal', () => {
  it('ends when the last node confirmed, and what is under way has had its moment; then the agent hears of it', async () => {
    const bed = new Harness();
    const agent = await bed.agent('n1');
    const [one, two] = [await bed.watcher('n1'), await bed.watcher('n2')];
    await bed.stopTask('t1');
    assert.deepEqual(agent.told(), ['t1 RUNNING']);
    await one.confirm();
    assert.ok(bed.isWithheld('t1'));
    two.handle.report({ revision: two.sink.messages.at(-1)?.revision ?? '' });
    await bed.pass(settleMs - 1);
    assert.ok(bed.isWithheld('t1'));
    await bed.pass(1);
    assert.deepEqual(agent.told(), ['t1 RUNNING', 't1 SHUTDOWN']);
  });

  it('is not confirmed by a word on an older state', async () => {
    const bed = new Harness();
    const watchers = [await bed.watcher('n1'), await bed.watcher('n2')];
    const before = watchers.map(({ sink }) => sink.messages.at(-1));
    await bed.stopTask('t1');
    for (const [index, watcher] of watchers.entries()) await watcher.confirm(before[index]);
    assert.ok(bed.isWithheld('t1'));
    for (const watcher of watchers) await watcher.confirm();
    assert.ok(!bed.isWithheld('t1'));
  });

  it('is bounded: a node that says nothing is waited for so long and no longer', async () => {
    // A node that is not lost, or that would end the wait.
    const { clock } = new TestBed();
    const withdrawn: string[] = [];
    const onWithdrawn = ({ ID }: Task) => withdrawn.push(ID);
    const withdrawals = new Withdrawals({ clock, log: silentLog, onWithdrawn });
    const [one, two] = [asId<NodeId>('n1'), asId<NodeId>('n2')];
    withdrawals.begin(overlayTask('t1', 'n1', '10.1.0.11'), [one, two]);
    for (const node of [one, two]) withdrawals.told(node, 7, () => true);
    withdrawals.confirmed(one, 7);
    await clock.run(withdrawalTimeoutMs - 1);
    assert.deepEqual([withdrawn, withdrawals.isWithheld(asId('t1'))], [[], true]);
    await clock.run(1);
    assert.deepEqual([withdrawn, withdrawals.isWithheld(asId('t1'))], [['t1'], false]);
  });

  it('waits for a node whose watch broke, which goes on as it was told, until it came back and confirmed', async () => {
    const bed = new Harness();
    const [one, two] = [await bed.watcher('n1'), await bed.watcher('n2')];
    await bed.stopTask('t1');
    await one.confirm();
    two.handle.close();
    await bed.pass(settleMs);
    assert.ok(bed.isWithheld('t1'));
    const again = await bed.watcher('n2');
    assert.deepEqual(endpointsOf(again.sink.messages[0]), ['t1 draining', 't2']);
    await again.confirm();
    assert.ok(!bed.isWithheld('t1'));
  });

  it('does not wait for a node that is lost or removed', async () => {
    for (const how of ['down', 'removed'] as const) {
      const bed = new Harness(3);
      const watchers = [await bed.watcher('n1'), await bed.watcher('n2'), await bed.watcher('n3')];
      await bed.stopTask('t1');
      await watchers[0]?.confirm();
      await watchers[1]?.confirm();
      assert.ok(bed.isWithheld('t1'));
      if (how === 'removed') bed.commit({ op: 'remove', kind: 'node', id: asId('n3') });
      else {
        const { Status } = bed.node('n3');
        bed.commit({
          op: 'merge',
          kind: 'node',
          id: asId('n3'),
          fields: { Status: { ...Status, State: 'down' } },
        });
      }
      await bed.pass(settleMs);
      assert.ok(!bed.isWithheld('t1'), how);
    }
  });

  it('is begun anew by a new leader, which tells the agent until then that the task runs on', async () => {
    const bed = new Harness();
    await bed.watcher('n1');
    await bed.watcher('n2');
    await bed.stopTask('t1');
    bed.changeLeader();
    const agent = await bed.agent('n1');
    assert.deepEqual(agent.told(), ['t1 RUNNING']);
    const [one, two] = [await bed.watcher('n1'), await bed.watcher('n2')];
    await one.confirm();
    assert.deepEqual(agent.told(), ['t1 RUNNING']);
    await two.confirm();
    assert.deepEqual(agent.told(), ['t1 RUNNING', 't1 SHUTDOWN']);
  });

  it('by a new leader is bounded, too', async () => {
    const bed = new Harness();
    await bed.stopTask('t1');
    bed.changeLeader();
    assert.ok(bed.isWithheld('t1'));
    // Nodes that do not find the new leader are lost for it.
    await bed.pass(10_000);
    assert.ok(!bed.isWithheld('t1'));
  });

  it('is none for a task that nobody reaches', async () => {
    const bed = new Harness();
    const starting = { ...overlayTask('t9', 'n1', '10.1.0.19'), Status: { ...bed.task('t1').Status } };
    bed.commit({
      op: 'create',
      kind: 'task',
      object: { ...starting, Status: { ...starting.Status, State: 'starting' } },
    });
    await bed.stopTask('t9');
    assert.ok(!bed.isWithheld('t9'));
  });
});
