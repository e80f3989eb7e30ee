/**
 * Objects of another cluster held against what this one has: the changes that make those that are missing, for one
 * log entry. In: the store, specs whose references are names. Out: changes, and what becomes of each object. What is
 * there already stays as it is, so that a second time changes nothing. What can't be taken is told with its reason,
 * and so is what needs it; the rest is taken.
 */
import {
  type ClusterNode,
  type ConfigSpec,
  type Labels,
  type NetworkSpec,
  type SecretSpec,
  type ServiceSpec,
  stackLabel,
} from '../../proto/docker.ts';
import { isShoalError, ShoalError } from '../../proto/errors.ts';
import type { ConfigId, NetworkId, NewId, SecretId, StackId } from '../../proto/ids.ts';
import { type Change, newMeta } from '../store/change.ts';
import { describeSubnetConflict } from '../store/ip.ts';
import { createServiceChanges } from '../store/service-change.ts';
import type { View } from '../store/store.ts';
import type { StackObjectKind, StackObjectName } from './plan.ts';

/** What is to be there. References among them are names; ids are of the other cluster and not looked at. */
export interface ImportedObjects {
  readonly networks: readonly NetworkSpec[];
  readonly configs: readonly ConfigSpec[];
  readonly secrets: readonly SecretSpec[];
  readonly services: readonly ServiceSpec[];
  /** Hostname → labels that its node is to have. */
  readonly nodeLabels: Readonly<Record<string, Labels>>;
}

export interface ImportOptions {
  /** ms since the epoch. */
  readonly now: number;
  readonly newId: NewId;
  /** Where it all comes from, for the stacks' source. */
  readonly origin: string;
  readonly check: {
    service(spec: ServiceSpec): void;
    network(spec: NetworkSpec): void;
    secret(spec: SecretSpec): void;
    config(spec: ConfigSpec): void;
  };
}

export interface Refusal extends StackObjectName {
  readonly reason: string;
}

export interface ImportSummary {
  readonly created: readonly StackObjectName[];
  /** There already, under that name. */
  readonly existing: readonly StackObjectName[];
  readonly refused: readonly Refusal[];
  /** Hostnames of nodes that get labels. */
  readonly labelled: readonly string[];
  /** Hostnames that no node has yet. */
  readonly absent: readonly string[];
  /** Names of stacks that are made. */
  readonly stacks: readonly string[];
}

/** Decides all of it. Never throws for an object: that is a refusal. */
export function planImport(
  view: View,
  objects: ImportedObjects,
  options: ImportOptions,
): { changes: Change[]; summary: ImportSummary } {
  const plan = new ImportPlan(view, options);
  for (const spec of objects.networks) plan.network(spec);
  for (const spec of objects.configs) plan.config(spec);
  for (const spec of objects.secrets) plan.secret(spec);
  for (const spec of objects.services) plan.service(spec);
  for (const [hostname, labels] of Object.entries(objects.nodeLabels)) plan.node(hostname, labels);
  plan.stacks();
  return { changes: plan.changes, summary: plan.summary };
}

const engineNetworks = new Set(['host', 'none', 'bridge']);

class ImportPlan {
  readonly changes: Change[] = [];
  readonly summary = {
    created: [] as StackObjectName[],
    existing: [] as StackObjectName[],
    refused: [] as Refusal[],
    labelled: [] as string[],
    absent: [] as string[],
    stacks: [] as string[],
  };
  private readonly view: View;
  private readonly options: ImportOptions;
  /** `kind name` → id of what this plan makes. */
  private readonly made = new Map<string, string>();
  private readonly stackNames = new Set<string>();

  constructor(view: View, options: ImportOptions) {
    this.view = view;
    this.options = options;
  }

  network(spec: NetworkSpec): void {
    this.take('network', spec, () => {
      this.options.check.network(spec);
      const conflict = describeSubnetConflict(this.view, spec);
      if (conflict) throw new ShoalError('invalid-argument', conflict);
      const ID = this.options.newId<NetworkId>();
      const IPAMOptions = { Driver: { Name: 'default' }, Configs: [] };
      this.changes.push({
        op: 'create',
        kind: 'network',
        object: { ...newMeta(ID), Spec: spec, IPAMOptions },
      });
      return ID;
    });
  }

