/**
 * What a service can ask of Shoal that Docker's API has no field for: labels `shoal.*` of the service (in a compose
 * file `deploy.labels`), which survive every client's read, change and write. This is the one table of them; a label
 * that is not in it, or whose value can't be read, is refused by name when the spec is accepted.
 *
 * A change of such a label restarts no task: labels of a service are no part of what a container is made of
 * (revision.ts).
 */
import { type Labels, stackLabel } from '../../proto/docker.ts';
import { parseDurationMs } from '../../proto/duration.ts';
import { ShoalError } from '../../proto/errors.ts';
import { isolationForm, parseIsolation } from '../../proto/isolation.ts';
import { parseSelector } from '../../proto/metric-selector.ts';
import {
  type Device,
  type IpcMode,
  ipcModes,
  parseDevice,
  parseSecurityOption,
} from '../../proto/privileges.ts';
import { parseRotation, type Rotation } from '../../proto/rotation.ts';
import { isTimezone, scheduleFault } from './schedule.ts';

/** What labels beginning with this are: Shoal's own. */
export const optionPrefix = 'shoal.';

export const dependencyConditions = [
  'service_started',
  'service_healthy',
  'service_completed_successfully',
] as const;
export type DependencyCondition = (typeof dependencyConditions)[number];

/** A service that has to be so far before tasks of another one may start. */
export interface Dependency {
  /** As written: a name within the service's own stack, or the whole name of a service. */
  readonly service: string;
  readonly condition: DependencyCondition;
}

/** When a task of a node that is down is run elsewhere; `afterMs` 0: at once, infinite: never. */
export interface PartitionPolicy {
  readonly afterMs: number;
}

/** How a drained node gives a service's tasks up. */
export const drainOrders = ['start-first', 'stop-first', 'at-once'] as const;
export type DrainOrder = (typeof drainOrders)[number];

const ingressModes = ['all', 'local', 'proxy-protocol'] as const;

/** The options of one service, with what holds when its labels do not say. */
export interface ServiceOptions {
  /**
   * Which tasks a node's published ingress ports lead to: those of all nodes, or its own alone; 'proxy-protocol': those
   * of all nodes, each told the client's address by a header.
   */
  readonly ingress: (typeof ingressModes)[number];
  /** What its tasks wait for before they start. */
  readonly dependsOn: readonly Dependency[];
  /** How its tasks get a new version of a config or secret. */
  readonly rotate: Rotation;
  /** What becomes of its tasks on a node that is down. */
  readonly partition: PartitionPolicy;
  /** How long an agent without its managers waits before it stops a task, in ms; undefined: it does not. */
  readonly 'partition.stopOnIsolation': number | undefined;
  /** How its tasks leave a drained node; undefined: as its updates go. */
  readonly drain: DrainOrder | undefined;
  /** How many of its tasks at a time are moved by themselves to nodes that have less to do; 0: none. */
  readonly rebalance: number;
  /** Percent of new connections for tasks of the new revision while an update is under way; undefined: as many as any. */
  readonly 'rollout.share': number | undefined;
  /** When a job runs, as nextRunAt reads it; without it a job runs at once and when it is forced. */
  readonly cron: string | undefined;
  /** The time zone of the schedule. */
  readonly 'cron.timezone': string;
  /** What a run that is not over means for the next; see orchestrator/cron.ts. */
  readonly 'cron.overlap': 'allow' | 'forbid' | 'replace';
  /** How many runs that are over are remembered. */
  readonly 'cron.history': number;
  /** What its containers have of their host; see privileges.ts, which puts these together. */
  readonly privileged: boolean;
  readonly devices: readonly Device[];
  readonly securityOpt: readonly string[];
  readonly ipc: IpcMode | undefined;
  readonly pid: 'host' | undefined;
  /** Bytes of /dev/shm. */
  readonly shmSize: number | undefined;
  readonly gpu: string | undefined;
  /** How it is scaled by what its tasks use; autoscale-options.ts puts these together. Absent `max`: it is not. */
  readonly 'autoscale.min': number;
  readonly 'autoscale.max': number | undefined;
  readonly 'autoscale.metric':
    | { readonly kind: 'cpu' | 'memory' }
    | { readonly kind: 'prometheus'; readonly name: string };
  /** What is for one task: a share of what it reserves, bytes, or so much of the metric. */
  readonly 'autoscale.target':
    | { readonly kind: 'percent' | 'size' | 'amount'; readonly value: number }
    | undefined;
  readonly 'autoscale.upWindow': number;
  readonly 'autoscale.downWindow': number;
  readonly 'autoscale.cooldown': number;
  readonly 'autoscale.source': string | undefined;
  readonly 'autoscale.port': number | undefined;
  readonly 'autoscale.path': string;
  /** Whether a slot goes back to the node that it ran on first, where its volumes are. */
  readonly 'volume.sticky': boolean;
}

