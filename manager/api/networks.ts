/** /networks: those of the cluster, and the ones that every engine has. */
import { type Request, Router } from 'express';
import type { Network, NetworkSpec } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { NetworkId } from '../../proto/ids.ts';
import { newMeta } from '../store/change.ts';
import { describeSubnetConflict } from '../store/ip.ts';
import type { View } from '../store/store.ts';
import { localNetwork, networkAnswer, predefinedNetworks } from './answers.ts';
import { type NetworkCreateRequest, readNetworkCreate } from './cluster-schema.ts';
import type { ApiHost } from './contract.ts';
import { checkFilters, type Filters, hasLabels, isAsked, readFilters, valuesOf, wordsOf } from './filters.ts';
import { networkUser } from './in-use.ts';
import { lookupMaybe } from './lookup.ts';
import { commit, idMaker, jsonBody, managedCluster, pathOf, query, swarmError } from './request.ts';
import { checkNetwork } from './validate.ts';

export function networkRoutes(host: ApiHost): Router {
  const routes = Router();
  routes.get('/networks', async (request, response) => {
    const filters = readFilters(request);
    response.json(listNetworks(await clusterNetworks(host), filters));
  });
  routes.post('/networks/create', async (request, response) => {
    const Id = await createNetwork(host, request);
    response.status(201).json({ Id, Warning: '' });
  });
  routes.post('/networks/prune', async (request, response) => {
    response.json({ NetworksDeleted: await pruneNetworks(host, readFilters(request)) });
  });
  routes.get('/networks/:id', async (request, response) => {
    response.json(await inspectNetwork(host, request));
  });
  routes.delete('/networks/:id', async (request, response) => {
    await removeNetwork(host, pathOf(request, 'id'));
    response.status(204).end();
  });
  return routes;
}

/** A node that is no manager has its engine's networks and none of the cluster's. */
async function clusterNetworks(host: ApiHost): Promise<Network[]> {
  if (host.membership().kind !== 'manager') return [];
  return (await managedCluster(host)).store.list('network');
}

interface Listed {
  readonly answer: Record<string, unknown>;
  readonly id: string;
  readonly name: string;
  readonly driver: string;
  readonly scope: 'local' | 'swarm';
  readonly labels: Record<string, string>;
}

function listNetworks(networks: readonly Network[], filters: Filters): Record<string, unknown>[] {
  checkFilters(filters, ['dangling', 'driver', 'id', 'label', 'name', 'scope', 'type']);
  const types = wordsOf(filters, 'type', ['builtin', 'custom']);
  wordsOf(filters, 'dangling', ['true', 'false', '1', '0']);
  const contains = (filter: string, value: string): boolean => {
    const values = valuesOf(filters, filter);
    return values.length === 0 || values.some((part) => value.includes(part));
  };
  return [...networks.map(listedNetwork), ...predefinedNetworks.map(listedPredefined)]
    .filter(
      (one) =>
        contains('name', one.name) &&
        contains('id', one.id) &&
        isAsked(filters, 'driver', one.driver) &&
        isAsked(filters, 'scope', one.scope) &&
        hasLabels(filters, 'label', one.labels) &&
        (types.length === 0 || types.includes(one.scope === 'local' ? 'builtin' : 'custom')),
    )
    .map((one) => one.answer);
}

/** In lists the containers and labels that are not known are null, as in Docker's. */
function listedNetwork(network: Network): Listed {
  const { Spec } = network;
  return {
    answer: { ...networkAnswer(network), Containers: null },
    id: network.ID,
    name: Spec.Name,
    driver: Spec.DriverConfiguration.Name,
    scope: 'swarm',
    labels: Spec.Labels,
  };
}

function listedPredefined({ name, driver }: { name: string; driver: string }): Listed {
  return { answer: localNetwork(name, driver), id: name, name, driver, scope: 'local', labels: {} };
}

async function inspectNetwork(host: ApiHost, request: Request): Promise<Record<string, unknown>> {
  const input = pathOf(request, 'id');
  const scope = query(request, 'scope');
  const predefined = predefinedNetworks.find((network) => network.name === input);
  if (predefined) {
    // A client that asks for the cluster's network of this name means the one that services may name.
    const answer = localNetwork(predefined.name, predefined.driver);
    return scope === 'swarm' ? { ...answer, Scope: 'swarm' } : answer;
  }
  const notFound = new ShoalError('not-found', `network ${input} not found`);
  if (host.membership().kind !== 'manager' || scope === 'local') throw notFound;
  const { store } = await managedCluster(host);
  const network = lookupMaybe(store, 'network', input);
  if (!network) throw notFound;
  return networkAnswer(network);
}

