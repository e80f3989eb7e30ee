// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables of compose files, not of this one
import assert from 'node:assert/strict';
import { interpolate } from '../../../manager/stack/interpolate.ts';

const environment = { A: 'a', EMPTY: '', CONSTRUCTED: 'x$y' };

const good: [string, string][] = [
  ['plain', 'plain'],
  ['$A-${A}', 'a-a'],
  ['$$A $${A}', '$A ${A}'],
  ['${NONE:-d}', 'd'],
  ['${EMPTY:-d}', 'd'],
  ['${EMPTY-d}', ''],
  ['${NONE-d}', 'd'],
  ['${NONE-}', ''],
  ['${A:-d}', 'a'],
  ['${A:+other}', 'other'],
  ['${EMPTY:+other}', ''],
  ['${EMPTY+other}', 'other'],
  ['${NONE+other}', ''],
  ['${A:?needed}', 'a'],
  ['${A?needed}', 'a'],
  ['${EMPTY?needed}', ''],
  ['${NONE:-${EMPTY:-$A}}', 'a'],
  ['${A:-${NONE:?not asked}}', 'a'],
  ['${CONSTRUCTED}', 'x$y'],
  ['${NONE:-http://h:80/$A}', 'http://h:80/a'],
  ['$A_', ''],
  ['${toString}', ''],
];

const bad: [string, RegExp][] = [
  ['${NONE:?tell $A}', /^required variable NONE is missing a value: tell a$/],
  ['${EMPTY:?}', /^required variable EMPTY is missing a value$/],
  ['${NONE?x}', /^required variable NONE is missing a value: x$/],
  ['$', /^invalid interpolation format: "\$"\. You may need to escape any \$ with another \$$/],
  ['a $1', /invalid interpolation/],
  ['${A', /invalid interpolation/],
  ['${A:d}', /invalid interpolation/],
  ['${}', /invalid interpolation/],
  ['${NONE:-${A}', /invalid interpolation/],
];

describe('compose: interpolation', () => {
  for (const [text, expected] of good) {
    it(`${text} is ${JSON.stringify(expected)}`, () => {
      const result = interpolate(text, environment);
      assert.equal(result.ok && result.text, expected);
    });
  }

  for (const [text, message] of bad) {
    it(`${text} is refused`, () => {
      const result = interpolate(text, environment);
      assert.match(result.ok ? '' : result.message, message);
    });
  }

  it('tells which variables were taken as empty, and only those that mattered', () => {
    const result = interpolate('$X ${Y} ${Z:-d} ${A:-$W} $X', environment);
    assert.deepEqual(result.ok && result.unset, ['X', 'Y']);
  });
});
