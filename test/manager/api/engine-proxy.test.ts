/** Requests that are the container engine's: passed on as they are, streams and bare connections too. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import http from 'node:http';
import net from 'node:net';
import { isEngines, isTakenOver, readTarget } from '../../../manager/api/endpoints.ts';
import { waitFor } from '../../agent/wait.ts';
import { FakeEngine } from './fake-engine.ts';
import { TestApi } from './host.ts';

const boundMs = 10_000;

/** A connection on which a test writes and reads bytes. */
class Wire {
  readonly socket: net.Socket;
  text = '';
  hasEnded = false;

  constructor(socketPath: string) {
    this.socket = net.connect({ path: socketPath, allowHalfOpen: true });
    this.socket.on('data', (chunk) => {
      this.text += chunk.toString('latin1');
    });
    this.socket.on('end', () => {
      this.hasEnded = true;
    });
    this.socket.on('error', () => {});
  }

  async until(pattern: RegExp): Promise<void> {
    await waitFor(() => pattern.test(this.text), boundMs);
  }
}

describe('api: whose a request is', () => {
  it('takes versions off a target', () => {
    assert.deepEqual(readTarget('/v1.41/containers/json?all=1'), {
      version: { major: 1, minor: 41 },
      path: '/containers/json',
    });
    assert.deepEqual(readTarget('/v1.41'), { version: { major: 1, minor: 41 }, path: '/' });
    assert.deepEqual(readTarget('/v1.41x/info'), { version: undefined, path: '/v1.41x/info' });
  });

  it('leaves to the engine whatever is not the cluster’s', () => {
    const ours = ['/_ping', '/info', '/nodes/a/update', '/services', '/networks/create', '/events'];
    const theirs = [
      '/containers/json',
      '/build',
      '/session',
      '/volumes',
      '/servicesx',
      '/',
      '/grpc',
      '/auth',
    ];
    assert.deepEqual(ours.filter(isEngines), []);
    assert.deepEqual(theirs.filter(isEngines), theirs);
  });

  it('knows what becomes a bare stream', () => {
    assert.ok(isTakenOver('POST', '/containers/a/attach'));
    assert.ok(isTakenOver('POST', '/exec/a/start'));
    assert.ok(!isTakenOver('GET', '/containers/a/attach/ws'));
    assert.ok(!isTakenOver('POST', '/containers/a/start'));
  });
});

