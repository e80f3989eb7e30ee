/**
 * A manager's log with a million objects, on disk, sealed: a start from its snapshot and its log, a snapshot made and one
 * sent to a member that joins, under the puts of one client.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeRoot } from '../proto/certificates.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { PutClient, putRequest } from './put-protocol.ts';
import { clusterId } from './raft-member.ts';
import type { Limit, Metric } from './report.ts';
import type { Watched } from './stalls.ts';
import { StoreMemberProcess } from './store-member.ts';

const objects = Number(process.env.SHOAL_BENCH_OBJECTS ?? 1_000_000);
/** So many entries stand behind the snapshot when the member starts: as many as lie between two by default. */
const entriesInLog = 10_000;
const clients = 64;
const quietMs = 5_000;
const megabyte = 2 ** 20;
const noStall: Limit = { kind: 'worst', atMost: 50 };

export const raftScale: Bench = {
  name: 'raft-scale',
  description: `a manager with ${objects} objects: started, its snapshot made and sent (SHOAL_BENCH_OBJECTS)`,
  missing: () => undefined,
  run: measureScale,
};

const metrics: Readonly<Record<string, readonly [unit: string, limit?: Limit]>> = {
  restart: ['s', { kind: 'worst', atMost: 10 }],
  'restart-processor-time': ['s'],
  'memory-after-restart': ['MB'],
  'one-client-p50': ['ms'],
  'one-client-p99': ['ms'],
  'snapshot-made': ['s'],
  'snapshot-made-longest-stall': ['ms', noStall],
  'snapshot-made-longest-turn-processor-time': ['ms'],
  'snapshot-made-one-client-p50': ['ms'],
  'snapshot-made-one-client-p99': ['ms'],
  'snapshot-made-longest-put': ['ms'],
  'joiner-votes': ['s'],
  'joiner-longest-stall': ['ms', noStall],
  'joiner-longest-turn-processor-time': ['ms'],
  'joiner-leaders-longest-stall': ['ms', noStall],
  'joiner-leaders-longest-turn-processor-time': ['ms'],
  'joiner-one-client-p50': ['ms'],
  'joiner-one-client-p99': ['ms'],
  'joiner-longest-put': ['ms'],
};

async function measureScale({ runs, progress }: BenchOptions): Promise<Metric[]> {
  const samples = new Map<string, number[]>();
  for (let run = 1; run <= (runs ?? 1); run += 1) {
    const note = (name: string, value: number): void => {
      samples.set(name, [...(samples.get(name) ?? []), value]);
      progress(`run ${run}: ${name} ${Number(value.toPrecision(4))} ${metrics[name]![0]}`);
    };
    const folder = mkdtempSync(join(tmpdir(), 'shoal-bench-scale-'));
    const members: StoreMemberProcess[] = [];
    try {
      await measureOnce(folder, members, note, (words) => progress(`run ${run}: ${words}`));
    } finally {
      await Promise.all(members.map((member) => member.end()));
      rmSync(folder, { recursive: true, force: true });
    }
  }
  return Object.entries(metrics).map(([name, [unit, limit]]) => ({
    name,
    unit,
    ours: samples.get(name) ?? [],
    peer: [],
    ...(limit && { limit }),
  }));
}

type Note = (name: string, value: number) => void;

async function measureOnce(
  folder: string,
  members: StoreMemberProcess[],
  note: Note,
  progress: (words: string) => void,
): Promise<void> {
  const root = await makeRoot();
  const orderOf = async (raftId: number) => ({
    raftId,
    folder: join(folder, String(raftId)),
    identity: await root.issue({ nodeId: `node-${raftId}`, role: 'manager', clusterId }),
    members: [],
  });
  const spawned = (): StoreMemberProcess => {
    const member = new StoreMemberProcess();
    members.push(member);
    return member;
  };
  const [first, order] = [spawned(), await orderOf(1)];
  const { member, clientAddress } = await first.start(order);
  await first.fill(objects);
  progress('filled');
  const client = new PutClient(clientAddress);
  await during(client, note, undefined, pause(quietMs));
  // The log is kept back to the older of two snapshots.
  for (let count = 0; count < 2; count += 1) {
    const made = await during(client, note, 'snapshot-made', first.snapshot());
    note('snapshot-made', made.ms / 1000);
    noteWatched(note, 'snapshot-made', made);
    await puts(client, entriesInLog);
  }
  client.close();
  await first.end();

  const begin = performance.now();
  const again = spawned();
  const state = await again.start({ ...order, again: member.address });
  note('restart', (performance.now() - begin) / 1000);
  note('restart-processor-time', state.processorMs / 1000);
  note('memory-after-restart', state.memoryBytes / megabyte);
  if (state.objects !== objects) throw new Error(`${state.objects} objects are there after the restart`);

  const second = spawned();
  const joiner = await second.start({ ...(await orderOf(2)), members: [state.member] });
  const other = new PutClient(state.clientAddress);
  for (const one of [again, second]) await one.watch();
  const joining = performance.now();
  await during(other, note, 'joiner', again.admit(joiner.member));
  note('joiner-votes', (performance.now() - joining) / 1000);
  other.close();
  noteWatched(note, 'joiner', await second.watched());
  noteWatched(note, 'joiner-leaders', await again.watched());
}

function noteWatched(note: Note, name: string, watched: Watched): void {
  note(`${name}-longest-stall`, watched.stallMs);
  note(`${name}-longest-turn-processor-time`, watched.turnProcessorMs);
}

/** One client puts until `work` is done; its latencies are noted under `name`. */
async function during<T>(
  client: PutClient,
  note: Note,
  name: string | undefined,
  work: Promise<T>,
): Promise<T> {
  const all: number[] = [];
  let isOver = false;
  const done = work.finally(() => {
    isOver = true;
  });
  while (!isOver) {
    const begin = performance.now();
    await client.put(request);
    all.push(performance.now() - begin);
  }
  const result = await done;
  all.sort((a, b) => a - b);
  const prefix = name === undefined ? '' : `${name}-`;
  note(`${prefix}one-client-p50`, all[Math.floor(all.length / 2)]!);
  note(`${prefix}one-client-p99`, all[Math.floor(all.length * 0.99)]!);
  if (name !== undefined) note(`${prefix}longest-put`, all.at(-1)!);
  return result;
}

const request = putRequest(Buffer.from('report'), Buffer.alloc(8));

async function puts(client: PutClient, count: number): Promise<void> {
  let begun = 0;
  const loop = async (): Promise<void> => {
    while (begun < count) {
      begun += 1;
      await client.put(request);
    }
  };
  await Promise.all(Array.from({ length: clients }, loop));
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
