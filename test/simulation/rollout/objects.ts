/**
 * The few objects of a rollout as a store shows them, without its indexes, so that a state costs little to make
 * and two of them can share what they have in common. Entries are worked out by the store's own Draft.
 */
import type { Change } from '../../../manager/store/change.ts';
import { Claims, type ClaimsView } from '../../../manager/store/claims.ts';
import { Draft } from '../../../manager/store/draft.ts';
import type { View } from '../../../manager/store/store.ts';
import { type IdOf, indexOf, type Kind, type ObjectOf } from '../../../manager/store/tables.ts';
import type { StoreEvent } from '../../../manager/store/watch.ts';

type Lists = { readonly [K in Kind]?: readonly ObjectOf[K][] };

export class Objects implements View {
  readonly index: number;
  readonly claims: ClaimsView = noClaims;
  private readonly lists: Lists;

  constructor(lists: Lists, index = 0) {
    this.lists = lists;
    this.index = index;
  }

  get<K extends Kind>(kind: K, id: IdOf<K> | undefined): ObjectOf[K] | undefined {
    return this.all(kind).find((object) => object.ID === id);
  }

  list<K extends Kind>(kind: K): ObjectOf[K][] {
    return [...this.all(kind)];
  }

  count(kind: Kind): number {
    return this.all(kind).length;
  }

  find<K extends Kind>(kind: K, index: string, key: string): ObjectOf[K][] {
    const { keysOf } = indexOf(kind, index)!;
    return this.all(kind).filter((object) => keysOf(object).includes(key));
  }

  cluster(): ObjectOf['cluster'] | undefined {
    return this.all('cluster')[0];
  }

  /** What an entry makes of the objects, and what it did; undefined when it is refused. */
  apply(
    changes: readonly Change[],
    now: number,
  ): { objects: Objects; events: readonly StoreEvent[] } | undefined {
    const index = this.index + 1;
    const draft = new Draft(this, index, now);
    for (const change of changes) if (draft.add(change)) return undefined;
    const lists: Record<string, unknown[]> = {};
    for (const { kind, op, object } of draft.events) {
      lists[kind] ??= [...this.all(kind)];
      const at = (lists[kind] as { ID: string }[]).findIndex((one) => one.ID === object.ID);
      if (op === 'remove') lists[kind].splice(at, 1);
      else if (at < 0) lists[kind].push(object);
      else lists[kind][at] = object;
    }
    return { objects: new Objects({ ...this.lists, ...lists }, index), events: draft.events };
  }

  private all<K extends Kind>(kind: K): readonly ObjectOf[K][] {
    return (this.lists[kind] ?? []) as readonly ObjectOf[K][];
  }
}

const noClaims: ClaimsView = new Claims();
