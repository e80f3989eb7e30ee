/** The history that tasks keep, and the reason why each is where it is. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Store } from '../../../manager/store/store.ts';
import { explainUpdate } from '../../../manager/store/update-progress.ts';
import { explain, problemsWith, reasonOf, reasonToTell } from '../../../manager/store/why.ts';
import type { NodeProblem, Task } from '../../../proto/docker.ts';
import { compareTaskStates, isTerminal, taskStates } from '../../../proto/task-state.ts';
import { makeSpec } from '../orchestrator/objects.ts';
import { World } from '../orchestrator/world.ts';

const texts = (task: Task) => (task.Private.History ?? []).map((moment) => moment.Text ?? '');

describe('manager/store/why', () => {
  it('a task keeps what happened to it, with reasons, through snapshots', () => {
    const world = new World(2).createService('s', makeSpec()).run();
    const [first] = world.active('s');
    world.setNode(first!.NodeID!, { Status: { State: 'down' } }).settle();
    const lost = world.task(first!.ID);
    assert.deepEqual(
      (lost.Private.History ?? []).map((moment) => moment.State),
      ['pending', 'assigned', 'running', 'running'],
    );
    assert.match(texts(lost).at(-1)!, /node n\d is down/);
    const [next] = world.active('s');
    assert.match(texts(next!)[0]!, /pending task scheduling: node n\d is down/);
    const copy = new Store();
    copy.restore(7, world.store.snapshot());
    assert.deepEqual(copy.get('task', first!.ID)?.Private.History, lost.Private.History);
  });

  it('the history is bounded, and keeps how it began', () => {
    const world = new World(1).createService('s', makeSpec()).settle();
    const [task] = world.active('s');
    for (let at = 0; at < 60; at += 1) {
      const Status = { ...task!.Status, Err: `reason ${at}` };
      world.apply([{ op: 'merge', kind: 'task', id: task!.ID, fields: { Status } }]);
    }
    const kept = texts(world.task(task!.ID));
    assert.equal(kept.length, 24);
    assert.equal(kept[0], 'pending task scheduling');
    assert.equal(kept.at(-1), 'reason 59');
  });

  it('every state that a task may stay in has its reason', () => {
    const world = new World(1).createService('s', makeSpec()).settle();
    const reason = (id: string) => reasonOf(world.store, world.task(id), world.now);
    const [task] = world.active('s');
    const { ID } = task!;
    assert.match(reason(ID), /waiting for the scheduler/);
    world.schedule();
    assert.match(reason(ID), /waiting for node n1 to take the task since/);
    const report = (State: Task['Status']['State'], Message: string) => {
      const Status = { ...world.task(ID).Status, State, Message };
      world.apply([{ op: 'merge', kind: 'task', id: ID, fields: { Status } }]);
    };
    report('preparing', 'pulling image web:1');
    assert.match(reason(ID), /^pulling image web:1 since 2026/);
    report('ready', 'prepared');
    assert.match(reason(ID), /waiting for node n1 to start it/);
    report('starting', 'waiting for the health check to pass (last output: no)');
    assert.match(reason(ID), /health check to pass \(last output: no\)/);
    report('running', 'started');
    assert.equal(reason(ID), '');
    world.setNode('n1', { Status: { State: 'unknown' } });
    assert.match(reason(ID), /waiting for node n1 to answer: it is unknown/);
    world.setNode('n1', { Status: { State: 'ready' } });
    world.report(ID, 'failed').settle();
    const next = world.active('s')[0]!;
    assert.match(reason(next.ID), /waiting for its restart delay until 2026/);
    assert.match(reasonToTell(world.store, next, world.now), /restart delay/);
    world.pass(6_000).schedule().report(next.ID, 'running').scale('s', 0).settle();
    assert.match(reason(next.ID), /^stopping \(scaled down\): .*stop grace period of 10 s since/);
  });

  it('whatever is stored, what is neither well nor over has words of its own; a step says whose turn it is', () => {
    const world = new World(1).createService('s', makeSpec()).settle().schedule();
    const first = world.active('s')[0]!;
    const states = fc.constantFrom(...taskStates);
    const stepWords = [...taskStates, 'prepared', 'started', ''];
    const words = fc.constantFrom(
      ...stepWords,
      'pulling image web:1',
      'waiting for the health check to pass',
    );
    const wishes = fc.constantFrom('ready', 'running', 'complete', 'shutdown', 'remove');
    const nodeStates = fc.constantFrom('ready', 'ready', 'down', 'unknown');
    fc.assert(
      fc.property(states, wishes, words, fc.boolean(), nodeStates, (State, wish, Message, fails, node) => {
        world.setNode('n1', { Status: { State: node } });
        const Status = { ...first.Status, State, Message, ...(fails ? { Err: 'the reason' } : {}) };
        const task: Task = { ...first, DesiredState: wish, Status };
        const reason = explain(world.store, task, world.now);
        const goesWell =
          State === 'running' && (wish === 'running' || wish === 'complete' || wish === 'ready');
        const endsWell = ['complete', 'shutdown', 'remove'].includes(State);
        const isHeard = node === 'ready' || isTerminal(State) || compareTaskStates(State, 'assigned') < 0;
        assert.equal(reason.kind === 'none', !fails && isHeard && (goesWell || endsWell));
        assert.equal(reasonOf(world.store, task, world.now) === '', reason.kind === 'none');
        if (reason.kind === 'none') return;
        assert.ok(!stepWords.includes(reason.text), `only ${reason.text}`);
        if (fails && isHeard) assert.equal(reason.kind, 'cause');
        if (reason.kind !== 'step') return;
        assert.ok(
          stepWords.includes(Message) ||
            compareTaskStates(State, 'preparing') < 0 ||
            State === 'ready' ||
            isTerminal(State),
        );
        const isManagers =
          compareTaskStates(State, 'assigned') < 0 || (State === 'ready' && wish === 'ready');
        assert.equal(reason.by, isManagers ? 'managers' : 'node');
        assert.match(reason.text, reason.by === 'node' ? /node/ : /scheduler|managers|address/);
      }),
      { numRuns: 2_000 },
    );
  });

  it('a task that waits its turn is told so, not that its node is to start it', () => {
    const world = new World(1).createService('s', makeSpec()).settle().schedule();
    const first = world.active('s')[0]!;
    const Status = { ...first.Status, State: 'ready' as const, Message: 'prepared' };
    const held: Task = { ...first, DesiredState: 'ready', Status };
    assert.deepEqual(explain(world.store, held, world.now), {
      kind: 'step',
      by: 'managers',
      text: 'waiting for the managers to let it start',
    });
    const delayed: Task = { ...held, Private: { ...held.Private, StartAt: world.now + 5_000 } };
    assert.equal(explain(world.store, delayed, world.now).kind, 'cause');
    assert.match(
      reasonOf(world.store, { ...held, DesiredState: 'running' }, world.now),
      /node n1 to start it/,
    );
  });

  it('an update that waits says for what: a task, its delay, its monitoring period', () => {
    const second = 1e9;
    const UpdateConfig = { Parallelism: 1, Delay: 10 * second, Monitor: 5 * second };
    const world = new World(2)
      .createService('s', makeSpec({ Mode: { Replicated: { Replicas: 2 } }, UpdateConfig }))
      .run();
    const told = () => explainUpdate(world.store, world.service('s'), world.now);
    assert.deepEqual(told(), { kind: 'none' });
    world
      .updateService('s', (spec) => ({ ...spec, TaskTemplate: { ContainerSpec: { Image: 'web:2' } } }))
      .settle();
    const next = world.active('s').find((task) => task.Private.Cause === 'update')!;
    const text = () => {
      const reason = told();
      assert.equal(reason.kind, 'cause');
      return reason.kind === 'cause' ? reason.text : '';
    };
    assert.ok(text().startsWith('1 of 2 tasks are of the revision that is rolled out'), text());
    assert.ok(text().includes(`task ${next.ID}: waiting for `), text());
    world.run();
    const at = (afterMs: number) => new Date(world.now + afterMs).toISOString();
    assert.ok(text().endsWith(`the next after the update's delay, at ${at(10_000)}`), text());
    world.pass(10_000).run();
    assert.equal(
      text(),
      `2 of 2 tasks are of the revision that is rolled out; watched for failures until ${at(5_000)}`,
    );
    // The managers' turn: nothing is waited for any more.
    assert.equal(explainUpdate(world.store, world.service('s'), world.now + 5_000).kind, 'step');
    world.pass(5_000).run();
    assert.deepEqual(told(), { kind: 'none' });
  });

  it('a running task tells what its node can’t do for its service, and a service what any node can’t', () => {
    const world = new World(3)
      .createService('s', makeSpec())
      .createService('other', makeSpec({ Name: 'other' }))
      .run();
    const [task] = world.active('s');
    const service = world.store.get('service', task!.ServiceID)!;
    const Since = new Date(world.now).toISOString();
    const problem = { Message: 'port 80/tcp is held', ServiceID: service.ID, Since };
    const tell = (Problems: NodeProblem[]) => {
      for (const { ID: id } of world.store.list('node')) {
        world.apply([{ op: 'merge', kind: 'node', id, fields: { Problems } }]);
      }
    };
    tell([problem]);
    const reasons = (name: string) =>
      world.active(name).map((one) => reasonToTell(world.store, one, world.now));
    assert.deepEqual(reasons('s'), ['port 80/tcp is held']);
    assert.deepEqual(reasons('other'), ['']);
    assert.deepEqual(problemsWith(world.store, service), [
      'on node n1, port 80/tcp is held',
      'on node n2, port 80/tcp is held',
      'on node n3, port 80/tcp is held',
    ]);
    world.setNode('n3', { Status: { State: 'down' } });
    assert.equal(problemsWith(world.store, service).length, 2);
    tell([]);
    assert.deepEqual([reasons('s'), problemsWith(world.store, service)], [[''], []]);
  });

  it('a list leaves out what is a step just being taken', () => {
    const world = new World(1).createService('s', makeSpec()).settle().schedule();
    const task = world.active('s')[0]!;
    assert.equal(reasonToTell(world.store, task, world.now), '');
    assert.match(reasonToTell(world.store, task, world.now + 2_000), /waiting for node n1/);
  });
});
