/**
 * Maps for a million objects: they grow, are listed and are copied without a pause, which Node's own does not. That
 * one moves all its entries when it doubles (a quarter of a second at a million), in the middle of whatever runs.
 * Small ones are Node's own. Pure.
 */
import { hashOf, PlaceTable } from './place-table.ts';

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

/** So many objects stand in one page. Few, for a page is copied when it changes while it is read, and stays while one is left. */
const pageObjects = 64;

/** Objects that came one after the other. */
class Page<T> {
  readonly number: number;
  /** By their places; a hole where one is gone. */
  readonly slots: (T | undefined)[] = [];
  readonly ids: string[] = [];
  size = 0;
  /** Who reads the page as it is now. */
  reader: PageReader<T> | undefined;

  constructor(number: number) {
    this.number = number;
  }

  /** To be called before each change: gives those who read the page as it was a copy. */
  beforeChange(): void {
    this.reader?.keep();
    this.reader = undefined;
  }
}

/** Objects that stay what they are, in order. */
export interface ObjectRun<T> {
  readonly size: number;
  values(): Iterable<T>;
}

/** The objects of a page as they were when it was made: the page's own until something of it changes. */
class PageReader<T> implements ObjectRun<T> {
  readonly size: number;
  #page: Page<T> | undefined;
  #kept: readonly T[] = [];

  constructor(page: Page<T>) {
    this.size = page.size;
    this.#page = page;
  }

  keep(): void {
    this.#kept = this.#listed();
    this.#page = undefined;
  }

  /** A list from the first moment on: the page may change while it is gone through. */
  values(): readonly T[] {
    return this.#listed();
  }

  #listed(): readonly T[] {
    return this.#page ? this.#page.slots.filter((object) => object !== undefined) : this.#kept;
  }
}

/**
 * Objects by id, in the order in which they came. Each has a place, a number that it keeps when it is replaced; who came
 * later has a higher one. Whatever refers to objects by the million names their places: numbers cost the collector
 * nothing, where a reference from what is old to what is new is gone after each time.
 */
export class Objects<T> {
  /** By ids, which managers choose. */
  readonly #places = new PlaceTable();
  /** In order, from page #firstPage on; those of which nothing is left are dropped. */
  #pages: (Page<T> | undefined)[] = [];
  #firstPage = 0;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(id: string): T | undefined {
    const place = this.#placeOf(hashOf(id), id);
    return place < 0 ? undefined : this.at(place);
  }

  /** The place of the object with the id. */
  place(id: string): number | undefined {
    const place = this.#placeOf(hashOf(id), id);
    return place < 0 ? undefined : place;
  }

  /** The object that has the place. */
  at(place: number): T | undefined {
    return this.#pageOf(place)?.slots[place % pageObjects];
  }

  /** Answers the object's place. */
  set(id: string, object: T): number {
    const hash = hashOf(id);
    const known = this.#placeOf(hash, id);
    if (known < 0) return this.#append(hash, id, object);
    const page = this.#pageOf(known)!;
    page.beforeChange();
    page.slots[known % pageObjects] = object;
    return known;
  }

  /** As set, of one that is new. Throws when it is not. */
  add(id: string, object: T): number {
    const hash = hashOf(id);
    if (this.#placeOf(hash, id) >= 0) throw new Error(`${id} is there twice`);
    return this.#append(hash, id, object);
  }

  delete(id: string): void {
    const hash = hashOf(id);
    const place = this.#placeOf(hash, id);
    if (place < 0) return;
    const page = this.#pageOf(place)!;
    page.beforeChange();
    page.slots[place % pageObjects] = undefined;
    page.ids[place % pageObjects] = '';
    page.size -= 1;
    this.#places.delete(hash, place);
    this.#size -= 1;
    if (page.size === 0) this.#drop(page);
  }

  /** In order. Not to be used any more once something has changed. */
  *values(): Generator<T, void> {
    for (const page of this.#pages) {
      if (page === undefined) continue;
      for (const object of page.slots) if (object !== undefined) yield object;
    }
  }

  list(): T[] {
    const all: T[] = [];
    for (const page of this.#pages) {
      if (page === undefined) continue;
      for (const object of page.slots) if (object !== undefined) all.push(object);
    }
    return all;
  }

  /** The objects as they are now, whatever becomes of them: runs of them, in order. Quick at any size. */
  asOfNow(): readonly ObjectRun<T>[] {
    const runs: ObjectRun<T>[] = [];
    for (const page of this.#pages) {
      if (page === undefined) continue;
      page.reader ??= new PageReader(page);
      runs.push(page.reader);
    }
    return runs;
  }

  #pageOf(place: number): Page<T> | undefined {
    return this.#pages[Math.floor(place / pageObjects) - this.#firstPage];
  }

  #placeOf(hash: number, id: string): number {
    return this.#places.find(hash, (place) => this.#pageOf(place)!.ids[place % pageObjects] === id);
  }

  #append(hash: number, id: string, object: T): number {
    const page = this.#openPage();
    page.beforeChange();
    const place = page.number * pageObjects + page.slots.length;
    page.slots.push(object);
    page.ids.push(id);
    this.#places.add(hash, place);
    page.size += 1;
    this.#size += 1;
    return place;
  }

  /** The page that takes the next new object. */
  #openPage(): Page<T> {
    const last = this.#pages[this.#pages.length - 1];
    if (last !== undefined && last.slots.length < pageObjects) return last;
    const next = new Page<T>(this.#firstPage + this.#pages.length);
    this.#pages.push(next);
    return next;
  }

  /** Its number is not given again. */
  #drop({ number }: Page<T>): void {
    this.#pages[number - this.#firstPage] = undefined;
    const first = this.#pages.findIndex((page) => page !== undefined);
    const gone = first < 0 ? this.#pages.length : first;
    // In strides, for a cut costs as much as what is kept.
    if (gone <= this.#pages.length / 2) return;
    this.#pages = this.#pages.slice(gone);
    this.#firstPage += gone;
  }
}

