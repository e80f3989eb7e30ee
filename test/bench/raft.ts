/**
 * Puts of 256 bytes to three members on this machine: ours (sealed log, TLS between members) and etcd (neither), in
 * turn, both with heartbeats of 100 ms and elections from 1 s. The same lean client for both, against the leader.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Bench, BenchOptions } from './bench.ts';
import { PutClient, putRequest } from './put-protocol.ts';
import { etcdGroup, type Group, hasEtcd, ourGroup } from './raft-group.ts';
import type { Limit, Metric } from './report.ts';

const valueBytes = 256;
const keyCount = 1_000;
const phaseMs = 4_000;
/** Node compiles what has run for a while; what is measured is a member that has been running, on both sides. */
const warmUpMs = 8_000;
const defaultRuns = 3;
const failoverBoundMs = 30_000;
const attemptEveryMs = 20;

export const raft: Bench = {
  name: 'raft',
  description: `puts of ${valueBytes} bytes, three members: latency and throughput; peer: etcd`,
  missing: () => undefined,
  run: measureRaft,
};

interface Sample {
  readonly latencyMsP50: number;
  readonly latencyMsP99: number;
  readonly with16: number;
  readonly with128: number;
  /** Of all three members, while 128 clients put. */
  readonly processorMsPerPut: number;
  /** From the leader's kill to the next acknowledged put at another member. */
  readonly afterKillMs: number;
}

async function measureRaft({ runs, withPeer, progress }: BenchOptions): Promise<Metric[]> {
  const samples: { ours: Sample[]; peer: Sample[] } = { ours: [], peer: [] };
  const hasPeer = withPeer && hasEtcd();
  if (withPeer && !hasPeer) progress('the peer is skipped: no etcd here (apt-get install etcd-server)');
  for (let run = 1; run <= (runs ?? defaultRuns); run += 1) {
    for (const side of hasPeer ? (['ours', 'peer'] as const) : (['ours'] as const)) {
      const folder = mkdtempSync(join(tmpdir(), 'shoal-bench-raft-'));
      try {
        const group = await (side === 'ours' ? ourGroup(folder) : etcdGroup(folder));
        const sample = await sampleOf(group).finally(() => group.end());
        samples[side].push(sample);
        progress(`run ${run}, ${side}: ${JSON.stringify(sample)}`);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    }
  }
  const metric = (name: string, unit: string, field: keyof Sample, limit?: Limit): Metric => ({
    name,
    unit,
    ours: samples.ours.map((sample) => sample[field]),
    peer: samples.peer.map((sample) => sample[field]),
    ...(limit && { limit }),
  });
  return [
    metric('one-client-p50', 'ms', 'latencyMsP50', { kind: 'ratio', atMost: 0.5 }),
    metric('one-client-p99', 'ms', 'latencyMsP99'),
    metric('puts-with-16-clients', '1/s', 'with16'),
    metric('puts-with-128-clients', '1/s', 'with128', { kind: 'ratio-least', atLeast: 1 }),
    metric('processor-time-per-put', 'ms', 'processorMsPerPut', { kind: 'ratio', atMost: 1 }),
    metric('leader-killed-to-next-put', 'ms', 'afterKillMs', { kind: 'ratio', atMost: 1 }),
    {
      ...metric('leader-killed-to-next-put-worst', 'ms', 'afterKillMs', { kind: 'worst', atMost: 1_500 }),
      peer: [],
    },
  ];
}

async function sampleOf(group: Group): Promise<Sample> {
  const client = new PutClient(group.address);
  try {
    await load(client, 128, warmUpMs);
    await load(client, 1, warmUpMs / 4);
    const one = (await load(client, 1, phaseMs)).sort((a, b) => a - b);
    const at = (share: number) => Number(one[Math.floor(one.length * share)]!.toFixed(3));
    const with16 = ((await load(client, 16, phaseMs)).length * 1000) / phaseMs;
    const beforeMs = group.processorMs();
    const puts = (await load(client, 128, phaseMs)).length;
    const processorMsPerPut = (group.processorMs() - beforeMs) / puts;
    return {
      latencyMsP50: at(0.5),
      latencyMsP99: at(0.99),
      with16,
      with128: (puts * 1000) / phaseMs,
      processorMsPerPut,
      afterKillMs: await afterKill(group),
    };
  } finally {
    client.close();
  }
}

/** Attempts begin at a steady pace, for one that hangs must not hide the next. */
async function afterKill(group: Group): Promise<number> {
  const { killedMs, address } = await group.killLeader();
  const client = new PutClient(address);
  let timer: NodeJS.Timeout | undefined;
  try {
    return await new Promise<number>((resolve, reject) => {
      const attempt = (): void => {
        client.put(putRequest(Buffer.from('after'), randomBytes(valueBytes))).then(
          () => resolve(performance.now() - killedMs),
          () => undefined,
        );
        if (performance.now() - killedMs > failoverBoundMs) reject(new Error('nobody leads after the kill'));
      };
      timer = setInterval(attempt, attemptEveryMs);
    });
  } finally {
    clearInterval(timer);
    client.close();
  }
}

/** `clients` loops of puts for `durationMs`; the milliseconds that each put took that ended in that time. */
export async function load(client: PutClient, clients: number, durationMs: number): Promise<number[]> {
  const latencies: number[] = [];
  const end = performance.now() + durationMs;
  let count = 0;
  const loop = async (): Promise<void> => {
    for (;;) {
      const begin = performance.now();
      if (begin >= end) return;
      count += 1;
      await client.put(putRequest(Buffer.from(`key-${count % keyCount}`), randomBytes(valueBytes)));
      const now = performance.now();
      if (now <= end) latencies.push(now - begin);
    }
  };
  await Promise.all(Array.from({ length: clients }, loop));
  return latencies;
}
