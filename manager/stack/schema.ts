/**
 * The shapes of a compose file, as `docker stack deploy` takes them, once it is in canonical form (see
 * merge.ts). A key that is not here is refused; keys that begin with `x-` are anyone's.
 */
import { z } from 'zod';

type Shape = Record<string, z.ZodType>;

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function withoutExtensions(value: unknown): unknown {
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).filter(([name]) => !name.startsWith('x-')));
}

/** A map with these keys and no others. */
function shape<S extends Shape>(fields: S) {
  return z.preprocess(withoutExtensions, z.strictObject(fields));
}

/** As shape, where nothing after the colon means that all is left to its default. */
function shapeOrNothing<S extends Shape>(fields: S) {
  return z.preprocess((value) => withoutExtensions(value ?? {}), z.strictObject(fields));
}

/** A map in the long form, anything else in the short one. Unlike a union it tells what is wrong inside. */
function shortOrLong<A extends z.ZodType, B extends z.ZodType>(short: A, long: B) {
  return z.unknown().transform((value, context): z.output<A> | z.output<B> => {
    const result = (isObject(value) ? long : short).safeParse(value);
    if (result.success) return result.data as z.output<A> | z.output<B>;
    for (const issue of result.error.issues)
      context.issues.push({ ...issue, input: value } as (typeof context.issues)[number]);
    return z.NEVER;
  });
}

const text = z.string();
/** Text, where a number is as good: `cpus: 0.5`, `published: 8080`. */
const textOrNumber = z
  .union([z.string(), z.number()], { error: 'must be a string or a number' })
  .transform(String);
const boolean = z
  .union([z.boolean(), z.literal('true'), z.literal('false')], { error: 'must be true or false' })
  .transform((value) => value === true || value === 'true');
const number = z
  .union([z.number(), z.string().regex(/^\d+(\.\d+)?$/, { error: 'must be a number' })], {
    error: 'must be a number',
  })
  .transform(Number);
const integer = z
  .union([z.int(), z.string().regex(/^\d+$/, { error: 'must be a whole number' })], {
    error: 'must be a whole number',
  })
  .transform(Number)
  .refine((value) => value >= 0, { error: 'must not be negative' });
/** A number of bytes or a size with a unit. */
const size = textOrNumber;
const textList = z.array(text);
const command = z.union(
  [z.string(), z.null(), z.array(z.union([z.string(), z.number()]).transform(String))],
  {
    error: 'must be a string or a list of strings',
  },
);
const assignments = z.record(
  z.string(),
  z.union([z.string(), z.number(), z.null()], {
    error: 'must be a string, a number or empty; true and false need quotes',
  }),
);
const options = z.record(
  z.string(),
  z
    .union([z.string(), z.number(), z.boolean(), z.null()], { error: 'must be a string or a number' })
    .transform((value) => String(value ?? '')),
);
const labels = assignments.transform(
  (map): Record<string, string> =>
    Object.fromEntries(Object.entries(map).map(([name, value]) => [name, String(value ?? '')])),
);
const anything = z.unknown();

// ---------------------------------------------------------------- deploy

const updateShape = {
  parallelism: integer.optional(),
  delay: text.optional(),
  failure_action: z.enum(['continue', 'pause', 'rollback']).optional(),
  monitor: text.optional(),
  max_failure_ratio: number.optional(),
  order: z.enum(['start-first', 'stop-first']).optional(),
};

const genericResource = shape({ discrete_resource_spec: shape({ kind: text, value: integer }).optional() });

const reservedDevice = shape({
  capabilities: textList,
  count: z.union([integer, z.literal('all')], { error: 'must be a whole number' }).optional(),
  device_ids: textList.optional(),
  driver: text.optional(),
});

const deployShape = {
  mode: z.enum(['replicated', 'global', 'replicated-job', 'global-job']).optional(),
  endpoint_mode: z.enum(['vip', 'dnsrr']).optional(),
  replicas: integer.optional(),
  labels: labels.optional(),
  update_config: shape(updateShape).optional(),
  rollback_config: shape(updateShape).optional(),
  resources: shape({
    limits: shape({
      cpus: textOrNumber.optional(),
      memory: size.optional(),
      pids: integer.optional(),
    }).optional(),
    reservations: shape({
      cpus: textOrNumber.optional(),
      memory: size.optional(),
      generic_resources: z.array(genericResource).optional(),
      devices: z.array(reservedDevice).optional(),
    }).optional(),
  }).optional(),
  restart_policy: shape({
    condition: z.enum(['none', 'on-failure', 'any']).optional(),
    delay: text.optional(),
    max_attempts: integer.optional(),
    window: text.optional(),
  }).optional(),
  placement: shape({
    constraints: textList.optional(),
    preferences: z.array(shape({ spread: text })).optional(),
    max_replicas_per_node: integer.optional(),
  }).optional(),
};