  config(spec: ConfigSpec): void {
    this.take('config', spec, () => {
      this.options.check.config(spec);
      const ID = this.options.newId<ConfigId>();
      this.changes.push({ op: 'create', kind: 'config', object: { ...newMeta(ID), Spec: spec } });
      return ID;
    });
  }

  secret(spec: SecretSpec): void {
    this.take('secret', spec, () => {
      this.options.check.secret(spec);
      const ID = this.options.newId<SecretId>();
      this.changes.push({ op: 'create', kind: 'secret', object: { ...newMeta(ID), Spec: spec } });
      return ID;
    });
  }

  service(spec: ServiceSpec): void {
    this.take('service', spec, () => {
      const resolved = this.resolve(spec);
      this.options.check.service(resolved);
      const { service, changes } = createServiceChanges(resolved, this.options.now, this.options.newId);
      this.changes.push(...changes);
      return service.ID;
    });
  }

  /** Labels that the node has already stay as they are. */
  node(hostname: string, labels: Labels): void {
    const nodes = this.view.find('node', 'name', hostname);
    if (nodes.length === 0) this.summary.absent.push(hostname);
    for (const node of nodes) {
      const missing = Object.entries(labels).filter(([key]) => node.Spec.Labels[key] === undefined);
      if (missing.length === 0) continue;
      const Spec: ClusterNode['Spec'] = {
        ...node.Spec,
        Labels: { ...node.Spec.Labels, ...Object.fromEntries(missing) },
      };
      this.changes.push({ op: 'merge', kind: 'node', id: node.ID, fields: { Spec } });
      this.summary.labelled.push(hostname);
    }
  }

  /** A stack for each namespace of what was made, unless there is one. */
  stacks(): void {
    for (const name of this.stackNames) {
      if (this.view.find('stack', 'name', name).length > 0) continue;
      const object = {
        ...newMeta(this.options.newId<StackId>()),
        Spec: { Name: name, Labels: {} },
        Source: `# Imported from ${this.options.origin}; its compose file is not known there.\n`,
        History: [],
      };
      this.changes.push({ op: 'create', kind: 'stack', object });
      this.summary.stacks.push(name);
    }
  }

  private take(
    kind: StackObjectKind,
    spec: { readonly Name: string; readonly Labels: Labels },
    make: () => string,
  ): void {
    const name = spec.Name;
    if (this.view.find(kind, 'name', name).length > 0) {
      this.summary.existing.push({ kind, name });
      return;
    }
    try {
      this.made.set(`${kind} ${name}`, make());
      this.summary.created.push({ kind, name });
      const stack = spec.Labels[stackLabel];
      if (stack) this.stackNames.add(stack);
    } catch (error) {
      if (!isShoalError(error)) throw error;
      this.summary.refused.push({ kind, name, reason: error.message });
    }
  }

  private resolve(spec: ServiceSpec): ServiceSpec {
    const { TaskTemplate } = spec;
    const container = TaskTemplate.ContainerSpec;
    const Networks = TaskTemplate.Networks?.map((attachment) => ({
      ...attachment,
      Target: engineNetworks.has(attachment.Target)
        ? attachment.Target
        : this.idOf('network', attachment.Target),
    }));
    const Secrets = container.Secrets?.map((reference) => ({
      ...reference,
      SecretID: this.idOf('secret', reference.SecretName) as SecretId,
    }));
    const Configs = container.Configs?.map((reference) => ({
      ...reference,
      ConfigID: this.idOf('config', reference.ConfigName) as ConfigId,
    }));
    return {
      ...spec,
      TaskTemplate: {
        ...TaskTemplate,
        ContainerSpec: { ...container, ...(Secrets ? { Secrets } : {}), ...(Configs ? { Configs } : {}) },
        ...(Networks ? { Networks } : {}),
      },
    };
  }

  private idOf(kind: 'network' | 'secret' | 'config', name: string): string {
    const id = this.made.get(`${kind} ${name}`) ?? this.view.find(kind, 'name', name)[0]?.ID;
    if (id !== undefined) return id;
    throw new ShoalError('not-found', `it needs ${kind} ${name}, which is not here`);
  }
}
