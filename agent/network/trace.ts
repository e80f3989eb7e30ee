/**
 * Where a connection from a task of this node would go: by the names that it is told, the rules and the interfaces that
 * stand in the kernel. Pure. In: who asks for what, what the node was told, what is there. Out: steps in words, and for
 * each address the tasks that it may end at. A step that breaks is the last of its way. How it is where another node takes
 * over is that node's to say (arrival.ts).
 */
import {
  bridgeName,
  type Desired,
  type DesiredNetwork,
  type Endpoint,
  isIpv6,
  vxlanName,
} from './desired.ts';
import { linksOf } from './links.ts';
import { Names } from './names.ts';
import { type ListeningPort, proxiedPortsOfMesh, proxyDifference } from './proxied.ts';
import { type Actual, type PlanOptions, planDataPlane } from './reconcile.ts';
import { inetTable } from './ruleset.ts';
import { keysOf, tunnelAddress } from './tunnel.ts';

/** What a node was told, as far as its host allows it, and what is there. */
export interface Sight {
  readonly desired: Desired;
  readonly actual: Actual;
  readonly options: PlanOptions;
  /** The published ports that the agent's proxy listens on. */
  readonly proxied: ReadonlyMap<number, ListeningPort>;
}

export interface Step {
  readonly text: string;
  /** The connection goes no further. */
  readonly breaks: boolean;
}

/** Who asks for what. */
export interface Connection {
  /** The task's addresses by network id, without prefix. */
  readonly addresses: ReadonlyMap<string, readonly string[]>;
  readonly name: string;
  /** Whether the name's IPv6 addresses are asked for, in place of the IPv4 ones. */
  readonly isIpv6: boolean;
}

/** A task that a connection may end at. */
export interface Target {
  readonly address: string;
  readonly networkId: string;
  /** Empty, as the rest, when the managers told of no task with the address. */
  readonly taskId: string;
  readonly name: string;
  readonly nodeId: string;
  readonly steps: readonly Step[];
}

/** What becomes of a connection to one of the name's addresses. */
export interface Way {
  readonly address: string;
  readonly steps: readonly Step[];
  readonly targets: readonly Target[];
}

export interface Trace {
  readonly steps: readonly Step[];
  readonly ways: readonly Way[];
}

export const goesOn = (text: string): Step => ({ text, breaks: false });
export const ends = (text: string): Step => ({ text, breaks: true });

/** Follows a connection from a task of this node as far as this node has a part in it. */
export function traceFrom(connection: Connection, sight: Sight): Trace {
  const { desired } = sight;
  const networks = desired.networks.filter(({ id }) => connection.addresses.has(id));
  if (networks.length === 0) {
    return { steps: [ends('the managers have told this node of none of the task’s networks yet')], ways: [] };
  }
  const { step, found } = resolve(connection, sight);
  return {
    steps: [...lacks(sight), step],
    ways: found.map((one) => wayTo(one, connection, sight)),
  };
}

/** A word of warning where the kernel is not as it should be. */
export function lacks({ desired, actual, options, proxied }: Sight): Step[] {
  const isLacking =
    planDataPlane(desired, actual, options).length > 0 ||
    proxyDifference(proxiedPortsOfMesh(desired), proxied).length > 0;
  return isLacking
    ? [goesOn('the kernel is not as the managers want it: "shoal network diff" tells what is lacking')]
    : [];
}

interface Found {
  readonly address: string;
  readonly network: DesiredNetwork;
  /** Of the service whose virtual address it is; undefined: a task's own. */
  readonly serviceName: string | undefined;
}

/** What this node's server of names tells the task. */
function resolve(
  { addresses, name, isIpv6: wantsIpv6 }: Connection,
  { desired }: Sight,
): { step: Step; found: Found[] } {
  const names = new Names();
  names.follow(desired);
  const type = wantsIpv6 ? 'AAAA' : 'A';
  const answers = [...addresses].flatMap(([networkId, list]) =>
    list.map((address) => names.answer({ name, type }, { networkId, address })),
  );
  const told = new Set(
    answers.flatMap((answer) =>
      answer.kind === 'records' ? answer.records.flatMap((one) => ('address' in one ? one.address : [])) : [],
    ),
  );
  const found = [...told].flatMap((address) => placeOf(address, addresses, desired));
  const family = wantsIpv6 ? 'IPv6' : 'IPv4';
  if (found.length === 0) {
    const isKnown = answers.some(({ kind }) => kind === 'none');
    const text = isKnown
      ? `the name ${name} has no ${family} address on the task’s networks`
      : `no service, alias or task on the task’s networks has the name ${name}: it is asked of the host’s own DNS servers`;
    return { step: ends(text), found };
  }
  const words = found.map(({ address, network, serviceName }) =>
    serviceName === undefined
      ? `${address}, a task’s own address on network ${network.name}`
      : `${address}, the virtual address of service ${serviceName} on network ${network.name}`,
  );
  return { step: goesOn(`the name ${name} is ${words.join('; ')}`), found };
}

