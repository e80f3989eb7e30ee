/**
 * One of our Raft members in a process of its own: the real log on disk, sealed, peers over gRPC with TLS, and
 * etcd's Put in front. Driven by its parent over Node's message channel; ends with it.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { pack, unpack } from 'msgpackr';
import { realClock, realRandom } from '../../cli/runtime.ts';
import type { CompactionPolicy } from '../../manager/raft/compaction.ts';
import type { Member, RaftNode, RaftStart, StateMachine } from '../../manager/raft/contract.ts';
import { openDisk } from '../../manager/raft/disk.ts';
import { createRaftNode } from '../../manager/raft/node.ts';
import { createPeers } from '../../manager/raft/peers.ts';
import { createKeyFile, openKeyFile } from '../../manager/raft/seal.ts';
import { registerRaftServices } from '../../manager/raft/services.ts';
import { silentLog } from '../../proto/ports.ts';
import { createRpcServer, type NodeIdentity } from '../../proto/rpc.ts';
import { waitFor } from '../lab/lab.ts';
import { keyOf, servePuts } from './put-protocol.ts';

/** The word on the command line by which bench.ts becomes a member. */
export const memberCommand = 'raft-member';
export const clusterId = 'b'.repeat(25);
const boundMs = 30_000;

/** How the log is kept short; see RaftNodeOptions. */
export interface LogSettings {
  readonly snapshotEntries?: number;
  readonly keepEntries?: number;
}

type Order =
  /** `members`: those there are; empty for the first one. */
  | {
      kind: 'start';
      raftId: number;
      folder: string;
      identity: NodeIdentity;
      members: readonly Member[];
      /** Where it was reached before: it goes on from its folder. */
      again?: string;
      settings?: LogSettings;
    }
  | { kind: 'admit'; member: Member }
  | { kind: 'who-leads' }
  | { kind: 'count' };
type Reply =
  | { kind: 'started'; member: Member; clientAddress: string }
  | { kind: 'admitted' }
  | { kind: 'role'; leads: boolean; term: number; leaderId: number | undefined; applied: number }
  | { kind: 'counted'; counted: ReadonlyMap<string, Counted> }
  | { kind: 'failed'; reason: string };

/** Of puts whose keys are numbered from 1, as `name#7`: the highest number, and those below that never came. */
export interface Counted {
  readonly last: number;
  readonly missing: ReadonlySet<number>;
}

/** A member as its parent sees it. */
export class MemberProcess {
  private readonly child: ChildProcess;

  constructor() {
    const program = fileURLToPath(new URL('./bench.js', import.meta.url));
    this.child = fork(program, [memberCommand], { serialization: 'advanced' });
  }

  /** Starts the member; answers itself and where it takes puts. */
  async start(order: StartOrder) {
    const reply = await this.ask({ kind: 'start', ...order });
    if (reply.kind !== 'started') throw new Error(`a member did not start: ${JSON.stringify(reply)}`);
    return reply;
  }

  /** Adds `member` to the group that this one leads; resolves when it votes. */
  async admit(member: Member): Promise<void> {
    const reply = await this.ask({ kind: 'admit', member });
    if (reply.kind !== 'admitted') throw new Error(`a member was not admitted: ${JSON.stringify(reply)}`);
  }

  get pid(): number | undefined {
    return this.child.pid;
  }

  /** Whether it takes itself for the leader; not if it is gone. */
  async leads(): Promise<boolean> {
    return this.child.connected && (await this.role()).leads;
  }

  /** How it sees the group. */
  async role() {
    const reply = await this.ask({ kind: 'who-leads' });
    if (reply.kind !== 'role') throw new Error(`a member does not say who leads: ${JSON.stringify(reply)}`);
    return reply;
  }

  /** What it has applied of puts with numbered keys, by name. */
  async counted(): Promise<ReadonlyMap<string, Counted>> {
    const reply = await this.ask({ kind: 'count' });
    if (reply.kind !== 'counted') throw new Error(`a member does not count: ${JSON.stringify(reply)}`);
    return reply.counted;
  }

  /** Ends it at once, without waiting for that. */
  kill(): void {
    this.child.kill('SIGKILL');
  }

  async end(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await ended;
  }

  private async ask(order: Order): Promise<Reply> {
    const signal = AbortSignal.timeout(boundMs);
    const answer = once(this.child, 'message', { signal });
    this.child.send(order);
    return ((await answer) as [Reply])[0];
  }
}

