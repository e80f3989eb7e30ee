/**
 * Objects by what people type: a whole id, else a whole name, else the beginning of an id. The order and
 * the messages are Docker's.
 */
import { ShoalError } from '../../proto/errors.ts';
import type { View } from '../store/store.ts';
import { type IdOf, type Kind, nameOf, type ObjectOf } from '../store/tables.ts';
import type { ManagedCluster } from './contract.ts';

/** Throws ShoalError 'not-found', or 'invalid-argument' when the beginning of an id fits several. */
export function lookup<K extends Kind>(view: View, kind: K, input: string): ObjectOf[K] {
  const found = search(view, kind, input);
  if (found.length === 1) return found[0]!;
  if (found.length === 0) throw new ShoalError('not-found', `${kind} ${input} not found`);
  throw new ShoalError('invalid-argument', `${kind} ${input} is ambiguous (${found.length} matches found)`);
}

/** As lookup; undefined when there is none. */
export function lookupMaybe<K extends Kind>(view: View, kind: K, input: string): ObjectOf[K] | undefined {
  const found = search(view, kind, input);
  return found.length > 1 ? lookup(view, kind, input) : found[0];
}

function search<K extends Kind>(view: View, kind: K, input: string): ObjectOf[K][] {
  if (input === '') return [];
  const exact = view.get(kind, input as IdOf<K>);
  if (exact) return [exact];
  const named = kind === 'task' ? [] : view.find(kind, 'name', input);
  if (named.length > 0) return named;
  return view.list(kind).filter((object) => object.ID.startsWith(input));
}

/**
 * A task by its id, the beginning of one, or by its name: `web.3`, `web.HOSTNAME` or `web.NODEID` of a global service, with
 * or without the task's id behind it, as its container is called. Of the tasks of a slot the one that runs, else the newest.
 */
export function lookupTask(view: View, input: string): ObjectOf['task'] {
  const found = search(view, 'task', input);
  if (found.length === 0) {
    const named = taskNamed(view, input);
    if (named) return named;
  }
  return lookup(view, 'task', input);
}

function taskNamed(view: View, input: string): ObjectOf['task'] | undefined {
  for (let dot = input.indexOf('.'); dot > 0; dot = input.indexOf('.', dot + 1)) {
    const [service] = view.find('service', 'name', input.slice(0, dot));
    const place = input.slice(dot + 1);
    const tasks = service
      ? view.find('task', 'service', service.ID).filter((task) => isAt(view, task, place))
      : [];
    const best = tasks.sort((one, other) => rankOf(other) - rankOf(one) || newer(one, other))[0];
    if (best) return best;
  }
  return undefined;
}

/** Whether `place` is what stands behind the service's name in the task's: its slot or node, perhaps with its id. */
function isAt(view: View, task: ObjectOf['task'], place: string): boolean {
  const node = view.get('node', task.NodeID);
  const places = task.Slot ? [String(task.Slot)] : [task.NodeID, node?.Description.Hostname];
  return places.some((one) => one !== undefined && (place === one || place === `${one}.${task.ID}`));
}

function rankOf(task: ObjectOf['task']): number {
  return (task.DesiredState === 'running' ? 1 : 0) + (task.Status.State === 'running' ? 2 : 0);
}

function newer(one: ObjectOf['task'], other: ObjectOf['task']): number {
  return one.CreatedAt < other.CreatedAt ? 1 : -1;
}

/** A node, which may be called "self". */
export function lookupNode(cluster: ManagedCluster, input: string): ObjectOf['node'] {
  return lookup(cluster.store, 'node', input === 'self' ? cluster.nodeId : input);
}

/** The name of an object, for messages; its id when it has none. */
export function calledBy<K extends Kind>(kind: K, object: ObjectOf[K]): string {
  return nameOf(kind, object) ?? object.ID;
}
