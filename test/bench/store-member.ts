/**
 * A member whose state is the manager's store, in a process of its own: filled with objects, told to make a snapshot, and
 * watched for stalls. A put changes a task. Driven by its parent over Node's message channel; ends with it.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { realClock } from '../../cli/runtime.ts';
import type { Disk, Member, RaftNode } from '../../manager/raft/contract.ts';
import { type Change, encodeEntry } from '../../manager/store/change.ts';
import { Store } from '../../manager/store/store.ts';
import { waitFor } from '../lab/lab.ts';
import { configOf, taskOf } from './many-objects.ts';
import { type StartOrder, startMember } from './raft-member.ts';
import { Watch, type Watched } from './stalls.ts';

/** The word on the command line by which bench.ts becomes such a member. */
export const storeMemberCommand = 'store-member';
const objectsInEntry = 100;
const proposalsAtOnce = 16;
const never = 10 ** 9;
const boundMs = 600_000;

type Order =
  | { kind: 'start'; order: StartOrder }
  | { kind: 'fill'; objects: number }
  | { kind: 'snapshot' }
  | { kind: 'watch' }
  | { kind: 'watched' }
  | { kind: 'admit'; member: Member };

export interface StoreMemberState {
  readonly member: Member;
  readonly clientAddress: string;
  readonly objects: number;
  readonly memoryBytes: number;
  /** Of the process so far. */
  readonly processorMs: number;
}

/** Such a member as its parent sees it. One order at a time. */
export class StoreMemberProcess {
  private readonly child: ChildProcess;

  constructor() {
    const program = fileURLToPath(new URL('./bench.js', import.meta.url));
    this.child = fork(program, [storeMemberCommand], { serialization: 'advanced' });
  }

  /** Starts the member; resolves when it leads and has applied its whole log, or, of one that joins, at once. */
  start(order: StartOrder): Promise<StoreMemberState> {
    return this.ask({ kind: 'start', order });
  }

  /** Makes so many objects, half of them tasks, half configs. */
  async fill(objects: number): Promise<void> {
    await this.ask({ kind: 'fill', objects });
  }

  /** Has a snapshot made with the next put; resolves when it is written, and counts. */
  snapshot(): Promise<Watched> {
    return this.ask({ kind: 'snapshot' });
  }

  /** Begins to watch the loop, until watched(). */
  async watch(): Promise<void> {
    await this.ask({ kind: 'watch' });
  }

  watched(): Promise<Watched & StoreMemberState> {
    return this.ask({ kind: 'watched' });
  }

  /** Adds `member` to the group that this one leads; resolves when it votes. */
  async admit(member: Member): Promise<void> {
    await this.ask({ kind: 'admit', member });
  }

  /** SIGKILL. */
  async end(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await ended;
  }

  private async ask<T>(order: Order): Promise<T> {
    const answer = once(this.child, 'message', { signal: AbortSignal.timeout(boundMs) });
    this.child.send(order);
    const [{ value, failed }] = (await answer) as [{ value: T; failed?: string }];
    if (failed !== undefined) throw new Error(`order ${order.kind}: ${failed}`);
    return value;
  }
}

class StoreMember {
  readonly store = new Store();
  snapshotEntries = never;
  watch: Watch | undefined;
  started: Awaited<ReturnType<typeof startMember>> | undefined;

  async carryOut(order: Order): Promise<unknown> {
    switch (order.kind) {
      case 'start':
        return this.start(order.order);
      case 'fill':
        return fill(this.node, order.objects);
      case 'snapshot':
        return this.snapshot();
      case 'watch':
        this.watch = new Watch();
        return undefined;
      case 'watched':
        return { ...(await this.watch!.end()), ...this.state() };
      case 'admit':
        return admit(this.node, order.member);
    }
  }

  get node(): RaftNode {
    return this.started!.node;
  }

  private async start(order: StartOrder): Promise<StoreMemberState> {
    const policy = () => ({ snapshotEntries: this.snapshotEntries });
    let count = 0;
    this.started = await startMember(order, this.store, policy, (node) => {
      count += 1;
      return node.propose(encodeEntry({ now: realClock.now(), changes: [touched(count)] }));
    });
    if (order.again) {
      await waitFor('the member to lead, with all of its log', boundMs, () => {
        const { role, appliedIndex, lastIndex } = this.node.status();
        return role === 'leader' && appliedIndex === lastIndex;
      });
    }
    return this.state();
  }

  private async snapshot(): Promise<Watched> {
    const { disk } = this.started!;
    const before = await newestSnapshot(disk);
    const watch = new Watch();
    this.snapshotEntries = 1;
    await waitFor('a snapshot', boundMs, async () => (await newestSnapshot(disk)) !== before);
    this.snapshotEntries = never;
    return watch.end();
  }

  private state(): StoreMemberState {
    const { member, clientAddress } = this.started!;
    const { user, system } = process.cpuUsage();
    return {
      member,
      clientAddress,
      objects: this.store.count('task') + this.store.count('config'),
      memoryBytes: process.memoryUsage().rss,
      processorMs: (user + system) / 1000,
    };
  }
}

async function newestSnapshot(disk: Disk): Promise<string | undefined> {
  return (await disk.list()).filter((name) => name.startsWith('snapshot-')).at(-1);
}

/** What an agent's report is: one of the first thousand tasks has another status. */
function touched(count: number): Change {
  const { ID: id, Status } = taskOf(count % 1_000);
  return { op: 'merge', kind: 'task', id, fields: { Status: { ...Status, Message: `report ${count}` } } };
}

async function fill(node: RaftNode, objects: number): Promise<void> {
  let made = 0;
  const loop = async (): Promise<void> => {
    while (made < objects) {
      const changes: Change[] = [];
      for (let left = Math.min(objectsInEntry, objects - made); left > 0; left -= 1) {
        const at = made >> 1;
        changes.push(
          made % 2 === 0
            ? { op: 'create', kind: 'task', object: taskOf(at) }
            : { op: 'create', kind: 'config', object: configOf(at) },
        );
        made += 1;
      }
      const { result } = await node.propose(encodeEntry({ now: realClock.now(), changes }));
      if ((result as { ok: boolean }).ok !== true) throw new Error(JSON.stringify(result));
    }
  };
  await Promise.all(Array.from({ length: proposalsAtOnce }, loop));
}

async function admit(node: RaftNode, member: Member): Promise<void> {
  await node.addMember(member);
  await waitFor(`member ${member.raftId} to vote`, boundMs, () =>
    node.status().members.some(({ raftId, isLearner }) => raftId === member.raftId && !isLearner),
  );
}

/** The child's side: carries out its parent's orders until the channel closes. */
export function runStoreMember(): void {
  const member = new StoreMember();
  process.on('message', (order: Order) => {
    member.carryOut(order).then(
      (value) => process.send?.({ value }),
      (error: unknown) => process.send?.({ failed: String(error) }),
    );
  });
  process.on('disconnect', () => process.exit(0));
}
