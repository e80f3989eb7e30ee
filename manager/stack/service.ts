/** A service of a compose file as the service spec that `docker stack deploy` makes of it. */
import type {
  ContainerSpec,
  FileTarget,
  HealthConfig,
  Mount,
  NetworkAttachmentConfig,
  ServiceSpec,
  TaskSpec,
} from '../../proto/docker.ts';
import { asId } from '../../proto/ids.ts';
import { dependencyConditions, formatDependencies, optionLabel } from '../store/service-options.ts';
import { endpointOf, modeOf, placementOf, resourcesOf, restartOf, updateConfigOf } from './deploy.ts';
import { type ComposeMount, parseShortMount, parseTmpfs } from './mount.ts';
import { privilegeLabels } from './privileges.ts';
import { BadValue, parseDuration, splitWords } from './quantity.ts';
import { type ComposeService, ignoredServiceKeys } from './schema.ts';
import { present, type Scope, some } from './scope.ts';
import type { Path } from './tree.ts';

/** The label by which Docker knows which image a stack's file asked for. */
const imageLabel = 'com.docker.stack.image';

const engineNetworks = new Set(['host', 'none', 'bridge', 'default']);

/** The spec of service `key`. Networks, secrets and configs are named, not yet resolved to ids. */
export function serviceSpecOf(scope: Scope, key: string, service: ComposeService): ServiceSpec {
  const path: Path = ['services', key];
  const deployPath = [...path, 'deploy'];
  const { deploy } = service;
  for (const ignored of ignoredServiceKeys) {
    if (service[ignored] !== undefined) scope.warn([...path, ignored], ignoredMessage(ignored));
  }
  if (!service.image) scope.error(path, `no image: a stack does not build, name one under ${key}.image`);
  const task = present<TaskSpec>({
    ContainerSpec: containerOf(scope, path, service),
    Resources: resourcesOf(scope, deployPath, deploy),
    RestartPolicy: restartOf(scope, path, service),
    Placement: placementOf(scope, deployPath, deploy),
    Networks: networksOf(scope, key, service),
    LogDriver:
      service.logging && present({ Name: service.logging.driver ?? '', Options: service.logging.options }),
  });
  const spec = present<ServiceSpec>({
    Name: `${scope.stackName}_${key}`,
    Labels: scope.labels({
      ...deploy?.labels,
      ...dependencyLabel(scope, path, service),
      ...privilegeLabels(scope, path, service),
      [imageLabel]: service.image ?? '',
    }),
    TaskTemplate: task,
    Mode: modeOf(scope, deployPath, deploy),
    UpdateConfig: updateConfigOf(scope, [...deployPath, 'update_config'], deploy?.update_config),
    RollbackConfig: updateConfigOf(scope, [...deployPath, 'rollback_config'], deploy?.rollback_config),
    EndpointSpec: endpointOf(scope, path, service),
  });
  scope.remember('service', spec.Name, path);
  return spec;
}

/** What the service waits for, as the option of services that says so. */
function dependencyLabel(scope: Scope, path: Path, service: ComposeService): Record<string, string> {
  const at = [...path, 'depends_on'];
  const given = service.depends_on ?? [];
  type Conditions = Exclude<NonNullable<ComposeService['depends_on']>, string[]>;
  const entries = Object.entries(
    Array.isArray(given) ? (Object.fromEntries(given.map((name) => [name, {}])) as Conditions) : given,
  );
  if (entries.length === 0) return {};
  const label = optionLabel('dependsOn');
  if (service.deploy?.labels?.[label] !== undefined) {
    scope.error(at, `says the same as the label ${label} under deploy.labels: keep one of the two`);
  }
  const dependencies = entries.flatMap(([name, { condition = 'service_started', required, restart }]) => {
    const known = dependencyConditions.find((one) => one === condition);
    if (known === undefined) {
      scope.error([...at, name, 'condition'], `must be one of ${dependencyConditions.join(', ')}`);
    }
    if (restart) {
      scope.warn(
        [...at, name, 'restart'],
        `ignored: a service is not restarted because ${name} was; it must connect anew itself`,
      );
    }
    const isThere = scope.file.services?.[name] !== undefined;
    if (!isThere && required !== false) {
      scope.error(at, `undefined service ${JSON.stringify(name)}: define it under services`);
    }
    return isThere && known ? [{ service: name, condition: known }] : [];
  });
  return dependencies.length === 0 ? {} : { [label]: formatDependencies(dependencies) };
}

