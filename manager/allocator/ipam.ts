/**
 * Which subnet a network gets, and which address a task on it: rising, so that an address that was given
 * back rests before it is given out again, for somebody may still send to it.
 */
import type { Cluster, IPAMConfig, Network } from '../../proto/docker.ts';
import {
  formatAddress,
  formatSubnet,
  lastOf,
  overlaps,
  parseAddress,
  parseSubnet,
  type Subnet,
  sizeOf,
  subnetsOf,
} from '../store/ipv4.ts';

/** How long an address that was given back is left alone while there are others. */
export const restMs = 10 * 60_000;

const defaultPool = '10.0.0.0/8';
const defaultSubnetSize = 24;

/**
 * The IPAM options of a network as it will be used: the subnets of its spec, or one from the cluster's
 * pools that overlaps none of `taken`; each with its gateway. Undefined when the pools have none left.
 */
export function allocateSubnets(
  network: Network,
  cluster: Pick<Cluster, 'DefaultAddrPool' | 'SubnetSize'> | undefined,
  taken: readonly Subnet[],
): Network['IPAMOptions'] | undefined {
  const asked = network.Spec.IPAMOptions;
  const Driver = asked?.Driver?.Name ? asked.Driver : { Name: 'default' };
  const configs = (asked?.Configs ?? []).filter((config) => config.Subnet);
  if (configs.length > 0) return { Driver, Configs: configs.map(withGateway) };
  const subnet = freeSubnet(cluster, taken);
  return subnet && { Driver, Configs: [withGateway({ Subnet: formatSubnet(subnet) })] };
}

/** The config with its gateway: the first address of the subnet, or of its range, unless it is said to be another. */
export function withGateway(config: IPAMConfig): IPAMConfig {
  const subnet = parseSubnet(config.Subnet ?? '');
  if (config.Gateway || !subnet || sizeOf(subnet) < 4) return config;
  const range = config.IPRange ? parseSubnet(config.IPRange) : undefined;
  const first = range && range.base > subnet.base ? range.base : subnet.base + 1;
  return { ...config, Gateway: formatAddress(first) };
}

function freeSubnet(
  cluster: Pick<Cluster, 'DefaultAddrPool' | 'SubnetSize'> | undefined,
  taken: readonly Subnet[],
): Subnet | undefined {
  const pools = cluster?.DefaultAddrPool?.length ? cluster.DefaultAddrPool : [defaultPool];
  const prefixBits = cluster?.SubnetSize || defaultSubnetSize;
  const size = 2 ** (32 - prefixBits);
  const rising = [...taken].sort((a, b) => a.base - b.base);
  for (const pool of subnetsOf(pools.map((Subnet) => ({ Subnet })))) {
    if (pool.prefixBits > prefixBits) continue;
    let base = pool.base;
    for (const other of rising) {
      if (!overlaps({ base, prefixBits }, other)) continue;
      base = Math.ceil((lastOf(other) + 1) / size) * size;
    }
    if (base + size - 1 <= lastOf(pool)) return { base, prefixBits };
  }
  return undefined;
}

/** Addresses first to last of one subnet that tasks may have. */
interface Range {
  readonly first: number;
  readonly last: number;
  readonly prefixBits: number;
}

/** Who holds what on one network; hands out what is free. */
export class AddressBook {
  private readonly network: Network;
  private readonly ranges: Range[];
  private readonly gateways: Set<number>;
  /** Addresses in use. */
  private readonly used = new Set<number>();
  /** Addresses given back lately, and when (ms since the epoch). */
  private readonly resting = new Map<number, number>();
  private previous: number | undefined;
  private isExhausted = false;

  constructor(network: Network) {
    this.network = network;
    this.ranges = network.IPAMOptions.Configs.map(rangeOf).filter((range) => range !== undefined);
    const gateways = network.IPAMOptions.Configs.map((config) => parseAddress(config.Gateway ?? ''));
    this.gateways = new Set(gateways.filter((address) => address !== undefined));
  }

  /** Notes an address (CIDR form) that is in use. */
  noteUsed(text: string): void {
    const address = addressOf(text);
    if (address !== undefined) this.used.add(address);
  }

  /** Notes an address that was given back at `time`. */
  noteFreed(text: string, time: number, now: number): void {
    const address = addressOf(text);
    if (address !== undefined && time > now - restMs) this.resting.set(address, time);
  }

  /** Notes the address that was handed out last: the next is looked for after it. */
  noteLast(text: string): void {
    this.previous = addressOf(text) ?? this.previous;
  }

  /** A free address in CIDR form, which is in use from now on; undefined when there is none. */
  take(): string | undefined {
    if (this.isExhausted) return undefined;
    const fresh = this.scan((address) => !this.used.has(address) && !this.resting.has(address));
    const address = fresh ?? this.longestResting();
    if (address === undefined) {
      this.isExhausted = true;
      return undefined;
    }
    this.used.add(address);
    this.previous = address;
    return `${formatAddress(address)}/${this.rangeWith(address)!.prefixBits}`;
  }

  /** Why take() found nothing, and what to do. */
  describeExhaustion(): string {
    const { Configs } = this.network.IPAMOptions;
    const subnets = Configs.map((config) => config.IPRange || config.Subnet).join(', ');
    const inUse = [...this.used].filter((address) => this.rangeWith(address) && !this.gateways.has(address));
    return `no free address in network ${this.network.Spec.Name} (subnet ${subnets}: ${inUse.length} in use): stop tasks on it, or create a network with a larger subnet`;
  }

  private rangeWith(address: number): Range | undefined {
    return this.ranges.find((range) => address >= range.first && address <= range.last);
  }

  /** The first address after the previous one, around all ranges, that is free. */
  private scan(isFree: (address: number) => boolean): number | undefined {
    const start = this.previous === undefined ? undefined : this.rangeWith(this.previous);
    const at = start ? this.ranges.indexOf(start) : 0;
    const inOrder = [...this.ranges.slice(at), ...this.ranges.slice(0, at)];
    const pieces = inOrder.map((range) => [range.first, range.last] as [number, number]);
    if (start && pieces[0]) {
      pieces.push([start.first, this.previous!]);
      pieces[0][0] = this.previous! + 1;
    }
    for (const [first, last] of pieces) {
      for (let address = first; address <= last; address += 1) {
        if (!this.gateways.has(address) && isFree(address)) return address;
      }
    }
    return undefined;
  }

  private longestResting(): number | undefined {
    let longest: [number, number] | undefined;
    for (const entry of this.resting) {
      if (this.used.has(entry[0]) || this.gateways.has(entry[0]) || !this.rangeWith(entry[0])) continue;
      if (!longest || entry[1] < longest[1]) longest = entry;
    }
    return longest?.[0];
  }
}

function addressOf(text: string): number | undefined {
  return parseAddress(text.split('/')[0]!);
}

/** The addresses of a subnet for tasks: not its first, which names it, nor its last, the broadcast. */
function rangeOf(config: IPAMConfig): Range | undefined {
  const subnet = parseSubnet(config.Subnet ?? '');
  if (!subnet) return undefined;
  const part = config.IPRange ? parseSubnet(config.IPRange) : undefined;
  const first = Math.max(subnet.base + 1, part?.base ?? 0);
  const last = Math.min(lastOf(subnet) - 1, part ? lastOf(part) : Number.POSITIVE_INFINITY);
  return first <= last ? { first, last, prefixBits: subnet.prefixBits } : undefined;
}
