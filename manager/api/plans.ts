/** A plan as it is shown, and its version: what a deploy that names it must come to as well. */
import { createHash } from 'node:crypto';
import type { ServiceSpec } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { SecretId } from '../../proto/ids.ts';
import type { Change } from '../store/change.ts';
import { withVersions } from '../store/data-version.ts';
import { differencesOf } from '../store/difference.ts';
import type { View } from '../store/store.ts';
import type { ManagedCluster, ServicePreview } from './contract.ts';

/** A service that changes, with what about it does. */
export type PlannedService = ServicePreview & { readonly Differences: readonly string[] };

export interface Plan {
  /** Names all that is shown but the nodes, which only the moment of placing decides. */
  readonly Version: string;
  readonly Services: readonly PlannedService[];
}

const versionLength = 16;

/** What `changes` would do. `shown` is what else is shown, and part of the version. Throws what refuses them. */
export function planOf(cluster: ManagedCluster, changes: readonly Change[], shown: unknown): Plan {
  const previews = changes.length === 0 ? [] : cluster.preview(changes);
  const Services = previews.map((one) => ({ ...one, Differences: differences(cluster.store, one, changes) }));
  const stable = Services.map(({ Replaced, Started, ...rest }) => ({
    ...rest,
    Replaced: Replaced.map(({ Task, Reason }) => [Task, Reason]),
    Started: Started.map(({ Task, Reason }) => [Task, Reason]),
  }));
  const specs = changes.flatMap((change) =>
    change.kind === 'service' && 'object' in change ? [withoutCredentials(change.object.Spec)] : [],
  );
  // What the changes start from: a service that was changed meanwhile has another revision.
  const base = changes.flatMap((change) => {
    if (change.kind !== 'service' || change.op === 'create' || change.op === 'merge') return [];
    const id = change.op === 'update' ? change.object.ID : change.id;
    return [cluster.store.get('service', id)?.Private.RevisionID];
  });
  // Of secrets only that they change: who sees the version could try what they hold.
  const contents = changes.flatMap((change) =>
    change.kind === 'config' && change.op === 'create' ? [change.object.Spec.Data] : [],
  );
  const digest = createHash('sha256').update(JSON.stringify([shown, stable, specs, base, contents]));
  return { Version: digest.digest('hex').slice(0, versionLength), Services };
}

/** Refuses to go on when what would be done is not what was shown. */
export function requirePlan(plan: Plan, version: string): void {
  if (plan.Version === version) return;
  throw new ShoalError(
    'failed-precondition',
    `plan ${version} is out of date: the cluster or the files have changed since it was shown, and now it would be ${plan.Version}; look at the plan again`,
  );
}

function differences(view: View, preview: ServicePreview, changes: readonly Change[]): string[] {
  if (preview.Action !== 'update') return [];
  const next = changes.find(
    (change) =>
      change.kind === 'service' && change.op === 'update' && change.object.Spec.Name === preview.Name,
  ) as { readonly object: { readonly Spec: ServiceSpec } } | undefined;
  const before = view.find('service', 'name', preview.Name)[0];
  // Ids of objects that the same entry creates are made anew each time.
  const fresh = changes.flatMap((change) =>
    change.op === 'create' && (change.kind === 'secret' || change.kind === 'config')
      ? [[change.object.ID as string, 'a new version' as SecretId] as const]
      : [],
  );
  return next && before ? differencesOf(before.Spec, withVersions(next.object.Spec, new Map(fresh))) : [];
}

/** In the order of a spec's fields as stored, which is that of the client; equal files make equal text. */
function withoutCredentials(spec: ServiceSpec): ServiceSpec {
  const { PullOptions: _secret, ...ContainerSpec } = spec.TaskTemplate.ContainerSpec;
  return withoutIds({ ...spec, TaskTemplate: { ...spec.TaskTemplate, ContainerSpec } });
}

/** Ids of objects that the same entry creates are made anew each time. */
function withoutIds(spec: ServiceSpec): ServiceSpec {
  const { TaskTemplate } = spec;
  const { Secrets, Configs } = TaskTemplate.ContainerSpec;
  return {
    ...spec,
    TaskTemplate: {
      ...TaskTemplate,
      Networks: [],
      ContainerSpec: {
        ...TaskTemplate.ContainerSpec,
        ...(Secrets ? { Secrets: Secrets.map((ref) => ({ ...ref, SecretID: '' as never })) } : {}),
        ...(Configs ? { Configs: Configs.map((ref) => ({ ...ref, ConfigID: '' as never })) } : {}),
      },
    },
  };
}
