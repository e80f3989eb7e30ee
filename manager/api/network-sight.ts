/**
 * Our own endpoints for networks between hosts. /networks/{id}/endpoints: who is reached on a network, and which nodes
 * hold it in their kernels. /nodes/{id}/network-difference: what a node's kernel lacks of what the managers want.
 */
import { Router } from 'express';
import type { ClusterNode, Network } from '../../proto/docker.ts';
import type { OverlayEndpoint } from '../../proto/generated/shoal/v1/OverlayEndpoint.ts';
import type { OverlayService } from '../../proto/generated/shoal/v1/OverlayService.ts';
import type { ProgrammedNode } from '../../proto/generated/shoal/v1/ProgrammedNode.ts';
import type { ProgrammedResponse } from '../../proto/generated/shoal/v1/ProgrammedResponse.ts';
import { hostOf } from '../store/ip.ts';
import type { View } from '../store/store.ts';
import type { ApiHost } from './contract.ts';
import { lookup, lookupNode } from './lookup.ts';
import { managedCluster, pathOf } from './request.ts';

/** Names of nodes that hold something, and of those that are up and do not, yet. */
interface Held {
  /** Of the update by which nodes were told of it as it is now; 0: none was yet. */
  readonly Version: number;
  readonly Programmed: readonly string[];
  readonly Missing: readonly string[];
}

export interface NetworkEndpoints {
  readonly Nodes: readonly {
    readonly ID: string;
    readonly Name: string;
    /** The node's own addresses on the network. */
    readonly Addresses: readonly string[];
    /** Of the last update that its kernel holds; 0: not known. */
    readonly Version: number;
    /** `silent`: it is up and its data plane does not listen to the leader. */
    readonly State: 'current' | 'behind' | 'silent' | 'down';
    readonly Problems: readonly string[];
  }[];
  readonly Services: readonly (Held & {
    readonly ID: string;
    readonly Name: string;
    /** None in dnsrr mode. */
    readonly VirtualAddresses: readonly string[];
    readonly Ports: readonly string[];
  })[];
  readonly Endpoints: readonly (Held & {
    /** web.1 */
    readonly Name: string;
    readonly Service: string;
    readonly TaskID: string;
    readonly Node: string;
    readonly Addresses: readonly string[];
    /** `draining`: gets no new connections. */
    readonly State: 'serving' | 'draining';
  })[];
}

export interface NetworkDifference {
  readonly Node: string;
  /** Of the last update that the node was told; 0: none yet. */
  readonly Version: number;
  /** What it would do now, in order: lines of nft, ip, bridge, wg, sysctl and iptables. None: its kernel is as it should be. */
  readonly Operations: readonly string[];
}

export function networkSightRoutes(host: ApiHost): Router {
  const routes = Router();
  routes.get('/networks/:id/endpoints', async (request, response) => {
    const { store, dataPlanes } = await managedCluster(host);
    const network = lookup(store, 'network', pathOf(request, 'id'));
    response.json(networkEndpoints(store, network, await dataPlanes.programmed(network.ID)));
  });
  routes.get('/nodes/:id/network-difference', async (request, response) => {
    const cluster = await managedCluster(host);
    const node = lookupNode(cluster, pathOf(request, 'id'));
    const { revision, operations } = await cluster.dataPlanes.ask(node.ID, { difference: {} });
    const answer: NetworkDifference = {
      Node: nameOf(node),
      Version: Number(revision || 0),
      Operations: operations ?? [],
    };
    response.json(answer);
  });
  return routes;
}

/** `programmed` is the leader's word on the network. */
export function networkEndpoints(
  view: View,
  network: Network,
  programmed: ProgrammedResponse,
): NetworkEndpoints {
  const services = programmed.services ?? [];
  const nodes = (programmed.nodes ?? []).flatMap((told) => {
    const node = view.get('node', told.node_id as ClusterNode['ID']);
    return node === undefined ? [] : [{ node, told }];
  });
  const heldOf = ({ id = '' }: OverlayService): Held => held(nodes, ({ services: all }) => all?.[id] ?? '');
  return {
    Nodes: nodes.map(({ node, told }) => ({
      ID: node.ID,
      Name: nameOf(node),
      Addresses: (node.Attachments ?? [])
        .filter(({ NetworkID }) => NetworkID === network.ID)
        .flatMap(({ Addresses }) => Addresses.map(hostOf)),
      Version: Number(told.confirmed || 0),
      State: stateOf(node, told, services),
      Problems: (node.Problems ?? [])
        .filter(({ NetworkID }) => NetworkID === undefined || NetworkID === network.ID)
        .map(({ Message }) => Message),
    })),
    Services: services.map((service) => ({
      ID: service.id ?? '',
      Name: service.name ?? '',
      VirtualAddresses: (service.networks ?? [])
        .filter(({ network_id }) => network_id === network.ID)
        .flatMap(({ virtual_addresses }) => virtual_addresses ?? []),
      Ports: network.Spec.Ingress
        ? (service.ports ?? []).map((port) => `${port.published_port}->${port.target_port}/${port.protocol}`)
        : [],
      ...heldOf(service),
    })),
    Endpoints: services.flatMap((service) =>
      (service.endpoints ?? []).flatMap((endpoint) =>
        endpointOn(network, service, endpoint, heldOf(service)),
      ),
    ),
  };
}

function endpointOn(
  network: Network,
  service: OverlayService,
  endpoint: OverlayEndpoint,
  where: Held,
): NetworkEndpoints['Endpoints'] {
  const addresses = endpoint.addresses?.[network.ID];
  if (addresses === undefined) return [];
  return [
    {
      Name: endpoint.name ?? '',
      Service: service.name ?? '',
      TaskID: endpoint.task_id ?? '',
      Node: endpoint.hostname || (endpoint.node_id ?? ''),
      Addresses: addresses.split(','),
      State: endpoint.is_draining ? 'draining' : 'serving',
      ...where,
    },
  ];
}

type Told = { readonly node: ClusterNode; readonly told: ProgrammedNode };

/** Who holds something of which each node was told with the update that `revisionOf` names. */
function held(nodes: readonly Told[], revisionOf: (told: ProgrammedNode) => string): Held {
  const holds = ({ told }: Told) => isHeld(told, revisionOf(told));
  const up = nodes.filter(({ node }) => node.Status.State !== 'down');
  return {
    Version: Math.max(0, ...nodes.map(({ told }) => Number(revisionOf(told)))),
    Programmed: up.filter(holds).map(({ node }) => nameOf(node)),
    Missing: up.filter((one) => !holds(one)).map(({ node }) => nameOf(node)),
  };
}

function isHeld(told: ProgrammedNode, revision: string): boolean {
  return told.watches === true && revision !== '' && Number(told.confirmed || 0) >= Number(revision);
}

function stateOf(
  node: ClusterNode,
  told: ProgrammedNode,
  services: readonly OverlayService[],
): NetworkEndpoints['Nodes'][number]['State'] {
  if (node.Status.State === 'down') return 'down';
  if (told.watches !== true) return 'silent';
  const revisions = [told.network ?? '', ...services.map(({ id = '' }) => told.services?.[id] ?? '')];
  return revisions.every((revision) => isHeld(told, revision)) ? 'current' : 'behind';
}

function nameOf(node: ClusterNode): string {
  return node.Description.Hostname || node.ID;
}
