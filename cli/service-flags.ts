/**
 * The flags of `service create` and `service update` as data: each says what it does to a service's spec.
 * Pure but for reading env files, which is handed in.
 */
import type {
  ContainerSpec,
  HealthConfig,
  Placement,
  ResourceLimits,
  ResourceReservations,
  RestartPolicy,
  ServiceSpec,
  TaskSpec,
  UpdateConfig,
} from '../proto/docker.ts';
import {
  parseBytes,
  parseChoice,
  parseCount,
  parseCpus,
  parseDuration,
  parseInteger,
  parseRatio,
  splitWords,
} from './parse.ts';
import { UsageError } from './usage.ts';

/** A flag with one value, the same for create and update. */
export interface ScalarFlag {
  /** As commander writes it, e.g. `--hostname <name>`. */
  readonly flags: string;
  readonly description: string;
  readonly apply: (spec: ServiceSpec, value: string, what: string) => ServiceSpec;
}

/** A switch without a value. */
export interface SwitchFlag {
  readonly flags: string;
  readonly description: string;
  readonly apply: (spec: ServiceSpec, on: boolean) => ServiceSpec;
}

/** A spec with its container changed. */
export function withContainer(spec: ServiceSpec, change: Partial<ContainerSpec>): ServiceSpec {
  const ContainerSpec = { ...spec.TaskTemplate.ContainerSpec, ...change };
  return { ...spec, TaskTemplate: { ...spec.TaskTemplate, ContainerSpec } };
}

/** A spec with its task template changed. */
export function withTask(spec: ServiceSpec, change: Partial<TaskSpec>): ServiceSpec {
  return { ...spec, TaskTemplate: { ...spec.TaskTemplate, ...change } };
}

function withLimits(spec: ServiceSpec, change: Partial<ResourceLimits>): ServiceSpec {
  const { Resources = {} } = spec.TaskTemplate;
  return withTask(spec, { Resources: { ...Resources, Limits: { ...Resources.Limits, ...change } } });
}

function withResources(spec: ServiceSpec, change: NonNullable<TaskSpec['Resources']>): ServiceSpec {
  return withTask(spec, { Resources: { ...spec.TaskTemplate.Resources, ...change } });
}

/** A spec with its reservations changed. */
export function withReservations(spec: ServiceSpec, change: Partial<ResourceReservations>): ServiceSpec {
  const { Resources = {} } = spec.TaskTemplate;
  return withTask(spec, {
    Resources: { ...Resources, Reservations: { ...Resources.Reservations, ...change } },
  });
}

function withRestart(spec: ServiceSpec, change: Partial<RestartPolicy>): ServiceSpec {
  return withTask(spec, { RestartPolicy: { ...spec.TaskTemplate.RestartPolicy, ...change } });
}

/** A spec with its placement changed. */
export function withPlacement(spec: ServiceSpec, change: Partial<Placement>): ServiceSpec {
  return withTask(spec, { Placement: { ...spec.TaskTemplate.Placement, ...change } });
}

function withHealth(spec: ServiceSpec, change: Partial<HealthConfig>): ServiceSpec {
  return withContainer(spec, { Healthcheck: { ...spec.TaskTemplate.ContainerSpec.Healthcheck, ...change } });
}

/** A health check that is not switched off. */
function withoutNone(spec: ServiceSpec): HealthConfig {
  const { Test, ...rest } = spec.TaskTemplate.ContainerSpec.Healthcheck ?? {};
  return Test && Test[0] !== 'NONE' ? { Test, ...rest } : rest;
}

type ConfigKey = 'UpdateConfig' | 'RollbackConfig';

function withRollout(spec: ServiceSpec, key: ConfigKey, change: Partial<UpdateConfig>): ServiceSpec {
  if (spec.Mode.ReplicatedJob || spec.Mode.GlobalJob) {
    throw new UsageError('update and rollback configuration is not supported for jobs');
  }
  return { ...spec, [key]: { Parallelism: 1, ...spec[key], ...change } };
}

function rolloutFlags(
  prefix: string,
  key: ConfigKey,
  actions: readonly ('pause' | 'continue' | 'rollback')[],
): ScalarFlag[] {
  return [
    {
      flags: `--${prefix}-parallelism <count>`,
      description: 'tasks at a time, 0: all at once (default 1)',
      apply: (spec, value, what) => withRollout(spec, key, { Parallelism: parseCount(value, what) }),
    },
    {
      flags: `--${prefix}-delay <duration>`,
      description: 'time between two tasks (default 0s)',
      apply: (spec, value, what) => withRollout(spec, key, { Delay: parseDuration(value, what) }),
    },
    {
      flags: `--${prefix}-monitor <duration>`,
      description: 'time after a task started in which its failing counts (default 5s)',
      apply: (spec, value, what) => withRollout(spec, key, { Monitor: parseDuration(value, what) }),
    },
    {
      flags: `--${prefix}-failure-action <action>`,
      description: `${actions.join(', ')} (default pause)`,
      apply: (spec, value, what) =>
        withRollout(spec, key, { FailureAction: parseChoice(value, what, actions) }),
    },
    {
      flags: `--${prefix}-max-failure-ratio <ratio>`,
      description: 'share of failed tasks that is borne (default 0)',
      apply: (spec, value, what) => withRollout(spec, key, { MaxFailureRatio: parseRatio(value, what) }),
    },
    {
      flags: `--${prefix}-order <order>`,
      description: 'stop-first or start-first (default stop-first)',
      apply: (spec, value, what) =>
        withRollout(spec, key, { Order: parseChoice(value, what, ['stop-first', 'start-first'] as const) }),
    },
  ];
}

