/** /configs */
import { type Request, Router } from 'express';
import type { Config } from '../../proto/docker.ts';
import type { ConfigId } from '../../proto/ids.ts';
import { newMeta } from '../store/change.ts';
import { earlierRemovals } from '../store/data-version.ts';
import type { View } from '../store/store.ts';

import { readConfigSpec } from './cluster-schema.ts';
import type { ApiHost } from './contract.ts';
import { checkFilters, type Filters, hasAskedPrefix, hasLabels, isAsked, readFilters } from './filters.ts';
import { refuseUsedData } from './in-use.ts';
import { lookup } from './lookup.ts';
import {
  apiVersion,
  commit,
  idMaker,
  jsonBody,
  managedCluster,
  pathOf,
  specBody,
  swarmError,
  versionOf,
} from './request.ts';
import { checkConfig } from './validate.ts';
import { refuseEarlyTemplating } from './versions.ts';

export function configRoutes(host: ApiHost): Router {
  const routes = Router();
  routes.get('/configs', async (request, response) => {
    const filters = readFilters(request);
    const { store } = await managedCluster(host);
    response.json(listConfigs(store, filters));
  });
  routes.post('/configs/create', async (request, response) => {
    const ID = await createConfig(host, request);
    response.status(201).json({ ID });
  });
  routes.get('/configs/:id', async (request, response) => {
    const { store } = await managedCluster(host);
    response.json(lookup(store, 'config', pathOf(request, 'id')));
  });
  routes.post('/configs/:id/update', async (request, response) => {
    await updateConfig(host, request);
    response.status(200).end();
  });
  routes.delete('/configs/:id', async (request, response) => {
    const cluster = await managedCluster(host);
    const config = lookup(cluster.store, 'config', pathOf(request, 'id'));
    refuseUsedData('config', config.Spec.Name, cluster.store.find('service', 'config', config.ID));
    const earlier = earlierRemovals(cluster.store, 'config', config.Spec.Name);
    await commit(cluster, [{ op: 'remove', kind: 'config', id: config.ID }, ...earlier]);
    response.status(204).end();
  });
  return routes;
}

function listConfigs(view: View, filters: Filters): Config[] {
  checkFilters(filters, ['names', 'name', 'id', 'label']);
  return view
    .list('config')
    .filter(
      (config) =>
        isAsked(filters, 'names', config.Spec.Name) &&
        hasAskedPrefix(filters, 'name', config.Spec.Name) &&
        hasAskedPrefix(filters, 'id', config.ID) &&
        hasLabels(filters, 'label', config.Spec.Labels),
    );
}

async function createConfig(host: ApiHost, request: Request): Promise<string> {
  const Spec = readConfigSpec(jsonBody(request));
  refuseEarlyTemplating('config', Spec.Templating, apiVersion(request));
  const cluster = await managedCluster(host);
  checkConfig(Spec);
  if (cluster.store.find('config', 'name', Spec.Name).length > 0) {
    throw swarmError('already-exists', `config ${Spec.Name} already exists`);
  }
  const object: Config = { ...newMeta(idMaker(host)<ConfigId>()), Spec };
  await commit(cluster, [{ op: 'create', kind: 'config', object }]);
  return object.ID;
}

/** Only labels may change: what services were given stays what it was. (data-versions.ts makes new versions.) */
async function updateConfig(host: ApiHost, request: Request): Promise<void> {
  const spec = readConfigSpec(specBody(request));
  const version = versionOf(request, 'config');
  const cluster = await managedCluster(host);
  const config = lookup(cluster.store, 'config', pathOf(request, 'id'));
  const { Name, Data } = config.Spec;
  if (spec.Name !== Name || (spec.Data && spec.Data !== Data)) {
    throw swarmError('invalid-argument', 'only updates to Labels are allowed');
  }
  const Spec = { ...config.Spec, Labels: spec.Labels };
  await commit(cluster, [
    { op: 'update', kind: 'config', object: { ...config, Spec, Version: { Index: version } } },
  ]);
}
