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
    assert.match(refused.json.message, /network shop_back is in use by guest, outside of stack shop/);
    assert.equal(api.host.store.count('service'), 2);
  });

  describe('deployed by our client', () => {
    const image = 'com.docker.stack.image';
    const web = (Image = 'nginx:1') => ({
      Name: 'blog_web',
      Labels: { [stackLabel]: 'blog', [image]: Image },
      TaskTemplate: {
        ContainerSpec: {
          Image,
          Secrets: [{ File: { Name: 'k' }, SecretName: 'blog_key' }],
          Configs: [{ File: { Name: 'c' }, ConfigName: 'blog_conf' }],
        },
        Networks: [{ Target: 'blog_back', Aliases: ['web'] }],
      },
    });
    const own = { [stackLabel]: 'blog' };
    const stack = (Services: unknown[], more: object = {}) => ({
      Source: 'services: …',
      Compiled: {
        Services,
        Networks: [{ Name: 'blog_back', Labels: own, DriverConfiguration: { Name: 'overlay' } }],
        Secrets: [{ Name: 'blog_key', Labels: own, Data: 'eA==' }],
        Configs: [{ Name: 'blog_conf', Labels: own, Data: 'eA==' }],
      },
      ...more,
    });

    it('comes whole in one entry, changes nothing when nothing differs, and keeps its history', async () => {
      let entries = 0;
      api.host.store.onCommit(() => entries++);
      const deployed = await api.put('/v1.47/stacks/blog', stack([web()]));
      assert.equal(deployed.status, 200, deployed.text);
      assert.deepEqual(
        deployed.json.Created.map((one: { Kind: string; Name: string }) => `${one.Kind} ${one.Name}`),
        ['network blog_back', 'secret blog_key', 'config blog_conf', 'service blog_web'],
      );
      assert.equal(entries, 1);
      const { Spec } = (await api.get('/services/blog_web')).json;
      const { Id } = (await api.get('/networks/blog_back')).json;
      assert.equal(Spec.TaskTemplate.Networks[0].Target, Id);
      const again = await api.put('/stacks/blog', stack([web()]));
      assert.deepEqual([again.json.Unchanged.length, again.json.Updated, entries], [4, [], 1]);
      const newer = await api.put('/stacks/blog', { ...stack([web('nginx:2')]), Source: 'newer' });
      assert.deepEqual(newer.json.Updated, [{ Kind: 'service', Name: 'blog_web' }]);
      const shown = (await api.get('/stacks/blog')).json;
      assert.deepEqual([shown.Source, shown.History.length], ['newer', 1]);
      assert.deepEqual((await api.delete('/stacks/blog')).json.Removed.length, 4);
    });

    it('prunes when asked', async () => {
      await api.put('/stacks/blog', stack([web(), { ...web(), Name: 'blog_old' }]));
      assert.deepEqual((await api.put('/stacks/blog', stack([web()]))).json.Removed, []);
      const pruned = await api.put('/stacks/blog', stack([web()], { Prune: true }));
      assert.deepEqual(pruned.json.Removed, [{ Kind: 'service', Name: 'blog_old' }]);
    });

    it('keeps registry credentials that a later deploy does not bring', async () => {
      const auth = { 'x-registry-auth': 'c2VjcmV0' };
      await api.send('PUT', '/stacks/blog', JSON.stringify(stack([web()])), auth);
      const again = await api.put('/stacks/blog', stack([web()]));
      assert.equal(again.json.Unchanged.length, 4);
      const service = api.host.store.find('service', 'name', 'blog_web')[0]!;
      assert.deepEqual(service.Spec.TaskTemplate.ContainerSpec.PullOptions, { RegistryAuth: 'c2VjcmV0' });
    });

    const published = { Ports: [{ TargetPort: 80, PublishedPort: 80 }] };
    const refused: [string, string, unknown, number, RegExp][] = [
      ['a bad name', '-x', stack([web()]), 400, /invalid stack name/],
      [
        'a foreign label',
        'other',
        stack([web()]),
        400,
        /Compiled\.Services\[0\]\.Labels: .* must be "other"/,
      ],
      [
        'an unknown field',
        'blog',
        stack([{ ...web(), Foo: 1 }]),
        400,
        /unknown field Compiled\.Services\[0\]\.Foo/,
      ],
      [
        'ports that names can’t have',
        'blog',
        stack([{ ...web(), EndpointSpec: { ...published, Mode: 'dnsrr' } }]),
        400,
        /ingress mode can't be used with dnsrr mode/,
      ],
      ['a bad spec, with its line', 'blog', stack([web('BAD IMAGE')]), 400, /not a valid repository\/tag/],
      ['a name that is taken', 'blog', stack([{ ...web(), Name: 'shop_web' }]), 409, /belongs to stack shop/],
      ['no source', 'blog', { Compiled: {} }, 400, /Stack\.Source/],
    ];
    for (const [title, name, body, status, message] of refused) {
      it(`is refused whole for ${title}`, async () => {
        let entries = 0;
        api.host.store.onCommit(() => entries++);
        const answer = await api.put(`/stacks/${name}`, body);
        assert.equal(answer.status, status, answer.text);
        assert.match(answer.json.message, message);
        assert.equal(entries, 0);
      });
    }

    it('tells the place of what is wrong when the client says it', async () => {
      const body = stack([web('BAD IMAGE')]);
      const Places = { 'service blog_web': 'compose.yml:3: services.web' };
      const answer = await api.put('/stacks/blog', { ...body, Compiled: { ...body.Compiled, Places } });
      assert.match(answer.json.message, /^compose\.yml:3: services\.web: /);
    });
  });
});
