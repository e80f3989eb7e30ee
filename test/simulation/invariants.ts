/**
 * What must hold at every moment of a run, looked at where it could break: at each applied entry, at each container
 * made, at each move of a leader. The first violation is kept; whoever drives the run stops at it.
 */
import { createHash } from 'node:crypto';
import { taskIdLabel } from '../../agent/engine/container-spec.ts';
import type { ContainerRequest } from '../../agent/engine/engine.ts';
import { vxlanIdsOf } from '../../manager/allocator/ipam.ts';
import type { RaftStatus } from '../../manager/raft/contract.ts';
import { type Change, decodeEntry, encodeEntry, mayBecomeDesired } from '../../manager/store/change.ts';
import type { ApplyResult, Store } from '../../manager/store/store.ts';
import { slotKey } from '../../manager/store/tables.ts';
import type { StoreEvent } from '../../manager/store/watch.ts';
import type { ClusterNode, Network, Service, Task } from '../../proto/docker.ts';
import { isolationLimitMs } from '../../proto/isolation.ts';
import { compareTaskStates, isTerminal } from '../../proto/task-state.ts';
import type { Machine } from './machine.ts';
import type { Trace } from './trace.ts';
import type { StoreObserver } from './watched-store.ts';

/** Every name that a violation can have. */
export type InvariantName =
  | 'one-leader-a-term'
  | 'log-equal'
  | 'store-equal'
  | 'acknowledged-kept'
  | 'version-rises'
  | 'state-rises'
  | 'one-task-a-slot'
  | 'one-holder-an-address'
  | 'one-network-a-vxlan-id'
  | 'container-assigned'
  | 'one-container-a-task'
  | 'never-two'
  | 'manager-goes-on'
  | 'damage-refused'
  | 'everyone-answers'
  | 'removed-stays-out'
  | 'comes-back'
  | 'linearizable'
  | 'reason-told'
  | 'completed-once'
  | 'jobs-at-a-time'
  | 'retried-as-asked'
  | 'schedule-kept'
  | 'runs-apart'
  | 'scale-bounds'
  | 'scale-steady'
  | 'converges'
  | 'comes-to-rest'
  | 'nothing-thrown';

export interface Violation {
  readonly invariant: InvariantName;
  readonly what: string;
}

/** The whole store is compared at every index that this divides. */
const comparedEvery = 50;

interface Applied {
  readonly machine: string;
  readonly data: Uint8Array;
  readonly result: string;
}

/** An address, with its prefix, that somebody has on a network. */
interface Held {
  readonly network: string;
  readonly address: string;
}

function heldBy(object: Task | Service | ClusterNode): Held[] {
  if ('Endpoint' in object) {
    const all = object.Endpoint.VirtualIPs ?? [];
    return all.map(({ NetworkID, Addr }) => ({ network: NetworkID, address: Addr }));
  }
  if ('RevisionID' in object && isTerminal(object.Status.State)) return [];
  const attached = 'RevisionID' in object ? object.NetworksAttachments : object.Attachments;
  return (attached ?? []).flatMap(({ NetworkID, Addresses }) =>
    Addresses.map((address) => ({ network: NetworkID, address })),
  );
}

function newlyHeld<T extends Task | Service | ClusterNode>(object: T, previous: T | undefined): Held[] {
  const before = previous ? heldBy(previous) : [];
  return heldBy(object).filter(
    (one) => !before.some((other) => other.network === one.network && other.address === one.address),
  );
}

/** A change without what the allocator completes on the way. */
function asAsked(change: Change): Change {
  if (change.op !== 'create' && change.op !== 'update') return change;
  if (change.kind === 'service') return { ...change, object: { ...change.object, Endpoint: { Spec: {} } } };
  if (change.kind !== 'network') return change;
  const { DriverState: _, ...object } = change.object;
  return { ...change, object: { ...object, IPAMOptions: { Driver: { Name: '' }, Configs: [] } } };
}

/** Those of runs about jobs, schedules and scaling: kinds/kinds.ts. */
interface KindsObserver {
  happened(happening: { store: Store; event: StoreEvent; entryNow: number }): void;
  started(machine: Machine, containerId: string): void;
  led(): void;
  forget(): void;
}

