/** What the simulated engine reads from a request for a container. */
import type { ContainerRequest } from './engine.ts';

/** Networks that every engine has. */
export const builtInNetworks = new Set(['host', 'none', 'bridge', 'default']);

/** The names of the networks that a container is to be in. */
export function networksOf(request: ContainerRequest): string[] {
  const networking = request.config.NetworkingConfig as
    | { EndpointsConfig?: Record<string, unknown> }
    | undefined;
  return Object.keys(networking?.EndpointsConfig ?? {});
}

/** Whether a container has a health check that is carried out. */
export function hasHealthCheck(request: ContainerRequest): boolean {
  const check = request.config.Healthcheck as { Test?: string[] } | undefined;
  return check?.Test !== undefined && check.Test.length > 0 && check.Test[0] !== 'NONE';
}
