/** /services */
import { type Request, Router } from 'express';
import type { Service, ServiceMode } from '../../proto/docker.ts';
import { stackLabel } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { Change } from '../store/change.ts';
import { createServiceChanges, type ServiceUpdate, updateServiceChanges } from '../store/service-change.ts';
import { cronOptions } from '../store/service-options.ts';
import type { View } from '../store/store.ts';
import { modeName } from '../store/tables.ts';
import { serviceAnswer, statusOf, withDefaults } from './answers.ts';
import { authorOf } from './author.ts';
import type { ApiHost, ManagedCluster } from './contract.ts';
import { keptCredentials, registryAuthOf, withCredentials } from './credentials.ts';
import {
  checkFilters,
  type Filters,
  hasAskedPrefix,
  hasLabels,
  isAsked,
  readFilters,
  splitLabel,
  valuesOf,
} from './filters.ts';
import { answerList } from './list.ts';
import { lookup } from './lookup.ts';
import { planOf } from './plans.ts';
import { randomName } from './random-name.ts';
import {
  apiVersion,
  asSwarmError,
  commit,
  idMaker,
  jsonBody,
  looseFlag,
  managedCluster,
  pathOf,
  query,
  specBody,
  strictFlag,
  swarmError,
  versionOf,
} from './request.ts';
import { readServiceSpec } from './service-schema.ts';
import { serviceWarnings } from './service-warnings.ts';
import { acceptServiceSpec } from './validate.ts';
import { understoodService } from './versions.ts';

/** The version from which a list may carry each service's status. */
const statusMinor = 41;

export function serviceRoutes(host: ApiHost): Router {
  const routes = Router();
  routes.get('/services', async (request, response) => {
    const filters = readFilters(request);
    const withStatus = apiVersion(request) >= statusMinor && strictFlag(request, 'status');
    const { store } = await managedCluster(host);
    const services = listServices(store, filters);
    await answerList(
      response,
      services.map((service) => serviceAnswer(service, withStatus ? statusOf(store, service) : undefined)),
    );
  });
  routes.post('/services/create', async (request, response) => {
    response.status(201).json(await createService(host, request));
  });
  routes.get('/services/:id', async (request, response) => {
    const insertDefaults = strictFlag(request, 'insertDefaults');
    const { store } = await managedCluster(host);
    const service = lookup(store, 'service', pathOf(request, 'id'));
    response.json(serviceAnswer(insertDefaults ? withDefaults(service) : service));
  });
  routes.post('/services/:id/rebalance', async (request, response) => {
    const isTrial = looseFlag(request, 'dry-run');
    const cluster = await managedCluster(host);
    const service = lookup(cluster.store, 'service', pathOf(request, 'id'));
    if (modeName(service.Spec.Mode) !== 'Replicated') {
      throw new ShoalError(
        'invalid-argument',
        `service ${service.Spec.Name} is not replicated: its tasks have their places`,
      );
    }
    const { moves, changes } = cluster.rebalance(service);
    if (!isTrial && changes.length > 0) await commit(cluster, changes);
    const answer = moves.map(({ task, from, to, reason }) => ({
      TaskID: task.ID,
      Slot: task.Slot,
      From: from,
      To: to,
      Reason: reason,
    }));
    response.json({ Moves: answer });
  });
  routes.post('/services/:id/update', async (request, response) => {
    const { cluster, changes, warnings } = await planUpdate(host, request);
    await commit(cluster, changes);
    response.json({ Warnings: warnings.length > 0 ? warnings : null });
  });
  // Our own: what the same request as an update would do.
  routes.post('/services/:id/plan', async (request, response) => {
    const { cluster, changes, warnings } = await planUpdate(host, request);
    response.json({ Warnings: warnings, ...planOf(cluster, changes, warnings) });
  });
  routes.get('/services/:id/runs', async (request, response) => {
    const { store } = await managedCluster(host);
    response.json(runsOf(lookup(store, 'service', pathOf(request, 'id'))));
  });
  routes.delete('/services/:id', async (request, response) => {
    const cluster = await managedCluster(host);
    const service = lookup(cluster.store, 'service', pathOf(request, 'id'));
    await commit(cluster, [{ op: 'remove', kind: 'service', id: service.ID }]);
    response.status(200).end();
  });
  return routes;
}

