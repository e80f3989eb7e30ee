/** /tasks */
import { Router } from 'express';
import { type Service, stackLabel, type Task } from '../../proto/docker.ts';
import type { NodeId, ServiceId } from '../../proto/ids.ts';
import { taskStates } from '../../proto/task-state.ts';
import { dirtyTest } from '../store/revision.ts';
import type { View } from '../store/store.ts';
import { taskAnswer } from './answers.ts';
import type { ApiHost, ManagedCluster } from './contract.ts';
import {
  checkFilters,
  type Filters,
  hasAskedPrefix,
  hasLabels,
  isAsked,
  readFilters,
  splitLabel,
  valuesOf,
  wordsOf,
} from './filters.ts';
import { answerList } from './list.ts';
import { lookup, lookupNode } from './lookup.ts';
import { managedCluster, pathOf } from './request.ts';

export function taskRoutes(host: ApiHost): Router {
  const routes = Router();
  routes.get('/tasks', async (request, response) => {
    const filters = readFilters(request);
    const cluster = await managedCluster(host);
    await answerList(
      response,
      listTasks(cluster, filters).map((task) => taskAnswer(cluster.store, task, host.clock.now())),
    );
  });
  routes.get('/tasks/:id', async (request, response) => {
    const { store } = await managedCluster(host);
    response.json(taskAnswer(store, lookup(store, 'task', pathOf(request, 'id')), host.clock.now()));
  });
  return routes;
}

function listTasks(cluster: ManagedCluster, filters: Filters): Task[] {
  const view = cluster.store;
  checkFilters(filters, [
    'name',
    'id',
    'label',
    'service',
    'node',
    'desired-state',
    '_up-to-date',
    'runtime',
  ]);
  const states = wordsOf(filters, 'desired-state', taskStates);
  const services = new Set(valuesOf(filters, 'service').map((input) => lookup(view, 'service', input).ID));
  const nodes = new Set(valuesOf(filters, 'node').map((input) => lookupNode(cluster, input).ID));
  if (!isAsked(filters, 'runtime', 'container')) return [];
  const onlyCurrent = valuesOf(filters, '_up-to-date').length > 0;
  const isDirty = dirtyByService(view);
  return candidates(view, filters, services, nodes).filter((task) => {
    const service = view.get('service', task.ServiceID);
    return (
      (services.size === 0 || services.has(task.ServiceID)) &&
      (nodes.size === 0 || (task.NodeID !== undefined && nodes.has(task.NodeID))) &&
      (states.length === 0 || states.includes(task.DesiredState)) &&
      (!onlyCurrent || (service !== undefined && !isDirty(service, task))) &&
      hasAskedPrefix(filters, 'id', task.ID) &&
      hasAskedPrefix(filters, 'name', taskName(service, task)) &&
      hasLabels(filters, 'label', { ...service?.Spec.Labels, ...task.Labels })
    );
  });
}

/** Whether a task is out of date, as an update sees it; each service's specs are compared once. */
function dirtyByService(view: View): (service: Service, task: Task) => boolean {
  const tests = new Map<ServiceId, (task: Task) => boolean>();
  return (service, task) => {
    let test = tests.get(service.ID);
    if (!test) {
      test = dirtyTest(view, service);
      tests.set(service.ID, test);
    }
    return test(task);
  };
}

/** The tasks that the cheapest index leaves to look at. */
function candidates(
  view: View,
  filters: Filters,
  services: ReadonlySet<ServiceId>,
  nodes: ReadonlySet<NodeId>,
): Task[] {
  if (services.size > 0) return [...services].flatMap((id) => view.find('task', 'service', id));
  if (nodes.size > 0) return [...nodes].flatMap((id) => view.find('task', 'node', id));
  const stack = valuesOf(filters, 'label')
    .map(splitLabel)
    .find(([key, value]) => key === stackLabel && value !== '');
  if (!stack) return view.list('task');
  return view.find('service', 'stack', stack[1]).flatMap(({ ID }) => view.find('task', 'service', ID));
}

/** A task's name as Docker builds it: service, slot or node, and its own id. */
function taskName(service: Service | undefined, task: Task): string {
  return `${service?.Spec.Name ?? task.ServiceID}.${task.Slot || task.NodeID || ''}.${task.ID}`;
}
