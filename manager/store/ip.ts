/**
 * Addresses and subnets as numbers, IPv4 and IPv6: read, written, compared. Here because the allocator hands
 * subnets out and the doors by which networks come in (API, stacks) must refuse those that overlap.
 */
import type { NetworkSpec } from '../../proto/docker.ts';
import type { NetworkId } from '../../proto/ids.ts';
import type { View } from './store.ts';

export type Family = 4 | 6;

export interface Address {
  readonly family: Family;
  readonly value: bigint;
}

/** All addresses whose first `prefixBits` bits are those of `base`, the first of them. */
export interface Subnet {
  readonly family: Family;
  readonly base: bigint;
  readonly prefixBits: number;
}

const bitsOf: Readonly<Record<Family, number>> = { 4: 32, 6: 128 };

/** The address of a dotted or colon form; undefined when it is none. */
export function parseAddress(text: string): Address | undefined {
  const value = text.includes(':') ? parseColons(text) : parseDots(text);
  return value === undefined ? undefined : { family: text.includes(':') ? 6 : 4, value };
}

function parseDots(text: string): bigint | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  if (!parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255)) return undefined;
  return BigInt(parts.reduce((sum, part) => sum * 256 + Number(part), 0));
}

function parseColons(text: string): bigint | undefined {
  const [head = '', tail, ...rest] = text.split('::');
  if (rest.length > 0) return undefined;
  const groups = (part: string | undefined) => (part ? part.split(':') : []);
  const [before, after] = [groups(head), groups(tail)];
  const gap = 8 - before.length - after.length;
  if (tail === undefined ? gap !== 0 : gap < 1) return undefined;
  const all = [...before, ...Array<string>(tail === undefined ? 0 : gap).fill('0'), ...after];
  if (!all.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group))) return undefined;
  return all.reduce((sum, group) => sum * 65_536n + BigInt(Number.parseInt(group, 16)), 0n);
}

/** The usual form of an address: dotted, or RFC 5952's. */
export function formatAddress({ family, value }: Address): string {
  if (family === 4) return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 255n).join('.');
  const groups = Array.from({ length: 8 }, (_, at) => (value >> BigInt(16 * (7 - at))) & 0xffffn);
  const text = groups.map((group) => group.toString(16)).join(':');
  const zeros = [...text.matchAll(/(?:^|(?<=:))0(?::0)+(?=:|$)/g)];
  const longest = zeros.reduce<RegExpExecArray | undefined>(
    (best, run) => (!best || run[0].length > best[0].length ? run : best),
    undefined,
  );
  if (!longest) return text;
  const end = longest.index + longest[0].length;
  return `${text.slice(0, longest.index).replace(/:$/, '')}::${text.slice(end).replace(/^:/, '')}`;
}

/** The subnet of `address/bits`, host bits cut off; undefined when it is none. */
export function parseSubnet(text: string): Subnet | undefined {
  const [host, prefix, ...rest] = text.split('/');
  const address = parseAddress(host ?? '');
  if (address === undefined || rest.length > 0 || !/^\d{1,3}$/.test(prefix ?? '')) return undefined;
  const prefixBits = Number(prefix);
  if (prefixBits > bitsOf[address.family]) return undefined;
  const size = sizeOf({ family: address.family, prefixBits });
  return { family: address.family, base: (address.value / size) * size, prefixBits };
}

export function formatSubnet({ family, base, prefixBits }: Subnet): string {
  return `${formatAddress({ family, value: base })}/${prefixBits}`;
}

/** How many addresses a subnet has. */
export function sizeOf({ family, prefixBits }: Pick<Subnet, 'family' | 'prefixBits'>): bigint {
  return 1n << BigInt(bitsOf[family] - prefixBits);
}

/** The last address of a subnet: with IPv4 its broadcast address. */
export function lastOf(subnet: Subnet): bigint {
  return subnet.base + sizeOf(subnet) - 1n;
}

export function overlaps(a: Subnet, b: Subnet): boolean {
  return a.family === b.family && a.base <= lastOf(b) && b.base <= lastOf(a);
}

export function contains(subnet: Subnet, { family, value }: Address): boolean {
  return family === subnet.family && value >= subnet.base && value <= lastOf(subnet);
}

/** An address in CIDR form without its prefix. */
export function hostOf(cidr: string): string {
  const slash = cidr.indexOf('/');
  return slash < 0 ? cidr : cidr.slice(0, slash);
}

/** The family that a text (address, CIDR form, subnet) is of, by its form. */
export function familyOf(text: string): Family {
  return text.includes(':') ? 6 : 4;
}

/** The subnets that a network uses or asks for; what is no subnet is left out. */
export function subnetsOf(configs: readonly { Subnet?: string }[] | undefined): Subnet[] {
  return (configs ?? []).map((config) => parseSubnet(config.Subnet ?? '')).filter((one) => one !== undefined);
}

/**
 * Says which subnet that `spec` asks for is already another network's, in words; undefined when none is.
 * `self` is the network itself when it exists already.
 */
export function describeSubnetConflict(view: View, spec: NetworkSpec, self?: NetworkId): string | undefined {
  const asked = subnetsOf(spec.IPAMOptions?.Configs);
  if (asked.length === 0) return undefined;
  for (const other of view.list('network')) {
    if (other.ID === self) continue;
    for (const theirs of subnetsOf(other.IPAMOptions.Configs)) {
      const ours = asked.find((subnet) => overlaps(subnet, theirs));
      if (ours) {
        return `subnet ${formatSubnet(ours)} of network ${spec.Name} overlaps ${formatSubnet(theirs)}, which network ${other.Spec.Name} uses: choose another`;
      }
    }
  }
  return undefined;
}
