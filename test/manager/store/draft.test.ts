/** What an entry is refused for, and what of it does nothing, the same on every manager. */
import assert from 'node:assert/strict';
import { type Change, encodeEntry } from '../../../manager/store/change.ts';
import { Store } from '../../../manager/store/store.ts';
import type { Task } from '../../../proto/docker.ts';
import type { NodeId, TaskId } from '../../../proto/ids.ts';
import { makeNode, makeService, makeSpec, makeTask } from '../orchestrator/objects.ts';

const now = Date.UTC(2026, 10, 22);

describe('manager/store: an entry', () => {
  let store: Store;
  beforeEach(() => {
    store = new Store();
  });

  const apply = (...changes: Change[]) => store.apply(store.index + 1, encodeEntry({ now, changes }));
  const taskAt = (id: string, address: string): Change => {
    const task = makeTask(id, 's');
    const NetworksAttachments = [{ NetworkID: 'net' as never, Addresses: [address] }];
    return { op: 'create', kind: 'task', object: { ...task, NetworksAttachments } };
  };
  const serviceOn = (id: string, PublishedPort: number): Change => {
    const ports = [
      { Protocol: 'tcp' as const, TargetPort: 80, PublishedPort, PublishMode: 'ingress' as const },
    ];
    const service = makeService(id, makeSpec({ Name: id }));
    const Spec = { ...service.Spec, EndpointSpec: { Mode: 'vip' as const, Ports: ports } };
    return {
      op: 'create',
      kind: 'service',
      object: { ...service, Spec, Endpoint: { ...service.Endpoint, Ports: ports } },
    };
  };
  const isTaken = (result: ReturnType<typeof apply>, code: string, words: RegExp) => {
    assert.ok(!result.ok && result.code === code, JSON.stringify(result));
    assert.match(result.message, words);
  };

  it('does not give away an address: it is one task’s until it ends, whether the two are of one entry or of several', () => {
    assert.deepEqual(apply(taskAt('t1', '10.0.0.5/24')), { ok: true });
    isTaken(apply(taskAt('t2', '10.0.0.5/24')), 'taken', /address 10\.0\.0\.5 of network net .* task/);
    isTaken(apply(taskAt('t3', '10.0.0.6/24'), taskAt('t4', '10.0.0.6/24')), 'taken', /10\.0\.0\.6/);
    assert.equal(store.get('task', 't3' as TaskId), undefined, 'nothing of a refused entry is stored');
    const { Status } = store.get('task', 't1' as TaskId)!;
    const fields = { Status: { ...Status, State: 'complete' as const } };
    const ended: Change = { op: 'merge', kind: 'task', id: 't1' as TaskId, fields };
    assert.deepEqual(apply(ended, taskAt('t2', '10.0.0.5/24')), { ok: true });
    isTaken(apply(taskAt('t5', '10.0.0.5/24')), 'taken', /address 10\.0\.0\.5/);
  });

  it('takes nothing from who has it by what it makes and removes again', () => {
    apply(taskAt('t1', '10.0.0.5/24'));
    const passing: Change = { op: 'remove', kind: 'task', id: 't2' as TaskId };
    assert.deepEqual(apply(taskAt('t2', '10.0.0.5/24'), passing), { ok: true });
    const other = new Store();
    other.restore(store.index, store.snapshot());
    for (const one of [store, other]) {
      store = one;
      isTaken(apply(taskAt('t3', '10.0.0.5/24')), 'taken', /given to task t1/);
    }
  });

  it('does not give it away where a snapshot was gone on from, either', () => {
    apply(taskAt('t1', '10.0.0.5/24'));
    const other = new Store();
    other.restore(store.index, store.snapshot());
    store = other;
    isTaken(apply(taskAt('t2', '10.0.0.5/24')), 'taken', /address 10\.0\.0\.5/);
  });

  it('is refused by name for a port that was asked for', () => {
    assert.deepEqual(apply(serviceOn('web', 8080)), { ok: true });
    isTaken(
      apply(serviceOn('api', 8080)),
      'invalid-argument',
      /port '8080' is already in use by service 'web'/,
    );
    assert.deepEqual(apply(serviceOn('api', 8081)), { ok: true });
  });

  it('changes an object on behalf of a task only while that serves', () => {
    const wanted = (change: Partial<Task>, node: 'ready' | 'down') => {
      store = new Store();
      apply({ op: 'create', kind: 'node', object: makeNode('n', { Status: { State: node } }) });
      apply({ op: 'create', kind: 'task', object: makeTask('old', 's', { NodeID: 'n' as NodeId }) });
      apply({ op: 'create', kind: 'task', object: makeTask('new', 's', { NodeID: 'n' as NodeId }) });
      apply({ op: 'merge', kind: 'task', id: 'new' as TaskId, fields: change });
      const id = 'old' as TaskId;
      const fields = { DesiredState: 'shutdown' as const };
      const stop: Change = { op: 'merge', kind: 'task', id, fields, whileServes: 'new' as TaskId };
      assert.deepEqual(apply(stop), { ok: true });
      return store.get('task', id)!.DesiredState;
    };
    const failed = { Status: { Timestamp: '', State: 'failed' as const, Message: '' } };
    assert.equal(wanted({}, 'ready'), 'shutdown');
    assert.equal(wanted(failed, 'ready'), 'running', 'it failed meanwhile');
    assert.equal(wanted({ DesiredState: 'shutdown' }, 'ready'), 'running', 'it is to end');
    assert.equal(wanted({}, 'down'), 'running', 'its node is lost');
  });
});
