/**
 * Published ports that a TCP proxy of the agent answers: all of them on a node without rules of its own, those of services
 * that want the client's address told on a node with rules; and what becomes of the tasks of nodes without rules elsewhere.
 * Pure. In: the desired state. Out: where connections to each port go, and what can't be done, in words.
 */
import { type Desired, type DesiredService, type Endpoint, isIpv6, type PublishedPort } from './desired.ts';

/** Label of a service: to whose tasks a published port leads on a node, and how they know the client. */
export const ingressOption = 'shoal.ingress';

/** Where a connection may go. */
export interface ProxyTarget {
  readonly taskId: string;
  readonly address: string;
  readonly port: number;
  /** Its part of new connections, as against the others; absent: 1. */
  readonly weight?: number;
}

/** What a proxy does with connections to a port. */
export interface ProxiedPort {
  readonly targets: readonly ProxyTarget[];
  /** Before the client's bytes goes a header of the PROXY protocol: see proxy-header.ts. */
  readonly tellsClient: boolean;
}

/** Where to listen to be asked over IPv4 and IPv6. */
export const bothFamilies = '::';

/** A port that a proxy listens on, and at which address. */
export type ListeningPort = ProxiedPort & { readonly host: string };

export interface ServiceProblem {
  readonly serviceId: string;
  readonly message: string;
}

/** Whether a published port answers on nodes alone that run a task of the service, to which the client is known. */
export function isForOwnTasks({ options }: Pick<DesiredService, 'options'>): boolean {
  return options[ingressOption] === 'local';
}

/** Whether the service's tasks are told the client's address by a header. */
export function tellsClient({ options }: Pick<DesiredService, 'options'>): boolean {
  return options[ingressOption] === 'proxy-protocol';
}

/** Whether a node with rules answers the port by its proxy all the same. */
export function isProxied(
  service: Pick<DesiredService, 'options'>,
  { protocol }: Pick<PublishedPort, 'protocol'>,
): boolean {
  return protocol === 'tcp' && tellsClient(service);
}

/** Of a node without rules: published ports (tcp) → targets of new connections, in an order that depends on nothing else. */
export function proxiedPorts(
  { services }: Pick<Desired, 'services'>,
  nodeId: string,
): Map<number, ProxiedPort> {
  return portsOf(
    services,
    ({ protocol }) => protocol === 'tcp',
    (service, endpoint, targetPort) => {
      if (isForOwnTasks(service) && endpoint.nodeId !== nodeId) return undefined;
      // A node with rules would put a header of its own before ours: the task would take this node for the client.
      if (tellsClient(service) && hasRules(endpoint)) return undefined;
      const onHost = hostOf(endpoint, targetPort);
      return onHost && endpoint.nodeId === nodeId ? { ...onHost, address: '127.0.0.1' } : onHost;
    },
  );
}

/** Of a node with rules: the published ports that its proxy answers, by the tasks' addresses on the ingress network. */
export function proxiedPortsOfMesh({
  networks,
  services,
}: Pick<Desired, 'networks' | 'services'>): Map<number, ProxiedPort> {
  const ingress = networks.find(({ isIngress }) => isIngress);
  if (ingress === undefined) return new Map();
  return portsOf(
    services.filter(tellsClient),
    ({ protocol }) => protocol === 'tcp',
    (_, endpoint, targetPort) => {
      const own = endpoint.addresses[ingress.id] ?? [];
      const address = own.find((one) => !isIpv6(one)) ?? own[0];
      return address === undefined ? hostOf(endpoint, targetPort) : { address, port: targetPort };
    },
  );
}

function portsOf(
  services: readonly DesiredService[],
  isAnswered: (port: PublishedPort) => boolean,
  reach: (
    service: DesiredService,
    endpoint: Endpoint,
    targetPort: number,
  ) => Pick<ProxyTarget, 'address' | 'port'> | undefined,
): Map<number, ProxiedPort> {
  return new Map(
    services.flatMap((service) =>
      service.ports.filter(isAnswered).map(({ publishedPort, targetPort }) => {
        const targets = service.endpoints
          .filter(serves)
          .flatMap((endpoint) => {
            const { taskId, weight } = endpoint;
            const way = reach(service, endpoint, targetPort);
            return way === undefined ? [] : [{ taskId, ...way, ...(weight === undefined ? {} : { weight }) }];
          })
          .sort((a, b) => (a.taskId < b.taskId ? -1 : 1));
        return [publishedPort, { targets, tellsClient: tellsClient(service) }] as const;
      }),
    ),
  );
}

