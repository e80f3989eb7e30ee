/**
 * IPv4 subnets as numbers: read, written, compared. Here because the allocator hands subnets out and the
 * doors by which networks come in (API, stacks) must refuse those that overlap.
 */
import type { NetworkSpec } from '../../proto/docker.ts';
import type { NetworkId } from '../../proto/ids.ts';
import type { View } from './store.ts';

/** Addresses `base` to `base + 2^(32 - prefixBits) - 1`; `base` is the first, as an unsigned number. */
export interface Subnet {
  readonly base: number;
  readonly prefixBits: number;
}

/** The number of an address in dotted form; undefined when it is none. */
export function parseAddress(text: string): number | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  if (!parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255)) return undefined;
  return parts.reduce((sum, part) => sum * 256 + Number(part), 0);
}

/** The dotted form of an address. */
export function formatAddress(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.');
}

/** The subnet of `a.b.c.d/n`, host bits cut off; undefined when it is no IPv4 subnet. */
export function parseSubnet(text: string): Subnet | undefined {
  const [host, prefix, ...rest] = text.split('/');
  const address = parseAddress(host ?? '');
  if (address === undefined || rest.length > 0 || !/^\d{1,2}$/.test(prefix ?? '')) return undefined;
  const prefixBits = Number(prefix);
  if (prefixBits > 32) return undefined;
  const size = 2 ** (32 - prefixBits);
  return { base: Math.floor(address / size) * size, prefixBits };
}

export function formatSubnet(subnet: Subnet): string {
  return `${formatAddress(subnet.base)}/${subnet.prefixBits}`;
}

/** How many addresses a subnet has. */
export function sizeOf(subnet: Subnet): number {
  return 2 ** (32 - subnet.prefixBits);
}

/** The last address of a subnet: its broadcast address. */
export function lastOf(subnet: Subnet): number {
  return subnet.base + sizeOf(subnet) - 1;
}

export function overlaps(a: Subnet, b: Subnet): boolean {
  return a.base <= lastOf(b) && b.base <= lastOf(a);
}

/** The IPv4 subnets that a network uses or asks for. */
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
