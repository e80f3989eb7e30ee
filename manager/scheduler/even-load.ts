/**
 * Nodes by how much they have to do, for the tasks of services that are on few nodes yet: what spread.ts says of them,
 * without a look at every node for each service. One is shared by all services with the same choice of nodes.
 */
import type { NodeEntry } from './node-table.ts';

interface Candidate {
  readonly entry: NodeEntry;
  /** The entry's tasks when it was last put in place: it may have more since, never fewer. */
  tasks: number;
  /** Where the node stood in the list: the last word, as in spread.ts. */
  readonly order: number;
}

export class EvenLoad {
  /** A binary heap, the node with the least to do first. */
  private readonly heap: Candidate[] = [];

  /** Of the nodes `entries`, those that `isEligible`. While it is used, nodes get tasks and lose none. */
  constructor(entries: readonly NodeEntry[], isEligible: (entry: NodeEntry) => boolean) {
    for (let order = 0; order < entries.length; order += 1) {
      const entry = entries[order]!;
      if (isEligible(entry)) this.heap.push({ entry, tasks: entry.activeTasks, order });
    }
    for (let at = (this.heap.length >> 1) - 1; at >= 0; at -= 1) this.siftDown(at);
  }

  /**
   * Gives up to `count` tasks a node each, one after the other: `takes` says whether a node can have one, and `place`
   * counts it there. Looks at `mostLooks` nodes at most. Answers how many got one; the others may or may not find one.
   */
  hand(
    count: number,
    takes: (entry: NodeEntry) => boolean,
    place: (entry: NodeEntry, at: number) => void,
    mostLooks: number,
  ): number {
    const seen: Candidate[] = [];
    let given = 0;
    while (given < count && seen.length < mostLooks) {
      const first = this.pop();
      if (first === undefined) break;
      if (takes(first.entry)) {
        place(first.entry, given);
        given += 1;
      }
      seen.push(first);
    }
    for (const candidate of seen) this.push(candidate);
    return given;
  }

  private pop(): Candidate | undefined {
    const { heap } = this;
    for (let first = heap[0]; first !== undefined; first = heap[0]) {
      if (first.tasks === first.entry.activeTasks) break;
      first.tasks = first.entry.activeTasks;
      this.siftDown(0);
    }
    const first = heap[0];
    const last = heap.pop();
    if (first !== undefined && last !== undefined && heap.length > 0) {
      heap[0] = last;
      this.siftDown(0);
    }
    return first;
  }

  private push(candidate: Candidate): void {
    const { heap } = this;
    candidate.tasks = candidate.entry.activeTasks;
    let at = heap.push(candidate) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBetter(candidate, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = candidate;
  }

  private siftDown(start: number): void {
    const { heap } = this;
    const held = heap[start]!;
    let at = start;
    for (let child = 2 * at + 1; child < heap.length; child = 2 * at + 1) {
      if (child + 1 < heap.length && isBetter(heap[child + 1]!, heap[child]!)) child += 1;
      if (!isBetter(heap[child]!, held)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = held;
  }
}

function isBetter(a: Candidate, b: Candidate): boolean {
  return a.tasks === b.tasks ? a.order < b.order : a.tasks < b.tasks;
}