/** The last put of every key; of numbered keys (see Counted) only which there were. */
class Puts implements StateMachine {
  private values = new Map<string, Buffer>();
  counted = new Map<string, { last: number; missing: Set<number> }>();

  apply(_index: number, data: Uint8Array): undefined {
    const key = keyOf(data).toString('latin1');
    const [name = '', number] = key.split('#');
    if (number === undefined) this.values.set(key, Buffer.from(data));
    else this.count(name, Number(number));
  }

  snapshot(): Uint8Array {
    const counted = [...this.counted].map(([name, { last, missing }]) => [name, last, [...missing]]);
    return pack([[...this.values], counted]);
  }

  restore(_index: number, data: Uint8Array): void {
    const [values, counted] = unpack(data) as [[string, Buffer][], [string, number, number[]][]];
    this.values = new Map(values);
    this.counted = new Map(
      counted.map(([name, last, missing]) => [name, { last, missing: new Set(missing) }]),
    );
  }

  private count(name: string, number: number): void {
    const counted = this.counted.get(name) ?? { last: 0, missing: new Set<number>() };
    this.counted.set(name, counted);
    counted.missing.delete(number);
    for (let at = counted.last + 1; at < number; at += 1) counted.missing.add(at);
    counted.last = Math.max(counted.last, number);
  }
}

/** The child's side: carries out its parent's orders until the channel closes. */
export function runMember(): void {
  let node: RaftNode | undefined;
  const puts = new Puts();
  const carryOut = async (order: Order): Promise<Reply> => {
    if (order.kind === 'start') {
      const started = await startMember(order, puts);
      node = started.node;
      return { kind: 'started', member: started.member, clientAddress: started.clientAddress };
    }
    if (order.kind === 'who-leads') {
      const { role, term = 0, leader, appliedIndex: applied = 0 } = node?.status() ?? {};
      return { kind: 'role', leads: role === 'leader', term, leaderId: leader?.raftId, applied };
    }
    if (order.kind === 'count') return { kind: 'counted', counted: puts.counted };
    const { raftId } = order.member;
    await node?.addMember(order.member);
    await waitFor(`member ${raftId} to vote`, boundMs, () =>
      node?.status().members.some((member) => member.raftId === raftId && !member.isLearner),
    );
    return { kind: 'admitted' };
  };
  process.on('message', (order: Order) => {
    carryOut(order).then(
      (reply) => process.send?.(reply),
      (error: unknown) => process.send?.({ kind: 'failed', reason: String(error) } satisfies Reply),
    );
  });
  process.on('disconnect', () => process.exit(0));
}

/** What a start order says; see MemberProcess.start. */
export type StartOrder = Omit<Order & { kind: 'start' }, 'kind'>;

/** Starts a member in this process. `put`: what becomes of a put's bytes; they are proposed if nothing is said. */
export async function startMember(
  { raftId, folder, identity, members, again, settings }: StartOrder,
  stateMachine: StateMachine,
  compactionPolicy?: () => CompactionPolicy,
  put = (node: RaftNode, request: Buffer): Promise<unknown> => node.propose(Buffer.from(request)),
) {
  const server = createRpcServer({ credentials: identity });
  const port = await server.listen(again ?? '127.0.0.1:0');
  const member: Member = { raftId, nodeId: `node-${raftId}`, address: `127.0.0.1:${port}` };
  const start: RaftStart = again
    ? { kind: 'restart' }
    : members.length === 0
      ? { kind: 'bootstrap', self: member }
      : { kind: 'join', self: member, members };
  const disk = await openDisk(folder, realClock);
  const peers = createPeers({ clusterId, identity: () => identity, clock: realClock, log: silentLog });
  const node = await createRaftNode({
    ...settings,
    ...(compactionPolicy && { compactionPolicy }),
    start,
    disk,
    dataKeys: await (again ? openKeyFile(disk) : createKeyFile(disk, realRandom)),
    clock: realClock,
    random: realRandom,
    log: silentLog,
    transport: peers,
    stateMachine,
  });
  peers.attach(node);
  registerRaftServices(server, node, peers, { clusterId, clock: realClock });
  if (members.length === 0 && !again) {
    await waitFor('the first member to lead', boundMs, () => node.status().role === 'leader');
  }
  return { node, member, disk, clientAddress: await servePuts((request) => put(node, request)) };
}
