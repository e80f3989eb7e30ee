/**
 * A proxy for published ports that the kernel has no rules for. In: ports and where new connections to
 * each go. Out: connections passed on, to each target in turn, byte by byte, half-closed ones too, behind a header that
 * names the client where that is wanted; one whose target does not answer goes to the next, for nothing of it was sent
 * yet. What was passed on stays with its target until it ends.
 */
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import type { Clock } from '../../proto/ports.ts';
import { lacksIpv6, refusalOf } from './held-ports.ts';
import { bothFamilies, type ListeningPort, type ProxiedPort, type ProxyTarget } from './proxied.ts';
import { proxyHeader, type Side } from './proxy-header.ts';

const connectTimeoutMs = 2_000;
/** As long as a change waits for connections that are on their way to who takes no more. */
const attemptTimeoutMs = 1_000;
const keepAliveMs = 60_000;
const ipv4Alone = '0.0.0.0';

interface Listener {
  readonly server: Server;
  readonly host: string;
  port: ProxiedPort;
  /** Task id → what it has gained of turns; see nextOf. */
  readonly credits: Map<string, number>;
}

/** A connection on its way to a target. */
interface Attempt {
  readonly listener: Listener;
  readonly taskId: string;
  readonly done: Promise<unknown>;
}

export class TcpProxy {
  readonly #clock: Clock;
  readonly #host: string;
  readonly #listeners = new Map<number, Listener>();
  readonly #attempts = new Set<Attempt>();
  readonly #open = new Set<Socket>();
  readonly #held = new Map<number, string>();
  #wanted: ReadonlyMap<number, ProxiedPort> = new Map();
  #passedOn = 0;
  #refused = 0;

  /** `host`: the address to listen on; `bothFamilies` is IPv4 alone on a host without IPv6. */
  constructor(clock: Clock, host = ipv4Alone) {
    this.#clock = clock;
    this.#host = host;
  }

