/**
 * Which of the host's a service asks for, and what the cluster lets services have: nothing, unless its settings say so.
 * The setting is a label of the cluster's spec, for Docker's API has no field for it.
 */
import type { Labels, SwarmSpec } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { Privileges } from '../../proto/privileges.ts';
import { optionLabel, type ServiceOptions, serviceOption } from './service-options.ts';

/** Label of the cluster's spec: what services may have, as Grants with commas between, or `all`. */
export const allowLabel = 'shoal.allow-privileges';

export const grants = ['privileged', 'devices', 'security-opt', 'ipc', 'pid'] as const;
export type Grant = (typeof grants)[number];

const options = [
  'privileged',
  'devices',
  'securityOpt',
  'ipc',
  'pid',
  'shmSize',
  'gpu',
] as const satisfies readonly (keyof ServiceOptions)[];

/** What labels of a service ask for; undefined when that is nothing. */
export function privilegesOf(labels: Labels): Privileges | undefined {
  if (!options.some((option) => labels[optionLabel(option)] !== undefined)) return undefined;
  const devices = serviceOption(labels, 'devices');
  const securityOpt = serviceOption(labels, 'securityOpt');
  const ipc = serviceOption(labels, 'ipc');
  const shmBytes = serviceOption(labels, 'shmSize');
  const gpu = serviceOption(labels, 'gpu');
  const asked: Privileges = {
    ...(serviceOption(labels, 'privileged') && { privileged: true }),
    ...(devices.length > 0 && { devices }),
    ...(securityOpt.length > 0 && { securityOpt }),
    ...(ipc !== undefined && { ipc }),
    ...(serviceOption(labels, 'pid') && { pid: 'host' }),
    ...(shmBytes !== undefined && { shmBytes }),
    ...(gpu !== undefined && { gpu }),
  };
  return Object.keys(asked).length > 0 ? asked : undefined;
}

/** What the cluster has to allow for it; shared memory of the container's own, and what only takes away, need nothing. */
export function grantsFor(asked: Privileges): Grant[] {
  const needs: Record<Grant, boolean> = {
    privileged: asked.privileged === true,
    devices: asked.devices !== undefined || asked.gpu !== undefined,
    'security-opt': (asked.securityOpt ?? []).some((option) => option !== 'no-new-privileges'),
    ipc: asked.ipc === 'host',
    pid: asked.pid === 'host',
  };
  return grants.filter((grant) => needs[grant]);
}

/** Reads the setting. Throws 'invalid-argument' for what is none. */
export function readGrants(value: string): Grant[] {
  const words = value.split(',').map((word) => word.trim());
  if (value === 'all') return [...grants];
  if (value === 'none' || value === '') return [];
  const unknown = words.find((word) => !grants.some((grant) => grant === word));
  if (unknown === undefined) return grants.filter((grant) => words.includes(grant));
  throw new ShoalError(
    'invalid-argument',
    `Spec.Labels: ${allowLabel} must be all, none, or some of ${grants.join(', ')} with commas between, not ${JSON.stringify(value)}`,
  );
}

/** Refuses, in words, what the cluster does not let services have. Throws 'permission-denied'. */
export function requireGrants(cluster: SwarmSpec | undefined, labels: Labels): void {
  const asked = privilegesOf(labels);
  if (asked === undefined) return;
  const allowed = allowedBy(cluster);
  const missing = grantsFor(asked).filter((grant) => !allowed.includes(grant));
  if (missing.length === 0) return;
  const all = grants.filter((grant) => allowed.includes(grant) || missing.includes(grant));
  throw new ShoalError(
    'permission-denied',
    `this cluster does not let services have ${missing.join(', ')}: they reach out of their container. To allow it: shoal swarm update --allow-privileges ${all.join(',')}`,
  );
}

function allowedBy(cluster: SwarmSpec | undefined): readonly Grant[] {
  try {
    return readGrants(cluster?.Labels[allowLabel] ?? '');
  } catch {
    return [];
  }
}
