/**
 * Networks that are wholly there, and who waits for one. In: what a round of the data plane found. Out: each network as a
 * task's container is attached to it, as soon as it is there; else, after a while, why it is not.
 */
import { ShoalError } from '../../proto/errors.ts';
import type { Clock, Timer } from '../../proto/ports.ts';
import { bridgeName, type Desired, type DesiredNetwork, isIpv6, type ReadyNetwork } from './desired.ts';

/** As long as an agent waits for the managers to tell it of a network that one of its tasks is on. */
const networkTimeoutMs = 15_000;

/** What could not be done, and of which network; of none: of the node. */
export interface Problem {
  readonly message: string;
  readonly networkId?: string;
  /** The engine answered, and said no. */
  readonly isRefused?: boolean;
}

interface Settled extends ReadyNetwork {
  /** This node's addresses on it when it was made. */
  readonly gateways: readonly string[];
}

interface Waiting {
  readonly resolve: (ready: ReadyNetwork) => void;
  readonly reject: (error: ShoalError) => void;
  readonly timer: Timer;
}

export class ReadyNetworks {
  readonly #clock: Clock;
  readonly #whyNot: (id: string) => ShoalError;
  readonly #waiting = new Map<string, Set<Waiting>>();
  readonly #ready = new Map<string, Settled>();
  readonly #wanted: (id: string) => DesiredNetwork | undefined;

  /** `wanted`: a network as it is to be now; `whyNot`: why the network of an id is not there yet. */
  constructor(
    clock: Clock,
    wanted: (id: string) => DesiredNetwork | undefined,
    whyNot: (id: string) => ShoalError,
  ) {
    this.#clock = clock;
    this.#wanted = wanted;
    this.#whyNot = whyNot;
  }

  /** The network, once it is there. Errors: those of `whyNot`. */
  wait(id: string): Promise<ReadyNetwork> {
    const ready = this.#asWanted(id);
    if (ready !== undefined) return Promise.resolve(ready);
    return new Promise((resolve, reject) => {
      const set = this.#waiting.get(id) ?? new Set();
      this.#waiting.set(id, set);
      const timer = this.#clock.after(networkTimeoutMs, () => {
        set.delete(waiting);
        reject(this.#whyNot(id));
      });
      const waiting: Waiting = { resolve, reject, timer };
      set.add(waiting);
    });
  }

  /** A round is over. `names`: network id → the engine's name for it; `bridges`: those that are there. */
  settle(desired: Desired, names: ReadonlyMap<string, string>, bridges: ReadonlySet<string>): void {
    for (const network of desired.networks) {
      const name = names.get(network.id);
      if (name === undefined || !bridges.has(bridgeName(network))) continue;
      const nameservers = network.gateways
        .filter((one) => !isIpv6(one))
        .map((one) => one.replace(/\/\d+$/, ''));
      this.#ready.set(network.id, { name, nameservers, gateways: network.gateways });
    }
    for (const id of this.#ready.keys()) {
      if (desired.networks.some((network) => network.id === id)) continue;
      this.#ready.delete(id);
    }
    for (const [id, set] of this.#waiting) {
      const ready = this.#asWanted(id);
      if (ready === undefined) continue;
      this.#waiting.delete(id);
      for (const { resolve, timer } of set) {
        timer.cancel();
        resolve(ready);
      }
    }
  }

  /**
   * The network, if it is there as it is to be now: one that went and came again has other addresses of this node, and a
   * container with the former ones would ask for names where nobody answers, for as long as it lives.
   */
  #asWanted(id: string): ReadyNetwork | undefined {
    const ready = this.#ready.get(id);
    const wanted = this.#wanted(id);
    if (ready === undefined || wanted === undefined) return undefined;
    const { gateways, ...network } = ready;
    return gateways.join() === wanted.gateways.join() ? network : undefined;
  }

  /** Nobody waits any more. */
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

/**
 * Why a network is not there: 'failed-precondition' when the engine refuses it, for then waiting here does not help, and
 * else 'unavailable'. The error's details name the network.
 */
export function whyNotReady(id: string, desired: Desired, problems: readonly Problem[]): ShoalError {
  const details = { network: id };
  const known = desired.networks.find((network) => network.id === id);
  if (known === undefined) {
    const words = `the managers have not told this node of network ${id} yet`;
    return new ShoalError('unavailable', words, { details });
  }
  const refusals = problems.filter(({ networkId, isRefused }) => networkId === id && isRefused);
  if (refusals.length > 0) {
    const words = refusals.map(({ message }) => message).join('; ');
    return new ShoalError('failed-precondition', `${words}; no task on it can run on this node`, { details });
  }
  const reasons = problems.map(({ message }) => message).join('; ') || 'it is being made';
  const words = `network ${known.name} is not ready on this node: ${reasons}`;
  return new ShoalError('unavailable', words, { details });
}
