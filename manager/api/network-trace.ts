/**
 * /tasks/{id}/trace: where a connection from a task to a name and port would go, step by step. In: the store, and what the
 * nodes on the way say of their kernels: the task's own, then those of the tasks that it may end at. Nothing is sent to
 * any task.
 */
import { Router } from 'express';
import type { ClusterNode, Service, Task } from '../../proto/docker.ts';
import { isShoalError, messageOf, ShoalError } from '../../proto/errors.ts';
import type { TraceStep as WireStep } from '../../proto/generated/shoal/v1/TraceStep.ts';
import type { TraceTarget } from '../../proto/generated/shoal/v1/TraceTarget.ts';
import type { TraceWay } from '../../proto/generated/shoal/v1/TraceWay.ts';
import type { NetworkId, NodeId, TaskId } from '../../proto/ids.ts';
import { clusterAttachments } from '../store/attachment.ts';
import { isIngressPort } from '../store/endpoint.ts';
import { hostOf } from '../store/ip.ts';
import type { View } from '../store/store.ts';
import { reasonOf } from '../store/why.ts';
import type { ApiHost, DataPlanes } from './contract.ts';
import { lookupNode, lookupTask } from './lookup.ts';
import { looseFlag, managedCluster, pathOf, query } from './request.ts';

export interface TraceStep {
  /** The host's name. */
  readonly Node: string;
  readonly Text: string;
  /** The connection goes no further. */
  readonly Breaks: boolean;
}

/** A task that the connection may end at. */
export interface TraceEnd {
  readonly Task: string;
  readonly Node: string;
  readonly Address: string;
  readonly Steps: readonly TraceStep[];
  readonly Reached: boolean;
}

export interface NetworkTrace {
  readonly From: string;
  readonly To: string;
  readonly Steps: readonly TraceStep[];
  /** One for each address of the name. */
  readonly Ways: readonly {
    readonly Address: string;
    readonly Steps: readonly TraceStep[];
    readonly Ends: readonly TraceEnd[];
  }[];
  /** Whether a connection reaches a task: each, none, or it depends on which is next. */
  readonly Outcome: 'reached' | 'broken' | 'partly';
}

/** What a connection is to: the name as the task would say it. */
export interface TraceTo {
  readonly name: string;
  readonly port: number;
  readonly protocol: 'tcp' | 'udp';
  readonly isIpv6: boolean;
}

/** Reads `web:80` or `web:53/udp`. Throws 'invalid-argument'. */
export function readTraceTo(text: string, isIpv6: boolean): TraceTo {
  const [, name, port, protocol = 'tcp'] = /^([^:/\s]+):(\d{1,5})(?:\/(tcp|udp))?$/.exec(text) ?? [];
  const number = Number(port);
  if (name === undefined || number < 1 || number > 65_535) {
    throw new ShoalError(
      'invalid-argument',
      `"${text}" names no service and port: write web:80 or web:53/udp`,
    );
  }
  return { name, port: number, protocol: protocol === 'udp' ? 'udp' : 'tcp', isIpv6 };
}

export function networkTraceRoutes(host: ApiHost): Router {
  const routes = Router();
  routes.get('/tasks/:id/trace', async (request, response) => {
    const { store, dataPlanes } = await managedCluster(host);
    const task = lookupTask(store, pathOf(request, 'id'));
    const to = readTraceTo(query(request, 'to'), looseFlag(request, 'ipv6'));
    response.json(await traceOf(store, dataPlanes, task, to, host.clock.now()));
  });
  routes.get('/nodes/:id/trace', async (request, response) => {
    const cluster = await managedCluster(host);
    const node = lookupNode(cluster, pathOf(request, 'id'));
    const to = readTracePort(query(request, 'port'), looseFlag(request, 'ipv6'));
    response.json(await publishedTraceOf(cluster.store, cluster.dataPlanes, node, to));
  });
  return routes;
}

/** A published port, as someone outside would ask a node for it. */
export type TracePort = Omit<TraceTo, 'name'>;

/** Reads `8080` or `53/udp`. Throws 'invalid-argument'. */
export function readTracePort(text: string, isIpv6: boolean): TracePort {
  const [, port, protocol = 'tcp'] = /^(\d{1,5})(?:\/(tcp|udp))?$/.exec(text) ?? [];
  const number = Number(port);
  if (port === undefined || number < 1 || number > 65_535) {
    throw new ShoalError('invalid-argument', `"${text}" names no published port: write 8080 or 53/udp`);
  }
  return { port: number, protocol: protocol === 'udp' ? 'udp' : 'tcp', isIpv6 };
}

