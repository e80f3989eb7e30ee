/**
 * Names of services, their tasks and nodes, as who asks may see them. Pure: the sockets are dns.ts's.
 *
 * In: the desired state, a question, and where it came from (network and source address, which tell exactly who asks,
 * for the engine's resolver forwards from within the container's namespace). Out: records, or that the name is
 * foreign. Only what the asker's own networks hold is answered, the ingress network excepted: it is a way in for
 * published ports, and services that share no other network have no names for each other. A container's own end of a network is one of the
 * service's endpoints; an asker that is none (a plain container on the network) sees that network.
 *
 *     web, an alias, app_web          the service's virtual addresses, or its tasks' in dnsrr mode
 *     tasks.web                       the addresses of all its tasks
 *     web.3, web.3.<task id>          one task's; web.<host name>: those on that node
 *     _80._tcp.web, _<port name>…     SRV: port and task of each of them
 *     a container's own name          the address of one that is no task, on a network that allows it
 *     10.2.0.192.in-addr.arpa         PTR: the task or service of an address
 */
import { type Desired, type DesiredService, type Endpoint, isIpv6 } from './desired.ts';

export type QuestionType = 'A' | 'AAAA' | 'SRV' | 'PTR' | 'other';

export interface Question {
  readonly name: string;
  readonly type: QuestionType;
}

export type NameRecord =
  | { readonly type: 'A' | 'AAAA'; readonly address: string }
  | { readonly type: 'SRV'; readonly target: string; readonly port: number }
  | { readonly type: 'PTR'; readonly target: string };

/** `none`: the name is the cluster's and has no record of this type. */
export type Answer =
  | { readonly kind: 'records'; readonly records: readonly NameRecord[] }
  | { readonly kind: 'none' }
  | { readonly kind: 'foreign' };

/** Who asks: on which network, from which address. */
export interface Asker {
  readonly networkId: string;
  readonly address: string;
}

interface Named {
  readonly service: DesiredService;
  readonly networkId: string;
}

/** Names and addresses of a desired state, looked up often; following a state costs what changed in it. */
export class Names {
  /** Network id → lower-case name → services of that name there. */
  readonly #services = new Map<string, Map<string, Named[]>>();
  /** Network id → address → its name. */
  readonly #reverse = new Map<string, Map<string, string>>();
  /** `network id/address` → ids of the networks that the task there is on. */
  readonly #networksOf = new Map<string, readonly string[]>();

  /** Network id → lower-case name → addresses of a container that is no task. */
  readonly #containers = new Map<string, Map<string, readonly string[]>>();
  /** Networks that published ports come in by: nobody finds anybody there. */
  #ingress: ReadonlySet<string> = new Set();
  #followed: ReadonlySet<DesiredService> = new Set();
  #state: Desired | undefined;