// ---------------------------------------------------------------- service

const portShape = shape({
  name: text.optional(),
  mode: z.enum(['host', 'ingress']).optional(),
  target: integer,
  published: integer.optional(),
  protocol: z.enum(['tcp', 'udp', 'sctp']).optional(),
});

const mountShape = shape({
  type: z.enum(['bind', 'volume', 'tmpfs', 'npipe', 'cluster']),
  source: text.optional(),
  target: text,
  read_only: boolean.optional(),
  consistency: text.optional(),
  bind: shape({
    propagation: text.optional(),
    create_host_path: boolean.optional(),
    recursive: z.enum(['enabled', 'disabled', 'writable', 'readonly']).optional(),
  }).optional(),
  volume: shape({ nocopy: boolean.optional(), subpath: text.optional() }).optional(),
  tmpfs: shape({ size: integer.optional(), mode: integer.optional() }).optional(),
  cluster: anything.optional(),
});

const fileReference = shortOrLong(
  text,
  shape({
    source: text,
    target: text.optional(),
    uid: textOrNumber.optional(),
    gid: textOrNumber.optional(),
    mode: integer.optional(),
  }),
);

const serviceNetwork = shapeOrNothing({
  aliases: textList.optional(),
  driver_opts: options.optional(),
  ipv4_address: text.optional(),
  ipv6_address: text.optional(),
});

/** Keys of `docker run` that a service has nothing of; Docker ignores them with a word, and so do we. */
export const ignoredServiceKeys = [
  'build',
  'cgroup_parent',
  'cgroupns_mode',
  'container_name',
  'domainname',
  'expose',
  'external_links',
  'links',
  'mac_address',
  'network_mode',
  'userns_mode',
] as const;

/** Keys that Docker refuses, and what to write instead. */
export const refusedServiceKeys: Readonly<Record<string, string>> = {
  cpu_quota: 'set deploy.resources.limits.cpus',
  cpu_shares: 'set deploy.resources.reservations.cpus',
  cpus: 'set deploy.resources.limits.cpus',
  cpuset: 'set deploy.resources.limits.cpus',
  credential_spec: 'Shoal runs Linux containers only; remove it',
  extends: 'stacks do not support it; write the keys out, or share them by a YAML anchor',
  mem_limit: 'set deploy.resources.limits.memory',
  mem_reservation: 'set deploy.resources.reservations.memory',
  memswap_limit: 'set deploy.resources.limits.memory',
  pids_limit: 'set deploy.resources.limits.pids',
  profiles: 'stacks do not support it; keep the service in a file of its own',
  scale: 'set deploy.replicas',
  volume_driver: 'name the driver under the top-level volumes',
  volumes_from: 'define a volume under the top-level volumes and mount it in both services',
};

const dependency = shapeOrNothing({
  condition: text.optional(),
  required: boolean.optional(),
  restart: boolean.optional(),
});

