/**
 * What a node's data plane is to know of networks and services, as shoal.v1.Endpoints/Watch says it. Pure.
 *
 * In: the store's view. Out: the items of an update. A task is an endpoint while it runs, and is healthy, on a node
 * whose networks reach others; from the moment that it is to stop it is draining: it gets no new connections.
 */
import { hasAbility } from '../../proto/agent-abilities.ts';
import {
  type ClusterNode,
  dataPathLabel,
  encryptedOption,
  type Network,
  type Service,
  stackLabel,
  type Task,
  vxlanIdListOption,
} from '../../proto/docker.ts';
import type { OverlayContainer } from '../../proto/generated/shoal/v1/OverlayContainer.ts';
import type { OverlayEndpoint } from '../../proto/generated/shoal/v1/OverlayEndpoint.ts';
import type { OverlayNetwork } from '../../proto/generated/shoal/v1/OverlayNetwork.ts';
import type { OverlayPeer } from '../../proto/generated/shoal/v1/OverlayPeer.ts';
import type { OverlayService } from '../../proto/generated/shoal/v1/OverlayService.ts';
import type { NetworkId, ServiceId } from '../../proto/ids.ts';
import { clusterAttachments, ingressNetwork } from '../store/attachment.ts';
import { dataPlaneOf, hasDataPlane, isProxy } from '../store/data-plane.ts';
import { isIngressPort } from '../store/endpoint.ts';
import { serviceOption } from '../store/service-options.ts';
import type { View } from '../store/store.ts';
import { withShares } from './rollout-share.ts';

/** Ethernet's usual 1500, less the 50 bytes of vxlan's headers. */
const defaultMtu = 1450;
/** Less 60 bytes of WireGuard's and IPv4's headers, and 70 of vxlan's over IPv6. */
const encryptedMtu = 1370;
const mtuOption = 'com.docker.network.driver.mtu';
const optionPrefix = 'shoal.';

/** Ids of the networks that a node has an address on. */
export function networkIdsOf(node: ClusterNode): NetworkId[] {
  return (node.Attachments ?? [])
    .filter(({ Addresses }) => Addresses.length > 0)
    .map(({ NetworkID }) => NetworkID);
}

/** Networks whose services concern a node. A proxy is on none: what is published over the ingress network is its affair. */
export function concernedBy(view: View, node: ClusterNode): Set<NetworkId> {
  if (!isProxy(node)) return new Set(networkIdsOf(node));
  const ingress = ingressNetwork(view);
  return new Set(ingress === undefined ? [] : [ingress.ID]);
}

/** Nodes that may send connections to a task: those on its networks, and for published ports every proxy. */
export function nodesWithWayTo(view: View, task: Task): ClusterNode[] {
  const networks = (task.NetworksAttachments ?? []).map(({ NetworkID }) => NetworkID);
  const ingress = ingressNetwork(view)?.ID;
  const proxies =
    ingress !== undefined && networks.includes(ingress) ? view.list('node').filter(isProxy) : [];
  return [...networks.flatMap((id) => view.find('node', 'network', id)), ...proxies];
}

/** A network as `node` is to make it; undefined while it has no vxlan id, subnet, or address for the node. */
export function networkStateOf(
  view: View,
  node: ClusterNode,
  id: NetworkId,
  publicKey: (nodeId: string) => string,
): OverlayNetwork | undefined {
  const network = view.get('network', id);
  const gateways = addressesOn(node, id);
  const vxlanId = Number(network?.DriverState?.Options?.[vxlanIdListOption]?.split(',')[0]);
  if (network === undefined || gateways.length === 0 || !(vxlanId > 0)) return undefined;
  const { Spec, IPAMOptions } = network;
  return {
    id,
    name: Spec.Name,
    vxlan_id: vxlanId,
    subnets: IPAMOptions.Configs.flatMap(({ Subnet }) => (Subnet ? [Subnet] : [])),
    gateways,
    mtu:
      Number(Spec.DriverConfiguration.Options?.[mtuOption]) ||
      (isEncrypted(network) ? encryptedMtu : defaultMtu),
    internal: Spec.Internal === true,
    encrypted: isEncrypted(network),
    ingress: Spec.Ingress === true,
    attachable: Spec.Attachable === true,
    labels: Spec.Labels,
    peers: view
      .find('node', 'network', id)
      .filter((peer) => peer.ID !== node.ID && dataPlaneOf(peer).kind === 'vxlan')
      .map((peer) => peerOf(peer, id, publicKey)),
    containers: view.find('node', 'network', id).flatMap((one) => containersOn(one, id)),
  };
}

