/**
 * The flags of `service create` and `service update` that may be given several times, as data: how values
 * are added to a spec (`--NAME`, `--NAME-add`) and removed from it (`--NAME-rm`).
 */
import type { ContainerSpec, GenericResource, Mount, PortConfig, ServiceSpec } from '../proto/docker.ts';
import type { ApiClient } from './client.ts';
import { parseGenericResource, parseLabels, parsePublish, parseUlimit } from './parse.ts';
import { parseMount } from './parse-mount.ts';
import { envEntry, withContainer, withPlacement, withReservations } from './service-flags.ts';
import { UsageError } from './usage.ts';

type Change = (
  spec: ServiceSpec,
  values: readonly string[],
  client: () => ApiClient,
) => ServiceSpec | Promise<ServiceSpec>;

/** A value that may be given several times. */
export interface ListFlag {
  /** The create flag without dashes. */
  readonly name: string;
  /** The short form of the create flag, such as `-e`. */
  readonly short?: string;
  readonly argument: string;
  readonly description: string;
  /** What `--NAME-rm` takes. */
  readonly removes: string;
  readonly add: Change;
  readonly remove: Change;
}

/** A map without some keys. */
function without(map: Record<string, string> | undefined, keys: readonly string[]): Record<string, string> {
  return Object.fromEntries(Object.entries(map ?? {}).filter(([key]) => !keys.includes(key)));
}

/** Adds entries to a list, each in place of the one with the same key. */
export function merged<T>(
  list: readonly T[] | undefined,
  added: readonly T[],
  keyOf: (item: T) => string,
): T[] {
  const last = new Map(added.map((item) => [keyOf(item), item]));
  return [...(list ?? []).filter((item) => !last.has(keyOf(item))), ...last.values()];
}

/** A list of texts somewhere in a container's spec; `read` makes an entry of what is typed. */
function textList(
  flag: Pick<ListFlag, 'name' | 'short' | 'argument' | 'description' | 'removes'>,
  get: (container: ContainerSpec) => readonly string[] | undefined,
  set: (container: ContainerSpec, list: string[]) => Partial<ContainerSpec>,
  read: (value: string) => string = (value) => value,
): ListFlag {
  const change = (spec: ServiceSpec, list: string[]): ServiceSpec =>
    withContainer(spec, set(spec.TaskTemplate.ContainerSpec, list));
  return {
    ...flag,
    add: (spec, values) =>
      change(
        spec,
        merged(get(spec.TaskTemplate.ContainerSpec), values.map(read), (one) => one),
      ),
    remove: (spec, values) => {
      const gone = values.map(read);
      return change(
        spec,
        (get(spec.TaskTemplate.ContainerSpec) ?? []).filter((one) => !gone.includes(one)),
      );
    },
  };
}

const envKey = (entry: string): string => entry.split('=')[0]!;

const labelFlags: ListFlag[] = [
  {
    name: 'env',
    short: '-e',
    argument: '<key=value>',
    description: 'environment variable',
    removes: 'key',
    add: (spec, values) => {
      const entries = values.flatMap((value) => envEntry(value, process.env));
      return withContainer(spec, { Env: merged(spec.TaskTemplate.ContainerSpec.Env, entries, envKey) });
    },
    remove: (spec, keys) =>
      withContainer(spec, {
        Env: (spec.TaskTemplate.ContainerSpec.Env ?? []).filter((entry) => !keys.includes(envKey(entry))),
      }),
  },
  {
    name: 'label',
    short: '-l',
    argument: '<key=value>',
    description: 'label of the service',
    removes: 'key',
    add: (spec, values) => ({ ...spec, Labels: { ...spec.Labels, ...parseLabels(values) } }),
    remove: (spec, keys) => ({ ...spec, Labels: without(spec.Labels, keys) }),
  },
  {
    name: 'container-label',
    argument: '<key=value>',
    description: 'label of its containers',
    removes: 'key',
    add: (spec, values) =>
      withContainer(spec, { Labels: { ...spec.TaskTemplate.ContainerSpec.Labels, ...parseLabels(values) } }),
    remove: (spec, keys) =>
      withContainer(spec, { Labels: without(spec.TaskTemplate.ContainerSpec.Labels, keys) }),
  },
  {
    name: 'sysctl',
    argument: '<key=value>',
    description: 'kernel parameter of its containers',
    removes: 'key',
    add: (spec, values) =>
      withContainer(spec, {
        Sysctls: { ...spec.TaskTemplate.ContainerSpec.Sysctls, ...parseLabels(values) },
      }),
    remove: (spec, keys) =>
      withContainer(spec, { Sysctls: without(spec.TaskTemplate.ContainerSpec.Sysctls, keys) }),
  },
];

