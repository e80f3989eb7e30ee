/**
 * Changes about to be proposed, as the allocator sees them: a view with the batch's creations laid over it, and
 * what the batch gives away, which the store does not know yet.
 */
import type {
  ContainerAddress,
  ContainerAttachment,
  Network,
  NetworkAttachment,
  PortConfig,
  Service,
  Task,
} from '../../proto/docker.ts';
import type { NetworkId, NodeId } from '../../proto/ids.ts';
import { isTerminal } from '../../proto/task-state.ts';
import { type Attachment, clusterAttachments, familiesOf, hasAddresses } from '../store/attachment.ts';
import type { Change } from '../store/change.ts';
import { endpointOf, isIngressPort, portKey } from '../store/endpoint.ts';
import { type Family, familyOf, hostOf, parseAddress, type Subnet, subnetsOf } from '../store/ip.ts';
import type { View } from '../store/store.ts';
import type { IdOf, Kind, ObjectOf } from '../store/tables.ts';
import { AddressBook } from './addresses.ts';
import { allocateDriverState, allocateSubnets, hasSubnets, isAllocated, vxlanIdsOf } from './ipam.ts';
import { lacksVirtualAddress, wantsVirtualAddresses } from './served.ts';

/** Ports that are given out when a service publishes one without saying which, as Docker's. */
const firstPort = 30_000;
const lastPort = 32_767;

type Assignment = Extract<Change, { op: 'merge'; kind: 'task' }>;

export class Batch {
  private readonly view: View;
  private readonly now: number;
  private readonly created = new Map<string, ObjectOf[Kind]>();
  private readonly books = new Map<NetworkId, AddressBook>();
  /** Addresses that changes of the batch bring with them, by network. */
  private readonly brought = new Map<NetworkId, string[]>();
  private readonly vxlanIds = new Set<number>();
  private readonly ports = new Set<string>();
  /** Subnets that are not free; the stored ones are added when one is first asked for. */
  private readonly taken: Subnet[] = [];
  private hasStored = false;
  private readonly nodes = new Map<NodeId, NetworkAttachment[]>();

  /** `now` in ms since the epoch. */
  constructor(view: View, changes: readonly Change[], now: number) {
    this.view = view;
    this.now = now;
    for (const change of changes) if (change.op !== 'remove') this.note(change);
  }

  private note(change: Exclude<Change, { op: 'remove' }>): void {
    if (change.op !== 'merge') this.created.set(change.object.ID, change.object);
    const fields = (change.op === 'merge' ? change.fields : change.object) as Record<string, unknown>;
    const attached = (fields.NetworksAttachments ?? fields.Attachments) as NetworkAttachment[] | undefined;
    const ofContainers = fields.ContainerAddresses as ContainerAddress[] | undefined;
    for (const { NetworkID, Addresses } of [...(attached ?? []), ...(ofContainers ?? [])]) {
      this.bring(NetworkID, Addresses);
    }
    if (change.kind === 'service') {
      const { VirtualIPs, Ports } = (fields as Partial<Service>).Endpoint ?? {};
      for (const { NetworkID, Addr } of VirtualIPs ?? []) this.bring(NetworkID, [Addr]);
      for (const port of Ports ?? []) this.ports.add(portKey(port));
    }
    if (change.kind === 'network') {
      const { IPAMOptions, Spec, DriverState } = fields as Partial<Network>;
      this.taken.push(...subnetsOf(IPAMOptions?.Configs), ...subnetsOf(Spec?.IPAMOptions?.Configs));
      const known = change.op === 'merge' && this.view.get('network', change.id);
      const merged = known ? { ...known, ...change.fields } : undefined;
      if (merged) this.created.set(merged.ID, merged);
      if (DriverState) for (const id of vxlanIdsOf({ DriverState } as Network)) this.vxlanIds.add(id);
    }
  }

  private bring(network: NetworkId, addresses: readonly string[]): void {
    this.brought.set(network, [...(this.brought.get(network) ?? []), ...addresses]);
  }

