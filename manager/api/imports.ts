/** /swarm/import: objects of another cluster, made here in one entry. Not of Docker's API. */
import { Router, raw } from 'express';
import { z } from 'zod';
import type { Labels } from '../../proto/docker.ts';
import { isShoalError } from '../../proto/errors.ts';
import { type ImportedObjects, planImport, type Refusal } from '../stack/import.ts';
import type { StackObjectKind } from '../stack/plan.ts';
import { readConfigSpec, readNetworkSpec, readSecretSpec } from './cluster-schema.ts';
import type { ApiHost } from './contract.ts';
import { check } from './fields.ts';
import { checkNetwork } from './network-spec.ts';
import { commit, idMaker, jsonBody, managedCluster } from './request.ts';
import { readServiceSpec } from './service-schema.ts';
import { checkConfig, checkPrivileges, checkSecret, checkServiceShape } from './validate.ts';

const maximumBodyBytes = 256 * 1024 * 1024;

const importRequest = z.strictObject({
  Origin: z.string(),
  DryRun: z.boolean(),
  Networks: z.array(z.unknown()),
  Configs: z.array(z.unknown()),
  Secrets: z.array(z.unknown()),
  Services: z.array(z.unknown()),
  NodeLabels: z.record(z.string(), z.record(z.string(), z.string())),
});

interface ImportRequest {
  readonly Origin: string;
  readonly DryRun: boolean;
  readonly Networks: readonly unknown[];
  readonly Configs: readonly unknown[];
  readonly Secrets: readonly unknown[];
  readonly Services: readonly unknown[];
  readonly NodeLabels: Readonly<Record<string, Labels>>;
}

/** To be used before what bounds and reads other requests' bodies. */
export function importRoutes(host: ApiHost): Router {
  const routes = Router();
  routes.post(
    '/swarm/import',
    raw({ type: () => true, limit: maximumBodyBytes }),
    async (request, response) => {
      const body = check<ImportRequest>(importRequest, jsonBody(request), 'Import');
      const unreadable: Refusal[] = [];
      const objects = readObjects(body, unreadable);
      const cluster = await managedCluster(host);
      const { changes, summary } = planImport(cluster.store, objects, {
        now: host.clock.now(),
        newId: idMaker(host),
        origin: body.Origin,
        check: {
          service: (spec) => {
            checkServiceShape(spec);
            checkPrivileges(cluster.store, spec);
          },
          network: checkNetwork,
          secret: checkSecret,
          config: checkConfig,
        },
      });
      if (!body.DryRun && changes.length > 0) await commit(cluster, changes);
      response.json({ ...summary, refused: [...unreadable, ...summary.refused] });
    },
  );
  return routes;
}

/** What one object says that Shoal has no use for is no reason to refuse the others. */
function readObjects(body: ImportRequest, unreadable: Refusal[]): ImportedObjects {
  const read = <T>(kind: StackObjectKind, bodies: readonly unknown[], reader: (one: unknown) => T): T[] =>
    bodies.flatMap((one) => {
      try {
        return [reader(one)];
      } catch (error) {
        if (!isShoalError(error)) throw error;
        const name = String((one as { Name?: unknown } | null)?.Name ?? '');
        unreadable.push({ kind, name, reason: error.message });
        return [];
      }
    });
  return {
    networks: read('network', body.Networks, readNetworkSpec),
    configs: read('config', body.Configs, readConfigSpec),
    secrets: read('secret', body.Secrets, readSecretSpec),
    services: read('service', body.Services, readServiceSpec),
    nodeLabels: body.NodeLabels,
  };
}
