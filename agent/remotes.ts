/**
 * Which manager to try next. In: the managers' own list, what worked and what failed, hints of who leads. Out: one
 * address at a time. Managers that failed least are tried first, and among those a weighted draw spreads agents.
 */
import type { Random } from '../proto/ports.ts';
import type { RememberedManager } from './journal.ts';

const defaultWeight = 1;
/** After so many failures of every manager in the list, those that were in it before are tried too. */
const patience = 3;
const mostFormer = 8;

export class Remotes {
  readonly #random: Random;
  #managers: readonly RememberedManager[];
  /** Managers of earlier lists: the last resort of a node that was away while all managers changed. */
  #former: readonly RememberedManager[] = [];
  /** Address → how often it failed since it last worked. */
  readonly #failures = new Map<string, number>();
  #hint: string | undefined;
  #lastHint: string | undefined;

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

  /** Addresses of everyone who may be a manager: as last heard of, hinted at last, and of earlier lists, in this order. */
  addresses(): readonly string[] {
    const hinted = this.#lastHint === undefined ? [] : [this.#lastHint];
    const ofLists = (managers: readonly RememberedManager[]) => managers.map(({ address }) => address);
    return [...new Set([...ofLists(this.#managers), ...hinted, ...ofLists(this.#former)])];
  }

  /** The managers' own list replaces what was known; an empty one says nothing. */
  replace(managers: readonly RememberedManager[]): void {
    if (managers.length === 0) return;
    const current = new Set(managers.map(({ address }) => address));
    const former = [...this.#managers, ...this.#former].filter(({ address }) => !current.has(address));
    this.#former = former
      .filter(({ address }, index) => former.findIndex((other) => other.address === address) === index)
      .slice(0, mostFormer);
    this.#managers = managers;
    const known = new Set([...managers, ...this.#former].map(({ address }) => address));
    for (const address of [...this.#failures.keys()]) if (!known.has(address)) this.#failures.delete(address);
  }

  /** Someone who should know says that this manager leads: it is tried next, once. */
  hint(address: string): void {
    this.#hint = address;
    this.#lastHint = address;
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
    const isHopeless = this.#managers.every((manager) => failuresOf(manager) >= patience);
    const known = isHopeless ? [...this.#managers, ...this.#former] : this.#managers;
    const least = Math.min(...known.map(failuresOf));
    const candidates = known.filter((manager) => failuresOf(manager) === least);
    const weightOf = ({ weight }: RememberedManager): number => Math.max(1, weight);
    let draw = this.#random.float() * candidates.reduce((sum, manager) => sum + weightOf(manager), 0);
    for (const manager of candidates) {
      draw -= weightOf(manager);
      if (draw < 0) return manager.address;
    }
    return candidates.at(-1)?.address;
  }
}
