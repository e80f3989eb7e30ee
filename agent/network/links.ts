/**
 * The interfaces, neighbours, routes and addresses that the desired state asks for beside the engine's bridges. Pure.
 *
 * Each network has a vxlan interface that is a port of the engine's bridge. Where frames for an unknown address go is
 * a list of the other nodes (all-zero entries of its forwarding table); where a known one lives it learns. A virtual
 * address is answered for by every host: IPv4 by a local route through the bridge, IPv6 by an address on it, for
 * neighbour discovery answers for nothing less.
 */
import { bridgeName, type Desired, type DesiredNetwork, isIpv6, vxlanName } from './desired.ts';
import { keysOf, type PublicKeys, tunnelAddress, tunnelName } from './tunnel.ts';

export interface Vxlan {
  readonly name: string;
  readonly vxlanId: number;
  readonly bridge: string;
  /** The interface that it sends by; empty: the host's own choice for each peer. */
  readonly device: string;
  /** Where its packets come from; empty: the host's own choice for each peer. */
  readonly local: string;
  readonly port: number;
  readonly mtu: number;
  /** Underlay addresses of the other nodes, sorted. */
  readonly peers: readonly string[];
}

export interface Links {
  /** By the name of the interface. */
  readonly vxlans: ReadonlyMap<string, Vxlan>;
  /** Where frames for a container go, as learned: `mac dev vxlan dst address`. */
  readonly learned: ReadonlySet<string>;
  /** `address dev bridge`, of virtual addresses (IPv4). */
  readonly routes: ReadonlySet<string>;
  /** `address dev bridge`, of virtual addresses (IPv6). */
  readonly addresses: ReadonlySet<string>;
}

export interface LinkOptions {
  /** The node's own underlay address; empty: the host's own choice for each peer. */
  readonly local: string;
  /** The node's keys, for encrypted networks; none: it can't encrypt. */
  readonly keys?: PublicKeys;
}

export const noLinks: Links = {
  vxlans: new Map(),
  learned: new Set(),
  routes: new Set(),
  addresses: new Set(),
};

/** The owner's mark on each interface of ours (`ip link … alias`). */
export const ownerAlias = 'shoal';
/** Of an interface that takes the place of a bridge (remnants.ts). */
export const holderAlias = 'shoal holder';

/** What should be. `bridges`: those that the engine has; what hangs on another one waits until it is there. */
export function linksOf(desired: Desired, bridges: ReadonlySet<string>, options: LinkOptions): Links {
  const present = desired.networks.filter((network) => bridges.has(bridgeName(network)));
  const vxlans = new Map(
    present.flatMap((network) => {
      const vxlan = vxlanOf(network, desired.dataPathPort, options);
      return vxlan === undefined ? [] : [[vxlan.name, vxlan] as const];
    }),
  );
  const bridgeOf = new Map(present.map((network) => [network.id, bridgeName(network)]));
  const routes = new Set<string>();
  const addresses = new Set<string>();
  for (const { networks } of desired.services) {
    for (const { networkId, virtualAddresses } of networks) {
      const bridge = bridgeOf.get(networkId);
      if (bridge === undefined) continue;
      for (const address of virtualAddresses) {
        (isIpv6(address) ? addresses : routes).add(`${address} dev ${bridge}`);
      }
    }
  }
  return { vxlans, learned: new Set(), routes, addresses };
}

/** Undefined for an encrypted network where nothing encrypts: then there is no way to other hosts at all. */
function vxlanOf(network: DesiredNetwork, port: number, options: LinkOptions): Vxlan | undefined {
  const ways = network.isEncrypted ? encryptedWays(network, options) : openWays(network, options);
  return (
    ways && {
      name: vxlanName(network),
      vxlanId: network.vxlanId,
      bridge: bridgeName(network),
      device: ways.device,
      local: ways.local,
      port,
      mtu: network.mtu,
      peers: [...new Set(ways.peers)].sort(),
    }
  );
}

function openWays({ peers }: DesiredNetwork, { local }: LinkOptions) {
  const underlays = peers.map(({ underlay }) => underlay).filter((underlay) => underlay !== local);
  return { device: '', local, peers: underlays };
}

