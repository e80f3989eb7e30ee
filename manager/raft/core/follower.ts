/** The follower: follows its leader, and passes on to it what others ask. */
import { startElection } from './election.ts';
import { ProposalDropped } from './errors.ts';
import { handleAppend, handleHeartbeat, handleSnapshot } from './receive.ts';
import type { CoreState } from './state.ts';
import type { Message } from './types.ts';

export function stepFollower(core: CoreState, message: Message): void {
  switch (message.type) {
    case 'MsgProp':
      forwardProposal(core, message);
      return;
    case 'MsgApp':
      follow(core, message.from);
      handleAppend(core, message);
      return;
    case 'MsgHeartbeat':
      follow(core, message.from);
      handleHeartbeat(core, message);
      return;
    case 'MsgSnap':
      follow(core, message.from);
      handleSnapshot(core, message);
      return;
    case 'MsgTransferLeader':
      if (core.lead !== 0) core.messages.push({ ...message, to: core.lead, term: core.term });
      return;
    case 'MsgForgetLeader':
      // With lease-based reads the leader counts on this member not to elect another.
      if (core.config.readOnly !== 'lease-based') core.lead = 0;
      return;
    case 'MsgTimeoutNow':
      // No pre-vote: the leader itself asked for it.
      startElection(core, 'transfer');
      return;
    case 'MsgReadIndex':
      if (core.lead !== 0) core.messages.push(forwarded(core, message));
      return;
    case 'MsgReadIndexResp':
      core.readStates.push({ index: message.index ?? 0, context: message.context ?? new Uint8Array(0) });
      return;
  }
}

function follow(core: CoreState, leader: number): void {
  core.electionElapsed = 0;
  core.lead = leader;
}

/** Keeps the asker's name, for the answer goes there. Without a term: the leader's may have changed. */
function forwarded(core: CoreState, message: Message): Message {
  return { ...message, to: core.lead, from: message.from === 0 ? core.id : message.from, term: 0 };
}

function forwardProposal(core: CoreState, message: Message): void {
  if (core.lead === 0) {
    throw new ProposalDropped('no-leader', 'the managers have no leader at the moment; try again');
  }
  if (core.config.disableProposalForwarding === true) {
    throw new ProposalDropped('forwarding-disabled', 'this manager is not the leader');
  }
  core.messages.push(forwarded(core, message));
}
