/** Several managers in one process: virtual time, simulated disks, a network that can be cut, real decisions. */
import { bootstrapCluster, newNode } from '../../manager/ca/bootstrap.ts';
import { Manager, type ManagerOptions } from '../../manager/manager.ts';
import type { Member, RaftStart, RaftTransport } from '../../manager/raft/contract.ts';
import { createKeyFile, type DataKeys, keyFileState, openKeyFile } from '../../manager/raft/seal.ts';
import { ShoalError } from '../../proto/errors.ts';
import { asId, type NodeId } from '../../proto/ids.ts';
import { delay, silentLog } from '../../proto/ports.ts';
import { VirtualClock } from '../simulation/clock.ts';
import { SimulatedDisk } from '../simulation/disk.ts';
import { seededRandom } from '../simulation/random.ts';

const latencyMs = 0.2;
const waitBoundMs = 30_000;

export interface GroupSeat {
  readonly nodeId: NodeId;
  readonly address: string;
  readonly disk: SimulatedDisk;
  dataKeys: DataKeys | undefined;
  manager: Manager | undefined;
  failure: unknown;
}

export class ManagerGroup {
  readonly clock = new VirtualClock();
  readonly random = seededRandom(5);
  readonly seats: GroupSeat[] = [];
  /** Addresses that neither hear nor are heard. */
  readonly cut = new Set<string>();
  readonly #tuning: ManagerOptions['tuning'];

  constructor(tuning: ManagerOptions['tuning'] = {}) {
    this.#tuning = tuning;
  }

  wait<T>(promise: Promise<T>): Promise<T> {
    return this.clock.runFor(promise, waitBoundMs);
  }

  until(condition: () => boolean, what: string): Promise<void> {
    return this.clock.runUntil(condition, waitBoundMs, what);
  }

  seat(nodeId: string): GroupSeat {
    const address = `10.0.0.${this.seats.length + 1}:2377`;
    const disk = new SimulatedDisk({ clock: this.clock, flushMs: 0.25, tear: () => this.random.float() });
    const seat = {
      nodeId: asId<NodeId>(nodeId),
      address,
      disk,
      dataKeys: undefined,
      manager: undefined,
      failure: undefined,
    };
    this.seats.push(seat);
    return seat;
  }

  /** Starts a manager as the daemon does: with its key file made or opened. */
  async start(
    seat: GroupSeat,
    start: RaftStart,
    extra: Partial<ManagerOptions> & { readonly unlockKey?: string } = {},
  ): Promise<Manager> {
    const { unlockKey, ...options } = extra;
    const { disk } = seat;
    const random = seededRandom(this.seats.indexOf(seat) * 100 + disk.flushes);
    const state = await this.wait(keyFileState(disk));
    const dataKeys = await this.wait(
      state === 'absent' ? createKeyFile(disk, random, unlockKey) : openKeyFile(disk, unlockKey),
    );
    seat.dataKeys = dataKeys;
    seat.manager = await this.wait(
      Manager.start({
        nodeId: seat.nodeId,
        start,
        disk,
        dataKeys,
        sealedUnder: state === 'open' ? undefined : unlockKey,
        transport: this.#transport(seat.address),
        clock: this.clock,
        random,
        log: silentLog,
        onFailure: (error) => {
          seat.failure = error;
        },
        tuning: this.#tuning,
        ...options,
      } as ManagerOptions),
    );
    return seat.manager;
  }

  /** A group of `count`, the first one leading. */
  async form(count: number): Promise<void> {
    const { random, clock } = this;
    const made = await bootstrapCluster({ random, clock, nodeId: asId<NodeId>('node1') });
    const first = this.seat('node1');
    const self = { raftId: 1, nodeId: 'node1', address: first.address };
    const manager = await this.start(first, { kind: 'bootstrap', self }, { firstChanges: made.changes });
    await this.until(() => manager.leading() !== undefined, 'the first manager leads');
    for (let number = 2; number <= count; number += 1) await this.join(`node${number}`);
  }

  leader(): Manager {
    const seat = this.seats.find(({ manager, address }) => manager?.leading() && !this.cut.has(address));
    if (!seat?.manager) throw new Error('no manager leads');
    return seat.manager;
  }

  hasLeader(): boolean {
    return this.seats.some(({ manager, address }) => manager?.leading() && !this.cut.has(address));
  }

  /** A new node with a manager's role, taken into the group; resolves when it votes. */
  async join(nodeId: string): Promise<GroupSeat> {
    const leader = this.leader();
    const object = newNode({
      nodeId: asId<NodeId>(nodeId),
      role: 'manager',
      availability: 'active',
      tlsInfo: leader.store.cluster()!.TLSInfo,
      requestPem: nodeId,
      certificatePem: '',
    });
    await this.wait(leader.propose([{ op: 'create', kind: 'node', object }]));
    const seat = this.seat(nodeId);
    const { raftId, members } = await this.wait(leader.admit(nodeId, seat.address));
    const self = { raftId, nodeId, address: seat.address };
    const manager = await this.start(seat, { kind: 'join', self, members });
    await this.until(() => manager.raft.status().role === 'follower', `${nodeId} votes`);
    return seat;
  }

  /** kill -9 with the power cut. */
  kill(seat: GroupSeat): void {
    const { manager } = seat;
    seat.manager = undefined;
    seat.disk.crash();
    manager?.stop({ orderly: false }).catch(() => {});
  }

  async stop(): Promise<void> {
    for (const { manager } of this.seats) if (manager) await this.wait(manager.stop({ orderly: false }));
  }

  #at(address: string): Manager | undefined {
    return this.seats.find((seat) => seat.address === address)?.manager;
  }

  #transport(from: string): RaftTransport {
    const isCut = (to: string) => this.cut.has(from) || this.cut.has(to);
    const ask = async <T>(leader: Member, question: (manager: Manager) => Promise<T>): Promise<T> => {
      await delay(this.clock, latencyMs);
      const manager = this.#at(leader.address);
      if (manager === undefined || isCut(leader.address))
        throw new ShoalError('unavailable', 'not reachable', { details: { outcome: 'not-appended' } });
      const answer = await question(manager);
      await delay(this.clock, latencyMs);
      return answer;
    };
    return {
      setMembers() {},
      send: (to, messages) => {
        this.clock.after(latencyMs, () => {
          const sender = this.#at(from)?.raft;
          const receiver = isCut(to.address) ? undefined : this.#at(to.address)?.raft;
          for (const message of messages) {
            if (receiver) receiver.receive(structuredClone(message));
            else sender?.reportUnreachable(to.raftId);
            if (message.type === 'MsgSnap') sender?.reportSnapshot(to.raftId, receiver !== undefined);
          }
        });
      },
      forwardProposal: (leader, data) => ask(leader, ({ raft }) => raft.proposeAsLeader(data)),
      forwardReadIndex: (leader) => ask(leader, ({ raft }) => raft.readIndexAsLeader()),
    };
  }
}
