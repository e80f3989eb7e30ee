import assert from 'node:assert/strict';
import fc from 'fast-check';
import { hashOf, PlaceTable } from '../../../manager/store/place-table.ts';

/** More than one table holds here. */
const many = 40_000;

function placesOf(table: PlaceTable, hash: number): number[] {
  const found: number[] = [];
  table.find(hash, (place) => {
    found.push(place);
    return false;
  });
  return found.sort((one, other) => one - other);
}

describe('manager/store/place-table', () => {
  // Hashes that wish for one slot, also around the table's end, and one hash for several places.
  const hash = fc.oneof(fc.integer({ min: -3, max: 3 }), fc.constantFrom(15, 31, 47, 16, 32, 0x7fffffff));
  const step = fc.record({ isAdded: fc.boolean(), hash, place: fc.nat(6).map((at) => at * 2 ** 40) });

  for (const [size, filled] of Object.entries({ few: 0, many })) {
    it(`keeps ${size} places under their hashes, whichever come and go`, () => {
      fc.assert(
        fc.property(fc.array(step, { maxLength: 150 }), (steps) => {
          const table = new PlaceTable();
          for (let at = 0; at < filled; at += 1) table.add(hashOf(`filled-${at}`), at);
          const expected = new Map<number, number[]>();
          for (const { isAdded, hash, place } of steps) {
            const known = expected.get(hash) ?? [];
            expected.set(hash, known);
            if (isAdded) {
              table.add(hash, place);
              known.push(place);
            } else {
              assert.equal(table.delete(hash, place), known.includes(place));
              if (known.includes(place)) known.splice(known.indexOf(place), 1);
            }
          }
          for (const [hash, places] of expected) {
            assert.deepEqual(
              placesOf(table, hash),
              places.sort((one, other) => one - other),
            );
          }
          for (let at = 0; at < filled; at += 97) {
            assert.equal(
              table.find(hashOf(`filled-${at}`), (place) => place === at),
              at,
            );
          }
        }),
        { numRuns: filled > 0 ? 10 : 300 },
      );
    });
  }

  it('is emptied again, in any order', () => {
    const table = new PlaceTable();
    for (let at = 0; at < many; at += 1) table.add(hashOf(`id-${at}`), at);
    for (let step = 0; step < many; step += 1) {
      const at = (step * 7_919) % many;
      assert.equal(table.delete(hashOf(`id-${at}`), at), true);
      assert.equal(table.delete(hashOf(`id-${at}`), at), false);
    }
    for (let at = 0; at < many; at += 1) assert.deepEqual(placesOf(table, hashOf(`id-${at}`)), []);
  });

  it('has hashes that differ where keys differ, also by one letter or in their order', () => {
    const keys = ['', 'a', 'b', 'ab', 'ba', ...Array.from({ length: many }, (_, at) => `s${at % 200}/${at}`)];
    const hashes = new Set(keys.map(hashOf));
    // Of 40,000 numbers of 32 bits some 0.2 pairs are equal by chance.
    assert.ok(hashes.size >= keys.length - 3, `${keys.length - hashes.size} of ${keys.length} are equal`);
    const sizes = new Array<number>(64).fill(0);
    for (const key of keys) sizes[hashOf(key) >>> 26]! += 1;
    assert.ok(Math.max(...sizes) < (1.5 * keys.length) / 64, String(sizes));
  });
});
