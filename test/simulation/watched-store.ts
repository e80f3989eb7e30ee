/** A store that shows every entry it applies to those who check it. */
import type { Draft } from '../../manager/store/draft.ts';
import type { ApplyResult } from '../../manager/store/store.ts';
import { Store } from '../../manager/store/store.ts';
import type { StoreEvent } from '../../manager/store/watch.ts';

export interface StoreObserver {
  applied(
    machine: string,
    store: Store,
    index: number,
    data: Uint8Array,
    result: ApplyResult,
    events: readonly StoreEvent[],
  ): void;
  restored(machine: string, store: Store, index: number): void;
}

export class WatchedStore extends Store {
  readonly #machine: string;
  readonly #observer: StoreObserver;
  #events: readonly StoreEvent[] = [];

  readonly #isBlind: boolean;

  /** One that is blind lets two objects have what only one may. */
  constructor(machine: string, observer: StoreObserver, isBlind: boolean) {
    super();
    this.#isBlind = isBlind;
    this.#machine = machine;
    this.#observer = observer;
    this.onCommit((commit) => {
      this.#events = commit.kind === 'changed' ? commit.events : [];
    });
  }

  override apply(index: number, data: Uint8Array): ApplyResult {
    this.#events = [];
    const result = super.apply(index, data);
    this.#observer.applied(this.#machine, this, index, data, result, this.#events);
    return result;
  }

  protected override clashOf(draft: Draft): ApplyResult | undefined {
    return this.#isBlind ? undefined : super.clashOf(draft);
  }

  override *restoreSteps(index: number, data: Uint8Array): Generator<void, void> {
    yield* super.restoreSteps(index, data);
    this.#observer.restored(this.#machine, this, index);
  }
}
