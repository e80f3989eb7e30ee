/** How long `swarm join` and `swarm init` wait to see the node at work before they answer. */
import type { Agent } from '../agent/agent.ts';
import { ShoalError } from '../proto/errors.ts';
import { type Clock, delay } from '../proto/ports.ts';

const joinWaitMs = 20_000;
/** A first manager answers without its agent, too: an engine that hangs must not hold up the cluster. */
const initWaitMs = 2_000;
const pollMs = 50;

/** Resolves when the agent has its session with the managers; throws 'timeout', in Docker's words, when not. */
export async function waitForSession(agent: Pick<Agent, 'session'>, clock: Clock): Promise<void> {
  if (await sessionWithin(joinWaitMs, agent, clock)) return;
  throw new ShoalError(
    'timeout',
    'Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the "docker info" command to see the current swarm status of your node.',
  );
}

/** Resolves when a new cluster's first node has told what it is, or soon without. */
export async function waitForFirstNode(agent: Pick<Agent, 'session'>, clock: Clock): Promise<void> {
  await sessionWithin(initWaitMs, agent, clock);
}

async function sessionWithin(boundMs: number, agent: Pick<Agent, 'session'>, clock: Clock): Promise<boolean> {
  const end = clock.monotonicMs() + boundMs;
  while (agent.session.kind !== 'established') {
    if (clock.monotonicMs() > end) return false;
    await delay(clock, pollMs);
  }
  return true;
}