export class Invariants implements StoreObserver {
  violation: Violation | undefined;
  kinds: KindsObserver | undefined;
  readonly #trace: Trace;
  readonly #applied = new Map<number, Applied>();
  readonly #stores = new Map<number, { machine: string; digest: string }>();
  readonly #leaders = new Map<number, string>();
  readonly #shown = new Map<string, string>();
  readonly #assigned = new Set<string>();
  readonly #containers = new Map<string, { machine: Machine; id: string }>();
  /** Tasks of services that are never to have two: their slots. */
  readonly #guarded = new Map<string, string>();
  #lastIndex = 0;

  constructor(trace: Trace) {
    this.#trace = trace;
  }

  /** The highest index that any manager applied. */
  get lastIndex(): number {
    return this.#lastIndex;
  }

  violate(invariant: InvariantName, what: string): void {
    if (this.violation !== undefined) return;
    this.violation = { invariant, what };
    this.#trace.note(`VIOLATION ${invariant}: ${what}`);
  }

  /** What was applied after `index` is lost with those who had it, and so is all that was known of them. */
  forgetAfter(index: number): void {
    for (const at of [...this.#applied.keys()]) if (at > index) this.#applied.delete(at);
    for (const at of [...this.#stores.keys()]) if (at > index) this.#stores.delete(at);
    this.#leaders.clear();
    this.#containers.clear();
    this.kinds?.forget();
    this.#lastIndex = index;
  }

  // ------------------------------------------------------------ the log and the stores

  applied(
    machine: string,
    store: Store,
    index: number,
    data: Uint8Array,
    result: ApplyResult,
    events: readonly StoreEvent[],
  ): void {
    const shown = result.ok ? 'ok' : `${result.code}: ${result.message}`;
    const known = this.#applied.get(index);
    if (known === undefined) {
      this.#applied.set(index, { machine, data: data.slice(), result: shown });
      this.#lastIndex = Math.max(this.#lastIndex, index);
      this.#trace.mix(`${index} ${shown} ${data.length}`);
      for (const event of events) this.#checkEvent(store, index, event);
      if (this.kinds && events.length > 0) {
        const { now: entryNow } = decodeEntry(data);
        for (const event of events) this.kinds.happened({ store, event, entryNow });
      }
    } else if (!Buffer.from(known.data).equals(data)) {
      const [here, there] = [summary(data), summary(known.data)];
      this.violate('log-equal', `entry ${index} is ${here} on ${machine} and ${there} on ${known.machine}`);
    } else if (known.result !== shown) {
      this.violate(
        'store-equal',
        `entry ${index} was answered ${shown} on ${machine}, ${known.result} on ${known.machine}`,
      );
    }
    if (index % comparedEvery === 0) this.compareStore(machine, store, index);
  }

  restored(machine: string, store: Store, index: number): void {
    this.#trace.mix(`${machine} restored ${index}`);
    this.compareStore(machine, store, index);
  }

  compareStore(machine: string, store: Store, index: number): void {
    const digest = createHash('sha1').update(store.snapshot()).digest('hex');
    const known = this.#stores.get(index);
    if (known === undefined) this.#stores.set(index, { machine, digest });
    else if (known.digest !== digest)
      this.violate('store-equal', `at index ${index} the stores of ${machine} and ${known.machine} differ`);
  }

  /** A manager answered that `changes` are done, at `index`. */
  acknowledged(machine: string, index: number, changes: readonly Change[]): void {
    const known = this.#applied.get(index);
    const said = encodeEntry({ now: 0, changes: changes.map(asAsked) });
    const done = known && encodeEntry({ now: 0, changes: decodeEntry(known.data).changes.map(asAsked) });
    if (done !== undefined && Buffer.from(done).equals(said)) return;
    const there = known === undefined ? 'nothing' : summary(known.data);
    this.violate(
      'acknowledged-kept',
      `${machine} acknowledged a write at index ${index}, where ${there} was applied`,
    );
  }

  #checkEvent(store: Store, index: number, event: StoreEvent): void {
    const { object, previous } = event;
    if (event.op !== 'remove' && object.Version.Index !== index)
      this.violate(
        'version-rises',
        `${event.kind} ${object.ID} has version ${object.Version.Index} after entry ${index}`,
      );
    if (previous !== undefined && object.Version.Index < previous.Version.Index)
      this.violate(
        'version-rises',
        `${event.kind} ${object.ID} went from version ${previous.Version.Index} to ${object.Version.Index}`,
      );
    if (event.op !== 'remove') {
      const isHolder = event.kind === 'task' || event.kind === 'service' || event.kind === 'node';
      if (isHolder) this.#checkAddresses(store, event.object.ID, newlyHeld(event.object, event.previous));
      if (event.kind === 'network') this.#checkVxlanIds(store, event.object);
    }
    if (event.kind === 'task') this.#checkTask(store, event.op, event.object, event.previous);
    if (event.kind === 'node' && event.previous?.Status.State !== event.object.Status.State)
      this.#trace.note(
        `node ${short(event.object.ID)} is ${event.object.Status.State} ${event.object.Status.Message ?? ''}`,
      );
  }

  #checkTask(store: Store, op: StoreEvent['op'], task: Task, previous: Task | undefined): void {
    this.#noteTask(op, task, previous);
    if (op === 'remove') return;
    if (op === 'create') this.#noteGuarded(store, task);
    if (previous && compareTaskStates(task.Status.State, previous.Status.State) < 0)
      this.violate(
        'state-rises',
        `task ${short(task.ID)} went from ${previous.Status.State} to ${task.Status.State}`,
      );
    if (previous && !mayBecomeDesired(previous.DesiredState, task.DesiredState))
      this.violate(
        'state-rises',
        `task ${short(task.ID)} was to be ${previous.DesiredState} and is to be ${task.DesiredState}`,
      );
    if (previous?.NodeID !== undefined && previous.NodeID !== task.NodeID)
      this.violate('container-assigned', `task ${short(task.ID)} moved from one node to another`);
    if (task.NodeID !== undefined) this.#assigned.add(`${task.ID}@${task.NodeID}`);
    this.#checkSlot(store, task);
  }

  /** Tasks that serve until another one does elsewhere; their slots' histories may forget who that was. */
  readonly #moved = new Set<string>();

  /** One task, or two while they are swapped: of different revisions, or one that is moved and the next. */
  #checkSlot(store: Store, task: Task): void {
    const { Cause, Replaces } = task.Private;
    if (Cause === 'move' && Replaces !== undefined) this.#moved.add(Replaces);
    const key = slotKey(task);
    // Runs of a job may overlap: kinds/schedules.ts knows where they may not.
    const isOfRun = (one: Task): boolean => one.JobIteration?.Index === task.JobIteration?.Index;
    const active = store.find('task', 'slot', key).filter((one) => isWanted(one) && isOfRun(one));
    const revisions = new Set(active.map((one) => one.RevisionID));
    if (active.length <= 1 || (active.length === 2 && revisions.size === 2)) return;
    if (active.length === 2 && this.#moved.has(active[0]!.ID)) return;
    const ids = active.map((one) => `${short(one.ID)} (${one.DesiredState}, ${one.Status.State})`);
    this.violate('one-task-a-slot', `slot ${short(key)} holds ${ids.join(', ')}`);
  }

  /** Tasks, services and nodes have their addresses on a network to themselves. */
  #checkAddresses(store: Store, id: string, held: readonly Held[]): void {
    for (const { network, address } of held) {
      const others = [
        ...store.find('task', 'network', network),
        ...store.list('service'),
        ...store.list('node'),
      ].filter((one) => one.ID !== id);
      const other = others.find((one) =>
        heldBy(one).some((theirs) => theirs.network === network && theirs.address === address),
      );
      if (other)
        this.violate('one-holder-an-address', `${short(id)} and ${short(other.ID)} both have ${address}`);
    }
  }

