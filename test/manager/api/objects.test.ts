/** Nodes, secrets, configs and networks through the HTTP door. */
import assert from 'node:assert/strict';
import type { ClusterNode } from '../../../proto/docker.ts';
import {
  asId,
  type NetworkId,
  type NodeId,
  newId,
  type SecretId,
  type ServiceId,
  type TaskId,
} from '../../../proto/ids.ts';
import { TestApi, testNode, testTask } from './host.ts';

const base64 = (text: string): string => Buffer.from(text).toString('base64');
const filters = (value: Record<string, string[]>): string =>
  `filters=${encodeURIComponent(JSON.stringify(value))}`;

describe('api: nodes', () => {
  let api: TestApi;
  let worker: ClusterNode;
  beforeEach(async () => {
    api = await TestApi.start();
    worker = testNode(newId<NodeId>(api.host.random), 'w1', 'worker');
    const Engine = { ...worker.Description.Engine, Labels: { disk: 'ssd' } };
    worker = {
      ...worker,
      Spec: { ...worker.Spec, Labels: { zone: 'a' } },
      Description: { ...worker.Description, Engine },
    };
    api.host.apply([{ op: 'create', kind: 'node', object: worker }]);
  });
  afterEach(() => api.close());
  const inspect = async (id: string) => (await api.get(`/nodes/${id}`)).json;
  const update = async (id: string, spec: unknown) =>
    api.post(`/nodes/${id}/update?version=${(await inspect(id)).Version.Index}`, spec);

  it('shows nothing of a node that Docker’s API has no word for', async () => {
    const Attachments = [{ NetworkID: 'net' as NetworkId, Addresses: ['10.0.1.9/24'] }];
    api.host.apply([{ op: 'merge', kind: 'node', id: worker.ID, fields: { Attachments } }]);
    const shown = await inspect('w1');
    assert.deepEqual([shown.Attachments, shown.Private], [undefined, undefined]);
  });

  it('names what a node’s data plane can’t do, when there is such', async () => {
    assert.equal((await inspect('w1')).Problems, undefined);
    const problem = { Message: 'port 80/tcp is held', ServiceID: 'gone', Since: '2026-01-01T00:00:00.000Z' };
    const Problems = [problem] as unknown as ClusterNode['Problems'] & object;
    api.host.apply([{ op: 'merge', kind: 'node', id: worker.ID, fields: { Problems } }]);
    const shown = await inspect('w1');
    assert.deepEqual(shown.Problems, [problem]);
    assert.deepEqual(shown.Status, { ...worker.Status, Message: 'port 80/tcp is held' });
  });

  it('lists by every filter', async () => {
    const list = async (value: Record<string, string[]>) => {
      const answer = await api.get(`/nodes?${filters(value)}`);
      assert.equal(answer.status, 200, answer.text);
      return answer.json.map((node: ClusterNode) => node.Description.Hostname);
    };
    assert.deepEqual(await list({}), ['m1', 'w1']);
    assert.deepEqual(await list({ name: ['w'] }), ['w1']);
    assert.deepEqual(await list({ id: [worker.ID.slice(0, 8)] }), ['w1']);
    assert.deepEqual(await list({ role: ['manager'] }), ['m1']);
    assert.deepEqual(await list({ label: ['disk=ssd'] }), ['w1']);
    assert.deepEqual(await list({ 'node.label': ['zone'] }), ['w1']);
    assert.deepEqual(await list({ membership: ['accepted'] }), ['m1', 'w1']);
    assert.deepEqual(await list({ membership: ['pending'] }), []);
    assert.equal(
      (await api.get(`/nodes?${filters({ role: ['boss'] })}`)).json.message,
      "Invalid role filter: 'boss'",
    );
  });

  it('inspects by id, name and self, and shows nothing of ours', async () => {
    assert.equal((await inspect('w1')).ID, worker.ID);
    assert.equal((await inspect('self')).ID, api.host.nodeId);
    assert.deepEqual(Object.keys(await inspect('w1')).sort(), [
      'CreatedAt',
      'Description',
      'ID',
      'Spec',
      'Status',
      'UpdatedAt',
      'Version',
    ]);
  });

  it('updates role, availability and labels', async () => {
    const spec = { Role: 'manager', Availability: 'drain', Labels: { a: 'b' } };
    assert.equal((await update('w1', spec)).status, 200);
    assert.deepEqual((await inspect('w1')).Spec, spec);
    assert.match(
      (await update('w1', { Role: 'manager', Availability: 'soon' })).json.message,
      /^invalid Availability: "soon"/,
    );
    assert.match((await update('w1', { Role: '', Availability: 'drain' })).json.message, /^invalid Role: ""/);
    const stale = await api.post('/nodes/w1/update?version=1', spec);
    assert.deepEqual(
      [stale.status, stale.json.message],
      [500, 'rpc error: code = Unknown desc = update out of sequence'],
    );
    assert.match(
      (await api.post('/nodes/w1/update?version=x', spec)).json.message,
      /^invalid node version 'x'/,
    );
  });

  it('refuses demotions that lose the last manager or the quorum', async () => {
    const demoted = { Role: 'worker', Availability: 'active' };
    assert.match(
      (await update('m1', demoted)).json.message,
      /attempting to demote the last manager of the swarm/,
    );
    const dead = testNode(newId<NodeId>(api.host.random), 'm2', 'manager');
    const unreachable = { Reachability: 'unreachable', Addr: '10.0.0.2:2377' } as const;
    api.host.apply([{ op: 'create', kind: 'node', object: { ...dead, ManagerStatus: unreachable } }]);
    assert.match((await update('m1', demoted)).json.message, /this would result in a loss of quorum/);
    assert.equal((await update('m2', demoted)).status, 200);
  });

  it('removes a node that is down, with its tasks orphaned, and no other', async () => {
    const created = { Name: 'a', TaskTemplate: { ContainerSpec: { Image: 'a' } } };
    const serviceId = (await api.post('/services/create', created)).json.ID as string;
    const task = testTask(api.host, serviceId, { NodeID: worker.ID });
    const ended = testTask(api.host, serviceId, {
      NodeID: worker.ID,
      Status: { Timestamp: '', State: 'failed', Message: 'started' },
    });
    api.host.apply([
      { op: 'create', kind: 'task', object: task },
      { op: 'create', kind: 'task', object: ended },
    ]);
    const manager = await api.delete(`/nodes/${api.host.nodeId}?force=1`);
    assert.match(
      manager.json.message,
      /is a cluster manager and is a member of the raft cluster\. It must be demoted/,
    );
    const up = await api.delete('/nodes/w1');
    assert.deepEqual(
      [up.status, up.json.message],
      [400, `rpc error: code = FailedPrecondition desc = node ${worker.ID} is not down and can't be removed`],
    );
    assert.equal((await api.delete('/nodes/w1?force=true')).status, 200);
    assert.equal((await api.get('/nodes/w1')).status, 404);
    const stateOf = (id: TaskId) => api.host.store.get('task', id)?.Status.State;
    assert.deepEqual([stateOf(task.ID), stateOf(ended.ID)], ['orphaned', 'failed']);
  });
});

