/** What is told of a service that is taken as it is: parts of it that have no effect, or a bad one. */
import type { ServiceSpec } from '../../proto/docker.ts';
import { isZero } from './fields.ts';
import { mountFault } from './validate.ts';

/** The warnings of `spec`, which was read from `body`. */
export function serviceWarnings(body: unknown, spec: ServiceSpec): string[] {
  const endpoint = (body as { EndpointSpec?: { ExposedPorts?: unknown } } | null)?.EndpointSpec;
  const obsolete = isZero(endpoint?.ExposedPorts)
    ? []
    : ['EndpointSpec.ExposedPorts has no effect, as in Docker: publish ports with EndpointSpec.Ports'];
  const mounts = (spec.TaskTemplate.ContainerSpec?.Mounts ?? [])
    .map(mountFault)
    .filter((fault) => fault !== undefined)
    .map((fault) => `every task will be rejected by its engine: ${fault}`);
  const named = (spec.TaskTemplate.Resources?.Reservations?.GenericResources ?? [])
    .map((resource) => resource.NamedResourceSpec)
    .filter((resource) => resource !== undefined)
    .map(
      ({ Kind, Value }) =>
        `a service asks for an amount of ${Kind}: any one is reserved, be it ${Value} or not`,
    );
  return [...obsolete, ...mounts, ...named];
}
