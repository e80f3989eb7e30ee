/** A container that has just been made, as an engine would tell it. */
import type { ContainerRequest, ContainerState } from './engine.ts';

/** Known without asking: nothing of it runs yet. */
export function createdContainer(id: string, request: ContainerRequest): ContainerState {
  return {
    id,
    name: request.name,
    labels: request.labels,
    phase: 'created',
    pid: 0,
    exitCode: 0,
    oomKilled: false,
    error: '',
    health: 'none',
    healthOutput: '',
    ports: [],
  };
}
