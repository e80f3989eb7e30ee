/**
 * Where stock engines find each other: they look for the gossip of Docker's overlay at the managers' addresses, port
 * 7946, and our managers take no part in it. So a manager passes such a connection on to another stock worker; from
 * there on they know each other's addresses and talk directly. It listens only while there are stock workers, and
 * reads nothing of what passes, which is encrypted with the cluster's network keys.
 */
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { messageOf } from '../proto/errors.ts';
import type { Clock, Log, Timer } from '../proto/ports.ts';
import { dataPlaneOf } from './store/data-plane.ts';
import type { Store } from './store/store.ts';

/** The port of Docker's gossip; stock engines know no other. */
export const gossipPort = 7946;
const connectTimeoutMs = 3_000;
const retryListenMs = 30_000;

export interface GossipRelayOptions {
  readonly store: Store;
  /** Address to listen on, without a port. */
  readonly host: string;
  readonly port?: number;
  /** The port of the workers' own gossip, where it is not Docker's (in tests). */
  readonly workerPort?: number;
  readonly clock: Clock;
  readonly log: Log;
}

export class GossipRelay {
  private readonly options: GossipRelayOptions;
  private readonly sockets = new Set<Socket>();
  private readonly stopWatching: () => void;
  private server: Server | undefined;
  private retry: Timer | undefined;
  private turn = 0;
  private isStopped = false;

  constructor(options: GossipRelayOptions) {
    this.options = options;
    this.stopWatching = options.store.onCommit((commit) => {
      if (commit.kind === 'restored' || commit.events.some((event) => event.kind === 'node')) this.adjust();
    });
    this.adjust();
  }

  /** Ends everything; resolves when the port is free. */
  async stop(): Promise<void> {
    this.isStopped = true;
    this.stopWatching();
    this.retry?.cancel();
    await this.close();
  }

  /** Addresses of the stock workers that are up, those of `source` left out. */
  private workers(source: string): string[] {
    return this.options.store
      .list('node')
      .filter((node) => node.Status.State === 'ready' && dataPlaneOf(node).kind === 'docker')
      .map((node) => node.Status.Addr)
      .filter((address) => address !== '' && address !== source);
  }

  private adjust(): void {
    if (this.isStopped) return;
    const isNeeded = this.workers('').length > 0;
    if (isNeeded && !this.server && !this.retry) this.listen();
    if (!isNeeded && this.server) void this.close();
  }

  private listen(): void {
    const { host, port = gossipPort, log, clock } = this.options;
    const server = createServer((socket) => this.accept(socket));
    this.server = server;
    server.on('error', (error) => {
      log.warn(
        { address: `${host}:${port}`, error: messageOf(error) },
        'stock engines can’t find each other through this manager: their overlay networks need this port',
      );
      this.server = undefined;
      this.retry = clock.after(retryListenMs, () => {
        this.retry = undefined;
        this.adjust();
      });
    });
    server.listen(port, host);
  }

  private async close(): Promise<void> {
    const { server } = this;
    this.server = undefined;
    for (const socket of this.sockets) socket.destroy();
    if (server?.listening) await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  private accept(socket: Socket): void {
    this.hold(socket);
    const source = (socket.remoteAddress ?? '').replace(/^::ffff:/, '');
    const workers = this.workers(source);
    this.turn += 1;
    const inTurn = workers.map((_, at) => workers[(this.turn + at) % workers.length]!);
    socket.pause();
    this.pass(socket, inTurn);
  }

  /** Joins the connection to the first of `workers` that answers. */
  private pass(socket: Socket, workers: readonly string[]): void {
    const [address, ...others] = workers;
    if (address === undefined || socket.destroyed) {
      socket.destroy();
      return;
    }
    const { clock, workerPort = gossipPort } = this.options;
    const onward = createConnection({ host: address, port: workerPort });
    this.hold(onward);
    const limit = clock.after(connectTimeoutMs, () => onward.destroy(new Error('no answer')));
    const next = () => {
      limit.cancel();
      this.pass(socket, others);
    };
    onward.once('error', next);
    onward.once('connect', () => {
      limit.cancel();
      onward.off('error', next);
      socket.pipe(onward).pipe(socket);
      socket.once('close', () => onward.destroy());
      onward.once('close', () => socket.destroy());
    });
  }

  private hold(socket: Socket): void {
    this.sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.once('close', () => this.sockets.delete(socket));
  }
}
