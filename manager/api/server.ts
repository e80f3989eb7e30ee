/**
 * The HTTP API: the Docker Engine's. What concerns the cluster is answered here; everything else is the container
 * engine's and passed on to it (see endpoints.ts).
 *
 * In: requests of the stock docker CLI, SDKs and our own client. Out: answers in Docker's shapes, its
 * status codes and its words; changes proposed through the host. It decides nothing about tasks, holds no
 * state, answers no secret, and drops nothing that it was sent in silence.
 */
import type { IncomingMessage, RequestListener } from 'node:http';
import type { Duplex } from 'node:stream';
import express, { type ErrorRequestHandler, type Express, type RequestHandler, type Response } from 'express';
import { isShoalError, messageOf, ShoalError } from '../../proto/errors.ts';
import { lockedMessage } from '../../proto/identity.ts';
import type { TaskCommands } from '../exec/command.ts';
import { backupRoutes } from './backups.ts';
import { configRoutes } from './configs.ts';
import { createContainer, makesContainer } from './container-networks.ts';
import type { ApiHost } from './contract.ts';
import { dataVersionRoutes } from './data-versions.ts';
import { isAnsweredLocked, isEngines, isTakenOver, readTarget } from './endpoints.ts';
import { passOn } from './engine-proxy.ts';
import { eventRoutes } from './events.ts';
import { distantTask, execIdOf, execRoutes, takeOverExec, taskCommands } from './execs.ts';
import { headOf, takeOver } from './hijack.ts';
import { historyRoutes } from './history.ts';
import { importRoutes } from './imports.ts';
import { LocalEngine } from './local-engine.ts';
import { logRoutes } from './logs.ts';
import { networkSightRoutes } from './network-sight.ts';
import { networkTraceRoutes } from './network-trace.ts';
import { networkRoutes } from './networks.ts';
import { nodeRoutes } from './nodes.ts';
import { maximumMinor, minimumMinor } from './request.ts';
import { secretRoutes } from './secrets.ts';
import { serviceRoutes } from './services.ts';
import { stackRoutes } from './stacks.ts';
import { swarmRoutes } from './swarm.ts';
import { systemRoutes } from './system.ts';
import { taskRoutes } from './tasks.ts';
import { whyRoutes } from './why.ts';

/** More than any spec needs: a config of 1000 KiB in base64 is a third of it. */
const maximumBodyBytes = 4 * 1024 * 1024;
const maximumDrainedBytes = 64 * 1024 * 1024;
const maximumLineBytes = 16 * 1024;
const tooLarge = `the request's body is larger than ${maximumBodyBytes} bytes`;

/** What a door does with its connections. */
export interface Api {
  /** Answers one request. */
  readonly respond: RequestListener;
  /**
   * Takes over a connection whose first bytes are `first`, if it is one that is to become a bare stream;
   * answers whether it did.
   */
  takesFirst(connection: Duplex, first: Buffer): boolean;
  /**
   * Takes over the connection of a request that says `Upgrade`. Answers undefined when it did, else what is to be
   * read in that request's place: the same without its wish, which a server need not grant.
   */
  upgrade(request: IncomingMessage, connection: Duplex, rest: Buffer): Buffer | undefined;
}

/** The API for `host`. */
export function createApi(host: ApiHost): Api {
  const engine = new LocalEngine(host);
  const app = createApp(host, engine);
  const isForEngine = (target: string): boolean => {
    const { path, version } = readTarget(target);
    if (execOf(path) || distantTask(host, path)) return false;
    return isEngines(path) && (!version || versionFault(version) === undefined);
  };
  /** A command in a task that this manager was asked for, and no engine's. */
  const execOf = (path: string): { id: string; commands: TaskCommands } | undefined => {
    const id = execIdOf(path);
    const commands = id === undefined ? undefined : taskCommands(host);
    return id !== undefined && commands?.has(id) ? { id, commands } : undefined;
  };
  return {
    respond(request, response) {
      const target = request.url ?? '';
      if (!isForEngine(target)) app(request, response);
      else if (makesContainer(request.method ?? '', readTarget(target).path)) {
        void createContainer(host, engine, request, response);
      } else void passOn(engine, request, response, host.log);
    },
    takesFirst(connection, first) {
      const match = /^([A-Z]+) (\S+) HTTP\/1\.[01]\r\n/.exec(first.toString('latin1', 0, maximumLineBytes));
      if (!match || !isTakenOver(match[1]!, readTarget(match[2]!).path) || !isForEngine(match[2]!))
        return false;
      void takeOver(connection, first, engine);
      return true;
    },
    upgrade(request, connection, rest) {
      const { path } = readTarget(request.url ?? '');
      const exec = path.endsWith('/start') ? execOf(path) : undefined;
      if (exec) {
        void takeOverExec(exec.commands, exec.id, { request, connection, rest });
        return undefined;
      }
      if (!isForEngine(request.url ?? '')) {
        return Buffer.concat([headOf(request, ['connection', 'upgrade', 'http2-settings']), rest]);
      }
      void takeOver(connection, Buffer.concat([headOf(request), rest]), engine);
      return undefined;
    },
  };
}

