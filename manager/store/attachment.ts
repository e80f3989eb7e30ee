/**
 * Which networks of a service's tasks are the cluster's own, with addresses of ours: here because both
 * the allocator (which address) and the scheduler (may it be placed yet, and where) must agree on it.
 */
import type { Network, NetworkAttachmentConfig, ServiceSpec, Task } from '../../proto/docker.ts';
import { asId, type NetworkId } from '../../proto/ids.ts';
import { needsIngress } from './endpoint.ts';
import type { View } from './store.ts';

/** Networks that every engine has by itself: no object of the cluster stands behind their names. */
const predefinedNames = new Set(['host', 'none', 'bridge']);
const driversWithoutAddresses = new Set(['host', 'null', 'none']);

/** Whether an attachment's target is a network that every engine has by itself. */
export function isPredefinedNetwork(target: string): boolean {
  return predefinedNames.has(target);
}

/** As much of a view as finding a network takes. */
export type NetworkLookup = Pick<View, 'get' | 'find'>;

/** The network of an attachment's target, which is an id or, from older clients, a name. */
export function networkOfTarget(view: NetworkLookup, target: string): Network | undefined {
  return view.get('network', asId<NetworkId>(target)) ?? view.find('network', 'name', target)[0];
}

/** The network over which published ports are reached on every node. */
export function ingressNetwork(view: NetworkLookup): Network | undefined {
  return view.find('network', 'ingress', 'true')[0];
}

/** Whether tasks on `network` get their addresses from the cluster, as on all but the engines' own. */
export function hasClusterAddresses(network: Network): boolean {
  if (predefinedNames.has(network.Spec.Name) || network.Spec.Scope === 'local') return false;
  return !driversWithoutAddresses.has(network.Spec.DriverConfiguration.Name);
}

export interface Attachment {
  readonly network: Network;
  readonly config: NetworkAttachmentConfig;
}

/** The cluster's networks that tasks of `spec` join, each once: ingress when they need it, then the spec's in order. */
export function clusterAttachments(
  view: NetworkLookup,
  spec: Pick<ServiceSpec, 'TaskTemplate' | 'EndpointSpec'>,
): Attachment[] {
  const found = new Map<NetworkId, Attachment>();
  const ingress = needsIngress(spec) ? ingressNetwork(view) : undefined;
  if (ingress) found.set(ingress.ID, { network: ingress, config: { Target: ingress.ID } });
  for (const config of spec.TaskTemplate.Networks ?? []) {
    const network = networkOfTarget(view, config.Target);
    if (network && !found.has(network.ID) && hasClusterAddresses(network)) {
      found.set(network.ID, { network, config });
    }
  }
  return [...found.values()];
}

/** Whether `task` has an address on each of `attachments`, and one of each family where there are two. */
export function hasAddresses(task: Task, attachments: readonly Attachment[]): boolean {
  return attachments.every(({ network }) => {
    const one = task.NetworksAttachments?.find((attached) => attached.NetworkID === network.ID);
    return one !== undefined && one.Addresses.length >= familiesOf(network).length;
  });
}

/** The families of a network's addresses, IPv4 first: at least one, though its subnets are still to come. */
export function familiesOf(network: Network): (4 | 6)[] {
  return network.Spec.IPv6Enabled ? [4, 6] : [4];
}
