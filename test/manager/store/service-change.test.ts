import assert from 'node:assert/strict';
import type { Change } from '../../../manager/store/change.ts';
import { sameServiceSpec } from '../../../manager/store/normalize.ts';
import { createServiceChanges, updateServiceChanges } from '../../../manager/store/service-change.ts';
import { Store } from '../../../manager/store/store.ts';
import type { ServiceSpec } from '../../../proto/docker.ts';
import { type Id, isId, type NewId, newId } from '../../../proto/ids.ts';
import { seededRandom } from '../../simulation/random.ts';
import { makeSpec } from '../orchestrator/objects.ts';

const now = Date.UTC(2026, 0, 1);

function setUp(spec: ServiceSpec = makeSpec()) {
  const random = seededRandom(7);
  const ids: NewId = <I extends Id<string>>() => newId<I>(random);
  const store = new Store();
  let index = 0;
  const apply = (changes: readonly Change[]) => store.applyEntry(++index, { now, changes });
  const service = () => store.list('service')[0]!;
  assert.deepEqual(apply(createServiceChanges(spec, now, ids).changes), { ok: true });
  return { ids, store, apply, service };
}

describe('service changes', () => {
  it('creates a service with its first revision', () => {
    const { store, service } = setUp();
    const revision = store.get('revision', service().Private.RevisionID);
    assert.ok(isId(service().ID));
    assert.equal(revision?.Number, 1);
    assert.equal(revision?.ServiceID, service().ID);
    assert.deepEqual(revision?.Spec, service().Spec);
    assert.equal(service().PreviousSpec, undefined);
  });

  it('copies networks from the place that Docker deprecated, unless the template has others', () => {
    const { service } = setUp({ ...makeSpec(), Networks: [{ Target: 'host' }] });
    assert.deepEqual(service().Spec.TaskTemplate.Networks, [{ Target: 'host' }]);
    assert.deepEqual(service().Spec.Networks, [{ Target: 'host' }]);
    const own = setUp({
      ...makeSpec({ TaskTemplate: { Networks: [{ Target: 'bridge' }] } }),
      Networks: [{ Target: 'host' }],
    });
    assert.deepEqual(own.service().Spec.TaskTemplate.Networks, [{ Target: 'bridge' }]);
    assert.equal('Networks' in own.service().Spec, false);
  });

  it('an update makes the next revision and remembers the spec before', () => {
    const { store, apply, service, ids } = setUp();
    const first = service();
    const spec = makeSpec({ TaskTemplate: { ContainerSpec: { Image: 'web:2' } } });
    assert.deepEqual(apply(updateServiceChanges(store, first, { spec }, now, ids).changes), { ok: true });
    assert.deepEqual(service().PreviousSpec, first.Spec);
    assert.equal(service().Private.PreviousRevisionID, first.Private.RevisionID);
    assert.equal(store.get('revision', service().Private.RevisionID)?.Number, 2);
    const stale = apply(updateServiceChanges(store, first, { spec }, now, ids).changes);
    assert.equal(stale.ok === false && stale.code, 'out-of-sequence');
    assert.equal(store.count('revision'), 2);
  });

  it('a job with a schedule runs again only when it is forced, and that run is remembered', () => {
    const Mode = { ReplicatedJob: {} };
    const labels = { Labels: { 'shoal.cron': '0 3 * * *' } };
    const { store, apply, service, ids } = setUp({ ...makeSpec(labels), Mode });
    const change = (ForceUpdate: number, Image: string) => {
      const spec = {
        ...makeSpec({ ...labels, TaskTemplate: { ForceUpdate, ContainerSpec: { Image } } }),
        Mode,
      };
      apply(updateServiceChanges(store, service(), { spec }, now, ids).changes);
      return [service().JobStatus?.JobIteration.Index, service().Private.Cron?.Runs.length ?? 0];
    };
    assert.deepEqual(change(0, 'web:2'), [0, 0]);
    assert.deepEqual(change(1, 'web:2'), [1, 1]);
    assert.deepEqual(change(1, 'web:3'), [1, 1]);
  });

  it('the endpoint follows the spec', () => {
    const { store, apply, service, ids } = setUp();
    assert.deepEqual(service().Endpoint, { Spec: { Mode: 'vip' } });
    const Ports = [{ TargetPort: 80, PublishedPort: 8080, PublishMode: 'host' as const }];
    const spec = { ...makeSpec(), EndpointSpec: { Ports } };
    apply(updateServiceChanges(store, service(), { spec }, now, ids).changes);
    const port = { ...Ports[0], Protocol: 'tcp' };
    assert.deepEqual(service().Endpoint, { Spec: { Mode: 'vip', Ports: [port] }, Ports: [port] });
  });

  it('a rollback goes to the revision before, and a second one comes back', () => {
    const { store, apply, service, ids } = setUp();
    const first = service();
    const spec = makeSpec({ Labels: { a: '1' } });
    apply(updateServiceChanges(store, first, { spec }, now, ids).changes);
    const second = service();
    apply(updateServiceChanges(store, second, { rollback: 'previous' }, now, ids).changes);
    assert.deepEqual(service().Spec, first.Spec);
    assert.equal(service().Private.RevisionID, first.Private.RevisionID);
    assert.equal(service().UpdateStatus?.State, 'rollback_started');
    assert.equal(store.count('revision'), 2);
    apply(updateServiceChanges(store, service(), { rollback: 'previous' }, now, ids).changes);
    assert.deepEqual(service().Spec, second.Spec);
    apply(
      updateServiceChanges(store, service(), { spec: makeSpec({ Labels: { b: '1' } }) }, now, ids).changes,
    );
    assert.equal(service().UpdateStatus, undefined);
    apply(updateServiceChanges(store, service(), { rollbackTo: first.Private.RevisionID }, now, ids).changes);
    assert.deepEqual(service().Spec, first.Spec);
  });

  it('refuses what SwarmKit refuses, in its words', () => {
    const { store, service, ids } = setUp();
    const attempt = (update: Parameters<typeof updateServiceChanges>[2]) => () =>
      updateServiceChanges(store, service(), update, now, ids);
    assert.throws(attempt({ rollback: 'previous' }), {
      code: 'failed-precondition',
      message: /previous spec/,
    });
    assert.throws(attempt({ spec: makeSpec({ Name: 'other' }) }), {
      code: 'not-supported',
      message: /renaming/,
    });
    assert.throws(attempt({ spec: { ...makeSpec(), Mode: { Global: {} } } }), { message: /mode change/ });
  });

  it('an update of a job runs it again', () => {
    const { store, apply, service, ids } = setUp({ ...makeSpec(), Mode: { ReplicatedJob: {} } });
    assert.equal(service().JobStatus?.JobIteration.Index, 0);
    apply(updateServiceChanges(store, service(), { spec: service().Spec }, now, ids).changes);
    assert.equal(service().JobStatus?.JobIteration.Index, 1);
  });
});

