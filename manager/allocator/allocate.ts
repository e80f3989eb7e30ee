/**
 * The allocator: gives networks their subnets, tasks their addresses and services their endpoints.
 *
 * In: the store and a batch of changes about to be proposed (allocate), or the store alone for what is
 * still owed (networkReconciler). Out: the batch, completed, so that a task is created together with its
 * address; or changes of its own. What cannot be given is said in words on the task that waits for it.
 * It keeps nothing: who holds what is read from the stored tasks. Batches must be proposed one after the
 * other, each on the view that shows the one before.
 */
import type { Network, NetworkAttachment, Service, Task } from '../../proto/docker.ts';
import type { NetworkId } from '../../proto/ids.ts';
import { isTerminal } from '../../proto/task-state.ts';
import {
  type Attachment,
  clusterAttachments,
  hasAddresses,
  hasClusterAddresses,
} from '../store/attachment.ts';
import type { Change } from '../store/change.ts';
import { endpointOf, hasEndpoint } from '../store/endpoint.ts';
import { parseAddress, type Subnet, subnetsOf } from '../store/ipv4.ts';
import { sameValue } from '../store/normalize.ts';
import type { Reconciler } from '../store/reconciler.ts';
import type { View } from '../store/store.ts';
import type { IdOf, Kind, ObjectOf } from '../store/tables.ts';
import { AddressBook, allocateSubnets, withGateway } from './ipam.ts';

/**
 * The changes with what the created networks, services and tasks are owed filled in. Order and number
 * stay. `now` in ms since the epoch.
 */
export function allocate(view: View, changes: readonly Change[], now: number): Change[] {
  const batch = new Batch(view, changes, now);
  const withNetworks = changes.map((change) => {
    const isNew = change.op === 'create' && change.kind === 'network';
    return isNew ? { ...change, object: batch.allocated(change.object) } : change;
  });
  return withNetworks.map((change): Change => {
    if (change.op === 'create' && change.kind === 'task') {
      return { ...change, object: { ...change.object, ...batch.attach(change.object) } };
    }
    if ((change.op === 'create' || change.op === 'update') && change.kind === 'service') {
      return { ...change, object: { ...change.object, Endpoint: endpointOf(change.object) } };
    }
    return change;
  });
}

/** A view with a batch's creations laid over it, and the addresses that the batch gives away. */
class Batch {
  private readonly view: View;
  private readonly now: number;
  private readonly created = new Map<string, ObjectOf[Kind]>();
  private readonly books = new Map<NetworkId, AddressBook>();
  /** Attachments that changes of the batch bring with them. */
  private readonly brought: NetworkAttachment[] = [];
  /** Subnets that are not free; the stored ones are added when one is first asked for. */
  private readonly taken: Subnet[] = [];
  private hasStored = false;

  constructor(view: View, changes: readonly Change[], now: number) {
    this.view = view;
    this.now = now;
    for (const change of changes) {
      if (change.op === 'remove') continue;
      if (change.op !== 'merge') this.created.set(change.object.ID, change.object);
      const fields = change.op === 'merge' ? change.fields : change.object;
      if (change.kind === 'task') this.brought.push(...((fields as Partial<Task>).NetworksAttachments ?? []));
      if (change.kind === 'network') {
        const { IPAMOptions, Spec } = fields as Partial<Network>;
        this.taken.push(...subnetsOf(IPAMOptions?.Configs), ...subnetsOf(Spec?.IPAMOptions?.Configs));
        const known = change.op === 'merge' && view.get('network', change.id);
        if (known && IPAMOptions) this.created.set(known.ID, { ...known, IPAMOptions });
      }
    }
  }

  get<K extends Kind>(kind: K, id: IdOf<K> | undefined): ObjectOf[K] | undefined {
    const created = id === undefined ? undefined : (this.created.get(id) as ObjectOf[K] | undefined);
    return created ?? this.view.get(kind, id);
  }

  find<K extends Kind>(kind: K, index: string, key: string): ObjectOf[K][] {
    return this.view.find(kind, index, key);
  }

  /** The network with its subnets, if it can have them. */
  allocated(network: Network): Network {
    if (isAllocated(network)) return network;
    if (!this.hasStored) this.taken.push(...takenSubnets(this.view));
    this.hasStored = true;
    const IPAMOptions = allocateSubnets(network, this.view.cluster(), this.taken);
    if (!IPAMOptions) return network;
    const next = { ...network, IPAMOptions };
    this.taken.push(...subnetsOf(IPAMOptions.Configs));
    this.created.set(network.ID, next);
    return next;
  }

  /** A task's attachments and, when an address is missing, the reason. Nothing when nothing is to change. */
  attach(task: Task): Pick<Partial<Task>, 'NetworksAttachments' | 'Status'> {
    const spec = this.get('revision', task.RevisionID)?.Spec;
    const attachments = spec ? clusterAttachments(this, spec.TaskTemplate) : [];
    if (hasAddresses(task, attachments)) return {};
    const problems: string[] = [];
    const NetworksAttachments = attachments.map((attachment) => {
      const id = attachment.network.ID;
      const had = task.NetworksAttachments?.find((one) => one.NetworkID === id && one.Addresses.length > 0);
      return had ?? this.newAttachment(attachment, problems);
    });
    const { Err: _, ...status } = task.Status;
    const Status = problems.length > 0 ? { ...status, Err: problems.join('; ') } : status;
    return { NetworksAttachments, Status };
  }