function ignoredMessage(key: (typeof ignoredServiceKeys)[number]): string {
  switch (key) {
    case 'container_name':
      return 'ignored: setting the container name is not supported, a service may have many containers';
    case 'expose':
      return "ignored: services on the same network can access each other's containers on any port";
    case 'network_mode':
      return "ignored: not supported for services; to join an engine's own network, define it under the top-level networks as external, with name: host";
    case 'build':
      return 'ignored: a stack does not build; push the image first';
    default:
      return 'ignored: not supported for services';
  }
}

function containerOf(scope: Scope, path: Path, service: ComposeService): ContainerSpec {
  const at = (...more: (string | number)[]) => [...path, ...more];
  return present<ContainerSpec>({
    Image: service.image ?? '',
    Labels: scope.labels(service.labels),
    Command: wordsOf(scope, at('entrypoint'), service.entrypoint),
    Args: wordsOf(scope, at('command'), service.command),
    Hostname: service.hostname,
    Env: some(environmentOf(scope, path, service)),
    Dir: service.working_dir,
    User: service.user,
    TTY: service.tty,
    OpenStdin: service.stdin_open,
    ReadOnly: service.read_only,
    Mounts: some(mountsOf(scope, path, service)),
    StopSignal: service.stop_signal,
    StopGracePeriod: scope.given(at('stop_grace_period'), service.stop_grace_period, parseDuration),
    Healthcheck: healthOf(scope, at('healthcheck'), service.healthcheck),
    Hosts: some(hostsOf(scope, path, service)),
    DNSConfig:
      service.dns || service.dns_search
        ? present({ Nameservers: some(service.dns), Search: some(service.dns_search) })
        : undefined,
    Secrets: some(
      filesOf(scope, path, service, 'secrets').map(({ File, name }) => ({
        File,
        SecretID: asId(''),
        SecretName: name,
      })),
    ),
    Configs: some(
      filesOf(scope, path, service, 'configs').map(({ File, name }) => ({
        File,
        ConfigID: asId(''),
        ConfigName: name,
      })),
    ),
    Isolation: service.isolation,
    Init: service.init,
    Sysctls: service.sysctls,
    CapabilityAdd: some(service.cap_add?.map(capability)),
    CapabilityDrop: some(service.cap_drop?.map(capability)),
    Ulimits: some(ulimitsOf(service)),
    OomScoreAdj: service.oom_score_adj,
  });
}

function capability(name: string): string {
  const upper = name.toUpperCase();
  return upper === 'ALL' || upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
}

function wordsOf(scope: Scope, path: Path, command: ComposeService['command']): string[] | undefined {
  if (command === undefined || command === null) return undefined;
  return some(typeof command === 'string' ? scope.attempt(path, () => splitWords(command)) : command);
}

// ---------------------------------------------------------------- environment, hosts

/** `NAME=value`, sorted: from env files in order, then from `environment`, which wins. */
function environmentOf(scope: Scope, path: Path, service: ComposeService): string[] {
  const values = new Map<string, string | null>();
  service.env_file?.forEach((name, index) => {
    const content = scope.read([...path, 'env_file', index], name);
    if (!content) return;
    const read = scope.attempt([...path, 'env_file', index], () =>
      parseEnvFile(name, Buffer.from(content).toString()),
    );
    for (const [key, value] of read ?? []) values.set(key, value);
  });
  for (const [key, value] of Object.entries(service.environment ?? {})) {
    values.set(key, value === null ? null : String(value));
  }
  return [...values]
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    .map(([key, value]) => {
      const known = value ?? (Object.hasOwn(scope.environment, key) ? scope.environment[key] : undefined);
      return known === undefined ? key : `${key}=${known}`;
    });
}

function parseEnvFile(name: string, content: string): [string, string | null][] {
  return content.split('\n').flatMap((raw, index): [string, string | null][] => {
    const line = raw.replace(/\r$/, '').trimStart();
    if (line === '' || line.startsWith('#')) return [];
    const at = line.indexOf('=');
    const key = at < 0 ? line.trimEnd() : line.slice(0, at);
    if (key === '' || /\s/.test(key)) {
      throw new BadValue(`${name}:${index + 1}: ${JSON.stringify(key)} is no name of a variable`);
    }
    return [[key, at < 0 ? null : line.slice(at + 1)]];
  });
}

