/**
 * How a learner that has caught up gets its vote: alone, or together with the leave of the manager that it replaces.
 *
 * In: who votes and who can be reached. Out: the next step. Pure; membership-changes.ts carries it out.
 */
import type { MemberId } from './core/types.ts';
import { quorumOf, type ReachView, reachableOf } from './reach.ts';

export type Promotion =
  | { readonly kind: 'alone' }
  /** One joint change: the learner votes, `leaving` does no more. */
  | { readonly kind: 'swap'; readonly leaving: MemberId }
  /** This leader is the one that leaves: another one leads first. */
  | { readonly kind: 'hand-over' }
  /** The managers afterwards would have no quorum in reach. */
  | { readonly kind: 'wait' };

/**
 * The step for `learner`, which is to take the place of the manager on node `replaced`, if that votes. The last voter
 * can't hand over to anyone yet: then the learner gets its vote beside it, and the other goes as in any demotion.
 */
export function promotionOf(view: ReachView, learner: MemberId, replaced: string | undefined): Promotion {
  const { voters } = view.confState;
  const leaving = voters.find((raftId) => view.directory.members.get(raftId)?.nodeId === replaced);
  if (replaced === undefined || leaving === undefined) return { kind: 'alone' };
  const staying = voters.filter((raftId) => raftId !== leaving);
  if (leaving === view.self) {
    return reachableOf(view, staying).length > 0 ? { kind: 'hand-over' } : { kind: 'alone' };
  }
  const next = [...staying, learner];
  return reachableOf(view, next).length >= quorumOf(next.length)
    ? { kind: 'swap', leaving }
    : { kind: 'wait' };
}
