/**
 * The network between the machines of a simulated cluster. Datagrams may be lost, doubled, overtaken; calls and
 * streams keep their order, as over TCP, and break when the way is cut for longer than a keepalive. A cut has a
 * direction.
 */
import { ShoalError } from '../../proto/errors.ts';
import type { Random } from '../../proto/ports.ts';
import type { VirtualClock } from './clock.ts';
import type { SimulatedProcess } from './process.ts';

/** How long a connection lives on a way that is cut. */
const keepaliveMs = 2_000;
const retransmitMs = 200;

export interface Weather {
  /** [least, most) of one way. */
  readonly delayMs: readonly [number, number];
  readonly lossRate: number;
  readonly duplicateRate: number;
  /** The share of datagrams that others overtake. */
  readonly reorderRate: number;
}

export const calm: Weather = { delayMs: [0.2, 1], lossRate: 0, duplicateRate: 0, reorderRate: 0 };

/** A process on a machine: one end of a connection. */
export interface Endpoint {
  readonly machine: string;
  readonly process: SimulatedProcess;
}

export class Network {
  weather: Weather = calm;
  readonly #clock: VirtualClock;
  readonly #random: Random;
  /** `from>to` → when it was cut. */
  readonly #cuts = new Map<string, number>();
  /** `from>to` → when it was last put right. */
  readonly #healed = new Map<string, number>();
  readonly #streams = new Set<StreamPipe<never>>();

  constructor(clock: VirtualClock, random: Random) {
    this.#clock = clock;
    this.#random = random;
  }

  isCut(from: string, to: string): boolean {
    return from !== to && this.#cuts.has(`${from}>${to}`);
  }

  /** Nothing gets from `from` to `to` any more. */
  cut(from: string, to: string): void {
    const way = `${from}>${to}`;
    if (this.#cuts.has(way)) return;
    const sinceMs = this.#clock.monotonicMs();
    this.#cuts.set(way, sinceMs);
    this.#clock.after(keepaliveMs, () => {
      if (this.#cuts.get(way) !== sinceMs) return;
      for (const stream of [...this.#streams]) if (stream.uses(from, to)) stream.breakDown();
    });
  }

  heal(from: string, to: string): void {
    const way = `${from}>${to}`;
    if (this.#cuts.delete(way)) this.#healed.set(way, this.#clock.monotonicMs());
  }

  healAll(): void {
    for (const way of this.#cuts.keys()) this.#healed.set(way, this.#clock.monotonicMs());
    this.#cuts.clear();
  }

  /** Whether something that was under way from `from` to `to` may be waited for in vain still: it is cut, or was. */
  isUnsettled(from: string, to: string): boolean {
    const healedAtMs = this.#healed.get(`${from}>${to}`) ?? Number.NEGATIVE_INFINITY;
    return this.isCut(from, to) || this.#clock.monotonicMs() - healedAtMs <= keepaliveMs;
  }

  /** One way's delay of a datagram, or undefined when it is lost. */
  datagram(from: string, to: string, arrive: () => void): boolean {
    const { lossRate, duplicateRate, reorderRate } = this.weather;
    if (this.isCut(from, to) || this.#random.float() < lossRate) return false;
    const copies = this.#random.float() < duplicateRate ? 2 : 1;
    for (let copy = 0; copy < copies; copy += 1) {
      const late = this.#random.float() < reorderRate ? this.#random.float() * 50 : 0;
      this.#clock.after(this.delayMs(from, to) + late, () => {
        if (!this.isCut(from, to)) arrive();
      });
    }
    return true;
  }

  /** Brings something over an established connection. `lost` when the connection broke instead. */
  carry(from: string, to: string, arrive: () => void, lost: () => void): void {
    const again = this.#random.float() < this.weather.lossRate ? retransmitMs : 0;
    this.#clock.after(this.delayMs(from, to) + again, () => {
      if (!this.isCut(from, to)) arrive();
      else this.#clock.after(keepaliveMs, lost);
    });
  }

  delayMs(from: string, to: string): number {
    const [least, most] = from === to ? calm.delayMs : this.weather.delayMs;
    return least + this.#random.float() * (most - least);
  }

  /**
   * A call from `client` to whatever process `serverAt` finds on machine `to` when it arrives. Rejects with
   * 'unavailable' when there is none or the connection breaks, 'timeout' after `timeoutMs`.
   */
  call<Server extends Endpoint, T>(
    client: Endpoint,
    to: string,
    serverAt: () => Server | undefined,
    timeoutMs: number,
    work: (server: Server) => T | Promise<T>,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const { process, machine } = client;
      let isOver = false;
      const finish = (settle: () => void): void =>
        process.run(() => {
          if (isOver) return;
          isOver = true;
          timer.cancel();
          settle();
        });
      const broken = (): void => finish(() => reject(connectionBroke()));
      const timer = process.after(timeoutMs, () =>
        finish(() => reject(new ShoalError('timeout', 'deadline exceeded'))),
      );
      const answer = (settle: () => void): void => this.carry(to, machine, () => finish(settle), broken);
      this.carry(
        machine,
        to,
        () => {
          const server = serverAt();
          if (server === undefined) {
            answer(() => reject(connectionRefused()));
            return;
          }
          server.process.onDeath(() => answer(() => reject(connectionBroke())));
          server.process.run(() => {
            Promise.resolve()
              .then(() => work(server))
              .then(
                (value) => answer(() => resolve(value)),
                (error: unknown) => answer(() => reject(error)),
              );
          });
        },
        broken,
      );
    });
  }

  track(stream: StreamPipe<never>): void {
    this.#streams.add(stream);
  }

  forget(stream: StreamPipe<never>): void {
    this.#streams.delete(stream);
  }

  get clock(): VirtualClock {
    return this.#clock;
  }
}

