/**
 * The answers of a stock Docker Engine, recorded with and without a swarm: read, stored in a host of ours, and
 * the engine behind it, which answers what was recorded of its own networks and facts.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { type Change, newMeta } from '../../../manager/store/change.ts';
import type { AnyObject, Kind } from '../../../manager/store/tables.ts';
import { newId, type RevisionId } from '../../../proto/ids.ts';
import type { TestHost } from '../../manager/api/host.ts';

// biome-ignore lint/suspicious/noExplicitAny: recorded bodies have whatever shape Docker gave them
export type Body = any;

export interface Recorded {
  /** Method and URL. */
  readonly request: string;
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: Body;
}

/** A short name of the request → what was asked and answered. */
export type Recording = Record<string, Recorded>;

const corpus = path.join(process.env.SHOAL_CORPUS ?? path.resolve('..', 'shared', 'corpus'), 'docker-api');

/** A file of the corpus, which may be absent. */
export function corpusFile(name: string): string | undefined {
  const file = path.join(corpus, name);
  return existsSync(file) ? file : undefined;
}

export function readCorpus<T>(name: string): T {
  return JSON.parse(readFileSync(path.join(corpus, name), 'utf8')) as T;
}

// ---------------------------------------------------------------- the recorded objects, stored

/** Makes `host` hold what the recorded swarm held. */
export function storeRecorded(host: TestHost, recording: Recording): void {
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
  for (const service of body('/services')) {
    changes.push(...storedService(host, service, body('/tasks'), revisions));
  }
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
  const Spec = { Labels: {}, ...attached.Spec, DriverConfiguration: { Name: network.Driver } };
  return { ...attached, Spec };
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

// ---------------------------------------------------------------- the engine behind it

/** What the recorded engine said of itself and of its own networks. */
export class RecordedEngine {
  readonly socketPath: string;
  readonly #folder = mkdtempSync(path.join(os.tmpdir(), 'shoal-recorded-'));
  readonly #server: http.Server;

  constructor(recording: Recording) {
    this.socketPath = path.join(this.#folder, 'engine.sock');
    const own = (recording['/networks']!.body as Body[]).filter((network) => network.Scope === 'local');
    const inspected = Object.values(recording)
      .map(({ body }) => body)
      .filter((body) => body?.Scope === 'local' && !Array.isArray(body));
    this.#server = http.createServer((request, response) => {
      const target = (request.url ?? '').replace(/^\/v\d+\.\d+/, '').replace(/\?.*/, '');
      const answer = (status: number, body: unknown): void => {
        response.writeHead(status, { 'content-type': 'application/json', 'api-version': '1.41' });
        response.end(JSON.stringify(body));
      };
      const named = decodeURIComponent(target.replace('/networks/', ''));
      if (target === '/_ping') answer(200, 'OK');
      else if (target === '/info' || target === '/version') answer(200, recording[target]!.body);
      else if (target === '/networks') answer(200, own);
      else {
        const found = inspected.find((network) => network.Id === named || network.Name === named);
        answer(found ? 200 : 404, found ?? { message: `network ${named} not found` });
      }
    });
  }

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(this.socketPath, resolve));
    return this;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
