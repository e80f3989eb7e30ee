/** Leader: answers requests for a read point, its own and those of followers. */
import { broadcastHeartbeat } from './replication.ts';
import type { CoreState } from './state.ts';
import type { Message } from './types.ts';

const noBytes = new Uint8Array(0);

export function handleReadIndex(core: CoreState, request: Message): void {
  if (core.isSingleVoter) {
    answerRead(core, request, core.log.committed);
  } else if (hasCommittedInTerm(core)) {
    startRead(core, request);
  } else {
    // Until then its commit index may lag behind what the leader before it has acknowledged.
    core.earlyReads.push(request);
  }
}

/** To be called when the leader committed something. */
export function releaseEarlyReads(core: CoreState): void {
  if (core.earlyReads.length === 0 || !hasCommittedInTerm(core)) return;
  const requests = core.earlyReads;
  core.earlyReads = [];
  for (const request of requests) startRead(core, request);
}

/** A heartbeat that carried a read count was answered. */
export function confirmReads(core: CoreState, answer: Message): void {
  if (core.config.readOnly !== 'safe' || answer.context === undefined || answer.context.length === 0) return;
  core.reads.acknowledge(answer.from, answer.context);
  for (const { request, index } of core.reads.takeConfirmed(core.membership.configuration)) {
    answerRead(core, request, index);
  }
}

function hasCommittedInTerm(core: CoreState): boolean {
  return core.log.term(core.log.committed) === core.term;
}

function startRead(core: CoreState, request: Message): void {
  if (core.config.readOnly === 'lease-based') {
    answerRead(core, request, core.log.committed);
    return;
  }
  core.reads.add(request, core.log.committed);
  core.reads.acknowledge(core.id, core.reads.heartbeatContext() ?? noBytes);
  broadcastHeartbeat(core);
}

function answerRead(core: CoreState, request: Message, index: number): void {
  const context = request.context ?? noBytes;
  if (request.from === 0 || request.from === core.id) {
    core.readStates.push({ index, context });
    return;
  }
  core.messages.push({
    type: 'MsgReadIndexResp',
    to: request.from,
    from: core.id,
    term: core.term,
    index,
    context,
  });
}
