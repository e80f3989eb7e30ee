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

/** A node, which may be called "self". */
export function lookupNode(cluster: ManagedCluster, input: string): ObjectOf['node'] {
  return lookup(cluster.store, 'node', input === 'self' ? cluster.nodeId : input);
}

/** The name of an object, for messages; its id when it has none. */
export function calledBy<K extends Kind>(kind: K, object: ObjectOf[K]): string {
  return nameOf(kind, object) ?? object.ID;
}
