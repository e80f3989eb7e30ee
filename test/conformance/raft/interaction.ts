/**
 * A group of members in one place, driven by the directives of etcd's interaction scenarios. Each has a
 * storage in memory and a state machine that is all it was told, strung together. What members log is
 * not part of the output.
 */
import assert from 'node:assert/strict';
import {
  appendThread,
  applyThread,
  type Core,
  createRawNode,
  decodeConfChange,
  encodeConfChange,
  ProposalDropped,
  StepError,
} from '../../../manager/raft/core/core.ts';
import type { MemoryStorage } from '../../../manager/raft/core/memory-storage.ts';
import type {
  ConfChangeTransition,
  ConfState,
  CoreConfig,
  Entry,
  HardState,
  Message,
  Snapshot,
} from '../../../manager/raft/core/types.ts';
import { type Directive, numbersOf, plainNumbers, singleValue } from './data-driven.ts';
import {
  describeEntries,
  describeMessage,
  describeProgress,
  describeReady,
  describeRole,
  parseConfChanges,
} from './describe.ts';
import { HistoryStorage } from './history-storage.ts';

const encoder = new TextEncoder();

interface Member {
  readonly id: number;
  readonly config: CoreConfig;
  readonly storage: HistoryStorage;
  readonly core: Core;
  /** With asynchronous storage: work for the two threads, oldest first. */
  readonly appendWork: Message[];
  readonly applyWork: Message[];
}

interface Recipient {
  readonly id: number;
  readonly drop: boolean;
}

/** An error of the core in the words that the scenarios expect. */
function wordsOf(error: unknown): string {
  if (error instanceof ProposalDropped) return 'raft proposal dropped';
  if (error instanceof StepError && error.reason === 'unknown-member') {
    return 'raft: cannot step as peer not found';
  }
  throw error;
}

/** What a member sends to itself cannot get lost. */
function isLocal({ from, to }: Message): boolean {
  return from === to || from === appendThread || from === applyThread;
}

function indented(text: string): string {
  return text.replace(/\n$/, '').replace(/^/gm, '  ').concat('\n');
}

/** `first` and `second` are the directive's plain arguments, 0 if they are no numbers. */
type Command = (directive: Directive, first: number, second: number) => void;

export class InteractionEnvironment {
  readonly #members: Member[] = [];
  #messages: Message[] = [];
  #quiet = false;
  #output = '';

