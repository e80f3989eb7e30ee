/** Each operation of the cluster's API used, with each of its parameters and filters, and its effect looked at. */
import assert from 'node:assert/strict';
import { type NodeId, newId, type TaskId } from '../../../proto/ids.ts';
import { testNode, testTask } from '../../manager/api/host.ts';
import type { Asker, Question } from './asker.ts';

type Listed = { readonly ID: string; readonly Spec: { readonly Name?: string } }[];

/** A list's filters: for each, a value that only the first of two objects passes. */
async function checkFilters(
  asker: Asker,
  operation: string,
  first: string,
  cases: Record<string, string>,
): Promise<void> {
  for (const [filter, value] of Object.entries(cases)) {
    const listed = (await asker.ask(operation, { filters: { [filter]: [value] } })).json as Listed;
    assert.deepEqual(
      listed.map(({ ID }) => ID),
      [first],
      `${operation} ${filter}=${value}`,
    );
  }
}

const data = Buffer.from('some data').toString('base64');

/** Secrets and configs have the same operations. */
async function exerciseData(asker: Asker, kind: 'secret' | 'config'): Promise<void> {
  const [many, one] = [`/${kind}s`, `/${kind}s/{id}`];
  const create = async (body: unknown, status = 201): Promise<string> =>
    (await asker.ask(`POST ${many}/create`, { body, status })).json.ID;
  const id = await create({ Name: 'alpha', Data: data, Labels: { tier: 'gold' } });
  await create({ Name: 'beta', Data: data });
  await create({ Name: 'alpha', Data: data }, 409);
  await checkFilters(asker, `GET ${many}`, id, { id, label: 'tier=gold', name: 'al', names: 'alpha' });
  const inspected = (await asker.ask(`GET ${one}`, { at: { id: 'alpha' } })).json;
  assert.equal(inspected.ID, id);
  assert.equal(inspected.Spec.Data, kind === 'secret' ? undefined : data);
  const Spec = { ...inspected.Spec, Labels: { tier: 'silver' } };
  const update = (version: number, status = 200) =>
    asker.ask(`POST ${one}/update`, { at: { id }, query: { version }, body: Spec, status });
  await update(inspected.Version.Index);
  await update(inspected.Version.Index, 500);
  assert.deepEqual((await asker.ask(`GET ${one}`, { at: { id } })).json.Spec.Labels, { tier: 'silver' });
  await asker.ask(`DELETE ${one}`, { at: { id }, status: 204 });
  await asker.ask(`GET ${one}`, { at: { id }, status: 404 });
  await asker.ask(`DELETE ${one}`, { at: { id }, status: 404 });
}

export async function exerciseNodes(asker: Asker): Promise<void> {
  const { host } = asker.api;
  const id = newId<NodeId>(host.random);
  const worker = testNode(id, 'w1', 'worker');
  const Engine = { ...worker.Description.Engine, Labels: { disk: 'ssd' } };
  host.apply([
    { op: 'create', kind: 'node', object: { ...worker, Description: { ...worker.Description, Engine } } },
  ]);
  const version = async (): Promise<number> =>
    (await asker.ask('GET /nodes/{id}', { at: { id } })).json.Version.Index;
  const body = { Role: 'worker', Availability: 'active', Labels: { zone: 'a' } };
  const seen = await version();
  await asker.ask('POST /nodes/{id}/update', { at: { id }, query: { version: seen }, body });
  await asker.ask('POST /nodes/{id}/update', { at: { id }, query: { version: seen }, body, status: 500 });
  await checkFilters(asker, 'GET /nodes', id, {
    id,
    label: 'disk=ssd',
    name: 'w1',
    'node.label': 'zone=a',
    role: 'worker',
  });
  const listed = async (membership: string) =>
    (await asker.ask('GET /nodes', { filters: { membership: [membership] } })).json.length;
  assert.deepEqual([await listed('accepted'), await listed('pending')], [2, 0]);
  await asker.ask('DELETE /nodes/{id}', { at: { id }, status: 400 });
  await asker.ask('DELETE /nodes/{id}', { at: { id }, query: { force: true } });
  await asker.ask('GET /nodes/{id}', { at: { id }, status: 404 });
}

const web = {
  Name: 'web',
  Labels: { tier: 'gold' },
  TaskTemplate: { ContainerSpec: { Image: 'nginx:1' } },
  Mode: { Replicated: { Replicas: 2 } },
};

