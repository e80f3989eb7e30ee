/**
 * What becomes of a node's role: which one its next certificate gets, and the leader's next step towards the
 * role that is wanted. Pure. A manager that is demoted leaves the Raft group first and loses its certificate
 * after, so that no member is ever left without the right to speak to the others.
 */
import type { ClusterNode, NodeRole } from '../../proto/docker.ts';

/** The role that a node's next certificate is issued for. */
export function roleToCertify(node: ClusterNode): NodeRole {
  if (node.Spec.Role === 'manager') return 'manager';
  const hasLeft = node.Private.Role === 'worker' || !node.ManagerStatus;
  return hasLeft ? 'worker' : 'manager';
}

export type RoleStep =
  | { readonly kind: 'none' }
  /** Take the node out of the Raft group; look again afterwards. */
  | { readonly kind: 'remove-from-raft'; readonly nodeId: string }
  /** Set Private.Role, which the node's session tells it, so that it renews. */
  | { readonly kind: 'set-certified-role'; readonly role: NodeRole };

/** The leader's next step for one node, given the nodes that are members of the Raft group (learners too). */
export function roleStep(node: ClusterNode, raftMemberNodeIds: readonly string[]): RoleStep {
  const isMember = raftMemberNodeIds.includes(node.ID);
  if (node.Spec.Role === 'worker' && isMember) return { kind: 'remove-from-raft', nodeId: node.ID };
  if (node.Spec.Role !== node.Private.Role) return { kind: 'set-certified-role', role: node.Spec.Role };
  return { kind: 'none' };
}
