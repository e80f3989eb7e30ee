import assert from 'node:assert/strict';
import { type ImportedObjects, type ImportOptions, planImport } from '../../../manager/stack/import.ts';
import { Store } from '../../../manager/store/store.ts';
import { type ServiceSpec, stackLabel } from '../../../proto/docker.ts';
import { ShoalError } from '../../../proto/errors.ts';
import { type NewId, newId } from '../../../proto/ids.ts';
import { seededRandom } from '../../simulation/random.ts';
import { makeNode, makeSpec } from '../orchestrator/objects.ts';

const random = seededRandom(4);
const ids: NewId = () => newId(random);
const labels = { [stackLabel]: 'app' };
const accept = () => {};
const options: ImportOptions = {
  now: 0,
  newId: ids,
  origin: 'the Docker Swarm c1',
  check: { service: accept, network: accept, secret: accept, config: accept },
};

function webSpec(secret: string): ServiceSpec {
  const spec = makeSpec({ Name: 'app_web', Labels: labels });
  const File = { Name: 'x', UID: '0', GID: '0', Mode: 0o444 };
  const container = {
    ...spec.TaskTemplate.ContainerSpec,
    Secrets: [{ SecretID: 'other' as never, SecretName: secret, File }],
    Configs: [{ ConfigID: 'other' as never, ConfigName: 'app_conf', File }],
  };
  const Networks = [{ Target: 'app_front' }, { Target: 'host' }];
  return { ...spec, TaskTemplate: { ...spec.TaskTemplate, ContainerSpec: container, Networks } };
}
const objects: ImportedObjects = {
  networks: [{ Name: 'app_front', Labels: labels, DriverConfiguration: { Name: 'overlay' } }],
  configs: [{ Name: 'app_conf', Labels: labels, Data: 'YQ==' }],
  secrets: [{ Name: 'app_key', Labels: {}, Data: 'YQ==' }],
  services: [webSpec('app_key')],
  nodeLabels: { h1: { disk: 'ssd', zone: 'b' }, h9: { disk: 'ssd' } },
};

describe('import: what becomes of the objects of another cluster', () => {
  let store: Store;
  beforeEach(() => {
    store = new Store();
    const object = makeNode('n1', { Spec: { Labels: { zone: 'a' } }, Description: { Hostname: 'h1' } });
    store.applyEntry(1, { now: 0, changes: [{ op: 'create', kind: 'node', object }] });
  });

  it('all is made in one entry, references by the ids of here; stacks of the namespaces, labels of the nodes', () => {
    const { changes, summary } = planImport(store, objects, options);
    assert.deepEqual(store.applyEntry(2, { now: 0, changes }), { ok: true });
    assert.deepEqual(
      summary.created.map(({ name }) => name),
      ['app_front', 'app_conf', 'app_key', 'app_web'],
    );
    assert.deepEqual([summary.stacks, summary.labelled, summary.absent], [['app'], ['h1'], ['h9']]);
    const { ContainerSpec, Networks } = store.list('service')[0]!.Spec.TaskTemplate;
    assert.equal(ContainerSpec.Secrets![0]!.SecretID, store.list('secret')[0]!.ID);
    assert.equal(ContainerSpec.Configs![0]!.ConfigID, store.list('config')[0]!.ID);
    assert.deepEqual(
      Networks!.map(({ Target }) => Target),
      [store.list('network')[0]!.ID, 'host'],
    );
    assert.deepEqual(store.list('node')[0]!.Spec.Labels, { disk: 'ssd', zone: 'a' }, 'what was there stays');
    assert.equal(store.list('stack')[0]!.Spec.Name, 'app');
  });

  it('a second time changes nothing', () => {
    store.applyEntry(2, { now: 0, changes: planImport(store, objects, options).changes });
    const { changes, summary } = planImport(store, objects, options);
    assert.deepEqual([changes, summary.created, summary.existing.length], [[], [], 4]);
  });

  it('what can’t be taken is told, and what needs it; the rest is taken', () => {
    const refuse = () => {
      throw new ShoalError('not-supported', 'not for us');
    };
    const check = { ...options.check, config: refuse };
    const both = { ...objects, services: [webSpec('elsewhere'), makeSpec({ Name: 'plain' })] };
    const { changes, summary } = planImport(store, both, { ...options, check });
    assert.deepEqual(
      summary.refused.map(({ name, reason }) => `${name}: ${reason}`),
      ['app_conf: not for us', 'app_web: it needs secret elsewhere, which is not here'],
    );
    assert.deepEqual(store.applyEntry(2, { now: 0, changes }), { ok: true });
    assert.deepEqual(
      store.list('service').map(({ Spec }) => Spec.Name),
      ['plain'],
    );
  });
});
