/**
 * The consensus core: Raft as a pure state machine, to the contract of etcd's raft.
 *
 * In: messages of other members, ticks, proposals, and word that the last batch of work is done. Out:
 * that batch (Ready): what to make durable, send and apply, in this order. It never waits, sends, reads a
 * clock or writes; it reads the stable log through Storage, and every call costs no more than the entries
 * it concerns. Proposals that cannot be taken throw ProposalDropped; messages that must not be stepped in
 * throw StepError; what cannot be unless memory, disk or a peer is broken throws ShoalError 'corrupted',
 * after which the member must stop.
 */
import { ShoalError } from '../../../proto/errors.ts';
import { encodeConfChange } from './conf-change-codec.ts';
import { startElection, tickElection } from './election.ts';
import { StepError } from './errors.ts';
import { tickLeader } from './leader.ts';
import { entriesSizeBytes } from './log.ts';
import { reconfigure } from './reconfigure.ts';
import { CoreState } from './state.ts';
import { applied, step, stepRole, type Written, written } from './step.ts';
import type {
  ConfChangeV2,
  ConfState,
  CoreConfig,
  CoreStatus,
  Entry,
  HardState,
  MemberId,
  Message,
  MessageType,
  ProgressStatus,
  RawNode,
  Ready,
  Snapshot,
  SoftState,
} from './types.ts';

export { decodeConfChange, encodeConfChange, leaveJointChange } from './conf-change-codec.ts';
export { ConfChangeError, ProposalDropped, StepError } from './errors.ts';

/** With asyncStorageWrites: who makes entries, hard state and snapshots durable. No member's number. */
export const appendThread: MemberId = -1;
/** With asyncStorageWrites: who applies committed entries. No member's number. */
export const applyThread: MemberId = -2;

/** Made by a member for itself; off the wire they would be forged. */
const localTypes: ReadonlySet<MessageType> = new Set([
  'MsgHup',
  'MsgBeat',
  'MsgUnreachable',
  'MsgSnapStatus',
  'MsgCheckQuorum',
  'MsgStorageAppend',
  'MsgStorageAppendResp',
  'MsgStorageApply',
  'MsgStorageApplyResp',
]);

const responseTypes: ReadonlySet<MessageType> = new Set([
  'MsgAppResp',
  'MsgVoteResp',
  'MsgHeartbeatResp',
  'MsgReadIndexResp',
  'MsgPreVoteResp',
]);

/** A batch that was handed out, and what becomes true once it is dealt with. */
interface Outstanding {
  /** Messages to itself, e.g. its own vote, that counted on what was to be made durable. */
  readonly own: readonly Message[];
  readonly written: Written;
  readonly committed: readonly Entry[];
}

/** A RawNode with a hook for tests. */
export class Core implements RawNode {
  readonly #state: CoreState;
  readonly #writesAsynchronously: boolean;
  #softState: SoftState;
  #hardState: HardState;
  #outstanding: Outstanding | undefined;

  constructor(config: CoreConfig) {
    this.#state = new CoreState(config);
    this.#writesAsynchronously = config.asyncStorageWrites === true;
    this.#softState = { lead: this.#state.lead, role: this.#state.role };
    this.#hardState = this.#currentHardState();
  }

