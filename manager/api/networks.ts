/** /networks: those of the cluster and the engine's own, as one. */
import { type Request, type Response, Router } from 'express';
import { type Network, type NetworkSpec, networkIdLabel } from '../../proto/docker.ts';
import { isShoalError, ShoalError } from '../../proto/errors.ts';
import type { NetworkId } from '../../proto/ids.ts';
import { ingressNetwork } from '../store/attachment.ts';
import { newMeta } from '../store/change.ts';
import { describeSubnetConflict } from '../store/ip.ts';
import type { View } from '../store/store.ts';
import { localNetwork, networkAnswer, predefinedNetworks } from './answers.ts';
import { type NetworkCreateRequest, readNetworkCreate } from './cluster-schema.ts';
import { attachOne, type EndpointConfig, endOf } from './container-networks.ts';
import type { ApiHost } from './contract.ts';
import {
  askFor,
  carriedAnswer,
  carriedNetworkId,
  type EngineNetwork,
  engineNetworks,
  relay,
} from './engine-networks.ts';
import {
  checkFilters,
  type Filters,
  hasLabels,
  isAsked,
  lacksLabels,
  matchesFilter,
  readFilters,
  untilOf,
  valuesOf,
  wordsOf,
} from './filters.ts';
import { networkUser } from './in-use.ts';
import { type LocalEngine, refusalOf } from './local-engine.ts';
import { servicesOnNetwork } from './network-services.ts';
import { checkNetwork } from './network-spec.ts';
import {
  askedVersion,
  commit,
  idMaker,
  jsonBody,
  managedCluster,
  pathOf,
  query,
  strictFlag,
  swarmError,
} from './request.ts';

export function networkRoutes(host: ApiHost, engine: LocalEngine): Router {
  const routes = Router();
  routes.get('/networks', async (request, response) => {
    response.json(await listNetworks(host, engine, request));
  });
  routes.post('/networks/create', (request, response) => createNetwork(host, engine, request, response));
  routes.post('/networks/prune', async (request, response) => {
    response.json({ NetworksDeleted: await pruneNetworks(host, engine, request) });
  });
  routes.get('/networks/:id', (request, response) => inspectNetwork(host, engine, request, response));
  routes.delete('/networks/:id', (request, response) => removeNetwork(host, engine, request, response));
  for (const verb of ['connect', 'disconnect'] as const) {
    routes.post(`/networks/:id/${verb}`, (request, response) =>
      changeMembers(host, engine, request, response, verb),
    );
  }
  return routes;
}

/** A node that is no manager has its engine's networks and none of the cluster's but those that its engine carries. */
async function clusterNetworks(host: ApiHost): Promise<{ view: View; networks: Network[] } | undefined> {
  if (host.membership().kind !== 'manager') return undefined;
  const { store } = await managedCluster(host);
  return { view: store, networks: store.list('network') };
}

// ---------------------------------------------------------------- lists

async function listNetworks(host: ApiHost, engine: LocalEngine, request: Request): Promise<unknown[]> {
  const filters = readFilters(request);
  checkFilters(filters, ['dangling', 'driver', 'id', 'label', 'name', 'scope', 'type']);
  const types = wordsOf(filters, 'type', ['builtin', 'custom']);
  const dangling = wordsOf(filters, 'dangling', ['true', 'false', '1', '0']);
  const [cluster, local] = await Promise.all([
    clusterNetworks(host),
    engineNetworks(engine, request, query(request, 'filters')),
  ]);
  const passes = (one: EngineNetwork): boolean =>
    matchesFilter(filters, 'name', one.Name) &&
    matchesFilter(filters, 'id', one.Id) &&
    isAsked(filters, 'driver', one.Driver) &&
    isAsked(filters, 'scope', one.Scope) &&
    hasLabels(filters, 'label', one.Labels ?? {}) &&
    (types.length === 0 ||
      types.includes(one.Scope === 'local' && isPredefined(one.Name) ? 'builtin' : 'custom'));
  const own = local.filter((one) => carriedNetworkId(one) === undefined && passes(one));
  if (!cluster) return [...(await carriedNetworks(engine, request)).filter(passes), ...own];
  const wantsUsed = dangling.map((word) => word === 'false' || word === '0');
  const ofCluster = cluster.networks
    .filter(
      (network) =>
        wantsUsed.length === 0 || wantsUsed.includes(networkUser(cluster.view, network) !== undefined),
    )
    .map((network) => listedAnswer(network) as unknown as EngineNetwork);
  return [...ofCluster.filter(passes), ...own];
}

