import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import {
  meshProblems,
  type ProxyTarget,
  proxiedPorts,
  proxyProblems,
} from '../../../agent/network/proxied.ts';
import { TcpProxy } from '../../../agent/network/tcp-proxy.ts';
import { realClock } from '../../../cli/runtime.ts';
import { waitFor } from '../../lab/lab.ts';
import { desired, endpoint, here, service } from './desired-objects.ts';

const host = '127.0.0.97';
const boundMs = 20_000;

describe('a proxy of published ports', function () {
  this.timeout(60_000);
  let proxy: TcpProxy;
  let port: number;
  let servers: Server[];

  beforeEach(async () => {
    servers = [];
    const free = createServer().listen(0, host);
    await once(free, 'listening');
    ({ port } = free.address() as AddressInfo);
    free.close();
    await once(free, 'close');
    proxy = new TcpProxy(realClock, host);
  });

  afterEach(() => {
    proxy.stop();
    for (const one of servers) one.close();
  });

  /** A task whose server does `serve` with each connection. */
  async function task(taskId: string, serve: (socket: Socket) => void): Promise<ProxyTarget> {
    const server = createServer({ allowHalfOpen: true }, serve).listen(0, '127.0.0.1');
    servers.push(server);
    await once(server, 'listening');
    return { taskId, address: '127.0.0.1', port: (server.address() as AddressInfo).port };
  }

  /** Says its name and ends. */
  const named = (name: string) => task(name, (socket) => socket.end(name));
  const become = (...targets: ProxyTarget[]) => proxy.become(new Map([[port, targets]]));
  const client = () => connect({ host, port, allowHalfOpen: true });
  const ask = (): Promise<string> => text(client());

  it('sends connections to each target in turn', async () => {
    await become(await named('a'), await named('b'), await named('c'));
    const answers = [];
    for (let count = 0; count < 6; count += 1) answers.push(await ask());
    assert.deepEqual(answers.sort(), ['a', 'a', 'b', 'b', 'c', 'c']);
    assert.deepEqual(proxy.figures, { passedOn: 6, refused: 0 });
  });

  it('sends as many of them to each as its weight says', async () => {
    await become({ ...(await named('new')), weight: 1 }, { ...(await named('old')), weight: 3 });
    const answers = [];
    for (let count = 0; count < 8; count += 1) answers.push(await ask());
    for (const four of [answers.slice(0, 4), answers.slice(4)]) {
      assert.deepEqual(four.sort(), ['new', 'old', 'old', 'old']);
    }
  });

  it('passes on all bytes both ways, also after one side has ended', async () => {
    const echo = await task('echo', (socket) => {
      const chunks: Buffer[] = [];
      socket.on('data', (chunk) => chunks.push(chunk));
      socket.on('end', () => socket.end(Buffer.concat(chunks)));
    });
    await become(echo);
    const sent = Buffer.alloc(5_000_000, 'shoal');
    const socket = client();
    socket.end(sent);
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk as Buffer);
    assert.ok(Buffer.concat(chunks).equals(sent));
  });

  it('sends nothing new to a target that is withdrawn; what stands goes on', async () => {
    const old = await task('old', (socket) => socket.pipe(socket));
    await become(old);
    const standing = client();
    standing.write('before ');
    await once(standing, 'data');
    await become(await named('new'));
    for (let count = 0; count < 5; count += 1) assert.equal(await ask(), 'new');
    standing.end('after');
    assert.equal(await text(standing), 'after');
  });

  it('goes to the next when a target does not take a connection, and refuses where none does', async () => {
    const gone = await named('gone');
    servers.pop()!.close();
    await become(gone, await named('a'));
    for (let count = 0; count < 4; count += 1) assert.equal(await ask(), 'a');
    await become(gone);
    await assert.rejects(ask(), { code: 'ECONNRESET' });
    await become();
    await assert.rejects(ask(), { code: 'ECONNRESET' });
    assert.equal(proxy.figures.refused, 2);
  });

  it('tells each side of the other’s failure', async () => {
    let server: Socket | undefined;
    await become(
      await task('a', (socket) => {
        socket.on('error', () => {});
        socket.write('hello');
        server = socket;
      }),
    );
    const first = client();
    await once(first, 'data');
    server!.resetAndDestroy();
    const [error] = (await once(first, 'error')) as [NodeJS.ErrnoException];
    assert.equal(error.code, 'ECONNRESET');
    const second = client();
    await once(second, 'data');
    second.resetAndDestroy();
    await waitFor('the server to hear of it', boundMs, () => server!.destroyed);
  });

  it('tells of a port that is someone else’s, takes it when it is free, and lets go of it', async () => {
    const other = createServer().listen(port, host);
    await once(other, 'listening');
    const target = await named('a');
    assert.match((await become(target)).get(port) ?? '', /is held by another program on this node/);
    other.close();
    await once(other, 'close');
    assert.deepEqual([...(await become(target))], []);
    assert.equal(await ask(), 'a');
    await proxy.become(new Map());
    await assert.rejects(ask(), { code: 'ECONNREFUSED' });
  });
});

