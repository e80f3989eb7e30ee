/**
 * /stacks: our own endpoints for what `docker stack` does in many steps. A stack that the docker CLI
 * deployed has no object of its own, only labels on what belongs to it; it is listed and removed alike.
 */
import { type Request, Router } from 'express';
import { type Labels, type Stack, stackLabel } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import { type CompiledStack, checkStackName } from '../stack/compose.ts';
import { planStack, removeStack, type StackObjectName, type StackSummary } from '../stack/plan.ts';
import type { Change } from '../store/change.ts';
import type { View } from '../store/store.ts';
import { authorOf } from './author.ts';
import {
  readConfigSpec,
  readNetworkSpec,
  readSecretSpec,
  readStack,
  type StackRequest,
} from './cluster-schema.ts';
import type { ApiHost, ManagedCluster } from './contract.ts';
import { registryAuthOf, storedCredentials, withCredentials } from './credentials.ts';
import { checkNetwork } from './network-spec.ts';
import { planOf, requirePlan } from './plans.ts';
import { commit, idMaker, jsonBody, managedCluster, pathOf, query } from './request.ts';
import { readServiceSpec } from './service-schema.ts';
import { checkConfig, checkPrivileges, checkSecret, checkServiceShape } from './validate.ts';

/** Kinds of objects that belong to stacks, in the order in which they are removed. */
const parts = ['service', 'network', 'secret', 'config'] as const;

export function stackRoutes(host: ApiHost): Router {
  const routes = Router();
  routes.get('/stacks', async (_request, response) => {
    const { store } = await managedCluster(host);
    response.json(stackNames(store).map((name) => summary(store, name)));
  });
  routes.get('/stacks/:name', async (request, response) => {
    const { store } = await managedCluster(host);
    const name = knownStack(store, pathOf(request, 'name'));
    response.json({ ...summary(store, name), ...contents(store, name) });
  });
  routes.put('/stacks/:name', async (request, response) => {
    response.json(await deploy(host, request));
  });
  routes.post('/stacks/:name/plan', async (request, response) => {
    const { cluster, planned } = await planDeploy(host, request);
    response.json({ ...planned.answer, ...planOf(cluster, planned.changes, planned.answer) });
  });
  routes.delete('/stacks/:name', async (request, response) => {
    const cluster = await managedCluster(host);
    const { changes, summary: removed } = removeStack(cluster.store, pathOf(request, 'name'));
    await commit(cluster, changes);
    response.json(stackSummaryAnswer(removed));
  });
  return routes;
}

/** Deploys the stack in one entry, or not at all; with planVersion only when that is what was shown. */
async function deploy(host: ApiHost, request: Request): Promise<Record<string, unknown>> {
  const { cluster, planned } = await planDeploy(host, request);
  const { changes, answer } = planned;
  const version = query(request, 'planVersion');
  if (version !== '') requirePlan(planOf(cluster, changes, answer), version);
  if (changes.length > 0) await commit(cluster, changes);
  return answer;
}

interface PlannedDeploy {
  readonly cluster: ManagedCluster;
  readonly planned: { readonly changes: readonly Change[]; readonly answer: Record<string, unknown> };
}

async function planDeploy(host: ApiHost, request: Request): Promise<PlannedDeploy> {
  const name = pathOf(request, 'name');
  checkStackName(name);
  const body = readStack(jsonBody(request));
  const compiled = readCompiled(name, body);
  const cluster = await managedCluster(host);
  const credentials = registryAuthOf(request);
  const services = compiled.services.map((spec) => {
    const existing = cluster.store.find('service', 'name', spec.Name)[0];
    return withCredentials(spec, credentials || storedCredentials(existing?.Spec));
  });
  const { changes, summary: told } = planStack(cluster.store, name, { ...compiled, services }, body.Source, {
    prune: body.Prune === true,
    by: authorOf(request, cluster),
    now: host.clock.now(),
    newId: idMaker(host),
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
  return { cluster, planned: { changes, answer: stackSummaryAnswer(told) } };
}

function readCompiled(name: string, { Compiled, Source }: StackRequest): CompiledStack {
  const read = <T extends { Labels: Labels }>(
    part: keyof StackRequest['Compiled'],
    reader: (body: unknown, what: string) => T,
  ): T[] =>
    (Compiled[part] as unknown[]).map((body, index) => {
      const what = `Compiled.${part}[${index}]`;
      const spec = reader(body, what);
      if (spec.Labels[stackLabel] === name) return spec;
      throw new ShoalError('invalid-argument', `${what}.Labels: ${stackLabel} must be "${name}"`);
    });
  return {
    services: read('Services', readServiceSpec),
    networks: read('Networks', readNetworkSpec),
    secrets: read('Secrets', readSecretSpec),
    configs: read('Configs', readConfigSpec),
    warnings: [],
    refusals: [],
    places: new Map(Object.entries(Compiled.Places ?? {})),
    source: Source,
  };
}

/** What a deploy or removal did, by kind and name. */
export function stackSummaryAnswer(done: StackSummary): Record<string, unknown> {
  const told = (objects: readonly StackObjectName[]) =>
    objects.map(({ kind, name }) => ({ Kind: kind, Name: name }));
  return {
    Created: told(done.created),
    Updated: told(done.updated),
    Removed: told(done.removed),
    Unchanged: told(done.unchanged),
    Warnings: done.warnings,
  };
}

/** Names of all stacks, sorted: those with an object, and those that labels tell of. */
function stackNames(view: View): string[] {
  const labelled = parts.flatMap((kind) =>
    view.list(kind).map((object) => (object.Spec.Labels as Labels)[stackLabel] ?? ''),
  );
  const own = view.list('stack').map((stack) => stack.Spec.Name);
  return [...new Set([...own, ...labelled])].filter((name) => name !== '').sort();
}

function knownStack(view: View, name: string): string {
  const isKnown =
    view.find('stack', 'name', name).length > 0 ||
    parts.some((kind) => view.find(kind, 'stack', name).length > 0);
  if (!isKnown) throw new ShoalError('not-found', `stack ${name} not found`);
  return name;
}

function stackObject(view: View, name: string): Stack | undefined {
  return view.find('stack', 'name', name)[0];
}

/** One line of the list. Without an object of its own (ID) the stack was deployed by the docker CLI. */
function summary(view: View, name: string): Record<string, unknown> {
  const stack = stackObject(view, name);
  const { Source: _source, History: _history, Deployment: _present, ...own } = stack ?? {};
  return {
    ...own,
    Name: name,
    Orchestrator: 'Swarm',
    Services: view.find('service', 'stack', name).length,
    Networks: view.find('network', 'stack', name).length,
    Secrets: view.find('secret', 'stack', name).length,
    Configs: view.find('config', 'stack', name).length,
  };
}

/** What belongs to a stack, by id and name, and how it came to be. */
function contents(view: View, name: string): Record<string, unknown> {
  const stack = stackObject(view, name);
  const named = (kind: (typeof parts)[number]) =>
    view.find(kind, 'stack', name).map((object) => ({ ID: object.ID, Name: object.Spec.Name }));
  return {
    Services: named('service'),
    Networks: named('network'),
    Secrets: named('secret'),
    Configs: named('config'),
    ...(stack ? { Source: stack.Source, History: stack.History } : {}),
  };
}
