import assert from 'node:assert/strict';
import {
  explainConstraints,
  matchesConstraints,
  parseConstraints,
} from '../../../manager/store/constraint.ts';
import { isShoalError } from '../../../proto/errors.ts';
import { makeNode } from '../orchestrator/objects.ts';

const node = makeNode('n1', {
  Spec: { Labels: { Zone: 'West', empty: '' }, Role: 'worker' },
  Description: {
    Hostname: 'Web-1',
    Platform: { OS: 'linux', Architecture: 'x86_64' },
    Engine: { Labels: { disk: 'ssd' } },
  },
  Status: { Addr: '10.1.2.3' },
  Private: { Role: 'manager' },
});

const matching: [string, boolean][] = [
  ['node.id==n1', true],
  ['node.id==N1', true],
  ['node.id!=n1', false],
  ['NODE.ID == n1', true],
  ['node.hostname==web-1', true],
  ['node.hostname != web-2', true],
  ['node.role==manager', true],
  ['node.role==worker', false],
  ['node.role==Manager', true],
  ['node.platform.os==Linux', true],
  ['node.platform.arch!=aarch64', true],
  ['node.labels.Zone==west', true],
  ['node.labels.zone==west', false],
  ['node.labels.zone!=west', true],
  ['Node.Labels.Zone==WEST', true],
  ['node.labels.constructor==x', false],
  ['node.labels.constructor!=x', true],
  ['engine.labels.disk==SSD', true],
  ['engine.labels.disk!=ssd', false],
  ['engine.labels.none==x', false],
  ['node.ip==10.1.2.3', true],
  ['node.ip!=10.1.2.3', false],
  ['node.ip==::ffff:10.1.2.3', true],
  ['node.ip==10.1.0.0/16', true],
  ['node.ip==10.2.0.0/16', false],
  ['node.ip!=10.2.0.0/16', true],
  ['node.ip==0.0.0.0/0', true],
  ['node.ip==::/0', false],
  ['node.ip==2001:db8::2', false],
  ['node.ip!=2001:db8::2', true],
  ['node.ip==10.1.2.3/33', false],
  ['node.ip!=10.1.2.3/33', false],
  ['node.ip!=10.1.2', false],
  ['node.nothing==x', false],
  ['node.nothing!=x', false],
  ['node.labels.!=x', false],
];

describe('manager/store/constraint', () => {
  for (const [expression, expected] of matching) {
    it(`${expression} is ${expected}`, () => {
      const constraints = parseConstraints([expression]);
      assert.equal(matchesConstraints(constraints, node), expected);
      assert.equal(explainConstraints(constraints, node) === undefined, expected);
    });
  }

  it('needs all of several', () => {
    assert.ok(matchesConstraints(parseConstraints(['node.id==n1', 'node.role==manager']), node));
    assert.ok(!matchesConstraints(parseConstraints(['node.id==n1', 'node.role==worker']), node));
    assert.ok(matchesConstraints(parseConstraints(undefined), node));
  });

  it('matches IPv6 subnets', () => {
    const six = makeNode('n6', { Status: { Addr: '2001:db8::12:0:1' } });
    const table: [string, boolean][] = [
      ['node.ip==2001:db8::/32', true],
      ['node.ip==2001:db8:0:0:0:12:0:1', true],
      ['node.ip==2001:db9::/32', false],
      ['node.ip==10.0.0.0/8', false],
    ];
    for (const [expression, expected] of table) {
      assert.equal(matchesConstraints(parseConstraints([expression]), six), expected, expression);
    }
  });

  it('a node that has not registered matches no address, and every unequal one', () => {
    const blank = makeNode('n0', { Status: { Addr: '' } });
    assert.ok(!matchesConstraints(parseConstraints(['node.ip==10.0.0.0/8']), blank));
    assert.ok(matchesConstraints(parseConstraints(['node.ip!=10.0.0.0/8']), blank));
  });

  for (const bad of [
    'node.role',
    'node.role=manager',
    '==x',
    '9==x',
    'node role==x',
    'node.id==',
    'node.id==a=b',
    '',
  ]) {
    it(`refuses "${bad}"`, () => {
      assert.throws(
        () => parseConstraints([bad]),
        (error) => isShoalError(error, 'invalid-argument') && error.message.includes(`"${bad}"`),
      );
    });
  }
});
