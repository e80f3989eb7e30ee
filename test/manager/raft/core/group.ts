/**
 * A group of cores in one process: each with a disk that keeps what was written, a state machine that is
 * a chain of digests, and a network that holds every message until someone delivers or loses it. Nothing
 * happens by itself; who drives it decides on order, loss and crashes.
 */
import assert from 'node:assert/strict';
import {
  appendThread,
  applyThread,
  type Core,
  createRawNode,
  decodeConfChange,
  ProposalDropped,
  StepError,
} from '../../../../manager/raft/core/core.ts';
import { MemoryStorage } from '../../../../manager/raft/core/memory-storage.ts';
import type {
  ConfState,
  CoreConfig,
  Entry,
  HardState,
  Message,
  ReadState,
  Ready,
  Snapshot,
} from '../../../../manager/raft/core/types.ts';

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export const defaults = {
  electionTicks: 10,
  heartbeatTicks: 1,
  maxSizePerMessageBytes: 1_000,
  maxCommittedSizePerReadyBytes: 1_000,
  maxUncommittedEntriesSizeBytes: 0,
  maxInflightMessages: 8,
  maxInflightBytes: 0,
  checkQuorum: true,
  preVote: true,
  readOnly: 'safe',
} as const;

/** The bare algorithm. */
export const plain = { preVote: false, checkQuorum: false };

export type Options = Partial<Omit<CoreConfig, 'id' | 'storage' | 'applied'>>;

export function confStateOf(voters: readonly number[], learners: readonly number[] = []): ConfState {
  return { voters, votersOutgoing: [], learners, learnersNext: [], autoLeave: false };
}

export class Member {
  readonly id: number;
  readonly storage = new MemoryStorage();
  readonly options: Options;
  core: Core;
  isUp = true;
  /** The last applied index and the digest of everything up to there. */
  applied = 0;
  digest = '';
  confState: ConfState;
  readonly appliedTexts: string[] = [];
  readonly readStates: ReadState[] = [];
  readonly appendWork: Message[] = [];
  readonly applyWork: Message[] = [];
  /** Called for every entry that is applied, and for every snapshot taken over. */
  onApplied: (member: Member) => void = () => {};

  constructor(id: number, confState: ConfState, options: Options) {
    this.id = id;
    this.options = options;
    if (confState.voters.length > 0) {
      this.storage.applySnapshot({ metadata: { index: 1, term: 1, confState }, data: encoder.encode('') });
      this.storage.setHardState({ term: 1, vote: 0, commit: 1 });
    }
    this.confState = confState;
    this.core = this.#boot();
  }

  #boot(): Core {
    const { metadata, data } = this.storage.snapshot();
    this.applied = metadata.index;
    this.digest = decoder.decode(data);
    this.confState = metadata.confState;
    const { id, storage, applied, options } = this;
    return createRawNode({ ...defaults, random: () => 0, ...options, id, storage, applied });
  }

  /** Forgets all but what was written. */
  crash(): void {
    this.isUp = false;
    this.appendWork.length = 0;
    this.applyWork.length = 0;
  }

  restart(): void {
    this.core = this.#boot();
    this.isUp = true;
  }

  write(hardState: HardState | undefined, entries: readonly Entry[], snapshot: Snapshot | undefined): void {
    if (hardState !== undefined) this.storage.setHardState(hardState);
    if (snapshot !== undefined) {
      this.storage.applySnapshot(snapshot);
      this.applied = snapshot.metadata.index;
      this.digest = decoder.decode(snapshot.data);
      this.confState = snapshot.metadata.confState;
      this.onApplied(this);
    }
    this.storage.append(entries);
  }

  apply(entries: readonly Entry[]): void {
    for (const entry of entries) {
      assert.equal(entry.index, this.applied + 1, `member ${this.id} applies one after the other`);
      if (entry.type === 'normal') {
        const text = decoder.decode(entry.data);
        this.digest = digestOf(`${this.digest}|${entry.term}/${entry.index} ${text}`);
        if (text !== '') this.appliedTexts.push(text);
      } else {
        this.digest = digestOf(`${this.digest}|${entry.term}/${entry.index} ${entry.data.join(' ')}`);
        this.confState = this.core.applyConfChange(decodeConfChange(entry.data));
      }
      this.applied = entry.index;
      this.onApplied(this);
    }
  }

  /** Writes a snapshot of the state machine and drops the log before it, but for `keep` entries. */
  compact(keep: number): void {
    if (this.applied <= this.storage.snapshot().metadata.index) return;
    this.storage.createSnapshot(this.applied, this.confState, encoder.encode(this.digest));
    const index = this.applied - keep;
    if (index >= this.storage.firstIndex()) this.storage.compact(index);
  }
}

/** A short text that depends on all of `text` (32-bit FNV-1a). */
function digestOf(text: string): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 0).toString(16);
}

export class Group {
  readonly members = new Map<number, Member>();
  network: Message[] = [];
  /** Messages for which this holds get lost. */
  loses: (message: Message) => boolean = () => false;

  /** `count` members, of which `voters` (all of them unless named) make up the group. */
  constructor(
    count: number,
    options: Options = {},
    voters?: readonly number[],
    learners?: readonly number[],
  ) {
    const ids = Array.from({ length: count }, (_, i) => i + 1);
    for (const id of ids) this.add(id, confStateOf(voters ?? ids, learners), options);
  }

