/**
 * Which subnets and vxlan ids a network gets: subnets from its spec or the cluster's pools, an id for each
 * IPv4 subnet, rising and never used before, for a host may still have the device of a network that is gone.
 */
import {
  type Cluster,
  type Driver,
  type IPAMConfig,
  type Network,
  vxlanIdListOption,
} from '../../proto/docker.ts';
import { hasClusterAddresses } from '../store/attachment.ts';
import type { ClaimsView } from '../store/claims.ts';
import {
  formatAddress,
  formatSubnet,
  lastOf,
  overlaps,
  parseSubnet,
  type Subnet,
  sizeOf,
  subnetsOf,
} from '../store/ip.ts';

const defaultPool = '10.0.0.0/8';
const defaultSubnetSize = 24;
/** The ingress network of a cluster has the id that Docker gives it; the others follow. */
const ingressVxlanId = 4096;
const firstVxlanId = 4097;
const lastVxlanId = 2 ** 24 - 1;
/** A network's IPv6 subnet: a cluster has 2^16 of them under its own 48 bits of fd00::/8 (RFC 4193). */
const localPrefixBits = 64;

type Pools = Pick<Cluster, 'ID' | 'DefaultAddrPool' | 'SubnetSize'>;

/**
 * The IPAM options of a network as it will be used: the subnets of its spec, or ones that overlap none of
 * `taken` (from the cluster's pools; for IPv6 from the cluster's own local range); each with its gateway.
 * Undefined when the pools have none left.
 */
export function allocateSubnets(
  network: Network,
  cluster: Pools | undefined,
  taken: readonly Subnet[],
): Network['IPAMOptions'] | undefined {
  const asked = network.Spec.IPAMOptions;
  const Driver = asked?.Driver?.Name ? asked.Driver : { Name: 'default' };
  const configs = (asked?.Configs ?? []).filter((config) => config.Subnet);
  const subnets = subnetsOf(configs);
  if (!subnets.some(({ family }) => family === 4)) {
    const subnet = freeSubnet(cluster, taken);
    if (!subnet) return undefined;
    configs.unshift({ Subnet: formatSubnet(subnet) });
  }
  if (network.Spec.IPv6Enabled && !subnets.some(({ family }) => family === 6)) {
    const subnet = freeLocalSubnet(cluster, taken);
    if (!subnet) return undefined;
    configs.push({ Subnet: formatSubnet(subnet) });
  }
  return { Driver, Configs: configs.map(withGateway) };
}

/** The config with its gateway: the first address of the subnet, or of its range, unless it is said to be another. */
export function withGateway(config: IPAMConfig): IPAMConfig {
  const subnet = parseSubnet(config.Subnet ?? '');
  if (config.Gateway || !subnet || sizeOf(subnet) < 4n) return config;
  const range = config.IPRange ? parseSubnet(config.IPRange) : undefined;
  const value = range && range.base > subnet.base ? range.base : subnet.base + 1n;
  return { ...config, Gateway: formatAddress({ family: subnet.family, value }) };
}

/** Whether nothing is owed to a network: it has subnets with gateways and its vxlan ids, or needs none. */
export function isAllocated(network: Network): boolean {
  if (!hasClusterAddresses(network)) return true;
  return hasSubnets(network) && vxlanIdsOf(network).length === vxlanIdCount(network.IPAMOptions.Configs);
}

/** Whether a network has a subnet with its gateway for each family that it is to have. */
export function hasSubnets(network: Network): boolean {
  const { Configs } = network.IPAMOptions;
  const subnets = subnetsOf(Configs);
  return (
    subnets.some(({ family }) => family === 4) &&
    (!network.Spec.IPv6Enabled || subnets.some(({ family }) => family === 6)) &&
    Configs.every((config) => withGateway(config) === config)
  );
}

/** The vxlan ids that a network has. */
export function vxlanIdsOf(network: Network): number[] {
  const list = network.DriverState?.Options?.[vxlanIdListOption];
  return list ? list.split(',').map(Number) : [];
}

function vxlanIdCount(configs: readonly IPAMConfig[]): number {
  return subnetsOf(configs).filter(({ family }) => family === 4).length;
}

/**
 * What the driver of a network with subnets `configs` needs to know: its own options, and an id for each IPv4
 * subnet. `given` are ids that are spoken for though the store does not say so yet. Undefined when none is left.
 */
export function allocateDriverState(
  network: Network,
  configs: readonly IPAMConfig[],
  claims: Pick<ClaimsView, 'holderOfVxlanId' | 'lastVxlanId'>,
  given: Set<number>,
): Driver | undefined {
  const isFree = (id: number) => claims.holderOfVxlanId(id) === undefined && !given.has(id);
  const ids = vxlanIdsOf(network).slice(0, vxlanIdCount(configs));
  let next = Math.max(firstVxlanId, claims.lastVxlanId + 1, ...[...given].map((id) => id + 1));
  while (ids.length < vxlanIdCount(configs)) {
    const isFirst = network.Spec.Ingress === true && ids.length === 0 && isFree(ingressVxlanId);
    const id = isFirst ? ingressVxlanId : next <= lastVxlanId ? next++ : lowestFree(isFree);
    if (id === undefined) return undefined;
    given.add(id);
    ids.push(id);
  }
  const { Name, Options } = network.Spec.DriverConfiguration;
  return { Name, Options: { ...Options, [vxlanIdListOption]: ids.join(',') } };
}

/** After sixteen million networks: one that nobody has any longer. */
function lowestFree(isFree: (id: number) => boolean): number | undefined {
  for (let id = firstVxlanId; id <= lastVxlanId; id += 1) if (isFree(id)) return id;
  return undefined;
}

function freeSubnet(cluster: Pools | undefined, taken: readonly Subnet[]): Subnet | undefined {
  const pools = cluster?.DefaultAddrPool?.length ? cluster.DefaultAddrPool : [defaultPool];
  const prefixBits = cluster?.SubnetSize || defaultSubnetSize;
  for (const pool of subnetsOf(pools.map((Subnet) => ({ Subnet })))) {
    const found = pool.family === 4 ? firstFree(pool, prefixBits, taken) : undefined;
    if (found) return found;
  }
  return undefined;
}

function freeLocalSubnet(cluster: Pools | undefined, taken: readonly Subnet[]): Subnet | undefined {
  const globalId = hashOf(cluster?.ID ?? '') & 0xff_ffff_ffffn;
  const pool: Subnet = { family: 6, base: (0xfdn << 120n) | (globalId << 80n), prefixBits: 48 };
  return firstFree(pool, localPrefixBits, taken);
}

/** 64 bits that differ for different texts (FNV-1a): no secret, only to be unlike another cluster's. */
function hashOf(text: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const letter of text) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(letter.codePointAt(0)!)) * 0x100000001b3n);
  }
  return hash;
}

/** The first subnet of a size in `pool` that overlaps none of `taken`. */
function firstFree(pool: Subnet, prefixBits: number, taken: readonly Subnet[]): Subnet | undefined {
  if (pool.prefixBits > prefixBits) return undefined;
  const { family } = pool;
  const size = sizeOf({ family, prefixBits });
  const rising = taken
    .filter((other) => other.family === family)
    .sort((a, b) => (a.base < b.base ? -1 : a.base > b.base ? 1 : 0));
  let base = pool.base;
  for (const other of rising) {
    if (!overlaps({ family, base, prefixBits }, other)) continue;
    base = ((lastOf(other) + size) / size) * size;
  }
  return base + size - 1n <= lastOf(pool) ? { family, base, prefixBits } : undefined;
}
