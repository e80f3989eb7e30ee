/**
 * Stored objects as the API answers them: without what only managers may know, with what Docker joins in.
 */
import type {
  Cluster,
  ClusterNode,
  Driver,
  Network,
  NetworkAttachment,
  NodeProblem,
  Secret,
  Service,
  ServiceSpec,
  Task,
  TaskSpec,
  Version,
} from '../../proto/docker.ts';
import type { View } from '../store/store.ts';
import { slotKey } from '../store/tables.ts';
import { reasonToTell } from '../store/why.ts';

type Answer = Record<string, unknown>;

/** GET /swarm. Without the tokens it is the Cluster of GET /info. */
export function clusterAnswer(cluster: Cluster, options: { tokens: boolean }): Answer {
  const { Private: _private, JoinTokens, DefaultAddrPool, ...shown } = cluster;
  const pool = DefaultAddrPool.length === 0 ? null : DefaultAddrPool;
  return { ...shown, DefaultAddrPool: pool, ...(options.tokens ? { JoinTokens } : {}) };
}

/** Problems that its data plane told of come on top of what Docker shows; none: as Docker shows it. */
export function nodeAnswer(view: View, node: ClusterNode): Answer {
  const {
    Private: _private,
    Attachments: _own,
    ContainerAttachments: _containers,
    ContainerAddresses: _addresses,
    Problems = [],
    Description,
    ManagerStatus,
    ...shown
  } = node;
  const { Labels, ...engine } = Description.Engine;
  const Engine = Object.keys(Labels).length === 0 ? engine : Description.Engine;
  const status = ManagerStatus ? { ManagerStatus } : {};
  const answer = { ...shown, Description: { ...Description, Engine }, ...status };
  if (Problems.length === 0) return answer;
  // Docker's clients show a node's message whatever its state.
  const rest = Problems.length === 1 ? '' : ` (and ${Problems.length - 1} more)`;
  const Message = node.Status.Message || `${Problems[0]!.Message}${rest}`;
  const Status = { ...node.Status, Message };
  return { ...answer, Status, Problems: Problems.map((one) => problemAnswer(view, one)) };
}

function problemAnswer(view: View, problem: NodeProblem): Answer {
  const network = view.get('network', problem.NetworkID)?.Spec.Name;
  const service = view.get('service', problem.ServiceID)?.Spec.Name;
  return { ...problem, ...(network ? { Network: network } : {}), ...(service ? { Service: service } : {}) };
}

export interface ServiceStatus {
  readonly RunningTasks: number;
  readonly DesiredTasks: number;
  readonly CompletedTasks: number;
}

export function serviceAnswer(service: Service, status?: ServiceStatus): Answer {
  const { Private: _private, Spec, PreviousSpec, JobStatus, ...shown } = service;
  return {
    ...shown,
    Spec: specAnswer(Spec),
    ...(PreviousSpec ? { PreviousSpec: specAnswer(PreviousSpec) } : {}),
    ...(JobStatus
      ? { JobStatus: { ...JobStatus, JobIteration: iterationAnswer(JobStatus.JobIteration) } }
      : {}),
    ...(status ? { ServiceStatus: status } : {}),
  };
}

/** The first iteration of a job is 0, which Docker leaves out. */
function iterationAnswer(iteration: Version): Partial<Version> {
  return iteration.Index === 0 ? {} : iteration;
}

/** Networks are shown where the client named them, so that what it changes there has its effect. */
function specAnswer(spec: ServiceSpec): ServiceSpec {
  const { Networks, ...template } = templateAnswer(spec.TaskTemplate);
  const isNamedOutside = spec.Networks !== undefined || Networks === undefined;
  return { ...spec, TaskTemplate: isNamedOutside ? template : { ...template, Networks } };
}

function templateAnswer(template: TaskSpec): TaskSpec {
  const { PullOptions: _credentials, ...ContainerSpec } = template.ContainerSpec;
  return { ...template, ContainerSpec };
}

/** A service's spec with Docker's defaults written out: GET /services/{id}?insertDefaults=true. */
export function withDefaults(service: Service): Service {
  const { Spec } = service;
  const task = Spec.TaskTemplate;
  const updates = {
    Parallelism: 1,
    FailureAction: 'pause',
    Monitor: 5e9,
    MaxFailureRatio: 0,
    Order: 'stop-first',
  } as const;
  const TaskTemplate: TaskSpec = {
    ...task,
    ContainerSpec: { StopGracePeriod: 10e9, DNSConfig: {}, ...task.ContainerSpec },
    Resources: { Limits: {}, Reservations: {}, ...task.Resources },
    RestartPolicy: { Condition: 'any', Delay: 5e9, MaxAttempts: 0, ...task.RestartPolicy },
    Placement: task.Placement ?? {},
  };
  return {
    ...service,
    Spec: {
      ...Spec,
      TaskTemplate,
      UpdateConfig: { ...updates, ...Spec.UpdateConfig },
      RollbackConfig: { ...updates, ...Spec.RollbackConfig },
      EndpointSpec: { Mode: 'vip', ...Spec.EndpointSpec },
    },
  };
}

/**
 * How many tasks a service runs and should, from the index of its tasks. Of a job only its present iteration
 * counts, and the tasks desired are those that may run at a time (replicated) or have yet to complete (global).
 */
