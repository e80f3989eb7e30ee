/**
 * Who the members are: the consensus core knows only their numbers. The directory is replicated, in the
 * context of each membership change and at the head of each snapshot, so that all members agree on it.
 *
 * In: committed membership changes. Out: addresses. It holds removed members too, for a number is never
 * used again and a removed member that still calls must be told. Pure.
 */
import { pack, unpack } from 'msgpackr';
import type { Member, Standing } from './contract.ts';
import type { ConfChangeV2, ConfState, MemberId } from './core/types.ts';

/** Members by number, and those that were removed. */
export interface Directory {
  readonly members: ReadonlyMap<MemberId, Member>;
  readonly removed: ReadonlyMap<MemberId, Member>;
}

/** The context of a membership change: who asked (to find the waiting caller), and who is added. */
export interface ChangeContext {
  readonly request: string;
  readonly member?: Member;
}

/** A directory of `members` from which nobody was removed yet. */
export function directoryOf(members: readonly Member[]): Directory {
  return { members: new Map(members.map((member) => [member.raftId, member])), removed: new Map() };
}

export function encodeContext(context: ChangeContext): Uint8Array {
  return pack(context);
}

/** undefined for a context that encodeContext did not write (the core's own, empty one). */
export function decodeContext(data: Uint8Array): ChangeContext | undefined {
  return data.length === 0 ? undefined : (unpack(data) as ChangeContext);
}

/**
 * The directory after `change` was applied. Who leaves in a joint change has its vote, and its address, until the group
 * has left the joint state: `before` and `after` say who votes around the change; without them all go at once.
 */
export function changeDirectory(
  directory: Directory,
  change: ConfChangeV2,
  before?: ConfState,
  after?: ConfState,
): Directory {
  const added = decodeContext(change.context)?.member;
  const members = new Map(directory.members);
  const removed = new Map(directory.removed);
  const staysYet = (raftId: MemberId) => after?.votersOutgoing.includes(raftId) === true;
  const take = (raftId: MemberId): void => {
    const known = members.get(raftId);
    members.delete(raftId);
    if (known !== undefined) removed.set(raftId, known);
  };
  for (const { type, member: raftId } of change.changes) {
    if (type !== 'remove') {
      if (added !== undefined && added.raftId === raftId) members.set(raftId, added);
    } else if (!staysYet(raftId)) take(raftId);
  }
  const { voters = [], learners = [], votersOutgoing = [], learnersNext = [] } = after ?? {};
  const inGroup = new Set([...voters, ...learners, ...votersOutgoing, ...learnersNext]);
  for (const raftId of before?.votersOutgoing ?? []) if (!inGroup.has(raftId)) take(raftId);
  return { members, removed };
}

/** See Standing. A node that comes back gets a new number, so one node may have several that were removed. */
export function standingOf(directory: Directory, nodeId: string, raftId: MemberId | undefined): Standing {
  const { members, removed } = directory;
  const isNode = (member: Member | undefined) => member?.nodeId === nodeId;
  const byNumber = raftId === undefined ? undefined : (members.get(raftId) ?? removed.get(raftId));
  if (raftId !== undefined && byNumber !== undefined) {
    if (!isNode(byNumber)) return 'impostor';
    return members.has(raftId) ? 'member' : 'removed';
  }
  if ([...members.values()].some(isNode)) return raftId === undefined ? 'member' : 'unknown';
  return [...removed.values()].some(isNode) ? 'former' : 'unknown';
}

/** A directory of `self` alone: everyone else counts as removed. */
export function onlyMember(directory: Directory, self: Member): Directory {
  const removed = new Map([...directory.removed, ...directory.members]);
  removed.delete(self.raftId);
  return { members: new Map([[self.raftId, self]]), removed };
}

/** The data of a snapshot: the directory, then the state machine's state. */
export function encodeSnapshotData(directory: Directory, state: Uint8Array): Uint8Array {
  return Buffer.concat([...snapshotDataPieces(directory, [state])]);
}

/** The same in pieces, as the state comes in pieces. */
export function* snapshotDataPieces(
  directory: Directory,
  state: Iterable<Uint8Array>,
): Generator<Uint8Array, void> {
  const head = pack({ members: [...directory.members.values()], removed: [...directory.removed.values()] });
  const length = Buffer.allocUnsafe(4);
  length.writeUInt32LE(head.length, 0);
  yield Buffer.concat([length, head]);
  yield* state;
}

/** Takes encodeSnapshotData's work apart; throws on anything else. */
export function decodeSnapshotData(data: Uint8Array): {
  readonly directory: Directory;
  readonly state: Uint8Array;
} {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
  const end = 4 + bytes.readUInt32LE(0);
  const head = unpack(bytes.subarray(4, end)) as { members: Member[]; removed: Member[] };
  const removed = new Map(head.removed.map((member) => [member.raftId, member]));
  return { directory: { ...directoryOf(head.members), removed }, state: bytes.subarray(end) };
}
