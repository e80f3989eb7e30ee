/** Swarm events as a part of the store: derived the same everywhere, bounded, kept over a restart. */
import assert from 'node:assert/strict';
import { newMeta } from '../../../manager/store/change.ts';
import { keptEvents } from '../../../manager/store/cluster-event.ts';
import { Store } from '../../../manager/store/store.ts';
import type { Config } from '../../../proto/docker.ts';
import { asId, type ConfigId } from '../../../proto/ids.ts';

function config(name: string): Config {
  return { ...newMeta(asId<ConfigId>(`id-${name}`)), Spec: { Name: name, Labels: { a: 'b' }, Data: '' } };
}

function storeWith(count: number): Store {
  const store = new Store();
  for (let at = 1; at <= count; at++) {
    store.applyEntry(at, {
      now: at * 1000,
      changes: [{ op: 'create', kind: 'config', object: config(`c${at}`) }],
    });
  }
  return store;
}

describe('store: the last events', () => {
  it('are kept in order, up to a bound', () => {
    for (const count of [3, keptEvents, keptEvents + 1, 2 * keptEvents + 5]) {
      const events = storeWith(count).recentEvents();
      assert.equal(events.length, Math.min(count, keptEvents));
      assert.equal(events.at(-1)?.attributes.name, `c${count}`);
      assert.equal(events[0]?.index, Math.max(1, count - keptEvents + 1));
    }
  });

  it('are part of the snapshot: a manager that starts from one tells the same', () => {
    const store = storeWith(7);
    const restored = new Store();
    restored.restore(7, store.snapshot());
    assert.deepEqual(restored.recentEvents(), store.recentEvents());
    assert.deepEqual(restored.recentEvents()[6], {
      index: 7,
      timeMs: 7000,
      type: 'config',
      action: 'create',
      id: 'id-c7',
      attributes: { name: 'c7' },
      labels: { a: 'b' },
    });
  });

  it('a refused entry tells nothing', () => {
    const store = storeWith(1);
    store.applyEntry(2, { now: 2, changes: [{ op: 'create', kind: 'config', object: config('c1') }] });
    assert.equal(store.recentEvents().length, 1);
  });
});
