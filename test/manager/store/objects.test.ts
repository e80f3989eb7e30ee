import assert from 'node:assert/strict';
import fc from 'fast-check';
import { HashedIndex, ListedIndex, Objects, Selection, ShardedMap } from '../../../manager/store/objects.ts';

/** More than one map of Node's holds here. */
const many = 9_000;

const idOf = (at: number): string => `id-${at}`;

describe('manager/store/objects', () => {
  const steps = fc.array(
    fc.record({
      op: fc.constantFrom('set', 'set', 'delete', 'look'),
      // Old ones, the run that is open, and new ones.
      at: fc.oneof(fc.nat(2_000), fc.integer({ min: many - 50, max: many + 1_500 })),
      value: fc.nat(),
    }),
    { minLength: 1, maxLength: 400 },
  );

  for (const [size, filled] of Object.entries({ few: 0, many })) {
    it(`keeps ${size} as a map of Node’s does, and what was looked at stays as it was`, () => {
      fc.assert(
        fc.property(steps, (list) => {
          const [objects, expected] = [new Objects<number>(), new Map<string, number>()];
          const looks: { seen: ReturnType<Objects<number>['asOfNow']>; later: number[] }[] = [];
          const set = (at: number, value: number) => {
            objects.set(idOf(at), value);
            expected.set(idOf(at), value);
          };
          for (let at = 0; at < filled; at += 1) set(at, at);
          for (const { op, at, value } of list) {
            if (op === 'set') set(at, value);
            else if (op === 'delete') {
              objects.delete(idOf(at));
              expected.delete(idOf(at));
            } else if (looks.length < 3)
              looks.push({ seen: objects.asOfNow(), later: [...expected.values()] });
            assert.equal(objects.get(idOf(at)), expected.get(idOf(at)));
          }
          assert.equal(objects.size, expected.size);
          assert.deepEqual(objects.list(), [...expected.values()]);
          assert.deepEqual([...objects.values()], objects.list());
          for (const { seen, later } of looks) {
            assert.deepEqual(
              seen.flatMap((run) => [...run.values()]),
              later,
            );
            assert.equal(
              seen.reduce((sum, run) => sum + run.size, 0),
              later.length,
            );
          }
        }),
        { numRuns: filled > 0 ? 15 : 200 },
      );
    });
  }

  it('gives room back: of runs of which all went, nothing is left', () => {
    const objects = new Objects<number>();
    for (let at = 0; at < many; at += 1) objects.set(idOf(at), at);
    for (let at = 0; at < many - 10; at += 1) objects.delete(idOf(at));
    assert.equal(objects.asOfNow().length, 1);
    assert.equal(objects.size, 10);
  });

  it('selects older objects before younger ones, whenever they are selected', () => {
    const [objects, selection] = [new Objects<number>(), new Selection()];
    for (let at = 0; at < many; at += 1) objects.set(idOf(at), at);
    const placeOf = (at: number) => objects.place(idOf(at))!;
    for (const at of [8_000, 3, 5_000, 2, 8_001, 3]) selection.add(placeOf(at));
    objects.set(idOf(5_000), -5_000);
    assert.deepEqual(selection.objectsOf(objects), [2, 3, -5_000, 8_000, 8_001]);
    for (const at of [3, 8_001, 5_000, 4]) selection.delete(placeOf(at));
    assert.deepEqual(selection.objectsOf(objects), [2, 8_000]);
    for (const at of [2, 8_000, 8_000]) selection.delete(placeOf(at));
    assert.equal(selection.isEmpty, true);
  });

  it('finds under a key what was put there, whatever else came between', () => {
    const objects = new Objects<number>();
    for (let at = 0; at < many; at += 1) objects.add(idOf(at), at);
    assert.throws(() => objects.add(idOf(77), 1), /id-77 is there twice/);
    const keys = ['a', 'b', 'c'];
    const step = fc.record({ isAdded: fc.boolean(), at: fc.nat(60), key: fc.constantFrom(...keys) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (list) => {
        const index = new ListedIndex(objects);
        const hashed = new HashedIndex(objects, (at) => keys.filter((key) => expected.get(key)!.has(at)));
        const expected = new Map(keys.map((key) => [key, new Set<number>()]));
        for (const { isAdded, at, key } of list) {
          for (const one of [index, hashed]) {
            if (isAdded) one.add(key, objects.place(idOf(at))!);
            else one.delete(key, objects.place(idOf(at))!);
          }
          if (isAdded) expected.get(key)!.add(at);
          else expected.get(key)!.delete(at);
        }
        for (const [key, found] of expected) {
          const inOrder = [...found].sort((one, other) => one - other);
          assert.deepEqual(index.find(key), inOrder);
          assert.deepEqual(hashed.find(key), inOrder);
        }
      }),
    );
  });

  it('selects very many in order, in whatever order they come and go', () => {
    const [objects, selection] = [new Objects<number>(), new Selection()];
    for (let at = 0; at < many; at += 1) objects.add(idOf(at), at);
    const mixed = Array.from({ length: many }, (_, at) => (at * 7_919) % many);
    for (const at of mixed) selection.add(objects.place(idOf(at))!);
    const inOrder = Array.from({ length: many }, (_, at) => at);
    assert.deepEqual(selection.objectsOf(objects), inOrder);
    for (const at of mixed.slice(0, 6_000)) selection.delete(objects.place(idOf(at))!);
    const left = new Set(mixed.slice(6_000));
    assert.deepEqual(
      selection.objectsOf(objects),
      inOrder.filter((at) => left.has(at)),
    );
    for (const at of left) selection.delete(objects.place(idOf(at))!);
    assert.equal(selection.isEmpty, true);
  });

  it('selects many as it selects few', () => {
    const objects = new Objects<number>();
    for (let at = 0; at < many; at += 1) objects.set(idOf(at), at);
    const steps = fc.array(
      fc.record({ isAdded: fc.boolean(), at: fc.nat(40).map((at) => at * 20 + (at % 2) * 4_000) }),
      {
        maxLength: 120,
      },
    );
    fc.assert(
      fc.property(steps, (list) => {
        const [selection, expected] = [new Selection(), new Set<number>()];
        for (const { isAdded, at } of list) {
          if (isAdded) selection.add(objects.place(idOf(at))!);
          else selection.delete(objects.place(idOf(at))!);
          if (isAdded) expected.add(at);
          else expected.delete(at);
          assert.equal(selection.isEmpty, expected.size === 0);
        }
        const inOrder = [...expected].sort((one, other) => one - other);
        assert.deepEqual(selection.objectsOf(objects), inOrder);
      }),
    );
  });

  it('spreads keys that differ at their end, or a little before it, over its maps', () => {
    for (const keyOf of [
      idOf,
      (at: number) => `s${at}/1`,
      (at: number) => `address net 10.0.${at >> 8}.${at & 255}`,
    ]) {
      const map = new ShardedMap<number>();
      for (let at = 0; at < 2 * many; at += 1) map.set(keyOf(at), at);
      for (let at = 0; at < 2 * many; at += 7) assert.equal(map.get(keyOf(at)), at);
      assert.equal(map.delete(keyOf(5)), true);
      assert.equal(map.delete(keyOf(5)), false);
      assert.equal(map.get(keyOf(5)), undefined);
      const sizes = map.shardSizes();
      assert.ok(Math.max(...sizes) < (4 * 2 * many) / sizes.length, `evenly: ${sizes}`);
    }
  });
});
