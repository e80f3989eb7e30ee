/**
 * Encrypted ways between hosts (WireGuard), for the vxlan packets of networks that ask for it. Pure.
 *
 * A node has up to two keys at a time, each with an interface and an address of its own: one in use, and one that comes
 * or goes. Peers know both, so that what is under way under either is read, and a change of keys loses nothing. A key's
 * address follows from the key: packets that come from it were sent by who holds it, and nobody hands addresses out.
 * A vxlan interface is bound to the key's interface: without the one there is no other.
 */
import type { Desired } from './desired.ts';

/** Keys have one of two places, each with its interface and UDP port. */
export type Place = 0 | 1;

export interface PublicKey {
  readonly place: Place;
  /** Base64. */
  readonly key: string;
}

/** Keys of a node, the one in use first. */
export type PublicKeys = readonly PublicKey[];

export interface Tunnel {
  readonly name: string;
  readonly port: number;
  /** Base64. */
  readonly publicKey: string;
  /** This end's, without prefix. */
  readonly address: string;
  /** Public key → where it is and the address that its packets come from. */
  readonly peers: ReadonlyMap<string, { readonly endpoint: string; readonly address: string }>;
}

/** By the interface's name. */
export type Tunnels = ReadonlyMap<string, Tunnel>;

export type TunnelOperation =
  | { readonly kind: 'tunnel'; readonly tunnel: Tunnel; readonly isNew: boolean; readonly replaces: boolean }
  | { readonly kind: 'tunnel-removal'; readonly name: string };

/** WireGuard's headers and an IPv4 header take 60 of Ethernet's 1500 bytes; vxlan over IPv6 takes 70 more. */
export const tunnelMtu = 1440;
export const tunnelPattern = 'shwg*';
export const tunnelPrefixLength = 48;
const firstPort = 51840;
const keyPattern = /^([01]):([A-Za-z0-9+/]{43}=)$/;
/** Of fd00::/8: locally chosen, in use on the inside of tunnels alone. */
const prefix = 'fd73:686f:616c';
const groupCount = 5;
const places: readonly Place[] = [0, 1];

export function tunnelName(place: Place): string {
  return `shwg${place}`;
}

export function tunnelPort(place: Place): number {
  return firstPort + place;
}

/** Keys as nodes tell them to each other: `0:KEY,1:KEY`, the one in use first. */
export function announcementOf(keys: PublicKeys): string {
  return keys.map(({ place, key }) => `${place}:${key}`).join(',');
}

/** Keys of a peer; what is not understood is left out. */
export function keysOf(announcement: string): PublicKeys {
  return announcement.split(',').flatMap((part) => {
    const [, place, key] = keyPattern.exec(part) ?? [];
    return key === undefined ? [] : [{ place: place === '1' ? 1 : 0, key } as const];
  });
}

/** The address inside tunnels that belongs to a key: 75 bits of it behind our prefix. */
export function tunnelAddress(key: string): string {
  const bytes = Buffer.from(key, 'base64');
  // The highest bit is set, so that no group has zeros to be left out when it is printed.
  const groups = Array.from(
    { length: groupCount },
    (_, index) => (bytes.readUInt16BE(index * 2) | 0x8000) >>> 0,
  );
  return `${prefix}:${groups.map((group) => group.toString(16)).join(':')}`;
}

/** The tunnels that `desired` needs, for a node with `keys`; none while no network is encrypted. */
export function tunnelsOf(desired: Desired, keys: PublicKeys): Tunnels {
  const encrypted = desired.networks.filter(({ isEncrypted }) => isEncrypted);
  if (encrypted.length === 0) return new Map();
  const peers = new Map(
    encrypted
      .flatMap((network) => network.peers)
      .flatMap(({ underlay, wireguardPublicKey }) =>
        keysOf(wireguardPublicKey).map(
          ({ place, key }) =>
            [key, { endpoint: endpointOf(underlay, place), address: tunnelAddress(key) }] as const,
        ),
      ),
  );
  return new Map(
    keys.map(({ place, key }) => [
      tunnelName(place),
      {
        name: tunnelName(place),
        port: tunnelPort(place),
        publicKey: key,
        address: tunnelAddress(key),
        peers,
      },
    ]),
  );
}

