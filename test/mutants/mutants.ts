/** The list of planted bugs, each of which must be found by a test: see mutant.ts. Pure data. */
import { elections, members, replicating } from './core-mutants.ts';
import { answers, entries, log } from './log-mutants.ts';
import type { Mutant } from './mutant.ts';
import { recoveries } from './recovery-mutants.ts';

export const mutants: readonly Mutant[] = [
  ...elections,
  ...replicating,
  ...members,
  ...log,
  ...answers,
  ...recoveries,
  ...entries,
];