for (const kind of ['secret', 'config'] as const) {
  const Kind = kind === 'secret' ? 'Secret' : 'Config';
  describe(`api: ${kind}s`, () => {
    let api: TestApi;
    beforeEach(async () => {
      api = await TestApi.start();
    });
    afterEach(() => api.close());
    const create = (spec: unknown) => api.post(`/${kind}s/create`, spec);
    const plain = { Name: 'one', Data: base64('hush'), Labels: { a: 'b' } };

    it('creates, lists, inspects and removes', async () => {
      const created = await create(plain);
      assert.equal(created.status, 201);
      const shown = (await api.get(`/${kind}s/one`)).json;
      assert.equal(shown.ID, created.json.ID);
      const { Data, ...withoutData } = plain;
      assert.deepEqual(shown.Spec, kind === 'secret' ? withoutData : plain);
      assert.equal((await api.get(`/${kind}s`)).text.includes(Data), kind === 'config');
      assert.equal((await api.get(`/${kind}s?${filters({ name: ['on'], label: ['a=b'] })}`)).json.length, 1);
      assert.equal((await api.get(`/${kind}s?${filters({ names: ['on'] })}`)).json.length, 0);
      assert.equal((await api.delete(`/${kind}s/one`)).status, 204);
      assert.deepEqual((await api.get(`/${kind}s/one`)).json, { message: `${kind} one not found` });
    });

    it('refuses a taken name, a bad name and bad data', async () => {
      await create(plain);
      const again = await create(plain);
      assert.deepEqual(
        [again.status, again.json.message],
        [409, `rpc error: code = AlreadyExists desc = ${kind} one already exists`],
      );
      const bad: [unknown, RegExp][] = [
        [{ ...plain, Name: '' }, /name must be provided/],
        [{ ...plain, Name: '.x' }, /only 64 \[a-zA-Z0-9-_.\] characters allowed/],
        [
          { ...plain, Name: 'two', Data: '' },
          /data must be larger than 0 and less than (512000|1024000) bytes/,
        ],
        [{ ...plain, Name: 'two', Data: 'no base 64!' }, /is not base64/],
        [{ ...plain, Name: 'two', Data: base64('x'.repeat(1_024_000)) }, /data must be larger than 0/],
        [{ ...plain, Name: 'two', Extra: 1 }, new RegExp(`unknown field ${Kind}Spec.Extra`)],
        [
          { ...plain, Name: 'two', Templating: { Name: 'jinja' } },
          /Templating\.Name: "jinja" is none of golang/,
        ],
        [
          { ...plain, Name: 'two', Data: base64('a={{.Nope}}'), Templating: { Name: 'golang' } },
          new RegExp(`${kind} two: expanding template {{.Nope}} failed: there is no .Nope`),
        ],
      ];
      for (const [spec, message] of bad) {
        const answer = await create(spec);
        assert.ok([400, 501].includes(answer.status), answer.text);
        assert.match(answer.json.message, message);
      }
      assert.equal(api.host.store.count(kind), 1);
    });

    it('is checked again as a template when a service uses it', async () => {
      const Data = base64('{{.Service.Labels.tier}} {{secret "key"}} {{env "HOME"}}');
      const made = await create({ ...plain, Data, Templating: { Name: 'golang' } });
      assert.equal(made.status, 201, made.text);
      assert.deepEqual((await api.get(`/${kind}s/one`)).json.Spec.Templating, { Name: 'golang' });
      const reference = {
        File: { Name: 'key' },
        [`${Kind}ID`]: made.json.ID,
        [`${Kind}Name`]: 'one',
      };
      const use = (Labels: Record<string, string>) =>
        api.post('/services/create', {
          Name: 'web',
          Labels,
          TaskTemplate: { ContainerSpec: { Image: 'a', [`${Kind}s`]: [reference] } },
        });
      assert.match(
        (await use({})).json.message,
        new RegExp(`${kind} one: .*there is no .Service.Labels.tier`),
      );
      const used = await use({ tier: 'x' });
      if (kind === 'secret') assert.equal(used.status, 201, used.text);
      else assert.match(used.json.message, /config one: the service has no secret with the target "key"/);
    });

    it('takes new labels and nothing else', async () => {
      await create(plain);
      const update = async (spec: unknown) => {
        const { Version } = (await api.get(`/${kind}s/one`)).json;
        return api.post(`/${kind}s/one/update?version=${Version.Index}`, spec);
      };
      assert.equal((await update({ Name: 'one', Labels: { c: 'd' } })).status, 200);
      assert.deepEqual((await api.get(`/${kind}s/one`)).json.Spec.Labels, { c: 'd' });
      assert.match(
        (await update({ ...plain, Data: base64('other') })).json.message,
        /only updates to Labels are allowed/,
      );
      assert.match(
        (await update({ ...plain, Name: 'two' })).json.message,
        /only updates to Labels are allowed/,
      );
      const stored = api.host.store.get(kind, (await api.get(`/${kind}s/one`)).json.ID as SecretId & never);
      assert.equal(stored?.Spec.Data, plain.Data);
      assert.equal((await api.post(`/${kind}s/one/update?version=1`, plain)).status, 500);
      assert.equal((await api.post(`/${kind}s/one/update`, plain)).json.message, `invalid ${kind} version`);
    });

    it('is not removed while services use it', async () => {
      const ID = (await create(plain)).json.ID as string;
      const reference = { File: { Name: 'f' }, [`${Kind}ID`]: ID, [`${Kind}Name`]: 'one' };
      for (const Name of ['web', 'db']) {
        const ContainerSpec = { Image: 'a', [`${Kind}s`]: [reference] };
        assert.equal(
          (await api.post('/services/create', { Name, TaskTemplate: { ContainerSpec } })).status,
          201,
        );
        const refused = await api.delete(`/${kind}s/one`);
        const users = Name === 'web' ? 'service: web' : 'services: web, db';
        assert.deepEqual(
          [refused.status, refused.json.message],
          [400, `rpc error: code = InvalidArgument desc = ${kind} 'one' is in use by the following ${users}`],
        );
      }
    });
  });
}

