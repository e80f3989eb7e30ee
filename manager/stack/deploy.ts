/** The `deploy` part of a service, with its published ports: how many tasks, where, and how they change. */
import type {
  EndpointSpec,
  Placement,
  PortConfig,
  RestartPolicy,
  ServiceMode,
  TaskSpec,
  UpdateConfig,
} from '../../proto/docker.ts';
import { messageOf } from '../../proto/errors.ts';
import { parseConstraints } from '../store/constraint.ts';
import { graphicsOf } from './graphics.ts';
import { parseShortPort } from './port.ts';
import { BadValue, parseBytes, parseCpus, parseDuration } from './quantity.ts';
import type { ComposeDeploy, ComposeService } from './schema.ts';
import { present, type Scope, some } from './scope.ts';
import type { Path } from './tree.ts';

export function modeOf(scope: Scope, path: Path, deploy: ComposeDeploy | undefined): ServiceMode {
  const mode = deploy?.mode ?? 'replicated';
  const replicas = deploy?.replicas;
  if (replicas !== undefined && (mode === 'global' || mode === 'global-job')) {
    scope.error([...path, 'replicas'], 'replicas can only be used with replicated or replicated-job mode');
  }
  switch (mode) {
    case 'replicated':
      return { Replicated: { Replicas: replicas ?? 1 } };
    case 'replicated-job':
      return { ReplicatedJob: { MaxConcurrent: replicas ?? 1, TotalCompletions: replicas ?? 1 } };
    case 'global':
      return { Global: {} };
    default:
      return { GlobalJob: {} };
  }
}

type Resources = NonNullable<TaskSpec['Resources']>;

export function resourcesOf(
  scope: Scope,
  path: Path,
  deploy: ComposeDeploy | undefined,
): Resources | undefined {
  const limits = deploy?.resources?.limits;
  const reservations = deploy?.resources?.reservations;
  if (!limits && !reservations) return undefined;
  const at = [...path, 'resources'];
  const cpusAndMemory = (part: 'limits' | 'reservations') => ({
    NanoCPUs: scope.given([...at, part, 'cpus'], deploy?.resources?.[part]?.cpus, parseCpus),
    MemoryBytes: scope.given([...at, part, 'memory'], deploy?.resources?.[part]?.memory, parseBytes),
  });
  const generic = (reservations?.generic_resources ?? []).flatMap((resource) =>
    resource.discrete_resource_spec
      ? [
          {
            DiscreteResourceSpec: {
              Kind: resource.discrete_resource_spec.kind,
              Value: resource.discrete_resource_spec.value,
            },
          },
        ]
      : [],
  );
  const graphics = graphicsOf(scope, path, deploy);
  if (graphics) generic.push({ DiscreteResourceSpec: { Kind: graphics.kind, Value: graphics.count } });
  return present<Resources>({
    Limits: limits && present({ ...cpusAndMemory('limits'), Pids: limits.pids }),
    Reservations:
      reservations && present({ ...cpusAndMemory('reservations'), GenericResources: some(generic) }),
  });
}

/** The restart policy; without one, what `restart` says, as Docker takes it. */
export function restartOf(scope: Scope, path: Path, service: ComposeService): RestartPolicy | undefined {
  const policy = service.deploy?.restart_policy;
  const at = [...path, 'deploy', 'restart_policy'];
  if (policy) {
    return present<RestartPolicy>({
      Condition: policy.condition,
      Delay: scope.given([...at, 'delay'], policy.delay, parseDuration),
      MaxAttempts: policy.max_attempts,
      Window: scope.given([...at, 'window'], policy.window, parseDuration),
    });
  }
  if (service.restart === undefined) return undefined;
  const [name, attempts] = service.restart.split(':');
  const known = ['no', 'always', 'unless-stopped', 'on-failure'];
  if (!known.includes(name!) || (attempts !== undefined && !/^\d+$/.test(attempts))) {
    scope.error(
      [...path, 'restart'],
      `must be one of ${known.join(', ')}, not ${JSON.stringify(service.restart)}`,
    );
    return undefined;
  }
  const effect =
    name === 'no' ? 'has no effect on a service, which is restarted' : 'is read as a restart policy';
  scope.warn([...path, 'restart'], `${effect}; write deploy.restart_policy instead`);
  if (name === 'no') return undefined;
  if (name !== 'on-failure') return { Condition: 'any' };
  return present<RestartPolicy>({
    Condition: 'on-failure',
    MaxAttempts: attempts === undefined ? undefined : Number(attempts),
  });
}

