/**
 * Majorities, single and joint. In a joint group (Raft dissertation, 4.3) a decision needs a majority
 * of both halves; an empty half agrees with everything.
 */
import type { MemberId } from './types.ts';

export type VoteResult = 'pending' | 'lost' | 'won';

/** The index a member is known to hold; undefined when it was never heard of. */
export type AckedIndex = (member: MemberId) => number | undefined;

/** The highest index that a majority of `voters` holds; Infinity without voters. */
export function majorityCommitted(voters: readonly MemberId[], acked: AckedIndex): number {
  const count = voters.length;
  if (count === 0) return Number.POSITIVE_INFINITY;
  if (count === 1) return acked(voters[0]!) ?? 0;
  // Kept sorted from the highest down as they come: a group has so few members that nothing beats this.
  const sorted: number[] = [];
  for (let i = 0; i < count; i++) {
    const index = acked(voters[i]!) ?? 0;
    let at = i;
    while (at > 0 && sorted[at - 1]! < index) {
      sorted[at] = sorted[at - 1]!;
      at--;
    }
    sorted[at] = index;
  }
  return sorted[count >> 1]!;
}

/** The highest index that is committed in both halves; Infinity when both are empty. */
export function jointCommitted(
  incoming: readonly MemberId[],
  outgoing: readonly MemberId[],
  acked: AckedIndex,
): number {
  const index = majorityCommitted(incoming, acked);
  return outgoing.length === 0 ? index : Math.min(index, majorityCommitted(outgoing, acked));
}

/** How an election among `voters` stands; a member without a vote may still give one. Won when empty. */
export function majorityVote(voters: readonly MemberId[], votes: ReadonlyMap<MemberId, boolean>): VoteResult {
  const needed = (voters.length >> 1) + 1;
  let granted = 0;
  let missing = 0;
  for (const voter of voters) {
    const vote = votes.get(voter);
    if (vote === undefined) missing++;
    else if (vote) granted++;
  }
  if (voters.length === 0 || granted >= needed) return 'won';
  return granted + missing >= needed ? 'pending' : 'lost';
}

/** How an election stands when it must be won in both halves. */
export function jointVote(
  incoming: readonly MemberId[],
  outgoing: readonly MemberId[],
  votes: ReadonlyMap<MemberId, boolean>,
): VoteResult {
  const first = majorityVote(incoming, votes);
  const second = majorityVote(outgoing, votes);
  if (first === second) return first;
  return first === 'lost' || second === 'lost' ? 'lost' : 'pending';
}