/** Where a place stands in `places`, or would stand. */
function positionOf(places: readonly number[], place: number): number {
  let [low, high] = [0, places.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (places[middle]! < place) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Of so many places a list is still quick to be changed in its middle. */
const listedPlaces = 512;

/** Places of some of an Objects' objects: those that came earlier first. */
export class Selection {
  /** In order, none of them empty; what is in one comes before what is in the next. */
  readonly #lists: number[][] = [];
  /** The last of them, and the last place in it: what comes late mostly comes last. */
  #tail: number[] = [];
  #lastPlace = -1;

  get isEmpty(): boolean {
    return this.#lists.length === 0;
  }

  add(place: number): void {
    if (place > this.#lastPlace) {
      this.#append(place);
      return;
    }
    const at = this.#listOf(place);
    const list = this.#lists[at]!;
    const position = positionOf(list, place);
    if (list[position] === place) return;
    list.splice(position, 0, place);
    if (list.length > 2 * listedPlaces) this.#lists.splice(at + 1, 0, list.splice(listedPlaces));
    this.#noteTail();
  }

  delete(place: number): void {
    const at = this.#listOf(place);
    const list = this.#lists[at];
    if (list === undefined) return;
    const position = positionOf(list, place);
    if (list[position] !== place) return;
    list.splice(position, 1);
    if (list.length === 0) this.#lists.splice(at, 1);
    this.#noteTail();
  }

  objectsOf<T>(objects: Objects<T>): T[] {
    const found: T[] = [];
    for (const list of this.#lists) for (const place of list) found.push(objects.at(place)!);
    return found;
  }

  #append(place: number): void {
    if (this.#lists.length === 0 || this.#tail.length >= listedPlaces) {
      this.#tail = [];
      this.#lists.push(this.#tail);
    }
    this.#tail.push(place);
    this.#lastPlace = place;
  }

  #noteTail(): void {
    this.#tail = this.#lists[this.#lists.length - 1] ?? [];
    this.#lastPlace = this.#tail[this.#tail.length - 1] ?? -1;
  }

  /** The number of the list that has, or takes, the place. */
  #listOf(place: number): number {
    let [low, high] = [0, this.#lists.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.#lists[middle]![0]! <= place) low = middle;
      else high = middle;
    }
    return low;
  }
}

/** Key → objects, so that one that stays under its keys costs nothing. */
export interface ObjectIndex<T> {
  /** In order of places. */
  find(key: string): T[];
  add(key: string, place: number): void;
  delete(key: string, place: number): void;
}

/** For keys of which hardly two objects have the same, and which no user chooses: `keysOf` tells them again when it is asked. */
export class HashedIndex<T> implements ObjectIndex<T> {
  readonly #objects: Objects<T>;
  readonly #keysOf: (object: T) => readonly string[];
  readonly #places = new PlaceTable();

  constructor(objects: Objects<T>, keysOf: (object: T) => readonly string[]) {
    this.#objects = objects;
    this.#keysOf = keysOf;
  }

  find(key: string): T[] {
    const places: number[] = [];
    this.#places.find(hashOf(key), (place) => {
      if (this.#keysOf(this.#objects.at(place)!).includes(key)) places.push(place);
      return false;
    });
    return places.sort((one, other) => one - other).map((place) => this.#objects.at(place)!);
  }

  add(key: string, place: number): void {
    const hash = hashOf(key);
    if (this.#places.find(hash, (known) => known === place) < 0) this.#places.add(hash, place);
  }

  delete(key: string, place: number): void {
    this.#places.delete(hashOf(key), place);
  }
}

/** For keys of any kind, shared by any number of objects. */
export class ListedIndex<T> implements ObjectIndex<T> {
  readonly #objects: Objects<T>;
  /** Most keys have one object: its place stands alone. */
  readonly #places = new ShardedMap<number | Selection>();
  /** Where the last one went; many that come together often have one key. */
  #lastKey: string | undefined;
  #lastSelection: Selection | undefined;

  constructor(objects: Objects<T>) {
    this.#objects = objects;
  }

  find(key: string): T[] {
    const found = this.#places.get(key);
    if (found === undefined) return [];
    return typeof found === 'number' ? [this.#objects.at(found)!] : found.objectsOf(this.#objects);
  }

  add(key: string, place: number): void {
    if (key === this.#lastKey && this.#lastSelection !== undefined) {
      this.#lastSelection.add(place);
      return;
    }
    const found = this.#places.get(key);
    if (found === undefined || found === place) {
      this.#places.set(key, place);
      return;
    }
    let selection = found;
    if (typeof selection === 'number') {
      const first = selection;
      selection = new Selection();
      selection.add(first);
      this.#places.set(key, selection);
    }
    selection.add(place);
    this.#lastKey = key;
    this.#lastSelection = selection;
  }

  delete(key: string, place: number): void {
    const found = this.#places.get(key);
    if (found instanceof Selection) found.delete(place);
    if (found !== place && !(found instanceof Selection && found.isEmpty)) return;
    this.#places.delete(key);
    if (key === this.#lastKey) this.#lastKey = undefined;
  }
}
