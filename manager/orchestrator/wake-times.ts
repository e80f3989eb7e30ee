/** When which key is to be looked at again: a binary heap by time, with the time that counts kept by key. */

export interface WakeKey {
  /** Position of the reconciler in the loop's list. */
  readonly reconciler: number;
  readonly key: string;
}

interface Entry extends WakeKey {
  /** ms since the epoch. */
  readonly at: number;
}

export class WakeTimes {
  /** Entries that `#current` does not hold are out of date, and dropped when they surface. */
  readonly #heap: Entry[] = [];
  readonly #current = new Map<string, Entry>();

  /** Sets, or with `undefined` clears, when a key is to be looked at again. */
  set(reconciler: number, key: string, at: number | undefined): void {
    const name = nameOf({ reconciler, key });
    if (at === undefined) {
      this.#current.delete(name);
      return;
    }
    if (this.#current.get(name)?.at === at) return;
    const entry = { reconciler, key, at };
    this.#current.set(name, entry);
    this.#push(entry);
  }

  /** The earliest time; undefined when there is none. */
  earliest(): number | undefined {
    for (let top = this.#heap[0]; top; top = this.#heap[0]) {
      if (this.#current.get(nameOf(top)) === top) return top.at;
      this.#pop();
    }
    return undefined;
  }

  /** Takes out the keys whose time is `now` or earlier. */
  takeDue(now: number): WakeKey[] {
    const due: WakeKey[] = [];
    for (let at = this.earliest(); at !== undefined && at <= now; at = this.earliest()) {
      const entry = this.#pop()!;
      this.#current.delete(nameOf(entry));
      due.push(entry);
    }
    return due;
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let at = heap.push(entry) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (heap[parent]!.at <= entry.at) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = entry;
  }

  #pop(): Entry | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (top === undefined || last === undefined || heap.length === 0) return top;
    let at = 0;
    for (let child = 1; child < heap.length; child = 2 * at + 1) {
      if (child + 1 < heap.length && heap[child + 1]!.at < heap[child]!.at) child += 1;
      if (last.at <= heap[child]!.at) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
    return top;
  }
}

function nameOf({ reconciler, key }: WakeKey): string {
  return `${reconciler} ${key}`;
}