  #checkVxlanIds(store: Store, network: Network): void {
    const ids = vxlanIdsOf(network);
    for (const other of store.list('network')) {
      const shared = other.ID !== network.ID && vxlanIdsOf(other).find((id) => ids.includes(id));
      if (shared)
        this.violate(
          'one-network-a-vxlan-id',
          `networks ${network.Spec.Name} and ${other.Spec.Name} both have ${shared}`,
        );
    }
  }

  #noteGuarded(store: Store, task: Task): void {
    const labels = store.get('revision', task.RevisionID)?.Spec.Labels ?? {};
    if (isolationLimitMs(labels) !== undefined) this.#guarded.set(task.ID, slotKey(task));
  }

  #noteTask(op: StoreEvent['op'], task: Task, previous: Task | undefined): void {
    const name = `task ${short(task.ID)} (${short(slotKey(task))})`;
    if (op === 'create') this.#trace.note(`${name} created, to be ${task.DesiredState}`);
    else if (op === 'remove') this.#trace.note(`${name} removed`);
    else {
      const moves: string[] = [];
      if (previous?.NodeID !== task.NodeID) moves.push(`on ${short(task.NodeID ?? 'no node')}`);
      if (previous?.DesiredState !== task.DesiredState) moves.push(`to be ${task.DesiredState}`);
      if (previous?.Status.State !== task.Status.State)
        moves.push(`${task.Status.State} ${task.Status.Err ?? ''}`);
      if (moves.length > 0) this.#trace.note(`${name} ${moves.join(', ')}`);
    }
  }

  // ------------------------------------------------------------ consensus

  raftMoved(machine: string, status: RaftStatus): void {
    const { raftId, role, term } = status;
    const shown = `${role} in term ${term}`;
    if (this.#shown.get(machine) !== shown) {
      this.#shown.set(machine, shown);
      this.#trace.note(`${machine} is ${shown}`);
    }
    if (role !== 'leader') return;
    const member = `${machine} (member ${raftId})`;
    const known = this.#leaders.get(term);
    if (known === undefined) {
      this.#leaders.set(term, member);
      this.kinds?.led();
    } else if (known !== member)
      this.violate('one-leader-a-term', `term ${term} has two leaders: ${known} and ${member}`);
  }

  managerFailed(machine: Machine, error: unknown): void {
    const why = error instanceof Error ? error.message : String(error);
    this.violate('manager-goes-on', `the manager on ${machine.name} gave up: ${why}`);
  }

  // ------------------------------------------------------------ engines

  containerMade(machine: Machine, request: ContainerRequest, id: string): void {
    const taskId = request.labels[taskIdLabel] ?? '';
    this.#trace.mix(`${machine.name} container ${taskId}`);
    if (!this.#assigned.has(`${taskId}@${machine.nodeId}`))
      this.violate(
        'container-assigned',
        `${machine.name} made a container of task ${short(taskId)}, which was never assigned there`,
      );
    const known = this.#containers.get(taskId);
    if (known?.machine.engine.requests().has(known.id))
      this.violate(
        'one-container-a-task',
        `task ${short(taskId)} has a container on ${known.machine.name} and another on ${machine.name}`,
      );
    this.#containers.set(taskId, { machine, id });
  }

  /** What stops on isolation runs nowhere else when it starts, whatever became of the network and of clocks. */
  containerStarted(machine: Machine, id: string): void {
    this.kinds?.started(machine, id);
    const taskId = machine.engine.requests().get(id)?.labels[taskIdLabel] ?? '';
    const slot = this.#guarded.get(taskId);
    if (slot === undefined) return;
    for (const [otherId, other] of this.#containers) {
      if (otherId === taskId || this.#guarded.get(otherId) !== slot) continue;
      const state = other.machine.engine.states().find((one) => one.id === other.id);
      if (state?.phase === 'running')
        this.violate(
          'never-two',
          `task ${short(taskId)} starts on ${machine.name} while ${short(otherId)} of slot ${short(slot)} runs on ${other.machine.name}`,
        );
    }
  }
}

/** Whether managers want the task to run and it may. */
export function isWanted(task: Task): boolean {
  return (task.DesiredState === 'ready' || task.DesiredState === 'running') && !isTerminal(task.Status.State);
}

/** The first characters of an id. */
export function short(id: string): string {
  return id.replace(/[0-9a-z]{21,25}/g, (whole) =>
    whole.startsWith('node0') ? `m${Number(whole.slice(4))}` : whole.slice(0, 6),
  );
}

function summary(data: Uint8Array): string {
  const { changes } = decodeEntry(data);
  return `[${changes.map((change) => `${change.op} ${change.kind}`).join(', ')}]`;
}
