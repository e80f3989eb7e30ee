/** The first moment of a cluster: its object, its first manager and that manager's identity, made in place. */
import type {
  Cluster,
  ClusterNode,
  Network,
  NetworkKey,
  NodeAvailability,
  NodeRole,
  SwarmSpec,
  TLSInfo,
} from '../../proto/docker.ts';
import { newUnlockKey } from '../../proto/identity.ts';
import { type ClusterId, type NetworkId, type NodeId, newId } from '../../proto/ids.ts';
import type { Clock, Random } from '../../proto/ports.ts';
import { tlsInfoOfIssuer } from '../../proto/x509.ts';
import { type Change, newMeta } from '../store/change.ts';
import { createRoot, defaultNodeCertExpiry, issueLocally, type LocalIssue } from './root.ts';
import { newJoinTokens } from './tokens.ts';

const keysPerSubsystem = 3;
const networkKeyBytes = 16;
const secondNs = 1_000_000_000;

/** The spec of a cluster that was asked for without one: Docker's values, with a heartbeat of 1 s. */
export function defaultSwarmSpec(): SwarmSpec {
  return {
    Name: 'default',
    Labels: {},
    Orchestration: { TaskHistoryRetentionLimit: 5 },
    Raft: {
      SnapshotInterval: 10_000,
      KeepOldSnapshots: 0,
      LogEntriesForSlowFollowers: 500,
      ElectionTick: 10,
      HeartbeatTick: 1,
    },
    Dispatcher: { HeartbeatPeriod: secondNs },
    CAConfig: { NodeCertExpiry: defaultNodeCertExpiry },
    TaskDefaults: {},
    EncryptionConfig: { AutoLockManagers: false },
  };
}

/**
 * The keys of stock workers' overlay networks: exactly three a subsystem, or they make no overlay at all, with
 * rising Lamport times of which the highest is the one in use.
 */
function newNetworkKeys(random: Random): NetworkKey[] {
  const subsystems = ['networking:gossip', 'networking:ipsec'] as const;
  return subsystems.flatMap((Subsystem) =>
    Array.from({ length: keysPerSubsystem }, (_, position) => ({
      Subsystem,
      LamportTime: position + 1,
      Key: Buffer.from(random.bytes(networkKeyBytes)).toString('base64'),
    })),
  );
}

/** A node as it stands before its agent has registered. */
export function newNode(node: {
  readonly nodeId: NodeId;
  readonly role: NodeRole;
  readonly availability: NodeAvailability;
  readonly tlsInfo: TLSInfo;
  readonly requestPem: string;
  readonly certificatePem: string;
}): ClusterNode {
  return {
    ...newMeta(node.nodeId),
    Spec: { Labels: {}, Role: node.role, Availability: node.availability },
    Description: {
      Hostname: '',
      Platform: { Architecture: '', OS: '' },
      Resources: { NanoCPUs: 0, MemoryBytes: 0 },
      Engine: { EngineVersion: '', Labels: {}, Plugins: [] },
      TLSInfo: node.tlsInfo,
    },
    Status: { State: 'unknown', Addr: '' },
    Private: {
      Role: node.role,
      Certificate: { State: 'issued', Csr: node.requestPem, Pem: node.certificatePem },
    },
  };
}

/** The network over which published ports are reached on every node; its subnet is still to be allocated. */
function ingressNetwork(id: NetworkId): Network {
  return {
    ...newMeta(id),
    Spec: {
      Name: 'ingress',
      Labels: {},
      DriverConfiguration: { Name: 'overlay' },
      Ingress: true,
      Scope: 'swarm',
    },
    IPAMOptions: { Driver: { Name: 'default' }, Configs: [] },
  };
}

