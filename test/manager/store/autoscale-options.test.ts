import assert from 'node:assert/strict';
import { autoscaleOptions, checkAutoscale } from '../../../manager/store/autoscale-options.ts';
import { readServiceOptions } from '../../../manager/store/service-options.ts';
import type { ServiceMode, ServiceSpec } from '../../../proto/docker.ts';
import { makeSpec } from '../orchestrator/objects.ts';

const labelled = (labels: Record<string, string>) =>
  Object.fromEntries(Object.entries(labels).map(([key, value]) => [`shoal.autoscale.${key}`, value]));
const memory = { Limits: { MemoryBytes: 1e8 } };

function fault(labels: Record<string, string>, Mode?: ServiceMode, Resources?: object): string {
  const spec: ServiceSpec = makeSpec({
    Labels: labelled(labels),
    TaskTemplate: Resources ? { Resources } : {},
  });
  try {
    readServiceOptions(spec.Labels);
    checkAutoscale(Mode ? { ...spec, Mode } : spec);
    return '';
  } catch (error) {
    return (error as Error).message;
  }
}

describe('autoscale: labels', () => {
  it('have defaults: cpu at 70 %, from 1, more at once, fewer after five minutes', () => {
    assert.deepEqual(autoscaleOptions(labelled({ max: '5' })), {
      min: 1,
      max: 5,
      metric: { kind: 'cpu' },
      target: { kind: 'percent', value: 70 },
      upWindowMs: 0,
      downWindowMs: 300_000,
      cooldownMs: 30_000,
      source: undefined,
      port: undefined,
      path: '/metrics',
    });
    assert.equal(autoscaleOptions({}), undefined);
    assert.equal(autoscaleOptions(labelled({ min: '2' })), undefined);
    assert.equal(autoscaleOptions(labelled({ max: 'x' })), undefined);
  });

  const queue = { max: '5', metric: 'prometheus:jobs', target: '5', port: '80' };
  const rows: [string, Record<string, string>, RegExp, (ServiceMode | undefined)?, object?][] = [
    ['all of cpu', { max: '5', min: '2', target: '55.5%', cooldown: '1m30s', 'up-window': '0' }, /^$/],
    ['memory in size', { max: '5', metric: 'memory', target: '200m' }, /^$/],
    ['memory in per cent', { max: '5', metric: 'memory' }, /^$/, undefined, memory],
    ['a metric', queue, /^$/],
    ['a metric of another', { ...queue, min: '0', source: 'queue', path: '/m?x=1' }, /^$/],
    ['a job', { ...queue, min: '0', source: 'queue' }, /^$/, { ReplicatedJob: { MaxConcurrent: 1 } }],
    ['no max', { min: '2' }, /shoal\.autoscale\.min says nothing without shoal\.autoscale\.max/],
    ['global', { max: '2' }, /is for services of mode replicated and replicated-job/, { Global: {} }],
    ['min above max', { max: '2', min: '3' }, /min \(3\) is above shoal\.autoscale\.max \(2\)/],
    ['none without a source', { max: '2', min: '0' }, /min=0 needs shoal\.autoscale\.source/],
    ['memory of what', { max: '2', metric: 'memory' }, /the service has neither: set one, or give a size/],
    ['memory as an amount', { max: '2', metric: 'memory', target: '5' }, /must be a percentage or a size/],
    ['cpu in size', { max: '2', target: '5m' }, /of cpu must be a percentage/],
    ['cpu with a port', { max: '2', port: '5' }, /port is for shoal\.autoscale\.metric=prometheus:NAME/],
    ['a metric without a port', { ...queue, port: 'x' }, /port must be a whole number from 1 to 65535/],
    [
      'a metric without a target',
      { max: '2', metric: 'prometheus:a', port: '1' },
      /target must say how much/,
    ],
    ['no metric', { max: '2', metric: 'prometheus:9' }, /metric must be cpu, memory or prometheus:NAME/],
    ['no target', { max: '2', target: '0%' }, /target must be a percentage \(70%\), a size \(200m\)/],
    ['no duration', { max: '2', cooldown: '2d' }, /cooldown must be a duration/],
    ['no path', { ...queue, path: 'x' }, /path must be a path/],
    ['no service', { ...queue, source: 'a b' }, /source must be the name of a service/],
    ['unknown', { max: '2', speed: '1' }, /"shoal\.autoscale\.speed" is no label that Shoal knows/],
  ];
  for (const [what, labels, expected, mode, resources] of rows)
    it(what, () => assert.match(fault(labels, mode, resources), expected));
});
