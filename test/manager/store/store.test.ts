import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Packr, pack } from 'msgpackr';
import { type Change, decodeEntry, encodeEntry, mayBecomeDesired } from '../../../manager/store/change.ts';
import { Store } from '../../../manager/store/store.ts';
import { type AnyObject, type Kind, kinds, tables } from '../../../manager/store/tables.ts';
import type { Commit } from '../../../manager/store/watch.ts';
import type { Secret, Task } from '../../../proto/docker.ts';
import { isShoalError } from '../../../proto/errors.ts';
import type { NodeId, SecretId, ServiceId, TaskId } from '../../../proto/ids.ts';
import { type DesiredState, type TaskState, taskStates } from '../../../proto/task-state.ts';
import {
  makeCluster,
  makeNode,
  makeRevision,
  makeService,
  makeSpec,
  makeTask,
} from '../orchestrator/objects.ts';

const now = Date.UTC(2026, 5, 1);

function secret(id: string, name = id, index = 0): Secret {
  return {
    ID: id as SecretId,
    Version: { Index: index },
    CreatedAt: '',
    UpdatedAt: '',
    Spec: { Name: name, Labels: {} },
  };
}

function apply(store: Store, changes: readonly Change[], at = now): ReturnType<Store['apply']> {
  return store.apply(store.index + 1, encodeEntry({ now: at, changes }));
}

function create(store: Store, kind: Kind, object: AnyObject, at = now): void {
  assert.deepEqual(apply(store, [{ op: 'create', kind, object } as Change], at), { ok: true });
}

function merge(store: Store, id: string, fields: Partial<Task>, at = now): void {
  assert.deepEqual(apply(store, [{ op: 'merge', kind: 'task', id: id as TaskId, fields }], at), { ok: true });
}

function indexesOf(kind: Kind): [string, (object: AnyObject) => readonly string[]][] {
  return Object.entries(tables[kind].indexes).map(([name, { keysOf }]) => [name, keysOf as never]);
}

/** Everything that can be read of a store: tables in order, and indexes. */
function contents(store: Store): unknown {
  return kinds.map((kind) => {
    const list = store.list(kind) as AnyObject[];
    const indexes = indexesOf(kind);
    return {
      kind,
      list,
      found: indexes.map(([name, keysOf]) =>
        [...new Set(list.flatMap((object) => keysOf(object)))].map((key) => [
          name,
          key,
          store.find(kind, name, key),
        ]),
      ),
    };
  });
}

/** Compares every index with a look at every object. */
function checkIndexes(store: Store): void {
  const unordered = (objects: readonly AnyObject[]) => objects.map((object) => object.ID as string).sort();
  for (const kind of kinds) {
    const list = store.list(kind) as AnyObject[];
    assert.equal(store.count(kind), list.length);
    for (const object of list) assert.equal(store.get(kind, object.ID as never), object);
    for (const [name, keysOf] of indexesOf(kind)) {
      const keys = new Set([...list.flatMap((object) => keysOf(object)), ...possibleKeys]);
      for (const key of keys) {
        const expected = list.filter((object) => keysOf(object).includes(key));
        const found = store.find(kind, name, key) as AnyObject[];
        assert.deepEqual(unordered(found), unordered(expected), `${kind} by ${name} ${key}`);
        for (const object of found) assert.equal(object, store.get(kind, object.ID as never));
      }
    }
  }
}

const ids = ['a', 'b', 'c', 'd'] as const;
const possibleKeys = [...ids, 'a/1', 'a/2', 'a@a', 'running', 'shutdown', 'ready', 'pending', 'failed'];

