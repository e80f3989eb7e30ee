/** A service as `service inspect --pretty` prints it, in docker's order and words. Pure. */
import type {
  ContainerSpec,
  PortConfig,
  ResourceLimits,
  ResourceReservations,
  Service,
  ServiceMode,
  TaskSpec,
  UpdateConfig,
} from '../proto/docker.ts';
import { ago, binarySize, durationText } from './output.ts';

/** The lines of a service, joined. */
export function prettyService(service: Service, nowMs: number): string {
  const { Spec, UpdateStatus } = service;
  const task = Spec.TaskTemplate;
  const labels = Object.entries(Spec.Labels);
  return [
    `ID:\t\t${service.ID}`,
    `Name:\t\t${Spec.Name}`,
    ...(labels.length > 0 ? ['Labels:', ...labels.map(([key, value]) => ` ${key}=${value}`)] : []),
    ...modeLines(Spec.Mode),
    ...(UpdateStatus
      ? [
          'UpdateStatus:',
          ` State:\t\t${UpdateStatus.State}`,
          ...(UpdateStatus.StartedAt ? [` Started:\t${ago(UpdateStatus.StartedAt, nowMs)}`] : []),
          ...(UpdateStatus.CompletedAt ? [` Completed:\t${ago(UpdateStatus.CompletedAt, nowMs)}`] : []),
          ` Message:\t${UpdateStatus.Message}`,
        ]
      : []),
    ...placement(task),
    ...rollout('Update', Spec.UpdateConfig),
    ...rollout('Rollback', Spec.RollbackConfig),
    ...container(task.ContainerSpec),
    ...files(
      'Configs',
      (task.ContainerSpec.Configs ?? []).map((one) => [one.File?.Name, one.ConfigName]),
    ),
    ...files(
      'Secrets',
      (task.ContainerSpec.Secrets ?? []).map((one) => [one.File?.Name, one.SecretName]),
    ),
    ...logDriver(task),
    ...resources(task),
    ...((task.Networks ?? []).length > 0
      ? [`Networks: ${task.Networks!.map((network) => network.Target).join(' ')} `]
      : []),
    `Endpoint Mode:\t${Spec.EndpointSpec?.Mode ?? 'vip'}`,
    ...ports(service.Endpoint.Ports ?? []),
    ...health(task.ContainerSpec),
  ].join('\n');
}

function modeLines(mode: ServiceMode): string[] {
  if (mode.Global) return ['Service Mode:\tGlobal'];
  if (mode.GlobalJob) return ['Service Mode:\tGlobalJob'];
  const { ReplicatedJob: job } = mode;
  if (!job) return ['Service Mode:\tReplicated', ` Replicas:\t${mode.Replicated?.Replicas ?? 1}`];
  return [
    'Service Mode:\tReplicatedJob',
    ` Max Concurrent:\t${job.MaxConcurrent ?? 1}`,
    ` Total Completions:\t${job.TotalCompletions ?? 1}`,
  ];
}

function placement({ Placement }: TaskSpec): string[] {
  const { Constraints = [], Preferences = [], MaxReplicas = 0 } = Placement ?? {};
  if (Constraints.length + Preferences.length + MaxReplicas === 0) return [];
  const spreads = Preferences.map((one) => `spread=${one.Spread.SpreadDescriptor}`);
  return [
    'Placement:',
    ...(Constraints.length > 0 ? [` Constraints:\t[${Constraints.join(' ')}]`] : []),
    ...(spreads.length > 0 ? [` Preferences:\t[${spreads.join(' ')}]`] : []),
    ...(MaxReplicas > 0 ? [` Max Replicas Per Node:\t${MaxReplicas}`] : []),
  ];
}

function rollout(what: 'Update' | 'Rollback', config: UpdateConfig | undefined): string[] {
  if (!config) return [];
  return [
    `${what}Config:`,
    ` Parallelism:\t${config.Parallelism}`,
    ...(config.Delay ? [` Delay:\t\t${durationText(config.Delay)}`] : []),
    ` On failure:\t${config.FailureAction ?? 'pause'}`,
    ...(config.Monitor ? [` Monitoring Period: ${durationText(config.Monitor)}`] : []),
    ` Max failure ratio: ${config.MaxFailureRatio ?? 0}`,
    ` ${what} order:      ${config.Order ?? 'stop-first'}`,
  ];
}

