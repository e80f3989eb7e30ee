import assert from 'node:assert/strict';
import { isShoalError } from '../../proto/errors.ts';
import { anyLabels, checkTemplate, exampleValues, expand } from '../../proto/template.ts';

const values = { Empty: {}, A: { B: 'value', Map: { key: 'found', 'odd key': 'odd' } } };
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
    ['{{if .A.B}}x{{end}}', 'x'],
    ['{{if index .A.Map "absent"}}x{{else}}y{{end}}', 'y'],
    ['{{if eq .A.B "other"}}x{{else if eq .A.B "a" "value"}}y{{else}}z{{end}}', 'y'],
    ['{{with index .A.Map "key"}}<{{.}}>{{else}}none{{end}}', '<found>'],
    ['{{with $x := .A.B}}{{$x}} {{$.A.B}}{{end}}', 'value value'],
    ['{{range $key, $value := .A.Map}}{{$key}}={{$value}};{{end}}', 'key=found;odd key=odd;'],
    ['{{range .A.Map}}{{.}},{{else}}none{{end}}', 'found,odd,'],
    ['{{range .Empty}}{{.}}{{else}}none{{end}}', 'none'],
    ['{{$x := .A.B}}{{$x}}{{if true}}{{$x := "inner"}}{{$x}}{{end}}{{$x}}', 'valueinnervalue'],
    ['{{(index .A.Map "key") | printf "%s-%5s" "a"}}', 'a-found'],
    ['{{printf "%03d %q %v" 7 "x" true}}', '007 "x" true'],
    ['{{if and .A.B (not (eq .A.B "x"))}}a{{end}}{{if or "" false}}b{{end}}', 'a'],
    ['{{len .A.B}} {{len .A.Map}} {{lt 1 2}} {{ge "b" "a"}}', '5 2 true true'],
    ['{{join "," .A.B "x"}} {{print 1 "a"}}', 'value,x 1a'],
    ['{{(index .A "Map").key}}', 'found'],
    ['a  {{- if .A.B -}}  b  {{- end -}}  c', 'abc'],
    ['{{env "A" | print "x"}}', 'x<A>'],
  ];
  for (const [text, expected] of table) {
    it(text, () => assert.equal(expand(text, values, functions), expected));
  }

  it('are checked whichever way they go, and labels may be there or not', () => {
    const spec = exampleValues({ Name: 'web', Labels: { there: 'yes' } });
    for (const good of [
      '{{if index .Service.Labels "x"}}{{.Service.Labels.x}}{{end}}',
      '{{if eq .Task.Slot "1"}}first{{else}}{{.Node.Hostname}}{{end}}',
      '{{with index .Service.Labels "x"}}{{.}}{{end}}',
      '{{range $k, $v := .Service.Labels}}{{$k}}{{$v}}{{end}}',
    ])
      checkTemplate(good, spec);
    for (const bad of [
      '{{if eq .Task.Slot "2"}}{{.Nonsense}}{{end}}',
      '{{if .Task.Slot}}x{{else}}{{nope "a"}}{{end}}',
      '{{with index .Service.Labels "x"}}{{$.Nonsense}}{{end}}',
      '{{.Service.Labels.absent}}',
    ])
      assert.throws(() => checkTemplate(bad, spec), /expanding template/, bad);
    const none = exampleValues({ Name: 'web', Labels: {} });
    assert.throws(() => checkTemplate('{{range .Service.Labels}}{{$.Nonsense}}{{end}}', none), /there is no/);
  });

  it('that never come to an end are refused', () => {
    const Labels = Object.fromEntries(Array.from({ length: 60 }, (_, at) => [`l${at}`, 'x']));
    const open = '{{range $.Service.Labels}}'.repeat(5);
    assert.throws(
      () => expand(`${open}x${'{{end}}'.repeat(5)}`, exampleValues({ Name: 'web', Labels })),
      /more than 100000 steps/,
    );
  });

  for (const text of [
    '{{.A.C}}',
    '{{.A}}',
    '{{nope "x"}}',
    '{{}}',
    '{{.constructor}}',
    '{{.A.B',
    '{{if .A.B}}x',
    '{{if .A.B}}x{{else}}y',
    '{{end}}',
    '{{else}}',
    '{{if .A.B}}{{else nonsense}}{{end}}',
    '{{define "x"}}{{end}}',
    '{{template "x"}}',
    '{{range .A.Map}}{{break}}{{end}}',
    '{{range .A.B}}x{{end}}',
    '{{eq .A.B 1}}',
    '{{eq .A .A}}',
    '{{$x}}',
    '{{.A.B "x"}}',
    '{{"a" | .A.B}}',
    '{{printf "%x" "a"}}',
    '{{printf "%s"}}',
    '{{(.A.B}}',
    '{{html .A.B}}',
    '{{env "A" "B"}}',
    '{{index .A.B "x"}}',
    '{{if $a, $b := .A.B}}{{end}}',
    '{{ }}',
  ]) {
    it(`refuses ${text}`, () =>
      assert.throws(
        () => expand(text, values, functions),
        (error) => isShoalError(error, 'invalid-argument'),
      ));
  }
});
