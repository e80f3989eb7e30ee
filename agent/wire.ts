/**
 * Between SwarmKit's worker protocol and what the agent thinks in. Pure: the one file of the agent that knows
 * how times, durations, states and node descriptions look on the wire.
 */

import { abilitiesLabel, agentAbilities } from '../proto/agent-abilities.ts';
import {
  dataPathLabel,
  dataPlaneLabel,
  dataPlaneLimitsLabel,
  dataPlaneMissingLabel,
  encryptionLabel,
  encryptionMissingLabel,
  engineIdLabel,
  engineUnavailableLabel,
  type GenericResource,
  type TLSInfo,
} from '../proto/docker.ts';
import type { AssignmentsMessage__Output } from '../proto/generated/docker/swarmkit/v1/AssignmentsMessage.ts';
import type { Config__Output } from '../proto/generated/docker/swarmkit/v1/Config.ts';
import type { Network__Output } from '../proto/generated/docker/swarmkit/v1/Network.ts';
import type { NetworkAttachment__Output } from '../proto/generated/docker/swarmkit/v1/NetworkAttachment.ts';
import type { NodeDescription } from '../proto/generated/docker/swarmkit/v1/NodeDescription.ts';
import type { Secret__Output } from '../proto/generated/docker/swarmkit/v1/Secret.ts';
import type { SessionMessage__Output } from '../proto/generated/docker/swarmkit/v1/SessionMessage.ts';
import type { SubscriptionMessage__Output } from '../proto/generated/docker/swarmkit/v1/SubscriptionMessage.ts';
import type { Task__Output } from '../proto/generated/docker/swarmkit/v1/Task.ts';
import type { TaskStatus, TaskStatus__Output } from '../proto/generated/docker/swarmkit/v1/TaskStatus.ts';
import { type TaskState, taskStateOfWire, taskStateRank, wireTaskState } from '../proto/task-state.ts';
import type { ContainerState, EngineDescription } from './engine/engine.ts';

export type WireTask = Task__Output;
export type WireSecret = Secret__Output;
export type WireConfig = Config__Output;
export type WireNetwork = Network__Output;
export type WireAttachment = NetworkAttachment__Output;
export type WireStatus = TaskStatus;
export type WireAssignments = AssignmentsMessage__Output;
export type WireSessionMessage = SessionMessage__Output;
export type WireSubscription = SubscriptionMessage__Output;
export type WireDescription = NodeDescription;

/** A task's observed status as the agent keeps it. */
export interface AgentStatus {
  readonly state: TaskState;
  /** Docker's word for the step, e.g. "started". */
  readonly message: string;
  /** Why it waits or failed; empty when all is well. */
  readonly err: string;
  /** Milliseconds since the epoch. */
  readonly atMs: number;
  readonly container?: { readonly id: string; readonly pid: number; readonly exitCode: number };
  readonly ports?: ContainerState['ports'];
}

/** What managers want of a task; `shutdown` stands for all that ends it. */
export type Desired = 'ready' | 'running' | 'shutdown';

const millisecond = 1_000_000;

/** Nanoseconds of a wire duration; undefined when it is absent. */
export function nanosecondsOf(
  duration: { seconds?: string | undefined; nanos?: number | undefined } | undefined,
): number | undefined {
  return duration === undefined ? undefined : Number(duration.seconds ?? 0) * 1e9 + (duration.nanos ?? 0);
}

/** Milliseconds of a wire duration or timestamp; undefined when it is absent. */
export function millisecondsOf(
  time: { seconds?: string | undefined; nanos?: number | undefined } | undefined,
): number | undefined {
  const nanoseconds = nanosecondsOf(time);
  return nanoseconds === undefined ? undefined : nanoseconds / millisecond;
}

/** A wire timestamp of milliseconds since the epoch. */
export function timestampOf(atMs: number): { seconds: string; nanos: number } {
  const seconds = Math.floor(atMs / 1000);
  return { seconds: String(seconds), nanos: Math.round((atMs - seconds * 1000) * millisecond) };
}

