/** The core's plain data in the printed forms of etcd's scenarios. */
import { appendThread, applyThread, decodeConfChange } from '../../../manager/raft/core/core.ts';
import type {
  ConfChangeSingle,
  ConfChangeType,
  ConfState,
  Entry,
  EntryType,
  HardState,
  Message,
  ProgressStatus,
  Ready,
  RoleName,
  Snapshot,
} from '../../../manager/raft/core/types.ts';

const roleNames: Record<RoleName, string> = {
  follower: 'StateFollower',
  candidate: 'StateCandidate',
  leader: 'StateLeader',
  'pre-candidate': 'StatePreCandidate',
};

const entryNames: Record<EntryType, string> = {
  normal: 'EntryNormal',
  'conf-change': 'EntryConfChange',
  'conf-change-v2': 'EntryConfChangeV2',
};

const progressNames = {
  probe: 'StateProbe',
  replicate: 'StateReplicate',
  snapshot: 'StateSnapshot',
} as const;

const changeLetters: Record<ConfChangeType, string> = {
  'add-voter': 'v',
  'add-learner': 'l',
  remove: 'r',
  update: 'u',
};

/** `v1 l2 r3 u4` as changes; throws an Error with the words of the scenarios. */
export function parseConfChanges(text: string): ConfChangeSingle[] {
  const tokens = text.trim().split(' ');
  return tokens
    .filter((token) => token !== '')
    .map((token) => {
      const found = Object.entries(changeLetters).find(([, letter]) => letter === token[0]);
      if (found === undefined) throw new Error(`unknown input: ${token}`);
      return { type: found[0] as ConfChangeType, member: Number(token.slice(1)) };
    });
}

export function describeRole(role: RoleName): string {
  return roleNames[role];
}

function hex(id: number): string {
  return id.toString(16);
}

function quoted(data: Uint8Array): string {
  let text = '';
  for (const byte of data) {
    const letter = String.fromCharCode(byte);
    if (letter === '"' || letter === '\\') text += `\\${letter}`;
    else if (byte >= 0x20 && byte < 0x7f) text += letter;
    else if (letter === '\n') text += '\\n';
    else text += `\\x${byte.toString(16).padStart(2, '0')}`;
  }
  return `"${text}"`;
}

export function describeEntry(entry: Entry): string {
  const data =
    entry.type === 'normal'
      ? quoted(entry.data)
      : decodeConfChange(entry.data)
          .changes.map(({ type, member }) => `${changeLetters[type]}${member}`)
          .join(' ');
  return `${entry.term}/${entry.index} ${entryNames[entry.type]}${data === '' ? '' : ` ${data}`}`;
}

export function describeEntries(entries: readonly Entry[]): string {
  return entries.map((entry) => `${describeEntry(entry)}\n`).join('');
}

function describeConfState(state: ConfState): string {
  const list = (ids: readonly number[]): string => `[${ids.join(' ')}]`;
  return (
    `Voters:${list(state.voters)} VotersOutgoing:${list(state.votersOutgoing)} ` +
    `Learners:${list(state.learners)} LearnersNext:${list(state.learnersNext)} AutoLeave:${state.autoLeave}`
  );
}

function describeSnapshot({ metadata }: Snapshot): string {
  const { index, term, confState } = metadata;
  return `Index:${index} Term:${term} ConfState:${describeConfState(confState)}`;
}

function describeHardState({ term, vote, commit }: HardState): string {
  return `Term:${term}${vote === 0 ? '' : ` Vote:${vote}`} Commit:${commit}`;
}

function target(id: number): string {
  if (id === appendThread) return 'AppendThread';
  if (id === applyThread) return 'ApplyThread';
  return id === 0 ? 'None' : hex(id);
}

export function describeMessage(message: Message, indent = ''): string {
  const { from, to, type, term, logTerm = 0, index = 0, commit = 0, vote = 0, entries = [] } = message;
  let text = `${indent}${target(from)}->${target(to)} ${type} Term:${term} Log:${logTerm}/${index}`;
  if (message.reject === true) text += ` Rejected (Hint: ${message.rejectHint ?? 0})`;
  if (commit !== 0) text += ` Commit:${commit}`;
  if (vote !== 0) text += ` Vote:${vote}`;
  if (entries.length === 1) {
    text += ` Entries:[${describeEntry(entries[0]!)}]`;
  } else if (entries.length > 1) {
    text += ` Entries:[${entries.map((entry) => `\n${indent}  ${describeEntry(entry)}`).join('')}\n${indent}]`;
  }
  if (message.snapshot !== undefined && message.snapshot.metadata.index !== 0) {
    text += `\n${indent}  Snapshot: ${describeSnapshot(message.snapshot)}`;
  }
  const { responses = [] } = message;
  if (responses.length > 0) {
    const described = responses.map((response) => `\n${describeMessage(response, `${indent}  `)}`);
    text += ` Responses:[${described.join('')}\n${indent}]`;
  }
  return text;
}

export function describeReady(ready: Ready): string {
  let text = '';
  const { softState, hardState, readStates, snapshot } = ready;
  if (softState !== undefined) text += `Lead:${softState.lead} State:${roleNames[softState.role]}\n`;
  if (hardState !== undefined) text += `HardState ${describeHardState(hardState)}\n`;
  if (readStates.length > 0) {
    const states = readStates.map(({ index, context }) => `{${index} [${[...context].join(' ')}]}`);
    text += `ReadStates [${states.join(' ')}]\n`;
  }
  if (ready.entries.length > 0) text += `Entries:\n${describeEntries(ready.entries)}`;
  if (snapshot !== undefined) text += `Snapshot ${describeSnapshot(snapshot)}\n`;
  if (ready.committedEntries.length > 0) {
    text += `CommittedEntries:\n${describeEntries(ready.committedEntries)}`;
  }
  if (ready.messages.length > 0) {
    text += `Messages:\n${ready.messages.map((message) => `${describeMessage(message)}\n`).join('')}`;
  }
  return text === '' ? '<empty Ready>' : `Ready MustSync=${ready.mustSync}:\n${text}`;
}

export function describeProgress(progress: ReadonlyMap<number, ProgressStatus>): string {
  let text = '';
  for (const [id, known] of progress) {
    text += `${id}: ${progressNames[known.state]} match=${known.match} next=${known.next}`;
    if (known.isLearner) text += ' learner';
    if (known.paused) text += ' paused';
    if (known.pendingSnapshot > 0) text += ` pendingSnap=${known.pendingSnapshot}`;
    if (!known.recentActive) text += ' inactive';
    if (known.inflight > 0) text += ` inflight=${known.inflight}${known.inflightFull ? '[full]' : ''}`;
    text += '\n';
  }
  return text;
}

export function describeMajority(ids: readonly number[]): string {
  return `(${ids.map(hex).join(' ')})`;
}

export function describeConfiguration(state: ConfState): string {
  let text = `voters=${describeMajority(state.voters)}`;
  if (state.votersOutgoing.length > 0) text += `&&${describeMajority(state.votersOutgoing)}`;
  if (state.learners.length > 0) text += ` learners=${describeMajority(state.learners)}`;
  if (state.learnersNext.length > 0) text += ` learners_next=${describeMajority(state.learnersNext)}`;
  return state.autoLeave ? `${text} autoleave` : text;
}
