import assert from 'node:assert/strict';
import { newNode } from '../../../manager/ca/bootstrap.ts';
import { roleStep, roleToCertify } from '../../../manager/ca/roles.ts';
import type { ClusterNode, NodeRole } from '../../../proto/docker.ts';
import { asId } from '../../../proto/ids.ts';

const id = 'n'.repeat(25);

function node(wanted: NodeRole, certified: NodeRole, isMember = false): ClusterNode {
  const made = newNode({
    nodeId: asId(id),
    role: certified,
    availability: 'active',
    tlsInfo: { TrustRoot: '', CertIssuerSubject: '', CertIssuerPublicKey: '' },
    requestPem: '',
    certificatePem: '',
  });
  return {
    ...made,
    Spec: { ...made.Spec, Role: wanted },
    ...(isMember ? { ManagerStatus: { Reachability: 'reachable' as const, Addr: '' } } : {}),
  };
}

describe('roles of nodes', () => {
  const rows: [string, NodeRole, NodeRole, boolean, ReturnType<typeof roleStep>, NodeRole][] = [
    ['a worker', 'worker', 'worker', false, { kind: 'none' }, 'worker'],
    ['a manager', 'manager', 'manager', true, { kind: 'none' }, 'manager'],
    [
      'a promoted worker',
      'manager',
      'worker',
      false,
      { kind: 'set-certified-role', role: 'manager' },
      'manager',
    ],
    ['a promoted one on its way in', 'manager', 'manager', false, { kind: 'none' }, 'manager'],
    ['a demoted manager', 'worker', 'manager', true, { kind: 'remove-from-raft', nodeId: id }, 'manager'],
    [
      'a demoted manager that left',
      'worker',
      'manager',
      false,
      { kind: 'set-certified-role', role: 'worker' },
      'worker',
    ],
    [
      'one that was left in the group',
      'worker',
      'worker',
      true,
      { kind: 'remove-from-raft', nodeId: id },
      'worker',
    ],
  ];
  for (const [what, wanted, certified, isMember, step, certify] of rows) {
    it(`${what}: ${step.kind}, next certificate ${certify}`, () => {
      const subject = node(wanted, certified, isMember);
      assert.deepEqual(roleStep(subject, isMember ? ['x', id] : ['x']), step);
      assert.equal(roleToCertify(subject), certify);
    });
  }
});
