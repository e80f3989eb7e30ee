/** The cluster's own endpoints, and who may answer at all. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Membership } from '../../../manager/api/contract.ts';
import { isEngines } from '../../../manager/api/endpoints.ts';
import { createRoot } from '../../../manager/ca/root.ts';
import type { Change } from '../../../manager/store/change.ts';
import { lockedMessage } from '../../../proto/identity.ts';
import { asId, type NodeId } from '../../../proto/ids.ts';
import { tlsInfoOfIssuer } from '../../../proto/x509.ts';
import { TestApi } from './host.ts';

/** What a node answers also while it is locked: what is its engine's too, and the ways in and out of it. */
const answeredAnyway = /^(GET \/(_ping|version|info|events)|POST \/swarm\/(unlock|leave)|\w+ \/networks.*)$/;

/** Every route of the API's files but those. */
function clusterRoutes(): { method: string; path: string }[] {
  const folder = join(dirname(fileURLToPath(import.meta.url)), '../../../../manager/api');
  const routes = readdirSync(folder).flatMap((file) =>
    [...readFileSync(join(folder, file), 'utf8').matchAll(/routes\.(\w+)\(\s*'(\/[^']+)'/g)].map(
      ([, method, path]) => ({ method: method!.toUpperCase(), path: path! }),
    ),
  );
  // What the engine answers, too (a command in a container), is passed on to it while there is no cluster to ask.
  return routes.filter(({ method, path }) => !isEngines(path) && !answeredAnyway.test(`${method} ${path}`));
}

