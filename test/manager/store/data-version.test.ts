import assert from 'node:assert/strict';
import type { Change } from '../../../manager/store/change.ts';
import { newMeta } from '../../../manager/store/change.ts';
import { earlierRemovals, newVersion, previousVersion } from '../../../manager/store/data-version.ts';
import { dirtyTest } from '../../../manager/store/revision.ts';
import { createServiceChanges, updateServiceChanges } from '../../../manager/store/service-change.ts';
import { Store } from '../../../manager/store/store.ts';
import { engineIdLabel, type ServiceSpec } from '../../../proto/docker.ts';
import type { ConfigId, Id, NewId, NodeId, ServiceId, TaskId } from '../../../proto/ids.ts';
import { newId } from '../../../proto/ids.ts';
import { seededRandom } from '../../simulation/random.ts';
import { makeNode, makeSpec, makeTask } from '../orchestrator/objects.ts';

const now = Date.UTC(2026, 0, 1);

function setUp() {
  const random = seededRandom(7);
  const ids: NewId = <I extends Id<string>>() => newId<I>(random);
  const store = new Store();
  let index = 0;
  const apply = (changes: readonly Change[]) => {
    const result = store.applyEntry(++index, { now, changes });
    assert.ok(result.ok, result.ok ? '' : result.message);
  };
  const Spec = { Name: 'conf', Labels: {}, Data: 'b25l' };
  apply([
    { op: 'create', kind: 'config', object: { ...newMeta('c1' as ConfigId), Spec } },
    {
      op: 'create',
      kind: 'node',
      object: makeNode('ours', { Description: { Engine: { Labels: { [engineIdLabel]: 'e' } } } }),
    },
    { op: 'create', kind: 'node', object: makeNode('stock') },
  ]);
  const config = (name = 'conf') => store.find('config', 'name', name)[0]!;
  const service = (name: string) => store.find('service', 'name', name)[0]!;
  const add = (
    name: string,
    rotate?: string,
    Mode: ServiceSpec['Mode'] = { Replicated: { Replicas: 1 } },
  ) => {
    const spec = makeSpec({
      Name: name,
      Labels: rotate === undefined ? {} : { 'shoal.rotate': rotate },
      TaskTemplate: {
        ContainerSpec: { Image: 'web:1', Configs: [{ ConfigID: config().ID, ConfigName: 'conf' }] },
      },
    });
    apply(createServiceChanges({ ...spec, Mode }, now, ids).changes);
    return service(name).ID;
  };
  const run = (id: string, ServiceID: ServiceId, NodeID: string) => {
    const { RevisionID } = store.get('service', ServiceID)!.Private;
    const object = makeTask(id, ServiceID, { RevisionID, NodeID: NodeID as NodeId });
    apply([{ op: 'create', kind: 'task', object }]);
  };
  const update = (Data: string) => {
    const rotation = newVersion(store, 'config', config(), Data, now, ids);
    apply(rotation.changes);
    return rotation;
  };
  const given = (name: string) => service(name).Spec.TaskTemplate.ContainerSpec.Configs![0]!.ConfigID;
  return { store, ids, apply, config, service, add, run, update, given };
}

describe('versions of configs and secrets', () => {
  it('a new version has the name, the one before is kept, older ones go', () => {
    const { store, config, update } = setUp();
    update('dHdv');
    update('dGhyZWU=');
    assert.equal(config().Spec.Data, 'dGhyZWU=');
    assert.deepEqual(
      store
        .list('config')
        .map(({ Spec }) => [Spec.Name, Spec.Data])
        .sort(),
      [
        ['conf', 'dGhyZWU='],
        ['conf@2', 'dHdv'],
      ],
    );
    assert.deepEqual(update('dGhyZWU=').changes, [], 'the same content is no new version');
  });

  it('services that restart get a new spec, whose rollback names the version before', () => {
    const { store, config, service, add, run, update, given } = setUp();
    run('t1', add('web'), 'ours');
    const { services } = update('dHdv');
    assert.deepEqual(
      services.map(({ rotation }) => rotation),
      ['restart'],
    );
    assert.equal(given('web'), config().ID);
    assert.equal(service('web').PreviousSpec?.TaskTemplate.ContainerSpec.Configs?.[0]?.ConfigID, 'c1');
    assert.ok(dirtyTest(store, service('web'))(store.get('task', 't1' as TaskId)!));
  });

  it('by signal, tasks of our agents go over as they are; those of stock engines are replaced', () => {
    const { store, service, add, run, update, given, config } = setUp();
    const id = add('web', 'signal:SIGHUP');
    run('t1', id, 'ours');
    run('t2', id, 'stock');
    assert.deepEqual(
      update('dHdv').services.map(({ rotation }) => rotation),
      ['signal'],
    );
    assert.equal(given('web'), config().ID);
    const isDirty = dirtyTest(store, service('web'));
    const task = (name: string) => store.get('task', name as TaskId)!;
    assert.deepEqual([isDirty(task('t1')), isDirty(task('t2'))], [false, true]);
    assert.equal(task('t1').RevisionID, service('web').Private.RevisionID);
  });

  it('none keeps the version, also through updates of the service, until it is given the newer one', () => {
    const { store, add, update, given, service, apply, ids } = setUp();
    add('web', 'none');
    for (const data of ['dHdv', 'dGhyZWU=', 'Zm91cg==']) {
      assert.deepEqual(
        update(data).services.map(({ rotation }) => rotation),
        data === 'dHdv' ? ['none'] : [],
      );
    }
    assert.equal(given('web'), 'c1');
    assert.equal(store.get('config', 'c1' as ConfigId)?.Spec.Data, 'b25l');
    const spec = { ...service('web').Spec, Labels: {} };
    apply(updateServiceChanges(store, service('web'), { spec }, now, ids).changes);
    assert.equal(given('web'), 'c1');
    assert.deepEqual(earlierRemovals(store, 'config', 'conf').length, 1, 'not the one in use');
  });

  it('a job is not run again for it', () => {
    const { add, update, given, service, config } = setUp();
    add('job', undefined, { ReplicatedJob: {} });
    const before = service('job').JobStatus;
    assert.deepEqual(
      update('dHdv').services.map(({ rotation }) => rotation),
      ['next-run'],
    );
    assert.deepEqual(service('job').JobStatus, before);
    assert.equal(given('job'), config().ID);
  });

  it('goes back to the version before, and forth again', () => {
    const { store, ids, apply, config, add, update, given } = setUp();
    add('web');
    assert.throws(
      () => previousVersion(store, 'config', config(), now, ids),
      /conf has no earlier version to go back to/,
    );
    update('dHdv');
    const back = () => apply(previousVersion(store, 'config', config(), now, ids).changes);
    back();
    assert.deepEqual([config().Spec.Data, given('web')], ['b25l', 'c1']);
    back();
    assert.equal(config().Spec.Data, 'dHdv');
    assert.equal(given('web'), config().ID);
    const earlier = store.list('config').find(({ Spec }) => Spec.Name !== 'conf')!;
    assert.throws(() => newVersion(store, 'config', earlier, 'eA==', now, ids), /is an earlier version of/);
  });
});

