/**
 * What must hold of services that are scaled by what their tasks use: their number stays within its bounds, is not changed
 * again before the cooldown is over, whoever leads, and comes to rest at what the work asks for.
 */
import { type AutoscaleOptions, autoscaleOptions } from '../../../manager/store/autoscale-options.ts';
import { scaleOf } from '../../../manager/store/scale.ts';
import type { View } from '../../../manager/store/store.ts';
import type { Service } from '../../../proto/docker.ts';
import type { Happening, Watching } from './watch.ts';

/** A number out of bounds, which only its owner can ask for, is put right within this. */
const boundMs = 3_000;
/** Kubernetes' tolerance. */
const tolerance = 0.1;

export class ScalingInvariants {
  readonly #watching: Watching;
  /** Numbers that were out of bounds at the last look, and since when. */
  #outside = new Map<string, number>();

  constructor(watching: Watching) {
    this.#watching = watching;
  }

  happened({ event, entryNow }: Happening): void {
    if (event.kind !== 'service' || event.op !== 'update') return;
    const { object: service, previous } = event;
    const options = autoscaleOptions(service.Spec.Labels);
    const changedAt = service.Private.Autoscale?.ChangedAt;
    const before = previous?.Private.Autoscale?.ChangedAt;
    if (!previous || !options || changedAt === before) return;
    if (changedAt === undefined) {
      this.#watching.violate('scale-steady', `${service.Spec.Name} forgets when it was changed last`);
      return;
    }
    const [from, to] = [scaleOf(previous.Spec.Mode) ?? 0, scaleOf(service.Spec.Mode) ?? 0];
    const change = `${service.Spec.Name} goes from ${from} to ${to}`;
    const { violate, isSkewed } = this.#watching;
    if (!isWithin(options, to)) violate('scale-bounds', `${change}, of ${options.min} to ${options.max}`);
    // Without wrong clocks the time that is noted is the time that it is.
    if (!isSkewed() && Math.abs(changedAt - entryNow) > 1_000)
      violate('scale-steady', `${change} at ${entryNow}, and notes ${changedAt}`);
    if (!isWithin(options, from) || before === undefined) return;
    if (changedAt - before < options.cooldownMs)
      violate('scale-steady', `${change} ${changedAt - before} ms after the last, of ${options.cooldownMs}`);
  }

  /** At any moment; `steadyMs` as in ScheduleInvariants.look. */
  look(store: View, steadyMs: number): void {
    const before = this.#outside;
    this.#outside = new Map();
    const nowMs = this.#watching.nowMs();
    for (const service of store.list('service')) {
      const options = autoscaleOptions(service.Spec.Labels);
      const count = scaleOf(service.Spec.Mode) ?? 0;
      if (!options || isWithin(options, count)) continue;
      const sinceMs = before.get(service.ID) ?? nowMs;
      this.#outside.set(service.ID, sinceMs);
      if (Math.min(nowMs - sinceMs, steadyMs) > boundMs)
        this.#watching.violate(
          'scale-bounds',
          `${service.Spec.Name} is to have ${count} tasks, of ${options.min} to ${options.max}`,
        );
    }
  }
}

/** Whether a service has as many tasks as `work`, in tasks that are as busy as they should be, asks for. */
export function isScaledTo(service: Service, work: number): boolean {
  const options = autoscaleOptions(service.Spec.Labels);
  const count = scaleOf(service.Spec.Mode) ?? 0;
  if (!options) return true;
  const wanted = Math.min(options.max, Math.max(options.min, Math.ceil(work), 1));
  const isNear = count > 0 && Math.abs(work / count - 1) <= tolerance + 0.001;
  return isWithin(options, count) && (count === wanted || isNear);
}

function isWithin({ min, max }: AutoscaleOptions, count: number): boolean {
  return count >= min && count <= max;
}
