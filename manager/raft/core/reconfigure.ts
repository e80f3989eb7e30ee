/** Puts a committed membership change in force. */
import { releaseEarlyReads } from './leader-reads.ts';
import { changeMembership } from './membership.ts';
import { advanceCommit, broadcastAppend, sendAppend } from './replication.ts';
import type { CoreState } from './state.ts';
import type { ConfChangeV2, ConfState } from './types.ts';

/** The group from now on. Throws ConfChangeError for a change that does not fit the group as it is. */
export function reconfigure(core: CoreState, change: ConfChangeV2): ConfState {
  core.membership = changeMembership(
    { current: core.membership, lastIndex: core.log.lastIndex, limits: core.limits },
    change,
  );
  const { configuration, progress } = core.membership;
  if (core.role !== 'leader') return configuration;
  const own = progress.get(core.id);
  if (own === undefined || own.isLearner) {
    if (core.config.stepDownOnRemoval === true) core.becomeFollower(core.term, 0);
    return configuration;
  }
  // A smaller quorum may commit more; and newcomers need not wait for the next heartbeat.
  if (advanceCommit(core)) {
    releaseEarlyReads(core);
    broadcastAppend(core);
  } else {
    for (const [member, known] of progress) {
      if (member !== core.id) sendAppend(core, member, known, false);
    }
  }
  const { voters, votersOutgoing } = configuration;
  if (!voters.includes(core.leadTransferee) && !votersOutgoing.includes(core.leadTransferee)) {
    core.leadTransferee = 0;
  }
  return configuration;
}
