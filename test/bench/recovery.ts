/**
 * A manager with 1,000,000 objects, half of them configs and half tasks with addresses: seconds until a snapshot of them
 * is taken in, as at a restart or by a follower, and the longest that the loop stands still for that and for making one
 * (as time, which on a busy machine is other processes' as well, and as processor time).
 * Sealing, disk and network are not part of it.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { realClock } from '../../cli/runtime.ts';
import { Gathering, restoreInSlices } from '../../manager/raft/slices.ts';
import { encodeSnapshot } from '../../manager/store/snapshot.ts';
import { Store } from '../../manager/store/store.ts';
import type { AnyObject } from '../../manager/store/tables.ts';
import type { Config, Task } from '../../proto/docker.ts';
import type { Bench, BenchOptions } from './bench.ts';
import type { Metric } from './report.ts';

const objects = Number(process.env.SHOAL_BENCH_OBJECTS ?? 1_000_000);
const defaultRuns = 1;
const time = '2026-11-22T00:00:00.000Z';
const services = 1_000;
const nodes = 500;

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
  const processorSeconds: number[] = [];
  for (let run = 1; run <= (runs ?? defaultRuns); run += 1) {
    const store = new Store();
    const before = process.cpuUsage();
    restored.push(await watched(() => restoreInSlices(realClock, store, 1, snapshot)));
    const { user, system } = process.cpuUsage(before);
    processorSeconds.push((user + system) / 1e6);
    made.push(await watched(() => new Gathering(realClock, store.snapshotPieces()).whole()));
    progress(`run ${run}: ${JSON.stringify([restored.at(-1), made.at(-1), processorSeconds.at(-1)])}`);
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
    ours(
      'state-taken-in',
      's',
      restored.map(({ ms }) => ms / 1000),
      10,
    ),
    ours('state-taken-in-processor-time', 's', processorSeconds),
    ...stalls('taking-in', restored),
    ...stalls('making', made),
  ];
}

interface Watched {
  readonly ms: number;
  /** The longest that timers had to wait meanwhile; other processes that run instead count. */
  readonly stallMs: number;
  /** The most processor time of one turn of the loop, that of the collector's threads included. */
  readonly turnProcessorMs: number;
}

async function watched(work: () => Promise<unknown>): Promise<Watched> {
  const delays = monitorEventLoopDelay({ resolution: 1 });
  let isOver = false;
  let turnProcessorMs = 0;
  let before = process.cpuUsage();
  const turn = (): void => {
    const { user, system } = process.cpuUsage(before);
    turnProcessorMs = Math.max(turnProcessorMs, (user + system) / 1000);
    before = process.cpuUsage();
    if (!isOver) setImmediate(turn);
  };
  turn();
  const begin = performance.now();
  delays.enable();
  await work();
  const ms = performance.now() - begin;
  // The last stall counts as well.
  await new Promise((resolve) => setTimeout(resolve, 10));
  delays.disable();
  isOver = true;
  return { ms, stallMs: delays.max / 1e6, turnProcessorMs };
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

function configOf(at: number): AnyObject {
  return {
    ID: `c${String(at).padStart(24, '0')}`,
    Version: { Index: 1 },
    CreatedAt: time,
    UpdatedAt: time,
    Spec: { Name: `config-${at}`, Labels: {}, Data: 'c29tZSBkYXRh' },
  } as unknown as Config;
}

function taskOf(at: number): AnyObject {
  const address = `10.${(at >> 16) & 255}.${(at >> 8) & 255}.${at & 255}/8`;
  const Status = {
    Timestamp: time,
    State: 'running',
    Message: 'started',
    ContainerStatus: { ContainerID: String(at).padStart(64, '0'), PID: at },
  };
  return {
    ID: `t${String(at).padStart(24, '0')}`,
    Version: { Index: 1 },
    CreatedAt: time,
    UpdatedAt: time,
    Labels: {},
    ServiceID: `s${at % services}`,
    RevisionID: `r${at % services}`,
    Slot: 1 + Math.floor(at / services),
    NodeID: `n${at % nodes}`,
    DesiredState: 'running',
    Status,
    NetworksAttachments: [{ NetworkID: 'net', Addresses: [address] }],
  } as unknown as Task;
}
