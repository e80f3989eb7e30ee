/**
 * /stacks: our own endpoints for what `docker stack` does in many steps. A stack that the docker CLI
 * deployed has no object of its own, only labels on what belongs to it; it is listed and removed alike.
 */
import { Router } from 'express';
import { type Labels, type Stack, stackLabel } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { Change } from '../store/change.ts';
import type { View } from '../store/store.ts';
import type { ApiHost } from './contract.ts';
import { refuseUsedData } from './in-use.ts';
import { commit, managedCluster, pathOf, swarmError } from './request.ts';

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
  routes.delete('/stacks/:name', async (request, response) => {
    const cluster = await managedCluster(host);
    const name = knownStack(cluster.store, pathOf(request, 'name'));
    await commit(cluster, removal(cluster.store, name));
    response.status(200).end();
  });
  return routes;
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
  const { Source: _source, History: _history, ...own } = stack ?? {};
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

/** A stack goes whole or, when something outside of it uses a part, not at all. */
function removal(view: View, name: string): Change[] {
  const services = view.find('service', 'stack', name);
  const isOutside = (service: { ID: string }) => services.every((own) => own.ID !== service.ID);
  for (const kind of ['secret', 'config'] as const) {
    for (const object of view.find(kind, 'stack', name)) {
      refuseUsedData(kind, object.Spec.Name, view.find('service', kind, object.ID).filter(isOutside));
    }
  }
  for (const network of view.find('network', 'stack', name)) {
    const user = view.find('service', 'network', network.ID).find(isOutside);
    if (user)
      throw swarmError('failed-precondition', `network ${network.ID} is in use by service ${user.ID}`);
  }
  const stack = stackObject(view, name);
  return [
    ...parts.flatMap((kind) =>
      view.find(kind, 'stack', name).map((object) => ({ op: 'remove', kind, id: object.ID }) as Change),
    ),
    ...(stack ? [{ op: 'remove', kind: 'stack', id: stack.ID } as const] : []),
  ];
}
