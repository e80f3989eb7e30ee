/** /tasks/{id}/why and /services/{id}/why: our own endpoints for the reasons behind what tasks do. */
import { Router } from 'express';
import type { Service, Task } from '../../proto/docker.ts';
import type { View } from '../store/store.ts';
import { explainUpdate } from '../store/update-progress.ts';
import { problemsWith, reasonOf, unmetOf } from '../store/why.ts';
import type { ApiHost } from './contract.ts';
import { lookup, lookupTask } from './lookup.ts';
import { managedCluster, pathOf } from './request.ts';

/** What happened to a task, and why it is where it is. */
export interface TaskWhy {
  readonly ID: string;
  /** `web.1`, or `web.NODEID` for a global service. */
  readonly Name: string;
  readonly Node: string;
  readonly State: string;
  readonly DesiredState: string;
  /** Empty for one that runs as it should. */
  readonly Reason: string;
  readonly Timeline: readonly {
    readonly At: string;
    readonly State: string;
    readonly DesiredState: string;
    readonly Node?: string;
    readonly Text: string;
  }[];
}

export interface ServiceWhy {
  readonly ID: string;
  readonly Name: string;
  /** What the service as a whole waits for (its update's message, dependencies), and what nodes can't do for it. */
  readonly Reasons: readonly string[];
  readonly Tasks: readonly TaskWhy[];
}

export function whyRoutes(host: ApiHost): Router {
  const routes = Router();
  routes.get('/tasks/:id/why', async (request, response) => {
    const { store } = await managedCluster(host);
    const task = lookupTask(store, pathOf(request, 'id'));
    response.json(taskWhy(store, task, host.clock.now()));
  });
  routes.get('/services/:id/why', async (request, response) => {
    const { store } = await managedCluster(host);
    const service = lookup(store, 'service', pathOf(request, 'id'));
    const answer: ServiceWhy = {
      ID: service.ID,
      Name: service.Spec.Name,
      Reasons: serviceReasons(store, service, host.clock.now()),
      Tasks: store.find('task', 'service', service.ID).map((task) => taskWhy(store, task, host.clock.now())),
    };
    response.json(answer);
  });
  return routes;
}

function serviceReasons(view: View, service: Service, now: number): string[] {
  const status = service.UpdateStatus;
  const progress = explainUpdate(view, service, now);
  const more = progress.kind === 'none' ? '' : `: ${progress.text}`;
  const update =
    status && !status.State.endsWith('completed') ? [`${status.State}: ${status.Message}${more}`] : [];
  return [...update, ...unmetOf(view, service), ...scalingOf(service), ...problemsWith(view, service)];
}

/** Why it has as many tasks as it has, and how that came, where its scaling has something newer to say. */
function scalingOf({ Private }: Service): string[] {
  const { Reason, Change } = Private.Autoscale ?? {};
  if (!Reason) return [];
  return [`autoscale: ${Reason}`, ...(Change && Change !== Reason ? [`autoscale: it ${Change}`] : [])];
}

function taskWhy(view: View, task: Task, now: number): TaskWhy {
  const service = view.get('service', task.ServiceID);
  const nodeName = (id: Task['NodeID']) => view.get('node', id)?.Description.Hostname || (id ?? '');
  return {
    ID: task.ID,
    Name: `${service?.Spec.Name ?? task.ServiceID}.${task.Slot ?? nodeName(task.NodeID)}`,
    Node: nodeName(task.NodeID),
    State: task.Status.State,
    DesiredState: task.DesiredState,
    Reason: reasonOf(view, task, now),
    Timeline: (task.Private.History ?? []).map((moment) => ({
      At: new Date(moment.At).toISOString(),
      State: moment.State,
      DesiredState: moment.Desired,
      ...(moment.NodeID === undefined ? {} : { Node: nodeName(moment.NodeID) }),
      Text: moment.Text ?? '',
    })),
  };
}