/** Docker's lines `IP name` of compose's `name:IP`. */
function hostsOf(scope: Scope, path: Path, service: ComposeService): string[] {
  const hosts = service.extra_hosts ?? [];
  if (!Array.isArray(hosts)) return Object.entries(hosts).map(([name, address]) => `${address} ${name}`);
  return hosts.map((host, index) => {
    const [, name, address] = /^([^:=]+)[:=](.+)$/.exec(host) ?? [];
    if (name === undefined)
      scope.error([...path, 'extra_hosts', index], `write name:address, not ${JSON.stringify(host)}`);
    return `${address} ${name}`;
  });
}

function ulimitsOf(service: ComposeService): ContainerSpec['Ulimits'] & object {
  return Object.entries(service.ulimits ?? {})
    .map(([Name, limit]) =>
      typeof limit === 'object'
        ? { Name, Hard: limit.hard, Soft: limit.soft }
        : { Name, Hard: limit, Soft: limit },
    )
    .sort((a, b) => (a.Name < b.Name ? -1 : 1));
}

// ---------------------------------------------------------------- health

function healthOf(scope: Scope, path: Path, health: ComposeService['healthcheck']): HealthConfig | undefined {
  if (!health) return undefined;
  if (health.disable) {
    if (health.test) scope.error(path, 'test and disable cannot be set at the same time');
    return { Test: ['NONE'] };
  }
  const duration = (field: 'interval' | 'timeout' | 'start_period' | 'start_interval') =>
    scope.given([...path, field], health[field], parseDuration);
  const Test = typeof health.test === 'string' ? ['CMD-SHELL', health.test] : some(health.test);
  if (Test && !['NONE', 'CMD', 'CMD-SHELL'].includes(Test[0]!)) {
    scope.error([...path, 'test'], 'as a list it must begin with NONE, CMD or CMD-SHELL');
  }
  return present<HealthConfig>({
    Test,
    Interval: duration('interval'),
    Timeout: duration('timeout'),
    StartPeriod: duration('start_period'),
    StartInterval: duration('start_interval'),
    Retries: health.retries,
  });
}

// ---------------------------------------------------------------- networks, secrets, configs

function networksOf(scope: Scope, key: string, service: ComposeService): NetworkAttachmentConfig[] {
  const joined = Object.entries(service.networks ?? {});
  const entries = joined.length > 0 ? joined : ([['default', {}]] as [string, (typeof joined)[number][1]][]);
  const attachments = entries.map(([name, config]) => {
    const path = ['services', key, 'networks', name];
    const network = scope.file.networks?.[name];
    if (!network && name !== 'default') {
      scope.error(path, `undefined network ${JSON.stringify(name)}: define it under the top-level networks`);
    }
    for (const field of ['ipv4_address', 'ipv6_address'] as const) {
      if (config[field] !== undefined) {
        scope.error(
          [...path, field],
          'a task cannot have a fixed address, it may move or be one of many; reach it by its name and remove this',
        );
      }
    }
    const target = scope.nameOf(name, network);
    const aliases = [...(config.aliases ?? []), ...(engineNetworks.has(target) ? [] : [key])];
    return present<NetworkAttachmentConfig>({
      Target: target,
      Aliases: some([...new Set(aliases)]),
      DriverOpts: config.driver_opts,
    });
  });
  return attachments.sort((a, b) => (a.Target < b.Target ? -1 : a.Target > b.Target ? 1 : 0));
}

interface FileUse {
  readonly name: string;
  readonly File: FileTarget;
}

const readableByAll = 0o444;

