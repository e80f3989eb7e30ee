import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { PackReader } from '../../../manager/store/pack-reader.ts';

const packr = new Packr({ useRecords: false, moreTypes: false });

/** Whatever an object may hold, with lengths on both sides of each of the format's. */
const values = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 3 },
    fc.constantFrom(null, true, false),
    fc.integer(),
    fc.maxSafeInteger(),
    fc.double({ noNaN: true }),
    fc.string({ unit: 'binary', maxLength: 40 }),
    fc.constantFrom(31, 32, 255, 256, 65_535, 65_536).map((length) => 'ü'.repeat(length)),
    fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    fc.array(tie('value'), { maxLength: 20 }),
    fc.dictionary(fc.string({ maxLength: 8 }), tie('value'), { maxKeys: 20, noNullPrototype: true }),
  ),
})).value;

describe('manager/store/pack-reader', () => {
  it('reads what was packed one after the other, each in its turn', () => {
    fc.assert(
      fc.property(fc.array(values, { minLength: 1, maxLength: 12 }), fc.nat(4), (list, atOnce) => {
        const reader = new PackReader(
          Buffer.concat(list.map((value) => Buffer.from(packr.pack(value)))),
          packr,
        );
        const read: unknown[] = [];
        while (read.length < list.length) {
          read.push(...reader.values(Math.min(1 + atOnce, list.length - read.length)));
        }
        reader.requireEnd();
        assert.deepEqual(
          read,
          list.map((value) => packr.unpack(packr.pack(value))),
        );
      }),
      { numRuns: 60 },
    );
  });

  it('refuses what is cut short anywhere, and what follows', () => {
    fc.assert(
      fc.property(values, fc.double({ min: 0, max: 0.999, noNaN: true }), (value, share) => {
        const whole = Buffer.from(packr.pack(value));
        const cut = new PackReader(whole.subarray(0, Math.floor(whole.length * share)), packr);
        assert.throws(() => cut.value(), RangeError);
        const longer = new PackReader(Buffer.concat([whole, whole]), packr);
        longer.value();
        assert.throws(() => longer.requireEnd(), RangeError);
      }),
      { numRuns: 60 },
    );
  });

  it('tells how long a map or an array is, and what is neither', () => {
    for (const length of [0, 1, 15, 16, 60_000]) {
      const list = Array.from({ length }, (_, at) => at);
      assert.equal(new PackReader(packr.pack(list), packr).arrayHead(), length);
      const map = Object.fromEntries(list.map((at) => [`k${at}`, at]));
      assert.equal(new PackReader(packr.pack(map), packr).mapHead(), length);
      assert.throws(() => new PackReader(packr.pack(map), packr).arrayHead(), RangeError);
    }
    assert.throws(() => new PackReader(new Uint8Array(), packr).mapHead(), RangeError);
  });
});