describe('specs that mean the same', () => {
  const base = makeSpec();
  const same: [string, ServiceSpec][] = [
    ['one replica spelled out or not', { ...base, Mode: { Replicated: {} } }],
    ['empty lists', makeSpec({ TaskTemplate: { ContainerSpec: { Env: [], Mounts: [] }, Networks: [] } })],
    ['default restart policy', makeSpec({ TaskTemplate: { RestartPolicy: { Condition: 'any' } } })],
    ['default update config', { ...base, UpdateConfig: { Parallelism: 1, Order: 'stop-first', Monitor: 0 } }],
    ['zero limits', makeSpec({ TaskTemplate: { Resources: { Limits: { MemoryBytes: 0 } } } })],
    ['default endpoint', { ...base, EndpointSpec: { Mode: 'vip', Ports: [] } }],
  ];
  for (const [name, spec] of same) it(name, () => assert.ok(sameServiceSpec(base, spec)));

  const different: [string, ServiceSpec][] = [
    ['no replicas', { ...base, Mode: { Replicated: { Replicas: 0 } } }],
    ['all at once', { ...base, UpdateConfig: { Parallelism: 0 } }],
    ['no restart delay', makeSpec({ TaskTemplate: { RestartPolicy: { Delay: 0 } } })],
    ['an empty label', makeSpec({ Labels: { a: '' } })],
    ['an explicit init', makeSpec({ TaskTemplate: { ContainerSpec: { Init: false } } })],
    ['another mode', { ...base, Mode: { Global: {} } }],
    ['an empty argument', makeSpec({ TaskTemplate: { ContainerSpec: { Args: [''] } } })],
  ];
  for (const [name, spec] of different) it(`not: ${name}`, () => assert.ok(!sameServiceSpec(base, spec)));
});
