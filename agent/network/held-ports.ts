/**
 * Published ports that are held, over IPv4 and IPv6, while rules send their connections elsewhere: nftables reserves none,
 * and a rule would take the port from whatever listens on it. In: the ports wanted. Out: those that are someone else's,
 * in words. A connection that comes here all the same (no rule stands yet) is closed.
 */
import { createSocket, type Socket } from 'node:dgram';
import { createServer, type Server } from 'node:net';
import type { PublishedPort } from './desired.ts';

type Held = Server | Socket;

export class HeldPorts {
  readonly #held = new Map<string, readonly Held[]>();
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
      for (const one of held) one.close();
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
      this.#held.set(key, await hold(port));
      this.#refused.delete(key);
      return true;
    } catch (error) {
      this.#refused.set(key, refusalOf(error, port));
      return false;
    }
  }

  /** Lets all of them go. */
  stop(): void {
    for (const one of [...this.#held.values()].flat()) one.close();
    this.#held.clear();
  }
}

export function portKey({
  protocol,
  publishedPort,
}: Pick<PublishedPort, 'protocol' | 'publishedPort'>): string {
  return `${protocol}/${publishedPort}`;
}

/**
 * Both families, each by itself: what a socket for both of them holds is a matter of the host's settings. On a host
 * without IPv6 there is nothing to hold of it.
 */
async function hold(port: PublishedPort): Promise<Held[]> {
  const one = port.protocol === 'tcp' ? holdTcp : holdUdp;
  const held = await one(port.publishedPort, false);
  try {
    return [held, await one(port.publishedPort, true)];
  } catch (error) {
    if (lacksIpv6(error)) return [held];
    held.close();
    throw error;
  }
}

function holdTcp(port: number, isIpv6: boolean): Promise<Server> {
  const server = createServer((socket) => socket.destroy());
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    const host = isIpv6 ? '::' : '0.0.0.0';
    server.listen({ port, host, ipv6Only: isIpv6, exclusive: true }, () => resolve(server));
  });
}

function holdUdp(port: number, isIpv6: boolean): Promise<Socket> {
  const socket = createSocket({ type: isIpv6 ? 'udp6' : 'udp4', ipv6Only: isIpv6 });
  return new Promise((resolve, reject) => {
    socket.once('error', (error) => {
      socket.close();
      reject(error);
    });
    const address = isIpv6 ? '::' : '0.0.0.0';
    socket.bind({ port, address, exclusive: true }, () => resolve(socket));
  });
}

/** Whether a socket could not be had for want of IPv6 on the host. */
export function lacksIpv6(error: unknown): boolean {
  return ['EAFNOSUPPORT', 'EADDRNOTAVAIL'].includes((error as NodeJS.ErrnoException).code ?? '');
}

/** Why a port can't be listened on, in words. */
export function refusalOf(error: unknown, port: Pick<PublishedPort, 'publishedPort' | 'protocol'>): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return code === 'EADDRINUSE'
    ? `port ${port.publishedPort}/${port.protocol} is held by another program on this node: end it, or publish another port`
    : `port ${port.publishedPort}/${port.protocol} can't be held: ${message}`;
}