function createApp(host: ApiHost, engine: LocalEngine): Express {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.set('query parser', 'simple');
  app.response.json = plainJson;
  app.use(commonHeaders(host, engine));
  app.use(versionPrefix);
  app.use(refuseWhileLocked(host));
  app.use(backupRoutes(host));
  app.use(importRoutes(host));
  app.use(refuseAnnouncedSize);
  app.use(express.raw({ type: () => true, limit: maximumBodyBytes }));
  app.use(systemRoutes(host, engine));
  app.use(networkRoutes(host, engine));
  app.use(eventRoutes(host, engine));
  const resources = [
    swarmRoutes,
    nodeRoutes,
    // Before the services and tasks, whose logs they are.
    logRoutes,
    serviceRoutes,
    taskRoutes,
    execRoutes,
    whyRoutes,
    networkSightRoutes,
    networkTraceRoutes,
    dataVersionRoutes,
    historyRoutes,
    secretRoutes,
    configRoutes,
    stackRoutes,
  ];
  for (const routes of resources) app.use(routes(host));
  app.use(notServed);
  app.use(answerError(host));
  return app;
}

/**
 * A body that is announced as far too large is refused at once, for the reader of bodies takes in all of one
 * before it refuses it. That is kinder to clients, which hear of it only when they have sent all, but has an end.
 */
const refuseAnnouncedSize: RequestHandler = (request, _response, next) => {
  if (Number(request.headers['content-length'] ?? 0) > maximumDrainedBytes) {
    throw new ShoalError('too-large', tooLarge);
  }
  next();
};

/**
 * Docker's CLI reads an error's message only from exactly `application/json`, so no charset may be added,
 * as express does.
 */
function plainJson(this: Response, body: unknown): Response {
  const text = `${JSON.stringify(body)}\n`;
  this.setHeader('Content-Type', 'application/json');
  this.setHeader('Content-Length', Buffer.byteLength(text));
  this.end(this.req.method === 'HEAD' ? undefined : text);
  return this;
}

function commonHeaders(host: ApiHost, engine: LocalEngine): RequestHandler {
  return (_request, response, next) => {
    response.set({
      'Api-Version': `1.${engine.minor}`,
      'Docker-Experimental': 'false',
      Ostype: 'linux',
      Server: `Shoal/${host.version} (linux)`,
    });
    next();
  };
}

/** Takes /v1.NN off the path and refuses versions that are not served. */
const versionPrefix: RequestHandler = (request, _response, next) => {
  const { version } = readTarget(request.url);
  if (version) {
    const fault = versionFault(version);
    if (fault !== undefined) throw new ShoalError('invalid-argument', fault);
    request.url = request.url.replace(/^\/v\d+\.\d+/, '').replace(/^(?!\/)/, '/');
    (request as typeof request & { apiMinor?: number }).apiMinor = version.minor;
  }
  next();
};

/** A locked manager says so before it looks at anything of a request; clients hear it only when they have sent all. */
function refuseWhileLocked(host: ApiHost): RequestHandler {
  return (request, _response, next) => {
    if (host.membership().kind !== 'locked' || isAnsweredLocked(request.path)) return next();
    request.on('end', () => next(new ShoalError('locked', lockedMessage))).resume();
  };
}

/** Why a version is not served, in Docker's words. Up to the newest of ours; an older engine refuses what is its own. */
function versionFault({ major, minor }: { major: number; minor: number }): string | undefined {
  const asked = `${major}.${minor}`;
  if (major > 1 || (major === 1 && minor > maximumMinor)) {
    return `client version ${asked} is too new. Maximum supported API version is 1.${maximumMinor}`;
  }
  if (major < 1 || minor < minimumMinor) {
    return `client version ${asked} is too old. Minimum supported API version is 1.${minimumMinor}, please upgrade your client to a newer version`;
  }
  return undefined;
}

const notServed: RequestHandler = (_request, response) => {
  response.status(404).json({ message: 'page not found' });
};

function answerError(host: ApiHost): ErrorRequestHandler {
  return (error: unknown, request, response, _next) => {
    if (response.headersSent) {
      host.log.warn({ path: request.path, error: messageOf(error) }, 'an answer was cut short');
      response.destroy();
      return;
    }
    const status = statusOf(error);
    if (status === 500 && !isShoalError(error)) {
      host.log.error(
        { method: request.method, path: request.path, error: stackOf(error) },
        'a request failed',
      );
    }
    response.status(status).json({ message: sentenceOf(error, status) });
  };
}

/** Express and its body reader throw errors that carry a status of their own. */
function statusOf(error: unknown): number {
  if (isShoalError(error)) return error.httpStatus;
  const status: unknown = (error as { status?: unknown } | undefined)?.status;
  return typeof status === 'number' && status >= 400 && status < 600 ? status : 500;
}

function sentenceOf(error: unknown, status: number): string {
  if (status === 413) return tooLarge;
  return messageOf(error);
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