export interface PipeEvents<Message> {
  onMessage(message: Message): void;
  onEnd(error: ShoalError | undefined): void;
}

/** A server stream: messages in order from a server to a client, until one of them, or the way, gives up. */
export class StreamPipe<Message> {
  readonly #network: Network;
  readonly #client: Endpoint;
  readonly #to: string;
  readonly #events: PipeEvents<Message>;
  #lastArrivalMs = 0;
  #isOverForClient = false;
  #isOverForServer = false;
  #closeServer: (() => void) | undefined;

  constructor(network: Network, client: Endpoint, to: string, events: PipeEvents<Message>) {
    this.#network = network;
    this.#client = client;
    this.#to = to;
    this.#events = events;
    network.track(this as StreamPipe<never>);
    client.process.onDeath(() => this.cancel());
  }

  uses(from: string, to: string): boolean {
    const { machine } = this.#client;
    return (from === machine && to === this.#to) || (from === this.#to && to === machine);
  }

  /** The server's end: what it does when the client's end is gone. */
  accept(server: Endpoint, close: () => void): void {
    if (this.#isOverForServer) {
      close();
      return;
    }
    this.#closeServer = () => server.process.run(close);
    server.process.onDeath(() => {
      this.#isOverForServer = true;
      this.#network.carry(
        this.#to,
        this.#client.machine,
        () => this.#endClient(connectionBroke()),
        () => {},
      );
    });
  }

  /** From the server. Resolves when there is room for more. */
  send(message: Message): Promise<void> {
    return new Promise((resolve) =>
      this.#inOrder(() => {
        resolve();
        this.#client.process.run(() => {
          if (!this.#isOverForClient) this.#events.onMessage(message);
        });
      }, resolve),
    );
  }

  /** From the server: no more comes. */
  end(error?: ShoalError): void {
    this.#isOverForServer = true;
    this.#inOrder(
      () => this.#endClient(error),
      () => {},
    );
  }

  /** From the client: it wants no more. */
  cancel(): void {
    if (this.#isOverForClient) return;
    this.#isOverForClient = true;
    const { machine } = this.#client;
    this.#network.carry(
      machine,
      this.#to,
      () => this.#endServer(),
      () => this.#endServer(),
    );
  }

  /** The connection is gone. */
  breakDown(): void {
    this.#endServer();
    this.#endClient(connectionBroke());
  }

  #inOrder(arrive: () => void, lost: () => void): void {
    const { clock } = this.#network;
    const nowMs = clock.monotonicMs();
    const arrivalMs = Math.max(
      this.#lastArrivalMs,
      nowMs + this.#network.delayMs(this.#to, this.#client.machine),
    );
    this.#lastArrivalMs = arrivalMs;
    clock.after(arrivalMs - nowMs, () => {
      if (!this.#network.isCut(this.#to, this.#client.machine)) arrive();
      else {
        lost();
        clock.after(keepaliveMs, () => this.breakDown());
      }
    });
  }

  #endClient(error: ShoalError | undefined): void {
    this.#network.forget(this as StreamPipe<never>);
    this.#client.process.run(() => {
      if (this.#isOverForClient) return;
      this.#isOverForClient = true;
      this.#events.onEnd(error);
    });
  }

  #endServer(): void {
    this.#network.forget(this as StreamPipe<never>);
    if (this.#isOverForServer) return;
    this.#isOverForServer = true;
    this.#closeServer?.();
  }
}

export function connectionBroke(): ShoalError {
  return new ShoalError('unavailable', 'the connection broke');
}

export function connectionRefused(): ShoalError {
  return new ShoalError('unavailable', 'connection refused');
}