/** The schedule of a job and its runs, newest first: an endpoint of our own. Throws 'failed-precondition' without one. */
function runsOf({ Spec, Private }: Service) {
  const options = cronOptions(Spec.Labels);
  if (options === undefined) {
    throw new ShoalError('failed-precondition', `service ${Spec.Name} has no schedule (label shoal.cron)`);
  }
  const time = (at: number) => new Date(at).toISOString();
  return {
    Schedule: options.schedule,
    Timezone: options.timezone,
    Overlap: options.overlap,
    ...(Private.Cron?.NextAt !== undefined && { NextAt: time(Private.Cron.NextAt) }),
    Runs: [...(Private.Cron?.Runs ?? [])].reverse().map((run) => ({
      ScheduledAt: time(run.ScheduledAt),
      ...(run.StartedAt !== undefined && { StartedAt: time(run.StartedAt) }),
      ...(run.EndedAt !== undefined && { EndedAt: time(run.EndedAt) }),
      ...(run.Iteration !== undefined && { Iteration: run.Iteration }),
      Outcome: run.Outcome,
    })),
  };
}

/** What the filter `mode` calls a mode; jobs have the names of the CLI and the engine's own. */
const modeWords: Record<keyof ServiceMode, readonly string[]> = {
  Replicated: ['replicated'],
  Global: ['global'],
  ReplicatedJob: ['replicated-job', 'replicatedjob'],
  GlobalJob: ['global-job', 'globaljob'],
};

function listServices(view: View, filters: Filters): Service[] {
  checkFilters(filters, ['name', 'id', 'label', 'mode', 'runtime']);
  if (!isAsked(filters, 'runtime', 'container')) return [];
  return candidates(view, filters).filter(
    (service) =>
      hasAskedPrefix(filters, 'name', service.Spec.Name) &&
      hasAskedPrefix(filters, 'id', service.ID) &&
      hasLabels(filters, 'label', service.Spec.Labels) &&
      modeWords[modeName(service.Spec.Mode)].some((word) => isAsked(filters, 'mode', word)),
  );
}

/** The services of a stack by their index; all when none is asked for. */
function candidates(view: View, filters: Filters): Service[] {
  const stacks = valuesOf(filters, 'label')
    .map(splitLabel)
    .filter(([key, value]) => key === stackLabel && value !== '');
  return stacks.length > 0 ? view.find('service', 'stack', stacks[0]![1]) : view.list('service');
}

async function createService(host: ApiHost, request: Request): Promise<{ ID: string; Warnings?: string[] }> {
  const { body, ignored } = understoodService(jsonBody(request), apiVersion(request));
  const read = readServiceSpec(body);
  const named = read.Name === '' ? { ...read, Name: randomName(host.random) } : read;
  const credentials = registryAuthOf(request);
  const cluster = await managedCluster(host);
  const spec = withCredentials(acceptServiceSpec(cluster.store, named), credentials);
  if (cluster.store.find('service', 'name', spec.Name).length > 0) {
    throw swarmError(
      'already-exists',
      `name conflicts with an existing object: service ${spec.Name} already exists`,
    );
  }
  const { service, changes } = createServiceChanges(spec, host.clock.now(), idMaker(host), {
    by: authorOf(request, cluster),
  });
  await commit(cluster, changes);
  const Warnings = [...ignored, ...serviceWarnings(body, read)];
  return { ID: service.ID, ...(Warnings.length > 0 ? { Warnings } : {}) };
}

interface PlannedUpdate {
  readonly cluster: ManagedCluster;
  readonly changes: readonly Change[];
  readonly warnings: string[];
}

async function planUpdate(host: ApiHost, request: Request): Promise<PlannedUpdate> {
  const { body, ignored } = understoodService(specBody(request), apiVersion(request));
  const read = readServiceSpec(body);
  const version = versionOf(request, 'service');
  const rollback = query(request, 'rollback');
  if (!['', 'none', 'previous'].includes(rollback)) {
    throw new ShoalError('invalid-argument', `unrecognized rollback option ${rollback}`);
  }
  const cluster = await managedCluster(host);
  const current = lookup(cluster.store, 'service', pathOf(request, 'id'));
  if (current.Version.Index !== version) throw swarmError('out-of-sequence', 'update out of sequence');
  const update: ServiceUpdate =
    rollback === 'previous'
      ? { rollback: 'previous' }
      : {
          spec: withCredentials(
            acceptServiceSpec(cluster.store, read, current.ID),
            keptCredentials(request, current),
          ),
        };
  const changes = updateChanges(host, cluster.store, current, update, authorOf(request, cluster));
  return { cluster, changes, warnings: [...ignored, ...serviceWarnings(body, read)] };
}

function updateChanges(host: ApiHost, view: View, service: Service, update: ServiceUpdate, by: string) {
  try {
    return updateServiceChanges(view, service, update, host.clock.now(), idMaker(host), {
      by,
      ...('rollback' in update ? { what: 'rollback' } : {}),
    }).changes;
  } catch (error) {
    throw asSwarmError(error);
  }
}
