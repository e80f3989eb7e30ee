/**
 * A proxy for published ports, for nodes where the kernel has no rules for them. In: ports and where new connections to
 * each go. Out: connections passed on, to each target in turn, byte by byte, half-closed ones too; one whose target does
 * not answer goes to the next, for nothing of it was sent yet. What was passed on stays with its target until it ends.
 */
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import type { Clock } from '../../proto/ports.ts';
import { refusalOf } from './held-ports.ts';
import type { ProxyTarget } from './proxied.ts';

const connectTimeoutMs = 2_000;
/** As long as a change waits for connections that are on their way to who takes no more. */
const attemptTimeoutMs = 1_000;
const keepAliveMs = 60_000;

interface Listener {
  readonly server: Server;
  targets: readonly ProxyTarget[];
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
  #passedOn = 0;
  #refused = 0;

  /** `host`: the address to listen on. */
  constructor(clock: Clock, host = '0.0.0.0') {
    this.#clock = clock;
    this.#host = host;
  }

  /** Connections since the start: those that a target took, and those that none did. */
  get figures(): { readonly passedOn: number; readonly refused: number } {
    return { passedOn: this.#passedOn, refused: this.#refused };
  }

  /**
   * New connections go to exactly `ports` from now on. Resolves when none is on its way to anybody else, with the ports
   * that can't be listened on, and why.
   */
  async become(ports: ReadonlyMap<number, readonly ProxyTarget[]>): Promise<ReadonlyMap<number, string>> {
    for (const [port, listener] of this.#listeners) {
      listener.targets = ports.get(port) ?? [];
      const stay = new Set(listener.targets.map(({ taskId }) => taskId));
      for (const taskId of listener.credits.keys()) if (!stay.has(taskId)) listener.credits.delete(taskId);
      if (ports.has(port)) continue;
      this.#listeners.delete(port);
      listener.server.close();
    }
    const refused = new Map<number, string>();
    for (const [port, targets] of ports) {
      if (this.#listeners.has(port)) continue;
      try {
        this.#listeners.set(port, await this.#listen(port, targets));
      } catch (error) {
        refused.set(port, refusalOf(error, { publishedPort: port, protocol: 'tcp' }));
      }
    }
    await this.#attemptsToOthers();
    return refused;
  }

  /** Ends every connection and listens no more. */
  stop(): void {
    for (const { server } of this.#listeners.values()) server.close();
    this.#listeners.clear();
    for (const socket of this.#open) socket.destroy();
  }

  #listen(port: number, targets: readonly ProxyTarget[]): Promise<Listener> {
    const server = createServer({ allowHalfOpen: true, keepAlive: true, keepAliveInitialDelay: keepAliveMs });
    const listener: Listener = { server, targets, credits: new Map() };
    server.on('connection', (socket) => void this.#pass(socket, listener));
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen({ port, host: this.#host, exclusive: true }, () => {
        // A process that has no file left for a connection goes on with those that it has.
        server.off('error', reject);
        server.on('error', () => {});
        resolve(listener);
      });
    });
  }

  async #pass(client: Socket, listener: Listener): Promise<void> {
    this.#track(client);
    const tried = new Set<string>();
    for (;;) {
      const target = nextOf(listener, tried);
      if (target === undefined) {
        this.#refused += 1;
        client.resetAndDestroy();
        return;
      }
      tried.add(target.taskId);
      const done = this.#connect(target);
      const attempt: Attempt = { listener, taskId: target.taskId, done };
      this.#attempts.add(attempt);
      const upstream = await done;
      this.#attempts.delete(attempt);
      if (client.destroyed) {
        upstream?.destroy();
        return;
      }
      if (upstream === undefined) continue;
      this.#passedOn += 1;
      this.#track(upstream);
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

  async #attemptsToOthers(): Promise<void> {
    const others = [...this.#attempts].filter(
      ({ listener, taskId }) => !listener.targets.some((target) => target.taskId === taskId),
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
}

/**
 * The next target that was not tried yet, each as often as its weight says and as evenly as that goes: each gains its
 * weight, the one with the most is taken and gives back what all gained.
 */
function nextOf({ targets, credits }: Listener, tried: ReadonlySet<string>): ProxyTarget | undefined {
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
