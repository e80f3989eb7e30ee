import assert from 'node:assert/strict';
import { linearizabilityFault, type RegisterOperation } from './linearizability.ts';

let moments = 0;

/** An operation from `called` to `returned`. */
function operation(
  kind: RegisterOperation['kind'],
  value: string,
  span: readonly [called: number, returned: number],
  more: Partial<RegisterOperation> = {},
): RegisterOperation {
  const [called, returned] = span;
  return { kind, value, outcome: 'done', called, returned, ...more };
}

const never = Number.POSITIVE_INFINITY;
const judge = (history: readonly RegisterOperation[]): boolean =>
  linearizabilityFault(history, 'a') === undefined;

describe('linearizability checker: histories that are right', () => {
  it('nothing, and one after the other', () => {
    assert.ok(judge([]));
    assert.ok(
      judge([
        operation('read', 'a', [1, 2]),
        operation('write', 'b', [3, 4]),
        operation('read', 'b', [5, 6]),
      ]),
    );
  });

  it('a read during a write sees either', () => {
    assert.ok(judge([operation('write', 'b', [1, 4]), operation('read', 'a', [2, 3])]));
    assert.ok(judge([operation('write', 'b', [1, 4]), operation('read', 'b', [2, 3])]));
  });

  it('a write without an answer may happen, late too, or not', () => {
    const write = operation('write', 'b', [1, never], { outcome: 'unknown' });
    assert.ok(judge([write, operation('read', 'a', [2, 3]), operation('read', 'b', [4, 5])]));
    assert.ok(judge([write, operation('read', 'a', [2, 3])]));
  });

  it('swaps that found what they expected, and not', () => {
    const refused = { outcome: 'refused', expected: 'a' } as const;
    assert.ok(
      judge([
        operation('swap', 'b', [1, 2], { expected: 'a' }),
        operation('swap', 'c', [3, 4], refused),
        operation('read', 'b', [5, 6]),
      ]),
    );
  });

  it('a swap refused for a write that nobody read', () => {
    const write = operation('write', 'b', [1, never], { outcome: 'unknown' });
    assert.ok(judge([write, operation('swap', 'c', [2, 3], { outcome: 'refused', expected: 'a' })]));
  });
});

describe('linearizability checker: histories that are wrong', () => {
  const wrong: Readonly<Record<string, readonly RegisterOperation[]>> = {
    'a stale read': [operation('write', 'b', [1, 2]), operation('read', 'a', [3, 4])],
    'a lost write': [
      operation('write', 'b', [1, 2]),
      operation('read', 'b', [3, 4]),
      operation('read', 'a', [5, 6]),
    ],
    'two readers that see two writes in two orders': [
      operation('write', 'b', [1, 10]),
      operation('write', 'c', [1, 10]),
      operation('read', 'b', [11, 12]),
      operation('read', 'c', [13, 14]),
    ],
    'a read that goes back during a write': [
      operation('write', 'b', [1, 10]),
      operation('read', 'b', [2, 3]),
      operation('read', 'a', [4, 5]),
    ],
    'a value that nobody wrote': [operation('read', 'x', [1, 2])],
    'two swaps of one value': [
      operation('swap', 'b', [1, 5], { expected: 'a' }),
      operation('swap', 'c', [1, 5], { expected: 'a' }),
    ],
    'a swap refused though it fitted': [
      operation('swap', 'b', [1, 2], { expected: 'a', outcome: 'refused' }),
    ],
    'an unanswered write that happened before it was asked for': [
      operation('read', 'b', [1, 2]),
      operation('write', 'b', [3, never], { outcome: 'unknown' }),
    ],
    'an unanswered write that came undone': [
      operation('write', 'b', [1, never], { outcome: 'unknown' }),
      operation('read', 'b', [2, 3]),
      operation('read', 'a', [4, 5]),
    ],
  };
  for (const [name, history] of Object.entries(wrong)) {
    it(name, () => assert.match(linearizabilityFault(history, 'a') ?? '', /no operation fits/));
  }

  it('one stale read among a hundred operations of four clients', () => {
    const history: RegisterOperation[] = [];
    moments = 0;
    let value = 'a';
    for (let round = 0; round < 50; round += 1) {
      const next = `v${round}`;
      history.push(operation('write', next, [moments + 1, moments + 4]));
      history.push(operation('read', round % 2 === 0 ? value : next, [moments + 2, moments + 3]));
      value = next;
      moments += 4;
    }
    assert.ok(judge(history));
    assert.ok(!judge([...history, operation('read', 'v40', [moments + 1, moments + 2])]));
  });
});
