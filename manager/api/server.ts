/**
 * The HTTP API: the Docker Engine's, for everything that concerns the cluster.
 *
 * In: requests of the stock docker CLI, SDKs and our own client. Out: answers in Docker's shapes, its
 * status codes and its words; changes proposed through the host. It decides nothing about tasks, holds no
 * state, answers no secret, and drops nothing that it was sent in silence.
 */
import express, { type ErrorRequestHandler, type Express, type RequestHandler, type Response } from 'express';
import { isShoalError, messageOf, ShoalError } from '../../proto/errors.ts';
import { configRoutes } from './configs.ts';
import type { ApiHost } from './contract.ts';
import { eventRoutes } from './events.ts';
import { logRoutes } from './logs.ts';
import { networkRoutes } from './networks.ts';
import { nodeRoutes } from './nodes.ts';
import { currentMinor, maximumMinor, minimumMinor } from './request.ts';
import { secretRoutes } from './secrets.ts';
import { serviceRoutes } from './services.ts';
import { stackRoutes } from './stacks.ts';
import { swarmRoutes } from './swarm.ts';
import { systemRoutes } from './system.ts';
import { taskRoutes } from './tasks.ts';

/** More than any spec needs: a config of 1000 KiB in base64 is a third of it. */
const maximumBodyBytes = 4 * 1024 * 1024;
const maximumDrainedBytes = 64 * 1024 * 1024;
const tooLarge = `the request's body is larger than ${maximumBodyBytes} bytes`;

/** The application that serves the API for `host`. */
export function createApi(host: ApiHost): Express {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.set('query parser', 'simple');
  app.response.json = plainJson;
  app.use(commonHeaders(host));
  app.use(versionPrefix);
  app.use(refuseAnnouncedSize);
  app.use(express.raw({ type: () => true, limit: maximumBodyBytes }));
  const resources = [
    systemRoutes,
    swarmRoutes,
    nodeRoutes,
    // Before the services and tasks, whose logs they are.
    logRoutes,
    serviceRoutes,
    taskRoutes,
    secretRoutes,
    configRoutes,
    networkRoutes,
    stackRoutes,
    eventRoutes,
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

function commonHeaders(host: ApiHost): RequestHandler {
  return (_request, response, next) => {
    response.set({
      'Api-Version': `1.${currentMinor}`,
      'Docker-Experimental': 'false',
      Ostype: 'linux',
      Server: `Shoal/${host.version} (linux)`,
    });
    next();
  };
}

/** Takes /v1.NN off the path and refuses versions that are not served, in Docker's words. */
const versionPrefix: RequestHandler = (request, _response, next) => {
  const match = /^\/v(\d+)\.(\d+)(?=\/|\?|$)/.exec(request.url);
  if (match) {
    const [prefix, major, minor] = [match[0], Number(match[1]), Number(match[2])];
    const asked = `${major}.${minor}`;
    if (major > 1 || (major === 1 && minor > maximumMinor)) {
      throw new ShoalError(
        'invalid-argument',
        `client version ${asked} is too new. Maximum supported API version is 1.${maximumMinor}`,
      );
    }
    if (major < 1 || minor < minimumMinor) {
      throw new ShoalError(
        'invalid-argument',
        `client version ${asked} is too old. Minimum supported API version is 1.${minimumMinor}, please upgrade your client to a newer version`,
      );
    }
    request.url = request.url.slice(prefix.length) || '/';
    (request as typeof request & { apiMinor?: number }).apiMinor = minor;
  }
  next();
};

const enginePaths =
  /^\/(containers|images|volumes|build|commit|exec|plugins|system|distribution|session|auth|grpc)(\/|$)/;

const notServed: RequestHandler = (request, response) => {
  const message = enginePaths.test(request.path)
    ? `page not found: ${request.method} ${request.path} is the container engine's, and Shoal serves the cluster's endpoints only; ask the engine on its own socket`
    : 'page not found';
  response.status(404).json({ message });
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
