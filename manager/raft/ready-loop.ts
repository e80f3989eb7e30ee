/**
 * The loop around the consensus core: tick → ready → persist → send → apply.
 *
 * In: ticks, messages, proposals (through `step` and `core`). Out: durable batches, messages, applied
 * entries, told to `events`. What arrives while a batch is flushed shares the next one. The leader's
 * entries go to its followers while its own disk still writes; everything that promises durability leaves
 * after the flush. A full disk stops it without harm: to the others this member is then just slow, and it
 * goes on where it stood once there is room. It waits for nobody and answers nobody.
 */
import { isShoalError, messageOf, type ShoalError } from '../../proto/errors.ts';
import { type Clock, delay, type Log } from '../../proto/ports.ts';
import { Compaction, type CompactionPolicy, type StateInPieces } from './compaction.ts';
import type { Disk, StateMachine } from './contract.ts';
import { ConfChangeError, decodeConfChange, StepError } from './core/core.ts';
import type {
  ConfChangeV2,
  ConfState,
  Entry,
  HardState,
  MemberId,
  Message,
  RawNode,
  ReadState,
  Ready,
  RoleName,
  Snapshot,
} from './core/types.ts';
import { changeDirectory, type Directory, decodeSnapshotData, snapshotDataPieces } from './directory.ts';
import type { LogBatch } from './log-record.ts';
import { Outbox } from './outbox.ts';
import { payloadOf } from './proposals.ts';
import type { Recovered } from './recovery.ts';
import type { Sealer } from './seal.ts';
import { restoreInSlices } from './slices.ts';
import { saveSnapshot } from './snapshot.ts';

/** What the loop tells, in the order in which it happens. Handlers do not throw and do not wait. */
export interface LoopEvents {
  appended(entries: readonly Entry[]): void;
  applied(entry: Entry, result: unknown): void;
  /** `error`: the core refused the change, on every member alike. `before`: the directory without it. */
  changed(change: ConfChangeV2, before: Directory, error: unknown): void;
  /** A batch of entries, or a snapshot, is applied up to the loop's `applied`. */
  progressed(bySnapshot: boolean): void;
  readStates(states: readonly ReadState[]): void;
  /** Leader, role, term or members may be others than before. */
  moved(): void;
  /** The disk is full (an error), or there is room again (undefined). */
  blocked(error: ShoalError | undefined): void;
  /** The loop has ended for good. */
  failed(error: unknown): void;
}

export interface LoopOptions {
  readonly core: RawNode;
  readonly recovered: Recovered;
  readonly disk: Disk;
  readonly sealer: Sealer;
  readonly stateMachine: StateMachine;
  readonly clock: Clock;
  readonly log: Log;
  readonly send: (to: MemberId, messages: readonly Message[]) => void;
  /** Whether someone at another member waits for what is committed now. */
  readonly isAwaited: () => boolean;
  readonly snapshotEntries: number;
  readonly keepEntries: number;
  readonly compactionPolicy?: (() => CompactionPolicy) | undefined;
  readonly diskRetryMs: number;
  readonly events: LoopEvents;
}

/** They promise nothing about this member's disk, so they need not wait for it. */
const needsNoFlush: ReadonlySet<Message['type']> = new Set(['MsgApp', 'MsgHeartbeat', 'MsgSnap']);

