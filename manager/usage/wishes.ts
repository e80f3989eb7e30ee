/** What agents are to measure: pure, from the services that are scaled by it. */
import type { Service } from '../../proto/docker.ts';
import type { UsageMetric } from '../../proto/generated/shoal/v1/UsageMetric.ts';
import type { UsageWishes } from '../../proto/generated/shoal/v1/UsageWishes.ts';
import type { ServiceId } from '../../proto/ids.ts';
import { autoscaleOptions, measuredService, measureEveryMs, metricKey } from '../store/autoscale-options.ts';
import type { View } from '../store/store.ts';

/** The wishes of the services `scaled`, each service and each metric once. */
export function wishesOf(view: View, scaled: Iterable<ServiceId>): UsageWishes {
  const wishes = new Map<ServiceId, Map<string, UsageMetric>>();
  for (const id of scaled) {
    const service = view.get('service', id);
    const options = service && autoscaleOptions(service.Spec.Labels);
    const measured = options && measuredService(view, service, options);
    if (!measured) continue;
    const metrics = wishes.get(measured.ID) ?? new Map<string, UsageMetric>();
    wishes.set(measured.ID, metrics);
    const { metric } = options;
    const key = metricKey(options);
    if (metric.kind === 'prometheus' && key !== undefined)
      metrics.set(key, { key, name: metric.name, port: options.port ?? 0, path: options.path });
  }
  return {
    period_ms: measureEveryMs,
    wishes: [...wishes].map(([service_id, metrics]) => ({ service_id, metrics: [...metrics.values()] })),
  };
}

/** Whether a service is scaled by what tasks use. */
export function isScaled(service: Service): boolean {
  return autoscaleOptions(service.Spec.Labels) !== undefined;
}
