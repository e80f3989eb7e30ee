/**
 * Which manager to try next. In: the managers' own list, what worked and what failed, hints of who leads. Out: one
 * address at a time. Managers that failed least are tried first, and among those a weighted draw spreads agents.
 */
import type { Random } from '../proto/ports.ts';
import type { RememberedManager } from './journal.ts';

const defaultWeight = 1;

export class Remotes {
  readonly #random: Random;
  #managers: readonly RememberedManager[];
  /** Address → how often it failed since it last worked. */
  readonly #failures = new Map<string, number>();
  #hint: string | undefined;

  /** `addresses` are host:port; an empty list waits for a hint. */
  constructor(random: Random, addresses: readonly string[]) {
    this.#random = random;
    this.#managers = [...new Set(addresses)].map((address) => ({
      nodeId: '',
      address,
      weight: defaultWeight,
    }));
  }

  /** The managers as last heard of. */
  list(): readonly RememberedManager[] {
    return this.#managers;
  }

  /** The managers' own list replaces what was known; an empty one says nothing. */
  replace(managers: readonly RememberedManager[]): void {
    if (managers.length === 0) return;
    this.#managers = managers;
    const known = new Set(managers.map(({ address }) => address));
    for (const address of [...this.#failures.keys()]) if (!known.has(address)) this.#failures.delete(address);
  }

  /** Someone who should know says that this manager leads: it is tried next, once. */
  hint(address: string): void {
    this.#hint = address;
    this.#failures.delete(address);
  }

  failed(address: string): void {
    this.#failures.set(address, (this.#failures.get(address) ?? 0) + 1);
  }

  worked(address: string): void {
    this.#failures.delete(address);
  }

  /** The address to try now; undefined while none is known. */
  pick(): string | undefined {
    const hint = this.#hint;
    this.#hint = undefined;
    if (hint !== undefined) return hint;
    const failuresOf = ({ address }: RememberedManager): number => this.#failures.get(address) ?? 0;
    const least = Math.min(...this.#managers.map(failuresOf));
    const candidates = this.#managers.filter((manager) => failuresOf(manager) === least);
    const weightOf = ({ weight }: RememberedManager): number => Math.max(1, weight);
    let draw = this.#random.float() * candidates.reduce((sum, manager) => sum + weightOf(manager), 0);
    for (const manager of candidates) {
      draw -= weightOf(manager);
      if (draw < 0) return manager.address;
    }
    return candidates.at(-1)?.address;
  }
}
