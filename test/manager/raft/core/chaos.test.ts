/**
 * Raft's safety properties (paper, figure 3) on groups that live through lost, doubled and reordered
 * messages, crashes at every point between two writes, snapshots and membership changes; and that they
 * agree again once left in peace. A failure prints the seed that shows it; SHOAL_SEED and SHOAL_RUNS ask
 * for other runs and more of them.
 */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { ConfChangeSingle, Message } from '../../../../manager/raft/core/types.ts';
import { seededRandom } from '../../../simulation/random.ts';
import { confStateOf, Group, type Member, type Options } from './group.ts';

/** What is known to be true of the whole group, and must stay so. */
class Witness {
  readonly #leaders = new Map<number, number>();
  /** By index: the state after it, and the lowest term in which someone knew it committed. */
  readonly #history = new Map<number, { digest: string; term: number }>();
  #highest = 0;

  applied(member: Member): void {
    const { term } = member.core.status();
    const known = this.#history.get(member.applied);
    if (known === undefined) {
      this.#history.set(member.applied, { digest: member.digest, term });
      this.#highest = Math.max(this.#highest, member.applied);
      return;
    }
    assert.equal(
      member.digest,
      known.digest,
      `state machine safety: member ${member.id} at ${member.applied}`,
    );
    known.term = Math.min(known.term, term);
  }

  /** To be asked after every step. */
  observe(member: Member): void {
    const { role, term } = member.core.status();
    if (role !== 'leader') return;
    const known = this.#leaders.get(term);
    if (known !== undefined) {
      assert.equal(member.id, known, `election safety: term ${term}`);
      return;
    }
    this.#leaders.set(term, member.id);
    for (let index = this.#highest; index > 0; index--) {
      const committed = this.#history.get(index);
      if (committed === undefined || committed.term >= term) continue;
      assert.ok(member.storage.lastIndex() >= index, `leader completeness: term ${term} lacks ${index}`);
      return;
    }
  }

  get elections(): number {
    return this.#leaders.size;
  }

  get highest(): number {
    return this.#highest;
  }
}

/** Two logs that share an entry's index and term are the same up to there. */
function assertLogsMatch(a: Member, b: Member): void {
  const first = Math.max(a.storage.firstIndex(), b.storage.firstIndex());
  let agree = false;
  for (let index = Math.min(a.storage.lastIndex(), b.storage.lastIndex()); index >= first; index--) {
    const [ours] = a.storage.entries(index, index + 1, 0);
    const [theirs] = b.storage.entries(index, index + 1, 0);
    if (ours!.term === theirs!.term) agree = true;
    if (agree) assert.deepEqual(ours, theirs, `log matching: members ${a.id} and ${b.id} at ${index}`);
  }
}

class Chaos {
  readonly witness = new Witness();
  readonly group: Group;
  readonly #dice: ReturnType<typeof seededRandom>;
  readonly #withChanges: boolean;
  /** What is left to do of a Ready that was taken. */
  readonly #steps = new Map<Member, (() => void)[]>();
  #proposed = 0;

