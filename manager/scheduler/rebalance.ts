/**
 * Rebalancing: which tasks of a service would be better off on other nodes, e.g. on one that has joined. It marks tasks
 * (Private.Move) with the reason; the service's reconciler starts the next one first, as many at a time as its updates,
 * and the scheduler finds it the node. Nothing is moved that does not make the spread better by a whole task, so that
 * it comes to rest.
 *
 * By itself only for services that ask for it (`shoal.rebalance`), so many tasks at a time; a key is such a service.
 */
import type { Service, Task } from '../../proto/docker.ts';
import { asId, type NodeId, type ServiceId, type TaskId } from '../../proto/ids.ts';
import type { Change } from '../store/change.ts';
import { nothing, type Reconciler } from '../store/reconciler.ts';
import { serviceOption } from '../store/service-options.ts';
import type { View } from '../store/store.ts';
import { modeName } from '../store/tables.ts';
import type { StoreEvent } from '../store/watch.ts';
import { checksOf, isAvailable, pickGeneric } from './filters.ts';
import { type Claim, claimOf, isWanted, type NodeEntry, NodeTable } from './node-table.ts';
import { failuresToAvoid, labelReader } from './spread.ts';

export interface Move {
  readonly task: Task;
  readonly from: NodeId;
  readonly to: NodeId;
  readonly reason: string;
}

/** Where a node stands: tasks of the service in each of its groups, from the outermost, and then on itself. */
interface Place {
  readonly entry: NodeEntry;
  readonly path: readonly string[];
}

/**
 * The moves that would even a replicated service out, the best first, at most `most`; none while it is not at rest.
 * `known` is the table of what is in `view`, for who has it; it is left as it was given.
 */
export function movesOf(
  view: View,
  service: Service,
  now: number,
  most = Number.POSITIVE_INFINITY,
  known?: NodeTable,
): Move[] {
  const wanted = view.find('task', 'service', service.ID).filter(isWanted);
  const isAtRest = wanted.every((task) => task.Status.State === 'running');
  // A slot that is bound to its volumes would only come back.
  const isBound = serviceOption(service.Spec.Labels, 'volume.sticky');
  if (modeName(service.Spec.Mode) !== 'Replicated' || isBound || !isAtRest || wanted.length === 0) return [];
  const table = known ?? NodeTable.build(view);
  const moves: Move[] = [];
  const before = new Map<TaskId, Claim>();
  try {
    for (const move of bestMoves(view, service, now, wanted, table)) {
      if (moves.length >= most) break;
      moves.push(move);
      const { task, to } = move;
      before.set(task.ID, table.claim(task.ID)!);
      const entry = table.nodes.get(to)!;
      const demand = table.demandOf(service.Private.RevisionID, service.Spec);
      table.place(task.ID, claimOf(task, demand, entry, pickGeneric(entry, service.Spec)));
    }
  } finally {
    for (const [id, claim] of before) table.place(id, claim);
  }
  return moves;
}

/** One move after the other; each is counted in the table before the next one is looked for. */
function* bestMoves(
  view: View,
  service: Service,
  now: number,
  wanted: readonly Task[],
  table: NodeTable,
): Generator<Move, void> {
  const spec = service.Spec;
  const readers = (spec.TaskTemplate.Placement?.Preferences ?? []).map((one) =>
    labelReader(one.Spread.SpreadDescriptor),
  );
  const places: Place[] = [...table.nodes.values()].map((entry) => {
    const path: string[] = [];
    for (const read of readers) path.push(`${path.at(-1) ?? ''}/${read(entry)}`);
    return { entry, path };
  });
  const checks = checksOf({ view, table, task: wanted[0]!, spec });
  const stay = new Set(wanted.filter((task) => task.Private.Move !== undefined).map((task) => task.ID));
  for (;;) {
    const weights = weigh(places, service.ID);
    const targets = places.filter(
      ({ entry }) =>
        checks.every((check) => check.passes(entry)) &&
        table.recentFailures(entry, service.Private.RevisionID, now) < failuresToAvoid,
    );
    const target = leastOf(targets, weights);
    const found = target && heaviestFor(target, places, weights, wanted, stay);
    if (!found) return;
    const { task, from } = found;
    stay.add(task.ID);
    const reason = `node ${nameOf(target.entry)} has less to do than node ${nameOf(from.entry)}`;
    yield { task, from: from.entry.id, to: target.entry.id, reason };
  }
}

/** What marks the tasks of moves. */
export function changesOfMoves(moves: readonly Move[]): Change[] {
  return moves.map(({ task, reason }) => ({
    op: 'merge',
    kind: 'task',
    id: task.ID,
    fields: { Private: { ...task.Private, Move: { Reason: reason } } },
  }));
}

