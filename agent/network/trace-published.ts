/**
 * Where a connection from outside to a port published on this node would go. Pure. In: the port, what the node was told,
 * what stands in its kernel. Out: a trace as trace.ts makes one for a task's connection.
 */
import { bridgeName, type DesiredNetwork, type DesiredService, isIpv6 } from './desired.ts';
import {
  bothFamilies,
  ingressOption,
  isForOwnTasks,
  isProxied,
  type ProxiedPort,
  type ProxyTarget,
} from './proxied.ts';
import { inetTable } from './ruleset.ts';
import {
  destinationsOf,
  endpointAt,
  ends,
  goesOn,
  lacks,
  type Sight,
  type Step,
  sentOnTo,
  type Target,
  type Trace,
  unknownTarget,
  wayToNode,
} from './trace.ts';

export interface PublishedConnection {
  readonly port: number;
  readonly protocol: 'tcp' | 'udp';
  readonly isIpv6: boolean;
}

/** Follows a connection from outside as far as this node has a part in it. */
export function traceFromOutside(connection: PublishedConnection, sight: Sight): Trace {
  const { port, protocol } = connection;
  const broken = (text: string): Trace => ({ steps: [...lacks(sight), ends(text)], ways: [] });
  const network = sight.desired.networks.find(({ isIngress }) => isIngress);
  if (network === undefined) {
    return broken('the managers have told this node of no ingress network: no published port answers here');
  }
  const service = sight.desired.services.find(({ ports }) =>
    ports.some((one) => one.publishedPort === port && one.protocol === protocol),
  );
  if (service === undefined) return broken(`no rule of this node is for port ${port}/${protocol}`);
  const bridge = bridgeName(network);
  if (!sight.actual.bridges.has(bridge)) {
    return broken(`the bridge ${bridge} of network ${network.name} is not there`);
  }
  const known = goesOn(
    `service ${service.name} publishes port ${port}/${protocol}${isForOwnTasks(service) ? ', on nodes that run a task of it' : ''}`,
  );
  // A rule that stands takes a connection before any program of the node sees it.
  const isByProxy = isProxied(service, { protocol }) && !hasRule(connection, sight);
  const { steps, targets } = isByProxy
    ? passedOn(connection, service, network, sight)
    : byRules(connection, service, network, sight);
  const family = connection.isIpv6 ? 'IPv6' : 'IPv4';
  const address = `${family}, port ${port}/${protocol}`;
  return { steps: [...lacks(sight), known], ways: [{ address, steps, targets }] };
}

interface SentOn {
  readonly steps: readonly Step[];
  readonly targets: readonly Target[];
}

function byRules(
  connection: PublishedConnection,
  service: DesiredService,
  network: DesiredNetwork,
  sight: Sight,
): SentOn {
  const { steps, destinations } = sentOn(connection, service, network, sight);
  return { steps, targets: destinations.map((address) => targetOf(address, network, sight)) };
}

function keyOf({ port, protocol }: Pick<PublishedConnection, 'port' | 'protocol'>): string {
  return `${protocol === 'udp' ? 17 : 6} . ${port}`;
}

function hasRule(connection: PublishedConnection, { actual }: Sight): boolean {
  const collections = actual.ruleset.get(inetTable)?.collections;
  return ['ports', 'published'].some((name) => collections?.get(name)?.elements.has(keyOf(connection)));
}

/** What the agent's proxy makes of it. */
function passedOn(
  { port, isIpv6: wantsIpv6 }: PublishedConnection,
  service: DesiredService,
  network: DesiredNetwork,
  sight: Sight,
): SentOn {
  const broken = (text: string) => ({ steps: [ends(text)], targets: [] });
  const listening = sight.proxied.get(port);
  if (listening === undefined) return broken(`the TCP proxy of shoald does not listen on port ${port}/tcp`);
  if (wantsIpv6 && listening.host !== bothFamilies) {
    return broken(
      `the TCP proxy of shoald listens on port ${port}/tcp over IPv4 alone: the host has no IPv6`,
    );
  }
  if (listening.targets.length === 0) {
    return broken(
      `service ${service.name} has no healthy task: the TCP proxy of shoald takes the connection and resets it`,
    );
  }
  const targets = listening.targets.map((target) => proxyTargetOf(target, service, network, sight));
  return { steps: [goesOn(passedOnTo(listening))], targets };
}

function passedOnTo({ targets }: ProxiedPort): string {
  const isEven = targets.every(({ weight = 1 }) => weight === (targets[0]?.weight ?? 1));
  const turns = isEven ? 'to each in turn' : 'to each its share';
  const whither = targets.length === 1 ? 'a task' : `${targets.length} tasks, ${turns}`;
  return `the TCP proxy of shoald takes it, no rule of nftables, and passes it on to ${whither}`;
}

