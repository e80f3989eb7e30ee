import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import fc from 'fast-check';
import {
  bothFamilies,
  meshProblems,
  type ProxyTarget,
  proxiedPorts,
  proxiedPortsOfMesh,
  proxyDifference,
  proxyProblems,
} from '../../../agent/network/proxied.ts';
import { TcpProxy } from '../../../agent/network/tcp-proxy.ts';
import { realClock } from '../../../cli/runtime.ts';
import { waitFor } from '../../lab/lab.ts';
import { desired, endpoint, here, network, service } from './desired-objects.ts';

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
  const become = (...targets: ProxyTarget[]) =>
    proxy.become(new Map([[port, { targets, tellsClient: false }]]));
  /** As become, with a header before the client's bytes. */
  const tell = (...targets: ProxyTarget[]) => proxy.become(new Map([[port, { targets, tellsClient: true }]]));
  /** Answers with all that it was sent, in hexadecimal digits. */
  const shown = (name: string) =>
    task(name, (socket) => {
      const chunks: Buffer[] = [];
      socket.on('data', (chunk) => chunks.push(chunk));
      socket.on('end', () => socket.end(Buffer.concat(chunks).toString('hex')));
    });
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

  it('tells a target the client’s address and the one that was asked, before all that the client says', async () => {
    await tell(await shown('a'));
    const socket = connect({ host, port, localAddress: '127.0.0.98', allowHalfOpen: true });
    socket.end('hello');
    const { localPort } = await once(socket, 'connect').then(() => socket);
    const digits = (number: number) => number.toString(16).padStart(4, '0');
    const signature = '0d0a0d0a000d0a515549540a';
    assert.equal(
      await text(socket),
      `${signature}2111000c7f0000627f000061${digits(localPort!)}${digits(port)}${Buffer.from('hello').toString('hex')}`,
    );
  });

  it('tells it the next target, too, when the first does not take the connection', async () => {
    const gone = await named('gone');
    servers.pop()!.close();
    await tell({ ...gone, taskId: 'a' }, await shown('b'));
    for (let count = 0; count < 4; count += 1) {
      const socket = client();
      socket.end();
      const answer = await text(socket);
      assert.ok(answer.startsWith('0d0a0d0a000d0a515549540a2111000c7f00'), answer);
      assert.equal(answer.length, 2 * 28);
    }
  });

  it('is asked over IPv6 and IPv4 where it listens for both, and tells either as it is', async function () {
    proxy.stop();
    proxy = new TcpProxy(realClock, bothFamilies);
    await tell(await shown('a'));
    const families = new Map<string, string>();
    for (const address of ['127.0.0.1', '::1']) {
      const socket = connect({ host: address, port, allowHalfOpen: true });
      socket.end();
      const answer = await text(socket).catch((error: NodeJS.ErrnoException) => error.code ?? '');
      // The machine of the test may have no IPv6 itself.
      if (address === '::1' && /^E/.test(answer)) return this.skip();
      families.set(address, answer.slice(24, 32));
    }
    assert.deepEqual([...families.values()], ['2111000c', '21210024']);
    assert.equal(proxy.listening.get(port)?.host, '::');
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
    assert.equal(proxy.listening.size, 0);
    assert.equal(await proxy.retry(), true);
    assert.equal(await proxy.retry(), false);
    assert.equal(await ask(), 'a');
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
          {
            targets: [
              { taskId: 't1', address: '127.0.0.1', port: 32_001 },
              { taskId: 't2', address: '192.0.2.2', port: 8080 },
            ],
            tellsClient: false,
          },
        ],
      ],
    );
  });

  it('lead to tasks here alone where the service asks for it', () => {
    const state = web({ endpoints: [far, own], options: { 'shoal.ingress': 'local' } });
    assert.deepEqual(
      proxiedPorts(state, here)
        .get(8080)
        ?.targets.map(({ taskId }) => taskId),
      ['t1'],
    );
    assert.deepEqual(proxiedPorts(state, 'node-9').get(8080)?.targets, []);
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

  describe('of services whose tasks are told the client’s address', () => {
    const options = { 'shoal.ingress': 'proxy-protocol' };
    const ingress = network(4097, { isIngress: true });
    const told = (fields: Parameters<typeof service>[1]) =>
      desired([ingress, network(4098)], [service('web', { ports: [tcp, udp], options, ...fields })]);
    const onMesh = endpoint('', '', {
      taskId: 't5',
      addresses: { net4097: ['fd00::5', '10.60.1.5'], net4098: ['10.60.2.5'] },
      host: { address: '192.0.2.5', ports: { '80': 8080 } },
    });

    it('lead from a node without rules to tasks on such nodes, for one with rules would tell them this one', () => {
      const state = told({ endpoints: [own, far, onMesh] });
      const { targets = [], tellsClient } = proxiedPorts(state, here).get(8080) ?? {};
      assert.deepEqual([targets.map(({ taskId }) => taskId), tellsClient], [['t1', 't2'], true]);
      const words = proxyProblems(told({ ports: [tcp], endpoints: [onMesh] }), here);
      assert.match(
        words[0]?.message ?? '',
        /^its published ports are not answered: .* ask a node with a mesh$/,
      );
      assert.deepEqual(proxyProblems(told({ ports: [tcp], endpoints: [onMesh, own] }), here), []);
    });

    it('lead from a node with rules to all: on the ingress network, else by the task’s host', () => {
      const state = told({
        endpoints: [{ ...far, weight: 3 }, onMesh, { ...own, isDraining: true }, unreached],
      });
      assert.deepEqual(
        [...proxiedPortsOfMesh(state)],
        [
          [
            8080,
            {
              targets: [
                { taskId: 't2', address: '192.0.2.2', port: 8080, weight: 3 },
                { taskId: 't5', address: '10.60.1.5', port: 80 },
              ],
              tellsClient: true,
            },
          ],
        ],
      );
      assert.deepEqual(meshProblems(told({ endpoints: [own] })), []);
      for (const other of [{}, { 'shoal.ingress': 'local' }]) {
        assert.equal(proxiedPortsOfMesh(told({ endpoints: [onMesh], options: other })).size, 0);
      }
      assert.equal(proxiedPortsOfMesh({ ...state, networks: [network(4098)] }).size, 0);
    });

    it('are told apart from what is answered now: opened, other targets, closed', () => {
      const one = proxiedPortsOfMesh(told({ endpoints: [onMesh] }));
      const both = proxiedPortsOfMesh(told({ endpoints: [{ ...far, weight: 2 }, onMesh] }));
      const head = ' with a PROXY protocol header';
      assert.deepEqual(proxyDifference(one, one), []);
      assert.deepEqual(proxyDifference(one, new Map()), [`shoald proxy tcp/8080 to 10.60.1.5:80${head}`]);
      assert.deepEqual(proxyDifference(both, one), [
        `shoald proxy tcp/8080 to 192.0.2.2:8080 weight 2, 10.60.1.5:80${head}`,
      ]);
      assert.deepEqual(proxyDifference(new Map(), one), ['shoald proxy close tcp/8080']);
      const plain = new Map([...one].map(([port, each]) => [port, { ...each, tellsClient: false }]));
      assert.equal(proxyDifference(one, plain).length, 1);
    });

    it('lead to each task that takes connections, once, and to no other, wherever it is', () => {
      const one = fc.record({
        isDraining: fc.boolean(),
        isOnMesh: fc.boolean(),
        weight: fc.option(fc.integer({ min: 1, max: 99 }), { nil: undefined }),
      });
      fc.assert(
        fc.property(fc.array(one, { maxLength: 8 }), (tasks) => {
          const endpoints = tasks.map(({ isDraining, isOnMesh, weight }, at) => ({
            ...(isOnMesh ? onMesh : far),
            ...(isOnMesh ? { addresses: { net4097: [`10.60.1.${at + 10}`] } } : {}),
            ...(weight === undefined ? {} : { weight }),
            taskId: `t${at}`,
            isDraining,
          }));
          const serving = endpoints.filter((each) => !each.isDraining);
          const found = proxiedPortsOfMesh(told({ endpoints })).get(8080)?.targets ?? [];
          assert.deepEqual(
            found.map(({ taskId, address, weight }) => [taskId, address, weight]),
            serving.map(({ taskId, addresses, host: onHost, weight }) => [
              taskId,
              Object.values(addresses)[0]?.[0] ?? onHost?.address,
              weight,
            ]),
          );
        }),
      );
    });
  });
});
