/** What clients send that is no spec by the book, taken as Docker takes it, and told where it has no effect. */
import assert from 'node:assert/strict';
import { asId, type ServiceId } from '../../../proto/ids.ts';
import { TestApi } from './host.ts';

const web = {
  Name: 'web',
  TaskTemplate: { ContainerSpec: { Image: 'nginx:1.27' } },
  Mode: { Replicated: { Replicas: 2 } },
};

function withTemplate(fields: object): object {
  return { ...web, TaskTemplate: { ...web.TaskTemplate, ...fields } };
}

describe('api: services as clients send them', () => {
  let api: TestApi;
  beforeEach(async () => {
    api = await TestApi.start();
  });
  afterEach(() => api.close());
  const createOf = async (spec: unknown): Promise<string> => {
    const answer = await api.post('/services/create', spec);
    assert.equal(answer.status, 201, answer.text);
    return answer.json.ID;
  };
  const inspect = async (id: string) => (await api.get(`/services/${id}`)).json;

  it('knows fields in any case, as Docker does, and leaves the keys of maps alone', async () => {
    await createOf({ name: 'web', LABELS: { Name: 'x' }, mode: { replicated: { REPLICAS: 3 } }, ...web });
    const { Spec } = await inspect('web');
    assert.deepEqual([Spec.Labels, Spec.Mode], [{ Name: 'x' }, { Replicated: { Replicas: 2 } }]);
    const typo = await api.post('/services/create', { ...web, Name: 'b', mode: { repliccated: {} } });
    assert.match(typo.json.message, /unknown field ServiceSpec\.Mode\.repliccated/);
  });

  it('warns of a field that Docker dropped, and takes the version in an update’s body', async () => {
    const EndpointSpec = { ExposedPorts: [{ Protocol: 'tcp', Port: 6379 }] };
    const created = await api.post('/services/create', { ...web, EndpointSpec });
    assert.match(created.json.Warnings[0], /ExposedPorts has no effect/);
    const { Version } = await inspect('web');
    const update = (version: number) =>
      api.post(`/services/web/update?version=${Version.Index}`, { ...web, EndpointSpec, version });
    assert.match((await update(Version.Index + 1)).json.message, /unknown field ServiceSpec\.version/);
    const updated = await update(Version.Index);
    assert.match(updated.json.Warnings[0], /ExposedPorts has no effect/);
  });

  it('takes mounts that the engine will refuse, as Docker does, and warns', async () => {
    const Mounts = [
      { Type: 'volume', Target: 'data' },
      { Type: 'bind', Source: 'here', Target: '/x' },
    ];
    const created = await api.post(
      '/services/create',
      withTemplate({ ContainerSpec: { Image: 'a', Mounts } }),
    );
    assert.equal(created.status, 201);
    assert.match(created.json.Warnings[0], /rejected.*mount path must be absolute: "data"/);
    assert.match(created.json.Warnings[1], /rejected.*source must be an absolute path: "here"/);
  });

  it('takes a reservation of one named resource, as Docker does, for one of its kind', async () => {
    const GenericResources = [{ NamedResourceSpec: { Kind: 'gpu', Value: 'left' } }];
    const created = await api.post(
      '/services/create',
      withTemplate({ Resources: { Reservations: { GenericResources } } }),
    );
    assert.match(created.json.Warnings[0], /amount of gpu: any one is reserved, be it left or not/);
    assert.deepEqual((await inspect('web')).Spec.TaskTemplate.Resources, {
      Reservations: { GenericResources },
    });
  });

  it('keeps networks where the client named them, and the tasks join them', async () => {
    const create = (Name: string) => api.post('/networks/create', { Name, Driver: 'overlay' });
    const [one, two] = [(await create('one')).json.Id, (await create('two')).json.Id];
    const id = await createOf({ ...web, Networks: [{ Target: 'one' }] });
    const { Spec, Version } = await inspect('web');
    assert.deepEqual([Spec.Networks, Spec.TaskTemplate.Networks], [[{ Target: one }], undefined]);
    const joined = () => api.host.store.get('service', asId<ServiceId>(id))!.Spec.TaskTemplate.Networks;
    assert.deepEqual(joined(), [{ Target: one }]);
    const changed = { ...Spec, Networks: [{ Target: 'two' }] };
    assert.equal((await api.post(`/services/web/update?version=${Version.Index}`, changed)).status, 200);
    assert.deepEqual(joined(), [{ Target: two }]);
  });
});
