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

/** One object's place: it keeps it when the object is replaced. */
export interface Row<T> {
  readonly id: string;
  readonly run: Run<T>;
  /** The object as it is now. */
  readonly object: T;
}

/** Objects that came one after the other; who came later is in none with a lower number. */
class Run<T> {
  readonly number: number;
  readonly rows = new Set<WritableRow<T>>();
  /** Who reads the run as it is now. */
  reader: RunReader<T> | undefined;

  constructor(number: number) {
    this.number = number;
  }

  /** To be called before each change: gives those who read the run as it was a copy. */
  beforeChange(): void {
    this.reader?.keep();
    this.reader = undefined;
  }
}

type WritableRow<T> = { -readonly [K in keyof Row<T>]: Row<T>[K] };

/** Objects that stay what they are, in order. */
export interface ObjectRun<T> {
  readonly size: number;
  values(): Iterable<T>;
}

/** The objects of a run as they were when it was made: the run's own until something of it changes. */
class RunReader<T> implements ObjectRun<T> {
  readonly size: number;
  #run: Run<T> | undefined;
  #kept: readonly T[] = [];

  constructor(run: Run<T>) {
    this.size = run.rows.size;
    this.#run = run;
  }

  keep(): void {
    this.#kept = this.#listed();
    this.#run = undefined;
  }

  /** A list from the first moment on: the run may change while it is gone through. */
  values(): readonly T[] {
    return this.#listed();
  }

  #listed(): readonly T[] {
    return this.#run ? Array.from(this.#run.rows, ({ object }) => object) : this.#kept;
  }
}

const runObjects = 1_024;

/** Objects by id, in the order in which they came; one that is replaced keeps its place. */
export class Objects<T> {
  readonly #rows = new ShardedMap<WritableRow<T>>();
  /** In order; those of which nothing is left are dropped. */
  readonly #runs = new Set<Run<T>>();
  #last: Run<T> | undefined;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(id: string): T | undefined {
    return this.#rows.get(id)?.object;
  }

  /** The place of the object with the id. */
  row(id: string): Row<T> | undefined {
    return this.#rows.get(id);
  }

  /** Answers the object's place. */
  set(id: string, object: T): Row<T> {
    const known = this.#rows.get(id);
    if (known !== undefined) {
      known.run.beforeChange();
      known.object = object;
      return known;
    }
    const run = this.#openRun();
    run.beforeChange();
    const row = { id, run, object };
    run.rows.add(row);
    this.#rows.set(id, row);
    this.#size += 1;
    return row;
  }

  delete(id: string): void {
    const row = this.#rows.get(id);
    if (row === undefined) return;
    const { run } = row;
    run.beforeChange();
    run.rows.delete(row);
    if (run.rows.size === 0) this.#runs.delete(run);
    this.#rows.delete(id);
    this.#size -= 1;
  }

  /** In order. Not to be used any more once something has changed. */
  *values(): Generator<T, void> {
    for (const { rows } of this.#runs) for (const { object } of rows) yield object;
  }

  list(): T[] {
    const all: T[] = [];
    for (const { rows } of this.#runs) for (const { object } of rows) all.push(object);
    return all;
  }

  /** The objects as they are now, whatever becomes of them: runs of them, in order. Quick at any size. */
  asOfNow(): readonly ObjectRun<T>[] {
    return [...this.#runs].map((run) => {
      run.reader ??= new RunReader(run);
      return run.reader;
    });
  }

  /** The run that takes the next new object. */
  #openRun(): Run<T> {
    const last = this.#last;
    if (last && this.#runs.has(last) && last.rows.size < runObjects) return last;
    const next = new Run<T>((last?.number ?? 0) + 1);
    this.#last = next;
    this.#runs.add(next);
    return next;
  }
}

/** Up to so many rows a list is quicker than a set, and smaller. */
const listedRows = 8;

/** Some of an Objects' objects: older runs first, those of a run as they came here. */
export class Selection<T> {
  /** In no order; undefined once there are more. */
  #few: Row<T>[] | undefined = [];
  /**
   * From then on. Most runs of a wide selection have one row in it: a set for each would be most of what indexes take.
   */
  #runs: Map<Run<T>, Row<T> | Set<Row<T>>> | undefined;

  get isEmpty(): boolean {
    return (this.#few?.length ?? this.#runs?.size) === 0;
  }

  add(row: Row<T>): void {
    const few = this.#few;
    if (this.#runs) addToRun(this.#runs, row);
    else if (few?.includes(row)) return;
    else if (few && few.length < listedRows) few.push(row);
    else {
      this.#runs = new Map();
      this.#few = undefined;
      for (const one of [...few!, row]) addToRun(this.#runs, one);
    }
  }

  delete(row: Row<T>): void {
    if (this.#few) {
      const at = this.#few.indexOf(row);
      if (at >= 0) this.#few.splice(at, 1);
      return;
    }
    const rows = this.#runs!.get(row.run);
    if (rows instanceof Set) rows.delete(row);
    if (rows === row || (rows instanceof Set && rows.size === 0)) this.#runs!.delete(row.run);
  }

  objects(): T[] {
    if (this.#few) {
      const inOrder = [...this.#few].sort((one, other) => one.run.number - other.run.number);
      return inOrder.map(({ object }) => object);
    }
    const found: T[] = [];
    const inOrder = [...this.#runs!].sort(([one], [other]) => one.number - other.number);
    for (const [, rows] of inOrder) {
      if (rows instanceof Set) for (const { object } of rows) found.push(object);
      else found.push(rows.object);
    }
    return found;
  }
}

function addToRun<T>(runs: Map<Run<T>, Row<T> | Set<Row<T>>>, row: Row<T>): void {
  const rows = runs.get(row.run);
  if (rows === undefined) runs.set(row.run, row);
  else if (rows instanceof Set) rows.add(row);
  else if (rows !== row) runs.set(row.run, new Set([rows, row]));
}
