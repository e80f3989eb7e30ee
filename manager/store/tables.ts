/**
 * The tables of the store as data: which kinds of objects there are, what each is indexed by, and which
 * names must be unique.
 */
import {
  type Cluster,
  type ClusterNode,
  type Config,
  type Network,
  type Secret,
  type Service,
  type ServiceMode,
  type ServiceRevision,
  type Stack,
  stackLabel,
  type Task,
} from '../../proto/docker.ts';
import { isIngressPort, needsIngress, portKey } from './endpoint.ts';
import { dependencyNames } from './service-options.ts';

export interface ObjectOf {
  cluster: Cluster;
  node: ClusterNode;
  service: Service;
  revision: ServiceRevision;
  task: Task;
  stack: Stack;
  network: Network;
  secret: Secret;
  config: Config;
}

export type Kind = keyof ObjectOf;
export type AnyObject = ObjectOf[Kind];
export type IdOf<K extends Kind> = ObjectOf[K]['ID'];

export const kinds: readonly Kind[] = [
  'cluster',
  'node',
  'service',
  'revision',
  'task',
  'stack',
  'network',
  'secret',
  'config',
];

/** Keys under which an object is found by one of its kind's indexes. */
type KeysOf<T> = (object: T) => readonly string[];

interface Table<T> {
  /** Whether two objects of the kind may not share a name. */
  readonly uniqueName: boolean;
  readonly indexes: Readonly<Record<string, KeysOf<T>>>;
}

const some = (value: string | undefined): readonly string[] =>
  value === undefined || value === '' ? [] : [value];
const stackOf = (labels: Record<string, string>): readonly string[] => some(labels[stackLabel]);

function uniqueStrings(values: Iterable<string>): readonly string[] {
  return [...new Set(values)];
}

/** One row a kind. An index name is used with View.find(kind, index, key). */
export const tables: { readonly [K in Kind]: Table<ObjectOf[K]> } = {
  cluster: { uniqueName: false, indexes: { name: (cluster) => [cluster.Spec.Name] } },
  node: {
    uniqueName: false,
    indexes: {
      /** By hostname. */
      name: (node) => some(node.Description.Hostname),
      role: (node) => [node.Spec.Role],
      /** That it has an address of its own on. */
      network: (node) => (node.Attachments ?? []).map(({ NetworkID }) => NetworkID),
    },
  },
  service: {
    uniqueName: true,
    indexes: {
      name: (service) => [service.Spec.Name],
      stack: (service) => stackOf(service.Spec.Labels),
      network: (service) =>
        uniqueStrings((service.Spec.TaskTemplate.Networks ?? []).map((network) => network.Target)),
      secret: (service) =>
        uniqueStrings((service.Spec.TaskTemplate.ContainerSpec.Secrets ?? []).map((ref) => ref.SecretID)),
      config: (service) =>
        uniqueStrings((service.Spec.TaskTemplate.ContainerSpec.Configs ?? []).map((ref) => ref.ConfigID)),
      /** Published on the hosts of its tasks; see portKey. */
      hostPort: (service) =>
        uniqueStrings(
          (service.Spec.EndpointSpec?.Ports ?? [])
            .filter((port) => !isIngressPort(port) && port.PublishedPort)
            .map(portKey),
        ),
      /** `true` for those that publish ports in ingress mode. */
      ingress: (service) => (needsIngress(service.Spec) ? ['true'] : []),
      /** By the names that it may depend on; see dependencies.ts. */
      dependency: (service) => dependencyNames(service.Spec.Labels),
      /** By the field of Spec.Mode that is set; `Replicated` when none is, as Docker takes it. */
      mode: (service) => [modeName(service.Spec.Mode)],
    },
  },
  revision: { uniqueName: false, indexes: { service: (revision) => [revision.ServiceID] } },
  task: {
    uniqueName: false,
    indexes: {
      service: (task) => [task.ServiceID],
      revision: (task) => [task.RevisionID],
      node: (task) => some(task.NodeID),
      desiredState: (task) => [task.DesiredState],
      /** Observed state. */
      state: (task) => [task.Status.State],
      /** `serviceId/slot` for replicated tasks, `serviceId@nodeId` for global ones. */
      slot: (task) => [slotKey(task)],
      network: (task) => (task.NetworksAttachments ?? []).map((attachment) => attachment.NetworkID),
    },
  },
  stack: {
    uniqueName: true,
    indexes: {
      name: (stack) => [stack.Spec.Name],
      /** Every revision of a service that its deployments name. */
      revision: (stack) =>
        uniqueStrings([stack.Deployment, ...stack.History].flatMap((one) => one?.Revisions ?? [])),
    },
  },
  network: {
    uniqueName: true,
    indexes: {
      name: (network) => [network.Spec.Name],
      stack: (network) => stackOf(network.Spec.Labels),
      /** `true` for the ingress network. */
      ingress: (network) => (network.Spec.Ingress ? ['true'] : []),
    },
  },
  secret: {
    uniqueName: true,
    indexes: { name: (secret) => [secret.Spec.Name], stack: (secret) => stackOf(secret.Spec.Labels) },
  },
  config: {
    uniqueName: true,
    indexes: { name: (config) => [config.Spec.Name], stack: (config) => stackOf(config.Spec.Labels) },
  },
};

/** The place that a task fills: its service's slot, or its node for a global service. */
export function slotKey(task: Pick<Task, 'ServiceID' | 'Slot' | 'NodeID'>): string {
  return task.Slot === undefined
    ? `${task.ServiceID}@${task.NodeID ?? ''}`
    : `${task.ServiceID}/${task.Slot}`;
}

/** Which of the four modes a service has; replicated when none is named, as Docker takes it. */
export function modeName(mode: ServiceMode): keyof ServiceMode {
  if (mode.Global) return 'Global';
  if (mode.GlobalJob) return 'GlobalJob';
  return mode.ReplicatedJob ? 'ReplicatedJob' : 'Replicated';
}

/** The name that a person calls an object by; undefined for kinds without one. */
export function nameOf<K extends Kind>(kind: K, object: ObjectOf[K]): string | undefined {
  const keys = (tables[kind].indexes as Record<string, KeysOf<ObjectOf[K]>>).name;
  return keys?.(object)[0];
}