  constructor(seed: number, options: Options, withChanges: boolean) {
    this.#dice = seededRandom(seed);
    this.#withChanges = withChanges;
    const all: Options = { electionTicks: 5, maxInflightMessages: 3, maxSizePerMessageBytes: 40, ...options };
    this.group = new Group(3, { ...all, random: () => this.#dice.float() });
    if (withChanges) {
      for (const id of [4, 5])
        this.group.add(id, confStateOf([]), { ...all, random: () => this.#dice.float() });
    }
    for (const member of this.members) member.onApplied = (each) => this.witness.applied(each);
  }

  get members(): Member[] {
    return [...this.group.members.values()];
  }

  #pick<T>(list: readonly T[]): T {
    return list[this.#dice.integer(list.length)]!;
  }

  step(): void {
    const member = this.#pick(this.members);
    const die = this.#dice.integer(100);
    if (!member.isUp) {
      if (die < 30) member.restart();
    } else if (die < 15) {
      member.core.tick();
    } else if (die < 50) {
      this.#deliverSome();
    } else if (die < 80) {
      this.#process(member);
    } else if (die < 94) {
      this.#propose(member);
    } else if (die < 96) {
      if (member.core.status().role === 'leader') member.core.transferLeader(this.#pick(this.members).id);
      else member.core.reportUnreachable(this.#pick(this.members).id);
    } else if (die < 98) {
      this.#drain(member);
      member.compact(this.#dice.integer(4));
    } else {
      this.#crash(member);
    }
    if (member.isUp) this.witness.observe(member);
  }

  #deliverSome(): void {
    const { network } = this.group;
    for (let count = this.#dice.integer(5); count > 0 && network.length > 0; count--) {
      // Mostly in order, with stragglers.
      const at = this.#dice.integer(10) === 0 ? this.#dice.integer(network.length) : 0;
      const [message] = network.splice(at, 1) as [Message];
      const fate = this.#dice.integer(20);
      if (fate === 0) {
        this.group.lose(message);
        continue;
      }
      if (fate === 1) network.push(message);
      this.group.deliver(message);
      const to = this.group.get(message.to);
      if (to.isUp) this.witness.observe(to);
    }
  }

  #process(member: Member): void {
    if (member.options.asyncStorageWrites === true) {
      for (let count = this.#dice.integer(4); count >= 0; count--) {
        const die = this.#dice.integer(3);
        if (die === 0 && member.core.hasReady()) this.group.process(member);
        else this.group.work(member, die === 1 ? 'append' : 'apply');
      }
    } else if (this.#dice.integer(3) > 0) {
      this.#drain(member);
      if (member.core.hasReady()) this.group.process(member);
    } else {
      this.#processInSteps(member);
    }
  }

  /** A Ready step by step: between two of them other things happen to the member, or it crashes. */
  #processInSteps(member: Member): void {
    const steps = this.#steps.get(member) ?? [];
    const next = steps.shift();
    if (next !== undefined) {
      next();
      return;
    }
    if (!member.core.hasReady()) return;
    const ready = member.core.ready();
    const early = this.#dice.integer(4);
    this.#steps.set(member, [
      () => member.write(ready.hardState, ready.entries, ready.snapshot),
      () => this.group.network.push(...ready.messages.slice(0, early)),
      () => this.group.network.push(...ready.messages.slice(early)),
      () => member.apply(ready.committedEntries),
      () => member.core.advance(),
    ]);
  }

  /** Finishes the member's Ready. */
  #drain(member: Member): void {
    for (const step of this.#steps.get(member) ?? []) step();
    this.#steps.delete(member);
  }

  #crash(member: Member): void {
    this.#steps.delete(member);
    member.crash();
  }

  #propose(member: Member): void {
    try {
      if (this.#withChanges && this.#dice.integer(6) === 0) this.#proposeChange(member);
      else this.group.propose(member.id, `p${this.#proposed++}`);
    } catch (error) {
      assert.ok(error instanceof Error && error.name === 'ProposalDropped', String(error));
    }
  }

  #proposeChange(member: Member): void {
    const { configuration } = member.core.status();
    const types = ['add-voter', 'add-voter', 'remove', 'add-learner'] as const;
    const changes: ConfChangeSingle[] = [];
    for (let count = this.#dice.integer(3); count >= 0; count--) {
      const target = this.#pick(this.members).id;
      if (!changes.some((change) => change.member === target)) {
        changes.push({ type: this.#pick(types), member: target });
      }
    }
    const leaves = configuration.votersOutgoing.length > 0;
    // Someone who votes now goes on voting, so that the change can be applied whatever became of others.
    const stays = configuration.voters.find((id) => !changes.some((change) => change.member === id));
    if (!leaves && stays === undefined) return;
    const transition = this.#pick(['auto', 'implicit', 'explicit'] as const);
    const none = new Uint8Array(0);
    member.core.proposeConfChange(
      leaves ? { transition: 'auto', changes: [], context: none } : { transition, changes, context: none },
    );
  }

  /**
   * The one way in which a group that changes can come to a halt, in etcd's raft as here: memberships count
   * from when they are applied, so the voters left after a change may still ask one whom it retired, and
   * that one has entries that they lack, yet cannot lead.
   */
  #isDeadEnd(): boolean {
    const { members } = this;
    const isVoter = ({ id, confState: { voters, votersOutgoing } }: Member): boolean =>
      voters.includes(id) || votersOutgoing.includes(id);
    const end = ({ storage }: Member): [number, number] => {
      const last = storage.lastIndex();
      return [storage.term(last), last];
    };
    const isAhead = (a: Member, b: Member): boolean => {
      const [[aTerm, aLast], [bTerm, bLast]] = [end(a), end(b)];
      return aTerm > bTerm || (aTerm === bTerm && aLast > bLast);
    };
    const retired = members.filter((member) => member.applied > 0 && !isVoter(member));
    return members.filter(isVoter).every((voter) => retired.some((other) => isAhead(other, voter)));
  }

  /**
   * Everyone is up and heard: the group must find a leader and come to the same state. Whether it did;
   * only a group that changes may not.
   */
  makePeace(): boolean {
    for (const member of this.members) {
      this.#drain(member);
      if (!member.isUp) member.restart();
    }
    this.group.settle();
    for (let ticks = 0; ticks < 200; ticks++) {
      this.group.tick();
      for (const member of this.members) this.witness.observe(member);
      const leader = this.members.find(({ core }) => core.status().role === 'leader');
      if (leader !== undefined && ticks > 60) {
        this.group.propose(leader.id, 'peace');
        this.group.settle();
        this.group.tick(2);
        this.#assertAgreement(leader);
        return true;
      }
    }
    assert.ok(this.#withChanges && this.#isDeadEnd(), 'no leader after 200 ticks in peace');
    return false;
  }

  #assertAgreement(leader: Member): void {
    const { voters, votersOutgoing, learners } = leader.core.status().configuration;
    assert.ok(leader.appliedTexts.includes('peace'));
    for (const id of [...voters, ...votersOutgoing, ...learners]) {
      const member = this.group.get(id);
      assert.deepEqual([id, member.applied, member.digest], [id, leader.applied, leader.digest]);
    }
  }
}

const kinds: readonly { name: string; options: Options; changes: boolean }[] = [
  { name: 'with pre-vote and checked quorum', options: {}, changes: false },
  { name: 'without either', options: { preVote: false, checkQuorum: false }, changes: false },
  { name: 'with asynchronous writes', options: { asyncStorageWrites: true }, changes: false },
  { name: 'while members come and go', options: { stepDownOnRemoval: true }, changes: true },
  {
    name: 'while members come and go, with asynchronous writes',
    options: { asyncStorageWrites: true, stepDownOnRemoval: true },
    changes: true,
  },
];

describe('raft group under lost messages, crashes and snapshots', () => {
  for (const { name, options, changes } of kinds) {
    it(`stays safe and recovers, ${name}`, function () {
      this.timeout(120_000);
      let elections = 0;
      let entries = 0;
      let deadEnds = 0;
      const runs = Number(process.env.SHOAL_RUNS ?? 30);
      fc.assert(
        fc.property(fc.integer(), (seed) => {
          const chaos = new Chaos(seed, options, changes);
          for (let i = 0; i < 4_000; i++) chaos.step();
          if (!chaos.makePeace()) deadEnds++;
          const { members } = chaos;
          for (const a of members) for (const b of members) if (a.id < b.id) assertLogsMatch(a, b);
          elections += chaos.witness.elections;
          entries += chaos.witness.highest;
        }),
        { numRuns: runs, seed: Number(process.env.SHOAL_SEED ?? 1) },
      );
      assert.ok(deadEnds * 4 < runs, `${deadEnds} dead ends`);
      // A group that never elects or commits would be safe too.
      assert.ok(elections > runs, `${elections} elections`);
      assert.ok(entries > runs * 10, `${entries} entries`);
    });
  }
});