/** The secrets or configs that a service's containers see as files, in order of their names. */
function filesOf(scope: Scope, path: Path, service: ComposeService, kind: 'secrets' | 'configs'): FileUse[] {
  const uses = (service[kind] ?? []).map((entry, index): FileUse => {
    const use = typeof entry === 'string' ? { source: entry } : entry;
    const object = scope.file[kind]?.[use.source];
    if (!object) {
      scope.error(
        [...path, kind, index],
        `undefined ${kind.slice(0, -1)} ${JSON.stringify(use.source)}: define it under the top-level ${kind}`,
      );
    }
    return {
      name: scope.nameOf(use.source, object),
      File: {
        Name: use.target ?? use.source,
        UID: use.uid ?? '0',
        GID: use.gid ?? '0',
        Mode: use.mode ?? readableByAll,
      },
    };
  });
  return uses.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

// ---------------------------------------------------------------- mounts

function mountsOf(scope: Scope, path: Path, service: ComposeService): Mount[] {
  const volumes = (service.volumes ?? []).map((entry, index) => {
    const at = [...path, 'volumes', index];
    const mount = typeof entry === 'string' ? scope.attempt(at, () => parseShortMount(entry)) : entry;
    return mount && mountOf(scope, at, mount);
  });
  const temporary = (service.tmpfs ?? []).map((entry, index) =>
    scope.attempt([...path, 'tmpfs', index], () => parseTmpfs(entry)),
  );
  return [...volumes, ...temporary].filter((mount) => mount !== undefined);
}

function mountOf(scope: Scope, path: Path, mount: ComposeMount): Mount {
  const common = { Target: mount.target, ReadOnly: mount.read_only, Consistency: mount.consistency };
  const misplaced = (['bind', 'volume', 'tmpfs'] as const).find((part) => part !== mount.type && mount[part]);
  if (misplaced) scope.error([...path, misplaced], `does not go with a mount of type ${mount.type}`);
  switch (mount.type) {
    case 'bind':
      return present<Mount>({
        Type: 'bind',
        Source: bindSource(scope, path, mount),
        ...common,
        BindOptions:
          mount.bind &&
          present({
            Propagation: mount.bind.propagation,
            CreateMountpoint: mount.bind.create_host_path,
            NonRecursive: mount.bind.recursive === 'disabled' || undefined,
            ReadOnlyNonRecursive: mount.bind.recursive === 'writable' || undefined,
            ReadOnlyForceRecursive: mount.bind.recursive === 'readonly' || undefined,
          }),
      });
    case 'tmpfs':
      if (mount.source) scope.error(path, 'a mount of type tmpfs has no source');
      return present<Mount>({
        Type: 'tmpfs',
        ...common,
        TmpfsOptions: mount.tmpfs && present({ SizeBytes: mount.tmpfs.size, Mode: mount.tmpfs.mode }),
      });
    case 'volume':
      return volumeMount(scope, path, mount, present<Mount>({ Type: 'volume', ...common }));
    default:
      scope.refuse(path, `mounts of type ${mount.type} are not supported by Shoal`);
      return present<Mount>({ Type: mount.type, Source: mount.source, ...common });
  }
}

function bindSource(scope: Scope, path: Path, mount: ComposeMount): string {
  if (!mount.source) {
    scope.error(path, 'a mount of type bind needs a source');
    return '';
  }
  const source = scope.resolve(mount.source);
  if (!source.startsWith('/')) {
    scope.error(
      path,
      `the source ${mount.source} must be an absolute path: the folder of the compose file is not known here`,
    );
  }
  return source;
}

function volumeMount(scope: Scope, path: Path, mount: ComposeMount, base: Mount): Mount {
  const own = present<NonNullable<Mount['VolumeOptions']>>({
    NoCopy: mount.volume?.nocopy,
    Subpath: mount.volume?.subpath,
  });
  const withOptions = (Source: string | undefined, options: NonNullable<Mount['VolumeOptions']>) =>
    present<Mount>({ ...base, Source, VolumeOptions: Object.keys(options).length > 0 ? options : undefined });
  if (!mount.source) return withOptions(undefined, own);
  const volume = scope.file.volumes?.[mount.source];
  if (!volume) {
    scope.error(
      path,
      `undefined volume ${JSON.stringify(mount.source)}: define it under the top-level volumes`,
    );
    return withOptions(mount.source, own);
  }
  const name = scope.nameOf(mount.source, volume);
  if (volume.external?.is) return withOptions(name, own);
  const driver =
    volume.driver || volume.driver_opts
      ? present<NonNullable<NonNullable<Mount['VolumeOptions']>['DriverConfig']>>({
          Name: volume.driver ?? '',
          Options: volume.driver_opts,
        })
      : undefined;
  return withOptions(
    name,
    present<NonNullable<Mount['VolumeOptions']>>({
      ...own,
      Labels: scope.labels(volume.labels),
      DriverConfig: driver,
    }),
  );
}
