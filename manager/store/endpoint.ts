/**
 * What a service's endpoint says: its published ports with every default written out. Here because a service
 * is stored with it from the start, and the allocator sees to it that it stays so.
 */
import type { EndpointSpec, PortConfig, Service } from '../../proto/docker.ts';
import { sameValue } from './normalize.ts';

/**
 * The endpoint of a service. Names resolve to the tasks themselves, in turn, so there are no virtual
 * addresses to hand out; those that a service has are kept.
 */
export function endpointOf(service: Pick<Service, 'Spec' | 'Endpoint'>): Service['Endpoint'] {
  const asked = service.Spec.EndpointSpec;
  const ports = (asked?.Ports ?? []).map(withDefaults);
  const Spec: EndpointSpec = { Mode: asked?.Mode ?? 'vip', ...(ports.length > 0 ? { Ports: ports } : {}) };
  const { VirtualIPs } = service.Endpoint;
  return { Spec, ...(ports.length > 0 ? { Ports: ports } : {}), ...(VirtualIPs ? { VirtualIPs } : {}) };
}

/** Whether the endpoint stored with a service is the one that its spec asks for. */
export function hasEndpoint(service: Service): boolean {
  return sameValue(service.Endpoint, endpointOf(service));
}

function withDefaults(port: PortConfig): PortConfig {
  return { ...port, Protocol: port.Protocol ?? 'tcp', PublishMode: port.PublishMode ?? 'ingress' };
}
