import assert from 'node:assert/strict';
import { ProposalDropped } from '../../../../manager/raft/core/core.ts';
import type { Entry, Message } from '../../../../manager/raft/core/types.ts';
import { confStateOf, Group, type Member } from './group.ts';

const plain = { preVote: false, checkQuorum: false };
const noBytes = new Uint8Array(0);

/** Members' messages of a kind that wait in the network, as `to:first-last` or `to:-` without entries. */
function appends(group: Group): string[] {
  return group.network
    .filter(({ type }) => type === 'MsgApp')
    .map(({ to, entries = [] }) =>
      entries.length === 0 ? `${to}:-` : `${to}:${entries[0]!.index}-${entries.at(-1)!.index}`,
    );
}

/** Takes one Ready of each member in turn and keeps what it sends in the network. */
function flush(group: Group, ...ids: number[]): void {
  for (const id of ids) {
    while (group.core(id).hasReady()) group.process(group.get(id));
  }
}

/** Gives a member entries of the given terms, from index 2 on, as if from earlier leaders. */
function setLog(member: Member, terms: readonly number[], term: number): void {
  const entries = terms.map((of, i): Entry => ({ term: of, index: 2 + i, type: 'normal', data: noBytes }));
  member.storage.append(entries);
  member.storage.setHardState({ term, vote: 0, commit: 1 });
  member.crash();
  member.restart();
}

function termsOf({ storage }: Member): number[] {
  return storage.entries(2, storage.lastIndex() + 1, Number.POSITIVE_INFINITY).map(({ term }) => term);
}

