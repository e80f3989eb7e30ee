/**
 * What a spec must hold beyond its shape, and what it names: the rules and words of SwarmKit's control
 * API. A spec that passes is ready to be stored, its networks resolved to ids.
 */
import type {
  ConfigSpec,
  Mount,
  NetworkAttachmentConfig,
  SecretSpec,
  ServiceSpec,
  TaskSpec,
  UpdateConfig,
} from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { ServiceId } from '../../proto/ids.ts';
import { ingressNetwork } from '../store/attachment.ts';
import { checkAutoscale } from '../store/autoscale-options.ts';
import { parseConstraints } from '../store/constraint.ts';
import { withoutNumber } from '../store/data-version.ts';
import { circleOf, describeCircle } from '../store/dependencies.ts';
import { describePortConflict, isIngressPort, needsIngress } from '../store/endpoint.ts';
import { acceptedSpec } from '../store/normalize.ts';
import { privilegesOf, requireGrants } from '../store/privileges.ts';
import { checkOptionsForMode, readServiceOptions, serviceOption } from '../store/service-options.ts';
import type { View } from '../store/store.ts';
import { predefinedNetworks } from './answers.ts';
import { checkDataTemplate, checkDataTemplates, checkSpecTemplates } from './check-templates.ts';
import { lookup } from './lookup.ts';
import { asSwarmError, swarmError } from './request.ts';

const dnsName = /^[a-zA-Z0-9](?:[a-zA-Z0-9_-]*[a-zA-Z0-9])?$/;
const dataName = /^[a-zA-Z0-9](?:[a-zA-Z0-9_.-]*[a-zA-Z0-9])?$/;
const maximumNameLength = 63;
const maximumDataNameLength = 64;
const minimumNanoCpus = 1e6;
const minimumMemoryBytes = 4 * 1024 * 1024;
const minimumDurationNs = 1e6;
const maximumSecretBytes = 500 * 1024;
const maximumConfigBytes = 1000 * 1024;

/** A name, as of services and networks. */
export function checkName(name: string): void {
  if (name === '') throw invalid('meta: name must be provided');
  if (name.length > maximumNameLength) throw invalid('name must be 63 characters or fewer');
  if (!dnsName.test(name)) throw invalid('name must be valid as a DNS name component');
}

export function invalid(message: string): ShoalError {
  return swarmError('invalid-argument', message);
}

// ---------------------------------------------------------------- service

/**
 * Checks a service spec and resolves the networks that it names to their ids. `self` is the service when it exists
 * already. Throws ShoalError.
 */
export function acceptServiceSpec(view: View, spec: ServiceSpec, self?: ServiceId): ServiceSpec {
  const accepted = acceptedSpec(spec);
  checkServiceShape(accepted);
  checkPrivileges(view, accepted);
  checkPublished(view, accepted, self);
  const { TaskTemplate } = accepted;
  checkReferences(view, TaskTemplate);
  checkDataTemplates(view, accepted);
  const circle = circleOf(view, [accepted]);
  if (circle) throw invalid(describeCircle(circle));
  const Networks = TaskTemplate.Networks?.map((attachment) => resolveNetwork(view, attachment));
  if (!Networks) return accepted;
  return {
    ...accepted,
    TaskTemplate: { ...TaskTemplate, Networks },
    ...(accepted.Networks ? { Networks } : {}),
  };
}

/** What a service asks to have of its hosts must be allowed, and the processors that it is to be given reserved. */
export function checkPrivileges(view: View, spec: ServiceSpec): void {
  requireGrants(view.cluster()?.Spec, spec.Labels);
  const kind = privilegesOf(spec.Labels)?.gpu;
  if (kind === undefined) return;
  const reserved = spec.TaskTemplate.Resources?.Reservations?.GenericResources ?? [];
  const isReserved = reserved.some(
    (one) => (one.NamedResourceSpec?.Kind ?? one.DiscreteResourceSpec?.Kind) === kind,
  );
  if (!isReserved) {
    throw invalid(
      `ServiceSpec.Labels: shoal.gpu names the generic resource ${kind}, which the service does not reserve (--generic-resource ${kind}=1)`,
    );
  }
}

