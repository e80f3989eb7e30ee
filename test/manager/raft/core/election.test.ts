import assert from 'node:assert/strict';
import type { Message, MessageType } from '../../../../manager/raft/core/types.ts';
import { seededRandom } from '../../../simulation/random.ts';
import { confStateOf, Group, plain } from './group.ts';

const preVote = { preVote: true, checkQuorum: false };

function request(type: MessageType, from: number, to: number, term: number, log: [number, number]): Message {
  return { type, from, to, term, logTerm: log[0], index: log[1] };
}

/** What a member sends when it is told something. */
function answers(group: Group, id: number, message: Message): readonly Message[] {
  group.core(id).step(message);
  return group.process(group.get(id)).messages;
}

describe('raft elections', () => {
  describe('terms (Raft paper, 5.1)', () => {
    it('are adopted from whoever has a later one, whatever the role', () => {
      for (const role of ['follower', 'candidate', 'leader']) {
        const group = new Group(3, plain);
        if (role === 'leader') group.elect(1);
        if (role === 'candidate') group.core(1).campaign();
        assert.equal(group.core(1).status().role, role);
        group.core(1).step({ type: 'MsgApp', from: 2, to: 1, term: 9, logTerm: 1, index: 1 });
        const status = group.core(1).status();
        assert.deepEqual([status.role, status.term, status.lead], ['follower', 9, 2]);
      }
    });

    it('make messages of earlier ones go unheard', () => {
      const group = new Group(3, plain);
      group.elect(2);
      const { term } = group.core(1).status();
      assert.deepEqual(answers(group, 1, request('MsgApp', 3, 1, term - 1, [1, 1])), []);
      assert.equal(group.core(1).status().lead, 2);
    });
  });

  describe('votes (Raft paper, 5.2 and 5.4.1)', () => {
    it('are given to one candidate a term, first come, first served, and again to the same', () => {
      const group = new Group(3, plain);
      const vote = (from: number, term: number): boolean => {
        const [answer] = answers(group, 1, request('MsgVote', from, 1, term, [1, 1]));
        return answer!.reject !== true;
      };
      assert.equal(vote(2, 2), true);
      assert.equal(vote(3, 2), false);
      assert.equal(vote(2, 2), true);
      assert.equal(vote(3, 3), true);
    });

    it('outlive a crash', () => {
      const group = new Group(3, plain);
      answers(group, 1, request('MsgVote', 2, 1, 2, [1, 1]));
      group.get(1).crash();
      group.get(1).restart();
      const [answer] = answers(group, 1, request('MsgVote', 3, 1, 2, [1, 1]));
      assert.equal(answer!.reject, true);
    });

    it('are given in any role, to a candidate of a later term', () => {
      for (const role of ['follower', 'pre-candidate', 'candidate', 'leader']) {
        for (const type of ['MsgVote', 'MsgPreVote'] as const) {
          const group = new Group(3, role === 'pre-candidate' ? preVote : plain);
          if (role === 'leader') group.elect(1);
          else if (role !== 'follower') group.core(1).campaign();
          group.flush(1);
          const { term, vote } = group.core(1).status();
          const [answer] = answers(group, 1, request(type, 3, 1, term + 1, [9, 9]));
          assert.notEqual(answer!.reject, true, `${type} by a ${role}`);
          const after = group.core(1).status();
          if (type === 'MsgVote') assert.deepEqual([after.role, after.vote], ['follower', 3]);
          else assert.deepEqual([after.role, after.vote, after.term], [role, vote, term], 'no promise');
        }
      }
    });

    it('must be flushed before they are told', () => {
      const group = new Group(3, plain);
      group.core(1).step(request('MsgVote', 2, 1, 2, [1, 1]));
      const ready = group.process(group.get(1));
      assert.equal(ready.mustSync, true);
      assert.deepEqual(ready.hardState, { term: 2, vote: 2, commit: 1 });
    });

    it('are refused to a log that ends earlier', () => {
      const group = new Group(3, plain);
      group.elect(1);
      group.propose(1, 'x');
      group.settle();
      const { term } = group.core(1).status();
      let fresh = term;
      for (const [log, granted] of [
        [[term, 3], true],
        [[term + 1, 1], true],
        [[term, 2], false],
        [[term - 1, 9], false],
      ] as const) {
        group.core(2).forgetLeader();
        const [answer] = answers(group, 2, request('MsgVote', 3, 2, ++fresh, [...log]));
        assert.equal(answer!.reject !== true, granted, String(log));
      }
    });

    for (const [count, granted, refused, role] of [
      [1, 0, 0, 'leader'],
      [3, 2, 0, 'leader'],
      [3, 1, 0, 'leader'],
      [3, 1, 1, 'leader'],
      [3, 0, 2, 'follower'],
      [3, 0, 1, 'candidate'],
      [3, 0, 0, 'candidate'],
      [5, 2, 0, 'leader'],
      [5, 2, 2, 'leader'],
      [5, 1, 0, 'candidate'],
      [5, 1, 3, 'follower'],
    ] as const) {
      it(`of ${count}: ${granted} given and ${refused} refused make a ${role}`, () => {
        const group = new Group(count, plain);
        const core = group.core(1);
        core.campaign();
        group.process(group.get(1));
        const { term } = core.status();
        for (let i = 0; i < granted + refused; i++) {
          core.step({ type: 'MsgVoteResp', from: 2 + i, to: 1, term, reject: i >= granted });
        }
        assert.equal(core.status().role, role);
      });
    }

    it('are not counted twice, nor the own one once the election is lost', () => {
      const group = new Group(5, plain);
      const core = group.core(1);
      core.campaign();
      const { term } = core.status();
      for (let i = 0; i < 5; i++) core.step({ type: 'MsgVoteResp', from: 2, to: 1, term });
      assert.equal(core.status().role, 'candidate');
      core.step({ type: 'MsgHeartbeat', from: 3, to: 1, term });
      group.process(group.get(1));
      assert.equal(core.status().role, 'follower');
    });
  });

  describe('timeouts', () => {
    it('lie between one and two election times, by chance', () => {
      for (const [chance, ticks] of [
        [0, 10],
        [0.5, 15],
        [0.999, 19],
      ] as const) {
        const group = new Group(1, { ...plain, random: () => chance });
        for (let i = 1; i < ticks; i++) group.core(1).tick();
        assert.equal(group.core(1).status().role, 'follower');
        group.core(1).tick();
        assert.equal(group.core(1).status().role, 'candidate');
      }
    });

    it('start over when the leader is heard of, or a vote is given', () => {
      const group = new Group(3, plain);
      const core = group.core(1);
      for (let i = 0; i < 9; i++) core.tick();
      core.step({ type: 'MsgHeartbeat', from: 2, to: 1, term: 2 });
      for (let i = 0; i < 9; i++) core.tick();
      core.step(request('MsgVote', 3, 1, 3, [1, 1]));
      for (let i = 0; i < 9; i++) core.tick();
      assert.equal(core.status().role, 'follower');
      core.tick();
      assert.equal(core.status().role, 'candidate');
    });

    it('elect a leader in a group left to itself, and another when that one is gone', () => {
      const group = new Group(3);
      for (const { core, id } of group.members.values()) core.setRandomizedElectionTicks(10 + 2 * id);
      group.tick(12);
      assert.deepEqual(group.roles(), ['leader', 'follower', 'follower']);
      group.get(1).crash();
      group.core(2).setRandomizedElectionTicks(12);
      group.core(3).setRandomizedElectionTicks(18);
      group.tick(13);
      assert.deepEqual(group.roles().slice(1), ['leader', 'follower']);
    });
  });

  describe('learners', () => {
    it('never stand, whether they time out or are told to', () => {
      const group = new Group(3, plain, [1, 2], [3]);
      const core = group.core(3);
      for (let i = 0; i < 40; i++) core.tick();
      core.campaign();
      core.step({ type: 'MsgTimeoutNow', from: 1, to: 3, term: 2 });
      assert.equal(core.status().role, 'follower');
    });

    it('vote when asked, for they may be voters without knowing yet', () => {
      const group = new Group(3, plain, [1, 2], [3]);
      const [answer] = answers(group, 3, request('MsgVote', 2, 3, 2, [1, 1]));
      assert.notEqual(answer!.reject, true);
    });

    it('can lead once they are promoted', () => {
      const group = new Group(2, plain, [1], [2]);
      group.elect(1);
      const changes = [{ type: 'add-voter', member: 2 }] as const;
      group.core(1).proposeConfChange({ transition: 'auto', changes, context: new Uint8Array(0) });
      group.settle();
      group.elect(2);
      assert.deepEqual(group.roles(), ['follower', 'leader']);
    });
  });

  describe('pre-votes (dissertation, 9.6)', () => {
    it('keep a member that was cut off from disturbing the others', () => {
      const group = new Group(3, preVote);
      group.elect(1);
      const terms = group.terms();
      group.isolate(3);
      group.propose(1, 'x');
      group.tick(50);
      assert.deepEqual(group.terms(), terms, 'its term did not rise');
      group.heal();
      group.tick(20);
      assert.deepEqual(group.roles(), ['leader', 'follower', 'follower']);
      assert.deepEqual(group.terms(), terms);
      assert.deepEqual(group.texts(3), ['x']);
    });

    it('without them, such a member deposes the leader', () => {
      const group = new Group(3, plain);
      group.elect(1);
      const [term] = group.terms();
      group.isolate(3);
      group.tick(30);
      group.heal();
      group.tick(10);
      assert.ok(group.terms()[0]! > term!);
    });

    it('are no promise: two pre-candidates may get the same, and one of them leads', () => {
      const group = new Group(3, preVote);
      group.core(1).campaign();
      group.core(2).campaign();
      group.settle();
      group.tick(30);
      assert.equal(group.roles().filter((role) => role === 'leader').length, 1);
    });

    it('let a member behind in term win where the leader is gone', () => {
      const group = new Group(3, preVote);
      group.elect(1);
      group.isolate(3);
      group.get(3).crash();
      group.elect(2);
      group.elect(1);
      group.get(3).restart();
      group.heal();
      group.get(1).crash();
      group.tick(60);
      assert.equal(
        group
          .roles()
          .slice(1)
          .filter((role) => role === 'leader').length,
        1,
      );
    });

    it('can be introduced member by member', () => {
      const dice = seededRandom(1);
      const random = (): number => dice.float();
      const group = new Group(2, { ...preVote, random }, [1, 2, 3]);
      group.add(3, confStateOf([1, 2, 3]), { ...plain, random });
      group.elect(1);
      group.isolate(3);
      group.propose(1, 'x');
      group.tick(40);
      group.heal();
      // Member 3, as yet without, is ahead in term and behind in its log.
      group.tick(60);
      assert.equal(group.roles().filter((role) => role === 'leader').length, 1);
      assert.notEqual(group.roles()[2], 'leader');
      group.get(1).crash();
      group.get(1).restart();
      group.tick(60);
      assert.deepEqual(group.texts(3), ['x']);
    });
  });

  describe('checked quorum (dissertation, 6.2 and 4.2.3)', () => {
    const checked = { preVote: false, checkQuorum: true };

    it('makes a leader step down that hears of no majority', () => {
      const group = new Group(3, checked);
      group.elect(1);
      group.tick(25);
      assert.equal(group.roles()[0], 'leader');
      group.isolate(1);
      for (let i = 0; i < 21; i++) group.core(1).tick();
      assert.equal(group.roles()[0], 'follower');
    });

    it('keeps a leader that hears of a bare majority', () => {
      const group = new Group(3, checked);
      group.elect(1);
      group.get(3).crash();
      group.tick(60);
      assert.equal(group.roles()[0], 'leader');
    });

    it('gives no vote while the leader was heard of', () => {
      const group = new Group(3, checked);
      group.elect(1);
      group.tick(1);
      const { term } = group.core(2).status();
      assert.deepEqual(answers(group, 2, request('MsgVote', 3, 2, term + 5, [9, 9])), []);
      assert.equal(group.core(2).status().term, term);
      for (let i = 0; i < 9; i++) group.core(2).tick();
      group.core(2).setRandomizedElectionTicks(20);
      for (let i = 0; i < 2; i++) group.core(2).tick();
      const [answer] = answers(group, 2, request('MsgVote', 3, 2, term + 5, [9, 9]));
      assert.notEqual(answer!.reject, true);
    });

    it('counts a newcomer as heard of, until it had its chance', () => {
      const group = new Group(1, checked);
      group.elect(1);
      const changes = [{ type: 'add-voter', member: 2 }] as const;
      group.core(1).proposeConfChange({ transition: 'auto', changes, context: new Uint8Array(0) });
      group.settle();
      for (let i = 0; i < 10; i++) group.core(1).tick();
      assert.equal(group.roles()[0], 'leader');
      for (let i = 0; i < 10; i++) group.core(1).tick();
      assert.equal(group.roles()[0], 'follower', 'two voters, and the other was never there');
    });

    it('frees a candidate whose term ran ahead, by telling the leader of it', () => {
      const group = new Group(3, checked);
      group.elect(1);
      group.isolate(3);
      for (let i = 0; i < 45; i++) group.core(3).tick();
      const ahead = group.core(3).status().term;
      group.network = [];
      group.heal();
      group.tick(1);
      assert.ok(group.core(1).status().term >= ahead, 'the leader gave way to the later term');
      group.tick(40);
      assert.equal(group.roles().filter((role) => role === 'leader').length, 1);
    });
  });

  it('wait until committed membership changes are applied', () => {
    const group = new Group(1, plain);
    const member = group.get(1);
    group.elect(1);
    const changes = [{ type: 'add-voter', member: 2 }] as const;
    member.core.proposeConfChange({ transition: 'auto', changes, context: new Uint8Array(0) });
    // Committed but not applied: written, and back after a crash.
    const ready = member.core.ready();
    member.write(ready.hardState, ready.entries, ready.snapshot);
    member.storage.setHardState({ ...member.storage.initialState().hardState, commit: 3 });
    member.crash();
    member.restart();
    member.core.campaign();
    assert.equal(member.core.status().role, 'follower');
    group.settle();
    member.core.campaign();
    assert.equal(member.core.status().role, 'candidate');
  });

  it('are not for those who are no members', () => {
    const group = new Group(1, plain, []);
    assert.deepEqual(group.get(1).confState, confStateOf([]));
    group.core(1).campaign();
    for (let i = 0; i < 50; i++) group.core(1).tick();
    assert.equal(group.core(1).status().role, 'follower');
  });

  it('are not held by a leader, who goes on leading', () => {
    const group = new Group(3);
    group.elect(1);
    const [term] = group.terms();
    group.core(1).campaign();
    group.settle();
    assert.deepEqual([group.roles()[0], group.terms()[0]], ['leader', term]);
  });

  it('may follow at once where the leader is forgotten, though its lease holds', () => {
    const group = new Group(3);
    group.elect(1);
    group.tick(1);
    group.core(2).forgetLeader();
    assert.equal(group.core(2).status().lead, 0);
    group.core(3).campaign();
    group.settle();
    assert.equal(group.core(3).status().role, 'leader', 'by the vote of 2, who knows of no leader');
  });
});
