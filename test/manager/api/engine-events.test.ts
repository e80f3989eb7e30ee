/** /events where the cluster has some and the engine has some. */
import assert from 'node:assert/strict';
import http from 'node:http';
import { waitFor } from '../../agent/wait.ts';
import { FakeEngine } from './fake-engine.ts';
import { TestApi } from './host.ts';

const boundMs = 10_000;

describe('api: events of the cluster and of the engine', () => {
  let api: TestApi;
  let engine: FakeEngine;
  let asked: URLSearchParams[];
  let live: http.ServerResponse | undefined;
  let past: object[];
  let startMs: number;

  beforeEach(async () => {
    [asked, past, live] = [[], [], undefined];
    api = await TestApi.start();
    startMs = api.host.clock.now();
    engine = await FakeEngine.http((request, response) => {
      const url = new URL(request.url!, 'http://engine');
      if (!/events/.test(url.pathname)) {
        response.end('OK');
        return;
      }
      asked.push(url.searchParams);
      response.setHeader('Content-Type', 'application/json').flushHeaders();
      const until = Number(url.searchParams.get('until') ?? Number.NaN) * 1000;
      if (until <= startMs) response.end(past.map((event) => `${JSON.stringify(event)}\n`).join(''));
      else live = response;
    });
    api.host.engineSocket = engine.socketPath;
  });
  afterEach(async () => {
    await api.close();
    await engine.close();
  });

  /** Follows /events; what came, and whether it ended. */
  function follow(query: string): { actions: () => string[]; ended: () => boolean; stop(): void } {
    let text = '';
    let hasEnded = false;
    const request = http.get({ socketPath: api.socketPath, path: `/events?${query}` }, (response) => {
      response.on('data', (chunk: Buffer) => {
        text += chunk.toString();
      });
      response.on('end', () => {
        hasEnded = true;
      });
      response.on('error', () => {});
    });
    request.on('error', () => {});
    return {
      actions: () =>
        text
          .split('\n')
          .slice(0, -1)
          .map((line) => JSON.parse(line) as { Type: string; Action: string })
          .map(({ Type, Action }) => `${Type} ${Action}`),
      ended: () => hasEnded,
      stop: () => request.destroy(),
    };
  }

  const filters = (value: object) => `filters=${encodeURIComponent(JSON.stringify(value))}`;
  const secret = (Name: string) => api.post('/secrets/create', { Name, Data: 'eA==' });
  const container = (Action: string, timeMs: number) => ({
    ...{ Type: 'container', Action, scope: 'local', timeNano: timeMs * 1e6 },
  });

  it('tells both as they come, whole lines each', async () => {
    const events = follow('');
    await waitFor(() => live !== undefined, boundMs);
    live!.write('{"Type":"container","Action":"cre');
    await secret('one');
    await waitFor(() => events.actions().length === 1, boundMs);
    live!.write('ate"}\n{"Type":"container","Action":"start"}\n');
    await waitFor(() => events.actions().length === 3, boundMs);
    assert.deepEqual(events.actions(), ['secret create', 'container create', 'container start']);
    assert.equal(asked[0]!.get('since'), null);
    live!.end();
    await waitFor(() => events.ended(), boundMs);
  });

  it('puts what happened in one order, and then tells what comes', async () => {
    await secret('one');
    past = [container('start', startMs - 5_000), container('die', startMs + 1)];
    const types = filters({ type: ['secret', 'container'] });
    const events = follow(`since=${startMs / 1000 - 60}&${types}`);
    await waitFor(() => live !== undefined, boundMs);
    await secret('two');
    live!.write(`${JSON.stringify(container('destroy', startMs))}\n`);
    await waitFor(() => events.actions().length === 5, boundMs);
    const [first, ...others] = events.actions();
    assert.equal(first, 'container start');
    assert.deepEqual(others.slice(0, 2), ['secret create', 'container die']);
    assert.deepEqual(others.slice(2).sort(), ['container destroy', 'secret create']);
    assert.ok(Number(asked[0]!.get('until')) <= startMs / 1000);
    assert.equal(Number(asked[1]!.get('since')), startMs / 1000);
    events.stop();
    await waitFor(() => engine.connections === 0, boundMs);
  });

  it('ends by itself when it is asked for the past alone', async () => {
    past = [container('start', startMs - 5_000)];
    const events = follow(`since=${startMs / 1000 - 60}&until=${startMs / 1000 - 1}`);
    await waitFor(() => events.ended(), boundMs);
    assert.deepEqual(events.actions(), ['container start']);
  });

  it('leaves the engine alone when only the cluster’s are wanted', async () => {
    const events = [follow(filters({ scope: ['swarm'] })), follow(filters({ type: ['secret', 'node'] }))];
    // A watch stands when an event is heard; until then each round makes one more.
    let round = 0;
    while (events.some((one) => one.actions().length === 0)) {
      await secret(`s${round++}`);
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.deepEqual(asked, []);
    for (const one of events) one.stop();
  });

  it('tells the engine’s where there is no cluster, and the cluster’s where there is no engine', async () => {
    api.host.become({ kind: 'none' });
    const local = follow(filters({ type: ['container'] }));
    await waitFor(() => live !== undefined, boundMs);
    live!.write('{"Type":"container","Action":"start"}\n');
    await waitFor(() => local.actions().length === 1, boundMs);
    assert.equal(asked[0]!.get('filters'), '{"type":["container"]}');
    api.host.engineSocket = undefined;
    assert.equal((await api.get('/events')).status, 503);
    api.host.becomeManager();
    await secret('one');
    const types = filters({ type: ['secret', 'container'] });
    const cluster = follow(`since=${startMs / 1000 - 60}&until=${startMs / 1000}&${types}`);
    await waitFor(() => cluster.ended(), boundMs);
    assert.deepEqual(cluster.actions(), ['secret create']);
    local.stop();
  });
});
