/** What a client may send that it should not: refused with a message, nothing changed, the daemon alive. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { create, idle, send, waitForRunning } from './asking.ts';
import { containerFingerprint, formCluster } from './cluster.ts';
import { Lab, type LabHost, labMissing } from './lab.ts';

const json = { 'Content-Type': 'application/json' };
const megabyte = 2 ** 20;

/** Bytes as they are, where a HTTP client would refuse to send them; answers what came back. */
function raw(host: LabHost, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(host.shoalSocket);
    let answer = '';
    socket.setTimeout(20_000, () => socket.destroy(new Error('no answer in 20 s')));
    socket.on('data', (part) => {
      answer += part.toString('utf8');
      socket.destroy();
    });
    socket.on('close', () => resolve(answer));
    socket.on('error', reject);
    socket.write(text);
  });
}

const worded = (value: unknown): string => JSON.stringify(value);

describe('lab: requests that are wrong', () => {
  let lab: Lab;
  let host: LabHost;
  let pids: number[];
  let containers: string[];
  let state: string;

  /** Everything that a request could have changed. */
  async function everything(): Promise<string> {
    const paths = ['/services', '/tasks', '/nodes', '/networks', '/secrets', '/configs', '/swarm'];
    const answers = await Promise.all(paths.map((path) => send(host, 'GET', path)));
    for (const [index, { status }] of answers.entries()) assert.equal(status, 200, paths[index]);
    // An engine lists its own networks in an order that differs from time to time.
    const listed = answers.map(({ text }) => JSON.parse(text) as object);
    return listed
      .map((one) => (Array.isArray(one) ? one.map(worded).sort() : [worded(one)]).join('\n'))
      .join('\n');
  }

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(1, 'shoal-faults');
    await formCluster(lab, 1);
    host = lab.host(1);
    await create(host, 'web', ...idle);
    await waitForRunning(host, 'web', 1);
    pids = host.shoaldPids();
    containers = await containerFingerprint(host);
    state = await everything();
  });

  after(async () => {
    await lab?.down();
  });

  afterEach(async function () {
    if (this.currentTest?.isPending()) return;
    assert.deepEqual(host.shoaldPids(), pids, 'the same daemon still runs');
    assert.equal(await everything(), state, 'nothing was changed');
    assert.deepEqual(await containerFingerprint(host), containers);
  });

  async function refused(
    method: string,
    path: string,
    body?: string | Buffer,
    headers: Record<string, string> = json,
  ): Promise<string> {
    const what = `${method} ${path} ${String(body).slice(0, 200)}`;
    const { status, text } = await send(host, method, path, body, headers);
    assert.ok(status >= 400 && status < 500, `${what}: answered ${status} ${text.slice(0, 300)}`);
    const { message } = JSON.parse(text) as { message?: unknown };
    assert.ok(typeof message === 'string' && message.length > 5, `${what}: without a message: ${text}`);
    assert.doesNotMatch(message, /\bat .*\.(js|ts):\d+|undefined|\[object|TypeError/, what);
    return message;
  }

  it('bodies that are not JSON, or not the JSON that is asked for', async () => {
    const posts = [
      '/services/create',
      '/networks/create',
      '/secrets/create',
      '/configs/create',
      '/swarm/join',
    ];
    for (const path of [...posts, '/swarm/init', '/swarm/unlock']) {
      for (const body of ['{', '', 'null', '[]', '"text"', '17', '{"Name":', '\u0000', '{"Name":{"a":1}}x']) {
        await refused('POST', path, body);
      }
      await refused('POST', path, Buffer.from([0xff, 0xfe, 0x00, 0x80]));
    }
    assert.match(await refused('POST', '/services/create', '{"Name": }'), /line 1, column 10/);
  });

  it('fields of the wrong type, unknown values and numbers beyond all sense', async () => {
    const container = { Image: 'busybox:lab' };
    const spec = (change: object) =>
      JSON.stringify({ Name: 'bad', TaskTemplate: { ContainerSpec: container }, ...change });
    const task = (change: object) => spec({ TaskTemplate: { ContainerSpec: container, ...change } });
    const bad = [
      spec({ Name: 17 }),
      spec({ Name: 'no spaces please' }),
      spec({ Name: 'x'.repeat(10_000) }),
      spec({ Name: '../../etc/passwd' }),
      spec({ Mode: { Replicated: { Replicas: -1 } } }),
      spec({ Mode: { Replicated: { Replicas: 1e300 } } }),
      spec({ Mode: { Replicated: { Replicas: 1.5 } } }),
      spec({ Mode: { Replicated: {}, Global: {} } }),
      spec({ Mode: { Sideways: {} } }),
      spec({ TaskTemplate: {} }),
      spec({ Labels: 'none' }),
      spec({ Labels: { 'shoal.no-such-ability': 'x' } }),
      spec({ EndpointSpec: { Ports: [{ TargetPort: 99_999, PublishMode: 'host' }] } }),
      spec({ UpdateConfig: { Parallelism: -5 } }),
      spec({ UpdateConfig: { FailureAction: 'panic' } }),
      task({ RestartPolicy: { Condition: 'perhaps' } }),
      task({ Resources: { Limits: { MemoryBytes: -1 } } }),
      task({ Resources: { Reservations: { NanoCPUs: 'many' } } }),
      task({ Placement: { Constraints: ['node.role=!worker'] } }),
      task({ Networks: [{ Target: 'no-such-network' }] }),
      task({ ContainerSpec: { ...container, Mounts: [{ Type: 'teapot', Target: '/x' }] } }),
      task({ ContainerSpec: { ...container, Env: [{ A: 1 }] } }),
      task({ ContainerSpec: { ...container, Secrets: [{ SecretID: 'nobody', SecretName: 'nobody' }] } }),
    ];
    const accepted: string[] = [];
    for (const body of bad) {
      await refused('POST', '/services/create', body).catch((error) => accepted.push(String(error.message)));
    }
    assert.deepEqual(accepted, []);
  });

  it('a prototype in disguise does no harm', async () => {
    const body =
      '{"Name":"bad","__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"TaskTemplate":7}';
    await refused('POST', '/services/create', body);
    await refused('POST', '/services/__proto__/update?version=1', '{}');
    await refused('GET', '/services/constructor');
  });

  it('sizes beyond all sense', async () => {
    const big = (bytes: number) => JSON.stringify({ Name: 'bad', Data: 'A'.repeat(bytes) });
    await refused('POST', '/secrets/create', big(2 * megabyte));
    await refused('POST', '/configs/create', big(4 * megabyte));
    await refused('POST', '/services/create', big(64 * megabyte));
    await refused('POST', '/services/create', '['.repeat(megabyte));
    await refused('POST', '/services/create', `${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`);
    const lying = await raw(
      host,
      'POST /services/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n{',
    );
    assert.match(lying, /^HTTP\/1\.1 4\d\d/);
    const header = await raw(
      host,
      `GET /services HTTP/1.1\r\nHost: x\r\nX-Big: ${'x'.repeat(300_000)}\r\n\r\n`,
    );
    assert.match(header, /^HTTP\/1\.1 431/);
    assert.match(await raw(host, 'NONSENSE\r\n\r\n'), /^HTTP\/1\.1 400/);
  });

  it('paths, queries, filters and versions that are wrong', async () => {
    await refused('GET', '/services/no-such-service');
    await refused('GET', '/v99.9/services');
    await refused('GET', '/v1.0/services');
    await refused('GET', `/services/${'x'.repeat(5_000)}`);
    await refused('GET', '/services/%00');
    await refused('GET', '/services/%E0%A4%A');
    await refused('GET', '/services?filters=%7B');
    await refused('GET', '/tasks?filters=%7B%22no-such-filter%22%3A%5B%22x%22%5D%7D');
    await refused('GET', '/tasks?filters=17');
    await refused('POST', '/services/web/update', '{}');
    await refused('POST', '/services/web/update?version=minus', '{}');
    await refused('POST', '/services/web/update?version=99999999999999999999999', '{}');
    await refused('POST', '/nodes/h1/update?version=x', '{"Role":"manager","Availability":"active"}');
    await refused('POST', '/services/create', '{}', { 'Content-Type': 'text/html' });
    await refused('DELETE', '/nodes/no-such-node');
    await refused('GET', '/no/such/thing');
  });

  it('an update that saw an old version is refused as out of date', async () => {
    const { text } = await send(host, 'GET', '/services/web');
    const { Spec } = JSON.parse(text) as { Spec: object };
    const answer = await send(host, 'POST', '/services/web/update?version=1', JSON.stringify(Spec), json);
    assert.equal(answer.status, 500, 'Docker’s own status for it');
    assert.match(answer.text, /update out of sequence/);
  });
});
