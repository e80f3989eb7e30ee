/** What lives on a network, as `docker network inspect --verbose` shows it: from the store, for the whole cluster. */
import type { Network, PortConfig, Service, Task } from '../../proto/docker.ts';
import { isTerminal } from '../../proto/task-state.ts';
import { clusterAttachments } from '../store/attachment.ts';
import { hostOf } from '../store/ip.ts';
import type { View } from '../store/store.ts';

interface ServiceOnNetwork {
  VIP: string;
  Ports: string[];
  /** The number of the service's firewall mark on one engine, which the cluster does not know. */
  LocalLBIndex: number;
  Tasks: { Name: string; EndpointID: string; EndpointIP: string; Info: Record<string, string> }[];
}

/** By name: every service on the network, with its virtual address there and its tasks that have not ended. */
export function servicesOnNetwork(view: View, network: Network): Record<string, ServiceOnNetwork> {
  const services = network.Spec.Ingress
    ? view.find('service', 'ingress', 'true')
    : view
        .list('service')
        .filter((service) => clusterAttachments(view, service.Spec).some((one) => one.network === network));
  const tasks = view.find('task', 'network', network.ID).filter((task) => !isTerminal(task.Status.State));
  return Object.fromEntries(
    services.map((service) => [
      service.Spec.Name,
      {
        VIP: virtualAddress(service, network),
        Ports: (service.Endpoint.Ports ?? []).map(describePort),
        LocalLBIndex: 0,
        Tasks: tasks
          .filter((task) => task.ServiceID === service.ID)
          .flatMap((task) => taskOnNetwork(view, service, task, network)),
      },
    ]),
  );
}

function virtualAddress(service: Service, network: Network): string {
  const own = service.Endpoint.VirtualIPs?.find((one) => one.NetworkID === network.ID);
  return own ? hostOf(own.Addr) : '';
}

function describePort(port: PortConfig): string {
  return `Target: ${port.TargetPort}, Publish: ${port.PublishedPort ?? 0}`;
}

function taskOnNetwork(
  view: View,
  service: Service,
  task: Task,
  network: Network,
): ServiceOnNetwork['Tasks'] {
  const address = task.NetworksAttachments?.find((one) => one.NetworkID === network.ID)?.Addresses[0];
  const node = view.get('node', task.NodeID);
  if (!address || !node) return [];
  return [
    {
      Name: `${service.Spec.Name}.${task.Slot ?? node.ID}.${task.ID}`,
      EndpointID: '',
      EndpointIP: hostOf(address),
      Info: { 'Host IP': node.Status.Addr },
    },
  ];
}