export function statusOf(view: View, service: Service): ServiceStatus {
  const iteration = service.JobStatus?.JobIteration.Index;
  const tasks = view
    .find('task', 'service', service.ID)
    .filter((task) => iteration === undefined || task.JobIteration?.Index === iteration);
  const RunningTasks = tasks.filter((task) => task.Status.State === 'running').length;
  // A slot may have been completed twice, where a node that was lost came back.
  const completed = new Set(
    tasks.filter((task) => task.Status.State === 'complete').map((task) => slotKey(task)),
  ).size;
  const wanted = tasks.filter((task) => task.DesiredState !== 'shutdown' && task.DesiredState !== 'remove');
  const { Global, Replicated, ReplicatedJob, GlobalJob } = service.Spec.Mode;
  const DesiredTasks = Global
    ? wanted.length
    : GlobalJob
      ? wanted.filter((task) => task.Status.State !== 'complete').length
      : ReplicatedJob
        ? (ReplicatedJob.MaxConcurrent ?? 1)
        : (Replicated?.Replicas ?? 1);
  return { RunningTasks, DesiredTasks, CompletedTasks: iteration === undefined ? 0 : completed };
}

/** A task as Docker shows it: with the reason why it waits, if it does, with the spec of its revision and its networks written out. */
export function taskAnswer(view: View, task: Task, now: number): Answer {
  const {
    Private: _private,
    RevisionID,
    NetworksAttachments,
    AssignedGenericResources,
    Status,
    Slot,
    JobIteration,
    ...shown
  } = task;
  const template = view.get('revision', RevisionID)?.Spec.TaskTemplate;
  const reason = reasonToTell(view, task, now);
  return {
    ...shown,
    // The first slot of a job is 0, which Docker leaves out.
    ...(Slot ? { Slot } : {}),
    ...(JobIteration ? { JobIteration: iterationAnswer(JobIteration) } : {}),
    Status: { ...Status, ...(reason === '' ? {} : { Err: reason }), PortStatus: Status.PortStatus ?? {} },
    Spec: template ? taskSpecAnswer(template) : {},
    ...(AssignedGenericResources ? { GenericResources: AssignedGenericResources } : {}),
    ...(NetworksAttachments
      ? { NetworksAttachments: NetworksAttachments.map((one) => attachmentAnswer(view, one)) }
      : {}),
  };
}

function taskSpecAnswer(template: TaskSpec): Answer {
  const { Runtime: _always, ...spec } = templateAnswer(template);
  return spec;
}

function attachmentAnswer(view: View, attachment: NetworkAttachment): Answer {
  const network = view.get('network', attachment.NetworkID);
  return {
    Network: network ? { ...network, DriverState: driverStateOf(network) } : { ID: attachment.NetworkID },
    Addresses: attachment.Addresses,
  };
}

/** What the driver was told: the options of the spec, and what was allocated for it. */
function driverStateOf(network: Network): Driver {
  const { Name, Options } = network.Spec.DriverConfiguration;
  const state = network.DriverState;
  const all = { ...Options, ...state?.Options };
  return { Name: state?.Name || Name, ...(Object.keys(all).length > 0 ? { Options: all } : {}) };
}

export function secretAnswer(secret: Secret): Answer {
  const { Data: _data, ...Spec } = secret.Spec;
  return { ...secret, Spec };
}

/** A network of the cluster in the shape of the engine's networks. */
export function networkAnswer(network: Network): Answer {
  const { Spec, IPAMOptions } = network;
  return {
    ...localNetwork(Spec.Name, Spec.DriverConfiguration.Name),
    Id: network.ID,
    Created: network.CreatedAt,
    Scope: 'swarm',
    IPAM: {
      Driver: IPAMOptions.Driver.Name || 'default',
      Options: IPAMOptions.Driver.Options ?? null,
      Config: IPAMOptions.Configs.map((config) => ({
        ...(config.Subnet ? { Subnet: config.Subnet } : {}),
        ...(config.IPRange ? { IPRange: config.IPRange } : {}),
        ...(config.Gateway ? { Gateway: config.Gateway } : {}),
      })),
    },
    EnableIPv6: Spec.IPv6Enabled ?? false,
    Internal: Spec.Internal ?? false,
    Attachable: Spec.Attachable ?? false,
    Ingress: Spec.Ingress ?? false,
    Options: driverStateOf(network).Options ?? {},
    Labels: Spec.Labels,
  };
}

/** The networks that every engine has. Services name them, and their names are their ids. */
export const predefinedNetworks: readonly { readonly name: string; readonly driver: string }[] = [
  { name: 'bridge', driver: 'bridge' },
  { name: 'host', driver: 'host' },
  { name: 'none', driver: 'null' },
];

/** A predefined network in the shape of the engine's networks. */
export function localNetwork(name: string, driver: string): Answer {
  return {
    Name: name,
    Id: name,
    Created: new Date(0).toISOString(),
    Scope: 'local',
    Driver: driver,
    EnableIPv4: true,
    EnableIPv6: false,
    IPAM: { Driver: 'default', Options: null, Config: [] },
    Internal: false,
    Attachable: false,
    Ingress: false,
    ConfigFrom: { Network: '' },
    ConfigOnly: false,
    Containers: {},
    Options: {},
    Labels: {},
  };
}
