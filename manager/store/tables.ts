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

/** An index of a kind's objects: the keys that one is found under, and the only fields of it that tell them. */
export interface TableIndex<T> {
  readonly reads: readonly (keyof T)[];
  readonly keysOf: KeysOf<T>;
  /** Hardly two objects share a key, and no user chooses it; see HashedIndex. */
  readonly isHashed: boolean;
}

interface Table<T> {
  /** Whether two objects of the kind may not share a name. */
  readonly uniqueName: boolean;
  readonly indexes: Readonly<Record<string, TableIndex<T>>>;
}

/** Makes an index's row: `keysOf` sees no field but those that it is said to read. */
function by<T, F extends keyof T>(
  reads: readonly F[],
  keysOf: KeysOf<Pick<T, F>>,
  { isHashed = false } = {},
): TableIndex<T> {
  return { reads, keysOf, isHashed };
}

const some = (value: string | undefined): readonly string[] =>
  value === undefined || value === '' ? [] : [value];
const stackOf = (labels: Record<string, string>): readonly string[] => some(labels[stackLabel]);

function uniqueStrings(values: Iterable<string>): readonly string[] {
  return [...new Set(values)];
}

/** One row a kind. An index name is used with View.find(kind, index, key). */
export const tables: { readonly [K in Kind]: Table<ObjectOf[K]> } = {
  cluster: { uniqueName: false, indexes: { name: by(['Spec'], ({ Spec }) => [Spec.Name]) } },
  node: {
    uniqueName: false,
    indexes: {
      /** By hostname. */
      name: by(['Description'], ({ Description }) => some(Description.Hostname)),
      role: by(['Spec'], ({ Spec }) => [Spec.Role]),
      /** That it has an address of its own on. */
      network: by(['Attachments'], ({ Attachments }) =>
        (Attachments ?? []).map(({ NetworkID }) => NetworkID),
      ),
    },
  },
  service: {
    uniqueName: true,
    indexes: {
      name: by(['Spec'], ({ Spec }) => [Spec.Name]),
      stack: by(['Spec'], ({ Spec }) => stackOf(Spec.Labels)),
      network: by(['Spec'], ({ Spec }) =>
        uniqueStrings((Spec.TaskTemplate.Networks ?? []).map((network) => network.Target)),
      ),
      secret: by(['Spec'], ({ Spec }) =>
        uniqueStrings((Spec.TaskTemplate.ContainerSpec.Secrets ?? []).map((ref) => ref.SecretID)),
      ),
      config: by(['Spec'], ({ Spec }) =>
        uniqueStrings((Spec.TaskTemplate.ContainerSpec.Configs ?? []).map((ref) => ref.ConfigID)),
      ),
      /** Published on the hosts of its tasks; see portKey. */
      hostPort: by(['Spec'], ({ Spec }) =>
        uniqueStrings(
          (Spec.EndpointSpec?.Ports ?? [])
            .filter((port) => !isIngressPort(port) && port.PublishedPort)
            .map(portKey),
        ),
      ),
      /** `true` for those that publish ports in ingress mode. */
      ingress: by(['Spec'], ({ Spec }) => (needsIngress(Spec) ? ['true'] : [])),
      /** By the names that it may depend on; see dependencies.ts. */
      dependency: by(['Spec'], ({ Spec }) => dependencyNames(Spec.Labels)),
      /** By the field of Spec.Mode that is set; `Replicated` when none is, as Docker takes it. */
      mode: by(['Spec'], ({ Spec }) => [modeName(Spec.Mode)]),
    },
  },
  revision: {
    uniqueName: false,
    indexes: { service: by(['ServiceID'], ({ ServiceID }) => [ServiceID]) },
  },
  task: {
    uniqueName: false,
    indexes: {
      service: by(['ServiceID'], ({ ServiceID }) => [ServiceID]),
      revision: by(['RevisionID'], ({ RevisionID }) => [RevisionID]),
      node: by(['NodeID'], ({ NodeID }) => some(NodeID)),
      desiredState: by(['DesiredState'], ({ DesiredState }) => [DesiredState]),
      /** Observed state. */
      state: by(['Status'], ({ Status }) => [Status.State]),
      /** `serviceId/slot` for replicated tasks, `serviceId@nodeId` for global ones. */
      slot: by(['ServiceID', 'Slot', 'NodeID'], (task) => [slotKey(task)], { isHashed: true }),
      network: by(['NetworksAttachments'], ({ NetworksAttachments }) =>
        (NetworksAttachments ?? []).map((attachment) => attachment.NetworkID),
      ),
    },
  },
  stack: {
    uniqueName: true,
    indexes: {
      name: by(['Spec'], ({ Spec }) => [Spec.Name]),
      /** Every revision of a service that its deployments name. */
      revision: by(['Deployment', 'History'], ({ Deployment, History }) =>
        uniqueStrings([Deployment, ...History].flatMap((one) => one?.Revisions ?? [])),
      ),
    },
  },
  network: {
    uniqueName: true,
    indexes: {
      name: by(['Spec'], ({ Spec }) => [Spec.Name]),
      stack: by(['Spec'], ({ Spec }) => stackOf(Spec.Labels)),
      /** `true` for the ingress network. */
      ingress: by(['Spec'], ({ Spec }) => (Spec.Ingress ? ['true'] : [])),
    },
  },
  secret: {
    uniqueName: true,
    indexes: {
      name: by(['Spec'], ({ Spec }) => [Spec.Name]),
      stack: by(['Spec'], ({ Spec }) => stackOf(Spec.Labels)),
    },
  },
  config: {
    uniqueName: true,
    indexes: {
      name: by(['Spec'], ({ Spec }) => [Spec.Name]),
      stack: by(['Spec'], ({ Spec }) => stackOf(Spec.Labels)),
    },
  },
};

/** An index of a kind; undefined when there is none of the name. */
export function indexOf<K extends Kind>(kind: K, name: string): TableIndex<ObjectOf[K]> | undefined {
  return (tables[kind].indexes as Readonly<Record<string, TableIndex<ObjectOf[K]>>>)[name];
}

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
  return indexOf(kind, 'name')?.keysOf(object)[0];
}
