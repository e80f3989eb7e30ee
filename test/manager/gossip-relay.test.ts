import assert from 'node:assert/strict';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { realClock } from '../../cli/runtime.ts';
import { GossipRelay } from '../../manager/gossip-relay.ts';
import { Store } from '../../manager/store/store.ts';
import type { NodeId } from '../../proto/ids.ts';
import { silentLog } from '../../proto/ports.ts';
import { freePort } from '../cli/daemon.ts';
import { waitFor } from '../lab/lab.ts';
import { makeNode } from './orchestrator/objects.ts';

const stock = { Engine: { Plugins: [{ Type: 'Network', Name: 'overlay' }] } };

describe('manager: where stock engines find each other', () => {
  let store: Store;
  let relay: GossipRelay | undefined;
  let servers: Server[] = [];
  let open: Socket[] = [];
  let port: number;
  let workerPort: number;

  beforeEach(async () => {
    store = new Store();
    [port, workerPort] = [await freePort(), await freePort()];
  });

  afterEach(async () => {
    for (const socket of open) socket.destroy();
    await relay?.stop();
    await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
    [relay, servers, open] = [undefined, [], []];
  });

  function start(): void {
    const clock = realClock;
    relay = new GossipRelay({ store, host: '127.0.0.1', port, workerPort, clock, log: silentLog });
  }

  function commit(id: string, address: string, State: 'ready' | 'down' = 'ready', description = stock): void {
    const object = makeNode(id, { Description: description, Status: { State, Addr: address } });
    const known = store.get('node', id as NodeId);
    store.applyEntry(store.index + 1, {
      now: 0,
      changes: known
        ? [{ op: 'merge', kind: 'node', id: object.ID, fields: { Status: object.Status } }]
        : [{ op: 'create', kind: 'node', object }],
    });
  }

  /** A worker that answers each greeting with its own name. */
  async function worker(address: string): Promise<void> {
    const server = createServer((socket) => {
      open.push(socket);
      socket.on('data', (data) => socket.write(`${address} heard ${data}`));
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(workerPort, address, resolve));
  }

  /** What a worker at `source` hears when it says hello; 'closed' when nobody answers, 'refused' when nobody listens. */
  function hello(source: string): Promise<string> {
    return new Promise((resolve) => {
      const socket = createConnection({ host: '127.0.0.1', port, localAddress: source });
      open.push(socket);
      socket.on('connect', () => socket.write('hello'));
      socket.on('data', (data) => resolve(String(data)));
      socket.on('error', () => resolve('refused'));
      socket.on('close', () => resolve('closed'));
    });
  }

  it('passes a worker on to another one, never to itself', async () => {
    await Promise.all([worker('127.0.0.2'), worker('127.0.0.3')]);
    commit('d1', '127.0.0.2');
    commit('d2', '127.0.0.3');
    start();
    for (let round = 0; round < 4; round += 1) {
      assert.equal(await hello('127.0.0.2'), '127.0.0.3 heard hello');
      assert.equal(await hello('127.0.0.3'), '127.0.0.2 heard hello');
    }
  });

  it('passes over one that does not answer; alone, a worker finds nobody', async () => {
    await worker('127.0.0.3');
    for (const [id, address] of [
      ['d1', '127.0.0.2'],
      ['d2', '127.0.0.3'],
      ['d3', '127.0.0.4'],
    ] as const)
      commit(id, address);
    start();
    for (let round = 0; round < 3; round += 1)
      assert.equal(await hello('127.0.0.2'), '127.0.0.3 heard hello');
    commit('d2', '127.0.0.3', 'down');
    commit('d3', '127.0.0.4', 'down');
    assert.equal(await hello('127.0.0.2'), 'closed');
  });

  it('listens only while there are stock workers', async () => {
    await worker('127.0.0.3');
    const ours = { Engine: { Labels: { 'shoal.engine.id': 'e' }, Plugins: stock.Engine.Plugins } };
    commit('s1', '127.0.0.5', 'ready', ours);
    start();
    assert.equal(await hello('127.0.0.2'), 'refused');
    commit('d2', '127.0.0.3');
    await waitFor(
      'the relay to follow',
      10_000,
      async () => (await hello('127.0.0.2')) === '127.0.0.3 heard hello',
    );
    commit('d2', '127.0.0.3', 'down');
    await waitFor('the relay to follow', 10_000, async () => (await hello('127.0.0.2')) === 'refused');
  });
});