export class ReadyLoop {
  readonly core: RawNode;
  readonly #options: LoopOptions;
  readonly #compaction: Compaction;
  readonly #outbox: Outbox;
  role: RoleName = 'follower';
  lead: MemberId = 0;
  applied: number;
  confState: ConfState;
  directory: Directory;
  #hardState: HardState;
  #blocked: ShoalError | undefined;
  /** The core has a membership change already that the directory has not. */
  #isChanging = false;
  #isScheduled = false;
  #isStopped = false;
  #running: Promise<void> | undefined;
  #signalStop: () => void = () => {};
  readonly #stopping = new Promise<void>((resolve) => {
    this.#signalStop = resolve;
  });

  constructor(options: LoopOptions) {
    const { core, recovered } = options;
    this.core = core;
    this.#options = options;
    this.#outbox = new Outbox(options);
    this.confState = recovered.confState;
    this.directory = recovered.directory;
    this.#hardState = recovered.storage.initialState().hardState;
    this.applied = recovered.storage.snapshot().metadata.index;
    this.#compaction = new Compaction({
      ...options,
      storage: recovered.storage,
      wal: recovered.wal,
      marks: recovered.marks,
      ready: () => this.wake(),
    });
    recovered.storage.setSource(() =>
      this.#isChanging ? undefined : this.#compaction.soon(this.#stateNow()),
    );
  }

  /** Set while the disk is full. */
  get blocked(): ShoalError | undefined {
    return this.#blocked;
  }

  get term(): number {
    return this.#hardState.term;
  }

  get commit(): number {
    return this.#hardState.commit;
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  /** Has the core's work done as soon as all that has arrived is in the core. To be called after every input. */
  wake(): void {
    if (this.#isScheduled || this.#running !== undefined || this.#isStopped) return;
    this.#isScheduled = true;
    const { clock } = this.#options;
    const work = (): void => this.#work();
    if (clock.soon === undefined) queueMicrotask(work);
    else clock.soon(work);
  }

  #work(): void {
    this.#isScheduled = false;
    if (this.#running !== undefined || this.#isStopped) return;
    this.#running = this.#run().finally(() => {
      this.#running = undefined;
      if (this.#hasWork()) this.wake();
    });
  }

  /** Time passes by one tick. */
  tick(): void {
    this.#input(() => this.core.tick());
  }

  /** A message from another member. */
  step(message: Message): void {
    this.#input(() => this.core.step(message));
  }

  /** Something the transport found out about another member. */
  report(tell: (core: RawNode) => void): void {
    this.#input(() => tell(this.core));
  }

  #input(action: () => void): void {
    if (this.#isStopped) return;
    try {
      action();
    } catch (error) {
      if (error instanceof StepError) return;
      this.#fail(error);
      return;
    }
    this.wake();
  }

  /** Ends the loop; what was not flushed is as if it had never been. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#outbox.flush();
    this.#signalStop();
    await this.#running;
    await this.#compaction.idle();
    await this.#options.recovered.wal.close();
  }

  #hasWork(): boolean {
    return this.core.hasReady() || this.#compaction.pendingMark !== undefined;
  }

  async #run(): Promise<void> {
    try {
      while (!this.#isStopped && this.#hasWork()) {
        const rest = this.#handle(this.core.ready());
        if (rest !== undefined) await rest;
      }
    } catch (error) {
      if (!this.#isStopped) this.#fail(error);
    }
  }

  /** undefined when all of it is done: nothing had to be waited for. */
  #handle(ready: Ready): Promise<void> | undefined {
    this.#observe(ready);
    if (ready.entries.length > 0) this.#options.events.appended(ready.entries);
    const batch = this.#batchOf(ready);
    let unsent = ready.messages;
    let flush: Promise<void> | undefined;
    if (batch !== undefined) {
      if (this.role === 'leader') {
        // First of all, for the write may take this thread, too.
        this.#outbox.send(unsent.filter((message) => needsNoFlush.has(message.type)));
        unsent = unsent.filter((message) => !needsNoFlush.has(message.type));
      }
      flush = this.#persist(ready.snapshot, batch);
    }
    if (flush !== undefined || ready.snapshot !== undefined) {
      return this.#handleLater(ready, batch, flush, unsent);
    }
    this.#finish(ready, batch, unsent);
    return undefined;
  }

  async #handleLater(
    ready: Ready,
    batch: LogBatch | undefined,
    flush: Promise<void> | undefined,
    unsent: readonly Message[],
  ): Promise<void> {
    if (flush !== undefined) {
      // Should something else throw before it is awaited, its own end must not count as unheard.
      flush.catch(() => {});
      // What was flushed before this batch need not wait for it.
      const firstNew = ready.entries[0]?.index ?? Number.POSITIVE_INFINITY;
      if (ready.snapshot === undefined) {
        this.#apply(ready.committedEntries.filter((entry) => entry.index < firstNew));
      }
      await flush;
      if (this.#isStopped) return;
    }
    if (ready.snapshot !== undefined) {
      await this.#restore(ready.snapshot);
      if (this.#isStopped) return;
    }
    this.#finish(ready, batch, unsent);
  }

  /** What may be done once the batch is durable. */
  #finish(ready: Ready, batch: LogBatch | undefined, unsent: readonly Message[]): void {
    const { recovered, events } = this.#options;
    recovered.storage.append(ready.entries);
    this.#outbox.send(unsent);
    const { applied } = this;
    this.#apply(ready.committedEntries.filter((entry) => entry.index > applied));
    if (ready.readStates.length > 0) events.readStates(ready.readStates);
    this.core.advance();
    if (batch?.mark !== undefined) this.#compaction.marked(batch.mark);
    this.#compaction.consider(this.applied, () => this.#stateNow());
  }

  #observe(ready: Ready): void {
    const { softState, hardState } = ready;
    const { term } = this.#hardState;
    if (hardState !== undefined) this.#hardState = hardState;
    if (softState !== undefined) {
      this.role = softState.role;
      this.lead = softState.lead;
    }
    if (softState !== undefined || term !== this.#hardState.term) this.#options.events.moved();
  }

  /**
   * What must be durable before the rest of `ready`. A commit index alone need not be, but for one that changes the
   * members: one who has forgotten that it votes never asks for a vote, and may be the only one who could win it.
   */
  #batchOf(ready: Ready): LogBatch | undefined {
    const mark = ready.snapshot?.metadata ?? this.#compaction.pendingMark;
    const changesMembers = ready.committedEntries.some(({ type }) => type !== 'normal');
    if (!ready.mustSync && ready.entries.length === 0 && mark === undefined && !changesMembers)
      return undefined;
    return {
      hardState: this.#hardState,
      mark: mark === undefined ? undefined : { index: mark.index, term: mark.term },
      entries: ready.entries,
    };
  }

  #persist(snapshot: Snapshot | undefined, batch: LogBatch): Promise<void> | undefined {
    if (snapshot !== undefined) return this.#persistPatiently(snapshot, batch);
    const flush = this.#options.recovered.wal.append(batch);
    return flush === undefined ? undefined : this.#persistPatiently(undefined, batch, flush);
  }

  /** `begun`: the batch's first attempt. */
  async #persistPatiently(
    snapshot: Snapshot | undefined,
    batch: LogBatch,
    begun?: Promise<void>,
  ): Promise<void> {
    const { disk, sealer, recovered, clock, diskRetryMs } = this.#options;
    for (let flush = begun; ; flush = undefined) {
      try {
        if (snapshot !== undefined) await saveSnapshot(disk, sealer, snapshot, clock);
        await (flush ?? recovered.wal.append(batch));
        break;
      } catch (error) {
        if (!isShoalError(error, 'disk-full') || this.#isStopped) throw error;
        if (this.#blocked === undefined) this.#block(error);
      }
      await Promise.race([delay(clock, diskRetryMs), this.#stopping]);
      if (this.#isStopped) return;
    }
    if (this.#blocked !== undefined) this.#block(undefined);
  }

  #block(error: ShoalError | undefined): void {
    const { log, events } = this.#options;
    this.#blocked = error;
    if (error === undefined) log.info({}, 'there is room for the Raft log again; going on');
    else log.error({ problem: error.message }, 'no room for the Raft log; this manager waits for some');
    events.blocked(error);
  }

  /** What comes meanwhile waits in the core; readers see the state from before until all of it is there. */
  async #restore(snapshot: Snapshot): Promise<void> {
    const { recovered, stateMachine, events, log, clock } = this.#options;
    const { index, confState } = snapshot.metadata;
    const { directory, state } = decodeSnapshotData(snapshot.data);
    recovered.storage.applySnapshot(snapshot);
    await restoreInSlices(clock, stateMachine, index, state, () => this.#isStopped);
    if (this.#isStopped) return;
    this.applied = index;
    this.confState = confState;
    this.directory = directory;
    log.info({ index }, 'took over the state of the cluster from a snapshot of the leader');
    events.progressed(true);
    events.moved();
  }

  #apply(entries: readonly Entry[]): void {
    if (entries.length === 0) return;
    const { stateMachine, events } = this.#options;
    for (const entry of entries) {
      this.applied = entry.index;
      if (entry.type !== 'normal') this.#change(entry);
      else if (entry.data.length > 0) {
        events.applied(entry, stateMachine.apply(entry.index, payloadOf(entry.data)));
      }
    }
    events.progressed(false);
  }

  #stateNow(): StateInPieces {
    const { confState, directory, applied } = this;
    const { stateMachine } = this.#options;
    const state = stateMachine.snapshotPieces?.() ?? [stateMachine.snapshot()];
    return { index: applied, confState, pieces: snapshotDataPieces(directory, state) };
  }

  #change(entry: Entry): void {
    const change = decodeConfChange(entry.data);
    const before = this.directory;
    let refusal: unknown;
    this.#isChanging = true;
    this.#options.recovered.storage.membersChanged(entry.index);
    try {
      const groupBefore = this.confState;
      this.confState = this.core.applyConfChange(change);
      this.directory = changeDirectory(before, change, groupBefore, this.confState);
    } catch (error) {
      if (!(error instanceof ConfChangeError)) throw error;
      refusal = error;
    } finally {
      this.#isChanging = false;
    }
    this.#options.events.changed(change, before, refusal);
  }

  #fail(error: unknown): void {
    this.#isStopped = true;
    this.#options.log.error(
      { problem: messageOf(error) },
      'this manager can no longer take part in the cluster',
    );
    this.#options.events.failed(error);
  }
}