  /** Connections since the start: those that a target took, and those that none did. */
  get figures(): { readonly passedOn: number; readonly refused: number } {
    return { passedOn: this.#passedOn, refused: this.#refused };
  }

  /** The ports that it listens on. */
  get listening(): ReadonlyMap<number, ListeningPort> {
    return new Map([...this.#listeners].map(([port, { port: one, host }]) => [port, { ...one, host }]));
  }

  /**
   * New connections go to exactly `ports` from now on. Resolves when none is on its way to anybody else, with the ports
   * that can't be listened on, and why.
   */
  async become(ports: ReadonlyMap<number, ProxiedPort>): Promise<ReadonlyMap<number, string>> {
    const refused = await this.take(ports);
    await this.settled();
    return refused;
  }

  /** As become, but does not wait for connections that are on their way; calls must not overlap. */
  async take(ports: ReadonlyMap<number, ProxiedPort>): Promise<ReadonlyMap<number, string>> {
    this.#wanted = ports;
    for (const [port, listener] of this.#listeners) {
      listener.port = ports.get(port) ?? { ...listener.port, targets: [] };
      const stay = new Set(listener.port.targets.map(({ taskId }) => taskId));
      for (const taskId of listener.credits.keys()) if (!stay.has(taskId)) listener.credits.delete(taskId);
      if (ports.has(port)) continue;
      this.#listeners.delete(port);
      listener.server.close();
    }
    this.#held.clear();
    for (const port of ports.keys()) if (!this.#listeners.has(port)) await this.#try(port);
    return this.#held;
  }

  /** Tries those ports again that were someone else's. Whether one of them is listened on now. */
  async retry(): Promise<boolean> {
    let isOneTaken = false;
    for (const port of [...this.#held.keys()]) isOneTaken = (await this.#try(port)) || isOneTaken;
    return isOneTaken;
  }

  /** Resolves when no connection is on its way to who takes no more, or that takes too long to be waited for. */
  async settled(): Promise<void> {
    const others = [...this.#attempts].filter(
      ({ listener, taskId }) => !listener.port.targets.some((target) => target.taskId === taskId),
    );
    if (others.length === 0) return;
    await new Promise<void>((resolve) => {
      const timer = this.#clock.after(attemptTimeoutMs, resolve);
      void Promise.all(others.map(({ done }) => done)).then(() => {
        timer.cancel();
        resolve();
      });
    });
  }

  /** Ends every connection and listens no more. */
  stop(): void {
    for (const { server } of this.#listeners.values()) server.close();
    this.#listeners.clear();
    for (const socket of this.#open) socket.destroy();
  }

  async #try(port: number): Promise<boolean> {
    const wanted = this.#wanted.get(port)!;
    try {
      this.#listeners.set(port, await this.#listen(port, wanted, this.#host));
      this.#held.delete(port);
      return true;
    } catch (error) {
      this.#held.set(port, refusalOf(error, { publishedPort: port, protocol: 'tcp' }));
      return false;
    }
  }

  #listen(number: number, port: ProxiedPort, host: string): Promise<Listener> {
    const server = createServer({ allowHalfOpen: true, keepAlive: true, keepAliveInitialDelay: keepAliveMs });
    const listener: Listener = { server, host, port, credits: new Map() };
    server.on('connection', (socket) => void this.#pass(socket, listener));
    return new Promise((resolve, reject) => {
      server.once('error', (error) => {
        if (host === bothFamilies && lacksIpv6(error)) resolve(this.#listen(number, port, ipv4Alone));
        else reject(error);
      });
      server.listen({ port: number, host, exclusive: true }, () => {
        // A process that has no file left for a connection goes on with those that it has.
        server.removeAllListeners('error');
        server.on('error', () => {});
        resolve(listener);
      });
    });
  }

  async #pass(client: Socket, listener: Listener): Promise<void> {
    this.#track(client);
    const sides = sidesOf(client);
    const tried = new Set<string>();
    for (;;) {
      const target = nextOf(listener, tried);
      if (target === undefined) {
        this.#refused += 1;
        client.resetAndDestroy();
        return;
      }
      tried.add(target.taskId);
      const { tellsClient } = listener.port;
      const done = this.#connect(target);
      const attempt: Attempt = { listener, taskId: target.taskId, done };
      this.#attempts.add(attempt);
      const upstream = await done;
      this.#attempts.delete(attempt);
      if (client.destroyed || sides === undefined) {
        upstream?.destroy();
        client.destroy();
        return;
      }
      if (upstream === undefined) continue;
      this.#passedOn += 1;
      this.#track(upstream);
      if (tellsClient) upstream.write(proxyHeader(...sides));
      join(client, upstream);
      join(upstream, client);
      return;
    }
  }

  /** Undefined: the target did not take it. */
  #connect({ address, port }: ProxyTarget): Promise<Socket | undefined> {
    return new Promise((resolve) => {
      const socket = createConnection({ host: address, port, allowHalfOpen: true, noDelay: true });
      socket.setKeepAlive(true, keepAliveMs);
      const finish = (outcome: Socket | undefined): void => {
        timer.cancel();
        if (outcome === undefined) socket.destroy();
        resolve(outcome);
      };
      const timer = this.#clock.after(connectTimeoutMs, () => finish(undefined));
      socket.once('error', () => finish(undefined));
      socket.once('connect', () => finish(socket));
    });
  }

  #track(socket: Socket): void {
    this.#open.add(socket);
    socket.setNoDelay(true);
    socket.on('error', () => {});
    socket.once('close', () => this.#open.delete(socket));
  }
}

/**
 * The next target that was not tried yet, each as often as its weight says and as evenly as that goes: each gains its
 * weight, the one with the most is taken and gives back what all gained.
 */
function nextOf(
  { port: { targets }, credits }: Listener,
  tried: ReadonlySet<string>,
): ProxyTarget | undefined {
  const open = targets.filter(({ taskId }) => !tried.has(taskId));
  let best: ProxyTarget | undefined;
  let gained = 0;
  const creditOf = ({ taskId }: ProxyTarget) => credits.get(taskId) ?? 0;
  for (const target of open) {
    const { taskId, weight = 1 } = target;
    gained += weight;
    credits.set(taskId, creditOf(target) + weight);
    if (best === undefined || creditOf(target) > creditOf(best)) best = target;
  }
  if (best !== undefined) credits.set(best.taskId, creditOf(best) - gained);
  return best;
}

/** What comes from one goes to the other, its end and its failure, too. */
function join(from: Socket, to: Socket): void {
  from.pipe(to);
  from.once('error', () => to.resetAndDestroy());
}

/** The client and what it asked; undefined: it is gone. */
function sidesOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): [Side, Side] | undefined {
  if (remoteAddress === undefined || remotePort === undefined) return undefined;
  if (localAddress === undefined || localPort === undefined) return undefined;
  return [
    { address: remoteAddress, port: remotePort },
    { address: localAddress, port: localPort },
  ];
}
