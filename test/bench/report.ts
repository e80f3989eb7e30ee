/** What a bench answers: samples of ours and of a peer, with the limit that ours keeps to. No I/O. */

import { assertNever } from '../../proto/errors.ts';

export interface Metric {
  /** e.g. `all-running`. */
  readonly name: string;
  /** e.g. `s`, `ms`, `1/s`. */
  readonly unit: string;
  readonly ours: readonly number[];
  /** Empty when no peer was measured. */
  readonly peer: readonly number[];
  readonly limit?: Limit;
}

export type Limit =
  /** No run of ours above this, in the metric's unit. */
  | { readonly kind: 'worst'; readonly atMost: number }
  /** So many percent of our runs are not above this. */
  | { readonly kind: 'percentile'; readonly percent: number; readonly atMost: number }
  /** Our median over the peer's not above this; nothing without a peer. */
  | { readonly kind: 'ratio'; readonly atMost: number }
  /** The same not below this, where more is better. */
  | { readonly kind: 'ratio-least'; readonly atLeast: number };

export interface Summary {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** One line of the outcome. */
export interface Line {
  readonly bench: string;
  readonly metric: string;
  readonly unit: string;
  readonly ours: Summary | null;
  readonly peer: Summary | null;
  /** Our median over the peer's; null of nothing, and of a peer's zero. */
  readonly ratio: number | null;
  readonly limit: string | null;
  readonly holds: boolean;
}

/** Least, middle and greatest of the samples; null of none. */
export function summaryOf(samples: readonly number[]): Summary | null {
  if (samples.length === 0) return null;
  const sorted = [...samples].sort((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  const median = (sorted[Math.floor(middle)]! + sorted[Math.ceil(middle)]!) / 2;
  return { min: round(sorted[0]!), median: round(median), max: round(sorted.at(-1)!) };
}

/** The least of the samples that `percent` of them do not exceed; NaN of none. */
export function percentileOf(samples: readonly number[], percent: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return round(sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)] ?? Number.NaN);
}

/** The metric as its line. A limit on a metric of which ours has no sample does not hold. */
export function lineOf(bench: string, metric: Metric): Line {
  const [ours, peer] = [summaryOf(metric.ours), summaryOf(metric.peer)];
  const ratio = ours && peer && peer.median !== 0 ? round(ours.median / peer.median) : null;
  const { limit } = metric;
  return {
    bench,
    metric: metric.name,
    unit: metric.unit,
    ours,
    peer,
    ratio,
    limit: limit === undefined ? null : wordsOf(limit, metric),
    holds: ours !== null && (limit === undefined || holds(limit, ours, ratio, metric.ours)),
  };
}

function holds(limit: Limit, ours: Summary, ratio: number | null, samples: readonly number[]): boolean {
  switch (limit.kind) {
    case 'worst':
      return ours.max <= limit.atMost;
    case 'percentile':
      return percentileOf(samples, limit.percent) <= limit.atMost;
    case 'ratio':
      return ratio === null || ratio <= limit.atMost;
    case 'ratio-least':
      return ratio === null || ratio >= limit.atLeast;
    default:
      return assertNever(limit);
  }
}

function wordsOf(limit: Limit, { unit, ours }: Metric): string {
  switch (limit.kind) {
    case 'worst':
      return `max <= ${limit.atMost} ${unit}`;
    case 'percentile':
      return `p${limit.percent} <= ${limit.atMost} ${unit} (${percentileOf(ours, limit.percent)})`;
    case 'ratio':
      return `ratio <= ${limit.atMost}`;
    case 'ratio-least':
      return `ratio >= ${limit.atLeast}`;
    default:
      return assertNever(limit);
  }
}

function round(value: number): number {
  return Number(value.toPrecision(4));
}