  get<K extends Kind>(kind: K, id: IdOf<K> | undefined): ObjectOf[K] | undefined {
    const created = id === undefined ? undefined : (this.created.get(id) as ObjectOf[K] | undefined);
    return created ?? this.view.get(kind, id);
  }

  /** As the view finds; a network that the batch makes is found by its name, and as the ingress network. */
  find<K extends Kind>(kind: K, index: string, key: string): ObjectOf[K][] {
    const found = this.view.find(kind, index, key);
    if (kind !== 'network') return found;
    const made = [...this.created.values()].filter((one): one is Network => 'IPAMOptions' in one);
    const matching = made.filter(({ Spec }) =>
      index === 'ingress' ? Spec.Ingress : index === 'name' && Spec.Name === key,
    );
    return [...(matching as ObjectOf[K][]), ...found];
  }

  private cluster(): ObjectOf['cluster'] | undefined {
    const created = [...this.created.values()].find((one) => 'DefaultAddrPool' in one);
    return this.view.cluster() ?? (created as ObjectOf['cluster'] | undefined);
  }

  // ---------------------------------------------------------------- networks

  /** The network with its subnets and vxlan ids, if it can have them. */
  allocated(network: Network): Network {
    if (isAllocated(network)) return network;
    if (!this.hasStored) this.taken.push(...takenSubnets(this.view));
    this.hasStored = true;
    const IPAMOptions = hasSubnets(network)
      ? network.IPAMOptions
      : allocateSubnets(network, this.cluster(), this.taken);
    if (!IPAMOptions) return network;
    const DriverState = allocateDriverState(network, IPAMOptions.Configs, this.view.claims, this.vxlanIds);
    if (!DriverState) return network;
    const next = { ...network, IPAMOptions, DriverState };
    this.taken.push(...subnetsOf(IPAMOptions.Configs));
    this.created.set(network.ID, next);
    return next;
  }

  // ---------------------------------------------------------------- services

  /** The service with its ports and virtual addresses, as far as there are any to have. */
  served(service: Service): Service {
    const endpoint = endpointOf(service);
    const Ports = endpoint.Ports?.map((port) => this.withPort(port));
    const VirtualIPs = wantsVirtualAddresses(service.Spec) ? this.virtualAddresses(service) : [];
    const { VirtualIPs: _before, ...rest } = endpoint;
    const Endpoint = {
      ...rest,
      ...(Ports ? { Ports } : {}),
      ...(VirtualIPs.length > 0 ? { VirtualIPs } : {}),
    };
    const next = { ...service, Endpoint };
    this.created.set(service.ID, next);
    return next;
  }

  private withPort(port: PortConfig): PortConfig {
    if (!isIngressPort(port) || port.PublishedPort) return port;
    for (let PublishedPort = firstPort; PublishedPort <= lastPort; PublishedPort += 1) {
      const next = { ...port, PublishedPort };
      const key = portKey(next);
      if (this.ports.has(key) || this.view.claims.holderOfPort(key)) continue;
      if (this.view.find('service', 'hostPort', key).length > 0) continue;
      this.ports.add(key);
      return next;
    }
    return port;
  }

  private virtualAddresses(service: Service): NonNullable<Service['Endpoint']['VirtualIPs']> {
    const had = service.Endpoint.VirtualIPs ?? [];
    return clusterAttachments(this, service.Spec).flatMap(({ network }) =>
      familiesOf(network).flatMap((family) => {
        const kept = had.find((one) => one.NetworkID === network.ID && familyOf(one.Addr) === family);
        const Addr = kept ? kept.Addr : this.addressOn(network, family, []);
        return Addr === undefined ? [] : [{ NetworkID: network.ID, Addr }];
      }),
    );
  }

  // ---------------------------------------------------------------- tasks