const serviceShape = {
  ...(Object.fromEntries(ignoredServiceKeys.map((name) => [name, anything.optional()])) as Record<
    (typeof ignoredServiceKeys)[number],
    z.ZodOptional<z.ZodUnknown>
  >),
  cap_add: textList.optional(),
  cap_drop: textList.optional(),
  command: command.optional(),
  configs: z.array(fileReference).optional(),
  devices: textList.optional(),
  ipc: text.optional(),
  pid: text.optional(),
  privileged: boolean.optional(),
  security_opt: textList.optional(),
  shm_size: z.union([text, z.number()], { error: 'must be a size, such as 64m' }).optional(),
  depends_on: z
    .union([textList, z.record(z.string(), dependency)], {
      error: 'must be a list of services, or a map of services to conditions',
    })
    .optional(),
  deploy: shape(deployShape).optional(),
  dns: textList.optional(),
  dns_search: textList.optional(),
  entrypoint: command.optional(),
  env_file: textList.optional(),
  environment: assignments.optional(),
  extra_hosts: z
    .union([textList, z.record(z.string(), z.string())], { error: 'must be a list or a map of strings' })
    .optional(),
  healthcheck: shape({
    disable: boolean.optional(),
    interval: text.optional(),
    retries: integer.optional(),
    start_interval: text.optional(),
    start_period: text.optional(),
    test: z.union([text, textList], { error: 'must be a string or a list of strings' }).optional(),
    timeout: text.optional(),
  }).optional(),
  hostname: text.optional(),
  image: text.optional(),
  init: boolean.optional(),
  isolation: text.optional(),
  labels: labels.optional(),
  logging: shape({ driver: text.optional(), options: options.optional() }).optional(),
  networks: z.record(z.string(), serviceNetwork).optional(),
  oom_score_adj: z.int().optional(),
  ports: z.array(shortOrLong(textOrNumber, portShape)).optional(),
  read_only: boolean.optional(),
  restart: text.optional(),
  secrets: z.array(fileReference).optional(),
  stdin_open: boolean.optional(),
  stop_grace_period: text.optional(),
  stop_signal: text.optional(),
  sysctls: options.optional(),
  tmpfs: textList.optional(),
  tty: boolean.optional(),
  ulimits: z.record(z.string(), shortOrLong(integer, shape({ soft: integer, hard: integer }))).optional(),
  user: textOrNumber.optional(),
  volumes: z.array(shortOrLong(text, mountShape)).optional(),
  working_dir: text.optional(),
};

// ---------------------------------------------------------------- top level

/** `external: true`, or the older `external: {name: …}`. */
const external = shortOrLong(boolean, shape({ name: text.optional() })).transform((value) =>
  typeof value === 'object' ? { is: true, name: value.name } : { is: value, name: undefined },
);

const networkShape = shapeOrNothing({
  attachable: boolean.optional(),
  driver: text.optional(),
  driver_opts: options.optional(),
  enable_ipv6: boolean.optional(),
  external: external.optional(),
  internal: boolean.optional(),
  ipam: shape({
    driver: text.optional(),
    config: z
      .array(shape({ subnet: text.optional(), gateway: text.optional(), ip_range: text.optional() }))
      .optional(),
    options: options.optional(),
  }).optional(),
  labels: labels.optional(),
  name: text.optional(),
});

const volumeShape = shapeOrNothing({
  driver: text.optional(),
  driver_opts: options.optional(),
  external: external.optional(),
  labels: labels.optional(),
  name: text.optional(),
});

const dataShape = {
  content: text.optional(),
  environment: text.optional(),
  external: external.optional(),
  file: text.optional(),
  labels: labels.optional(),
  name: text.optional(),
  template_driver: text.optional(),
};

const topShape = {
  configs: z.record(z.string(), shapeOrNothing(dataShape)).optional(),
  name: text.optional(),
  networks: z.record(z.string(), networkShape).optional(),
  secrets: z
    .record(
      z.string(),
      shapeOrNothing({ ...dataShape, driver: text.optional(), driver_opts: options.optional() }),
    )
    .optional(),
  services: z.record(z.string(), shape(serviceShape)).optional(),
  version: textOrNumber.optional(),
  volumes: z.record(z.string(), volumeShape).optional(),
};

export const composeFile = shape(topShape);

export type ComposeFile = z.output<typeof composeFile>;
export type ComposeService = NonNullable<ComposeFile['services']>[string];
export type ComposeDeploy = NonNullable<ComposeService['deploy']>;
export type ComposeNetwork = NonNullable<ComposeFile['networks']>[string];
export type ComposeVolume = NonNullable<ComposeFile['volumes']>[string];
export type ComposeSecret = NonNullable<ComposeFile['secrets']>[string];

/** Which keys each part knows: for telling somebody where an unknown one may have been meant. */
export const knownKeys = {
  '': Object.keys(topShape),
  services: Object.keys(serviceShape),
  deploy: Object.keys(deployShape),
  'deploy.update_config': Object.keys(updateShape),
  'deploy.restart_policy': ['condition', 'delay', 'max_attempts', 'window'],
  'deploy.placement': ['constraints', 'preferences', 'max_replicas_per_node'],
  'deploy.resources': ['limits', 'reservations'],
} as const satisfies Record<string, readonly string[]>;
