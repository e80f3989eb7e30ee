import assert from 'node:assert/strict';
import fc from 'fast-check';
import { AssignmentSet } from '../../../manager/dispatcher/assignments.ts';
import type { AssignmentsMessage__Output } from '../../../proto/generated/docker/swarmkit/v1/AssignmentsMessage.ts';
import { asId, type NodeId, type TaskId } from '../../../proto/ids.ts';
import type { TaskState } from '../../../proto/task-state.ts';
import { makeCluster, makeRevision, makeSecret, makeTask, TestBed } from './cluster.ts';

const nodeId = asId<NodeId>('node1');

/** What a message does, in short: `+task a`, `-secret s`. */
function says(message: AssignmentsMessage__Output | undefined): string[] {
  return (message?.changes ?? []).map((change) => {
    const item = change.assignment!;
    const kind = item.item!;
    return `${change.action === 'REMOVE' ? '-' : '+'}${kind} ${item[kind]?.id}`;
  });
}

function bedWithSecret(): TestBed {
  const bed = new TestBed();
  const secrets = [{ SecretID: asId<never>('s1'), SecretName: 'key' }];
  bed.commit(
    { op: 'create', kind: 'cluster', object: makeCluster() },
    { op: 'create', kind: 'secret', object: makeSecret('s1', 'hush') },
    {
      op: 'create',
      kind: 'revision',
      object: makeRevision('revision1', { ContainerSpec: { Image: 'a', Secrets: secrets } }),
    },
  );
  return bed;
}

function setState(bed: TestBed, id: string, state: TaskState): void {
  const status = { ...bed.task(id).Status, State: state };
  bed.commit({ op: 'merge', kind: 'task', id: asId(id), fields: { Status: status } });
}