function proxyTargetOf(
  { taskId, address, port }: ProxyTarget,
  service: DesiredService,
  network: DesiredNetwork,
  sight: Sight,
): Target {
  const endpoint = service.endpoints.find((one) => one.taskId === taskId);
  if (endpoint === undefined) return unknownTarget(address, network);
  const isOnNetwork = endpoint.addresses[network.id]?.includes(address) === true;
  const way = isOnNetwork
    ? wayToNode(endpoint, network, sight)
    : [goesOn(`to port ${port}/tcp of ${endpoint.hostname} (${address}), whose engine passes it on`)];
  const seen = goesOn(
    'a PROXY protocol header (version 2) tells the task the address of the client; the connection itself is this node’s',
  );
  const steps = way.some(({ breaks }) => breaks) ? way : [...way, seen];
  return { address, networkId: network.id, taskId, name: endpoint.name, nodeId: endpoint.nodeId, steps };
}

/** What the rules make of it. */
function sentOn(
  { port, protocol, isIpv6: wantsIpv6 }: PublishedConnection,
  service: DesiredService,
  network: DesiredNetwork,
  { actual, options }: Sight,
): { steps: Step[]; destinations: string[] } {
  const broken = (text: string) => ({ steps: [ends(text)], destinations: [] });
  const table = actual.ruleset.get(inetTable);
  if (!(table?.chains.get('pre')?.rules ?? []).some((rule) => rule.endsWith('vmap @ports'))) {
    return broken('the rules for published ports do not stand in the kernel (chain pre of table inet shoal)');
  }
  if (wantsIpv6 && !network.subnets.some(isIpv6)) {
    return broken(`network ${network.name} has no IPv6: published ports answer over IPv4 alone`);
  }
  const key = keyOf({ port, protocol });
  const chain = /^goto (\S+)$/.exec(table?.collections.get('ports')?.elements.get(key) ?? '')?.[1];
  if (chain === undefined) {
    const isServed = service.endpoints.some(
      ({ addresses, isDraining, nodeId }) =>
        !isDraining &&
        addresses[network.id] !== undefined &&
        (nodeId === options.nodeId || !isForOwnTasks(service)),
    );
    if (isServed || table?.collections.get('published')?.elements.has(key) !== true) {
      return broken(`no rule in the kernel sends port ${port}/${protocol} on`);
    }
    const elsewhere =
      isForOwnTasks(service) &&
      service.endpoints.some((one) => one.nodeId !== options.nodeId && !one.isDraining);
    const reason = elsewhere
      ? `service ${service.name} has no healthy task on this node, and ${ingressOption}=local`
      : `service ${service.name} has no healthy task`;
    return broken(`${reason}: the connection is refused`);
  }
  const ofFamily = (table?.chains.get(chain)?.rules ?? []).filter((rule) =>
    rule.includes(wantsIpv6 ? 'dnat ip6 to' : 'dnat ip to'),
  );
  const destinations = destinationsOf(ofFamily).map(withoutPort);
  if (destinations.length === 0) {
    return broken(`chain ${chain} of table inet shoal sends nothing on over ${wantsIpv6 ? 'IPv6' : 'IPv4'}`);
  }
  return { steps: [goesOn(sentOnTo(destinations, ofFamily, chain))], destinations };
}

/** `10.0.0.5:80`, `[fd00::5]:80`, `10.0.0.5 . 80` without the port. */
function withoutPort(destination: string): string {
  const [address = ''] = destination.split(' . ');
  return address.replace(/^\[(.*)\]:\d+$/, '$1').replace(/^(\d+(?:\.\d+){3}):\d+$/, '$1');
}

function targetOf(address: string, network: DesiredNetwork, sight: Sight): Target {
  const endpoint = sight.desired.services
    .map(({ endpoints }) => endpointAt(endpoints, network.id, address))
    .find((one) => one !== undefined);
  if (endpoint === undefined) return unknownTarget(address, network);
  const { taskId, name, nodeId } = endpoint;
  const way = wayToNode(endpoint, network, sight);
  const locals = sight.actual.ruleset
    .get(inetTable)
    ?.collections.get(isIpv6(address) ? 'locals6' : 'locals4')?.elements;
  const seen = goesOn(
    locals?.has(address)
      ? 'the task sees the address of the client'
      : 'the task sees the address of this node in place of the client’s',
  );
  const steps = way.some(({ breaks }) => breaks) ? way : [...way, seen];
  return { address, networkId: network.id, taskId, name, nodeId, steps };
}
