/**
 * Who may call on the cluster's port, beyond what TLS verified: a certificate outlives a node's removal and a
 * manager's demotion, its rights do not.
 *
 * In: calls, the store, the group. Out: the caller's identity, or a refusal. What only the newest entries tell
 * is asked of the leader alone, for a manager that is behind must not turn away a node that just joined.
 */
import { X509Certificate } from 'node:crypto';
import { ShoalError } from '../proto/errors.ts';
import { asId, type ClusterId, type NodeId } from '../proto/ids.ts';
import { type AuthenticatedCall, callerValidFromMs, type RequireCaller, requireRole } from '../proto/rpc.ts';
import type { RaftNode } from './raft/contract.ts';
import type { View } from './store/store.ts';

export interface CallersOptions {
  readonly clusterId: ClusterId;
  readonly store: View;
  readonly raft: Pick<RaftNode, 'standing'>;
  /** Whether this manager leads and has applied everything before. */
  readonly isLeading: () => boolean;
}

/**
 * As requireRole; refuses also certificates of other clusters and, on the leader, nodes that were removed
 * ('not-found', which tells an agent that it is out) and, where only managers may call, those that are none.
 */
export function callerRules({ clusterId, store, raft, isLeading }: CallersOptions): RequireCaller {
  return (call, ...roles) => {
    const caller = requireRole(call, ...roles);
    if (caller.clusterId !== clusterId) {
      throw new ShoalError(
        'permission-denied',
        `node ${caller.nodeId} belongs to another cluster (${caller.clusterId})`,
      );
    }
    if (!isLeading()) return caller;
    if (!store.get('node', asId<NodeId>(caller.nodeId))) {
      throw new ShoalError('not-found', `node ${caller.nodeId} not found: it was removed from the cluster`);
    }
    if (!roles.includes('worker') && raft.standing(caller.nodeId) !== 'member') {
      throw new ShoalError(
        'permission-denied',
        `${call.getPath()}: node ${caller.nodeId} is not one of the cluster's managers (any more)`,
      );
    }
    return caller;
  };
}

/**
 * Whether a node that was a manager once and is none, as far as this manager knows, may be one again: it is to
 * be one, or its certificate is newer than the last that this manager saw it get.
 */
export function mayReturn(store: View, call: AuthenticatedCall, nodeId: string): boolean {
  const node = store.get('node', asId<NodeId>(nodeId));
  if (!node) return false;
  if (node.Spec.Role === 'manager') return true;
  const known = node.Private.Certificate?.Pem;
  const validFromMs = callerValidFromMs(call);
  if (!known || validFromMs === undefined) return false;
  return validFromMs > Date.parse(new X509Certificate(known).validFrom);
}
