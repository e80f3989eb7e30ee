/** Managers as they are, on ports of this machine: one process, real gRPC, TLS and disks. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { realClock, realRandom } from '../../cli/runtime.ts';
import { type Bootstrapped, bootstrapCluster, newNode } from '../../manager/ca/bootstrap.ts';
import { issueLocally } from '../../manager/ca/root.ts';
import { createMetrics } from '../../manager/metrics.ts';
import { ManagerServer, type ManagerStart } from '../../manager/server.ts';
import type { NodeRole } from '../../proto/docker.ts';
import { asId, type ClusterId, type NodeId } from '../../proto/ids.ts';
import { silentLog } from '../../proto/ports.ts';
import { createChannel, type NodeIdentity, type RpcChannel } from '../../proto/rpc.ts';
import { waitFor } from '../agent/wait.ts';
import { freePort } from '../cli/daemon.ts';

/** How long anything here may take, at most. */
export const boundMs = 20_000;

export interface Seat {
  readonly nodeId: NodeId;
  readonly address: string;
  readonly identity: NodeIdentity;
  server: ManagerServer | undefined;
}

export class ManagersOnPorts {
  readonly folder = mkdtempSync(join(tmpdir(), 'shoal-managers-'));
  readonly seats: Seat[] = [];
  readonly failures: unknown[] = [];
  readonly #made: Bootstrapped;
  readonly #channels: RpcChannel[] = [];

  private constructor(made: Bootstrapped) {
    this.#made = made;
  }

  /** A group of `count`, the first one leading. */
  static async form(count: number): Promise<ManagersOnPorts> {
    const made = await bootstrapCluster({ random: realRandom, clock: realClock });
    const managers = new ManagersOnPorts(made);
    const first = await managers.seat(made.node.ID, made.identity);
    await managers.start(first, { kind: 'bootstrap', changes: made.changes, unlockKey: undefined });
    await waitFor(() => first.server?.manager.leading() !== undefined, boundMs, 'the first manager leads');
    for (let number = 2; number <= count; number += 1) await managers.join();
    return managers;
  }

  get clusterId(): ClusterId {
    return this.#made.cluster.ID;
  }

  get rootsPem(): string {
    return this.#made.identity.rootsPem;
  }

  async seat(nodeId: NodeId, identity: NodeIdentity): Promise<Seat> {
    const address = `127.0.0.1:${await freePort()}`;
    const seat: Seat = { nodeId, address, identity, server: undefined };
    this.seats.push(seat);
    return seat;
  }

  /** The manager that leads, with its rooms open. */
  leader(): ManagerServer {
    const seat = this.seats.find(({ server }) => server?.manager.leading());
    if (!seat?.server) throw new Error('no manager leads');
    return seat.server;
  }

  async start(seat: Seat, start: ManagerStart): Promise<ManagerServer> {
    seat.server = await ManagerServer.start({
      identity: seat.identity,
      nodeId: seat.nodeId,
      clusterId: this.clusterId,
      listenAddress: seat.address,
      advertiseAddress: seat.address,
      folder: join(this.folder, seat.nodeId),
      start,
      clock: realClock,
      random: realRandom,
      log: silentLog,
      metrics: createMetrics({ store: () => undefined, raft: () => undefined, networks: () => undefined }),
      onFailure: (error) => this.failures.push(error),
    });
    return seat.server;
  }

  /** A node of the cluster, in the store, with its certificate. */
  async node(role: NodeRole, id = `${role}${this.leader().manager.store.count('node')}`): Promise<Seat> {
    const { manager } = this.leader();
    const nodeId = asId<NodeId>(id);
    const identity = await this.certificate(id, role);
    const { cluster } = this.#made;
    const certificatePem = identity.certificatePem;
    const object = newNode({
      nodeId,
      role,
      availability: 'active',
      tlsInfo: cluster.TLSInfo,
      requestPem: id,
      certificatePem,
    });
    await manager.propose([{ op: 'create', kind: 'node', object }]);
    return this.seat(nodeId, identity);
  }

  /** A certificate that the cluster's authority signed. */
  async certificate(nodeId: string, role: NodeRole, clusterId = this.clusterId): Promise<NodeIdentity> {
    const cluster = { ...this.#made.cluster, ID: clusterId };
    const context = { now: realClock.now(), random: realRandom };
    return (await issueLocally(cluster, { nodeId: asId<NodeId>(nodeId), role }, context)).identity;
  }

  async join(): Promise<Seat> {
    const seat = await this.node('manager');
    const remotes = this.seats.filter(({ server }) => server).map(({ address }) => address);
    await this.start(seat, { kind: 'join', remotes });
    await waitFor(
      () => seat.server?.manager.raft.status().role === 'follower',
      boundMs,
      `${seat.nodeId} votes`,
    );
    return seat;
  }

  async stop(seat: Seat, orderly = false): Promise<void> {
    const { server } = seat;
    seat.server = undefined;
    await server?.stop({ orderly });
  }

  /** Without an identity no certificate is shown. */
  channel(address: string, identity?: NodeIdentity): RpcChannel {
    const trust = { roots: this.rootsPem, serverName: 'swarm-manager' } as const;
    const channel = createChannel(address, { ...trust, ...(identity && { identity }) });
    this.#channels.push(channel);
    return channel;
  }

  async close(): Promise<void> {
    for (const channel of this.#channels) channel.close();
    for (const seat of this.seats) await this.stop(seat);
    rmSync(this.folder, { recursive: true, force: true });
  }
}
