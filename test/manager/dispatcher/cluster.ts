/** A store with a few objects, and a dispatcher's surroundings, for the tests of this folder and of logs. */

import { type Change, newMeta, type Propose } from '../../../manager/store/change.ts';
import { Store } from '../../../manager/store/store.ts';
import type { Cluster, ClusterNode, Secret, Service, ServiceRevision, Task } from '../../../proto/docker.ts';
import { ShoalError } from '../../../proto/errors.ts';
import { asId, type NodeId } from '../../../proto/ids.ts';
import type { Sink } from '../../../proto/rpc-stream.ts';
import type { DesiredState, TaskState } from '../../../proto/task-state.ts';
import { VirtualClock } from '../../simulation/clock.ts';

export const emptyDescription: ClusterNode['Description'] = {
  Hostname: '',
  Platform: { Architecture: '', OS: '' },
  Resources: { NanoCPUs: 0, MemoryBytes: 0 },
  Engine: { EngineVersion: '', Labels: {}, Plugins: [] },
  TLSInfo: { TrustRoot: '', CertIssuerSubject: '', CertIssuerPublicKey: '' },
};

export function makeCluster(): Cluster {
  return {
    ...newMeta(asId('cluster')),
    Spec: {
      Name: 'default',
      Labels: {},
      Orchestration: {},
      Raft: { ElectionTick: 10, HeartbeatTick: 1 },
      Dispatcher: {},
      CAConfig: {},
      TaskDefaults: { LogDriver: { Name: 'json-file', Options: { 'max-size': '1m' } } },
      EncryptionConfig: { AutoLockManagers: false },
    },
    TLSInfo: { TrustRoot: 'PEM', CertIssuerSubject: '', CertIssuerPublicKey: '' },
    RootRotationInProgress: false,
    DefaultAddrPool: [],
    SubnetSize: 24,
    DataPathPort: 4789,
    JoinTokens: { Worker: '', Manager: '' },
    Private: {
      CaKeyPem: '',
      NetworkKeys: [{ Subsystem: 'networking:gossip', LamportTime: 3, Key: 'AAECAwQFBgcICQoLDA0ODw==' }],
    },
  };
}

export function makeNode(id: string, fields: Partial<ClusterNode> = {}): ClusterNode {
  return {
    ...newMeta(asId<NodeId>(id)),
    Spec: { Labels: {}, Role: 'worker', Availability: 'active' },
    Description: emptyDescription,
    Status: { State: 'unknown', Addr: '' },
    Private: { Role: 'worker' },
    ...fields,
  };
}

export function makeRevision(
  id: string,
  fields: Partial<ServiceRevision['Spec']['TaskTemplate']> = {},
): ServiceRevision {
  return {
    ...newMeta(asId(id)),
    ServiceID: asId('service1'),
    Number: 1,
    Spec: {
      Name: 'web',
      Labels: { tier: 'front' },
      TaskTemplate: { ContainerSpec: { Image: 'nginx' }, ...fields },
      Mode: { Replicated: { Replicas: 1 } },
    },
  };
}

export function makeService(id: string, revisionId: string): Service {
  return {
    ...newMeta(asId(id)),
    Spec: makeRevision(revisionId).Spec,
    Endpoint: { Spec: {} },
    Private: { RevisionID: asId(revisionId) },
  };
}

export function makeTask(
  id: string,
  nodeId: string | undefined,
  state: TaskState = 'assigned',
  desired: DesiredState = 'running',
): Task {
  return {
    ...newMeta(asId(id)),
    ServiceID: asId('service1'),
    RevisionID: asId('revision1'),
    Slot: 1,
    ...(nodeId === undefined ? {} : { NodeID: asId<NodeId>(nodeId) }),
    Labels: {},
    Status: { Timestamp: '2026-01-01T00:00:00.000Z', State: state, Message: '' },
    DesiredState: desired,
    Private: {},
  };
}

export function makeSecret(id: string, data: string): Secret {
  return {
    ...newMeta(asId(id)),
    Spec: { Name: `name-${id}`, Labels: {}, Data: Buffer.from(data).toString('base64') },
  };
}

/** A store whose proposals are applied one turn later, and may be made to fail. */
export class TestBed {
  readonly clock = new VirtualClock();
  readonly store = new Store();
  readonly proposals: (readonly Change[])[] = [];
  refusal: ShoalError | undefined;
  private index = 0;

  commit(...changes: Change[]): void {
    this.index++;
    const result = this.store.applyEntry(this.index, { now: this.clock.now(), changes });
    if (!result.ok) throw new ShoalError(result.code, result.message);
  }

  readonly propose: Propose = async (changes) => {
    await Promise.resolve();
    if (this.refusal) throw this.refusal;
    this.proposals.push(changes);
    this.commit(...changes);
    return this.index;
  };

  node(id: string): ClusterNode {
    return this.store.get('node', asId(id))!;
  }

  task(id: string): Task {
    return this.store.get('task', asId(id))!;
  }
}

/** A Sink that keeps what it is sent. While `isBlocked`, the transport takes no further message. */
export class TestSink<Message> implements Sink<Message> {
  readonly messages: Message[] = [];
  ended: { error: ShoalError | undefined } | undefined;
  isBlocked = false;
  private unblocked: (() => void) | undefined;

  send(message: Message): Promise<void> {
    this.messages.push(message);
    if (!this.isBlocked) return Promise.resolve();
    return new Promise((resolve) => {
      this.unblocked = resolve;
    });
  }

  unblock(): void {
    this.isBlocked = false;
    this.unblocked?.();
  }

  end(error?: ShoalError): void {
    this.ended ??= { error };
  }
}