function placeOf(address: string, own: Connection['addresses'], { networks, services }: Desired): Found[] {
  return networks
    .filter(({ id }) => own.has(id))
    .flatMap((network) => {
      const service = services.find((one) =>
        one.networks.some(
          ({ networkId, virtualAddresses }) => networkId === network.id && virtualAddresses.includes(address),
        ),
      );
      const isTask = services.some((one) => endpointAt(one.endpoints, network.id, address) !== undefined);
      return service !== undefined || isTask ? [{ address, network, serviceName: service?.name }] : [];
    });
}

/** The one of `endpoints` that has `address` on a network. */
export function endpointAt(
  endpoints: readonly Endpoint[],
  networkId: string,
  address: string,
): Endpoint | undefined {
  return endpoints.find(({ addresses }) => addresses[networkId]?.includes(address));
}

function wayTo(found: Found, connection: Connection, sight: Sight): Way {
  const { address, network } = found;
  const bridge = bridgeName(network);
  if (!sight.actual.bridges.has(bridge)) {
    return {
      address,
      steps: [ends(`the bridge ${bridge} of network ${network.name} is not there`)],
      targets: [],
    };
  }
  if (found.serviceName === undefined) {
    return { address, steps: [], targets: [targetOf(address, true, found, connection, sight)] };
  }
  const { steps, addresses } = rewritten(found, sight);
  const targets = addresses.map((one) => targetOf(one, false, found, connection, sight));
  return { address, steps, targets };
}

/** What the rules make of a connection to a virtual address. */
function rewritten(
  { address, network, serviceName = '' }: Found,
  { desired, actual }: Sight,
): { steps: Step[]; addresses: string[] } {
  const broken = (text: string) => ({ steps: [ends(text)], addresses: [] });
  const six = isIpv6(address);
  const bridge = bridgeName(network);
  const passes = `net/bridge/bridge-nf-call-${six ? 'ip6tables' : 'iptables'}`;
  const value = actual.settings.get(passes);
  if (value !== undefined && value !== '1') {
    return broken(
      `packets on bridges do not pass the rules: sysctl ${passes.replaceAll('/', '.')} is ${value}`,
    );
  }
  const isAnswered = (six ? actual.links.addresses : actual.links.routes).has(`${address} dev ${bridge}`);
  if (!isAnswered) return broken(`this node does not answer for ${address} on bridge ${bridge}`);
  const table = actual.ruleset.get(inetTable);
  const map = six ? 'vips6' : 'vips4';
  const serves = desired.services
    .filter(
      ({ name, networks }) =>
        name === serviceName && networks.some(({ networkId }) => networkId === network.id),
    )
    .flatMap(({ endpoints }) => endpoints)
    .some(
      ({ isDraining, addresses }) =>
        !isDraining && (addresses[network.id] ?? []).some((one) => isIpv6(one) === six),
    );
  if (!(table?.chains.get('pre')?.rules ?? []).some((rule) => rule.endsWith(`vmap @${map}`))) {
    return broken(
      'the rules for virtual addresses do not stand in the kernel (chain pre of table inet shoal)',
    );
  }
  const chain = /^goto (\S+)$/.exec(
    table?.collections.get(map)?.elements.get(`"${bridge}" . ${address}`) ?? '',
  )?.[1];
  if (chain === undefined) {
    return broken(
      serves
        ? `no rule in the kernel sends ${address} on`
        : `service ${serviceName} has no healthy task on network ${network.name}: the connection is refused`,
    );
  }
  const rules = table?.chains.get(chain)?.rules ?? [];
  const addresses = destinationsOf(rules);
  if (addresses.length === 0) return broken(`chain ${chain} of table inet shoal is empty`);
  return { steps: [goesOn(sentOnTo(addresses, rules, chain))], addresses };
}

/** Whom a chain's rules send connections on to, in words. */
export function sentOnTo(destinations: readonly string[], rules: readonly string[], chain: string): string {
  const isByLot = rules.some((rule) => rule.includes('numgen random'));
  const turns = isByLot ? 'to each its share' : 'to each in turn';
  const whither = destinations.length === 1 ? 'a task' : `${destinations.length} tasks, ${turns}`;
  return `nftables sends it on to ${whither} (chain ${chain})`;
}

