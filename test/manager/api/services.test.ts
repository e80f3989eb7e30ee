/** Services and their tasks through the HTTP door. */
import assert from 'node:assert/strict';
import { asId, type NodeId, newId, type ServiceId } from '../../../proto/ids.ts';
import { type Answer, TestApi, testNode, testTask } from './host.ts';

const web = {
  Name: 'web',
  TaskTemplate: { ContainerSpec: { Image: 'nginx:1.27' } },
  Mode: { Replicated: { Replicas: 2 } },
};

/** A spec of one field changed, named by its path. */
function withField(path: string, value: unknown): unknown {
  const spec = structuredClone(web) as Record<string, unknown>;
  const steps = path.split('.');
  const last = steps.pop()!;
  let at = spec;
  for (const step of steps) {
    at[step] = { ...(at[step] as object | undefined) };
    at = at[step] as Record<string, unknown>;
  }
  at[last] = value;
  return spec;
}

function filters(value: Record<string, string[]>): string {
  return `filters=${encodeURIComponent(JSON.stringify(value))}`;
}

const names = (answer: Answer): string[] =>
  answer.json.map((one: { Spec: { Name: string } }) => one.Spec.Name).sort();

describe('api: services', () => {
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

  it('creates one with its first revision and shows it as Docker would', async () => {
    const id = await createOf(web);
    const service = await inspect('web');
    assert.equal(service.ID, id);
    assert.deepEqual(service.Spec, {
      Name: 'web',
      Labels: {},
      TaskTemplate: {
        ContainerSpec: { Image: 'nginx:1.27', Isolation: 'default' },
        ForceUpdate: 0,
        Runtime: 'container',
      },
      Mode: { Replicated: { Replicas: 2 } },
    });
    assert.equal(service.Private, undefined);
    const revisions = api.host.store.find('revision', 'service', id);
    assert.deepEqual(
      revisions.map((revision) => revision.Number),
      [1],
    );
  });

  it('is found by id, name and the beginning of its id; what is not found or not one is said', async () => {
    const id = await createOf(web);
    assert.equal((await inspect(id.slice(0, 6))).ID, id);
    assert.deepEqual((await api.get('/services/nosuch')).json, { message: 'service nosuch not found' });
    const twin = { ...api.host.store.get('service', asId<ServiceId>(id))! };
    const twinId = asId<ServiceId>(`${id.slice(0, 24)}_`);
    api.host.apply([
      {
        op: 'create',
        kind: 'service',
        object: { ...twin, ID: twinId, Spec: { ...twin.Spec, Name: 'twin' } },
      },
    ]);
    const ambiguous = await api.get(`/services/${id.slice(0, 6)}`);
    assert.deepEqual(
      [ambiguous.status, ambiguous.json.message],
      [400, `service ${id.slice(0, 6)} is ambiguous (2 matches found)`],
    );
  });

  it('refuses a second of the same name with 409', async () => {
    await createOf(web);
    const again = await api.post('/services/create', web);
    assert.deepEqual(
      [again.status, again.json.message],
      [
        409,
        'rpc error: code = AlreadyExists desc = name conflicts with an existing object: service web already exists',
      ],
    );
  });

  it('creates one of two that come at once, and updates by one of two', async () => {
    const created = await Promise.all([1, 2].map(() => api.post('/services/create', web)));
    assert.deepEqual(created.map((answer) => answer.status).sort(), [201, 409]);
    const { Version } = await inspect('web');
    const updates = await Promise.all(
      [3, 4].map((Replicas) =>
        api.post(`/services/web/update?version=${Version.Index}`, {
          ...web,
          Mode: { Replicated: { Replicas } },
        }),
      ),
    );
    assert.deepEqual(updates.map((answer) => answer.status).sort(), [200, 500]);
    const refused = updates.find((answer) => answer.status === 500)!;
    assert.equal(refused.json.message, 'rpc error: code = Unknown desc = update out of sequence');
  });

  it('updates, rolls back to the spec before, and names what it can not change', async () => {
    await createOf(web);
    const update = async (spec: unknown, query = '') => {
      const { Version } = await inspect('web');
      return api.post(`/services/web/update?version=${Version.Index}${query}`, spec);
    };
    const newer = withField('TaskTemplate.ContainerSpec', { Image: 'nginx:1.28' });
    assert.deepEqual((await update(newer)).json, { Warnings: null });
    assert.equal((await inspect('web')).PreviousSpec.TaskTemplate.ContainerSpec.Image, 'nginx:1.27');
    assert.equal((await update(newer, '&rollback=previous')).status, 200);
    const rolledBack = await inspect('web');
    assert.equal(rolledBack.Spec.TaskTemplate.ContainerSpec.Image, 'nginx:1.27');
    assert.equal(rolledBack.UpdateStatus.State, 'rollback_started');
    assert.equal((await update({ ...web, Name: 'other' })).status, 501);
    assert.match(
      (await update({ ...web, Mode: { Global: {} } })).json.message,
      /service mode change is not allowed/,
    );
    assert.equal((await update(web, '&rollback=all')).status, 400);
    assert.equal((await update(web, '&registryAuthFrom=x')).status, 400);
  });

  it('keeps registry credentials and never shows them', async () => {
    const auth = { 'x-registry-auth': Buffer.from('secret-auth'.repeat(4000)).toString('base64') };
    const id = (await api.post('/services/create', web, auth)).json.ID as string;
    const stored = () =>
      api.host.store.get('service', asId<ServiceId>(id))!.Spec.TaskTemplate.ContainerSpec.PullOptions;
    assert.deepEqual(stored(), { RegistryAuth: auth['x-registry-auth'] });
    const { Version } = await inspect('web');
    await api.post(`/services/web/update?version=${Version.Index}`, { ...web, Labels: { a: 'b' } });
    assert.deepEqual(stored(), { RegistryAuth: auth['x-registry-auth'] });
    api.host.apply([{ op: 'create', kind: 'task', object: testTask(api.host, id) }]);
    for (const path of ['/services', '/services/web', '/services/web?insertDefaults=true', '/tasks']) {
      const { text } = await api.get(path);
      assert.ok(!text.includes(auth['x-registry-auth']) && !text.includes('PullOptions'), path);
    }
  });

  it('removes one', async () => {
    await createOf(web);
    assert.equal((await api.delete('/services/web')).status, 200);
    assert.equal((await api.get('/services/web')).status, 404);
    assert.equal((await api.delete('/services/web')).status, 404);
  });

  it('filters lists', async () => {
    await createOf({ ...web, Labels: { 'com.docker.stack.namespace': 'shop', tier: '1' } });
    await createOf({ ...web, Name: 'webcache', Mode: { Global: {} } });
    await createOf({ ...web, Name: 'db', Labels: { tier: '2' } });
    const list = async (value: Record<string, string[]>) =>
      names(await api.get(`/services?${filters(value)}`));
    assert.deepEqual(await list({ name: ['web'] }), ['web', 'webcache']);
    assert.deepEqual(await list({ mode: ['global'] }), ['webcache']);
    assert.deepEqual(await list({ label: ['tier'] }), ['db', 'web']);
    assert.deepEqual(await list({ label: ['tier=2'] }), ['db']);
    assert.deepEqual(await list({ label: ['com.docker.stack.namespace=shop'] }), ['web']);
    assert.deepEqual(await list({ name: ['db', 'webc'] }), ['db', 'webcache']);
    assert.deepEqual(await list({ id: ['zzzzzz'] }), []);
    const legacy = encodeURIComponent('{"name":{"db":true}}');
    assert.deepEqual(names(await api.get(`/services?filters=${legacy}`)), ['db']);
    const malformed = encodeURIComponent('{"name":["db"');
    assert.match(
      (await api.get(`/services?filters=${malformed}`)).json.message,
      /^unexpected end of JSON input/,
    );
  });

  it('takes jobs, runs them again with each update, and counts the present iteration', async () => {
    const job = { ...web, Mode: { ReplicatedJob: { MaxConcurrent: 2 } } };
    for (const Mode of [job.Mode, { GlobalJob: {} }]) {
      const rolled = { ...job, Mode, UpdateConfig: { Parallelism: 1 } };
      const refused = await api.post('/services/create', rolled);
      assert.match(refused.json.message, /Jobs may not have an update config/);
    }
    const id = await createOf(job);
    const made = await inspect('web');
    assert.deepEqual(made.Spec.Mode, { ReplicatedJob: { MaxConcurrent: 2, TotalCompletions: 2 } });
    assert.deepEqual(made.JobStatus.JobIteration, {});
    const update = (service: typeof made, Mode: unknown) =>
      api.post(`/services/web/update?version=${service.Version.Index}`, { ...service.Spec, Mode });
    const more = await update(made, { ReplicatedJob: { MaxConcurrent: 2, TotalCompletions: 5 } });
    assert.equal(more.status, 200, more.text);
    const again = await inspect('web');
    assert.deepEqual(again.JobStatus.JobIteration, { Index: 1 });
    assert.match((await update(again, { GlobalJob: {} })).json.message, /service mode change is not allowed/);
    for (const [Slot, State, Index] of [
      [0, 'complete', 0],
      [1, 'complete', 1],
      // On a node that was taken for lost and came back.
      [1, 'complete', 1],
      [2, 'running', 1],
    ] as const) {
      const Status = { Timestamp: '', State, Message: '' };
      const over = { Slot, Status, JobIteration: { Index }, DesiredState: 'complete' as const };
      api.host.apply([{ op: 'create', kind: 'task', object: testTask(api.host, id, over) }]);
    }
    const [listed] = (await api.get('/services?status=true')).json;
    assert.deepEqual(listed.ServiceStatus, { RunningTasks: 1, DesiredTasks: 2, CompletedTasks: 1 });
    const tasks: { Slot?: number; JobIteration: unknown }[] = (await api.get('/tasks')).json;
    const bySlot = new Map(tasks.map((task) => [task.Slot, task.JobIteration]));
    assert.deepEqual([bySlot.get(undefined), bySlot.get(1), bySlot.get(2)], [{}, { Index: 1 }, { Index: 1 }]);
    for (const [mode, count] of [
      ['replicated-job', 1],
      ['global-job', 0],
      ['replicated', 0],
    ] as const) {
      assert.equal((await api.get(`/services?${filters({ mode: [mode] })}`)).json.length, count, mode);
    }
  });

  it('counts tasks for ?status=true from API 1.41 on', async () => {
    const id = await createOf(web);
    const other = testTask(api.host, id, { Slot: 2, DesiredState: 'shutdown' });
    const waiting = { Timestamp: '', State: 'pending' as const, Message: '' };
    api.host.apply([
      { op: 'create', kind: 'task', object: testTask(api.host, id) },
      { op: 'create', kind: 'task', object: other },
      { op: 'create', kind: 'task', object: testTask(api.host, id, { Slot: 3, Status: waiting }) },
    ]);
    const counted = (await api.get('/services?status=true')).json[0].ServiceStatus;
    assert.deepEqual(counted, { RunningTasks: 2, DesiredTasks: 2, CompletedTasks: 0 });
    assert.equal((await api.get('/services')).json[0].ServiceStatus, undefined);
    assert.equal((await api.get('/v1.40/services?status=true')).json[0].ServiceStatus, undefined);
    assert.equal((await api.get('/services?status=perhaps')).status, 400);
  });

  it('writes defaults out when asked', async () => {
    await createOf(web);
    const { Spec } = (await api.get('/services/web?insertDefaults=true')).json;
    assert.equal(Spec.TaskTemplate.RestartPolicy.Condition, 'any');
    assert.equal(Spec.UpdateConfig.Parallelism, 1);
    assert.equal((await inspect('web')).Spec.UpdateConfig, undefined);
  });

  it('resolves networks and refuses references to what is not there', async () => {
    const network = (await api.post('/networks/create', { Name: 'back', Driver: 'overlay' })).json
      .Id as string;
    await createOf(
      withField('TaskTemplate.Networks', [{ Target: 'back', Aliases: ['w'] }, { Target: 'host' }]),
    );
    const { Networks } = (await inspect('web')).Spec.TaskTemplate;
    assert.deepEqual(Networks, [{ Target: network, Aliases: ['w'] }, { Target: 'host' }]);
    const inUse = await api.delete('/networks/back');
    assert.match(
      inUse.json.message,
      /^rpc error: code = FailedPrecondition desc = network \w+ is in use by service/,
    );
    const unknown = await api.post('/services/create', {
      ...(withField('TaskTemplate.Networks', [{ Target: 'nowhere' }]) as object),
      Name: 'b',
    });
    assert.deepEqual([unknown.status, unknown.json.message], [404, 'network nowhere not found']);
    const secret = { File: { Name: 's' }, SecretID: 'x', SecretName: 'gone' };
    const missing = await api.post('/services/create', {
      ...(withField('TaskTemplate.ContainerSpec', { Image: 'a', Secrets: [secret] }) as object),
      Name: 'b',
    });
    assert.deepEqual(
      [missing.status, missing.json.message],
      [400, 'rpc error: code = InvalidArgument desc = secret not found: gone'],
    );
  });

  describe('bodies', () => {
    const refused: [string, unknown, number, RegExp][] = [
      ['Nam', 'x', 400, /^unknown field ServiceSpec\.Nam$/],
      ['TaskTemplate.Foo', 1, 400, /^unknown field ServiceSpec\.TaskTemplate\.Foo$/],
      ['Labels', { a: 1 }, 400, /ServiceSpec\.Labels\.a: expected string/],
      ['Labels', { 'shoal.bogus': 'x' }, 400, /"shoal\.bogus" is no label that Shoal knows/],
      ['Name', '-web', 400, /name must be valid as a DNS name component/],
      ['Name', 'w'.repeat(64), 400, /name must be 63 characters or fewer/],
      ['Mode', { ReplicatedJob: { MaxConcurrent: -1 } }, 400, /Mode\.ReplicatedJob\.MaxConcurrent/],
      ['Mode', { ReplicatedJob: {}, GlobalJob: {} }, 400, /must specify only one service mode/],
      ['Mode', { Global: {}, Replicated: {} }, 400, /must specify only one service mode/],
      ['Mode', { Replicated: { Replicas: -1 } }, 400, /Replicas/],
      ['TaskTemplate.ContainerSpec', {}, 400, /ContainerSpec: image reference must be provided/],
      ['TaskTemplate.ContainerSpec', { Image: 'UPPER CASE' }, 400, /is not a valid repository\/tag/],
      ['TaskTemplate.PluginSpec', { Name: 'p' }, 501, /PluginSpec: plugins as services/],
      ['TaskTemplate.Runtime', 'plugin', 501, /Runtime/],
      ['TaskTemplate.Placement', { Constraints: ['node.role=manager'] }, 400, /constraint/],
      ['TaskTemplate.Resources', { Limits: { NanoCPUs: 1 } }, 400, /invalid cpu value/],
      ['TaskTemplate.Resources', { Limits: { MemoryBytes: 1 } }, 400, /Must be at least 4MiB/],
      [
        'TaskTemplate.RestartPolicy',
        { Condition: 'sometimes' },
        400,
        /RestartPolicy\.Condition: "sometimes"/,
      ],
      ['TaskTemplate.RestartPolicy', { Delay: -1 }, 400, /restart-delay cannot be negative/],
      ['TaskTemplate.RestartPolicy', { Window: -1 }, 400, /restart-window cannot be negative/],
      ['UpdateConfig', { Delay: -1 }, 400, /update-delay cannot be negative/],
      ['UpdateConfig', { Monitor: -1 }, 400, /update-monitor cannot be negative/],
      ['UpdateConfig', { MaxFailureRatio: -0.1 }, 400, /update-maxfailureratio/],
      ['UpdateConfig', { MaxFailureRatio: 2 }, 400, /update-maxfailureratio/],
      ['RollbackConfig', { FailureAction: 'rollback' }, 400, /RollbackConfig\.FailureAction/],
      [
        'EndpointSpec',
        { Mode: 'dnsrr', Ports: [{ TargetPort: 80, PublishedPort: 8080 }] },
        400,
        /port published with ingress mode can't be used with dnsrr mode$/,
      ],
      [
        'EndpointSpec',
        { Ports: [1, 2].map(() => ({ TargetPort: 80, PublishedPort: 80, PublishMode: 'host' })) },
        400,
        /duplicate published ports/,
      ],
      [
        'TaskTemplate.ContainerSpec',
        { Image: 'a', Privileges: { CredentialSpec: { File: 'x' } } },
        501,
        /CredentialSpec/,
      ],
      [
        'TaskTemplate.ContainerSpec',
        { Image: 'a', Mounts: [{ Type: 'cluster', Target: '/x' }] },
        501,
        /mounts of type cluster/,
      ],
    ];
    for (const [field, value, status, message] of refused) {
      it(`refuses ${field} of ${JSON.stringify(value).slice(0, 60)}`, async () => {
        const before = api.host.store.index;
        const answer = await api.post('/services/create', withField(field, value));
        assert.equal(answer.status, status, answer.text);
        assert.match(answer.json.message, message);
        assert.equal(api.host.store.index, before);
      });
    }

    it('refuses UDP published in ingress mode where tasks are to be told the client’s address, by name', async () => {
      const Ports = [
        { TargetPort: 80, PublishedPort: 8080 },
        { TargetPort: 53, PublishedPort: 5353, Protocol: 'udp', PublishMode: 'ingress' },
      ];
      const Labels = { 'shoal.ingress': 'proxy-protocol' };
      const told = (ports: readonly object[]) => ({
        ...web,
        Name: 'told',
        Labels,
        EndpointSpec: { Ports: ports },
      });
      const answer = await api.post('/services/create', told(Ports));
      assert.equal(answer.status, 400, answer.text);
      assert.match(
        answer.json.message,
        /port 5353\/udp is published in ingress mode by a service with the label shoal\.ingress=proxy-protocol, which is for tcp alone/,
      );
      const onHost = Ports.map((one) => ({ ...one, PublishMode: 'host' }));
      const taken = await api.post('/services/create', told(onHost));
      assert.equal(taken.status, 201, taken.text);
    });

    it('takes every known field that says nothing', async () => {
      const empty = {
        ...web,
        Labels: null,
        Networks: [],
        UpdateConfig: null,
        TaskTemplate: {
          PluginSpec: null,
          NetworkAttachmentSpec: {},
          Runtime: '',
          Networks: null,
          ContainerSpec: {
            Image: 'nginx',
            Isolation: '',
            Mounts: [{ Type: 'tmpfs', Target: '/t', ClusterOptions: {}, ImageOptions: null }],
            Privileges: { CredentialSpec: null },
          },
        },
        Mode: { Replicated: { Replicas: null }, ReplicatedJob: null },
      };
      await createOf(empty);
      assert.deepEqual((await inspect('web')).Spec.Mode, { Replicated: { Replicas: 1 } });
    });

    it('takes a health check under either of the names that Docker gives it', async () => {
      const HealthCheck = { Test: ['CMD', 'true'], Retries: 2 };
      await createOf(withField('TaskTemplate.ContainerSpec', { Image: 'a', HealthCheck }));
      const { ContainerSpec } = (await inspect('web')).Spec.TaskTemplate;
      assert.deepEqual(ContainerSpec.Healthcheck, HealthCheck);
      assert.equal(ContainerSpec.HealthCheck, undefined);
    });

    it('says where malformed JSON is wrong', async () => {
      const send = async (body: string, headers = {}) => api.send('POST', '/services/create', body, headers);
      assert.deepEqual((await send('{"Name":\n "web",}')).json, {
        message: `invalid JSON: invalid character '}' looking for beginning of object key string (line 2, column 8)`,
      });
      assert.match((await send('')).json.message, /got EOF while reading request body/);
      assert.match((await send('[')).json.message, /unexpected end of JSON input/);
      assert.match((await send('"web"')).json.message, /ServiceSpec: expected object/);
      for (const [body, path] of [
        ['{"__proto__":{"a":1}}', '__proto__'],
        ['{"Name":"a","Labels":{"__proto__":"a"}}', 'Labels.__proto__'],
      ] as const) {
        assert.equal((await send(body)).json.message, `ServiceSpec.${path}: nothing can have this name`);
      }
      assert.match((await send(`${'['.repeat(1e6)}`)).json.message, /nested deeper/);
      const form = await send('a=b', { 'content-type': 'application/x-www-form-urlencoded' });
      assert.match(form.json.message, /^unsupported Content-Type header/);
      const large = await send(JSON.stringify({ Name: 'x'.repeat(5 * 1024 * 1024) }));
      assert.equal(large.status, 413);
    });

    it('names a service that was given no name', async () => {
      const id = await createOf({ ...web, Name: '' });
      assert.match((await inspect(id)).Spec.Name, /^[a-z]+_[a-z]+_[0-9a-f]+$/);
    });
  });
});