  readonly #commands: Record<string, Command> = {
    // A place for a debugger to stop at.
    _breakpoint: () => {},
    'add-nodes': (directive, count) => this.#addNodes(count, directive),
    campaign: (_, id) => this.#member(id).core.campaign(),
    compact: (_, id, index) => this.#compact(this.#member(id), index),
    'deliver-msgs': (directive) => this.#deliverDirective(directive),
    'forget-leader': (_, id) => this.#member(id).core.forgetLeader(),
    'log-level': (directive) => {
      this.#quiet = directive.arguments[0]!.key.toLowerCase() === 'none';
    },
    'process-append-thread': (directive) => {
      const work = (member: Member) => this.#work(member, 'append');
      this.#each(plainNumbers(directive), 'processing append thread', work);
    },
    'process-apply-thread': (directive) => {
      const work = (member: Member) => this.#work(member, 'apply');
      this.#each(plainNumbers(directive), 'processing apply thread', work);
    },
    'process-ready': (directive) => {
      this.#each(plainNumbers(directive), 'handling Ready', (member) => this.#processReady(member));
    },
    propose: ({ arguments: [, data] }, id) => this.#member(id).core.propose(encoder.encode(data!.key)),
    'propose-conf-change': (directive, id) => this.#proposeConfChange(this.#member(id), directive),
    'raft-log': (_, id) => this.#printLog(this.#member(id)),
    'raft-state': () => this.#printStates(),
    'report-unreachable': (_, id, unreachable) => this.#member(id).core.reportUnreachable(unreachable),
    'send-snapshot': (_, from, to) => this.#sendSnapshot(this.#member(from), to),
    'set-randomized-election-timeout': (directive, id) => {
      this.#member(id).core.setRandomizedElectionTicks(Number(singleValue(directive, 'timeout')));
    },
    stabilize: (directive) => this.#stabilizeDirective(directive),
    status: (_, id) => this.#print(describeProgress(this.#member(id).core.status().progress)),
    'tick-election': (_, id) => this.#tick(this.#member(id), this.#member(id).config.electionTicks),
    'tick-heartbeat': (_, id) => this.#tick(this.#member(id), this.#member(id).config.heartbeatTicks),
    'transfer-leadership': (directive) => {
      const from = this.#member(Number(singleValue(directive, 'from')));
      from.core.transferLeader(Number(singleValue(directive, 'to')));
    },
  };

  /** Carries one directive out and answers what it printed. */
  handle(directive: Directive): string {
    this.#output = '';
    let failure = '';
    try {
      this.#dispatch(directive);
    } catch (error) {
      failure = wordsOf(error);
    }
    const output = (this.#quiet ? '' : this.#output) + failure;
    return output === '' ? 'ok' : output;
  }

  #print(text: string): void {
    this.#output += text;
  }

  #printIndented(action: () => void): void {
    const outer = this.#output;
    this.#output = '';
    action();
    this.#output = this.#output === '' ? outer : outer + indented(this.#output);
  }

  #member(id: number | undefined): Member {
    const member = this.#members[(id ?? 0) - 1];
    assert.ok(member, `there is no member ${id}`);
    return member;
  }

  #dispatch(directive: Directive): void {
    const command = this.#commands[directive.command];
    assert.ok(command, `line ${directive.line}: unknown command ${directive.command}`);
    const [first, second] = plainNumbers(directive);
    command(directive, first ?? 0, second ?? 0);
  }

  #addNodes(count: number, directive: Directive): void {
    const confState: ConfState = {
      voters: numbersOf(directive, 'voters'),
      votersOutgoing: [],
      learners: numbersOf(directive, 'learners'),
      learnersNext: [],
      autoLeave: false,
    };
    const index = Number(singleValue(directive, 'index') ?? 0);
    const content = encoder.encode(singleValue(directive, 'content') ?? '');
    const bootstrap = index > 0 || confState.voters.length > 0 || confState.learners.length > 0;
    assert.ok(!bootstrap || index > 1, 'index must be more than 1 to start from');
    const metadata = { index, term: bootstrap ? 1 : 0, confState };
    const snapshot: Snapshot = { metadata, data: content };
    for (let i = 0; i < count; i++) {
      const storage = new HistoryStorage(snapshot);
      if (bootstrap) storage.applySnapshot(snapshot);
      const id = this.#members.length + 1;
      const config = this.#config(id, storage, index, directive);
      this.#members.push({ id, config, storage, core: createRawNode(config), appendWork: [], applyWork: [] });
    }
  }

  #config(id: number, storage: MemoryStorage, applied: number, directive: Directive): CoreConfig {
    const flag = (key: string): boolean => singleValue(directive, key) === 'true';
    return {
      id,
      storage,
      applied,
      electionTicks: 3,
      heartbeatTicks: 1,
      maxSizePerMessageBytes: Number.POSITIVE_INFINITY,
      maxCommittedSizePerReadyBytes: Number(singleValue(directive, 'max-committed-size-per-ready') ?? 0),
      maxUncommittedEntriesSizeBytes: 0,
      maxInflightMessages: Number(singleValue(directive, 'inflight') ?? 2 ** 31 - 1),
      maxInflightBytes: 0,
      checkQuorum: flag('checkquorum'),
      preVote: flag('prevote'),
      readOnly: singleValue(directive, 'read-only') === 'lease-based' ? 'lease-based' : 'safe',
      random: () => 0,
      disableConfChangeValidation: flag('disable-conf-change-validation'),
      stepDownOnRemoval: flag('step-down-on-removal'),
      asyncStorageWrites: flag('async-storage-writes'),
    };
  }

  /** Does something for each member, under a headline when there are several. */
  #each(ids: readonly number[], headline: string, action: (member: Member) => void): void {
    for (const id of ids) {
      if (ids.length > 1) this.#titled(this.#member(id), headline, action);
      else action(this.#member(id));
    }
  }

  #titled(member: Member, headline: string, action: (member: Member) => void): void {
    this.#print(`> ${member.id} ${headline}\n`);
    this.#printIndented(() => action(member));
  }

  #processReady(member: Member): void {
    const { core, config } = member;
    const ready = core.ready();
    this.#print(describeReady(ready));
    if (config.asyncStorageWrites === true) {
      for (const message of ready.messages) {
        if (message.to === appendThread) member.appendWork.push(message);
        else if (message.to === applyThread) member.applyWork.push(message);
        else this.#messages.push(message);
      }
      return;
    }
    this.#write(member, ready.hardState, ready.entries, ready.snapshot);
    this.#apply(member, ready.committedEntries);
    this.#messages.push(...ready.messages);
    core.advance();
  }

  #write(
    { storage }: Member,
    hardState: HardState | undefined,
    entries: readonly Entry[],
    snapshot: Snapshot | undefined,
  ): void {
    if (hardState !== undefined) storage.setHardState(hardState);
    if (snapshot !== undefined) storage.applySnapshot(snapshot);
    else storage.append(entries);
  }

  #apply({ core, storage }: Member, entries: readonly Entry[]): void {
    for (const entry of entries) {
      if (entry.type === 'normal') {
        storage.record(entry, entry.data, undefined);
      } else {
        const change = decodeConfChange(entry.data);
        storage.record(entry, change.context, core.applyConfChange(change));
      }
    }
  }

  #work(member: Member, thread: 'append' | 'apply'): void {
    const message = (thread === 'append' ? member.appendWork : member.applyWork).shift();
    if (message === undefined) {
      this.#print(`no ${thread} work to perform`);
      return;
    }
    const { responses = [], term, vote = 0, commit = 0, entries = [], snapshot } = message;
    this.#print(`Processing:\n${describeMessage({ ...message, responses: [] })}\n`);
    if (thread === 'append') {
      const hardState = term === 0 && vote === 0 && commit === 0 ? undefined : { term, vote, commit };
      this.#write(member, hardState, entries, snapshot);
    } else {
      this.#apply(member, entries);
    }
    this.#print(`Responses:\n${responses.map((response) => `${describeMessage(response)}\n`).join('')}`);
    this.#messages.push(...responses);
  }

  #proposeConfChange({ id, core }: Member, directive: Directive): void {
    const changes = parseConfChanges(directive.input);
    const transition = (singleValue(directive, 'transition') ?? 'auto') as ConfChangeTransition;
    const change = { transition, changes, context: new Uint8Array(0) };
    if (singleValue(directive, 'v1') === 'true') {
      const entry: Entry = { term: 0, index: 0, type: 'conf-change', data: encodeConfChange(change) };
      core.step({ type: 'MsgProp', to: id, from: id, term: 0, entries: [entry] });
    } else {
      core.proposeConfChange(change);
    }
  }

  #deliverDirective(directive: Directive): void {
    const recipients: Recipient[] = [];
    for (const { key, values } of directive.arguments) {
      if (values.length === 0) recipients.push({ id: Number(key), drop: false });
      if (key === 'drop') recipients.push(...values.map((id) => ({ id: Number(id), drop: true })));
    }
    const type = singleValue(directive, 'type');
    let count = 0;
    for (const recipient of recipients) count += this.#deliver(recipient, type);
    if (count === 0) this.#print('no messages\n');
  }

  #deliver({ id, drop }: Recipient, type: string | undefined): number {
    const matches = (message: Message): boolean =>
      message.to === id && !(drop && isLocal(message)) && (type === undefined || message.type === type);
    const delivered = this.#messages.filter(matches);
    this.#messages = this.#messages.filter((message) => !matches(message));
    for (const message of delivered) {
      this.#print(`${drop ? 'dropped: ' : ''}${describeMessage(message)}\n`);
      if (drop) continue;
      try {
        this.#member(id).core.step(message);
      } catch (error) {
        this.#print(`${wordsOf(error)}\n`);
      }
    }
    return delivered.length;
  }

  #compact(member: Member, index: number): void {
    member.storage.compact(index);
    this.#printLog(member);
  }

  #printLog({ storage }: Member): void {
    const first = storage.firstIndex();
    const last = storage.lastIndex();
    if (last < first) this.#print(`log is empty: first index=${first}, last index=${last}`);
    else this.#print(describeEntries(storage.entries(first, last + 1, Number.POSITIVE_INFINITY)));
  }

  #printStates(): void {
    for (const { id, core } of this.#members) {
      const { role, configuration, term, lead } = core.status();
      const { voters, votersOutgoing } = configuration;
      const votes = voters.includes(id) || votersOutgoing.includes(id);
      const voter = votes ? '(Voter)' : '(Non-Voter)';
      this.#print(`${id}: ${describeRole(role)} ${voter} Term:${term} Lead:${lead}\n`);
    }
  }

  #sendSnapshot({ id, core, storage }: Member, to: number): void {
    const snapshot = storage.snapshot();
    const message: Message = { type: 'MsgSnap', to, from: id, term: core.status().term, snapshot };
    this.#messages.push(message);
    this.#print(describeMessage(message));
  }

  #stabilizeDirective(directive: Directive): void {
    const level = singleValue(directive, 'log-level');
    const quiet = this.#quiet;
    if (level !== undefined) this.#quiet = level.toLowerCase() === 'none';
    const ids = plainNumbers(directive);
    this.#stabilize(ids.length === 0 ? this.#members : ids.map((id) => this.#member(id)));
    if (this.#quiet) this.#output = '';
    this.#quiet = quiet;
  }

  #stabilize(members: readonly Member[]): void {
    const drain = (member: Member, work: Message[], thread: 'append' | 'apply'): void => {
      this.#print(`> ${member.id} processing ${thread} thread\n`);
      while (work.length > 0) this.#printIndented(() => this.#work(member, thread));
    };
    const round: readonly [(member: Member) => boolean, (member: Member) => void][] = [
      [({ core }) => core.hasReady(), (m) => this.#titled(m, 'handling Ready', () => this.#processReady(m))],
      [
        ({ id }) => this.#messages.some((message) => message.to === id),
        (m) =>
          this.#titled(m, 'receiving messages', ({ id }) => this.#deliver({ id, drop: false }, undefined)),
      ],
      [({ appendWork }) => appendWork.length > 0, (m) => drain(m, m.appendWork, 'append')],
      [({ applyWork }) => applyWork.length > 0, (m) => drain(m, m.applyWork, 'apply')],
    ];
    for (let busy = true; busy; ) {
      busy = false;
      for (const [hasWork, doWork] of round) {
        for (const member of members) {
          if (!hasWork(member)) continue;
          doWork(member);
          busy = true;
        }
      }
    }
  }

  #tick({ core }: Member, ticks: number): void {
    for (let i = 0; i < ticks; i++) core.tick();
  }
}