describe('api: membership', () => {
  let api: TestApi;
  beforeEach(async () => {
    api = await TestApi.start();
  });
  afterEach(() => api.close());

  const nodeId = asId<NodeId>('n1');
  const cases: [Membership, RegExp][] = [
    [{ kind: 'none' }, /^This node is not a swarm manager\. Use "docker swarm init"/],
    [{ kind: 'pending' }, /Manager is being prepared/],
    [{ kind: 'locked', nodeId }, /^Swarm is encrypted and needs to be unlocked/],
    [{ kind: 'worker', nodeId, managers: [] }, /^This node is not a swarm manager\. Worker nodes/],
    [{ kind: 'error', message: 'the certificate has expired' }, /the certificate has expired/],
  ];
  for (const [membership, expected] of cases) {
    it(`answers 503 with the reason when it is "${membership.kind}"`, async () => {
      api.host.become(membership);
      for (const path of ['/swarm', '/nodes', '/services', '/tasks', '/secrets', '/configs']) {
        const answer = await api.get(path);
        assert.equal(answer.status, 503, path);
        assert.match(answer.json.message, expected);
      }
      const created = await api.post('/services/create', { Name: 'a' });
      assert.equal(created.status, 503);
    });
  }

  it('says that it is locked to every request that is the cluster’s, whatever is wrong with it besides', async () => {
    api.host.become({ kind: 'locked', nodeId });
    const routes = clusterRoutes();
    assert.ok(routes.length > 40, `${routes.length} routes found`);
    for (const { method, path } of routes) {
      const body = method === 'GET' || method === 'DELETE' ? undefined : '{}';
      const answer = await api.send(method, path.replace(/:\w+/, 'some-name'), body);
      assert.deepEqual([answer.status, answer.json?.message], [503, lockedMessage], `${method} ${path}`);
    }
    const overlay = await api.post('/networks/create', { Name: 'a', Driver: 'overlay' });
    assert.deepEqual([overlay.status, overlay.json.message], [503, lockedMessage]);
    const left = await api.post('/swarm/leave');
    assert.match(
      left.json.message,
      /^Swarm is encrypted and locked\. Please unlock it first or use `--force`/,
    );
  });

  it('shows every membership in /info and /_ping', async () => {
    for (const [membership] of cases) {
      api.host.become(membership);
      const info = await api.get('/info');
      const state = { none: 'inactive', worker: 'active' }[membership.kind as 'none' | 'worker'];
      assert.equal(info.json.Swarm.LocalNodeState, state ?? membership.kind);
      assert.equal(info.json.Swarm.ControlAvailable, false);
      assert.equal((await api.get('/_ping')).text, 'OK');
    }
    api.host.becomeManager();
    const { Swarm } = (await api.get('/info')).json;
    assert.equal(Swarm.ControlAvailable, true);
    assert.deepEqual([Swarm.Nodes, Swarm.Managers], [1, 1]);
    assert.equal(Swarm.Cluster.JoinTokens, undefined);
    assert.equal((await api.get('/_ping')).headers.swarm, 'active/manager');
  });

  it('joins what the engine says into /info and /version', async () => {
    api.host.engineFacts = {
      info: { Containers: 7, Swarm: { NodeID: 'theirs' } },
      version: { Version: '20.10', Components: [{ Name: 'Engine', Version: '20.10' }] },
    };
    const info = (await api.get('/info')).json;
    assert.equal(info.Containers, 7);
    assert.equal(info.Swarm.NodeID, api.host.nodeId);
    const version = (await api.get('/version')).json;
    assert.equal(version.Version, '20.10');
    const names = version.Components.map((one: { Name: string }) => one.Name);
    assert.deepEqual(names, ['Engine', 'Shoal']);
  });

  it('inits, joins, leaves and unlocks through the host', async () => {
    assert.equal((await api.post('/swarm/init', { ListenAddr: '0.0.0.0:2377' })).status, 503);
    api.host.become({ kind: 'none' });
    const init = await api.post('/swarm/init', { ListenAddr: '0.0.0.0:2377', Spec: { Labels: null } });
    assert.equal(init.json, api.host.nodeId);
    assert.match((await api.post('/swarm/join', { RemoteAddrs: [] })).json.message, /RemoteAddr is required/);
    assert.equal((await api.post('/swarm/join', { RemoteAddrs: ['a:1'], JoinToken: 't' })).status, 200);
    assert.equal((await api.post('/swarm/leave')).status, 503);
    api.host.become({ kind: 'locked', nodeId });
    assert.equal((await api.post('/swarm/unlock', { UnlockKey: 'k' })).status, 200);
    api.host.becomeManager();
    assert.equal((await api.post('/swarm/unlock', { UnlockKey: 'k' })).status, 409);
    const left = await api.post('/swarm/leave');
    assert.match(left.json.message, /Removing the last manager erases all current state/);
    assert.equal((await api.post('/swarm/leave?force=1')).text, '');
    api.host.leftovers = ['a bridge'];
    assert.deepEqual((await api.post('/swarm/leave?force=1')).json, { Warnings: ['a bridge'] });
    assert.deepEqual(
      api.host.calls.map((call) => call.split(' ')[0]),
      ['init', 'join', 'unlock', 'leave', 'leave'],
    );
  });

  it('never shows what only managers may know', async () => {
    const seen =
      (await api.get('/swarm')).text + (await api.get('/info')).text + (await api.get('/nodes')).text;
    assert.ok(!seen.includes('TOP-SECRET') && !seen.includes('Private'));
  });
});

describe('api: a manager that follows', () => {
  it('answers nothing older than what another manager acknowledged', async () => {
    const leader = await TestApi.start();
    const follower = await TestApi.start();
    // What the leader committed reaches the follower's store only when a read waits for it.
    const log: (readonly Change[])[] = [];
    const led = leader.host.membership();
    assert.ok(led.kind === 'manager');
    const followed = follower.host.membership();
    assert.ok(followed.kind === 'manager');
    const propose = async (changes: readonly Change[]): Promise<number> => {
      const index = await led.cluster.propose(changes);
      log.push(changes);
      return index;
    };
    const catchUp = async (): Promise<void> => {
      for (const changes of log.splice(0)) follower.host.apply(changes);
    };
    leader.host.become({ kind: 'manager', cluster: { ...led.cluster, propose } });
    follower.host.become({
      kind: 'manager',
      cluster: { ...followed.cluster, propose, readBarrier: catchUp },
    });
    try {
      const config = { Name: 'c', Data: 'eA==' };
      assert.equal((await leader.post('/configs/create', config)).status, 201);
      assert.equal((await follower.get('/configs/c')).status, 200);
      assert.equal((await leader.delete('/configs/c')).status, 204);
      assert.equal((await follower.delete('/configs/c')).status, 404);
      assert.equal((await follower.post('/configs/create', config)).status, 201);
    } finally {
      await leader.close();
      await follower.close();
    }
  });
});

