/**
 * The shape of a service spec in a request: every field that the Docker Engine API 1.41 to 1.51 knows.
 * What the fields mean together is checked in validate.ts.
 */
import { z } from 'zod';
import type { ContainerSpec, HealthConfig, ServiceMode, ServiceSpec } from '../../proto/docker.ts';
import {
  check,
  count,
  driver,
  flag,
  integer,
  isZero,
  labels,
  map,
  oneOf,
  optionalCount,
  optionalText,
  text,
  texts,
  without,
} from './fields.ts';

/** Docker's own services know no mounts of images either. */
const mountType = oneOf(['bind', 'volume', 'tmpfs', 'npipe', 'cluster'], 'volume');

const mount = z.strictObject({
  Type: mountType,
  Source: optionalText,
  Target: text.min(1, 'a mount needs a target'),
  ReadOnly: flag,
  Consistency: optionalText,
  BindOptions: z
    .strictObject({
      Propagation: oneOf(['private', 'rprivate', 'shared', 'rshared', 'slave', 'rslave']),
      NonRecursive: flag,
      CreateMountpoint: flag,
      ReadOnlyNonRecursive: flag,
      ReadOnlyForceRecursive: flag,
    })
    .optional(),
  VolumeOptions: z
    .strictObject({ NoCopy: flag, Labels: map, Subpath: optionalText, DriverConfig: driver })
    .optional(),
  ImageOptions: without('services have no image mounts: put the files into a volume or the image'),
  TmpfsOptions: z
    .strictObject({
      SizeBytes: optionalCount,
      Mode: optionalCount,
      Options: z.array(z.array(text).min(1).max(2)).optional(),
    })
    .optional(),
  ClusterOptions: without('cluster volumes (CSI) are not supported by Shoal'),
});

const privileges = z
  .strictObject({
    CredentialSpec: without('credential specs are for Windows containers, which Shoal does not run'),
    SELinuxContext: z
      .strictObject({
        Disable: flag,
        User: optionalText,
        Role: optionalText,
        Type: optionalText,
        Level: optionalText,
      })
      .optional(),
    Seccomp: z
      .strictObject({ Mode: oneOf(['default', 'unconfined', 'custom']), Profile: optionalText })
      .optional(),
    AppArmor: z.strictObject({ Mode: oneOf(['default', 'disabled']) }).optional(),
    NoNewPrivileges: flag,
  })
  .optional();

const healthcheck = z
  .strictObject({
    Test: texts,
    Interval: integer,
    Timeout: integer,
    StartPeriod: integer,
    StartInterval: integer,
    Retries: integer,
  })
  .optional();

/** What a secret or config becomes in the container. */
const fileTarget = z
  .strictObject({
    Name: text,
    UID: text.optional().default('0'),
    GID: text.optional().default('0'),
    Mode: count.optional().default(0o444),
  })
  .optional();

const secretReference = z.strictObject({
  File: fileTarget,
  SecretID: optionalText.default(''),
  SecretName: optionalText.default(''),
});

const configReference = z.strictObject({
  File: fileTarget,
  Runtime: z
    .custom((value) => value === undefined, {
      message: 'configs for the container runtime (credential specs) are not supported by Shoal',
      params: { code: 'not-supported' },
    })
    .optional(),
  ConfigID: optionalText.default(''),
  ConfigName: optionalText.default(''),
});

const containerSpec = z.strictObject({
  // Docker's published definition writes HealthCheck, its own clients Healthcheck; it reads both.
  HealthCheck: healthcheck,
  Image: optionalText.default(''),
  Labels: map,
  Command: texts,
  Args: texts,
  Hostname: optionalText,
  Env: texts,
  Dir: optionalText,
  User: optionalText,
  Groups: texts,
  Privileges: privileges,
  TTY: flag,
  OpenStdin: flag,
  ReadOnly: flag,
  Mounts: z.array(mount).optional(),
  StopSignal: optionalText,
  StopGracePeriod: optionalCount,
  Healthcheck: healthcheck,
  Hosts: texts,
  DNSConfig: z.strictObject({ Nameservers: texts, Search: texts, Options: texts }).optional(),
  Secrets: z.array(secretReference).optional(),
  Configs: z.array(configReference).optional(),
  Isolation: z
    .custom((value) => isZero(value) || value === 'default', {
      message: 'isolation other than "default" is for Windows containers, which Shoal does not run',
      params: { code: 'not-supported' },
    })
    .transform(() => 'default')
    .optional()
    .default('default'),
  Init: flag,
  Sysctls: map,
  CapabilityAdd: texts,
  CapabilityDrop: texts,
  Ulimits: z.array(z.strictObject({ Name: text, Hard: z.int(), Soft: z.int() })).optional(),
  OomScoreAdj: integer,
});

const genericResource = z.strictObject({
  NamedResourceSpec: z.strictObject({ Kind: text, Value: text }).optional(),
  DiscreteResourceSpec: z.strictObject({ Kind: text, Value: z.int() }).optional(),
});