/** By a port of its host. */
function hostOf({ host }: Endpoint, targetPort: number): Pick<ProxyTarget, 'address' | 'port'> | undefined {
  const port = host?.ports[String(targetPort)];
  return host === undefined || port === undefined ? undefined : { address: host.address, port };
}

/** Whether it is on a node with rules: those without have no network of the cluster. */
function hasRules({ addresses }: Endpoint): boolean {
  return Object.keys(addresses).length > 0;
}

/** What a proxy that answers `actual` would change to answer `desired`, line by line. */
export function proxyDifference(
  desired: ReadonlyMap<number, ProxiedPort>,
  actual: ReadonlyMap<number, ProxiedPort>,
): string[] {
  const words = ({ targets }: ProxiedPort) =>
    targets
      .map(({ address, port, weight }) => {
        const of = isIpv6(address) ? `[${address}]:${port}` : `${address}:${port}`;
        return weight === undefined ? of : `${of} weight ${weight}`;
      })
      .join(', ') || 'nobody';
  const closed = [...actual.keys()]
    .filter((port) => !desired.has(port))
    .map((port) => `shoald proxy close tcp/${port}`);
  const opened = [...desired].flatMap(([port, wanted]) => {
    const has = actual.get(port);
    const isSame = has?.tellsClient === wanted.tellsClient && words(has) === words(wanted);
    const header = wanted.tellsClient ? ' with a PROXY protocol header' : '';
    return isSame ? [] : [`shoald proxy tcp/${port} to ${words(wanted)}${header}`];
  });
  return [...closed, ...opened];
}

/** What of the desired state a proxy does not do. */
export function proxyProblems({ services }: Pick<Desired, 'services'>, nodeId: string): ServiceProblem[] {
  return services.flatMap((service) => {
    const udp = service.ports.filter(({ protocol }) => protocol === 'udp');
    const isUnreached =
      !isForOwnTasks(service) &&
      service.ports.length > udp.length &&
      service.endpoints.some(serves) &&
      [...proxiedPorts({ services: [service] }, nodeId).values()].every(
        ({ targets }) => targets.length === 0,
      );
    return [
      ...udp.map(({ publishedPort }) => ({
        serviceId: service.id,
        message: `port ${publishedPort}/udp is not answered: this node answers published ports by a TCP proxy`,
      })),
      ...(isUnreached ? [{ serviceId: service.id, message: whyUnreached(service) }] : []),
    ];
  });
}

function whyUnreached(service: DesiredService): string {
  return tellsClient(service) && service.endpoints.some((one) => serves(one) && hasRules(one))
    ? `its published ports are not answered: its tasks are on nodes with a routing mesh, which would tell them this node’s address as the client’s (${ingressOption}=proxy-protocol); ask a node with a mesh`
    : 'its tasks are out of reach of this node’s TCP proxy: the ingress network is encrypted, or their nodes do not answer the port either';
}

/** Of a node in the mesh: services that it answers for nobody, for their tasks are behind other nodes' proxies. */
export function meshProblems({ services }: Pick<Desired, 'services'>): ServiceProblem[] {
  return services.flatMap((service) => {
    const endpoints = service.endpoints.filter(serves);
    const isUnreached =
      service.ports.length > 0 &&
      !isForOwnTasks(service) &&
      !tellsClient(service) &&
      endpoints.length > 0 &&
      !endpoints.some(hasRules);
    if (!isUnreached) return [];
    const message =
      'its published ports are not answered: all of its tasks are on nodes with a TCP proxy in place of a routing mesh; "service update --force" brings them here';
    return [{ serviceId: service.id, message }];
  });
}

function serves({ isDraining }: Endpoint): boolean {
  return !isDraining;
}
