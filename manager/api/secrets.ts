/** /secrets */
import { type Request, Router } from 'express';
import type { Secret } from '../../proto/docker.ts';
import type { SecretId } from '../../proto/ids.ts';
import { newMeta } from '../store/change.ts';
import { earlierRemovals } from '../store/data-version.ts';
import type { View } from '../store/store.ts';
import { secretAnswer } from './answers.ts';
import { readSecretSpec } from './cluster-schema.ts';
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
import { checkSecret } from './validate.ts';
import { refuseEarlyTemplating } from './versions.ts';

export function secretRoutes(host: ApiHost): Router {
  const routes = Router();
  routes.get('/secrets', async (request, response) => {
    const filters = readFilters(request);
    const { store } = await managedCluster(host);
    response.json(listSecrets(store, filters).map(secretAnswer));
  });
  routes.post('/secrets/create', async (request, response) => {
    const ID = await createSecret(host, request);
    response.status(201).json({ ID });
  });
  routes.get('/secrets/:id', async (request, response) => {
    const { store } = await managedCluster(host);
    response.json(secretAnswer(lookup(store, 'secret', pathOf(request, 'id'))));
  });
  routes.post('/secrets/:id/update', async (request, response) => {
    await updateSecret(host, request);
    response.status(200).end();
  });
  routes.delete('/secrets/:id', async (request, response) => {
    const cluster = await managedCluster(host);
    const secret = lookup(cluster.store, 'secret', pathOf(request, 'id'));
    refuseUsedData('secret', secret.Spec.Name, cluster.store.find('service', 'secret', secret.ID));
    const earlier = earlierRemovals(cluster.store, 'secret', secret.Spec.Name);
    await commit(cluster, [{ op: 'remove', kind: 'secret', id: secret.ID }, ...earlier]);
    response.status(204).end();
  });
  return routes;
}

function listSecrets(view: View, filters: Filters): Secret[] {
  checkFilters(filters, ['names', 'name', 'id', 'label']);
  return view
    .list('secret')
    .filter(
      (secret) =>
        isAsked(filters, 'names', secret.Spec.Name) &&
        hasAskedPrefix(filters, 'name', secret.Spec.Name) &&
        hasAskedPrefix(filters, 'id', secret.ID) &&
        hasLabels(filters, 'label', secret.Spec.Labels),
    );
}

async function createSecret(host: ApiHost, request: Request): Promise<string> {
  const Spec = readSecretSpec(jsonBody(request));
  refuseEarlyTemplating('secret', Spec.Templating, apiVersion(request));
  const cluster = await managedCluster(host);
  checkSecret(Spec);
  if (cluster.store.find('secret', 'name', Spec.Name).length > 0) {
    throw swarmError('already-exists', `secret ${Spec.Name} already exists`);
  }
  const object: Secret = { ...newMeta(idMaker(host)<SecretId>()), Spec };
  await commit(cluster, [{ op: 'create', kind: 'secret', object }]);
  return object.ID;
}

/** Only labels may change: what services were given stays what it was. (data-versions.ts makes new versions.) */
async function updateSecret(host: ApiHost, request: Request): Promise<void> {
  const spec = readSecretSpec(specBody(request));
  const version = versionOf(request, 'secret');
  const cluster = await managedCluster(host);
  const secret = lookup(cluster.store, 'secret', pathOf(request, 'id'));
  const { Name, Data } = secret.Spec;
  if (spec.Name !== Name || (spec.Data && spec.Data !== Data)) {
    throw swarmError('invalid-argument', 'only updates to Labels are allowed');
  }
  const Spec = { ...secret.Spec, Labels: spec.Labels };
  await commit(cluster, [
    { op: 'update', kind: 'secret', object: { ...secret, Spec, Version: { Index: version } } },
  ]);
}
