/**
 * The objects of the cluster, in the shapes of the Docker Engine API (1.41 to 1.51), so that what is
 * stored is what `inspect` prints. Times are RFC 3339 strings, durations nanoseconds, memory bytes, CPU
 * 10⁻⁹ cores, as there. `Private` holds what only managers may know; it never leaves through the API.
 *
 * Objects are immutable once stored: change by building a new one.
 */
import type {
  ClusterId,
  ConfigId,
  NetworkId,
  NodeId,
  RevisionId,
  SecretId,
  ServiceId,
  StackId,
  TaskId,
} from './ids.ts';
import type {
  Driver,
  EndpointSpec,
  GenericResource,
  Labels,
  Platform,
  PortConfig,
  ServiceSpec,
} from './service-spec.ts';
import type { DesiredState, TaskState } from './task-state.ts';

export type * from './service-spec.ts';

export interface Version {
  /** Raft index of the last change. */
  Index: number;
}

/** What every stored object begins with. */
export interface Meta<I> {
  ID: I;
  Version: Version;
  CreatedAt: string;
  UpdatedAt: string;
}

// ---------------------------------------------------------------- cluster

export interface SwarmSpec {
  Name: string;
  Labels: Labels;
  Orchestration: { TaskHistoryRetentionLimit?: number };
  Raft: {
    SnapshotInterval?: number;
    KeepOldSnapshots?: number;
    LogEntriesForSlowFollowers?: number;
    ElectionTick: number;
    HeartbeatTick: number;
  };
  /** HeartbeatPeriod in nanoseconds. */
  Dispatcher: { HeartbeatPeriod?: number };
  /** NodeCertExpiry in nanoseconds. */
  CAConfig: {
    NodeCertExpiry?: number;
    ForceRotate?: number;
    ExternalCAs?: unknown[];
    SigningCACert?: string;
  };
  TaskDefaults: { LogDriver?: Driver };
  EncryptionConfig: { AutoLockManagers: boolean };
}

export interface TLSInfo {
  /** PEM of the root certificate(s). */
  TrustRoot: string;
  /** Base64 DER. */
  CertIssuerSubject: string;
  CertIssuerPublicKey: string;
}

export interface NetworkKey {
  Subsystem: 'networking:gossip' | 'networking:ipsec';
  LamportTime: number;
  /** Base64 of 16 bytes. */
  Key: string;
}

export interface Cluster extends Meta<ClusterId> {
  Spec: SwarmSpec;
  TLSInfo: TLSInfo;
  RootRotationInProgress: boolean;
  DefaultAddrPool: string[];
  SubnetSize: number;
  DataPathPort: number;
  JoinTokens: { Worker: string; Manager: string };
  Private: {
    /** PEM (PKCS#8) of the cluster CA's key. */
    CaKeyPem: string;
    /** The key that unlocks managers' disks while autolock is on. */
    UnlockKey?: string;
    NetworkKeys: NetworkKey[];
    /** When they were last rotated; ms since the epoch. Absent before the first time. */
    NetworkKeysSince?: number;
    /** After a restore from a backup: until when (ms since the epoch) nodes are waited for that have not come yet. */
    AwaitNodesUntilMs?: number;
    /** The present root's certificate signed by the one before it, for nodes that have not heard of the present. */
    CaCrossSignedPem?: string;
    /** While the root is being replaced: the next one, its key, and its certificate signed by the present one. */
    RootRotation?: { CaCertPem: string; CaKeyPem: string; CrossSignedPem: string };
  };
}

// ---------------------------------------------------------------- node

export type NodeRole = 'worker' | 'manager';
export type NodeAvailability = 'active' | 'pause' | 'drain';
export type NodeState = 'unknown' | 'down' | 'ready' | 'disconnected';

export interface NodeSpec {
  Name?: string;
  Labels: Labels;
  /** The role that is wanted; Private.Role is the one certified. */
  Role: NodeRole;
  Availability: NodeAvailability;
}

export interface NodeResources {
  NanoCPUs: number;
  MemoryBytes: number;
  GenericResources?: GenericResource[];
}

