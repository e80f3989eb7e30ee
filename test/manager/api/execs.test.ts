/** Commands in tasks over the API, with an agent that a test plays. */
import assert from 'node:assert/strict';
import http from 'node:http';
import type { Duplex } from 'node:stream';
import { lookupTask } from '../../../manager/api/lookup.ts';
import { ShoalError } from '../../../proto/errors.ts';
import type { ExecOrder } from '../../../proto/generated/shoal/v1/ExecOrder.ts';
import type { ExecReport__Output as ExecReport } from '../../../proto/generated/shoal/v1/ExecReport.ts';
import type { NodeId } from '../../../proto/ids.ts';
import { waitFor } from '../../agent/wait.ts';
import { TestApi, testNode, testTask } from './host.ts';

const patienceMs = 5_000;

/** One agent's stream: what it was told, and a way to say something. */
class PlayedAgent {
  readonly orders: ExecOrder[] = [];
  readonly done: Promise<void>;
  readonly #reports: ExecReport[] = [];
  #wake: () => void = () => {};
  #isGone = false;

  constructor(api: TestApi, nodeId: NodeId, execId: string) {
    this.say({ hello: execId, report: 'hello' });
    const sink = {
      send: async (order: ExecOrder) => {
        this.orders.push(order);
      },
      end: () => {},
    };
    this.done = api.host.commands.carry(nodeId, this.#said(), sink);
  }

  say(report: ExecReport): void {
    this.#reports.push(report);
    this.#wake();
  }

  /** It was told to start the command, and has. */
  async isStarted(): Promise<void> {
    await waitFor(() => this.orders.at(-1)?.start !== undefined, patienceMs, 'the order to start');
    this.say({ started: {}, report: 'started' });
  }

  hangUp(): void {
    this.#isGone = true;
    this.#wake();
  }

  async *#said(): AsyncGenerator<ExecReport> {
    for (;;) {
      const next = this.#reports.shift();
      if (next) yield next;
      else if (this.#isGone) return;
      else
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
    }
  }
}

describe('api: commands in tasks', () => {
  let api: TestApi;
  let taskId: string;

  beforeEach(async () => {
    api = await TestApi.start();
    const { json } = await api.post('/services/create', {
      Name: 'web',
      TaskTemplate: { ContainerSpec: { Image: 'a' } },
    });
    const task = testTask(api.host, json.ID, { Slot: 3 });
    taskId = task.ID;
    api.host.apply([{ op: 'create', kind: 'task', object: task }]);
  });
  afterEach(() => api.close());

  /** Makes a command; the agent that was summoned has made it. */
  async function made(body: Record<string, unknown>): Promise<{ id: string; agent: PlayedAgent }> {
    const answer = api.post('/tasks/web.3/exec', body);
    await waitFor(() => api.host.summoned.length > 0, patienceMs, 'a summons');
    const { nodeId, execId } = api.host.summoned.shift()!;
    const agent = new PlayedAgent(api, nodeId, execId);
    agent.say({ made: { container_id: 'c1' }, report: 'made' });
    const { status, json } = await answer;
    assert.equal(status, 201);
    return { id: json.Id, agent };
  }

  function upgrade(
    path: string,
    body: unknown,
  ): Promise<{ status: number; connection: Duplex; head: Buffer }> {
    const bytes = Buffer.from(JSON.stringify(body));
    return new Promise((resolve, reject) => {
      const headers = { Connection: 'Upgrade', Upgrade: 'tcp', 'Content-Length': bytes.length };
      const request = http.request({ socketPath: api.socketPath, method: 'POST', path, headers });
      request.on('upgrade', (response, connection, head) =>
        resolve({ status: response.statusCode ?? 0, connection, head }),
      );
      request.on('response', (response) =>
        resolve({ status: response.statusCode ?? 0, connection: response.socket, head: Buffer.alloc(0) }),
      );
      request.on('error', reject);
      request.end(bytes);
    });
  }

  it('are Docker’s: made, started on a connection of their own, resized, looked at', async () => {
    const { id, agent } = await made({
      Cmd: ['sh', '-c', 'x'],
      Tty: true,
      AttachStdin: true,
      AttachStdout: true,
    });
    assert.deepEqual(agent.orders[0]?.make?.command, ['sh', '-c', 'x']);
    assert.equal(agent.orders[0]?.make?.task_id, taskId);
    const before = (await api.get(`/v1.41/exec/${id}/json`)).json;
    assert.deepEqual([before.Running, before.ExitCode, before.ContainerID], [false, null, 'c1']);
    agent.say({ started: {}, report: 'started' });
    const { status, connection } = await upgrade(`/v1.41/exec/${id}/start`, { Detach: false, Tty: true });
    assert.equal(status, 101);
    connection.write('typed');
    await waitFor(() => agent.orders.some(({ input }) => `${input}` === 'typed'), patienceMs, 'the input');
    assert.equal((await api.post(`/exec/${id}/resize?h=31&w=101`)).status, 200);
    assert.deepEqual(agent.orders.at(-1)?.size, { height: 31, width: 101 });
    assert.equal((await api.post(`/exec/${id}/resize?h=x&w=101`)).status, 400);
    let shown = '';
    connection.on('data', (chunk) => {
      shown += chunk;
    });
    agent.say({ output: Buffer.from('shown'), report: 'output' });
    agent.say({ over: { exit_code: 3 }, report: 'over' });
    await new Promise((resolve) => connection.once('end', resolve));
    assert.equal(shown, 'shown');
    const after = (await api.get(`/exec/${id}/json`)).json;
    assert.deepEqual([after.Running, after.ExitCode, after.Problem], [false, 3, '']);
    assert.equal((await upgrade(`/exec/${id}/start`, {})).status, 409);
    connection.destroy();
  });

  it('that are started without a connection of their own answer with their output', async () => {
    const { id, agent } = await made({ Cmd: ['echo'], AttachStdout: true });
    const answering = api.post(`/exec/${id}/start`, { Detach: false });
    await agent.isStarted();
    agent.say({ output: Buffer.from('all of it'), report: 'output' });
    agent.say({ over: {}, report: 'over' });
    const answer = await answering;
    assert.equal(answer.text, 'all of it');
    assert.equal(answer.headers['content-type'], 'application/vnd.docker.multiplexed-stream');
    const detached = await made({ Cmd: ['echo'] });
    const starting = api.post(`/exec/${detached.id}/start`, { Detach: true });
    await detached.agent.isStarted();
    detached.agent.say({ over: { is_running: true }, report: 'over' });
    assert.equal((await starting).status, 200);
    assert.deepEqual(detached.agent.orders.at(-1), { start: { detach: true } });
  });

  it('whose node is lost say so', async () => {
    const { id, agent } = await made({ Cmd: ['echo'], AttachStdout: true });
    agent.say({ started: {}, report: 'started' });
    const { connection } = await upgrade(`/exec/${id}/start`, {});
    const chunks: Buffer[] = [];
    connection.on('data', (chunk: Buffer) => chunks.push(chunk));
    agent.hangUp();
    await new Promise((resolve) => connection.once('end', resolve));
    const bytes = Buffer.concat(chunks);
    assert.equal(bytes[0], 3);
    assert.match(bytes.subarray(8).toString(), /the connection to node m1 broke off/);
    assert.match((await api.get(`/exec/${id}/json`)).json.Problem, /broke off/);
    connection.destroy();
  });

  it('of a client that hangs up find the end of their input, and are left to themselves', async () => {
    const { id, agent } = await made({ Cmd: ['cat'], AttachStdin: true });
    agent.say({ started: {}, report: 'started' });
    const { connection } = await upgrade(`/exec/${id}/start`, {});
    connection.destroy();
    await waitFor(() => agent.orders.at(-1)?.input_end !== undefined, patienceMs, 'the end of the input');
    assert.equal((await api.get(`/exec/${id}/json`)).json.Running, true);
  });

  it('are refused in words', async () => {
    const refused = async (path: string, body: unknown) => {
      const { status, json } = await api.post(path, body);
      return [status, json.message];
    };
    assert.deepEqual(await refused('/tasks/web.4/exec', { Cmd: ['x'] }), [404, 'task web.4 not found']);
    assert.deepEqual(await refused('/tasks/web.3/exec', {}), [400, 'No exec command specified']);
    assert.deepEqual(await refused('/tasks/web.3/exec', { Cmd: 'x' }), [
      400,
      'Cmd must be a list of strings',
    ]);
    const [status, message] = await refused('/tasks/web.3/exec', { Cmd: ['x'], Privileged: true });
    assert.deepEqual([status, /does not let services have privileged/.test(message)], [403, true]);
    api.host.unreachable = new ShoalError('not-supported', 'node h2 is a stock Docker Engine');
    assert.deepEqual(await refused('/tasks/web.3/exec', { Cmd: ['x'] }), [
      501,
      'node h2 is a stock Docker Engine',
    ]);
    const made = testTask(api.host, (await api.get('/services/web')).json.ID, {
      Slot: 5,
      Status: { Timestamp: '', State: 'failed', Message: '' },
    });
    api.host.apply([{ op: 'create', kind: 'task', object: made }]);
    assert.deepEqual(await refused('/tasks/web.5/exec', { Cmd: ['x'] }), [
      409,
      'task web.5 is not running: it is failed',
    ]);
    // Another's command is an engine's, and here is none.
    assert.equal((await api.post('/exec/abc/start', {})).status, 503);
  });

  it('of Docker’s clients find a task on another node by its container’s name, and any by its id', async () => {
    const node = testNode('node7' as NodeId, 'h7', 'worker');
    const { ID } = (await api.get('/services/web')).json;
    const other = testTask(api.host, ID, { Slot: 4, NodeID: node.ID });
    api.host.apply([
      { op: 'create', kind: 'node', object: node },
      { op: 'create', kind: 'task', object: other },
    ]);
    const shown = await api.get(`/v1.41/containers/web.4.${other.ID}/json`);
    assert.deepEqual(
      [shown.status, shown.json.Name, shown.json.State.Running],
      [200, `/web.4.${other.ID}`, true],
    );
    for (const [name, nodeId] of [
      [`web.4.${other.ID}`, 'node7'],
      [other.ID, 'node7'],
      [taskId, api.host.nodeId],
    ] as const) {
      const asked = api.post(`/v1.41/containers/${name}/exec`, { Cmd: ['true'] });
      await waitFor(() => api.host.summoned.length > 0, patienceMs, 'a summons');
      const { execId, nodeId: summoned } = api.host.summoned.shift()!;
      assert.equal(summoned, nodeId);
      const agent = new PlayedAgent(api, summoned, execId);
      agent.say({ made: { container_id: 'c1' }, report: 'made' });
      assert.equal((await asked).status, 201);
    }
    // What runs here, and what is no task, is the engine's, and here is none.
    for (const name of [`web.3.${taskId}`, 'web.4', 'abcdefabcdef'])
      assert.equal((await api.post(`/containers/${name}/exec`, { Cmd: ['true'] })).status, 503);
  });

  it('find a task by what people call it, and of a slot the one that runs', async () => {
    const { store } = api.host;
    const { json } = await api.post('/services/create', {
      Name: 'all',
      Mode: { Global: {} },
      TaskTemplate: { ContainerSpec: { Image: 'a' } },
    });
    const node = testNode('node7' as NodeId, 'host.seven', 'worker');
    const { Slot: _, ...onNode } = testTask(api.host, json.ID, { NodeID: node.ID });
    const failed = testTask(api.host, store.get('task', taskId as never)!.ServiceID, {
      Slot: 3,
      CreatedAt: '2027-01-01T00:00:00Z',
      Status: { Timestamp: '', State: 'failed', Message: '' },
      DesiredState: 'shutdown',
    });
    api.host.apply([
      { op: 'create', kind: 'node', object: node },
      { op: 'create', kind: 'task', object: onNode },
      { op: 'create', kind: 'task', object: failed },
    ]);
    for (const name of [taskId, taskId.slice(0, 12), 'web.3', `web.3.${taskId}`])
      assert.equal(lookupTask(store, name).ID, taskId);
    assert.equal(lookupTask(store, `web.3.${failed.ID}`).ID, failed.ID);
    for (const name of ['all.node7', 'all.host.seven']) assert.equal(lookupTask(store, name).ID, onNode.ID);
    for (const name of ['web', 'web.', 'web.33', 'all', 'nothing.1'])
      assert.throws(() => lookupTask(store, name), new RegExp(`task ${name} not found`));
  });
});