interface Option<T> {
  /** What holds without the label. */
  readonly absent: T;
  /** Reads the label's value; throws BadOption with what it must be. */
  parse(value: string): T;
}

/** Says what a value must be, for the end of a sentence. */
class BadOption extends Error {}

/** One row an option. The label of `dependsOn` is `shoal.depends-on`, and so on. */
const options: { readonly [K in keyof ServiceOptions]: Option<ServiceOptions[K]> } = {
  ingress: { absent: 'all', parse: (value) => oneOf(ingressModes, value) },
  dependsOn: { absent: [], parse: parseDependencies },
  rotate: { absent: { kind: 'restart' }, parse: parseRotate },
  partition: { absent: { afterMs: 0 }, parse: parsePartition },
  'partition.stopOnIsolation': { absent: undefined, parse: parseStopOnIsolation },
  drain: { absent: undefined, parse: (value) => oneOf(drainOrders, value) },
  rebalance: { absent: 0, parse: parseRebalance },
  'rollout.share': { absent: undefined, parse: parseShare },
  cron: { absent: undefined, parse: parseSchedule },
  'cron.timezone': { absent: 'UTC', parse: parseTimezone },
  'cron.overlap': { absent: 'forbid', parse: (value) => oneOf(['allow', 'forbid', 'replace'], value) },
  'cron.history': { absent: 10, parse: (value) => parseNumber(value, 0, 100) },
  privileged: { absent: false, parse: (value) => oneOf(['true', 'false'], value) === 'true' },
  devices: { absent: [], parse: (value) => parseList(value, parseDevice, deviceForm) },
  securityOpt: { absent: [], parse: (value) => parseList(value, parseSecurityOption, securityForm) },
  ipc: { absent: undefined, parse: (value) => oneOf(ipcModes, value) },
  pid: { absent: undefined, parse: (value) => oneOf(['host'] as const, value) },
  shmSize: { absent: undefined, parse: parseSize },
  gpu: { absent: undefined, parse: parseResourceKind },
  'autoscale.min': { absent: 1, parse: (value) => parseNumber(value, 0, 10_000) },
  'autoscale.max': { absent: undefined, parse: (value) => parseNumber(value, 1, 10_000) },
  'autoscale.metric': { absent: { kind: 'cpu' }, parse: parseMetric },
  'autoscale.target': { absent: undefined, parse: parseTarget },
  'autoscale.upWindow': { absent: 0, parse: parseWindow },
  'autoscale.downWindow': { absent: 300_000, parse: parseWindow },
  'autoscale.cooldown': { absent: 30_000, parse: parseWindow },
  'autoscale.source': { absent: undefined, parse: parseServiceName },
  'autoscale.port': { absent: undefined, parse: (value) => parseNumber(value, 1, 65_535) },
  'autoscale.path': { absent: '/metrics', parse: parsePath },
  'volume.sticky': { absent: false, parse: (value) => oneOf(['true', 'false'], value) === 'true' },
};

/** The label of an option. */
export function optionLabel(option: keyof ServiceOptions): string {
  return labelOf[option];
}

