/**
 * A manager with 1,000,000 objects, half of them configs and half tasks with addresses: seconds until a snapshot of them
 * is taken in, as at a restart or by a follower, and the longest that the loop stands still for that and for making one
 * (as time, which on a busy machine is other processes' as well, and as processor time).
 * Sealing, disk and network are not part of it.
 */
import { realClock } from '../../cli/runtime.ts';
import { Gathering, restoreInSlices } from '../../manager/raft/slices.ts';
import { encodeSnapshot } from '../../manager/store/snapshot.ts';
import { Store } from '../../manager/store/store.ts';
import type { AnyObject } from '../../manager/store/tables.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { configOf, taskOf } from './many-objects.ts';
import type { Metric } from './report.ts';
import { Watch, type Watched } from './stalls.ts';

const objects = Number(process.env.SHOAL_BENCH_OBJECTS ?? 1_000_000);
const defaultRuns = 1;

export const recovery: Bench = {
  name: 'recovery',
  description: `a snapshot of ${objects} objects taken in and made (SHOAL_BENCH_OBJECTS: how many)`,
  missing: () => undefined,
  run: measure,
};

async function measure({ runs, progress }: BenchOptions): Promise<Metric[]> {
  const snapshot = await snapshotOf();
  progress(`${objects} objects, ${Math.round(snapshot.length / 2 ** 20)} MB`);
  const [restored, made]: [Watched[], Watched[]] = [[], []];
  for (let run = 1; run <= (runs ?? defaultRuns); run += 1) {
    const store = new Store();
    restored.push(await watched(() => restoreInSlices(realClock, store, 1, snapshot)));
    made.push(await watched(() => new Gathering(realClock, store.snapshotPieces(), snapshot.length).whole()));
    progress(`run ${run}: ${JSON.stringify([restored.at(-1), made.at(-1)])}`);
  }
  const ours = (name: string, unit: string, values: number[], atMost?: number): Metric => ({
    name,
    unit,
    ours: values,
    peer: [],
    ...(atMost !== undefined && { limit: { kind: 'worst', atMost } }),
  });
  const stalls = (name: string, all: readonly Watched[]): Metric[] => [
    ours(
      `longest-stall-${name}`,
      'ms',
      all.map(({ stallMs }) => stallMs),
      50,
    ),
    ours(
      `longest-turn-${name}-processor-time`,
      'ms',
      all.map(({ turnProcessorMs }) => turnProcessorMs),
    ),
  ];
  return [
    ours('state-taken-in', 's', seconds(restored, 'ms'), 10),
    ours('state-taken-in-processor-time', 's', seconds(restored, 'processorMs')),
    ours('state-made', 's', seconds(made, 'ms')),
    ours('state-made-processor-time', 's', seconds(made, 'processorMs')),
    ...stalls('taking-in', restored),
    ...stalls('making', made),
  ];
}

function seconds(all: readonly Watched[], field: 'ms' | 'processorMs'): number[] {
  return all.map((watched) => watched[field] / 1000);
}

async function watched(work: () => Promise<unknown>): Promise<Watched> {
  const watch = new Watch();
  await work();
  return watch.end();
}

function snapshotOf(): Promise<Uint8Array> {
  const run = (count: number, make: (at: number) => AnyObject) => ({
    size: count,
    *values() {
      for (let at = 0; at < count; at += 1) yield make(at);
    },
  });
  const half = Math.floor(objects / 2);
  const ofKind: Partial<Record<string, ReturnType<typeof run>>> = {
    task: run(half, taskOf),
    config: run(objects - half, configOf),
  };
  const listed = (kind: string) => [ofKind[kind] ?? run(0, () => ({}) as AnyObject)];
  const claims = { lastVxlanId: 0, last: [], resting: [] };
  return new Gathering(realClock, encodeSnapshot(1, listed, [], claims)).whole();
}
