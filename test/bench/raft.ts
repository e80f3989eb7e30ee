/**
 * Puts of 256 bytes to three members on this machine: ours (sealed log, TLS between members) and etcd (neither).
 * The same client for both, against the leader. Reports only: no limit.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Member } from '../../manager/raft/contract.ts';
import { waitFor } from '../lab/lab.ts';
import { makeRoot } from '../proto/certificates.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { PutClient, putRequest } from './put-protocol.ts';
import { clusterId, MemberProcess } from './raft-member.ts';
import type { Metric } from './report.ts';

const memberCount = 3;
const valueBytes = 256;
const keyCount = 1_000;
const phaseMs = 4_000;
const defaultRuns = 3;

export const raft: Bench = {
  name: 'raft',
  description: `puts of ${valueBytes} bytes, three members: latency and throughput; peer: etcd`,
  missing: () => undefined,
  run: measureRaft,
};

/** Three members that take puts at `address`. */
interface Group {
  readonly address: string;
  end(): Promise<void>;
}

interface Sample {
  readonly latencyMsP50: number;
  readonly latencyMsP99: number;
  readonly with16: number;
  readonly with128: number;
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
        const sample = await sampleOf(group.address).finally(() => group.end());
        samples[side].push(sample);
        progress(`run ${run}, ${side}: ${JSON.stringify(sample)}`);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    }
  }
  const metric = (name: string, unit: string, field: keyof Sample): Metric => ({
    name,
    unit,
    ours: samples.ours.map((sample) => sample[field]),
    peer: samples.peer.map((sample) => sample[field]),
  });
  return [
    metric('one-client-p50', 'ms', 'latencyMsP50'),
    metric('one-client-p99', 'ms', 'latencyMsP99'),
    metric('puts-with-16-clients', '1/s', 'with16'),
    metric('puts-with-128-clients', '1/s', 'with128'),
  ];
}

async function sampleOf(address: string): Promise<Sample> {
  const client = new PutClient(address);
  try {
    await load(client, 16, 1_000);
    const one = (await load(client, 1, phaseMs)).sort((a, b) => a - b);
    const at = (share: number) => Number(one[Math.floor(one.length * share)]!.toFixed(3));
    const with16 = ((await load(client, 16, phaseMs)).length * 1000) / phaseMs;
    const with128 = ((await load(client, 128, phaseMs)).length * 1000) / phaseMs;
    return { latencyMsP50: at(0.5), latencyMsP99: at(0.99), with16, with128 };
  } finally {
    client.close();
  }
}

/** `clients` loops of puts for `durationMs`; the milliseconds that each put took that ended in that time. */
async function load(client: PutClient, clients: number, durationMs: number): Promise<number[]> {
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

async function ourGroup(folder: string): Promise<Group> {
  const root = await makeRoot();
  const processes: MemberProcess[] = [];
  const end = async (): Promise<void> => {
    await Promise.all(processes.map((member) => member.end()));
  };
  try {
    const members: Member[] = [];
    let address = '';
    for (let raftId = 1; raftId <= memberCount; raftId += 1) {
      const identity = await root.issue({ nodeId: `node-${raftId}`, role: 'manager', clusterId });
      const child = new MemberProcess();
      processes.push(child);
      const own = join(folder, String(raftId));
      const { member, clientAddress } = await child.start({ raftId, folder: own, identity, members });
      if (raftId === 1) address = clientAddress;
      else await processes[0]!.admit(member);
      members.push(member);
    }
    return { address, end };
  } catch (error) {
    await end();
    throw error;
  }
}

function hasEtcd(): boolean {
  try {
    execFileSync('etcd', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

async function etcdGroup(folder: string): Promise<Group> {
  const ports = await freePorts(memberCount * 2);
  const peerUrl = (index: number) => `http://127.0.0.1:${ports[index]}`;
  const client = (index: number) => `127.0.0.1:${ports[memberCount + index]}`;
  const indexes = Array.from({ length: memberCount }, (_, index) => index);
  const cluster = indexes.map((index) => `m${index}=${peerUrl(index)}`).join(',');
  const children = indexes.map((index) => {
    const flags = [
      ['--name', `m${index}`],
      ['--data-dir', join(folder, `m${index}`)],
      ['--listen-peer-urls', peerUrl(index)],
      ['--initial-advertise-peer-urls', peerUrl(index)],
      ['--listen-client-urls', `http://${client(index)}`],
      ['--advertise-client-urls', `http://${client(index)}`],
      ['--initial-cluster', cluster],
      ['--heartbeat-interval', '100'],
      ['--election-timeout', '1000'],
      ['--log-level', 'error'],
    ].flat();
    return spawn('etcd', flags, { stdio: 'ignore' });
  });
  const end = async (): Promise<void> => {
    await Promise.all(children.map(endProcess));
  };
  try {
    const address = await waitFor('etcd to lead', 30_000, () => etcdLeader(indexes.map(client)));
    return { address, end };
  } catch (error) {
    await end();
    throw error;
  }
}

async function etcdLeader(addresses: readonly string[]): Promise<string | undefined> {
  for (const address of addresses) {
    const answer = await fetch(`http://${address}/v3/maintenance/status`, { method: 'POST', body: '{}' });
    const { leader, header } = (await answer.json()) as { leader?: string; header?: { member_id: string } };
    if (leader !== undefined && leader === header?.member_id) return address;
  }
  return undefined;
}

async function endProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}

/** Ports of 127.0.0.1 that were free a moment ago. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map((server) => once(server.close(), 'close')));
  return ports;
}