/** By the key in use, to the peers' keys in use; a peer whose key is not known gets nothing. */
function encryptedWays(network: DesiredNetwork, { keys = [] }: LinkOptions) {
  const [own] = keys;
  if (own === undefined) return undefined;
  const peers = network.peers.flatMap(({ wireguardPublicKey }) => {
    const [inUse] = keysOf(wireguardPublicKey);
    return inUse === undefined ? [] : [tunnelAddress(inUse.key)];
  });
  return { device: tunnelName(own.place), local: tunnelAddress(own.key), peers };
}

/** Commands for `ip -batch` and `bridge -batch`, to be run in this order. */
export interface LinkCommands {
  readonly ip: readonly string[];
  readonly bridge: readonly string[];
}

/** The commands that make `actual` the same as `desired`; none when it is. */
export function linkCommands(actual: Links, desired: Links): LinkCommands {
  const ip: string[] = [];
  const bridge: string[] = [];
  for (const [name] of actual.vxlans) if (!desired.vxlans.has(name)) ip.push(`link delete ${name}`);
  for (const [name, vxlan] of desired.vxlans) {
    const before = actual.vxlans.get(name);
    const isSame = before !== undefined && isSameTunnel(before, vxlan);
    if (before !== undefined && !isSame) ip.push(`link delete ${name}`);
    if (!isSame) {
      ip.push(
        `link add ${name} type vxlan id ${vxlan.vxlanId} dstport ${vxlan.port}${vxlan.device === '' ? '' : ` dev ${vxlan.device}`}${vxlan.local === '' ? '' : ` local ${vxlan.local}`} learning`,
        `link set ${name} alias ${ownerAlias}`,
      );
    }
    if (!isSame || before.bridge !== vxlan.bridge || before.mtu !== vxlan.mtu) {
      ip.push(`link set ${name} mtu ${vxlan.mtu} master ${vxlan.bridge} up`);
    }
    const had = isSame ? before.peers : [];
    for (const peer of had.filter((one) => !vxlan.peers.includes(one)))
      bridge.push(fdbCommand('del', name, peer));
    for (const peer of vxlan.peers.filter((one) => !had.includes(one)))
      bridge.push(fdbCommand('append', name, peer));
  }
  bridge.push(...forgetting(actual, desired));
  ip.push(...differing('route', actual.routes, desired.routes));
  ip.push(...differing('address', actual.addresses, desired.addresses));
  return { ip, bridge };
}

/** What was learned of an address that is no peer's any more would be a black hole until it is learned anew. */
function forgetting(actual: Links, desired: Links): string[] {
  return [...actual.learned].flatMap((entry) => {
    const [, name = '', address = ''] = /^\S+ dev (\S+) dst (\S+)$/.exec(entry) ?? [];
    const before = actual.vxlans.get(name);
    const after = desired.vxlans.get(name);
    if (before === undefined || after === undefined || !isSameTunnel(before, after)) return [];
    return after.peers.includes(address) ? [] : [`fdb del ${entry} self`];
  });
}

function isSameTunnel(a: Vxlan, b: Vxlan): boolean {
  return a.vxlanId === b.vxlanId && a.port === b.port && a.local === b.local && a.device === b.device;
}

function fdbCommand(verb: 'append' | 'del', name: string, peer: string): string {
  return `fdb ${verb} 00:00:00:00:00:00 dev ${name} dst ${peer} self permanent`;
}

function differing(
  what: 'route' | 'address',
  before: ReadonlySet<string>,
  after: ReadonlySet<string>,
): string[] {
  const remove = what === 'route' ? 'route del local' : 'address del';
  const add = what === 'route' ? 'route replace local' : 'address replace';
  // Duplicate address detection would find the other hosts, which have it on purpose; and nothing is to be sent from it.
  const detail = what === 'route' ? '' : ' nodad preferred_lft 0';
  const form = (entry: string) => (what === 'route' ? entry : entry.replace(' dev ', '/128 dev '));
  return [
    ...[...before].filter((entry) => !after.has(entry)).map((entry) => `${remove} ${form(entry)}`),
    ...[...after].filter((entry) => !before.has(entry)).map((entry) => `${add} ${form(entry)}${detail}`),
  ];
}

/** One interface as `ip -json -details link` tells it, as far as it is read here. */
interface ListedLink {
  readonly ifname?: string;
  readonly ifalias?: string;
  readonly mtu?: number;
  readonly master?: string;
  readonly flags?: readonly string[];
  readonly linkinfo?: {
    readonly info_kind?: string;
    readonly info_data?: {
      readonly id?: number;
      readonly link?: string;
      readonly local?: string;
      readonly local6?: string;
      readonly port?: number;
    };
  };
}