function parsePreference(text: string): { Spread: { SpreadDescriptor: string } } {
  const match = /^spread=(.+)$/.exec(text);
  if (!match) throw new UsageError(`--placement-pref "${text}": write spread=node.labels.KEY`);
  return { Spread: { SpreadDescriptor: match[1]! } };
}

const kindOf = (resource: GenericResource): string =>
  resource.NamedResourceSpec
    ? `${resource.NamedResourceSpec.Kind}=${resource.NamedResourceSpec.Value}`
    : (resource.DiscreteResourceSpec?.Kind ?? '');

const placementFlags: ListFlag[] = [
  {
    name: 'constraint',
    argument: '<constraint>',
    description: 'where it may run, e.g. node.labels.disk==ssd',
    removes: 'constraint',
    add: (spec, values) =>
      withPlacement(spec, {
        Constraints: merged(spec.TaskTemplate.Placement?.Constraints, values, (one) => one),
      }),
    remove: (spec, values) =>
      withPlacement(spec, {
        Constraints: (spec.TaskTemplate.Placement?.Constraints ?? []).filter((one) => !values.includes(one)),
      }),
  },
  {
    name: 'placement-pref',
    argument: '<preference>',
    description: 'how to spread it, e.g. spread=node.labels.zone',
    removes: 'preference',
    add: (spec, values) =>
      withPlacement(spec, {
        Preferences: [...(spec.TaskTemplate.Placement?.Preferences ?? []), ...values.map(parsePreference)],
      }),
    remove: (spec, values) => {
      const gone = values.map((value) => parsePreference(value).Spread.SpreadDescriptor);
      return withPlacement(spec, {
        Preferences: (spec.TaskTemplate.Placement?.Preferences ?? []).filter(
          (one) => !gone.includes(one.Spread.SpreadDescriptor),
        ),
      });
    },
  },
  {
    name: 'generic-resource',
    argument: '<resource>',
    description: "resource of the nodes' own naming, e.g. gpu=2",
    removes: 'resource',
    add: (spec, values) =>
      withReservations(spec, {
        GenericResources: merged(resourcesOf(spec), values.map(reservedResource), kindOf),
      }),
    remove: (spec, kinds) =>
      withReservations(spec, {
        GenericResources: resourcesOf(spec).filter((one) => !kinds.includes(kindOf(one).split('=')[0]!)),
      }),
  },
];

function resourcesOf(spec: ServiceSpec): GenericResource[] {
  return spec.TaskTemplate.Resources?.Reservations?.GenericResources ?? [];
}

const portKey = (port: PortConfig): string =>
  `${port.TargetPort}/${port.Protocol ?? 'tcp'}/${port.PublishedPort ?? ''}`;

/** Whether `--publish-rm value` means this port: by target port, with or without its protocol. */
function namesPort(value: string, port: PortConfig): boolean {
  const [target, protocol] = value.split('/');
  if (!/^\d+$/.test(target ?? '')) {
    throw new UsageError(`--publish-rm "${value}": name the target port, e.g. 80 or 80/udp`);
  }
  return Number(target) === port.TargetPort && (protocol ?? 'tcp') === (port.Protocol ?? 'tcp');
}

const attachmentFlags: ListFlag[] = [
  {
    name: 'publish',
    short: '-p',
    argument: '<port>',
    description: 'publish a port, e.g. mode=host,target=80,published=8080',
    removes: 'target port',
    add: (spec, values) => ({
      ...spec,
      EndpointSpec: {
        ...spec.EndpointSpec,
        Ports: merged(spec.EndpointSpec?.Ports, values.flatMap(parsePublish), portKey),
      },
    }),
    remove: (spec, values) => ({
      ...spec,
      EndpointSpec: {
        ...spec.EndpointSpec,
        Ports: (spec.EndpointSpec?.Ports ?? []).filter(
          (port) => !values.some((value) => namesPort(value, port)),
        ),
      },
    }),
  },
  {
    name: 'mount',
    argument: '<mount>',
    description: 'e.g. type=volume,source=data,target=/data',
    removes: 'target path',
    add: (spec, values) =>
      withContainer(spec, {
        Mounts: merged(mountsOf(spec), values.map(parseMount), (mount) => mount.Target),
      }),
    remove: (spec, targets) =>
      withContainer(spec, { Mounts: mountsOf(spec).filter((mount) => !targets.includes(mount.Target)) }),
  },
];