/** In lists Docker looks up no containers, and labels that are none are null. */
function listedAnswer(network: Network): Record<string, unknown> {
  const Labels = Object.keys(network.Spec.Labels).length === 0 ? null : network.Spec.Labels;
  return { ...networkAnswer(network), Containers: null, Labels };
}

async function carriedNetworks(engine: LocalEngine, request: Request): Promise<EngineNetwork[]> {
  const carried = await engineNetworks(engine, request, JSON.stringify({ label: [networkIdLabel] }));
  return carried.flatMap((one) => {
    const id = carriedNetworkId(one);
    return id === undefined ? [] : [carriedAnswer(one, id)];
  });
}

function isPredefined(name: string): boolean {
  return predefinedNetworks.some((network) => network.name === name);
}

// ---------------------------------------------------------------- one

/** Whose a network is; `carrier` is the engine's network that carries the cluster's one on this node, if one does. */
type Found =
  | { readonly kind: 'cluster'; readonly network: Network; readonly carrier: EngineNetwork | undefined }
  | { readonly kind: 'carried'; readonly carrier: EngineNetwork; readonly id: string }
  | { readonly kind: 'engine'; readonly network: EngineNetwork };

interface Candidate {
  readonly id: string;
  readonly name: string;
  readonly found: Found;
}

/** By whole id, else by whole name, else by the beginning of an id, among all; in Docker's words when that fails. */
async function find(
  host: ApiHost,
  engine: LocalEngine,
  request: Request,
  input: string,
  scope = '',
): Promise<Found> {
  const [cluster, local] = await Promise.all([clusterNetworks(host), engineNetworks(engine, request, '')]);
  const carriers = new Map(local.map((one) => [carriedNetworkId(one), one]));
  const ofEngine = local.flatMap((network): Candidate[] => {
    const id = carriedNetworkId(network);
    if (id === undefined) {
      return [{ id: network.Id, name: network.Name, found: { kind: 'engine', network } }];
    }
    return cluster ? [] : [{ id, name: network.Name, found: { kind: 'carried', carrier: network, id } }];
  });
  const ofCluster = (cluster?.networks ?? []).map((network): Candidate => {
    const found = { kind: 'cluster', network, carrier: carriers.get(network.ID) } as const;
    return { id: network.ID, name: network.Spec.Name, found };
  });
  const all = [...ofEngine, ...ofCluster].filter(
    ({ found }) => scope === '' || scope === (found.kind === 'engine' ? found.network.Scope : 'swarm'),
  );
  const exact = all.find(({ id }) => id === input);
  if (exact) return exact.found;
  const named = all.filter(({ name }) => name === input);
  const begun = input === '' ? [] : all.filter(({ id }) => id.startsWith(input));
  for (const [matches, by] of [
    [named, 'name'],
    [begun, 'ID prefix'],
  ] as const) {
    if (matches.length === 1) return matches[0]!.found;
    if (matches.length > 1) {
      const count = `${matches.length} matches found based on ${by}`;
      throw new ShoalError('invalid-argument', `network ${input} is ambiguous (${count})`);
    }
  }
  throw new ShoalError('not-found', `network ${input} not found`);
}