describe('credentials of a registry', () => {
  const withAuth = (spec: ServiceSpec, RegistryAuth: string): ServiceSpec => ({
    ...spec,
    TaskTemplate: {
      ...spec.TaskTemplate,
      ContainerSpec: { ...spec.TaskTemplate.ContainerSpec, PullOptions: { RegistryAuth } },
    },
  });

  it('alone change no task, no update under way and no rollback; the next task pulls with them', () => {
    const { store, ids, apply, add, run, service } = setUp();
    run('t1', add('web'), 'ours');
    const change = (spec: ServiceSpec) =>
      apply(updateServiceChanges(store, service('web'), { spec }, now, ids).changes);
    change(makeSpec({ Name: 'web', TaskTemplate: { ContainerSpec: { Image: 'web:2' } } }));
    const before = service('web');
    change(withAuth(before.Spec, 'fresh'));
    const after = service('web');
    assert.equal(after.Spec.TaskTemplate.ContainerSpec.PullOptions?.RegistryAuth, 'fresh');
    assert.deepEqual(after.PreviousSpec, before.PreviousSpec);
    assert.notEqual(after.Private.RevisionID, before.Private.RevisionID);
    run('t2', after.ID, 'ours');
    change(withAuth(after.Spec, 'fresher'));
    const isDirty = dirtyTest(store, service('web'));
    assert.equal(isDirty(store.get('task', 't2' as TaskId)!), false);
    assert.equal(isDirty(store.get('task', 't1' as TaskId)!), true, 'of the image before');
    change(withAuth({ ...service('web').Spec, Labels: { a: 'b' } }, 'freshest'));
    assert.notDeepEqual(service('web').PreviousSpec, before.PreviousSpec, 'another change is an update');
  });

  it('are those of now after a rollback, too, where they are for the same registry', () => {
    const { store, ids, apply, service } = setUp();
    const spec = (Image: string) => makeSpec({ Name: 'app', TaskTemplate: { ContainerSpec: { Image } } });
    apply(createServiceChanges(withAuth(spec('registry.test/app:1'), 'stale'), now, ids).changes);
    const update = (next: ServiceSpec) =>
      apply(updateServiceChanges(store, service('app'), { spec: next }, now, ids).changes);
    const back = () => {
      apply(updateServiceChanges(store, service('app'), { rollback: 'previous' }, now, ids).changes);
      const { Image, PullOptions } = service('app').Spec.TaskTemplate.ContainerSpec;
      return [Image, PullOptions?.RegistryAuth];
    };
    update(withAuth(spec('registry.test/app:2'), 'stale'));
    update(withAuth(spec('registry.test/app:2'), 'fresh'));
    assert.deepEqual(back(), ['registry.test/app:1', 'fresh']);
    update(withAuth(spec('elsewhere.test/app:3'), 'of elsewhere'));
    assert.deepEqual(back(), ['registry.test/app:1', 'stale'], 'as that revision was given them');
  });

  it('alone do not run a job again', () => {
    const { store, ids, apply, add, service } = setUp();
    add('job', undefined, { ReplicatedJob: {} });
    const { JobStatus, Spec } = service('job');
    const spec = withAuth(Spec, 'fresh');
    apply(updateServiceChanges(store, service('job'), { spec }, now, ids).changes);
    assert.deepEqual(service('job').JobStatus, JobStatus);
  });
});
