/**
 * What this node's data plane is to hold, as the managers told it last. Pure.
 *
 * In: updates of shoal.v1.Endpoints/Watch. Out: one value that is plain JSON, so that it can be kept on disk and read
 * back when no manager answers. An update's items replace those of the same id; a complete one replaces everything.
 */
import type { EndpointsUpdate } from '../../proto/generated/shoal/v1/EndpointsUpdate.ts';
import type { OverlayEndpoint } from '../../proto/generated/shoal/v1/OverlayEndpoint.ts';
import type { OverlayNetwork } from '../../proto/generated/shoal/v1/OverlayNetwork.ts';
import type { OverlayService } from '../../proto/generated/shoal/v1/OverlayService.ts';

export interface Peer {
  readonly nodeId: string;
  readonly hostname: string;
  /** The address its vxlan packets come from. */
  readonly underlay: string;
  /** Its own addresses on the network, without prefix. */
  readonly gateways: readonly string[];
  /** Its keys as announcementOf writes them; empty when it can't encrypt. */
  readonly wireguardPublicKey: string;
}

export interface DesiredNetwork {
  readonly id: string;
  readonly name: string;
  readonly vxlanId: number;
  /** CIDR form, both families. */
  readonly subnets: readonly string[];
  /** This node's own addresses on it, in CIDR form. */
  readonly gateways: readonly string[];
  readonly mtu: number;
  readonly isInternal: boolean;
  readonly isEncrypted: boolean;
  readonly isIngress: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly peers: readonly Peer[];
  /** Containers on it that are no tasks, on any node; absent in states of before there were any. */
  readonly containers?: readonly {
    readonly names: readonly string[];
    readonly addresses: readonly string[];
  }[];
}

export interface PublishedPort {
  readonly name: string;
  readonly protocol: 'tcp' | 'udp';
  readonly targetPort: number;
  readonly publishedPort: number;
}

export interface Endpoint {
  readonly taskId: string;
  /** web.1 */
  readonly name: string;
  readonly nodeId: string;
  readonly hostname: string;
  readonly slot: number;
  /** Network id → its addresses there, without prefix, both families. */
  readonly addresses: Readonly<Record<string, readonly string[]>>;
  /** Gets no new connections. */
  readonly isDraining: boolean;
  /** Its part of new connections, as against the service's other endpoints; absent: 1. */
  readonly weight?: number;
  /** Where its ingress ports (tcp) are reached without a network of the cluster, by target port; absent: nowhere. */
  readonly host?: { readonly address: string; readonly ports: Readonly<Record<string, number>> };
}

export interface DesiredService {
  readonly id: string;
  readonly name: string;
  /** The stack's name; empty when it is in none. */
  readonly stack: string;
  readonly networks: readonly {
    readonly networkId: string;
    /** Without prefix; none in dnsrr mode. */
    readonly virtualAddresses: readonly string[];
    readonly aliases: readonly string[];
  }[];
  readonly ports: readonly PublishedPort[];
  readonly endpoints: readonly Endpoint[];
  /** The service's `shoal.*` labels that concern the data plane. */
  readonly options: Readonly<Record<string, string>>;
}

/** A network as a task's container is attached to it. */
export interface ReadyNetwork {
  /** The engine's name for it. */
  readonly name: string;
  /** Addresses of this node's DNS server on it. */
  readonly nameservers: readonly string[];
}

export interface Desired {
  /** Of the last update; empty before the first. */
  readonly revision: string;
  /** UDP port of vxlan packets. */
  readonly dataPathPort: number;
  readonly networks: readonly DesiredNetwork[];
  readonly services: readonly DesiredService[];
}

const defaultDataPathPort = 4789;

export const nothingDesired: Desired = {
  revision: '',
  dataPathPort: defaultDataPathPort,
  networks: [],
  services: [],
};

/** `before` with `update` on top. */
export function withUpdate(before: Desired, update: EndpointsUpdate): Desired {
  const base = update.complete === true ? nothingDesired : before;
  return {
    revision: String(update.revision ?? ''),
    dataPathPort: update.data_path_port || defaultDataPathPort,
    networks: replaced(base.networks, withKeys(before, update.networks ?? []), update.removed_networks),
    services: replaced(base.services, (update.services ?? []).map(serviceOf), update.removed_services),
  };
}

