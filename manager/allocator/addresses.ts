/**
 * Which address on a network is next: rising, so that one that was given back rests before it is given out
 * again, for somebody may still send to it.
 */
import type { IPAMConfig, Network } from '../../proto/docker.ts';
import { type ClaimsView, restMs } from '../store/claims.ts';
import {
  type Family,
  familyOf,
  formatAddress,
  hostOf,
  lastOf,
  parseAddress,
  parseSubnet,
  subnetsOf,
} from '../store/ip.ts';

/** Addresses `first` to `last` of one subnet that may be given out. */
interface Range {
  readonly family: Family;
  readonly first: bigint;
  readonly last: bigint;
  readonly prefixBits: number;
}

/** Hands out what is free on one network. What it gave out the store does not know yet. */
export class AddressBook {
  private readonly network: Network;
  private readonly claims: ClaimsView;
  private readonly now: number;
  private readonly ranges: Range[];
  private readonly gateways: Set<string>;
  private readonly given = new Set<string>();
  private readonly last = new Map<Family, string>();
  private readonly exhausted = new Set<Family>();

  /** `now` in ms since the epoch. */
  constructor(network: Network, claims: ClaimsView, now: number) {
    this.network = network;
    this.claims = claims;
    this.now = now;
    const { Configs } = network.IPAMOptions;
    this.ranges = Configs.map(rangeOf).filter((range) => range !== undefined);
    this.gateways = new Set(Configs.flatMap(({ Gateway }) => (Gateway ? canonical(Gateway) : [])));
    for (const family of [4, 6] as const) {
      const last = claims.lastAddress(network.ID, family);
      if (last !== undefined) this.last.set(family, last);
    }
  }

  /** Notes an address that is spoken for though the store does not say so yet. */
  noteGiven(address: string): void {
    const host = hostOf(address);
    this.given.add(host);
    this.last.set(familyOf(host), host);
  }

  /** A free address in CIDR form, which is given out from now on; undefined when there is none. */
  take(family: Family): string | undefined {
    if (this.exhausted.has(family)) return undefined;
    const address = this.nextFresh(family) ?? this.longestResting(family);
    if (address === undefined) {
      this.exhausted.add(family);
      return undefined;
    }
    this.noteGiven(address);
    return `${address}/${this.rangeWith(address)!.prefixBits}`;
  }

  /** Why take() found nothing, and what to do. */
  describeExhaustion(family: Family): string {
    const configs = this.network.IPAMOptions.Configs.filter(({ Subnet = '' }) => familyOf(Subnet) === family);
    const subnets = configs.map((config) => config.IPRange || config.Subnet).join(', ');
    const inUse =
      family === 6 ? '' : `: ${this.claims.countAddresses(this.network.ID) + this.newlyGiven()} in use`;
    return `no free address in network ${this.network.Spec.Name} (subnet ${subnets}${inUse}): stop tasks on it, or create a network with a larger subnet`;
  }

  private newlyGiven(): number {
    return [...this.given].filter((one) => !this.claims.holderOfAddress(this.network.ID, one)).length;
  }

  private isFree(address: string): boolean {
    return (
      !this.given.has(address) &&
      !this.gateways.has(address) &&
      this.claims.holderOfAddress(this.network.ID, address) === undefined
    );
  }

  private isResting(address: string): boolean {
    return (
      (this.claims.resting(this.network.ID).get(address) ?? Number.NEGATIVE_INFINITY) > this.now - restMs
    );
  }

  private rangeWith(address: string): Range | undefined {
    const parsed = parseAddress(address);
    return parsed && this.ranges.find((range) => isIn(range, parsed.family, parsed.value));
  }

  /** The first free address after the one given out last, around all ranges. */
  private nextFresh(family: Family): string | undefined {
    const ranges = this.ranges.filter((range) => range.family === family);
    const last = parseAddress(this.last.get(family) ?? '');
    const at = last ? ranges.findIndex((range) => isIn(range, family, last.value)) : -1;
    const inOrder = at < 0 ? ranges : [...ranges.slice(at), ...ranges.slice(0, at)];
    const pieces = inOrder.map(({ first, last: end }) => ({ first, end }));
    if (at >= 0 && pieces[0]) {
      pieces.push({ first: pieces[0].first, end: last!.value });
      pieces[0] = { first: last!.value + 1n, end: pieces[0].end };
    }
    for (const { first, end } of pieces) {
      for (let value = first; value <= end; value += 1n) {
        const address = formatAddress({ family, value });
        if (this.isFree(address) && !this.isResting(address)) return address;
      }
    }
    return undefined;
  }

  private longestResting(family: Family): string | undefined {
    for (const address of this.claims.resting(this.network.ID).keys()) {
      if (familyOf(address) === family && this.isFree(address) && this.rangeWith(address)) return address;
    }
    return undefined;
  }
}

function isIn(range: Range, family: Family, value: bigint): boolean {
  return range.family === family && value >= range.first && value <= range.last;
}

/** The text that an address is given out as. */
function canonical(address: string): string[] {
  const parsed = parseAddress(hostOf(address));
  return parsed ? [formatAddress(parsed)] : [];
}

/** The addresses of a subnet that may be given out: not its first, which names it, nor an IPv4 subnet's last. */
function rangeOf(config: IPAMConfig): Range | undefined {
  const subnet = parseSubnet(config.Subnet ?? '');
  if (!subnet) return undefined;
  const { family, prefixBits } = subnet;
  const [part] = subnetsOf([{ Subnet: config.IPRange ?? '' }]);
  const lowest = subnet.base + 1n;
  const highest = family === 4 ? lastOf(subnet) - 1n : lastOf(subnet);
  const first = part && part.base > lowest ? part.base : lowest;
  const last = part && lastOf(part) < highest ? lastOf(part) : highest;
  return first <= last ? { family, first, last, prefixBits } : undefined;
}