interface ListedNeighbour {
  readonly mac?: string;
  readonly ifname?: string;
  readonly dst?: string;
}

interface ListedRoute {
  readonly dst?: string;
  readonly dev?: string;
  readonly protocol?: string;
}

interface ListedAddress {
  readonly ifname?: string;
  readonly addr_info?: readonly {
    readonly family?: string;
    readonly scope?: string;
    readonly local?: string;
    readonly prefixlen?: number;
  }[];
}

/** The JSON that iproute2 printed; each may be empty text where there is nothing. */
export interface Listings {
  /** `ip -json -details link` */
  readonly links: string;
  /** `bridge -json fdb` */
  readonly neighbours: string;
  /** `ip -json -4 route show table local` */
  readonly routes: string;
  /** `ip -json -6 address` */
  readonly addresses: string;
}

const bridgePattern = /^shoal\d+$/;

/** What is, of what can be ours: our vxlans, and virtual addresses on bridges of ours; and those bridges. */
export function parseLinks(listings: Listings): {
  readonly links: Links;
  readonly bridges: Set<string>;
  /** Interfaces that take the place of bridges that the engine is to forget. */
  readonly holders: Set<string>;
  /** Interface → its first IPv6 address that others may use. */
  readonly addressOf: ReadonlyMap<string, string>;
} {
  const links = parse<ListedLink>(listings.links);
  const named = links.filter(({ ifname = '' }) => bridgePattern.test(ifname));
  const bridges = new Set(
    named.flatMap(({ ifname = '', linkinfo }) => (linkinfo?.info_kind === 'bridge' ? [ifname] : [])),
  );
  const holders = new Set(
    named.flatMap(({ ifname = '', linkinfo, ifalias }) =>
      linkinfo?.info_kind !== 'bridge' && ifalias === holderAlias ? [ifname] : [],
    ),
  );
  const peers = new Map<string, string[]>();
  const learned = new Set<string>();
  for (const { mac, ifname = '', dst } of parse<ListedNeighbour>(listings.neighbours)) {
    if (dst === undefined) continue;
    if (mac === '00:00:00:00:00:00') peers.set(ifname, [...(peers.get(ifname) ?? []), dst]);
    else learned.add(`${mac} dev ${ifname} dst ${dst}`);
  }
  const vxlans = new Map<string, Vxlan>();
  for (const { ifname = '', ifalias, linkinfo, master = '', mtu = 0, flags } of links) {
    if (linkinfo?.info_kind !== 'vxlan' || ifalias !== ownerAlias) continue;
    const data = linkinfo.info_data ?? {};
    vxlans.set(ifname, {
      name: ifname,
      vxlanId: data.id ?? 0,
      // One that is down is put up again together with its place in the bridge.
      bridge: flags?.includes('UP') === true ? master : '',
      device: data.link ?? '',
      local: data.local ?? data.local6 ?? '',
      port: data.port ?? 0,
      mtu,
      peers: (peers.get(ifname) ?? []).sort(),
    });
  }
  const routes = parse<ListedRoute>(listings.routes)
    .filter(({ dev = '', protocol }) => bridges.has(dev) && protocol !== 'kernel')
    .map(({ dst, dev }) => `${dst} dev ${dev}`);
  const addresses = parse<ListedAddress>(listings.addresses)
    .filter(({ ifname = '' }) => bridges.has(ifname))
    .flatMap(({ ifname, addr_info }) =>
      (addr_info ?? [])
        .filter(
          ({ family, prefixlen, local }) => family === 'inet6' && prefixlen === 128 && local !== undefined,
        )
        .map(({ local }) => `${local} dev ${ifname}`),
    );
  const addressOf = new Map(
    parse<ListedAddress>(listings.addresses).flatMap(({ ifname = '', addr_info }) => {
      const one = addr_info?.find(({ family, scope }) => family === 'inet6' && scope === 'global')?.local;
      return one === undefined ? [] : [[ifname, one] as const];
    }),
  );
  return {
    links: { vxlans, learned, routes: new Set(routes), addresses: new Set(addresses) },
    bridges,
    holders,
    addressOf,
  };
}

function parse<T>(text: string): T[] {
  return text.trim() === '' ? [] : (JSON.parse(text) as T[]);
}
