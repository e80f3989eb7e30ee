/** Go templates as `--format` takes them, and the tables and JSON of lists. */
import assert from 'node:assert/strict';
import { parseTemplate } from '../../cli/format.ts';
import { type Column, duration, durationText, renderList } from '../../cli/output.ts';
import { UsageError } from '../../cli/usage.ts';

const value = {
  ID: 'abc',
  Spec: { Name: 'web', Labels: { b: '2', a: '1' }, Mode: { Replicated: { Replicas: 3 } } },
  Ports: [
    { Target: 80, Published: 8080 },
    { Target: 443, Published: 8443 },
  ],
  None: [],
};

describe('cli: templates', () => {
  const rows: [string, string][] = [
    ['{{.ID}}: {{.Spec.Name}}', 'abc: web'],
    ['{{json .Spec.Mode}}', '{"Replicated":{"Replicas":3}}'],
    ['{{ .Spec.Name | upper }}\\t{{len .Ports}}', 'WEB\t2'],
    ['{{range .Ports}}{{.Target}} {{end}}', '80 443 '],
    ['{{range $i, $p := .Ports}}{{$i}}={{$p.Published}};{{end}}', '0=8080;1=8443;'],
    ['{{range $k, $v := .Spec.Labels}}{{$k}}={{$v}} {{end}}', 'a=1 b=2 '],
    ['{{range .None}}x{{else}}none{{end}}', 'none'],
    ['{{if .None}}some{{else if .ID}}id{{else}}neither{{end}}', 'id'],
    ['{{with .Spec}}{{.Name}} {{$.ID}}{{end}}', 'web abc'],
    ['{{index .Spec.Labels "b"}} {{(index .Ports 1).Target}}', '2 443'],
    ['{{.Missing}} {{.ID.Deeper}}', '<no value> <no value>'],
    ['{{.Spec.Labels}} {{.None}}', 'map[a:1 b:2] []'],
    ['{{printf "%-5s|%q" .ID .Spec.Name}}', 'abc  |"web"'],
    ['{{if and (eq .ID "abc") (not .None)}}yes{{end}}', 'yes'],
    ['{{join (split "a b" " ") ","}}', 'a,b'],
    ['a {{- /* nothing */ -}} b {{- .ID}}', 'ab' + 'abc'],
    ['{{$x := .ID}}{{$x}}{{println}}', 'abc\n'],
  ];
  for (const [template, text] of rows) {
    it(template, () => assert.equal(parseTemplate(template)(value), text));
  }

  for (const template of ['{{.ID', '{{range .Ports}}', '{{end}}', '{{bogus .ID}}', '{{$x}}', '{{.ID .ID}}']) {
    it(`refuses ${template}`, () => assert.throws(() => parseTemplate(template)(value), UsageError));
  }
});

interface Row {
  id: string;
  name: string;
  own: boolean;
}

const columns: Column<Row>[] = [
  { heading: 'ID', field: 'ID', value: (row) => `${row.id}${row.own ? ' *' : ''}`, raw: (row) => row.id },
  { heading: 'NAME', field: 'Name', value: (row) => row.name },
  { heading: 'SELF', field: 'Self', value: (row) => String(row.own), raw: (row) => row.own, hidden: true },
];
const rows: Row[] = [
  { id: 'a1', name: 'one', own: true },
  { id: 'b2', name: 'two', own: false },
];
const render = (format?: string, quiet = false): string =>
  renderList(rows, columns, (row) => row.id, { quiet, ...(format === undefined ? {} : { format }) });

describe('cli: lists', () => {
  it('are tables without what is hidden', () => {
    assert.equal(render(), 'ID     NAME\na1 *   one\nb2     two');
    assert.equal(render('table'), render());
  });
  it('quiet: ids only', () => assert.equal(render(undefined, true), 'a1\nb2'));
  it('json: one object a line', () => {
    assert.equal(
      render('json'),
      '{"ID":"a1","Name":"one","Self":true}\n{"ID":"b2","Name":"two","Self":false}',
    );
  });
  it('templates', () => assert.equal(render('{{.ID}}={{.Name}}'), 'a1=one\nb2=two'));
  it('tables of templates are headed', () => {
    assert.equal(render('table {{.Name}}\\t{{.Self}}'), 'NAME   SELF\none    true\ntwo    false');
  });
  it('an empty table has its heading', () => {
    assert.equal(
      renderList([], columns, (row) => row.id, {}),
      'ID   NAME',
    );
  });
  it('a field that is not there is refused, naming those that are', () => {
    assert.throws(() => render('{{.Nope}}'), /\.Nope; there are \.ID \.Name \.Self/);
  });
  it('says durations in words and in Go’s form', () => {
    assert.deepEqual([0, 1000, 59_000, 60_000, 3_600_000, 49 * 3_600_000].map(duration), [
      'Less than a second',
      '1 second',
      '59 seconds',
      'About a minute',
      'About an hour',
      '2 days',
    ]);
    assert.deepEqual([0, 5e8, 9e10, 36e11].map(durationText), ['0s', '500ms', '1m30s', '1h0m0s']);
  });
});
