/**
 * What a service refers to, and the rule that it may only refer to what is there: kept here, where entries
 * are applied one after the other, for two writers that each looked before they wrote may race.
 */
import type { ServiceSpec } from '../../proto/docker.ts';
import { isPredefinedNetwork, networkOfTarget } from './attachment.ts';
import type { View } from './store.ts';

/** Kinds of objects that services refer to. */
export const referredKinds = ['network', 'secret', 'config'] as const;
export type ReferredKind = (typeof referredKinds)[number];

export interface Reference {
  readonly kind: ReferredKind;
  /** An id; for a network it may, from older clients, be its name. */
  readonly target: string;
  /** What a person calls it. */
  readonly name: string;
}

/** Everything of the cluster that a service refers to, each once, in the spec's order. */
export function referencesOf(spec: ServiceSpec): Reference[] {
  const { Networks, ContainerSpec } = spec.TaskTemplate;
  const found = new Map<string, Reference>();
  const note = (kind: ReferredKind, target: string, name: string): void => {
    if (!found.has(`${kind} ${target}`)) found.set(`${kind} ${target}`, { kind, target, name });
  };
  for (const { Target } of Networks ?? []) if (!isPredefinedNetwork(Target)) note('network', Target, Target);
  for (const { SecretID, SecretName } of ContainerSpec.Secrets ?? []) note('secret', SecretID, SecretName);
  for (const { ConfigID, ConfigName } of ContainerSpec.Configs ?? []) note('config', ConfigID, ConfigName);
  return [...found.values()];
}

/** Those of `spec`'s references that `before`, when there is one, has not. */
export function addedReferences(spec: ServiceSpec, before: ServiceSpec | undefined): Reference[] {
  if (before === spec) return [];
  const references = referencesOf(spec);
  if (before === undefined || references.length === 0) return references;
  const known = new Set(referencesOf(before).map(({ kind, target }) => `${kind} ${target}`));
  return references.filter(({ kind, target }) => !known.has(`${kind} ${target}`));
}

/** The first of `references` that is not in `view`. */
export function firstMissing(view: View, references: readonly Reference[]): Reference | undefined {
  return references.find(({ kind, target }) => {
    if (kind === 'network') return networkOfTarget(view, target) === undefined;
    return view.get(kind, target as never) === undefined;
  });
}