export interface BootstrapOptions {
  readonly random: Random;
  readonly clock: Clock;
  /** Made when absent. */
  readonly nodeId?: NodeId | undefined;
  readonly clusterId?: ClusterId | undefined;
  /** Sections given replace the defaults' values one by one. */
  readonly spec?: Partial<SwarmSpec> | undefined;
  readonly availability?: NodeAvailability | undefined;
  readonly defaultAddrPool?: readonly string[] | undefined;
  readonly subnetSize?: number | undefined;
  readonly dataPathPort?: number | undefined;
  /** host:port of the manager; its node shows from the first entry on that it leads. */
  readonly advertiseAddress?: string | undefined;
}

export interface Bootstrapped {
  readonly cluster: Cluster;
  readonly node: ClusterNode;
  readonly identity: LocalIssue['identity'];
  /** The first log entry. */
  readonly changes: readonly Change[];
}

/** A new cluster and its first manager. Nothing is stored: propose `changes` as the first entry. */
export async function bootstrapCluster(options: BootstrapOptions): Promise<Bootstrapped> {
  const { random } = options;
  const context = { now: options.clock.now(), random };
  const nodeId = options.nodeId ?? newId<NodeId>(random);
  const root = await createRoot(context);
  const Spec = mergeSpec(defaultSwarmSpec(), options.spec ?? {});
  const cluster: Cluster = {
    ...newMeta(options.clusterId ?? newId<ClusterId>(random)),
    Spec,
    TLSInfo: tlsInfoOfIssuer(root.certificatePem, root.certificatePem),
    RootRotationInProgress: false,
    DefaultAddrPool: [...nonEmpty(options.defaultAddrPool, ['10.0.0.0/8'])],
    SubnetSize: options.subnetSize || 24,
    DataPathPort: options.dataPathPort || 4789,
    JoinTokens: newJoinTokens(root.certificatePem, random),
    Private: {
      CaKeyPem: root.keyPem,
      NetworkKeys: newNetworkKeys(random),
      ...(Spec.EncryptionConfig.AutoLockManagers ? { UnlockKey: newUnlockKey(random) } : {}),
    },
  };
  const { requestPem, identity } = await issueLocally(cluster, { nodeId, role: 'manager' }, context);
  const made = newNode({
    nodeId,
    role: 'manager',
    availability: options.availability ?? 'active',
    tlsInfo: cluster.TLSInfo,
    requestPem,
    certificatePem: identity.certificatePem,
  });
  const { advertiseAddress: Addr } = options;
  const node = Addr
    ? { ...made, ManagerStatus: { Leader: true, Reachability: 'reachable' as const, Addr } }
    : made;
  const changes: Change[] = [
    { op: 'create', kind: 'cluster', object: cluster },
    { op: 'create', kind: 'node', object: node },
    { op: 'create', kind: 'network', object: ingressNetwork(newId<NetworkId>(random)) },
  ];
  return { cluster, node, identity, changes };
}

function nonEmpty(given: readonly string[] | undefined, fallback: readonly string[]): readonly string[] {
  return given !== undefined && given.length > 0 ? given : fallback;
}

/** Docker's CLI sends every section of a spec, with zeros for what it does not set: they mean the default. */
function mergeSpec(defaults: SwarmSpec, given: Partial<SwarmSpec>): SwarmSpec {
  return {
    Name: given.Name || defaults.Name,
    Labels: given.Labels ?? defaults.Labels,
    Orchestration: { ...defaults.Orchestration, ...given.Orchestration },
    Raft: { ...defaults.Raft, ...withoutZeros(given.Raft) },
    Dispatcher: { ...defaults.Dispatcher, ...withoutZeros(given.Dispatcher) },
    CAConfig: { ...defaults.CAConfig, ...withoutZeros(given.CAConfig) },
    TaskDefaults: { ...defaults.TaskDefaults, ...given.TaskDefaults },
    EncryptionConfig: { ...defaults.EncryptionConfig, ...given.EncryptionConfig },
  };
}

function withoutZeros<T extends object>(section: T | undefined): Partial<T> {
  return Object.fromEntries(Object.entries(section ?? {}).filter(([, value]) => value)) as Partial<T>;
}
