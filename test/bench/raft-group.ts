/** Three members on this machine that take puts: ours, and etcd's. Both end with SIGKILL. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import type { Member } from '../../manager/raft/contract.ts';
import { waitFor } from '../lab/lab.ts';
import { makeRoot } from '../proto/certificates.ts';
import { clusterId, type LogSettings, MemberProcess } from './raft-member.ts';

const memberCount = 3;
/** A tick of /proc's processor times. */
const procTickMs = 10;

/** One member, in a process of its own. */
export interface Seat {
  /** What it keeps on disk. */
  readonly folder: string;
  readonly pid: number | undefined;
  /** The last entry that it has applied. */
  applied(): Promise<number>;
  /** Ends it at once (SIGKILL). */
  end(): Promise<void>;
  /** Starts it again from its folder, where it was reached before; for one that has ended. */
  restart(): Promise<void>;
}

/** Three members that take puts at any address of theirs. */
export interface Group {
  readonly seats: readonly Seat[];
  /** Where the leader takes puts. */
  readonly address: string;
  /** Processor time of all members so far, in ms. */
  processorMs(): number;
  /** Kills the leader (SIGKILL) and answers where another member takes puts. */
  killLeader(): Promise<{ readonly killedMs: number; readonly address: string }>;
  /** The member that leads. */
  leader(): Promise<Seat>;
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

/** One of ours. */
class OurSeat implements Seat {
  process = new MemberProcess();
  address = '';
  member: Member | undefined;
  readonly #order: Parameters<MemberProcess['start']>[0];

  constructor(order: Parameters<MemberProcess['start']>[0]) {
    this.#order = order;
  }

  get folder(): string {
    return this.#order.folder;
  }

  get pid(): number | undefined {
    return this.process.pid;
  }

  async start(again?: string): Promise<Member> {
    const started = await this.process.start({ ...this.#order, ...(again && { again }) });
    this.address = started.clientAddress;
    this.member = started.member;
    return started.member;
  }

  async applied(): Promise<number> {
    return (await this.process.role()).applied;
  }

  async end(): Promise<void> {
    await this.process.end();
  }

  async restart(): Promise<void> {
    this.process = new MemberProcess();
    await this.start(this.member!.address);
  }
}

export async function ourGroup(folder: string, settings: LogSettings = {}): Promise<Group> {
  const root = await makeRoot();
  const seats: OurSeat[] = [];
  const end = async (): Promise<void> => {
    await Promise.all(seats.map((seat) => seat.end()));
  };
  const leading = async () => {
    for (const seat of seats) if (await seat.process.leads()) return seat;
    return undefined;
  };
  const leader = () => waitFor('one of ours to lead', 30_000, leading);
  try {
    const members: Member[] = [];
    for (let raftId = 1; raftId <= memberCount; raftId += 1) {
      const identity = await root.issue({ nodeId: `node-${raftId}`, role: 'manager', clusterId });
      const own = join(folder, String(raftId));
      const seat = new OurSeat({ raftId, folder: own, identity, members: [...members], settings });
      seats.push(seat);
      const member = await seat.start();
      if (raftId > 1) await seats[0]!.process.admit(member);
      members.push(member);
    }
    const { address } = await leader();
    return {
      seats,
      address,
      leader,
      processorMs: () => processorMsOf(seats.map(({ pid }) => pid)),
      async killLeader() {
        const found = await leader();
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

/** One of etcd's. */
class EtcdSeat implements Seat {
  readonly folder: string;
  readonly client: string;
  readonly #flags: readonly string[];
  process: ChildProcess;

  constructor(folder: string, client: string, flags: readonly string[]) {
    this.folder = folder;
    this.client = client;
    this.#flags = flags;
    this.process = this.#spawn();
  }

  get pid(): number | undefined {
    return this.process.pid;
  }

  async applied(): Promise<number> {
    // While it starts, nothing answers.
    const answer = await etcdStatus(this.client).catch(() => undefined);
    return Number(answer?.raftAppliedIndex ?? 0);
  }

  end(): Promise<void> {
    return endProcess(this.process);
  }

  async restart(): Promise<void> {
    this.process = this.#spawn();
  }

  #spawn(): ChildProcess {
    return spawn('etcd', this.#flags, { stdio: 'ignore' });
  }
}

/** `flags` go to each member besides its own. */
export async function etcdGroup(folder: string, flags: readonly string[] = []): Promise<Group> {
  const ports = await freePorts(memberCount * 2);
  const peerUrl = (index: number) => `http://127.0.0.1:${ports[index]}`;
  const client = (index: number) => `127.0.0.1:${ports[memberCount + index]}`;
  const indexes = Array.from({ length: memberCount }, (_, index) => index);
  const cluster = indexes.map((index) => `m${index}=${peerUrl(index)}`).join(',');
  const seats = indexes.map((index) => {
    const own = join(folder, `m${index}`);
    const all = [
      ['--name', `m${index}`],
      ['--data-dir', own],
      ['--listen-peer-urls', peerUrl(index)],
      ['--initial-advertise-peer-urls', peerUrl(index)],
      ['--listen-client-urls', `http://${client(index)}`],
      ['--advertise-client-urls', `http://${client(index)}`],
      ['--initial-cluster', cluster],
      ['--heartbeat-interval', '100'],
      ['--election-timeout', '1000'],
      ['--log-level', 'error'],
      flags,
    ].flat();
    return new EtcdSeat(own, client(index), all);
  });
  const end = async (): Promise<void> => {
    await Promise.all(seats.map((seat) => seat.end()));
  };
  const leader = () => waitFor('etcd to lead', 30_000, () => etcdLeader(seats));
  try {
    const { client: address } = await leader();
    return {
      seats,
      address,
      leader,
      processorMs: () => processorMsOf(seats.map(({ pid }) => pid)),
      async killLeader() {
        const leads = await leader();
        const index = seats.indexOf(leads);
        const killedMs = performance.now();
        leads.process.kill('SIGKILL');
        return { killedMs, address: client((index + 1) % memberCount) };
      },
      end,
    };
  } catch (error) {
    await end();
    throw error;
  }
}

interface EtcdStatus {
  readonly leader?: string;
  readonly header?: { readonly member_id: string };
  readonly raftAppliedIndex?: string;
}

async function etcdStatus(address: string): Promise<EtcdStatus> {
  const answer = await fetch(`http://${address}/v3/maintenance/status`, { method: 'POST', body: '{}' });
  return (await answer.json()) as EtcdStatus;
}

async function etcdLeader(seats: readonly EtcdSeat[]): Promise<EtcdSeat | undefined> {
  for (const seat of seats) {
    const { leader, header } = (await etcdStatus(seat.client).catch(() => undefined)) ?? {};
    if (leader !== undefined && leader === header?.member_id) return seat;
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
