import assert from 'node:assert/strict';
import { type ErrorCode, isShoalError } from '../../../proto/errors.ts';
import { memberOf, RaftCluster } from './raft-cluster.ts';

let cluster: RaftCluster;

async function fails(promise: Promise<unknown>, code: ErrorCode, message: RegExp): Promise<void> {
  await assert.rejects(cluster.wait(promise), (error) => {
    assert.ok(isShoalError(error), String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  });
}

function linesOf(raftId: number): readonly string[] {
  return cluster.seat(raftId).journal.lines;
}

describe('one manager alone', () => {
  beforeEach(() => {
    cluster = new RaftCluster();
  });
  afterEach(() => cluster.stop());

  it('leads at once and applies what it is given, one flush for each', async () => {
    cluster.quickShare = 0;
    await cluster.form(1);
    const { disk } = cluster.seat(1);
    await cluster.wait(cluster.propose(1, 'zero'));
    const flushes = disk.flushes;
    const startMs = cluster.clock.monotonicMs();
    const { index, result } = await cluster.wait(cluster.propose(1, 'one'));
    assert.ok(index > 1);
    assert.deepEqual(result, { position: 2 });
    assert.equal(disk.flushes - flushes, 1);
    assert.equal(cluster.clock.monotonicMs() - startMs, 0.25);
  });

  it('lets proposals that come during a flush share the next one', async () => {
    await cluster.form(1);
    const { disk } = cluster.seat(1);
    const flushes = disk.flushes;
    const first = cluster.propose(1, 'first');
    await Promise.resolve();
    await Promise.resolve();
    const others = Array.from({ length: 100 }, (_, number) => cluster.propose(1, `other ${number}`));
    await cluster.wait(Promise.all([first, ...others]));
    assert.ok(disk.flushes - flushes <= 2, `${disk.flushes - flushes} flushes`);
    assert.equal(linesOf(1).length, 101);
  });

  it('measures commits', async () => {
    const latencies: number[] = [];
    cluster = new RaftCluster({ onCommit: (latencyMs) => latencies.push(latencyMs) });
    cluster.quickShare = 0;
    await cluster.form(1);
    await cluster.wait(cluster.propose(1, 'one'));
    await cluster.wait(cluster.propose(1, 'two'));
    assert.equal(latencies.length, 2);
    assert.equal(latencies[1], 0.25);
  });

  it('comes back from kill -9 with everything acknowledged', async () => {
    await cluster.form(1);
    for (let number = 0; number < 20; number += 1) await cluster.wait(cluster.propose(1, `line ${number}`));
    const unanswered = cluster.propose(1, 'never flushed').catch(() => {});
    cluster.kill(1);
    await unanswered;
    await cluster.restart(1);
    await cluster.wait(cluster.node(1).readBarrier());
    assert.deepEqual(
      linesOf(1).slice(0, 20),
      Array.from({ length: 20 }, (_, number) => `line ${number}`),
    );
  });

  it('starts from its snapshot, with the log before it gone', async () => {
    cluster = new RaftCluster({ snapshotEntries: 10, keepEntries: 2, segmentBytes: 2_000 });
    await cluster.form(1);
    for (let number = 0; number < 100; number += 1) await cluster.wait(cluster.propose(1, `line ${number}`));
    await cluster.clock.run(1_000);
    const names = await cluster.seat(1).disk.list();
    assert.equal(names.filter((name) => name.startsWith('snapshot-')).length, 2, names.join());
    assert.ok(!names.includes('log-0000000001'), names.join());
    cluster.kill(1);
    await cluster.restart(1);
    await cluster.wait(cluster.node(1).readBarrier());
    assert.equal(linesOf(1).length, 100);
    assert.equal(cluster.seat(1).journal.restores, 1);
  });

  it('starts from the snapshot before the last when that is damaged, and refuses when none is left', async () => {
    cluster = new RaftCluster({ snapshotEntries: 10, keepEntries: 2, segmentBytes: 2_000 });
    await cluster.form(1);
    for (let number = 0; number < 100; number += 1) await cluster.wait(cluster.propose(1, `line ${number}`));
    await cluster.clock.run(1_000);
    cluster.kill(1);
    const { disk } = cluster.seat(1);
    const snapshots = (await disk.list()).filter((name) => name.startsWith('snapshot-'));
    disk.flipBit(snapshots[1]!, 100);
    await cluster.restart(1);
    await cluster.wait(cluster.node(1).readBarrier());
    assert.equal(linesOf(1).length, 100);
    cluster.kill(1);
    disk.flipBit(snapshots[0]!, 100);
    await fails(cluster.restart(1), 'corrupted', /no snapshot .* is intact.*byte 12.*backup/);
  });

  it('refuses to start on a damaged log', async () => {
    await cluster.form(1);
    for (let number = 0; number < 5; number += 1) await cluster.wait(cluster.propose(1, `line ${number}`));
    cluster.kill(1);
    cluster.seat(1).disk.flipBit('log-0000000001', 300);
    await fails(cluster.restart(1), 'corrupted', /log-0000000001, byte \d+/);
  });

  it('ends when its disk fails otherwise, and says so', async () => {
    await cluster.form(1);
    const seat = cluster.seat(1);
    const proposal = cluster.propose(1, 'lost');
    await Promise.resolve();
    await Promise.resolve();
    seat.disk.crash();
    await fails(proposal, 'internal', /has stopped: the simulated machine crashed.*unknown/);
    assert.match(String(seat.failure), /machine crashed/);
    await fails(cluster.propose(1, 'refused'), 'internal', /has stopped/);
    assert.equal(cluster.node(1).status().role, 'follower');
  });

  it('refuses to bootstrap over a log, and to restart without one', async () => {
    await fails(cluster.start(1, { kind: 'restart' }), 'failed-precondition', /no Raft log/);
    await cluster.form(1);
    cluster.kill(1);
    const again = cluster.start(1, { kind: 'bootstrap', self: memberOf(1) });
    await fails(again, 'failed-precondition', /already has a Raft log/);
  });

  it('says that its disk is full, goes on when there is room', async () => {
    await cluster.form(1);
    const { disk } = cluster.seat(1);
    await cluster.wait(cluster.propose(1, 'before'));
    disk.limit(disk.usedBytes + 50);
    await fails(
      cluster.propose(1, 'x'.repeat(500)),
      'disk-full',
      /no space left.*whether a change under way was made is unknown/,
    );
    await fails(cluster.propose(1, 'refused at once'), 'disk-full', /no space left/);
    assert.equal(cluster.node(1).status().role, 'follower');
    disk.limit(Number.POSITIVE_INFINITY);
    await cluster.until(() => cluster.node(1).status().role === 'leader', 'it leads again');
    await cluster.wait(cluster.propose(1, 'after'));
    assert.equal(linesOf(1).at(-1), 'after');
    cluster.kill(1);
    await cluster.restart(1);
    await cluster.wait(cluster.node(1).readBarrier());
    assert.deepEqual([linesOf(1)[0], linesOf(1).at(-1)], ['before', 'after']);
  });

  it('refuses a proposal that is too large', async () => {
    await cluster.form(1);
    const data = Buffer.alloc(17 * 2 ** 20);
    await fails(cluster.node(1).propose(data), 'too-large', /at most 16777216 bytes/);
  });
});

describe('three managers', () => {
  beforeEach(async () => {
    cluster = new RaftCluster();
    await cluster.form(3);
  });
  afterEach(() => cluster.stop());

  it('are all voters and know each other', () => {
    for (const { node } of cluster.running()) {
      const { members, leader } = node!.status();
      assert.deepEqual(
        members.map(({ raftId, isLearner }) => [raftId, isLearner]),
        [
          [1, false],
          [2, false],
          [3, false],
        ],
      );
      assert.deepEqual(leader, memberOf(1));
    }
    assert.ok(
      cluster
        .node(1)
        .status()
        .members.every(({ isActive }) => isActive),
    );
  });

  it('commit within one flush and one round trip', async () => {
    const startMs = cluster.clock.monotonicMs();
    await cluster.wait(cluster.propose(1, 'quick'));
    const tookMs = cluster.clock.monotonicMs() - startMs;
    assert.ok(tookMs <= 0.25 + 0.4 + 0.001, `${tookMs} ms`);
  });

  it('take proposals from any of them, applied there when answered', async () => {
    for (const raftId of [1, 2, 3]) {
      const { result } = await cluster.wait(cluster.propose(raftId, `from ${raftId}`));
      assert.equal(linesOf(raftId).at(-1), `from ${raftId}`);
      assert.deepEqual(result, { position: raftId });
    }
    await cluster.clock.run(200);
    for (const raftId of [1, 2, 3]) assert.deepEqual(linesOf(raftId), ['from 1', 'from 2', 'from 3']);
  });

  it('read what was acknowledged before, from any of them', async () => {
    await cluster.wait(cluster.propose(1, 'written'));
    for (const raftId of [2, 3, 1]) {
      await cluster.wait(
        Promise.all([cluster.node(raftId).readBarrier(), cluster.node(raftId).readBarrier()]),
      );
      assert.equal(linesOf(raftId).at(-1), 'written');
    }
  });

  it('do not read from a leader that was cut off', async () => {
    cluster.cut.add(1);
    await cluster.newLeader(1);
    await fails(cluster.node(1).readBarrier(), 'no-quorum', /1 of 3 reachable/);
  });

  it('elect another leader within 3 s of a kill, and lose nothing acknowledged', async () => {
    for (let number = 0; number < 10; number += 1) {
      await cluster.wait(cluster.propose((number % 3) + 1, `line ${number}`));
    }
    cluster.kill(1);
    const killedMs = cluster.clock.monotonicMs();
    const leader = await cluster.newLeader(1);
    assert.ok(cluster.clock.monotonicMs() - killedMs < 3_000);
    await cluster.wait(cluster.propose(leader.member.raftId, 'after'));
    await cluster.restart(1);
    await cluster.wait(cluster.node(1).readBarrier());
    assert.deepEqual(linesOf(1), [...Array.from({ length: 10 }, (_, number) => `line ${number}`), 'after']);
  });

  it('survive the power cut of all', async () => {
    for (let number = 0; number < 10; number += 1) await cluster.wait(cluster.propose(2, `line ${number}`));
    for (const raftId of [1, 2, 3]) cluster.kill(raftId);
    for (const raftId of [1, 2, 3]) await cluster.restart(raftId);
    await cluster.until(() => cluster.leader() !== undefined, 'a leader');
    await cluster.wait(cluster.node(3).readBarrier());
    assert.equal(linesOf(3).length, 10);
  });

  it('say who is missing when there is no quorum', async () => {
    cluster.kill(1);
    cluster.kill(2);
    await cluster.clock.run(3_000);
    await fails(
      cluster.propose(3, 'no one hears'),
      'no-quorum',
      /no leader among the managers: 1 of 3 reachable \(no answer from node-1 at 10\.0\.0\.1:2377, node-2 at .*\); the cluster needs 2/,
    );
  });

  it('tell that the outcome is unknown when the leader is cut off with a proposal', async () => {
    cluster.cut.add(1);
    const lost = cluster.propose(1, 'lost').then(
      () => undefined,
      (error: unknown) => error,
    );
    const leader = await cluster.newLeader(1);
    await cluster.wait(cluster.propose(leader.member.raftId, 'other'));
    const error = await cluster.wait(lost);
    assert.ok(isShoalError(error, 'unavailable') && error.retriable, String(error));
    assert.match(error.message, /whether the change was made is unknown/);
    cluster.cut.clear();
    await cluster.wait(cluster.node(1).readBarrier());
    assert.deepEqual(linesOf(1), ['other']);
  });

  it('propose again, by themselves, what surely lost its place in the log', async () => {
    cluster.cut.add(1);
    const proposal = cluster.propose(1, 'kept');
    const leader = await cluster.newLeader(1);
    await cluster.wait(cluster.propose(leader.member.raftId, 'other'));
    cluster.cut.clear();
    await cluster.wait(proposal);
    assert.deepEqual(linesOf(1), ['other', 'kept']);
  });

  async function ledByFirst(): Promise<void> {
    for (let leader = cluster.leader()!; leader.member.raftId !== 1; leader = cluster.leader()!) {
      await cluster.wait(leader.node!.transferLeadership());
      await cluster.until(() => cluster.leader() !== undefined, 'someone leads');
    }
  }

  it('hand over leadership when asked', async () => {
    await cluster.wait(cluster.node(1).transferLeadership());
    assert.notEqual(cluster.node(1).status().role, 'leader');
    const leader = await cluster.newLeader(1);
    await cluster.wait(cluster.propose(1, 'forwarded now'));
    assert.equal(leader.journal.lines.at(-1), 'forwarded now');
    await cluster.wait(cluster.node(1).transferLeadership());
  });

  it('elect another leader at once when nothing listens any more where it was', async () => {
    const { term } = cluster.node(1).status();
    cluster.kill(1);
    // What it sent still arrives.
    await cluster.clock.run(20);
    for (const raftId of [2, 3]) cluster.node(raftId).reportGone(1);
    const startMs = cluster.clock.monotonicMs();
    const leader = await cluster.newLeader(1);
    assert.ok(cluster.clock.monotonicMs() - startMs < 200, 'well before an election timeout');
    assert.equal(leader.node?.status().term, term + 1);
    await cluster.wait(cluster.propose(2, 'after the crash'));
    await cluster.restart(1);
    await cluster.wait(cluster.node(1).readBarrier());
    await cluster.wait(cluster.node(leader.member.raftId).transferLeadership());
    await cluster.until(() => cluster.leader() !== undefined, 'someone leads');
    await ledByFirst();
  });

  it('keep a leader that lives, whatever one of them says of its address', async () => {
    const { term } = cluster.node(1).status();
    for (let round = 0; round < 5; round += 1) {
      cluster.node(2).reportGone(1);
      cluster.node(3).reportGone(2);
      await cluster.clock.run(300);
    }
    assert.equal(cluster.node(1).status().term, term);
    assert.equal(cluster.node(1).status().role, 'leader');
    assert.equal(cluster.node(2).status().leader?.raftId, 1);
  });

  it('tell listeners about leaders, terms and members, once each', async () => {
    const seen: string[] = [];
    const stop = cluster
      .node(2)
      .onChange(({ leader, members }) => seen.push(`${leader?.raftId}/${members.length}`));
    await cluster.join(4, 1);
    assert.ok(seen.includes('1/4'), seen.join());
    const count = seen.length;
    await cluster.wait(cluster.propose(2, 'no news'));
    assert.equal(seen.length, count);
    stop();
    await cluster.wait(cluster.node(1).transferLeadership());
    assert.equal(seen.length, count);
  });

  it('go on without a leader whose disk is full, and have it back when there is room', async () => {
    const { disk } = cluster.seat(1);
    disk.limit(disk.usedBytes + 10);
    const startMs = cluster.clock.monotonicMs();
    await fails(cluster.propose(1, 'y'.repeat(400)), 'disk-full', /no space left/);
    const leader = await cluster.newLeader(1);
    assert.ok(cluster.clock.monotonicMs() - startMs < 500, 'handed over without an election timeout');
    await cluster.wait(cluster.propose(leader.member.raftId, 'goes on'));
    disk.limit(Number.POSITIVE_INFINITY);
    await cluster.clock.run(2_000);
    await cluster.wait(cluster.propose(1, 'from the one that was full'));
    assert.equal(linesOf(1).at(-1), 'from the one that was full');
    assert.equal(cluster.seat(1).failure, undefined);
  });

  it('go on with a follower whose disk is full, which loses nothing', async () => {
    const { disk } = cluster.seat(3);
    disk.limit(disk.usedBytes + 10);
    for (let number = 0; number < 5; number += 1) await cluster.wait(cluster.propose(1, `line ${number}`));
    assert.ok(linesOf(3).length < 5);
    await fails(cluster.propose(3, 'refused'), 'disk-full', /no space left/);
    disk.limit(Number.POSITIVE_INFINITY);
    await cluster.clock.run(2_000);
    assert.equal(linesOf(3).length, 5);
  });
});

describe('managers that come and go', () => {
  beforeEach(() => {
    cluster = new RaftCluster({ snapshotEntries: 20, keepEntries: 5 });
  });
  afterEach(() => cluster.stop());

  it('catch up from a snapshot when they were away for long', async () => {
    await cluster.form(3);
    cluster.kill(3);
    for (let number = 0; number < 70; number += 1) await cluster.wait(cluster.propose(1, `line ${number}`));
    await cluster.restart(3);
    await cluster.wait(cluster.node(3).readBarrier());
    assert.equal(linesOf(3).length, 70);
    assert.ok(cluster.seat(3).journal.restores >= 2, 'one from its disk, one from the leader');
    cluster.kill(3);
    await cluster.restart(3);
    await cluster.wait(cluster.node(3).readBarrier());
    assert.equal(linesOf(3).length, 70);
  });

  it('join a group with a long history', async () => {
    await cluster.form(1);
    for (let number = 0; number < 50; number += 1) await cluster.wait(cluster.propose(1, `line ${number}`));
    await cluster.join(2, 1);
    assert.equal(linesOf(2).length, 50);
    cluster.kill(2);
    await cluster.restart(2);
    await cluster.wait(cluster.propose(2, 'still a member'));
  });

  it('are added and removed one at a time, whatever the order of asking', async () => {
    await cluster.form(3);
    const members = [1, 2, 3].map(memberOf);
    for (const raftId of [4, 5])
      await cluster.start(raftId, { kind: 'join', self: memberOf(raftId), members });
    const leader = cluster.node(1);
    await cluster.wait(
      Promise.all([
        leader.addMember(memberOf(4)),
        leader.removeMember('node-3'),
        leader.addMember(memberOf(5)),
      ]),
    );
    await cluster.until(() => leader.status().members.every(({ isLearner }) => !isLearner), 'both vote');
    assert.deepEqual(
      leader.status().members.map(({ raftId }) => raftId),
      [1, 2, 4, 5],
    );
  });

  it('learn that they were removed, at once or when they come back', async () => {
    await cluster.form(5);
    await cluster.wait(cluster.node(1).removeMember('node-2'));
    await cluster.until(() => cluster.node(2).status().role === 'removed', 'member 2 knows');
    await fails(cluster.propose(2, 'too late'), 'not-a-manager', /was removed from the cluster/);
    cluster.kill(5);
    await cluster.wait(cluster.node(1).removeMember('node-5'));
    await cluster.clock.run(2_000);
    await cluster.restart(5);
    await cluster.until(() => cluster.node(5).status().role === 'removed', 'member 5 knows');
    await cluster.wait(cluster.propose(1, 'goes on'));
  });

  it('may remove the leader, who steps down', async () => {
    await cluster.form(3);
    await cluster.wait(cluster.node(1).removeMember('node-1'));
    assert.equal(cluster.node(1).status().role, 'removed');
    const leader = await cluster.newLeader(1);
    await cluster.wait(cluster.propose(leader.member.raftId, 'goes on'));
  });

  it('refuse a removal that would lose the quorum, unless forced', async () => {
    await cluster.form(3);
    cluster.kill(3);
    await cluster.clock.run(3_000);
    await fails(
      cluster.node(1).removeMember('node-2'),
      'failed-precondition',
      /removing manager node-2 at .* would leave 1 of 2 managers reachable: the cluster could not elect a leader.*--force/,
    );
    await cluster.wait(cluster.node(1).removeMember('node-3'));
    await cluster.wait(cluster.node(1).removeMember('node-2'));
    await fails(cluster.node(1).removeMember('node-1'), 'failed-precondition', /is the last one/);
    await fails(cluster.node(1).removeMember('node-9'), 'not-found', /node-9/);
  });

  it('change the members only through the leader', async () => {
    await cluster.form(2);
    await fails(cluster.node(2).addMember(memberOf(3)), 'not-leader', /10\.0\.0\.1:2377/);
    await fails(cluster.node(2).removeMember('node-1'), 'not-leader', /10\.0\.0\.1:2377/);
  });

  it('take over a new address', async () => {
    await cluster.form(2);
    await cluster.wait(cluster.node(1).addMember({ ...memberOf(2), address: '10.9.9.9:2377' }));
    assert.equal(cluster.node(1).status().members[1]?.address, '10.9.9.9:2377');
    assert.equal(cluster.node(1).status().members[1]?.isLearner, false);
  });

  it('start a new cluster by force from one that is left, with everything it had', async () => {
    await cluster.form(3);
    for (let number = 0; number < 30; number += 1) await cluster.wait(cluster.propose(1, `line ${number}`));
    await cluster.wait(cluster.node(3).readBarrier());
    const { term } = cluster.node(1).status();
    for (const raftId of [1, 2, 3]) cluster.kill(raftId);
    const self = { ...memberOf(3), address: '10.8.8.8:2377' };
    await cluster.start(3, { kind: 'force-new-cluster', self });
    await cluster.until(() => cluster.node(3).status().role === 'leader', 'it leads alone');
    // In the term after `term` the others may have elected one of theirs.
    assert.ok(cluster.node(3).status().term > term + 1);
    assert.equal(linesOf(3).length, 30);
    await cluster.wait(cluster.propose(3, 'new life'));
    assert.deepEqual(
      cluster
        .node(3)
        .status()
        .members.map(({ address }) => address),
      ['10.8.8.8:2377'],
    );
    cluster.kill(3);
    await cluster.restart(3);
    await cluster.wait(cluster.propose(3, 'and again'));
    assert.equal(linesOf(3).length, 32);
    await cluster.join(4, 3);
    assert.equal(linesOf(4).length, 32);
    // One of the old group comes back: it is told, and does no harm.
    await cluster.restart(2);
    await cluster.until(() => cluster.node(2).status().role === 'removed', 'member 2 knows');
  });

  it('do not let a split-off member remove a majority that lives', async () => {
    await cluster.form(3);
    cluster.kill(3);
    await cluster.start(3, { kind: 'force-new-cluster', self: memberOf(3) });
    await cluster.clock.run(3_000);
    assert.equal(cluster.node(1).status().role, 'leader');
    await cluster.wait(cluster.propose(2, 'unharmed'));
  });
});
