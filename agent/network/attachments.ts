/**
 * Containers of this node that are no tasks, on networks of the cluster that allow it. In: wishes for such a container,
 * the managers' word of them, what containers the engine has. Out: what is asked of the managers, whole each time, and to
 * who wished the engine's network with the addresses. What there is is learned from the managers' first word, for this
 * process may have been started anew; what no container has any more is asked for no longer.
 */
import { BlockList } from 'node:net';
import { isErrorCode, messageOf, ShoalError } from '../../proto/errors.ts';
import type { Attachment } from '../../proto/generated/shoal/v1/Attachment.ts';
import type { AttachmentRequest } from '../../proto/generated/shoal/v1/AttachmentRequest.ts';
import type { Clock, Log, Random, Timer } from '../../proto/ports.ts';
import { type Desired, isIpv6, type ReadyNetwork } from './desired.ts';

const answerTimeoutMs = 10_000;
const lookEveryMs = 10_000;
/** Between the managers' word and the container that is made with it. */
const makingMs = 120_000;
const idBytes = 12;

export interface AttachmentsOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** The network on this node, once packets pass on it. Errors: 'unavailable'. */
  readonly ready: (networkId: string) => Promise<ReadyNetwork>;
  /** What is asked for changed. */
  readonly onChange: () => void;
  /** Addresses that the engine's containers have or will have again, without prefix. */
  readonly addressesInUse: () => Promise<ReadonlySet<string>>;
}

/** A network for one container. */
export interface ContainerNetwork extends ReadyNetwork {
  /** CIDR form. */
  readonly addresses: readonly string[];
  /** The container is there, and has the address until it is gone. */
  made(): void;
  /** The container was not made. */
  release(): void;
}

interface Wanted {
  readonly request: AttachmentRequest;
  readonly sinceMs: number;
  addresses: readonly string[];
  isSeen: boolean;
  settle: ((word: Attachment) => void) | undefined;
}

export class Attachments {
  readonly #options: AttachmentsOptions;
  readonly #wanted = new Map<string, Wanted>();
  #isKnown = false;
  #timer: Timer | undefined;

  constructor(options: AttachmentsOptions) {
    this.#options = options;
  }

  /** Looks from time to time which containers are still there. */
  start(): void {
    this.#timer = this.#options.clock.after(lookEveryMs, () => {
      void this.look().finally(() => {
        if (this.#timer !== undefined) this.start();
      });
    });
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  /** What the managers are asked for; undefined before it is known which there are. */
  requests(): AttachmentRequest[] | undefined {
    return this.#isKnown ? [...this.#wanted.values()].map(({ request }) => request) : undefined;
  }

  /**
   * A network (id or name) for a container that others find by `names`. Errors: 'not-found' when there is no such
   * network, 'permission-denied' when it does not allow it, 'unavailable' without managers, and the managers' own.
   */
  async attach(network: string, names: readonly string[]): Promise<ContainerNetwork> {
    const { clock, random, ready, onChange } = this.#options;
    const id = Buffer.from(random.bytes(idBytes)).toString('hex');
    const word = await new Promise<Attachment>((resolve, reject) => {
      const timer = clock.after(answerTimeoutMs, () => {
        this.#release(id);
        reject(
          new ShoalError(
            'unavailable',
            `no manager said within ${answerTimeoutMs / 1000} s which address a container on network ${network} has`,
          ),
        );
      });
      const settle = (given: Attachment): void => {
        timer.cancel();
        resolve(given);
      };
      const request = { id, network, names: [...names] };
      const sinceMs = clock.monotonicMs();
      this.#wanted.set(id, { request, sinceMs, addresses: [], isSeen: false, settle });
      onChange();
    });
    try {
      if (word.problem) {
        const code = word.problem_code ?? '';
        throw new ShoalError(isErrorCode(code) ? code : 'failed-precondition', word.problem);
      }
      const { name, nameservers } = await ready(word.network_id ?? '');
      return {
        name,
        nameservers,
        addresses: word.addresses ?? [],
        made: () => this.#see(id),
        release: () => this.#release(id),
      };
    } catch (error) {
      this.#release(id);
      throw error;
    }
  }

  /** What the managers say of all that they know of. */
  answered(words: readonly Attachment[]): void {
    for (const word of words) {
      const { id = '', network_id: network = '', addresses = [], problem = '' } = word;
      if (!this.#isKnown && !this.#wanted.has(id) && addresses.length > 0) {
        const sinceMs = this.#options.clock.monotonicMs();
        const request = { id, network, names: [] };
        this.#wanted.set(id, { request, sinceMs, addresses, isSeen: true, settle: undefined });
      }
      const wanted = this.#wanted.get(id);
      if (wanted === undefined) continue;
      wanted.addresses = addresses;
      if (addresses.length === 0 && problem === '') continue;
      wanted.settle?.(word);
      wanted.settle = undefined;
    }
    if (this.#isKnown) return;
    this.#isKnown = true;
    this.#options.onChange();
  }

  /** Asks no longer for what no container has. While the engine can't tell, everything stays. */
  async look(): Promise<void> {
    const { clock, log, addressesInUse } = this.#options;
    if (this.#wanted.size === 0) return;
    try {
      const used = await addressesInUse();
      for (const [id, wanted] of this.#wanted) {
        if (wanted.addresses.some((address) => used.has(address.replace(/\/\d+$/, '')))) {
          wanted.isSeen = true;
        } else if (wanted.isSeen || clock.monotonicMs() - wanted.sinceMs > makingMs) {
          this.#release(id);
        }
      }
    } catch (error) {
      log.debug({ reason: messageOf(error) }, 'which containers are on networks is not known now');
    }
  }

  #see(id: string): void {
    const wanted = this.#wanted.get(id);
    if (wanted !== undefined) wanted.isSeen = true;
  }

  #release(id: string): void {
    if (this.#wanted.delete(id)) this.#options.onChange();
  }
}

/** Whether one of the engine's containers, a task's or another, has an address on a network; true while that can't be told. */
export async function holdsContainers(
  { networks }: Desired,
  addressesInUse: AttachmentsOptions['addressesInUse'],
): Promise<boolean> {
  const subnets = new BlockList();
  for (const subnet of networks.flatMap((network) => network.subnets)) {
    const [address = '', prefix] = subnet.split('/');
    subnets.addSubnet(address, Number(prefix), familyOf(address));
  }
  try {
    return [...(await addressesInUse())].some((address) => subnets.check(address, familyOf(address)));
  } catch {
    return true;
  }
}

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return isIpv6(address) ? 'ipv6' : 'ipv4';
}