describe('api: tasks', () => {
  let api: TestApi;
  let webId: string;
  let other: NodeId;
  before(async () => {
    api = await TestApi.start();
    const { host } = api;
    other = newId<NodeId>(host.random);
    host.apply([{ op: 'create', kind: 'node', object: testNode(other, 'w1', 'worker') }]);
    webId = (await api.post('/services/create', { ...web, Labels: { tier: '1' } })).json.ID;
    const dbId = (await api.post('/services/create', { ...web, Name: 'db' })).json.ID;
    host.apply([
      { op: 'create', kind: 'task', object: testTask(host, webId) },
      { op: 'create', kind: 'task', object: testTask(host, webId, { Slot: 2, NodeID: other }) },
      { op: 'create', kind: 'task', object: testTask(host, dbId, { DesiredState: 'shutdown' }) },
    ]);
    const { Version } = (await api.get('/services/db')).json;
    const changed = { ...web, Name: 'db', TaskTemplate: { ContainerSpec: { Image: 'nginx:1.28' } } };
    await api.post(`/services/db/update?version=${Version.Index}`, changed);
  });
  after(() => api.close());

  it('filters by service, node, state, label, name and whether they are up to date', async () => {
    const count = async (value: Record<string, string[]>) => {
      const answer = await api.get(`/tasks?${filters(value)}`);
      assert.equal(answer.status, 200, answer.text);
      return answer.json.length as number;
    };
    assert.equal(await count({}), 3);
    assert.equal(await count({ service: ['web'] }), 2);
    assert.equal(await count({ service: ['web'], node: ['self'] }), 1);
    assert.equal(await count({ node: ['w1'] }), 1);
    assert.equal(await count({ 'desired-state': ['running'] }), 2);
    assert.equal(await count({ 'desired-state': ['shutdown', 'running'] }), 3);
    assert.equal(await count({ label: ['tier=1'] }), 2);
    assert.equal(await count({ name: ['web.2'] }), 1);
    assert.equal(await count({ '_up-to-date': ['true'] }), 2);
    assert.equal((await api.get(`/tasks?${filters({ service: ['gone'] })}`)).status, 404);
    assert.equal((await api.get(`/tasks?${filters({ 'desired-state': ['odd'] })}`)).status, 400);
  });

  it('answers a long list whole', async () => {
    const { host } = api;
    const many = Array.from({ length: 1001 }, (_, index) =>
      testTask(host, webId, { Slot: index + 10, DesiredState: 'remove' }),
    );
    host.apply(many.map((object) => ({ op: 'create', kind: 'task', object })));
    const answer = await api.get(`/tasks?${filters({ 'desired-state': ['remove'] })}`);
    const slots = answer.json.map((task: { Slot: number }) => task.Slot);
    assert.deepEqual(
      slots,
      many.map((task) => task.Slot),
    );
    assert.equal(answer.headers['content-type'], 'application/json');
    host.apply(many.map(({ ID }) => ({ op: 'remove', kind: 'task', id: ID })));
  });

  it('shows a task with the spec of its revision and nothing of ours', async () => {
    const [task] = (await api.get(`/tasks?${filters({ service: [webId] })}`)).json;
    const shown = (await api.get(`/tasks/${task.ID}`)).json;
    assert.deepEqual(shown, task);
    assert.deepEqual(shown.Spec, {
      ContainerSpec: { Image: 'nginx:1.27', Isolation: 'default' },
      ForceUpdate: 0,
    });
    assert.equal(shown.RevisionID ?? shown.Private, undefined);
    assert.deepEqual((await api.get('/tasks/nosuch')).json, { message: 'task nosuch not found' });
  });
});
