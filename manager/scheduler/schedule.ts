/**
 * The scheduler: says on which node each waiting task goes, or why on none.
 *
 * In: the store, the waiting tasks, the table of nodes, the time. Out: one change for each task that is
 * placed, or whose reason for waiting is another than before. It moves no task that has a node, keeps no
 * promise for later and remembers nothing but the table, which follows the store.
 */
import type { Task } from '../../proto/docker.ts';
import { isTerminal } from '../../proto/task-state.ts';
import type { Change } from '../store/change.ts';
import { nothing, type Reconciler, type Reconciliation } from '../store/reconciler.ts';
import type { View } from '../store/store.ts';
import type { StoreEvent } from '../store/watch.ts';
import { isWanted, NodeTable } from './node-table.ts';
import { Pass } from './pass.ts';

/**
 * The changes for `pending`, tasks in state 'pending' in the order in which they are to be served. Tasks
 * that have their node from the start (global services) are checked against it and go first. `nodes` is
 * left as it was given. `now` in ms since the epoch.
 */
export function schedule(view: View, pending: readonly Task[], nodes: NodeTable, now: number): Change[] {
  return new Pass(view, pending, nodes).next(now, Number.POSITIVE_INFINITY);
}

const pendingKey = 'pending';
const pendingKeys: readonly string[] = [pendingKey];
const noKeys: readonly string[] = [];
/** Tasks decided on at a time: some ten milliseconds' work, with the entry that it makes. */
export const tasksAtATime = 2_000;

/**
 * The scheduler as the loop drives it. Its one key stands for all waiting tasks, which are decided on
 * together; its table of nodes follows the events that it is shown.
 */
export function schedulerReconciler(): Reconciler {
  let table: NodeTable | undefined;
  return {
    name: 'scheduler',
    keysFor(event, view) {
      table?.note(event, view);
      return isMoving(event) ? pendingKeys : noKeys;
    },
    allKeys(view) {
      table = NodeTable.build(view);
      return [pendingKey];
    },
    reconcile(view, _key, now) {
      const pending = view.find('task', 'state', 'pending');
      if (pending.length === 0) return nothing;
      table ??= NodeTable.build(view);
      return pieceOf(new Pass(view, pending, table), now);
    },
  };
}

function pieceOf(pass: Pass, now: number): Reconciliation {
  const changes = pass.next(now, tasksAtATime);
  return pass.isOver ? { changes } : { changes, rest: (later) => pieceOf(pass, later) };
}

/** Whether an event may let a waiting task go, or change the reason why it waits. */
function isMoving(event: StoreEvent): boolean {
  switch (event.kind) {
    case 'node':
      return true;
    case 'network':
      return event.op !== 'remove' && event.object.IPAMOptions !== event.previous?.IPAMOptions;
    case 'task': {
      const { object, previous } = event;
      if (event.op === 'remove') return object.NodeID !== undefined;
      if (object.Status.State !== 'pending') return hasLeft(object) && !(previous && hasLeft(previous));
      return (
        previous?.Status.State !== 'pending' ||
        previous.NetworksAttachments !== object.NetworksAttachments ||
        previous.DesiredState !== object.DesiredState
      );
    }
    default:
      return false;
  }
}

/** Whether a task stopped taking room from its node, or stopped counting as a replica there. */
function hasLeft(task: Task): boolean {
  return isTerminal(task.Status.State) || !isWanted(task);
}