export const engineIdLabel = 'shoal.engine.id';
/**
 * Label that our agents put into Engine.Labels: `vxlan` when their networks reach other hosts, `proxy` when they do not, but
 * ports published in ingress mode are answered (tcp). Without it neither.
 */
export const dataPlaneLabel = 'shoal.dataplane';
/** Label of our agents that can encrypt a network's traffic between hosts: by what. */
export const encryptionLabel = 'shoal.dataplane.encryption';
/** Label of our agents with a data plane that can't encrypt: why. */
export const encryptionMissingLabel = 'shoal.dataplane.encryption.missing';
/** Label of our agents whose data plane does something otherwise than on other hosts: what, and why. */
export const dataPlaneLimitsLabel = 'shoal.dataplane.limits';
/** Label of our agents without networks between hosts: why. */
export const dataPlaneMissingLabel = 'shoal.dataplane.missing';
/** Label that our agents put into Engine.Labels while their engine does not answer: why. */
export const engineUnavailableLabel = 'shoal.engine.unavailable';
/** Label that our agents put into Engine.Labels: the address of their data path, where it is not the node's own. */
export const dataPathLabel = 'shoal.data-path.address';

export interface NodeDescription {
  Hostname: string;
  Platform: Platform;
  Resources: NodeResources;
  Engine: {
    EngineVersion: string;
    Labels: Labels;
    Plugins: { Type: string; Name: string }[];
  };
  TLSInfo: TLSInfo;
}

/** What a node's data plane can't do as the managers want it. Without NetworkID and ServiceID it concerns the whole node. */
export interface NodeProblem {
  /** For a person: what is wrong there and what to do. */
  Message: string;
  NetworkID?: NetworkId;
  ServiceID?: ServiceId;
  /** When the node told of it first; RFC 3339. */
  Since: string;
}

/** A container that is no task on a network of the cluster. */
export interface ContainerAttachment {
  /** Chosen by the agent. */
  ID: string;
  NetworkID: NetworkId;
  /** Names that others on the network find it by. */
  Names: string[];
}

/** What a ContainerAttachment was given. */
export interface ContainerAddress {
  /** The attachment's. */
  ID: string;
  NetworkID: NetworkId;
  /** CIDR form; none where there were none left. */
  Addresses: string[];
  /** Why it has no addresses. */
  Err?: string;
}

export interface ClusterNode extends Meta<NodeId> {
  Spec: NodeSpec;
  /** Empty strings and zeros until the node's agent has registered. */
  Description: NodeDescription;
  Status: { State: NodeState; Message?: string; Addr: string };
  /**
   * The node's own address on each network that tasks here use: the load balancer's endpoint of a stock engine, the
   * bridge's gateway (and DNS server) of ours. Given by the allocator in the entry that assigns the first task.
   */
  Attachments?: NetworkAttachment[];
  /** Containers here that are no tasks, on networks that allow it; as the node's agent asked for last. */
  ContainerAttachments?: ContainerAttachment[];
  /** Their addresses; kept by the allocator. */
  ContainerAddresses?: ContainerAddress[];
  /** As its data plane told last; absent or empty: none. */
  Problems?: NodeProblem[];
  /** Present while the node is a member of the managers' group; kept by the leader. */
  ManagerStatus?: { Leader?: boolean; Reachability: 'unknown' | 'unreachable' | 'reachable'; Addr: string };
  Private: {
    /** The role of the certificate that was issued last. */
    Role: NodeRole;
    /** Since when Status.State is down; ms since the epoch. Kept by the store. */
    DownSince?: number;
    /** Since when the node's agent says that its engine does not answer; ms since the epoch. Kept by the store. */
    EngineDownSince?: number;
    /** The manager that leaves the group in the moment in which this node gets its vote there. */
    Replaces?: NodeId;
    Certificate?: {
      State: 'pending' | 'issued' | 'rotate';
      /** PEM of the request and, once issued, of the certificate chain. */
      Csr: string;
      Pem: string;
      /**
       * SHA-256 (hex) of the certificate that the node held when it asked, and of those issued between that and this
       * one, in that order: with any of them it may come back, for it may not have received the later ones.
       */
      FormerDigests?: readonly string[];
    };
  };
}

// ---------------------------------------------------------------- service

