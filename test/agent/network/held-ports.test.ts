import assert from 'node:assert/strict';
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
});
