import assert from 'node:assert/strict';
import { encodeConfChange } from '../../../../manager/raft/core/core.ts';
import { confStateOf, Group, plain } from './group.ts';

const noBytes = new Uint8Array(0);

describe('raft snapshots', () => {
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
    group.flush(1);
    group.network = [];
    group.propose(1, 'x');
    group.core(1).step({ type: 'MsgHeartbeatResp', from: 3, to: 1, term: 2 });
    group.flush(1);
    assert.deepEqual(
      group.appends().filter((sent) => sent.startsWith('3')),
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

  it('of what is compacted already are ignored', () => {
    const group = behind();
    group.get(2).compact(0);
    const { core, storage } = group.get(2);
    const { commit } = core.status();
    assert.ok(commit > 2 && storage.firstIndex() > 2, 'it has a log without its beginning');
    const metadata = { index: 1, term: 1, confState: confStateOf([1, 2]) };
    core.step({ type: 'MsgSnap', from: 1, to: 2, term: 2, snapshot: { metadata, data: noBytes } });
    const ready = group.process(group.get(2));
    assert.equal(ready.snapshot, undefined);
    assert.equal(core.status().commit, commit);
  });

  it('only move the commit where the log agrees with them', () => {
    const group = new Group(2, plain);
    group.setLog(2, [2, 2, 2], 2);
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

  it('wait while entries are applied, lest a change among them be made twice', () => {
    const group = new Group(3, plain);
    const member = group.get(3);
    const change = encodeConfChange({
      transition: 'explicit',
      changes: [{ type: 'add-voter', member: 4 }],
      context: noBytes,
    });
    const entries = [{ term: 2, index: 2, type: 'conf-change-v2', data: change }] as const;
    const append = {
      type: 'MsgApp',
      from: 1,
      to: 3,
      term: 2,
      logTerm: 1,
      index: 1,
      entries,
      commit: 2,
    } as const;
    member.core.step(append);
    const ready = member.core.ready();
    assert.equal(ready.committedEntries.length, 1);
    const confState = { ...confStateOf([1, 2, 3, 4]), votersOutgoing: [1, 2, 3] };
    const metadata = { index: 9, term: 2, confState };
    member.core.step({ type: 'MsgSnap', from: 1, to: 3, term: 2, snapshot: { metadata, data: noBytes } });
    assert.equal(member.core.status().commit, 2);
    member.write(ready.hardState, ready.entries, ready.snapshot);
    member.apply(ready.committedEntries);
    member.core.advance();
    assert.equal(group.process(member).snapshot?.metadata.index, 9);
    assert.deepEqual([member.applied, member.core.status().configuration], [9, confState]);
  });
});