  /** A task's attachments and, when an address is missing, the reason. Nothing when nothing is to change. */
  attach(task: Task): Pick<Partial<Task>, 'NetworksAttachments' | 'Status'> {
    const spec = this.get('revision', task.RevisionID)?.Spec;
    const attachments = spec ? clusterAttachments(this, spec) : [];
    if (hasAddresses(task, attachments)) return {};
    const problems: string[] = [];
    const service = this.get('service', task.ServiceID);
    const NetworksAttachments = attachments.map((attachment) => {
      const { ID } = attachment.network;
      const had = task.NetworksAttachments?.find((one) => one.NetworkID === ID);
      if (service && lacksVirtualAddress(service, attachment.network)) {
        problems.push(this.describeNoVirtualAddress(service, attachment.network));
        return had ?? { NetworkID: ID, Addresses: [] };
      }
      return this.attachment(attachment, had?.Addresses ?? [], problems);
    });
    const { Err: _, ...status } = task.Status;
    const Status = problems.length > 0 ? { ...status, Err: [...new Set(problems)].join('; ') } : status;
    return { NetworksAttachments, Status };
  }

  private attachment(
    { network, config }: Attachment,
    had: readonly string[],
    problems: string[],
  ): NetworkAttachment {
    return {
      NetworkID: network.ID,
      Addresses: this.addressesOn(network, had, problems),
      ...(config.Aliases?.length ? { Aliases: config.Aliases } : {}),
    };
  }

  /** An address of each of the network's families, IPv4 first; none at all when one is missing. */
  private addressesOn(network: Network, had: readonly string[], problems: string[]): string[] {
    const all: string[] = [];
    for (const family of familiesOf(network)) {
      const address =
        had.find((one) => familyOf(one) === family) ?? this.addressOn(network, family, problems);
      if (address === undefined) return [];
      all.push(address);
    }
    return all;
  }

  private describeNoVirtualAddress(service: Service, network: Network): string {
    if (!isAllocated(network)) return describeNoSubnet(network, this.view);
    return `service ${service.Spec.Name} has no virtual address: ${this.bookOf(network).describeExhaustion(4)}`;
  }

  // ---------------------------------------------------------------- nodes

  /**
   * A task's assignment, when its node has an address on each of the task's networks or can have one; else the
   * task goes on waiting, with the reason. Undefined when that reason stands already.
   */
  assigned(change: Assignment): Assignment | undefined {
    const task = this.view.get('task', change.id);
    const attachments = change.fields.NetworksAttachments ?? task?.NetworksAttachments;
    if (!attachments || attachments.length === 0) return change;
    const nodeId = change.fields.NodeID ?? task?.NodeID;
    const node = nodeId === undefined ? undefined : this.view.get('node', nodeId);
    if (!task || !node) return change;
    const problems: string[] = [];
    const wanted = attachments.map(({ NetworkID }) => NetworkID);
    const next = this.attachNode(node.ID, wanted, problems);
    if (problems.length === 0) {
      if (next) this.nodes.set(node.ID, next);
      return change;
    }
    const name = node.Description.Hostname || node.ID;
    const Err = `node ${name} needs an address of its own: ${problems.join('; ')}`;
    if (task.Status.Err === Err) return undefined;
    const Status = { ...task.Status, Timestamp: new Date(this.now).toISOString(), Err };
    return { op: 'merge', kind: 'task', id: task.ID, fields: { Status } };
  }

  /** The node's attachments with addresses on `networks` added; undefined when it has them all. */
  attachNode(
    id: NodeId,
    networks: readonly NetworkId[],
    problems: string[] = [],
  ): NetworkAttachment[] | undefined {
    const had = this.nodes.get(id) ?? this.view.get('node', id)?.Attachments ?? [];
    const added = networks
      .filter((network) => !had.some((one) => one.NetworkID === network))
      .flatMap((networkId) => {
        const network = this.get('network', networkId);
        const Addresses = network ? this.addressesOn(network, [], problems) : [];
        return Addresses.length > 0 ? [{ NetworkID: networkId, Addresses }] : [];
      });
    return added.length > 0 ? [...had, ...added] : undefined;
  }

