/** Stacks, of either client, through the HTTP door. */
import assert from 'node:assert/strict';
import { newMeta } from '../../../manager/store/change.ts';
import { stackLabel } from '../../../proto/docker.ts';
import { newId, type StackId } from '../../../proto/ids.ts';
import { TestApi } from './host.ts';

const Labels = { [stackLabel]: 'shop' };

describe('api: stacks', () => {
  let api: TestApi;
  beforeEach(async () => {
    api = await TestApi.start();
    const Data = Buffer.from('x').toString('base64');
    const secret = (await api.post('/secrets/create', { Name: 'shop_key', Data, Labels })).json.ID as string;
    await api.post('/networks/create', { Name: 'shop_back', Driver: 'overlay', Labels });
    const Secrets = [{ File: { Name: 'k' }, SecretID: secret, SecretName: 'shop_key' }];
    const TaskTemplate = { ContainerSpec: { Image: 'a', Secrets }, Networks: [{ Target: 'shop_back' }] };
    assert.equal(
      (await api.post('/services/create', { Name: 'shop_web', Labels, TaskTemplate })).status,
      201,
    );
  });
  afterEach(() => api.close());

  it('shows one that the docker CLI deployed, by its labels', async () => {
    const [shop] = (await api.get('/v1.47/stacks')).json;
    assert.deepEqual(shop, {
      Name: 'shop',
      Orchestrator: 'Swarm',
      Services: 1,
      Networks: 1,
      Secrets: 1,
      Configs: 0,
    });
    const shown = (await api.get('/stacks/shop')).json;
    assert.equal(shown.Services[0].Name, 'shop_web');
    assert.equal(shown.Source, undefined);
    assert.deepEqual((await api.get('/stacks/nosuch')).json, { message: 'stack nosuch not found' });
  });

  it('shows one of ours with its source', async () => {
    const ID = newId<StackId>(api.host.random);
    const object = {
      ...newMeta(ID),
      Spec: { Name: 'shop', Labels: {} },
      Source: 'services: {}',
      History: [],
    };
    api.host.apply([{ op: 'create', kind: 'stack', object }]);
    assert.equal((await api.get('/stacks')).json.length, 1);
    const shown = (await api.get('/stacks/shop')).json;
    assert.deepEqual([shown.ID, shown.Source, shown.History], [ID, 'services: {}', []]);
  });

  it('removes one whole, in one entry', async () => {
    let entries = 0;
    api.host.store.onCommit(() => entries++);
    assert.equal((await api.delete('/stacks/shop')).status, 200);
    assert.equal(entries, 1);
    assert.deepEqual((await api.get('/stacks')).json, []);
    for (const kind of ['service', 'network', 'secret'] as const) assert.equal(api.host.store.count(kind), 0);
    assert.equal((await api.delete('/stacks/shop')).status, 404);
  });

  it('keeps one of which another service uses a part', async () => {
    const { Id } = (await api.get('/networks/shop_back')).json;
    const TaskTemplate = { ContainerSpec: { Image: 'a' }, Networks: [{ Target: Id }] };
    await api.post('/services/create', { Name: 'guest', TaskTemplate });
    const refused = await api.delete('/stacks/shop');
    assert.equal(refused.status, 400);
    assert.match(refused.json.message, new RegExp(`network ${Id} is in use by service`));
    assert.equal(api.host.store.count('service'), 2);
  });
});
