/** What the simulated engine reads from a request for a container. */
import type { ContainerRequest, ContainerState } from './engine.ts';
import { type HealthConfig, healthCheckOf } from './health-check.ts';

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

/** How its health is checked, as an engine tells that it took it; one that knows no start interval drops what was asked. */
export function healthCheckIn(
  request: ContainerRequest,
  knowsStartInterval: boolean,
): Pick<ContainerState, 'healthCheck'> {
  const found = healthCheckOf(request.config as HealthConfig);
  return found
    ? { healthCheck: { ...found, hasStartInterval: found.hasStartInterval && knowsStartInterval } }
    : {};
}
