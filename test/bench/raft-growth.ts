/**
 * What becomes of three members in the long run: one that was away for many entries catches up, from the log and from a
 * snapshot, while a client puts; and many puts on end, with what they leave in memory and on the disk.
 * The peer is etcd, with its history compacted every 1,000 revisions.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { waitFor } from '../lab/lab.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { PutClient, putRequest } from './put-protocol.ts';
import { etcdGroup, type Group, hasEtcd, ourGroup, type Seat } from './raft-group.ts';
import type { Limit, Metric } from './report.ts';

const entriesAway = Number(process.env.SHOAL_BENCH_AWAY ?? 100_000);
const soakPuts = Number(process.env.SHOAL_BENCH_PUTS ?? 1_000_000);
const valueBytes = 256;
const keyCount = 1_000;
const clients = 128;
const quietMs = 5_000;
const catchUpBoundMs = 300_000;
const putBoundMs = 60_000;
const sampleEveryPuts = 20_000;
const megabyte = 2 ** 20;
const etcdFlags = ['--auto-compaction-mode', 'revision', '--auto-compaction-retention', '1000'];

export const raftGrowth: Bench = {
  name: 'raft-growth',
  description: `three members: one away for ${entriesAway} entries, ${soakPuts} puts on end; peer: etcd`,
  missing: () => undefined,
  run: measureGrowth,
};

type Samples = Map<string, number[]>;

const limits: Readonly<Record<string, readonly [unit: string, limit?: Limit]>> = {
  'from-log: one-client-p50-before': ['ms'],
  'from-log: one-client-p50-meanwhile': ['ms'],
  'from-log: p50-meanwhile-over-before': ['', { kind: 'worst', atMost: 1.5 }],
  'from-log: one-client-p99-before': ['ms'],
  'from-log: one-client-p99-meanwhile': ['ms'],
  'from-log: caught-up': ['s'],
  'from-snapshot: one-client-p50-before': ['ms'],
  'from-snapshot: one-client-p50-meanwhile': ['ms'],
  'from-snapshot: p50-meanwhile-over-before': ['', { kind: 'worst', atMost: 1.5 }],
  'from-snapshot: one-client-p99-before': ['ms'],
  'from-snapshot: one-client-p99-meanwhile': ['ms'],
  'from-snapshot: caught-up': ['s'],
  'soak: puts': ['1/s'],
  'soak: processor-time-per-put': ['ms'],
  'soak: longest-put': ['ms'],
  'soak: most-on-disk-of-a-member': ['MB', { kind: 'worst', atMost: 64 }],
  'soak: most-memory-of-a-member': ['MB'],
  'soak: memory-last-quarter-over-second': ['', { kind: 'worst', atMost: 1.25 }],
};

async function measureGrowth({ runs, withPeer, progress }: BenchOptions): Promise<Metric[]> {
  const samples: { ours: Samples; peer: Samples } = { ours: new Map(), peer: new Map() };
  const hasPeer = withPeer && hasEtcd();
  if (withPeer && !hasPeer) progress('the peer is skipped: no etcd here (apt-get install etcd-server)');
  for (let run = 1; run <= (runs ?? 1); run += 1) {
    for (const side of hasPeer ? (['ours', 'peer'] as const) : (['ours'] as const)) {
      const note = (name: string, value: number): void => {
        samples[side].set(name, [...(samples[side].get(name) ?? []), value]);
        progress(`run ${run}, ${side}: ${name} ${Number(value.toPrecision(4))} ${limits[name]![0]}`);
      };
      const isOurs = side === 'ours';
      // A log that is longer than what was missed, and one that is not.
      const long = { snapshotEntries: 3 * entriesAway, keepEntries: 2 * entriesAway };
      const short = ['--snapshot-count', String(Math.ceil(entriesAway / 10))];
      const untouched = ['--snapshot-count', String(3 * entriesAway)];
      await inGroup(
        (folder) => (isOurs ? ourGroup(folder, long) : etcdGroup(folder, [...etcdFlags, ...untouched])),
        (group) => away(group, (name, value) => note(`from-log: ${name}`, value)),
      );
      await inGroup(
        (folder) => (isOurs ? ourGroup(folder) : etcdGroup(folder, [...etcdFlags, ...short])),
        (group) => away(group, (name, value) => note(`from-snapshot: ${name}`, value)),
      );
      await inGroup(
        (folder) => (isOurs ? ourGroup(folder) : etcdGroup(folder, etcdFlags)),
        (group) => soak(group, (name, value) => note(`soak: ${name}`, value)),
      );
    }
  }
  return Object.entries(limits).map(([name, [unit, limit]]) => ({
    name: name.replace(': ', '-'),
    unit,
    ours: samples.ours.get(name) ?? [],
    peer: samples.peer.get(name) ?? [],
    ...(limit && { limit }),
  }));
}

async function inGroup(
  start: (folder: string) => Promise<Group>,
  use: (group: Group) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-bench-growth-'));
  try {
    const group = await start(folder);
    await use(group).finally(() => group.end());
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

type Note = (name: string, value: number) => void;

/** A follower ends, misses entries, and comes back while one client puts. */
async function away(group: Group, note: Note): Promise<void> {
  const client = new PutClient(group.address);
  try {
    await puts(client, 2_000);
    const leader = await group.leader();
    const follower = group.seats.find((seat) => seat !== leader)!;
    const quietUntil = performance.now() + quietMs;
    const before = await latencies(client, () => performance.now() < quietUntil);
    await follower.end();
    await puts(client, entriesAway);
    const [missed, back] = [await leader.applied(), performance.now()];
    let isBehind = true;
    const caughtUp = follower
      .restart()
      .then(() => waitFor('it to catch up', catchUpBoundMs, async () => (await follower.applied()) >= missed))
      .finally(() => {
        isBehind = false;
      });
    const meanwhile = await latencies(client, () => isBehind);
    await caughtUp;
    note('caught-up', (performance.now() - back) / 1000);
    for (const [name, all] of [['before', before] as const, ['meanwhile', meanwhile] as const]) {
      note(`one-client-p50-${name}`, at(all, 0.5));
      note(`one-client-p99-${name}`, at(all, 0.99));
    }
    note('p50-meanwhile-over-before', at(meanwhile, 0.5) / at(before, 0.5));
  } finally {
    client.close();
  }
}