export async function exerciseServices(asker: Asker): Promise<void> {
  const { host } = asker.api;
  const auth = (user: string) => Buffer.from(JSON.stringify({ username: user })).toString('base64');
  const headers = { 'X-Registry-Auth': auth('first') };
  const created = await asker.ask('POST /services/create', { body: web, headers, status: 201 });
  const id: string = created.json.ID;
  await asker.ask('POST /services/create', { body: web, status: 409 });
  await asker.ask('POST /services/create', { body: { ...web, Name: '-' }, status: 400 });
  await asker.ask('POST /services/create', {
    body: { ...web, Name: 'every', Labels: {}, Mode: { Global: {} } },
    status: 201,
  });
  await checkFilters(asker, 'GET /services', id, { id, label: 'tier', mode: 'replicated', name: 'we' });
  host.apply([{ op: 'create', kind: 'task', object: testTask(host, id) }]);
  const listed = (await asker.ask('GET /services', { query: { status: true }, filters: { id: [id] } }))
    .json[0];
  assert.deepEqual([listed.ServiceStatus.RunningTasks, listed.ServiceStatus.DesiredTasks], [1, 2]);

  const inspect = async (question: Question = {}) =>
    (await asker.ask('GET /services/{id}', { at: { id: 'web' }, ...question })).json;
  assert.equal((await inspect()).Spec.UpdateConfig, undefined);
  assert.equal((await inspect({ query: { insertDefaults: true } })).Spec.UpdateConfig.Parallelism, 1);

  const stored = () => host.store.list('service').find((one) => one.ID === id)!;
  const credentials = () => stored().Spec.TaskTemplate.ContainerSpec.PullOptions?.RegistryAuth;
  const update = async (image: string, question: Question) => {
    const body = { ...web, TaskTemplate: { ContainerSpec: { Image: image } } };
    const query = { version: stored().Version.Index, ...question.query };
    await asker.ask('POST /services/{id}/update', { at: { id }, body, ...question, query });
  };
  await update('nginx:2', { headers: { 'X-Registry-Auth': auth('second') } });
  assert.equal(credentials(), auth('second'));
  await update('nginx:3', { query: { registryAuthFrom: 'previous-spec' } });
  assert.equal(credentials(), auth('first'));
  await update('nginx:9', { query: { rollback: 'previous' } });
  assert.equal((await inspect()).Spec.TaskTemplate.ContainerSpec.Image, 'nginx:2');
  await update('nginx:3', { query: { version: 1 }, status: 500 });
  await asker.ask('DELETE /services/{id}', { at: { id: 'every' } });
  await asker.ask('DELETE /services/{id}', { at: { id: 'every' }, status: 404 });
}

/** After the services, whose tasks these are. */
export async function exerciseTasks(asker: Asker): Promise<void> {
  const { host } = asker.api;
  const service = host.store.list('service')[0]!;
  const [task] = host.store.list('task');
  const id = task!.ID;
  const elsewhere = newId<NodeId>(host.random);
  host.apply([{ op: 'create', kind: 'node', object: testNode(elsewhere, 'w2', 'worker') }]);
  await asker.ask('POST /services/create', {
    body: { ...web, Name: 'other', Labels: {} },
    status: 201,
  });
  const other = host.store.list('service').find((one) => one.Spec.Name === 'other')!;
  const stranger = { ID: newId<TaskId>(host.random), NodeID: elsewhere, DesiredState: 'shutdown' as const };
  host.apply([{ op: 'create', kind: 'task', object: testTask(host, other.ID, stranger) }]);
  await checkFilters(asker, 'GET /tasks', id, {
    id,
    'desired-state': 'running',
    label: 'tier=gold',
    name: 'web.1',
    node: 'm1',
    service: service.Spec.Name,
  });
  const shown = (await asker.ask('GET /tasks/{id}', { at: { id } })).json;
  assert.deepEqual([shown.ServiceID, shown.Spec.ContainerSpec.Image], [service.ID, 'nginx:1']);
  await asker.ask('GET /tasks/{id}', { at: { id: 'nosuchthing' }, status: 404 });
  await exerciseLogs(asker, 'GET /services/{id}/logs', 'web', { serviceIds: [service.ID], taskIds: [] });
  await exerciseLogs(asker, 'GET /tasks/{id}/logs', id, { serviceIds: [], taskIds: [id] });
}

