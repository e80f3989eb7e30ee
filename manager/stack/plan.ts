/**
 * A compiled stack held against what the cluster has: the changes that make it so, for one log entry, so
 * that a stack is deployed whole or not at all.
 *
 * In: the store, the compiled specs. Out: changes and a summary of them; none when nothing differs. Every
 * conflict is found before anything is changed, and told with its line.
 */
import {
  type Config,
  type ConfigSpec,
  type Labels,
  type Network,
  type NetworkSpec,
  type Secret,
  type SecretSpec,
  type Service,
  type ServiceSpec,
  type Stack,
  stackLabel,
} from '../../proto/docker.ts';
import { type ErrorCode, isShoalError, ShoalError } from '../../proto/errors.ts';
import type { ConfigId, NetworkId, NewId, RevisionId, SecretId, StackId } from '../../proto/ids.ts';
import { type Change, newMeta } from '../store/change.ts';
import { replaceObject, rotateService, withVersions } from '../store/data-version.ts';
import { circleOf, describeCircle } from '../store/dependencies.ts';
import { describePortConflict } from '../store/endpoint.ts';
import { describeSubnetConflict } from '../store/ip.ts';
import { withKeptScale } from '../store/kept-scale.ts';
import { sameServiceSpec, sameValue } from '../store/normalize.ts';
import { createServiceChanges, updateServiceChanges } from '../store/service-change.ts';
import type { View } from '../store/store.ts';
import type { CompiledStack } from './compose.ts';
import { withDeployment } from './deployments.ts';

const engineNetworks = new Set(['host', 'none', 'bridge']);

export type StackObjectKind = 'service' | 'network' | 'secret' | 'config';

export interface StackObjectName {
  readonly kind: StackObjectKind;
  readonly name: string;
}

export interface StackSummary {
  readonly created: readonly StackObjectName[];
  readonly updated: readonly StackObjectName[];
  readonly removed: readonly StackObjectName[];
  readonly unchanged: readonly StackObjectName[];
  /** Those of the files, and what a deploy can't change. */
  readonly warnings: readonly string[];
}

export interface PlanOptions {
  /** Whether services of the stack that the files no longer have are removed. */
  readonly prune: boolean;
  /** ms since the epoch. */
  readonly now: number;
  readonly newId: NewId;
  /** Who deploys. */
  readonly by?: string;
  /** Further checks of a spec that is about to be stored; what they throw is told with its line. */
  readonly check?: {
    service?(spec: ServiceSpec): void;
    network?(spec: NetworkSpec): void;
    secret?(spec: SecretSpec): void;
    config?(spec: ConfigSpec): void;
  };
}

/**
 * The changes that deploy `compiled` as stack `stackName`. `source` is kept with the stack and must hold no
 * secret. Throws ShoalError with a line for each thing in the way: 'not-supported' for what Shoal can't do
 * yet, 'already-exists' for names that are others', 'invalid-argument' for the rest.
 */
export function planStack(
  view: View,
  stackName: string,
  compiled: CompiledStack,
  source: string,
  options: PlanOptions,
): { changes: Change[]; summary: StackSummary } {
  if (compiled.refusals.length > 0) throw new ShoalError('not-supported', compiled.refusals.join('\n'));
  const plan = new Plan(view, stackName, compiled, options);
  for (const spec of compiled.networks) plan.network(spec);
  for (const spec of compiled.secrets) plan.secret(spec);
  for (const spec of compiled.configs) plan.config(spec);
  for (const spec of compiled.services) plan.service(spec);
  plan.order(compiled.services);
  if (options.prune) plan.prune();
  plan.rotateOthers(compiled.services);
  plan.stack(source);
  return plan.finish();
}

class Plan {
  private readonly view: View;
  private readonly stackName: string;
  private readonly compiled: CompiledStack;
  private readonly options: PlanOptions;
  private readonly changes: Change[] = [];
  private readonly problems: { readonly code: ErrorCode; readonly message: string }[] = [];
  private readonly warnings: string[];
  private readonly done = {
    created: [] as StackObjectName[],
    updated: [] as StackObjectName[],
    removed: [] as StackObjectName[],
    unchanged: [] as StackObjectName[],
  };
  /** Name → id of what this plan creates or found to be the stack's. */
  private readonly networks = new Map<string, NetworkId>();
  private readonly secrets = new Map<string, SecretId>();
  private readonly configs = new Map<string, ConfigId>();
  /** Secrets and configs that have a new version: the id of the one before → that of the new one. */
  private readonly versions = new Map<string, SecretId | ConfigId>();
  /** Of the services that the files have. */
  private readonly revisions: RevisionId[] = [];

