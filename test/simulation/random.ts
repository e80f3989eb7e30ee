/** Chance from a seed: the same seed gives the same numbers, on every machine. */
import type { Random } from '../../proto/ports.ts';

/** A Random whose numbers follow from `seed` alone (sfc32). Not fit for keys outside of tests. */
export function seededRandom(seed: number): Random & { integer(bound: number): number } {
  let a = seed | 0;
  let b = Math.imul(seed, 0x9e3779b9) | 0;
  let c = 0x243f6a88;
  let counter = 1;
  const next = (): number => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum;
    c |= 0;
    return sum >>> 0;
  };
  for (let round = 0; round < 12; round += 1) next();
  return {
    bytes: (count) => Uint8Array.from({ length: count }, () => next() & 0xff),
    float: () => next() / 2 ** 32,
    /** An integer in [0, bound). */
    integer: (bound) => Math.floor((next() / 2 ** 32) * bound),
  };
}