  private newAttachment({ network, config }: Attachment, problems: string[]): NetworkAttachment {
    const address = this.addressOn(network, problems);
    return {
      NetworkID: network.ID,
      Addresses: address === undefined ? [] : [address],
      ...(config.Aliases?.length ? { Aliases: config.Aliases } : {}),
    };
  }

  private addressOn(network: Network, problems: string[]): string | undefined {
    if (!isAllocated(network)) {
      problems.push(describeNoSubnet(network, this.view));
      return undefined;
    }
    const book = this.bookOf(network);
    const address = book.take();
    if (address === undefined) problems.push(book.describeExhaustion());
    return address;
  }

  private bookOf(network: Network): AddressBook {
    const known = this.books.get(network.ID);
    if (known) return known;
    const book = readBook(this.view, network, this.now);
    for (const attachment of this.brought) {
      if (attachment.NetworkID === network.ID)
        for (const address of attachment.Addresses) book.noteUsed(address);
    }
    this.books.set(network.ID, book);
    return book;
  }
}

/** Who holds what on a network, as the stored tasks and services tell. */
function readBook(view: View, network: Network, now: number): AddressBook {
  const book = new AddressBook(network);
  for (const task of view.find('task', 'network', network.ID)) {
    const attachment = task.NetworksAttachments?.find((one) => one.NetworkID === network.ID);
    for (const address of attachment?.Addresses ?? []) {
      if (isTerminal(task.Status.State)) book.noteFreed(address, Date.parse(task.Status.Timestamp), now);
      else book.noteUsed(address);
      book.noteLast(address);
    }
  }
  for (const service of view.find('service', 'network', network.ID)) {
    for (const vip of service.Endpoint.VirtualIPs ?? [])
      if (vip.NetworkID === network.ID) book.noteUsed(vip.Addr);
  }
  return book;
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
    ...addresses.map((base) => ({ base, prefixBits: 32 })),
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

// ---------------------------------------------------------------- as a reconciler

/** One key each for all subnets and all addresses: what is handed out together must not be handed out twice. */
const subnetsKey = 'subnets';
const addressesKey = 'addresses';
const servicePrefix = 'service/';

/** The allocator as the loop drives it: what was not given at creation, once it can be. */
export function networkReconciler(): Reconciler {
  return {
    name: 'allocator',
    keysFor(event, view) {
      switch (event.kind) {
        case 'network':
          return event.op !== 'remove' && isAllocated(event.object) ? [addressesKey] : [subnetsKey];
        case 'service':
          return event.op === 'remove' || hasEndpoint(event.object) ? [] : [servicePrefix + event.object.ID];
        case 'task':
          return concernsAddresses(event.object, event.op === 'remove', view) ? [addressesKey] : [];
        case 'cluster':
          return [subnetsKey];
        default:
          return [];
      }
    },
    allKeys(view) {
      const services = view.list('service').filter((service) => !hasEndpoint(service));
      return [subnetsKey, addressesKey, ...services.map((service) => servicePrefix + service.ID)];
    },
    reconcile(view, key, now) {
      if (key === subnetsKey) return { changes: oweSubnets(view, now) };
      if (key === addressesKey) return { changes: oweAddresses(view, now) };
      return { changes: oweEndpoint(view, key.slice(servicePrefix.length) as Service['ID']) };
    },
  };
}

/** Whether nothing is owed to a network: it has its subnets with their gateways, or needs none. */
function isAllocated(network: Network): boolean {
  if (!hasClusterAddresses(network)) return true;
  const { Configs } = network.IPAMOptions;
  return Configs.length > 0 && Configs.every((config) => sameValue(config, withGateway(config)));
}

/** Whether a task's event may let a waiting one have its address: it waits itself, or gave its own back. */
function concernsAddresses(task: Task, isRemoved: boolean, view: View): boolean {
  if (isRemoved || isTerminal(task.Status.State)) return (task.NetworksAttachments?.length ?? 0) > 0;
  return task.Status.State === 'pending' && lacksAddress(view, task);
}

function lacksAddress(view: View, task: Task): boolean {
  const spec = view.get('revision', task.RevisionID)?.Spec;
  return spec !== undefined && !hasAddresses(task, clusterAttachments(view, spec.TaskTemplate));
}

function oweSubnets(view: View, now: number): Change[] {
  const batch = new Batch(view, [], now);
  return view.list('network').flatMap((network): Change[] => {
    if (isAllocated(network)) return [];
    const { IPAMOptions } = batch.allocated(network);
    if (sameValue(IPAMOptions, network.IPAMOptions)) return [];
    return [{ op: 'merge', kind: 'network', id: network.ID, fields: { IPAMOptions } }];
  });
}

function oweAddresses(view: View, now: number): Change[] {
  const batch = new Batch(view, [], now);
  return view.find('task', 'state', 'pending').flatMap((task): Change[] => {
    if (!lacksAddress(view, task)) return [];
    const { NetworksAttachments, Status } = batch.attach(task);
    if (!NetworksAttachments || !Status) return [];
    const isNew = NetworksAttachments.some(
      (one) => one.Addresses.length > 0 && !task.NetworksAttachments?.includes(one),
    );
    if (!isNew && Status.Err === task.Status.Err) return [];
    const fields = { NetworksAttachments, Status: { ...Status, Timestamp: new Date(now).toISOString() } };
    return [{ op: 'merge', kind: 'task', id: task.ID, fields }];
  });
}

function oweEndpoint(view: View, id: Service['ID']): Change[] {
  const service = view.get('service', id);
  if (!service || hasEndpoint(service)) return [];
  return [{ op: 'merge', kind: 'service', id, fields: { Endpoint: endpointOf(service) } }];
}