/** A connection from outside to a port published on `node`. Rejects when the node can't be asked. */
export async function publishedTraceOf(
  view: View,
  dataPlanes: DataPlanes,
  node: ClusterNode,
  { port, protocol, isIpv6 }: TracePort,
): Promise<NetworkTrace> {
  const head = { From: 'outside', To: `${nameOf(node)}:${port}/${protocol}` };
  const publishing = view
    .list('service')
    .flatMap((service) => (service.Endpoint.Ports ?? []).map((one) => ({ service, one })))
    .filter(({ one }) => one.PublishedPort === port && one.Protocol === protocol);
  const found = publishing.find(({ one }) => isIngressPort(one));
  if (found === undefined) {
    const [other] = publishing;
    const Text =
      other === undefined
        ? `no service publishes port ${port}/${protocol}`
        : `service ${other.service.Spec.Name} publishes port ${port}/${protocol} in mode=host: it answers where a task of it runs, and the engine there sends it on`;
    return { ...head, Steps: [{ Node: '', Text, Breaks: true }], Ways: [], Outcome: 'broken' };
  }
  const { service, one } = found;
  const trace = { published_port: port, protocol, ipv6: isIpv6 };
  const answer = await dataPlanes.ask(node.ID, { trace });
  const problems = (node.Problems ?? [])
    .filter(({ ServiceID }) => ServiceID === undefined || ServiceID === service.ID)
    .map(({ Message }) => ({
      Node: nameOf(node),
      Text: `the node has a problem: ${Message}`,
      Breaks: false,
    }));
  const Steps = [...problems, ...(answer.steps ?? []).map((step) => stepAt(node, step))];
  const inside = { name: service.Spec.Name, port: one.TargetPort, protocol, isIpv6 };
  return { ...head, ...(await waysOf(view, dataPlanes, node, inside, Steps, answer.ways ?? [])) };
}

/** Asks the nodes on the way, each once. Rejects when the task's own node can't be asked. */
export async function traceOf(
  view: View,
  dataPlanes: DataPlanes,
  task: Task,
  to: TraceTo,
  now: number,
): Promise<NetworkTrace> {
  const node = view.get('node', task.NodeID);
  const head = { From: nameOfTask(view, task), To: `${to.name}:${to.port}/${to.protocol}` };
  const broken = (Text: string): NetworkTrace => {
    const Steps = [{ Node: node === undefined ? '' : nameOf(node), Text, Breaks: true }];
    return { ...head, Steps, Ways: [], Outcome: 'broken' };
  };
  if (node === undefined || task.Status.State !== 'running') {
    return broken(`the task does not run (it is ${task.Status.State}): ${reasonOf(view, task, now)}`);
  }
  const addresses = (task.NetworksAttachments ?? []).map(
    ({ NetworkID, Addresses }) => [NetworkID, Addresses.map(hostOf).join(',')] as const,
  );
  if (addresses.length === 0) return broken('the task is on no network of the cluster');
  const question = { addresses: Object.fromEntries(addresses), name: to.name, ipv6: to.isIpv6 };
  const answer = await dataPlanes.ask(node.ID, { trace: question });
  const found = answer.ways ?? [];
  const Steps = [
    ...(answer.steps ?? []).map((step) => stepAt(node, step)),
    ...hintsOf(view, task, node, to, found.length === 0),
  ];
  return { ...head, ...(await waysOf(view, dataPlanes, node, to, Steps, found)) };
}

/** The ways that `node` told of, each followed to where it ends. */
async function waysOf(
  view: View,
  dataPlanes: DataPlanes,
  node: ClusterNode,
  to: TraceTo,
  Steps: readonly TraceStep[],
  found: readonly TraceWay[],
): Promise<Pick<NetworkTrace, 'Steps' | 'Ways' | 'Outcome'>> {
  const arrivals = await arrivalsOf(view, dataPlanes, node.ID, to, found);
  const Ways = found.map((way) => ({
    Address: way.address ?? '',
    Steps: (way.steps ?? []).map((step) => stepAt(node, step)),
    Ends: (way.targets ?? []).map((target) => endOf(view, node, target, arrivals.get(target) ?? [])),
  }));
  return { Steps, Ways, Outcome: outcomeOf(Ways) };
}

