/**
 * Published ports on a node without rules of its own, which answers them by a TCP proxy, and what becomes of the tasks of
 * such nodes elsewhere. Pure. In: the desired state. Out: where connections to each port go, and what can't be done, in words.
 */
import type { Desired, DesiredService, Endpoint } from './desired.ts';
import { ingressOption } from './ruleset.ts';

/** Where a connection may go. */
export interface ProxyTarget {
  readonly taskId: string;
  readonly address: string;
  readonly port: number;
  /** Its part of new connections, as against the others; absent: 1. */
  readonly weight?: number;
}

export interface ServiceProblem {
  readonly serviceId: string;
  readonly message: string;
}

/** Published ports (tcp) → targets of new connections, in an order that depends on nothing else. */
export function proxiedPorts(
  { services }: Pick<Desired, 'services'>,
  nodeId: string,
): Map<number, ProxyTarget[]> {
  return new Map(
    services.flatMap((service) =>
      service.ports
        .filter(({ protocol }) => protocol === 'tcp')
        .map(
          ({ publishedPort, targetPort }) => [publishedPort, targetsOf(service, targetPort, nodeId)] as const,
        ),
    ),
  );
}

function targetsOf(service: DesiredService, targetPort: number, nodeId: string): ProxyTarget[] {
  const isForItself = service.options[ingressOption] === 'local';
  return service.endpoints
    .filter((one) => !one.isDraining && (!isForItself || one.nodeId === nodeId))
    .flatMap(({ taskId, nodeId: of, host, weight }) => {
      const port = host?.ports[String(targetPort)];
      if (host === undefined || port === undefined) return [];
      const address = of === nodeId ? '127.0.0.1' : host.address;
      return [{ taskId, address, port, ...(weight === undefined ? {} : { weight }) }];
    })
    .sort((a, b) => (a.taskId < b.taskId ? -1 : 1));
}

/** What of the desired state a proxy does not do. */
export function proxyProblems({ services }: Pick<Desired, 'services'>, nodeId: string): ServiceProblem[] {
  return services.flatMap((service) => {
    const udp = service.ports.filter(({ protocol }) => protocol === 'udp');
    const isUnreached =
      service.options[ingressOption] !== 'local' &&
      service.ports.length > udp.length &&
      service.endpoints.some(serves) &&
      [...proxiedPorts({ services: [service] }, nodeId).values()].every((targets) => targets.length === 0);
    return [
      ...udp.map(({ publishedPort }) => ({
        serviceId: service.id,
        message: `port ${publishedPort}/udp is not answered: this node answers published ports by a TCP proxy`,
      })),
      ...(isUnreached
        ? [
            {
              serviceId: service.id,
              message:
                'its tasks are out of reach of this node’s TCP proxy: the ingress network is encrypted, or their nodes do not answer the port either',
            },
          ]
        : []),
    ];
  });
}

/** Of a node in the mesh: services that it answers for nobody, for their tasks are behind other nodes' proxies. */
export function meshProblems({ services }: Pick<Desired, 'services'>): ServiceProblem[] {
  return services.flatMap((service) => {
    const endpoints = service.endpoints.filter(serves);
    const isUnreached =
      service.ports.length > 0 &&
      service.options[ingressOption] !== 'local' &&
      endpoints.length > 0 &&
      endpoints.every(({ addresses }) => Object.keys(addresses).length === 0);
    if (!isUnreached) return [];
    const message =
      'its published ports are not answered: all of its tasks are on nodes with a TCP proxy in place of a routing mesh; "service update --force" brings them here';
    return [{ serviceId: service.id, message }];
  });
}

function serves({ isDraining }: Endpoint): boolean {
  return !isDraining;
}
