/**
 * What only one object may have at a time: an address on a network, a vxlan id, a published port, being the
 * ingress network. Kept beside the objects, and checked where entries are applied one after the other, for
 * two writers that each looked before they wrote may race. Remembers which addresses were let go of lately,
 * for somebody may still send to them.
 */
import { vxlanIdListOption } from '../../proto/docker.ts';
import type { NetworkId, ServiceId } from '../../proto/ids.ts';
import { isTerminal } from '../../proto/task-state.ts';
import { portKey } from './endpoint.ts';
import { type Family, familyOf, hostOf } from './ip.ts';
import { ShardedMap } from './objects.ts';
import type { AnyObject, Kind, ObjectOf } from './tables.ts';

/** How long an address that was given back is left alone while there are others. */
export const restMs = 10 * 60_000;

export interface Holder {
  readonly kind: Kind;
  readonly id: string;
}

/** What deciding code may ask of the claims. */
export interface ClaimsView {
  /** Who has what `claim` says, as claimsOf does. */
  holder(claim: string): Holder | undefined;
  /** Who has an address (without prefix) on a network. */
  holderOfAddress(network: NetworkId, address: string): Holder | undefined;
  /** How many addresses of a network somebody has. */
  countAddresses(network: NetworkId): number;
  /** Addresses given back lately → when (ms since the epoch), the earliest first; some may have rested since. */
  resting(network: NetworkId): ReadonlyMap<string, number>;
  /** The address that was given out last on a network, of a family. */
  lastAddress(network: NetworkId, family: Family): string | undefined;
  /** Who has a vxlan id. */
  holderOfVxlanId(id: number): Holder | undefined;
  /** The highest vxlan id that was ever given out; 0 before the first. */
  readonly lastVxlanId: number;
  /** The service that publishes a port in ingress mode (see portKey). */
  holderOfPort(key: string): ServiceId | undefined;
}

/** What is kept in a snapshot: the rest follows from the objects. */
export interface ClaimsMemory {
  readonly lastVxlanId: number;
  /** `network/family` → the address given out last. */
  readonly last: readonly (readonly [string, string])[];
  readonly resting: readonly (readonly [NetworkId, readonly (readonly [string, number])[]])[];
}

/** The claims of an object, as text: equal for what two objects may not both have. */
export function claimsOf(kind: Kind, object: AnyObject): string[] {
  switch (kind) {
    case 'task':
      return attachmentsOf(object as ObjectOf['task']).flatMap(({ NetworkID, Addresses }) =>
        Addresses.map((address) => addressClaim(NetworkID, address)),
      );
    case 'node': {
      const { Attachments = [], ContainerAddresses = [] } = object as ObjectOf['node'];
      return [...Attachments, ...ContainerAddresses].flatMap(({ NetworkID, Addresses }) =>
        Addresses.map((address) => addressClaim(NetworkID, address)),
      );
    }
    case 'service': {
      const { VirtualIPs, Ports } = (object as ObjectOf['service']).Endpoint;
      return [
        ...(Ports ?? [])
          .filter((port) => port.PublishMode !== 'host' && port.PublishedPort)
          .map((port) => `port ${portKey(port)}`),
        ...(VirtualIPs ?? []).map(({ NetworkID, Addr }) => addressClaim(NetworkID, Addr)),
      ];
    }
    case 'network': {
      const { DriverState, Spec } = object as ObjectOf['network'];
      const ids = DriverState?.Options?.[vxlanIdListOption]?.split(',') ?? [];
      return [...ids.map((id) => `vxlan ${id}`), ...(Spec.Ingress ? ['ingress'] : [])];
    }
    default:
      return [];
  }
}

/** Those whose addresses a task has: none once it has ended. */
function attachmentsOf({ NetworksAttachments, Status }: ObjectOf['task']) {
  return NetworksAttachments === undefined || isTerminal(Status.State) ? [] : NetworksAttachments;
}

/** Whether two states of an object surely have the same claims: cheaper to say than what they are. */
export function hasSameClaims(kind: Kind, before: AnyObject | undefined, after: AnyObject): boolean {
  if (before === undefined) return claimsOf(kind, after).length === 0;
  switch (kind) {
    case 'task': {
      const [task, next] = [before as ObjectOf['task'], after as ObjectOf['task']];
      if (task.NetworksAttachments !== next.NetworksAttachments) return false;
      return !next.NetworksAttachments || isTerminal(task.Status.State) === isTerminal(next.Status.State);
    }
    case 'node': {
      const [node, next] = [before as ObjectOf['node'], after as ObjectOf['node']];
      return node.Attachments === next.Attachments && node.ContainerAddresses === next.ContainerAddresses;
    }
    case 'service':
      return (before as ObjectOf['service']).Endpoint === (after as ObjectOf['service']).Endpoint;
    case 'network': {
      const [network, next] = [before as ObjectOf['network'], after as ObjectOf['network']];
      return network.DriverState === next.DriverState && network.Spec === next.Spec;
    }
    default:
      return true;
  }
}

/** The claim to an address (with or without prefix) on a network. */
export function addressClaim(network: NetworkId, address: string): string {
  return `address ${network} ${hostOf(address)}`;
}

/** A claim in words, for who is refused it. */
export function describeClaim(claim: string): string {
  const [what, first, second] = claim.split(' ');
  switch (what) {
    case 'address':
      return `address ${second} of network ${first}`;
    case 'port':
      return `port ${first}`;
    case 'vxlan':
      return `vxlan id ${first}`;
    default:
      return 'the place of the ingress network';
  }
}

