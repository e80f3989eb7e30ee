/** What a program serves for Prometheus, as text (format 0.0.4): the one metric that is looked for. Pure. */
import type { MetricSelector } from '../proto/metric-selector.ts';

export interface MetricReading {
  /** Of all series that fit, together. */
  readonly value: number;
  /** It only rises, and starts at 0 with the program. */
  readonly isCounter: boolean;
}

const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*$/;
const label = /\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?/gy;

/** Reads the metric; undefined when the text has no series that fits. */
export function readMetric(text: string, { name, labels }: MetricSelector): MetricReading | undefined {
  let type = '';
  let value: number | undefined;
  for (const line of text.split('\n')) {
    const [hash, word, of, kind] = line.split(/\s+/, 4);
    if (hash === '#' && word === 'TYPE' && of === name) type = kind ?? '';
    if (!line.startsWith(name)) continue;
    const match = sample.exec(line);
    if (match?.[1] !== name) continue;
    const number = numberOf(match[3]!);
    if (number === undefined || !hasLabels(match[2] ?? '', labels)) continue;
    value = (value ?? 0) + number;
  }
  return value === undefined ? undefined : { value, isCounter: type === 'counter' };
}

/** Not of a value that is none (NaN) or has no end: nothing follows from it. */
function numberOf(text: string): number | undefined {
  const number = Number(text);
  return Number.isFinite(number) ? number : undefined;
}

function hasLabels(text: string, wanted: Readonly<Record<string, string>>): boolean {
  const found = new Map<string, string>();
  for (const [, key, value] of text.matchAll(label)) {
    found.set(
      key!,
      value!.replace(/\\(.)/g, (_, one: string) => (one === 'n' ? '\n' : one)),
    );
  }
  return Object.entries(wanted).every(([key, value]) => found.get(key) === value);
}
