/**
 * What entries would make of the objects, without a copy of them, which would hold its thread for a second where there are a
 * hundred thousand: what the entries touch lies over what is there. In: a view that stays as it is for as long as this is used,
 * entries. Out: the view that there would be. Of objects that come anew to a key of an index, the order is that of their changes.
 */
import type { NetworkId, ServiceId } from '../../proto/ids.ts';
import type { Entry } from './change.ts';
import { addressClaim, type ClaimsView, claimsOf, type Holder, hasSameClaims } from './claims.ts';
import { Draft } from './draft.ts';
import { type Family, familyOf } from './ip.ts';
import type { ApplyResult, View } from './store.ts';
import { type AnyObject, type IdOf, type Kind, type ObjectOf, tables } from './tables.ts';
import type { StoreEvent } from './watch.ts';

export class TrialView implements View {
  readonly claims: TrialClaims;
  private readonly base: View;
  /** Objects as the entries left them; null where they removed them. */
  private readonly over = new Map<Kind, Map<string, AnyObject | null>>();
  private lastIndex: number;

  constructor(base: View) {
    this.base = base;
    this.claims = new TrialClaims(base.claims);
    this.lastIndex = base.index;
  }

  get index(): number {
    return this.lastIndex;
  }

  get<K extends Kind>(kind: K, id: IdOf<K> | undefined): ObjectOf[K] | undefined {
    const over = id === undefined ? undefined : this.over.get(kind)?.get(id);
    return over === undefined ? this.base.get(kind, id) : ((over ?? undefined) as ObjectOf[K] | undefined);
  }

  list<K extends Kind>(kind: K): ObjectOf[K][] {
    return this.laid(kind, this.base.list(kind), () => true);
  }

  count(kind: Kind): number {
    let count = this.base.count(kind);
    for (const [id, object] of this.over.get(kind) ?? []) {
      const was = this.base.get(kind, id as never) !== undefined;
      count += Number(object !== null) - Number(was);
    }
    return count;
  }

  find<K extends Kind>(kind: K, index: string, key: string): ObjectOf[K][] {
    const found = this.base.find(kind, index, key);
    return this.laid(kind, found, (object) => tables[kind].indexes[index]!.keysOf(object).includes(key));
  }

  cluster(): ObjectOf['cluster'] | undefined {
    return this.list('cluster')[0];
  }

  /** As the store applies an entry; answers with the events that it would tell. */
  apply(entry: Entry): Exclude<ApplyResult, { ok: true }> | { ok: true; events: readonly StoreEvent[] } {
    this.lastIndex += 1;
    const draft = new Draft(this, this.lastIndex, entry.now);
    for (const change of entry.changes) {
      const refusal = draft.add(change);
      if (refusal) return refusal;
    }
    const clash = draft.clash((claim) => this.claims.holder(claim));
    if (clash) return clash;
    for (const { kind, op, object } of draft.events) {
      const over = this.over.get(kind) ?? new Map<string, AnyObject | null>();
      this.over.set(kind, over.set(object.ID, op === 'remove' ? null : object));
    }
    for (const { kind, before, after } of draft.effects()) this.claims.note(kind, before, after, entry.now);
    return { ok: true, events: draft.events };
  }

  /** `found` as the entries left it, and what they brought to it: objects that `belongs` says so of. */
  private laid<K extends Kind>(
    kind: K,
    found: ObjectOf[K][],
    belongs: (object: ObjectOf[K]) => boolean,
  ): ObjectOf[K][] {
    const over = this.over.get(kind) as ReadonlyMap<string, ObjectOf[K] | null> | undefined;
    if (over === undefined) return found;
    const laid: ObjectOf[K][] = [];
    const known = new Set<string>();
    for (const object of found) {
      const now = over.get(object.ID);
      if (now !== undefined) known.add(object.ID);
      if (now === undefined) laid.push(object);
      else if (now !== null && belongs(now)) laid.push(now);
    }
    for (const [id, object] of over) {
      if (object !== null && !known.has(id) && belongs(object)) laid.push(object);
    }
    return laid;
  }
}

/** The same of what only one object may have. */
class TrialClaims implements ClaimsView {
  lastVxlanId: number;
  private readonly base: ClaimsView;
  /** Undefined where nobody has it any more. */
  private readonly over = new Map<string, Holder | undefined>();
  private readonly counts = new Map<NetworkId, number>();
  private readonly rests = new Map<NetworkId, Map<string, number>>();
  private readonly last = new Map<string, string>();

  constructor(base: ClaimsView) {
    this.base = base;
    this.lastVxlanId = base.lastVxlanId;
  }

  holder(claim: string): Holder | undefined {
    return this.over.has(claim) ? this.over.get(claim) : this.base.holder(claim);
  }

  holderOfAddress(network: NetworkId, address: string): Holder | undefined {
    return this.holder(addressClaim(network, address));
  }

  countAddresses(network: NetworkId): number {
    return this.base.countAddresses(network) + (this.counts.get(network) ?? 0);
  }

  resting(network: NetworkId): ReadonlyMap<string, number> {
    return this.rests.get(network) ?? this.base.resting(network);
  }

  lastAddress(network: NetworkId, family: Family): string | undefined {
    return this.last.get(`${network}/${family}`) ?? this.base.lastAddress(network, family);
  }

  holderOfVxlanId(id: number): Holder | undefined {
    return this.holder(`vxlan ${id}`);
  }

  holderOfPort(key: string): ServiceId | undefined {
    return this.holder(`port ${key}`)?.id as ServiceId | undefined;
  }

  note(kind: Kind, before: AnyObject | undefined, after: AnyObject | undefined, now: number): void {
    if (before && after && hasSameClaims(kind, before, after)) return;
    const had = before ? claimsOf(kind, before) : [];
    const has = after ? claimsOf(kind, after) : [];
    const id = (after ?? before)!.ID;
    for (const claim of had) {
      if (has.includes(claim) || this.holder(claim)?.id !== id) continue;
      this.over.set(claim, undefined);
      this.noteAddress(claim, false, -1, now);
    }
    for (const claim of has) {
      if (had.includes(claim)) continue;
      // One that gives it up in the same entry may come later in it.
      const step = this.holder(claim) === undefined ? 1 : 0;
      this.over.set(claim, { kind, id });
      this.noteAddress(claim, true, step, now);
    }
  }

  private noteAddress(claim: string, isTaken: boolean, step: number, now: number): void {
    const [what, first, address = ''] = claim.split(' ');
    if (what === 'vxlan' && isTaken) this.lastVxlanId = Math.max(this.lastVxlanId, Number(first));
    if (what !== 'address') return;
    const network = first as NetworkId;
    this.counts.set(network, (this.counts.get(network) ?? 0) + step);
    const rests = this.rests.get(network) ?? new Map(this.base.resting(network));
    this.rests.set(network, rests);
    rests.delete(address);
    if (isTaken) this.last.set(`${network}/${familyOf(address)}`, address);
    else rests.set(address, now);
  }
}
