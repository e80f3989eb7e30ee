/** Three members on this machine that take puts: ours, and etcd's. Both end with SIGKILL. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import type { Member } from '../../manager/raft/contract.ts';
import { waitFor } from '../lab/lab.ts';
import { makeRoot } from '../proto/certificates.ts';
import { clusterId, MemberProcess } from './raft-member.ts';

const memberCount = 3;
/** A tick of /proc's processor times. */
const procTickMs = 10;

/** Three members that take puts at any address of theirs. */
export interface Group {
  /** Where the leader takes puts. */
  readonly address: string;
  /** Processor time of all members so far, in ms. */
  processorMs(): number;
  /** Kills the leader (SIGKILL) and answers where another member takes puts. */
  killLeader(): Promise<{ readonly killedMs: number; readonly address: string }>;
  end(): Promise<void>;
}

function processorMsOf(pids: readonly (number | undefined)[]): number {
  let sumMs = 0;
  for (const pid of pids) {
    // After the program's name, which may hold anything: utime and stime are the 12th and 13th.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)!.split(' ');
    sumMs += (Number(fields[11]) + Number(fields[12])) * procTickMs;
  }
  return sumMs;
}

export async function ourGroup(folder: string): Promise<Group> {
  const root = await makeRoot();
  const seats: { readonly process: MemberProcess; readonly address: string }[] = [];
  const end = async (): Promise<void> => {
    await Promise.all(seats.map(({ process }) => process.end()));
  };
  const leader = async () => {
    for (const seat of seats) if (await seat.process.leads()) return seat;
    return undefined;
  };
  try {
    const members: Member[] = [];
    for (let raftId = 1; raftId <= memberCount; raftId += 1) {
      const identity = await root.issue({ nodeId: `node-${raftId}`, role: 'manager', clusterId });
      const child = new MemberProcess();
      const own = join(folder, String(raftId));
      const starting = child.start({ raftId, folder: own, identity, members });
      const { member, clientAddress } = await starting.catch(async (error: unknown) => {
        await child.end();
        throw error;
      });
      seats.push({ process: child, address: clientAddress });
      if (raftId > 1) await seats[0]!.process.admit(member);
      members.push(member);
    }
    const { address } = await waitFor('one of ours to lead', 30_000, leader);
    return {
      address,
      processorMs: () => processorMsOf(seats.map(({ process }) => process.pid)),
      async killLeader() {
        const found = await waitFor('one of ours to lead', 30_000, leader);
        const other = seats.find((seat) => seat !== found)!;
        const killedMs = performance.now();
        found.process.kill();
        return { killedMs, address: other.address };
      },
      end,
    };
  } catch (error) {
    await end();
    throw error;
  }
}

export function hasEtcd(): boolean {
  try {
    execFileSync('etcd', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

export async function etcdGroup(folder: string): Promise<Group> {
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
    return {
      address,
      processorMs: () => processorMsOf(children.map(({ pid }) => pid)),
      async killLeader() {
        const leads = await waitFor('etcd to lead', 30_000, () => etcdLeader(indexes.map(client)));
        const index = indexes.find((at) => client(at) === leads)!;
        const killedMs = performance.now();
        children[index]!.kill('SIGKILL');
        return { killedMs, address: client((index + 1) % memberCount) };
      },
      end,
    };
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
