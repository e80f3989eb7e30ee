/**
 * New versions of configs and secrets, and back: POST /configs/ID/versions with {"Data": base64} and
 * POST /configs/ID/rollback, the same for secrets. Docker's API has neither; its own update takes labels only, as ever.
 */
import { type Request, type Response, Router } from 'express';
import { isShoalError, ShoalError } from '../../proto/errors.ts';
import {
  type DataKind,
  type DataRotation,
  newVersion,
  previousVersion,
  withoutNumber,
} from '../store/data-version.ts';
import type { ApiHost } from './contract.ts';
import { lookup } from './lookup.ts';
import { asSwarmError, idMaker, jsonBody, managedCluster, pathOf } from './request.ts';
import { checkConfig, checkSecret } from './validate.ts';

/** How often a decision is made anew when a service changed while it was committed. */
const maximumAttempts = 5;

export function dataVersionRoutes(host: ApiHost): Router {
  const routes = Router();
  for (const kind of ['config', 'secret'] as const) {
    routes.post(`/${kind}s/:id/versions`, async (request, response) => {
      const Data = readData(kind, jsonBody(request));
      await rotate(host, kind, request, response, Data);
    });
    routes.post(`/${kind}s/:id/rollback`, (request, response) => rotate(host, kind, request, response));
  }
  return routes;
}

function readData(kind: DataKind, body: unknown): string {
  const { Data, ...others } = (body ?? {}) as { Data?: unknown };
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) {
    throw new ShoalError('invalid-argument', `${unknown}: a ${kind}'s version has Data and nothing else`);
  }
  if (typeof Data !== 'string') {
    throw new ShoalError('invalid-argument', `Data: base64 of what the ${kind} is to hold is needed`);
  }
  return Data;
}

/** Without `Data` the version before. */
async function rotate(
  host: ApiHost,
  kind: DataKind,
  request: Request,
  response: Response,
  Data?: string,
): Promise<void> {
  const cluster = await managedCluster(host);
  for (let attempt = 1; ; attempt += 1) {
    const current = lookup(cluster.store, kind, pathOf(request, 'id'));
    if (Data !== undefined) check(kind, current.Spec.Name, Data);
    const now = host.clock.now();
    try {
      const rotation =
        Data === undefined
          ? previousVersion(cluster.store, kind, current, now, idMaker(host))
          : newVersion(cluster.store, kind, current, Data, now, idMaker(host));
      if (rotation.changes.length > 0) await cluster.propose(rotation.changes);
      response.json(answerOf(rotation));
      return;
    } catch (error) {
      if (!isShoalError(error, 'out-of-sequence') || attempt === maximumAttempts) throw asSwarmError(error);
    }
  }
}

function check(kind: DataKind, name: string, Data: string): void {
  const spec = { Name: withoutNumber(name), Labels: {}, Data };
  if (kind === 'config') checkConfig(spec);
  else checkSecret(spec);
}

function answerOf({ id, services }: DataRotation) {
  return {
    ID: id,
    Services: services.map(({ service, rotation }) => ({
      ID: service.ID,
      Name: service.Spec.Name,
      Rotation: rotation,
    })),
  };
}
