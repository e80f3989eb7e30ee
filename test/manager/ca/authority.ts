/** A manager's certificate service on a real port of the loopback, over a store without Raft. */
import { type Bootstrapped, bootstrapCluster } from '../../../manager/ca/bootstrap.ts';
import { certificateHandlers } from '../../../manager/ca/rpc.ts';
import { CertificateService } from '../../../manager/ca/service.ts';
import type { Change } from '../../../manager/store/change.ts';
import { Store } from '../../../manager/store/store.ts';
import type { Cluster, ClusterNode, SwarmSpec } from '../../../proto/docker.ts';
import { ShoalError } from '../../../proto/errors.ts';
import { asId, type NodeId } from '../../../proto/ids.ts';
import { silentLog } from '../../../proto/ports.ts';
import { createRpcServer, type NodeIdentity, type RpcServer } from '../../../proto/rpc.ts';
import { VirtualClock } from '../../simulation/clock.ts';
import { seededRandom } from '../../simulation/random.ts';

export class TestAuthority {
  readonly store = new Store();
  readonly clock: VirtualClock;
  readonly random = seededRandom(7);
  readonly service: CertificateService;
  readonly first: Bootstrapped;
  /** What the port shows. */
  served: NodeIdentity;
  address = '';
  private server: RpcServer | undefined;
  private index = 0;

  private constructor(clock: VirtualClock, first: Bootstrapped) {
    this.clock = clock;
    this.first = first;
    this.served = first.identity;
    this.service = new CertificateService({
      store: this.store,
      propose: (changes) => this.propose(changes),
      readBarrier: () => Promise.resolve(),
      clock,
      random: this.random,
      log: silentLog,
    });
  }

  /** A cluster of one manager; its clock begins at the present, for TLS looks at the real one. */
  static async start(options: { spec?: Partial<SwarmSpec>; seed?: number } = {}): Promise<TestAuthority> {
    const clock = new VirtualClock(Date.now());
    const random = seededRandom(options.seed ?? 1);
    const authority = new TestAuthority(clock, await bootstrapCluster({ random, clock, spec: options.spec }));
    await authority.propose(authority.first.changes);
    await authority.listen();
    return authority;
  }

  propose(changes: readonly Change[]): Promise<number> {
    this.index += 1;
    const result = this.store.applyEntry(this.index, { now: this.clock.now(), changes });
    if (!result.ok) return Promise.reject(new ShoalError(result.code, result.message));
    return Promise.resolve(this.index);
  }

  async listen(): Promise<void> {
    this.server = createRpcServer({ credentials: this.first.identity });
    const handlers = certificateHandlers(this.service);
    this.server.addService('CA', handlers.CA);
    this.server.addService('NodeCA', handlers.NodeCA);
    this.server.addService('Returning', handlers.Returning);
    this.address = `127.0.0.1:${await this.server.listen('127.0.0.1:0')}`;
  }

  /** From now on new connections see this certificate. */
  serve(identity: NodeIdentity): void {
    this.served = identity;
    this.server?.setIdentity(identity);
  }

  get cluster(): Cluster {
    return this.store.cluster()!;
  }

  node(id: string): ClusterNode {
    return this.store.get('node', asId<NodeId>(id))!;
  }

  /** Replaces the cluster object by what `edit` makes of it. */
  async edit(edit: (cluster: Cluster) => Cluster): Promise<void> {
    await this.propose([{ op: 'update', kind: 'cluster', object: edit(this.cluster) }]);
  }

  async editNode(id: string, edit: (node: ClusterNode) => ClusterNode): Promise<void> {
    await this.propose([{ op: 'update', kind: 'node', object: edit(this.node(id)) }]);
  }

  async stop(): Promise<void> {
    await this.server?.close();
  }
}
