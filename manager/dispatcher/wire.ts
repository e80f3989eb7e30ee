/**
 * The store's objects ↔ the worker protocol's messages. Pure.
 *
 * Messages are built in the shape in which a receiver decodes them (64-bit integers and enumerations as
 * strings, bytes as Buffer), so that a simulated agent can be handed them without a wire between.
 */
import {
  type Cluster,
  type ClusterNode,
  type Config,
  engineIdLabel,
  type GenericResource,
  type Labels,
  type Network,
  type NetworkAttachment,
  type NodeDescription,
  type NodeRole,
  type PortConfig,
  type Secret,
  type Service,
  type ServiceRevision,
  type Task,
  type TaskSpec,
  type TaskStatus,
} from '../../proto/docker.ts';
import type { Config__Output as WireConfig } from '../../proto/generated/docker/swarmkit/v1/Config.ts';
import type { EncryptionKey__Output as WireKey } from '../../proto/generated/docker/swarmkit/v1/EncryptionKey.ts';
import type { Endpoint__Output as WireEndpoint } from '../../proto/generated/docker/swarmkit/v1/Endpoint.ts';
import type { GenericResource__Output as WireGenericResource } from '../../proto/generated/docker/swarmkit/v1/GenericResource.ts';
import type { Meta__Output as WireMeta } from '../../proto/generated/docker/swarmkit/v1/Meta.ts';
import type { Network__Output as WireNetwork } from '../../proto/generated/docker/swarmkit/v1/Network.ts';
import type { NetworkAttachment__Output as WireAttachment } from '../../proto/generated/docker/swarmkit/v1/NetworkAttachment.ts';
import type { Node__Output as WireNode } from '../../proto/generated/docker/swarmkit/v1/Node.ts';
import type { NodeDescription__Output as WireNodeDescription } from '../../proto/generated/docker/swarmkit/v1/NodeDescription.ts';
import type { PortConfig__Output as WirePort } from '../../proto/generated/docker/swarmkit/v1/PortConfig.ts';
import type { Secret__Output as WireSecret } from '../../proto/generated/docker/swarmkit/v1/Secret.ts';
import type { Task__Output as WireTask } from '../../proto/generated/docker/swarmkit/v1/Task.ts';
import type { TaskSpec__Output as WireTaskSpec } from '../../proto/generated/docker/swarmkit/v1/TaskSpec.ts';
import type { TaskStatus__Output as WireTaskStatus } from '../../proto/generated/docker/swarmkit/v1/TaskStatus.ts';
import type { WeightedPeer__Output as WirePeer } from '../../proto/generated/docker/swarmkit/v1/WeightedPeer.ts';
import type { Timestamp__Output as WireTimestamp } from '../../proto/generated/google/protobuf/Timestamp.ts';
import { privilegesLabel } from '../../proto/privileges.ts';
import { taskStateOfWire, wireTaskState } from '../../proto/task-state.ts';
import { withPresentCredentials } from '../store/present-credentials.ts';
import { privilegesOf } from '../store/privileges.ts';
import { wireContainerSpec, wireDriver, wireDuration, wireInteger } from './container-spec.ts';

/** The weight that SwarmKit gives a manager it was told of; workers choose by it. */
const managerWeight = '10';

// ---------------------------------------------------------------- time

const firstSecond = Date.UTC(1000, 0, 1) / 1000;
const lastSecond = Date.UTC(9999, 11, 31, 23, 59, 59) / 1000;

/** An RFC 3339 time, to the nanosecond, as protobuf's; undefined for an empty or unreadable one. */
export function wireTimestamp(time: string | undefined): WireTimestamp | undefined {
  if (!time) return undefined;
  const milliseconds = Date.parse(time);
  if (Number.isNaN(milliseconds)) return undefined;
  const fraction = /\.(\d{1,9})/.exec(time)?.[1] ?? '';
  return { seconds: String(Math.floor(milliseconds / 1000)), nanos: Number(fraction.padEnd(9, '0')) };
}

/**
 * Protobuf's time as RFC 3339 in UTC: milliseconds, or all nine digits when it is finer. Undefined for what
 * is not between the years 1000 and 9999, or has more nanoseconds than a second.
 */
