/**
 * Whether a node can take a task, and if none can, why: each filter keeps its predicate beside its
 * explanation. A filter that does not concern a task is not asked.
 */
import { type AgentAbility, hasAbility } from '../../proto/agent-abilities.ts';
import {
  engineUnavailableLabel,
  type GenericResource,
  type Mount,
  type Platform,
  type ServiceSpec,
  type Task,
} from '../../proto/docker.ts';
import { isolationLabel } from '../../proto/isolation.ts';
import {
  describeConstraint,
  explainConstraints,
  matchesConstraints,
  parseConstraints,
} from '../store/constraint.ts';
import { privilegesOf } from '../store/privileges.ts';
import { serviceOption } from '../store/service-options.ts';
import type { View } from '../store/store.ts';
import { locality, meshProtocols, routingMesh } from './locality.ts';
import { hostPortsOf, type NodeEntry, type NodeTable } from './node-table.ts';
import { groupBy, hasOrHave, nodes, whyUnable } from './words.ts';

/** What is asked of a node: the same for all tasks of a revision. */
export interface Request {
  readonly view: View;
  readonly table: NodeTable;
  readonly task: Task;
  readonly spec: ServiceSpec;
}

/** A filter, made for one request. */
export interface Check {
  /** Whether the answer is the same however many tasks are placed: it concerns what a node is, not what it has left. */
  readonly isStanding: boolean;
  passes(entry: NodeEntry): boolean;
  /** Why none of `failed` passes, as phrases. `total` is the number of nodes of the cluster. */
  explain(failed: readonly NodeEntry[], total: number): string[];
}

/** In the order in which they are asked. */
const makers: readonly ((request: Request) => Check | undefined)[] = [
  readiness,
  platform,
  constraints,
  isolation,
  plugins,
  ownAgent,
  home,
  routingMesh,
  meshProtocols,
  locality,
  processors,
  memory,
  genericResources,
  hostPorts,
  replicasPerNode,
];

/** The filters that concern a request, those that tell most about a node first. */
export function checksOf(request: Request): Check[] {
  const checks: Check[] = [];
  for (const make of makers) {
    const check = make(request);
    if (check) checks.push(check);
  }
  return checks;
}

/** Equal for specs whose standing checks answer alike on every node. */
export function standingKey(spec: ServiceSpec): string {
  const { Placement, ContainerSpec, LogDriver } = spec.TaskTemplate;
  const drivers = (ContainerSpec.Mounts ?? []).map(volumeDriver);
  const isolated = spec.Labels[isolationLabel];
  const isOwn = privilegesOf(spec.Labels) !== undefined;
  const { Constraints, Platforms } = Placement ?? {};
  const isPlain = !Constraints && !Platforms && drivers.length === 0 && !LogDriver;
  if (isPlain && isolated === undefined && !isOwn) return '';
  return JSON.stringify([Constraints, Platforms, drivers, LogDriver?.Name, isolated, isOwn]);
}

// ---------------------------------------------------------------- what a node is

/** Why a node takes no new tasks at all. */
function unavailability(
  entry: NodeEntry,
): 'drained' | 'paused' | 'down' | 'disconnected' | 'not ready' | 'without its engine' | undefined {
  const { Status, Spec, Description } = entry.node;
  if (Spec.Availability === 'drain') return 'drained';
  if (Status.State === 'down' || Status.State === 'disconnected') return Status.State;
  if (Status.State !== 'ready') return 'not ready';
  if (Spec.Availability === 'pause') return 'paused';
  return Description.Engine.Labels[engineUnavailableLabel] === undefined ? undefined : 'without its engine';
}

/** Whether a node takes new tasks at all. */
export function isAvailable(entry: NodeEntry): boolean {
  return unavailability(entry) === undefined;
}

function readiness(): Check {
  return {
    isStanding: true,
    passes: isAvailable,
    explain: (failed, total) =>
      [...groupBy(failed, (entry) => unavailability(entry) ?? '')].map(
        ([state, entries]) => `${entries.length} of ${nodes(total)} ${areOrIs(entries.length)} ${state}`,
      ),
  };
}

