/**
 * The order in which nodes are offered to the tasks of one revision: spread over the placement
 * preferences, one inside the other, then over nodes by this service's tasks there, then by all tasks.
 * A node on which the revision failed often lately comes after all that did not (SwarmKit's rule).
 */
import type { Placement } from '../../proto/docker.ts';
import type { NodeEntry } from './node-table.ts';

/** Failures in the last five minutes from which on a node is avoided. */
export const failuresToAvoid = 5;

/** What ranks a node. The first that differs decides. */
interface Candidate {
  readonly entry: NodeEntry;
  readonly failures: number;
  replicas: number;
  tasks: number;
  /** Where the node stood in the list: the last word, so that equal input gives equal output. */
  readonly order: number;
}

interface Leaf {
  readonly kind: 'leaf';
  /** A binary heap, the best first. */
  readonly heap: Candidate[];
  replicas: number;
}

interface Branch {
  readonly kind: 'branch';
  readonly children: (Leaf | Branch)[];
  replicas: number;
}

export interface SpreadInput {
  /** Every node of the cluster: the balance counts tasks on nodes that take no more, too. */
  readonly entries: readonly NodeEntry[];
  readonly preferences: NonNullable<Placement['Preferences']>;
  /** Whether the node may take any task at all; asked once. */
  readonly isEligible: (entry: NodeEntry) => boolean;
  /** Whether the node may take one more task now; asked again after each placement. */
  readonly fits: (entry: NodeEntry) => boolean;
  readonly replicasOn: (entry: NodeEntry) => number;
  readonly failuresOn: (entry: NodeEntry) => number;
}

/** Hands out nodes one by one, the best for the next task first. */
export class Spread {
  private readonly input: SpreadInput;
  private readonly root: Leaf | Branch;

  constructor(input: SpreadInput) {
    this.input = input;
    const labels = input.preferences.map((preference) => labelReader(preference.Spread.SpreadDescriptor));
    this.root = grow(input, input.entries, labels);
  }

  /**
   * Takes the best node for one more task; `place` must count the task before it returns, so that `fits`
   * sees it. Undefined when no node can take one; then none will.
   */
  next(place: (entry: NodeEntry) => void): NodeEntry | undefined {
    return this.take(this.root, place);
  }

  private take(tree: Leaf | Branch, place: (entry: NodeEntry) => void): NodeEntry | undefined {
    if (tree.kind === 'leaf') return this.takeFromLeaf(tree, place);
    while (tree.children.length > 0) {
      const index = leastLoaded(tree.children);
      const taken = this.take(tree.children[index]!, place);
      if (taken) {
        tree.replicas += 1;
        return taken;
      }
      tree.children.splice(index, 1);
    }
    return undefined;
  }

  private takeFromLeaf(leaf: Leaf, place: (entry: NodeEntry) => void): NodeEntry | undefined {
    const { heap } = leaf;
    while (heap.length > 0) {
      const best = heap[0]!;
      if (!this.input.fits(best.entry)) {
        dropFirst(heap);
        continue;
      }
      place(best.entry);
      leaf.replicas += 1;
      best.replicas += 1;
      best.tasks += 1;
      siftDown(heap, 0);
      return best.entry;
    }
    return undefined;
  }
}

/** The tree for `entries`, which are in the order that decides last. */
function grow(
  input: SpreadInput,
  entries: readonly NodeEntry[],
  labels: readonly LabelReader[],
): Leaf | Branch {
  const [labelOf, ...rest] = labels;
  if (labelOf === undefined) return growLeaf(input, entries);
  const groups = new Map<string, NodeEntry[]>();
  for (const entry of entries) {
    const value = labelOf(entry);
    const group = groups.get(value);
    if (group) group.push(entry);
    else groups.set(value, [entry]);
  }
  const values = [...groups.keys()].sort();
  const children = values.map((value) => grow(input, groups.get(value)!, rest));
  return { kind: 'branch', children, replicas: children.reduce((sum, child) => sum + child.replicas, 0) };
}

function growLeaf(input: SpreadInput, entries: readonly NodeEntry[]): Leaf {
  const heap: Candidate[] = [];
  let total = 0;
  for (let order = 0; order < entries.length; order += 1) {
    const entry = entries[order]!;
    const replicas = input.replicasOn(entry);
    total += replicas;
    if (!input.isEligible(entry) || !input.fits(entry)) continue;
    heap.push({ entry, failures: input.failuresOn(entry), replicas, tasks: entry.activeTasks, order });
  }
  for (let index = (heap.length >> 1) - 1; index >= 0; index -= 1) siftDown(heap, index);
  return { kind: 'leaf', heap, replicas: total };
}

type LabelReader = (entry: NodeEntry) => string;

/** Reads `node.labels.x` or `engine.labels.x` off a node; nodes without the label count as one group. */
export function labelReader(descriptor: string): LabelReader {
  const [, scope, name] = /^(node|engine)\.labels\.(.+)$/i.exec(descriptor) ?? [];
  if (scope === undefined || name === undefined) return () => '';
  const isNodeLabel = scope.toLowerCase() === 'node';
  return ({ node }) => {
    const labels = isNodeLabel ? node.Spec.Labels : node.Description.Engine.Labels;
    return Object.hasOwn(labels, name) ? labels[name]! : '';
  };
}

function leastLoaded(children: readonly (Leaf | Branch)[]): number {
  let least = 0;
  for (let index = 1; index < children.length; index += 1) {
    if (children[index]!.replicas < children[least]!.replicas) least = index;
  }
  return least;
}

/** Whether `a` is to be offered before `b`. */
function isBetter(a: Candidate, b: Candidate): boolean {
  const avoidA = a.failures >= failuresToAvoid ? a.failures : 0;
  const avoidB = b.failures >= failuresToAvoid ? b.failures : 0;
  if (avoidA !== avoidB) return avoidA < avoidB;
  if (a.replicas !== b.replicas) return a.replicas < b.replicas;
  if (a.tasks !== b.tasks) return a.tasks < b.tasks;
  return a.order < b.order;
}

function dropFirst(heap: Candidate[]): void {
  const last = heap.pop()!;
  if (heap.length === 0) return;
  heap[0] = last;
  siftDown(heap, 0);
}

function siftDown(heap: Candidate[], start: number): void {
  let index = start;
  for (;;) {
    let best = index;
    for (const child of [2 * index + 1, 2 * index + 2]) {
      if (child < heap.length && isBetter(heap[child]!, heap[best]!)) best = child;
    }
    if (best === index) return;
    const held = heap[index]!;
    heap[index] = heap[best]!;
    heap[best] = held;
    index = best;
  }
}