describe('api: swarm update', () => {
  let api: TestApi;
  beforeEach(async () => {
    api = await TestApi.start();
  });
  afterEach(() => api.close());
  const current = async () => (await api.get('/swarm')).json;

  it('merges what is said and leaves the rest', async () => {
    const { Version, Spec } = await current();
    const update = {
      Name: 'default',
      Orchestration: { TaskHistoryRetentionLimit: 2 },
      Raft: {},
      Labels: null,
    };
    assert.equal((await api.post(`/swarm/update?version=${Version.Index}`, update)).status, 200);
    const after = await current();
    assert.deepEqual(after.Spec, { ...Spec, Orchestration: { TaskHistoryRetentionLimit: 2 } });
  });

  it('refuses a stale or missing version and what it has no effect for', async () => {
    const { Version, Spec } = await current();
    const send = (query: string, body: unknown) => api.post(`/swarm/update?${query}`, body);
    const stale = await send('version=99999', Spec);
    assert.equal(stale.status, 500);
    assert.equal(stale.json.message, 'rpc error: code = Unknown desc = update out of sequence');
    const missing = await send('', Spec);
    assert.equal(missing.status, 400);
    assert.equal(
      missing.json.message,
      `invalid swarm version '': strconv.ParseUint: parsing "": invalid syntax`,
    );
    const query = `version=${Version.Index}`;
    const external = { ...Spec, CAConfig: { ExternalCAs: [{ URL: 'https://ca' }] } };
    assert.equal((await send(query, external)).status, 501);
    assert.equal((await send(query, { ...Spec, Name: 'other' })).status, 400);
    const halfAnHour = 30 * 60e9;
    assert.equal((await send(query, { ...Spec, CAConfig: { NodeCertExpiry: halfAnHour - 1 } })).status, 400);
    for (const own of [{ SigningCACert: 'x' }, { SigningCAKey: 'x' }]) {
      assert.equal((await send(query, { ...Spec, CAConfig: own })).status, 501);
    }
    const backwards = await send(query, { ...Spec, Dispatcher: { HeartbeatPeriod: -1e9 } });
    assert.match(backwards.json.message, /heartbeat time period cannot be a negative duration/);
    assert.equal((await send(`${query}&rotateWorkerToken=maybe`, Spec)).status, 400);
    assert.deepEqual((await current()).Version, Version);
  });

  it('rotates tokens, and has an unlock key exactly while autolock is on', async () => {
    const update = async (isLocking: boolean, query: string) => {
      const { Version, Spec } = await current();
      const body = { ...Spec, EncryptionConfig: { AutoLockManagers: isLocking } };
      assert.equal((await api.post(`/swarm/update?version=${Version.Index}${query}`, body)).status, 200);
      return {
        tokens: (await current()).JoinTokens,
        key: (await api.get('/swarm/unlockkey')).json.UnlockKey,
      };
    };
    const before = (await current()).JoinTokens;
    const locked = await update(true, '&rotateWorkerToken=true');
    assert.notEqual(locked.tokens.Worker, before.Worker);
    assert.equal(locked.tokens.Manager, before.Manager);
    assert.match(locked.key, /^SWMKEY-1-/);
    assert.equal((await update(true, '')).key, locked.key);
    assert.notEqual((await update(true, '&rotateManagerUnlockKey=1')).key, locked.key);
    assert.equal((await update(false, '&rotateManagerUnlockKey=1')).key, '');
    assert.equal(api.host.store.cluster()?.Private.UnlockKey, undefined);
  });

  it('begins to replace the root when ForceRotate is counted up, and tells no key of it', async () => {
    const { random, clock, store } = api.host;
    const root = await createRoot({ random, now: clock.now() });
    const fields = {
      TLSInfo: tlsInfoOfIssuer(root.certificatePem, root.certificatePem),
      Private: { CaKeyPem: root.keyPem, NetworkKeys: [] },
    };
    api.host.apply([{ op: 'merge', kind: 'cluster', id: store.cluster()!.ID, fields }]);
    const { Version, Spec, TLSInfo } = await current();
    const update = { ...Spec, CAConfig: { ...Spec.CAConfig, ForceRotate: 1 } };
    assert.equal((await api.post(`/swarm/update?version=${Version.Index}`, update)).status, 200);
    const during = await current();
    assert.equal(during.RootRotationInProgress, true);
    assert.equal(during.Spec.CAConfig.ForceRotate, 1);
    assert.equal(during.TLSInfo.TrustRoot, TLSInfo.TrustRoot);
    assert.notEqual(during.TLSInfo.CertIssuerPublicKey, TLSInfo.CertIssuerPublicKey);
    assert.ok(store.cluster()?.Private.RootRotation);
    assert.ok(!JSON.stringify(during).includes('PRIVATE KEY'));
    const again = `/swarm/update?version=${during.Version.Index}`;
    assert.equal((await api.post(again, during.Spec)).status, 200);
    assert.equal((await current()).TLSInfo.CertIssuerPublicKey, during.TLSInfo.CertIssuerPublicKey);
  });
});

