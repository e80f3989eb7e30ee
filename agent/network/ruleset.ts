/**
 * The nftables rules that the desired state asks for: virtual addresses, the routing mesh, the guard on vxlan. Pure.
 *
 * Two tables are ours. `inet shoal`: destination addresses are rewritten before the engine's own rules see the packet;
 * established connections go on to where they began, for the kernel remembers them. `bridge shoal`: who has a virtual
 * address is asked and answered on the own host only, for every host answers for all of them.
 *
 * Rules are written as nft lists them (numbers in place of names), so that what stands in the kernel can be compared
 * with what should.
 */
import {
  bridgeName,
  type Desired,
  type DesiredNetwork,
  type DesiredService,
  isIpv6,
  type PublishedPort,
  vxlanName,
} from './desired.ts';
import { isForOwnTasks, isProxied } from './proxied.ts';
import { tunnelPattern } from './tunnel.ts';

/**
 * A map or set: the words behind its name, and its elements, key → verdict ('' for a set's). A counter has neither: what
 * it counted is the kernel's.
 */
export interface Collection {
  readonly kind: 'map' | 'set' | 'counter';
  readonly type: string;
  readonly elements: ReadonlyMap<string, string>;
}

export interface Chain {
  /** `type … hook … priority …; policy …;` for one that the kernel calls; empty for one that others go to. */
  readonly hook: string;
  readonly rules: readonly string[];
}

export interface Table {
  readonly collections: ReadonlyMap<string, Collection>;
  readonly chains: ReadonlyMap<string, Chain>;
}

/** By family and name: 'inet shoal', 'bridge shoal'. */
export type Ruleset = ReadonlyMap<string, Table>;

export interface RulesetOptions {
  readonly nodeId: string;
  /** The kernel lacks br_netfilter: what passes between two ports of a bridge passes no rules. */
  readonly lacksBridgeFilter?: boolean;
}

export const inetTable = 'inet shoal';
export const bridgeTable = 'bridge shoal';

/** What is counted: connections that rules sent on, and packets that they let go no further. */
export const counters = {
  /** New connections to a virtual address or a published port, all of them. */
  sentOn: 'sent_on',
  /** Those of them that were to a virtual address. */
  sentOnVirtual: 'sent_on_virtual',
  /** Packets of vxlan from who is no peer. */
  strangers: 'strangers',
  /** Packets of encrypted networks outside of a tunnel. */
  unencrypted: 'unencrypted',
  /** Packets from one network into another, or out of an internal one. */
  isolated: 'isolated',
  /** Packets to a virtual address or published port that nobody stands behind, or that the asker has no way to. */
  refused: 'refused',
} as const;

function counted(name: (typeof counters)[keyof typeof counters]): string {
  return `counter name "${name}"`;
}

const tcpNumber = 6;
const udpNumber = 17;
/** Kernel's number of a neighbour solicitation, and of a connection whose destination was rewritten. */
const solicitation = 'icmpv6 type 135';
const isRewritten = 'ct status 0x20';
/** Established or related. */
const isOfConnection = 'ct state 0x2,0x4';
/** A vxlan packet's network. */
const vxlanIdField = '@th,96,24';
const isLocalAddress = 'fib daddr type 2';
/** Of a new connection: answers to what the host itself asked from such a port are none. */
const toPublished = `ct state 0x8 ${isLocalAddress} meta l4proto . th dport @published`;
/** What stays on its bridge: the answer would go to the client past the rules, from an address that it did not ask. */
const translatesAll = `iifname . oifname @same ${isRewritten} masquerade`;
/** IPv6 lets nothing with that source out of the host, whatever a rule makes of it: refused is better than silence. */
const notFromItself = 'ip6 daddr ::1 return';
const verdictOfPort = 'meta l4proto . th dport vmap @ports';

interface Draft {
  /** By the bridge of the network that asks and the address: one of another network is nobody's there. */
  readonly vips: readonly [Map<string, string>, Map<string, string>];
  /** All virtual addresses. */
  readonly allVips: readonly [Map<string, string>, Map<string, string>];
  readonly ports: Map<string, string>;
  /** All of them, those that lead nowhere too. */
  readonly published: Map<string, string>;
  /** Addresses of this node's tasks behind a virtual address, each paired with itself. */
  readonly self: readonly [Map<string, string>, Map<string, string>];
  /** Addresses of this node's tasks on the ingress network: their clients' addresses are kept. */
  readonly locals: readonly [Map<string, string>, Map<string, string>];
  readonly chains: Map<string, Chain>;
}

