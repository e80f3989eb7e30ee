/**
 * Networks that are wholly there, and tasks that wait for one. In: after each round, what stands. Out: the network as a
 * container is attached to it; a wait that is too long ends with what is known of why.
 */
import { ShoalError } from '../../proto/errors.ts';
import type { Clock, Timer } from '../../proto/ports.ts';
import { bridgeName, type Desired, isIpv6, type ReadyNetwork } from './desired.ts';

/** As long as an agent waits for the managers to tell it of a network that one of its tasks is on. */
const networkTimeoutMs = 15_000;

interface Waiting {
  readonly resolve: (ready: ReadyNetwork) => void;
  readonly reject: (error: ShoalError) => void;
  readonly timer: Timer;
}

export class ReadyNetworks {
  readonly #clock: Clock;
  readonly #whyNot: (id: string) => string;
  readonly #waiting = new Map<string, Set<Waiting>>();
  readonly #ready = new Map<string, ReadyNetwork>();

  /** `whyNot`: why a network is not ready, in words. */
  constructor(clock: Clock, whyNot: (id: string) => string) {
    this.#clock = clock;
    this.#whyNot = whyNot;
  }

  /** The network of this id, once it is there. Errors: 'unavailable'. */
  wait(id: string): Promise<ReadyNetwork> {
    const ready = this.#ready.get(id);
    if (ready !== undefined) return Promise.resolve(ready);
    return new Promise((resolve, reject) => {
      const set = this.#waiting.get(id) ?? new Set();
      this.#waiting.set(id, set);
      const timer = this.#clock.after(networkTimeoutMs, () => {
        set.delete(waiting);
        reject(new ShoalError('unavailable', this.#whyNot(id)));
      });
      const waiting: Waiting = { resolve, reject, timer };
      set.add(waiting);
    });
  }

  /** `names`: network id → the engine's name for it; `bridges`: those that stand. */
  settle(desired: Desired, names: Map<string, string>, bridges: ReadonlySet<string>): void {
    for (const network of desired.networks) {
      const name = names.get(network.id);
      if (name === undefined || !bridges.has(bridgeName(network))) continue;
      const nameservers = network.gateways
        .filter((one) => !isIpv6(one))
        .map((one) => one.replace(/\/\d+$/, ''));
      this.#ready.set(network.id, { name, nameservers });
    }
    for (const id of this.#ready.keys()) {
      if (desired.networks.some((network) => network.id === id)) continue;
      this.#ready.delete(id);
      names.delete(id);
    }
    for (const [id, set] of this.#waiting) {
      const ready = this.#ready.get(id);
      if (ready === undefined) continue;
      this.#waiting.delete(id);
      for (const { resolve, timer } of set) {
        timer.cancel();
        resolve(ready);
      }
    }
  }

  /** Whoever waits is told `error`. */
  refuse(error: ShoalError): void {
    for (const set of this.#waiting.values()) {
      for (const { reject, timer } of set) {
        timer.cancel();
        reject(error);
      }
    }
    this.#waiting.clear();
  }
}
