/**
 * Who can be reached, and what that means for the quorum, in words.
 *
 * In: when each member was last heard, who votes. Out: whether a majority can be had, and sentences that
 * say so to the person at the terminal. Pure.
 */
import { ShoalError } from '../../proto/errors.ts';
import type { Member } from './contract.ts';
import type { ConfState, MemberId } from './core/types.ts';
import type { Directory } from './directory.ts';

/** How many of `count` voters make a majority. */
export function quorumOf(count: number): number {
  return Math.floor(count / 2) + 1;
}

export interface ReachView {
  readonly self: MemberId;
  readonly confState: ConfState;
  readonly directory: Directory;
  readonly isReachable: (member: Member) => boolean;
}

/** The error for what took too long: why, as far as this member can tell. */
export function overdueError(view: ReachView, leader: Member | undefined, timeoutMs: number): ShoalError {
  const voters = votersOf(view);
  const reachable = voters.filter((raftId) => isReachable(view, raftId)).length;
  if (leader === undefined || reachable < quorumOf(voters.length)) return noQuorumError(view);
  return new ShoalError(
    'timeout',
    `the managers did not answer within ${timeoutMs / 1000} s, though a majority is reachable (leader ${leader.address}): they are overloaded, or just electing; try again`,
  );
}

/** The error for a group that nobody leads, or whose leader cannot have a majority. */
function noQuorumError(view: ReachView): ShoalError {
  const voters = votersOf(view);
  const missing = voters.filter((raftId) => !isReachable(view, raftId));
  const reachable = voters.length - missing.length;
  const unreachable = missing.map((raftId) => nameOf(view, raftId)).join(', ');
  const which = missing.length === 0 ? '' : ` (no answer from ${unreachable})`;
  return new ShoalError(
    'no-quorum',
    voters.length === 0
      ? 'no leader among the managers: this manager has not been let into the cluster yet'
      : `no leader among the managers: ${reachable} of ${voters.length} reachable${which}; the cluster needs ${quorumOf(voters.length)}`,
  );
}

/** Throws 'failed-precondition' when the group without `removed` would not have its quorum in reach. */
export function refuseQuorumLoss(view: ReachView, removed: MemberId): void {
  const voters = votersOf(view);
  if (!voters.includes(removed)) return;
  const name = nameOf(view, removed);
  const remaining = voters.filter((raftId) => raftId !== removed);
  if (remaining.length === 0) {
    throw new ShoalError(
      'failed-precondition',
      `manager ${name} is the last one: without it the cluster's state would be lost; to take the cluster down, let this node leave with --force`,
    );
  }
  const reachable = remaining.filter((raftId) => isReachable(view, raftId)).length;
  if (reachable >= quorumOf(remaining.length)) return;
  throw new ShoalError(
    'failed-precondition',
    `removing manager ${name} would leave ${reachable} of ${remaining.length} managers reachable: the cluster could not elect a leader and would accept no more changes; add or repair managers first, or use --force`,
  );
}

/** Those of `members` that can be reached. */
export function reachableOf(view: ReachView, members: readonly MemberId[]): readonly MemberId[] {
  return members.filter((raftId) => isReachable(view, raftId));
}

function votersOf(view: ReachView): readonly MemberId[] {
  return view.confState.voters;
}

function isReachable(view: ReachView, raftId: MemberId): boolean {
  if (raftId === view.self) return true;
  const member = view.directory.members.get(raftId);
  return member !== undefined && view.isReachable(member);
}

function nameOf(view: ReachView, raftId: MemberId): string {
  const member = view.directory.members.get(raftId);
  return member === undefined ? `member ${raftId}` : `${member.nodeId} at ${member.address}`;
}
