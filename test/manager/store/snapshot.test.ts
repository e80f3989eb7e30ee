import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { type Change, type Entry, encodeEntry } from '../../../manager/store/change.ts';
import { encodeSnapshot } from '../../../manager/store/snapshot.ts';
import { Store } from '../../../manager/store/store.ts';
import { type AnyObject, kinds } from '../../../manager/store/tables.ts';
import type { ClusterNode, Secret } from '../../../proto/docker.ts';
import { isShoalError } from '../../../proto/errors.ts';
import type { NodeId, SecretId } from '../../../proto/ids.ts';
import { makeNode } from '../orchestrator/objects.ts';

const now = Date.UTC(2026, 5, 1);

function secret(id: string, Labels: Record<string, string> = {}): Secret {
  const times = { Version: { Index: 0 }, CreatedAt: '', UpdatedAt: '' };
  return { ID: id as SecretId, ...times, Spec: { Name: id, Labels } };
}

function storeOf(secrets: readonly Secret[]): Store {
  const store = new Store();
  const changes = secrets.map((object): Change => ({ op: 'create', kind: 'secret', object }));
  const node: Change = { op: 'create', kind: 'node', object: makeNode('n') };
  assert.deepEqual(store.apply(1, encodeEntry({ now, changes: [node, ...changes] })), { ok: true });
  return store;
}

const many = Array.from({ length: 500 }, (_, at) => secret(`s${at}`));

/** Every object, and the snapshot that is made of them. */
function contents(store: Store): unknown {
  return [kinds.map((kind) => store.list(kind) as AnyObject[]), store.snapshot()];
}

describe('manager/store/snapshot', () => {
  it('reads those of 0.1.0, with and without events', () => {
    const store = storeOf(many);
    const packr = new Packr({ useRecords: false, moreTypes: false });
    const tables = { node: store.list('node'), secret: store.list('secret'), task: [] };
    const rest = { events: store.recentEvents(), claims: { lastVxlanId: 0, last: [], resting: [] } };
    const written = { version: 1, index: 1, tables };
    for (const [format, events] of [
      [{ ...written, ...rest }, store.recentEvents()],
      [written, []],
    ] as const) {
      const copy = new Store();
      copy.restore(1, packr.pack(format));
      for (const kind of kinds) assert.deepEqual(copy.list(kind), store.list(kind));
      assert.deepEqual(copy.recentEvents(), events);
      assert.deepEqual(copy.find('secret', 'name', 's77'), [store.get('secret', 's77' as SecretId)]);
    }
  });

  it('is the same of a store that went on from one, also where a field was taken away meanwhile', () => {
    const store = storeOf([]);
    const merge = (ManagerStatus: ClusterNode['ManagerStatus']): Entry => ({
      now,
      changes: [{ op: 'merge', kind: 'node', id: 'n' as NodeId, fields: { ManagerStatus } as never }],
    });
    const reachable = { Reachability: 'reachable', Addr: '10.0.0.1:2377' } as const;
    store.applyEntry(2, merge(reachable));
    store.applyEntry(3, {
      now,
      changes: [{ op: 'merge', kind: 'node', id: 'n' as NodeId, fields: { Attachments: [] } }],
    });
    store.applyEntry(4, merge(undefined));
    assert.ok(!('ManagerStatus' in store.get('node', 'n' as NodeId)!));
    const copy = new Store();
    copy.restore(4, store.snapshot());
    for (const one of [store, copy]) one.applyEntry(5, merge(reachable));
    assert.deepEqual(contents(copy), contents(store));
  });

  it('keeps every letter', () => {
    const labels = fc.dictionary(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'binary' }), {
      noNullPrototype: true,
    });
    fc.assert(
      fc.property(labels, (Labels) => {
        const store = storeOf([secret('a', Labels)]);
        const copy = new Store();
        copy.restore(1, store.snapshot());
        assert.deepEqual(contents(copy), contents(store));
      }),
      { examples: [[{ ['__proto__']: '', constructor: 'a', toString: 'b' }]] },
    );
  });

  it('is made in pieces of which none may be missing', () => {
    const pieces = [...storeOf(many).snapshotPieces()];
    assert.ok(pieces.length > 5);
    for (let at = 0; at < pieces.length; at += 1) {
      const rest = Buffer.concat(pieces.filter((_, other) => other !== at));
      assert.throws(
        () => new Store().restore(9, rest),
        (error) => isShoalError(error, 'corrupted'),
        `without piece ${at}`,
      );
    }
  });

  it('holds what was there when it was begun, also where what is being read changes between two pieces', () => {
    const store = storeOf(Array.from({ length: 900 }, (_, at) => secret(`s${at}`)));
    const before = contents(store);
    const taken: Uint8Array[] = [];
    let changed = 0;
    for (const piece of store.snapshotPieces()) {
      taken.push(piece);
      // Not before the first of them is read: from then on it would be a copy that is read.
      if (changed === 0 && !Buffer.from(piece).includes('"s10"')) continue;
      changed += 1;
      const secrets = store.list('secret');
      const [removed, updated] = [secrets.at(-3 * changed)!, secrets.at(-5 * changed)!];
      const Spec = { ...updated.Spec, Labels: { changed: String(changed) } };
      // The one that comes first in the next piece, of those that are being read.
      const last = [
        ...Buffer.from(piece)
          .toString()
          .matchAll(/"ID":"s(\d+)"/g),
      ].at(-1)?.[1];
      const next = `s${Number(last) + 1}` as SecretId;
      const changes = [
        { op: 'merge', kind: 'secret', id: next, fields: { Spec: { ...updated.Spec, Name: next } } },
        { op: 'remove', kind: 'secret', id: removed.ID },
        { op: 'merge', kind: 'secret', id: updated.ID, fields: { Spec } },
        { op: 'create', kind: 'secret', object: secret(`late ${changed}`) },
      ] as const;
      assert.deepEqual(store.applyEntry(1 + changed, { now, changes }), { ok: true });
    }
    assert.ok(changed > 3, 'in pieces');
    const copy = new Store();
    copy.restore(1, Buffer.concat(taken));
    assert.deepEqual(contents(copy), before);
  });

  it('is refused when it has an object twice', () => {
    const store = storeOf(many);
    const before = contents(store);
    const runs = [{ size: 2, values: () => [many[7]!, many[7]!] }];
    const claims = { lastVxlanId: 0, last: [], resting: [] };
    const twice = encodeSnapshot(5, (kind) => (kind === 'secret' ? runs : []), [], claims);
    assert.throws(
      () => store.restore(5, Buffer.concat([...twice])),
      (error) => isShoalError(error, 'corrupted') && error.message.includes('s7 is there twice'),
    );
    assert.deepEqual(contents(store), before);
  });

  it('has the same bytes after changes that left holes between the objects', () => {
    const [store, other] = [storeOf(many), storeOf(many.slice(400))];
    const changes = many.slice(0, 400).map(({ ID }) => ({ op: 'remove', kind: 'secret', id: ID }) as const);
    store.applyEntry(1, { now, changes });
    const [one, two] = [new Store(), new Store()];
    one.restore(1, store.snapshot());
    two.restore(1, other.snapshot());
    for (const kind of kinds) assert.deepEqual(one.list(kind), two.list(kind));
    assert.deepEqual(contents(one), contents(store));
  });
});