  constructor(view: View, stackName: string, compiled: CompiledStack, options: PlanOptions) {
    this.view = view;
    this.stackName = stackName;
    this.compiled = compiled;
    this.options = options;
    this.warnings = [...compiled.warnings];
  }

  network(spec: NetworkSpec): void {
    const existing = this.existing('network', spec.Name);
    if (existing) {
      this.networks.set(spec.Name, existing.ID);
      this.done.unchanged.push({ kind: 'network', name: spec.Name });
      if (!sameNetwork(existing.Spec, spec)) {
        const place = this.placeOf('network', spec.Name);
        this.warnings.push(
          `${place}not changed: a network can't be; remove the stack and deploy it again, or give it another name`,
        );
      }
      return;
    }
    this.attempt('network', spec.Name, () => {
      this.options.check?.network?.(spec);
      const conflict = describeSubnetConflict(this.view, spec);
      if (conflict) throw new ShoalError('invalid-argument', conflict);
    });
    const object: Network = {
      ...newMeta(this.options.newId<NetworkId>()),
      Spec: spec,
      IPAMOptions: { Driver: { Name: 'default' }, Configs: [] },
    };
    this.networks.set(spec.Name, object.ID);
    this.create({ op: 'create', kind: 'network', object }, 'network', spec.Name);
  }

  secret(spec: SecretSpec): void {
    const existing = this.existing('secret', spec.Name);
    if (existing) {
      this.secrets.set(spec.Name, existing.ID);
      const isUnchanged = this.hasSameContent('secret', existing, spec);
      if (isUnchanged)
        this.relabel('secret', existing, { ...existing, Spec: { ...existing.Spec, Labels: spec.Labels } });
      else {
        this.attempt('secret', spec.Name, () => this.options.check?.secret?.(spec));
        this.secrets.set(spec.Name, this.newVersion('secret', existing, spec) as SecretId);
      }
      return;
    }
    this.attempt('secret', spec.Name, () => this.options.check?.secret?.(spec));
    const object: Secret = { ...newMeta(this.options.newId<SecretId>()), Spec: spec };
    this.secrets.set(spec.Name, object.ID);
    this.create({ op: 'create', kind: 'secret', object }, 'secret', spec.Name);
  }

  config(spec: ConfigSpec): void {
    const existing = this.existing('config', spec.Name);
    if (existing) {
      this.configs.set(spec.Name, existing.ID);
      const isUnchanged = this.hasSameContent('config', existing, spec);
      if (isUnchanged)
        this.relabel('config', existing, { ...existing, Spec: { ...existing.Spec, Labels: spec.Labels } });
      else {
        this.attempt('config', spec.Name, () => this.options.check?.config?.(spec));
        this.configs.set(spec.Name, this.newVersion('config', existing, spec) as ConfigId);
      }
      return;
    }
    this.attempt('config', spec.Name, () => this.options.check?.config?.(spec));
    const object: Config = { ...newMeta(this.options.newId<ConfigId>()), Spec: spec };
    this.configs.set(spec.Name, object.ID);
    this.create({ op: 'create', kind: 'config', object }, 'config', spec.Name);
  }

  service(compiledSpec: ServiceSpec): void {
    const { Name } = compiledSpec;
    const { now, newId, by, check } = this.options;
    const existing = this.existing('service', Name);
    const resolved = withKept(this.resolve(compiledSpec), existing);
    const spec = existing ? withKeptScale(existing, resolved) : resolved;
    if (existing && sameServiceSpec(existing.Spec, spec)) {
      this.done.unchanged.push({ kind: 'service', name: Name });
      this.revisions.push(existing.Private.RevisionID);
      return;
    }
    const carried = existing && withVersions(existing.Spec, this.versions);
    if (existing && carried !== existing.Spec && sameServiceSpec(carried ?? spec, spec)) {
      this.revisions.push(this.rotate(existing, spec));
      return;
    }
    this.attempt('service', Name, () => {
      // What can't be resolved is told already; checking the rest would only say so again.
      if (this.problems.length === 0) check?.service?.(spec);
      const conflict = describePortConflict(this.view, spec, existing?.ID);
      if (conflict) throw new ShoalError('invalid-argument', conflict);
      const author = { by: by ?? '', what: 'stack deploy' };
      const { changes, service } = existing
        ? updateServiceChanges(this.view, existing, { spec }, now, newId, author)
        : createServiceChanges(spec, now, newId, author);
      this.changes.push(...changes);
      this.revisions.push(service.Private.RevisionID);
      this.done[existing ? 'updated' : 'created'].push({ kind: 'service', name: Name });
    });
  }