/** The tables as they should be. Nothing desired: no tables at all. */
export function rulesetOf(desired: Desired, options: RulesetOptions): Ruleset {
  if (desired.networks.length === 0) return new Map();
  const draft: Draft = {
    vips: [new Map(), new Map()],
    allVips: [new Map(), new Map()],
    ports: new Map(),
    published: new Map(),
    self: [new Map(), new Map()],
    locals: [new Map(), new Map()],
    chains: new Map(),
  };
  const vxlanIds = new Map(desired.networks.map(({ id, vxlanId }) => [id, vxlanId]));
  const ingress = desired.networks.find(({ isIngress }) => isIngress);
  for (const service of desired.services) {
    for (const network of service.networks) {
      const vxlanId = vxlanIds.get(network.networkId);
      if (vxlanId === undefined) continue;
      for (const address of network.virtualAddresses) {
        addVirtualAddress(draft, service, network.networkId, vxlanId, address, options);
      }
    }
    if (ingress === undefined) continue;
    for (const port of service.ports) {
      if (!isProxied(service, port)) addPort(draft, service, ingress.id, port, options);
    }
  }
  return new Map([
    [inetTable, inetRules(draft, desired, options)],
    [bridgeTable, bridgeRules(draft)],
  ]);
}

/** 0 for IPv4, 1 for IPv6: the index of a family's half of a draft. */
function familyOf(address: string): 0 | 1 {
  return isIpv6(address) ? 1 : 0;
}

interface Backend {
  readonly address: string;
  readonly weight: number;
}

/** Where new connections may go, of one family, in an order that depends on nothing else. */
function backends(service: DesiredService, networkId: string, family: 0 | 1, onlyNodeId?: string): Backend[] {
  return service.endpoints
    .filter(({ isDraining, nodeId }) => !isDraining && (onlyNodeId === undefined || nodeId === onlyNodeId))
    .flatMap(({ addresses, weight = 1 }) =>
      (addresses[networkId] ?? []).map((address) => ({ address, weight })),
    )
    .filter(({ address }) => familyOf(address) === family)
    .sort((one, other) => (one.address < other.address ? -1 : 1));
}

function addVirtualAddress(
  draft: Draft,
  service: DesiredService,
  networkId: string,
  vxlanId: number,
  address: string,
  options: RulesetOptions,
): void {
  const family = familyOf(address);
  const addresses = backends(service, networkId, family);
  for (const endpoint of service.endpoints) {
    if (endpoint.nodeId !== options.nodeId) continue;
    for (const own of endpoint.addresses[networkId] ?? []) {
      if (familyOf(own) === family) draft.self[family].set(`${own} . ${own}`, '');
    }
  }
  draft.allVips[family].set(address, '');
  if (addresses.length === 0) return;
  const name = `vip${family === 0 ? 4 : 6}_${vxlanId}_${service.id}`;
  draft.chains.set(name, { hook: '', rules: [rewrite(family, addresses)] });
  draft.vips[family].set(`"${bridgeName({ vxlanId })}" . ${address}`, `goto ${name}`);
}

function addPort(
  draft: Draft,
  service: DesiredService,
  ingressId: string,
  port: PublishedPort,
  { nodeId }: RulesetOptions,
): void {
  const isLocalOnly = isForOwnTasks(service);
  const protocol = port.protocol === 'udp' ? udpNumber : tcpNumber;
  const key = `${protocol} . ${port.publishedPort}`;
  const rules: string[] = [];
  for (const family of [0, 1] as const) {
    const addresses = backends(service, ingressId, family, isLocalOnly ? nodeId : undefined);
    if (addresses.length > 0) {
      rules.push(
        `meta nfproto ${family === 0 ? 2 : 10} meta l4proto ${protocol} ${rewrite(family, addresses, port.targetPort)}`,
      );
    }
    for (const own of backends(service, ingressId, family, nodeId)) {
      draft.locals[family].set(own.address, '');
    }
  }
  draft.published.set(key, '');
  if (rules.length === 0) return;
  const name = `port_${port.protocol}_${port.publishedPort}`;
  draft.chains.set(name, { hook: '', rules });
  draft.ports.set(key, `goto ${name}`);
}

/** The rule that sends a new connection to one of `all`: to each in turn, or by lot where some are to get more. */
function rewrite(family: 0 | 1, all: readonly Backend[], port?: number): string {
  const verb = family === 0 ? 'dnat ip to' : 'dnat ip6 to';
  const [only] = all;
  if (all.length === 1 && only !== undefined) {
    if (port === undefined) return `${verb} ${only.address}`;
    return `${verb} ${family === 0 ? only.address : `[${only.address}]`}:${port}`;
  }
  const behind = port === undefined ? '' : ` . ${port}`;
  const isEven = all.every(({ weight }) => weight === only?.weight);
  let next = 0;
  const list = all.map(({ address, weight }) => {
    const first = next;
    next += isEven ? 1 : weight;
    return `${next - first === 1 ? first : `${first}-${next - 1}`} : ${address}${behind}`;
  });
  return `${verb} numgen ${isEven ? 'inc' : 'random'} mod ${next} map { ${list.join(', ')} }`;
}

