/**
 * Who leads next, and when it need not wait for the election timeout.
 *
 * In: word from the transport that nothing listens where the leader was; the leader's view of the others. Out: an
 * early, asked-for election; the fittest successor. It deposes nobody: with pre-vote, voters that still hear their
 * leader refuse.
 */
import type { Clock } from '../../proto/ports.ts';
import type { Member } from './contract.ts';
import type { ConfState, MemberId, RawNode, RoleName } from './core/types.ts';
import type { Directory } from './directory.ts';

/** The part of the loop that is asked here, as of now. */
export interface LoopNow {
  readonly core: RawNode;
  readonly role: RoleName;
  readonly lead: MemberId;
  readonly confState: ConfState;
  readonly directory: Directory;
  readonly isStopped: boolean;
  report(tell: (core: RawNode) => void): void;
}

export class Succession {
  readonly #loop: LoopNow;
  readonly #self: MemberId;
  readonly #clock: Clock;
  readonly #tickMs: number;
  /** The leader that was reported gone; 0 for none. */
  #gone: MemberId = 0;

  constructor(loop: LoopNow, self: MemberId, clock: Clock, tickMs: number) {
    this.#loop = loop;
    this.#self = self;
    this.#clock = clock;
    this.#tickMs = tickMs;
  }

  /**
   * Nothing listens at `raftId` any more, where something did a moment ago: its process has ended. If it leads, it is
   * forgotten, and the voters stand for election one after the other, half a tick apart, so that their votes don't
   * split. A report that comes again while nobody leads starts another round.
   */
  memberGone(raftId: MemberId): void {
    const { lead, role } = this.#loop;
    if (lead !== 0) this.#gone = 0;
    if (role !== 'follower' || (lead !== raftId && (lead !== 0 || this.#gone !== raftId))) return;
    this.#gone = raftId;
    this.#loop.report((core) => core.forgetLeader());
    const { voters } = this.#loop.confState;
    const turn = voters.filter((voter) => voter !== raftId).indexOf(this.#self);
    if (turn < 0) return;
    this.#clock.after((turn * this.#tickMs) / 2, () => {
      const isWaiting = this.#loop.role === 'follower' && this.#loop.lead === 0 && !this.#loop.isStopped;
      if (isWaiting && this.#gone === raftId) this.#loop.report((core) => core.campaign());
    });
  }

  /** The voter that could lead next: reachable, with the longest log. Known to the leader only. */
  fittest(isReachable: (member: Member) => boolean): MemberId | undefined {
    let best: { readonly raftId: MemberId; readonly match: number } | undefined;
    for (const [raftId, { match, isLearner }] of this.#loop.core.status().progress) {
      const member = this.#loop.directory.members.get(raftId);
      if (raftId === this.#self || isLearner || member === undefined) continue;
      if (isReachable(member) && (best === undefined || match > best.match)) best = { raftId, match };
    }
    return best?.raftId;
  }
}