const id = fc.constantFrom(...ids);
const change: fc.Arbitrary<Change> = fc.oneof(
  fc
    .tuple(id, id)
    .map(([one, name]): Change => ({ op: 'create', kind: 'secret', object: secret(one, name) })),
  fc
    .tuple(id, id, fc.nat(12))
    .map(
      ([one, name, index]): Change => ({ op: 'update', kind: 'secret', object: secret(one, name, index) }),
    ),
  fc.tuple(id, id).map(
    ([one, name]): Change => ({
      op: 'merge',
      kind: 'secret',
      id: one as SecretId,
      fields: { Spec: { Name: name, Labels: {} } },
    }),
  ),
  id.map((one): Change => ({ op: 'remove', kind: 'secret', id: one as SecretId })),
  fc.tuple(id, id, fc.option(fc.integer({ min: 1, max: 2 }), { nil: undefined })).map(
    ([one, service, slot]): Change => ({
      op: 'create',
      kind: 'task',
      object: makeTask(one, service, {
        Status: { State: 'pending' },
        ...(slot === undefined ? { NodeID: one as NodeId } : { Slot: slot }),
      }),
    }),
  ),
  fc
    .tuple(
      id,
      fc.constantFrom(...taskStates),
      fc.constantFrom<DesiredState[]>('ready', 'running', 'shutdown'),
      id,
    )
    .map(
      ([one, State, DesiredState, node]): Change => ({
        op: 'merge',
        kind: 'task',
        id: one as TaskId,
        fields: { Status: { Timestamp: '', State, Message: '' }, DesiredState, NodeID: node as NodeId },
      }),
    ),
  id.map((one): Change => ({ op: 'remove', kind: 'task', id: one as TaskId })),
);
const entries = fc.array(fc.array(change, { minLength: 1, maxLength: 5 }), { maxLength: 40 });

