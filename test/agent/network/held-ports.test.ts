import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import type { PublishedPort } from '../../../agent/network/desired.ts';
import { HeldPorts } from '../../../agent/network/held-ports.ts';

function published(publishedPort: number, protocol: 'tcp' | 'udp' = 'tcp'): PublishedPort {
  return { name: '', protocol, targetPort: 80, publishedPort };
}

describe('ports that are held', () => {
  const ports = new HeldPorts();
  afterEach(() => ports.stop());

  async function someonesPort() {
    const server = createServer().listen(0, '0.0.0.0');
    await once(server, 'listening');
    return { server, port: (server.address() as AddressInfo).port };
  }

  it('are refused while another program has them, with the reason, and had when it is gone', async () => {
    const { server, port } = await someonesPort();
    const refused = await ports.hold([published(port), published(port, 'udp')]);
    assert.deepEqual([...refused.keys()], [`tcp/${port}`]);
    assert.match(refused.get(`tcp/${port}`) ?? '', /held by another program on this node/);
    assert.equal(await ports.retry(), false);
    assert.deepEqual([...refused.keys()], [`tcp/${port}`]);
    server.close();
    await once(server, 'close');
    assert.equal(await ports.retry(), true);
    assert.equal(refused.size, 0);
    assert.equal((await ports.hold([published(port)])).size, 0);
  });

  it('are no one else’s meanwhile, close who comes all the same, and are let go of when not wanted', async () => {
    const { server, port } = await someonesPort();
    server.close();
    await once(server, 'close');
    await ports.hold([published(port)]);
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    await once(socket, 'close');
    const other = createServer().listen(port, '0.0.0.0');
    const [error] = (await once(other, 'error')) as [NodeJS.ErrnoException];
    assert.equal(error.code, 'EADDRINUSE');
    await ports.hold([]);
    const again = createServer().listen(port, '0.0.0.0');
    await once(again, 'listening');
    again.close();
  });

  for (const [family, address] of [
    ['IPv4', '0.0.0.0'],
    ['IPv6', '::'],
  ] as const) {
    const ipv6Only = family === 'IPv6';

    it(`are held over ${family}, TCP and UDP: no other program takes them there, and who has them there keeps them`, async () => {
      const free = createServer().listen(0, address);
      await once(free, 'listening');
      const { port } = free.address() as AddressInfo;
      free.close();
      await once(free, 'close');
      const wanted = [published(port), published(port, 'udp')];
      const takers = () => [
        createServer().listen({ port, host: address, ipv6Only }),
        createSocket({ type: ipv6Only ? 'udp6' : 'udp4', ipv6Only }).bind(port, address),
      ];

      assert.equal((await ports.hold(wanted)).size, 0);
      const refusals = await Promise.all(takers().map((taker) => once(taker, 'error')));
      assert.deepEqual(
        refusals.map(([error]) => (error as NodeJS.ErrnoException).code),
        ['EADDRINUSE', 'EADDRINUSE'],
      );
      await ports.hold([]);
      const others = takers();
      await Promise.all(others.map((other) => once(other, 'listening')));
      try {
        const refused = await ports.hold(wanted);
        assert.deepEqual([...refused.keys()].sort(), [`tcp/${port}`, `udp/${port}`]);
        // Nothing is held of a port that is refused: the other family's half is let go of.
        const elsewhere = createServer().listen({
          port,
          host: ipv6Only ? '0.0.0.0' : '::',
          ipv6Only: !ipv6Only,
        });
        await once(elsewhere, 'listening');
        elsewhere.close();
        await once(elsewhere, 'close');
      } finally {
        for (const other of others) other.close();
      }
    });
  }
});