async function exerciseLogs(asker: Asker, operation: string, id: string, whose: object): Promise<void> {
  const { host } = asker.api;
  const timestamp = '2026-01-01T00:00:00.000000001Z';
  const [task] = host.store.list('task');
  host.logLines = [
    {
      kind: 'line',
      stream: 'stderr',
      timestamp,
      nodeId: host.nodeId,
      serviceId: task!.ServiceID,
      taskId: task!.ID,
      attributes: {},
      data: Buffer.from('a line\n'),
    },
  ];
  const query = {
    stdout: true,
    stderr: true,
    timestamps: true,
    details: true,
    tail: '5',
    since: 10,
    follow: true,
  };
  const { text, bytes } = await asker.ask(operation, { at: { id }, query });
  assert.ok(
    text.includes(timestamp) && text.includes('com.docker.swarm.task.id=') && text.includes('a line'),
  );
  assert.equal(bytes[0], 2, 'the frame of a line of standard error');
  const wanted = { ...whose, stdout: true, stderr: true, follow: true, sinceMs: 10_000, tail: 5 };
  assert.deepEqual({ ...host.lastLogRequest }, wanted);
  await asker.ask(operation, { at: { id: 'nosuchthing' }, query: { stdout: true }, status: 404 });
}

export async function exerciseSwarm(asker: Asker): Promise<void> {
  const { host } = asker.api;
  const swarm = async () => (await asker.ask('GET /swarm')).json;
  const unlockKey = async (): Promise<string> => (await asker.ask('GET /swarm/unlockkey')).json.UnlockKey;
  const before = await swarm();
  const Spec = { ...before.Spec, EncryptionConfig: { AutoLockManagers: true } };
  const rotations = { rotateWorkerToken: true, rotateManagerToken: true, rotateManagerUnlockKey: true };
  assert.equal(await unlockKey(), '');
  const update = (version: number, status = 200) =>
    asker.ask('POST /swarm/update', { query: { version, ...rotations }, body: Spec, status });
  await update(before.Version.Index);
  await update(before.Version.Index, 500);
  const [after, first] = [await swarm(), await unlockKey()];
  assert.match(first, /^SWMKEY-/);
  assert.notEqual(after.JoinTokens.Worker, before.JoinTokens.Worker);
  assert.notEqual(after.JoinTokens.Manager, before.JoinTokens.Manager);
  await update(after.Version.Index);
  assert.notEqual(await unlockKey(), first);

  await asker.ask('POST /swarm/init', { body: { ListenAddr: '0.0.0.0:2377' }, status: 503 });
  await asker.ask('POST /swarm/leave', { status: 503 });
  await asker.ask('POST /swarm/leave', { query: { force: true } });
  host.become({ kind: 'none' });
  for (const path of [
    'GET /swarm',
    'GET /swarm/unlockkey',
    'GET /nodes',
    'GET /services',
    'GET /tasks',
    'GET /secrets',
    'GET /configs',
  ]) {
    await asker.ask(path, { status: 503 });
  }
  await asker.ask('POST /swarm/leave', { status: 503 });
  const init = await asker.ask('POST /swarm/init', { body: { ListenAddr: '0.0.0.0:2377', Spec: {} } });
  assert.equal(init.json, host.nodeId);
  await asker.ask('POST /swarm/join', {
    body: { RemoteAddrs: ['10.0.0.1:2377'], JoinToken: 'SWMTKN-1-a-b' },
  });
  await asker.ask('POST /swarm/join', { body: { RemoteAddrs: [], JoinToken: 'SWMTKN-1-a-b' }, status: 400 });
  host.become({ kind: 'locked', nodeId: host.nodeId });
  await asker.ask('POST /swarm/unlock', { body: { UnlockKey: first } });
  host.becomeManager();
  assert.deepEqual(
    host.calls.map((call) => call.split(' ')[0]),
    ['leave', 'init', 'join', 'unlock'],
  );
}

export const exercises: Record<string, (asker: Asker) => Promise<void>> = {
  secrets: (asker) => exerciseData(asker, 'secret'),
  configs: (asker) => exerciseData(asker, 'config'),
  nodes: exerciseNodes,
  services: exerciseServices,
  'tasks and logs': exerciseTasks,
  swarm: exerciseSwarm,
};
