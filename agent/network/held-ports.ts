/**
 * Published ports that are held while rules send their connections elsewhere: nftables reserves none, and a rule would
 * take the port from whatever listens on it. In: the ports wanted. Out: those that are someone else's, in words. A
 * connection that comes here all the same (no rule stands yet) is closed.
 */
import { createSocket, type Socket } from 'node:dgram';
import { createServer, type Server } from 'node:net';
import type { PublishedPort } from './desired.ts';

type Held = Server | Socket;

export class HeldPorts {
  readonly #held = new Map<string, Held>();
  readonly #refused = new Map<string, string>();
  #wanted: ReadonlyMap<string, PublishedPort> = new Map();

  /**
   * Holds exactly `ports`. Resolves with those that can't be had, as `tcp/8080`, and why. One that was refused is tried
   * again at each call.
   */
  async hold(ports: readonly PublishedPort[]): Promise<ReadonlyMap<string, string>> {
    const wanted = new Map(ports.map((port) => [portKey(port), port]));
    this.#wanted = wanted;
    this.keepOnly(ports);
    this.#refused.clear();
    for (const [key, port] of wanted) {
      if (!this.#held.has(key)) await this.#try(key, port);
    }
    return this.#refused;
  }

  /** Lets go of those that are not among `ports`. */
  keepOnly(ports: readonly PublishedPort[]): void {
    const kept = new Set(ports.map(portKey));
    for (const [key, held] of this.#held) {
      if (kept.has(key)) continue;
      this.#held.delete(key);
      held.close();
    }
  }

  /** Tries those again that were refused last. Whether one of them is held now. */
  async retry(): Promise<boolean> {
    let isOneHeld = false;
    for (const key of [...this.#refused.keys()]) {
      isOneHeld = (await this.#try(key, this.#wanted.get(key)!)) || isOneHeld;
    }
    return isOneHeld;
  }

  async #try(key: string, port: PublishedPort): Promise<boolean> {
    try {
      this.#held.set(key, await (port.protocol === 'tcp' ? holdTcp(port) : holdUdp(port)));
      this.#refused.delete(key);
      return true;
    } catch (error) {
      this.#refused.set(key, refusalOf(error, port));
      return false;
    }
  }

  /** Lets all of them go. */
  stop(): void {
    for (const held of this.#held.values()) held.close();
    this.#held.clear();
  }
}

export function portKey({
  protocol,
  publishedPort,
}: Pick<PublishedPort, 'protocol' | 'publishedPort'>): string {
  return `${protocol}/${publishedPort}`;
}

function holdTcp({ publishedPort }: PublishedPort): Promise<Server> {
  const server = createServer((socket) => socket.destroy());
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port: publishedPort, host: '0.0.0.0', exclusive: true }, () => resolve(server));
  });
}

function holdUdp({ publishedPort }: PublishedPort): Promise<Socket> {
  const socket = createSocket('udp4');
  return new Promise((resolve, reject) => {
    socket.once('error', (error) => {
      socket.close();
      reject(error);
    });
    socket.bind({ port: publishedPort, address: '0.0.0.0', exclusive: true }, () => resolve(socket));
  });
}

/** Why a port can't be listened on, in words. */
export function refusalOf(error: unknown, port: Pick<PublishedPort, 'publishedPort' | 'protocol'>): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return code === 'EADDRINUSE'
    ? `port ${port.publishedPort}/${port.protocol} is held by another program on this node: end it, or publish another port`
    : `port ${port.publishedPort}/${port.protocol} can't be held: ${message}`;
}
