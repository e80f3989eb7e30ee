/**
 * A worker that no manager answers any more, for they are at other addresses since a restore: `swarm join` with a
 * token of its own cluster tells it where they are. Its identity, its tasks and their containers stay as they are.
 */
import type { Agent } from '../agent/agent.ts';
import { rootDigestOf } from '../proto/certificate.ts';
import type { TLSInfo } from '../proto/docker.ts';
import { ShoalError } from '../proto/errors.ts';
import { parseJoinToken } from '../proto/identity.ts';
import { type Clock, delay } from '../proto/ports.ts';
import type { State } from './daemon-state.ts';

const patienceMs = 20_000;
const askAgainMs = 1_000;
const pollMs = 50;

/** Whether the node is a worker without a session, and `token` one of the cluster whose root it trusts. */
export function isLostWorker(
  state: State,
  root: TLSInfo | undefined,
  token: string,
): state is Extract<State, { kind: 'member' }> {
  if (state.kind !== 'member' || state.manager || state.agent.session.kind === 'established') return false;
  return root !== undefined && parseJoinToken(token).rootDigest === rootDigestOf(root.TrustRoot);
}

/** Resolves when one of the managers at `addresses` has taken the agent in; throws 'unavailable' with the reason. */
export async function findManagers(
  agent: Pick<Agent, 'session' | 'leaderHint'>,
  addresses: readonly string[],
  clock: Clock,
): Promise<void> {
  const end = clock.monotonicMs() + patienceMs;
  let reason = '';
  for (let turn = 0; clock.monotonicMs() < end; turn += 1) {
    const address = addresses[turn % addresses.length]!;
    agent.leaderHint(address);
    const askAgainAt = clock.monotonicMs() + askAgainMs;
    while (clock.monotonicMs() < askAgainAt) {
      const { session } = agent;
      if (session.kind === 'established') return;
      if (session.kind === 'connecting') reason = session.reason;
      await delay(clock, pollMs);
    }
  }
  throw new ShoalError(
    'unavailable',
    `this worker was told of ${addresses.join(', ')} and found no manager of its cluster there within ${patienceMs / 1000} s: ${reason}. If the cluster no longer knows this node, run \`shoal swarm leave --force\` and join it anew`,
  );
}