/** A slot that is bound to its volumes goes where they are, while the cluster has that node. */
function home({ view, task }: Request): Check | undefined {
  const { Home } = task.Private;
  const node = Home && view.get('node', Home);
  if (!node) return undefined;
  const name = node.Description.Hostname || node.ID;
  return {
    isStanding: false,
    passes: (entry) => entry.id === Home,
    explain: (failed) => [
      `the volumes of slot ${task.Slot} are on node ${name}, not on ${nodes(failed.length)} (shoal.volume.sticky)`,
    ],
  };
}

/** Others know nothing of what services may have of their hosts, and would run them without. */
function ownAgent({ spec }: Request): Check | undefined {
  if (privilegesOf(spec.Labels) === undefined) return undefined;
  return able('privileges', "privileges and devices are given by Shoal's own agents");
}

const architectureNames: Record<string, string> = { x86_64: 'amd64', aarch64: 'arm64', armv7l: 'arm' };

function platform({ spec }: Request): Check | undefined {
  const asked = spec.TaskTemplate.Placement?.Platforms ?? [];
  if (asked.length === 0) return undefined;
  return {
    isStanding: true,
    passes: (entry) => asked.some((one) => isPlatform(one, entry.node.Description.Platform)),
    explain: (failed) => {
      const there = new Set(failed.map((entry) => describePlatform(entry.node.Description.Platform)));
      const wanted = new Set(asked.map(describePlatform));
      return [
        `unsupported platform on ${nodes(failed.length)}: ${[...wanted].join(' or ')} asked, ${[...there].join(', ')} there`,
      ];
    },
  };
}

/** Empty parts of the platform asked for match all. */
function isPlatform(asked: Platform, actual: Platform): boolean {
  const fits = (one: string, other: string) => one === '' || one === other;
  return (
    fits(architecture(asked.Architecture), architecture(actual.Architecture)) &&
    fits((asked.OS ?? '').toLowerCase(), (actual.OS ?? '').toLowerCase())
  );
}

function architecture(name: string | undefined): string {
  const lower = (name ?? '').toLowerCase();
  return architectureNames[lower] ?? lower;
}

function describePlatform(one: Platform): string {
  return `${one.OS || 'any'}/${architecture(one.Architecture) || 'any'}`;
}

function constraints({ spec }: Request): Check | undefined {
  const parsed = parseConstraints(spec.TaskTemplate.Placement?.Constraints);
  if (parsed.length === 0) return undefined;
  const firstFailed = (entry: NodeEntry) =>
    describeConstraint(parsed.find((one) => !matchesConstraints([one], entry.node)) ?? parsed[0]!);
  return {
    isStanding: true,
    passes: (entry) => matchesConstraints(parsed, entry.node),
    explain: (failed) =>
      [...groupBy(failed, firstFailed)].map(([constraint, entries]) =>
        entries.length === 1
          ? `placement constraint not satisfied on 1 node: ${explainConstraints(parsed, entries[0]!.node)}`
          : `placement constraint ${constraint} not satisfied on ${nodes(entries.length)}`,
      ),
  };
}

function isolation({ spec }: Request): Check | undefined {
  if (serviceOption(spec.Labels, 'partition.stopOnIsolation') === undefined) return undefined;
  return able('stop-on-isolation', "only Shoal's own agents stop a task when they are isolated");
}

/** What not every agent can do; `rule` says so. */
function able(ability: AgentAbility, rule: string): Check {
  return {
    isStanding: true,
    passes: ({ node }) => hasAbility(node.Description.Engine.Labels, ability),
    explain: (failed) =>
      [...groupBy(failed, ({ node }) => whyUnable(node))].map(
        ([why, entries]) => `${rule}, and ${nodes(entries.length)} ${hasOrHave(entries.length)} ${why}`,
      ),
  };
}

