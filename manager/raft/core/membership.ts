/**
 * Who is in the group and how that changes: one voter at a time, or several through a joint group that
 * is entered and left by entries of the log (Raft dissertation, 4.3; the rules are those of etcd's
 * confchange). Every function answers a new membership and leaves the old one as it was.
 */
import { assertNever } from '../../../proto/errors.ts';
import { ConfChangeError } from './errors.ts';
import { type InflightLimits, Inflights, Progress } from './progress.ts';
import type { ConfChangeSingle, ConfChangeV2, ConfState, MemberId } from './types.ts';

/** `progress` is in ascending order of members, and has all of them. Lists in `configuration` ascend. */
export interface Membership {
  readonly configuration: ConfState;
  readonly progress: ReadonlyMap<MemberId, Progress>;
}

export interface MembershipContext {
  readonly current: Membership;
  /** Where the leader's log ends: a newcomer is probed from there. */
  readonly lastIndex: number;
  readonly limits: InflightLimits;
}

interface Draft {
  readonly voters: Set<MemberId>;
  readonly outgoing: Set<MemberId>;
  readonly learners: Set<MemberId>;
  readonly learnersNext: Set<MemberId>;
  autoLeave: boolean;
  readonly progress: Map<MemberId, Progress>;
}

export const nobody: Membership = {
  configuration: { voters: [], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
  progress: new Map(),
};

export function isJoint(configuration: ConfState): boolean {
  return configuration.votersOutgoing.length > 0;
}

/** Whether the change only leaves a joint group. */
export function leavesJoint(change: ConfChangeV2): boolean {
  return change.transition === 'auto' && change.changes.length === 0;
}

/** What the group becomes by `change`; throws ConfChangeError. */
export function changeMembership(context: MembershipContext, change: ConfChangeV2): Membership {
  if (leavesJoint(change)) return leaveJoint(context);
  if (change.transition === 'auto' && change.changes.length === 1) {
    return simpleChange(context, change.changes);
  }
  return enterJoint(context, change.changes, change.transition !== 'explicit');
}

/** Makes the group a joint one of its present voters and those that `changes` make of them. */
export function enterJoint(
  context: MembershipContext,
  changes: readonly ConfChangeSingle[],
  autoLeave: boolean,
): Membership {
  const { configuration } = context.current;
  if (isJoint(configuration)) {
    throw new ConfChangeError('already-joint', 'a membership change is under way; wait until it is done');
  }
  if (configuration.voters.length === 0) {
    throw new ConfChangeError('no-voters-yet', 'a group without voters cannot change jointly');
  }
  const draft = draftOf(context.current);
  for (const voter of configuration.voters) draft.outgoing.add(voter);
  applyChanges(context, draft, changes);
  draft.autoLeave = autoLeave;
  return sealed(draft);
}

/** Drops the outgoing half; voters that were to become learners become such. */
export function leaveJoint(context: MembershipContext): Membership {
  if (!isJoint(context.current.configuration)) {
    throw new ConfChangeError('not-joint', 'no joint membership change is under way');
  }
  const draft = draftOf(context.current);
  for (const member of draft.learnersNext) {
    draft.learners.add(member);
    draft.progress.get(member)!.isLearner = true;
  }
  draft.learnersNext.clear();
  for (const member of draft.outgoing) {
    if (!draft.voters.has(member) && !draft.learners.has(member)) draft.progress.delete(member);
  }
  draft.outgoing.clear();
  draft.autoLeave = false;
  return sealed(draft);
}

/** Changes at most one voter, and any learners, at once. */
export function simpleChange(context: MembershipContext, changes: readonly ConfChangeSingle[]): Membership {
  const { configuration } = context.current;
  if (isJoint(configuration)) {
    throw new ConfChangeError('simple-while-joint', 'a joint membership change is under way');
  }
  const draft = draftOf(context.current);
  applyChanges(context, draft, changes);
  const removed = configuration.voters.filter((member) => !draft.voters.has(member)).length;
  const added = draft.voters.size - (configuration.voters.length - removed);
  if (added + removed > 1) {
    throw new ConfChangeError('several-voters', 'more than one voter would change outside of a joint change');
  }
  return sealed(draft);
}

/** The membership that a snapshot or a restart names; throws ConfChangeError when it cannot be. */
export function restoreMembership(state: ConfState, lastIndex: number, limits: InflightLimits): Membership {
  const draft: Draft = {
    voters: new Set(state.voters),
    outgoing: new Set(state.votersOutgoing),
    learners: new Set(state.learners),
    learnersNext: new Set(state.learnersNext),
    autoLeave: state.autoLeave,
    progress: new Map(),
  };
  for (const member of [...draft.voters, ...draft.outgoing, ...draft.learners]) {
    const learner = draft.learners.has(member);
    draft.progress.set(member, newcomer({ current: nobody, lastIndex, limits }, learner));
  }
  if (draft.voters.size === 0 && draft.progress.size > 0) throw noVotersLeft();
  return sealed(draft);
}

function noVotersLeft(): ConfChangeError {
  return new ConfChangeError('removes-all-voters', 'the group would be left without voters');
}

function draftOf(membership: Membership): Draft {
  const { configuration } = membership;
  const progress = new Map<MemberId, Progress>();
  for (const [member, known] of membership.progress) progress.set(member, known.copy());
  return {
    voters: new Set(configuration.voters),
    outgoing: new Set(configuration.votersOutgoing),
    learners: new Set(configuration.learners),
    learnersNext: new Set(configuration.learnersNext),
    autoLeave: configuration.autoLeave,
    progress,
  };
}

function applyChanges(context: MembershipContext, draft: Draft, changes: readonly ConfChangeSingle[]): void {
  for (const { type, member } of changes) {
    // Member 0 is how a caller strikes out a change that is already in the log.
    if (member === 0) continue;
    switch (type) {
      case 'add-voter':
        makeVoter(context, draft, member);
        break;
      case 'add-learner':
        makeLearner(context, draft, member);
        break;
      case 'remove':
        remove(draft, member);
        break;
      case 'update':
        break;
      default:
        assertNever(type);
    }
  }
  if (draft.voters.size === 0) throw noVotersLeft();
}

function makeVoter(context: MembershipContext, draft: Draft, member: MemberId): void {
  const progress = draft.progress.get(member);
  if (progress === undefined) draft.progress.set(member, newcomer(context, false));
  else progress.isLearner = false;
  draft.learners.delete(member);
  draft.learnersNext.delete(member);
  draft.voters.add(member);
}

function makeLearner(context: MembershipContext, draft: Draft, member: MemberId): void {
  const progress = draft.progress.get(member);
  if (progress === undefined) {
    draft.progress.set(member, newcomer(context, true));
    draft.learners.add(member);
    return;
  }
  if (progress.isLearner) return;
  remove(draft, member);
  draft.progress.set(member, progress);
  // A voter of the outgoing half votes until that half goes; it is a learner only from then on.
  if (draft.outgoing.has(member)) {
    draft.learnersNext.add(member);
  } else {
    progress.isLearner = true;
    draft.learners.add(member);
  }
}

function remove(draft: Draft, member: MemberId): void {
  draft.voters.delete(member);
  draft.learners.delete(member);
  draft.learnersNext.delete(member);
  if (!draft.outgoing.has(member)) draft.progress.delete(member);
}

/** A newcomer counts as heard of, lest the quorum be found wanting before it could say a word. */
function newcomer(context: MembershipContext, isLearner: boolean): Progress {
  return new Progress(Math.max(context.lastIndex, 1), isLearner, new Inflights(context.limits), true);
}

function ascending(members: Iterable<MemberId>): readonly MemberId[] {
  return [...members].sort((a, b) => a - b);
}

function sealed(draft: Draft): Membership {
  checkInvariants(draft);
  const progress = new Map<MemberId, Progress>();
  for (const member of ascending(draft.progress.keys())) progress.set(member, draft.progress.get(member)!);
  return {
    configuration: {
      voters: ascending(draft.voters),
      votersOutgoing: ascending(draft.outgoing),
      learners: ascending(draft.learners),
      learnersNext: ascending(draft.learnersNext),
      autoLeave: draft.autoLeave,
    },
    progress,
  };
}

function checkInvariants(draft: Draft): void {
  const insist = (holds: boolean, what: string): void => {
    if (!holds) throw new ConfChangeError('inconsistent', `the membership is inconsistent: ${what}`);
  };
  for (const set of [draft.voters, draft.outgoing, draft.learners, draft.learnersNext]) {
    for (const member of set) insist(draft.progress.has(member), `member ${member} is not tracked`);
  }
  for (const member of draft.learnersNext) {
    insist(draft.outgoing.has(member), `member ${member} is to become a learner but was no voter`);
    insist(!draft.progress.get(member)!.isLearner, `member ${member} is to become a learner but is one`);
  }
  for (const member of draft.learners) {
    insist(
      !draft.outgoing.has(member) && !draft.voters.has(member),
      `member ${member} is both a learner and a voter`,
    );
    insist(draft.progress.get(member)!.isLearner, `learner ${member} is not tracked as one`);
  }
  if (draft.outgoing.size === 0) {
    insist(draft.learnersNext.size === 0, 'members are to become learners outside of a joint change');
    insist(!draft.autoLeave, 'a group that is not joint is to be left');
  }
}
