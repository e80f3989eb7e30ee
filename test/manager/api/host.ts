/**
 * A host for the API in memory: one store, to which proposals are applied as the bytes that a log would
 * carry, and a client that speaks HTTP to it over a unix socket.
 */

import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import type { Duplex } from 'node:stream';
import { DockerEngine } from '../../../agent/engine/docker.ts';
import type {
  ApiHost,
  EngineFacts,
  ManagedCluster,
  Membership,
  RestoreRequest,
  SwarmInitRequest,
  SwarmJoinRequest,
} from '../../../manager/api/contract.ts';
import { listen } from '../../../manager/api/listen.ts';
import { createApi } from '../../../manager/api/server.ts';
import { ExecBoard } from '../../../manager/exec/board.ts';
import type { LogEntry, LogQuery } from '../../../manager/logs/reader.ts';
import { preview } from '../../../manager/preview.ts';
import { changesOfMoves, movesOf } from '../../../manager/scheduler/rebalance.ts';
import { type Change, encodeEntry, newMeta } from '../../../manager/store/change.ts';
import { Store } from '../../../manager/store/store.ts';
import type { Cluster, ClusterNode, NodeRole, Task } from '../../../proto/docker.ts';
import { ShoalError } from '../../../proto/errors.ts';
import type { EndpointsAnswer } from '../../../proto/generated/shoal/v1/EndpointsAnswer.ts';
import type { EndpointsQuestion } from '../../../proto/generated/shoal/v1/EndpointsQuestion.ts';
import type { ProgrammedResponse } from '../../../proto/generated/shoal/v1/ProgrammedResponse.ts';
import { asId, type ClusterId, type NodeId, newId, type ServiceId, type TaskId } from '../../../proto/ids.ts';
import { type Clock, type Random, silentLog } from '../../../proto/ports.ts';

const startMs = Date.parse('2026-01-01T00:00:00.000Z');

/** A generator that always gives the same bytes. */
function seededRandom(): Random {
  let state = 1n;
  const byte = (): number => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
    return Number(state >> 56n);
  };
  return { bytes: (count) => Uint8Array.from({ length: count }, byte), float: () => byte() / 256 };
}

/** A clock that a test moves. */
class TestClock implements Clock {
  private time = startMs;
  private readonly actions = new Set<() => void>();

  now(): number {
    return this.time;
  }

  monotonicMs(): number {
    return this.time;
  }

  after(_delayMs: number, action: () => void): { cancel(): void } {
    this.actions.add(action);
    return { cancel: () => this.actions.delete(action) };
  }

  advance(byMs: number): void {
    this.time += byMs;
  }

  /** Runs whatever waits. */
  fire(): void {
    for (const action of [...this.actions]) {
      this.actions.delete(action);
      action();
    }
  }
}

const tlsInfo = {
  TrustRoot: '-----BEGIN CERTIFICATE-----\n',
  CertIssuerSubject: 'MBM=',
  CertIssuerPublicKey: 'MFk=',
};

export class TestHost implements ApiHost {
  readonly clock = new TestClock();
  readonly random = seededRandom();
  readonly log = silentLog;
  readonly version = '0.1.0-test';
  readonly store = new Store();
  readonly nodeId: NodeId = newId(this.random);
  readonly advertiseAddress = (): string => '10.0.0.1';
  /** What was asked of the host, in order. */
  readonly calls: string[] = [];
  /** Times that a read was made to wait for what was acknowledged. */
  barriers = 0;
  logLines: LogEntry[] = [];
  /** What the log stream ends with, as the broker ends it when nodes are away. */
  logFailure: Error | undefined;
  lastLogRequest: LogQuery | undefined;
  engineFacts: EngineFacts | undefined;
  private state: Membership;

  constructor() {
    this.state = { kind: 'manager', cluster: this.cluster() };
    this.apply([
      { op: 'create', kind: 'cluster', object: this.clusterObject() },
      { op: 'create', kind: 'node', object: testNode(this.nodeId, 'm1', 'manager') },
    ]);
  }

  membership(): Membership {
    return this.state;
  }

  become(state: Membership): void {
    this.state = state;
  }

  becomeManager(): void {
    this.state = { kind: 'manager', cluster: this.cluster() };
  }

