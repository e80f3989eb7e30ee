/** What every machine of a run is handed, and what a planted bug may wrap of it. */
import type { Engine } from '../../agent/engine/engine.ts';
import type { Authority } from '../../manager/ca/service.ts';
import type { Decisions } from '../../manager/leader.ts';
import type { Disk, RaftTransport } from '../../manager/raft/contract.ts';
import type { UsageOf } from '../../manager/store/usage.ts';
import type { VirtualClock } from './clock.ts';
import type { SimulatedDisk } from './disk.ts';
import type { Invariants } from './invariants.ts';
import type { Machine, Tuning } from './machine.ts';
import type { Weather } from './network.ts';

/** A bug put in from outside, by wrapping what the product is handed. */
export interface Plant {
  readonly what: string;
  /** The network in which it shows soonest. */
  readonly weather?: Weather;
  /** It shows only where services run. */
  readonly whole?: boolean;
  /** It shows only where services stop on isolation. */
  readonly guarded?: boolean;
  /** It shows only in jobs, schedules or scaling. */
  readonly varied?: boolean;
  disk?(disk: SimulatedDisk, around: Surroundings): Disk;
  transport?(transport: RaftTransport, machine: Machine): RaftTransport;
  decide?(usage: UsageOf): Decisions;
  engine?(engine: Engine): Engine;
  authority?(authority: Authority): Authority;
  /** Whether the store lets two objects have the same address: it would refuse what the others do wrong. */
  readonly isStoreBlind?: boolean;
}

export interface Surroundings {
  readonly seed: number;
  readonly clock: VirtualClock;
  readonly invariants: Invariants;
  readonly tuning: Tuning;
  readonly flushMs: number;
  readonly plant: Plant | undefined;
}