/**
 * What can be said of a service spec without looking at other objects. A stack's services name secrets
 * and configs that may not have an id yet (`references: 'by-name'`).
 */
export function checkServiceShape(spec: ServiceSpec, references: 'by-id' | 'by-name' = 'by-id'): void {
  checkName(spec.Name);
  readServiceOptions(spec.Labels);
  checkOptionsForMode(spec.Labels, Boolean(spec.Mode.ReplicatedJob ?? spec.Mode.GlobalJob));
  checkAutoscale(spec);
  const task = spec.TaskTemplate;
  checkResources(task);
  checkRestart(task);
  try {
    parseConstraints(task.Placement?.Constraints);
  } catch (error) {
    throw asSwarmError(error);
  }
  checkTargets('secret', secretTargets(task), references);
  checkTargets('config', configTargets(task), references);
  checkContainer(task, references);
  checkSpecTemplates(spec);
  checkMode(spec);
  checkUpdate(spec.UpdateConfig);
  checkUpdate(spec.RollbackConfig);
  checkPorts(spec);
}

function checkResources(task: TaskSpec): void {
  for (const part of [task.Resources?.Limits, task.Resources?.Reservations]) {
    const { NanoCPUs = 0, MemoryBytes = 0 } = part ?? {};
    if (NanoCPUs !== 0 && NanoCPUs < minimumNanoCpus) {
      throw invalid(`invalid cpu value ${NanoCPUs / 1e9}: Must be at least ${minimumNanoCpus / 1e9}`);
    }
    if (MemoryBytes !== 0 && MemoryBytes < minimumMemoryBytes) {
      throw invalid(`invalid memory value ${MemoryBytes}: Must be at least 4MiB`);
    }
  }
  const { SwapBytes, Limits } = task.Resources ?? {};
  if (SwapBytes !== undefined && !Limits?.MemoryBytes) {
    throw invalid('TaskSpec: a swap limit (SwapBytes) needs a memory limit beside it');
  }
}

function checkRestart(task: TaskSpec): void {
  if ((task.RestartPolicy?.Delay ?? 0) < 0) throw invalid('TaskSpec: restart-delay cannot be negative');
  if ((task.RestartPolicy?.Window ?? 0) < 0) throw invalid('TaskSpec: restart-window cannot be negative');
}

function checkUpdate(config: UpdateConfig | undefined): void {
  if (!config) return;
  if ((config.Delay ?? 0) < 0) throw invalid('TaskSpec: update-delay cannot be negative');
  if ((config.Monitor ?? 0) < 0) throw invalid('TaskSpec: update-monitor cannot be negative');
  const ratio = config.MaxFailureRatio ?? 0;
  if (ratio < 0 || ratio > 1) {
    throw invalid('TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1');
  }
}

interface Target {
  readonly id: string;
  readonly name: string;
  readonly file: string | undefined;
}

function secretTargets(task: TaskSpec): Target[] {
  const references = task.ContainerSpec.Secrets ?? [];
  return references.map((ref) => ({ id: ref.SecretID, name: ref.SecretName, file: ref.File?.Name }));
}

function configTargets(task: TaskSpec): Target[] {
  const references = task.ContainerSpec.Configs ?? [];
  return references.map((ref) => ({ id: ref.ConfigID, name: ref.ConfigName, file: ref.File?.Name }));
}

function checkTargets(
  what: 'secret' | 'config',
  targets: readonly Target[],
  references: 'by-id' | 'by-name',
): void {
  const holders = new Map<string, string>();
  for (const { id, name, file } of targets) {
    if ((id === '' && references === 'by-id') || name === '') throw invalid(`malformed ${what} reference`);
    if (file === undefined) throw invalid(`malformed ${what} reference, no target provided`);
    if (file === '') throw invalid(`malformed file ${what} reference, invalid target file name provided`);
    const holder = holders.get(file);
    if (holder !== undefined) {
      throw invalid(`${what} references '${holder}' and '${name}' have a conflicting target: '${file}'`);
    }
    holders.set(file, name);
  }
}

