/**
 * What the kernel counted for a node's networks, read when somebody asks for it. In: the kernel. Out: numbers; zeros for
 * what is not there. The counters begin anew with the table that holds them.
 */
import type { Kernel } from './kernel.ts';
import { counters, inetTable } from './ruleset.ts';

const trackedPath = 'net/netfilter/nf_conntrack_count';
const trackedMaxPath = 'net/netfilter/nf_conntrack_max';

export interface KernelFigures {
  /** Connections that rules sent on to a task since the table was made, by what they were to. */
  readonly connections: { readonly virtual_address: number; readonly published_port: number };
  /** Packets that rules let go no further, by why. */
  readonly drops: Readonly<Record<'stranger' | 'unencrypted' | 'isolated' | 'refused', number>>;
  /** Connections that the kernel knows now, of the whole host, and how many it can. */
  readonly tracked: number;
  readonly trackedMax: number;
}

/** Never rejects: what can't be read is zero. */
export async function readFigures(kernel: Kernel): Promise<KernelFigures> {
  const [listing, settings] = await Promise.all([
    kernel.run('nft', ['-j', 'list', 'counters', 'table', ...inetTable.split(' ')]).catch(() => ''),
    kernel.settings([trackedPath, trackedMaxPath]).catch(() => new Map<string, string>()),
  ]);
  const packets = parseCounters(listing);
  const count = (name: string) => packets.get(name) ?? 0;
  const virtual = count(counters.sentOnVirtual);
  return {
    connections: { virtual_address: virtual, published_port: Math.max(0, count(counters.sentOn) - virtual) },
    drops: {
      stranger: count(counters.strangers),
      unencrypted: count(counters.unencrypted),
      isolated: count(counters.isolated),
      refused: count(counters.refused),
    },
    tracked: Number(settings.get(trackedPath) ?? 0),
    trackedMax: Number(settings.get(trackedMaxPath) ?? 0),
  };
}

interface ListedCounter {
  readonly name?: string;
  readonly packets?: number;
}

/** Packets by the counter's name, out of `nft -j list counters`; empty text: none. */
export function parseCounters(listing: string): Map<string, number> {
  if (listing.trim() === '') return new Map();
  const { nftables = [] } = JSON.parse(listing) as { nftables?: readonly { counter?: ListedCounter }[] };
  return new Map(
    nftables.flatMap(({ counter }) => (counter?.name ? [[counter.name, counter.packets ?? 0] as const] : [])),
  );
}