export function dockerTime(time: WireTimestamp): string | undefined {
  const nanos = time.nanos ?? 0;
  const seconds = Number(time.seconds ?? 0);
  if (!(seconds >= firstSecond && seconds <= lastSecond && nanos >= 0 && nanos < 1e9)) return undefined;
  const second = new Date(seconds * 1000).toISOString().slice(0, 19);
  const digits = String(nanos).padStart(9, '0');
  return `${second}.${digits.endsWith('000000') ? digits.slice(0, 3) : digits}Z`;
}

function wireMeta(object: { Version: { Index: number }; CreatedAt: string; UpdatedAt: string }): WireMeta {
  return {
    version: { index: String(object.Version.Index) },
    created_at: wireTimestamp(object.CreatedAt),
    updated_at: wireTimestamp(object.UpdatedAt),
  };
}

// ---------------------------------------------------------------- nodes

/** Whether the node's agent is Shoal's own: ours names its engine in a label, a stock engine does not. */
export function isShoalAgent(description: WireNodeDescription | undefined): boolean {
  return description?.engine?.labels?.[engineIdLabel] !== undefined;
}

function wireRole(role: NodeRole): 'MANAGER' | 'WORKER' {
  return role === 'manager' ? 'MANAGER' : 'WORKER';
}

/**
 * The node as its own agent is told of it. A stock engine would start a SwarmKit manager when told the role
 * manager, which can't take part in our Raft, so it is always told worker.
 */
export function wireNode(node: ClusterNode, network: NetworkOf): WireNode {
  const stock = node.Description.Engine.Labels[engineIdLabel] === undefined;
  const role = (wanted: NodeRole) => (stock ? 'WORKER' : wireRole(wanted));
  const certificate = node.Private.Certificate;
  return {
    id: node.ID,
    meta: wireMeta(node),
    spec: {
      annotations: { name: node.Spec.Name, labels: { ...node.Spec.Labels } },
      desired_role: role(node.Spec.Role),
      membership: 'ACCEPTED',
      availability: node.Spec.Availability.toUpperCase() as 'ACTIVE' | 'PAUSE' | 'DRAIN',
    },
    description: wireNodeDescription(node.Description),
    status: {
      state: node.Status.State.toUpperCase() as 'UNKNOWN' | 'DOWN' | 'READY' | 'DISCONNECTED',
      message: node.Status.Message,
      addr: node.Status.Addr,
    },
    role: role(node.Private.Role),
    certificate: {
      role: role(node.Private.Role),
      cn: node.ID,
      status: {
        state: (certificate?.State ?? 'issued').toUpperCase() as 'PENDING' | 'ISSUED' | 'ROTATE',
      },
    },
    attachments: (node.Attachments ?? []).flatMap((attachment) => wireAttachment(attachment, network)),
  };
}

/** The managers that a worker may call: those in the managers' group, by their cluster port. */
export function wireManagers(nodes: readonly ClusterNode[]): WirePeer[] {
  return nodes
    .filter((node) => node.ManagerStatus?.Addr)
    .map((node) => ({ peer: { node_id: node.ID, addr: node.ManagerStatus!.Addr }, weight: managerWeight }));
}

/** The keys of stock workers' overlay networks. */
export function wireNetworkKeys(cluster: Cluster): WireKey[] {
  return cluster.Private.NetworkKeys.map((key) => ({
    subsystem: key.Subsystem,
    algorithm: 'AES_128_GCM',
    key: Buffer.from(key.Key, 'base64'),
    lamport_time: String(key.LamportTime),
  }));
}

/** A node's description as stored; what the agent did not say is empty or zero. */
export function dockerDescription(description: WireNodeDescription | undefined): NodeDescription {
  const engine = description?.engine;
  const tls = description?.tls_info;
  const generic = (description?.resources?.generic ?? []).map(dockerGenericResource);
  return {
    Hostname: description?.hostname ?? '',
    Platform: {
      Architecture: description?.platform?.architecture ?? '',
      OS: description?.platform?.os ?? '',
    },
    Resources: {
      NanoCPUs: Number(description?.resources?.nano_cpus ?? 0),
      MemoryBytes: Number(description?.resources?.memory_bytes ?? 0),
      ...(generic.length > 0 && { GenericResources: generic }),
    },
    Engine: {
      EngineVersion: engine?.engine_version ?? '',
      Labels: { ...engine?.labels },
      Plugins: (engine?.plugins ?? []).map((plugin) => ({
        Type: plugin.type ?? '',
        Name: plugin.name ?? '',
      })),
    },
    TLSInfo: {
      TrustRoot: tls?.trust_root?.toString('utf8') ?? '',
      CertIssuerSubject: tls?.cert_issuer_subject?.toString('base64') ?? '',
      CertIssuerPublicKey: tls?.cert_issuer_public_key?.toString('base64') ?? '',
    },
  };
}

