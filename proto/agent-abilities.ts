/**
 * What a service can ask of the agent of a node that not every version of ours can do: each agent names what it can in a
 * label of its node, so that managers of a newer version neither place tasks nor publish ports where the service would
 * silently have less than it asked for. Stock engines have no such label, nor have agents of 0.1.0.
 */
import type { Labels } from './docker.ts';

/** Label that our agents put into Engine.Labels: their abilities, separated by commas. */
export const abilitiesLabel = 'shoal.agent.abilities';

/**
 * - `proxy-protocol`: tells tasks the client's address by a header on published ports (shoal.ingress=proxy-protocol)
 * - `privileges`: gives containers devices, privileges, shared memory, modes of ipc and pid
 * - `stop-on-isolation`: stops tasks by itself when it has lost its managers
 */
export const agentAbilities = ['proxy-protocol', 'privileges', 'stop-on-isolation'] as const;
export type AgentAbility = (typeof agentAbilities)[number];

/** Whether the agent of a node with these engine labels says that it can. */
export function hasAbility(labels: Labels, ability: AgentAbility): boolean {
  return (labels[abilitiesLabel] ?? '').split(',').includes(ability);
}
