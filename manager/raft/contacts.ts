/**
 * What this member knows of the others: who was heard when, who can be reached, which learners have caught up.
 *
 * In: the loop's view of the group, and word of each message that came. Out: answers. It sends nothing.
 */
import type { Member } from './contract.ts';
import type { MemberId } from './core/types.ts';
import type { RaftSettings } from './node.ts';
import type { ReachView } from './reach.ts';
import type { ReadyLoop } from './ready-loop.ts';

/** A learner this close behind is promoted: it will have the rest before it is asked to vote. */
const promotionLagEntries = 64;

export class Contacts {
  readonly #settings: RaftSettings;
  readonly #self: MemberId;
  readonly #loop: ReadyLoop;
  readonly #lastHeardMs = new Map<MemberId, number>();

  constructor(settings: RaftSettings, self: MemberId, loop: ReadyLoop) {
    this.#settings = settings;
    this.#self = self;
    this.#loop = loop;
  }

  heard(from: MemberId): void {
    this.#lastHeardMs.set(from, this.#settings.clock.monotonicMs());
  }

  /** A leader hears every living member within a heartbeat; others hear little of each other. */
  isReachable(member: Member): boolean {
    if (member.raftId === this.#self) return true;
    const { clock, electionTicks, tickMs, transport } = this.#settings;
    const heardMs = this.#lastHeardMs.get(member.raftId);
    if (heardMs !== undefined && clock.monotonicMs() - heardMs < 2 * electionTicks * tickMs) return true;
    return this.#loop.role !== 'leader' && transport.isConnected?.(member) === true;
  }

  reachView(): ReachView {
    const { confState, directory } = this.#loop;
    return { self: this.#self, confState, directory, isReachable: (member) => this.isReachable(member) };
  }

  others(): readonly Member[] {
    const { members } = this.#loop.directory;
    return [...members.values()].filter(({ raftId }) => raftId !== this.#self);
  }

  /** On the leader: learners that may be promoted. */
  learnersCaughtUp(): readonly MemberId[] {
    const { confState, applied, directory, core } = this.#loop;
    if (confState.learners.length === 0) return [];
    const { progress } = core.status();
    return confState.learners.filter((raftId) => {
      const member = directory.members.get(raftId);
      const known = progress.get(raftId);
      if (member === undefined || known === undefined || !this.isReachable(member)) return false;
      return known.state === 'replicate' && known.match + promotionLagEntries >= applied;
    });
  }
}