describe('dispatcher/assignments', () => {
  it('tells everything first, secrets before the tasks that use them', () => {
    const bed = bedWithSecret();
    bed.commit(
      { op: 'create', kind: 'task', object: makeTask('a', 'node1', 'running') },
      { op: 'create', kind: 'task', object: makeTask('b', 'node1') },
      { op: 'create', kind: 'task', object: makeTask('c', 'node2') },
      { op: 'create', kind: 'task', object: makeTask('d', 'node1', 'pending') },
    );
    const message = new AssignmentSet(nodeId).complete(bed.store);
    assert.deepEqual(says(message), ['+secret s1', '+task a', '+task b']);
    assert.deepEqual([message.type, message.results_in], ['COMPLETE', '1']);
    assert.equal(message.changes?.[0]?.assignment?.secret?.spec?.data?.toString(), 'hush');
    assert.equal(message.changes?.[1]?.assignment?.task?.status?.state, 'RUNNING', 'the last known status');
  });

  it('takes back the version of a secret that a task no longer uses', () => {
    const bed = bedWithSecret();
    bed.commit({ op: 'create', kind: 'task', object: makeTask('a', 'node1', 'running') });
    const set = new AssignmentSet(nodeId);
    set.complete(bed.store);
    const Secrets = [{ SecretID: asId<never>('s2'), SecretName: 'key' }];
    const next = makeRevision('revision2', { ContainerSpec: { Image: 'a', Secrets } });
    bed.commit(
      { op: 'create', kind: 'secret', object: makeSecret('s2', 'louder') },
      { op: 'create', kind: 'revision', object: next },
      { op: 'merge', kind: 'task', id: asId('a'), fields: { RevisionID: next.ID } },
    );
    assert.deepEqual(says(set.incremental(bed.store, [asId<TaskId>('a')])), [
      '+secret s2',
      '+task a',
      '-secret s1',
    ]);
  });

  it('then only what changed, each message after the last', () => {
    const bed = bedWithSecret();
    const set = new AssignmentSet(nodeId);
    assert.deepEqual(says(set.complete(bed.store)), []);
    bed.commit({ op: 'create', kind: 'task', object: makeTask('a', 'node1') });
    const first = set.incremental(bed.store, [asId<TaskId>('a')]);
    assert.deepEqual(says(first), ['+secret s1', '+task a']);
    assert.deepEqual([first?.type, first?.applies_to, first?.results_in], ['INCREMENTAL', '1', '2']);

    setState(bed, 'a', 'running');
    assert.equal(set.incremental(bed.store, [asId<TaskId>('a')]), undefined, 'its own report is no news');

    bed.commit({ op: 'merge', kind: 'task', id: asId('a'), fields: { DesiredState: 'shutdown' } });
    const second = set.incremental(bed.store, [asId<TaskId>('a')]);
    assert.deepEqual(says(second), ['+task a']);
    assert.deepEqual([second?.applies_to, second?.results_in], ['2', '3']);

    setState(bed, 'a', 'shutdown');
    assert.deepEqual(says(set.incremental(bed.store, [asId<TaskId>('a')])), ['-secret s1']);
    bed.commit({ op: 'remove', kind: 'task', id: asId('a') });
    assert.deepEqual(says(set.incremental(bed.store, [asId<TaskId>('a')])), ['-task a']);
  });

  it('keeps a secret while one task uses it, even when its last user is replaced in the same message', () => {
    const bed = bedWithSecret();
    const set = new AssignmentSet(nodeId);
    bed.commit({ op: 'create', kind: 'task', object: makeTask('a', 'node1') });
    set.complete(bed.store);
    setState(bed, 'a', 'failed');
    bed.commit({ op: 'create', kind: 'task', object: makeTask('b', 'node1') });
    const message = set.incremental(bed.store, [asId<TaskId>('a'), asId<TaskId>('b')]);
    assert.deepEqual(
      says(message).filter((line) => line.startsWith('-')),
      [],
    );
    assert.ok(says(message).includes('+task b'));
  });

  it('an orphaned task is taken away', () => {
    const bed = bedWithSecret();
    const set = new AssignmentSet(nodeId);
    bed.commit({ op: 'create', kind: 'task', object: makeTask('a', 'node1', 'running') });
    set.complete(bed.store);
    setState(bed, 'a', 'orphaned');
    assert.deepEqual(says(set.incremental(bed.store, [asId<TaskId>('a')])), ['-task a', '-secret s1']);
  });

  it('property: a worker that follows the messages has what a fresh COMPLETE would give it', () => {
    const step = fc.record({
      id: fc.constantFrom('a', 'b', 'c'),
      act: fc.constantFrom<'create' | 'remove' | 'stop' | TaskState>(
        'create',
        'remove',
        'stop',
        'running',
        'failed',
        'shutdown',
      ),
      flush: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const bed = bedWithSecret();
        const set = new AssignmentSet(nodeId);
        const held = new Map<string, unknown>();
        const dirty = new Set<TaskId>();
        follow(held, set.complete(bed.store));
        for (const { id, act, flush } of [...steps, { id: 'a', act: 'remove' as const, flush: true }]) {
          const exists = bed.store.get('task', asId(id)) !== undefined;
          if (act === 'create') {
            if (!exists) bed.commit({ op: 'create', kind: 'task', object: makeTask(id, 'node1') });
          } else if (act === 'remove') bed.commit({ op: 'remove', kind: 'task', id: asId(id) });
          else if (act === 'stop') {
            bed.commit({ op: 'merge', kind: 'task', id: asId(id), fields: { DesiredState: 'shutdown' } });
          } else if (exists) setState(bed, id, act);
          dirty.add(asId(id));
          if (!flush) continue;
          const message = set.incremental(bed.store, dirty);
          dirty.clear();
          if (message) follow(held, message);
          const fresh = new Map<string, unknown>();
          follow(fresh, new AssignmentSet(nodeId).complete(bed.store));
          assert.deepEqual([...held].sort(), [...fresh].sort());
        }
      }),
      { numRuns: 300 },
    );
  });
});

/** A worker's bookkeeping: what it holds, with each task's desired state. */
function follow(held: Map<string, unknown>, message: AssignmentsMessage__Output): void {
  if (message.type === 'COMPLETE') held.clear();
  for (const change of message.changes ?? []) {
    const item = change.assignment!;
    const key = `${item.item} ${item[item.item!]?.id}`;
    if (change.action === 'REMOVE') assert.ok(held.delete(key), `${key} is removed but was never given`);
    else held.set(key, item.task?.desired_state);
  }
}