/** Who has which address of a network. */
interface Addresses {
  readonly holders: ShardedMap<Holder>;
  count: number;
}

export class Claims implements ClaimsView {
  lastVxlanId = 0;
  /** Of all claims but addresses, of which there may be a million. */
  private readonly holders = new Map<string, Holder>();
  /** Of networks of which somebody has one. */
  private readonly addresses = new Map<NetworkId, Addresses>();
  private readonly rests = new Map<NetworkId, Map<string, number>>();
  private readonly last = new Map<string, string>();
  /** Networks that are there: of others nothing is remembered. */
  private readonly networks = new Set<NetworkId>();

  holder(claim: string): Holder | undefined {
    const [what, first, second] = claim.split(' ');
    return what === 'address' ? this.holderOfAddress(first as NetworkId, second!) : this.holders.get(claim);
  }

  holderOfAddress(network: NetworkId, address: string): Holder | undefined {
    return this.addresses.get(network)?.holders.get(hostOf(address));
  }

  countAddresses(network: NetworkId): number {
    return this.addresses.get(network)?.count ?? 0;
  }

  resting(network: NetworkId): ReadonlyMap<string, number> {
    return this.rests.get(network) ?? new Map();
  }

  lastAddress(network: NetworkId, family: Family): string | undefined {
    return this.last.get(`${network}/${family}`);
  }

  holderOfVxlanId(id: number): Holder | undefined {
    return this.holders.get(`vxlan ${id}`);
  }

  holderOfPort(key: string): ServiceId | undefined {
    return this.holders.get(`port ${key}`)?.id as ServiceId | undefined;
  }

  /** Follows one object from one state to the next, at `now` (ms since the epoch). */
  note(kind: Kind, before: AnyObject | undefined, after: AnyObject | undefined, now: number): void {
    if (before && after && hasSameClaims(kind, before, after)) return;
    if (!before && kind === 'task') {
      this.noteNewTask(after as ObjectOf['task']);
      return;
    }
    const had = before ? claimsOf(kind, before) : [];
    const has = after ? claimsOf(kind, after) : [];
    const id = (after ?? before)!.ID;
    for (const claim of had) if (!has.includes(claim)) this.release(claim, id, now);
    for (const claim of has) if (!had.includes(claim)) this.take(claim, { kind, id });
    if (kind !== 'network') return;
    if (after) this.networks.add(id as NetworkId);
    else this.forget(id as NetworkId);
  }

  /** A million of them are noted one after the other when a manager starts. */
  private noteNewTask(task: ObjectOf['task']): void {
    for (const { NetworkID, Addresses } of attachmentsOf(task)) {
      for (const address of Addresses) {
        this.takeAddress(NetworkID, hostOf(address), { kind: 'task', id: task.ID });
      }
    }
  }

  /** What a snapshot must hold beside the objects: of equal claims, equal. */
  memory(): ClaimsMemory {
    const resting = [...this.rests].map(([network, addresses]) => [network, [...addresses]] as const);
    return { lastVxlanId: this.lastVxlanId, last: byKey([...this.last]), resting: byKey(resting) };
  }

  /** Takes a snapshot's memory in, after its objects were noted. */
  remember(memory: ClaimsMemory | undefined): void {
    if (!memory) return;
    this.lastVxlanId = memory.lastVxlanId;
    this.last.clear();
    for (const [key, address] of memory.last) this.last.set(key, address);
    for (const [network, addresses] of memory.resting) this.rests.set(network, new Map(addresses));
  }

  private take(claim: string, holder: Holder): void {
    const [what, first, second] = claim.split(' ');
    if (what === 'address') {
      this.takeAddress(first as NetworkId, second!, holder);
      return;
    }
    this.holders.set(claim, holder);
    if (what === 'vxlan') this.lastVxlanId = Math.max(this.lastVxlanId, Number(first));
  }

  private takeAddress(network: NetworkId, address: string, holder: Holder): void {
    let taken = this.addresses.get(network);
    if (taken === undefined) {
      taken = { holders: new ShardedMap(), count: 0 };
      this.addresses.set(network, taken);
    }
    if (taken.holders.add(address, holder)) taken.count += 1;
    if (!this.networks.has(network)) return;
    this.rests.get(network)?.delete(address);
    this.last.set(`${network}/${familyOf(address)}`, address);
  }

  private release(claim: string, id: string, now: number): void {
    if (this.holder(claim)?.id !== id) return;
    const [what, first, second] = claim.split(' ');
    if (what === 'address') this.releaseAddress(first as NetworkId, second!, now);
    else this.holders.delete(claim);
  }

  private releaseAddress(network: NetworkId, address: string, now: number): void {
    const taken = this.addresses.get(network)!;
    taken.holders.delete(address);
    taken.count -= 1;
    if (taken.count === 0) this.addresses.delete(network);
    if (!this.networks.has(network)) return;
    const rests = this.rests.get(network) ?? new Map<string, number>();
    this.rests.set(network, rests);
    rests.delete(address);
    rests.set(address, now);
    for (const [rested, time] of rests) {
      if (time > now - restMs) break;
      rests.delete(rested);
    }
  }

  private forget(network: NetworkId): void {
    this.networks.delete(network);
    this.rests.delete(network);
    for (const family of [4, 6]) this.last.delete(`${network}/${family}`);
  }
}

function byKey<T extends readonly [string, unknown]>(entries: readonly T[]): T[] {
  return [...entries].sort(([a], [b]) => (a < b ? -1 : 1));
}