function mountsOf(spec: ServiceSpec): Mount[] {
  return spec.TaskTemplate.ContainerSpec.Mounts ?? [];
}

/** The API has "address name"; people write name:address. */
function hostLine(text: string): string {
  const at = text.indexOf(':');
  if (at <= 0 || at === text.length - 1) throw new UsageError(`--host "${text}": write NAME:ADDRESS`);
  return `${text.slice(at + 1)} ${text.slice(0, at)}`;
}

/** `NET_ADMIN` and `CAP_NET_ADMIN` are the same, as is any case. */
function capability(text: string): string {
  const name = text.toUpperCase();
  return name === 'ALL' || name.startsWith('CAP_') ? name : `CAP_${name}`;
}

function dnsFlag(
  name: string,
  argument: string,
  description: string,
  key: 'Nameservers' | 'Options' | 'Search',
) {
  return textList(
    { name, argument: `<${argument}>`, description, removes: argument },
    (container) => container.DNSConfig?.[key],
    (container, list) => ({ DNSConfig: { ...container.DNSConfig, [key]: list } }),
  );
}

const containerListFlags: ListFlag[] = [
  textList(
    { name: 'host', argument: '<name:address>', description: 'line of /etc/hosts', removes: 'name:address' },
    (container) => container.Hosts,
    (_container, Hosts) => ({ Hosts }),
    hostLine,
  ),
  dnsFlag('dns', 'address', 'DNS server', 'Nameservers'),
  dnsFlag('dns-option', 'option', 'option of the DNS resolver', 'Options'),
  dnsFlag('dns-search', 'domain', 'domain that names are looked up in', 'Search'),
  textList(
    { name: 'group', argument: '<group>', description: 'further group of the process', removes: 'group' },
    (container) => container.Groups,
    (_container, Groups) => ({ Groups }),
  ),
  {
    name: 'ulimit',
    argument: '<name=soft:hard>',
    description: 'limit of its processes, e.g. nofile=1024:2048',
    removes: 'name',
    add: (spec, values) =>
      withContainer(spec, {
        Ulimits: merged(spec.TaskTemplate.ContainerSpec.Ulimits, values.map(parseUlimit), (one) => one.Name),
      }),
    remove: (spec, names) =>
      withContainer(spec, {
        Ulimits: (spec.TaskTemplate.ContainerSpec.Ulimits ?? []).filter((one) => !names.includes(one.Name)),
      }),
  },
];

/** A service asks for an amount; which pieces it gets is the scheduler's to say. */
function reservedResource(text: string): GenericResource {
  const resource = parseGenericResource(text);
  if (!resource.NamedResourceSpec) return resource;
  throw new UsageError(
    `--generic-resource "${text}": a service asks for an amount, e.g. ${resource.NamedResourceSpec.Kind}=1; named resources are what nodes have`,
  );
}

/** Every list flag that has a form for create, and the two of update. */
export const listFlags: readonly ListFlag[] = [
  ...labelFlags,
  ...placementFlags,
  ...attachmentFlags,
  ...containerListFlags,
];

/** What `--cap-add` and `--cap-drop` are the same for create and update: a later one takes the other back. */
export function withCapabilities(
  spec: ServiceSpec,
  added: readonly string[],
  dropped: readonly string[],
): ServiceSpec {
  const { CapabilityAdd = [], CapabilityDrop = [] } = spec.TaskTemplate.ContainerSpec;
  const adds = added.map(capability);
  const drops = dropped.map(capability).filter((one) => !adds.includes(one));
  const self = (one: string): string => one;
  return withContainer(spec, {
    CapabilityAdd: merged(
      CapabilityAdd.filter((one) => !drops.includes(one)),
      adds,
      self,
    ),
    CapabilityDrop: merged(
      CapabilityDrop.filter((one) => !adds.includes(one)),
      drops,
      self,
    ),
  });
}
