/**
 * The consensus layer as the rest of the manager sees it, and the effects it is handed.
 *
 * In: opaque proposals, membership changes, clock, disk, transport. Out: every committed entry, in
 * order, to the state machine; the leader; read points. It never looks into an entry and knows no store.
 */
import type { MemberId, Message } from './core/types.ts';
import type { SealedFile } from './sealed-file.ts';

/** A manager in the group. `address` is host:port of its cluster port. */
export interface Member {
  readonly raftId: MemberId;
  readonly nodeId: string;
  readonly address: string;
}

/** The replicated state machine. Its methods are deterministic and synchronous. */
export interface StateMachine {
  /** Applies one committed proposal; the answer is handed to whoever proposed it. */
  apply(index: number, data: Uint8Array): unknown;
  /** The whole state as of the last applied index. */
  snapshot(): Uint8Array;
  /**
   * The same bytes in pieces, each a few milliseconds' work at most; as of the call, whatever is applied before the
   * last one is taken. Absent: snapshot() is quick.
   */
  snapshotPieces?(): Iterable<Uint8Array>;
  /** Replaces the whole state; `index` is the last one it contains. */
  restore(index: number, data: Uint8Array): void;
  /**
   * The same in steps, each a few milliseconds' work at most; until the last one the state is what it was before.
   * Absent: restore() is quick.
   */
  restoreSteps?(index: number, data: Uint8Array): Iterator<unknown>;
}

/** Sends to other members. May lose, never blocks. Delivery goes to RaftNode.receive of the other side. */
export interface RaftTransport {
  send(to: Member, messages: readonly Message[]): void;
  /** Members to keep connections to; called on every membership change. */
  setMembers(members: readonly Member[]): void;
  /**
   * Asks the leader to append; resolves with the entry's index and the state machine's answer there.
   * Rejects with what proposeAsLeader threw there, or 'unavailable'; details.outcome is 'not-appended'
   * when the proposal surely never reached the leader.
   */
  forwardProposal(leader: Member, data: Uint8Array): Promise<ProposalResult>;
  /** Asks the leader for a read point. */
  forwardReadIndex(leader: Member): Promise<number>;
  /** Whether a connection to `member` stands right now; absent when the transport cannot tell. */
  isConnected?(member: Member): boolean;
}

export interface ProposalResult {
  readonly index: number;
  /** What StateMachine.apply answered; over the wire it is msgpack-encoded. */
  readonly result: unknown;
}

/**
 * The disk under the log: a flat folder of files. The real one writes with O_DSYNC, the simulated one
 * can lose what was not flushed, tear, flip bits, fill up (throws ShoalError 'disk-full').
 */
export interface Disk {
  list(): Promise<readonly string[]>;
  read(name: string): Promise<Uint8Array>;
  /** Creates or truncates `name` for appending; its directory entry is durable on return. */
  create(name: string): Promise<AppendFile>;
  /** Opens an existing file for appending after its first `keepBytes`; what follows is cut off. */
  reopen(name: string, keepBytes: number): Promise<AppendFile>;
  /** Writes a whole file, given at once or in pieces, so that after a crash it is the old one or the new one. */
  replace(name: string, data: Uint8Array | readonly Uint8Array[]): Promise<void>;
  /**
   * As replace, of a large file that is sealed and written in another thread while this one does other things. Absent:
   * where there is no other.
   */
  replaceSealed?(name: string, file: SealedFile): Promise<void>;
  remove(name: string): Promise<void>;
}

export interface AppendFile {
  /** undefined: the bytes are durable already; else that is when it resolves. Never throws. One call at a time. */
  append(data: Uint8Array): Promise<void> | undefined;
  close(): Promise<void>;
}

export type RaftRole = 'follower' | 'candidate' | 'leader' | 'learner' | 'removed';

export interface RaftStatus {
  readonly raftId: MemberId;
  readonly role: RaftRole;
  readonly term: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly lastIndex: number;
  readonly leader: Member | undefined;
  readonly members: readonly (Member & { readonly isLearner: boolean; readonly isActive: boolean })[];
}

/**
 * - `member`: it is one, under that number when one is named.
 * - `removed`: it was this member, which the group removed.
 * - `former`: it was another member once and is none now: it was removed for good, or comes back anew.
 * - `impostor`: the number is another node's.
 * - `unknown`: nothing is known of it, which may be for lack of the newest entries.
 */
export type Standing = 'member' | 'removed' | 'former' | 'impostor' | 'unknown';

/** How to start a member: a new group of one, an existing one from its disk, or as a joiner. */
export type RaftStart =
  | {
      readonly kind: 'bootstrap';
      readonly self: Member;
      /** The group goes on from another one's state: where that began, and who was in it. */
      readonly after?: { readonly index: number; readonly term: number; readonly members: readonly Member[] };
    }
  | { readonly kind: 'join'; readonly self: Member; readonly members: readonly Member[] }
  | { readonly kind: 'restart' }
  /** Recovers from a lost quorum: goes on from this member's disk as the only one of the group. */
  | { readonly kind: 'force-new-cluster'; readonly self: Member };

/**
 * A running member. Errors: 'no-quorum' (nobody leads within the time limit), 'timeout' (someone does, but
 * did not answer in time), 'disk-full', 'unavailable' (details.outcome 'unknown': the change may have been
 * made), 'not-a-manager' (removed), 'internal' (this member has failed).
 */
export interface RaftNode {
  /** Appends `data` through the leader, wherever it is; resolves once applied on THIS member. */
  propose(data: Uint8Array): Promise<ProposalResult>;
  /** Resolves when this member has applied everything acknowledged before the call (linearizable read). */
  readBarrier(): Promise<void>;
  /**
   * Only on the leader: adds a learner, and promotes it when it has caught up. Resolves once added. For a
   * raftId that is a member already it only changes the address.
   */
  addMember(member: Member): Promise<void>;
  /** Removes a member; refuses ('failed-precondition') what would lose the quorum unless `force`. */
  removeMember(nodeId: string, options?: { readonly force?: boolean }): Promise<void>;
  /** Hands leadership to the most advanced other voter; resolves when this member no longer leads. */
  transferLeadership(): Promise<void>;
  status(): RaftStatus;
  /** What this member knows of node `nodeId`, or of that node as member `raftId`. */
  standing(nodeId: string, raftId?: MemberId): Standing;
  /** What is to be said on a connection of node `nodeId`: that the members it once was are none any more. */
  removalNotices(nodeId: string): readonly Message[];
  /** A message from another member, off the wire. */
  receive(message: Message): void;
  /** From the transport: what was sent to the member of late is probably lost. */
  reportUnreachable(raftId: MemberId): void;
  /** From the transport: nothing listens any more where the member was connected a moment ago. */
  reportGone(raftId: MemberId): void;
  /** From the transport: a snapshot (MsgSnap) reached the member, or did not. */
  reportSnapshot(raftId: MemberId, ok: boolean): void;
  /**
   * For the leader's side of the Forward service. Throws 'not-leader' with details.leader elsewhere;
   * details.outcome is 'not-appended' when the proposal may be repeated without fear.
   */
  proposeAsLeader(data: Uint8Array): Promise<ProposalResult>;
  readIndexAsLeader(): Promise<number>;
  /** Called with the status on every change of leader, role, term or members. Returns how to stop it. */
  onChange(listener: (status: RaftStatus) => void): () => void;
  /** Stops ticking and closes the log. Does not transfer leadership by itself. */
  stop(): Promise<void>;
}
