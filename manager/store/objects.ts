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

  /** As set; answers whether the key is new. Quicker than to look first. */
  add(key: string, value: V): boolean {
    const map = this.#mapOf(key);
    const { size } = map;
    map.set(key, value);
    const isNew = map.size > size;
    if (map === this.#plain && map.size > plainEntries) this.#split(map);
    return isNew;
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
  /** Who came later has a higher one. */
  readonly place: number;
  readonly run: Run<T>;
  /** The object as it is now. */
  readonly object: T;
}

/** Objects that came one after the other; who came later is in none with a lower number. */
class Run<T> {
  readonly number: number;
  /** In order of their places: a set of them would take several times the room and the time. */
  readonly rows: WritableRow<T>[] = [];
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
    this.size = run.rows.length;
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
    return this.#run ? this.#run.rows.map(({ object }) => object) : this.#kept;
  }
}

const runObjects = 1_024;

/** Objects by id, in the order in which they came; one that is replaced keeps its place. */
export class Objects<T> {
  readonly #rows = new ShardedMap<WritableRow<T>>();
  /** In order; those of which nothing is left are dropped. */
  readonly #runs = new Set<Run<T>>();
  #last: Run<T> | undefined;
  #lastPlace = 0;
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
    const row = this.#newRow(id, object);
    this.#rows.set(id, row);
    return row;
  }

  /** As set, of one that is new. Throws when it is not. */
  add(id: string, object: T): Row<T> {
    const row = this.#newRow(id, object);
    if (!this.#rows.add(id, row)) throw new Error(`${id} is there twice`);
    return row;
  }

  #newRow(id: string, object: T): WritableRow<T> {
    const run = this.#openRun();
    run.beforeChange();
    this.#lastPlace += 1;
    this.#size += 1;
    const row = { id, place: this.#lastPlace, run, object };
    run.rows.push(row);
    return row;
  }

  delete(id: string): void {
    const row = this.#rows.get(id);
    if (row === undefined) return;
    const { run } = row;
    run.beforeChange();
    removeRow(run.rows, row);
    if (run.rows.length === 0) this.#runs.delete(run);
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
    if (last && this.#runs.has(last) && last.rows.length < runObjects) return last;
    const next = new Run<T>((last?.number ?? 0) + 1);
    this.#last = next;
    this.#runs.add(next);
    return next;
  }
}

/** Where the row of a place stands in `rows`, or would stand. */
function positionOf<T>(rows: readonly Row<T>[], place: number): number {
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle]!.place < place) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Into a list in order of places, once. */
function insertRow<T>(rows: Row<T>[], row: Row<T>): void {
  if (rows.length === 0 || rows[rows.length - 1]!.place < row.place) {
    rows.push(row);
    return;
  }
  const at = positionOf(rows, row.place);
  if (rows[at] !== row) rows.splice(at, 0, row);
}

function removeRow<T>(rows: Row<T>[], row: Row<T>): void {
  const at = positionOf(rows, row.place);
  if (rows[at] === row) rows.splice(at, 1);
}

/** Of so many rows a list is still quick to be changed in its middle. */
const listedRows = 512;

/** Some of an Objects' objects: those that came earlier first. */
export class Selection<T> {
  /** Lists in order of places, none of them empty; what is in one comes before what is in the next. */
  readonly #lists: Row<T>[][] = [];

  get isEmpty(): boolean {
    return this.#lists.length === 0;
  }

  add(row: Row<T>): void {
    const lists = this.#lists;
    const last = lists[lists.length - 1];
    // What comes late mostly comes last.
    if (last === undefined || last[last.length - 1]!.place < row.place) {
      if (last !== undefined && last.length < listedRows) last.push(row);
      else lists.push([row]);
      return;
    }
    const at = this.#listOf(row);
    const list = lists[at]!;
    insertRow(list, row);
    if (list.length > 2 * listedRows) lists.splice(at + 1, 0, list.splice(listedRows));
  }

  delete(row: Row<T>): void {
    const at = this.#listOf(row);
    const list = this.#lists[at];
    if (list === undefined) return;
    removeRow(list, row);
    if (list.length === 0) this.#lists.splice(at, 1);
  }

  objects(): T[] {
    const found: T[] = [];
    for (const list of this.#lists) for (const { object } of list) found.push(object);
    return found;
  }

  /** The number of the list that has, or takes, the row. */
  #listOf({ place }: Row<T>): number {
    let [low, high] = [0, this.#lists.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.#lists[middle]![0]!.place <= place) low = middle;
      else high = middle;
    }
    return low;
  }
}

/** Key → objects, so that one that stays under its keys costs nothing. */
export class ObjectIndex<T> {
  /** Most keys have one object: it stands alone. */
  readonly #places = new ShardedMap<Row<T> | Selection<T>>();
  /** Where the last one went; many that come together often have one key. */
  #lastKey: string | undefined;
  #lastSelection: Selection<T> | undefined;

  find(key: string): T[] {
    const found = this.#places.get(key);
    if (found === undefined) return [];
    return found instanceof Selection ? found.objects() : [found.object];
  }

  add(key: string, row: Row<T>): void {
    if (key === this.#lastKey && this.#lastSelection !== undefined) {
      this.#lastSelection.add(row);
      return;
    }
    const found = this.#places.get(key);
    if (found === undefined || found === row) {
      this.#places.set(key, row);
      return;
    }
    let selection = found;
    if (!(selection instanceof Selection)) {
      selection = new Selection<T>();
      selection.add(found as Row<T>);
      this.#places.set(key, selection);
    }
    selection.add(row);
    this.#lastKey = key;
    this.#lastSelection = selection;
  }

  delete(key: string, row: Row<T>): void {
    const found = this.#places.get(key);
    if (found instanceof Selection) found.delete(row);
    if (found !== row && !(found instanceof Selection && found.isEmpty)) return;
    this.#places.delete(key);
    if (key === this.#lastKey) this.#lastKey = undefined;
  }
}