async function soak(group: Group, note: Note): Promise<void> {
  const client = new PutClient(group.address);
  try {
    const memory: number[] = [];
    let [mostOnDisk, longest] = [0, 0];
    const [begin, processorMs] = [performance.now(), group.processorMs()];
    for (let done = 0; done < soakPuts; done += sampleEveryPuts) {
      longest = Math.max(longest, await puts(client, Math.min(sampleEveryPuts, soakPuts - done)));
      memory.push(Math.max(...group.seats.map(residentBytes)));
      mostOnDisk = Math.max(mostOnDisk, ...group.seats.map(({ folder }) => bytesIn(folder)));
    }
    note('puts', (soakPuts * 1000) / (performance.now() - begin));
    note('processor-time-per-put', (group.processorMs() - processorMs) / soakPuts);
    note('longest-put', longest);
    note('most-on-disk-of-a-member', mostOnDisk / megabyte);
    note('most-memory-of-a-member', Math.max(...memory) / megabyte);
    const quarter = (number: number) =>
      memory.slice(Math.floor((memory.length * number) / 4), Math.ceil((memory.length * (number + 1)) / 4));
    note('memory-last-quarter-over-second', Math.max(...quarter(3)) / Math.max(...quarter(1)));
  } finally {
    client.close();
  }
}

function request(number: number): Buffer {
  return putRequest(Buffer.from(`key-${number % keyCount}`), randomBytes(valueBytes));
}

/** `count` puts by many clients; answers the longest in ms. */
async function puts(client: PutClient, count: number): Promise<number> {
  let [begun, longest] = [0, 0];
  const loop = async (): Promise<void> => {
    while (begun < count) {
      begun += 1;
      const begin = performance.now();
      await putAgain(client, request(begun));
      longest = Math.max(longest, performance.now() - begin);
    }
  };
  await Promise.all(Array.from({ length: clients }, loop));
  return longest;
}

/** A put that a busy machine's change of leader refused is tried again: the time until then counts as its own. */
async function putAgain(client: PutClient, bytes: Buffer): Promise<void> {
  const end = performance.now() + putBoundMs;
  for (;;) {
    try {
      return await client.put(bytes);
    } catch (error) {
      if (performance.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

/** One client's puts as long as `goesOn`, in ms, the least first. */
async function latencies(client: PutClient, goesOn: () => boolean): Promise<number[]> {
  const all: number[] = [];
  do {
    const begin = performance.now();
    await putAgain(client, request(all.length));
    all.push(performance.now() - begin);
  } while (goesOn());
  return all.sort((a, b) => a - b);
}

function at(sorted: readonly number[], share: number): number {
  return sorted[Math.floor(sorted.length * share)]!;
}

/** What of a member's memory is in the machine's. */
function residentBytes({ pid }: Seat): number {
  const [, kilobytes] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kilobytes) * 2 ** 10;
}

/** The blocks that the files below `folder` take. Files may go meanwhile. */
function bytesIn(folder: string): number {
  let sum = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) sum += bytesIn(path);
    else sum += 512 * (statSync(path, { throwIfNoEntry: false })?.blocks ?? 0);
  }
  return sum;
}