function container(spec: ContainerSpec): string[] {
  const dns = spec.DNSConfig ?? {};
  const words = (heading: string, list: readonly string[] | undefined): string[] =>
    list && list.length > 0 ? [` ${heading}:\t\t${list.join(' ')} `] : [];
  const mounts = spec.Mounts ?? [];
  return [
    'ContainerSpec:',
    ` Image:\t\t${spec.Image}`,
    ...words('Command', spec.Command),
    ...words('Args', spec.Args),
    ...(spec.Init === undefined ? [] : [` Init:\t\t${spec.Init}`]),
    ...words('Env', spec.Env),
    ...(spec.Dir ? [` Dir:\t\t${spec.Dir}`] : []),
    ...(spec.User ? [` User:\t\t${spec.User}`] : []),
    ...words('CapabilityAdd', spec.CapabilityAdd),
    ...words('CapabilityDrop', spec.CapabilityDrop),
    ...words('DNS', dns.Nameservers),
    ...words('Hosts', spec.Hosts),
    ...(mounts.length > 0 ? ['Mounts:'] : []),
    ...mounts.flatMap((mount) => [
      ` Target:\t${mount.Target}`,
      ...(mount.Source ? [`  Source:\t${mount.Source}`] : []),
      `  ReadOnly:\t${mount.ReadOnly ?? false}`,
      `  Type:\t\t${mount.Type}`,
    ]),
  ];
}

function files(heading: string, entries: readonly [string | undefined, string][]): string[] {
  if (entries.length === 0) return [];
  return [
    `${heading}:`,
    ...entries.flatMap(([target, source]) => [` Target:\t${target ?? source}`, `  Source:\t${source}`]),
  ];
}

function logDriver({ LogDriver }: TaskSpec): string[] {
  if (!LogDriver) return [];
  const options = Object.entries(LogDriver.Options ?? {});
  return [
    'Log Driver:',
    ` Name:\t\t${LogDriver.Name}`,
    ...(options.length > 0 ? [' LogOpts:', ...options.map(([key, value]) => `  ${key}:\t${value}`)] : []),
  ];
}

function resources({ Resources }: TaskSpec): string[] {
  const amounts = (heading: string, part: (ResourceLimits & ResourceReservations) | undefined): string[] => {
    const lines = [
      ...(part?.NanoCPUs ? [`  CPU:\t\t${part.NanoCPUs / 1e9}`] : []),
      ...(part?.MemoryBytes ? [`  Memory:\t${binarySize(part.MemoryBytes)}`] : []),
      ...(part?.Pids ? [`  PIDs:\t\t${part.Pids}`] : []),
    ];
    return lines.length > 0 ? [` ${heading}:`, ...lines] : [];
  };
  const lines = [
    ...amounts('Reservations', Resources?.Reservations),
    ...amounts('Limits', Resources?.Limits),
  ];
  return lines.length > 0 ? ['Resources:', ...lines] : [];
}

function ports(list: readonly PortConfig[]): string[] {
  if (list.length === 0) return [];
  return [
    'Ports:',
    ...list.flatMap((port) => [
      ` PublishedPort = ${port.PublishedPort ?? 0}`,
      `  Protocol = ${port.Protocol ?? 'tcp'}`,
      `  TargetPort = ${port.TargetPort}`,
      `  PublishMode = ${port.PublishMode ?? 'ingress'}`,
    ]),
  ];
}

function health({ Healthcheck }: ContainerSpec): string[] {
  if (!Healthcheck) return [];
  const { Interval, Retries, StartPeriod, StartInterval, Test, Timeout } = Healthcheck;
  return [
    'Healthcheck:',
    ...(Interval ? [` Interval = ${durationText(Interval)}`] : []),
    ...(Retries ? [` Retries = ${Retries}`] : []),
    ...(StartPeriod ? [` StartPeriod =\t${durationText(StartPeriod)}`] : []),
    ...(StartInterval ? [` StartInterval =\t${durationText(StartInterval)}`] : []),
    ...(Timeout ? [` Timeout =\t${durationText(Timeout)}`] : []),
    ...(Test && Test.length > 0 ? [' Tests:', ...Test.map((word) => `\t Test = ${word}`)] : []),
  ];
}
