/** Logs and events: answers that go on. */
import assert from 'node:assert/strict';
import http from 'node:http';
import type { LogEntry } from '../../../manager/logs/reader.ts';
import { type NodeId, newId } from '../../../proto/ids.ts';
import { TestApi, testNode, testTask } from './host.ts';

const service = (tty: boolean) => ({
  Name: 'web',
  TaskTemplate: { ContainerSpec: { Image: 'a', TTY: tty } },
});

function line(stream: 'stdout' | 'stderr', text: string): LogEntry {
  const timestamp = '2026-01-01T00:00:01Z';
  const [nodeId, serviceId, taskId] = ['n', 's', 't'];
  return {
    kind: 'line',
    stream,
    timestamp,
    nodeId,
    serviceId,
    taskId,
    attributes: {},
    data: Buffer.from(text),
  };
}

/** The frames of a multiplexed stream. */
function frames(bytes: Buffer): [stream: number, text: string][] {
  const found: [number, string][] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at + 4);
    found.push([bytes.readUInt8(at), bytes.subarray(at + 8, at + 8 + length).toString()]);
    at += 8 + length;
  }
  return found;
}

describe('api: logs', () => {
  let api: TestApi;
  beforeEach(async () => {
    api = await TestApi.start();
    api.host.logLines = [line('stdout', 'hello\n'), line('stderr', 'oh\n')];
  });
  afterEach(() => api.close());

  it('tells the streams apart', async () => {
    await api.post('/services/create', service(false));
    const answer = await api.get('/services/web/logs?stdout=1&stderr=1');
    assert.equal(answer.headers['content-type'], 'application/vnd.docker.multiplexed-stream');
    assert.deepEqual(frames(answer.bytes), [
      [1, 'hello\n'],
      [2, 'oh\n'],
    ]);
    const old = await api.get('/v1.41/services/web/logs?stdout=1');
    assert.equal(old.headers['content-type'], 'application/vnd.docker.raw-stream');
  });

  it('sends the lines of a terminal as they are', async () => {
    await api.post('/services/create', service(true));
    assert.equal((await api.get('/services/web/logs?stdout=1')).text, 'hello\noh\n');
  });

  it('puts time and origin before a line when asked', async () => {
    await api.post('/services/create', service(false));
    const answer = await api.get('/services/web/logs?stdout=1&timestamps=1&details=1');
    assert.equal(
      frames(answer.bytes)[0]![1],
      '2026-01-01T00:00:01Z com.docker.swarm.node.id=n,com.docker.swarm.service.id=s,com.docker.swarm.task.id=t hello\n',
    );
  });

  it('hands on what was asked, for a service and for a task', async () => {
    const id = (await api.post('/services/create', service(false))).json.ID as string;
    await api.get('/services/web/logs?stderr=1&tail=7&since=12.5');
    assert.deepEqual(api.host.lastLogRequest, {
      serviceIds: [id],
      taskIds: [],
      stdout: false,
      stderr: true,
      follow: false,
      sinceMs: 12_500,
      tail: 7,
    });
    const task = testTask(api.host, id);
    api.host.apply([{ op: 'create', kind: 'task', object: task }]);
    await api.get(`/tasks/${task.ID}/logs?stdout=1&follow=1&tail=all`);
    assert.deepEqual(api.host.lastLogRequest?.taskIds, [task.ID]);
    assert.deepEqual([api.host.lastLogRequest?.follow, api.host.lastLogRequest?.tail], [true, undefined]);
  });

  it('says which nodes could not be asked', async () => {
    await api.post('/services/create', service(false));
    api.host.logFailure = new Error('warning: incomplete log stream. node n9 is not available');
    const last = frames((await api.get('/services/web/logs?stdout=1')).bytes).at(-1)!;
    assert.equal(last[0], 3);
    assert.match(last[1], /^Error grabbing logs: warning: incomplete log stream.*node n9 is not available/);
  });

  it('refuses to guess', async () => {
    await api.post('/services/create', service(false));
    const refused: [string, RegExp][] = [
      ['', /you must choose at least one stream/],
      ['stdout=1&tail=-1', /negative tail values/],
      ['stdout=1&tail=x', /tail value must be/],
      ['stdout=1&since=yesterday', /invalid value for "since"/],
    ];
    for (const [query, message] of refused) {
      const answer = await api.get(`/services/web/logs?${query}`);
      assert.equal(answer.status, 400);
      assert.match(answer.json.message, message);
    }
    assert.equal((await api.get('/services/nosuch/logs?stdout=1')).status, 404);
  });
});

