/**
 * Keeps each node's object in step with the Raft group: its ManagerStatus, and the way from one role to
 * another. In: the nodes and the group as the leader sees them. Out: changes, and members to take out.
 * Pure; leader.ts carries it out.
 */
import type { ClusterNode } from '../proto/docker.ts';
import { ShoalError } from '../proto/errors.ts';
import { asId, type NodeId } from '../proto/ids.ts';
import { roleStep } from './ca/roles.ts';
import type { RaftStatus } from './raft/contract.ts';
import type { Change } from './store/change.ts';
import type { View } from './store/store.ts';

export interface KeeperPlan {
  readonly changes: readonly Change[];
  /**
   * Roles: those that nodes' next certificates are for, and of a manager that was replaced. Each is an entry of its own:
   * refused when the node was changed meanwhile, for a certificate that it got in that moment must stay recorded.
   */
  readonly roles: readonly (readonly Change[])[];
  /** Nodes whose members are to leave the group, demoted ones; in order. */
  readonly removals: readonly string[];
}

type ManagerStatus = NonNullable<ClusterNode['ManagerStatus']>;

/** What differs between the nodes' objects and the group, and who is to leave it. */
export function keeperPlan(view: View, status: RaftStatus): KeeperPlan {
  const memberIds = status.members.map((member) => member.nodeId);
  const changes: Change[] = [];
  const roles: (readonly Change[])[] = [];
  // Members of nodes that are gone: the entry that removed the node came before the member was taken out.
  const removals = memberIds.filter((id) => view.get('node', asId<NodeId>(id)) === undefined);
  for (const node of view.list('node')) {
    const wanted = managerStatusOf(node, status);
    const isSame = sameStatus(node.ManagerStatus, wanted);
    const ended = endOfReplacement(view, status, node);
    if (ended) {
      roles.push(ended);
      continue;
    }
    const step = roleStep(node, memberIds);
    if (step.kind === 'remove-from-raft') removals.push(step.nodeId);
    if (step.kind === 'set-certified-role') {
      const { ManagerStatus: _before, ...rest } = node;
      const Private = { ...node.Private, Role: step.role };
      const object = { ...rest, ...(wanted ? { ManagerStatus: wanted } : {}), Private };
      roles.push([{ op: 'update', kind: 'node', object }]);
    } else if (!isSame) {
      changes.push({
        op: 'merge',
        kind: 'node',
        id: node.ID,
        fields: { ManagerStatus: wanted } as Partial<ClusterNode>,
      });
    }
  }
  return { changes, roles, removals };
}

/**
 * What ends a replacement (`shoal node promote A --demote B`): A votes, and B becomes a worker; or one of them was given
 * another role, or went, meanwhile, and B stays what it is. Undefined while A has yet to catch up.
 */
function endOfReplacement(view: View, status: RaftStatus, node: ClusterNode): readonly Change[] | undefined {
  const { Replaces, ...Private } = node.Private;
  if (Replaces === undefined) return undefined;
  const replaced = view.get('node', Replaces);
  const isOff = node.Spec.Role === 'worker' || replaced?.Spec.Role !== 'manager';
  if (!isOff && !hasVote(status, node.ID)) return undefined;
  const end: Change = { op: 'update', kind: 'node', object: { ...node, Private } };
  if (isOff || !replaced) return [end];
  const object = { ...replaced, Spec: { ...replaced.Spec, Role: 'worker' as const } };
  return [end, { op: 'update', kind: 'node', object }];
}

function hasVote({ members }: RaftStatus, nodeId: string): boolean {
  return members.some((member) => member.nodeId === nodeId && !member.isLearner);
}

/** Throws 'permission-denied' for a manager that left the group in favour of another one and is no worker yet. */
export function refuseReplaced(view: View, status: RaftStatus, nodeId: string): void {
  const successor = view
    .list('node')
    .find((node) => node.Private.Replaces === nodeId && hasVote(status, node.ID));
  if (!successor) return;
  throw new ShoalError(
    'permission-denied',
    `node ${nodeId} was replaced as a manager by node ${successor.ID}, and is a worker in a moment`,
  );
}

/**
 * Absent for nodes that are no members; the leader reaches itself. A learner's is unknown: it answers, but
 * has no vote yet, and whoever stops another manager must not count on it.
 */
function managerStatusOf(node: ClusterNode, status: RaftStatus): ManagerStatus | undefined {
  const member = status.members.find((candidate) => candidate.nodeId === node.ID);
  if (!member) return undefined;
  const isLeader = status.leader?.raftId === member.raftId;
  return {
    ...(isLeader ? { Leader: true } : {}),
    Reachability: reachability(member, isLeader),
    Addr: member.address,
  };
}

function reachability(
  member: RaftStatus['members'][number],
  isLeader: boolean,
): ManagerStatus['Reachability'] {
  if (member.isLearner) return 'unknown';
  return member.isActive || isLeader ? 'reachable' : 'unreachable';
}

function sameStatus(a: ManagerStatus | undefined, b: ManagerStatus | undefined): boolean {
  return a?.Leader === b?.Leader && a?.Reachability === b?.Reachability && a?.Addr === b?.Addr;
}
