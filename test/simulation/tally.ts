/** What many runs came to, summed up: so that a long run's silence can be seen to be about something. */
import type { RunReport } from './run.ts';

export interface Tally {
  seeds: number;
  virtualMs: number;
  entries: number;
  done: number;
  unknown: number;
  /** How often each kind of fault was done. */
  readonly faults: Record<string, number>;
  /** What jobs, schedules and scaling came to, in runs about them. */
  readonly kinds?: Record<string, number>;
  readonly violations: { readonly seed: number; readonly outcome: string }[];
}

export function emptyTally(): Tally {
  return { seeds: 0, virtualMs: 0, entries: 0, done: 0, unknown: 0, faults: {}, kinds: {}, violations: [] };
}

/** Adds one run; `outcome` in words is kept when an invariant was violated. */
export function addSeed(tally: Tally, report: RunReport, outcome: string): void {
  tally.seeds += 1;
  tally.virtualMs += report.virtualMs;
  tally.entries += report.entries;
  tally.done += report.done;
  tally.unknown += report.unknown;
  for (const [kind, times] of Object.entries(report.faults)) {
    tally.faults[kind] = (tally.faults[kind] ?? 0) + times;
  }
  for (const [kind, times] of Object.entries(report.kinds ?? {})) {
    if (tally.kinds) tally.kinds[kind] = (tally.kinds[kind] ?? 0) + times;
  }
  if (report.violation !== undefined) tally.violations.push({ seed: report.seed, outcome });
}

/** Some lines for people. */
export function tellTally({ virtualMs, entries, done, unknown, faults, kinds: seen = {} }: Tally): string {
  const kinds = Object.entries(faults)
    .sort((left, right) => right[1] - left[1])
    .map(([kind, times]) => `${kind} ${times}`);
  return [
    `${(virtualMs / 3_600_000).toFixed(1)} virtual hours, ${entries} entries, ${done} requests done, ${unknown} left open`,
    `faults: ${kinds.join(', ')}`,
    ...Object.entries(seen).map(([what, times]) => `${what}: ${times}`),
  ].join('\n');
}