function replicas(spec: ServiceSpec, value: string, what: string): ServiceSpec {
  const count = parseCount(value, what);
  const { Replicated, ReplicatedJob } = spec.Mode;
  if (ReplicatedJob)
    return { ...spec, Mode: { ReplicatedJob: { ...ReplicatedJob, TotalCompletions: count } } };
  if (Replicated) return { ...spec, Mode: { Replicated: { Replicas: count } } };
  throw new UsageError(`${what} can only be used with replicated or replicated-job mode`);
}

function maxConcurrent(spec: ServiceSpec, value: string, what: string): ServiceSpec {
  const { ReplicatedJob } = spec.Mode;
  if (!ReplicatedJob) throw new UsageError(`${what} can only be used with replicated-job mode`);
  const MaxConcurrent = parseCount(value, what);
  return { ...spec, Mode: { ReplicatedJob: { ...ReplicatedJob, MaxConcurrent } } };
}

function replicasPerNode(spec: ServiceSpec, value: string, what: string): ServiceSpec {
  const MaxReplicas = parseCount(value, what);
  if (MaxReplicas > 0 && (spec.Mode.Global || spec.Mode.GlobalJob)) {
    throw new UsageError(`${what} can only be used with replicated or replicated-job mode`);
  }
  return withPlacement(spec, { MaxReplicas });
}

const containerFlags: ScalarFlag[] = [
  {
    flags: '--hostname <name>',
    description: "container's host name",
    apply: (spec, value) => withContainer(spec, { Hostname: value }),
  },
  {
    flags: '-u, --user <user>',
    description: 'user or UID, :group or :GID may follow',
    apply: (spec, value) => withContainer(spec, { User: value }),
  },
  {
    flags: '-w, --workdir <path>',
    description: 'working directory',
    apply: (spec, value) => withContainer(spec, { Dir: value }),
  },
  {
    flags: '--entrypoint <command>',
    description: "replaces the image's entry point",
    apply: (spec, value) => withContainer(spec, { Command: splitWords(value) }),
  },
  {
    flags: '--stop-grace-period <duration>',
    description: 'time between the stop signal and the kill (default 10s)',
    apply: (spec, value, what) => withContainer(spec, { StopGracePeriod: parseDuration(value, what) }),
  },
  {
    flags: '--stop-signal <signal>',
    description: 'signal that asks it to stop',
    apply: (spec, value) => withContainer(spec, { StopSignal: value }),
  },
  {
    flags: '--oom-score-adj <score>',
    description: 'how willingly the kernel kills it for memory, -1000 to 1000',
    apply: (spec, value, what) => withContainer(spec, { OomScoreAdj: parseInteger(value, what) }),
  },
  {
    flags: '--isolation <isolation>',
    description: 'container isolation technology',
    apply: (spec, value) => withContainer(spec, { Isolation: value }),
  },
];

const healthFlags: ScalarFlag[] = [
  {
    flags: '--health-cmd <command>',
    description: 'command that checks the health',
    apply: (spec, value) => withHealth(spec, { Test: ['CMD-SHELL', value] }),
  },
  {
    flags: '--health-interval <duration>',
    description: 'time between two checks',
    apply: (spec, value, what) => withHealth(spec, { Interval: parseDuration(value, what) }),
  },
  {
    flags: '--health-timeout <duration>',
    description: 'time a check may take',
    apply: (spec, value, what) => withHealth(spec, { Timeout: parseDuration(value, what) }),
  },
  {
    flags: '--health-start-period <duration>',
    description: 'time after the start in which failing does not count',
    apply: (spec, value, what) => withHealth(spec, { StartPeriod: parseDuration(value, what) }),
  },
  {
    flags: '--health-start-interval <duration>',
    description: 'time between two checks in the start period',
    apply: (spec, value, what) => withHealth(spec, { StartInterval: parseDuration(value, what) }),
  },
  {
    flags: '--health-retries <count>',
    description: 'failed checks in a row that make it unhealthy',
    apply: (spec, value, what) => withHealth(spec, { Retries: parseCount(value, what) }),
  },
];

