import assert from 'node:assert/strict';
import { understoodInit, understoodService } from '../../../manager/api/versions.ts';
import { TestApi } from './host.ts';

const ContainerSpec = {
  Image: 'a',
  Sysctls: { 'net.core.somaxconn': '1' },
  Configs: [{ ConfigName: 'c', Runtime: {} }, { ConfigName: 'd' }],
  CapabilityAdd: ['CAP_NET_RAW'],
  Privileges: { NoNewPrivileges: true, CredentialSpec: { File: 'f', Config: 'c' } },
  Healthcheck: { Test: ['CMD'], StartInterval: 1 },
  OomScoreAdj: 5,
  Mounts: [{ Type: 'tmpfs', Target: '/t', TmpfsOptions: { SizeBytes: 1, Options: [['noexec']] } }],
};

const spec = {
  Name: 'web',
  TaskTemplate: {
    ContainerSpec,
    Placement: { MaxReplicas: 2 },
    Resources: { Limits: { Pids: 7, NanoCPUs: 1 } },
  },
  mode: { ReplicatedJob: {} },
};

describe('api: the version in the path', () => {
  it('takes a whole spec as it is from the version on that has all of it', () => {
    assert.deepEqual(understoodService(spec, 46), { body: spec, ignored: [] });
    assert.equal(understoodService(spec, 46).body, spec);
    assert.equal(understoodService('nonsense', 25).body, 'nonsense');
  });

  const cases: [number, string[]][] = [
    [45, ['OomScoreAdj', 'Mounts.*.TmpfsOptions.Options']],
    [43, ['NoNewPrivileges', 'StartInterval', 'OomScoreAdj', 'Options']],
    [
      40,
      [
        'CapabilityAdd',
        'Pids',
        'ReplicatedJob',
        'NoNewPrivileges',
        'StartInterval',
        'OomScoreAdj',
        'Options',
      ],
    ],
    [
      39,
      [
        'Sysctls',
        'CredentialSpec.Config',
        'Configs.*.Runtime',
        'MaxReplicas',
        'CapabilityAdd',
        'Pids',
        'ReplicatedJob',
        'NoNewPrivileges',
        'StartInterval',
        'OomScoreAdj',
        'Options',
      ],
    ],
  ];
  for (const [minor, fields] of cases) {
    it(`tells which fields API 1.${minor} does not have`, () => {
      const { body, ignored } = understoodService(spec, minor);
      assert.deepEqual(
        ignored
          .map((text) => text.replace(/ is ignored.*/, ''))
          .map((path, index) => path.endsWith(fields[index]!)),
        fields.map(() => true),
        ignored.join('\n'),
      );
      const again = understoodService(body, minor);
      assert.deepEqual([again.body, again.ignored], [body, []]);
    });
  }

  it('leaves what is beside an ignored field', () => {
    const { body } = understoodService(spec, 39) as { body: typeof spec };
    assert.deepEqual(body.TaskTemplate.Resources.Limits, { NanoCPUs: 1 });
    assert.deepEqual(body.TaskTemplate.ContainerSpec.Configs, [{ ConfigName: 'c' }, { ConfigName: 'd' }]);
    assert.deepEqual(body.mode, {});
    const init = understoodInit({ DefaultAddrPool: ['10.0.0.0/8'], SubnetSize: 24, DataPathPort: 5000 }, 39);
    assert.deepEqual(init.body, { DefaultAddrPool: ['10.0.0.0/8'], SubnetSize: 24 });
    assert.equal(understoodInit({ SubnetSize: 24 }, 38).ignored.length, 1);
  });

  it('is heard by the routes: a warning to a service, a refusal to a template', async () => {
    const api = await TestApi.start();
    try {
      const web = { Name: 'web', TaskTemplate: { ContainerSpec: { Image: 'a', Sysctls: { a: 'b' } } } };
      const created = await api.post('/v1.39/services/create', web);
      assert.match(created.json.Warnings[0], /Sysctls is ignored: it came with API 1\.40/);
      const stored = (await api.get('/services/web')).json;
      assert.equal(stored.Spec.TaskTemplate.ContainerSpec.Sysctls, undefined);
      const updated = await api.post(`/v1.41/services/web/update?version=${stored.Version.Index}`, web);
      assert.equal(updated.json.Warnings, null);
      const Templating = { Name: 'golang' };
      const config = { Name: 'c', Data: 'eA==', Templating };
      const refused = await api.post('/v1.36/configs/create', config);
      assert.deepEqual(
        [refused.status, refused.json.message],
        [400, 'config templating is not supported on the specified API version: 1.36'],
      );
      assert.equal((await api.post('/v1.37/configs/create', config)).status, 201);
      assert.equal((await api.post('/v1.36/secrets/create', { ...config, Name: 's' })).status, 400);
    } finally {
      await api.close();
    }
  });
});