/** The inverse of dockerDescription. */
export function wireNodeDescription(description: NodeDescription): WireNodeDescription {
  return {
    hostname: description.Hostname,
    platform: { architecture: description.Platform.Architecture, os: description.Platform.OS },
    resources: {
      nano_cpus: String(description.Resources.NanoCPUs),
      memory_bytes: String(description.Resources.MemoryBytes),
      generic: (description.Resources.GenericResources ?? []).map(wireGenericResource),
    },
    engine: {
      engine_version: description.Engine.EngineVersion,
      labels: { ...description.Engine.Labels },
      plugins: description.Engine.Plugins.map((plugin) => ({ type: plugin.Type, name: plugin.Name })),
    },
    tls_info: {
      trust_root: Buffer.from(description.TLSInfo.TrustRoot),
      cert_issuer_subject: Buffer.from(description.TLSInfo.CertIssuerSubject, 'base64'),
      cert_issuer_public_key: Buffer.from(description.TLSInfo.CertIssuerPublicKey, 'base64'),
    },
  };
}

function dockerGenericResource(resource: WireGenericResource): GenericResource {
  const { named_resource_spec: named, discrete_resource_spec: discrete } = resource;
  if (named) return { NamedResourceSpec: { Kind: named.kind ?? '', Value: named.value ?? '' } };
  return { DiscreteResourceSpec: { Kind: discrete?.kind ?? '', Value: Number(discrete?.value ?? 0) } };
}

function wireGenericResource(resource: GenericResource): WireGenericResource {
  const { NamedResourceSpec: named, DiscreteResourceSpec: discrete } = resource;
  if (named) {
    return {
      named_resource_spec: { kind: named.Kind, value: named.Value },
      resource: 'named_resource_spec',
    };
  }
  return {
    discrete_resource_spec: { kind: discrete?.Kind, value: String(discrete?.Value ?? 0) },
    resource: 'discrete_resource_spec',
  };
}

// ---------------------------------------------------------------- tasks

/** What a task's message is made of. The service is absent when it is being removed. */
export interface TaskParts {
  readonly task: Task;
  readonly revision: ServiceRevision;
  readonly service: Service | undefined;
  readonly cluster: Cluster | undefined;
  readonly network: NetworkOf;
}

/** The network of an attachment; undefined when it is gone. */
type NetworkOf = (id: Network['ID']) => Network | undefined;

/** The task as its node is told of it, with its last known status. */
export function wireTask(parts: TaskParts): WireTask {
  const { task, revision, service, cluster } = parts;
  const template = (service ? withPresentCredentials(service, revision.Spec) : revision.Spec).TaskTemplate;
  const logDriver = wireDriver(template.LogDriver ?? cluster?.Spec.TaskDefaults.LogDriver);
  return {
    id: task.ID,
    meta: wireMeta(task),
    spec: wireTaskSpec(template),
    spec_version: { index: String(revision.Version.Index) },
    service_id: task.ServiceID,
    slot: wireInteger(task.Slot),
    node_id: task.NodeID,
    annotations: {
      name: `${revision.Spec.Name}.${task.Slot || task.NodeID || ''}.${task.ID}`,
      labels: { ...task.Labels, ...privilegesAsLabel(revision.Spec.Labels) },
    },
    service_annotations: { name: revision.Spec.Name, labels: { ...revision.Spec.Labels } },
    status: wireTaskStatus(task.Status),
    desired_state: wireTaskState(task.DesiredState),
    networks: [
      ...(template.Networks ?? []).flatMap(({ Target }) => wirePredefined(Target)),
      ...(task.NetworksAttachments ?? []).flatMap((one) => wireAttachment(one, parts.network)),
    ],
    endpoint: wireEndpoint(parts),
    log_driver: logDriver,
    job_iteration: task.JobIteration && { index: String(task.JobIteration.Index) },
    assigned_generic_resources: (task.AssignedGenericResources ?? []).map(wireGenericResource),
  };
}