function containersOn(node: ClusterNode, network: NetworkId): OverlayContainer[] {
  const { ContainerAttachments = [], ContainerAddresses = [] } = node;
  return ContainerAttachments.flatMap(({ ID, NetworkID, Names }) => {
    const addresses = ContainerAddresses.find((one) => one.ID === ID)?.Addresses ?? [];
    return NetworkID !== network || addresses.length === 0
      ? []
      : [{ names: Names, addresses: addresses.map(bare) }];
  });
}

function isEncrypted({ Spec }: Network): boolean {
  return Spec.DriverConfiguration.Options?.[encryptedOption] !== undefined;
}

function peerOf(peer: ClusterNode, id: NetworkId, publicKey: (nodeId: string) => string): OverlayPeer {
  return {
    node_id: peer.ID,
    hostname: peer.Description.Hostname,
    underlay: peer.Description.Engine.Labels[dataPathLabel] || peer.Status.Addr,
    gateways: addressesOn(peer, id).map(bare),
    wireguard_public_key: publicKey(peer.ID),
  };
}

function addressesOn(node: ClusterNode, id: NetworkId): string[] {
  return node.Attachments?.find(({ NetworkID }) => NetworkID === id)?.Addresses ?? [];
}

function bare(address: string): string {
  return address.replace(/\/\d+$/, '');
}

/** Services with an address or a published port on one of `networks`. */
export function serviceIdsOn(view: View, networks: Iterable<NetworkId>): Set<ServiceId> {
  const ids = new Set<ServiceId>();
  const ingress = ingressNetwork(view)?.ID;
  for (const network of networks) {
    const services = view.find('service', 'network', network);
    if (network === ingress) services.push(...view.find('service', 'ingress', 'true'));
    for (const { ID } of services) ids.add(ID);
    // Tasks of a revision before the present one may be on networks that the service has left.
    for (const { ServiceID } of view.find('task', 'network', network)) ids.add(ServiceID);
  }
  return ids;
}

/** A service and its endpoints; undefined when there is none of that id. The same for every node. */
export function serviceStateOf(view: View, id: ServiceId): OverlayService | undefined {
  const service = view.get('service', id);
  if (service === undefined) return undefined;
  const { Spec, Endpoint } = service;
  const attachments = clusterAttachments(view, Spec);
  const endpoints = view.find('task', 'service', id).flatMap((task) => endpointOf(view, service, task) ?? []);
  return {
    id,
    name: Spec.Name,
    stack: Spec.Labels[stackLabel] ?? '',
    networks: attachments.map(({ network, config }) => ({
      network_id: network.ID,
      virtual_addresses: (Endpoint.VirtualIPs ?? [])
        .filter(({ NetworkID }) => NetworkID === network.ID)
        .map(({ Addr }) => bare(Addr)),
      aliases: config.Aliases ?? [],
    })),
    ports: (Endpoint.Ports ?? [])
      // Agents know of TCP and UDP; the scheduler says so of what publishes SCTP.
      .filter((port) => isIngressPort(port) && port.PublishedPort && port.Protocol !== 'sctp')
      .map((port) => ({
        name: port.Name ?? '',
        protocol: port.Protocol ?? 'tcp',
        target_port: port.TargetPort,
        published_port: port.PublishedPort!,
      })),
    endpoints: withShares(view, service, endpoints).sort((a, b) =>
      (a.task_id ?? '') < (b.task_id ?? '') ? -1 : 1,
    ),
    options: Object.fromEntries(Object.entries(Spec.Labels).filter(([key]) => key.startsWith(optionPrefix))),
  };
}

