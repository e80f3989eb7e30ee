/** Whatever a client sends, the API answers it with a sentence, changes nothing by it, and goes on. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { jsonFault } from '../../../manager/api/json.ts';
import { TestApi } from './host.ts';

const writes = [
  ['POST', '/services/create'],
  ['POST', '/services/web/update?version=3'],
  ['POST', '/secrets/create'],
  ['POST', '/configs/create'],
  ['POST', '/networks/create'],
  ['POST', '/nodes/self/update?version=1'],
  ['POST', '/swarm/update?version=1'],
  ['POST', '/swarm/init'],
  ['POST', '/swarm/join'],
  ['POST', '/swarm/unlock'],
  ['PUT', '/stacks/shop'],
] as const;

/** Keys that the schemas know, so that the random values reach deep. */
const key = fc.oneof(
  fc.string({ maxLength: 6 }),
  fc.constantFrom(
    ...'Name Labels TaskTemplate ContainerSpec Image Mode Replicated Replicas Mounts Target Type Resources Limits NanoCPUs Networks Secrets File EndpointSpec Ports TargetPort PublishMode Data Driver IPAM Config Subnet Role Availability Spec Raft CAConfig Compiled Services Source __proto__ constructor'.split(
      ' ',
    ),
  ),
);

const { anything } = fc.letrec((tie) => ({
  anything: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.oneof(fc.constant(null), fc.boolean(), fc.double({ noNaN: true }), fc.string({ maxLength: 12 })),
    fc.array(tie('anything'), { maxLength: 4 }),
    fc.dictionary(key, tie('anything'), { maxKeys: 5 }),
  ),
}));

describe('api: any body', function () {
  this.timeout(120_000);
  let api: TestApi;
  before(async () => {
    api = await TestApi.start();
    const web = { Name: 'web', TaskTemplate: { ContainerSpec: { Image: 'a' } } };
    assert.equal((await api.post('/services/create', web)).status, 201);
  });
  after(() => api.close());

  it('of random JSON is refused with a sentence and changes nothing', async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...writes), anything, async ([method, url], body) => {
        let changes = 0;
        const stop = api.host.store.onCommit(() => changes++);
        const answer = await api.send(method, url, JSON.stringify(body));
        stop();
        if (answer.status < 300) return;
        assert.ok(answer.status >= 400, answer.text);
        assert.equal(typeof answer.json.message, 'string');
        if (answer.status === 500) assert.match(answer.json.message, /update out of sequence$/);
        assert.equal(changes, 0);
      }),
      { numRuns: 400 },
    );
  });

  it('of random bytes is refused with 400', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...writes),
        fc.uint8Array({ maxLength: 40 }),
        async ([method, url], bytes) => {
          const answer = await api.send(method, url, Buffer.from(bytes));
          assert.ok(answer.status >= 400 && answer.status < 500, `${answer.status} ${answer.text}`);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('and any filter never breaks a list', async () => {
    const lists = ['/services', '/tasks', '/nodes', '/secrets', '/configs', '/networks'];
    const filter = fc.oneof(fc.string(), fc.json({ maxDepth: 3 }));
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...lists), filter, async (url, text) => {
        const answer = await api.get(`${url}?filters=${encodeURIComponent(text)}`);
        assert.ok(answer.status < 500, `${answer.status} ${answer.text}`);
      }),
      { numRuns: 200 },
    );
  });
});

describe('api: jsonFault', function () {
  this.timeout(120_000);
  it('finds a fault exactly when there is one', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.json(),
          fc.string(),
          fc.json().map((text) => text.slice(1)),
        ),
        (text) => {
          let isJson = true;
          try {
            JSON.parse(text);
          } catch {
            isJson = false;
          }
          assert.equal(jsonFault(text) === undefined, isJson, text);
        },
      ),
      { numRuns: 1000 },
    );
  });
});