describe('raft replication', () => {
  describe('of what is proposed (Raft paper, 5.3)', () => {
    it('goes to all at once, and is committed when a majority holds it', () => {
      const group = new Group(5, plain);
      group.elect(1);
      group.propose(1, 'x');
      flush(group, 1);
      assert.deepEqual(appends(group), ['2:3-3', '3:3-3', '4:3-3', '5:3-3']);
      const [first] = group.network as [Message];
      assert.deepEqual([first.logTerm, first.index, first.commit], [2, 2, 2]);
      group.get(4).crash();
      group.get(5).crash();
      group.settle();
      assert.deepEqual(
        [1, 2, 3].map((id) => group.texts(id)),
        [['x'], ['x'], ['x']],
      );
    });

    it('is not committed by less than a majority', () => {
      const group = new Group(4, plain);
      group.elect(1);
      group.get(3).crash();
      group.get(4).crash();
      group.propose(1, 'x');
      group.settle();
      assert.deepEqual(group.texts(1), []);
      group.get(3).restart();
      group.tick(2);
      assert.deepEqual(group.texts(1), ['x']);
    });

    it('counts the leader only once its own disk holds it', () => {
      const group = new Group(3, plain);
      group.elect(1);
      group.get(3).crash();
      group.propose(1, 'x');
      const ready = group.core(1).ready();
      for (const message of ready.messages) group.deliver(message);
      flush(group, 2);
      for (const message of group.network.splice(0)) group.deliver(message);
      assert.equal(group.core(1).status().commit, 2, 'member 2 holds it, the leader not yet');
      group.get(1).write(ready.hardState, ready.entries, ready.snapshot);
      group.core(1).advance();
      assert.equal(group.core(1).status().commit, 3);
    });

    it('is committed at once when the one who is missing is removed', () => {
      const group = new Group(2, plain);
      group.elect(1);
      const changes = [{ type: 'remove', member: 2 }] as const;
      group.core(1).proposeConfChange({ transition: 'auto', changes, context: noBytes });
      group.propose(1, 'x');
      group.propose(1, 'y');
      group.loses = ({ type, to, entries = [] }) =>
        type === 'MsgApp' && to === 2 && entries.some((entry) => entry.type === 'normal');
      group.settle();
      assert.deepEqual(group.texts(1), ['x', 'y']);
      assert.deepEqual(group.texts(2), []);
    });

    it('reaches learners, whose answers do not count', () => {
      const group = new Group(3, plain, [1, 2], [3]);
      group.elect(1);
      group.get(2).crash();
      group.propose(1, 'x');
      group.settle();
      assert.equal(group.core(1).status().progress.get(3)!.match, 3);
      assert.equal(group.core(1).status().commit, 2);
    });

    it('by way of a follower ends at the leader', () => {
      const group = new Group(3);
      group.elect(1);
      group.propose(2, 'x');
      group.settle();
      assert.deepEqual(group.texts(3), ['x']);
    });

    it('is refused without a leader, or where it must not be passed on', () => {
      const group = new Group(3, { disableProposalForwarding: true });
      const reasons = (): string => {
        try {
          group.propose(2, 'x');
          return 'taken';
        } catch (error) {
          assert.ok(error instanceof ProposalDropped && error.retriable);
          return error.reason;
        }
      };
      assert.equal(reasons(), 'no-leader');
      group.elect(1);
      assert.equal(reasons(), 'forwarding-disabled');
      group.core(2).campaign();
      assert.equal(reasons(), 'no-leader', 'a candidate knows of none');
    });

    it('is refused while too much waits, but for one of any size, and empty ones', () => {
      const group = new Group(3, { maxUncommittedEntriesSizeBytes: 20 });
      group.elect(1);
      group.propose(1, 'a'.repeat(50));
      assert.throws(
        () => group.propose(1, 'b'),
        (error) => error instanceof ProposalDropped && error.reason === 'too-much-uncommitted',
      );
      group.propose(1, '');
      group.settle();
      for (let i = 0; i < 4; i++) group.propose(1, 'ccccc');
      assert.throws(() => group.propose(1, 'c'), ProposalDropped);
      group.settle();
      assert.equal(group.texts(2).length, 5);
    });
  });

  describe('of another leader’s entries', () => {
    it('commits them only with one of its own (Raft paper, 5.4.2, figure 8)', () => {
      const group = new Group(3, plain);
      setLog(group.get(1), [2, 2], 2);
      setLog(group.get(2), [2, 2], 2);
      const core = group.core(1);
      core.campaign();
      flush(group, 1);
      const { term } = core.status();
      core.step({ type: 'MsgVoteResp', from: 2, to: 1, term });
      core.step({ type: 'MsgAppResp', from: 2, to: 1, term, index: 3 });
      flush(group, 1);
      assert.equal(core.status().commit, 1, 'a majority holds 3, but it is of an earlier term');
      core.step({ type: 'MsgAppResp', from: 2, to: 1, term, index: 4 });
      assert.equal(core.status().commit, 4);
    });

    for (const [name, terms] of [
      ['a: it lacks one', [2, 2, 2, 5, 5, 6, 6, 7, 7]],
      ['b: it lacks many', [2, 2, 2, 5]],
      ['c: it has one too many', [2, 2, 2, 5, 5, 6, 6, 7, 7, 7, 7]],
      ['d: it has some of a later term', [2, 2, 2, 5, 5, 6, 6, 7, 7, 7, 8, 8]],
      ['e: it has others of the same term', [2, 2, 2, 5, 5, 5, 5]],
      ['f: it has others of many terms', [2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4]],
    ] as const) {
      it(`brings a follower's log in line (figure 7 ${name})`, () => {
        const group = new Group(3, plain);
        const lead = [2, 2, 2, 5, 5, 6, 6, 7, 7, 7];
        setLog(group.get(1), lead, 9);
        setLog(group.get(2), terms, 8);
        setLog(group.get(3), lead, 9);
        group.loses = ({ from, to }) => from === 2 && to === 1 && group.roles()[0] !== 'leader';
        group.elect(1);
        group.propose(1, 'x');
        group.settle();
        group.tick(2);
        assert.deepEqual(termsOf(group.get(2)), termsOf(group.get(1)));
        assert.deepEqual(termsOf(group.get(1)).slice(0, 10), lead);
        assert.equal(group.core(2).status().commit, group.core(1).status().commit);
      });
    }

    it('finds where logs part in a round per term, not per entry', () => {
      const group = new Group(3, plain);
      setLog(group.get(1), [...Array(50).fill(2), ...Array(50).fill(5)], 9);
      setLog(group.get(2), [...Array(50).fill(2), ...Array(80).fill(3)], 8);
      setLog(group.get(3), [...Array(50).fill(2), ...Array(50).fill(5)], 9);
      let rejections = 0;
      group.loses = (message) => {
        if (message.type === 'MsgAppResp' && message.reject === true) rejections++;
        return false;
      };
      group.elect(1);
      group.tick(2);
      assert.deepEqual(termsOf(group.get(2)), termsOf(group.get(1)));
      assert.ok(rejections <= 2, `${rejections} rejections`);
    });
  });

  describe('flow', () => {
    /** Member 1 leads 2 and 3, who are in step. */
    function leading(options = {}): Group {
      const group = new Group(3, { ...plain, maxInflightMessages: 4, ...options });
      group.elect(1);
      group.settle();
      return group;
    }

    it('runs ahead of the answers up to the window, and on as they come', () => {
      const group = leading();
      for (let i = 0; i < 6; i++) group.propose(1, `${i}`);
      flush(group, 1);
      assert.deepEqual(
        appends(group).filter((sent) => sent.startsWith('2')),
        ['2:3-3', '2:4-4', '2:5-5', '2:6-6'],
      );
      assert.equal(group.core(1).status().progress.get(2)!.paused, true);
      group.settle();
      assert.equal(group.texts(2).length, 6);
    });

    it('is bounded in bytes too', () => {
      const group = leading({ maxInflightBytes: 1_000, maxInflightMessages: 99 });
      for (let i = 0; i < 6; i++) group.propose(1, 'x'.repeat(400));
      flush(group, 1);
      assert.equal(appends(group).filter((sent) => sent.startsWith('2')).length, 3);
      group.settle();
      assert.equal(group.texts(2).length, 6);
    });

    it('cuts what is sent at once by size', () => {
      const group = leading({ maxSizePerMessageBytes: 100 });
      group.get(3).crash();
      for (let i = 0; i < 6; i++) group.propose(1, 'x'.repeat(40));
      group.settle();
      const sizes: number[] = [];
      group.loses = (message) => {
        if (message.to === 3 && message.type === 'MsgApp') sizes.push(message.entries!.length);
        return false;
      };
      group.get(3).restart();
      group.tick(2);
      assert.equal(group.texts(3).length, 6);
      assert.ok(sizes.length > 1 && sizes.every((count) => count <= 2), String(sizes));
    });

    it('stops for a member that is not reachable, but for a probe with each heartbeat', () => {
      const group = leading();
      group.get(3).crash();
      group.core(1).reportUnreachable(3);
      for (let i = 0; i < 5; i++) group.propose(1, `${i}`);
      flush(group, 1);
      assert.deepEqual(
        appends(group).filter((sent) => sent.startsWith('3')),
        ['3:3-3'],
      );
      group.get(3).restart();
      group.network = [];
      group.tick(2);
      assert.deepEqual(
        [group.texts(3).length, group.core(1).status().progress.get(3)!.state],
        [5, 'replicate'],
      );
    });

    it('survives messages that come out of order, late or twice', () => {
      const group = leading();
      for (let i = 0; i < 4; i++) group.propose(1, `${i}`);
      flush(group, 1);
      group.network.reverse();
      group.network.push(...group.network);
      group.settle();
      group.tick(3);
      assert.deepEqual(group.texts(2), ['0', '1', '2', '3']);
    });

    it('answers what lies before its commit with that', () => {
      const group = leading();
      for (let i = 0; i < 4; i++) group.propose(1, `${i}`);
      group.settle();
      const { term, commit } = group.core(2).status();
      group.get(2).compact(0);
      group.core(2).step({ type: 'MsgApp', from: 1, to: 2, term, logTerm: 1, index: 1, commit: 2 });
      const [answer] = group.process(group.get(2)).messages;
      assert.deepEqual([answer!.reject, answer!.index], [undefined, commit]);
    });

    it('tells a follower of the commit even if nothing else is to be said', () => {
      const group = leading();
      group.propose(1, 'x');
      group.loses = ({ to, type, commit }) => to === 2 && type === 'MsgApp' && commit === 3;
      group.settle();
      assert.deepEqual(group.texts(2), []);
      group.heal();
      group.tick(1);
      assert.deepEqual(group.texts(2), ['x'], 'by the heartbeat');
    });
  });

  describe('snapshots', () => {
    /** Member 3 missed ten entries that the leader has compacted. */
    function behind(): Group {
      const group = new Group(3, plain);
      group.elect(1);
      group.get(3).crash();
      for (let i = 0; i < 10; i++) group.propose(1, `${i}`);
      group.settle();
      group.get(1).compact(2);
      return group;
    }

    it('bring a member up to date whose entries are gone, and replication goes on', () => {
      const group = behind();
      group.get(3).restart();
      group.tick(3);
      assert.equal(group.get(3).digest, group.get(1).digest);
      group.propose(1, 'x');
      group.settle();
      assert.equal(group.get(3).digest, group.get(1).digest);
      assert.equal(group.core(1).status().progress.get(3)!.state, 'replicate');
    });

    it('are not sent to a member that was not heard of', () => {
      const group = behind();
      group.loses = ({ type }) => type === 'MsgHeartbeatResp';
      for (let i = 0; i < 10; i++) group.core(1).tick();
      group.core(1).step({ type: 'MsgHeartbeatResp', from: 2, to: 1, term: 2 });
      assert.notEqual(group.core(1).status().progress.get(3)!.state, 'snapshot');
    });

    it('stop everything else until they are reported on', () => {
      const group = behind();
      group.core(1).step({ type: 'MsgHeartbeatResp', from: 3, to: 1, term: 2 });
      group
        .core(1)
        .step({ type: 'MsgAppResp', from: 3, to: 1, term: 2, index: 3, reject: true, rejectHint: 2 });
      const status = () => group.core(1).status().progress.get(3)!;
      assert.deepEqual([status().state, status().pendingSnapshot], ['snapshot', 12]);
      flush(group, 1);
      group.network = [];
      group.propose(1, 'x');
      group.core(1).step({ type: 'MsgHeartbeatResp', from: 3, to: 1, term: 2 });
      flush(group, 1);
      assert.deepEqual(
        appends(group).filter((sent) => sent.startsWith('3')),
        [],
      );
      group.core(1).reportSnapshot(3, false);
      assert.deepEqual([status().state, status().next, status().paused], ['probe', 3, true]);
    });

    it('that bring nothing new are answered and otherwise ignored', () => {
      const group = behind();
      const { core, storage } = group.get(2);
      const { metadata, data } = storage.snapshot();
      core.step({ type: 'MsgSnap', from: 1, to: 2, term: 2, snapshot: { metadata, data } });
      const ready = group.process(group.get(2));
      assert.equal(ready.snapshot, undefined);
      assert.deepEqual(
        ready.messages.map(({ type, index }) => [type, index]),
        [['MsgAppResp', core.status().commit]],
      );
    });

    it('only move the commit where the log agrees with them', () => {
      const group = new Group(2, plain);
      setLog(group.get(2), [2, 2, 2], 2);
      const metadata = { index: 3, term: 2, confState: confStateOf([1, 2]) };
      group.core(2).step({ type: 'MsgSnap', from: 1, to: 2, term: 2, snapshot: { metadata, data: noBytes } });
      const ready = group.process(group.get(2));
      assert.deepEqual([ready.snapshot, ready.committedEntries.length], [undefined, 2]);
      assert.equal(group.get(2).storage.lastIndex(), 4, 'the log is kept');
    });

    it('replace the membership, whatever it was, and hold elections off until they are stored', () => {
      const group = new Group(3, plain);
      const metadata = { index: 9, term: 4, confState: { ...confStateOf([1, 2]), learners: [3] } };
      group.core(3).step({ type: 'MsgSnap', from: 1, to: 3, term: 4, snapshot: { metadata, data: noBytes } });
      const { configuration, commit } = group.core(3).status();
      assert.deepEqual([configuration.voters, configuration.learners, commit], [[1, 2], [3], 9]);
      group.core(2).step({
        type: 'MsgSnap',
        from: 1,
        to: 2,
        term: 4,
        snapshot: { metadata: { ...metadata, confState: confStateOf([2]) }, data: noBytes },
      });
      group.core(2).campaign();
      assert.equal(group.core(2).status().role, 'follower');
      group.process(group.get(2));
      group.core(2).campaign();
      assert.equal(group.core(2).status().role, 'candidate');
    });

    it('bring in a newcomer even if they are older than its admission', () => {
      const group = behind();
      group.add(4, confStateOf([]), plain);
      const changes = [{ type: 'add-learner', member: 4 }] as const;
      group.core(1).proposeConfChange({ transition: 'auto', changes, context: noBytes });
      group.tick(4);
      assert.ok(!group.get(1).storage.snapshot().metadata.confState.learners.includes(4));
      assert.equal(group.get(4).digest, group.get(1).digest);
      assert.deepEqual(group.get(4).confState.learners, [4]);
    });
  });

  describe('with asynchronous writes', () => {
    const options = { ...plain, asyncStorageWrites: true };

    it('keeps entries until the very ones are durable that stand there now', () => {
      // 2 follows leader 1 in term 2, then 3 in term 3 who replaces its entries, then 1 again in term 4 who
      // brings back the first ones; the writes of all three are still under way.
      const group = new Group(3, options);
      const follower = group.get(2);
      const entry = (term: number): Entry => ({ term, index: 2, type: 'normal', data: noBytes });
      for (const [term, from, of] of [
        [2, 1, 2],
        [3, 3, 3],
        [4, 1, 2],
      ] as const) {
        const entries = [entry(of)];
        follower.core.step({ type: 'MsgApp', from, to: 2, term, logTerm: 1, index: 1, entries });
        group.process(follower);
      }
      group.work(follower, 'append');
      group.work(follower, 'append');
      assert.equal(follower.storage.term(2), 3, 'on the disk stands what is not meant to stay');
      const heartbeat = { type: 'MsgHeartbeat', from: 1, to: 2, term: 4, commit: 2 } as const;
      follower.core.step(heartbeat);
      assert.equal(group.process(follower).committedEntries.length, 0, 'nothing is applied from there');
      while (group.work(follower, 'append')) group.process(follower);
      while (group.work(follower, 'apply')) group.process(follower);
      assert.deepEqual([follower.storage.term(2), follower.applied], [2, 2]);
    });

    it('hands out on and on, without waiting for the disk', () => {
      const group = new Group(3, options);
      group.elect(1);
      for (let i = 0; i < 3; i++) {
        group.propose(1, `${i}`);
        group.process(group.get(1));
      }
      assert.equal(group.get(1).appendWork.length, 3);
      assert.deepEqual(
        appends(group).filter((sent) => sent.startsWith('2')),
        ['2:3-3', '2:4-4', '2:5-5'],
      );
      group.settle();
      assert.deepEqual(group.texts(1), ['0', '1', '2']);
      assert.throws(() => group.core(1).advance(), { code: 'internal' });
    });
  });

  it('is handed out again only after it was dealt with', () => {
    const group = new Group(1);
    group.core(1).campaign();
    group.core(1).ready();
    assert.throws(() => group.core(1).ready(), { code: 'internal' });
  });

  it('takes no message that a member can only send to itself', () => {
    const group = new Group(3);
    for (const type of ['MsgHup', 'MsgBeat', 'MsgUnreachable', 'MsgSnapStatus', 'MsgCheckQuorum'] as const) {
      assert.throws(() => group.core(1).step({ type, from: 2, to: 1, term: 0 }), { reason: 'local-message' });
    }
    assert.throws(() => group.core(1).step({ type: 'MsgAppResp', from: 9, to: 1, term: 1 }), {
      reason: 'unknown-member',
    });
  });
});
