/**
 * What the HTTP API is handed. The daemon makes it (cli/shoald.ts), for a node may serve the API before
 * it belongs to a cluster, as a worker, as a locked manager, and as a manager.
 */
import type { Duplex } from 'node:stream';
import type { ClusterNode, Service, SwarmSpec, Task } from '../../proto/docker.ts';
import type { EndpointsAnswer } from '../../proto/generated/shoal/v1/EndpointsAnswer.ts';
import type { EndpointsQuestion } from '../../proto/generated/shoal/v1/EndpointsQuestion.ts';
import type { ProgrammedResponse } from '../../proto/generated/shoal/v1/ProgrammedResponse.ts';
import type { NetworkId, NodeId } from '../../proto/ids.ts';
import type { Clock, Log, Random } from '../../proto/ports.ts';
import type { TaskCommands } from '../exec/command.ts';
import type { LogEntry, LogQuery } from '../logs/reader.ts';
import type { Change } from '../store/change.ts';
import type { Store } from '../store/store.ts';

/** Body of POST /swarm/init. */
export interface SwarmInitRequest {
  ListenAddr?: string;
  AdvertiseAddr?: string;
  DataPathAddr?: string;
  DataPathPort?: number;
  DefaultAddrPool?: string[];
  SubnetSize?: number;
  ForceNewCluster?: boolean;
  Spec?: Partial<SwarmSpec>;
  AutoLockManagers?: boolean;
  Availability?: 'active' | 'pause' | 'drain';
}

/** Body of POST /swarm/join. */
export interface SwarmJoinRequest {
  ListenAddr?: string;
  AdvertiseAddr?: string;
  DataPathAddr?: string;
  RemoteAddrs: string[];
  JoinToken: string;
  Availability?: 'active' | 'pause' | 'drain';
}

/** What POST /swarm/restore asks for. */
export interface RestoreRequest {
  readonly file: Uint8Array;
  readonly key: string;
  readonly ListenAddr?: string;
  readonly AdvertiseAddr?: string;
  readonly Availability: 'active' | 'pause' | 'drain';
  /** How long workers have to come before their tasks are run elsewhere. */
  readonly awaitNodesMs: number;
}

/** Facts of the local engine for GET /info and /version; undefined while it does not answer. */
export interface EngineFacts {
  readonly info: Record<string, unknown>;
  readonly version: Record<string, unknown>;
}

/** What would become of one task: where a new one would be placed, or why nowhere. */
export interface TaskPreview {
  /** `web.1`, or `web.HOST` for a global service. */
  readonly Task: string;
  /** Empty where there is none for it. */
  readonly Node: string;
  /** Why there is no node for it; else empty. */
  readonly Reason: string;
  /** Where the one runs that it takes over from. */
  readonly From?: string;
}

/** What changes would do to one service's tasks. */
export interface ServicePreview {
  readonly Name: string;
  readonly Action: 'create' | 'update' | 'remove';
  readonly Replaced: readonly TaskPreview[];
  readonly Started: readonly TaskPreview[];
  readonly Stopped: number;
  readonly Untouched: number;
}

/** What rebalancing a service would do. */
export interface RebalancePlan {
  readonly moves: readonly {
    readonly task: Task;
    readonly from: NodeId;
    readonly to: NodeId;
    readonly reason: string;
  }[];
  readonly changes: readonly Change[];
}

/** What the leader knows of the nodes' data planes, asked from any manager. Rejects while nobody leads. */
export interface DataPlanes {
  /** Which nodes hold what of a network. */
  programmed(networkId: NetworkId): Promise<ProgrammedResponse>;
  /** Asks a node of what stands in its kernel. Rejects with 'unavailable' where it has no data plane that listens. */
  ask(nodeId: NodeId, question: EndpointsQuestion): Promise<EndpointsAnswer>;
}

/** A cluster that this node manages. */
export interface ManagedCluster {
  readonly store: Store;
  readonly nodeId: NodeId;
  /** Commits changes through whichever manager leads; see Propose. */
  propose(changes: readonly Change[]): Promise<number>;
  /** What changes would do to services, were they proposed now; throws what would refuse them. */
  preview(changes: readonly Change[]): readonly ServicePreview[];
  /** After it resolves the store holds everything acknowledged before the call. */
  readBarrier(): Promise<void>;
  /** The moves that would even a service out over the nodes, and the changes that begin them. */
  rebalance(service: Service): RebalancePlan;
  /** Whether this manager leads. */
  isLeader(): boolean;
  /** host:port of every manager, for GET /info. */
  managerAddresses(): { NodeID: NodeId; Addr: string }[];
  /** Takes a manager out of the Raft group before its node is removed or demoted; refuses to lose quorum. */
  removeManager(nodeId: NodeId, force: boolean): Promise<void>;
  /**
   * The file of a backup of everything acknowledged before the call, sealed under `key`, else under the cluster's
   * unlock key. Throws 'invalid-argument' without either.
   */
  backup(key: string | undefined): Promise<AsyncIterable<Uint8Array>>;
  /** Commands in running tasks, asked for at this manager. */
  readonly commands: TaskCommands;
  readonly dataPlanes: DataPlanes;
  /** Log lines of services or tasks, from whatever nodes run them. Ends when they do, or by `signal`; see readLogs. */
  logs(query: LogQuery, signal: AbortSignal): AsyncIterable<LogEntry>;
}

/** Where this node stands; decides what every endpoint answers. */
export type Membership =
  | { readonly kind: 'none' }
  | { readonly kind: 'pending' }
  | { readonly kind: 'locked'; readonly nodeId: NodeId }
  | {
      readonly kind: 'worker';
      readonly nodeId: NodeId;
      readonly managers: { NodeID: string; Addr: string }[];
      readonly node?: ClusterNode;
    }
  | { readonly kind: 'manager'; readonly cluster: ManagedCluster }
  | { readonly kind: 'error'; readonly nodeId?: NodeId; readonly message: string };

/** A network of the cluster as the local engine has it, and a container's place in it. */
export interface ContainerNetwork {
  /** The engine's name for it. */
  readonly name: string;
  /** CIDR form. */
  readonly addresses: readonly string[];
  /** Servers that know the names on it. */
  readonly nameservers: readonly string[];
  /** The container is there, and has the address until it is gone. */
  made(): void;
  /** The container was not made. */
  release(): void;
}

/** The daemon's side of swarm init, join, leave and unlock. */
export interface ApiHost {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  membership(): Membership;
  /** Answers the new node's id. */
  init(request: SwarmInitRequest): Promise<string>;
  join(request: SwarmJoinRequest): Promise<void>;
  /** Answers what the host is left with all the same, in words. */
  leave(force: boolean): Promise<readonly string[]>;
  /** Makes this node, which is outside, the one manager of a backup's cluster; answers its new id. */
  restore(request: RestoreRequest): Promise<string>;
  unlock(unlockKey: string): Promise<void>;
  engine(): Promise<EngineFacts | undefined>;
  /** A new connection to the local engine's own API; rejects with a ShoalError when there is none to be had. */
  connectEngine(): Promise<Duplex>;
  /**
   * A network of the cluster (id or name) for a container of the local engine that is no task; others find it by `names`.
   * Rejects with 'not-found' when there is no such network, and with why when it can't be had.
   */
  attachContainer(network: string, names: readonly string[]): Promise<ContainerNetwork>;
  /** This node's own address and the API's version strings. */
  readonly advertiseAddress: () => string;
  readonly version: string;
}