async function inspectNetwork(
  host: ApiHost,
  engine: LocalEngine,
  request: Request,
  response: Response,
): Promise<void> {
  const input = pathOf(request, 'id');
  const scope = query(request, 'scope');
  const predefined = predefinedNetworks.find((network) => network.name === input);
  if (predefined && scope === 'swarm') {
    // A client that asks for the cluster's network of this name means the one that services may name.
    response.json({ ...localNetwork(predefined.name, predefined.driver), Scope: 'swarm' });
    return;
  }
  const found = await find(host, engine, request, input, scope);
  if (found.kind === 'engine') {
    // Undefined id of the engine: the predefined ones while it can't be asked.
    if (found.network.Id === found.network.Name) response.json(found.network);
    else relay(await askFor(engine, request, 'GET', memberPath(found.network, request)), response);
    return;
  }
  const carrier = found.carrier && (await inspectCarrier(engine, request, found.carrier));
  if (found.kind === 'carried') response.json(carriedAnswer(carrier ?? found.carrier, found.id));
  else {
    const { store } = await managedCluster(host);
    const Services = strictFlag(request, 'verbose') ? servicesOnNetwork(store, found.network) : undefined;
    const Containers = carrier?.Containers ?? {};
    response.json({ ...networkAnswer(found.network), Containers, ...(Services ? { Services } : {}) });
  }
}

/** The engine's own path of a network, with the client's query. */
function memberPath(network: EngineNetwork, request: Request, rest = ''): string {
  const at = request.url.indexOf('?');
  return `/networks/${encodeURIComponent(network.Id)}${rest}${at < 0 ? '' : request.url.slice(at)}`;
}

/** The engine's network with the containers that are in it; undefined when it is gone meanwhile. */
async function inspectCarrier(
  engine: LocalEngine,
  request: Request,
  carrier: EngineNetwork,
): Promise<EngineNetwork | undefined> {
  const answer = await askFor(engine, request, 'GET', `/networks/${encodeURIComponent(carrier.Id)}`);
  return answer.status === 200 ? (answer.json as EngineNetwork) : undefined;
}

// ---------------------------------------------------------------- changes

async function createNetwork(
  host: ApiHost,
  engine: LocalEngine,
  request: Request,
  response: Response,
): Promise<void> {
  const raw = jsonBody(request);
  if (!isOfCluster(raw)) {
    await refuseTakenName(host, nameIn(raw));
    relay(await askFor(engine, request, 'POST', '/networks/create'), response);
    return;
  }
  const Id = await createClusterNetwork(host, engine, request, readNetworkCreate(raw));
  response.status(201).json({ Id, Warning: '' });
}

/** Networks whose driver spans hosts, and those that say so, are the cluster's; the rest the engine's. */
function isOfCluster(body: unknown): boolean {
  if (typeof body !== 'object' || body === null) return true;
  const fields = new Map(Object.entries(body).map(([key, value]) => [key.toLowerCase(), value as unknown]));
  const scope = fields.get('scope');
  if (fields.get('driver') === 'overlay') return true;
  return scope === 'swarm' || scope === 'global' || fields.get('ingress') === true;
}

function nameIn(body: unknown): string {
  const entry = Object.entries(body as object).find(([key]) => key.toLowerCase() === 'name');
  return typeof entry?.[1] === 'string' ? entry[1] : '';
}

function nameTaken(name: string): ShoalError {
  return new ShoalError('conflict', `network with name ${name} already exists`);
}

async function refuseTakenName(host: ApiHost, name: string): Promise<void> {
  const cluster = await clusterNetworks(host);
  if (cluster && cluster.view.find('network', 'name', name).length > 0) throw nameTaken(name);
}

