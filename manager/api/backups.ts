/**
 * /swarm/backup and /swarm/restore: the cluster as one sealed file, and back. Not of Docker's API. The key travels as
 * registries' credentials do, in a header; the file as it is.
 */
import { type Request, Router, raw } from 'express';
import { ShoalError } from '../../proto/errors.ts';
import type { ApiHost, RestoreRequest } from './contract.ts';
import { managedCluster, query } from './request.ts';

const keyHeader = 'x-shoal-backup-key';
const maximumFileBytes = 2 ** 31 - 1;
const defaultAwaitMs = 10 * 60_000;
const octets = 'application/octet-stream';

/** To be used before what bounds and reads other requests' bodies. */
export function backupRoutes(host: ApiHost): Router {
  const routes = Router();
  routes.post('/swarm/backup', async (request, response) => {
    const cluster = await managedCluster(host);
    const pieces = await cluster.backup(keyOf(request));
    response.setHeader('Content-Type', octets);
    try {
      for await (const piece of pieces) {
        if (!response.write(piece)) await drained(response);
        if (response.destroyed) return;
      }
      response.end();
    } catch (error) {
      // Half a file is no file: the connection is broken off, and the client sees that.
      host.log.error({ error: String(error) }, 'a backup broke off');
      response.destroy();
    }
  });
  routes.post(
    '/swarm/restore',
    raw({ type: () => true, limit: maximumFileBytes }),
    async (request, response) => {
      response.json(await host.restore(readRestore(request)));
    },
  );
  return routes;
}

function readRestore(request: Request): RestoreRequest {
  const key = keyOf(request);
  if (key === undefined) {
    throw new ShoalError(
      'invalid-argument',
      `the backup's key is needed, in the header ${keyHeader}, in base64`,
    );
  }
  const file: unknown = request.body;
  if (!(file instanceof Uint8Array) || file.length === 0) {
    throw new ShoalError('invalid-argument', 'the body is to be the file of a backup, and it is empty');
  }
  const Availability = query(request, 'availability') || 'active';
  if (Availability !== 'active' && Availability !== 'pause' && Availability !== 'drain') {
    throw new ShoalError('invalid-argument', `availability "${Availability}": write active, pause or drain`);
  }
  const awaitText = query(request, 'awaitNodesMs') || String(defaultAwaitMs);
  if (!/^\d{1,12}$/.test(awaitText)) {
    throw new ShoalError('invalid-argument', `awaitNodesMs "${awaitText}": write a number of milliseconds`);
  }
  return {
    file,
    key,
    ListenAddr: query(request, 'listenAddr'),
    AdvertiseAddr: query(request, 'advertiseAddr'),
    Availability,
    awaitNodesMs: Number(awaitText),
  };
}

function keyOf(request: Request): string | undefined {
  const header = request.headers[keyHeader];
  const key = typeof header === 'string' ? Buffer.from(header, 'base64').toString('utf8').trim() : '';
  return key === '' ? undefined : key;
}

function drained(response: NodeJS.WritableStream): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off('drain', done);
      response.off('close', done);
      resolve();
    };
    response.on('drain', done);
    response.on('close', done);
  });
}