describe('api: the frame', () => {
  let api: TestApi;
  before(async () => {
    api = await TestApi.start();
  });
  after(() => api.close());

  it('says who it is on every answer', async () => {
    const { headers } = await api.get('/v1.41/_ping');
    assert.equal(headers['api-version'], '1.51');
    assert.equal(headers.ostype, 'linux');
    assert.match(String(headers.server), /^Shoal\//);
    assert.equal(headers['docker-experimental'], 'false');
    assert.equal((await api.get('/v1.41/nodes')).headers['content-type'], 'application/json');
    const head = await api.send('HEAD', '/_ping');
    assert.deepEqual([head.status, head.text], [200, '']);
  });

  it('serves versions 1.25 to 1.51 and refuses others in Docker’s words', async () => {
    assert.equal((await api.get('/v1.51/nodes')).status, 200);
    assert.equal((await api.get('/v1.25/nodes')).status, 200);
    const tooNew = await api.get('/v1.99/nodes');
    assert.deepEqual(
      [tooNew.status, tooNew.json.message],
      [400, 'client version 1.99 is too new. Maximum supported API version is 1.51'],
    );
    const tooOld = await api.get('/v1.12/nodes');
    assert.match(
      tooOld.json.message,
      /^client version 1\.12 is too old\. Minimum supported API version is 1\.25/,
    );
  });

  it('names what it does not serve', async () => {
    assert.deepEqual((await api.get('/swarm/nosuch')).json, { message: 'page not found' });
  });

  it('waits for what was acknowledged before it answers a read', async () => {
    const before = api.host.barriers;
    await api.get('/nodes');
    assert.equal(api.host.barriers, before + 1);
  });
});

describe('api: backup and restore', () => {
  let api: TestApi;
  beforeEach(async () => {
    api = await TestApi.start();
  });
  afterEach(() => api.close());
  const key = { 'X-Shoal-Backup-Key': Buffer.from('my key').toString('base64') };

  it('a manager answers the file, sealed under the key in the header', async () => {
    const answer = await api.send('POST', '/swarm/backup', undefined, key);
    assert.deepEqual([answer.status, answer.text], [200, 'sealed under my key']);
    assert.equal((await api.send('POST', '/swarm/backup')).status, 400);
    api.host.become({ kind: 'none' });
    assert.equal((await api.send('POST', '/swarm/backup', undefined, key)).status, 503);
  });

  it('a restore takes a file that is larger than other bodies may be, its key and its addresses', async () => {
    api.host.become({ kind: 'none' });
    const file = Buffer.alloc(5 * 1024 * 1024, 7);
    const path = '/v1.47/swarm/restore?advertiseAddr=10.0.0.9&awaitNodesMs=5000&availability=drain';
    const answer = await api.send('POST', path, file, key);
    assert.deepEqual([answer.status, answer.json], [200, 'restored-node']);
    assert.match(api.host.calls.join(), /restore 5242880 bytes my key .*"AdvertiseAddr":"10.0.0.9".*5000/);
    for (const [query, headers, body] of [
      ['', {}, file],
      ['', key, Buffer.alloc(0)],
      ['?availability=lazy', key, file],
      ['?awaitNodesMs=soon', key, file],
    ] as const) {
      const refused = await api.send('POST', `/swarm/restore${query}`, body, headers);
      assert.equal(refused.status, 400, query);
    }
  });
});
