/**
 * Maps for a million objects: they grow, are listed and are copied without a pause, which Node's own does not. That
 * one moves all its entries when it doubles (a quarter of a second at a million), in the middle of whatever runs.
 * Small ones are Node's own. Pure.
 */

/** Up to so many entries one map is quick enough. */
const plainEntries = 2 ** 12;
const shardCount = 64;
/** The end of a key says most; ids and counted names differ there. */
const hashedLetters = 8;

/** A map in no order. */
export class ShardedMap<V> {
  #plain: Map<string, V> | undefined = new Map();
  #shards: readonly Map<string, V>[] = [];

  get(key: string): V | undefined {
    return this.#mapOf(key).get(key);
  }

  set(key: string, value: V): void {
    const map = this.#mapOf(key);
    map.set(key, value);
    if (map === this.#plain && map.size > plainEntries) this.#split(map);
  }

  delete(key: string): boolean {
    return this.#mapOf(key).delete(key);
  }

  /** How many entries each of its maps has. */
  shardSizes(): number[] {
    return (this.#plain ? [this.#plain] : this.#shards).map(({ size }) => size);
  }

  #mapOf(key: string): Map<string, V> {
    return this.#plain ?? this.#shards[shardOf(key)]!;
  }

  #split(plain: Map<string, V>): void {
    this.#shards = Array.from({ length: shardCount }, () => new Map<string, V>());
    this.#plain = undefined;
    for (const [key, value] of plain) this.#mapOf(key).set(key, value);
  }
}

function shardOf(key: string): number {
  let hash = 0;
  for (let at = Math.max(0, key.length - hashedLetters); at < key.length; at += 1) {
    hash = (Math.imul(hash, 31) + key.charCodeAt(at)) | 0;
  }
  return (hash ^ (hash >>> 6) ^ (hash >>> 12)) & (shardCount - 1);
}

/** Objects that came one after the other; `epoch` tells whether a listing from before still shows them. */
interface Run<T> {
  readonly objects: Map<string, T>;
  readonly epoch: number;
}

const runObjects = 1_024;

/** Objects by id, in the order in which they came; one that is replaced keeps its place. */
export class Objects<T> {
  /** By number, in order; those of which nothing is left are dropped. */
  readonly #runs = new Map<number, Run<T>>();
  readonly #runNumbers = new ShardedMap<number>();
  #lastRun = 0;
  #size = 0;
  #epoch = 0;

  get size(): number {
    return this.#size;
  }

  get(id: string): T | undefined {
    const number = this.#runNumbers.get(id);
    return number === undefined ? undefined : this.#runs.get(number)?.objects.get(id);
  }

  /** The number of the run that an object is in: it keeps it, and who came later has none that is lower. */
  runOf(id: string): number | undefined {
    return this.#runNumbers.get(id);
  }

  /** As get, for who knows the object's run. */
  getInRun(run: number, id: string): T | undefined {
    return this.#runs.get(run)?.objects.get(id);
  }

  /** Answers the number of the run that the object is in. */
  set(id: string, object: T): number {
    const known = this.#runNumbers.get(id);
    if (known !== undefined) {
      this.#changeable(known).set(id, object);
      return known;
    }
    if ((this.#runs.get(this.#lastRun)?.objects.size ?? runObjects) >= runObjects) {
      this.#lastRun += 1;
      this.#runs.set(this.#lastRun, { objects: new Map(), epoch: this.#epoch });
    }
    this.#changeable(this.#lastRun).set(id, object);
    this.#runNumbers.set(id, this.#lastRun);
    this.#size += 1;
    return this.#lastRun;
  }

  delete(id: string): void {
    const number = this.#runNumbers.get(id);
    if (number === undefined) return;
    const objects = this.#changeable(number);
    objects.delete(id);
    if (objects.size === 0) this.#runs.delete(number);
    this.#runNumbers.delete(id);
    this.#size -= 1;
  }

  /** In order. Not to be used any more once something has changed. */
  *values(): Generator<T, void> {
    for (const { objects } of this.#runs.values()) yield* objects.values();
  }

  list(): T[] {
    const all: T[] = [];
    for (const { objects } of this.#runs.values()) for (const object of objects.values()) all.push(object);
    return all;
  }

  /** The objects as they are now, whatever becomes of them: runs of them, in order. Quick at any size. */
  asOfNow(): readonly Pick<Map<string, T>, 'values' | 'size'>[] {
    this.#epoch += 1;
    return [...this.#runs.values()].map(({ objects }) => objects);
  }

  /** The objects of a run; a copy if somebody still reads them as they were. */
  #changeable(number: number): Map<string, T> {
    const run = this.#runs.get(number)!;
    if (run.epoch === this.#epoch) return run.objects;
    const objects = new Map(run.objects);
    this.#runs.set(number, { objects, epoch: this.#epoch });
    return objects;
  }
}

/** Ids of some of an Objects' objects, by the numbers of their runs: older ones first, those of a run as they came. */
export class Selection {
  readonly #runs = new Map<number, Set<string>>();

  get isEmpty(): boolean {
    return this.#runs.size === 0;
  }

  add(run: number, id: string): void {
    const ids = this.#runs.get(run);
    if (ids) ids.add(id);
    else this.#runs.set(run, new Set([id]));
  }

  delete(run: number, id: string): void {
    const ids = this.#runs.get(run);
    ids?.delete(id);
    if (ids?.size === 0) this.#runs.delete(run);
  }

  /** What stands in `objects` under the ids. */
  of<T>(objects: Objects<T>): T[] {
    const found: T[] = [];
    const inOrder = [...this.#runs].sort(([one], [other]) => one - other);
    for (const [run, ids] of inOrder) for (const id of ids) found.push(objects.getInRun(run, id)!);
    return found;
  }
}