/** Volume and log drivers that a node's engine must have; nodes that list no drivers of a kind are trusted. */
function plugins({ spec }: Request): Check | undefined {
  const task = spec.TaskTemplate;
  const volumeDrivers = (task.ContainerSpec.Mounts ?? []).map(volumeDriver);
  const asked = [
    ...volumeDrivers.filter((name) => name !== undefined).map((name) => ({ type: 'Volume', name })),
    ...(task.LogDriver?.Name && task.LogDriver.Name !== 'none'
      ? [{ type: 'Log', name: task.LogDriver.Name }]
      : []),
  ];
  if (asked.length === 0) return undefined;
  const missing = (entry: NodeEntry) => asked.find(({ type, name }) => !hasPlugin(entry, type, name));
  return {
    isStanding: true,
    passes: (entry) => missing(entry) === undefined,
    explain: (failed) =>
      [...groupBy(failed, (entry) => describePlugin(missing(entry) ?? asked[0]!))].map(
        ([plugin, entries]) => `missing ${plugin} on ${nodes(entries.length)}`,
      ),
  };
}

function volumeDriver(mount: Mount): string | undefined {
  const name = mount.VolumeOptions?.DriverConfig?.Name;
  return mount.Type === 'volume' && name && name !== 'local' ? name : undefined;
}

function hasPlugin(entry: NodeEntry, type: string, name: string): boolean {
  const present = (entry.node.Description.Engine.Plugins ?? []).filter((plugin) => plugin.Type === type);
  return (
    present.length === 0 || present.some((plugin) => plugin.Name === name || plugin.Name === `${name}:latest`)
  );
}

function describePlugin({ type, name }: { type: string; name: string }): string {
  return `${type.toLowerCase()} driver "${name}"`;
}

// ---------------------------------------------------------------- what a node has left

function processors({ spec }: Request): Check | undefined {
  const asked = spec.TaskTemplate.Resources?.Reservations?.NanoCPUs ?? 0;
  if (asked <= 0) return undefined;
  const free = (entry: NodeEntry) => entry.node.Description.Resources.NanoCPUs - entry.nanoCpus;
  return shortage('CPU', asked, free, describeCpus);
}

function memory({ spec }: Request): Check | undefined {
  const asked = spec.TaskTemplate.Resources?.Reservations?.MemoryBytes ?? 0;
  if (asked <= 0) return undefined;
  const free = (entry: NodeEntry) => entry.node.Description.Resources.MemoryBytes - entry.memoryBytes;
  return shortage('memory', asked, free, describeBytes);
}

function shortage(
  name: string,
  asked: number,
  free: (entry: NodeEntry) => number,
  describe: (amount: number) => string,
): Check {
  return {
    isStanding: false,
    passes: (entry) => free(entry) >= asked,
    explain: (failed) => {
      const amounts = failed.map((entry) => Math.max(0, free(entry)));
      const most = Math.max(...amounts);
      const isEqual = amounts.every((amount) => amount === most);
      return [
        `insufficient ${name} on ${nodes(failed.length)}: ${describe(asked)} asked, ${isEqual ? '' : 'at most '}${describe(most)} free`,
      ];
    },
  };
}

function genericResources({ spec }: Request): Check | undefined {
  const asked = discreteAmounts(spec);
  if (asked.length === 0) return undefined;
  const lacking = (entry: NodeEntry) => asked.find(({ kind, amount }) => freeGeneric(entry, kind) < amount);
  return {
    isStanding: false,
    passes: (entry) => lacking(entry) === undefined,
    explain: (failed) =>
      [...groupBy(failed, (entry) => (lacking(entry) ?? asked[0]!).kind)].map(([kind, entries]) => {
        const amount = asked.find((one) => one.kind === kind)!.amount;
        const most = Math.max(...entries.map((entry) => freeGeneric(entry, kind)));
        return `insufficient resource ${kind} on ${nodes(entries.length)}: ${amount} asked, at most ${most} free`;
      }),
  };
}