  /** Services that wait for each other in a circle would never start. */
  order(specs: readonly ServiceSpec[]): void {
    const circle = circleOf(this.view, specs);
    if (circle) this.problem('invalid-argument', 'service', circle[0]!, describeCircle(circle));
  }

  /** Removes the stack's services that the files have no more. */
  prune(): void {
    const kept = new Set(this.compiled.services.map((spec) => spec.Name));
    for (const service of this.view.find('service', 'stack', this.stackName)) {
      if (kept.has(service.Spec.Name)) continue;
      this.changes.push({ op: 'remove', kind: 'service', id: service.ID });
      this.done.removed.push({ kind: 'service', name: service.Spec.Name });
    }
  }

  /** A service that changes in versions of secrets and configs alone; answers the revision that it has then. */
  private rotate(existing: Service, spec: ServiceSpec): RevisionId {
    const { now, newId, by } = this.options;
    const author = { by: by ?? '', what: 'stack deploy' };
    const rotated = rotateService(this.view, existing, spec, now, newId, author);
    const { Name } = existing.Spec;
    this.changes.push(...rotated.changes);
    this.done[rotated.rotation === 'none' ? 'unchanged' : 'updated'].push({ kind: 'service', name: Name });
    if (rotated.rotation === 'none')
      this.warnings.push(`service ${Name} keeps the versions that it has (shoal.rotate=none)`);
    return rotated.revision;
  }

  /** Services that the files do not have, or not as part of this stack, and that use what has a new version. */
  rotateOthers(services: readonly ServiceSpec[]): void {
    const own = new Set(
      [...services, ...this.done.removed.map(({ name: Name }) => ({ Name }))].map(({ Name }) => Name),
    );
    const { now, newId, by } = this.options;
    for (const [from] of this.versions) {
      const users = [
        ...this.view.find('service', 'secret', from),
        ...this.view.find('service', 'config', from),
      ];
      for (const service of users) {
        if (own.has(service.Spec.Name)) continue;
        own.add(service.Spec.Name);
        const spec = withVersions(service.Spec, this.versions);
        const author = { by: by ?? '', what: `stack deploy of ${this.stackName}` };
        const { changes } = rotateService(this.view, service, spec, now, newId, author);
        this.changes.push(...changes);
        if (changes.length > 0) this.done.updated.push({ kind: 'service', name: service.Spec.Name });
      }
    }
  }

  /** Keeps the source, and the deployments before it. */
  stack(source: string): void {
    const existing = this.view.find('stack', 'name', this.stackName)[0];
    const deployment = {
      by: this.options.by ?? '',
      what: this.inWords(),
      now: this.options.now,
      revisions: this.revisions,
    };
    if (!existing) {
      const Spec = { Name: this.stackName, Labels: {} };
      const empty: Stack = { ...newMeta(this.options.newId<StackId>()), Spec, Source: source, History: [] };
      this.changes.push({ op: 'create', kind: 'stack', object: withDeployment(empty, source, deployment) });
    } else if (existing.Source !== source || this.changes.length > 0) {
      const object = withDeployment(existing, source, deployment);
      this.changes.push({ op: 'update', kind: 'stack', object });
    }
  }

  /** What this deployment does, short. */
  private inWords(): string {
    const told = (['created', 'updated', 'removed'] as const).flatMap((verb) =>
      this.done[verb].length === 0 ? [] : [`${verb} ${this.done[verb].map(({ name }) => name).join(', ')}`],
    );
    return told.join('; ') || 'the file is written otherwise, and means the same';
  }

  finish(): { changes: Change[]; summary: StackSummary } {
    const [first] = this.problems;
    if (first) {
      const messages = new Set(this.problems.map((problem) => problem.message));
      throw new ShoalError(first.code, [...messages].join('\n'));
    }
    return { changes: this.changes, summary: { ...this.done, warnings: this.warnings } };
  }