describe('manager/store', () => {
  it('creates with the index and time of the entry', () => {
    const store = new Store();
    create(store, 'secret', secret('a'));
    const stored = store.get('secret', 'a' as SecretId);
    assert.deepEqual(stored?.Version, { Index: 1 });
    assert.equal(stored?.CreatedAt, '2026-06-01T00:00:00.000Z');
    assert.equal(stored?.UpdatedAt, stored?.CreatedAt);
  });

  it('refuses an id or a name that is taken, with words', () => {
    const store = new Store();
    create(store, 'secret', secret('a', 'one'));
    const sameId = apply(store, [{ op: 'create', kind: 'secret', object: secret('a', 'two') }]);
    assert.deepEqual(sameId, { ok: false, code: 'already-exists', message: 'secret a already exists' });
    const sameName = apply(store, [{ op: 'create', kind: 'secret', object: secret('b', 'one') }]);
    assert.ok(!sameName.ok && sameName.code === 'already-exists');
    assert.match(sameName.message, /^name conflicts with an existing object: secret one/);
  });

  it('lets a name be taken again in the entry that frees it, and not twice in one entry', () => {
    const store = new Store();
    create(store, 'secret', secret('a', 'one'));
    const swapped = apply(store, [
      { op: 'remove', kind: 'secret', id: 'a' as SecretId },
      { op: 'create', kind: 'secret', object: secret('b', 'one') },
    ]);
    assert.ok(swapped.ok);
    const renamed = apply(store, [
      { op: 'update', kind: 'secret', object: secret('b', 'two', 2) },
      { op: 'create', kind: 'secret', object: secret('c', 'one') },
    ]);
    assert.ok(renamed.ok);
    const twice = apply(store, [
      { op: 'create', kind: 'secret', object: secret('d', 'three') },
      { op: 'create', kind: 'secret', object: secret('e', 'three') },
    ]);
    assert.ok(!twice.ok && twice.code === 'already-exists');
  });

  it('updates only the version that the writer saw', () => {
    const store = new Store();
    create(store, 'secret', secret('a'));
    assert.ok(apply(store, [{ op: 'update', kind: 'secret', object: secret('a', 'b', 1) }], now + 1_000).ok);
    const stored = store.get('secret', 'a' as SecretId);
    assert.equal(stored?.Version.Index, 2);
    assert.equal(stored?.CreatedAt, '2026-06-01T00:00:00.000Z');
    assert.equal(stored?.UpdatedAt, '2026-06-01T00:00:01.000Z');
    const late = apply(store, [{ op: 'update', kind: 'secret', object: secret('a', 'c', 1) }]);
    assert.deepEqual(late, { ok: false, code: 'out-of-sequence', message: 'update out of sequence' });
    const absent = apply(store, [{ op: 'update', kind: 'secret', object: secret('z', 'z', 1) }]);
    assert.ok(!absent.ok && absent.code === 'not-found');
  });

  it('takes no notice of merges and removals of what is gone', () => {
    const store = new Store();
    const commits: Commit[] = [];
    store.onCommit((commit) => commits.push(commit));
    merge(store, 'gone', { DesiredState: 'shutdown' });
    assert.ok(apply(store, [{ op: 'remove', kind: 'task', id: 'gone' as TaskId }]).ok);
    assert.deepEqual(commits, []);
    assert.equal(store.index, 2);
  });

  it('never lets a merge take a task back', () => {
    const status = (State: TaskState) => ({ Timestamp: '', State, Message: State });
    const store = new Store();
    create(store, 'task', makeTask('t', 's', { Status: { State: 'starting' } }));
    merge(store, 't', { Status: status('running') });
    merge(store, 't', { Status: status('starting'), DesiredState: 'shutdown' });
    merge(store, 't', { DesiredState: 'running', Status: status('failed') });
    merge(store, 't', { Status: status('shutdown') });
    const task = store.get('task', 't' as TaskId);
    assert.equal(task?.Status.State, 'failed');
    assert.equal(task?.DesiredState, 'shutdown');
    assert.ok(mayBecomeDesired('ready', 'running') && !mayBecomeDesired('remove', 'shutdown'));
  });

  it('notes when a task first ran, ended and was no longer wanted', () => {
    const store = new Store();
    const report = (State: TaskState, at: number) =>
      merge(store, 't', { Status: { Timestamp: '', State, Message: '' } }, at);
    create(store, 'task', makeTask('t', 's', { Status: { State: 'pending' } }));
    report('running', now + 1);
    report('running', now + 2);
    report('failed', now + 3);
    merge(store, 't', { DesiredState: 'shutdown' }, now + 4);
    merge(store, 't', { DesiredState: 'remove' }, now + 5);
    report('orphaned', now + 6);
    const { RunningSince, EndedAt, RetiredAt } = store.get('task', 't' as TaskId)!.Private;
    assert.deepEqual([RunningSince, EndedAt, RetiredAt], [now + 1, now + 3, now + 4]);
  });

  it('notes since when a node is down, until it is back', () => {
    const store = new Store();
    const set = (State: 'down' | 'ready', at: number) =>
      apply(
        store,
        [{ op: 'merge', kind: 'node', id: 'n' as NodeId, fields: { Status: { State, Addr: '' } } }],
        at,
      );
    create(store, 'node', makeNode('n'));
    set('down', now + 1);
    set('down', now + 2);
    assert.equal(store.get('node', 'n' as NodeId)?.Private.DownSince, now + 1);
    set('ready', now + 3);
    assert.equal('DownSince' in store.get('node', 'n' as NodeId)!.Private, false);
    set('down', now + 4);
    assert.equal(store.get('node', 'n' as NodeId)?.Private.DownSince, now + 4);
  });

  it('refuses an entry whole: not even an order changes', () => {
    const store = new Store();
    for (const one of ['a', 'b', 'c']) create(store, 'secret', secret(one));
    create(store, 'task', makeTask('t', 's', { Slot: 1, Status: { State: 'pending' } }));
    create(store, 'task', makeTask('u', 's', { Slot: 1, Status: { State: 'pending' } }));
    const before = contents(store);
    const commits: Commit[] = [];
    store.onCommit((commit) => commits.push(commit));
    const refused = apply(store, [
      { op: 'remove', kind: 'secret', id: 'a' as SecretId },
      {
        op: 'merge',
        kind: 'task',
        id: 't' as TaskId,
        fields: { NodeID: 'n' as NodeId, DesiredState: 'shutdown' },
      },
      { op: 'remove', kind: 'task', id: 't' as TaskId },
      { op: 'create', kind: 'secret', object: secret('x', 'b') },
    ]);
    assert.ok(!refused.ok);
    assert.deepEqual(contents(store), before);
    assert.deepEqual(commits, []);
    assert.equal(store.index, 6, 'the entry counts all the same');
  });

  it('keeps every index right whatever is applied, and refuses without a trace', () => {
    fc.assert(
      fc.property(entries, (list) => {
        const store = new Store();
        for (const changes of list) {
          const before = contents(store);
          const result = apply(store, changes);
          if (!result.ok) assert.deepEqual(contents(store), before);
          checkIndexes(store);
          const names = store.list('secret').map((one) => one.Spec.Name);
          assert.equal(new Set(names).size, names.length, 'names are unique');
        }
      }),
      { numRuns: 150 },
    );
  });

  it('is the same on every manager, by entries or by snapshot', () => {
    fc.assert(
      fc.property(entries, fc.nat(40), (list, at) => {
        const [one, other, late] = [new Store(), new Store(), new Store()];
        for (const [index, changes] of list.entries()) {
          assert.deepEqual(apply(one, changes), apply(other, changes));
          if (index === at) late.restore(one.index, one.snapshot());
          else if (index > at) apply(late, changes);
        }
        assert.deepEqual(one.snapshot(), other.snapshot());
        if (list.length > at) {
          assert.deepEqual(late.snapshot(), one.snapshot());
          checkIndexes(late);
        }
      }),
      { numRuns: 100 },
    );
  });

  it('brings everything back from a snapshot, and tells that it did', () => {
    const store = new Store();
    const spec = makeSpec({
      TaskTemplate: { Resources: { Limits: { MemoryBytes: 2 ** 40, NanoCPUs: 2.5e9 } } },
    });
    create(store, 'cluster', makeCluster());
    create(store, 'node', makeNode('n'));
    create(store, 'service', makeService('s', spec));
    create(store, 'revision', makeRevision('s', 1, spec));
    create(store, 'task', makeTask('t', 's', { NodeID: 'n' as NodeId }));
    const copy = new Store();
    const commits: Commit[] = [];
    copy.onCommit((commit) => commits.push(commit));
    create(copy, 'secret', secret('old'));
    copy.restore(77, store.snapshot());
    assert.deepEqual(contents(copy), contents(store));
    assert.equal(copy.index, 77);
    assert.equal(copy.cluster()?.Spec.Name, 'default');
    assert.deepEqual(commits.at(-1), { kind: 'restored', index: 77 });
    checkIndexes(copy);
  });

  it('gives a snapshot in pieces, as of the moment it was asked for', () => {
    const store = new Store();
    create(store, 'cluster', makeCluster());
    for (let at = 0; at < 450; at += 1) create(store, 'secret', secret(`s${at}`));
    const before = contents(store);
    const pieces = store.snapshotPieces();
    store.apply(
      10_000,
      encodeEntry({ now: 1, changes: [{ op: 'remove', kind: 'secret', id: store.list('secret')[0]!.ID }] }),
    );
    create(store, 'secret', secret('late'));
    const taken = [...pieces];
    assert.ok(taken.length > 5, 'in pieces');
    const copy = new Store();
    copy.restore(5, Buffer.concat(taken));
    assert.deepEqual(contents(copy), before);
    checkIndexes(copy);
  });

  it('refuses a snapshot that it can not read, and stays as it is', () => {
    const store = new Store();
    create(store, 'secret', secret('a'));
    const before = contents(store);
    const ofOtherFormat = encodeEntry({ version: 99, tables: {} } as never);
    for (const bad of [ofOtherFormat, store.snapshot().slice(0, -3), new Uint8Array()]) {
      assert.throws(
        () => store.restore(9, bad),
        (error) => isShoalError(error, 'corrupted'),
      );
      assert.deepEqual(contents(store), before);
    }
  });

  it('reads long entries of mixed shapes back as they were written, in either form', () => {
    const plain = new Packr({ useRecords: false, moreTypes: false });
    const key = fc.string().filter((name) => name !== '__proto__');
    const labels = fc.dictionary(key, fc.string(), { maxKeys: 5, noNullPrototype: true });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(change, labels), { minLength: 1, maxLength: 20 }),
        fc.nat(70),
        (some, slot) => {
          const changes = Array.from({ length: 300 }, (_, at): Change => {
            const [one, Labels] = some[at % some.length]!;
            return one.op === 'create' && one.kind === 'task'
              ? { ...one, object: { ...one.object, Labels, Slot: slot + at } }
              : one;
          });
          const entry = { now, changes };
          assert.deepEqual(decodeEntry(encodeEntry(entry)), entry);
          assert.deepEqual(decodeEntry(plain.pack(entry)), entry);
          assert.deepEqual(plain.unpack(encodeEntry(entry)), entry);
        },
      ),
      { numRuns: 30 },
    );
  });

  it('refuses what is no entry, or none of its shape, and goes on', () => {
    const store = new Store();
    create(store, 'secret', secret('s1'));
    const before = contents(store);
    const garbage = [
      Buffer.from('garbage'),
      Buffer.alloc(0),
      pack(null),
      pack({ now }),
      encodeEntry({ now, changes: [null] } as never),
      encodeEntry({ now, changes: [{ op: 'create', kind: 'nothing', object: { ID: 'x' } }] } as never),
      encodeEntry({ now: 'never', changes: [{ op: 'remove', kind: 'secret', id: 's1' }, {}] } as never),
      encodeEntry({
        now,
        changes: [
          { op: 'remove', kind: 'secret', id: 's1' },
          { op: 'create', kind: 'service', object: { ID: 'x' } },
        ],
      } as never),
      encodeEntry({ now, changes: [{ op: 'create', kind: 'node', object: { ID: 'x' } }] } as never),
    ];
    for (const data of garbage) {
      const index = store.index + 1;
      const result = store.apply(index, data);
      assert.equal(result.ok === false && result.code, 'invalid-argument');
      assert.equal(store.index, index);
    }
    assert.deepEqual(contents(store), before);
    create(store, 'secret', secret('s2'));
  });

  it('refuses to look into an index that it does not have', () => {
    assert.throws(
      () => new Store().find('task', 'colour', 'red'),
      (error) => isShoalError(error, 'internal'),
    );
  });

  it('finds services by mode, stack and network', () => {
    const store = new Store();
    const spec = makeSpec({ Labels: { 'com.docker.stack.namespace': 'shop' } });
    create(store, 'service', makeService('s', { ...spec, Mode: { Global: {} } }));
    const found = (index: string, key: string) => store.find('service', index, key).map((one) => one.ID);
    assert.deepEqual(found('mode', 'Global'), ['s']);
    assert.deepEqual(found('mode', 'Replicated'), []);
    assert.deepEqual(found('stack', 'shop'), ['s']);
    assert.ok(apply(store, [{ op: 'remove', kind: 'service', id: 's' as ServiceId }]).ok);
    assert.deepEqual(found('stack', 'shop'), []);
  });
});

