/** A name for a service that was given none. */
import type { Random } from '../../proto/ports.ts';

const qualities =
  'bold brave bright calm clever eager fleet gentle glad keen lively lucid merry nimble quick quiet sharp steady swift warm'.split(
    ' ',
  );
const fishes =
  'anchovy bass bream carp cod dace eel goby haddock herring mackerel minnow perch pike pollock roach salmon sardine smelt sole sprat tench trout tuna'.split(
    ' ',
  );

/** E.g. `swift_herring_4f2a`: two words to remember it by, and enough chance not to meet its like. */
export function randomName(random: Random): string {
  const [first, second, ...rest] = random.bytes(4);
  const suffix = rest.map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return `${qualities[first! % qualities.length]}_${fishes[second! % fishes.length]}_${suffix}`;
}
