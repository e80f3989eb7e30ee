/** /networks where the cluster has some and the engine has some. */
import assert from 'node:assert/strict';
import { networkIdLabel } from '../../../proto/docker.ts';
import { waitFor } from '../../agent/wait.ts';
import { FakeEngine } from './fake-engine.ts';
import { type Answer, TestApi } from './host.ts';

interface Network {
  Id: string;
  Name: string;
  Scope: string;
  Driver: string;
  Labels: Record<string, string>;
}

const local = (Id: string, Name: string, Labels: Record<string, string> = {}): Network => ({
  ...{ Id, Name, Scope: 'local', Driver: 'bridge', Labels },
});
const overlay = (Name: string, more: object = {}) => ({ Name, Driver: 'overlay', Attachable: true, ...more });

describe('api: networks of the cluster and of the engine', () => {
  let api: TestApi;
  let engine: FakeEngine;
  let networks: Network[];
  /** What the engine was asked, beside lists: method, target, body. */
  let asked: string[];

  beforeEach(async () => {
    networks = [local('aaa1', 'bridge'), local('bbb2', 'mine', { x: '1' })];
    asked = [];
    engine = await FakeEngine.http((request, response) => {
      let body = '';
      request.on('data', (chunk: Buffer) => {
        body += chunk.toString();
      });
      request.on('end', () => {
        const url = new URL(request.url!, 'http://engine');
        response.setHeader('Api-Version', '1.41').setHeader('Content-Type', 'application/json');
        const id = /\/networks\/([^/]+)$/.exec(url.pathname)?.[1];
        const one = networks.find((network) => network.Id === id);
        if (/\/networks$/.test(url.pathname)) response.end(JSON.stringify(listed(url)));
        else if (request.method === 'GET' && one)
          response.end(JSON.stringify({ ...one, Containers: { c1: { Name: 'web.1' } } }));
        else if (/_ping$/.test(url.pathname)) response.setHeader('Content-Type', 'text/plain').end('OK');
        else {
          asked.push(`${request.method} ${decodeURIComponent(request.url!)} ${body}`);
          response.writeHead(request.method === 'DELETE' ? 204 : /prune/.test(url.pathname) ? 200 : 201);
          response.end(request.method === 'DELETE' ? '' : '{"Id":"new","NetworksDeleted":["old"]}');
        }
      });
    });
    api = await TestApi.start();
    api.host.engineSocket = engine.socketPath;
  });
  afterEach(async () => {
    await api.close();
    await engine.close();
  });

  function listed(url: URL): Network[] {
    const filters = JSON.parse(url.searchParams.get('filters') ?? '{}') as { label?: string[] };
    return networks.filter(({ Labels }) => (filters.label ?? []).every((name) => name in Labels));
  }

  const names = (answer: Answer) => (answer.json as Network[]).map(({ Name }) => Name);
  const filter = (value: object) => `/networks?filters=${encodeURIComponent(JSON.stringify(value))}`;

  /** Makes a network of the cluster that the engine carries. */
  async function carried(name: string): Promise<string> {
    const id = (await api.post('/networks/create', overlay(name))).json.Id as string;
    networks.push(local('ccc3', name, { [networkIdLabel]: id }));
    return id;
  }

  it('lists each once, the cluster’s as the cluster’s', async () => {
    const id = await carried('front');
    const { json } = await api.get('/v1.51/networks');
    assert.deepEqual(
      (json as Network[]).map(({ Id, Name, Scope }) => [Id, Name, Scope]),
      [
        [id, 'front', 'swarm'],
        ['aaa1', 'bridge', 'local'],
        ['bbb2', 'mine', 'local'],
      ],
    );
    assert.deepEqual(names(await api.get(filter({ scope: ['local'] }))), ['bridge', 'mine']);
    assert.deepEqual(names(await api.get(filter({ name: ['^m'] }))), ['mine']);
    assert.deepEqual(names(await api.get(filter({ type: ['builtin'] }))), ['bridge']);
    assert.deepEqual(names(await api.get(filter({ id: [id] }))), ['front']);
  });

  it('shows on a worker what its engine carries for the cluster', async () => {
    const id = await carried('front');
    api.host.become({ kind: 'worker', nodeId: api.host.nodeId, managers: [] });
    assert.deepEqual(names(await api.get('/networks')), ['front', 'bridge', 'mine']);
    const shown = (await api.get('/networks/front')).json;
    assert.deepEqual([shown.Id, shown.Scope, shown.Driver, shown.Labels], [id, 'swarm', 'overlay', {}]);
    assert.deepEqual(Object.keys(shown.Containers), ['c1']);
    const removal = await api.delete('/networks/front');
    assert.equal(removal.status, 503);
    assert.match(removal.json.message, /^This node is not a swarm manager\. Worker nodes/);
  });

  it('inspects by id, name and beginning of an id, the engine’s from the engine', async () => {
    const id = await carried('front');
    assert.deepEqual((await api.get('/networks/mine')).json.Containers, { c1: { Name: 'web.1' } });
    assert.equal((await api.get('/networks/bb')).json.Name, 'mine');
    const cluster = (await api.get('/networks/front')).json;
    assert.deepEqual([cluster.Id, Object.keys(cluster.Containers)], [id, ['c1']]);
    assert.equal((await api.get('/networks/mine?scope=swarm')).status, 404);
    assert.equal((await api.get('/networks/front?scope=local')).status, 404);
    networks.push(local('bbb4', 'mine'));
    const message = 'network mine is ambiguous (2 matches found based on name)';
    assert.deepEqual((await api.get('/networks/mine')).json, { message });
  });

  it('gives to the engine what is to be made on it, and takes for the cluster what is not', async () => {
    const body = { Name: 'plain', CheckDuplicate: true, Driver: 'bridge', Options: { 'a.b': 'c' } };
    assert.deepEqual((await api.post('/v1.51/networks/create', body)).json.Id, 'new');
    assert.deepEqual(asked, [`POST /v1.41/networks/create ${JSON.stringify(body)}`]);
    assert.equal((await api.post('/networks/create', { Name: 'other' })).status, 201);
    assert.equal(api.host.store.count('network'), 0);
    assert.equal((await api.post('/networks/create', overlay('mine'))).status, 409);
    await api.post('/networks/create', overlay('front'));
    const taken = await api.post('/networks/create', { Name: 'front' });
    assert.deepEqual([taken.status, taken.json.message], [409, 'network with name front already exists']);
    api.host.become({ kind: 'none' });
    assert.equal((await api.post('/networks/create', overlay('far'))).status, 503);
    assert.equal((await api.post('/networks/create', { Name: 'near' })).status, 201);
  });

  it('removes either, and prunes both, but for what carries the cluster’s', async () => {
    await api.post('/networks/create', overlay('front'));
    assert.equal((await api.delete('/networks/mine')).status, 204);
    assert.deepEqual(asked.splice(0), ['DELETE /networks/bbb2 ']);
    await api.post('/networks/create', overlay('back'));
    assert.equal((await api.delete('/networks/back')).status, 204);
    assert.deepEqual(asked, [], 'the cluster’s is no matter of the engine');
    assert.equal((await api.get('/networks/back')).status, 404);
    const far = `/networks/prune?filters=${encodeURIComponent(JSON.stringify({ until: ['1h'] }))}`;
    assert.deepEqual((await api.post(far)).json, { NetworksDeleted: ['old'] });
    assert.deepEqual((await api.post('/networks/prune')).json, { NetworksDeleted: ['old', 'front'] });
    assert.match(asked[0]!, /"until":\["1h"\],"label!":\["shoal\.network\.id"\]/);
  });

  it('lists the cluster’s without waiting for an engine that hangs', async () => {
    await api.post('/networks/create', overlay('front'));
    const silent = await FakeEngine.raw(() => {});
    try {
      api.host.engineSocket = silent.socketPath;
      const answer = api.get('/networks');
      const ping = api.get('/_ping');
      await waitFor(() => silent.connections === 2, 10_000);
      api.host.clock.fire();
      assert.deepEqual(names(await answer), ['front', 'bridge', 'host', 'none']);
      assert.equal((await ping).text, 'OK');
    } finally {
      await silent.close();
    }
  });

  it('connects containers where it can, and says why where it can not', async () => {
    await api.post('/networks/mine/connect', { Container: 'c' });
    assert.deepEqual(asked.splice(0), ['POST /networks/bbb2/connect {"Container":"c"}']);
    await carried('front');
    await api.post('/networks/front/disconnect', { Container: 'c' });
    assert.deepEqual(asked.splice(0), ['POST /networks/ccc3/disconnect {"Container":"c"}']);
    await api.post('/networks/create', overlay('closed', { Attachable: false }));
    const closed = await api.post('/networks/closed/connect', { Container: 'c' });
    assert.equal(closed.status, 403);
    assert.match(closed.json.message, /desc = network closed not manually attachable$/);
    await api.post('/networks/create', overlay('away'));
    assert.match((await api.post('/networks/away/connect', {})).json.message, /is not on this node/);
  });
});
