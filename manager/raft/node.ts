/**
 * Consensus, put together: disk, core, loop and member, from one set of options.
 *
 * In: RaftNodeOptions. Out: a running RaftNode. It decides nothing itself.
 */

import type { Clock, Log, Random } from '../../proto/ports.ts';
import type { CompactionPolicy } from './compaction.ts';
import type { Disk, RaftNode, RaftStart, RaftTransport, StateMachine } from './contract.ts';
import { createRawNode } from './core/core.ts';
import { RaftMember } from './member.ts';
import { recover } from './recovery.ts';
import { createSealer, type DataKeys } from './seal.ts';

const megabyte = 2 ** 20;
/**
 * One that was away for long is sent what it missed in messages of so much, with so much under way: the leader encodes
 * them between the commits of others, and each of a megabyte would hold those up for several milliseconds.
 */
const messageBytes = 2 ** 16;
const inflightBytes = megabyte / 4;

export interface RaftNodeOptions {
  readonly start: RaftStart;
  readonly disk: Disk;
  /** From createKeyFile or openKeyFile. */
  readonly dataKeys: DataKeys;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly transport: RaftTransport;
  readonly stateMachine: StateMachine;
  readonly tickMs?: number;
  readonly heartbeatTicks?: number;
  readonly electionTicks?: number;
  /** A snapshot is made after this many entries. */
  readonly snapshotEntries?: number;
  /** Entries kept behind a snapshot for followers that are a little behind. */
  readonly keepEntries?: number;
  /** Asked each time, in place of both: the cluster's settings. */
  readonly compactionPolicy?: () => CompactionPolicy;
  /** The node whose manager leaves the group in the change that gives the one on node `nodeId` its vote; undefined: none. */
  readonly replacedBy?: (nodeId: string) => string | undefined;
  /** How long a proposal, a read or a membership change waits for a leader and its majority. */
  readonly proposalTimeoutMs?: number;
  /** How often a full disk is tried again. */
  readonly diskRetryMs?: number;
  readonly segmentBytes?: number;
  /** From propose to applied, for each proposal that this member made as the leader. */
  readonly onCommit?: (latencyMs: number) => void;
  /** The member cannot go on (disk error, damage): the process should end. */
  readonly onFailure?: (error: unknown) => void;
}

const defaults = {
  tickMs: 100,
  heartbeatTicks: 1,
  electionTicks: 10,
  snapshotEntries: 10_000,
  keepEntries: 500,
  proposalTimeoutMs: 5_000,
  diskRetryMs: 500,
};
/** Options with the defaults filled in. */
export type RaftSettings = RaftNodeOptions & typeof defaults;

/**
 * Starts a member. Throws 'failed-precondition' when `start` does not fit what is on the disk,
 * 'corrupted' when that is damaged, 'disk-full'.
 */
export async function createRaftNode(options: RaftNodeOptions): Promise<RaftNode> {
  const settings: RaftSettings = { ...defaults, ...options };
  const sealer = createSealer(options.dataKeys, options.random);
  const recovered = await recover({ ...options, sealer });
  const core = createRawNode({
    id: recovered.self.raftId,
    electionTicks: settings.electionTicks,
    heartbeatTicks: settings.heartbeatTicks,
    storage: recovered.storage,
    applied: recovered.storage.snapshot().metadata.index,
    maxSizePerMessageBytes: messageBytes,
    maxCommittedSizePerReadyBytes: 16 * megabyte,
    maxUncommittedEntriesSizeBytes: 64 * megabyte,
    maxInflightMessages: 256,
    maxInflightBytes: inflightBytes,
    checkQuorum: true,
    preVote: true,
    readOnly: 'safe',
    random: () => options.random.float(),
    stepDownOnRemoval: true,
    disableProposalForwarding: true,
  });
  const member = new RaftMember(settings, recovered, core, sealer);
  member.begin();
  return member;
}