function endpointOf(underlay: string, place: Place): string {
  return `${underlay.includes(':') ? `[${underlay}]` : underlay}:${tunnelPort(place)}`;
}

/** The operations that lead from `actual` to `desired`: made and changed before vxlan interfaces are bound to them. */
export function tunnelOperations(actual: Tunnels, desired: Tunnels): TunnelOperation[] {
  const made = [...desired.values()].flatMap((tunnel): TunnelOperation[] => {
    const before = actual.get(tunnel.name);
    if (before !== undefined && isSame(before, tunnel)) return [];
    const replaces = before !== undefined && before.publicKey !== tunnel.publicKey;
    return [{ kind: 'tunnel', tunnel, isNew: before === undefined, replaces }];
  });
  return made;
}

/** To be removed once nothing is bound to them. */
export function tunnelRemovals(actual: Tunnels, desired: Tunnels): TunnelOperation[] {
  const gone = [...actual.keys()].filter((name) => !desired.has(name));
  return gone.map((name) => ({ kind: 'tunnel-removal', name }));
}

/** Where a peer is, it may tell itself by its packets: that difference is none. */
function isSame(a: Tunnel, b: Tunnel): boolean {
  return (
    a.publicKey === b.publicKey &&
    a.port === b.port &&
    a.address === b.address &&
    a.peers.size === b.peers.size &&
    [...b.peers].every(([key, peer]) => {
      const before = a.peers.get(key);
      return before !== undefined && before.address === peer.address && before.endpoint !== '';
    })
  );
}

/** What `wg show all dump` prints; addresses of the interfaces by their names. The private keys in it are passed over. */
export function parseTunnels(dump: string, addresses: ReadonlyMap<string, string>): Tunnels {
  const tunnels = new Map<string, Tunnel>();
  const names = new Set(places.map(tunnelName));
  for (const line of dump.split('\n')) {
    const fields = line.split('\t');
    const [name = ''] = fields;
    if (!names.has(name)) continue;
    if (fields.length === 5) {
      const [, , publicKey = '', port] = fields;
      tunnels.set(name, {
        name,
        publicKey,
        port: Number(port),
        address: addresses.get(name) ?? '',
        peers: new Map(),
      });
      continue;
    }
    const tunnel = tunnels.get(name);
    const [, key = '', , endpoint = '', allowed = ''] = fields;
    if (tunnel === undefined) continue;
    const peer = { endpoint: endpoint === '(none)' ? '' : endpoint, address: allowed.replace(/\/128$/, '') };
    tunnels.set(name, { ...tunnel, peers: new Map([...tunnel.peers, [key, peer]]) });
  }
  return tunnels;
}

/** A tunnel's configuration for `wg syncconf`, with its private key. */
export function configurationOf(tunnel: Tunnel, privateKey: string): string {
  const peers = [...tunnel.peers].map(
    ([key, { endpoint, address }]) =>
      `[Peer]\nPublicKey = ${key}\nEndpoint = ${endpoint}\nAllowedIPs = ${address}/128\n`,
  );
  return `[Interface]\nPrivateKey = ${privateKey}\nListenPort = ${tunnel.port}\n${peers.join('')}`;
}

export function describeTunnelOperation(operation: TunnelOperation): string[] {
  if (operation.kind === 'tunnel-removal') return [`ip link delete ${operation.name}`];
  const { tunnel, isNew, replaces } = operation;
  return [
    `wg ${isNew ? 'make' : replaces ? 'replace' : 'set'} ${tunnel.name} address ${tunnel.address} port ${tunnel.port}`,
    ...[...tunnel.peers].map(
      ([key, { endpoint, address }]) =>
        `wg set ${tunnel.name} peer ${key} endpoint ${endpoint} address ${address}`,
    ),
  ];
}