  /** Nodes whose agents were summoned, and for which command. */
  readonly summoned: { readonly nodeId: NodeId; readonly execId: string }[] = [];
  /** What summoning fails with. */
  unreachable: Error | undefined;
  readonly commands = new ExecBoard({
    clock: this.clock,
    random: this.random,
    summon: async (nodeId, execId) => {
      if (this.unreachable) throw this.unreachable;
      this.summoned.push({ nodeId, execId });
    },
  });

  private async backup(key: string | undefined) {
    if (key === undefined) throw new ShoalError('invalid-argument', 'no key');
    return (async function* pieces() {
      yield Buffer.from('sealed under ');
      yield Buffer.from(key);
    })();
  }

  restore({ file, key, ...rest }: RestoreRequest): Promise<string> {
    this.calls.push(`restore ${file.length} bytes ${key} ${JSON.stringify(rest)}`);
    return Promise.resolve('restored-node');
  }

  /** What a host is left with that leaves. */
  leftovers: readonly string[] = [];

  init(request: SwarmInitRequest): Promise<string> {
    this.calls.push(`init ${JSON.stringify(request)}`);
    return Promise.resolve(this.nodeId);
  }

  join(request: SwarmJoinRequest): Promise<void> {
    this.calls.push(`join ${request.RemoteAddrs.join(',')}`);
    return Promise.resolve();
  }

  leave(force: boolean): Promise<readonly string[]> {
    this.calls.push(`leave ${force}`);
    return Promise.resolve(this.leftovers);
  }

  unlock(unlockKey: string): Promise<void> {
    this.calls.push(`unlock ${unlockKey.length}`);
    return Promise.resolve();
  }

  /** What the leader would say of any network. */
  programmed: ProgrammedResponse = {};
  /** What a node's data plane would answer. */
  nodeAnswers: (nodeId: NodeId, question: EndpointsQuestion) => EndpointsAnswer = () => ({});
  /** What is said in place of the leader's answers. */
  refusal: ShoalError | undefined;

  /** Path of the socket of what stands for the engine. */
  engineSocket: string | undefined;

  /** Answers for networks of the cluster that this node's containers join. */
  attachContainer: ApiHost['attachContainer'] = (network) =>
    Promise.reject(new ShoalError('failed-precondition', `network ${network}: none between hosts here`));

  connectEngine(): Promise<Duplex> {
    const { engineSocket } = this;
    if (engineSocket === undefined)
      return Promise.reject(
        new ShoalError('unavailable', 'Cannot connect to the container engine: test. Is it running?'),
      );
    const { clock, random } = this;
    return new DockerEngine({ address: engineSocket, clock, random }).connect();
  }

  engine(): Promise<EngineFacts | undefined> {
    return Promise.resolve(this.engineFacts);
  }

  /** Applies changes as a log would, and answers their index. Throws what the store refuses. */
  apply(changes: readonly Change[]): number {
    const index = this.store.index + 1;
    const result = this.store.apply(index, encodeEntry({ now: this.clock.now(), changes }));
    if (!result.ok) throw new ShoalError(result.code, result.message);
    return index;
  }

  private cluster(): ManagedCluster {
    const host = this;
    return {
      store: this.store,
      nodeId: this.nodeId,
      propose: async (changes) => {
        await Promise.resolve();
        return this.apply(changes);
      },
      preview: (changes) => preview(this.store, changes, this.clock.now(), () => newId(this.random)),
      readBarrier: async () => {
        this.barriers++;
        await Promise.resolve();
      },
      rebalance: (service) => {
        const moves = movesOf(this.store, service, this.clock.now());
        return { moves, changes: changesOfMoves(moves) };
      },
      isLeader: () => true,
      managerAddresses: () => [{ NodeID: this.nodeId, Addr: '10.0.0.1:2377' }],
      removeManager: () => Promise.resolve(),
      commands: this.commands,
      backup: (key) => host.backup(key),
      dataPlanes: {
        programmed: () => (this.refusal ? Promise.reject(this.refusal) : Promise.resolve(this.programmed)),
        ask: async (nodeId, question) => {
          if (this.refusal) throw this.refusal;
          return this.nodeAnswers(nodeId, question);
        },
      },
      async *logs(request: LogQuery) {
        host.lastLogRequest = request;
        yield* host.logLines;
        if (host.logFailure) throw host.logFailure;
      },
    };
  }