  tick(): void {
    if (this.#state.role === 'leader') tickLeader(this.#state);
    else tickElection(this.#state);
  }

  campaign(): void {
    startElection(this.#state, this.#state.config.preVote ? 'pre-election' : 'election');
  }

  propose(data: Uint8Array): void {
    this.#propose({ term: 0, index: 0, type: 'normal', data });
  }

  proposeConfChange(change: ConfChangeV2): void {
    this.#propose({ term: 0, index: 0, type: 'conf-change-v2', data: encodeConfChange(change) });
  }

  #propose(entry: Entry): void {
    const { id } = this.#state;
    stepRole(this.#state, { type: 'MsgProp', to: id, from: id, term: 0, entries: [entry] });
  }

  applyConfChange(change: ConfChangeV2): ConfState {
    return reconfigure(this.#state, change);
  }

  step(message: Message): void {
    if (message.from === appendThread || message.from === applyThread) {
      step(this.#state, message);
      return;
    }
    if (localTypes.has(message.type)) {
      throw new StepError('local-message', `raft: ${message.type} of member ${message.from} is local to it`);
    }
    if (responseTypes.has(message.type) && !this.#state.membership.progress.has(message.from)) {
      throw new StepError(
        'unknown-member',
        `raft: ${message.type} of ${message.from}, who is not in the group`,
      );
    }
    step(this.#state, message);
  }

  hasReady(): boolean {
    const state = this.#state;
    const { unstable } = state.log;
    return (
      state.messages.length > 0 ||
      state.messagesAfterAppend.length > 0 ||
      unstable.hasNextEntries ||
      state.log.hasNextCommitted(!this.#writesAsynchronously) ||
      state.readStates.length > 0 ||
      unstable.nextSnapshot() !== undefined ||
      this.#softState.lead !== state.lead ||
      this.#softState.role !== state.role ||
      this.#hardState.commit !== state.log.committed ||
      this.#hardState.term !== state.term ||
      this.#hardState.vote !== state.vote
    );
  }

  ready(): Ready {
    if (this.#outstanding !== undefined) {
      throw new ShoalError('internal', 'raft: ready() was called again before advance()');
    }
    const state = this.#state;
    const { log } = state;
    const entries = log.unstable.nextEntries();
    const committedEntries = log.nextCommitted(!this.#writesAsynchronously);
    const snapshot = log.unstable.nextSnapshot();
    const before = this.#hardState;
    const hardState = this.#takeHardState();
    const ready: Ready = {
      softState: this.#takeSoftState(),
      hardState,
      readStates: state.readStates,
      entries,
      snapshot,
      committedEntries,
      messages: this.#writesAsynchronously
        ? this.#takeMessagesAndWork(entries, hardState, snapshot, committedEntries)
        : this.#takeMessages(snapshot, committedEntries),
      mustSync: entries.length > 0 || before.term !== state.term || before.vote !== state.vote,
    };
    state.readStates = [];
    state.messages = [];
    state.messagesAfterAppend = [];
    log.unstable.acceptInProgress();
    const last = committedEntries.at(-1);
    if (last !== undefined) {
      log.acceptApplying(last.index, entriesSizeBytes(committedEntries), !this.#writesAsynchronously);
    }
    return ready;
  }

  /** What is for this member itself is kept until advance(). */
  #takeMessages(snapshot: Snapshot | undefined, committed: readonly Entry[]): readonly Message[] {
    const state = this.#state;
    const own: Message[] = [];
    for (const message of state.messagesAfterAppend) {
      if (message.to === state.id) own.push(message);
      else state.messages.push(message);
    }
    this.#outstanding = { own, written: this.#writing(snapshot), committed };
    return state.messages;
  }

  /** The same work as messages to the two threads. */
  #takeMessagesAndWork(
    entries: readonly Entry[],
    hardState: HardState | undefined,
    snapshot: Snapshot | undefined,
    committed: readonly Entry[],
  ): readonly Message[] {
    const { id, messages, messagesAfterAppend } = this.#state;
    const toWrite = entries.length > 0 || hardState !== undefined || snapshot !== undefined;
    if (toWrite || messagesAfterAppend.length > 0) {
      const response = this.#appendResponse(this.#writing(snapshot));
      messages.push({
        type: 'MsgStorageAppend',
        to: appendThread,
        from: id,
        term: hardState?.term ?? 0,
        vote: hardState?.vote ?? 0,
        commit: hardState?.commit ?? 0,
        entries,
        ...(snapshot === undefined ? {} : { snapshot }),
        responses: response === undefined ? messagesAfterAppend : [...messagesAfterAppend, response],
      });
    }
    if (committed.length > 0) {
      const response: Message = {
        type: 'MsgStorageApplyResp',
        to: id,
        from: applyThread,
        term: 0,
        entries: committed,
      };
      messages.push({
        type: 'MsgStorageApply',
        to: applyThread,
        from: id,
        term: 0,
        entries: committed,
        responses: [response],
      });
    }
    return messages;
  }

  #writing(snapshot: Snapshot | undefined): Written {
    const { term, log } = this.#state;
    const stable = log.unstable.isEmpty ? undefined : { term: log.lastTerm, index: log.lastIndex };
    return { term, stable, snapshot };
  }

  #appendResponse({ term, stable, snapshot }: Written): Message | undefined {
    if (stable === undefined && snapshot === undefined) return undefined;
    return {
      type: 'MsgStorageAppendResp',
      to: this.#state.id,
      from: appendThread,
      term,
      ...(stable === undefined ? {} : { index: stable.index, logTerm: stable.term }),
      ...(snapshot === undefined ? {} : { snapshot }),
    };
  }

  #takeSoftState(): SoftState | undefined {
    const { lead, role } = this.#state;
    if (this.#softState.lead === lead && this.#softState.role === role) return undefined;
    this.#softState = { lead, role };
    return this.#softState;
  }

  #currentHardState(): HardState {
    const { term, vote, log } = this.#state;
    return { term, vote, commit: log.committed };
  }

  #takeHardState(): HardState | undefined {
    const { term, vote, commit } = this.#hardState;
    const state = this.#state;
    if (term === state.term && vote === state.vote && commit === state.log.committed) return undefined;
    this.#hardState = this.#currentHardState();
    return this.#hardState;
  }

  advance(): void {
    if (this.#writesAsynchronously) {
      throw new ShoalError(
        'internal',
        'raft: with asyncStorageWrites, responses take the place of advance()',
      );
    }
    const done = this.#outstanding;
    if (done === undefined) return;
    this.#outstanding = undefined;
    for (const message of done.own) step(this.#state, message);
    written(this.#state, done.written);
    applied(this.#state, done.committed);
  }

  status(): CoreStatus {
    const state = this.#state;
    const progress = new Map<MemberId, ProgressStatus>();
    if (state.role === 'leader') {
      for (const [member, known] of state.membership.progress) progress.set(member, known.status());
    }
    return {
      id: state.id,
      term: state.term,
      vote: state.vote,
      commit: state.log.committed,
      applied: state.log.applied,
      lead: state.lead,
      role: state.role,
      leadTransferee: state.leadTransferee,
      configuration: state.membership.configuration,
      progress,
    };
  }

  reportUnreachable(member: MemberId): void {
    stepRole(this.#state, { type: 'MsgUnreachable', to: this.#state.id, from: member, term: 0 });
  }

  reportSnapshot(member: MemberId, ok: boolean): void {
    const { id } = this.#state;
    stepRole(this.#state, { type: 'MsgSnapStatus', to: id, from: member, term: 0, reject: !ok });
  }

  transferLeader(to: MemberId): void {
    stepRole(this.#state, { type: 'MsgTransferLeader', to: this.#state.id, from: to, term: 0 });
  }

  forgetLeader(): void {
    stepRole(this.#state, { type: 'MsgForgetLeader', to: this.#state.id, from: 0, term: 0 });
  }

  readIndex(context: Uint8Array): void {
    stepRole(this.#state, { type: 'MsgReadIndex', to: this.#state.id, from: 0, term: 0, context });
  }

  /** For tests: the ticks until the next election, until the role or the term changes. */
  setRandomizedElectionTicks(ticks: number): void {
    this.#state.randomizedElectionTicks = ticks;
  }
}

/** A member as its storage left it. Throws ShoalError 'invalid-argument' for a bad configuration. */
export function createRawNode(config: CoreConfig): Core {
  return new Core(config);
}
