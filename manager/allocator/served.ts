/** Whether a service has the endpoint that its spec asks for: its ports, and its virtual addresses. */
import type { Network, Service, ServiceSpec } from '../../proto/docker.ts';
import { clusterAttachments, familiesOf, type NetworkLookup } from '../store/attachment.ts';
import { endpointOf, isIngressPort } from '../store/endpoint.ts';
import { familyOf } from '../store/ip.ts';
import { sameValue } from '../store/normalize.ts';

/** Whether a service is reached by addresses of its own, one on each of its networks. */
export function wantsVirtualAddresses(spec: Pick<ServiceSpec, 'EndpointSpec'>): boolean {
  return spec.EndpointSpec?.Mode !== 'dnsrr';
}

/** Whether a service is to have a virtual address on the network, of some family, and has none. */
export function lacksVirtualAddress({ Spec, Endpoint }: Service, network: Network): boolean {
  if (!wantsVirtualAddresses(Spec)) return false;
  return familiesOf(network).some(
    (family) =>
      !Endpoint.VirtualIPs?.some((one) => one.NetworkID === network.ID && familyOf(one.Addr) === family),
  );
}

export function isServed(view: NetworkLookup, service: Service): boolean {
  if (!sameValue(endpointOf(service), service.Endpoint)) return false;
  const isOpen = service.Endpoint.Ports?.some((port) => isIngressPort(port) && !port.PublishedPort);
  if (isOpen) return false;
  const networks = clusterAttachments(view, service.Spec).map(({ network }) => network);
  const wanted = wantsVirtualAddresses(service.Spec) ? networks.flatMap(familiesOf).length : 0;
  return (
    (service.Endpoint.VirtualIPs?.length ?? 0) === wanted &&
    !networks.some((network) => lacksVirtualAddress(service, network))
  );
}
