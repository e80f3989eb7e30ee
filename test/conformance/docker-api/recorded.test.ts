/**
 * The answers of a stock Docker Engine, recorded with and without a swarm: our API, holding the same
 * objects, must give the same statuses, messages and bodies. Where it can't yet, it is said here why.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { Change } from '../../../manager/store/change.ts';
import { newMeta } from '../../../manager/store/change.ts';
import type { AnyObject, Kind } from '../../../manager/store/tables.ts';
import { newId, type RevisionId } from '../../../proto/ids.ts';
import { type Answer, TestApi, TestHost } from '../../manager/api/host.ts';

// biome-ignore lint/suspicious/noExplicitAny: recorded bodies have whatever shape Docker gave them
type Body = any;

interface Recorded {
  readonly request: string;
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly shape: Record<string, string>;
  readonly body: Body;
}

type Recording = Record<string, Recorded>;

const corpus = path.join(process.env.SHOAL_CORPUS ?? path.resolve('..', 'shared', 'corpus'), 'docker-api');

/** Recorded requests that are not replayed, each with the reason. */
const notApplicable: Record<string, string> = {
  '/networks/{docker_gwbridge}': "a bridge that the engine's own swarm mode makes; Shoal makes none",
  '/networks/{ingress}': 'the ingress network belongs to the routing mesh, and its endpoints to the engine',
  '/tasks/{bzmnf}': 'a task of a job: jobs are refused so far',
};

/** Engine networks have an id of the engine's; ours have their name for it. */
const predefined = ['bridge', 'host', 'none'];

const volatile = new Set(['Version', 'CreatedAt', 'UpdatedAt', 'Created', 'Peers']);

function load(name: string): Recording {
  return JSON.parse(readFileSync(path.join(corpus, name), 'utf8')) as Recording;
}

/** A value without what differs from run to run. */
function settled(value: Body): Body {
  if (Array.isArray(value)) return value.map(settled);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => !volatile.has(key))
      .map(([key, field]) => [key, settled(field)]),
  );
}

function byId(list: Body[]): Body[] {
  return [...list].sort((a, b) => String(a.ID ?? a.Id).localeCompare(String(b.ID ?? b.Id)));
}

/** Keys and types, as the recording's shapes: what must be there when it was recorded there. */
function missingKeys(recorded: Body, answered: Body, at = ''): string[] {
  if (typeof recorded !== 'object' || recorded === null) return [];
  if (Array.isArray(recorded)) return [];
  return Object.keys(recorded).flatMap((key) =>
    answered !== null && typeof answered === 'object' && key in answered
      ? missingKeys(recorded[key], answered[key], `${at}.${key}`)
      : [`${at}.${key}`],
  );
}

// ---------------------------------------------------------------- the recorded objects, stored

function storeRecorded(host: TestHost, recording: Recording): void {
  const body = (key: string): Body => recording[key]!.body;
  const own = host.store.get('node', host.nodeId)!;
  const cluster = host.store.cluster()!;
  const changes: Change[] = [
    { op: 'remove', kind: 'node', id: own.ID },
    { op: 'remove', kind: 'cluster', id: cluster.ID },
    create('cluster', { ...body('/swarm'), DefaultAddrPool: [], Private: cluster.Private }),
  ];
  for (const node of body('/nodes')) changes.push(create('node', storedNode(node)));
  for (const secret of body('/secrets')) changes.push(create('secret', secret));
  for (const config of body('/configs')) changes.push(create('config', config));
  for (const network of body('/networks')) {
    if (network.Scope === 'swarm') changes.push(create('network', storedNetwork(body('/tasks'), network)));
  }
  const revisions = new Map<string, RevisionId>();
  for (const service of body('/services'))
    changes.push(...storedService(host, service, body('/tasks'), revisions));
  for (const task of body('/tasks')) changes.push(create('task', storedTask(task, revisions)));
  host.apply(changes);
}

function create(kind: Kind, object: Body): Change {
  return { op: 'create', kind, object: object as AnyObject } as Change;
}

