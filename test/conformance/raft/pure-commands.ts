/** The directives of etcd's scenarios for its pure parts: quorums and membership changes. */
import assert from 'node:assert/strict';
import { ConfChangeError } from '../../../manager/raft/core/core.ts';
import type { ConfChangeRefusal } from '../../../manager/raft/core/errors.ts';
import {
  enterJoint,
  leaveJoint,
  type Membership,
  nobody,
  simpleChange,
} from '../../../manager/raft/core/membership.ts';
import {
  jointCommitted,
  jointVote,
  majorityCommitted,
  majorityVote,
} from '../../../manager/raft/core/quorum.ts';
import { type Directive, numbersOf, singleValue } from './data-driven.ts';
import { describeConfiguration, describeProgress, parseConfChanges } from './describe.ts';

const refusals: Partial<Record<ConfChangeRefusal, string>> = {
  'already-joint': 'config is already joint',
  'no-voters-yet': "can't make a zero-voter config joint",
  'not-joint': "can't leave a non-joint config",
  'simple-while-joint': "can't apply simple config change in joint config",
  'removes-all-voters': 'removed all voters',
  'several-voters': 'more than one voter changed without entering joint config',
};

/** One file's worth of membership changes, each on top of the last; `lastIndex` counts directives. */
export class ConfChangeEnvironment {
  #current: Membership = nobody;
  #lastIndex = 0;

  handle(directive: Directive): string {
    const limits = { messages: 10, bytes: Number.POSITIVE_INFINITY };
    const context = { current: this.#current, lastIndex: this.#lastIndex++, limits };
    const changes = parseConfChanges(directive.input);
    try {
      switch (directive.command) {
        case 'simple':
          this.#current = simpleChange(context, changes);
          break;
        case 'enter-joint':
          this.#current = enterJoint(context, changes, singleValue(directive, 'autoleave') === 'true');
          break;
        case 'leave-joint':
          assert.equal(changes.length, 0);
          this.#current = leaveJoint(context);
          break;
        default:
          assert.fail(`line ${directive.line}: unknown command ${directive.command}`);
      }
    } catch (error) {
      if (error instanceof ConfChangeError) return refusals[error.reason] ?? error.message;
      throw error;
    }
    const { configuration, progress } = this.#current;
    const statuses = new Map([...progress].map(([id, known]) => [id, known.status()]));
    return `${describeConfiguration(configuration)}\n${describeProgress(statuses)}`;
  }
}

/** The n-th of the voters, each counted once, gets the n-th value; `_` leaves it out. */
function assign<T>(voters: readonly number[], values: readonly string[], read: (value: string) => T) {
  const assigned = new Map<number, T>();
  const distinct = [...new Set(voters)];
  assert.equal(values.length, distinct.length, 'as many values as voters');
  distinct.forEach((id, i) => {
    if (values[i] !== '_') assigned.set(id, read(values[i]!));
  });
  return assigned;
}

/** Each voter's index as a bar as long as there are voters with a lower one. */
function chart(voters: readonly number[], acked: ReadonlyMap<number, number>): string {
  if (voters.length === 0) return '<empty majority quorum>';
  const ids = [...new Set(voters)].sort((a, b) => a - b);
  let text = `${' '.repeat(ids.length)}    idx\n`;
  for (const id of ids) {
    const index = acked.get(id);
    const lower = ids.filter((other) => (acked.get(other) ?? 0) < (index ?? 0)).length;
    const bar =
      index === undefined
        ? `?${' '.repeat(ids.length)}`
        : `${'x'.repeat(lower)}>${' '.repeat(ids.length - lower)}`;
    text += `${bar} ${String(index ?? 0).padStart(5)}    (id=${id.toString(16)})\n`;
  }
  return text;
}

function indexName(index: number): string {
  return index === Number.POSITIVE_INFINITY ? '∞' : String(index);
}

/** `committed` and `vote`; what must not depend on how the same quorum is written is checked on the way. */
export function handleQuorum(directive: Directive): string {
  const incoming = singleValue(directive, 'cfg') ? numbersOf(directive, 'cfg') : [];
  const isJoint = directive.arguments.some(({ key }) => key === 'cfgj');
  const outgoing = isJoint && singleValue(directive, 'cfgj') !== 'zero' ? numbersOf(directive, 'cfgj') : [];
  const both = [...incoming, ...outgoing];
  const values = (key: string): readonly string[] =>
    (directive.arguments.find((argument) => argument.key === key)?.values ?? []).filter((v) => v !== '');
  if (directive.command === 'vote') {
    const votes = assign(both, values('votes'), (value) => value === 'y');
    const result = isJoint ? jointVote(incoming, outgoing, votes) : majorityVote(incoming, votes);
    assert.equal(jointVote(outgoing, incoming, votes), result, 'the halves can be swapped');
    return `Vote${result[0]!.toUpperCase()}${result.slice(1)}`;
  }
  assert.equal(directive.command, 'committed');
  const acked = assign(both, values('idx'), Number);
  const lookUp = (id: number): number | undefined => acked.get(id);
  const index = isJoint ? jointCommitted(incoming, outgoing, lookUp) : majorityCommitted(incoming, lookUp);
  assert.equal(jointCommitted(outgoing, incoming, lookUp), index, 'the halves can be swapped');
  if (!isJoint) assert.equal(jointCommitted(incoming, incoming, lookUp), index, 'joint with itself');
  return chart(both, acked) + indexName(index);
}
