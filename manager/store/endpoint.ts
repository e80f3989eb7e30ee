/**
 * What a service's endpoint says: its published ports with every default written out. Here because a service
 * is stored with it from the start, and the allocator completes it.
 */
import type { EndpointSpec, PortConfig, Service, ServiceSpec } from '../../proto/docker.ts';
import type { ServiceId } from '../../proto/ids.ts';
import type { View } from './store.ts';

/**
 * The endpoint of a service as far as it follows from its spec. Virtual addresses are kept as they were, and so
 * is a port that was given out for one that the spec leaves open; the allocator gives out what is missing.
 */
export function endpointOf(service: Pick<Service, 'Spec' | 'Endpoint'>): Service['Endpoint'] {
  const asked = service.Spec.EndpointSpec;
  const specified = (asked?.Ports ?? []).map(withDefaults);
  const given = [...(service.Endpoint.Ports ?? [])];
  const ports = specified.map((port): PortConfig => {
    if (!isIngressPort(port) || port.PublishedPort) return port;
    const at = given.findIndex((one) => isIngressPort(one) && one.PublishedPort && isSamePort(one, port));
    return at < 0 ? port : given.splice(at, 1)[0]!;
  });
  const Spec: EndpointSpec = {
    Mode: asked?.Mode ?? 'vip',
    ...(specified.length > 0 ? { Ports: specified } : {}),
  };
  const { VirtualIPs } = service.Endpoint;
  return { Spec, ...(ports.length > 0 ? { Ports: ports } : {}), ...(VirtualIPs ? { VirtualIPs } : {}) };
}

function withDefaults(port: PortConfig): PortConfig {
  return { ...port, Protocol: port.Protocol ?? 'tcp', PublishMode: port.PublishMode ?? 'ingress' };
}

function isSamePort(a: PortConfig, b: PortConfig): boolean {
  return a.TargetPort === b.TargetPort && a.Protocol === b.Protocol && (a.Name ?? '') === (b.Name ?? '');
}

export function isIngressPort(port: PortConfig): boolean {
  return port.PublishMode !== 'host';
}

/** Whether a service publishes a port in ingress mode, so that its tasks join the ingress network. */
export function needsIngress(spec: Pick<ServiceSpec, 'EndpointSpec'>): boolean {
  return (spec.EndpointSpec?.Ports ?? []).some(isIngressPort);
}

/** Protocol and number of a published port: two services may not both publish one in ingress mode. */
export function portKey(port: PortConfig): string {
  return `${port.Protocol ?? 'tcp'}/${port.PublishedPort ?? 0}`;
}

/**
 * Says, in Docker's words, which port that `spec` publishes another service publishes already; undefined when
 * none does. Host ports of two services may be equal: the scheduler keeps them apart. `self` is the service
 * itself when it exists already.
 */
export function describePortConflict(
  view: Pick<View, 'find' | 'get' | 'claims'>,
  spec: ServiceSpec,
  self?: ServiceId,
): string | undefined {
  for (const port of spec.EndpointSpec?.Ports ?? []) {
    if (!port.PublishedPort) continue;
    const inUse = (service: Service, how: string) =>
      `port '${port.PublishedPort}' is already in use by service '${service.Spec.Name}' (${service.ID}) as ${how}`;
    const holder = view.claims.holderOfPort(portKey(port));
    const other = holder === self ? undefined : view.get('service', holder);
    if (other) return inUse(other, 'an ingress port');
    if (!isIngressPort(port)) continue;
    const onHosts = view.find('service', 'hostPort', portKey(port)).find((service) => service.ID !== self);
    if (onHosts) return inUse(onHosts, 'a host-published port');
  }
  return undefined;
}
