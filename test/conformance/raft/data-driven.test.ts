/** The format of scenario files, of which etcd's use a part only. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseScenario, runScenario } from './data-driven.ts';

const text = `# A directive over two lines, with a list, a value and input.
add one=(1, 2) \\
  two=3 four
input
of two lines
----
a line

say
----
----
a blank line follows

and a last line
----
----

say nothing
----
ok
`;

describe('scenario files', () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'shoal-format-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const said: Record<string, string> = {
    add: 'a line',
    say: 'a blank line follows\n\nand a last line\n',
    'say nothing': 'ok',
  };
  const answer = ({ command, arguments: given }: ReturnType<typeof parseScenario>[number]) =>
    said[command === 'say' && given.length > 0 ? 'say nothing' : command]!;

  it('have directives with arguments and input, and output that may have blank lines', () => {
    const [add, say, nothing, ...more] = parseScenario(text);
    assert.deepEqual(more, []);
    assert.deepEqual(add, {
      command: 'add',
      arguments: [
        { key: 'one', values: ['1', '2'] },
        { key: 'two', values: ['3'] },
        { key: 'four', values: [] },
      ],
      input: 'input\nof two lines',
      expected: 'a line\n',
      line: 2,
    });
    assert.equal(say!.expected, said.say);
    assert.deepEqual([nothing!.line, nothing!.expected], [18, 'ok\n']);
  });

  it('are compared to the byte, and written back as they were', () => {
    const file = join(folder, 'file.txt');
    writeFileSync(file, text);
    runScenario(file, answer);
    runScenario(file, answer, { rewrite: true });
    assert.equal(readFileSync(file, 'utf8'), text);
    writeFileSync(file, text.replace('and a last', 'and a least'));
    assert.throws(() => runScenario(file, answer), /file\.txt:9: say/);
  });

  it('without an end are refused', () => {
    assert.throws(() => parseScenario('say\n'), /line 1: the directive has no ----/);
    assert.throws(() => parseScenario('say\n----\n----\nx\n----\n'), /line 3: .* has no end/);
    assert.throws(() => parseScenario('say\n----\n----\nx\n----\n----\ny\n'), /line 7: output goes on/);
  });
});