async function createClusterNetwork(
  host: ApiHost,
  engine: LocalEngine,
  request: Request,
  body: NetworkCreateRequest,
): Promise<string> {
  const Spec = specOf(body);
  const cluster = await managedCluster(host);
  if (isPredefined(Spec.Name)) {
    throw new ShoalError(
      'permission-denied',
      `operation is not permitted on predefined ${Spec.Name} network`,
    );
  }
  checkNetwork(Spec);
  const ingress = Spec.Ingress ? ingressNetwork(cluster.store) : undefined;
  if (ingress) throw swarmError('already-exists', `ingress network (${ingress.ID}) is already present`);
  const local = await engineNetworks(engine, request, '');
  const isTaken = local.some((one) => one.Name === Spec.Name && carriedNetworkId(one) === undefined);
  if (isTaken || cluster.store.find('network', 'name', Spec.Name).length > 0) throw nameTaken(Spec.Name);
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
function newNetwork(id: NetworkId, Spec: NetworkSpec): Network {
  const IPAMOptions = {
    Driver: Spec.IPAMOptions?.Driver ?? { Name: 'default' },
    Configs: Spec.IPAMOptions?.Configs ?? [],
  };
  return { ...newMeta(id), Spec, IPAMOptions };
}

function specOf(body: NetworkCreateRequest): NetworkSpec {
  const { IPAM } = body;
  const Configs = (IPAM?.Config ?? []).filter((config) => Object.values(config).some((value) => value));
  return {
    Name: body.Name,
    Labels: body.Labels,
    DriverConfiguration: { Name: body.Driver, ...(body.Options ? { Options: body.Options } : {}) },
    ...(body.Internal ? { Internal: true } : {}),
    ...(body.Attachable ? { Attachable: true } : {}),
    ...(body.Ingress ? { Ingress: true } : {}),
    ...(body.EnableIPv6 ? { IPv6Enabled: true } : {}),
    Scope: 'swarm',
    IPAMOptions: {
      Driver: { Name: IPAM?.Driver || 'default', ...(IPAM?.Options ? { Options: IPAM.Options } : {}) },
      ...(Configs.length > 0 ? { Configs } : {}),
    },
  };
}

async function removeNetwork(
  host: ApiHost,
  engine: LocalEngine,
  request: Request,
  response: Response,
): Promise<void> {
  const input = pathOf(request, 'id');
  if (isPredefined(input)) {
    throw new ShoalError('permission-denied', `${input} is a pre-defined network and cannot be removed`);
  }
  const found = await find(host, engine, request, input);
  if (found.kind === 'engine') {
    relay(await askFor(engine, request, 'DELETE', memberPath(found.network, request)), response);
    return;
  }
  const cluster = await managedCluster(host);
  if (found.kind === 'carried') throw new ShoalError('not-found', `network ${input} not found`);
  const { Ingress } = found.network.Spec;
  const publisher = Ingress ? cluster.store.find('service', 'ingress', 'true')[0] : undefined;
  if (publisher) {
    throw swarmError(
      'failed-precondition',
      `ingress network cannot be removed because service ${publisher.ID} depends on it`,
    );
  }
  const user = networkUser(cluster.store, found.network);
  if (user !== undefined) {
    throw swarmError('failed-precondition', `network ${found.network.ID} is in use by ${user}`);
  }
  await commit(cluster, [{ op: 'remove', kind: 'network', id: found.network.ID }]);
  response.status(204).end();
}

/** Containers that are no tasks come and go in networks of the engine, and in those of the cluster that allow it. */
async function changeMembers(
  host: ApiHost,
  engine: LocalEngine,
  request: Request,
  response: Response,
  verb: 'connect' | 'disconnect',
): Promise<void> {
  const found = await find(host, engine, request, pathOf(request, 'id'));
  if (found.kind === 'engine') {
    relay(await askFor(engine, request, 'POST', memberPath(found.network, request, `/${verb}`)), response);
    return;
  }
  const { carrier } = found;
  const name = found.kind === 'cluster' ? found.network.Spec.Name : found.carrier.Name;
  if (verb === 'connect' && found.kind === 'cluster' && !found.network.Spec.Attachable) {
    const reason = `rpc error: code = PermissionDenied desc = network ${name} not manually attachable`;
    throw new ShoalError('permission-denied', `Could not attach to network ${name}: ${reason}`);
  }
  if (verb === 'connect' && (await joinCluster(host, engine, request, response, found))) return;
  if (!carrier) {
    throw new ShoalError(
      'not-found',
      `network ${name} is not on this node: no task of it runs here that a container could join`,
    );
  }
  relay(await askFor(engine, request, 'POST', memberPath(carrier, request, `/${verb}`)), response);
}

/** Connects a container with the address that the managers give it; false where this node's networks are its engine's. */
async function joinCluster(
  host: ApiHost,
  engine: LocalEngine,
  request: Request,
  response: Response,
  found: Exclude<Found, { kind: 'engine' }>,
): Promise<boolean> {
  const id = found.kind === 'cluster' ? found.network.ID : found.id;
  const name = found.kind === 'cluster' ? found.network.Spec.Name : found.carrier.Name;
  const body = jsonBody(request) as { Container?: string; EndpointConfig?: EndpointConfig | null };
  const end = body.EndpointConfig ?? {};
  const wish = { name, id, container: body.Container ?? '', end };
  const network = await attachOne(host, wish).catch((error: unknown) => {
    if (isShoalError(error, 'failed-precondition')) return undefined;
    throw error;
  });
  if (network === undefined) return false;
  const answer = await engine
    .ask({
      method: 'POST',
      path: await engine.spoken(
        askedVersion(request),
        `/networks/${encodeURIComponent(network.name)}/connect`,
      ),
      body: JSON.stringify({ ...body, EndpointConfig: endOf(network, end) }),
    })
    .catch((error: unknown) => {
      network.release();
      throw error;
    });
  if (answer.status < 300) network.made();
  else network.release();
  relay(answer, response);
  return true;
}

/** Names of what was removed: the engine's own that no container uses, and the cluster's that nothing does. */
async function pruneNetworks(host: ApiHost, engine: LocalEngine, request: Request): Promise<string[] | null> {
  const filters = readFilters(request);
  checkFilters(filters, ['label', 'label!', 'until']);
  const until = untilOf(filters, host.clock.now());
  // What the engine carries for the cluster is the agent's to take away.
  const spared = {
    ...Object.fromEntries(filters),
    'label!': [...valuesOf(filters, 'label!'), networkIdLabel],
  };
  const path = `/networks/prune?filters=${encodeURIComponent(JSON.stringify(spared))}`;
  const isManager = host.membership().kind === 'manager';
  const answer = await askFor(engine, request, 'POST', path).catch((error: unknown) => {
    if (!isManager) throw error;
    return undefined;
  });
  if (answer && answer.status !== 200) throw refusalOf(answer);
  const local = (answer?.json as { NetworksDeleted?: string[] | null } | undefined)?.NetworksDeleted ?? [];
  const names = isManager ? await pruneCluster(host, filters, until) : [];
  return names.length + local.length === 0 ? null : [...local, ...names];
}

async function pruneCluster(host: ApiHost, filters: Filters, until: number | undefined): Promise<string[]> {
  const cluster = await managedCluster(host);
  const unused = prunable(cluster.store, filters, until);
  if (unused.length > 0) {
    await commit(
      cluster,
      unused.map((network) => ({ op: 'remove', kind: 'network', id: network.ID }) as const),
    );
  }
  return unused.map((network) => network.Spec.Name);
}

function prunable(view: View, filters: Filters, until: number | undefined): Network[] {
  return view
    .list('network')
    .filter(
      (network) =>
        !network.Spec.Ingress &&
        hasLabels(filters, 'label', network.Spec.Labels) &&
        lacksLabels(filters, 'label!', network.Spec.Labels) &&
        (until === undefined || Date.parse(network.CreatedAt) < until) &&
        networkUser(view, network) === undefined,
    );
}