function storedNode(node: Body): Body {
  const Engine = { Labels: {}, ...node.Description.Engine };
  return { ...node, Description: { ...node.Description, Engine }, Private: { Role: node.Spec.Role } };
}

/** A network's stored form is what the recorded tasks carry of it. */
function storedNetwork(tasks: Body[], network: Body): Body {
  const attached = tasks
    .flatMap((task) => task.NetworksAttachments ?? [])
    .find((attachment: Body) => attachment.Network.ID === network.Id).Network;
  const { DriverState, ...stored } = attached;
  return { ...stored, Spec: { ...stored.Spec, Labels: {}, DriverConfiguration: DriverState } };
}

function revisionKey(serviceId: string, template: Body): string {
  const { Runtime: _runtime, ...rest } = template;
  return `${serviceId} ${JSON.stringify(rest)}`;
}

function storedService(
  host: TestHost,
  service: Body,
  tasks: Body[],
  revisions: Map<string, RevisionId>,
): Change[] {
  const templates = [
    service.Spec.TaskTemplate,
    ...tasks.filter((task) => task.ServiceID === service.ID).map((task) => task.Spec),
  ];
  const changes: Change[] = [];
  for (const template of templates) {
    const key = revisionKey(service.ID, template);
    if (revisions.has(key)) continue;
    const id = newId<RevisionId>(host.random);
    revisions.set(key, id);
    const Spec = { ...service.Spec, TaskTemplate: { ...template, Runtime: 'container' } };
    changes.push(create('revision', { ...newMeta(id), ServiceID: service.ID, Number: revisions.size, Spec }));
  }
  const RevisionID = revisions.get(revisionKey(service.ID, service.Spec.TaskTemplate));
  const { JobStatus } = service;
  const job = JobStatus
    ? { JobStatus: { ...JobStatus, JobIteration: { Index: 0, ...JobStatus.JobIteration } } }
    : {};
  return [...changes, create('service', { ...service, ...job, Private: { RevisionID } })];
}

function storedTask(task: Body, revisions: Map<string, RevisionId>): Body {
  const { Spec, NetworksAttachments, JobIteration, ...rest } = task;
  const RevisionID = revisions.get(revisionKey(task.ServiceID, Spec));
  const attachments = NetworksAttachments?.map((attachment: Body) => ({
    NetworkID: attachment.Network.ID,
    Addresses: attachment.Addresses,
  }));
  return {
    ...rest,
    RevisionID,
    // The first slot and the first iteration of a job are 0, which Docker leaves out.
    ...(JobIteration ? { JobIteration: { Index: 0, ...JobIteration }, Slot: task.Slot ?? 0 } : {}),
    ...(attachments ? { NetworksAttachments: attachments } : {}),
    Private: {},
  };
}

// ---------------------------------------------------------------- replay

/** What a request is compared by, for those that don't give the very same body. */
const comparisons: Record<string, (recorded: Body, answered: Body) => void> = {
  '/_ping': () => {},
  'HEAD /_ping': () => {},
  // The rest of these two is the engine's and the program's own.
  '/info': (recorded, answered) => {
    const { NodeID: _theirs, ...swarm } = settled(recorded.Swarm);
    const { NodeID: _ours, ...answeredSwarm } = settled(answered.Swarm);
    const { RemoteManagers, NodeAddr, ...rest } = swarm;
    const { RemoteManagers: managers, NodeAddr: address, ...answeredRest } = answeredSwarm;
    assert.deepEqual(answeredRest, rest);
    assert.equal(typeof address, typeof NodeAddr);
    assert.deepEqual(missingKeys(RemoteManagers?.[0], managers?.[0]), []);
  },
  '/version': (recorded, answered) => assert.deepEqual(missingKeys(recorded, answered), []),
  '/tasks': (recorded, answered) => {
    const plain = (list: Body[]) => byId(list).map(comparableTask);
    assert.deepEqual(plain(answered), plain(recorded));
  },
  '/networks': (recorded, answered) => {
    for (const network of recorded) {
      if (network.Scope === 'swarm') {
        // Outside of a swarm the engine still lists what an earlier one left behind.
        const inSwarm = answered.some((one: Body) => one.Scope === 'swarm');
        const ours = answered.find((one: Body) => one.Id === network.Id);
        if (inSwarm) assert.deepEqual(settled(ours), { ...settled(network), EnableIPv4: true, Labels: {} });
      } else if (predefined.includes(network.Name)) {
        const ours = answered.find((one: Body) => one.Name === network.Name);
        assert.deepEqual(missingKeys({ ...network, Options: {} }, ours), []);
        assert.deepEqual([ours.Scope, ours.Driver], [network.Scope, network.Driver]);
      }
    }
  },
};

