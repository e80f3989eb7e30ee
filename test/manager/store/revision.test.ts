import assert from 'node:assert/strict';
import { compareSpecs } from '../../../manager/store/revision.ts';
import type { ServiceSpec } from '../../../proto/docker.ts';
import { makeSpec } from '../orchestrator/objects.ts';

describe('what of a task a new spec changes', () => {
  const base = makeSpec();
  const cases: [string, ServiceSpec, 'none' | 'placement' | 'container'][] = [
    ['nothing', makeSpec(), 'none'],
    ['replicas and labels', makeSpec({ Labels: { a: 'b' }, Mode: { Replicated: { Replicas: 5 } } }), 'none'],
    [
      'defaults spelled out',
      makeSpec({
        EndpointSpec: { Mode: 'vip' },
        TaskTemplate: {
          Runtime: 'container',
          ForceUpdate: 0,
          ContainerSpec: { Isolation: 'default', Env: [] },
          RestartPolicy: { Condition: 'any', MaxAttempts: 0 },
        },
      }),
      'none',
    ],
    [
      'a constraint',
      makeSpec({ TaskTemplate: { Placement: { Constraints: ['node.role==worker'] } } }),
      'placement',
    ],
    ['the image', makeSpec({ TaskTemplate: { ContainerSpec: { Image: 'web:2' } } }), 'container'],
    ['a forced update', makeSpec({ TaskTemplate: { ForceUpdate: 1 } }), 'container'],
    ['a port', makeSpec({ EndpointSpec: { Ports: [{ TargetPort: 80, PublishMode: 'host' }] } }), 'container'],
    [
      'an empty label of the container',
      makeSpec({ TaskTemplate: { ContainerSpec: { Labels: { a: '' } } } }),
      'container',
    ],
  ];
  for (const [name, spec, expected] of cases) {
    it(`${name}: ${expected}`, () => assert.equal(compareSpecs(base, spec), expected));
  }
});
