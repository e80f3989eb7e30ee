/**
 * The loop that feeds the deciding parts of the leader: it hears what was committed, gathers the keys that
 * this concerns, asks the reconcilers, and proposes what they want, one proposal at a time.
 *
 * In each round the reconcilers' turn goes around, and the first with something to do does it alone: the
 * next one sees the store with that done. So no two decisions of one proposal contradict each other, and
 * no reconciler is starved by a busy one before it.
 */
import { isShoalError, messageOf } from '../../proto/errors.ts';
import { newId } from '../../proto/ids.ts';
import type { Clock, Log, Random, Timer } from '../../proto/ports.ts';
import type { Change, Propose } from '../store/change.ts';
import type { Reconciler, Reconciliation } from '../store/reconciler.ts';
import type { Store, View } from '../store/store.ts';
import type { Commit, StoreEvent } from '../store/watch.ts';
import { Steadiness } from './steadiness.ts';
import { WakeTimes } from './wake-times.ts';

export interface LoopOptions {
  readonly store: Store;
  readonly propose: Propose;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Whose turn it is goes around in this order. */
  readonly reconcilers: readonly Reconciler[];
  /**
   * What is to be proposed for `changes` (e.g. with addresses for the tasks created): in their order, what it adds
   * to other objects after them. It may replace a change by one that says why not, or leave it out then.
   */
  readonly finish?: (view: View, changes: readonly Change[], now: number) => readonly Change[];
}

/** Changes in one proposal. */
const maximumChanges = 2_000;
/** After a round, events are gathered for so long; an event after quiet is looked at directly. */
const debounceMs = 10;
const firstBackoffMs = 50;
const maximumBackoffMs = 5_000;
/** When a reconciler that threw is asked again. */
const faultRetryMs = 5_000;
/** Timers are not set further ahead, so that a clock that steps is noticed. */
const maximumSleepMs = 60_000;

/** What one reconciler wants done at a time. */
interface Batch {
  readonly reconciler: number;
  readonly keys: readonly string[];
  readonly changes: readonly Change[];
  readonly rest?: Rest;
}

/** What a reconciler has still to say about a key. */
interface Rest {
  readonly key: string;
  readonly ask: NonNullable<Reconciliation['rest']>;
}

export class ReconcileLoop {
  readonly #options: LoopOptions;
  /** Keys to look at, by reconciler. */
  readonly #dirty: Set<string>[];
  /** What each reconciler goes on with before it looks at other keys. */
  readonly #rests: (Rest | undefined)[];
  /** How often everything was to be looked at anew: what was begun before is not gone on with. */
  #beginnings = 0;
  readonly #wakeTimes = new WakeTimes();
  #steadiness: Steadiness;
  #wakeTimer: Timer | undefined;
  #debounceTimer: Timer | undefined;
  #unsubscribe: (() => void) | undefined;
  #round: Promise<void> | undefined;
  #isStarted = false;
  #lastRoundMs = Number.NEGATIVE_INFINITY;
  #turn = 0;
  #failures = 0;
  #endPause: (() => void) | undefined;

  constructor(options: LoopOptions) {
    this.#options = options;
    this.#dirty = options.reconcilers.map(() => new Set());
    this.#rests = options.reconcilers.map(() => undefined);
    this.#steadiness = new Steadiness(options.clock.now(), options.clock.monotonicMs());
  }

  /** Looks at everything once, and from then on at what changes. */
  start(): void {
    if (this.#isStarted) return;
    this.#isStarted = true;
    const { clock } = this.#options;
    this.#steadiness = new Steadiness(clock.now(), clock.monotonicMs());
    this.#unsubscribe = this.#options.store.onCommit((commit) => this.#hear(commit));
    this.#markAll();
    this.#wake();
  }

  /** Stops deciding. Resolves when a proposal that was under way has been answered. */
  async stop(): Promise<void> {
    this.#isStarted = false;
    this.#unsubscribe?.();
    this.#wakeTimer?.cancel();
    this.#debounceTimer?.cancel();
    this.#debounceTimer = undefined;
    this.#endPause?.();
    await this.#round;
  }

  #hear(commit: Commit): void {
    if (commit.kind === 'restored') this.#markAll();
    else {
      for (const [at, reconciler] of this.#options.reconcilers.entries()) {
        for (const event of commit.events) this.#markFor(event, reconciler, this.#dirty[at]!);
      }
    }
    this.#wake();
  }

