/**
 * From a task to the container that carries it out. Pure. In: the task as the managers sent it, the node, the
 * engine's networks it is attached to, the files (secrets and configs) it gets. Out: the engine's request. What
 * Docker's swarm mode sets is set alike, so that `docker inspect` of a task's container reads the same.
 */
import { ShoalError } from '../../proto/errors.ts';
import type { HealthConfig__Output } from '../../proto/generated/docker/swarmkit/v1/HealthConfig.ts';
import type { Mount__Output } from '../../proto/generated/docker/swarmkit/v1/Mount.ts';
import type { Privileges__Output } from '../../proto/generated/docker/swarmkit/v1/Privileges.ts';
import { expand, type TemplateValues } from '../../proto/template.ts';
import { nanosecondsOf, type WireTask } from '../wire.ts';
import type { ContainerRequest } from './engine.ts';
import { privilegedConfig } from './privileges.ts';

export const nodeIdLabel = 'com.docker.swarm.node.id';
export const taskIdLabel = 'com.docker.swarm.task.id';

/** Docker's grace between the stop signal and the kill when a service names none. */
export const defaultStopGraceMs = 10_000;

/** Engines refuse a memory limit or reservation below this. */
const leastMemoryBytes = 6 * 2 ** 20;

export interface NodeForTasks {
  readonly id: string;
  readonly hostname: string;
  readonly architecture: string;
  readonly os: string;
  /** Ports published in ingress mode (tcp) are ports of the host, which the engine chooses: a proxy sends to them. */
  readonly hasProxy?: boolean;
}

/** A network of the engine that the task's container joins. */
export interface AttachedNetwork {
  readonly name: string;
  /** Addresses in CIDR form, as the managers allocated them. */
  readonly addresses: readonly string[];
  readonly aliases: readonly string[];
  readonly driverOptions: Readonly<Record<string, string>>;
  /** DNS servers that know the network's names; empty where the engine's own does. */
  readonly nameservers: readonly string[];
}

/** What a container is attached to: networks of the cluster, or one of the engine's own modes. */
export type Attachment =
  | { readonly kind: 'networks'; readonly networks: readonly AttachedNetwork[] }
  | { readonly kind: 'mode'; readonly mode: string };

/** A file of the host that appears in the container, read-only. */
export interface FileMount {
  readonly source: string;
  readonly target: string;
}

type ContainerWire = NonNullable<NonNullable<WireTask['spec']>['container']>;

/** The container's part of a task. Throws `not-supported` for a task without one. */
export function containerOf(task: WireTask): ContainerWire {
  const container = task.spec?.container;
  if (container !== undefined) return container;
  throw new ShoalError('not-supported', `task ${task.id ?? ''}: this node runs containers only`);
}

/** `web.1.<task id>`; for a task of a global service, which has no slot, `web.<node id>.<task id>`. */
export function taskName(task: WireTask): string {
  if (task.annotations?.name) return task.annotations.name;
  const slot = Number(task.slot ?? 0) > 0 ? task.slot : task.node_id;
  return `${task.service_annotations?.name || (task.service_id ?? '')}.${slot ?? ''}.${task.id ?? ''}`;
}

/** Milliseconds between the stop signal and the kill. */
export function stopGraceMs(task: WireTask): number {
  const nanoseconds = nanosecondsOf(task.spec?.container?.stop_grace_period);
  return nanoseconds === undefined ? defaultStopGraceMs : nanoseconds / 1e6;
}

/** What templates of this task can name. */
export function templateValues(task: WireTask, node: NodeForTasks): TemplateValues {
  return {
    Service: {
      ID: task.service_id ?? '',
      Name: task.service_annotations?.name ?? '',
      Labels: task.service_annotations?.labels ?? {},
    },
    Node: {
      ID: node.id,
      Hostname: node.hostname,
      Platform: { Architecture: node.architecture, OS: node.os },
    },
    Task: {
      ID: task.id ?? '',
      Name: taskName(task),
      Slot: Number(task.slot ?? 0) > 0 ? String(task.slot) : node.id,
    },
  };
}

