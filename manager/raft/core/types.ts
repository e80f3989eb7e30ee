/**
 * The words of the consensus core: what it is told, what it asks for. Plain data, no behaviour. Terms,
 * indexes and member ids are integers below 2^53. The contract is that of etcd's raft: the caller steps
 * messages and ticks in, takes a Ready out, makes its entries and hard state durable, sends its
 * messages, applies its committed entries and calls advance().
 */

/** A member's number in the group. 0 means none. */
export type MemberId = number;

export type EntryType = 'normal' | 'conf-change' | 'conf-change-v2';

export interface Entry {
  readonly term: number;
  readonly index: number;
  readonly type: EntryType;
  /** Opaque for `normal`; the encoding of a ConfChangeV2 otherwise (see encodeConfChange). */
  readonly data: Uint8Array;
}

/** What must survive a restart besides the entries. */
export interface HardState {
  readonly term: number;
  readonly vote: MemberId;
  readonly commit: number;
}

/** Who is in the group; `outgoing` is not empty only during a joint change. */
export interface ConfState {
  readonly voters: readonly MemberId[];
  readonly votersOutgoing: readonly MemberId[];
  readonly learners: readonly MemberId[];
  readonly learnersNext: readonly MemberId[];
  readonly autoLeave: boolean;
}

export interface SnapshotMetadata {
  readonly index: number;
  readonly term: number;
  readonly confState: ConfState;
}

export interface Snapshot {
  readonly metadata: SnapshotMetadata;
  readonly data: Uint8Array;
}

export type MessageType =
  | 'MsgHup'
  | 'MsgBeat'
  | 'MsgProp'
  | 'MsgApp'
  | 'MsgAppResp'
  | 'MsgVote'
  | 'MsgVoteResp'
  | 'MsgSnap'
  | 'MsgHeartbeat'
  | 'MsgHeartbeatResp'
  | 'MsgUnreachable'
  | 'MsgSnapStatus'
  | 'MsgCheckQuorum'
  | 'MsgTransferLeader'
  | 'MsgTimeoutNow'
  | 'MsgReadIndex'
  | 'MsgReadIndexResp'
  | 'MsgPreVote'
  | 'MsgPreVoteResp'
  | 'MsgForgetLeader'
  | 'MsgStorageAppend'
  | 'MsgStorageAppendResp'
  | 'MsgStorageApply'
  | 'MsgStorageApplyResp';

/** One message between members. Absent numbers are 0, absent lists empty, absent flags false. */
export interface Message {
  readonly type: MessageType;
  readonly to: MemberId;
  readonly from: MemberId;
  readonly term: number;
  readonly logTerm?: number;
  readonly index?: number;
  readonly entries?: readonly Entry[];
  readonly commit?: number;
  /** The sender's vote, in vote messages of async storage; 0 otherwise. */
  readonly vote?: MemberId;
  readonly snapshot?: Snapshot;
  readonly reject?: boolean;
  readonly rejectHint?: number;
  /** Request context of read-index, or 'CampaignTransfer' marks; opaque. */
  readonly context?: Uint8Array;
  /** Of MsgStorageAppend and MsgStorageApply: to be delivered, to others or back, once that is done. */
  readonly responses?: readonly Message[];
}

export type ConfChangeType = 'add-voter' | 'remove' | 'add-learner' | 'update';

export interface ConfChangeSingle {
  readonly type: ConfChangeType;
  readonly member: MemberId;
}

/** auto: simple when one change suffices, else joint and left by itself; implicit/explicit: joint. */
export type ConfChangeTransition = 'auto' | 'implicit' | 'explicit';

export interface ConfChangeV2 {
  readonly transition: ConfChangeTransition;
  readonly changes: readonly ConfChangeSingle[];
  /** Opaque to the core: who the members are, for the layer above. */
  readonly context: Uint8Array;
}

export type RoleName = 'follower' | 'pre-candidate' | 'candidate' | 'leader';

/** What may change without being durable. */
export interface SoftState {
  readonly lead: MemberId;
  readonly role: RoleName;
}

/** A read that was asked for with readIndex(context) may be served once `index` is applied. */
export interface ReadState {
  readonly index: number;
  readonly context: Uint8Array;
}