  #markAll(): void {
    this.#beginnings += 1;
    this.#rests.fill(undefined);
    for (const [at, reconciler] of this.#options.reconcilers.entries()) {
      const keys = this.#guard(reconciler, () => reconciler.allKeys(this.#options.store));
      for (const key of keys ?? []) this.#dirty[at]!.add(key);
    }
  }

  #markFor(event: StoreEvent, reconciler: Reconciler, dirty: Set<string>): void {
    try {
      const keys = reconciler.keysFor(event, this.#options.store);
      for (let at = 0; at < keys.length; at += 1) dirty.add(keys[at]!);
    } catch (error) {
      this.#tellFault(reconciler, error);
    }
  }

  /** A reconciler's fault must not stop the others. */
  #guard<T>(reconciler: Reconciler, action: () => T): T | undefined {
    try {
      return action();
    } catch (error) {
      this.#tellFault(reconciler, error);
      return undefined;
    }
  }

  #tellFault(reconciler: Reconciler, error: unknown): void {
    const fields = { reconciler: reconciler.name, error: messageOf(error) };
    this.#options.log.error(fields, 'a reconciler failed; what it was to decide on is left as it is');
  }

  #isDue(): boolean {
    return this.#isStarted && (this.#dirty.some((keys) => keys.size > 0) || this.#rests.some(Boolean));
  }

  /** Begins a round, directly after quiet and a little later in busy times. */
  #wake(): void {
    if (this.#round || this.#debounceTimer || !this.#isDue()) return;
    const { clock } = this.#options;
    const restMs = this.#lastRoundMs + debounceMs - clock.monotonicMs();
    if (restMs <= 0) {
      this.#round = this.#run();
      return;
    }
    this.#debounceTimer = clock.after(restMs, () => {
      this.#debounceTimer = undefined;
      if (this.#isDue() && !this.#round) this.#round = this.#run();
    });
  }

  async #run(): Promise<void> {
    // Commits are told from within the store's apply: let it finish first.
    await Promise.resolve();
    try {
      for (let batch = this.#gather(); batch && this.#isStarted; batch = this.#gather()) {
        const beginning = this.#beginnings;
        const isDone = await this.#carryOut(batch);
        if (isDone && beginning === this.#beginnings) this.#rests[batch.reconciler] = batch.rest;
      }
    } finally {
      this.#round = undefined;
      this.#lastRoundMs = this.#options.clock.monotonicMs();
      this.#setWakeTimer();
      this.#wake();
    }
  }

  /** What the next reconciler with something to do wants done. */
  #gather(): Batch | undefined {
    const { reconcilers } = this.#options;
    for (let step = 0; this.#isStarted && step < reconcilers.length; step += 1) {
      const at = (this.#turn + step) % reconcilers.length;
      if (this.#dirty[at]!.size === 0 && !this.#rests[at]) continue;
      const batch = this.#ask(at);
      if (batch.changes.length === 0 && !batch.rest) continue;
      this.#turn = (at + 1) % reconcilers.length;
      return batch;
    }
    return undefined;
  }

  /** Since when the clock has counted evenly. When it stepped, the times to look again say nothing any more. */
  #lookAtClock(): number {
    const { clock } = this.#options;
    const before = this.#steadiness.since;
    const since = this.#steadiness.look(clock.now(), clock.monotonicMs());
    if (since !== before) this.#markAll();
    return since;
  }

  /** Asks a reconciler about its keys, until there is enough for a proposal. */
  #ask(at: number): Batch {
    const steadySince = this.#lookAtClock();
    const { reconcilers, store, clock, random } = this.#options;
    const reconciler = reconcilers[at]!;
    const dirty = this.#dirty[at]!;
    const now = clock.now();
    const keys: string[] = [];
    const changes: Change[] = [];
    const goOn = this.#rests[at];
    this.#rests[at] = undefined;
    if (!goOn && reconciler.distinct) {
      const distinct = new Set(this.#guard(reconciler, () => reconciler.distinct!(dirty)) ?? dirty);
      for (const key of [...dirty]) if (!distinct.has(key)) dirty.delete(key);
    }
    for (const key of goOn ? [goOn.key] : [...dirty]) {
      if (changes.length >= maximumChanges) break;
      if (!goOn) dirty.delete(key);
      const wanted = this.#guard(reconciler, () =>
        goOn ? goOn.ask(now) : reconciler.reconcile(store, key, now, () => newId(random), steadySince),
      );
      this.#wakeTimes.set(at, key, wanted ? wanted.wakeAt : now + faultRetryMs);
      if (!wanted || (wanted.changes.length === 0 && !wanted.rest)) continue;
      keys.push(key);
      for (const change of wanted.changes) changes.push(change);
      if (wanted.rest) return { reconciler: at, keys, changes, rest: { key, ask: wanted.rest } };
    }
    return { reconciler: at, keys, changes };
  }

  /** Whether all of it is stored; what is not is decided anew. */
  async #carryOut(batch: Batch): Promise<boolean> {
    const { store, propose, clock, finish } = this.#options;
    try {
      for (let from = 0; from < batch.changes.length && this.#isStarted; from += maximumChanges) {
        const part = batch.changes.slice(from, from + maximumChanges);
        const finished = finish ? finish(store, part, clock.now()) : part;
        if (finished.length > 0) await propose(finished);
      }
      this.#failures = 0;
      // A piece without changes waits for nothing: others shall have the thread before the next one.
      if (batch.changes.length === 0) await this.#pause(0);
      return true;
    } catch (error) {
      for (const key of batch.keys) this.#dirty[batch.reconciler]!.add(key);
      await this.#backOff(error, batch);
      return false;
    }
  }

  /** Waits before what failed is decided anew: not at all for a first conflict, else longer each time. */
  async #backOff(error: unknown, batch: Batch): Promise<void> {
    const { log, random, reconcilers } = this.#options;
    this.#failures += 1;
    const isConflict = isShoalError(error, 'out-of-sequence') || isShoalError(error, 'taken');
    if (isConflict && this.#failures === 1) return;
    const isExpected = isConflict || (isShoalError(error) && error.retriable);
    const fields = {
      reconciler: reconcilers[batch.reconciler]!.name,
      changes: batch.changes.length,
      error: messageOf(error),
      failures: this.#failures,
    };
    if (isExpected) log.info(fields, 'a proposal was refused; deciding again');
    else log.error(fields, 'a proposal failed; deciding again');
    const ceilingMs = Math.min(maximumBackoffMs, firstBackoffMs * 2 ** Math.min(this.#failures, 10));
    await this.#pause(ceilingMs * (0.5 + random.float() / 2));
  }

  #pause(durationMs: number): Promise<void> {
    if (!this.#isStarted) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = this.#options.clock.after(durationMs, resolve);
      this.#endPause = () => {
        timer.cancel();
        resolve();
      };
    });
  }

  #setWakeTimer(): void {
    this.#wakeTimer?.cancel();
    this.#wakeTimer = undefined;
    const earliest = this.#wakeTimes.earliest();
    if (earliest === undefined || !this.#isStarted) return;
    const { clock } = this.#options;
    const delayMs = Math.min(maximumSleepMs, Math.max(1, earliest - clock.now()));
    this.#wakeTimer = clock.after(delayMs, () => this.#ring());
  }

  #ring(): void {
    this.#lookAtClock();
    for (const { reconciler, key } of this.#wakeTimes.takeDue(this.#options.clock.now())) {
      this.#dirty[reconciler]!.add(key);
    }
    this.#setWakeTimer();
    this.#wake();
  }
}
