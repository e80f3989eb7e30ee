/** The API's doors. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import https from 'node:https';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import tls from 'node:tls';
import { listen, type TlsMaterial } from '../../../manager/api/listen.ts';
import { createApi } from '../../../manager/api/server.ts';
import { silentLog } from '../../../proto/ports.ts';
import { makeRoot } from '../../proto/certificates.ts';
import { FakeEngine } from './fake-engine.ts';
import { TestHost } from './host.ts';

describe('api: listen', () => {
  let folder: string;
  let socketPath: string;
  const app = createApi(new TestHost());
  const open = (addresses: string[], material?: TlsMaterial) =>
    listen(app, addresses, { log: silentLog, ...(material ? { tls: material } : {}) });
  beforeEach(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), 'shoal-listen-'));
    socketPath = path.join(folder, 'api.sock');
  });
  afterEach(() => fs.rmSync(folder, { recursive: true, force: true }));

  it('opens a socket for its group only, and takes it away again', async () => {
    const listener = await open([`unix://${socketPath}`]);
    assert.equal(fs.statSync(socketPath).mode & 0o777, 0o660);
    await listener.close();
    assert.equal(fs.existsSync(socketPath), false);
  });

  it('replaces a socket that nobody serves and no other', async () => {
    const first = await open([`unix://${socketPath}`]);
    await assert.rejects(open([`unix://${socketPath}`]), /another process listens there/);
    await first.close();
    // A socket file stays behind when its owner is killed: made here by linking it elsewhere first.
    const dying = net.createServer();
    await new Promise<void>((resolve) => dying.listen(socketPath, resolve));
    fs.linkSync(socketPath, `${socketPath}.kept`);
    await new Promise((resolve) => dying.close(resolve));
    fs.renameSync(`${socketPath}.kept`, socketPath);
    const second = await open([`unix://${socketPath}`]);
    await second.close();
    fs.writeFileSync(socketPath, 'precious');
    await assert.rejects(open([`unix://${socketPath}`]), /a file that is no socket is there/);
    assert.equal(fs.readFileSync(socketPath, 'utf8'), 'precious');
  });

  it('refuses plain TCP and what is no address, and leaves nothing open', async () => {
    const both = open([`unix://${socketPath}`, 'tcp://127.0.0.1:0']);
    await assert.rejects(both, /without TLS: whoever reaches it would be root on every node/);
    assert.equal(fs.existsSync(socketPath), false);
    await assert.rejects(open(['127.0.0.1:2375']), /an address is unix:\/\/\/path\/of\/socket or tcp:/);
    await assert.rejects(open(['fd://']), /an address is/);
  });

  it('lets in over TCP only who shows a certificate of its authority', async () => {
    const [root, stranger] = [await makeRoot(), await makeRoot('other')];
    const subject = { nodeId: 'n1', role: 'manager', clusterId: 'c1' } as const;
    const [server, theirs] = [await root.issue(subject), await stranger.issue(subject)];
    const material = { ca: root.pem, cert: server.certificatePem, key: server.keyPem };
    const listener = await open(['tcp://127.0.0.1:0'], material);
    const port = Number(new URL(listener.addresses[0]!.replace('tcp:', 'http:')).port);
    const ask = (client: { cert?: string; key?: string }): Promise<number | undefined> =>
      new Promise((resolve, reject) => {
        const options = { host: '127.0.0.1', port, path: '/_ping', ca: root.pem, agent: false as const };
        https
          .get({ ...options, ...client, checkServerIdentity: () => undefined }, (response) => {
            response.resume();
            resolve(response.statusCode);
          })
          .on('error', reject);
      });
    assert.equal(await ask({ cert: material.cert, key: material.key }), 200);
    await assert.rejects(ask({}));
    await assert.rejects(ask({ cert: theirs.certificatePem, key: theirs.keyPem }));
    await listener.close();
  });

  it('joins a client and the engine over TLS, each direction to its own end', async () => {
    const root = await makeRoot();
    const issued = await root.issue({ nodeId: 'n1', role: 'manager', clusterId: 'c1' });
    const tlsMaterial = { ca: root.pem, cert: issued.certificatePem, key: issued.keyPem };
    const engine = await FakeEngine.raw((socket) => {
      let text = '';
      socket.on('data', (chunk) => {
        if (text === '') socket.write('HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n');
        text += chunk.toString();
      });
      socket.on('end', () => socket.end(text.slice(text.indexOf('\r\n\r\n') + 4).toUpperCase()));
    });
    const host = new TestHost();
    host.engineSocket = engine.socketPath;
    const options = { log: silentLog, tls: tlsMaterial };
    const listener = await listen(createApi(host), ['tcp://127.0.0.1:0'], options);
    try {
      const port = Number(new URL(listener.addresses[0]!.replace('tcp:', 'http:')).port);
      const client = tls.connect({
        ...{ host: '127.0.0.1', port, ...tlsMaterial, allowHalfOpen: true },
        checkServerIdentity: () => undefined,
      });
      client.write('POST /exec/a/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n');
      client.end('all that there is to say');
      let text = '';
      for await (const chunk of client) text += String(chunk);
      assert.match(text, /^HTTP\/1\.1 101 [\s\S]*\r\n\r\nALL THAT THERE IS TO SAY$/);
    } finally {
      await listener.close();
      await engine.close();
    }
  });
});
