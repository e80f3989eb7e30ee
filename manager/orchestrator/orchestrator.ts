/**
 * Keeps the tasks that there are the tasks that there should be.
 *
 * In: the store's objects, the time, and a source of identifiers. Out: changes, and when to look again. It
 * decides how many tasks a service has and which of them are to run, stop or be forgotten: by scale and
 * mode (replicated.ts, global.ts, jobs.ts), schedules (cron.ts), failures and lost nodes (mend.ts, restart.ts), updates and rollbacks
 * (rollout.ts), nodes that have less than they had (enforcer.ts), and age (reaper.ts). loop.ts carries out what they decide, and is the only part here that
 * takes time or waits.
 *
 * It never chooses a node (but for global services, whose slots are nodes), never talks to one, and
 * remembers nothing: all it goes by is stored, so that a new leader goes on where the old one stopped.
 */
import type { Reconciler } from '../store/reconciler.ts';
import { cron } from './cron.ts';
import { enforcer } from './enforcer.ts';
import { global } from './global.ts';
import { globalJobs, replicatedJobs } from './jobs.ts';
import { reaper } from './reaper.ts';
import { replicated } from './replicated.ts';

/** Those that decide what tasks a service has; a service's id is a key of each. */
export const serviceReconcilers: readonly Reconciler[] = [replicated, global, replicatedJobs, globalJobs];

/** In the order in which the loop is to run them, before the scheduler. */
export const reconcilers: readonly Reconciler[] = [
  replicated,
  global,
  replicatedJobs,
  globalJobs,
  cron,
  enforcer,
  reaper,
];