  /**
   * Addresses of a node's containers that are no tasks, those that it `had` as they were; the node gets its own on their
   * networks. What can't be had is said in words.
   */
  containerAddresses(
    nodeId: NodeId,
    wanted: readonly ContainerAttachment[],
    had: readonly ContainerAddress[],
  ): ContainerAddress[] {
    return wanted.flatMap(({ ID, NetworkID }) => {
      const known = had.find((one) => one.ID === ID);
      if (known) return [known];
      const network = this.get('network', NetworkID);
      if (network === undefined) return [];
      const problems: string[] = [];
      const next = this.attachNode(nodeId, [NetworkID], problems);
      const Addresses = problems.length > 0 ? [] : this.addressesOn(network, [], problems);
      if (problems.length > 0)
        return [{ ID, NetworkID, Addresses: [], Err: [...new Set(problems)].join('; ') }];
      if (next) this.nodes.set(nodeId, next);
      return [{ ID, NetworkID, Addresses }];
    });
  }

  /** The node's attachments as the batch leaves them. */
  attachmentsOf(id: NodeId): readonly NetworkAttachment[] {
    return this.nodes.get(id) ?? this.view.get('node', id)?.Attachments ?? [];
  }

  /** What the assignments of the batch make of their nodes. */
  nodeChanges(): Change[] {
    return [...this.nodes].map(([id, Attachments]) => ({
      op: 'merge',
      kind: 'node',
      id,
      fields: { Attachments },
    }));
  }

  // ---------------------------------------------------------------- addresses

  private addressOn(network: Network, family: Family, problems: string[]): string | undefined {
    if (!isAllocated(network)) {
      problems.push(describeNoSubnet(network, this.view));
      return undefined;
    }
    const book = this.bookOf(network);
    const address = book.take(family);
    if (address === undefined) problems.push(book.describeExhaustion(family));
    return address;
  }

  private bookOf(network: Network): AddressBook {
    const known = this.books.get(network.ID);
    if (known) return known;
    const book = new AddressBook(network, this.view.claims, this.now);
    for (const address of this.brought.get(network.ID) ?? []) {
      if (!this.view.claims.holderOfAddress(network.ID, hostOf(address))) book.noteGiven(address);
    }
    this.books.set(network.ID, book);
    return book;
  }
}

/**
 * Subnets that no new network may have: those of other networks, those that tasks of removed networks still
 * live in, and the nodes' own addresses.
 */
function takenSubnets(view: View): Subnet[] {
  const ofNetworks = view
    .list('network')
    .flatMap((network) =>
      subnetsOf([...network.IPAMOptions.Configs, ...(network.Spec.IPAMOptions?.Configs ?? [])]),
    );
  const ofNodes = view.list('node').map((node) => parseAddress(node.Status.Addr));
  const addresses = ofNodes.filter((address) => address !== undefined);
  const ofTasks = view
    .list('task')
    .flatMap((task) => (isTerminal(task.Status.State) ? [] : leftBehind(view, task)));
  return [
    ...ofNetworks,
    ...subnetsOf(ofTasks.map((Subnet) => ({ Subnet }))),
    ...addresses.map(({ family, value }) => ({ family, base: value, prefixBits: family === 4 ? 32 : 128 })),
  ];
}

/** The addresses (CIDR form) of a task on networks that are gone. */
function leftBehind(view: View, task: Task): string[] {
  const gone = task.NetworksAttachments?.filter((one) => !view.get('network', one.NetworkID)) ?? [];
  return gone.flatMap((one) => one.Addresses);
}

function describeNoSubnet(network: Network, view: View): string {
  if (network.Spec.IPAMOptions?.Configs?.some((config) => config.Subnet)) {
    return `network ${network.Spec.Name} is not ready yet`;
  }
  const cluster = view.cluster();
  const pools = cluster?.DefaultAddrPool?.join(', ') || 'the default pool';
  return `network ${network.Spec.Name} has no subnet: none of size /${cluster?.SubnetSize || 24} is left in ${pools}: remove networks that nothing uses, or give this one a subnet of its own`;
}
