/**
 * How many tasks a service that is scaled by what they use has after an update. Whoever deploys a file again, or changes an
 * image, says again how many there once were, and does not mean to undo what came of it since; another number is meant.
 */
import type { Service, ServiceSpec } from '../../proto/docker.ts';
import { autoscaleOptions } from './autoscale-options.ts';
import { scaleOf, withScale } from './scale.ts';

/** `spec`, which is to be `service`'s, with the number of tasks that there is, unless it asks for another. */
export function withKeptScale(service: Service, spec: ServiceSpec): ServiceSpec {
  const isSaidAgain = scaleOf(spec.Mode) === service.Private.Autoscale?.Asked;
  return isSaidAgain ? withPresentScale(service, spec) : spec;
}

/** As withKeptScale, for a spec that was the service's before: nobody asks for the number of then. */
export function withPresentScale(service: Service, spec: ServiceSpec): ServiceSpec {
  const current = scaleOf(service.Spec.Mode);
  const isScaled = service.Private.Autoscale && autoscaleOptions(spec.Labels ?? {}) !== undefined;
  return isScaled && current !== undefined ? { ...spec, Mode: withScale(spec.Mode, current) } : spec;
}

/** What is remembered of the scaling when `spec` (as withKeptScale has it) becomes the service's. */
export function keptAutoscale(service: Service, spec: ServiceSpec): Service['Private']['Autoscale'] {
  const state = service.Private.Autoscale;
  const asked = scaleOf(spec.Mode);
  if (!state || asked === undefined || autoscaleOptions(spec.Labels ?? {}) === undefined) return undefined;
  return asked === scaleOf(service.Spec.Mode) ? state : { ...state, Asked: asked };
}