  // -------------------------------------------------------------- what is there

  /** The object of that name, if it is this stack's, or nobody's; one of another stack is a problem. */
  private existing<K extends StackObjectKind>(kind: K, name: string) {
    const found = this.view.find(kind, 'name', name)[0];
    if (!found) return undefined;
    const owner = (found.Spec.Labels as Labels)[stackLabel];
    const isAdopted = owner === undefined && (kind === 'secret' || kind === 'config');
    if (owner !== this.stackName && !isAdopted) {
      const whose = owner === undefined ? 'is not part of a stack' : `belongs to stack ${owner}`;
      const hint =
        kind === 'service'
          ? 'remove it, or choose another name'
          : 'choose another name, or declare it external';
      this.problem('already-exists', kind, name, `${kind} ${name} exists already and ${whose}: ${hint}`);
    }
    return found;
  }

  private hasSameContent(
    kind: 'secret' | 'config',
    existing: Secret | Config,
    spec: SecretSpec | ConfigSpec,
  ): boolean {
    const kindOf = ({ Driver, Templating }: SecretSpec) => ({ Driver, Templating });
    if (!sameValue(kindOf(existing.Spec), kindOf(spec))) {
      const message = `${kind} ${spec.Name} has another driver than before, which can't be changed; give it a new name (name: ${spec.Name}_2), or remove it first`;
      this.problem('invalid-argument', kind, spec.Name, message);
      return true;
    }
    return (existing.Spec.Data ?? '') === (spec.Data ?? '');
  }

  /** Another content is a new version, under the same name; services that have the one before go over by their labels. */
  private newVersion(
    kind: 'secret' | 'config',
    existing: Secret | Config,
    spec: SecretSpec | ConfigSpec,
  ): SecretId | ConfigId {
    const { id, changes } = replaceObject(this.view, kind, existing, spec, this.options.newId);
    this.changes.push(...changes);
    this.versions.set(existing.ID, id);
    this.done.updated.push({ kind, name: spec.Name });
    return id;
  }

  private relabel(kind: 'secret', existing: Secret, next: Secret): void;
  private relabel(kind: 'config', existing: Config, next: Config): void;
  private relabel(kind: 'secret' | 'config', existing: Secret | Config, next: Secret | Config): void {
    const name = existing.Spec.Name;
    if (sameValue(existing.Spec.Labels, next.Spec.Labels)) this.done.unchanged.push({ kind, name });
    else {
      this.changes.push({ op: 'update', kind, object: next } as Change);
      this.done.updated.push({ kind, name });
    }
  }

  private create(change: Change, kind: StackObjectKind, name: string): void {
    this.changes.push(change);
    this.done.created.push({ kind, name });
  }

  // -------------------------------------------------------------- names to ids

  private resolve(spec: ServiceSpec): ServiceSpec {
    const task = spec.TaskTemplate;
    const container = task.ContainerSpec;
    const Networks = task.Networks?.map((attachment) => ({
      ...attachment,
      Target: this.networkId(attachment.Target),
    }));
    const Secrets = container.Secrets?.map((ref) => ({
      ...ref,
      SecretID: this.idOf('secret', ref.SecretName, this.secrets) as SecretId,
    }));
    const Configs = container.Configs?.map((ref) => ({
      ...ref,
      ConfigID: this.idOf('config', ref.ConfigName, this.configs) as ConfigId,
    }));
    return {
      ...spec,
      TaskTemplate: {
        ...task,
        ContainerSpec: { ...container, ...(Secrets ? { Secrets } : {}), ...(Configs ? { Configs } : {}) },
        ...(Networks ? { Networks } : {}),
      },
    };
  }

  private networkId(name: string): string {
    const known = this.networks.get(name) ?? this.view.find('network', 'name', name)[0]?.ID;
    if (known === undefined && !engineNetworks.has(name)) {
      this.problem(
        'invalid-argument',
        'network',
        name,
        `network "${name}" is declared as external, but could not be found. You need to create a swarm-scoped network before the stack is deployed`,
      );
    }
    return known ?? name;
  }

