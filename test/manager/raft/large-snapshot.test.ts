/** Snapshots of a state so large that they are made in slices, while the member goes on. */
import assert from 'node:assert/strict';
import { realClock } from '../../../cli/runtime.ts';
import type { StateMachine } from '../../../manager/raft/contract.ts';
import { Gathering, workInSlices } from '../../../manager/raft/slices.ts';
import { loadSnapshot, saveSnapshot } from '../../../manager/raft/snapshot.ts';
import { type Clock, silentLog } from '../../../proto/ports.ts';
import { SimulatedDisk } from '../../simulation/disk.ts';
import { testSealer } from './log-fixture.ts';
import { Journal, RaftCluster } from './raft-cluster.ts';

/** A clock on which work takes time: a millisecond each time it is looked at. */
function laborious(clock: Clock): Clock {
  let worked = 0;
  return {
    now: () => clock.now(),
    monotonicMs: () => {
      worked += 1;
      return clock.monotonicMs() + worked;
    },
    after: (delayMs, action) => clock.after(delayMs, action),
  };
}

/** Whose snapshot comes line by line, as of the call. */
class SlowJournal extends Journal implements StateMachine {
  *#pieces(lines: readonly string[]): Generator<Uint8Array, void> {
    yield Buffer.from('[');
    for (const [at, line] of lines.entries()) {
      yield Buffer.from(`${at === 0 ? '' : ','}${JSON.stringify(line)}`);
    }
    yield Buffer.from(']');
  }

  snapshotPieces(): Iterable<Uint8Array> {
    return this.#pieces([...this.lines]);
  }
}

describe('large snapshots', () => {
  it('are gathered with pauses, and are the pieces in order', async () => {
    const clock = laborious(realClock);
    const pieces = Array.from({ length: 40 }, (_, at) => Buffer.alloc(at * 10_000, at));
    let turns = 0;
    const other = setInterval(() => {
      turns += 1;
    }, 0);
    const gathering = new Gathering(clock, pieces);
    assert.equal(gathering.workOneSlice(), undefined);
    const whole = await gathering.whole();
    clearInterval(other);
    assert.ok(Buffer.concat(pieces).equals(whole));
    assert.ok(turns > 3, 'others had their turn');
    for (const expectedBytes of [1, 700_000, 10_000_000]) {
      const expected = new Gathering(clock, pieces, expectedBytes);
      assert.ok(Buffer.concat(pieces).equals(await expected.whole()), `${expectedBytes} bytes were expected`);
    }
  });

  it('are gathered whole when there is more than one room takes', async () => {
    const megabyte = 2 ** 20;
    const pieces = [Buffer.of(1), Buffer.alloc(66 * megabyte, 77), Buffer.of(5)];
    const expected = Buffer.concat(pieces);
    for (const expectedBytes of [0, 70 * megabyte]) {
      const whole = await new Gathering(realClock, pieces, expectedBytes).whole();
      assert.ok(expected.equals(whole), `${expectedBytes} bytes were expected`);
    }
  });

  it('are made without a pause on a clock that stands still', () => {
    const steps = [1, 2, 3][Symbol.iterator]();
    let isDone = false;
    const still: Clock = { ...laborious(realClock), monotonicMs: () => 0 };
    workInSlices(still, {
      next: () => {
        const step = steps.next();
        isDone = step.done === true;
        return step;
      },
    });
    assert.ok(isDone);
  });

  it('are sealed piece by piece as they would be at once, and opened so', async () => {
    const disk = new SimulatedDisk();
    const confState = { voters: [1], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };
    const data = Buffer.alloc(3.5 * 2 ** 20);
    for (let at = 0; at < data.length; at += 4) data.writeUInt32LE(at, at);
    const metadata = { index: 9, term: 2, confState };
    await saveSnapshot(disk, testSealer(), { metadata, data }, laborious(realClock));
    let turns = 0;
    const other = setInterval(() => {
      turns += 1;
    }, 0);
    const loaded = await loadSnapshot(disk, testSealer(2), [metadata], silentLog, laborious(realClock));
    clearInterval(other);
    assert.ok(data.equals(loaded!.data));
    assert.ok(turns > 0, 'others had their turn while it was opened');
  });

  it('hold what was applied when they were begun, and a joiner waits for one that names it', async () => {
    const cluster = new RaftCluster({ snapshotEntries: 40, keepEntries: 5 });
    const slow = (raftId: number) => {
      const journal = new SlowJournal();
      cluster.seat(raftId).journal = journal;
      return { stateMachine: journal, clock: laborious(cluster.clock) };
    };
    const first = slow(1);
    const node = await cluster.start(1, { kind: 'bootstrap', self: cluster.seat(1).member }, first);
    await cluster.until(() => node.status().role === 'leader', 'it leads');
    for (let number = 0; number < 200; number += 1) await cluster.wait(cluster.propose(1, `line ${number}`));
    const members = node.status().members;
    await cluster.start(2, { kind: 'join', self: cluster.seat(2).member, members });
    await cluster.wait(node.addMember(cluster.seat(2).member));
    const joined = cluster.node(2);
    for (let number = 200; number < 300; number += 1)
      await cluster.wait(cluster.propose(1, `line ${number}`));
    await cluster.until(() => joined.status().role === 'follower', 'it votes');
    await cluster.wait(joined.readBarrier());
    const expected = Array.from({ length: 300 }, (_, number) => `line ${number}`);
    assert.deepEqual(cluster.seat(2).journal.lines, expected);
    for (const raftId of [1, 2]) cluster.kill(raftId);
    await cluster.restart(1);
    await cluster.restart(2);
    await cluster.until(() => cluster.leader() !== undefined, 'one leads');
    await cluster.wait(cluster.node(2).readBarrier());
    assert.deepEqual(cluster.seat(2).journal.lines, expected);
    await cluster.stop();
  });
});