/** The parts of an image reference: host and path, then a tag, then a digest. */
const imageReference =
  /^(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])(?::\d+)?\/)?[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*(?::\w[\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$/;
const maximumImageLength = 512;

function checkContainer(task: TaskSpec, references: 'by-id' | 'by-name'): void {
  const container = task.ContainerSpec;
  if (container.Image === '') throw invalid('ContainerSpec: image reference must be provided');
  if (container.Image.length > maximumImageLength || !imageReference.test(container.Image)) {
    throw invalid(`ContainerSpec: ${JSON.stringify(container.Image)} is not a valid repository/tag`);
  }
  const mountPoints = new Set<string>();
  for (const mount of container.Mounts ?? []) {
    if (mountPoints.has(mount.Target)) throw invalid(`ContainerSpec: duplicate mount point: ${mount.Target}`);
    mountPoints.add(mount.Target);
    if (mount.Type === 'cluster' || mount.Type === 'npipe') {
      throw new ShoalError(
        'not-supported',
        `ContainerSpec: mounts of type ${mount.Type} are not supported by Shoal`,
      );
    }
    if (mount.Type === 'bind' && !mount.Source) {
      throw invalid(`ContainerSpec: the bind mount on ${mount.Target} needs a source`);
    }
    const fault = mountFault(mount);
    if (fault !== undefined && references === 'by-name') throw invalid(`ContainerSpec: ${fault}`);
  }
  checkHealth(container.Healthcheck);
  const score = container.OomScoreAdj ?? 0;
  if (score < -1000 || score > 1000) {
    throw invalid(`ContainerSpec: invalid value ${score}, range for oom score adj is [-1000, 1000]`);
  }
}

/**
 * What the engine will say of a mount for every task. Docker takes such a service, so here it is a warning; in a
 * stack that our own client brings it is refused, where the file is at hand.
 */
export function mountFault(mount: Mount): string | undefined {
  if (!mount.Target.startsWith('/')) return `mount path must be absolute: ${JSON.stringify(mount.Target)}`;
  if (mount.Type !== 'bind' || mount.Source?.startsWith('/')) return undefined;
  return `invalid bind mount source, source must be an absolute path: ${JSON.stringify(mount.Source)}`;
}

function checkHealth(health: TaskSpec['ContainerSpec']['Healthcheck']): void {
  for (const field of ['Interval', 'Timeout', 'StartPeriod', 'StartInterval'] as const) {
    const value = health?.[field] ?? 0;
    if (value !== 0 && value < minimumDurationNs) {
      throw invalid(`ContainerSpec: ${field} in HealthConfig cannot be less than 1ms`);
    }
  }
  if ((health?.Retries ?? 0) < 0) throw invalid('ContainerSpec: Retries in HealthConfig cannot be negative');
}

function checkMode(spec: ServiceSpec): void {
  if (Object.keys(spec.Mode).length > 1) {
    throw new ShoalError('invalid-argument', 'must specify only one service mode');
  }
  const isJob = spec.Mode.ReplicatedJob !== undefined || spec.Mode.GlobalJob !== undefined;
  if (isJob && spec.UpdateConfig) throw invalid('Jobs may not have an update config');
}

function checkPorts(spec: ServiceSpec): void {
  const tellsClient = serviceOption(spec.Labels, 'ingress') === 'proxy-protocol';
  const published = new Set<string>();
  for (const port of spec.EndpointSpec?.Ports ?? []) {
    if (port.TargetPort === 0) {
      throw new ShoalError('invalid-argument', 'EndpointSpec.Ports: a TargetPort is needed');
    }
    if (isIngressPort(port) && spec.EndpointSpec?.Mode === 'dnsrr') {
      throw invalid("EndpointSpec: port published with ingress mode can't be used with dnsrr mode");
    }
    if (tellsClient && isIngressPort(port) && (port.Protocol ?? 'tcp') !== 'tcp') {
      const name = `${port.PublishedPort || port.TargetPort}/${port.Protocol}`;
      throw invalid(
        `EndpointSpec: port ${name} is published in ingress mode by a service with the label shoal.ingress=proxy-protocol, which is for tcp alone: the header goes before a connection's bytes. Publish it with mode=host, or in a service of its own`,
      );
    }
    if (!port.PublishedPort) continue;
    const key = `${port.PublishedPort}/${port.Protocol}`;
    if (published.has(key)) throw invalid('EndpointSpec: duplicate published ports provided');
    published.add(key);
  }
}

/** What a service publishes must be free, and ingress ports need the ingress network. */
export function checkPublished(view: View, spec: ServiceSpec, self: ServiceId | undefined): void {
  const conflict = describePortConflict(view, spec, self);
  if (conflict !== undefined) throw invalid(conflict);
  if (needsIngress(spec) && !ingressNetwork(view)) {
    throw swarmError(
      'failed-precondition',
      'service needs ingress network, but no ingress network is present',
    );
  }
}

/** Secrets and configs must exist under the id and the name that the spec gives. */
function checkReferences(view: View, task: TaskSpec): void {
  const { Secrets = [], Configs = [] } = task.ContainerSpec;
  const noSecrets = Secrets.filter((ref) => !isNamed(view.get('secret', ref.SecretID), ref.SecretName));
  refuseMissing(
    'secret',
    noSecrets.map((ref) => ref.SecretName),
  );
  const noConfigs = Configs.filter((ref) => !isNamed(view.get('config', ref.ConfigID), ref.ConfigName));
  refuseMissing(
    'config',
    noConfigs.map((ref) => ref.ConfigName),
  );
}

/** A service that keeps an earlier version calls it by the name it had. */
function isNamed(object: { Spec: { Name: string } } | undefined, name: string): boolean {
  return object !== undefined && (object.Spec.Name === name || withoutNumber(object.Spec.Name) === name);
}

function refuseMissing(what: string, names: readonly string[]): void {
  if (names.length === 0) return;
  throw invalid(`${what}${names.length === 1 ? '' : 's'} not found: ${names.join(', ')}`);
}

function resolveNetwork(view: View, attachment: NetworkAttachmentConfig): NetworkAttachmentConfig {
  if (predefinedNetworks.some((network) => network.name === attachment.Target)) return attachment;
  const network = lookup(view, 'network', attachment.Target);
  if (network.Spec.Ingress) {
    throw invalid(
      `Service cannot be explicitly attached to the ingress network ${JSON.stringify(network.Spec.Name)}`,
    );
  }
  return { ...attachment, Target: network.ID };
}

// ---------------------------------------------------------------- secrets, configs

/** Checks a secret's name and data. */
export function checkSecret(spec: SecretSpec): void {
  checkDataName(spec.Name);
  checkData('secret', spec.Data ?? '', maximumSecretBytes);
  checkDataTemplate('secret', spec);
}

/** Checks a config's name and data. */
export function checkConfig(spec: ConfigSpec): void {
  checkDataName(spec.Name);
  checkData('config', spec.Data, maximumConfigBytes);
  checkDataTemplate('config', spec);
}

function checkDataName(name: string): void {
  if (name === '') throw invalid('name must be provided');
  if (name.length > maximumDataNameLength || !dataName.test(name)) {
    throw invalid(
      'invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]',
    );
  }
}

function checkData(what: string, data: string, limitBytes: number): void {
  const plain = data.replace(/[\r\n]/g, '');
  if (plain.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(plain)) {
    throw new ShoalError('invalid-argument', `the ${what}'s Data is not base64`);
  }
  const bytes = Buffer.byteLength(plain, 'base64');
  if (bytes < 1 || bytes >= limitBytes) {
    throw invalid(`${what} data must be larger than 0 and less than ${limitBytes} bytes`);
  }
}
