import assert from 'node:assert/strict';
import { connect as connectHttp2 } from 'node:http2';
import { connect, type TLSSocket } from 'node:tls';
import { isShoalError, ShoalError } from '../../proto/errors.ts';
import {
  type ChannelOptions,
  createChannel,
  createRpcServer,
  fetchUnverifiedRoot,
  type NodeIdentity,
  type PeerIdentity,
  peerIdentity,
  type RpcServer,
  requireRole,
} from '../../proto/rpc.ts';
import { streamHandler, unaryHandler } from '../../proto/rpc-status.ts';
import { makeRoot, type TestRoot } from './certificates.ts';

const clusterId = 'c'.repeat(25);
const managerId = 'm'.repeat(25);
const workerId = 'w'.repeat(25);

describe('proto/rpc', () => {
  let root: TestRoot;
  let manager: NodeIdentity;
  let worker: NodeIdentity;
  let server: RpcServer;
  let address: string;
  let seen: (PeerIdentity | undefined)[];

  before(async () => {
    root = await makeRoot();
    manager = await root.issue({ nodeId: managerId, role: 'manager', clusterId });
    worker = await root.issue({ nodeId: workerId, role: 'worker', clusterId });
  });

  beforeEach(async () => {
    seen = [];
    server = createRpcServer({ credentials: manager });
    server.addService('CA', {
      GetRootCACertificate: unaryHandler((_request, call) => {
        seen.push(peerIdentity(call));
        return { certificate: Buffer.from(root.pem) };
      }),
      GetUnlockKey: unaryHandler((_request, call) => {
        requireRole(call, 'manager');
        return { unlock_key: Buffer.from('key') };
      }),
    });
    server.addService('Dispatcher', {
      Heartbeat: unaryHandler(() => {
        throw new ShoalError('not-leader', 'ask the leader', { details: { leader: '127.0.0.1:1' } });
      }),
      Session: streamHandler((call) => {
        call.write({ session_id: 'one' });
        throw new ShoalError('conflict', 'the session is stale');
      }),
    });
    address = `127.0.0.1:${await server.listen('127.0.0.1:0')}`;
  });

  afterEach(() => server.close());

  async function withChannel<T>(
    options: Partial<ChannelOptions>,
    use: (channel: ReturnType<typeof createChannel>) => Promise<T>,
  ): Promise<T> {
    const channel = createChannel(address, { roots: root.pem, serverName: 'swarm-manager', ...options });
    try {
      return await use(channel);
    } finally {
      channel.close();
    }
  }

  const askRoot = (channel: ReturnType<typeof createChannel>) =>
    channel.call('CA', 'GetRootCACertificate', {});

  it('speaks TLS 1.3 and refuses TLS 1.2', async () => {
    const socket = await handshake(address, root.pem, 'TLSv1.3');
    assert.equal(socket.getProtocol(), 'TLSv1.3');
    socket.destroy();
    await assert.rejects(handshake(address, root.pem, 'TLSv1.2'), /protocol version|alert|ECONNRESET/i);
  });

  it('answers a client without a certificate, and knows no identity for it', async () => {
    const answer = await withChannel({}, askRoot);
    assert.equal(answer.certificate?.toString(), root.pem);
    assert.deepEqual(seen, [undefined]);
  });

  it('answers a client that offers no application protocol, as a stock engine that has renewed', async () => {
    const socket = await handshake(address, root.pem, 'TLSv1.3', []);
    assert.equal(socket.alpnProtocol, false);
    const session = connectHttp2('https://swarm-manager', { createConnection: () => socket });
    try {
      const status = await new Promise((resolve, reject) => {
        session.on('error', reject);
        const request = session.request({
          ':method': 'POST',
          ':path': '/docker.swarmkit.v1.CA/GetRootCACertificate',
          'content-type': 'application/grpc',
          te: 'trailers',
        });
        request.on('error', reject);
        request.on('trailers', (trailers) => resolve(trailers['grpc-status']));
        request.resume();
        // An empty message: not compressed, no bytes.
        request.end(Buffer.alloc(5));
      });
      assert.equal(status, '0');
      assert.deepEqual(seen, [undefined]);
    } finally {
      session.destroy();
    }
  });

  it('reads the identity of a verified certificate and checks its role', async () => {
    await withChannel({ identity: worker }, async (channel) => {
      await askRoot(channel);
      await assert.rejects(channel.call('CA', 'GetUnlockKey', {}), (error) =>
        isShoalError(error, 'permission-denied'),
      );
    });
    assert.deepEqual(seen, [{ nodeId: workerId, role: 'worker', clusterId }]);
    const answer = await withChannel({ identity: manager }, (channel) =>
      channel.call('CA', 'GetUnlockKey', {}),
    );
    assert.equal(answer.unlock_key?.toString(), 'key');
  });

  it('believes no certificate of another root', async () => {
    const other = await (await makeRoot('other')).issue({ nodeId: workerId, role: 'manager', clusterId });
    await withChannel({ identity: other }, async (channel) => {
      await askRoot(channel);
      await assert.rejects(channel.call('CA', 'GetUnlockKey', {}), (error) =>
        isShoalError(error, 'permission-denied'),
      );
    });
    assert.deepEqual(seen, [undefined]);
  });

  it('a client refuses a server that its roots do not vouch for; only the root is fetched unverified', async () => {
    const other = await makeRoot('other');
    await withChannel({ roots: other.pem }, async (channel) => {
      await assert.rejects(askRoot(channel), (error) => isShoalError(error, 'unavailable'));
    });
    assert.equal((await fetchUnverifiedRoot(address)).toString(), root.pem);
  });

  it('setIdentity shows the new certificate and trusts the new roots at once, and keeps old connections', async () => {
    await withChannel({ identity: worker }, async (standing) => {
      await askRoot(standing);
      const next = await makeRoot('next');
      const nextWorker = await next.issue({ nodeId: workerId, role: 'worker', clusterId });
      server.setIdentity(await next.issue({ nodeId: managerId, role: 'manager', clusterId }));
      await askRoot(standing);
      await withChannel({ roots: next.pem, identity: nextWorker }, askRoot);
      await withChannel({ roots: root.pem, identity: worker }, (channel) =>
        assert.rejects(askRoot(channel), (error) => isShoalError(error, 'unavailable')),
      );
    });
    assert.deepEqual(
      seen.map((identity) => identity?.nodeId),
      [workerId, workerId, workerId],
    );
    assert.throws(() => server.setIdentity({ ...manager, keyPem: worker.keyPem }), /key values mismatch/);
  });

  it('carries our errors with code and details, from unary calls and from streams', async () => {
    await withChannel({ identity: worker }, async (channel) => {
      const refusal = await channel.call('Dispatcher', 'Heartbeat', { session_id: 'x' }).then(
        () => undefined,
        (error: unknown) => error,
      );
      assert.ok(isShoalError(refusal, 'not-leader'));
      assert.equal(refusal.message, 'ask the leader');
      assert.deepEqual(refusal.details, { leader: '127.0.0.1:1' });

      const messages: unknown[] = [];
      const stream = channel.client('Dispatcher').Session({});
      stream.on('data', (message) => messages.push(message));
      const error = await new Promise<{ code: number; details: string }>((resolve) => {
        stream.on('error', (failure) => resolve(failure as unknown as { code: number; details: string }));
      });
      assert.deepEqual(messages, [{ session_id: 'one' }]);
      assert.deepEqual([error.code, error.details], [10, 'the session is stale']);
      await assert.rejects(channel.call('Dispatcher', 'UpdateTaskStatus', {}), (failure) =>
        isShoalError(failure, 'not-supported'),
      );
    });
  });
});

function handshake(
  address: string,
  ca: string,
  version: 'TLSv1.2' | 'TLSv1.3',
  ALPNProtocols: string[] = ['h2'],
): Promise<TLSSocket> {
  const [host = '', port] = address.split(':');
  return new Promise((resolve, reject) => {
    const socket = connect(
      {
        host,
        port: Number(port),
        ca,
        servername: 'swarm-manager',
        minVersion: version,
        maxVersion: version,
        ALPNProtocols,
      },
      () => resolve(socket),
    );
    socket.once('error', reject);
  });
}