  /** Answers are those of `desired` from now on. */
  follow(desired: Desired): void {
    if (this.#state === desired) return;
    if (this.#state?.networks !== desired.networks) {
      this.#followContainers(desired);
      const ingress = desired.networks.filter(({ isIngress }) => isIngress);
      this.#ingress = new Set(ingress.map(({ id }) => id));
    }
    this.#state = desired;
    const before = this.#followed;
    const after = new Set(desired.services);
    this.#followed = after;
    // An address may go from one to another.
    for (const service of before) if (!after.has(service)) this.#removeService(service);
    for (const service of after) if (!before.has(service)) this.#addService(service);
  }

  #followContainers({ networks }: Desired): void {
    this.#containers.clear();
    for (const { id, containers = [] } of networks) {
      for (const { names, addresses } of containers) {
        for (const name of names) inner(this.#containers, id).set(name.toLowerCase(), addresses);
      }
    }
  }

  #addService(service: DesiredService): void {
    for (const [networkId, name] of namesOf(service)) {
      const byName = inner(this.#services, networkId);
      byName.set(name, [...(byName.get(name) ?? []), { service, networkId }]);
    }
    for (const { networkId, virtualAddresses } of service.networks) {
      for (const address of virtualAddresses) inner(this.#reverse, networkId).set(address, service.name);
    }
    for (const endpoint of service.endpoints) {
      const networks = Object.keys(endpoint.addresses);
      for (const networkId of networks) {
        for (const address of endpoint.addresses[networkId] ?? []) {
          inner(this.#reverse, networkId).set(address, `${endpoint.name}.${endpoint.taskId}`);
          this.#networksOf.set(`${networkId}/${address}`, networks);
        }
      }
    }
  }

  #removeService(service: DesiredService): void {
    for (const [networkId, name] of namesOf(service)) {
      const byName = inner(this.#services, networkId);
      const others = (byName.get(name) ?? []).filter((named) => named.service !== service);
      if (others.length > 0) byName.set(name, others);
      else byName.delete(name);
    }
    for (const { networkId, virtualAddresses } of service.networks) {
      for (const address of virtualAddresses) this.#reverse.get(networkId)?.delete(address);
    }
    for (const { addresses } of service.endpoints) {
      for (const [networkId, list] of Object.entries(addresses)) {
        for (const address of list) {
          this.#reverse.get(networkId)?.delete(address);
          this.#networksOf.delete(`${networkId}/${address}`);
        }
      }
    }
  }

  /** What `asker` is told. */
  answer(question: Question, asker: Asker): Answer {
    const own = this.#networksOf.get(`${asker.networkId}/${asker.address}`) ?? [asker.networkId];
    const networks = own.filter((id) => !this.#ingress.has(id));
    const name = question.name.toLowerCase().replace(/\.$/, '');
    const address = addressOfReverse(name);
    if (address !== undefined) return this.#reverseAnswer(address, question, networks);
    const service = /^_([^.]+)\._(tcp|udp)\.(.+)$/.exec(name);
    if (service !== null) return this.#serviceAnswer(service, question, networks);
    const addresses = this.#addressesOf(name, networks);
    if (addresses === undefined) return { kind: 'foreign' };
    if (question.type !== 'A' && question.type !== 'AAAA') return { kind: 'none' };
    const { type } = question;
    const wanted = addresses.filter((one) => isIpv6(one) === (type === 'AAAA'));
    if (wanted.length === 0) return { kind: 'none' };
    return { kind: 'records', records: wanted.map((one) => ({ type, address: one })) };
  }

  #reverseAnswer(address: string, question: Question, networks: readonly string[]): Answer {
    const target = networks.map((id) => this.#reverse.get(id)?.get(address)).find((one) => one !== undefined);
    if (target === undefined) return { kind: 'foreign' };
    return question.type === 'PTR'
      ? { kind: 'records', records: [{ type: 'PTR', target }] }
      : { kind: 'none' };
  }

  #serviceAnswer(match: RegExpExecArray, question: Question, networks: readonly string[]): Answer {
    const [, wanted = '', protocol, name = ''] = match;
    const found = this.#find(name, networks);
    if (found.length === 0) return { kind: 'foreign' };
    if (question.type !== 'SRV') return { kind: 'none' };
    const records = found.flatMap(({ service, networkId }) => {
      const ofSpec = service.ports.find(
        (port) => port.protocol === protocol && (port.name === wanted || String(port.targetPort) === wanted),
      );
      const port = ofSpec?.targetPort ?? Number(wanted);
      if (!Number.isInteger(port) || port < 1 || port > 65_535) return [];
      return serving(service, networkId).map(
        (endpoint): NameRecord => ({ type: 'SRV', target: `${endpoint.name}.${endpoint.taskId}`, port }),
      );
    });
    return records.length === 0 ? { kind: 'none' } : { kind: 'records', records };
  }

  /** Undefined when no service of the networks has a part in the name. */
  #addressesOf(name: string, networks: readonly string[]): string[] | undefined {
    const whole = this.#find(name, networks);
    if (whole.length > 0) return unique(whole.flatMap(addressesOfService));
    if (name.startsWith('tasks.')) {
      const tasks = this.#find(name.slice('tasks.'.length), networks);
      if (tasks.length > 0) return unique(tasks.flatMap((one) => addressesOfTasks(one, () => true)));
    }
    // web.3, web.3.<task id>, web.<host name>: the service's name may hold dots of its own.
    for (let dot = name.lastIndexOf('.'); dot > 0; dot = name.lastIndexOf('.', dot - 1)) {
      const services = this.#find(name.slice(0, dot), networks);
      const rest = name.slice(dot + 1);
      const addresses = services.flatMap((one) =>
        addressesOfTasks(one, (endpoint) => isNamed(endpoint, rest)),
      );
      if (addresses.length > 0) return unique(addresses);
    }
    const ofContainers = networks.flatMap((id) => this.#containers.get(id)?.get(name) ?? []);
    return ofContainers.length > 0 ? unique(ofContainers) : undefined;
  }

  #find(name: string, networks: readonly string[]): readonly Named[] {
    return networks.flatMap((id) => this.#services.get(id)?.get(name) ?? []);
  }
}

/** Each name of a service with the network where it is known, lower-case, each once. */
function namesOf(service: DesiredService): (readonly [networkId: string, name: string])[] {
  return service.networks.flatMap(({ networkId, aliases }) =>
    unique([service.name, ...aliases].map((one) => one.toLowerCase())).map(
      (name) => [networkId, name] as const,
    ),
  );
}

function inner<K, V>(outer: Map<string, Map<K, V>>, key: string): Map<K, V> {
  let found = outer.get(key);
  if (found === undefined) {
    found = new Map();
    outer.set(key, found);
  }
  return found;
}

/** Endpoints that take new connections on a network. */
function serving(service: DesiredService, networkId: string): Endpoint[] {
  return service.endpoints.filter(({ isDraining, addresses }) => !isDraining && networkId in addresses);
}

function addressesOfService(named: Named): readonly string[] {
  const network = named.service.networks.find(({ networkId }) => networkId === named.networkId);
  const virtual = network?.virtualAddresses ?? [];
  return virtual.length > 0 ? virtual : addressesOfTasks(named, () => true);
}

function addressesOfTasks({ service, networkId }: Named, matches: (endpoint: Endpoint) => boolean): string[] {
  return serving(service, networkId)
    .filter(matches)
    .flatMap(({ addresses }) => addresses[networkId] ?? []);
}

function isNamed(endpoint: Endpoint, rest: string): boolean {
  const own = [
    String(endpoint.slot),
    `${endpoint.slot}.${endpoint.taskId}`,
    endpoint.taskId,
    endpoint.hostname,
  ];
  return own.some((one) => one !== '' && one.toLowerCase() === rest);
}

function unique(list: readonly string[]): string[] {
  return [...new Set(list)];
}

/** The address that a name under in-addr.arpa or ip6.arpa stands for, IPv6 as it is written elsewhere here. */
function addressOfReverse(name: string): string | undefined {
  const four = /^(\d+)\.(\d+)\.(\d+)\.(\d+)\.in-addr\.arpa$/.exec(name);
  if (four !== null) return four.slice(1).reverse().join('.');
  const six = /^((?:[0-9a-f]\.){32})ip6\.arpa$/.exec(name)?.[1];
  if (six === undefined) return undefined;
  const digits = six.split('.').reverse().join('');
  return shortIpv6(digits.match(/.{4}/g) ?? []);
}

/** RFC 5952: no leading zeros, the first longest run of zero groups as `::`. */
function shortIpv6(groups: readonly string[]): string {
  const short = groups.map((group) => group.replace(/^0{1,3}/, ''));
  const text = short.join(':');
  const runs = text.match(/(?:^|:)0(?::0)+(?=:|$)/g) ?? [];
  const longest = runs.reduce((best, run) => (run.length > best.length ? run : best), '');
  if (longest === '') return text;
  return text.replace(longest, '::').replace(/:{3,}/, '::');
}