  add(id: number, confState: ConfState, options: Options = {}): Member {
    const member = new Member(id, confState, options);
    this.members.set(id, member);
    return member;
  }

  get(id: number): Member {
    const member = this.members.get(id);
    assert.ok(member, `no member ${id}`);
    return member;
  }

  core(id: number): Core {
    return this.get(id).core;
  }

  /** Takes a Ready and does all of its work at once, or hands it to the member's threads. */
  process(member: Member): Ready {
    const ready = member.core.ready();
    member.readStates.push(...ready.readStates);
    if (member.options.asyncStorageWrites === true) {
      this.#distribute(member, ready.messages);
      return ready;
    }
    member.write(ready.hardState, ready.entries, ready.snapshot);
    this.network.push(...ready.messages);
    member.apply(ready.committedEntries);
    member.core.advance();
    return ready;
  }

  #distribute(member: Member, messages: readonly Message[]): void {
    for (const message of messages) {
      if (message.to === appendThread) member.appendWork.push(message);
      else if (message.to === applyThread) member.applyWork.push(message);
      else this.network.push(message);
    }
  }

  /** Does the next piece of work of one of the member's threads; false if it has none. */
  work(member: Member, thread: 'append' | 'apply'): boolean {
    const message = (thread === 'append' ? member.appendWork : member.applyWork).shift();
    if (message === undefined) return false;
    const { term, vote = 0, commit = 0, entries = [], snapshot, responses = [] } = message;
    if (thread === 'append') member.write(term === 0 ? undefined : { term, vote, commit }, entries, snapshot);
    else member.apply(entries);
    for (const response of responses) {
      if (response.to === member.id) this.#step(member, response);
      else this.network.push(response);
    }
    return true;
  }

  /** Delivers a message, or loses it when nobody is there or `loses` says so. */
  deliver(message: Message): void {
    const to = this.members.get(message.to);
    if (to?.isUp !== true || this.loses(message)) {
      this.lose(message);
      return;
    }
    this.#step(to, message);
    this.#reportSnapshot(message, true);
  }

  lose(message: Message): void {
    this.#reportSnapshot(message, false);
  }

  /** What becomes of a snapshot must be told to its sender, who sends nothing else meanwhile. */
  #reportSnapshot({ type, from, to }: Message, ok: boolean): void {
    const sender = this.members.get(from);
    if (type === 'MsgSnap' && sender?.isUp === true) sender.core.reportSnapshot(to, ok);
  }

  #step(to: Member, message: Message): void {
    try {
      to.core.step(message);
    } catch (error) {
      // Proposals without a leader, and answers of members who are no longer in the group.
      if (!(error instanceof ProposalDropped || error instanceof StepError)) throw error;
    }
  }

  /** Lets everyone work and delivers everything, in order, until nothing is left to do. */
  settle(): void {
    for (let busy = true, rounds = 0; busy; rounds++) {
      assert.ok(rounds < 1_000, 'the group does not come to rest');
      busy = false;
      for (const member of this.members.values()) {
        if (!member.isUp) continue;
        while (member.core.hasReady()) {
          this.process(member);
          busy = true;
        }
        while (this.work(member, 'append') || this.work(member, 'apply')) busy = true;
      }
      const messages = this.network;
      this.network = [];
      for (const message of messages) this.deliver(message);
      if (messages.length > 0) busy = true;
    }
  }

  /** One tick for everyone, in order, each settled before the next. */
  tick(count = 1): void {
    for (let i = 0; i < count; i++) {
      for (const member of this.members.values()) {
        if (member.isUp) member.core.tick();
      }
      this.settle();
    }
  }

  elect(id: number): void {
    this.core(id).campaign();
    this.settle();
    assert.equal(this.core(id).status().role, 'leader', `member ${id} leads`);
  }

  propose(id: number, text: string): void {
    this.core(id).propose(encoder.encode(text));
  }

  /** Nothing gets through between those in `ids` and the others. */
  isolate(...ids: number[]): void {
    this.loses = ({ from, to }) => ids.includes(from) !== ids.includes(to);
  }

  heal(): void {
    this.loses = () => false;
  }

  /** Has members make all they have to send, and keeps it in the network. */
  flush(...ids: number[]): void {
    for (const id of ids) {
      while (this.core(id).hasReady()) this.process(this.get(id));
    }
  }

  /** The MsgApps in the network, as `to:first-last`, or `to:-` without entries. */
  appends(): string[] {
    return this.network
      .filter(({ type }) => type === 'MsgApp')
      .map(({ to, entries = [] }) =>
        entries.length === 0 ? `${to}:-` : `${to}:${entries[0]!.index}-${entries.at(-1)!.index}`,
      );
  }

  /** Gives a member entries of these terms, from index 2 on, as if from earlier leaders. */
  setLog(id: number, terms: readonly number[], term: number): void {
    const member = this.get(id);
    const data = new Uint8Array(0);
    member.storage.append(terms.map((of, i) => ({ term: of, index: 2 + i, type: 'normal', data })));
    member.storage.setHardState({ term, vote: 0, commit: 1 });
    member.crash();
    member.restart();
  }

  roles(): string[] {
    return [...this.members.values()].map(({ core }) => core.status().role);
  }

  terms(): number[] {
    return [...this.members.values()].map(({ core }) => core.status().term);
  }

  texts(id: number): string[] {
    return this.get(id).appliedTexts;
  }
}
