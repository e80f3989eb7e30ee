/** How long `swarm join` waits to see the node at work before it says that it goes on in the background. */
import type { Agent } from '../agent/agent.ts';
import { ShoalError } from '../proto/errors.ts';
import { type Clock, delay } from '../proto/ports.ts';

const joinWaitMs = 20_000;
const pollMs = 50;

/** Resolves when the agent has its session with the managers; throws 'timeout', in Docker's words, when not. */
export async function waitForSession(agent: Pick<Agent, 'session'>, clock: Clock): Promise<void> {
  const end = clock.monotonicMs() + joinWaitMs;
  while (agent.session.kind !== 'established') {
    if (clock.monotonicMs() > end) {
      throw new ShoalError(
        'timeout',
        'Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the "docker info" command to see the current swarm status of your node.',
      );
    }
    await delay(clock, pollMs);
  }
}