/** What the cluster let the service have of its hosts when the revision was accepted. */
function privilegesAsLabel(labels: Labels): Labels {
  const privileges = privilegesOf(labels);
  return privileges ? { [privilegesLabel]: JSON.stringify(privileges) } : {};
}

function wireInt64Value(value: number | undefined): { value: string } | undefined {
  return value === undefined ? undefined : { value: String(value) };
}

function wireTaskSpec(spec: TaskSpec): WireTaskSpec {
  const { Limits: limits, Reservations: reservations } = spec.Resources ?? {};
  const { RestartPolicy: restart, Placement: placement } = spec;
  return {
    container: wireContainerSpec(spec.ContainerSpec, limits?.Pids),
    runtime: 'container',
    resources: spec.Resources && {
      limits: limits && {
        nano_cpus: wireInteger(limits.NanoCPUs),
        memory_bytes: wireInteger(limits.MemoryBytes),
      },
      reservations: reservations && {
        nano_cpus: wireInteger(reservations.NanoCPUs),
        memory_bytes: wireInteger(reservations.MemoryBytes),
        generic: (reservations.GenericResources ?? []).map(wireGenericResource),
      },
      swap_bytes: wireInt64Value(spec.Resources.SwapBytes),
      memory_swappiness: wireInt64Value(spec.Resources.MemorySwappiness),
    },
    restart: restart && {
      condition: (restart.Condition ?? 'any').replace('-', '_').toUpperCase() as
        | 'NONE'
        | 'ON_FAILURE'
        | 'ANY',
      delay: wireDuration(restart.Delay),
      max_attempts: wireInteger(restart.MaxAttempts),
      window: wireDuration(restart.Window),
    },
    placement: placement && {
      constraints: [...(placement.Constraints ?? [])],
      max_replicas: wireInteger(placement.MaxReplicas),
      platforms: (placement.Platforms ?? []).map((platform) => ({
        architecture: platform.Architecture,
        os: platform.OS,
      })),
    },
    log_driver: wireDriver(spec.LogDriver),
    networks: (spec.Networks ?? []).map((network) => ({
      target: network.Target,
      aliases: [...(network.Aliases ?? [])],
      driver_attachment_opts: { ...network.DriverOpts },
    })),
    force_update: wireInteger(spec.ForceUpdate),
  };
}

/** Ports as the task's own revision asked for them; those given out by the allocator are on the service. */
function wireEndpoint({ task, revision, service }: TaskParts): WireEndpoint {
  const spec = revision.Spec.EndpointSpec ?? {};
  const current = service?.Private.RevisionID === task.RevisionID ? service : undefined;
  return {
    spec: {
      mode: spec.Mode === 'dnsrr' ? 'DNSRR' : 'VIP',
      ports: (spec.Ports ?? []).map(wirePort),
    },
    ports: (current?.Endpoint.Ports ?? spec.Ports ?? []).map(wirePort),
    // Stock engines keep one for each network, the last: IPv4.
    virtual_ips: (service?.Endpoint.VirtualIPs ?? [])
      .filter((address) => !address.Addr.includes(':'))
      .map((address) => ({ network_id: address.NetworkID, addr: address.Addr })),
  };
}

function wirePort(port: PortConfig): WirePort {
  return {
    name: port.Name,
    protocol: (port.Protocol ?? 'tcp').toUpperCase() as 'TCP' | 'UDP' | 'SCTP',
    target_port: port.TargetPort,
    published_port: port.PublishedPort,
    publish_mode: port.PublishMode === 'host' ? 'HOST' : 'INGRESS',
  };
}

function dockerPort(port: WirePort): PortConfig {
  return {
    ...(port.name && { Name: port.name }),
    Protocol: (port.protocol ?? 'TCP').toLowerCase() as NonNullable<PortConfig['Protocol']>,
    TargetPort: port.target_port ?? 0,
    ...(port.published_port && { PublishedPort: port.published_port }),
    PublishMode: port.publish_mode === 'HOST' ? 'host' : 'ingress',
  };
}

/** A stock engine names a port once for IPv4 and once for IPv6; it is one port. */
function dockerPorts(ports: readonly WirePort[]): PortConfig[] {
  const unique = new Map(ports.map(dockerPort).map((port) => [JSON.stringify(port), port]));
  return [...unique.values()];
}

