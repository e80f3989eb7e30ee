/** Who changed services and stacks, when and what; and the ways back. */
import assert from 'node:assert/strict';
import { stackLabel } from '../../../proto/docker.ts';
import { TestApi } from './host.ts';

interface Entry {
  Number: number;
  By: string;
  What: string;
  IsKept: boolean;
}

describe('api: histories', () => {
  let api: TestApi;
  beforeEach(async () => {
    api = await TestApi.start();
  });
  afterEach(() => api.close());

  const spec = (Image: string, more: object = {}) => ({
    Name: 'web',
    TaskTemplate: { ContainerSpec: { Image, PullOptions: undefined } },
    ...more,
  });
  const update = async (body: object, headers: Record<string, string> = {}) => {
    const { Version } = (await api.get('/services/web')).json;
    const path = `/services/web/update?version=${Version.Index}`;
    const answer = await api.send('POST', path, JSON.stringify(body), {
      'content-type': 'application/json',
      ...headers,
    });
    assert.equal(answer.status, 200, answer.text);
  };
  const back = async (to: string) => {
    const { Version } = (await api.get('/services/web')).json;
    return api.post(`/services/web/rollback?version=${Version.Index}&to=${to}`, {});
  };
  const history = async (path: string): Promise<Entry[]> => (await api.get(`${path}/history`)).json;

  it('of a service say who and what, and any kept revision is gone back to', async () => {
    await api.post('/services/create', spec('web:1'));
    await update(spec('web:2', { Mode: { Replicated: { Replicas: 3 } } }));
    await update(spec('web:3'));
    const entries = await history('/services/web');
    assert.deepEqual(
      entries.map((one) => [one.Number, one.What, one.IsKept]),
      [
        [3, 'ContainerSpec.Image: web:2 → web:3; Mode.Replicas: 3 → 1', true],
        [2, 'ContainerSpec.Image: web:1 → web:2; Mode.Replicas: 1 → 3', true],
        [1, 'created', true],
      ],
    );
    assert.ok(entries.every(({ By }) => By === 'local socket of node m1'));
    assert.equal((await back('1')).status, 200);
    const now = (await api.get('/services/web')).json;
    assert.equal(now.Spec.TaskTemplate.ContainerSpec.Image, 'web:1');
    assert.equal(now.UpdateStatus.State, 'rollback_started');
    const [last] = await history('/services/web');
    assert.deepEqual([last!.Number, last!.What], [1, 'rollback to 1: ContainerSpec.Image: web:3 → web:1']);
    const refused = await back('9');
    assert.deepEqual(
      [refused.status, refused.json.message],
      [404, 'service web has no revision 9: kept are 1, 2, 3'],
    );
    assert.equal((await back('x')).status, 400);
    assert.equal('History' in now, false);
  });

  it('do not hold credentials', async () => {
    await api.post('/services/create', spec('web:1'));
    await update(spec('web:1'), { 'X-Registry-Auth': Buffer.from('{"password":"hush"}').toString('base64') });
    assert.equal(JSON.stringify(await history('/services/web')).includes('aHVzaC'), false);
    const [last] = await history('/services/web');
    assert.equal(last!.What, 'new registry credentials');
  });

  const own = { [stackLabel]: 'app' };
  const service = (name: string, Image: string) => ({
    Name: `app_${name}`,
    Labels: own,
    TaskTemplate: { ContainerSpec: { Image } },
  });
  const deploy = async (Source: string, ...Services: object[]) => {
    const answer = await api.put('/stacks/app', { Source, Prune: true, Compiled: { Services } });
    assert.equal(answer.status, 200, answer.text);
  };

  it('of a stack name each deployment; one is made so again, whole, with what was removed since', async () => {
    await deploy('one', service('web', 'web:1'), service('old', 'old:1'));
    await deploy('two', service('web', 'web:2'), service('new', 'new:1'));
    const entries = await history('/stacks/app');
    assert.deepEqual(
      entries.map((one) => [one.Number, one.What, one.IsKept]),
      [
        [2, 'created app_new; updated app_web; removed app_old', true],
        [1, 'created app_web, app_old', true],
      ],
    );
    const answer = await api.post('/stacks/app/rollback?to=1', {});
    assert.equal(answer.status, 200, answer.text);
    const images = (await api.get('/services')).json.map(
      (one: { Spec: { Name: string; TaskTemplate: { ContainerSpec: { Image: string } } } }) =>
        `${one.Spec.Name} ${one.Spec.TaskTemplate.ContainerSpec.Image}`,
    );
    assert.deepEqual(images.sort(), ['app_old old:1', 'app_web web:1']);
    const [last] = await history('/stacks/app');
    assert.deepEqual([last!.Number, last!.What], [3, 'stack rollback to 1']);
    assert.equal((await api.get('/stacks/app')).json.Source, 'one');
    const refused = await api.post('/stacks/app/rollback?to=7', {});
    assert.deepEqual(
      [refused.status, refused.json.message],
      [404, 'stack app has no deployment 7: kept are 3, 2, 1'],
    );
    const again = await api.post('/stacks/app/rollback?to=3', {});
    assert.deepEqual([again.json.Updated, again.json.Unchanged.length], [[], 2]);
    assert.equal((await history('/stacks/app')).length, 3);
  });

  it('of a stack that the docker CLI deployed is what its services remember, changes that came together as one', async () => {
    const labels = { 'com.docker.stack.namespace': 'old' };
    const spec = (name: string, image: string) => ({
      Name: `old_${name}`,
      Labels: labels,
      TaskTemplate: { ContainerSpec: { Image: image } },
    });
    await api.post('/services/create', spec('web', 'a'));
    api.host.clock.advance(2_000);
    await api.post('/services/create', spec('db', 'b'));
    api.host.clock.advance(60_000);
    const version = (await api.get('/services/old_web')).json.Version.Index;
    await api.post(`/services/old_web/update?version=${version}`, spec('web', 'c'));
    const { json } = await api.get('/stacks/old/history');
    assert.deepEqual(
      json.map((one: { Number: number; What: string }) => [one.Number, one.What]),
      [
        [0, 'old_web: ContainerSpec.Image: a → c'],
        [0, 'old_web: created; old_db: created'],
      ],
    );
    const refused = await api.post('/stacks/old/rollback?to=1');
    assert.deepEqual([refused.status, /was not deployed by shoal/.test(refused.json.message)], [404, true]);
    assert.equal((await api.get('/stacks/none/history')).status, 404);
  });
});