/** Tasks of the service by group, and by node under `=id`. */
function weigh(places: readonly Place[], service: ServiceId): Map<string, number> {
  const weights = new Map<string, number>();
  for (const { entry, path } of places) {
    const count = entry.activeByService.get(service) ?? 0;
    for (const key of [...path, `=${entry.id}`]) weights.set(key, (weights.get(key) ?? 0) + count);
  }
  return weights;
}

function keysOf({ entry, path }: Place): string[] {
  return [...path, `=${entry.id}`];
}

/** Negative when `a` is lighter than `b`, first by groups, then by the service's tasks, then by all. */
function compare(a: Place, b: Place, weights: ReadonlyMap<string, number>): number {
  const [left, right] = [keysOf(a), keysOf(b)];
  for (let level = 0; level < left.length; level += 1) {
    const difference = weights.get(left[level]!)! - weights.get(right[level]!)!;
    if (difference !== 0) return difference;
  }
  return a.entry.activeTasks - b.entry.activeTasks;
}

function leastOf(places: readonly Place[], weights: ReadonlyMap<string, number>): Place | undefined {
  return places.reduce<Place | undefined>(
    (least, place) => (least && compare(least, place, weights) <= 0 ? least : place),
    undefined,
  );
}

/** The task whose move to `target` helps most, and from where; undefined when none does. */
function heaviestFor(
  target: Place,
  places: readonly Place[],
  weights: ReadonlyMap<string, number>,
  tasks: readonly Task[],
  stay: ReadonlySet<Task['ID']>,
): { task: Task; from: Place } | undefined {
  const byNode = new Map<NodeId | undefined, Task>();
  for (const task of tasks) if (!stay.has(task.ID)) byNode.set(task.NodeID, task);
  const from = places
    .filter(
      (place) => byNode.has(place.entry.id) && isAvailable(place.entry) && helps(place, target, weights),
    )
    .reduce<Place | undefined>(
      (most, place) => (most && compare(most, place, weights) >= 0 ? most : place),
      undefined,
    );
  return from && { task: byNode.get(from.entry.id)!, from };
}

/** Whether a task's move makes the first level on which the two nodes differ more even, by a whole task. */
function helps(from: Place, to: Place, weights: ReadonlyMap<string, number>): boolean {
  const [left, right] = [keysOf(from), keysOf(to)];
  const level = left.findIndex((key, at) => key !== right[at]);
  if (level < 0) return false;
  const difference = weights.get(left[level]!)! - weights.get(right[level]!)!;
  if (difference >= 2) return true;
  const isNodes = level === left.length - 1;
  return isNodes && difference === 1 && from.entry.activeTasks - to.entry.activeTasks >= 2;
}

function nameOf(entry: NodeEntry): string {
  return entry.node.Description.Hostname || entry.id;
}

// ---------------------------------------------------------------- as a reconciler

function budgetOf(service: Service | undefined): number {
  return service ? serviceOption(service.Spec.Labels, 'rebalance') : 0;
}

/** The rebalancer as the loop drives it. Its table of nodes follows the events, from when a service first asks for it. */
export function rebalancer(): Reconciler {
  let table: NodeTable | undefined;
  return {
    name: 'rebalance',
    keysFor(event, view) {
      table?.note(event, view);
      return keysFor(event, view);
    },
    allKeys(view) {
      table = undefined;
      return rebalanced(view);
    },
    reconcile(view, key, now) {
      const service = view.get('service', asId<ServiceId>(key));
      const budget = budgetOf(service);
      if (!service || budget === 0) return nothing;
      const isUnderWay = view
        .find('task', 'service', service.ID)
        .some((task) => isWanted(task) && task.Private.Move !== undefined);
      if (isUnderWay) return nothing;
      table ??= NodeTable.build(view);
      return { changes: changesOfMoves(movesOf(view, service, now, budget, table)) };
    },
  };
}

const none: readonly string[] = [];

function keysFor(event: StoreEvent, view: View): readonly string[] {
  if (event.kind === 'service') {
    return event.op !== 'remove' && budgetOf(event.object) > 0 ? [event.object.ID] : none;
  }
  if (event.kind === 'task') {
    const service = view.get('service', event.object.ServiceID);
    return service && budgetOf(service) > 0 ? [service.ID] : none;
  }
  if (event.kind !== 'node') return none;
  const isSame =
    event.previous?.Status.State === event.object.Status.State && event.previous?.Spec === event.object.Spec;
  return isSame ? none : rebalanced(view);
}

function rebalanced(view: View): string[] {
  return view.list('service').flatMap((service) => (budgetOf(service) > 0 ? [service.ID] : []));
}