/** The labels of a task's container: its own, and those by which Docker's tools know it. */
export function containerLabels(task: WireTask, node: NodeForTasks): Record<string, string> {
  return {
    ...containerOf(task).labels,
    ...task.annotations?.labels,
    'com.docker.swarm.task': '',
    [taskIdLabel]: task.id ?? '',
    'com.docker.swarm.task.name': taskName(task),
    [nodeIdLabel]: node.id,
    'com.docker.swarm.service.id': task.service_id ?? '',
    'com.docker.swarm.service.name': task.service_annotations?.name ?? '',
  };
}

/**
 * The engine's request for `task`. Throws `invalid-argument` for a template that cannot be carried out and
 * `not-supported` for what no Linux engine can do.
 */
export function containerRequest(
  task: WireTask,
  node: NodeForTasks,
  attachment: Attachment,
  files: readonly FileMount[],
): ContainerRequest {
  const spec = containerOf(task);
  const values = templateValues(task, node);
  const filled = (text: string): string => expand(text, values);
  const ports = task.endpoint?.ports ?? [];
  const config: Record<string, unknown> = {
    User: spec.user ?? '',
    Env: [...(spec.env ?? []).map(filled), ...genericResourceEnv(task)],
    WorkingDir: spec.dir ?? '',
    Tty: spec.tty === true,
    OpenStdin: spec.open_stdin === true,
    ExposedPorts: Object.fromEntries(ports.map((port) => [portKey(port), {}])),
    StopTimeout: Math.ceil(stopGraceMs(task) / 1000),
    ...(spec.command?.length ? { Entrypoint: spec.command } : {}),
    ...(spec.args?.length ? { Cmd: spec.args } : {}),
    ...(spec.hostname ? { Hostname: filled(spec.hostname) } : {}),
    ...(spec.stop_signal ? { StopSignal: spec.stop_signal } : {}),
    ...(spec.healthcheck === undefined ? {} : { Healthcheck: healthcheck(spec.healthcheck) }),
    HostConfig: hostConfig(task, node, attachment, filled, files),
    NetworkingConfig: { EndpointsConfig: endpoints(attachment) },
  };
  return {
    name: taskName(task),
    labels: containerLabels(task, node),
    image: spec.image ?? '',
    config,
  };
}

function hostConfig(
  task: WireTask,
  node: NodeForTasks,
  attachment: Attachment,
  filled: (text: string) => string,
  files: readonly FileMount[],
): Record<string, unknown> {
  const spec = containerOf(task);
  const logDriver = task.spec?.log_driver ?? task.log_driver;
  const mode = attachment.kind === 'mode' ? attachment.mode : attachment.networks[0]?.name;
  return {
    ...resources(task),
    RestartPolicy: { Name: 'no' },
    AutoRemove: false,
    ...(mode === undefined ? {} : { NetworkMode: mode }),
    PortBindings: portBindings(task, node),
    Mounts: [
      ...(spec.mounts ?? []).map((mount) => mountOf(mount, filled)),
      ...files.map(({ source, target }) => ({
        Type: 'bind',
        Source: source,
        Target: target,
        ReadOnly: true,
      })),
    ],
    ReadonlyRootfs: spec.read_only === true,
    GroupAdd: spec.groups ?? [],
    Dns: nameservers(attachment, spec.dns_config?.nameservers ?? []),
    DnsSearch: spec.dns_config?.search ?? [],
    DnsOptions: spec.dns_config?.options ?? [],
    ExtraHosts: (spec.hosts ?? []).flatMap(extraHosts),
    CapAdd: spec.capability_add ?? [],
    CapDrop: spec.capability_drop ?? [],
    Sysctls: spec.sysctls ?? {},
    Ulimits: (spec.ulimits ?? []).map(({ name, soft, hard }) => ({
      Name: name ?? '',
      Soft: Number(soft ?? 0),
      Hard: Number(hard ?? 0),
    })),
    ...privilegedConfig(task, securityOptions(spec.privileges)),
    ...(spec.init === undefined ? {} : { Init: spec.init.value === true }),
    ...(spec.oom_score_adj === undefined ? {} : { OomScoreAdj: Number(spec.oom_score_adj) }),
    ...(logDriver?.name ? { LogConfig: { Type: logDriver.name, Config: logDriver.options ?? {} } } : {}),
  };
}