/** A new leader hands a peer's keys on when the peer told it: until then those known before go on. */
function withKeys(before: Desired, networks: readonly OverlayNetwork[]): DesiredNetwork[] {
  const known = new Map<string, string>();
  for (const { peers } of before.networks) {
    for (const { nodeId, wireguardPublicKey } of peers) {
      if (wireguardPublicKey !== '') known.set(nodeId, wireguardPublicKey);
    }
  }
  return networks.map(networkOf).map((network) => ({
    ...network,
    peers: network.peers.map((peer) => ({
      ...peer,
      wireguardPublicKey: peer.wireguardPublicKey || (known.get(peer.nodeId) ?? ''),
    })),
  }));
}

function replaced<T extends { readonly id: string }>(
  before: readonly T[],
  items: readonly T[],
  removed: readonly string[] | undefined,
): readonly T[] {
  if (items.length === 0 && (removed ?? []).length === 0) return before;
  const byId = new Map(before.map((item) => [item.id, item]));
  for (const id of removed ?? []) byId.delete(id);
  for (const item of items) byId.set(item.id, item);
  return [...byId.values()];
}

function networkOf(wire: OverlayNetwork): DesiredNetwork {
  return {
    id: wire.id ?? '',
    name: wire.name ?? '',
    vxlanId: wire.vxlan_id ?? 0,
    subnets: wire.subnets ?? [],
    gateways: wire.gateways ?? [],
    mtu: wire.mtu ?? 0,
    isInternal: wire.internal === true,
    isEncrypted: wire.encrypted === true,
    isIngress: wire.ingress === true,
    labels: wire.labels ?? {},
    peers: (wire.peers ?? []).map((peer) => ({
      nodeId: peer.node_id ?? '',
      hostname: peer.hostname ?? '',
      underlay: peer.underlay ?? '',
      gateways: peer.gateways ?? [],
      wireguardPublicKey: peer.wireguard_public_key ?? '',
    })),
    containers: (wire.containers ?? []).map(({ names = [], addresses = [] }) => ({ names, addresses })),
  };
}

function serviceOf(wire: OverlayService): DesiredService {
  return {
    id: wire.id ?? '',
    name: wire.name ?? '',
    stack: wire.stack ?? '',
    networks: (wire.networks ?? []).map((network) => ({
      networkId: network.network_id ?? '',
      virtualAddresses: network.virtual_addresses ?? [],
      aliases: network.aliases ?? [],
    })),
    ports: (wire.ports ?? []).map((port) => ({
      name: port.name ?? '',
      protocol: port.protocol === 'udp' ? 'udp' : 'tcp',
      targetPort: port.target_port ?? 0,
      publishedPort: port.published_port ?? 0,
    })),
    endpoints: (wire.endpoints ?? []).map(endpointOf),
    options: wire.options ?? {},
  };
}

function endpointOf(wire: OverlayEndpoint): Endpoint {
  const addresses = Object.entries(wire.addresses ?? {}).map(([networkId, list]) => [
    networkId,
    list.split(',').filter((address) => address !== ''),
  ]);
  return {
    taskId: wire.task_id ?? '',
    name: wire.name ?? '',
    nodeId: wire.node_id ?? '',
    hostname: wire.hostname ?? '',
    slot: wire.slot ?? 0,
    addresses: Object.fromEntries(addresses) as Record<string, readonly string[]>,
    isDraining: wire.is_draining === true,
    ...(wire.weight ? { weight: wire.weight } : {}),
    ...(wire.host_address ? { host: { address: wire.host_address, ports: wire.host_ports ?? {} } } : {}),
  };
}

/** Whether `address` is of IPv6. */
export function isIpv6(address: string): boolean {
  return address.includes(':');
}

/** A network's bridge on this host. An interface's name has at most 15 characters. */
export function bridgeName(network: Pick<DesiredNetwork, 'vxlanId'>): string {
  return `shoal${network.vxlanId}`;
}

/** A network's vxlan interface, which is a port of its bridge. */
export function vxlanName(network: Pick<DesiredNetwork, 'vxlanId'>): string {
  return `vx${network.vxlanId}`;
}