/** A batch of work for the caller, in the order of its fields; see the head of this file. */
export interface Ready {
  readonly softState: SoftState | undefined;
  /** Only when it changed. */
  readonly hardState: HardState | undefined;
  readonly readStates: readonly ReadState[];
  /** To be made durable before `messages` are sent (the leader's own MsgApp may go out at once). */
  readonly entries: readonly Entry[];
  /** To be made durable and handed to the state machine, in place of everything before it. */
  readonly snapshot: Snapshot | undefined;
  readonly committedEntries: readonly Entry[];
  readonly messages: readonly Message[];
  /** Whether entries and hardState must be flushed before messages leave. */
  readonly mustSync: boolean;
}

export type ProgressStateName = 'probe' | 'replicate' | 'snapshot';

/** What the leader knows of one member. */
export interface ProgressStatus {
  readonly match: number;
  readonly next: number;
  readonly state: ProgressStateName;
  readonly pendingSnapshot: number;
  readonly recentActive: boolean;
  readonly paused: boolean;
  readonly inflight: number;
  /** No more may be sent ahead until something is acknowledged. */
  readonly inflightFull: boolean;
  readonly isLearner: boolean;
}

export interface CoreStatus {
  readonly id: MemberId;
  readonly term: number;
  readonly vote: MemberId;
  readonly commit: number;
  readonly applied: number;
  readonly lead: MemberId;
  readonly role: RoleName;
  readonly leadTransferee: MemberId;
  readonly configuration: ConfState;
  /** Empty unless leader. In ascending order of member. */
  readonly progress: ReadonlyMap<MemberId, ProgressStatus>;
}

/**
 * The stable log as the core reads it. Every method answers from memory at once. Errors are thrown as
 * CompactedError and UnavailableError (core/log.ts); snapshot() throws the latter when it has none yet.
 */
export interface Storage {
  initialState(): { hardState: HardState; confState: ConfState };
  /** Entries in [low, high), at least one, then up to maxBytes in all. */
  entries(low: number, high: number, maxBytes: number): readonly Entry[];
  term(index: number): number;
  lastIndex(): number;
  /** Index of the first entry still in the log: one past the snapshot it starts from. */
  firstIndex(): number;
  snapshot(): Snapshot;
}

export interface CoreConfig {
  readonly id: MemberId;
  /** Ticks without a leader before an election; the actual timeout is drawn from [n, 2n). */
  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  readonly storage: Storage;
  /** Index up to which the state machine has applied; 0 for a fresh one. */
  readonly applied: number;
  readonly maxSizePerMessageBytes: number;
  readonly maxCommittedSizePerReadyBytes: number;
  readonly maxUncommittedEntriesSizeBytes: number;
  readonly maxInflightMessages: number;
  readonly maxInflightBytes: number;
  readonly checkQuorum: boolean;
  readonly preVote: boolean;
  readonly readOnly: 'safe' | 'lease-based';
  /** A number in [0, 1) for the randomized election timeout. */
  readonly random: () => number;
  readonly disableConfChangeValidation?: boolean;
  readonly stepDownOnRemoval?: boolean;
  /**
   * Ready's work comes as messages to `appendThread` and `applyThread` (core/core.ts) that are worked off
   * in order, each thread at its own pace, and whose responses are then delivered; advance() is not used.
   */
  readonly asyncStorageWrites?: boolean;
  readonly disableProposalForwarding?: boolean;
}

/** The core's door, as etcd's RawNode. Methods throw ProposalDropped or StepError (core/core.ts). */
export interface RawNode {
  tick(): void;
  campaign(): void;
  propose(data: Uint8Array): void;
  proposeConfChange(change: ConfChangeV2): void;
  /** To be called when a committed conf-change entry is applied; answers the group from then on. */
  applyConfChange(change: ConfChangeV2): ConfState;
  step(message: Message): void;
  hasReady(): boolean;
  ready(): Ready;
  /** The last Ready has been dealt with in full. Not used with asyncStorageWrites. */
  advance(): void;
  status(): CoreStatus;
  reportUnreachable(member: MemberId): void;
  reportSnapshot(member: MemberId, ok: boolean): void;
  transferLeader(to: MemberId): void;
  forgetLeader(): void;
  /** Asks for a linearizable read point; the answer comes in Ready.readStates with the same context. */
  readIndex(context: Uint8Array): void;
}