function resources(task: WireTask): Record<string, unknown> {
  const { limits, reservations, swap_bytes, memory_swappiness } = task.spec?.resources ?? {};
  const memoryBytes = Number(limits?.memory_bytes ?? 0);
  const reservedBytes = Number(reservations?.memory_bytes ?? 0);
  const fits = reservedBytes >= leastMemoryBytes && (memoryBytes === 0 || reservedBytes <= memoryBytes);
  const pids = Number(containerOf(task).pidsLimit ?? 0);
  const swapBytes = Number(swap_bytes?.value ?? 0);
  return {
    ...(Number(limits?.nano_cpus ?? 0) > 0 ? { NanoCpus: Number(limits?.nano_cpus) } : {}),
    ...(memoryBytes > 0 ? { Memory: memoryBytes } : {}),
    ...(fits ? { MemoryReservation: reservedBytes } : {}),
    ...(swap_bytes !== undefined && memoryBytes > 0
      ? { MemorySwap: swapBytes < 0 ? -1 : memoryBytes + swapBytes }
      : {}),
    // -1 is the engine's own, which it is not told.
    ...(Number(memory_swappiness?.value ?? -1) < 0
      ? {}
      : { MemorySwappiness: Number(memory_swappiness?.value) }),
    ...(pids > 0 ? { PidsLimit: pids } : {}),
  };
}

/** Docker's way of telling a task which generic resources it was given. */
function genericResourceEnv(task: WireTask): string[] {
  const byKind = new Map<string, string[]>();
  for (const {
    named_resource_spec: named,
    discrete_resource_spec: discrete,
  } of task.assigned_generic_resources ?? []) {
    const kind = named?.kind ?? discrete?.kind;
    const value = named?.value ?? discrete?.value;
    if (kind === undefined || value === undefined) continue;
    byKind.set(kind, [...(byKind.get(kind) ?? []), String(value)]);
  }
  return [...byKind].map(([kind, values]) => `DOCKER_RESOURCE_${kind.toUpperCase()}=${values.join(',')}`);
}

type WirePort = NonNullable<NonNullable<WireTask['endpoint']>['ports']>[number];

function portKey(port: WirePort): string {
  return `${port.target_port ?? 0}/${(port.protocol ?? 'TCP').toLowerCase()}`;
}

/** Ports in host mode; those of the routing mesh are not the container's affair, unless a proxy is in its place. */
function portBindings(
  task: WireTask,
  { hasProxy }: NodeForTasks,
): Record<string, { HostIp: string; HostPort: string }[]> {
  const bindings: Record<string, { HostIp: string; HostPort: string }[]> = {};
  for (const port of task.endpoint?.ports ?? []) {
    const isOfHost = port.publish_mode === 'HOST';
    if (!isOfHost && !(hasProxy && (port.protocol ?? 'TCP') === 'TCP')) continue;
    const key = portKey(port);
    bindings[key] ??= [];
    const chosen = isOfHost && port.published_port ? String(port.published_port) : '';
    bindings[key].push({ HostIp: '', HostPort: chosen });
  }
  return bindings;
}

/** The engine asks them in order, at most three: the networks' own first, for only they know services. */
function nameservers(attachment: Attachment, own: readonly string[]): readonly string[] {
  return attachment.kind === 'mode'
    ? own
    : [...attachment.networks.flatMap((one) => one.nameservers), ...own];
}

function endpoints(attachment: Attachment): Record<string, unknown> {
  if (attachment.kind === 'mode') return {};
  return Object.fromEntries(
    attachment.networks.map(({ name, addresses, aliases, driverOptions }) => {
      const bare = addresses.map((address) => address.replace(/\/\d+$/, ''));
      const v4 = bare.find((address) => !address.includes(':'));
      const v6 = bare.find((address) => address.includes(':'));
      const ipam = {
        ...(v4 === undefined ? {} : { IPv4Address: v4 }),
        ...(v6 === undefined ? {} : { IPv6Address: v6 }),
      };
      return [name, { IPAMConfig: ipam, Aliases: [...aliases], DriverOpts: driverOptions }];
    }),
  );
}

