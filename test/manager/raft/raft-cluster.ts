/** Several members in one process: virtual time, simulated disks, a network that can be cut. */
import type {
  Member,
  RaftNode,
  RaftStart,
  RaftTransport,
  StateMachine,
} from '../../../manager/raft/contract.ts';
import type { MemberId, Message } from '../../../manager/raft/core/types.ts';
import { createRaftNode, type RaftNodeOptions } from '../../../manager/raft/node.ts';
import { ShoalError } from '../../../proto/errors.ts';
import { delay, silentLog } from '../../../proto/ports.ts';
import { VirtualClock } from '../../simulation/clock.ts';
import { SimulatedDisk } from '../../simulation/disk.ts';
import { seededRandom } from '../../simulation/random.ts';
import { testKeys } from './log-fixture.ts';

const latencyMs = 0.2;

/** Remembers what was applied, in order, and checks that indexes only rise. */
export class Journal implements StateMachine {
  lines: string[] = [];
  index = 0;
  restores = 0;

  apply(index: number, data: Uint8Array): unknown {
    if (index <= this.index) throw new Error(`applied ${index} after ${this.index}`);
    this.index = index;
    this.lines.push(Buffer.from(data).toString());
    return { position: this.lines.length };
  }

  snapshot(): Uint8Array {
    return Buffer.from(JSON.stringify(this.lines));
  }

  restore(index: number, data: Uint8Array): void {
    this.index = index;
    this.restores += 1;
    this.lines = JSON.parse(Buffer.from(data).toString()) as string[];
  }
}

export interface Seat {
  readonly member: Member;
  readonly disk: SimulatedDisk;
  journal: Journal;
  node: RaftNode | undefined;
  failure: unknown;
}

export function memberOf(raftId: MemberId): Member {
  return { raftId, nodeId: `node-${raftId}`, address: `10.0.0.${raftId}:2377` };
}

export class RaftCluster {
  readonly clock = new VirtualClock();
  readonly random = seededRandom(11);
  readonly seats = new Map<MemberId, Seat>();
  /** Members that neither hear nor are heard. */
  readonly cut = new Set<MemberId>();
  /** They neither hear nor say anything, and their connections stay. */
  readonly hung = new Set<MemberId>();
  /** How many of the appends are durable on the spot; the others take their time. */
  quickShare = 0.5;
  /** Given, decides for each message whether it is lost. */
  loses: ((message: Message) => boolean) | undefined;
  readonly #extra: Partial<RaftNodeOptions>;

  constructor(extra: Partial<RaftNodeOptions> = {}) {
    this.#extra = extra;
  }

  seat(raftId: MemberId): Seat {
    let seat = this.seats.get(raftId);
    if (seat === undefined) {
      const disk = new SimulatedDisk({
        clock: this.clock,
        flushMs: 0.25,
        isQuick: () => this.random.float() < this.quickShare,
        tear: () => this.random.float(),
      });
      seat = { member: memberOf(raftId), disk, journal: new Journal(), node: undefined, failure: undefined };
      this.seats.set(raftId, seat);
    }
    return seat;
  }

  node(raftId: MemberId): RaftNode {
    const { node } = this.seat(raftId);
    if (node === undefined) throw new Error(`member ${raftId} is not running`);
    return node;
  }

  /** Waits, in virtual time. */
  wait<T>(promise: Promise<T>, boundMs = 20_000): Promise<T> {
    return this.clock.runFor(promise, boundMs);
  }

  async start(raftId: MemberId, start: RaftStart, extra: Partial<RaftNodeOptions> = {}): Promise<RaftNode> {
    const seat = this.seat(raftId);
    seat.journal = new Journal();
    seat.failure = undefined;
    const creating = createRaftNode({
      start,
      disk: seat.disk,
      dataKeys: testKeys,
      clock: this.clock,
      random: seededRandom(raftId * 1000 + seat.disk.flushes),
      log: silentLog,
      transport: this.#transport(raftId),
      stateMachine: seat.journal,
      onFailure: (error) => {
        seat.failure = error;
      },
      ...this.#extra,
      ...extra,
    });
    seat.node = await this.wait(creating);
    return seat.node;
  }

