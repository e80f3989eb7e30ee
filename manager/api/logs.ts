/** /services/{id}/logs and /tasks/{id}/logs: lines from whatever nodes run the tasks, as one stream. */
import { type Request, type Response, Router } from 'express';
import { ShoalError } from '../../proto/errors.ts';
import type { LogEntry, LogQuery } from '../logs/reader.ts';
import type { ApiHost, ManagedCluster } from './contract.ts';
import { lookup } from './lookup.ts';
import { apiVersion, looseFlag, managedCluster, pathOf, query } from './request.ts';

const streamNumbers = { stdout: 1, stderr: 2, system: 3 } as const;
/** From this version on the answer says by its type whether the streams are told apart. */
const typedStreamMinor = 42;

export function logRoutes(host: ApiHost): Router {
  const routes = Router();
  routes.get('/services/:id/logs', async (request, response) => {
    const cluster = await managedCluster(host);
    const service = lookup(cluster.store, 'service', pathOf(request, 'id'));
    const isRaw = service.Spec.TaskTemplate.ContainerSpec.TTY === true;
    await sendLogs(cluster, request, response, { serviceIds: [service.ID], taskIds: [] }, isRaw);
  });
  routes.get('/tasks/:id/logs', async (request, response) => {
    const cluster = await managedCluster(host);
    const task = lookup(cluster.store, 'task', pathOf(request, 'id'));
    const template = cluster.store.get('revision', task.RevisionID)?.Spec.TaskTemplate;
    const isRaw = template?.ContainerSpec.TTY === true;
    await sendLogs(cluster, request, response, { serviceIds: [], taskIds: [task.ID] }, isRaw);
  });
  return routes;
}

async function sendLogs(
  cluster: ManagedCluster,
  request: Request,
  response: Response,
  whose: Pick<LogQuery, 'serviceIds' | 'taskIds'>,
  isRaw: boolean,
): Promise<void> {
  const asked = readLogRequest(request, whose);
  const abort = new AbortController();
  response.on('close', () => abort.abort());
  const kind = isRaw || apiVersion(request) < typedStreamMinor ? 'raw' : 'multiplexed';
  response.type(`application/vnd.docker.${kind}-stream`);
  response.flushHeaders();
  const options = { timestamps: looseFlag(request, 'timestamps'), details: looseFlag(request, 'details') };
  const send = (stream: keyof typeof streamNumbers, data: Uint8Array) =>
    write(response, isRaw ? data : frame(streamNumbers[stream], data));
  try {
    for await (const line of cluster.logs(asked, abort.signal)) {
      await send(line.stream, lineBytes(line, options));
    }
  } catch (error) {
    if (abort.signal.aborted) return;
    const reason = error instanceof Error ? error.message : String(error);
    await send('system', Buffer.from(`Error grabbing logs: ${reason}\n`));
  }
  response.end();
}

function readLogRequest(request: Request, whose: Pick<LogQuery, 'serviceIds' | 'taskIds'>): LogQuery {
  const stdout = looseFlag(request, 'stdout');
  const stderr = looseFlag(request, 'stderr');
  if (!stdout && !stderr) {
    throw new ShoalError('invalid-argument', 'Bad parameters: you must choose at least one stream');
  }
  const tail = readTail(query(request, 'tail'));
  const sinceMs = readTime('since', query(request, 'since'));
  return {
    ...whose,
    stdout,
    stderr,
    follow: looseFlag(request, 'follow'),
    ...(sinceMs === undefined ? {} : { sinceMs }),
    ...(tail === undefined ? {} : { tail }),
  };
}

function readTail(text: string): number | undefined {
  if (text === '' || text === 'all') return undefined;
  if (/^-\d+$/.test(text)) throw new ShoalError('invalid-argument', 'negative tail values not supported');
  if (!/^\d+$/.test(text)) {
    throw new ShoalError('invalid-argument', 'tail value must be a positive integer or "all"');
  }
  return Number(text);
}

/** A time as clients send it: seconds since the epoch, with a fraction, or RFC 3339. Answers ms. */
export function readTime(name: string, text: string): number | undefined {
  if (text === '' || text === '0') return undefined;
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  const parsed = Date.parse(text);
  if (Number.isNaN(parsed)) {
    throw new ShoalError(
      'invalid-argument',
      `invalid value for "${name}": "${text}" is neither seconds since 1970 nor an RFC 3339 time`,
    );
  }
  return parsed;
}

/** One line with what the client asked to see before it: its time, and where it comes from. */
function lineBytes(
  line: LogEntry,
  { timestamps, details }: { timestamps: boolean; details: boolean },
): Buffer {
  const origin = Object.entries({
    ...line.attributes,
    'com.docker.swarm.node.id': line.nodeId,
    'com.docker.swarm.service.id': line.serviceId,
    'com.docker.swarm.task.id': line.taskId,
  })
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([key, value]) => `${queryEscaped(key)}=${queryEscaped(value)}`)
    .join(',');
  const head = `${timestamps ? `${line.timestamp} ` : ''}${details ? `${origin} ` : ''}`;
  return Buffer.concat([Buffer.from(head), line.data]);
}

/** As in a URL's query, which is how clients read details. */
function queryEscaped(text: string): string {
  return encodeURIComponent(text).replaceAll('%20', '+');
}

/** Docker's frame: the stream's number, three zeros, the length in 4 bytes, the data. */
function frame(stream: number, data: Uint8Array): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt8(stream, 0);
  head.writeUInt32BE(data.length, 4);
  return Buffer.concat([head, data]);
}

/** Waits for a slow reader. */
async function write(response: Response, data: Uint8Array): Promise<void> {
  if (response.destroyed || response.write(data)) return;
  await new Promise<void>((resolve) => {
    const done = (): void => {
      response.off('drain', done);
      response.off('close', done);
      resolve();
    };
    response.once('drain', done);
    response.once('close', done);
  });
}
