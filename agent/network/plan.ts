/**
 * Which networks of the engine a task needs, and how they are to be. Pure. Every cluster network that a task on
 * this node is attached to is one bridge network of the engine, labelled with the cluster network's id; daemons
 * that share an engine share it. Nothing of it leaves the host, so a network's `encrypted` option has nothing to do.
 */

import { networkIdLabel } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { AttachedNetwork } from '../engine/container-spec.ts';
import type { EngineNetworkRequest } from '../engine/engine.ts';
import type { WireAttachment, WireNetwork, WireTask } from '../wire.ts';
import { bridgeName, type DesiredNetwork, isIpv6, type ReadyNetwork } from './desired.ts';

const shortIdLength = 12;
const modes: Readonly<Record<string, string>> = {
  host: 'host',
  none: 'none',
  null: 'none',
  bridge: 'bridge',
};
/** Labels that tools of Docker set on networks and look for. */
const copiedLabels = /^com\.docker\.(stack|compose)\./;

export interface ExistingNetwork {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** What a task is attached to, before any network was made. */
export type WantedAttachment =
  | { readonly kind: 'mode'; readonly mode: string }
  | { readonly kind: 'networks'; readonly attachments: readonly WireAttachment[] };

/** The engine's own mode (host, none, bridge) when the task asks for one, else its cluster networks. */
export function wantedAttachment(task: WireTask): WantedAttachment {
  const attachments = (task.networks ?? []).filter(({ network }) => network !== undefined);
  for (const { network } of attachments) {
    const mode = modeOf(network);
    if (mode !== undefined) return { kind: 'mode', mode };
  }
  // The engine's own networks need no addresses, so managers may name them in the spec alone.
  for (const { target } of task.spec?.networks ?? []) {
    if (target !== undefined && Object.hasOwn(modes, target)) return { kind: 'mode', mode: modes[target]! };
  }
  return { kind: 'networks', attachments };
}

function modeOf(network: WireNetwork | undefined): string | undefined {
  const name = network?.spec?.annotations?.name ?? '';
  const driver = network?.driver_state?.name || network?.spec?.driver_config?.name || '';
  if (Object.hasOwn(modes, name)) return modes[name];
  return driver === 'host' || driver === 'null' ? modes[driver] : undefined;
}

/**
 * Docker's overlay, its mesh of published ports included, is a matter among Docker Engines (gossip, IPVS): a task
 * that needs it can't run here. Throws 'not-supported', with what its service can be given instead.
 */
export function refuseDockersOverlay(task: WireTask): void {
  for (const { network } of task.networks ?? []) {
    if (network?.driver_state?.name !== 'overlay' && network?.spec?.driver_config?.name !== 'overlay')
      continue;
    const name = network.spec?.annotations?.name ?? network.id ?? '';
    throw new ShoalError(
      'not-supported',
      network.spec?.ingress === true
        ? 'this node runs shoald in a Docker Swarm and takes no part in its ingress mesh: publish the port with mode=host, or keep the service on Docker Engines with a constraint'
        : `this node runs shoald in a Docker Swarm and takes no part in its overlay networks: network ${name} can't be had here; use the network host or bridge, or keep the service on Docker Engines with a constraint`,
    );
  }
}

/** Whether the cluster gave the network a subnet; one without is the engine's own, made by its administrator. */
export function isClusterNetwork(network: WireNetwork): boolean {
  return (network.ipam?.configs ?? []).some(({ subnet }) => subnet !== undefined && subnet !== '');
}

/**
 * How the engine's network for `network` is to be: the one that carries its id when there is one among
 * `existing`, else its own name, with its id behind it when that name is someone else's.
 */
export function engineNetwork(
  network: WireNetwork,
  existing: readonly ExistingNetwork[],
): EngineNetworkRequest {
  const id = network.id ?? '';
  const name = network.spec?.annotations?.name || id;
  const own = existing.find(({ labels }) => labels[networkIdLabel] === id);
  const isTaken = existing.some((other) => other.name === name);
  const labels: Record<string, string> = { [networkIdLabel]: id };
  for (const [key, value] of Object.entries(network.spec?.annotations?.labels ?? {})) {
    if (copiedLabels.test(key)) labels[key] = value;
  }
  return {
    name: own?.name ?? (isTaken ? `${name}.${id.slice(0, shortIdLength)}` : name),
    labels: own?.labels ?? labels,
    subnets: (network.ipam?.configs ?? [])
      .filter(({ subnet }) => subnet !== undefined && subnet !== '')
      .map(({ subnet, gateway, range }) => ({
        subnet: subnet!,
        ...(gateway ? { gateway: gateway.replace(/\/\d+$/, '') } : {}),
        ...(range ? { ipRange: range } : {}),
      })),
    internal: network.spec?.internal === true,
    options: bridgeOptions(network),
  };
}

/** Options that mean something to a bridge; the overlay's own do not. */
function bridgeOptions(network: WireNetwork): Record<string, string> {
  const options: Record<string, string> = {};
  for (const [key, value] of Object.entries(network.spec?.driver_config?.options ?? {})) {
    if (key.startsWith('com.docker.network.bridge.') || key === 'com.docker.network.driver.mtu') {
      options[key] = value;
    }
  }
  return options;
}

/**
 * The task's end of a network. The engine's DNS answers the service's name, `tasks.<service>` and the aliases
 * with the addresses of all containers that carry them.
 */
export function attachedNetwork(task: WireTask, attachment: WireAttachment, name: string): AttachedNetwork {
  const service = task.service_annotations?.name;
  const isCluster = attachment.network !== undefined && isClusterNetwork(attachment.network);
  const aliases = [...(service ? [service, `tasks.${service}`] : []), ...(attachment.aliases ?? [])];
  return {
    name,
    addresses: isCluster ? (attachment.addresses ?? []) : [],
    aliases: [...new Set(aliases)],
    driverOptions: attachment.driver_attachment_opts ?? {},
    nameservers: [],
  };
}

/** The task's end of an overlay: names are answered by the data plane's DNS server alone. */
export function overlayEnd(attachment: WireAttachment, ready: ReadyNetwork): AttachedNetwork {
  return {
    name: ready.name,
    addresses: attachment.addresses ?? [],
    aliases: [],
    driverOptions: attachment.driver_attachment_opts ?? {},
    nameservers: ready.nameservers,
  };
}

/** Whether the network is one between hosts, for the data plane to make. */
export function isOverlay(network: WireNetwork): boolean {
  return network.driver_state?.name === 'overlay';
}

/** Labels of the engine's network for an overlay: what can't be changed once it stands is told by them. */
const bridgeLabel = 'shoal.network.bridge';
const gatewayLabel = 'shoal.network.gateway';

/** How the engine's network for an overlay is to be; its name as in engineNetwork. */
export function overlayEngineNetwork(
  network: DesiredNetwork,
  existing: readonly ExistingNetwork[],
): EngineNetworkRequest {
  const labels: Record<string, string> = {
    [networkIdLabel]: network.id,
    [bridgeLabel]: bridgeName(network),
    [gatewayLabel]: network.gateways.join(','),
  };
  for (const [key, value] of Object.entries(network.labels)) {
    if (copiedLabels.test(key)) labels[key] = value;
  }
  const gateways = network.gateways.map((gateway) => gateway.replace(/\/\d+$/, ''));
  const isTaken = existing.some(
    (other) => other.name === network.name && other.labels[networkIdLabel] !== network.id,
  );
  return {
    name: isTaken ? `${network.name}.${network.id.slice(0, shortIdLength)}` : network.name,
    labels,
    subnets: network.subnets.map((subnet) => {
      const gateway = gateways.find((one) => isIpv6(one) === isIpv6(subnet));
      return { subnet, ...(gateway === undefined ? {} : { gateway }) };
    }),
    internal: network.isInternal,
    options: {
      'com.docker.network.bridge.name': bridgeName(network),
      'com.docker.network.driver.mtu': String(network.mtu),
    },
  };
}

/** Names of the engine's networks for `network` that are not as `request` says: its addresses here were others. */
export function outdatedNetworks(
  network: DesiredNetwork,
  request: EngineNetworkRequest,
  existing: readonly ExistingNetwork[],
): string[] {
  return existing
    .filter(({ labels }) => labels[networkIdLabel] === network.id)
    .filter(
      ({ name, labels }) =>
        name !== request.name ||
        [bridgeLabel, gatewayLabel].some((key) => labels[key] !== request.labels[key]),
    )
    .map(({ name }) => name);
}

/** Bridges of the networks between hosts that the engine has. */
export function bridgesOf(existing: readonly ExistingNetwork[]): Set<string> {
  return new Set(existing.flatMap(({ labels }) => labels[bridgeLabel] ?? []));
}

/** Where an error tells of the bridge that `remnantIn` found. */
export const remnantDetail = 'remnant';

const conflict = /conflicts with network [0-9a-f]{64} \((shoal\d+)\): networks have /;

/**
 * The bridge that an engine which refuses a network in these words remembers of another one that it has not got (any more):
 * bridges of `existing` ones are no remnants.
 */
export function remnantIn(words: string, existing: readonly ExistingNetwork[]): string | undefined {
  const [, bridge] = conflict.exec(words) ?? [];
  return bridge === undefined || bridgesOf(existing).has(bridge) ? undefined : bridge;
}

/** Ids of the cluster networks that `task` uses on this node. */
export function networkIdsOf(task: WireTask): string[] {
  const wanted = wantedAttachment(task);
  if (wanted.kind === 'mode') return [];
  return wanted.attachments.flatMap(({ network }) =>
    network?.id !== undefined && isClusterNetwork(network) ? network.id : [],
  );
}

/** Where `task` asks for names from: `network id/address`, without prefix. */
export function endsOf(task: WireTask): string[] {
  return (task.networks ?? []).flatMap(({ network, addresses }) =>
    (addresses ?? []).map((address) => `${network?.id ?? ''}/${address.replace(/\/\d+$/, '')}`),
  );
}

/** Names of the networks made for a cluster that none of `usedIds` needs any more. */
export function unusedNetworks(existing: readonly ExistingNetwork[], usedIds: ReadonlySet<string>): string[] {
  return existing
    .filter(({ labels }) => labels[networkIdLabel] !== undefined && !usedIds.has(labels[networkIdLabel]))
    .map(({ name }) => name);
}
