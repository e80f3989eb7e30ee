import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  jointCommitted,
  jointVote,
  majorityCommitted,
  majorityVote,
} from '../../../../manager/raft/core/quorum.ts';

const members = fc.uniqueArray(fc.integer({ min: 1, max: 9 }), { maxLength: 9 });
const acks = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 0, max: 20 })), { maxLength: 9 })
  .map((pairs) => new Map(pairs));
const votes = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 9 }), fc.boolean()), { maxLength: 9 })
  .map((pairs) => new Map(pairs));

/** By definition: the highest index that more than half of the voters hold. */
function committedByCounting(voters: readonly number[], acked: ReadonlyMap<number, number>): number {
  for (let index = 20; index > 0; index--) {
    const holders = voters.filter((voter) => (acked.get(voter) ?? 0) >= index);
    if (holders.length * 2 > voters.length) return index;
  }
  return voters.length === 0 ? Number.POSITIVE_INFINITY : 0;
}

/** By definition: decided when no way to cast the missing votes changes the outcome. */
function voteByTrying(halves: readonly (readonly number[])[], cast: ReadonlyMap<number, boolean>): string {
  const outcome = (missing: boolean): boolean =>
    halves.every((half) => {
      const yes = half.filter((voter) => cast.get(voter) ?? missing).length;
      return half.length === 0 || yes * 2 > half.length;
    });
  if (outcome(false)) return 'won';
  return outcome(true) ? 'pending' : 'lost';
}

describe('raft quorums', () => {
  it('commit what a majority holds, as counted one by one', () => {
    fc.assert(
      fc.property(members, acks, (voters, acked) => {
        const index = majorityCommitted(voters, (id) => acked.get(id));
        assert.equal(index, committedByCounting(voters, acked));
      }),
    );
  });

  it('commit jointly what both halves hold, whichever is named first', () => {
    fc.assert(
      fc.property(members, members, acks, (first, second, acked) => {
        const index = jointCommitted(first, second, (id) => acked.get(id));
        assert.equal(index, Math.min(committedByCounting(first, acked), committedByCounting(second, acked)));
        assert.equal(
          jointCommitted(second, first, (id) => acked.get(id)),
          index,
        );
      }),
    );
  });

  it('never lower the committed index when a member acknowledges more', () => {
    fc.assert(
      fc.property(members, acks, fc.integer({ min: 1, max: 9 }), (voters, acked, member) => {
        const before = majorityCommitted(voters, (id) => acked.get(id));
        const more = new Map(acked).set(member, (acked.get(member) ?? 0) + 3);
        assert.ok(majorityCommitted(voters, (id) => more.get(id)) >= before);
      }),
    );
  });

  it('decide an election exactly when missing votes no longer matter', () => {
    fc.assert(
      fc.property(members, members, votes, (first, second, cast) => {
        assert.equal(majorityVote(first, cast), voteByTrying([first], cast));
        const joint = jointVote(first, second, cast);
        assert.equal(joint, jointVote(second, first, cast));
        assert.equal(joint, voteByTrying([first, second], cast));
      }),
    );
  });

  it('two majorities of the same voters always share one', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.integer({ min: 1, max: 9 }), { minLength: 1 }),
        votes,
        votes,
        (voters, a, b) => {
          if (majorityVote(voters, a) !== 'won' || majorityVote(voters, b) !== 'won') return;
          assert.ok(voters.some((voter) => a.get(voter) === true && b.get(voter) === true));
        },
      ),
    );
  });
});
