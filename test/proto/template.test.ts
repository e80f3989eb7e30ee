import assert from 'node:assert/strict';
import { isShoalError } from '../../proto/errors.ts';
import { anyLabels, exampleValues, expand } from '../../proto/template.ts';

const values = { A: { B: 'value', Map: { key: 'found', 'odd key': 'odd' } } };
const functions = { env: (name: string) => `<${name}>` };

describe('template', () => {
  it('of labels that are not known yet, every name is one', () => {
    const unknown = exampleValues({ Name: 'web', Labels: anyLabels });
    assert.equal(
      expand('{{.Service.Labels.x}}{{index .Service.Labels "y"}}{{.Service.Name}}', unknown),
      'web',
    );
  });

  const table: [string, string][] = [
    ['no action', 'no action'],
    ['{{.A.B}}', 'value'],
    ['x{{ .A.B }}y{{.A.B}}', 'xvaluey' + 'value'],
    ['{{index .A.Map "key"}}', 'found'],
    ['{{index .A.Map "odd key"}}', 'odd'],
    ['{{index .A.Map "absent"}}', ''],
    ['{{.A.Map.key}}', 'found'],
    ['{{env "HOME"}}', '<HOME>'],
    ['{{env `HOME`}}', '<HOME>'],
    ['{{env .A.B}}', '<value>'],
    ['{{"lit\\"eral"}}', 'lit"eral'],
    ['{{"}}"}}', '}}'],
    ['a {{- .A.B -}} b', 'avalueb'],
    ['a {{/* nothing */}}b', 'a b'],
    ['{"json": {"x": 1}}', '{"json": {"x": 1}}'],
  ];
  for (const [text, expected] of table) {
    it(text, () => assert.equal(expand(text, values, functions), expected));
  }

  for (const text of [
    '{{.A.C}}',
    '{{.A}}',
    '{{nope "x"}}',
    '{{if .A.B}}x{{end}}',
    '{{}}',
    '{{.constructor}}',
    '{{.A.B',
  ]) {
    it(`refuses ${text}`, () =>
      assert.throws(
        () => expand(text, values, functions),
        (error) => isShoalError(error, 'invalid-argument'),
      ));
  }
});