describe('api: networks', () => {
  let api: TestApi;
  beforeEach(async () => {
    api = await TestApi.start();
  });
  afterEach(() => api.close());
  const create = (body: unknown) => api.post('/networks/create', body);
  const back = {
    Name: 'back',
    CheckDuplicate: true,
    Driver: 'overlay',
    Scope: '',
    EnableIPv6: false,
    IPAM: { Driver: 'default', Options: {}, Config: [] },
    Internal: false,
    Attachable: true,
    Ingress: false,
    ConfigOnly: false,
    ConfigFrom: null,
    Options: {},
    Labels: { a: 'b' },
  };

  it('refuses a subnet that another network uses', async () => {
    const withSubnet = (Name: string, Subnet: string) => ({ ...back, Name, IPAM: { Config: [{ Subnet }] } });
    assert.equal((await create(withSubnet('one', '10.9.0.0/16'))).status, 201);
    const refused = await create(withSubnet('two', '10.9.1.0/24'));
    assert.equal(refused.status, 403);
    assert.match(
      refused.json.message,
      /^Pool overlaps with other one on this address space: subnet 10\.9\.1\.0\/24 of network two overlaps/,
    );
    assert.equal((await create(withSubnet('three', '10.10.0.0/16'))).status, 201);
  });

  it('creates one as the docker CLI asks for it, and shows it in the engine’s shape', async () => {
    const created = await create(back);
    assert.equal(created.status, 201, created.text);
    const shown = (await api.get('/networks/back')).json;
    assert.deepEqual(
      [shown.Id, shown.Scope, shown.Driver, shown.Attachable, shown.Labels],
      [created.json.Id, 'swarm', 'overlay', true, { a: 'b' }],
    );
    assert.equal((await create(back)).json.message, 'network with name back already exists');
    assert.equal((await api.delete('/networks/back')).status, 204);
    assert.deepEqual((await api.get('/networks/back')).json, { message: 'network back not found' });
  });

  it('keeps the addresses that were asked for', async () => {
    const Config = [{ Subnet: '10.9.0.0/24', Gateway: '10.9.0.1', IPRange: '10.9.0.128/25' }];
    await create({ ...back, IPAM: { Config } });
    assert.deepEqual((await api.get('/networks/back')).json.IPAM.Config, Config);
  });

  it('lists the engine’s own beside the cluster’s, by every filter', async () => {
    await create(back);
    const list = async (value: Record<string, string[]>) =>
      (await api.get(`/networks?${filters(value)}`)).json.map((one: { Name: string }) => one.Name);
    assert.deepEqual(await list({}), ['back', 'bridge', 'host', 'none']);
    assert.deepEqual(await list({ driver: ['overlay'] }), ['back']);
    assert.deepEqual(await list({ scope: ['local'] }), ['bridge', 'host', 'none']);
    assert.deepEqual(await list({ name: ['os'] }), ['host']);
    assert.deepEqual(await list({ label: ['a=b'] }), ['back']);
    assert.deepEqual(await list({ type: ['builtin'] }), ['bridge', 'host', 'none']);
    assert.equal((await api.get(`/networks?${filters({ odd: ['x'] })}`)).status, 400);
  });

  it('makes and removes the ingress network, of which there is one', async () => {
    const ingress = { ...back, Name: 'mesh', Attachable: false, Ingress: true };
    const publish = {
      Name: 'web',
      TaskTemplate: { ContainerSpec: { Image: 'a' } },
      EndpointSpec: { Ports: [{ TargetPort: 80, PublishedPort: 8080 }] },
    };
    assert.equal(
      (await api.post('/services/create', publish)).json.message,
      'rpc error: code = FailedPrecondition desc = service needs ingress network, but no ingress network is present',
    );
    const created = await create(ingress);
    assert.equal(created.status, 201, created.text);
    assert.equal((await api.get('/networks/mesh')).json.Ingress, true);
    const second = await create({ ...ingress, Name: 'other' });
    assert.deepEqual(
      [second.status, second.json.message],
      [409, `rpc error: code = AlreadyExists desc = ingress network (${created.json.Id}) is already present`],
    );
    const web = (await api.post('/services/create', publish)).json.ID;
    assert.match(
      (await api.delete('/networks/mesh')).json.message,
      new RegExp(`ingress network cannot be removed because service ${web} depends on it$`),
    );
    await api.delete('/services/web');
    assert.equal((await api.delete('/networks/mesh')).status, 204);
  });

  it('shows with ?verbose what lives on it', async () => {
    await create(back);
    const TaskTemplate = { ContainerSpec: { Image: 'a' }, Networks: [{ Target: 'back' }] };
    await api.post('/services/create', { Name: 'web', TaskTemplate });
    const plain = (await api.get('/networks/back')).json;
    assert.equal(plain.Services, undefined);
    const { Services } = (await api.get('/networks/back?verbose=true')).json;
    assert.deepEqual(Services, { web: { VIP: '', Ports: [], LocalLBIndex: 0, Tasks: [] } });
  });

  it('refuses by name what it can not do', async () => {
    const bad: [object, RegExp][] = [
      [{ Ingress: true, Attachable: true }, /ingress network cannot be attachable/],
      [{ Options: { 'overlay.knob': '' } }, /driver option "overlay.knob" is not supported/],
      [{ Driver: 'macvlan', Scope: 'swarm' }, /their driver is overlay, not "macvlan"/],
      [{ IPAM: { Driver: 'dhcp' } }, /address driver "dhcp"/],
      [{ IPAM: { Config: [{ Subnet: 'fd00::/64' }] } }, /subnet fd00::\/64 is IPv6, and IPv6 is not enabled/],
      [{ IPAM: { Config: [{ Subnet: 'fd00::/640' }] } }, /invalid subnet fd00::\/640/],
      [
        { IPAM: { Config: [{ Subnet: '10.9.0.0/24' }, { Subnet: '10.9.0.128/25' }] } },
        /subnets 10\.9\.0\.0\/24 and 10\.9\.0\.128\/25 overlap/,
      ],
      [
        { IPAM: { Config: [{ Subnet: '10.9.0.0/24', Gateway: '10.8.0.1' }] } },
        /does not contain gateway 10\.8\.0\.1/,
      ],
      [{ Name: 'host' }, /operation is not permitted on predefined host network/],
      [{ Name: '' }, /name must be provided/],
      [{ Weird: 1 }, /unknown field NetworkCreateRequest\.Weird/],
    ];
    for (const [change, message] of bad) {
      const answer = await create({ ...back, ...change });
      assert.ok(answer.status >= 400 && answer.status !== 500, answer.text);
      assert.match(answer.json.message, message);
    }
    assert.equal((await api.delete('/networks/host')).status, 403);
    assert.equal(api.host.store.count('network'), 0);
  });

  it('prunes those that nobody uses', async () => {
    await create(back);
    const Id = (await create({ ...back, Name: 'used' })).json.Id as string;
    const TaskTemplate = { ContainerSpec: { Image: 'a' }, Networks: [{ Target: Id }] };
    const ID = asId<ServiceId>((await api.post('/services/create', { Name: 'web', TaskTemplate })).json.ID);
    assert.ok(api.host.store.get('service', ID));
    assert.deepEqual((await api.post('/networks/prune')).json, { NetworksDeleted: ['back'] });
    assert.deepEqual((await api.post('/networks/prune')).json, { NetworksDeleted: null });
  });
});
