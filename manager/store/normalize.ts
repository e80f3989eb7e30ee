/**
 * What two service specs mean, compared: defaults written out, empty values left out. Clients write the
 * same service in many ways (`null`, an empty list, a default spelled out or left to the daemon), and a
 * deploy of a file that has not changed must change nothing.
 */
import type { ServiceMode, ServiceSpec } from '../../proto/docker.ts';

/** Maps whose keys are the user's: an empty value in them is a value. */
const userMaps = new Set(['Labels', 'Options', 'Sysctls', 'DriverOpts']);

/** Fields in which a zero says "not set", as Docker reads them. */
const zeroIsUnset = new Set([
  'NanoCPUs',
  'MemoryBytes',
  'Pids',
  'ForceUpdate',
  'MaxReplicas',
  'MaxAttempts',
  'Window',
  'MaxFailureRatio',
  'PublishedPort',
  'Interval',
  'Timeout',
  'StartPeriod',
  'StartInterval',
  'Retries',
  'OomScoreAdj',
  'SizeBytes',
]);

/** Fields in which false and "not set" differ: the daemon's own default may be true. */
const falseIsAValue = new Set(['Init']);

const defaultUpdateConfig = { Parallelism: 1, FailureAction: 'pause', Monitor: 5e9, Order: 'stop-first' };
const defaultRestartPolicy = { Condition: 'any', Delay: 5e9 };

/**
 * The spec as it is stored: networks named in the place that Docker deprecated stand in the task template too,
 * where everything looks for them. The template's own come first, and then the others say nothing.
 */
export function acceptedSpec(spec: ServiceSpec): ServiceSpec {
  const { Networks, ...rest } = spec;
  if (Networks === undefined) return spec;
  const own = spec.TaskTemplate.Networks ?? [];
  if (Networks.length === 0 || (own.length > 0 && !sameValue(own, Networks))) return rest;
  return own.length > 0 ? spec : { ...spec, TaskTemplate: { ...spec.TaskTemplate, Networks } };
}

/** Whether two specs ask for the same service. */
export function sameServiceSpec(a: ServiceSpec, b: ServiceSpec): boolean {
  return sameValue(canonicalServiceSpec(a), canonicalServiceSpec(b));
}

/** A spec with its defaults written out and its empty values left out: for comparison, not for storing. */
export function canonicalServiceSpec(spec: ServiceSpec): unknown {
  const { Networks: _inTemplate, ...accepted } = acceptedSpec(spec);
  const task = accepted.TaskTemplate;
  const ports = (accepted.EndpointSpec?.Ports ?? []).map((port) => ({
    ...port,
    Protocol: port.Protocol ?? 'tcp',
    PublishMode: port.PublishMode ?? 'ingress',
  }));
  const { Isolation, ...container } = task.ContainerSpec;
  return withoutEmpty({
    ...accepted,
    Mode: canonicalMode(accepted.Mode),
    UpdateConfig: canonicalUpdateConfig(accepted.UpdateConfig),
    RollbackConfig: canonicalUpdateConfig(accepted.RollbackConfig),
    EndpointSpec: { Mode: accepted.EndpointSpec?.Mode ?? 'vip', Ports: ports },
    TaskTemplate: {
      ...task,
      ContainerSpec: { ...container, Isolation: Isolation === 'default' ? undefined : Isolation },
      Runtime: task.Runtime || 'container',
      RestartPolicy: { ...defaultRestartPolicy, ...defined(task.RestartPolicy) },
    },
  });
}

/** The mode's name and its numbers: a mode is told by its key, which may hold an empty object. */
function canonicalMode(mode: ServiceMode): unknown {
  if (mode.Global) return { Name: 'global' };
  if (mode.GlobalJob) return { Name: 'global-job' };
  if (mode.ReplicatedJob) {
    const { MaxConcurrent = 1, TotalCompletions = MaxConcurrent } = mode.ReplicatedJob;
    return { Name: 'replicated-job', MaxConcurrent, TotalCompletions };
  }
  return { Name: 'replicated', Replicas: mode.Replicated?.Replicas ?? 1 };
}

function canonicalUpdateConfig(config: ServiceSpec['UpdateConfig']): unknown {
  const { Delay, Monitor, ...rest } = defined(config) as Partial<NonNullable<ServiceSpec['UpdateConfig']>>;
  return {
    ...defaultUpdateConfig,
    ...rest,
    ...(Delay ? { Delay } : {}),
    Monitor: Monitor || defaultUpdateConfig.Monitor,
  };
}

function defined(value: object | undefined): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(value ?? {}).filter(([, field]) => field !== undefined && field !== null && field !== ''),
  );
}

/** Equality of plain data, blind to the order of keys and to fields that are undefined. */
export function sameValue(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a) || Array.isArray(b)) {
    if (!Array.isArray(a) || !Array.isArray(b) || a.length !== b.length) return false;
    return a.every((item, index) => sameValue(item, b[index]));
  }
  const left = a as Record<string, unknown>;
  const right = b as Record<string, unknown>;
  const keys = new Set([...Object.keys(left), ...Object.keys(right)]);
  return [...keys].every((key) => sameValue(left[key], right[key]));
}

/** A structure without what says nothing; undefined when nothing is left. */
function withoutEmpty(value: unknown, key = ''): unknown {
  if (value === null || value === undefined || value === '') return undefined;
  if (value === false) return falseIsAValue.has(key) ? value : undefined;
  if (value === 0) return zeroIsUnset.has(key) ? undefined : value;
  if (typeof value !== 'object') return value;
  if (Array.isArray(value)) {
    return value.length === 0
      ? undefined
      : value.map((item) => (typeof item === 'object' ? withoutEmpty(item) : item));
  }
  const isUserMap = userMaps.has(key);
  const entries = Object.entries(value)
    .map(([name, field]) => [name, isUserMap ? field : withoutEmpty(field, name)] as const)
    .filter(([, field]) => field !== undefined);
  return entries.length === 0 ? undefined : Object.fromEntries(entries);
}