/** Asks the nodes where connections come in; by target, their steps. A node that can't be asked says so in a step. */
async function arrivalsOf(
  view: View,
  dataPlanes: DataPlanes,
  fromNodeId: NodeId,
  { port, protocol }: TraceTo,
  ways: readonly TraceWay[],
): Promise<Map<TraceTarget, TraceStep[]>> {
  type Arrived = readonly [TraceTarget, TraceStep[]];
  const byNode = new Map<string, TraceTarget[]>();
  for (const target of ways.flatMap(({ targets }) => targets ?? [])) {
    if ((target.steps ?? []).some(({ breaks }) => breaks)) continue;
    const nodeId = target.node_id ?? '';
    byNode.set(nodeId, [...(byNode.get(nodeId) ?? []), target]);
  }
  const answers = await Promise.all(
    [...byNode].map(async ([nodeId, targets]): Promise<Arrived[]> => {
      const node = view.get('node', nodeId as NodeId);
      const asked = targets.map(({ network_id, address, task_id }) => ({
        network_id,
        address,
        pid: view.get('task', task_id as TaskId)?.Status.ContainerStatus?.PID ?? 0,
      }));
      const arrival = { from_node_id: fromNodeId, port, protocol, targets: asked };
      try {
        if (node === undefined)
          throw new ShoalError('not-found', `node ${nodeId} is not in the cluster any more`);
        const { arrivals = [] } = await dataPlanes.ask(node.ID, { arrival });
        return targets.map((target, at) => [
          target,
          (arrivals[at]?.steps ?? []).map((step) => stepAt(node, step)),
        ]);
      } catch (error) {
        if (!isShoalError(error)) throw error;
        const Breaks = node?.Status.State !== 'ready';
        const step = { Node: node === undefined ? '' : nameOf(node), Text: messageOf(error), Breaks };
        return targets.map((target) => [target, [step]]);
      }
    }),
  );
  return new Map(answers.flat());
}

function endOf(view: View, from: ClusterNode, target: TraceTarget, arrival: readonly TraceStep[]): TraceEnd {
  const node = view.get('node', target.node_id as NodeId);
  const Steps = [...(target.steps ?? []).map((step) => stepAt(from, step)), ...arrival];
  return {
    Task: target.name ?? '',
    Node: node === undefined ? '' : nameOf(node),
    Address: target.address ?? '',
    Steps,
    Reached: !Steps.some(({ Breaks }) => Breaks),
  };
}

function outcomeOf(ways: NetworkTrace['Ways']): NetworkTrace['Outcome'] {
  const ends = ways.flatMap(({ Ends }) => Ends);
  const reached = ends.filter(({ Reached }) => Reached).length;
  if (reached === 0) return 'broken';
  return reached === ends.length && ways.every(({ Ends }) => Ends.length > 0) ? 'reached' : 'partly';
}

/** What the store knows that explains more: networks that are not shared, ports that are published, problems told. */
function hintsOf(view: View, task: Task, node: ClusterNode, to: TraceTo, isNameless: boolean): TraceStep[] {
  const hint = (Text: string): TraceStep => ({ Node: nameOf(node), Text, Breaks: false });
  const [service] = view.find('service', 'name', to.name);
  const problems = (node.Problems ?? [])
    .filter(({ ServiceID }) => ServiceID === undefined)
    .map(({ Message }) => hint(`the node has a problem: ${Message}`));
  if (service === undefined) return problems;
  return [
    ...problems,
    ...(isNameless ? apart(view, task, service) : []).map(hint),
    ...published(service, to).map(hint),
  ];
}

function apart(view: View, task: Task, service: Service): string[] {
  const nameOfNetwork = (id: string) => view.get('network', id as NetworkId)?.Spec.Name ?? id;
  const own = (task.NetworksAttachments ?? []).map(({ NetworkID }) => NetworkID as string);
  const its = clusterAttachments(view, service.Spec).map(({ network }) => network.ID as string);
  if (its.some((id) => own.includes(id))) return [];
  const list = (ids: readonly string[]) => ids.map(nameOfNetwork).join(', ') || 'no network';
  return [
    `service ${service.Spec.Name} is on ${list(its)}, the task on ${list(own)}: who shares no network has neither name nor way`,
  ];
}

function published(service: Service, { port, protocol }: TraceTo): string[] {
  return (service.Endpoint.Ports ?? [])
    .filter(
      (one) =>
        isIngressPort(one) &&
        one.PublishedPort === port &&
        one.TargetPort !== port &&
        one.Protocol === protocol,
    )
    .map(
      ({ TargetPort }) =>
        `port ${port} is published on the nodes; on its networks service ${service.Spec.Name} is asked at its own port ${TargetPort}`,
    );
}

function stepAt(node: ClusterNode, { text, breaks }: WireStep): TraceStep {
  return { Node: nameOf(node), Text: text ?? '', Breaks: breaks === true };
}

function nameOf(node: ClusterNode): string {
  return node.Description.Hostname || node.ID;
}

function nameOfTask(view: View, task: Task): string {
  const service = view.get('service', task.ServiceID)?.Spec.Name ?? task.ServiceID;
  const node = view.get('node', task.NodeID);
  return `${service}.${task.Slot ?? (node === undefined ? task.ID : nameOf(node))}`;
}