/** What a spec reserves of generic resources, summed by kind: amounts, for a request names no instance. */
function discreteAmounts(spec: ServiceSpec): { kind: string; amount: number }[] {
  const amounts = new Map<string, number>();
  for (const resource of spec.TaskTemplate.Resources?.Reservations?.GenericResources ?? []) {
    const kind = resource.DiscreteResourceSpec?.Kind ?? resource.NamedResourceSpec?.Kind;
    const amount = resource.DiscreteResourceSpec?.Value ?? 1;
    if (kind && amount > 0) amounts.set(kind, (amounts.get(kind) ?? 0) + amount);
  }
  return [...amounts].map(([kind, amount]) => ({ kind, amount }));
}

function freeGeneric(entry: NodeEntry, kind: string): number {
  return freeNamed(entry, kind).length + freeDiscrete(entry, kind);
}

function freeNamed(entry: NodeEntry, kind: string): string[] {
  return (entry.node.Description.Resources.GenericResources ?? [])
    .map((resource) => resource.NamedResourceSpec)
    .filter((named) => named?.Kind === kind && !entry.named.has(`${kind}=${named.Value}`))
    .map((named) => named!.Value);
}

function freeDiscrete(entry: NodeEntry, kind: string): number {
  const total = (entry.node.Description.Resources.GenericResources ?? [])
    .map((resource) => resource.DiscreteResourceSpec)
    .filter((discrete) => discrete?.Kind === kind)
    .reduce((sum, discrete) => sum + discrete!.Value, 0);
  return Math.max(0, total - (entry.discrete.get(kind) ?? 0));
}

/** Whether tasks of `spec` get any generic resources. */
export function asksGeneric(spec: ServiceSpec): boolean {
  return discreteAmounts(spec).length > 0;
}

/** The generic resources that a task of `spec` gets on the node: instances that have names first. */
export function pickGeneric(entry: NodeEntry, spec: ServiceSpec): GenericResource[] {
  return discreteAmounts(spec).flatMap(({ kind, amount }) => {
    const named = freeNamed(entry, kind).slice(0, amount);
    const rest = amount - named.length;
    return [
      ...named.map((value) => ({ NamedResourceSpec: { Kind: kind, Value: value } })),
      ...(rest > 0 ? [{ DiscreteResourceSpec: { Kind: kind, Value: rest } }] : []),
    ];
  });
}

function hostPorts({ spec, table }: Request): Check | undefined {
  const asked = hostPortsOf(spec);
  if (asked.length === 0) return undefined;
  const taken = (entry: NodeEntry) => asked.find((port) => table.isPortTaken(entry, port));
  return {
    isStanding: false,
    passes: (entry) => taken(entry) === undefined,
    explain: (failed) =>
      [...groupBy(failed, (entry) => taken(entry) ?? asked[0]!)].map(([port, entries]) => {
        const [protocol, number] = port.split('/');
        return `host port ${number}/${protocol} already in use on ${nodes(entries.length)}`;
      }),
  };
}

function replicasPerNode({ spec, task }: Request): Check | undefined {
  const most = spec.TaskTemplate.Placement?.MaxReplicas ?? 0;
  if (most <= 0) return undefined;
  return {
    isStanding: false,
    passes: (entry) => (entry.activeByService.get(task.ServiceID) ?? 0) < most,
    explain: (failed) => [
      `max replicas per node limit reached on ${nodes(failed.length)}: at most ${most} of this service on each`,
    ],
  };
}

// ---------------------------------------------------------------- words

function areOrIs(count: number): string {
  return count === 1 ? 'is' : 'are';
}

function describeCpus(nanoCpus: number): string {
  return `${Number((nanoCpus / 1e9).toFixed(3))} CPUs`;
}

const byteUnits = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;

/** Bytes in the largest unit that leaves at least 1, with at most two decimals. */
function describeBytes(bytes: number): string {
  const power = bytes < 1 ? 0 : Math.min(byteUnits.length - 1, Math.floor(Math.log2(bytes) / 10));
  return `${Number((bytes / 1024 ** power).toFixed(2))} ${byteUnits[power]}`;
}