/**
 * The state as `node` is told it: an agent that sends no PROXY protocol header would send connections on without one to
 * tasks that wait for it, so it is told of no such port, and refuses it.
 */
export function asToldTo(node: ClusterNode, state: OverlayService): OverlayService {
  const isTold =
    serviceOption(state.options ?? {}, 'ingress') !== 'proxy-protocol' ||
    hasAbility(node.Description.Engine.Labels, 'proxy-protocol');
  return isTold ? state : { ...state, ports: [] };
}

/** Whether a task is reached by others: it runs, with an address, on a node whose networks or ports reach them. */
export function isEndpoint(view: View, task: Task): boolean {
  if (task.Status.State !== 'running' || !task.NetworksAttachments?.length || task.NodeID === undefined)
    return false;
  const node = view.get('node', task.NodeID);
  // A node that is lost takes nobody's connections: its tasks are no endpoints from the moment that this is known.
  return node !== undefined && node.Status.State !== 'down' && hasDataPlane(node);
}

/** Whether it is to stop. */
export function isDraining(task: Task): boolean {
  return task.DesiredState !== 'running' && task.DesiredState !== 'ready';
}

function endpointOf(view: View, service: Service, task: Task): OverlayEndpoint | undefined {
  if (!isEndpoint(view, task)) return undefined;
  const node = view.get('node', task.NodeID!)!;
  const ports = hostPortsOf(view, service, task, node);
  const isReached = Object.keys(ports).length > 0;
  if (isProxy(node) && !isReached) return undefined;
  return {
    task_id: task.ID,
    name: `${service.Spec.Name}.${task.Slot ?? task.NodeID}`,
    node_id: task.NodeID!,
    hostname: node.Description.Hostname,
    slot: task.Slot ?? 0,
    addresses: Object.fromEntries(
      (isProxy(node) ? [] : (task.NetworksAttachments ?? [])).map(({ NetworkID, Addresses }) => [
        NetworkID,
        Addresses.map(bare).join(','),
      ]),
    ),
    is_draining: isDraining(task),
    ...(isReached ? { host_address: node.Status.Addr, host_ports: ports } : {}),
  };
}

/**
 * Ports of the node by which a task's ingress ports (tcp) are reached without the ingress network, by target port. On a
 * node of the mesh it is the published one, unless something else holds that there; on one with a proxy the one that the
 * engine gave the task. None where the ingress network is encrypted: such connections would be in the clear.
 */
function hostPortsOf(view: View, service: Service, task: Task, node: ClusterNode): Record<string, number> {
  const ingress = ingressNetwork(view);
  if (ingress === undefined || isEncrypted(ingress)) return {};
  const all = service.Endpoint.Ports ?? [];
  const ports = all.filter(
    (port) => isIngressPort(port) && (port.Protocol ?? 'tcp') === 'tcp' && port.PublishedPort,
  );
  if (!isProxy(node)) {
    if (node.Problems?.some(({ ServiceID }) => ServiceID === service.ID)) return {};
    return Object.fromEntries(ports.map(({ TargetPort, PublishedPort }) => [TargetPort, PublishedPort!]));
  }
  const isOfSpec = (port: number) => all.some((one) => !isIngressPort(one) && one.PublishedPort === port);
  return Object.fromEntries(
    ports.flatMap(({ TargetPort }) => {
      const given = task.Status.PortStatus?.Ports?.find(
        (one) => one.TargetPort === TargetPort && one.Protocol !== 'udp' && !isOfSpec(one.PublishedPort ?? 0),
      );
      return given?.PublishedPort ? [[TargetPort, given.PublishedPort] as const] : [];
    }),
  );
}
