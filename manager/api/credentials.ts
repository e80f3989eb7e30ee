/**
 * Credentials of registries: sent beside a service's spec, kept inside of it for the nodes that pull its
 * image, and never answered.
 */
import type { Request } from 'express';
import type { Service, ServiceSpec } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import { query } from './request.ts';

/** The credentials that a request carries; empty when it has none. */
export function registryAuthOf(request: Request): string {
  const header = request.headers['x-registry-auth'];
  return typeof header === 'string' ? header : '';
}

/** The credentials that an update names; else those that the service has, or had before. */
export function keptCredentials(request: Request, service: Service): string {
  const given = registryAuthOf(request);
  if (given !== '') return given;
  const from = query(request, 'registryAuthFrom');
  if (!['', 'spec', 'previous-spec'].includes(from)) {
    throw new ShoalError('invalid-argument', 'unsupported registryAuthFrom value');
  }
  if (from === 'previous-spec' && !service.PreviousSpec) {
    throw new ShoalError('invalid-argument', 'service does not have a previous spec');
  }
  return storedCredentials(from === 'previous-spec' ? service.PreviousSpec : service.Spec);
}

/** The credentials that a stored spec holds; empty when it has none. */
export function storedCredentials(spec: ServiceSpec | undefined): string {
  return spec?.TaskTemplate.ContainerSpec.PullOptions?.RegistryAuth ?? '';
}

/** The spec with credentials in it, unless they are empty. */
export function withCredentials(spec: ServiceSpec, RegistryAuth: string): ServiceSpec {
  if (RegistryAuth === '') return spec;
  const { TaskTemplate } = spec;
  const ContainerSpec = { ...TaskTemplate.ContainerSpec, PullOptions: { RegistryAuth } };
  return { ...spec, TaskTemplate: { ...TaskTemplate, ContainerSpec } };
}