describe('api: requests of the container engine', () => {
  let api: TestApi;
  let engine: FakeEngine | undefined;
  beforeEach(async () => {
    api = await TestApi.start();
  });
  afterEach(async () => {
    await api.close();
    await engine?.close();
    engine = undefined;
  });

  async function behind(made: Promise<FakeEngine>): Promise<FakeEngine> {
    engine = await made;
    api.host.engineSocket = engine.socketPath;
    return engine;
  }

  it('passes on method, target, headers and body, and the answer likewise', async () => {
    const seen: { method?: string; url?: string; headers: string[]; body: string }[] = [];
    await behind(
      FakeEngine.http((request, response) => {
        let body = '';
        request.on('data', (chunk: Buffer) => {
          body += chunk.toString();
        });
        request.on('end', () => {
          seen.push({ method: request.method!, url: request.url!, headers: request.rawHeaders, body });
          response.writeHead(418, 'Short And Stout', [
            ['X-Docker-Thing', 'a'],
            ['X-Docker-Thing', 'b'],
          ]);
          response.end('{"message":"no"}');
        });
      }),
    );
    const url = '/v1.41/containers/create?name=%2Fa+b&x=1&x=2';
    const answer = await api.send('POST', url, '{"Image":"x"}', { 'X-Registry-Auth': 'e30=', Accept: 'a/b' });
    assert.deepEqual([answer.status, answer.text], [418, '{"message":"no"}']);
    assert.equal(answer.headers['x-docker-thing'], 'a, b');
    assert.equal(answer.headers.server, undefined, 'no header of our own');
    assert.deepEqual([seen[0]!.method, seen[0]!.url, seen[0]!.body], ['POST', url, '{"Image":"x"}']);
    const names = seen[0]!.headers.filter((_, index) => index % 2 === 0);
    for (const name of ['X-Registry-Auth', 'Accept', 'content-type']) assert.ok(names.includes(name), name);
  });

  it('says of a request without a body that it has none', async () => {
    let headers: http.IncomingHttpHeaders = {};
    await behind(
      FakeEngine.http((request, response) => {
        headers = request.headers;
        response.writeHead(204).end();
      }),
    );
    const wire = new Wire(api.socketPath);
    wire.socket.write('POST /containers/a/start HTTP/1.1\r\nHost: x\r\n\r\n');
    await wire.until(/^HTTP\/1\.1 204/);
    assert.deepEqual([headers['content-length'], headers['transfer-encoding']], ['0', undefined]);
    wire.socket.destroy();
  });

  it('sends no chunks to a client of HTTP/1.0', async () => {
    await behind(
      FakeEngine.http((_request, response) => {
        response.write('one ');
        response.end('two');
      }),
    );
    const wire = new Wire(api.socketPath);
    wire.socket.write('GET /containers/a/logs HTTP/1.0\r\n\r\n');
    await waitFor(() => wire.hasEnded, boundMs);
    assert.match(wire.text, /^HTTP\/1\.1 200 OK\r\n[\s\S]*\r\n\r\none two$/);
    assert.doesNotMatch(wire.text, /transfer-encoding/i);
    wire.socket.destroy();
  });

  it('sends a stream on as it comes, and ends the engine’s request when the client goes', async () => {
    let isClosed = false;
    await behind(
      FakeEngine.http((_request, response) => {
        response.on('close', () => {
          isClosed = true;
        });
        response.writeHead(200, { 'Content-Type': 'application/json' });
        response.write('{"one":1}\n');
      }),
    );
    const wire = new Wire(api.socketPath);
    wire.socket.write('GET /containers/a/stats HTTP/1.1\r\nHost: x\r\n\r\n');
    await wire.until(/\{"one":1\}/);
    assert.equal(isClosed, false);
    wire.socket.destroy();
    await waitFor(() => isClosed, boundMs);
  });

  it('takes a chunked body of any size without gathering it', async () => {
    const part = randomBytes(1 << 20);
    const expected = createHash('sha256');
    await behind(
      FakeEngine.http((request, response) => {
        const got = createHash('sha256');
        assert.equal(request.headers['transfer-encoding'], 'chunked');
        request.on('data', (chunk: Buffer) => got.update(chunk));
        request.on('end', () => response.end(got.digest('hex')));
      }),
    );
    const answer = new Promise<string>((resolve, reject) => {
      const options = { socketPath: api.socketPath, method: 'POST', path: '/build' };
      const request = http.request(options, (response) => {
        let text = '';
        response.on('data', (chunk: Buffer) => {
          text += chunk.toString();
        });
        response.on('end', () => resolve(text));
      });
      request.on('error', reject);
      const send = (left: number): void => {
        if (left === 0) request.end();
        else {
          expected.update(part);
          request.write(part, () => send(left - 1));
        }
      };
      send(64);
    });
    assert.equal(await answer, expected.digest('hex'));
  });

  it('keeps a client from sending faster than the engine reads', async () => {
    let held: http.IncomingMessage | undefined;
    await behind(
      FakeEngine.http((request) => {
        held = request;
        request.pause();
      }),
    );
    const wire = new Wire(api.socketPath);
    wire.socket.write('POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n');
    await waitFor(() => held !== undefined, boundMs);
    const part = Buffer.alloc(1 << 20);
    // Until the kernel takes no more: what is under way between two sockets, not what a client has to send.
    let taken = 0;
    let isFull = false;
    while (!isFull && taken < 200) {
      taken += 1;
      isFull = await new Promise<boolean>((resolve) => {
        const timer = setTimeout(() => resolve(true), 1_000);
        wire.socket.write(part, () => {
          clearTimeout(timer);
          resolve(false);
        });
      });
    }
    assert.ok(isFull, 'a gigabyte went nowhere');
    wire.socket.destroy();
  });

  it('says so when there is no engine', async () => {
    const answer = await api.get('/v1.41/containers/json');
    assert.equal(answer.status, 503);
    assert.match(answer.json.message, /^Cannot connect to the container engine/);
    const wire = new Wire(api.socketPath);
    wire.socket.write('POST /containers/a/attach HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n');
    await wire.until(/^HTTP\/1\.1 503 [\s\S]*Cannot connect to the container engine/);
    await waitFor(() => wire.hasEnded, boundMs);
  });

  it('says so when the engine hangs up', async () => {
    await behind(FakeEngine.raw((socket) => socket.destroy()));
    const answer = await api.post('/containers/create', {});
    assert.equal(answer.status, 503);
    assert.match(answer.json.message, /does not answer/);
  });

  it('refuses versions before the engine sees them', async () => {
    await behind(FakeEngine.http((_request, response) => response.end('{}')));
    assert.match((await api.get('/v1.24/containers/json')).json.message, /too old/);
    assert.match((await api.get('/v1.52/containers/json')).json.message, /too new/);
    assert.equal((await api.get('/v1.51/containers/json')).status, 200);
  });

  const answers = {
    'with 101': 'HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n',
    'with 200, as of old': 'HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n',
  };
  for (const [how, head] of Object.entries(answers)) {
    it(`joins the connections when the engine takes one over ${how}`, async () => {
      let sent = '';
      let inputEnded = false;
      let socket: net.Socket | undefined;
      await behind(
        FakeEngine.raw((one) => {
          socket = one;
          one.on('data', (chunk) => {
            if (sent === '') one.write(head);
            sent += chunk.toString();
          });
          one.on('end', () => {
            inputEnded = true;
            // What a program says when it has read all.
            one.end('done');
          });
        }),
      );
      const upgrade = how === 'with 101' ? 'Connection: Upgrade\r\nUpgrade: tcp\r\n' : '';
      const request = `POST /v1.41/exec/a/start HTTP/1.1\r\nHost: x\r\n${upgrade}Content-Length: 2\r\n\r\n{}`;
      const wire = new Wire(api.socketPath);
      wire.socket.write(request);
      await wire.until(/\r\n\r\n$/);
      assert.equal(wire.text, head);
      assert.equal(sent, request);
      socket!.write('question');
      await wire.until(/question$/);
      wire.socket.write('answer\0\r\n\r\n');
      wire.socket.end();
      await waitFor(() => inputEnded, boundMs);
      await waitFor(() => wire.hasEnded, boundMs);
      assert.equal(sent, `${request}answer\0\r\n\r\n`);
      assert.equal(wire.text, `${head}questiondone`);
      await waitFor(() => engine!.connections === 0, boundMs);
    });
  }

  it('gives all that was said when the engine hangs up on a client that still writes', async () => {
    const words = 'x'.repeat(1 << 20);
    await behind(
      FakeEngine.raw((socket) => {
        socket.on('error', () => {});
        socket.once('data', () => socket.end(`HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n${words}`));
        // What a hard close leaves unread in the kernel is lost to whoever writes meanwhile, with any proxy.
        socket.once('end', () => socket.destroy());
      }),
    );
    const wire = new Wire(api.socketPath);
    wire.socket.write('POST /exec/a/start HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n');
    const timer = setInterval(() => wire.socket.write('more '), 1);
    await waitFor(() => wire.hasEnded, boundMs).finally(() => clearInterval(timer));
    assert.ok(wire.text.endsWith(words));
    wire.socket.destroy();
  });

  it('takes over a connection that was used before, and ends it when the engine refuses', async () => {
    await behind(
      FakeEngine.http((request, response) => {
        if (request.url === '/containers/a/json') response.end('{"Id":"a"}');
        else response.writeHead(404, { 'Content-Type': 'application/json' }).end('{"message":"No such"}');
      }),
    );
    const wire = new Wire(api.socketPath);
    wire.socket.write('GET /containers/a/json HTTP/1.1\r\nHost: x\r\n\r\n');
    await wire.until(/\{"Id":"a"\}/);
    wire.text = '';
    wire.socket.write(
      'POST /containers/a/attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n',
    );
    await wire.until(/^HTTP\/1\.1 404 [\s\S]*\r\nConnection: close\r\n\r\n[\s\S]*No such/);
    await waitFor(() => wire.hasEnded, boundMs);
    wire.socket.destroy();
  });

  it('answers a request of the cluster that would rather speak another protocol', async () => {
    const wire = new Wire(api.socketPath);
    const upgrade = 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n';
    wire.socket.write(`GET /nodes HTTP/1.1\r\nHost: x\r\n${upgrade}\r\n`);
    await wire.until(/^HTTP\/1\.1 200 [\s\S]*m1/);
    wire.text = '';
    wire.socket.write('GET /services HTTP/1.1\r\nHost: x\r\n\r\n');
    await wire.until(/^HTTP\/1\.1 200 [\s\S]*\[\]/);
    wire.socket.destroy();
  });

  it('tells clients the lower of the two versions, and the engine’s abilities', async () => {
    let version = '1.41';
    await behind(
      FakeEngine.http((_request, response) => {
        response.setHeader('Api-Version', version).setHeader('Builder-Version', '2').end('OK');
      }),
    );
    const ping = await api.get('/_ping');
    assert.deepEqual([ping.headers['api-version'], ping.headers['builder-version']], ['1.41', '2']);
    assert.equal((await api.get('/version')).json.ApiVersion, '1.41');
    assert.equal((await api.get('/nodes')).headers['api-version'], '1.41');
    version = '1.60';
    assert.equal((await api.send('HEAD', '/_ping')).headers['api-version'], '1.51');
  });
});
