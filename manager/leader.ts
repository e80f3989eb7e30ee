/**
 * What runs only on the leader, in one scope: begun when this manager has become the leader and applied
 * everything before it, ended when it no longer is. Nothing in here outlives it; all it knows is in the
 * store, so that the next leader goes on where this one stopped.
 */
import { isShoalError, messageOf } from '../proto/errors.ts';
import type { Clock, Log, Random, Timer } from '../proto/ports.ts';
import { compareTaskStates } from '../proto/task-state.ts';
import { allocate, networkReconciler } from './allocator/allocate.ts';
import { networkKeyRotation } from './ca/network-keys.ts';
import { rootRotation } from './ca/rotation.ts';
import { Dispatcher } from './dispatcher/dispatcher.ts';
import { Summons } from './exec/summons.ts';
import { keeperPlan } from './keeper.ts';
import { LogBroker } from './logs/broker.ts';
import { autoscaler } from './orchestrator/autoscale.ts';
import { type LoopOptions, ReconcileLoop } from './orchestrator/loop.ts';
import { reconcilers } from './orchestrator/orchestrator.ts';
import type { RaftNode } from './raft/contract.ts';
import { rebalancer } from './scheduler/rebalance.ts';
import { schedulerReconciler } from './scheduler/schedule.ts';
import type { Change, Propose } from './store/change.ts';
import type { Store } from './store/store.ts';
import type { UsageOf } from './store/usage.ts';
import type { Commit, StoreEvent } from './store/watch.ts';
import { UsageBoard } from './usage/board.ts';
import { notMeasured } from './usage/service.ts';

const keeperPeriodMs = 500;

export interface LeaderOptions {
  readonly store: Store;
  readonly raft: RaftNode;
  /** Through this manager as the leader only: refused as soon as another one leads. */
  readonly propose: Propose;
  readonly selfNodeId: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly observeSchedulingDelay: (delayMs: number) => void;
  readonly observeConvergence?: ((tookMs: number) => void) | undefined;
  /** What decides; `decisions` when absent. */
  readonly decide?: (usage: UsageOf) => Decisions;
}

/** The deciding parts that the loop asks in turn, and what completes their changes. */
export type Decisions = Pick<LoopOptions, 'reconcilers' | 'finish'>;

/** The deciding parts of a cluster, made anew for each time of leading. `usage`: what tasks use. */
export function decisions(usage: UsageOf): Decisions {
  return {
    reconcilers: [
      networkReconciler(),
      ...reconcilers,
      autoscaler(usage),
      schedulerReconciler(),
      rebalancer(),
      rootRotation,
      networkKeyRotation,
    ],
    finish: allocate,
  };
}

export class Leader {
  readonly dispatcher: Dispatcher;
  readonly logs: LogBroker;
  readonly summons: Summons;
  readonly usage: UsageBoard;
  private readonly options: LeaderOptions;
  private readonly loop: ReconcileLoop;
  private readonly stops: (() => void)[] = [];
  private keeperTimer: Timer | undefined;
  private keeping = false;
  private stopped = false;

  constructor(options: LeaderOptions) {
    this.options = options;
    const { store, propose, clock, random, log } = options;
    const { observeConvergence } = options;
    this.dispatcher = new Dispatcher({ store, propose, clock, random, log, observeConvergence });
    this.logs = new LogBroker({ store, clock, random });
    this.summons = new Summons(store);
    this.usage = new UsageBoard({ store, clock });
    this.loop = new ReconcileLoop({
      store,
      propose,
      clock,
      random,
      log,
      ...(options.decide ?? decisions)(this.usage.usageOf),
    });
  }

  start(): void {
    this.dispatcher.start();
    this.logs.start();
    this.usage.start();
    this.loop.start();
    this.stops.push(this.options.store.onCommit((commit) => this.observe(commit)));
    this.stops.push(this.options.raft.onChange(() => void this.keep()));
    this.scheduleKeeper();
  }

  /** Ends everything; agents are told where to go when it is known. */
  stop(leaderAddress: string | undefined): void {
    if (this.stopped) return;
    this.stopped = true;
    this.keeperTimer?.cancel();
    for (const stop of this.stops) stop();
    this.loop.stop();
    this.dispatcher.stop(leaderAddress);
    this.logs.stop(leaderAddress);
    this.summons.stop(leaderAddress);
    this.usage.stop(notMeasured());
  }

  private scheduleKeeper(): void {
    this.keeperTimer = this.options.clock.after(keeperPeriodMs, () => {
      void this.keep().finally(() => {
        if (!this.stopped) this.scheduleKeeper();
      });
    });
  }

  /** One step of bringing nodes and group together. What fails is tried again by the next one. */
  private async keep(): Promise<void> {
    if (this.keeping || this.stopped) return;
    this.keeping = true;
    const { raft, store, propose, log } = this.options;
    try {
      const plan = keeperPlan(store, raft.status());
      if (plan.changes.length > 0) await propose(plan.changes);
      for (const role of plan.roles) await this.settleRole(role);
      for (const nodeId of plan.removals) await this.takeOut(nodeId);
    } catch (error) {
      if (!isShoalError(error, 'not-leader'))
        log.warn({ error: messageOf(error) }, 'managers and nodes differ still');
    } finally {
      this.keeping = false;
    }
  }

  /** A node that was changed in that moment is looked at again by the next step. */
  private async settleRole(changes: readonly Change[]): Promise<void> {
    try {
      await this.options.propose(changes);
    } catch (error) {
      if (!isShoalError(error, 'out-of-sequence') && !isShoalError(error, 'not-found')) throw error;
    }
  }

  /** One that can't go yet (the quorum would be lost) does not keep the others in. */
  private async takeOut(nodeId: string): Promise<void> {
    const { raft, selfNodeId, log } = this.options;
    try {
      // A leader that is demoted first hands over; the next leader takes it out of the group.
      if (nodeId === selfNodeId) await raft.transferLeadership();
      else await raft.removeMember(nodeId);
    } catch (error) {
      if (isShoalError(error, 'not-leader')) throw error;
      // It left in a change that was under way.
      if (isShoalError(error, 'not-found')) return;
      log.warn({ node: nodeId, error: messageOf(error) }, 'a manager can’t be taken out of the group yet');
    }
  }

  private observe(commit: Commit): void {
    if (commit.kind !== 'changed') return;
    for (const event of commit.events) {
      if (event.kind === 'node' && changesRole(event)) void this.keep();
      if (event.kind !== 'task' || event.op !== 'update') continue;
      const wasWaiting =
        event.previous !== undefined && compareTaskStates(event.previous.Status.State, 'assigned') < 0;
      if (wasWaiting && compareTaskStates(event.object.Status.State, 'assigned') >= 0) {
        this.options.observeSchedulingDelay(commit.now - Date.parse(event.object.CreatedAt));
      }
    }
  }
}

/** Whether a node's change asks for a step of the keeper at once; the rest is seen when its turn comes. */
function changesRole({ object, previous }: Extract<StoreEvent, { kind: 'node' }>): boolean {
  return object.Spec.Role !== previous?.Spec.Role || object.Private.Role !== previous?.Private.Role;
}
