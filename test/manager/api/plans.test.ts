/** What a deploy or an update would do, told without doing it; and deploys that do only what was shown. */
import assert from 'node:assert/strict';
import { stackLabel } from '../../../proto/docker.ts';
import type { NodeId } from '../../../proto/ids.ts';
import { TestApi, testNode } from './host.ts';

const own = { [stackLabel]: 'app' };
const service = (name: string, Image: string, more: object = {}) => ({
  Name: `app_${name}`,
  Labels: own,
  TaskTemplate: { ContainerSpec: { Image } },
  Mode: { Replicated: { Replicas: 2 } },
  ...more,
});
const body = (...Services: object[]) => ({ Source: 's', Compiled: { Services } });

describe('api: plans', () => {
  let api: TestApi;
  beforeEach(async () => {
    api = await TestApi.start();
    const object = testNode('n2' as NodeId, 'm2', 'worker');
    api.host.apply([{ op: 'create', kind: 'node', object }]);
  });
  afterEach(() => api.close());

  const plan = async (...services: object[]) => {
    const answer = await api.post('/stacks/app/plan', body(...services));
    assert.equal(answer.status, 200, answer.text);
    return answer.json;
  };
  const task = (id: string, Slot: number, NodeID: string) => {
    const { ID, Private } = api.host.store.find('service', 'name', 'app_web')[0]!;
    const Status = { Timestamp: '', State: 'running' as const, Message: 'started' };
    const object = {
      ID: id as never,
      Version: { Index: 0 },
      CreatedAt: '',
      UpdatedAt: '',
      ServiceID: ID,
      RevisionID: Private.RevisionID,
      Slot,
      NodeID: NodeID as NodeId,
      Labels: {},
      Status,
      DesiredState: 'running' as const,
      Private: {},
    };
    api.host.apply([{ op: 'create', kind: 'task', object }]);
  };

  it('say where tasks would be placed, or why nowhere, and change nothing', async () => {
    const before = api.host.store.index;
    const picky = {
      TaskTemplate: { ContainerSpec: { Image: 'x' }, Placement: { Constraints: ['node.labels.a==b'] } },
    };
    const shown = await plan(service('web', 'web:1'), service('db', 'db:1', picky));
    const [web, db] = shown.Services;
    assert.deepEqual(
      web.Started.map((one: { Task: string; Node: string }) => `${one.Task} ${one.Node}`).sort(),
      ['app_web.1 m1', 'app_web.2 m2'],
    );
    assert.match(db.Started[0].Reason, /no suitable node .*node\.labels\.a==b/);
    assert.equal(api.host.store.index, before);
    assert.equal(api.host.store.count('service'), 0);
    const again = await plan(service('web', 'web:1'), service('db', 'db:1', picky));
    assert.equal(again.Version, shown.Version, 'the same plan has the same version');
  });

  it('tell restarts from what is left alone; the same file restarts nothing', async () => {
    await api.put('/stacks/app', body(service('web', 'web:1')));
    task('t1', 1, api.host.nodeId);
    task('t2', 2, 'n2');
    const same = await plan(service('web', 'web:1'));
    assert.deepEqual([same.Services, same.Unchanged], [[], [{ Kind: 'service', Name: 'app_web' }]]);
    const labelled = await plan(service('web', 'web:1', { Labels: { ...own, team: 'x' } }));
    const [kept] = labelled.Services;
    assert.deepEqual(
      [kept.Replaced, kept.Untouched, kept.Differences],
      [[], 2, ['Labels.team: (not set) → x']],
    );
    const [newer] = (await plan(service('web', 'web:2'))).Services;
    assert.deepEqual(newer.Differences, ['ContainerSpec.Image: web:1 → web:2']);
    assert.deepEqual(
      newer.Replaced.map((one: { Task: string; From: string; Node: string }) => [
        one.Task,
        one.From,
        one.Node !== '',
      ]),
      [
        ['app_web.1', 'm1', true],
        ['app_web.2', 'm2', true],
      ],
    );
    assert.equal(newer.Untouched, 0);
    const [fewer] = (await plan(service('web', 'web:1', { Mode: { Replicated: { Replicas: 1 } } }))).Services;
    assert.deepEqual([fewer.Stopped, fewer.Untouched, fewer.Replaced], [1, 1, []]);
    const [more] = (await plan(service('web', 'web:1', { Mode: { Replicated: { Replicas: 3 } } }))).Services;
    assert.deepEqual([more.Untouched, more.Started.length], [2, 1]);
  });

  it('keep slots that are bound to their volumes where these are', async () => {
    const Labels = { ...own, 'shoal.volume.sticky': 'true' };
    await api.put('/stacks/app', body(service('web', 'web:1', { Labels })));
    task('t1', 1, 'n2');
    task('t2', 2, 'n2');
    const [newer] = (await plan(service('web', 'web:2', { Labels }))).Services;
    const places = newer.Replaced.map(({ From, Node }: { From: string; Node: string }) => [From, Node]);
    assert.deepEqual(places, [
      ['m2', 'm2'],
      ['m2', 'm2'],
    ]);
  });

  it('refuse what a deploy would refuse', async () => {
    const EndpointSpec = { Ports: [{ TargetPort: 80, PublishedPort: 8080, PublishMode: 'host' }] };
    const taken = { Ports: [{ TargetPort: 80, PublishedPort: 8080, PublishMode: 'ingress' }] };
    await api.post('/services/create', { ...service('x', 'x'), Name: 'x', Labels: {}, EndpointSpec });
    const answer = await api.post('/stacks/app/plan', body(service('web', 'w', { EndpointSpec: taken })));
    assert.equal(answer.status, 400);
    assert.match(answer.json.message, /8080/);
  });

  it('a deploy with a version does what was shown or nothing', async () => {
    const shown = await plan(service('web', 'web:1'));
    const deploy = (version: string, ...services: object[]) =>
      api.put(`/stacks/app?planVersion=${version}`, body(...services));
    const other = await deploy(shown.Version, service('web', 'web:2'));
    assert.equal(other.status, 400);
    assert.match(other.json.message, /plan [0-9a-f]{16} is out of date/);
    assert.equal((await deploy(shown.Version, service('web', 'web:1'))).status, 200);
    const next = await plan(service('web', 'web:2'));
    const { Version, Spec } = (await api.get('/services/app_web')).json;
    await api.post(`/services/app_web/update?version=${Version.Index}`, {
      ...Spec,
      Mode: { Replicated: { Replicas: 4 } },
    });
    assert.equal((await deploy(next.Version, service('web', 'web:2'))).status, 400);
    assert.equal((await api.get('/services/app_web')).json.Spec.TaskTemplate.ContainerSpec.Image, 'web:1');
  });

  it('another content of a config is told as a new version, and its plan has the same version each time', async () => {
    const given = (text: string) => {
      const File = { Name: '/conf', UID: '0', GID: '0', Mode: 0o444 };
      const Configs = [{ ConfigName: 'app_conf', ConfigID: '', File }];
      const TaskTemplate = { ContainerSpec: { Image: 'web:1', Configs } };
      const conf = { Name: 'app_conf', Labels: own, Data: Buffer.from(text).toString('base64') };
      return {
        Source: 's',
        Compiled: { Services: [service('web', 'web:1', { TaskTemplate })], Configs: [conf] },
      };
    };
    assert.equal((await api.put('/stacks/app', given('one'))).status, 200);
    task('t1', 1, 'n2');
    const shown = (await api.post('/stacks/app/plan', given('two'))).json;
    assert.deepEqual(
      shown.Updated.map((one: { Kind: string }) => one.Kind),
      ['config', 'service'],
    );
    assert.match(shown.Services[0].Differences[0], /^ContainerSpec\.Configs: .*"ConfigID":"a new version"/);
    assert.equal(shown.Services[0].Replaced.length, 1);
    assert.equal((await api.post('/stacks/app/plan', given('two'))).json.Version, shown.Version);
    const third = await api.put(`/stacks/app?planVersion=${shown.Version}`, given('three'));
    assert.match(third.json.message, /is out of date/, 'what was shown was another content');
    assert.equal((await api.put(`/stacks/app?planVersion=${shown.Version}`, given('two'))).status, 200);
    assert.equal((await api.get('/configs/app_conf')).json.Spec.Data, Buffer.from('two').toString('base64'));
  });

  it('an update of a service is told as well', async () => {
    await api.put('/stacks/app', body(service('web', 'web:1')));
    task('t1', 1, 'n2');
    const { Version } = (await api.get('/services/app_web')).json;
    const path = `/services/app_web/plan?version=${Version.Index}`;
    const answer = await api.post(path, service('web', 'web:9'));
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual(answer.json.Services[0].Differences, ['ContainerSpec.Image: web:1 → web:9']);
    assert.equal((await api.get('/services/app_web')).json.Version.Index, Version.Index);
  });
});