export function placementOf(
  scope: Scope,
  path: Path,
  deploy: ComposeDeploy | undefined,
): Placement | undefined {
  const placement = deploy?.placement;
  if (!placement) return undefined;
  placement.constraints?.forEach((constraint, index) => {
    scope.attempt([...path, 'placement', 'constraints', index], () => checkConstraint(constraint));
  });
  return present<Placement>({
    Constraints: some(placement.constraints),
    Preferences: some(placement.preferences?.map(({ spread }) => ({ Spread: { SpreadDescriptor: spread } }))),
    MaxReplicas: placement.max_replicas_per_node,
  });
}

function checkConstraint(constraint: string): void {
  try {
    parseConstraints([constraint]);
  } catch (error) {
    throw new BadValue(messageOf(error));
  }
}

export function updateConfigOf(
  scope: Scope,
  path: Path,
  config: ComposeDeploy['update_config'],
): UpdateConfig | undefined {
  if (!config) return undefined;
  if ((config.max_failure_ratio ?? 0) > 1) {
    scope.error([...path, 'max_failure_ratio'], 'must be between 0 and 1');
  }
  return present<UpdateConfig>({
    Parallelism: config.parallelism ?? 1,
    Delay: scope.given([...path, 'delay'], config.delay, parseDuration),
    FailureAction: config.failure_action,
    Monitor: scope.given([...path, 'monitor'], config.monitor, parseDuration),
    MaxFailureRatio: config.max_failure_ratio,
    Order: config.order,
  });
}

/** Endpoint mode and ports, the ports in order of what they are published as, as Docker sorts them. */
export function endpointOf(scope: Scope, path: Path, service: ComposeService): EndpointSpec | undefined {
  const ports = (service.ports ?? []).flatMap((port, index) =>
    portsOf(scope, [...path, 'ports', index], port),
  );
  const Mode = service.deploy?.endpoint_mode;
  if (Mode === undefined && ports.length === 0) return undefined;
  const sorted = ports.sort((a, b) => (a.PublishedPort ?? 0) - (b.PublishedPort ?? 0));
  return present<EndpointSpec>({ Mode, Ports: some(sorted) });
}

function portsOf(scope: Scope, path: Path, port: NonNullable<ComposeService['ports']>[number]): PortConfig[] {
  return typeof port === 'string' ? shortPorts(scope, path, port) : [longPort(scope, path, port)];
}

function shortPorts(scope: Scope, path: Path, port: string): PortConfig[] {
  const read = scope.attempt(path, () => parseShortPort(port));
  if (read?.hostIp) {
    scope.warn(path, `ignoring IP-address (${port}) service will listen on '0.0.0.0'`);
  }
  return read?.ports ?? [];
}

type LongPort = Exclude<NonNullable<ComposeService['ports']>[number], string>;

function longPort(scope: Scope, path: Path, port: LongPort): PortConfig {
  for (const field of ['target', 'published'] as const) {
    const value = port[field];
    if (value !== undefined && (value > 65535 || (field === 'target' && value < 1))) {
      scope.error([...path, field], `${value} is no port: ports go from 1 to 65535`);
    }
  }
  return present<PortConfig>({
    Name: port.name,
    Protocol: port.protocol ?? 'tcp',
    TargetPort: port.target,
    PublishedPort: port.published === 0 ? undefined : port.published,
    PublishMode: port.mode ?? 'ingress',
  });
}
