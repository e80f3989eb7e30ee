/** Whatever a compose file says, it compiles or is refused in words with a line. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { isShoalError } from '../../../proto/errors.ts';
import { compile, web } from './files.ts';

const whole = [
  web(
    'command: run -p 3',
    'environment:',
    '  A: 1',
    '  B:',
    'labels:',
    '  - l=1',
    'ports:',
    '  - 80',
    '  - target: 81',
    '    mode: host',
    'volumes:',
    '  - data:/d',
    '  - type: tmpfs',
    '    target: /t',
    'secrets:',
    '  - source: s',
    '    mode: 0440',
    'healthcheck:',
    '  test: [CMD, x]',
    '  interval: 3s',
    'ulimits:',
    '  nofile: {soft: 1, hard: 2}',
    'networks:',
    '  back:',
    '    aliases: [w]',
    'deploy:',
    '  replicas: 2',
    '  resources:',
    '    limits:',
    "      cpus: '0.5'",
    '  placement:',
    '    constraints: [node.role==worker]',
    '    preferences:',
    '      - spread: node.labels.az',
  ),
  'networks:',
  '  back:',
  '    ipam:',
  '      config:',
  '        - subnet: 10.1.0.0/24',
  'volumes:',
  '  data: {driver: nfs}',
  'secrets:',
  '  s:',
  '    content: x',
].join('\n');

const oddities = [
  '',
  ' null',
  ' true',
  ' -1',
  ' 1.5',
  ' .nan',
  ' 2020-01-01',
  ' !!binary aGk=',
  ' x',
  ' []',
  ' {}',
  ' [null]',
  ' [[1]]',
  ' {a: null}',
  ' {__proto__: {a: 1}}',
  ' {constructor: 1}',
  ' {? [a] : b}',
  ' *nowhere',
  ' &a [*a]',
  ' "$"',
];

describe('compose: any file', () => {
  it('without a change compiles', () => assert.equal(compile(whole).services.length, 1));

  it('compiles or is refused in words with a line', () => {
    const lines = whole.split('\n');
    const edit = fc.record({
      at: fc.nat(lines.length - 1),
      kind: fc.constantFrom('drop', 'value', 'item', 'key', 'indent'),
      value: fc.constantFrom(...oddities),
    });
    fc.assert(
      fc.property(fc.array(edit, { minLength: 1, maxLength: 3 }), (edits) => {
        const changed = [...lines];
        for (const { at, kind, value } of edits) {
          const line = changed[at]!;
          if (kind === 'drop') changed[at] = '';
          else if (kind === 'value') changed[at] = line.replace(/:( .*)?$/, `:${value}`);
          else if (kind === 'item') changed[at] = line.replace(/- .*$/, `-${value}`);
          else if (kind === 'key') changed[at] = line.replace(/\w+:/, 'toString:');
          else changed[at] = `  ${line}`;
        }
        try {
          compile(changed.join('\n'));
        } catch (error) {
          assert.ok(isShoalError(error, 'invalid-argument'), String(error instanceof Error && error.stack));
          for (const message of error.message.split('\n')) {
            assert.match(message, /^\/home\/me\/app\/compose\.yml:\d+: /);
            assert.doesNotMatch(message, /Invalid input|NaN|\[object|: undefined$/);
          }
        }
      }),
      { numRuns: 300 },
    );
  });
});
