/** Small makers of cluster objects for tests: whole and plain, with what a test is about laid over. */
import type {
  Cluster,
  ClusterNode,
  Service,
  ServiceRevision,
  ServiceSpec,
  Task,
  UpdateConfig,
} from '../../../proto/docker.ts';
import type { ClusterId, NodeId, RevisionId, ServiceId, TaskId } from '../../../proto/ids.ts';

type Overlay<T> = { [P in keyof T]?: T[P] extends object | undefined ? Overlay<T[P]> | undefined : T[P] };

const meta = { Version: { Index: 0 }, CreatedAt: '2026-01-01T00:00:00.000Z', UpdatedAt: '' };

function isPlain(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** `base` with `over` laid over it, objects merged field by field. */
export function overlay<T>(base: T, over: Overlay<T> | undefined): T {
  if (!isPlain(base) || !isPlain(over)) return (over === undefined ? base : over) as T;
  const result: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(over)) {
    result[key] = isPlain(value) && isPlain(result[key]) ? overlay(result[key], value) : value;
  }
  return result as T;
}

export function makeCluster(over: Overlay<Cluster> = {}): Cluster {
  return overlay<Cluster>(
    {
      ...meta,
      ID: 'cluster' as ClusterId,
      Spec: {
        Name: 'default',
        Labels: {},
        Orchestration: {},
        Raft: { ElectionTick: 10, HeartbeatTick: 1 },
        Dispatcher: {},
        CAConfig: {},
        TaskDefaults: {},
        EncryptionConfig: { AutoLockManagers: false },
      },
      TLSInfo: { TrustRoot: '', CertIssuerSubject: '', CertIssuerPublicKey: '' },
      RootRotationInProgress: false,
      DefaultAddrPool: ['10.0.0.0/8'],
      SubnetSize: 24,
      DataPathPort: 4789,
      JoinTokens: { Worker: '', Manager: '' },
      Private: { CaKeyPem: '', NetworkKeys: [] },
    },
    over,
  );
}

export function makeNode(id: string, over: Overlay<ClusterNode> = {}): ClusterNode {
  return overlay<ClusterNode>(
    {
      ...meta,
      ID: id as NodeId,
      Spec: { Labels: {}, Role: 'worker', Availability: 'active' },
      Description: {
        Hostname: id,
        Platform: { Architecture: 'x86_64', OS: 'linux' },
        Resources: { NanoCPUs: 4e9, MemoryBytes: 8e9 },
        Engine: { EngineVersion: '28.0.0', Labels: {}, Plugins: [] },
        TLSInfo: { TrustRoot: '', CertIssuerSubject: '', CertIssuerPublicKey: '' },
      },
      Status: { State: 'ready', Addr: '10.0.0.1' },
      Private: { Role: 'worker' },
    },
    over,
  );
}

export function makeSpec(over: Overlay<ServiceSpec> = {}): ServiceSpec {
  return overlay<ServiceSpec>(
    {
      Name: 'web',
      Labels: {},
      TaskTemplate: { ContainerSpec: { Image: 'web:1' } },
      Mode: { Replicated: { Replicas: 1 } },
    },
    over,
  );
}

/** A service of revision `${id}-1`. */
export function makeService(id: string, spec: ServiceSpec, over: Overlay<Service> = {}): Service {
  return overlay<Service>(
    {
      ...meta,
      ID: id as ServiceId,
      Spec: spec,
      Endpoint: { Spec: {} },
      Private: { RevisionID: `${id}-1` as RevisionId },
    },
    over,
  );
}

export function makeRevision(serviceId: string, number: number, spec: ServiceSpec): ServiceRevision {
  return {
    ...meta,
    ID: `${serviceId}-${number}` as RevisionId,
    ServiceID: serviceId as ServiceId,
    Number: number,
    Spec: spec,
  };
}

/** A task of revision `${serviceId}-1` that runs. */
export function makeTask(id: string, serviceId: string, over: Overlay<Task> = {}): Task {
  return overlay<Task>(
    {
      ...meta,
      ID: id as TaskId,
      ServiceID: serviceId as ServiceId,
      RevisionID: `${serviceId}-1` as RevisionId,
      Labels: {},
      Status: { Timestamp: '2026-01-01T00:00:00.000Z', State: 'running', Message: 'started' },
      DesiredState: 'running',
      Private: {},
    },
    over,
  );
}

export const stopFirst: UpdateConfig = { Parallelism: 1, Order: 'stop-first' };