const names = Object.keys(options) as (keyof ServiceOptions)[];
const labelOf = Object.fromEntries(
  names.map((option) => [
    option,
    optionPrefix + option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`),
  ]),
) as Readonly<Record<keyof ServiceOptions, string>>;
const byLabel = new Map(names.map((option) => [labelOf[option], option]));

/**
 * The options that `labels` ask for. Throws ShoalError 'invalid-argument' for the first label of Shoal's that nobody
 * knows or whose value is not one of its.
 */
export function readServiceOptions(labels: Labels): ServiceOptions {
  const read: Record<string, unknown> = {};
  for (const name of names) read[name] = options[name].absent;
  for (const [label, value] of Object.entries(labels)) {
    if (!label.startsWith(optionPrefix)) continue;
    const option = byLabel.get(label);
    if (option === undefined) throw unknownOption(label);
    read[option] = readOption(option, value);
  }
  return read as unknown as ServiceOptions;
}

/**
 * One option of a stored service, for rooms that need no other. Where an older version stored a value that this one
 * does not take, it is as if the label were not there.
 */
export function serviceOption<K extends keyof ServiceOptions>(labels: Labels, option: K): ServiceOptions[K] {
  const value = labels[optionLabel(option)];
  if (value === undefined) return options[option].absent;
  try {
    return options[option].parse(value);
  } catch {
    return options[option].absent;
  }
}

/** When and how a job runs by a schedule. */
export interface CronOptions {
  readonly schedule: string;
  readonly timezone: string;
  readonly overlap: ServiceOptions['cron.overlap'];
  readonly history: number;
}

/** The schedule of a stored job; undefined when it has none. */
export function cronOptions(labels: Labels): CronOptions | undefined {
  const schedule = serviceOption(labels, 'cron');
  if (schedule === undefined) return undefined;
  return {
    schedule,
    timezone: serviceOption(labels, 'cron.timezone'),
    overlap: serviceOption(labels, 'cron.overlap'),
    history: serviceOption(labels, 'cron.history'),
  };
}

/** What labels ask for that a service of this mode can't do. Throws 'invalid-argument'. */
export function checkOptionsForMode(labels: Labels, isJob: boolean): void {
  const about = Object.keys(labels).find((label) => label.startsWith(`${optionPrefix}cron`));
  if (about === undefined) return;
  const wrong = isJob
    ? labels[optionLabel('cron')] === undefined && 'says nothing without shoal.cron, the schedule'
    : 'is for jobs: a service of mode replicated-job or global-job runs by a schedule';
  if (wrong) throw new ShoalError('invalid-argument', `ServiceSpec.Labels: ${about} ${wrong}`);
}

function readOption(option: keyof ServiceOptions, value: string): unknown {
  try {
    return options[option].parse(value);
  } catch (error) {
    if (!(error instanceof BadOption)) throw error;
    throw new ShoalError(
      'invalid-argument',
      `ServiceSpec.Labels: ${optionLabel(option)} ${error.message}, not ${JSON.stringify(value)}`,
    );
  }
}

function unknownOption(label: string): ShoalError {
  return new ShoalError(
    'invalid-argument',
    `ServiceSpec.Labels: "${label}" is no label that Shoal knows; labels that begin with "${optionPrefix}" are its own: ${[...byLabel.keys()].join(', ')}`,
  );
}

// ---------------------------------------------------------------- values

function oneOf<T extends string>(allowed: readonly T[], value: string): T {
  const found = allowed.find((one) => one === value);
  if (found === undefined) throw new BadOption(`must be one of ${allowed.join(', ')}`);
  return found;
}

function parseShare(value: string): number {
  const percent = /^(\d{1,2})%?$/.exec(value)?.[1];
  if (percent !== undefined && Number(percent) >= 1) return Number(percent);
  throw new BadOption('must be a share of new connections from 1% to 99%');
}

function parseNumber(value: string, lowest: number, highest: number): number {
  const number = /^\d{1,9}$/.test(value) ? Number(value) : Number.NaN;
  if (number >= lowest && number <= highest) return number;
  throw new BadOption(`must be a whole number from ${lowest} to ${highest}`);
}

const deviceForm =
  'must be devices with commas between: /dev/NAME, :/dev/NAME of the container, and of rwm behind another colon';
const securityForm =
  'must be no-new-privileges, seccomp=unconfined, systempaths=unconfined, apparmor=PROFILE or label=…, with commas between (a profile of seccomp is a file: not supported)';

function parseList<T>(value: string, read: (part: string) => T | undefined, form: string): T[] {
  return value.split(',').map((part) => {
    const one = read(part.trim());
    if (one === undefined) throw new BadOption(form);
    return one;
  });
}

function parseSize(value: string): number {
  const [, amount, unit] = /^([1-9]\d{0,11})(k|m|g)?b?$/i.exec(value) ?? [];
  if (amount === undefined) throw new BadOption('must be a size, such as 64m or 1g');
  return Number(amount) * 1024 ** ' kmg'.indexOf((unit ?? ' ').toLowerCase());
}

function parseResourceKind(value: string): string {
  if (/^[\w.-]{1,64}$/.test(value)) return value;
  throw new BadOption('must be the kind of a generic resource that the service reserves, such as gpu');
}

function parseMetric(value: string): ServiceOptions['autoscale.metric'] {
  if (value === 'cpu' || value === 'memory') return { kind: value };
  const name = value.startsWith('prometheus:') ? value.slice('prometheus:'.length).trim() : '';
  if (parseSelector(name)) return { kind: 'prometheus', name };
  throw new BadOption(
    'must be cpu, memory or prometheus:NAME, the name of a metric, perhaps with labels: prometheus:jobs{queue="mail"}',
  );
}

function parseTarget(value: string): ServiceOptions['autoscale.target'] {
  const percent = /^(\d{1,6}(?:\.\d+)?)%$/.exec(value)?.[1];
  if (Number(percent) > 0) return { kind: 'percent', value: Number(percent) };
  if (/^[1-9]\d*[kmg]b?$/i.test(value)) return { kind: 'size', value: parseSize(value) };
  if (/^\d{1,12}(?:\.\d{1,9})?$/.test(value) && Number(value) > 0)
    return { kind: 'amount', value: Number(value) };
  throw new BadOption('must be a percentage (70%), a size (200m), or an amount of a metric (25), above 0');
}

function parseWindow(value: string): number {
  const durationMs = value === '0' ? 0 : parseDurationMs(value);
  if (durationMs !== undefined && durationMs <= 24 * 3_600_000) return durationMs;
  throw new BadOption('must be a duration, such as 90s or 5m, of a day at most');
}

function parseServiceName(value: string): string {
  if (serviceName.test(value)) return value;
  throw new BadOption('must be the name of a service');
}

function parsePath(value: string): string {
  if (/^\/[\w./~%?&=+-]{0,200}$/.test(value)) return value;
  throw new BadOption('must be a path, such as /metrics');
}

function parseSchedule(value: string): string {
  const fault = scheduleFault(value);
  if (fault !== undefined) throw new BadOption(fault);
  return value;
}

function parseTimezone(value: string): string {
  if (isTimezone(value)) return value;
  throw new BadOption('must be a name of the time zone database (Europe/Berlin)');
}

function parseRotate(value: string): Rotation {
  const rotation = parseRotation(value);
  if (rotation === undefined) {
    throw new BadOption('must be restart, none, or signal: and a signal that can be handled (signal:SIGHUP)');
  }
  return rotation;
}

const dependencyForm =
  'must be names of services with commas between, each with a condition behind a colon if it is not service_started (db:service_healthy,migrate:service_completed_successfully)';
const serviceName = /^[a-zA-Z0-9](?:[a-zA-Z0-9_-]*[a-zA-Z0-9])?$/;

function parseDependencies(value: string): Dependency[] {
  const dependencies = value.split(',').map((part): Dependency => {
    const [service = '', condition = 'service_started', ...more] = part.trim().split(':');
    const known = dependencyConditions.find((one) => one === condition);
    if (!serviceName.test(service) || known === undefined || more.length > 0) {
      throw new BadOption(dependencyForm);
    }
    return { service, condition: known };
  });
  const seen = new Set<string>();
  for (const { service } of dependencies) {
    if (seen.has(service)) throw new BadOption(`must name each service once (${service} is there twice)`);
    seen.add(service);
  }
  return dependencies;
}

function parsePartition(value: string): PartitionPolicy {
  if (value === 'replace') return { afterMs: 0 };
  if (value === 'never') return { afterMs: Number.POSITIVE_INFINITY };
  const afterMs = value.startsWith('wait:') ? parseDurationMs(value.slice('wait:'.length)) : undefined;
  if (afterMs === undefined) {
    throw new BadOption('must be replace, never or wait:<duration>, such as wait:10m');
  }
  return { afterMs };
}

function parseStopOnIsolation(value: string): number | undefined {
  const limit = parseIsolation(value);
  if (limit === undefined) throw new BadOption(isolationForm);
  return limit === 'never-stops' ? undefined : limit;
}

function parseRebalance(value: string): number {
  if (value === 'off') return 0;
  if (value === 'on') return 1;
  if (/^[1-9]\d{0,3}$/.test(value)) return Number(value);
  throw new BadOption('must be on, off or how many tasks to move at a time, such as 2');
}

/** The value of the label that says the same as `dependencies`. */
export function formatDependencies(dependencies: readonly Dependency[]): string {
  return dependencies
    .map(({ service, condition }) => (condition === 'service_started' ? service : `${service}:${condition}`))
    .join(',');
}

/** The names that a dependency of a service with `labels` may mean, the nearest first: one of its own stack, then any. */
export function namesOfDependency(labels: Labels, dependency: Dependency): string[] {
  const stack = labels[stackLabel];
  return stack ? [`${stack}_${dependency.service}`, dependency.service] : [dependency.service];
}

/** Every name that a service with `labels` may be waiting for. */
export function dependencyNames(labels: Labels): string[] {
  return serviceOption(labels, 'dependsOn').flatMap((one) => namesOfDependency(labels, one));
}