export type UpdateState =
  | 'updating'
  | 'paused'
  | 'completed'
  | 'rollback_started'
  | 'rollback_paused'
  | 'rollback_completed';

export interface UpdateStatus {
  State: UpdateState;
  StartedAt?: string;
  CompletedAt?: string;
  Message: string;
}

export interface Service extends Meta<ServiceId> {
  Spec: ServiceSpec;
  PreviousSpec?: ServiceSpec;
  Endpoint: {
    Spec: EndpointSpec;
    Ports?: PortConfig[];
    VirtualIPs?: { NetworkID: NetworkId; Addr: string }[];
  };
  UpdateStatus?: UpdateStatus;
  JobStatus?: { JobIteration: Version; LastExecution?: string };
  Private: {
    /** The revision that tasks should have. */
    RevisionID: RevisionId;
    /** The revision before it, which a rollback goes to. */
    PreviousRevisionID?: RevisionId;
    /** Who changed it, when and how, the oldest first, at most 20. */
    History?: ServiceChangeRecord[];
    /** Of a job with a schedule. */
    Cron?: CronState;
    /** Of a service that is scaled by what its tasks use. */
    Autoscale?: AutoscaleState;
  };
}

/** One change of a service: the revision that it went to. */
export interface ServiceChangeRecord {
  /** Of the revision. */
  Number: number;
  RevisionID: RevisionId;
  At: string;
  /** A client's certificate, a node's local socket, or the managers. */
  By: string;
  What: string;
}

/** Where the scaling of a service stands; times in ms since the epoch. */
export interface AutoscaleState {
  /** How many tasks were advised, and since when; each holds until the next. Oldest first. */
  Advice: readonly { readonly At: number; readonly Replicas: number }[];
  /** When the number was changed last. */
  ChangedAt?: number;
  /** What that was, for a person. */
  Change?: string;
  /** The number in the spec that its owner gave last. */
  Asked: number;
  /** What Reason is about, to tell news from the same in other figures. */
  Kind: string;
  /** For a person: why there are as many as there are. */
  Reason: string;
}

/** Where a job with a schedule stands; times in ms since the epoch. */
export interface CronState {
  /** The schedule and time zone that NextAt was worked out by. */
  Schedule: string;
  /** Absent when no time comes any more. */
  NextAt?: number;
  /** Oldest first. */
  Runs: CronRun[];
}

export interface CronRun {
  ScheduledAt: number;
  /** Absent for one that was skipped, as EndedAt is for one that runs. */
  StartedAt?: number;
  EndedAt?: number;
  /** The JobIteration that it is. */
  Iteration?: number;
  Outcome: 'running' | 'complete' | 'failed' | 'replaced' | 'skipped';
}

/** A service's spec as it was accepted at one time. Tasks name it instead of copying it. */
export interface ServiceRevision extends Meta<RevisionId> {
  ServiceID: ServiceId;
  /** 1 for the first, rising by one. */
  Number: number;
  Spec: ServiceSpec;
}

// ---------------------------------------------------------------- task

export interface TaskStatus {
  Timestamp: string;
  State: TaskState;
  Message: string;
  /** The reason, in words, why the task waits, was rejected or failed. */
  Err?: string;
  ContainerStatus?: { ContainerID: string; PID: number; ExitCode: number };
  PortStatus?: { Ports?: PortConfig[] };
}

export interface NetworkAttachment {
  NetworkID: NetworkId;
  /** In CIDR form, e.g. 10.50.0.10/24. */
  Addresses: string[];
  Aliases?: string[];
}

/** Something that happened to a task: it got into a state, or was told to get into one. */
export interface TaskMoment {
  /** ms since the epoch. */
  At: number;
  State: TaskState;
  Desired: DesiredState;
  /** The node that it was given to. */
  NodeID?: NodeId;
  /** Why, in words. */
  Text?: string;
}