function mountOf(mount: Mount__Output, filled: (text: string) => string): Record<string, unknown> {
  const type = mount.type ?? 'BIND';
  if (type === 'CLUSTER' || type === 'NPIPE') {
    throw new ShoalError(
      'not-supported',
      `mount ${mount.target ?? ''}: mounts of type ${type.toLowerCase()} are not supported; use bind, volume or tmpfs`,
    );
  }
  const { bind_options: bind, volume_options: volume, tmpfs_options: tmpfs } = mount;
  return {
    Type: type.toLowerCase(),
    Source: filled(mount.source ?? ''),
    Target: filled(mount.target ?? ''),
    ReadOnly: mount.readonly === true,
    ...(bind === undefined || type !== 'BIND'
      ? {}
      : {
          BindOptions: {
            Propagation: (bind.propagation ?? 'RPRIVATE').toLowerCase(),
            NonRecursive: bind.nonrecursive === true,
            CreateMountpoint: bind.createmountpoint === true,
            ...(bind.readonlynonrecursive ? { ReadOnlyNonRecursive: true } : {}),
            ...(bind.readonlyforcerecursive ? { ReadOnlyForceRecursive: true } : {}),
          },
        }),
    ...(volume === undefined || type !== 'VOLUME'
      ? {}
      : {
          VolumeOptions: {
            NoCopy: volume.nocopy === true,
            Labels: volume.labels ?? {},
            ...(volume.subpath ? { Subpath: volume.subpath } : {}),
            ...(volume.driver_config?.name
              ? {
                  DriverConfig: {
                    Name: volume.driver_config.name,
                    Options: Object.fromEntries(
                      Object.entries(volume.driver_config.options ?? {}).map(([key, value]) => [
                        key,
                        filled(value),
                      ]),
                    ),
                  },
                }
              : {}),
          },
        }),
    ...(tmpfs === undefined || type !== 'TMPFS'
      ? {}
      : {
          TmpfsOptions: {
            SizeBytes: Number(tmpfs.size_bytes ?? 0),
            Mode: tmpfs.mode ?? 0,
            ...(tmpfs.options ? { Options: tmpfs.options.split(',').map((one) => one.split('=', 2)) } : {}),
          },
        }),
  };
}

function healthcheck(check: HealthConfig__Output): Record<string, unknown> {
  return {
    Test: check.test ?? [],
    Interval: nanosecondsOf(check.interval) ?? 0,
    Timeout: nanosecondsOf(check.timeout) ?? 0,
    Retries: check.retries ?? 0,
    StartPeriod: nanosecondsOf(check.start_period) ?? 0,
    ...(check.start_interval === undefined ? {} : { StartInterval: nanosecondsOf(check.start_interval) }),
  };
}

/** "10.0.0.1 a b", the form of /etc/hosts, as the engine's "a:10.0.0.1", "b:10.0.0.1". */
function extraHosts(line: string): string[] {
  const [address, ...names] = line.trim().split(/\s+/);
  return names.map((name) => `${name}:${address ?? ''}`);
}

function securityOptions(privileges: Privileges__Output | undefined): string[] {
  const options: string[] = [];
  if (privileges === undefined) return options;
  const { selinux_context: selinux, seccomp, apparmor } = privileges;
  if (selinux?.disable === true) options.push('label=disable');
  for (const part of ['user', 'role', 'type', 'level'] as const) {
    if (selinux?.[part]) options.push(`label=${part}:${selinux[part]}`);
  }
  if (seccomp?.mode === 'UNCONFINED') options.push('seccomp=unconfined');
  if (seccomp?.mode === 'CUSTOM') {
    options.push(`seccomp=${new TextDecoder().decode(seccomp.profile ?? new Uint8Array())}`);
  }
  if (apparmor?.mode === 'DISABLED') options.push('apparmor=unconfined');
  if (privileges.no_new_privileges === true) options.push('no-new-privileges=true');
  return options;
}
