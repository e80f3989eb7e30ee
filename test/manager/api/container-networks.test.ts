/** Containers that a client makes on the engine, on networks of the cluster. */
import assert from 'node:assert/strict';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { text as readText } from 'node:stream/consumers';
import type { ContainerNetwork } from '../../../manager/api/contract.ts';
import { networkIdLabel } from '../../../proto/docker.ts';
import { ShoalError } from '../../../proto/errors.ts';
import { FakeEngine } from './fake-engine.ts';
import { TestApi } from './host.ts';

interface Created {
  readonly HostConfig?: { readonly NetworkMode?: string; readonly Dns?: readonly string[] };
  readonly NetworkingConfig?: { readonly EndpointsConfig?: Record<string, unknown> };
}

describe('api: containers on networks of the cluster', () => {
  let api: TestApi;
  let engine: FakeEngine;
  /** What the engine was asked to make. */
  let made: { path: string; body: Created }[];
  let status: number;
  let asked: [string, readonly string[]][];
  let released: number;
  let kept: number;

  beforeEach(async () => {
    api = await TestApi.start();
    [made, asked, status, released, kept] = [[], [], 201, 0, 0];
    engine = await FakeEngine.http((request, response) => void answer(request, response));
    api.host.engineSocket = engine.socketPath;
    api.host.attachContainer = async (network, names): Promise<ContainerNetwork> => {
      asked.push([network, names]);
      if (!['front', 'id1'].includes(network))
        throw new ShoalError('not-found', `network ${network} not found`);
      return {
        name: 'front.id1',
        addresses: ['10.1.0.9/24', 'fd00::9/64'],
        nameservers: ['10.1.0.254'],
        made: () => {
          kept += 1;
        },
        release: () => {
          released += 1;
        },
      };
    };
  });

  afterEach(async () => {
    await api.close();
    await engine.close();
  });

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const text = await readText(request);
    const path = request.url ?? '';
    response.setHeader('Content-Type', 'application/json');
    if (path.endsWith('/networks')) {
      const labels = { [networkIdLabel]: 'id1' };
      response.end(
        JSON.stringify([
          { Id: 'aaa', Name: 'mine', Labels: {} },
          { Id: 'bbb', Name: 'carried', Labels: labels },
        ]),
      );
      return;
    }
    made.push({ path, body: JSON.parse(text) as Created });
    response.statusCode = status;
    response.end(JSON.stringify(status === 201 ? { Id: 'c1', Warnings: [] } : { message: 'no such image' }));
  }

  const create = (body: Created, name = 'one') => api.post(`/v1.41/containers/create?name=${name}`, body);

  it('get the managers’ address, the engine’s network and the servers of its names', async () => {
    const answered = await create({
      HostConfig: { NetworkMode: 'front', Dns: ['192.0.2.53'] },
      NetworkingConfig: { EndpointsConfig: { front: { Aliases: ['nick', '0123456789ab'] } } },
    });
    assert.deepEqual([answered.status, answered.json.Id], [201, 'c1']);
    assert.deepEqual(asked, [['front', ['one', 'nick']]]);
    assert.deepEqual([kept, released], [1, 0]);
    assert.deepEqual(made[0]?.path, '/v1.41/containers/create?name=one');
    assert.deepEqual(made[0]?.body, {
      HostConfig: { NetworkMode: 'front.id1', Dns: ['10.1.0.254', '192.0.2.53'] },
      NetworkingConfig: {
        EndpointsConfig: {
          'front.id1': {
            Aliases: ['nick', '0123456789ab'],
            IPAMConfig: { IPv4Address: '10.1.0.9', IPv6Address: 'fd00::9' },
          },
        },
      },
    });
  });

  it('find a network of the cluster by the engine’s name and id of it, too', async () => {
    await create({ HostConfig: { NetworkMode: 'carried' } });
    await create({ HostConfig: { NetworkMode: 'bbb' } });
    assert.deepEqual(
      asked.map(([network]) => network),
      ['id1', 'id1'],
    );
    assert.equal(made[1]?.body.HostConfig?.NetworkMode, 'front.id1');
  });

  it('are made as they were asked for on all other networks', async () => {
    for (const mode of ['default', 'bridge', 'host', 'none', 'container:other', 'mine', 'nobodys']) {
      const body = { HostConfig: { NetworkMode: mode } };
      assert.equal((await create(body)).status, 201);
      assert.deepEqual(made.at(-1)?.body, body);
    }
    assert.deepEqual(
      asked.map(([network]) => network),
      ['nobodys'],
    );
  });

  it('that the engine refuses give the address back, and keep its words', async () => {
    status = 404;
    const answered = await create({ HostConfig: { NetworkMode: 'front' } });
    assert.deepEqual([answered.status, answered.json.message], [404, 'no such image']);
    assert.deepEqual([kept, released], [0, 1]);
  });

  it('are refused with the reason why the network can’t be had, and where they bring an address', async () => {
    const ends = { front: { IPAMConfig: { IPv4Address: '10.1.0.77' } } };
    const own = await create({
      HostConfig: { NetworkMode: 'front' },
      NetworkingConfig: { EndpointsConfig: ends },
    });
    assert.equal(own.status, 400);
    assert.match(own.json.message, /leave out --ip/);
    assert.equal(released, 1);
    api.host.attachContainer = () => Promise.reject(new ShoalError('permission-denied', 'not for you'));
    const refused = await create({ HostConfig: { NetworkMode: 'front' } });
    assert.deepEqual([refused.status, refused.json.message], [403, 'not for you']);
    assert.equal(made.length, 0);
  });

  it('that are no JSON are the engine’s to refuse', async () => {
    const answered = await api.post('/containers/create', 'nonsense');
    assert.equal(answered.status, 201);
    assert.deepEqual(asked, []);
  });
});
