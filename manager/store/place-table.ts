/**
 * Hashes → places of objects, a million of them, in plain numbers: the keys themselves are not kept, so whoever finds a place
 * asks the object whether it is the one. Maps of strings take several times the memory, miss the processor's caches with
 * each key that they compare, and are gone through by the collector again and again.
 *
 * Not for keys that users choose freely: they could choose such as have one hash, and then each search is long. Pure.
 */

/** Up to so many entries one table is quick enough to be moved when it grows. */
const plainEntries = 2 ** 14;
const shardCount = 64;
const shardShift = 26;
const firstSlots = 16;

/** Of all letters, well mixed: a 32-bit number. */
export function hashOf(key: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < key.length; at += 1) hash = Math.imul(hash ^ key.charCodeAt(at), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

/** Entries stand in the slot that their hash says, or in the first free one after it. */
class Shard {
  size = 0;
  #hashes = new Int32Array(firstSlots);
  /** One more than the place; 0 where there is none. Places may become larger than 32 bits. */
  #places = new Float64Array(firstSlots);
  #mask = firstSlots - 1;

  add(hash: number, place: number): void {
    // At most half full, so that free slots are never far.
    if (2 * this.size > this.#mask) this.#grow();
    let slot = hash & this.#mask;
    while (this.#places[slot] !== 0) slot = (slot + 1) & this.#mask;
    this.#hashes[slot] = hash;
    this.#places[slot] = place + 1;
    this.size += 1;
  }

  /** The first place with the hash for which `isWanted`; -1 when there is none. */
  find(hash: number, isWanted: (place: number) => boolean): number {
    for (let slot = hash & this.#mask; this.#places[slot] !== 0; slot = (slot + 1) & this.#mask) {
      if (this.#hashes[slot] !== hash) continue;
      const place = this.#places[slot]! - 1;
      if (isWanted(place)) return place;
    }
    return -1;
  }

  delete(hash: number, place: number): boolean {
    let slot = hash & this.#mask;
    while (this.#hashes[slot] !== hash || this.#places[slot] !== place + 1) {
      if (this.#places[slot] === 0) return false;
      slot = (slot + 1) & this.#mask;
    }
    this.#close(slot);
    this.size -= 1;
    return true;
  }

  /** Those after the gap that would not be found behind it any more move up. */
  #close(slot: number): void {
    let gap = slot;
    for (let next = (gap + 1) & this.#mask; this.#places[next] !== 0; next = (next + 1) & this.#mask) {
      const wanted = this.#hashes[next]! & this.#mask;
      if (((next - wanted) & this.#mask) < ((next - gap) & this.#mask)) continue;
      this.#hashes[gap] = this.#hashes[next]!;
      this.#places[gap] = this.#places[next]!;
      gap = next;
    }
    this.#places[gap] = 0;
  }

  #grow(): void {
    const [hashes, places] = [this.#hashes, this.#places];
    this.#hashes = new Int32Array(2 * hashes.length);
    this.#places = new Float64Array(2 * hashes.length);
    this.#mask = 2 * hashes.length - 1;
    this.size = 0;
    for (let slot = 0; slot < hashes.length; slot += 1) {
      if (places[slot] !== 0) this.add(hashes[slot]!, places[slot]! - 1);
    }
  }

  /** In no order. */
  forEach(act: (hash: number, place: number) => void): void {
    for (let slot = 0; slot <= this.#mask; slot += 1) {
      if (this.#places[slot] !== 0) act(this.#hashes[slot]!, this.#places[slot]! - 1);
    }
  }
}

/** In no order; a hash may have several places. */
export class PlaceTable {
  #plain: Shard | undefined = new Shard();
  #shards: readonly Shard[] = [];

  add(hash: number, place: number): void {
    const shard = this.#shardOf(hash);
    shard.add(hash, place);
    if (shard === this.#plain && shard.size > plainEntries) this.#split(shard);
  }

  /** The first place with the hash for which `isWanted`; -1 when there is none. */
  find(hash: number, isWanted: (place: number) => boolean): number {
    return this.#shardOf(hash).find(hash, isWanted);
  }

  /** Answers whether it was there. Of equal entries one goes. */
  delete(hash: number, place: number): boolean {
    return this.#shardOf(hash).delete(hash, place);
  }

  #shardOf(hash: number): Shard {
    return this.#plain ?? this.#shards[hash >>> shardShift]!;
  }

  #split(plain: Shard): void {
    this.#shards = Array.from({ length: shardCount }, () => new Shard());
    this.#plain = undefined;
    plain.forEach((hash, place) => {
      this.#shardOf(hash).add(hash, place);
    });
  }
}
