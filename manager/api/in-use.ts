/** What still uses an object that someone wants to remove. */
import type { Network, Service } from '../../proto/docker.ts';
import { isTerminal } from '../../proto/task-state.ts';
import type { View } from '../store/store.ts';
import { swarmError } from './request.ts';

/** Refuses, in Docker's words, to remove a secret or config that services use. */
export function refuseUsedData(what: 'secret' | 'config', name: string, users: readonly Service[]): void {
  if (users.length === 0) return;
  const names = users.map((service) => service.Spec.Name).join(', ');
  const services = users.length === 1 ? 'service' : 'services';
  throw swarmError('in-use', `${what} '${name}' is in use by the following ${services}: ${names}`);
}

/**
 * The first service, task or other container that uses a network, as Docker says it; undefined when none does. Tasks of a
 * removed service are about to go, and `stack rm` removes the network right after the service.
 */
export function networkUser(view: View, network: Network): string | undefined {
  const service = view.find('service', 'network', network.ID)[0];
  if (service) return `service ${service.ID}`;
  const task = view
    .find('task', 'network', network.ID)
    .filter((one) => view.get('service', one.ServiceID))
    .find(
      (one) => ['ready', 'running', 'complete'].includes(one.DesiredState) && !isTerminal(one.Status.State),
    );
  if (task) return `task ${task.ID}`;
  for (const { Description, ContainerAttachments = [] } of view.find('node', 'network', network.ID)) {
    const container = ContainerAttachments.find(({ NetworkID }) => NetworkID === network.ID);
    if (container) return `container ${container.Names[0] ?? container.ID} on ${Description.Hostname}`;
  }
  return undefined;
}
