import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  ConfChangeError,
  decodeConfChange,
  encodeConfChange,
  leaveJointChange,
} from '../../../../manager/raft/core/core.ts';
import {
  changeMembership,
  enterJoint,
  isJoint,
  leaveJoint,
  type Membership,
  nobody,
  restoreMembership,
  simpleChange,
} from '../../../../manager/raft/core/membership.ts';
import type { ConfChangeSingle, ConfChangeV2, ConfState } from '../../../../manager/raft/core/types.ts';

const limits = { messages: 8, bytes: 1_000 };

const single: fc.Arbitrary<ConfChangeSingle> = fc.record({
  type: fc.constantFrom('add-voter', 'remove', 'add-learner', 'update'),
  member: fc.integer({ min: 0, max: 6 }),
});

const change: fc.Arbitrary<ConfChangeV2> = fc.record({
  transition: fc.constantFrom('auto', 'implicit', 'explicit'),
  changes: fc.array(single, { maxLength: 5 }),
  context: fc.uint8Array({ maxLength: 5 }),
});

function context(current: Membership, lastIndex = 10) {
  return { current, lastIndex, limits };
}

function stateOf(partial: Partial<ConfState>): ConfState {
  return { ...nobody.configuration, ...partial };
}

/** What every membership must be, said without looking at how it is made. */
function assertSound({ configuration, progress }: Membership): void {
  const { voters, votersOutgoing, learners, learnersNext, autoLeave } = configuration;
  for (const list of [voters, votersOutgoing, learners, learnersNext, [...progress.keys()]]) {
    assert.deepEqual(
      list,
      [...new Set(list)].sort((a, b) => a - b),
      'ascending and without doubles',
    );
  }
  const everyone = new Set([...voters, ...votersOutgoing, ...learners]);
  assert.deepEqual(new Set(progress.keys()), everyone);
  assert.ok(learners.every((id) => !voters.includes(id) && !votersOutgoing.includes(id)));
  assert.ok(learnersNext.every((id) => votersOutgoing.includes(id) && !voters.includes(id)));
  for (const [id, known] of progress) assert.equal(known.isLearner, learners.includes(id));
  if (votersOutgoing.length === 0) assert.ok(learnersNext.length === 0 && !autoLeave);
}

describe('raft membership', () => {
  it('stays sound under any changes, and is what its own names restore', () => {
    fc.assert(
      fc.property(fc.array(change, { maxLength: 20 }), (changes) => {
        let current = simpleChange(context(nobody), [{ type: 'add-voter', member: 1 }]);
        for (const each of changes) {
          const before = current.configuration;
          try {
            current = changeMembership(context(current), each);
          } catch (error) {
            assert.ok(error instanceof ConfChangeError && error.reason !== 'inconsistent', String(error));
          }
          assertSound(current);
          assert.ok(current.configuration.voters.length > 0);
          const moved = before.voters.filter((id) => !current.configuration.voters.includes(id)).length;
          const came = current.configuration.voters.filter((id) => !before.voters.includes(id)).length;
          if (!isJoint(current.configuration)) assert.ok(moved + came <= 1, 'one voter at a time');
          const again = restoreMembership(current.configuration, 10, limits);
          assert.deepEqual(again.configuration, current.configuration);
          assertSound(again);
        }
      }),
    );
  });

  it('reaches by a joint change what one-by-one changes reach', () => {
    const voters = fc.uniqueArray(fc.integer({ min: 2, max: 6 }), { maxLength: 5 });
    fc.assert(
      fc.property(voters, voters, (from, to) => {
        const current = restoreMembership(stateOf({ voters: [1, ...from] }), 10, limits);
        const changes: ConfChangeSingle[] = [
          ...from.filter((id) => !to.includes(id)).map((member) => ({ type: 'remove', member }) as const),
          ...to.map((member) => ({ type: 'add-voter', member }) as const),
        ];
        let simple = current;
        for (const each of changes) simple = simpleChange(context(simple), [each]);
        const joint = leaveJoint(context(enterJoint(context(current), changes, false)));
        assert.deepEqual(joint.configuration, simple.configuration);
      }),
    );
  });

  it('changes several voters only jointly', () => {
    const current = restoreMembership(stateOf({ voters: [1, 2, 3] }), 10, limits);
    const several: ConfChangeSingle[] = [
      { type: 'remove', member: 3 },
      { type: 'add-voter', member: 4 },
    ];
    assert.throws(
      () => simpleChange(context(current), several),
      (error) => error instanceof ConfChangeError && error.reason === 'several-voters',
    );
    const { configuration } = changeMembership(context(current), {
      transition: 'auto',
      changes: several,
      context: new Uint8Array(0),
    });
    assert.deepEqual(
      [configuration.voters, configuration.votersOutgoing, configuration.autoLeave],
      [[1, 2, 4], [1, 2, 3], true],
    );
  });

  it('leaves the membership it changes as it was', () => {
    const current = restoreMembership(stateOf({ voters: [1, 2, 3] }), 10, limits);
    const joint = enterJoint(context(current), [{ type: 'add-learner', member: 3 }], true);
    leaveJoint(context(joint));
    assert.deepEqual(current.configuration.voters, [1, 2, 3]);
    assert.equal(joint.progress.get(3)!.isLearner, false, 'it votes until the outgoing half goes');
    assert.deepEqual(joint.configuration.learnersNext, [3]);
  });

  it('probes a newcomer from the end of the log, and counts it as heard of', () => {
    const current = restoreMembership(stateOf({ voters: [1] }), 10, limits);
    const { progress } = simpleChange(context(current, 42), [{ type: 'add-voter', member: 2 }]);
    assert.deepEqual([progress.get(2)!.next, progress.get(2)!.recentActive], [42, true]);
  });

  for (const [name, state] of [
    ['a learner that is a voter', { voters: [1, 2], learners: [2] }],
    ['no voters', { learners: [2] }],
    ['a learner to be that was no voter', { voters: [1], votersOutgoing: [1], learnersNext: [2] }],
    ['leaving a group that is not joint', { voters: [1], autoLeave: true }],
  ] as const) {
    it(`refuses to restore ${name}`, () => {
      assert.throws(() => restoreMembership(stateOf(state), 1, limits), ConfChangeError);
    });
  }
});

describe('raft membership changes as bytes', () => {
  it('come back as they went', () => {
    const changes = fc.array(
      fc.record({ type: single.map(({ type }) => type), member: fc.maxSafeNat() }, { noNullPrototype: true }),
      { maxLength: 4 },
    );
    fc.assert(
      fc.property(change, changes, ({ transition, context: bytes }, several) => {
        const each = { transition, changes: several, context: bytes };
        assert.deepEqual(decodeConfChange(encodeConfChange(each)), each);
      }),
    );
  });

  it('are those of etcd: protobuf, with nothing for leaving a joint group', () => {
    assert.deepEqual([...encodeConfChange(leaveJointChange)], []);
    const bytes = encodeConfChange({
      transition: 'explicit',
      changes: [{ type: 'add-learner', member: 300 }],
      context: Uint8Array.of(7),
    });
    assert.deepEqual([...bytes], [0x08, 2, 0x12, 5, 0x08, 3, 0x10, 0xac, 0x02, 0x1a, 1, 7]);
  });

  it('are refused when damaged', () => {
    for (const bytes of [[0x08], [0x12, 5, 1], [0x08, 9], [0x12, 2, 0x08, 9], [0x0d, 1, 2, 3, 4]]) {
      assert.throws(() => decodeConfChange(Uint8Array.from(bytes)), { code: 'corrupted' }, String(bytes));
    }
  });
});