function inetRules(draft: Draft, desired: Desired, { lacksBridgeFilter }: RulesetOptions): Table {
  const underlays = [...new Set(desired.networks.flatMap(({ peers }) => peers.map((peer) => peer.underlay)))];
  const peersOf = (family: 0 | 1) =>
    new Map(underlays.filter((address) => familyOf(address) === family).map((address) => [address, '']));
  const ingress = desired.networks.find(({ isIngress }) => isIngress);
  const bridges = desired.networks.map((network) => `"${bridgeName(network)}"`);
  const secret = new Map(
    desired.networks.flatMap(({ isEncrypted, vxlanId }) =>
      isEncrypted ? [[`0x${vxlanId.toString(16)}`, ''] as const] : [],
    ),
  );
  const ownPairs = new Map(bridges.map((bridge) => [`${bridge} . ${bridge}`, '']));
  const collections = new Map<string, Collection>([
    ['vips4', { kind: 'map', type: 'type ifname . ipv4_addr : verdict', elements: draft.vips[0] }],
    ['vips6', { kind: 'map', type: 'type ifname . ipv6_addr : verdict', elements: draft.vips[1] }],
    ['all4', { kind: 'set', type: 'type ipv4_addr', elements: draft.allVips[0] }],
    ['all6', { kind: 'set', type: 'type ipv6_addr', elements: draft.allVips[1] }],
    ['ports', { kind: 'map', type: 'type inet_proto . inet_service : verdict', elements: draft.ports }],
    ['published', { kind: 'set', type: 'type inet_proto . inet_service', elements: draft.published }],
    ['self4', { kind: 'set', type: 'type ipv4_addr . ipv4_addr', elements: draft.self[0] }],
    ['self6', { kind: 'set', type: 'type ipv6_addr . ipv6_addr', elements: draft.self[1] }],
    ['locals4', { kind: 'set', type: 'type ipv4_addr', elements: draft.locals[0] }],
    ['locals6', { kind: 'set', type: 'type ipv6_addr', elements: draft.locals[1] }],
    ['peers4', { kind: 'set', type: 'type ipv4_addr', elements: peersOf(0) }],
    ['peers6', { kind: 'set', type: 'type ipv6_addr', elements: peersOf(1) }],
    ['secret', { kind: 'set', type: `typeof ${vxlanIdField}`, elements: secret }],
    ['same', { kind: 'set', type: 'type ifname . ifname', elements: ownPairs }],
    ...Object.values(counters).map(
      (name) => [name, { kind: 'counter', type: '', elements: new Map() }] as const,
    ),
  ]);
  // Counted first: a masquerade is the last that is done with a connection.
  const post = [
    ...countingRules(),
    ...(lacksBridgeFilter ? [translatesAll] : []),
    ...sourceRules(ingress && bridgeName(ingress)),
  ];
  const published = `${isLocalAddress} ${verdictOfPort}`;
  const destinations = ['iifname . ip daddr vmap @vips4', 'iifname . ip6 daddr vmap @vips6', published];
  const chains = new Map<string, Chain>([
    // Before connections are tracked: a stranger's packet must not even make an entry.
    ['guard', { hook: hook('filter', 'prerouting', -300), rules: guardRules(desired.dataPathPort) }],
    ['leave', { hook: hook('filter', 'output', -300), rules: [inTheClear('oifname', desired.dataPathPort)] }],
    ['pre', { hook: hook('nat', 'prerouting', -110), rules: destinations }],
    ['out', { hook: hook('nat', 'output', -110), rules: [notFromItself, published] }],
    ['post', { hook: hook('nat', 'postrouting', 90), rules: post }],
    ['in', { hook: hook('filter', 'input', -10), rules: refusalRules() }],
    ['through', { hook: hook('filter', 'forward', -10), rules: isolationRules(desired.networks) }],
    ...draft.chains,
  ]);
  return { collections, chains };
}

function hook(type: string, point: string, priority: number): string {
  return `type ${type} hook ${point} priority ${priority}; policy accept;`;
}

function guardRules(port: number): string[] {
  return [
    inTheClear('iifname', port),
    // What comes out of a tunnel was sent by who holds its key.
    `iifname "${tunnelPattern}" accept`,
    `udp dport ${port} ip saddr != @peers4 ${counted(counters.strangers)} drop`,
    `udp dport ${port} ip6 saddr != @peers6 ${counted(counters.strangers)} drop`,
  ];
}

