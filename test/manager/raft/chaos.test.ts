/**
 * A group under everything at once: crashes with torn writes, cuts, lost messages, full disks, hand-overs,
 * members that come and go. Whatever happens, what was acknowledged stays, once, in one order, everywhere.
 */
import assert from 'node:assert/strict';
import { isShoalError } from '../../../proto/errors.ts';
import { seededRandom } from '../../simulation/random.ts';
import { memberOf, RaftCluster } from './raft-cluster.ts';

/** SHOAL_CHAOS_SEEDS=first-last runs others than these. */
const [firstSeed = 1, lastSeed = 12] = (process.env.SHOAL_CHAOS_SEEDS ?? '1-12').split('-').map(Number);
const seeds = Array.from({ length: lastSeed - firstSeed + 1 }, (_, number) => firstSeed + number);
const steps = 60;

class Chaos {
  readonly cluster = new RaftCluster({ snapshotEntries: 15, keepEntries: 4, segmentBytes: 3_000 });
  readonly acknowledged = new Map<string, number>();
  readonly #random: ReturnType<typeof seededRandom>;
  #proposed = 0;
  #nextMember = 4;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  async run(): Promise<void> {
    await this.cluster.form(3);
    for (let step = 0; step < steps; step += 1) {
      await this.#step();
      await this.cluster.clock.run(this.#random.integer(400));
    }
    await this.#heal();
    await this.#check();
    await this.cluster.stop();
  }

  #pick<T>(list: readonly T[]): T | undefined {
    return list[this.#random.integer(list.length)];
  }

  async #step(): Promise<void> {
    const { cluster } = this;
    const seat = this.#pick(
      [...cluster.seats.values()].filter(({ node }) => node?.status().role !== 'removed'),
    );
    if (seat === undefined) return;
    const { raftId } = seat.member;
    for (let count = this.#random.integer(6); count > 0; count -= 1) this.#propose();
    switch (this.#random.integer(9)) {
      case 0:
      case 1:
        if (seat.node === undefined) await cluster.restart(raftId);
        else if (cluster.running().length * 2 > cluster.seats.size) cluster.kill(raftId);
        return;
      case 2:
        if (cluster.cut.size === 0) cluster.cut.add(raftId);
        else cluster.cut.clear();
        return;
      case 3:
        seat.disk.limit(seat.disk.usedBytes + this.#random.integer(600));
        return;
      case 4:
        for (const { disk } of cluster.seats.values()) disk.limit(Number.POSITIVE_INFINITY);
        for (const [down, { node }] of cluster.seats) if (node === undefined) await cluster.restart(down);
        return;
      case 5:
        seat.node?.transferLeadership().catch(() => {});
        return;
      case 6: {
        const lossy = this.#random.float() < 0.5;
        cluster.loses = lossy ? () => this.#random.float() < 0.2 : undefined;
        return;
      }
      case 7:
        return this.#changeMembers();
    }
  }

  async #changeMembers(): Promise<void> {
    const { cluster } = this;
    const leader = cluster.leader()?.node;
    if (leader === undefined) return;
    const { members } = leader.status();
    if (members.length < 5) {
      const raftId = this.#nextMember;
      this.#nextMember += 1;
      await cluster.start(raftId, { kind: 'join', self: memberOf(raftId), members });
      leader.addMember(memberOf(raftId)).catch(() => {});
    } else {
      leader.removeMember(this.#pick(members)!.nodeId).catch(() => {});
    }
  }

  #propose(): void {
    const seat = this.#pick(this.cluster.running());
    if (seat === undefined) return;
    this.#proposed += 1;
    const text = `change ${this.#proposed}`;
    const startedIn = seat;
    this.cluster.propose(seat.member.raftId, text).then(
      ({ index }) => {
        this.acknowledged.set(text, index);
        if (startedIn.node !== undefined)
          assert.ok(startedIn.journal.lines.includes(text), `${text} is applied here`);
      },
      (error: unknown) => assert.ok(isShoalError(error), `${text}: ${String(error)}`),
    );
  }

  async #heal(): Promise<void> {
    const { cluster } = this;
    cluster.cut.clear();
    cluster.loses = undefined;
    for (const { disk } of cluster.seats.values()) disk.limit(Number.POSITIVE_INFINITY);
    for (const [raftId, seat] of cluster.seats) if (seat.node === undefined) await cluster.restart(raftId);
    await cluster.until(() => cluster.leader() !== undefined, 'a leader at last', 60_000);
    await cluster.clock.run(15_000);
  }

  async #check(): Promise<void> {
    const { cluster } = this;
    const leader = cluster.leader()!;
    await cluster.wait(leader.node!.propose(Buffer.from('the end')));
    const members = leader.node!.status().members.map(({ raftId }) => raftId);
    for (const raftId of members) {
      const { node, journal, failure } = cluster.seat(raftId);
      assert.equal(failure, undefined, `member ${raftId} runs`);
      await cluster.wait(node!.readBarrier());
      assert.deepEqual(journal.lines, leader.journal.lines, `member ${raftId} agrees`);
    }
    const { lines } = leader.journal;
    assert.equal(new Set(lines).size, lines.length, 'no change was made twice');
    const lost = [...this.acknowledged.keys()].filter((text) => !lines.includes(text));
    assert.deepEqual(lost, [], 'nothing acknowledged is lost');
    const indexes = lines.map((text) => this.acknowledged.get(text)).filter((index) => index !== undefined);
    assert.deepEqual(
      indexes,
      [...indexes].sort((left, right) => left - right),
      'in the order of the log',
    );
    assert.ok(this.acknowledged.size > 0, `only ${this.acknowledged.size} changes were acknowledged`);
  }
}

describe('a group under chaos', function () {
  this.timeout(60_000);
  for (const seed of seeds) {
    it(`keeps what it acknowledged (seed ${seed})`, () => new Chaos(seed).run());
  }
});
