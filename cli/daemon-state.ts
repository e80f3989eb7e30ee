/** Where the daemon's node stands, and how the API is told of it. */
import type { Agent } from '../agent/agent.ts';
import type { HeldIdentity } from '../agent/identity.ts';
import type { ApiHost, Membership } from '../manager/api/contract.ts';
import { createMetrics, type Metrics } from '../manager/metrics.ts';
import type { ManagerServer } from '../manager/server.ts';
import { assertNever, ShoalError } from '../proto/errors.ts';
import type { NodeId } from '../proto/ids.ts';

export type State =
  | { readonly kind: 'none' }
  | { readonly kind: 'pending' }
  | { readonly kind: 'locked'; readonly nodeId: NodeId }
  | { readonly kind: 'member'; readonly agent: Agent; manager: ManagerServer | undefined }
  | { readonly kind: 'error'; readonly held: HeldIdentity | undefined; readonly message: string };

/** A network of the cluster for a container of the node's engine; see Agent.attachContainer. */
export function attachContainer(
  state: State,
  ...[network, names]: Parameters<ApiHost['attachContainer']>
): ReturnType<ApiHost['attachContainer']> {
  if (state.kind === 'member') return state.agent.attachContainer(network, names);
  return Promise.reject(new ShoalError('not-found', `network ${network} not found`));
}

/** The state as the API sees it; `nodeId` answers the node's own id while it has one. */
export function membershipOf(state: State, nodeId: () => NodeId): Membership {
  switch (state.kind) {
    case 'none':
    case 'pending':
    case 'locked':
      return state;
    case 'error':
      return {
        kind: 'error',
        message: state.message,
        ...(state.held ? { nodeId: state.held.certificate.nodeId as NodeId } : {}),
      };
    case 'member':
      if (state.manager) return { kind: 'manager', cluster: state.manager.cluster() };
      return {
        kind: 'worker',
        nodeId: nodeId(),
        managers: state.agent.managers.map((manager) => ({
          NodeID: manager.nodeId,
          Addr: manager.address,
        })),
      };
    default:
      return assertNever(state);
  }
}

/** The node's metrics, read from whatever it is when they are asked for. */
export function metricsOf(state: () => State): Metrics {
  const member = () => {
    const now = state();
    return now.kind === 'member' ? now : undefined;
  };
  return createMetrics({
    store: () => member()?.manager?.manager.store,
    raft: () => member()?.manager?.manager.raft.status(),
    networks: () => member()?.agent.dataPlane,
  });
}

/** The node that is locked: its key is sealed, or its log alone (it was sealed by an earlier version). */
export function lockedNode(error: ShoalError, held: HeldIdentity | undefined): NodeId {
  return (error.details.nodeId ?? held?.certificate.nodeId ?? '') as NodeId;
}