export interface Task extends Meta<TaskId> {
  ServiceID: ServiceId;
  RevisionID: RevisionId;
  /** From 1, for replicated services; absent for global ones, whose slot is their node. */
  Slot?: number;
  /** Absent until assigned; global tasks have it from the start. */
  NodeID?: NodeId;
  Labels: Labels;
  Status: TaskStatus;
  DesiredState: DesiredState;
  NetworksAttachments?: NetworkAttachment[];
  AssignedGenericResources?: GenericResource[];
  /** For a job's task: the service's JobStatus.JobIteration it belongs to. */
  JobIteration?: Version;
  Private: {
    /** Not to be started before this time (restart delay); ms since the epoch. */
    StartAt?: number;
    /** The node that has the slot's volumes, for a service whose slots are bound to them; it goes there or waits. */
    Home?: NodeId;
    /** The task of the same slot that this one takes over from. */
    Replaces?: TaskId;
    /** Why it takes over: that task ended, its node was lost to it, it was of another revision, or it is to be elsewhere. */
    Cause?: 'failure' | 'node' | 'update' | 'move';
    /** Why it must leave its node although it runs there; `isUnreachable`: nobody can tell when it has. */
    Eviction?: { Reason: string; isUnreachable?: true };
    /** Why it is to be moved to another node, in good order: while it serves, the next one is started first. */
    Move?: { Reason: string };
    /** When this task's Status first reached running; ms since the epoch. Kept by the store. */
    RunningSince?: number;
    /** When this task's Status first was terminal; ms since the epoch. Kept by the store. */
    EndedAt?: number;
    /** When its DesiredState first was past running; ms since the epoch. Kept by the store. */
    RetiredAt?: number;
    /** What happened to it, the oldest first, at most 24. Kept by the store. */
    History?: TaskMoment[];
  };
}

// ---------------------------------------------------------------- stack, network, secret, config

/** Label by which an engine's own network that carries a network of the cluster on its node names that one. */
export const networkIdLabel = 'shoal.network.id';

/** Label that says which stack a service, network, secret or config belongs to. */
export const stackLabel = 'com.docker.stack.namespace';

/** One deployment of a stack. Those of version 0.1.0 have no more than their time and source. */
export interface StackDeployment {
  DeployedAt: string;
  Source: string;
  /** From 1. */
  Number?: number;
  By?: string;
  What?: string;
  /** Those of its services as it left them. */
  Revisions?: RevisionId[];
}

export interface Stack extends Meta<StackId> {
  Spec: { Name: string; Labels: Labels };
  /** The compose files as deployed, after interpolation, in the order given. */
  Source: string;
  /** Earlier deployments, newest first, at most 10. */
  History: StackDeployment[];
  /** The present one; absent until it is deployed by a version that keeps it. */
  Deployment?: Omit<StackDeployment, 'Source'>;
}

export interface IPAMConfig {
  Subnet?: string;
  IPRange?: string;
  Gateway?: string;
}

/** Option of overlay networks whose traffic between hosts is to be encrypted; its value says nothing. */
export const encryptedOption = 'encrypted';
/** Key in Network.DriverState.Options: the vxlan ids of the network's subnets, comma-separated. */
export const vxlanIdListOption = 'com.docker.network.driver.overlay.vxlanid_list';

export interface NetworkSpec {
  Name: string;
  Labels: Labels;
  DriverConfiguration: Driver;
  IPv6Enabled?: boolean;
  Internal?: boolean;
  Attachable?: boolean;
  Ingress?: boolean;
  Scope?: string;
  IPAMOptions?: { Driver?: Driver; Configs?: IPAMConfig[] };
}

export interface Network extends Meta<NetworkId> {
  Spec: NetworkSpec;
  /** The subnets in use: those of the spec, or allocated from the cluster's pool. Empty until allocated. */
  IPAMOptions: { Driver: Driver; Configs: IPAMConfig[] };
  /** What the driver needs to know: for an overlay, its vxlan id (vxlanIdListOption). */
  DriverState?: Driver;
}

export interface SecretSpec {
  Name: string;
  Labels: Labels;
  /** Base64; stripped from every answer of the API. */
  Data?: string;
  Driver?: Driver;
  Templating?: Driver;
}

export interface Secret extends Meta<SecretId> {
  Spec: SecretSpec;
}

export interface ConfigSpec {
  Name: string;
  Labels: Labels;
  /** Base64. */
  Data: string;
  Templating?: Driver;
}

export interface Config extends Meta<ConfigId> {
  Spec: ConfigSpec;
}
