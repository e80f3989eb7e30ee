/**
 * The session table: which node is registered under which session id, and by when it must be heard of again.
 *
 * In: registrations, heartbeats, the clock. Out: `onMissed(nodeId, …)` once for each node whose time ran out.
 * It never writes to the store and knows no transport.
 */
import type { NodeId } from '../../proto/ids.ts';
import type { Clock, Timer } from '../../proto/ports.ts';

/** Heartbeats that the leader answers a second, at most; the period is stretched to keep to it. */
const maxHeartbeatsPerSecond = 250;
const missedHeartbeats = 3;
/** A beat on its way is not a missed one: a quarter of a period is added for the road. */
const slackPeriods = 0.25;

/** The delay between two heartbeats for `nodeCount` nodes, at least `basePeriodMs`. */
export function heartbeatPeriodMs(nodeCount: number, basePeriodMs: number): number {
  return Math.max(basePeriodMs, Math.ceil((nodeCount * 1000) / maxHeartbeatsPerSecond));
}

/** How long after its last heartbeat a node is down. */
export function downAfterMs(periodMs: number): number {
  return periodMs * (missedHeartbeats + slackPeriods);
}

interface Entry {
  readonly sessionId: string | undefined;
  readonly timer: Timer;
}

/** Why a node's time ran out. */
export interface Missed {
  readonly nodeId: NodeId;
  /** Undefined for a node that never registered with this leader. */
  readonly sessionId: string | undefined;
  readonly afterMs: number;
}

export class SessionTable {
  private readonly clock: Clock;
  private readonly onMissed: (missed: Missed) => void;
  private readonly entries = new Map<NodeId, Entry>();

  constructor(clock: Clock, onMissed: (missed: Missed) => void) {
    this.clock = clock;
    this.onMissed = onMissed;
  }

  /** Starts a node's session, in place of an older one. */
  register(nodeId: NodeId, sessionId: string, periodMs: number): void {
    this.forget(nodeId);
    this.arm(nodeId, sessionId, downAfterMs(periodMs));
  }

  /**
   * Gives a node that the last leader knew time to find this one: no more than one that is heard of, for agents
   * look for the new leader while it is elected, and a node that died with the old one is not to be waited for
   * twice. After a restore `afterMs` is longer. Does nothing for one that is registered.
   */
  expect(nodeId: NodeId, afterMs: number): void {
    if (this.entries.has(nodeId)) return;
    this.arm(nodeId, undefined, afterMs);
  }

  /** Whether `sessionId` is the node's session now. */
  isCurrent(nodeId: NodeId, sessionId: string): boolean {
    return sessionId !== '' && this.entries.get(nodeId)?.sessionId === sessionId;
  }

  /** Whether the node has a session. */
  isRegistered(nodeId: NodeId): boolean {
    return this.entries.get(nodeId)?.sessionId !== undefined;
  }

  /** Notes a heartbeat of the node's current session; the next is due `periodMs` later. */
  beat(nodeId: NodeId, periodMs: number): void {
    const entry = this.entries.get(nodeId);
    if (entry === undefined) return;
    entry.timer.cancel();
    this.arm(nodeId, entry.sessionId, downAfterMs(periodMs));
  }

  forget(nodeId: NodeId): void {
    this.entries.get(nodeId)?.timer.cancel();
    this.entries.delete(nodeId);
  }

  clear(): void {
    for (const nodeId of [...this.entries.keys()]) this.forget(nodeId);
  }

  private arm(nodeId: NodeId, sessionId: string | undefined, afterMs: number): void {
    const timer = this.clock.after(afterMs, () => {
      this.entries.delete(nodeId);
      this.onMissed({ nodeId, sessionId, afterMs });
    });
    this.entries.set(nodeId, { sessionId, timer });
  }
}