  /** A group of `count`, all voters, the first one leading. */
  async form(count: number): Promise<void> {
    const first = await this.start(1, { kind: 'bootstrap', self: memberOf(1) });
    await this.until(() => first.status().role === 'leader', 'the first member leads');
    for (let raftId = 2; raftId <= count; raftId += 1) await this.join(raftId, 1);
    // The last promotion is still being written.
    await this.clock.run(5);
  }

  /** Lets a new member in through `leader` and waits until it votes. */
  async join(raftId: MemberId, leader: MemberId): Promise<void> {
    const members = this.node(leader)
      .status()
      .members.map(({ raftId: id }) => memberOf(id));
    await this.start(raftId, { kind: 'join', self: memberOf(raftId), members });
    await this.wait(this.node(leader).addMember(memberOf(raftId)));
    await this.until(() => this.node(raftId).status().role === 'follower', `member ${raftId} votes`);
  }

  /** kill -9, with the power cut: nothing unflushed survives, nothing is said to anyone. */
  kill(raftId: MemberId): void {
    const seat = this.seat(raftId);
    const { node } = seat;
    seat.node = undefined;
    seat.disk.crash();
    node?.stop().catch(() => {});
  }

  async restart(raftId: MemberId): Promise<RaftNode> {
    return this.start(raftId, { kind: 'restart' });
  }

  async until(condition: () => boolean, what: string, boundMs = 20_000): Promise<void> {
    await this.clock.runUntil(condition, boundMs, what);
  }

  running(): readonly Seat[] {
    return [...this.seats.values()].filter((seat) => seat.node !== undefined);
  }

  /** The one running member that leads, among those not cut off. */
  leader(): Seat | undefined {
    return this.running().find(
      ({ node, member: { raftId } }) =>
        node?.status().role === 'leader' && !this.cut.has(raftId) && !this.hung.has(raftId),
    );
  }

  async newLeader(except: MemberId): Promise<Seat> {
    const found = () => this.leader() !== undefined && this.leader()?.member.raftId !== except;
    await this.until(found, `another member than ${except} leads`);
    return this.leader()!;
  }

  propose(raftId: MemberId, text: string): ReturnType<RaftNode['propose']> {
    return this.node(raftId).propose(Buffer.from(text));
  }

  async stop(): Promise<void> {
    for (const { node } of this.running()) await this.wait(node!.stop());
  }

  #transport(from: MemberId): RaftTransport {
    const isCut = (to: MemberId) =>
      this.cut.has(from) || this.cut.has(to) || this.seats.get(to) === undefined;
    const ask = async <T>(leader: Member, question: (node: RaftNode) => Promise<T>): Promise<T> => {
      await delay(this.clock, latencyMs);
      const node = this.seats.get(leader.raftId)?.node;
      if (this.hung.has(leader.raftId)) return new Promise<never>(() => {});
      if (isCut(leader.raftId) || node === undefined) {
        throw new ShoalError('unavailable', 'not reachable', { details: { outcome: 'not-appended' } });
      }
      const answer = await question(node);
      await delay(this.clock, latencyMs);
      if (isCut(leader.raftId)) throw new ShoalError('unavailable', 'the connection broke');
      return answer;
    };
    return {
      setMembers() {},
      send: (to, messages) => {
        const sender = this.seats.get(from)?.node;
        this.clock.after(latencyMs, () => {
          for (const message of messages) {
            const node = this.seats.get(to.raftId)?.node;
            if (this.hung.has(from) || this.hung.has(to.raftId)) continue;
            const arrives = node !== undefined && !isCut(to.raftId) && this.loses?.(message) !== true;
            if (arrives) node.receive(structuredClone(message));
            else sender?.reportUnreachable(to.raftId);
            if (message.type === 'MsgSnap') sender?.reportSnapshot(to.raftId, arrives);
          }
        });
      },
      forwardProposal: (leader, data) => ask(leader, (node) => node.proposeAsLeader(data)),
      forwardReadIndex: (leader) => ask(leader, (node) => node.readIndexAsLeader()),
    };
  }
}
