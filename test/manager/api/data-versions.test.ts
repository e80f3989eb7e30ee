/** New versions of configs and secrets through the HTTP door. */
import assert from 'node:assert/strict';
import { TestApi } from './host.ts';

const base64 = (text: string): string => Buffer.from(text).toString('base64');

describe('api: versions of configs and secrets', () => {
  let api: TestApi;
  beforeEach(async () => {
    api = await TestApi.start();
  });
  afterEach(() => api.close());

  for (const kind of ['config', 'secret'] as const) {
    const create = async (): Promise<string> =>
      (await api.post(`/${kind}s/create`, { Name: 'conf', Data: base64('one') })).json.ID;
    const serve = async (id: string) => {
      const [Id, Name, List] =
        kind === 'config' ? ['ConfigID', 'ConfigName', 'Configs'] : ['SecretID', 'SecretName', 'Secrets'];
      const File = { Name: 'f', UID: '0', GID: '0', Mode: 0o444 };
      const answer = await api.post('/services/create', {
        Name: 'web',
        TaskTemplate: { ContainerSpec: { Image: 'web:1', [List!]: [{ [Id!]: id, [Name!]: 'conf', File }] } },
      });
      assert.equal(answer.status, 201, answer.text);
    };

    it(`gives a ${kind} a new version and its services with it, and takes it back`, async () => {
      const first = await create();
      await serve(first);
      const made = await api.post(`/${kind}s/conf/versions`, { Data: base64('two') });
      assert.equal(made.status, 200, made.text);
      assert.deepEqual(
        made.json.Services.map((one: { Name: string; Rotation: string }) => [one.Name, one.Rotation]),
        [['web', 'restart']],
      );
      assert.equal((await api.get(`/${kind}s/conf`)).json.ID, made.json.ID);
      assert.match((await api.get('/services/web')).text, new RegExp(made.json.ID));
      assert.doesNotMatch(made.text, new RegExp(base64('two')));
      assert.equal((await api.post(`/${kind}s/conf/rollback`, {})).json.ID, first);
      assert.equal((await api.get(`/${kind}s/conf`)).json.ID, first);
      assert.equal((await api.delete('/services/web')).status, 200);
      assert.equal((await api.delete(`/${kind}s/conf`)).status, 204);
      assert.deepEqual((await api.get(`/${kind}s`)).json, [], 'its earlier version goes with it');
    });

    it(`keeps each version of a ${kind} that a kept revision was given, for the way back to it`, async () => {
      const first = await create();
      await serve(first);
      for (const text of ['two', 'three', 'four']) {
        const made = await api.post(`/${kind}s/conf/versions`, { Data: base64(text) });
        assert.equal(made.status, 200, made.text);
      }
      const { Version } = (await api.get('/services/web')).json;
      const back = await api.post(`/services/web/rollback?version=${Version.Index}&to=1`, {});
      assert.equal(back.status, 200, back.text);
      assert.match((await api.get('/services/web')).text, new RegExp(`"${first}"`));
      const second = `/${kind}s/conf@2`;
      assert.equal((await api.delete(second)).status, 204, 'one that no service has now may be taken away');
      const next = (await api.get('/services/web')).json.Version.Index;
      const gone = await api.post(`/services/web/rollback?version=${next}&to=2`, {});
      assert.match(gone.json.message, new RegExp(`${kind} not found: conf`));
      assert.equal((await api.delete('/services/web')).status, 200);
      assert.equal((await api.delete(`/${kind}s/conf`)).status, 204);
      assert.deepEqual((await api.get(`/${kind}s`)).json, []);
    });

    it(`refuses what is no content of a ${kind}, and Docker's own update still takes labels only`, async () => {
      const id = await create();
      const refused = async (body: unknown, path = `/${kind}s/conf/versions`) => {
        const answer = await api.post(path, body);
        assert.equal(answer.status, 400, answer.text);
        return answer.json.message as string;
      };
      assert.match(await refused({}), /Data: base64 of what the (config|secret) is to hold is needed/);
      assert.match(await refused({ Data: '!' }), /is not base64/);
      assert.match(await refused({ Data: base64('x'), Name: 'y' }), /^Name: /);
      assert.equal((await api.post(`/${kind}s/nobody/versions`, { Data: base64('x') })).status, 404);
      const { Version } = (await api.get(`/${kind}s/${id}`)).json;
      const body = { Name: 'conf', Data: base64('other') };
      const path = `/${kind}s/${id}/update?version=${Version.Index}`;
      assert.match(await refused(body, path), /only updates to Labels are allowed/);
    });
  }
});