describe('published ports without rules', () => {
  const host = (address: string, port: number) => ({
    host: { address, ports: { '80': port } },
    addresses: {},
  });
  const tcp = { name: '', protocol: 'tcp' as const, targetPort: 80, publishedPort: 8080 };
  const udp = { name: '', protocol: 'udp' as const, targetPort: 53, publishedPort: 5353 };
  const own = endpoint('', '', { taskId: 't1', nodeId: here, ...host('192.0.2.1', 32_001) });
  const far = endpoint('', '', { taskId: 't2', nodeId: 'node-2', ...host('192.0.2.2', 8080) });
  const unreached = endpoint('net', '10.0.0.3', { taskId: 't3', nodeId: 'node-3' });
  const web = (fields: Parameters<typeof service>[1]) =>
    desired([], [service('web', { ports: [tcp], ...fields })]);

  it('lead to tasks here by the loopback, to others by their node; not to who drains or has no way', () => {
    const endpoints = [far, own, unreached, { ...far, taskId: 't4', isDraining: true }];
    assert.deepEqual(
      [...proxiedPorts(web({ endpoints }), here)],
      [
        [
          8080,
          [
            { taskId: 't1', address: '127.0.0.1', port: 32_001 },
            { taskId: 't2', address: '192.0.2.2', port: 8080 },
          ],
        ],
      ],
    );
  });

  it('lead to tasks here alone where the service asks for it', () => {
    const state = web({ endpoints: [far, own], options: { 'shoal.ingress': 'local' } });
    assert.deepEqual(
      proxiedPorts(state, here)
        .get(8080)
        ?.map(({ taskId }) => taskId),
      ['t1'],
    );
    assert.deepEqual(proxiedPorts(state, 'node-9').get(8080), []);
    assert.deepEqual(proxyProblems(state, 'node-9'), []);
  });

  it('are named where they can’t be had: UDP, tasks out of reach, tasks behind proxies for the mesh', () => {
    const words = (list: readonly { message: string }[]) => list.map(({ message }) => message).join('; ');
    assert.match(
      words(proxyProblems(web({ ports: [udp], endpoints: [own] }), here)),
      /^port 5353\/udp is not answered/,
    );
    assert.match(words(proxyProblems(web({ endpoints: [unreached] }), here)), /out of reach/);
    assert.deepEqual(proxyProblems(web({ endpoints: [unreached, own] }), here), []);
    assert.deepEqual(proxyProblems(web({ endpoints: [] }), here), []);
    assert.match(words(meshProblems(web({ endpoints: [own] }))), /TCP proxy in place of a routing mesh/);
    assert.deepEqual(meshProblems(web({ endpoints: [own, unreached] })), []);
    assert.deepEqual(meshProblems(web({ endpoints: [own], options: { 'shoal.ingress': 'local' } })), []);
  });
});