const resources = z
  .strictObject({
    Limits: z
      .strictObject({ NanoCPUs: optionalCount, MemoryBytes: optionalCount, Pids: optionalCount })
      .optional(),
    Reservations: z
      .strictObject({
        NanoCPUs: optionalCount,
        MemoryBytes: optionalCount,
        GenericResources: z.array(genericResource).optional(),
      })
      .optional(),
    SwapBytes: z.int().min(-1).optional(),
    MemorySwappiness: z.int().min(-1).max(100).optional(),
  })
  .optional();

const placement = z
  .strictObject({
    Constraints: texts,
    Preferences: z
      .array(z.strictObject({ Spread: z.strictObject({ SpreadDescriptor: text.min(1) }) }))
      .optional(),
    MaxReplicas: optionalCount,
    Platforms: z
      .array(z.strictObject({ Architecture: optionalText.default(''), OS: optionalText.default('') }))
      .optional(),
  })
  .optional();

const networkAttachments = z
  .array(z.strictObject({ Target: text.min(1), Aliases: texts, DriverOpts: map }))
  .optional();

const taskTemplate = z.strictObject({
  ContainerSpec: containerSpec.prefault({} as never),
  PluginSpec: without('plugins as services are not supported by Shoal'),
  NetworkAttachmentSpec: without('is made by the engine itself, not by a client'),
  Resources: resources,
  RestartPolicy: z
    .strictObject({
      Condition: oneOf(['none', 'on-failure', 'any']),
      Delay: integer,
      MaxAttempts: optionalCount,
      Window: integer,
    })
    .optional(),
  Placement: placement,
  Networks: networkAttachments,
  LogDriver: driver,
  ForceUpdate: count.optional().default(0),
  Runtime: z
    .custom((value) => isZero(value) || value === 'container', {
      message: 'Shoal runs containers only: leave Runtime out, or set it to "container"',
      params: { code: 'not-supported' },
    })
    .transform(() => 'container')
    .optional()
    .default('container'),
});

const mode = z
  .strictObject({
    Replicated: z.strictObject({ Replicas: optionalCount }).optional(),
    Global: z.strictObject({}).optional(),
    ReplicatedJob: z
      .strictObject({ MaxConcurrent: optionalCount, TotalCompletions: optionalCount })
      .optional(),
    GlobalJob: z.strictObject({}).optional(),
  })
  .optional()
  .default({});

function updateConfig(actions: readonly string[]) {
  return z
    .strictObject({
      Parallelism: count.optional().default(0),
      Delay: integer,
      FailureAction: oneOf(actions, 'pause'),
      Monitor: integer,
      MaxFailureRatio: z.number().optional().default(0),
      Order: oneOf(['stop-first', 'start-first'], 'stop-first'),
    })
    .optional();
}

const port = z.strictObject({
  Name: optionalText,
  Protocol: oneOf(['tcp', 'udp', 'sctp'], 'tcp'),
  TargetPort: count.max(65_535).optional().default(0),
  PublishedPort: count.max(65_535).optional(),
  PublishMode: oneOf(['ingress', 'host'], 'ingress'),
});

const serviceSpec = z.strictObject({
  Name: optionalText.default(''),
  Labels: labels,
  TaskTemplate: taskTemplate.prefault({} as never),
  Mode: mode,
  UpdateConfig: updateConfig(['pause', 'continue', 'rollback']),
  RollbackConfig: updateConfig(['pause', 'continue']),
  Networks: networkAttachments,
  EndpointSpec: z
    .strictObject({
      Mode: oneOf(['vip', 'dnsrr'], 'vip'),
      Ports: z.array(port).optional(),
      // The name of Ports in a draft of Docker's API; clients that still send it are warned.
      ExposedPorts: z
        .unknown()
        .transform(() => undefined)
        .optional(),
    })
    .optional(),
});

/** Reads a service spec. Throws ShoalError naming the field that is wrong, unknown or not supported. */
export function readServiceSpec(body: unknown, what = 'ServiceSpec'): ServiceSpec {
  const spec = withOneHealthcheck(check<ServiceSpec>(serviceSpec, body, what));
  return { ...spec, Mode: modeOf(spec.Mode) };
}

/** A mode with its numbers written out, as Docker stores it: one task unless it says otherwise. */
function modeOf(mode: ServiceMode): ServiceMode {
  if (Object.keys(mode).length === 0 || mode.Replicated) {
    return { ...mode, Replicated: { Replicas: 1, ...mode.Replicated } };
  }
  if (!mode.ReplicatedJob) return mode;
  const { MaxConcurrent = 1, TotalCompletions = MaxConcurrent } = mode.ReplicatedJob;
  return { ...mode, ReplicatedJob: { MaxConcurrent, TotalCompletions } };
}

function withOneHealthcheck(spec: ServiceSpec): ServiceSpec {
  const { TaskTemplate } = spec;
  const { HealthCheck, ...ContainerSpec } = TaskTemplate.ContainerSpec as ContainerSpec & {
    HealthCheck?: HealthConfig;
  };
  if (!HealthCheck) return spec;
  return {
    ...spec,
    TaskTemplate: { ...TaskTemplate, ContainerSpec: { Healthcheck: HealthCheck, ...ContainerSpec } },
  };
}
