/**
 * Back to an earlier deployment of a stack: its services as they were then, those that came since removed, for one
 * log entry. Networks, secrets and configs are left as they are; what a service of then needs must still be there.
 */
import type { Service, ServiceSpec, Stack } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { NewId, RevisionId } from '../../proto/ids.ts';
import type { Change } from '../store/change.ts';
import { describePortConflict } from '../store/endpoint.ts';
import { withPresentScale } from '../store/kept-scale.ts';
import { sameServiceSpec } from '../store/normalize.ts';
import { withPresentCredentials } from '../store/present-credentials.ts';
import { firstMissing, referencesOf } from '../store/references.ts';
import { createServiceChanges, updateServiceChanges } from '../store/service-change.ts';
import type { View } from '../store/store.ts';
import { deploymentsOf, withDeployment } from './deployments.ts';
import type { StackObjectName, StackSummary } from './plan.ts';

export interface RollbackOptions {
  readonly by: string;
  /** ms since the epoch. */
  readonly now: number;
  readonly newId: NewId;
}

/**
 * The changes that make stack `name` what deployment `to` made it. Throws ShoalError 'not-found' when the stack or the
 * deployment is not kept, 'failed-precondition' for what it needs and is gone.
 */
export function rollBackStack(
  view: View,
  name: string,
  to: number,
  options: RollbackOptions,
): { changes: Change[]; summary: StackSummary } {
  const stack = view.find('stack', 'name', name)[0];
  if (!stack)
    throw new ShoalError(
      'not-found',
      `stack ${name} was not deployed by shoal, and is not kept as a whole: roll back its services one by one (service history, service rollback --to)`,
    );
  const target = deploymentsOf(stack).find((one) => one.Number === to);
  if (!target) {
    const known = deploymentsOf(stack).map((one) => one.Number);
    throw new ShoalError(
      'not-found',
      `stack ${name} has no deployment ${to}: kept are ${known.join(', ') || 'none'}`,
    );
  }
  const author = { by: options.by, what: `stack rollback to ${to}` };
  const specs = (target.Revisions ?? []).map((id) => specOf(view, name, to, id));
  const changes: Change[] = [];
  const revisions: RevisionId[] = [];
  const done = { created: [] as string[], updated: [] as string[], unchanged: [] as string[] };
  for (const then of specs) {
    const existing = view.find('service', 'name', then.Name)[0];
    const spec = existing ? withPresentCredentials(existing, withPresentScale(existing, then)) : then;
    if (existing && sameServiceSpec(existing.Spec, spec)) {
      done.unchanged.push(spec.Name);
      revisions.push(existing.Private.RevisionID);
      continue;
    }
    checkNeeds(view, spec, existing);
    const next = existing
      ? updateServiceChanges(view, existing, { spec }, options.now, options.newId, author)
      : createServiceChanges(spec, options.now, options.newId, author);
    changes.push(...next.changes);
    revisions.push(next.service.Private.RevisionID);
    done[existing ? 'updated' : 'created'].push(spec.Name);
  }
  const kept = new Set(specs.map((spec) => spec.Name));
  const surplus = view.find('service', 'stack', name).filter((service) => !kept.has(service.Spec.Name));
  for (const service of surplus) changes.push({ op: 'remove', kind: 'service', id: service.ID });
  if (changes.length > 0) changes.push(record(stack, target.Source, revisions, options, author.what));
  const named = (names: readonly string[]) =>
    names.map((one): StackObjectName => ({ kind: 'service', name: one }));
  return {
    changes,
    summary: {
      created: named(done.created),
      updated: named(done.updated),
      unchanged: named(done.unchanged),
      removed: named(surplus.map((service) => service.Spec.Name)),
      warnings: [],
    },
  };
}

function record(
  stack: Stack,
  source: string,
  revisions: readonly RevisionId[],
  { by, now }: RollbackOptions,
  what: string,
): Change {
  return {
    op: 'update',
    kind: 'stack',
    object: withDeployment(stack, source, { by, what, now, revisions }),
  };
}

function specOf(view: View, stack: string, to: number, id: RevisionId): ServiceSpec {
  const revision = view.get('revision', id);
  if (!revision) {
    throw new ShoalError('failed-precondition', `stack ${stack}: a service of deployment ${to} is not kept`);
  }
  return revision.Spec;
}

function checkNeeds(view: View, spec: ServiceSpec, existing: Service | undefined): void {
  const missing = firstMissing(view, referencesOf(spec));
  if (missing) {
    throw new ShoalError(
      'failed-precondition',
      `service ${spec.Name} of then needs ${missing.kind} ${missing.name}, which was removed`,
    );
  }
  const conflict = describePortConflict(view, spec, existing?.ID);
  if (conflict) throw new ShoalError('invalid-argument', conflict);
}