  private idOf(kind: 'secret' | 'config', name: string, own: ReadonlyMap<string, string>): string {
    const id = own.get(name) ?? this.view.find(kind, 'name', name)[0]?.ID;
    if (id === undefined) {
      this.problem(
        'invalid-argument',
        kind,
        name,
        `${kind} not found: ${name}: create it before the stack is deployed`,
      );
    }
    return id ?? '';
  }

  // -------------------------------------------------------------- complaints

  private attempt(kind: StackObjectKind, name: string, check: () => void): void {
    try {
      check();
    } catch (error) {
      if (!isShoalError(error)) throw error;
      this.problem(error.code, kind, name, error.message);
    }
  }

  private problem(code: ErrorCode, kind: StackObjectKind, name: string, message: string): void {
    this.problems.push({ code, message: this.placeOf(kind, name) + message });
  }

  private placeOf(kind: StackObjectKind, name: string): string {
    const place = this.compiled.places.get(`${kind} ${name}`);
    return place === undefined ? `${kind} ${name}: ` : `${place}: `;
  }
}

/**
 * What a deploy leaves as it is: the digest that the file's image was resolved to, with the platforms that
 * it is for, and the count of forced updates.
 */
function withKept(spec: ServiceSpec, existing: Service | undefined): ServiceSpec {
  if (!existing) return spec;
  const task = spec.TaskTemplate;
  const kept = existing.Spec.TaskTemplate;
  const asked = task.ContainerSpec.Image;
  const isPinned = kept.ContainerSpec.Image.startsWith(`${asked}@`);
  const Image = isPinned ? kept.ContainerSpec.Image : asked;
  const Platforms = isPinned ? kept.Placement?.Platforms : undefined;
  return {
    ...spec,
    TaskTemplate: {
      ...task,
      ContainerSpec: { ...task.ContainerSpec, Image },
      ...(Platforms ? { Placement: { ...task.Placement, Platforms } } : {}),
      ...(kept.ForceUpdate === undefined ? {} : { ForceUpdate: kept.ForceUpdate }),
    },
  };
}

function sameNetwork(a: NetworkSpec, b: NetworkSpec): boolean {
  const meaning = (spec: NetworkSpec) => ({
    Driver: spec.DriverConfiguration.Name,
    Options: spec.DriverConfiguration.Options ?? {},
    Internal: spec.Internal ?? false,
    Attachable: spec.Attachable ?? false,
    Configs: spec.IPAMOptions?.Configs ?? [],
    Labels: spec.Labels,
  });
  return sameValue(meaning(a), meaning(b));
}

/**
 * The changes that remove a stack: its services, secrets, configs, networks and itself. Throws ShoalError
 * 'not-found' when there is no such stack, 'in-use' when a service outside of it uses something of it.
 */
export function removeStack(view: View, stackName: string): { changes: Change[]; summary: StackSummary } {
  const stack = view.find('stack', 'name', stackName)[0];
  const services = view.find('service', 'stack', stackName);
  const own = new Set<string>(services.map((service) => service.ID));
  const kinds = ['secret', 'config', 'network'] as const;
  const objects = kinds.flatMap((kind) =>
    view.find(kind, 'stack', stackName).map(({ ID, Spec }) => ({ kind, id: ID, name: Spec.Name })),
  );
  if (!stack && services.length === 0 && objects.length === 0) {
    throw new ShoalError('not-found', `nothing found in stack: ${stackName}`);
  }
  const inUse = objects.flatMap(({ kind, id, name }) => {
    const others = view.find('service', kind, id).filter((service) => !own.has(service.ID));
    if (others.length === 0) return [];
    const names = others.map((service) => service.Spec.Name).join(', ');
    return [
      `${kind} ${name} is in use by ${names}, outside of stack ${stackName}: remove or update that first`,
    ];
  });
  if (inUse.length > 0) throw new ShoalError('in-use', inUse.join('\n'));
  const removed: StackObjectName[] = [
    ...services.map((service) => ({ kind: 'service' as const, name: service.Spec.Name })),
    ...objects.map(({ kind, name }) => ({ kind, name })),
  ];
  const changes: Change[] = [
    ...services.map((service): Change => ({ op: 'remove', kind: 'service', id: service.ID })),
    ...objects.map(({ kind, id }) => ({ op: 'remove', kind, id }) as Change),
    ...(stack ? [{ op: 'remove', kind: 'stack', id: stack.ID } as const] : []),
  ];
  return { changes, summary: { created: [], updated: [], removed, unchanged: [], warnings: [] } };
}