/** Tasks but for the parts of a network that its allocator fills in. */
function comparableTask(task: Body): Body {
  const { NetworksAttachments, ...rest } = settled(task);
  const attachments = NetworksAttachments?.map((one: Body) => [
    one.Network.ID,
    one.Network.Spec.Name,
    one.Addresses,
  ]);
  return { ...rest, attachments };
}

function compare(key: string, recorded: Recorded, answer: Answer): void {
  assert.equal(answer.status, recorded.status, answer.text);
  if (recorded.status >= 400) {
    assert.deepEqual(answer.json, recorded.body);
    return;
  }
  for (const header of ['ostype', 'docker-experimental', 'cache-control', 'pragma', 'content-type']) {
    if (recorded.headers[header]) assert.equal(answer.headers[header], recorded.headers[header], header);
  }
  const comparison = comparisons[key] ?? sameBody;
  if (/^\/tasks\/\{/.test(key)) {
    assert.deepEqual(comparableTask(answer.json), comparableTask(recorded.body));
  } else if (/^\/networks\/\{/.test(key)) {
    assert.deepEqual(
      missingKeys(
        { ...recorded.body, Containers: {}, Peers: [], Options: {} },
        { Peers: [], ...answer.json },
      ),
      [],
    );
  } else comparison(recorded.body, answer.json);
}

function sameBody(recorded: Body, answered: Body): void {
  const plain = (value: Body) => settled(Array.isArray(value) ? byId(value) : value);
  assert.deepEqual(plain(answered), plain(recorded));
}

async function replay(api: TestApi, recorded: Recorded): Promise<Answer> {
  const [method, url] = recorded.request.split(' ') as [string, string];
  const name: unknown = recorded.body?.Name;
  const target = typeof name === 'string' && predefined.includes(name) ? `/networks/${name}` : url;
  return api.send(method, target);
}

const recordings: [string, string, (host: TestHost, recording: Recording) => void][] = [
  ['in a swarm', 'real-swarm.json', storeRecorded],
  ['outside of a swarm', 'real-noswarm.json', (host) => host.become({ kind: 'none' })],
];

it('conformance: every request that is left out is one of the recorded ones', function () {
  if (recordings.some(([, file]) => !existsSync(path.join(corpus, file)))) return this.skip();
  const known = new Set(recordings.flatMap(([, file]) => Object.keys(load(file))));
  assert.deepEqual(
    Object.keys(notApplicable).filter((key) => !known.has(key)),
    [],
  );
});

for (const [title, file, prepare] of recordings) {
  describe(`conformance: a stock engine's answers ${title}`, () => {
    if (!existsSync(path.join(corpus, file))) {
      it.skip(`needs ${file} of the recorded corpus (SHOAL_CORPUS)`);
      return;
    }
    const recording = load(file);
    let api: TestApi;
    before(async () => {
      const host = new TestHost();
      prepare(host, recording);
      api = await TestApi.start(host);
    });
    after(() => api.close());
    for (const [key, recorded] of Object.entries(recording)) {
      if (notApplicable[key] === undefined)
        it(recorded.request, async () => compare(key, recorded, await replay(api, recorded)));
    }
  });
}
