/**
 * Changes of the group, one at a time: asked for on the leader, queued, proposed, waited for.
 *
 * In: requests, the entries that were appended, changes that were applied, ticks. Out: proposals to the
 * core, and the requests' promises settled. Learners that caught up are promoted here. It holds no
 * membership of its own and no timer.
 */
import { ShoalError } from '../../proto/errors.ts';
import type { Member } from './contract.ts';
import { decodeConfChange } from './core/core.ts';
import type { ConfChangeV2, Entry, MemberId } from './core/types.ts';
import { type ChangeContext, type Directory, decodeContext, encodeContext } from './directory.ts';
import type { Promotion } from './promotion.ts';

/** What the changes need of the member they run on. */
export interface ChangeDoor {
  isLeader(): boolean;
  nowMs(): number;
  newRequest(): string;
  /** Throws when the core does not take it now; then nothing was appended. */
  propose(change: ConfChangeV2): void;
  /** Learners whose log is as good as the leader's. */
  learnersCaughtUp(): readonly MemberId[];
  /** How such a learner gets its vote. */
  promotion(learner: MemberId): Promotion;
  handOver(): Promise<void>;
  overdue(): ShoalError;
}

/** Makes the change when its turn comes; throws to refuse, undefined when nothing is to be done. */
export type MakeChange = (request: string) => ConfChangeV2 | undefined;

interface Job {
  readonly request: string;
  readonly make: MakeChange;
  readonly deadlineMs: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class MembershipChanges {
  readonly #door: ChangeDoor;
  readonly #timeoutMs: number;
  readonly #queue: Job[] = [];
  #current: { readonly job: Job; isInLog: boolean } | undefined;
  readonly #promoting = new Set<MemberId>();
  #isHandingOver = false;

  constructor(door: ChangeDoor, timeoutMs: number) {
    this.#door = door;
    this.#timeoutMs = timeoutMs;
  }

  /** Resolves when the change is in force. Rejects with what `make` threw, or when leadership was lost. */
  request(make: MakeChange): Promise<void> {
    return new Promise((resolve, reject) => {
      const deadlineMs = this.#door.nowMs() + this.#timeoutMs;
      this.#queue.push({ request: this.#door.newRequest(), make, deadlineMs, resolve, reject });
      this.#pump();
    });
  }

  /**
   * Entries got their place in the log. The core puts an empty entry in place of a change that it cannot
   * take while an older one is not applied: such a change gets another turn.
   */
  appended(entries: readonly Entry[]): void {
    const current = this.#current;
    if (current === undefined || current.isInLog || entries.length === 0) return;
    current.isInLog = entries.some(
      (entry) => entry.type === 'conf-change-v2' && requestOf(entry) === current.job.request,
    );
    if (current.isInLog) return;
    this.#current = undefined;
    this.#queue.unshift(current.job);
  }

  /** A change is in force, or was refused by the core (`error`), on every member alike. */
  applied(context: ChangeContext | undefined, error?: unknown): void {
    const job = this.#current?.job;
    if (job === undefined || context?.request !== job.request) return;
    this.#current = undefined;
    if (error === undefined) job.resolve();
    else job.reject(error);
    this.#pump();
  }

  /** To be called on every tick of the leader. */
  tick(): void {
    const nowMs = this.#door.nowMs();
    const current = this.#current;
    if (current !== undefined && current.job.deadlineMs <= nowMs) {
      this.#current = undefined;
      current.job.reject(this.#door.overdue());
    }
    while (this.#queue[0] !== undefined && this.#queue[0].deadlineMs <= nowMs) {
      this.#queue.shift()?.reject(this.#door.overdue());
    }
    this.#pump();
    if (this.#current === undefined) this.#promote();
  }

  failAll(error: () => ShoalError): void {
    const jobs = this.#queue.splice(0);
    if (this.#current !== undefined) jobs.unshift(this.#current.job);
    this.#current = undefined;
    this.#promoting.clear();
    for (const job of jobs) job.reject(error());
  }

  #pump(): void {
    while (this.#current === undefined && this.#door.isLeader()) {
      const job = this.#queue.shift();
      if (job === undefined) return;
      let change: ConfChangeV2 | undefined;
      try {
        change = job.make(job.request);
      } catch (error) {
        job.reject(error);
        continue;
      }
      if (change === undefined) {
        job.resolve();
        continue;
      }
      try {
        this.#door.propose(change);
      } catch {
        // Leadership is being handed over, or too much waits: the next tick tries again.
        this.#queue.unshift(job);
        return;
      }
      this.#current = { job, isInLog: false };
    }
  }

  #promote(): void {
    for (const learner of this.#door.learnersCaughtUp()) {
      if (this.#promoting.has(learner)) continue;
      this.#promoting.add(learner);
      const done = () => {
        this.#promoting.delete(learner);
      };
      const make: MakeChange = (request) => {
        // It may have been removed while this waited for its turn.
        if (!this.#door.learnersCaughtUp().includes(learner)) return undefined;
        const promotion = this.#door.promotion(learner);
        if (promotion.kind === 'hand-over') this.#handOver();
        if (promotion.kind === 'hand-over' || promotion.kind === 'wait') return undefined;
        const changes: ConfChangeV2['changes'] = [
          { type: 'add-voter', member: learner },
          ...(promotion.kind === 'swap' ? [{ type: 'remove' as const, member: promotion.leaving }] : []),
        ];
        return { transition: 'auto', changes, context: encodeContext({ request }) };
      };
      this.request(make).then(done, done);
    }
  }

  /** When nobody takes over, the next tick tries again. */
  #handOver(): void {
    if (this.#isHandingOver) return;
    this.#isHandingOver = true;
    const done = () => {
      this.#isHandingOver = false;
    };
    this.#door.handOver().then(done, done);
  }
}

function requestOf(entry: Entry): string | undefined {
  return decodeContext(decodeConfChange(entry.data).context)?.request;
}

/** Lets `member` in as a learner, or changes the address of one that is in. Throws for a removed raftId. */
export function additionOf(directory: Directory, member: Member, request: string): ConfChangeV2 {
  const { members, removed } = directory;
  if (removed.has(member.raftId)) {
    throw new ShoalError(
      'failed-precondition',
      `Raft id ${member.raftId} was removed and is never used again`,
    );
  }
  const type = members.has(member.raftId) ? 'update' : 'add-learner';
  const changes = [{ type, member: member.raftId }] as const;
  return { transition: 'auto', changes, context: encodeContext({ request, member }) };
}

/** Takes out the manager on node `nodeId`. Throws 'not-found'. */
export function removalOf(
  directory: Directory,
  nodeId: string,
  request: string,
): { readonly change: ConfChangeV2; readonly raftId: MemberId } {
  const member = [...directory.members.values()].find((known) => known.nodeId === nodeId);
  if (member === undefined) throw new ShoalError('not-found', `no manager with node id ${nodeId}`);
  const { raftId } = member;
  const changes = [{ type: 'remove', member: raftId }] as const;
  return { change: { transition: 'auto', changes, context: encodeContext({ request }) }, raftId };
}