/** An attachment of a task or node with the whole network; none when that is gone. */
function wireAttachment(attachment: NetworkAttachment, networkOf: NetworkOf): WireAttachment[] {
  const network = networkOf(attachment.NetworkID);
  if (network === undefined) return [];
  return [
    {
      network: wireNetwork(network),
      addresses: [...attachment.Addresses],
      aliases: [...(attachment.Aliases ?? [])],
    },
  ];
}

/** Networks that every engine has: what a service names them by, and their driver. */
const predefinedDrivers: Readonly<Record<string, string>> = { host: 'host', none: 'null', bridge: 'bridge' };

/** A network that the engine has by itself, marked so that a stock engine takes its own; none for others. */
function wirePredefined(target: string): WireAttachment[] {
  const driver = Object.hasOwn(predefinedDrivers, target) ? predefinedDrivers[target]! : undefined;
  if (driver === undefined) return [];
  const labels = { 'com.docker.swarm.predefined': 'true' };
  return [
    {
      network: {
        id: target,
        spec: { annotations: { name: target, labels }, driver_config: { name: driver, options: {} } },
        driver_state: { name: driver, options: {} },
      },
      addresses: [],
      aliases: [],
    },
  ];
}

/** A network as a task's attachment carries it. */
export function wireNetwork(network: Network): WireNetwork {
  return {
    id: network.ID,
    meta: wireMeta(network),
    spec: {
      annotations: { name: network.Spec.Name, labels: { ...network.Spec.Labels } },
      driver_config: wireDriver(network.Spec.DriverConfiguration),
      ipv6_enabled: network.Spec.IPv6Enabled,
      internal: network.Spec.Internal,
      attachable: network.Spec.Attachable,
      ingress: network.Spec.Ingress,
    },
    driver_state: wireDriver(network.DriverState ?? network.Spec.DriverConfiguration),
    ipam: {
      driver: { name: network.IPAMOptions.Driver.Name || 'default', options: {} },
      configs: network.IPAMOptions.Configs.map((config) => ({
        family: config.Subnet?.includes(':') ? ('IPV6' as const) : ('IPV4' as const),
        subnet: config.Subnet,
        range: config.IPRange,
        gateway: config.Gateway,
      })),
    },
  };
}

/** A status as the worker is told of it. */
export function wireTaskStatus(status: TaskStatus): WireTaskStatus {
  const container = status.ContainerStatus;
  return {
    timestamp: wireTimestamp(status.Timestamp),
    state: wireTaskState(status.State),
    message: status.Message,
    err: status.Err,
    ...(container && {
      container: {
        container_id: container.ContainerID,
        pid: container.PID,
        exit_code: container.ExitCode,
      },
      runtime_status: 'container' as const,
    }),
    port_status: status.PortStatus && { ports: (status.PortStatus.Ports ?? []).map(wirePort) },
  };
}

/** A worker's report as it is stored. `now` (ms) stands in where a stock worker's first one has no time. */
export function dockerTaskStatus(status: WireTaskStatus, now: number): TaskStatus {
  const { container, port_status: ports } = status;
  return {
    Timestamp: (status.timestamp && dockerTime(status.timestamp)) ?? new Date(now).toISOString(),
    State: taskStateOfWire(status.state),
    Message: status.message ?? '',
    ...(status.err && { Err: status.err }),
    ...(container && {
      ContainerStatus: {
        ContainerID: container.container_id ?? '',
        PID: container.pid ?? 0,
        ExitCode: container.exit_code ?? 0,
      },
    }),
    ...(ports?.ports && { PortStatus: { Ports: dockerPorts(ports.ports) } }),
  };
}

// ---------------------------------------------------------------- secrets and configs

/** A secret with its data: for nodes that run a task which uses it, and nobody else. */
export function wireSecret(secret: Secret): WireSecret {
  return {
    id: secret.ID,
    meta: wireMeta(secret),
    spec: {
      annotations: { name: secret.Spec.Name, labels: { ...secret.Spec.Labels } },
      data: Buffer.from(secret.Spec.Data ?? '', 'base64'),
      templating: wireDriver(secret.Spec.Templating),
    },
  };
}

/** A config with its data. */
export function wireConfig(config: Config): WireConfig {
  return {
    id: config.ID,
    meta: wireMeta(config),
    spec: {
      annotations: { name: config.Spec.Name, labels: { ...config.Spec.Labels } },
      data: Buffer.from(config.Spec.Data, 'base64'),
      templating: wireDriver(config.Spec.Templating),
    },
  };
}
