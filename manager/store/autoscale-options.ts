/**
 * How a service is scaled by what its tasks use: labels `shoal.autoscale.*`, read together and checked against each other.
 * What each value may be says service-options.ts.
 */
import type { Labels, Service, ServiceSpec } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import {
  namesOfDependency,
  optionLabel,
  optionPrefix,
  type ServiceOptions,
  serviceOption,
} from './service-options.ts';
import type { View } from './store.ts';

/** How often agents measure, and each service is looked at. */
export const measureEveryMs = 5_000;

/** What one task is to use; `percent` of what it reserves, else of its limit. */
export type AutoscaleTarget = ServiceOptions['autoscale.target'];

export interface AutoscaleOptions {
  readonly min: number;
  readonly max: number;
  readonly metric: ServiceOptions['autoscale.metric'];
  readonly target: NonNullable<AutoscaleTarget>;
  readonly upWindowMs: number;
  readonly downWindowMs: number;
  readonly cooldownMs: number;
  /** Name of the service whose tasks are measured, as written; undefined: its own. */
  readonly source: string | undefined;
  /** Where a task serves its metrics. */
  readonly port: number | undefined;
  readonly path: string;
}

const defaultTargets = {
  cpu: { kind: 'percent', value: 70 },
  memory: { kind: 'percent', value: 80 },
} as const;

/** The settings of a stored service; undefined when it is not to be scaled, or not by labels that this version takes. */
export function autoscaleOptions(labels: Labels): AutoscaleOptions | undefined {
  const max = serviceOption(labels, 'autoscale.max');
  if (max === undefined) return undefined;
  const metric = serviceOption(labels, 'autoscale.metric');
  const target =
    serviceOption(labels, 'autoscale.target') ??
    (metric.kind === 'prometheus' ? undefined : defaultTargets[metric.kind]);
  if (target === undefined) return undefined;
  return {
    min: serviceOption(labels, 'autoscale.min'),
    max,
    metric,
    target,
    upWindowMs: serviceOption(labels, 'autoscale.upWindow'),
    downWindowMs: serviceOption(labels, 'autoscale.downWindow'),
    cooldownMs: serviceOption(labels, 'autoscale.cooldown'),
    source: serviceOption(labels, 'autoscale.source'),
    port: serviceOption(labels, 'autoscale.port'),
    path: serviceOption(labels, 'autoscale.path'),
  };
}

/** The service whose tasks are measured: itself, or the one that it names, of its own stack first; undefined: not there. */
export function measuredService(
  view: View,
  service: Service,
  { source }: AutoscaleOptions,
): Service | undefined {
  if (source === undefined) return service;
  const names = namesOfDependency(service.Spec.Labels, { service: source, condition: 'service_started' });
  return names.map((name) => view.find('service', 'name', name)[0]).find((found) => found !== undefined);
}

/** What tells one metric of a task from another; undefined where none is asked for. */
export function metricKey({ metric, port, path }: AutoscaleOptions): string | undefined {
  return metric.kind === 'prometheus' ? `:${port}${path} ${metric.name}` : undefined;
}

/** What labels ask for that does not go together, or not with this service. Throws 'invalid-argument'. */
export function checkAutoscale(spec: ServiceSpec): void {
  const fault = faultOf(spec);
  if (fault === undefined) return;
  throw new ShoalError('invalid-argument', `ServiceSpec.Labels: ${fault}`);
}

function faultOf(spec: ServiceSpec): string | undefined {
  const { Labels: labels } = spec;
  const about = Object.keys(labels).find((label) => label.startsWith(`${optionPrefix}autoscale.`));
  if (about === undefined) return undefined;
  const label = (option: keyof ServiceOptions) => optionLabel(option);
  if (!spec.Mode.Replicated && !spec.Mode.ReplicatedJob)
    return `${about} is for services of mode replicated and replicated-job: the others have a task on each node`;
  const max = serviceOption(labels, 'autoscale.max');
  if (max === undefined) return `${about} says nothing without ${label('autoscale.max')}`;
  const metric = serviceOption(labels, 'autoscale.metric');
  const source = serviceOption(labels, 'autoscale.source');
  const min = serviceOption(labels, 'autoscale.min');
  if (min > max) return `${label('autoscale.min')} (${min}) is above ${label('autoscale.max')} (${max})`;
  if (min === 0 && source === undefined)
    return `${label('autoscale.min')}=0 needs ${label('autoscale.source')}, another service whose tasks are measured: without tasks of its own nothing would bring it back`;
  return metric.kind === 'prometheus' ? metricFault(labels) : usageFault(spec, metric.kind);
}

function metricFault(labels: Labels): string | undefined {
  const target = serviceOption(labels, 'autoscale.target');
  if (target?.kind !== 'amount')
    return `${optionLabel('autoscale.target')} must say how much of the metric is for one task, as a number above 0`;
  if (serviceOption(labels, 'autoscale.port') === undefined)
    return `${optionLabel('autoscale.metric')} needs ${optionLabel('autoscale.port')}, the port at which its tasks serve it`;
  return undefined;
}

function usageFault(spec: ServiceSpec, kind: 'cpu' | 'memory'): string | undefined {
  const { Labels: labels } = spec;
  for (const option of ['autoscale.port', 'autoscale.path', 'autoscale.source'] as const) {
    if (labels[optionLabel(option)] !== undefined)
      return `${optionLabel(option)} is for ${optionLabel('autoscale.metric')}=prometheus:NAME`;
  }
  const target = serviceOption(labels, 'autoscale.target') ?? defaultTargets[kind];
  if (kind === 'cpu' && target.kind !== 'percent')
    return `${optionLabel('autoscale.target')} of cpu must be a percentage, such as 70%`;
  if (kind === 'memory' && target.kind === 'amount')
    return `${optionLabel('autoscale.target')} of memory must be a percentage or a size, such as 80% or 200m`;
  const { Limits, Reservations } = spec.TaskTemplate.Resources ?? {};
  if (kind === 'memory' && target.kind === 'percent' && !(Reservations?.MemoryBytes || Limits?.MemoryBytes))
    return `${optionLabel('autoscale.target')} is a percentage of the memory that a task reserves, else of its limit, and the service has neither: set one, or give a size such as 200m`;
  return undefined;
}
