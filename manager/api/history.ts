/** /services/{id}/history, /stacks/{name}/history and the ways back: our own endpoints. */
import { Router } from 'express';
import { ShoalError } from '../../proto/errors.ts';
import { deploymentsOf, toldByServices } from '../stack/deployments.ts';
import { rollBackStack } from '../stack/rollback.ts';
import { updateServiceChanges } from '../store/service-change.ts';
import { authorOf } from './author.ts';
import type { ApiHost } from './contract.ts';
import { lookup } from './lookup.ts';
import { commit, idMaker, managedCluster, pathOf, query, swarmError, versionOf } from './request.ts';
import { stackSummaryAnswer } from './stacks.ts';
import { acceptServiceSpec } from './validate.ts';

/** One change of a service or a deployment of a stack; the newest is told first. */
export interface HistoryEntry {
  /** Of the revision, or the deployment; 0 for what the services of a stack alone remember. */
  readonly Number: number;
  readonly At: string;
  readonly By: string;
  readonly What: string;
  /** Whether one can go back to it. */
  readonly IsKept: boolean;
}

export function historyRoutes(host: ApiHost): Router {
  const routes = Router();
  routes.get('/services/:id/history', async (request, response) => {
    const { store } = await managedCluster(host);
    const service = lookup(store, 'service', pathOf(request, 'id'));
    const entries = (service.Private.History ?? []).map(
      (one): HistoryEntry => ({
        Number: one.Number,
        At: one.At,
        By: one.By,
        What: one.What,
        IsKept: store.get('revision', one.RevisionID) !== undefined,
      }),
    );
    response.json(entries.reverse());
  });
  routes.post('/services/:id/rollback', async (request, response) => {
    const number = wantedNumber(query(request, 'to'));
    const version = versionOf(request, 'service');
    const cluster = await managedCluster(host);
    const { store } = cluster;
    const service = lookup(store, 'service', pathOf(request, 'id'));
    if (service.Version.Index !== version) throw swarmError('out-of-sequence', 'update out of sequence');
    const revisions = store.find('revision', 'service', service.ID);
    const revision = revisions.find((one) => one.Number === number);
    if (!revision) {
      const kept = revisions.map((one) => one.Number).join(', ');
      throw new ShoalError(
        'not-found',
        `service ${service.Spec.Name} has no revision ${number}: kept are ${kept}`,
      );
    }
    acceptServiceSpec(store, revision.Spec, service.ID);
    const author = { by: authorOf(request, cluster), what: `rollback to ${number}` };
    const update = { rollbackTo: revision.ID };
    const { changes } = updateServiceChanges(store, service, update, host.clock.now(), idMaker(host), author);
    await commit(cluster, changes);
    response.json({ Warnings: null });
  });
  routes.get('/stacks/:name/history', async (request, response) => {
    const { store } = await managedCluster(host);
    const name = pathOf(request, 'name');
    const services = store.find('service', 'stack', name);
    if (store.find('stack', 'name', name).length === 0 && services.length > 0) {
      const told = toldByServices(services);
      response.json(told.map((one): HistoryEntry => ({ ...one, Number: 0, IsKept: false })));
      return;
    }
    const stack = lookup(store, 'stack', name);
    response.json(
      deploymentsOf(stack).map(
        (one): HistoryEntry => ({
          Number: one.Number ?? 0,
          At: one.DeployedAt,
          By: one.By ?? '',
          What: one.What ?? '',
          IsKept: one.Revisions?.every((id) => store.get('revision', id) !== undefined) ?? false,
        }),
      ),
    );
  });
  routes.post('/stacks/:name/rollback', async (request, response) => {
    const to = wantedNumber(query(request, 'to'));
    const cluster = await managedCluster(host);
    const by = authorOf(request, cluster);
    const options = { by, now: host.clock.now(), newId: idMaker(host) };
    const { changes, summary } = rollBackStack(cluster.store, pathOf(request, 'name'), to, options);
    if (changes.length > 0) await commit(cluster, changes);
    response.json(stackSummaryAnswer(summary));
  });
  return routes;
}

function wantedNumber(text: string): number {
  if (/^[1-9]\d*$/.test(text)) return Number(text);
  throw new ShoalError('invalid-argument', `to must be a number as the history shows it, not "${text}"`);
}