describe('manager/store/watch', () => {
  async function next(iterator: AsyncIterator<Commit>): Promise<Commit> {
    const { value } = await iterator.next();
    return value as Commit;
  }

  it('tells events with the object before and after', async () => {
    const store = new Store();
    const watch = store.watch();
    create(store, 'secret', secret('a'));
    apply(store, [
      { op: 'merge', kind: 'secret', id: 'a' as SecretId, fields: { Spec: { Name: 'b', Labels: {} } } },
    ]);
    apply(store, [{ op: 'remove', kind: 'secret', id: 'a' as SecretId }]);
    const iterator = watch[Symbol.asyncIterator]();
    const seen: (string | undefined)[][] = [];
    for (let count = 0; count < 3; count += 1) {
      const commit = await next(iterator);
      assert.ok(commit.kind === 'changed');
      for (const event of commit.events) {
        assert.ok(event.kind === 'secret');
        seen.push([event.op, event.previous?.Spec.Name, event.object.Spec.Name]);
      }
    }
    assert.deepEqual(seen, [
      ['create', undefined, 'a'],
      ['update', 'a', 'b'],
      ['remove', 'b', 'b'],
    ]);
    watch.close();
    assert.equal((await iterator.next()).done, true);
  });

  it('waits for what is yet to come', async () => {
    const store = new Store();
    const watch = store.watch();
    const first = next(watch[Symbol.asyncIterator]());
    create(store, 'secret', secret('a'));
    assert.equal((await first).index, 1);
    watch.close();
  });

  it('ends a reader that falls too far behind, and costs nothing from then on', async () => {
    const store = new Store();
    const watch = store.watch(3);
    for (const one of ['a', 'b', 'c', 'd', 'e']) create(store, 'secret', secret(one));
    await assert.rejects(
      async () => {
        for await (const _ of watch);
      },
      (error) => isShoalError(error, 'unavailable') && error.message.includes('3 changes behind'),
    );
  });

  it('stops hearing when its reader leaves', async () => {
    const store = new Store();
    const watch = store.watch(1);
    create(store, 'secret', secret('a'));
    for await (const commit of watch) {
      assert.equal(commit.index, 1);
      break;
    }
    create(store, 'secret', secret('b'));
    create(store, 'secret', secret('c'));
    assert.equal((await watch[Symbol.asyncIterator]().next()).done, true);
  });
});