describe('api: events', () => {
  let api: TestApi;
  beforeEach(async () => {
    api = await TestApi.start();
  });
  afterEach(() => api.close());

  /** Opens the stream, does `act`, and answers the first `count` events. */
  async function eventsOf(query: string, count: number, act: () => Promise<void>) {
    const request = http.get({ socketPath: api.socketPath, path: `/events?${query}` });
    const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
      request.on('response', resolve);
      request.on('error', reject);
    });
    await act();
    let text = '';
    for await (const chunk of response) {
      text += String(chunk);
      if (text.split('\n').length > count) break;
    }
    request.destroy();
    return text
      .split('\n')
      .filter((one) => one !== '')
      .map((one) => JSON.parse(one));
  }

  it('tells what changes, with the old and the new', async () => {
    const told = await eventsOf('', 3, async () => {
      await api.post('/services/create', service(false));
      const { Version } = (await api.get('/services/web')).json;
      const scaled = { ...service(false), Mode: { Replicated: { Replicas: 4 } } };
      await api.post(`/services/web/update?version=${Version.Index}`, scaled);
      await api.delete('/services/web');
    });
    assert.deepEqual(
      told.map((one) => [one.Type, one.Action, one.scope, one.Actor.Attributes]),
      [
        ['service', 'create', 'swarm', { name: 'web' }],
        ['service', 'update', 'swarm', { name: 'web', 'replicas.new': '4', 'replicas.old': '1' }],
        ['service', 'remove', 'swarm', { name: 'web' }],
      ],
    );
  });

  it('tells only what was asked for', async () => {
    const query = `filters=${encodeURIComponent('{"type":["node"],"event":["create"]}')}`;
    const told = await eventsOf(query, 1, async () => {
      await api.post('/services/create', service(false));
      const node = testNode(newId<NodeId>(api.host.random), 'w7', 'worker');
      api.host.apply([{ op: 'create', kind: 'node', object: node }]);
    });
    assert.deepEqual(told[0].Actor.Attributes, { name: 'w7' });
  });

  const namesOf = (told: { Type: string; Action: string; Actor: { Attributes: { name: string } } }[]) =>
    told.map((one) => `${one.Type} ${one.Action} ${one.Actor.Attributes.name}`);

  it('remembers the past, in order, and goes on from it', async () => {
    await api.post('/services/create', service(false));
    const sinceMs = api.host.clock.now() + 5_000;
    api.host.clock.advance(5_000);
    await api.delete('/services/web');
    const told = await eventsOf(`since=${sinceMs / 1000}`, 2, async () => {
      await api.post('/configs/create', { Name: 'c', Data: 'YQ==' });
    });
    assert.deepEqual(namesOf(told), ['service remove web', 'config create c']);
    assert.deepEqual([told[0].time, told[0].timeNano], [Math.floor(sinceMs / 1000), sinceMs * 1e6]);
  });

  it('ends at once when asked for the past alone, and at --until otherwise', async () => {
    await api.post('/services/create', service(false));
    const now = api.host.clock.now() / 1000;
    const past = await eventsOf(`since=${now - 60}&until=${now}`, 99, () => Promise.resolve());
    assert.deepEqual(namesOf(past), ['node create m1', 'service create web']);
    const told = await eventsOf(`until=${now + 1}`, 99, async () => api.host.clock.fire());
    assert.deepEqual(namesOf(told), ['node create m1', 'service create web']);
    const refused = await api.get('/events?since=20&until=10');
    assert.equal(refused.status, 400);
    assert.equal(refused.json.message, '`since` time (20) cannot be after `until` time (10)');
  });

  it('passes an event only when every filter lets it pass', async () => {
    await api.post('/services/create', { ...service(false), Labels: { tier: 'front' } });
    await api.post('/configs/create', { Name: 'web', Data: 'YQ==' });
    const asked = async (filters: object): Promise<string[]> => {
      const query = `since=1&until=${api.host.clock.now() / 1000}`;
      const filtered = `${query}&filters=${encodeURIComponent(JSON.stringify(filters))}`;
      return namesOf(await eventsOf(filtered, 99, () => Promise.resolve()));
    };
    assert.deepEqual(await asked({ type: ['service', 'config'] }), [
      'service create web',
      'config create web',
    ]);
    assert.deepEqual(await asked({ service: ['we'] }), ['service create web']);
    assert.deepEqual(await asked({ node: ['m1'] }), ['node create m1']);
    assert.deepEqual(await asked({ node: ['m1'], service: ['web'] }), []);
    assert.deepEqual(await asked({ label: ['tier=front'] }), ['service create web']);
    assert.deepEqual(await asked({ scope: ['local'] }), []);
    assert.deepEqual(await asked({ container: ['web'] }), []);
    assert.deepEqual(await asked({ event: ['update', 'remove'] }), []);
  });

  it('tells a node’s new labels, and not what only managers know of it', async () => {
    const node = api.host.store.list('node')[0]!;
    const told = await eventsOf('', 1, async () => {
      const merge = (fields: Partial<typeof node>) =>
        api.host.apply([{ op: 'merge', kind: 'node', id: node.ID, fields }]);
      merge({ Private: { Role: 'manager', DownSince: 5 } });
      merge({ Spec: { ...node.Spec, Labels: { disk: 'ssd' } } });
      merge({ Spec: { ...node.Spec, Availability: 'drain' } });
    });
    assert.deepEqual(told[0].Actor.Attributes, { name: 'm1' });
  });
});