/** A wire timestamp of RFC 3339 text with up to nanoseconds; undefined when it is none. */
export function timestampOfText(text: string): { seconds: string; nanos: number } | undefined {
  const parts = /^(.*:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/.exec(text);
  const atMs = parts === null ? Number.NaN : Date.parse(`${parts[1]}${parts[3]}`);
  if (parts === null || Number.isNaN(atMs)) return undefined;
  return { seconds: String(atMs / 1000), nanos: Number((parts[2] ?? '').padEnd(9, '0')) };
}

/** What the managers want, from a task's wire form. */
export function desiredOf(task: WireTask): Desired {
  const desired = taskStateRank[taskStateOfWire(task.desired_state)];
  if (desired >= taskStateRank.shutdown) return 'shutdown';
  return desired >= taskStateRank.running ? 'running' : 'ready';
}

/** The status that a manager last knew of a task. */
export function statusOfWire(status: TaskStatus__Output | undefined): AgentStatus {
  return {
    state: taskStateOfWire(status?.state),
    message: status?.message ?? '',
    err: status?.err ?? '',
    atMs: millisecondsOf(status?.timestamp) ?? 0,
    ...(status?.container?.container_id && {
      container: {
        id: status.container.container_id,
        pid: status.container.pid ?? 0,
        exitCode: status.container.exit_code ?? 0,
      },
    }),
  };
}

/** A status as it is reported. */
export function statusToWire(status: AgentStatus, nodeId: string): WireStatus {
  const wire: WireStatus = {
    timestamp: timestampOf(status.atMs),
    state: wireTaskState(status.state),
    message: status.message,
    err: status.err,
    applied_by: nodeId,
    applied_at: timestampOf(status.atMs),
  };
  if (status.container !== undefined) {
    const { id, pid, exitCode } = status.container;
    wire.container = { container_id: id, pid, exit_code: exitCode };
    wire.runtime_status = 'container';
  }
  if (status.ports !== undefined && status.ports.length > 0) {
    wire.port_status = {
      ports: status.ports.map(({ protocol, targetPort, publishedPort }) => ({
        protocol: protocol === 'udp' ? 'UDP' : protocol === 'sctp' ? 'SCTP' : 'TCP',
        target_port: targetPort,
        published_port: publishedPort,
        publish_mode: 'HOST',
      })),
    };
  }
  return wire;
}

/** What a node says of itself. */
export interface NodeFacts {
  readonly hostname: string;
  /** The engine's last answer; undefined when it never gave one. */
  readonly engine: EngineDescription | undefined;
  /** Why the engine does not answer; undefined while it does. */
  readonly unavailableBecause: string | undefined;
  /** What the daemon was told of generic resources. */
  readonly genericResources: readonly GenericResource[];
  /** Where the traffic of networks comes from; undefined where that is the node's own address. */
  readonly dataPathAddress?: string | undefined;
  /** `vxlan`: the node's networks reach other hosts; `proxy`: they do not, but published ports are answered. */
  readonly dataPlane?: 'vxlan' | 'proxy' | undefined;
  /** Why not, in words. */
  readonly dataPlaneMissing?: string | undefined;
  /** By what encrypted networks are encrypted; undefined: they can't be. */
  readonly encryption?: string | undefined;
  /** Why not, in words; undefined where it can, or has no networks between hosts. */
  readonly encryptionMissing?: string | undefined;
  /** What of the data plane works otherwise than on other hosts. */
  readonly dataPlaneLimits?: string | undefined;
}

/** A node's description. A node whose engine never answered has no resources, so that nothing is placed there. */
export function describeNode(facts: NodeFacts): WireDescription {
  const { hostname, engine, unavailableBecause, genericResources, dataPathAddress, dataPlane } = facts;
  // The label also tells managers that this is an agent of ours: it is there even before the engine answered.
  const labels: Record<string, string> = { ...engine?.labels, [engineIdLabel]: engine?.engineId ?? '' };
  labels[abilitiesLabel] = agentAbilities.join(',');
  if (unavailableBecause !== undefined) labels[engineUnavailableLabel] = unavailableBecause;
  if (dataPlane !== undefined) labels[dataPlaneLabel] = dataPlane;
  if (facts.encryption !== undefined) labels[encryptionLabel] = facts.encryption;
  if (facts.encryptionMissing !== undefined) labels[encryptionMissingLabel] = facts.encryptionMissing;
  if (facts.dataPlaneLimits !== undefined) labels[dataPlaneLimitsLabel] = facts.dataPlaneLimits;
  if (facts.dataPlaneMissing !== undefined) labels[dataPlaneMissingLabel] = facts.dataPlaneMissing;
  if (dataPathAddress !== undefined) labels[dataPathLabel] = dataPathAddress;
  return {
    hostname,
    platform: {
      architecture: engine?.platform.Architecture ?? '',
      os: engine?.platform.OS ?? '',
    },
    resources: {
      nano_cpus: String(engine?.nanoCpus ?? 0),
      memory_bytes: String(engine?.memoryBytes ?? 0),
      generic: genericOf(genericResources, engine?.genericResources ?? []).map(wireGenericResource),
    },
    engine: {
      engine_version: engine?.engineVersion ?? '',
      labels,
      plugins: (engine?.plugins ?? []).map(({ type, name }) => ({ type, name })),
    },
  };
}

/** Of each kind what the daemon was told, else what the engine tells. */
function genericOf(
  own: readonly GenericResource[],
  engine: readonly GenericResource[],
): readonly GenericResource[] {
  const kindOf = (one: GenericResource) => one.NamedResourceSpec?.Kind ?? one.DiscreteResourceSpec?.Kind;
  const told = new Set(own.map(kindOf));
  return [...own, ...engine.filter((one) => !told.has(kindOf(one)))];
}

type WireGenericResource = NonNullable<NonNullable<WireDescription['resources']>['generic']>[number];

function wireGenericResource(resource: GenericResource): WireGenericResource {
  const { NamedResourceSpec: named, DiscreteResourceSpec: discrete } = resource;
  if (named) return { named_resource_spec: { kind: named.Kind, value: named.Value } };
  return { discrete_resource_spec: { kind: discrete?.Kind ?? '', value: String(discrete?.Value ?? 0) } };
}

/** The certificate's issuer as it is told to managers. */
export function wireTlsInfo(info: TLSInfo): NonNullable<WireDescription['tls_info']> {
  return {
    trust_root: Buffer.from(info.TrustRoot),
    cert_issuer_subject: Buffer.from(info.CertIssuerSubject, 'base64'),
    cert_issuer_public_key: Buffer.from(info.CertIssuerPublicKey, 'base64'),
  };
}