  private clusterObject(): Cluster {
    return {
      ...newMeta(newId<ClusterId>(this.random)),
      Spec: {
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
        Dispatcher: { HeartbeatPeriod: 5e9 },
        CAConfig: { NodeCertExpiry: 7776e12 },
        TaskDefaults: {},
        EncryptionConfig: { AutoLockManagers: false },
      },
      TLSInfo: tlsInfo,
      RootRotationInProgress: false,
      DefaultAddrPool: [],
      SubnetSize: 24,
      DataPathPort: 4789,
      JoinTokens: { Worker: 'SWMTKN-1-w', Manager: 'SWMTKN-1-m' },
      Private: { CaKeyPem: 'TOP-SECRET-CA-KEY', NetworkKeys: [] },
    };
  }
}

/** A ready node. */
export function testNode(id: NodeId, hostname: string, role: NodeRole): ClusterNode {
  return {
    ...newMeta(id),
    Spec: { Labels: {}, Role: role, Availability: 'active' },
    Description: {
      Hostname: hostname,
      Platform: { Architecture: 'x86_64', OS: 'linux' },
      Resources: { NanoCPUs: 2e9, MemoryBytes: 8e9 },
      Engine: { EngineVersion: '20.10.24', Labels: {}, Plugins: [{ Type: 'Log', Name: 'json-file' }] },
      TLSInfo: tlsInfo,
    },
    Status: { State: 'ready', Addr: '10.0.0.1' },
    ...(role === 'manager'
      ? { ManagerStatus: { Leader: true, Reachability: 'reachable', Addr: '10.0.0.1:2377' } as const }
      : {}),
    Private: { Role: role },
  };
}

/** A task of a stored service's current revision. */
export function testTask(host: TestHost, serviceId: string, fields: Partial<Task> = {}): Task {
  const service = host.store.get('service', asId<ServiceId>(serviceId))!;
  return {
    ...newMeta(newId<TaskId>(host.random)),
    ServiceID: service.ID,
    RevisionID: service.Private.RevisionID,
    Slot: 1,
    NodeID: host.nodeId,
    Labels: {},
    Status: { Timestamp: new Date(startMs).toISOString(), State: 'running', Message: 'started' },
    DesiredState: 'running',
    Private: {},
    ...fields,
  };
}

export interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly bytes: Buffer;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: a test reads whatever the API answered
  readonly json: any;
}

/** An API that listens on a socket in a temporary directory, and its client. */
export class TestApi {
  readonly host: TestHost;
  readonly socketPath: string;
  private readonly folder: string;
  private readonly closeListener: () => Promise<void>;

  private constructor(host: TestHost, folder: string, socketPath: string, close: () => Promise<void>) {
    this.host = host;
    this.folder = folder;
    this.socketPath = socketPath;
    this.closeListener = close;
  }

  static async start(host = new TestHost()): Promise<TestApi> {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'shoal-api-'));
    const socketPath = path.join(folder, 'api.sock');
    const listener = await listen(createApi(host), [`unix://${socketPath}`], { log: host.log });
    return new TestApi(host, folder, socketPath, () => listener.close());
  }

  async close(): Promise<void> {
    await this.closeListener();
    fs.rmSync(this.folder, { recursive: true, force: true });
  }

  get(url: string): Promise<Answer> {
    return this.send('GET', url);
  }

  delete(url: string): Promise<Answer> {
    return this.send('DELETE', url);
  }

  post(url: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    return this.send('POST', url, body === undefined ? undefined : JSON.stringify(body), headers);
  }

  put(url: string, body: unknown): Promise<Answer> {
    return this.send('PUT', url, JSON.stringify(body));
  }

  /** Sends a body as it is. */
  send(
    method: string,
    url: string,
    body?: string | Buffer,
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const request = http.request(
        {
          socketPath: this.socketPath,
          method,
          path: url,
          headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('error', reject);
          response.on('end', () => resolve(answerOf(response, Buffer.concat(chunks))));
        },
      );
      request.on('error', reject);
      request.end(body);
    });
  }
}

function answerOf(response: http.IncomingMessage, bytes: Buffer): Answer {
  const text = bytes.toString('utf8');
  const isJson = (response.headers['content-type'] ?? '').startsWith('application/json');
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    bytes,
    text,
    json: isJson && text !== '' ? JSON.parse(text) : undefined,
  };
}