async function createNetwork(host: ApiHost, request: Request): Promise<string> {
  const body = readNetworkCreate(jsonBody(request));
  const Spec = specOf(body);
  const cluster = await managedCluster(host);
  if (predefinedNetworks.some((network) => network.name === Spec.Name)) {
    throw new ShoalError(
      'permission-denied',
      `operation is not permitted on predefined ${Spec.Name} network`,
    );
  }
  checkNetwork(Spec);
  if (cluster.store.find('network', 'name', Spec.Name).length > 0) {
    throw new ShoalError('conflict', `network with name ${Spec.Name} already exists`);
  }
  const overlap = describeSubnetConflict(cluster.store, Spec);
  if (overlap !== undefined) {
    throw new ShoalError(
      'permission-denied',
      `Pool overlaps with other one on this address space: ${overlap}`,
    );
  }
  const object = newNetwork(idMaker(host)<NetworkId>(), Spec);
  await commit(cluster, [{ op: 'create', kind: 'network', object }]);
  return object.ID;
}

/** A network whose subnet, unless the spec gives one, is still to be allocated. */
export function newNetwork(id: NetworkId, Spec: NetworkSpec): Network {
  const IPAMOptions = {
    Driver: Spec.IPAMOptions?.Driver ?? { Name: 'default' },
    Configs: Spec.IPAMOptions?.Configs ?? [],
  };
  return { ...newMeta(id), Spec, IPAMOptions };
}

function specOf(body: NetworkCreateRequest): NetworkSpec {
  const { IPAM } = body;
  if (body.Scope === 'local' || body.Driver === '') {
    throw new ShoalError(
      'not-supported',
      `network ${body.Name}: Shoal makes networks of the cluster only; use --driver overlay`,
    );
  }
  const Configs = (IPAM?.Config ?? []).filter((config) => Object.values(config).some((value) => value));
  return {
    Name: body.Name,
    Labels: body.Labels,
    DriverConfiguration: { Name: body.Driver, ...(body.Options ? { Options: body.Options } : {}) },
    ...(body.Internal ? { Internal: true } : {}),
    ...(body.Attachable ? { Attachable: true } : {}),
    Scope: 'swarm',
    IPAMOptions: {
      Driver: { Name: IPAM?.Driver || 'default', ...(IPAM?.Options ? { Options: IPAM.Options } : {}) },
      ...(Configs.length > 0 ? { Configs } : {}),
    },
  };
}

async function removeNetwork(host: ApiHost, input: string): Promise<void> {
  if (predefinedNetworks.some((network) => network.name === input)) {
    throw new ShoalError('permission-denied', `${input} is a pre-defined network and cannot be removed`);
  }
  const cluster = await managedCluster(host);
  const network = lookupMaybe(cluster.store, 'network', input);
  if (!network) throw new ShoalError('not-found', `network ${input} not found`);
  const user = networkUser(cluster.store, network);
  if (user !== undefined) {
    throw swarmError('failed-precondition', `network ${network.ID} is in use by ${user}`);
  }
  await commit(cluster, [{ op: 'remove', kind: 'network', id: network.ID }]);
}

async function pruneNetworks(host: ApiHost, filters: Filters): Promise<string[]> {
  checkFilters(filters, ['label', 'label!', 'until']);
  if (filters.has('label!') || filters.has('until')) {
    throw new ShoalError(
      'not-supported',
      "network prune: the filters 'label!' and 'until' are not supported by Shoal yet",
    );
  }
  const cluster = await managedCluster(host);
  const unused = prunable(cluster.store, filters);
  if (unused.length > 0) {
    await commit(
      cluster,
      unused.map((network) => ({ op: 'remove', kind: 'network', id: network.ID }) as const),
    );
  }
  return unused.map((network) => network.Spec.Name);
}

function prunable(view: View, filters: Filters): Network[] {
  return view
    .list('network')
    .filter(
      (network) =>
        !network.Spec.Ingress &&
        hasLabels(filters, 'label', network.Spec.Labels) &&
        networkUser(view, network) === undefined,
    );
}
