/**
 * A worker that no manager answers any more, for they are at other addresses since a restore: `swarm join` with a
 * token of its own cluster tells it where they are. Its identity, its tasks and their containers stay as they are.
 *
 * Its own cluster is the one whose root it trusts. That root may have been replaced since: the managers then show
 * certificates that lead to the root it knows as well, and tell it of the new one, which is the token's.
 */
import type { Agent } from '../agent/agent.ts';
import { rootDigestOf } from '../proto/certificate.ts';
import type { TLSInfo } from '../proto/docker.ts';
import { ShoalError } from '../proto/errors.ts';
import { parseJoinToken } from '../proto/identity.ts';
import { type Clock, delay } from '../proto/ports.ts';
import type { State } from './daemon-state.ts';

const patienceMs = 20_000;
/** With a token of a root that it does not trust, which is most likely another cluster's. */
const otherRootPatienceMs = 5_000;
const askAgainMs = 1_000;
const pollMs = 50;

export interface Told {
  readonly addresses: readonly string[];
  readonly token: string;
  /** What the node trusts now. */
  readonly trusted: () => TLSInfo | undefined;
}

/** Whether the node is a worker without a session. */
export function isLostWorker(state: State): state is Extract<State, { kind: 'member' }> {
  return state.kind === 'member' && !state.manager && state.agent.session.kind !== 'established';
}

/**
 * Resolves when a manager of the token's cluster has taken the agent in. Throws 'unavailable' with the reason, and
 * 'already-in-swarm' when the token is of another root to the end.
 */
export async function findManagers(
  agent: Pick<Agent, 'session' | 'leaderHint'>,
  { addresses, token, trusted }: Told,
  clock: Clock,
): Promise<void> {
  const { rootDigest } = parseJoinToken(token);
  const isTrusted = (): boolean => {
    const root = trusted()?.TrustRoot;
    return root !== undefined && rootDigestOf(root) === rootDigest;
  };
  const end = clock.monotonicMs() + (isTrusted() ? patienceMs : otherRootPatienceMs);
  let reason = 'no answer';
  for (let turn = 0; clock.monotonicMs() < end; turn += 1) {
    const address = addresses[turn % addresses.length]!;
    if (agent.session.kind !== 'established') agent.leaderHint(address);
    const askAgainAt = clock.monotonicMs() + askAgainMs;
    while (clock.monotonicMs() < askAgainAt) {
      const { session } = agent;
      if (session.kind === 'established' && isTrusted()) return;
      if (session.kind === 'connecting') reason = session.reason;
      await delay(clock, pollMs);
    }
  }
  if (isTrusted()) {
    throw new ShoalError(
      'unavailable',
      `this worker was told of ${addresses.join(', ')} and found no manager of its cluster there within ${patienceMs / 1000} s: ${reason}. If the cluster no longer knows this node, run \`shoal swarm leave --force\` and join it anew`,
    );
  }
  throw new ShoalError(
    'already-in-swarm',
    `This node is already part of a swarm, whose managers it has lost, and the token is not of the root certificate that it trusts. If it is of its own swarm, restored from a backup from before that root was made, or of another one: run \`shoal swarm leave --force\`, then join again; its tasks are run anew. (${addresses.join(', ')}: ${reason})`,
  );
}