const resourceFlags: ScalarFlag[] = [
  {
    flags: '--limit-cpu <cpus>',
    description: 'most CPUs it may use',
    apply: (spec, value, what) => withLimits(spec, { NanoCPUs: parseCpus(value, what) }),
  },
  {
    flags: '--limit-memory <bytes>',
    description: 'most memory it may use',
    apply: (spec, value, what) => withLimits(spec, { MemoryBytes: parseBytes(value, what) }),
  },
  {
    flags: '--limit-pids <count>',
    description: 'most processes (0: unlimited)',
    apply: (spec, value, what) => withLimits(spec, { Pids: parseCount(value, what) }),
  },
  {
    flags: '--reserve-cpu <cpus>',
    description: 'CPUs to keep free for it',
    apply: (spec, value, what) => withReservations(spec, { NanoCPUs: parseCpus(value, what) }),
  },
  {
    flags: '--reserve-memory <bytes>',
    description: 'memory to keep free for it',
    apply: (spec, value, what) => withReservations(spec, { MemoryBytes: parseBytes(value, what) }),
  },
  {
    flags: '--memory-swap <bytes>',
    description: 'swap on top of the memory limit (-1: unlimited)',
    apply: (spec, value, what) =>
      withResources(spec, { SwapBytes: value === '-1' ? -1 : parseBytes(value, what) }),
  },
  {
    flags: '--memory-swappiness <percent>',
    description: 'how willingly its memory is swapped out, 0 to 100 (-1: the default)',
    apply: (spec, value, what) => withResources(spec, { MemorySwappiness: parseInteger(value, what) }),
  },
  {
    flags: '--replicas-max-per-node <count>',
    description: 'most tasks on one node (0: unlimited)',
    apply: replicasPerNode,
  },
];

const restartFlags: ScalarFlag[] = [
  {
    flags: '--restart-condition <condition>',
    description: 'none, on-failure or any (default any)',
    apply: (spec, value, what) =>
      withRestart(spec, { Condition: parseChoice(value, what, ['none', 'on-failure', 'any'] as const) }),
  },
  {
    flags: '--restart-delay <duration>',
    description: 'time before a restart (default 5s)',
    apply: (spec, value, what) => withRestart(spec, { Delay: parseDuration(value, what) }),
  },
  {
    flags: '--restart-max-attempts <count>',
    description: 'most restarts',
    apply: (spec, value, what) => withRestart(spec, { MaxAttempts: parseCount(value, what) }),
  },
  {
    flags: '--restart-window <duration>',
    description: 'time over which restarts are counted',
    apply: (spec, value, what) => withRestart(spec, { Window: parseDuration(value, what) }),
  },
];

/** Every flag with one value that means the same when a service is made and when it is changed. */
export const scalarFlags: readonly ScalarFlag[] = [
  { flags: '--replicas <count>', description: 'number of tasks; of a job: of completions', apply: replicas },
  {
    flags: '--max-concurrent <count>',
    description: "most of a job's tasks at a time (default: as many as --replicas)",
    apply: maxConcurrent,
  },
  ...containerFlags,
  ...healthFlags,
  ...resourceFlags,
  ...restartFlags,
  ...rolloutFlags('update', 'UpdateConfig', ['pause', 'continue', 'rollback']),
  ...rolloutFlags('rollback', 'RollbackConfig', ['pause', 'continue']),
  {
    flags: '--log-driver <driver>',
    description: "driver that keeps its containers' output",
    apply: (spec, value) => withTask(spec, { LogDriver: { ...spec.TaskTemplate.LogDriver, Name: value } }),
  },
  {
    flags: '--endpoint-mode <mode>',
    description: 'vip or dnsrr (default vip)',
    apply: (spec, value, what) => ({
      ...spec,
      EndpointSpec: { ...spec.EndpointSpec, Mode: parseChoice(value, what, ['vip', 'dnsrr'] as const) },
    }),
  },
];

/** Every switch that means the same when a service is made and when it is changed. */
export const switchFlags: readonly SwitchFlag[] = [
  {
    flags: '-t, --tty',
    description: 'give it a terminal',
    apply: (spec, on) => withContainer(spec, { TTY: on }),
  },
  {
    flags: '--read-only',
    description: 'make its root file system read-only',
    apply: (spec, on) => withContainer(spec, { ReadOnly: on }),
  },
  {
    flags: '--init',
    description: 'run an init inside it that reaps processes',
    apply: (spec, on) => withContainer(spec, { Init: on }),
  },
  {
    flags: '--no-healthcheck',
    description: "switch the image's health check off",
    apply: (spec, on) => withContainer(spec, { Healthcheck: on ? { Test: ['NONE'] } : withoutNone(spec) }),
  },
];

/** Flags of docker's that both commands refuse by name. */
export const refusedFlags: readonly string[] = ['--credential-spec <spec>'];

/** Lines of an env file as KEY=value; comments and empty lines are left out. */
export function parseEnvFile(text: string, environment: Record<string, string | undefined>): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .flatMap((line) => envEntry(line, environment));
}

/** `KEY=value` as it is; a bare `KEY` takes its value from the environment, and is left out when it has none. */
export function envEntry(text: string, environment: Record<string, string | undefined>): string[] {
  if (text.includes('=')) return [text];
  const value = environment[text];
  return value === undefined ? [] : [`${text}=${value}`];
}