/** Packets of encrypted networks outside of a tunnel: there are none, and if there were they would go no further. */
function inTheClear(side: 'iifname' | 'oifname', port: number): string {
  return `${side} != "${tunnelPattern}" udp dport ${port} ${vxlanIdField} @secret ${counted(counters.unencrypted)} drop`;
}

/** Each connection that was sent on comes here once. */
function countingRules(): string[] {
  const sentOn = `oifname "shoal*" ${isRewritten}`;
  return [
    `${sentOn} ${counted(counters.sentOn)}`,
    `${sentOn} ct original ip daddr @all4 ${counted(counters.sentOnVirtual)}`,
    `${sentOn} ct original ip6 daddr @all6 ${counted(counters.sentOnVirtual)}`,
  ];
}

/** Whose source address is rewritten too: who reaches itself, and who was let in here to a task elsewhere. */
function sourceRules(ingressBridge: string | undefined): string[] {
  const rules = [
    `${isRewritten} ip saddr . ip daddr @self4 masquerade`,
    `${isRewritten} ip6 saddr . ip6 daddr @self6 masquerade`,
  ];
  if (ingressBridge === undefined) return rules;
  const letIn = `oifname "${ingressBridge}" ${isRewritten} iifname != "${ingressBridge}"`;
  return [
    ...rules,
    `${letIn} ip daddr != @locals4 masquerade`,
    `${letIn} ip6 daddr != @locals6 masquerade`,
    `oifname "${ingressBridge}" ${isRewritten} ip saddr 127.0.0.0/8 masquerade`,
  ];
}

/**
 * What passes between interfaces: on one network everything, into a network only what our tables sent there, and out of
 * an internal one nothing. The engine keeps its bridges apart, too, but not in IPv6 (20.10), and on its own terms.
 */
function isolationRules(networks: readonly DesiredNetwork[]): string[] {
  const internal = networks.filter(({ isInternal }) => isInternal).map(bridgeName);
  return [
    'iifname . oifname @same accept',
    ...internal.map((bridge) => `iifname "${bridge}" ${counted(counters.isolated)} drop`),
    `${isOfConnection} accept`,
    `${isRewritten} accept`,
    `oifname "shoal*" ${counted(counters.isolated)} drop`,
  ];
}

/**
 * What came to a virtual address and was not sent on is refused at once, for nobody stands behind it or the asker is
 * not on its network; else it would fall through to the host's own listeners. Neighbours' questions are no connection.
 * Likewise what came to a published port: else it would meet who holds the port for the rules (held-ports.ts), and over
 * IPv6, where the ingress network has none, be taken and closed in place of refused.
 */
function refusalRules(): string[] {
  const refused = counted(counters.refused);
  return [
    `${solicitation} accept`,
    `ip daddr @all4 meta l4proto 6 ${refused} reject with tcp reset`,
    `ip daddr @all4 ${refused} reject with icmp 3`,
    `ip6 daddr @all6 meta l4proto 6 ${refused} reject with tcp reset`,
    `ip6 daddr @all6 ${refused} reject with icmpv6 4`,
    `${toPublished} meta l4proto 6 ${refused} reject with tcp reset`,
    `${toPublished} ${refused} reject`,
  ];
}

function bridgeRules(draft: Draft): Table {
  const all = (family: 0 | 1) => [...draft.allVips[family].keys()];
  const rules = ['iifname', 'oifname'].flatMap((side) => [
    `${side} "${vxlanPattern}" arp daddr ip @vips4 drop`,
    `${side} "${vxlanPattern}" ${solicitation} @th,64,128 @vips6 drop`,
  ]);
  return {
    collections: new Map<string, Collection>([
      [
        'vips4',
        { kind: 'set', type: 'type ipv4_addr', elements: new Map(all(0).map((address) => [address, ''])) },
      ],
      [
        'vips6',
        {
          kind: 'set',
          type: 'typeof @th,64,128',
          elements: new Map(all(1).map((address) => [hexadecimalOf(address), ''])),
        },
      ],
    ]),
    chains: new Map([['forward', { hook: hook('filter', 'forward', -200), rules }]]),
  };
}

const vxlanPattern = `${vxlanName({ vxlanId: 0 }).slice(0, -1)}*`;

/** An IPv6 address as the number that nft prints for raw payload: 0x and its digits without leading zeros. */
export function hexadecimalOf(address: string): string {
  const [head = '', tail] = address.split('::');
  const groups = (part: string) => part.split(':').filter((group) => group !== '');
  const front = groups(head);
  const back = groups(tail ?? '');
  const middle = tail === undefined ? [] : Array<string>(8 - front.length - back.length).fill('0');
  const digits = [...front, ...middle, ...back].map((group) => group.padStart(4, '0')).join('');
  return `0x${digits.replace(/^0+(?=.)/, '')}`;
}