/** What a chain's `dnat` rules name: addresses, with their port as `address:port` or `address . port` if there is one. */
export function destinationsOf(rules: readonly string[]): string[] {
  return rules.flatMap((rule) => {
    const [, one] = /\bdnat ip6? to (\S+)$/.exec(rule) ?? [];
    if (one !== undefined) return [one];
    const [, list = ''] = /\bmap \{ (.*) \}$/.exec(rule) ?? [];
    return list.split(', ').flatMap((entry) => entry.split(' : ')[1] ?? []);
  });
}

function targetOf(
  address: string,
  isDirect: boolean,
  { network }: Found,
  connection: Connection,
  sight: Sight,
): Target {
  const endpoint = sight.desired.services
    .map(({ endpoints }) => endpointAt(endpoints, network.id, address))
    .find((one) => one !== undefined);
  if (endpoint === undefined) return unknownTarget(address, network);
  const { taskId, name, nodeId } = endpoint;
  const steps = stepsToward(address, isDirect, endpoint, network, connection, sight);
  return { address, networkId: network.id, taskId, name, nodeId, steps };
}

/** Where a rule leads that is of an earlier state. */
export function unknownTarget(address: string, network: DesiredNetwork): Target {
  const steps = [
    ends(`the managers told this node of no task with ${address}: the rule is of an earlier state`),
  ];
  return { address, networkId: network.id, taskId: '', name: '', nodeId: '', steps };
}

function stepsToward(
  address: string,
  isDirect: boolean,
  endpoint: Endpoint,
  network: DesiredNetwork,
  { addresses }: Connection,
  sight: Sight,
): Step[] {
  const bridge = bridgeName(network);
  const table = sight.actual.ruleset.get(inetTable);
  const elements = (name: string) => table?.collections.get(name)?.elements;
  const isSelf = addresses.get(network.id)?.includes(address) === true;
  if (isSelf && !isDirect && !elements(isIpv6(address) ? 'self6' : 'self4')?.has(`${address} . ${address}`)) {
    return [
      ends('it is the asking task itself, and no rule gives its packets another source: it would drop them'),
    ];
  }
  if (isSelf) return [goesOn('it is the asking task itself')];
  if (isDirect && !elements('same')?.has(`"${bridge}" . "${bridge}"`)) {
    return [ends(`no rule lets packets pass on bridge ${bridge}`)];
  }
  return wayToNode(endpoint, network, sight);
}

/** From this node to an endpoint's. */
export function wayToNode(endpoint: Endpoint, network: DesiredNetwork, sight: Sight): Step[] {
  const drains = endpoint.isDraining
    ? [goesOn('it is to stop: it gets no new connections as soon as the rules are changed')]
    : [];
  const rest =
    endpoint.nodeId === sight.options.nodeId
      ? goesOn(`stays on this node, on bridge ${bridgeName(network)}`)
      : wayBetween(network, endpoint.nodeId, sight);
  return [...drains, rest];
}

/** The way of a network's frames to another node, as it stands here. */
export function wayBetween(
  network: DesiredNetwork,
  nodeId: string,
  { desired, actual, options }: Sight,
): Step {
  const name = vxlanName(network);
  if (linksOf(desired, actual.bridges, options).vxlans.get(name) === undefined) {
    return ends(`network ${network.name} is encrypted, and this node can't encrypt`);
  }
  const vxlan = actual.links.vxlans.get(name);
  if (vxlan === undefined) return ends(`the interface ${name} to other hosts is not there`);
  if (vxlan.bridge !== bridgeName(network)) {
    return ends(`the interface ${name} is down, or no port of bridge ${bridgeName(network)}`);
  }
  const peer = network.peers.find((one) => one.nodeId === nodeId);
  if (peer === undefined)
    return ends(`the managers told this node of no way to node ${nodeId} on network ${network.name}`);
  const host = `${peer.hostname} (${peer.underlay})`;
  const [key] = keysOf(peer.wireguardPublicKey);
  if (network.isEncrypted && key === undefined) return ends(`the key of ${host} is not known here`);
  const address = network.isEncrypted ? tunnelAddress(key?.key ?? '') : peer.underlay;
  if (!vxlan.peers.includes(address)) return ends(`the interface ${name} has no way to ${host}`);
  if (!network.isEncrypted) return goesOn(`by ${name} to ${host}, UDP port ${vxlan.port}`);
  const tunnel = actual.tunnels.get(vxlan.device);
  if (tunnel?.peers.has(key?.key ?? '') !== true)
    return ends(`WireGuard (${vxlan.device}) does not know the key of ${host}`);
  return goesOn(`by ${name} in WireGuard (${vxlan.device}) to ${host}`);
}
